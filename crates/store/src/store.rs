//! The store's face and the engine behind it.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::embedded::{Embedded, FileDisk, Options};
use crate::{Key, LeaseId, Range, Record, Revision, StoreError, Txn, TxnOutcome, Watch};

/// A future that an [`Engine`] returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A handle on the fleet's records. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct Store {
    engine: Arc<dyn Engine>,
}

impl Store {
    /// Opens, or makes, the embedded store in the file at `path` and starts its writer thread.
    ///
    /// Makes missing directories (mode 0700) and the file (mode 0600). Blocks for as long as the
    /// disk takes. The file is released when the last clone is dropped or [`close`](Self::close)d.
    ///
    /// # Errors
    /// [`Locked`](StoreError::Locked), [`FormatTooNew`](StoreError::FormatTooNew),
    /// [`Corrupt`](StoreError::Corrupt), or a failure of the disk.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let disk = FileDisk::open(path)?;
        Ok(Store::new(Embedded::open(disk, options)?))
    }

    /// A store on the given engine.
    pub fn new(engine: impl Engine) -> Self {
        Store {
            engine: Arc::new(engine),
        }
    }

    /// Runs a transaction. An answer means that it is on disk.
    ///
    /// Transactions are strictly serializable. A dropped future does not take the transaction back:
    /// it may still commit.
    ///
    /// # Errors
    /// Malformed transactions ([`TooLarge`](StoreError::TooLarge), [`EmptyKey`](StoreError::EmptyKey),
    /// [`DuplicateKey`](StoreError::DuplicateKey), [`NoSuchLease`](StoreError::NoSuchLease)) change
    /// nothing; for failures of the disk see [`StoreError`].
    pub async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.engine.txn(txn).await
    }

    /// The newest committed record of `key`; `None` if there is none.
    ///
    /// # Errors
    /// The disk's.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Record>, StoreError> {
        self.engine.get(key.into()).await
    }

    /// The records of a range at one revision, at most `limit` of them.
    ///
    /// To go on after a [`Page`] with more to come, ask for [`Range::after`] its last key
    /// ([`Range::before`] when descending): the next page has its own, perhaps later, revision.
    ///
    /// # Errors
    /// The disk's.
    pub async fn range(&self, range: Range, limit: usize, order: Order) -> Result<Page, StoreError> {
        self.engine.range(range, limit, order).await
    }

    /// Every change in `range` with a revision greater than `from`, as it happens.
    ///
    /// `from` may lie in the future. To follow a listing, pass [`Page::revision`]. Every watch is
    /// woken by every commit, so few watches over wide ranges are better than many narrow ones.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if changes after `from` are no longer kept.
    pub async fn watch(&self, range: Range, from: Revision) -> Result<Watch, StoreError> {
        self.engine.watch(range, from).await
    }

    /// Makes a lease that ends `ttl` after it was last kept alive (1 ms to 10 years).
    ///
    /// The store's own restart never ends a lease early: each gets its full `ttl` again.
    ///
    /// # Errors
    /// [`StoreError::BadTtl`], or the disk's.
    pub async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.engine.grant(ttl).await
    }

    /// Starts the lease's time anew. Touches no disk.
    ///
    /// # Errors
    /// [`StoreError::NoSuchLease`] if it has ended.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.engine.keep_alive(lease).await
    }

    /// Ends a lease now: its records are deleted in one transaction, whose revision is returned
    /// (the present one if it had no records).
    ///
    /// # Errors
    /// [`StoreError::NoSuchLease`] if it has ended, or the disk's.
    pub async fn revoke(&self, lease: LeaseId) -> Result<Revision, StoreError> {
        self.engine.revoke(lease).await
    }

    /// Forgets the history up to and including `upto`; records are untouched.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn compact(&self, upto: Revision) -> Result<(), StoreError> {
        self.engine.compact(upto).await
    }

    /// How the store is. Never waits.
    pub fn status(&self) -> Status {
        self.engine.status()
    }

    /// Finishes what was asked for, then releases the file. Later calls fail with
    /// [`StoreError::Closed`]. Closing twice is harmless.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("status", &self.status()).finish()
    }
}

/// What stands behind a [`Store`]: the same contract, method by method.
pub trait Engine: Send + Sync + 'static {
    /// See [`Store::txn`].
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, StoreError>>;
    /// See [`Store::get`].
    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;
    /// See [`Store::range`].
    fn range(&self, range: Range, limit: usize, order: Order) -> BoxFuture<'_, Result<Page, StoreError>>;
    /// See [`Store::watch`].
    fn watch(&self, range: Range, from: Revision) -> BoxFuture<'_, Result<Watch, StoreError>>;
    /// See [`Store::grant`].
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>>;
    /// See [`Store::keep_alive`].
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>>;
    /// See [`Store::revoke`].
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<Revision, StoreError>>;
    /// See [`Store::compact`].
    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<(), StoreError>>;
    /// See [`Store::status`].
    fn status(&self) -> Status;
    /// See [`Store::close`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The direction of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the first key.
    #[default]
    Ascending,
    /// From the last key.
    Descending,
}

/// Records of a range, read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The records, in the order asked for.
    pub records: Vec<Record>,
    /// The revision at which all of them were read.
    pub revision: Revision,
    /// Whether the limit cut the listing short.
    pub more: bool,
}

/// How a store is.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether it serves.
    pub health: Health,
    /// The newest committed revision.
    pub revision: Revision,
    /// The oldest revision from which a watch can start.
    pub watchable_from: Revision,
    /// Length of the store's file in bytes (it may occupy less); 0 if not known.
    pub disk_bytes: u64,
    /// Leases that have not ended.
    pub leases: usize,
}

/// Whether a store serves.
#[derive(Clone, Debug)]
pub enum Health {
    /// Reads and writes work.
    Serving,
    /// The disk failed; every call tries again and fails with this until it recovers.
    Failing(StoreError),
    /// Closed for good.
    Closed,
}
