//! PEM: how certificates, requests and keys are written in files.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

use super::error::{CERTIFICATE, Error};

/// Larger than any chain in use (a certificate is about 1 KiB); keeps a stray file from being read as one.
const LIMIT_BYTES: usize = 1 << 20;

/// Base64 characters on a line (RFC 7468).
const LINE: usize = 64;

/// The first section of its kind in `text`; others are passed over.
pub(super) fn first<T: PemObject>(text: &str, what: &'static str) -> Result<T, Error> {
    T::from_pem_slice(checked(text, what)?).map_err(|error| refuse(what, &error))
}

/// The certificates in a PEM text, in its order. Sections of other kinds, and text between sections, are passed over.
///
/// # Errors
/// [`Error::Pem`] if a section is damaged, or if there is none.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(checked(text, CERTIFICATE)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refuse(CERTIFICATE, &error))?;
    if found.is_empty() {
        return Err(refuse(CERTIFICATE, &rustls_pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// The PEM of certificates, one after another.
#[must_use]
pub fn encode_certificates<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    certificates.into_iter().map(|der| encode("CERTIFICATE", der)).collect()
}

/// One section. What is secret goes through [`encode_secret`].
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    std::mem::take(&mut *encode_secret(label, der))
}

/// One section in memory that is wiped when it is dropped.
pub(super) fn encode_secret(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Reserved whole, so that growing leaves no copies behind.
    let mut text = Zeroizing::new(String::with_capacity(
        body.len() + body.len() / LINE + 2 * label.len() + 64,
    ));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

fn checked<'a>(text: &'a str, what: &'static str) -> Result<&'a [u8], Error> {
    if text.len() > LIMIT_BYTES {
        return Err(Error::Pem {
            what,
            detail: format!("{} bytes are too many", text.len()),
        });
    }
    Ok(text.as_bytes())
}

fn refuse(what: &'static str, error: &rustls_pki_types::pem::Error) -> Error {
    Error::Pem {
        what,
        detail: match error {
            rustls_pki_types::pem::Error::NoItemsFound => "there is none in the text".to_owned(),
            other => other.to_string(),
        },
    }
}
