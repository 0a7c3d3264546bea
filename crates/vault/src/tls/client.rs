//! Whom a client trusts.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;

use super::{HTTP_1_1, provider};
use crate::pki::{PrivateKey, fingerprint};

/// Whom a client takes a server's certificate from.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The authorities that this machine trusts.
    System,
    /// One authority.
    Root(CertificateDer<'static>),
    /// The authority of this fingerprint (SHA-256 of its certificate, hex in lower case), which the server shows.
    Fingerprint(String),
}

/// A client's own certificate.
pub struct Own<'a> {
    /// The certificate, and those between it and the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: &'a PrivateKey,
}

/// Why a client can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The authority's certificate, or the client's own, can't be used.
    #[error("a certificate can't be used")]
    Certificate(#[source] rustls::Error),
    /// This machine's authorities can't be read.
    #[error("this machine's authorities can't be used")]
    System(#[source] rustls::Error),
    /// There is no authority to trust.
    #[error("the authority's certificate can't be used")]
    Root(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How a client speaks TLS.
///
/// # Errors
/// [`TrustError`].
pub fn config(trust: &Trust, own: Option<Own<'_>>) -> Result<ClientConfig, TrustError> {
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::System => Arc::new(Verifier::new(provider()).map_err(TrustError::System)?),
        Trust::Root(root) => by_root(root.clone())?,
        Trust::Fingerprint(fingerprint) => Arc::new(Pinned {
            fingerprint: fingerprint.clone(),
            algorithms: provider().signature_verification_algorithms,
        }),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Certificate)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(Own { chain, key }) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
            builder
                .with_client_auth_cert(chain, key)
                .map_err(TrustError::Certificate)?
        }
    };
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(config)
}

fn by_root(root: CertificateDer<'static>) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(TrustError::Certificate)?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TrustError::Root(Box::new(error)))
}

/// The certificate of this fingerprint among those that a server has shown: what to trust from now on.
#[must_use]
pub fn root_of(shown: &[CertificateDer<'_>], wanted: &str) -> Option<CertificateDer<'static>> {
    let root = shown.iter().find(|certificate| fingerprint(certificate) == wanted);
    root.map(|certificate| certificate.clone().into_owned())
}

/// Takes a server whose chain leads to the certificate of one fingerprint, which it shows itself.
struct Pinned {
    fingerprint: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned")
            .field("fingerprint", &self.fingerprint)
            .finish()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let root = root_of(others, &self.fingerprint).ok_or_else(unknown)?;
        let verifier = by_root(root).map_err(|_| unknown())?;
        verifier.verify_server_cert(leaf, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
