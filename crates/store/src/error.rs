//! What can go wrong.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{Key, LeaseId, Revision};

/// A store could not do what it was asked.
///
/// A transaction whose conditions do not hold is not an error: see
/// [`TxnOutcome::Conflict`](crate::TxnOutcome). After [`StorageFull`](Self::StorageFull),
/// [`Io`](Self::Io) or [`Closed`](Self::Closed) from a write it is unknown whether the write took
/// effect (as with a lost answer): read before trying again.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room on the disk, or in its quota. Service resumes by itself once there is room.
    #[error("the store's disk is full")]
    StorageFull {
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The disk failed. The store reopens its file and resumes by itself if the disk recovers.
    #[error("the store's disk failed")]
    Io {
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The file holds something that this store did not write.
    #[error("the store's file is damaged: {detail}")]
    Corrupt {
        /// What was found.
        detail: String,
    },
    /// Another process has the store open.
    #[error("the store {} is in use by another process", path.display())]
    Locked {
        /// The file concerned.
        path: PathBuf,
    },
    /// A newer version of this program wrote the file.
    #[error("the store has format {found}, this program reads up to format {supported}")]
    FormatTooNew {
        /// The file's format.
        found: u64,
        /// The newest format that this program knows.
        supported: u64,
    },
    /// Changes that far back are no longer kept: read the present state with
    /// [`range`](crate::Store::range) and watch from that revision.
    #[error("changes up to revision {oldest} are no longer kept")]
    Compacted {
        /// The oldest revision from which a watch can start now.
        oldest: Revision,
    },
    /// Something in the request is larger than the store accepts.
    #[error("{part} is {size}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        part: Part,
        /// Its size, in the part's unit.
        size: usize,
        /// The largest accepted size, in the same unit.
        limit: usize,
    },
    /// A key is empty.
    #[error("a key must not be empty")]
    EmptyKey,
    /// One transaction touches the same key twice, so its meaning would hang on the order.
    #[error("the transaction changes {key:?} more than once")]
    DuplicateKey {
        /// The key named twice.
        key: Key,
    },
    /// The lease was never granted, was revoked, or has ended.
    #[error("there is no lease {lease}")]
    NoSuchLease {
        /// The lease asked for.
        lease: LeaseId,
    },
    /// A lease's time to live lies outside what the store accepts (1 ms to 10 years).
    #[error("a lease cannot live for {ttl_ms} ms")]
    BadTtl {
        /// What was asked for, in milliseconds.
        ttl_ms: u128,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing it.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::StorageFull { .. } | StoreError::Io { .. })
    }

    /// Sorts a failure of the disk.
    pub(crate) fn from_io(source: io::Error) -> Self {
        let full = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let source = Arc::new(source);
        if full {
            StoreError::StorageFull { source }
        } else {
            StoreError::Io { source }
        }
    }
}

/// What [`StoreError::TooLarge`] is about, with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One key, in bytes.
    KeyBytes,
    /// One value, in bytes.
    ValueBytes,
    /// All keys and values of a transaction, in bytes.
    TxnBytes,
    /// Conditions and operations of a transaction, counted.
    TxnParts,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::KeyBytes => "the size of a key in bytes",
            Part::ValueBytes => "the size of a value in bytes",
            Part::TxnBytes => "the size of a transaction in bytes",
            Part::TxnParts => "the number of conditions and operations of a transaction",
        })
    }
}
