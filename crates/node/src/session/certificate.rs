//! The node's own certificate and the authority that it trusts: `certificate.json` in its data folder.

use std::{fs, io, path::Path, sync::Arc};

use api::{NodeName, Timestamp, op::NodeCert};
use serde::{Deserialize, Serialize};
use vault::{
    pki::{self, Algorithm, Csr, Peer, PrivateKey},
    tls::{self, Own, Trust, TrustError},
};
use zeroize::Zeroizing;

use super::{AgentError, identity::write_private};

const FILE: &str = "certificate.json";

/// What is kept.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// The authority's root, PEM.
    authority: String,
    /// The certificate, and those between it and the root, PEM.
    chain: String,
    /// Its key, PEM.
    key: Zeroizing<String>,
}

/// A node's certificate, with its key, and whom it trusts.
pub(super) struct Certificate {
    kept: Kept,
    /// Until when it holds.
    pub(super) not_after: Timestamp,
    /// From when it is to be renewed.
    pub(super) renew_at: Timestamp,
}

/// Why it can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    /// The certificate or its key.
    #[error("the node's certificate can't be used")]
    Pki(#[from] pki::Error),
    /// TLS can't be set up with it.
    #[error("TLS can't be set up")]
    Tls(#[from] TrustError),
    /// There is none in what the gateway gave.
    #[error("the gateway gave no certificate")]
    Empty,
}

impl Certificate {
    /// What the gateway gave for a key. `jitter`: this node's place among many, 0 to 1.
    pub(super) fn new(given: NodeCert, key: &PrivateKey, jitter: f64) -> Result<Self, CertificateError> {
        Self::of(
            Kept {
                authority: given.authority,
                chain: given.chain,
                key: key.to_pem(),
            },
            jitter,
        )
    }

    fn of(kept: Kept, jitter: f64) -> Result<Self, CertificateError> {
        let chain = pki::certificates(&kept.chain)?;
        let own = Peer::read(chain.first().ok_or(CertificateError::Empty)?)?;
        Ok(Self {
            kept,
            not_after: own.not_after,
            renew_at: pki::renewal_at(own.not_before, own.not_after, jitter),
        })
    }

    /// The one in a data folder. `None`: there is none.
    ///
    /// # Errors
    /// The file can't be read, or isn't one.
    pub(super) fn load(data: &Path, jitter: f64) -> Result<Option<Self>, AgentError> {
        let file = data.join(FILE);
        let failed = |source| AgentError::Data {
            path: file.clone(),
            source,
        };
        let text = match fs::read(&file) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let kept: Kept = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
        Self::of(kept, jitter)
            .map(Some)
            .map_err(|e| failed(io::Error::other(e)))
    }

    /// Keeps it, readable by its owner alone; on disk when this returns.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn save(&self, data: &Path) -> Result<(), AgentError> {
        let text = serde_json::to_vec_pretty(&self.kept)
            .map(Zeroizing::new)
            .map_err(io::Error::from);
        let saved = text.and_then(|text| write_private(data, FILE, &text));
        saved.map_err(|source| AgentError::Data {
            path: data.join(FILE),
            source,
        })
    }

    /// SHA-256 of the authority's root, hex. `None`: it can't be read.
    pub(super) fn fingerprint(&self) -> Option<String> {
        let root = pki::certificates(&self.kept.authority).ok()?;
        root.first().map(pki::fingerprint)
    }

    /// How TLS is spoken with it. `own`: show the certificate too.
    ///
    /// # Errors
    /// It can't be used.
    pub(super) fn config(&self, own: bool) -> Result<Arc<rustls::ClientConfig>, CertificateError> {
        let root = pki::certificates(&self.kept.authority)?;
        let root = root.into_iter().next().ok_or(CertificateError::Empty)?;
        let key = PrivateKey::from_pem(&self.kept.key)?;
        let own = own.then_some(Own {
            chain: pki::certificates(&self.kept.chain)?,
            key: &key,
        });
        Ok(Arc::new(tls::client_config(&Trust::Root(root), own)?))
    }
}

/// A node's place among many, 0 to 1: by its name, so that it stays the same and a fleet's are spread.
pub(super) fn jitter(name: &NodeName) -> f64 {
    let sum = name
        .as_str()
        .bytes()
        .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    f64::from(sum % 1_000) / 1_000.0
}

/// A new key, and a request for a certificate for it.
pub(super) fn request() -> Result<Csr, pki::Error> {
    Csr::new(Algorithm::EcdsaP256)
}
