//! How the master key is had, and whether it is the right one.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use api::Timestamp;
use store::{Store, Txn};
use vault::secret::{
    CommandError, KdfParams, KeyCommand, KeyFile, KeyFileError, Keyring, Lock, MasterKey, NoRandom, PassphraseError,
    UnlockError,
};
use zeroize::Zeroizing;

use super::{OpenError, Versioned, create, default_key_file, read};
use crate::keys;

/// How long a key command may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// Where the vault's master key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file that only its owner can read; made at the first start.
    File(PathBuf),
    /// A passphrase, in a file that only its owner can read (or a pipe).
    Passphrase(PathBuf),
    /// A command that prints it: the program and its arguments.
    Command(Vec<String>),
}

impl KeySource {
    /// The word for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Passphrase(_) => "passphrase",
            Self::Command(_) => "command",
        }
    }
}

/// How the master key is had.
#[derive(Debug, Clone)]
pub struct Unlock {
    /// Where from.
    pub source: KeySource,
}

/// The master key can't be had, or is the wrong one.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The key file is gone, and the vault needs it.
    #[error(
        "the vault's master key {key} was in {}, and isn't there any more: bring it back (what it sealed can't be opened without)",
        path.display()
    )]
    Lost {
        /// Where it was.
        path: PathBuf,
        /// Which key.
        key: vault::secret::KeyId,
    },
    /// The new key's file can't take the old one's place.
    #[error("the new master key can't be put in place at {}", path.display())]
    Rename {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The passphrase can't be read.
    #[error("the passphrase can't be read from {}", path.display())]
    Passphrase {
        /// Where from.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No key comes from the passphrase.
    #[error("no key comes from the passphrase")]
    Derive(#[from] PassphraseError),
    /// The vault opens by a passphrase, or doesn't, and now it is otherwise.
    #[error("the vault was made with {was}, and is now to be opened with a {now}")]
    OtherSource {
        /// How it was made.
        was: &'static str,
        /// How it is to be opened.
        now: &'static str,
    },
    /// The command.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// No command was named.
    #[error("a key command was asked for, and none was named")]
    NoCommand,
    /// It is the wrong one.
    #[error(transparent)]
    Wrong(#[from] UnlockError),
    /// Nothing can be sealed.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// The work broke off.
    #[error("the key's derivation broke off")]
    Broken(#[from] tokio::task::JoinError),
}

impl Unlock {
    /// From there, or from the file in the data folder.
    #[must_use]
    pub fn new(source: Option<KeySource>, data: &Path) -> Self {
        Self {
            source: source.unwrap_or_else(|| KeySource::File(default_key_file(data))),
        }
    }

    /// The key for a vault that has none yet.
    async fn first(&self) -> Result<(MasterKey, Option<KdfParams>), KeyError> {
        match &self.source {
            KeySource::File(path) => {
                let file = KeyFile::new(path);
                // Made beforehand by its owner, or left by a start that was cut short.
                match file.read() {
                    Err(KeyFileError::Missing { .. }) => Ok((file.create()?, None)),
                    read => Ok((read?, None)),
                }
            }
            KeySource::Passphrase(path) => {
                let params = KdfParams::generate()?;
                Ok((derive(path, &params).await?, Some(params)))
            }
            KeySource::Command(argv) => Ok((run(argv).await?, None)),
        }
    }

    /// The key for this vault.
    async fn again(&self, lock: &Lock) -> Result<MasterKey, KeyError> {
        let by_passphrase = |kdf: bool| if kdf { "a passphrase" } else { "a key" };
        match (&self.source, &lock.current.kdf) {
            (KeySource::Passphrase(path), Some(params)) => derive(path, params).await,
            (KeySource::Passphrase(_), None) | (KeySource::File(_) | KeySource::Command(_), Some(_)) => {
                Err(KeyError::OtherSource {
                    was: by_passphrase(lock.current.kdf.is_some()),
                    now: self.source.name(),
                })
            }
            (KeySource::File(path), None) => self.of_files(path, lock),
            (KeySource::Command(argv), None) => run(argv).await,
        }
    }
}

impl Unlock {
    /// The key of one of the two files that there may be while the key is changed.
    fn of_files(&self, path: &Path, lock: &Lock) -> Result<MasterKey, KeyError> {
        let wanted = lock.current.key();
        match KeyFile::new(next_to(path)).read() {
            // The change began, and the file didn't get its name any more.
            Ok(key) if key.id() == wanted => {
                self.settle()?;
                Ok(key)
            }
            Ok(_) | Err(KeyFileError::Missing { .. }) => KeyFile::new(path).read().map_err(|error| match error {
                KeyFileError::Missing { path } => KeyError::Lost { path, key: wanted },
                other => other.into(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// A new key, for the vault to be sealed with: in a file beside the old one's, where it stays until
    /// [`Self::settle`]; otherwise what the passphrase or the command now gives.
    ///
    /// # Errors
    /// There is none.
    pub async fn next(&self, lock: &Lock) -> Result<(MasterKey, Option<KdfParams>), KeyError> {
        match &self.source {
            KeySource::File(path) => {
                let next = next_to(path);
                match KeyFile::new(&next).read() {
                    // Left by a change that never began: it was nobody's key yet.
                    Ok(left) if left.id() != lock.current.key() => Ok((left, None)),
                    Ok(_) => {
                        self.settle()?;
                        Ok((KeyFile::new(&next).create()?, None))
                    }
                    Err(KeyFileError::Missing { .. }) => Ok((KeyFile::new(&next).create()?, None)),
                    Err(error) => Err(error.into()),
                }
            }
            KeySource::Passphrase(_) | KeySource::Command(_) => self.first().await,
        }
    }

    /// Gives the new key's file its name: the vault opens with it from now on.
    ///
    /// # Errors
    /// The file can't be renamed; the next start does it.
    pub fn settle(&self) -> Result<(), KeyError> {
        let KeySource::File(path) = &self.source else {
            return Ok(());
        };
        let renamed = fs::rename(next_to(path), path).and_then(|()| {
            let folder = path
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            fs::File::open(folder)?.sync_all()
        });
        renamed.map_err(|source| KeyError::Rename {
            path: path.clone(),
            source,
        })
    }
}

/// Where a new key waits until it is the vault's.
fn next_to(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

async fn derive(path: &Path, params: &KdfParams) -> Result<MasterKey, KeyError> {
    let read = fs::read_to_string(path).map(Zeroizing::new);
    let text = read.map_err(|source| KeyError::Passphrase {
        path: path.to_owned(),
        source,
    })?;
    let params = params.clone();
    let key = move || MasterKey::from_passphrase(text.trim_end_matches(['\r', '\n']), &params);
    Ok(tokio::task::spawn_blocking(key).await??)
}

async fn run(argv: &[String]) -> Result<MasterKey, KeyError> {
    let (program, arguments) = argv.split_first().ok_or(KeyError::NoCommand)?;
    let command = KeyCommand {
        program: OsString::from(program),
        arguments: arguments.iter().map(OsString::from).collect(),
        timeout: COMMAND_PATIENCE,
    };
    Ok(tokio::task::spawn_blocking(move || command.run()).await??)
}

/// Opens the vault, or makes it.
pub(super) async fn open(
    store: &Store,
    unlock: &Unlock,
    now: Timestamp,
) -> Result<(Versioned<Lock>, Keyring), OpenError> {
    if let Some(lock) = read::<Lock>(store, keys::VAULT_LOCK).await? {
        let ring = lock
            .value
            .open(unlock.again(&lock.value).await?)
            .map_err(KeyError::from)?;
        return Ok((lock, ring));
    }
    let (key, kdf) = unlock.first().await?;
    let (lock, ring) = Lock::new(key, kdf, now).map_err(KeyError::from)?;
    let lock = create(store, keys::VAULT_LOCK, lock, Txn::default()).await?;
    tracing::info!(key = %lock.value.current.key(), source = unlock.source.name(), "a vault was made");
    Ok((lock, ring))
}
