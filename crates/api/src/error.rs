//! Errors as they leave the system: a code, what happened, why, and what would help.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The closed list of error codes. A code is a promise to scripts: it never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// Nothing listens at the gateway's address.
    #[serde(rename = "ECONNREFUSED")]
    ConnectionRefused,
    /// No node can take the workload now.
    NoGpusAvailable,
    /// No token, or one that is wrong, expired or revoked.
    AuthFailed,
    /// The registry or engine doesn't know the image, or the registry can't be reached.
    ImageNotFound,
    /// The kernel or the engine killed the workload at its memory limit.
    OomKilled,
    /// The GPU slowed itself down because of heat.
    GpuThermalThrottle,
    /// The node doesn't answer.
    NodeUnreachable,
    /// The workload ran longer than its timeout.
    WorkloadTimeout,
    /// A request, flag or manifest field that can't be accepted.
    InvalidArgument,
    /// No such thing.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// It changed meanwhile, or its state doesn't allow this.
    Conflict,
    /// Known caller, but its role or scopes don't allow this.
    PermissionDenied,
    /// Over a quota or a rate limit.
    QuotaExceeded,
    /// The disk is full; nothing acknowledged is lost.
    StorageFull,
    /// It took longer than the caller was ready to wait.
    #[serde(rename = "TIMED_OUT")]
    TimedOut,
    /// A defect of Clawbernetes, or of what it stands on.
    Internal,
}

impl ErrorCode {
    /// The code of this name, as it is written.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
    }

    /// The code as printed: `NOT_FOUND`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "ECONNREFUSED",
            Self::NoGpusAvailable => "NO_GPUS_AVAILABLE",
            Self::AuthFailed => "AUTH_FAILED",
            Self::ImageNotFound => "IMAGE_NOT_FOUND",
            Self::OomKilled => "OOM_KILLED",
            Self::GpuThermalThrottle => "GPU_THERMAL_THROTTLE",
            Self::NodeUnreachable => "NODE_UNREACHABLE",
            Self::WorkloadTimeout => "WORKLOAD_TIMEOUT",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::Conflict => "CONFLICT",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::StorageFull => "STORAGE_FULL",
            Self::TimedOut => "TIMED_OUT",
            Self::Internal => "INTERNAL",
        }
    }

    /// The status of an HTTP answer that carries this code.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::AuthFailed => 401,
            Self::PermissionDenied => 403,
            Self::NotFound | Self::ImageNotFound => 404,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::QuotaExceeded => 429,
            Self::NoGpusAvailable | Self::NodeUnreachable | Self::ConnectionRefused => 503,
            Self::TimedOut | Self::WorkloadTimeout => 504,
            Self::StorageFull => 507,
            Self::OomKilled | Self::GpuThermalThrottle | Self::Internal => 500,
        }
    }

    /// The exit status of a command that fails with this code.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::InvalidArgument => 2,
            Self::NotFound | Self::ImageNotFound => 3,
            Self::AuthFailed | Self::PermissionDenied => 4,
            Self::ConnectionRefused | Self::NodeUnreachable => 5,
            Self::NoGpusAvailable | Self::QuotaExceeded => 6,
            Self::TimedOut | Self::WorkloadTimeout => 7,
            Self::AlreadyExists | Self::Conflict => 8,
            Self::OomKilled | Self::GpuThermalThrottle | Self::StorageFull | Self::Internal => 1,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why somebody isn't let in, finer than by code. A promise to scripts, as codes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// There was no credential.
    TokenMissing,
    /// It isn't written as one.
    TokenMalformed,
    /// Nobody has it, or its secret is wrong.
    TokenUnknown,
    /// Its time is over.
    TokenExpired,
    /// It was revoked.
    TokenRevoked,
    /// It let in as many nodes as it may.
    TokenUsedUp,
    /// It is for another namespace.
    OtherNamespace,
    /// It is for one namespace, and this is about the fleet.
    FleetWide,
    /// The call came unencrypted where that isn't taken.
    TlsRequired,
    /// The peer has no certificate.
    CertificateMissing,
    /// It can't be read, or its signature is wrong.
    CertificateMalformed,
    /// Its time is over.
    CertificateExpired,
    /// Its time has yet to come.
    CertificateNotYetValid,
    /// It was revoked.
    CertificateRevoked,
    /// Another authority issued it.
    CertificateForeign,
    /// It is for another name.
    CertificateWrongName,
    /// It is for something else: a node's on an operator's call.
    CertificateWrongUse,
}

impl Reason {
    /// The reason of this name, as it is written.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
    }
}

/// An error for a caller: everything in it may be shown to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
#[serde(rename_all = "camelCase")]
pub struct ApiError {
    /// What kind of error.
    pub code: ErrorCode,
    /// Which of the things that the code stands for, where they are told apart: `token-expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What happened, in one sentence.
    pub message: String,
    /// Why, where more is known than the message says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What would help: a command, or what to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The offending field of the request, as a path such as `spec.gpus.count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl ApiError {
    /// An error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: None,
            message: message.into(),
            cause: None,
            hint: None,
            field: None,
        }
    }

    /// The same, with the reason for which somebody isn't let in.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// There is no TLS with the gateway at an address. `reason`: what is wrong with a certificate; `None`: something else.
    #[must_use]
    pub fn no_tls(gateway: &str, reason: Option<Reason>) -> Self {
        let (what, hint) = match reason {
            Some(Reason::CertificateMissing) => ("is missing", None),
            Some(Reason::CertificateExpired) => ("has expired", Some("do the clocks of both machines agree?")),
            Some(Reason::CertificateNotYetValid) => ("isn't valid yet", Some("do the clocks of both machines agree?")),
            Some(Reason::CertificateRevoked) => ("was revoked", None),
            Some(Reason::CertificateForeign) => (
                "is of another authority than the one that is trusted here",
                Some("a token from that gateway itself names its authority; or name it with --ca FILE"),
            ),
            Some(Reason::CertificateWrongName) => (
                "is for other names than this one",
                Some("call it by one of its names, or start it with --tls-name NAME"),
            ),
            Some(Reason::CertificateWrongUse) => ("is for something else", None),
            Some(_) => ("can't be read", None),
            None => {
                let message = format!("there is no TLS with what answers at {gateway}");
                return Self::new(ErrorCode::AuthFailed, message)
                    .hint("is it a Clawbernetes gateway, and is the address right?");
            }
        };
        Self {
            reason,
            hint: hint.map(str::to_owned),
            ..Self::new(
                ErrorCode::AuthFailed,
                format!("the certificate of the gateway at {gateway} {what}"),
            )
        }
    }

    /// [`ErrorCode::InvalidArgument`] on a field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(ErrorCode::InvalidArgument, message)
        }
    }

    /// [`ErrorCode::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// [`ErrorCode::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }

    /// [`ErrorCode::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// With the cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// With what would help.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The body of every failed answer: `{"error": {…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_they_are_displayed() {
        for code in [
            ErrorCode::ConnectionRefused,
            ErrorCode::NoGpusAvailable,
            ErrorCode::OomKilled,
            ErrorCode::TimedOut,
        ] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
    }
}
