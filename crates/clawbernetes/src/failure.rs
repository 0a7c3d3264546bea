//! How a command ends when it doesn't do what was asked.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use api::{ApiError, ErrorCode, error::ErrorBody};

/// What a command comes to: an exit status, or a failure that is still to be told.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// Why a command didn't do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error with a code.
    Error(Box<ApiError>),
    /// Whoever read the output has gone (`| head`): nothing is left to say.
    Pipe,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Error(Box::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Pipe
        } else {
            ApiError::internal("the output can't be written")
                .cause(error.to_string())
                .into()
        }
    }
}

impl Failure {
    /// Tells the failure on standard error, and gives the exit status.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        match self {
            Self::Pipe => ExitCode::SUCCESS,
            Self::Error(error) => {
                // Standard error may be closed too; the exit status remains.
                let _ = io::stderr().write_all(render(error, json).as_bytes());
                ExitCode::from(error.code.exit_status())
            }
        }
    }
}

/// The error as lines for people, or as one JSON object.
pub(crate) fn render(error: &ApiError, json: bool) -> String {
    if json {
        let body = ErrorBody { error: error.clone() };
        return format!(
            "{}\n",
            serde_json::to_string(&body).unwrap_or_else(|_| error.code.to_string())
        );
    }
    let mut text = format!("error[{}]: {}\n", error.code, error.message);
    if let Some(field) = &error.field {
        // A field that the message names already is no news.
        if !error.message.contains(field.as_str()) {
            text.push_str(&format!("field: {field}\n"));
        }
    }
    if let Some(cause) = &error.cause {
        text.push_str(&format!("cause: {cause}\n"));
    }
    if let Some(hint) = error.hint.as_deref().or_else(|| usual_hint(error.code)) {
        text.push_str(&format!("try: {hint}\n"));
    }
    text
}

/// What usually helps, where an error says nothing itself.
fn usual_hint(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::AuthFailed => Some("log in with: clawbernetes auth login (and see: clawbernetes auth status)"),
        ErrorCode::PermissionDenied => Some("see what your token allows with: clawbernetes auth whoami"),
        ErrorCode::NoGpusAvailable => Some("wait, or try --priority high"),
        ErrorCode::OomKilled => Some("give it more memory with --memory"),
        ErrorCode::ImageNotFound => Some("check the image's name and its registry"),
        ErrorCode::GpuThermalThrottle => Some("move it with: clawbernetes workload migrate <id>"),
        ErrorCode::NodeUnreachable => Some("see the nodes with: clawbernetes node list"),
        ErrorCode::WorkloadTimeout => Some("give it more time with --timeout"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_in_lines_or_as_json() {
        let error = ApiError::invalid("spec.gpus.count", "9 GPUs is more than any node has").cause("the largest has 8");
        insta::assert_snapshot!(render(&error, false), @r"
        error[INVALID_ARGUMENT]: 9 GPUs is more than any node has
        field: spec.gpus.count
        cause: the largest has 8
        ");
        insta::assert_snapshot!(render(&error, true), @r#"{"error":{"code":"INVALID_ARGUMENT","message":"9 GPUs is more than any node has","cause":"the largest has 8","field":"spec.gpus.count"}}"#);
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(failure, Failure::Pipe));
    }
}
