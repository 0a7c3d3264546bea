//! What a certificate says, read once.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::{
    error::{CERTIFICATE, Error},
    time::from_asn1,
};

/// A certificate's content, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The subject as DER: what issuers are matched by.
    pub(super) subject: Vec<u8>,
    /// The subject, readable.
    pub(super) subject_text: String,
    pub(super) common_name: Option<String>,
    pub(super) issuer: Vec<u8>,
    /// The public key with its kind, as DER.
    pub(super) public_key_info: Vec<u8>,
    /// Hex, lower case, no leading zeros.
    pub(super) serial: String,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) authority: Option<AuthorityFacts>,
    /// The identifier of its key, if it has one: what certificates that it issues refer to.
    pub(super) key_id: Option<Vec<u8>>,
    /// The subject alternative names that are URIs.
    pub(super) uris: Vec<String>,
}

/// What basic constraints and key usage say of a certificate that is an authority's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AuthorityFacts {
    /// How many more authorities may stand between it and a leaf; `None` is any number.
    pub(super) path_length: Option<u32>,
    pub(super) signs_certificates: bool,
    pub(super) signs_lists: bool,
}

impl Facts {
    pub(super) fn read(der: &[u8]) -> Result<Self, Error> {
        let certificate = parse(der)?;
        let refuse = |error: x509_parser::error::X509Error| malformed(&error.to_string());
        let authority = match certificate.basic_constraints().map_err(refuse)? {
            Some(constraints) if constraints.value.ca => {
                // Without the extension every use is allowed (RFC 5280, 4.2.1.3).
                let usage = certificate.key_usage().map_err(refuse)?.map(|usage| usage.value);
                Some(AuthorityFacts {
                    path_length: constraints.value.path_len_constraint,
                    signs_certificates: usage.is_none_or(|usage| usage.key_cert_sign()),
                    signs_lists: usage.is_none_or(|usage| usage.crl_sign()),
                })
            }
            _ => None,
        };
        let mut uris = Vec::new();
        if let Some(names) = certificate.subject_alternative_name().map_err(refuse)? {
            for name in &names.value.general_names {
                match name {
                    GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                    GeneralName::Invalid(..) => return Err(malformed("a subject alternative name is damaged")),
                    _ => {}
                }
            }
        }
        let key_id = certificate
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
        let common_name = certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok());
        Ok(Self {
            subject: certificate.subject().as_raw().to_vec(),
            subject_text: certificate.subject().to_string(),
            common_name: common_name.map(str::to_owned),
            issuer: certificate.issuer().as_raw().to_vec(),
            public_key_info: certificate.public_key().raw.to_vec(),
            serial: serial_hex(certificate.raw_serial()),
            not_before: from_asn1(certificate.validity().not_before),
            not_after: from_asn1(certificate.validity().not_after),
            authority,
            key_id,
            uris,
        })
    }

    pub(super) fn valid_at(&self, now: Timestamp) -> Result<(), Error> {
        if self.not_before <= now && now <= self.not_after {
            return Ok(());
        }
        Err(Error::AuthorityNotValid {
            subject: self.subject_text.clone(),
            not_before: self.not_before,
            not_after: self.not_after,
            now,
        })
    }
}

/// Whether the first certificate was signed by the key of the second.
pub(super) fn signed_by(der: &[u8], issuer: &[u8]) -> bool {
    let (Ok(certificate), Ok(issuer)) = (parse(der), parse(issuer)) else {
        return false;
    };
    certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

/// SHA-256 of a certificate's DER, hex in lower case: what `openssl x509 -fingerprint -sha256` prints with colons.
#[must_use]
pub fn fingerprint(der: &CertificateDer<'_>) -> String {
    hex(digest(&SHA256, der).as_ref())
}

/// A serial number as it is written here, from the content of its DER: hex, lower case, no leading zeros.
pub(super) fn serial_hex(raw: &[u8]) -> String {
    let start = raw.iter().position(|byte| *byte != 0).unwrap_or(raw.len());
    hex(&raw[start..])
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string doesn't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(malformed("bytes follow its end")),
        Err(error) => Err(malformed(&error.to_string())),
    }
}

fn malformed(detail: &str) -> Error {
    Error::Malformed {
        what: CERTIFICATE,
        detail: detail.to_owned(),
    }
}
