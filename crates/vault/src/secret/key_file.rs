//! A master key in a file of its owner's.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::key_text::{self, KeyTextError};
use super::{MasterKey, NoRandom};
use crate::bytes::{hex, random};

/// A file that holds a master key: one line of text, readable by its owner alone.
///
/// A link to such a file is as good as the file.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

/// A key file can't be read or made. Never says what it holds.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such file.
    #[error("there is no key file {}", path.display())]
    Missing {
        /// Where it was expected.
        path: PathBuf,
    },
    /// There is a file already, which is never overwritten.
    #[error("there is a key file {} already", path.display())]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// It is a folder, a pipe or the like.
    #[error("the key file {} is no regular file", path.display())]
    NoFile {
        /// Where it is.
        path: PathBuf,
    },
    /// Its group or everybody may read or change it.
    #[error("others may use the key file {}: its mode is {mode:04o} (chmod 600 it, and rekey if others could read it)", path.display())]
    OpenToOthers {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds no key.
    #[error("the key file {} holds no key", path.display())]
    Text {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with its text.
        source: KeyTextError,
    },
    /// No key could be made.
    #[error("no key could be made")]
    NoRandom(#[from] NoRandom),
    /// The file system refused.
    #[error("can't {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl KeyFile {
    /// A key file at a path; nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key in the file.
    ///
    /// # Errors
    /// No such file, others may use it, it is cut short or damaged, or it can't be read.
    pub fn read(&self) -> Result<MasterKey, KeyFileError> {
        let path = || self.path.clone();
        // Not to wait for the other end of a pipe.
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&self.path);
        let file = opened.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => KeyFileError::Missing { path: path() },
            _ => self.io("open the key file", source),
        })?;
        // Of what was opened, not of what the path names by now.
        let metadata = file.metadata().map_err(|e| self.io("look at the key file", e))?;
        if !metadata.is_file() {
            return Err(KeyFileError::NoFile { path: path() });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::OpenToOthers { path: path(), mode });
        }
        // Room for all of it at once: a buffer that grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(2 * key_text::MAX_BYTES));
        let most = key_text::MAX_BYTES as u64 + 1;
        file.take(most)
            .read_to_end(&mut text)
            .map_err(|e| self.io("read the key file", e))?;
        key_text::read(&text).map_err(|source| KeyFileError::Text { path: path(), source })
    }

    /// Makes the file with a new random key. It is on the disk, whole, before it has its name.
    ///
    /// For the first start of a vault only: one that has a [`Lock`](super::Lock) is opened by the key that it had.
    ///
    /// # Errors
    /// There is a file already (even one made meanwhile, even an empty one), the disk is full, the folder is missing.
    pub fn create(&self) -> Result<MasterKey, KeyFileError> {
        if fs::symlink_metadata(&self.path).is_ok() {
            return Err(KeyFileError::Exists {
                path: self.path.clone(),
            });
        }
        let key = MasterKey::generate()?;
        let mut suffix = [0; 8];
        random(&mut suffix)?;
        let mut draft = OsString::from(&self.path);
        draft.push(format!(".{}.new", hex(&suffix)));
        let draft = PathBuf::from(draft);
        let made = write_synced(&draft, key_text::write(&key).as_bytes())
            .map_err(|e| self.io("write a key file beside", e))
            // A rename would replace a file that somebody made meanwhile; a second name for the file never does.
            .and_then(|()| {
                fs::hard_link(&draft, &self.path).map_err(|source| match source.kind() {
                    io::ErrorKind::AlreadyExists => KeyFileError::Exists {
                        path: self.path.clone(),
                    },
                    _ => self.io("give the key file its name", source),
                })
            });
        // A draft that stays holds a key that opens nothing, or the key file's own.
        let _ = fs::remove_file(&draft);
        made?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .map_err(|e| self.io("sync the folder of the key file", e))?;
        Ok(key)
    }

    fn io(&self, action: &'static str, source: io::Error) -> KeyFileError {
        KeyFileError::Io {
            action,
            path: self.path.clone(),
            source,
        }
    }
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("master.key"));
        assert!(matches!(file.read(), Err(KeyFileError::Missing { .. })));
        let key = file.create().unwrap();
        assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(file.read().unwrap().id(), key.id());
        assert!(matches!(file.create(), Err(KeyFileError::Exists { .. })));
        assert_eq!(file.read().unwrap().id(), key.id());
        // No draft stays.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_ever_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("master.key"));
        fs::write(file.path(), "").unwrap();
        assert!(matches!(file.create(), Err(KeyFileError::Exists { .. })));
        fs::remove_file(file.path()).unwrap();
        // Not through a link that leads nowhere yet, either.
        symlink(folder.path().join("elsewhere"), file.path()).unwrap();
        assert!(matches!(file.create(), Err(KeyFileError::Exists { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn of_many_that_make_it_at_once_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("master.key"));
        let made: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| file.create())).collect();
            makers.into_iter().map(|m| m.join().unwrap()).collect()
        });
        let made: Vec<_> = made.into_iter().filter_map(Result::ok).collect();
        assert_eq!(made.len(), 1);
        assert_eq!(file.read().unwrap().id(), made[0].id());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("master.key"));
        file.create().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610] {
            chmod(file.path(), mode);
            let error = file.read().unwrap_err();
            assert!(
                matches!(error, KeyFileError::OpenToOthers { mode: m, .. } if m == mode),
                "{error}"
            );
        }
        chmod(file.path(), 0o400);
        assert!(file.read().is_ok());
    }

    #[test]
    fn a_cut_or_longer_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("master.key"));
        file.create().unwrap();
        let whole = fs::read(file.path()).unwrap();
        for text in [
            &[] as &[u8],
            &whole[..20],
            &whole[..whole.len() - 2],
            &whole.repeat(2),
            &whole.repeat(9),
        ] {
            fs::write(file.path(), text).unwrap();
            let error = file.read().unwrap_err();
            assert!(
                matches!(error, KeyFileError::Text { .. }),
                "{} bytes: {error}",
                text.len()
            );
        }
        // The line's end may be missing.
        fs::write(file.path(), &whole[..whole.len() - 1]).unwrap();
        assert!(file.read().is_ok());
    }

    #[test]
    fn links_are_followed_and_other_things_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("master.key"));
        let key = file.create().unwrap();
        let link = KeyFile::new(folder.path().join("link"));
        symlink(file.path(), link.path()).unwrap();
        assert_eq!(link.read().unwrap().id(), key.id());
        assert!(matches!(
            KeyFile::new(folder.path()).read(),
            Err(KeyFileError::NoFile { .. })
        ));
        let missing = KeyFile::new(folder.path().join("no/such/folder/key"));
        assert!(matches!(missing.create(), Err(KeyFileError::Io { .. })));
    }
}
