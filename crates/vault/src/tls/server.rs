//! What a server shows, and whose certificates it takes.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::Ticketer,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use super::{HTTP_1_1, TrustError, provider};
use crate::pki::PrivateKey;

/// The certificate that a server shows; another one can take its place while connections are open.
#[derive(Debug)]
pub struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    /// Shows this chain: the server's own certificate first, the root last, so that clients that know only its
    /// fingerprint find it.
    ///
    /// # Errors
    /// [`TrustError::Certificate`]: the key can't be used, or is another certificate's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKey) -> Result<Self, TrustError> {
        Ok(Self(RwLock::new(certified(chain, key)?)))
    }

    /// From now on shows another chain.
    ///
    /// # Errors
    /// As [`Self::new`]; what was shown before is shown on.
    pub fn replace(&self, chain: Vec<CertificateDer<'static>>, key: &PrivateKey) -> Result<(), TrustError> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified(chain, key)?;
        Ok(())
    }
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &PrivateKey) -> Result<Arc<CertifiedKey>, TrustError> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
    let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(TrustError::Certificate)?;
    Ok(Arc::new(certified))
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// How a server speaks TLS: TLS 1.2 and 1.3, with tickets for resumption. Clients may show a certificate of `authority`,
/// and needn't; one of anybody else's ends the handshake. Whether a certificate was revoked is for the caller to look up.
///
/// # Errors
/// [`TrustError`].
pub fn config(shown: Arc<Shown>, authority: CertificateDer<'static>) -> Result<ServerConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority).map_err(TrustError::Certificate)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TrustError::Root(Box::new(error)))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Certificate)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    config.ticketer = Ticketer::new().map_err(TrustError::Certificate)?;
    Ok(config)
}
