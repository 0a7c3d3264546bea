//! What can go wrong, and in which field.

use jiff::Timestamp;

/// Nothing was issued, read or signed, for this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name breaks a rule.
    #[error("'{given}' is no name for a certificate: {rule}")]
    Name {
        /// What was given.
        given: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A subject alternative name is neither a DNS name nor an IP address.
    #[error("'{given}' is neither a DNS name nor an IP address: {rule}")]
    San {
        /// What was given.
        given: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A server's certificate without a name that clients could check.
    #[error("a server's certificate needs at least one DNS name or IP address")]
    NoSan,
    /// More names than one certificate holds.
    #[error("{count} names are more than one certificate holds ({limit})")]
    TooManySans {
        /// How many were given.
        count: usize,
        /// How many fit.
        limit: usize,
    },
    /// The kind of key isn't known.
    #[error("there is no algorithm '{given}' (ecdsa or rsa)")]
    Algorithm {
        /// What was given.
        given: String,
    },
    /// The kind of key doesn't come in this size.
    #[error("{algorithm} has no key size {given} ({accepted})")]
    KeySize {
        /// The kind of key.
        algorithm: &'static str,
        /// What was given, bits.
        given: u32,
        /// What is accepted.
        accepted: &'static str,
    },
    /// Less than a second, which is the unit of certificates' times.
    #[error("a certificate must be valid for at least a second")]
    ValidityZero,
    /// The certificate would outlive what its authority is trusted for.
    #[error("a certificate until {asked} would outlive its authority's, which ends at {issuer_until}")]
    ValidityPastIssuer {
        /// Until when it was asked for; the last representable time if that is exceeded.
        asked: Timestamp,
        /// The authority's end.
        issuer_until: Timestamp,
    },
    /// The authority's certificate, or one above it, isn't valid at this time.
    #[error("the authority's certificate '{subject}' is valid from {not_before} until {not_after}, not at {now}")]
    AuthorityNotValid {
        /// Whose certificate.
        subject: String,
        /// From when.
        not_before: Timestamp,
        /// Until when.
        not_after: Timestamp,
        /// When it was to be used.
        now: Timestamp,
    },
    /// A text isn't the PEM of what was expected.
    #[error("{what}: no PEM of it could be read: {detail}")]
    Pem {
        /// What was expected.
        what: &'static str,
        /// What was found.
        detail: String,
    },
    /// The bytes aren't the DER of what was expected.
    #[error("{what}: {detail}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What was found.
        detail: String,
    },
    /// A key of a kind that isn't used here.
    #[error("{what}: only ECDSA keys on P-256 and P-384, and RSA keys of 2048, 3072 and 4096 bits are supported")]
    KeyUnsupported {
        /// Whose key.
        what: &'static str,
    },
    /// The private key isn't the certificate's.
    #[error("the private key doesn't belong to the certificate of '{subject}'")]
    KeyMismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// A certificate that may not issue others, or not this way.
    #[error("'{subject}' can't be used as an authority: {reason}")]
    NotAnAuthority {
        /// The certificate's subject.
        subject: String,
        /// What is missing.
        reason: String,
    },
    /// Certificates that don't lead from one to the next.
    #[error("the chain is broken at '{subject}': {reason}")]
    Chain {
        /// The certificate at which it breaks.
        subject: String,
        /// How.
        reason: String,
    },
    /// The request isn't signed by the key it holds.
    #[error("the certificate request isn't signed by the key in it")]
    RequestSignature,
    /// An address at which lists of revoked certificates can't be published.
    #[error("'{given}' is no address for revocations: {rule}")]
    Endpoint {
        /// What was given.
        given: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The cryptographic library failed: no random numbers, or no memory.
    #[error("the cryptographic library failed to {what}: {detail}")]
    Crypto {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        detail: String,
    },
}

impl Error {
    /// The field of a request that is at fault: `name`, `san`, `algorithm`, `keySize`, `validity`, `csr`,
    /// `certificate`, `key`. `None` if it isn't what was asked, but the authority's state or the machine.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Name { .. } => Some("name"),
            Self::San { .. } | Self::NoSan | Self::TooManySans { .. } => Some("san"),
            Self::Algorithm { .. } => Some("algorithm"),
            Self::KeySize { .. } => Some("keySize"),
            Self::ValidityZero | Self::ValidityPastIssuer { .. } => Some("validity"),
            Self::RequestSignature => Some("csr"),
            Self::Pem { what, .. } | Self::Malformed { what, .. } | Self::KeyUnsupported { what } => match *what {
                REQUEST => Some("csr"),
                CERTIFICATE => Some("certificate"),
                KEY => Some("key"),
                _ => None,
            },
            Self::KeyMismatch { .. } => Some("key"),
            Self::NotAnAuthority { .. } | Self::Chain { .. } => Some("certificate"),
            Self::Endpoint { .. } => Some("endpoint"),
            Self::AuthorityNotValid { .. } | Self::Crypto { .. } => None,
        }
    }
}

/// What a text or DER was expected to be.
pub(super) const CERTIFICATE: &str = "certificate";
/// See [`CERTIFICATE`].
pub(super) const REQUEST: &str = "certificate request";
/// See [`CERTIFICATE`].
pub(super) const KEY: &str = "private key";
