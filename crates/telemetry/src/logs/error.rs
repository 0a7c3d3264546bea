//! What can go wrong in the log store.

use std::io;
use std::path::PathBuf;

/// Why an operation of the log store failed.
///
/// After any error nothing that was acknowledged before is lost, and the store goes on by itself once the
/// cause is gone: the caller sends its batch again, and what had been stored after all is dropped as double.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk (or the quota) has no room left.
    #[error("no room left for logs: {detail}")]
    StorageFull {
        /// What the operating system said.
        detail: String,
    },
    /// Reading or writing the file failed for another reason.
    #[error("log storage failed: {detail}")]
    Storage {
        /// What the storage engine said.
        detail: String,
    },
    /// The folder or file could not be opened.
    #[error("cannot open log store {}: {detail}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A stored block does not decode.
    #[error("log block is damaged: {detail}")]
    Corrupt {
        /// Which field did not fit.
        detail: &'static str,
    },
    /// A workload name that is empty or longer than 255 bytes.
    #[error("workload name of {bytes} bytes, allowed are 1 to 255")]
    InvalidWorkload {
        /// Length of the name.
        bytes: usize,
    },
    /// A line that cannot be stored: number 0 or `u64::MAX`, or a text over 16 MiB.
    #[error("line {number} of {bytes} bytes: numbers go from 1, texts to 16 MiB")]
    InvalidLine {
        /// The line's number.
        number: u64,
        /// Length of its text.
        bytes: usize,
    },
    /// The workload's logs were removed while they were followed.
    #[error("logs of workload {workload} were removed")]
    WorkloadRemoved {
        /// The workload.
        workload: String,
    },
    /// The store was closed.
    #[error("log store is closed")]
    Closed,
}

impl LogError {
    /// Whether the error comes from the storage below, so that the file has to be opened again.
    pub(super) fn is_storage(&self) -> bool {
        matches!(self, Self::StorageFull { .. } | Self::Storage { .. })
    }

    pub(super) fn from_io(error: &io::Error) -> Self {
        let detail = error.to_string();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::StorageFull { detail },
            _ => Self::Storage { detail },
        }
    }
}

impl From<redb::Error> for LogError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::from_io(&error),
            other => Self::Storage {
                detail: other.to_string(),
            },
        }
    }
}

macro_rules! through_redb {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for LogError {
            fn from(error: redb::$kind) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}
through_redb!(
    StorageError,
    TableError,
    TransactionError,
    CommitError,
    DatabaseError,
    SetDurabilityError
);
