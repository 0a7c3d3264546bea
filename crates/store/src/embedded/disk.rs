//! Where the file lives: a real file, or memory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::StoreError;

/// Something that holds a store's bytes and can be opened again after a failure.
pub trait Disk: Send + 'static {
    /// Opens the bytes as they are now. Whatever was opened before is no longer used.
    ///
    /// # Errors
    /// The disk's own.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Says that what was opened last is a whole store. One that was being made and never came
    /// this far (the power went) may be thrown away by the next opening. Called after every
    /// opening; must be durable when it returns.
    ///
    /// # Errors
    /// The disk's own.
    fn keep(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file, locked against other processes for as long as this value lives.
///
/// A new store is made under the name with `.new` appended, and gets its own name once it is whole.
#[derive(Debug)]
pub struct FileDisk {
    file: Arc<File>,
    path: PathBuf,
    parent: PathBuf,
}

impl FileDisk {
    /// Opens or makes the file at `path` (mode 0600; missing directories 0700) and locks it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if it is open elsewhere, or the disk's.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_path_buf();
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&parent)
            .map_err(StoreError::from_io)?;
        loop {
            let file = match open_or_make(&path, false) {
                Ok(file) => lock(file, &path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let file = open_or_make(&unfinished(&path), true);
                    let file = lock(file.map_err(StoreError::from_io)?, &path)?;
                    // Only the holder of this lock may give the file its name. If it already has
                    // one, another process was faster.
                    if path.try_exists().map_err(StoreError::from_io)? {
                        continue;
                    }
                    file.set_permissions(Permissions::from_mode(0o600))
                        .and_then(|()| file.set_len(0))
                        .map_err(StoreError::from_io)?;
                    file
                }
                Err(error) => return Err(StoreError::from_io(error)),
            };
            return Ok(FileDisk {
                file: Arc::new(file),
                path,
                parent,
            });
        }
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn open_or_make(path: &Path, make: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(make)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn lock(file: File, path: &Path) -> Result<File, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            path: path.to_path_buf(),
        }),
        Err(TryLockError::Error(source)) => Err(StoreError::from_io(source)),
    }
}

impl Disk for FileDisk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(FileBytes(self.file.clone())))
    }

    fn keep(&self) -> io::Result<()> {
        if !self.path.try_exists()? {
            fs::rename(unfinished(&self.path), &self.path)?;
        }
        // A file is durable only once the directory that names it is.
        File::open(&self.parent)?.sync_all()
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        // A reader may still hold the file; it must not hold the lock. Failure leaves that to the
        // last reader.
        let _ = self.file.unlock();
    }
}

#[derive(Debug)]
struct FileBytes(Arc<File>);

impl StorageBackend for FileBytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// Bytes in memory. Clones share them, so a clone opens what another has written.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl MemoryDisk {
    /// Empty.
    pub fn new() -> Self {
        MemoryDisk::default()
    }
}

impl Disk for MemoryDisk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.clone()))
    }
}

/// The place of `len` bytes at `offset`, if it lies inside `size`.
pub(crate) fn span(offset: u64, len: usize, size: usize) -> io::Result<std::ops::Range<usize>> {
    usize::try_from(offset)
        .ok()
        .and_then(|start| Some(start..start.checked_add(len)?))
        .filter(|span| span.end <= size)
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}

impl StorageBackend for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let span = span(offset, out.len(), bytes.len())?;
        out.copy_from_slice(&bytes[span]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::StorageFull)?;
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let span = span(offset, data.len(), bytes.len())?;
        bytes[span].copy_from_slice(data);
        Ok(())
    }
}

/// Stands between redb and the disk, and can be shut: a database that has failed must never touch
/// the bytes again once another has opened them.
///
/// It also remembers what was written since the last good sync. After a failed one the system may
/// call those bytes clean although the disk never got them, so that no later sync would write them;
/// the next gate therefore writes them once more.
pub(crate) struct Gate {
    inner: Box<dyn StorageBackend>,
    state: Arc<GateState>,
}

/// The half of a [`Gate`] that stays with its owner.
#[derive(Debug, Default)]
pub(crate) struct GateState {
    shut: AtomicBool,
    bytes: AtomicU64,
    unsynced: Mutex<Vec<Span>>,
}

/// A place in the file: offset and length.
type Span = (u64, usize);

/// Places whose bytes may not have reached the disk although they can be read.
#[derive(Debug, Default)]
pub(crate) struct Doubtful(BTreeMap<u64, usize>);

impl Doubtful {
    /// Adds what a gate that failed had not synced.
    pub(crate) fn add(&mut self, state: &GateState) {
        for (offset, len) in state.unsynced().drain(..) {
            let known = self.0.entry(offset).or_default();
            *known = len.max(*known);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Gate {
    /// Writes what is doubtful once more; it stays so until the first good sync.
    pub(crate) fn new(inner: Box<dyn StorageBackend>, doubtful: &Doubtful) -> io::Result<(Self, Arc<GateState>)> {
        let size = inner.len()?;
        let mut bytes = Vec::new();
        let mut unsynced = Vec::new();
        for (&offset, &len) in &doubtful.0 {
            let len = size.saturating_sub(offset).min(len as u64) as usize;
            bytes.resize(len, 0);
            inner.read(offset, &mut bytes)?;
            inner.write(offset, &bytes)?;
            unsynced.push((offset, len));
        }
        let state = Arc::new(GateState {
            shut: AtomicBool::new(false),
            bytes: AtomicU64::new(size),
            unsynced: Mutex::new(unsynced),
        });
        let gate = Gate {
            inner,
            state: state.clone(),
        };
        Ok((gate, state))
    }

    fn open(&self) -> io::Result<&dyn StorageBackend> {
        if self.state.shut.load(Ordering::Acquire) {
            return Err(io::Error::other("the file was reopened after a failure"));
        }
        Ok(&*self.inner)
    }
}

impl GateState {
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::Release);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn unsynced(&self) -> MutexGuard<'_, Vec<Span>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("shut", &self.state.shut)
            .finish_non_exhaustive()
    }
}

impl StorageBackend for Gate {
    fn len(&self) -> io::Result<u64> {
        self.open()?.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.open()?.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.open()?.set_len(len)?;
        self.state.bytes.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let inner = self.open()?;
        let mut covered = std::mem::take(&mut *self.state.unsynced());
        let synced = inner.sync_data();
        if synced.is_err() {
            self.state.unsynced().append(&mut covered);
        }
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.open()?.write(offset, data)?;
        self.state.unsynced().push((offset, data.len()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}
