//! What the fleet's trust stands on: the vault's keys, the certificate authority, and the certificate that the gateway
//! shows.
//!
//! All of it is made at the first start and opened at each later one, before anything is served. The keys are in
//! memory only; what is on disk is sealed by the master key, which the store doesn't hold.

mod authority;
mod key;
mod own;

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Serialize, de::DeserializeOwned};
use store::{Record, Revision, Store, StoreError, Txn, TxnOutcome};
use tokio_rustls::TlsAcceptor;
use vault::{
    pki::{Authority, Endpoints},
    secret::{Keyring, Lock},
    tls,
};

pub use authority::{AuthorityFiles, AuthorityRecord};
pub use key::{KeyError, KeySource, Unlock};
pub use own::{Names, OwnCertificate};

use crate::{draft::json, hub::now, keys};

/// How a gateway is trusted, and whom it trusts.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the vault's master key comes from. `None`: from `vault.key` in the data folder, made at the first start.
    pub key: Option<KeySource>,
    /// An authority from outside, taken over at the first start. `None`: one is made.
    pub authority: Option<AuthorityFiles>,
    /// Names and addresses by which the gateway is called, beside those that it finds out itself.
    pub names: Vec<String>,
    /// The URL under which others fetch what is revoked; written into certificates. `None`: they don't say where.
    pub url: Option<String>,
    /// Take unencrypted calls from elsewhere too.
    pub insecure: bool,
}

/// Why trust can't be set up. Nothing was overwritten.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store can't be read or written.
    #[error("the vault's records can't be read or written")]
    Store(#[from] StoreError),
    /// A record is damaged.
    #[error("the vault's record {key} can't be read")]
    Record {
        /// Its key in the store.
        key: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The master key can't be had, or is the wrong one.
    #[error("the vault can't be opened")]
    Key(#[from] key::KeyError),
    /// The authority can't be made, taken over or opened.
    #[error("the certificate authority can't be used")]
    Authority(#[from] authority::AuthorityError),
    /// The gateway's own certificate can't be made.
    #[error("the gateway's own certificate can't be made")]
    Certificate(#[from] vault::pki::Error),
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[from] tls::TrustError),
    /// Another process made it meanwhile.
    #[error("another gateway writes to the same data")]
    Overtaken,
}

/// What the fleet's trust stands on.
pub struct Trust {
    /// The authority that issues certificates.
    pub authority: Authority,
    /// TLS for whoever calls.
    pub tls: TlsAcceptor,
    /// The certificate that the gateway shows.
    pub own: OwnCertificate,
    /// How the master key was had.
    pub unlock: Unlock,
    fingerprint: String,
    locked: RwLock<(Versioned<Lock>, Keyring)>,
}

/// A record as it was read or written.
#[derive(Debug, Clone)]
pub struct Versioned<T> {
    /// It.
    pub value: T,
    /// When it was last written.
    pub revision: Revision,
}

impl Trust {
    /// Opens what is there, and makes what isn't.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        store: &Store,
        options: &Options,
        data: &std::path::Path,
        names: Names,
    ) -> Result<Self, OpenError> {
        let now = now();
        let unlock = Unlock::new(options.key.clone(), data);
        let (lock, ring) = key::open(store, &unlock, now).await?;
        let mut authority = authority::open(store, &lock, &ring, options.authority.as_ref(), now).await?;
        if let Some(url) = options.url.as_deref().map(|url| url.trim_end_matches('/')) {
            let endpoints = Endpoints::new(&format!("{url}/pki/crl.der"), &format!("{url}/pki/ocsp"))?;
            authority = authority.with_endpoints(endpoints);
        }
        let own = OwnCertificate::issue(&authority, names, now)?;
        let config = tls::server_config(own.shown(), authority.certificate().clone())?;
        Ok(Self {
            fingerprint: authority.fingerprint(),
            authority,
            tls: TlsAcceptor::from(Arc::new(config)),
            own,
            unlock,
            locked: RwLock::new((lock, ring)),
        })
    }

    /// A credential as it is handed out: with the fingerprint of the fleet's root, by which its bearer knows the gateway
    /// at the first connection.
    #[must_use]
    pub fn with_fingerprint(&self, credential: String) -> String {
        let fingerprint = &self.fingerprint;
        match credential.ends_with(fingerprint.as_str()) {
            true => credential,
            false => format!("{credential}.{fingerprint}"),
        }
    }

    /// SHA-256 of the fleet's root certificate, hex.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The keys to seal and open by, and the lock that they belong to: whoever writes something sealed does so on the
    /// condition that the lock is unchanged.
    #[must_use]
    pub fn keys(&self) -> (Versioned<Lock>, Keyring) {
        self.locked.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lock has been rewritten.
    pub fn relock(&self, lock: Versioned<Lock>, ring: Keyring) {
        *self.locked.write().unwrap_or_else(PoisonError::into_inner) = (lock, ring);
    }
}

/// Reads a record. `None`: there is none.
pub(crate) async fn read<T: DeserializeOwned>(store: &Store, key: &str) -> Result<Option<Versioned<T>>, OpenError> {
    let record = store.get(key).await?;
    record.map(|record| parse(&record)).transpose()
}

/// A record's value.
pub(crate) fn parse<T: DeserializeOwned>(record: &Record) -> Result<Versioned<T>, OpenError> {
    let value = serde_json::from_slice(&record.value).map_err(|source| OpenError::Record {
        key: record.key.to_string(),
        source,
    })?;
    Ok(Versioned {
        value,
        revision: record.modified,
    })
}

/// Writes a record that isn't there yet.
async fn create<T: Serialize>(store: &Store, key: &str, value: T, txn: Txn) -> Result<Versioned<T>, OpenError> {
    let txn = txn.absent(key).put(key, json(&value));
    match store.txn(txn).await? {
        TxnOutcome::Committed(revision) => Ok(Versioned { value, revision }),
        TxnOutcome::Conflict { .. } => Err(OpenError::Overtaken),
    }
}

/// The condition that the lock is as it was when a ring was opened.
pub(crate) fn while_locked(txn: Txn, lock: &Versioned<Lock>) -> Txn {
    txn.unchanged(keys::VAULT_LOCK, lock.revision)
}

/// Where the master key is unless somebody says otherwise.
fn default_key_file(data: &std::path::Path) -> PathBuf {
    data.join("vault.key")
}
