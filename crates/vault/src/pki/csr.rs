//! Certificate requests (PKCS #10): a node makes one, the authority reads its key.

use rcgen::{CertificateParams, DistinguishedName, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::{
    authority::failed,
    error::{Error, REQUEST},
    key::{Algorithm, PrivateKey},
    pem,
};

/// A request, and the key it was made for.
#[derive(Clone, Debug)]
pub struct Csr {
    /// The request, PEM. Nothing in it is secret.
    pub request_pem: String,
    /// The key, which stays where it was made.
    pub key: PrivateKey,
}

impl Csr {
    /// A new key and a request for it. It asks for nothing: the authority knows who asks, and decides what to put in.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn new(algorithm: Algorithm) -> Result<Self, Error> {
        let key = PrivateKey::generate(algorithm)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key.signer()?).map_err(failed)?;
        Ok(Self {
            request_pem: pem::encode("CERTIFICATE REQUEST", request.der()),
            key,
        })
    }
}

/// The key in a request that is signed by it. The rest isn't looked at.
pub(super) fn public_key(request: &str) -> Result<(SubjectPublicKeyInfo, Algorithm), Error> {
    let der: CertificateSigningRequestDer<'static> = pem::first(request, REQUEST)?;
    let malformed = |detail: String| Error::Malformed { what: REQUEST, detail };
    let (rest, parsed) = X509CertificationRequest::from_der(&der).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed("bytes follow its end".to_owned()));
    }
    let key = &parsed.certification_request_info.subject_pki;
    let algorithm = Algorithm::of_public_key(key).ok_or(Error::KeyUnsupported { what: REQUEST })?;
    parsed.verify_signature().map_err(|_| Error::RequestSignature)?;
    let key = SubjectPublicKeyInfo::from_der(key.raw).map_err(|error| malformed(error.to_string()))?;
    Ok((key, algorithm))
}
