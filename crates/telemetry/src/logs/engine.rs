//! The file, opened again after a failure.
//!
//! redb refuses every call after an IO error until the file has been opened anew; so the database sits in a
//! slot that whoever meets such an error refills. Snapshots are held for the length of one call only.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::LogError;
use super::keys::{BLOCKS, STREAMS, TOTALS, WORKLOADS};

/// Makes the storage of the database, at first and after each failure.
pub(super) type Opener = Box<dyn Fn(&mut redb::Builder) -> Result<Database, LogError> + Send + Sync>;

pub(super) struct Engine {
    slot: RwLock<Option<Database>>,
    /// Goes up whenever the slot is refilled.
    generation: AtomicU64,
    closed: AtomicBool,
    opener: Opener,
    cache_bytes: usize,
    /// For its size; `None` on storage that is no file.
    path: Option<PathBuf>,
}

/// A consistent view of the file.
pub(super) struct Snapshot {
    pub(super) workloads: ReadOnlyTable<&'static str, u64>,
    pub(super) streams: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    pub(super) blocks: ReadOnlyTable<&'static [u8; 24], &'static [u8]>,
    pub(super) totals: ReadOnlyTable<u8, &'static [u8]>,
}

impl Snapshot {
    fn of(txn: &ReadTransaction) -> Result<Self, LogError> {
        Ok(Self {
            workloads: txn.open_table(WORKLOADS)?,
            streams: txn.open_table(STREAMS)?,
            blocks: txn.open_table(BLOCKS)?,
            totals: txn.open_table(TOTALS)?,
        })
    }
}

impl Engine {
    /// Opens `logs.redb` in `dir`, making both where they are missing (modes 0700 and 0600).
    pub(super) fn open(dir: &Path, cache_bytes: usize) -> Result<Self, LogError> {
        let path = dir.join("logs.redb");
        let cannot = |path: &Path, detail: String| LogError::Open {
            path: path.to_owned(),
            detail,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| cannot(dir, e.to_string()))?;
        let file_path = path.clone();
        let opener: Opener = Box::new(move |builder| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&file_path)
                .map_err(|e| LogError::from_io(&e))?;
            Ok(builder.create_with_backend(FileBackend::new(file)?)?)
        });
        let engine = Self::with_opener(opener, cache_bytes, Some(path.clone())).map_err(|e| match e {
            LogError::Storage { detail } => cannot(&path, detail),
            other => other,
        })?;
        // The file's name must be as durable as its contents.
        std::fs::File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| cannot(dir, e.to_string()))?;
        Ok(engine)
    }

    pub(super) fn with_opener(opener: Opener, cache_bytes: usize, path: Option<PathBuf>) -> Result<Self, LogError> {
        let engine = Self {
            slot: RwLock::new(None),
            generation: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            opener,
            cache_bytes,
            path,
        };
        engine.reopen(0)?;
        Ok(engine)
    }

    /// Opens the file again unless someone has since generation `seen`.
    pub(super) fn reopen(&self, seen: u64) -> Result<(), LogError> {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(LogError::Closed);
        }
        if slot.is_some() && self.generation.load(Ordering::Acquire) != seen {
            return Ok(());
        }
        // The old one goes first: it holds the file's lock.
        *slot = None;
        let database = (self.opener)(redb::Builder::new().set_cache_size(self.cache_bytes))?;
        // Only a new file needs its tables made; an open one must not need room to be read.
        let ready = Snapshot::of(&database.begin_read()?).is_ok();
        if !ready {
            let txn = database.begin_write()?;
            txn.open_table(WORKLOADS)?;
            txn.open_table(STREAMS)?;
            txn.open_table(BLOCKS)?;
            txn.open_table(TOTALS)?;
            txn.commit()?;
        }
        *slot = Some(database);
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Runs `f` on the database; after a storage error the file is opened again for the next caller.
    pub(super) fn with<T>(&self, f: impl FnOnce(&Database) -> Result<T, LogError>) -> Result<T, LogError> {
        if self.is_empty() {
            self.reopen(self.generation.load(Ordering::Acquire))?;
        }
        let seen;
        let outcome = {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            seen = self.generation.load(Ordering::Acquire);
            f(slot.as_ref().ok_or(LogError::Closed)?)
        };
        if let Err(error) = &outcome
            && error.is_storage()
            && let Err(again) = self.reopen(seen)
        {
            tracing::warn!(%error, %again, "log store could not be opened again yet");
        }
        outcome
    }

    /// Runs `f` on a snapshot, once more if a failed write got in its way.
    pub(super) fn read<T>(&self, mut f: impl FnMut(&Snapshot) -> Result<T, LogError>) -> Result<T, LogError> {
        let mut once = || self.with(|database| f(&Snapshot::of(&database.begin_read()?)?));
        match once() {
            Err(error) if error.is_storage() => once(),
            outcome => outcome,
        }
    }

    fn is_empty(&self) -> bool {
        self.slot.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Size of the file, 0 where there is none.
    pub(super) fn file_bytes(&self) -> u64 {
        let size = |path: &PathBuf| std::fs::metadata(path).map(|m| m.len()).ok();
        self.path.as_ref().and_then(size).unwrap_or(0)
    }

    /// Closes the file, once the snapshots in use are done.
    pub(super) fn close(&self) {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Release);
        *slot = None;
    }
}
