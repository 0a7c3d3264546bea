//! The certificate authority: made at the first start, or taken over from outside; its key is sealed by the vault.

use std::{fs, io, path::PathBuf, time::Duration};

use api::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Store, Txn};
use vault::{
    pki::{self, Algorithm, Authority, PrivateKey},
    secret::{Context, KeyId, Keyring, Lock, NoRandom, Sealed, Value, WrappedKey, open as unseal, rekey::Holder, seal},
};
use zeroize::Zeroizing;

use super::{OpenError, Versioned, create, read, while_locked};
use crate::{auth, keys};

/// What the authority's key is bound to in the vault.
const NAME: &str = "root";
const VERSION: u32 = 1;

/// How long an authority of our own making holds.
const VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);

/// An authority from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityFiles {
    /// Its certificate, and those above it up to the root, PEM.
    pub chain: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// What is kept of the authority.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorityRecord {
    /// Its certificate, and those above it up to the root, PEM.
    chain: String,
    /// The key that its own key is sealed by.
    data_key: WrappedKey,
    /// Its own key.
    key: Sealed,
}

impl Holder for AuthorityRecord {
    fn is_under(&self, key: KeyId) -> bool {
        self.data_key.key == key
    }

    fn data_keys(&mut self) -> Vec<(Context, &mut WrappedKey)> {
        vec![(Context::authority(NAME, VERSION), &mut self.data_key)]
    }
}

/// The authority can't be made, taken over or opened.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file can't be read.
    #[error("{} can't be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its certificate or key can't be used.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// Its key doesn't open.
    #[error("the authority's key doesn't open")]
    Sealed(#[from] vault::secret::OpenError),
    /// The fleet has another authority.
    #[error("this fleet has an authority already, of fingerprint {has}, and can't take over {given}")]
    Another {
        /// The fleet's.
        has: String,
        /// The one from outside.
        given: String,
    },
    /// Its key can't be sealed.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// Its key isn't one that can be sealed.
    #[error("the authority's key can't be kept: {0}")]
    Value(#[from] vault::secret::Invalid),
    /// No name for it.
    #[error("{0}")]
    Name(api::ApiError),
}

/// Opens the authority, or makes it.
pub(super) async fn open(
    store: &Store,
    lock: &Versioned<Lock>,
    ring: &Keyring,
    files: Option<&AuthorityFiles>,
    now: Timestamp,
) -> Result<Authority, OpenError> {
    let given = files.map(|files| import(files, now)).transpose()?;
    if let Some(record) = read::<AuthorityRecord>(store, keys::VAULT_AUTHORITY).await? {
        let authority = load(&record.value, ring)?;
        return match given {
            Some(given) if given.certificate() != authority.certificate() => Err(AuthorityError::Another {
                has: authority.fingerprint(),
                given: given.fingerprint(),
            }
            .into()),
            _ => Ok(authority),
        };
    }
    let authority = match given {
        Some(given) => given,
        None => {
            // Two fleets' roots must differ in name: clients that trust both would mix them up.
            let id = auth::new_id().map_err(AuthorityError::Name)?;
            Authority::new_root(&format!("Clawbernetes {id}"), Algorithm::EcdsaP256, VALIDITY, now)
                .map_err(AuthorityError::from)?
        }
    };
    let record = sealed(&authority, ring)?;
    create(store, keys::VAULT_AUTHORITY, record, while_locked(Txn::default(), lock)).await?;
    tracing::info!(
        fingerprint = authority.fingerprint(),
        subject = authority.subject(),
        "a certificate authority was set up"
    );
    Ok(authority)
}

fn import(files: &AuthorityFiles, now: Timestamp) -> Result<Authority, AuthorityError> {
    let text = |path: &PathBuf| {
        fs::read_to_string(path).map_err(|source| AuthorityError::File {
            path: path.clone(),
            source,
        })
    };
    let key = Zeroizing::new(text(&files.key)?);
    Ok(Authority::import(&text(&files.chain)?, &key, now)?)
}

fn sealed(authority: &Authority, ring: &Keyring) -> Result<AuthorityRecord, AuthorityError> {
    let value = Value::new(authority.key().pkcs8_der())?;
    let (data_key, key) = seal(ring, &Context::authority(NAME, VERSION), &value)?;
    Ok(AuthorityRecord {
        chain: authority.chain_pem(),
        data_key,
        key,
    })
}

fn load(record: &AuthorityRecord, ring: &Keyring) -> Result<Authority, AuthorityError> {
    let key = unseal(ring, &Context::authority(NAME, VERSION), &record.data_key, &record.key)?;
    Ok(Authority::load(&record.chain, PrivateKey::from_pkcs8(key.expose())?)?)
}
