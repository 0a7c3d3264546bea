//! Reading: the newest committed snapshot, shared by all readers.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::ReadOnlyTable;

use super::codec::{decode_key, decode_record, redb_error};
use super::history::History;
use super::lease::Leases;
use crate::{Change, Health, Key, Order, Page, Range, Record, Revision, Status, StoreError};

/// What the writer shows to everybody else.
pub(crate) struct Shared {
    snapshot: RwLock<Result<Arc<Snapshot>, StoreError>>,
    health: RwLock<Health>,
    disk_bytes: AtomicU64,
    pub(crate) history: Arc<History>,
    pub(crate) leases: Mutex<Leases>,
}

/// The records at one revision.
pub(crate) struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) records: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Shared {
    pub(crate) fn new(history: History) -> Self {
        Shared {
            snapshot: RwLock::new(Err(StoreError::Closed)),
            health: RwLock::new(Health::Serving),
            disk_bytes: AtomicU64::new(0),
            history: Arc::new(history),
            leases: Mutex::default(),
        }
    }

    /// Replaces what readers see.
    pub(crate) fn show(&self, snapshot: Result<Snapshot, StoreError>) {
        let snapshot = snapshot.map(Arc::new);
        let mut shown = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *shown, snapshot);
        drop(shown);
        // Outside the lock: the last holder of a snapshot does some work to let it go.
        drop(before);
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, StoreError> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_health(&self, health: Health) {
        *self.health.write().unwrap_or_else(PoisonError::into_inner) = health;
    }

    pub(crate) fn set_disk_bytes(&self, bytes: u64) {
        self.disk_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Ends service: readers and watchers get [`StoreError::Closed`].
    pub(crate) fn close(&self) {
        self.show(Err(StoreError::Closed));
        self.set_health(Health::Closed);
        self.history.close();
    }
}

/// Reads a store's newest committed state from any thread, without waiting for its writer.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    /// The record of `key`; `None` if there is none.
    ///
    /// # Errors
    /// The disk's.
    pub fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.read(|snapshot| {
            let stored = snapshot.records.get(key.as_bytes()).map_err(redb_error)?;
            stored
                .map(|stored| decode_record(key.clone(), stored.value()))
                .transpose()
        })
    }

    /// At most `limit` records of `range`, all at one revision.
    ///
    /// # Errors
    /// The disk's.
    pub fn range(&self, range: &Range, limit: usize, order: Order) -> Result<Page, StoreError> {
        self.read(|snapshot| {
            let mut page = Page {
                records: Vec::new(),
                revision: snapshot.revision,
                more: false,
            };
            if range.is_empty() {
                return Ok(page);
            }
            let mut rows = snapshot.records.range::<&[u8]>(bounds(range)).map_err(redb_error)?;
            loop {
                let row = match order {
                    Order::Ascending => rows.next(),
                    Order::Descending => rows.next_back(),
                };
                let Some(row) = row else {
                    return Ok(page);
                };
                if page.records.len() == limit {
                    page.more = true;
                    return Ok(page);
                }
                let (key, stored) = row.map_err(redb_error)?;
                let key = decode_key(key.value())?;
                page.records.push(decode_record(key, stored.value())?);
            }
        })
    }

    /// Changes of `range` after `from`, oldest first, and the revision up to which they are
    /// complete; `from` itself if there is nothing newer. May return a part: call again from the
    /// revision returned until that no longer moves.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if they are no longer kept.
    pub fn changes(&self, range: &Range, from: Revision) -> Result<(Vec<Change>, Revision), StoreError> {
        self.shared.history.after(range, from)
    }

    /// How the store is.
    pub fn status(&self) -> Status {
        let health = self
            .shared
            .health
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let leases = self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner).len();
        Status {
            health,
            revision: self.shared.history.head(),
            watchable_from: self.shared.history.floor(),
            disk_bytes: self.shared.disk_bytes.load(Ordering::Relaxed),
            leases,
        }
    }

    /// Reads a snapshot, and reads again if its file was reopened meanwhile.
    fn read<T>(&self, look: impl Fn(&Snapshot) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let snapshot = self.shared.snapshot()?;
        match look(&snapshot) {
            Err(error) if error.is_transient() => {
                let newer = self.shared.snapshot()?;
                if Arc::ptr_eq(&snapshot, &newer) {
                    return Err(error);
                }
                look(&newer)
            }
            result => result,
        }
    }
}

/// A range as redb takes it. Must not be used for an empty range.
pub(crate) fn bounds(range: &Range) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (
        Bound::Included(range.start_bytes()),
        range.end_bytes().map_or(Bound::Unbounded, Bound::Excluded),
    )
}
