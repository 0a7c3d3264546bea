//! Verifying a chain, as TLS would.

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, Error as Webpki, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

use super::{facts::Facts, time::since_epoch};

/// What the holder of a certificate claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// The server of this name or address.
    Server(&'a str),
    /// A client.
    Client,
}

/// Why a certificate isn't accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A certificate of the chain has expired.
    #[error("a certificate has expired")]
    Expired,
    /// A certificate of the chain isn't valid yet.
    #[error("a certificate isn't valid yet")]
    NotYetValid,
    /// No chain leads to the root.
    #[error("no chain of signatures leads to the root")]
    UnknownIssuer,
    /// The server isn't called that by its certificate.
    #[error("the certificate isn't for the name '{0}'")]
    Name(String),
    /// It isn't for this role.
    #[error("the certificate isn't for this purpose")]
    Purpose,
    /// It was revoked.
    #[error("the certificate was revoked")]
    Revoked,
    /// It breaks another rule: of form, or a constraint of an authority above it.
    #[error("the certificate isn't acceptable: {0}")]
    Rule(String),
}

/// Verifies `leaf` against `root`, over certificates in `between` (in any order), for a role, at a time.
///
/// `revoked` is asked with the serial number (hex, lower case) of the leaf and of each certificate between.
///
/// # Errors
/// [`VerifyError`].
pub fn verify(
    leaf: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    root: &CertificateDer<'_>,
    role: &Role<'_>,
    now: Timestamp,
    revoked: &dyn Fn(&str) -> bool,
) -> Result<(), VerifyError> {
    let certificate = EndEntityCert::try_from(leaf).map_err(refuse)?;
    let anchor = [anchor_from_trusted_cert(root).map_err(refuse)?];
    // The root's own end isn't looked at by TLS stacks that take it as an anchor, others do: so does this.
    let root = Facts::read(root).map_err(|error| VerifyError::Rule(error.to_string()))?;
    if now > root.not_after {
        return Err(VerifyError::Expired);
    }
    let usage = match role {
        Role::Server(_) => KeyUsage::server_auth(),
        Role::Client => KeyUsage::client_auth(),
    };
    let time = UnixTime::since_unix_epoch(since_epoch(now));
    let check = |path: &VerifiedPath<'_>| {
        let mut serials = std::iter::once(path.end_entity().serial())
            .chain(path.intermediate_certificates().map(|certificate| certificate.serial()))
            .map(super::facts::serial_hex);
        if serials.any(|serial| revoked(&serial)) {
            Err(Webpki::CertRevoked)
        } else {
            Ok(())
        }
    };
    certificate
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchor,
            between,
            time,
            usage,
            None,
            Some(&check),
        )
        .map_err(refuse)?;
    if let Role::Server(host) = role {
        let wrong = || VerifyError::Name((*host).to_owned());
        let name = ServerName::try_from(*host).map_err(|_| wrong())?;
        certificate
            .verify_is_valid_for_subject_name(&name)
            .map_err(|error| match error {
                Webpki::CertNotValidForName(_) => wrong(),
                other => refuse(other),
            })?;
    }
    Ok(())
}

fn refuse(error: Webpki) -> VerifyError {
    match error {
        Webpki::CertExpired { .. } => VerifyError::Expired,
        Webpki::CertNotValidYet { .. } => VerifyError::NotYetValid,
        Webpki::UnknownIssuer | Webpki::InvalidSignatureForPublicKey => VerifyError::UnknownIssuer,
        Webpki::RequiredEkuNotFoundContext(_) => VerifyError::Purpose,
        Webpki::CertRevoked => VerifyError::Revoked,
        other => VerifyError::Rule(other.to_string()),
    }
}
