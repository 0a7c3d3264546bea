//! Why a handshake failed, as far as certificates are to blame.

use rustls::{AlertDescription, CertificateError, Error};

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The peer wants one, and there is none.
    Missing,
    /// It can't be read, or its signature is wrong.
    Malformed,
    /// Its time is over.
    Expired,
    /// Its time has yet to come.
    NotYetValid,
    /// It was revoked.
    Revoked,
    /// Another authority issued it.
    Foreign,
    /// It is for another name.
    WrongName,
    /// It is for something else.
    WrongUse,
}

impl Trouble {
    /// The name under which it is told: `certificate-expired`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "certificate-missing",
            Self::Malformed => "certificate-malformed",
            Self::Expired => "certificate-expired",
            Self::NotYetValid => "certificate-not-yet-valid",
            Self::Revoked => "certificate-revoked",
            Self::Foreign => "certificate-foreign",
            Self::WrongName => "certificate-wrong-name",
            Self::WrongUse => "certificate-wrong-use",
        }
    }
}

/// What went wrong in an asynchronous handshake, as [`trouble`].
#[must_use]
pub fn trouble_of(error: &std::io::Error) -> Option<Trouble> {
    error.get_ref()?.downcast_ref().and_then(trouble)
}

/// What is wrong with a certificate: the peer's, or (where the peer said so) the own one. `None`: something else.
#[must_use]
pub fn trouble(error: &Error) -> Option<Trouble> {
    match error {
        Error::InvalidCertificate(error) => Some(match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Trouble::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Trouble::NotYetValid,
            CertificateError::Revoked => Trouble::Revoked,
            CertificateError::UnknownIssuer => Trouble::Foreign,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Trouble::WrongName,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Trouble::WrongUse,
            _ => Trouble::Malformed,
        }),
        Error::NoCertificatesPresented => Some(Trouble::Missing),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => Some(Trouble::Expired),
            AlertDescription::CertificateRevoked => Some(Trouble::Revoked),
            AlertDescription::UnknownCA => Some(Trouble::Foreign),
            AlertDescription::CertificateRequired => Some(Trouble::Missing),
            AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => Some(Trouble::Malformed),
            AlertDescription::UnsupportedCertificate => Some(Trouble::WrongUse),
            _ => None,
        },
        _ => None,
    }
}
