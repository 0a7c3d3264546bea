//! What can go wrong in the metric store.

use std::io;
use std::path::PathBuf;

use super::Aggregate;

/// Why an operation of the metric store failed.
///
/// After any error nothing that had been synced is lost, and the store goes on by itself once the cause is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// The disk (or the quota) has no room left.
    #[error("no room left for metrics: {detail}")]
    StorageFull {
        /// What the operating system said.
        detail: String,
    },
    /// Reading or writing a file failed for another reason.
    #[error("metric storage failed: {detail}")]
    Storage {
        /// What the operating system or the storage engine said.
        detail: String,
    },
    /// The folder or its catalogue could not be opened.
    #[error("cannot open metric store {}: {detail}", path.display())]
    Open {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// Stored bytes do not decode; the text names the field that did not fit.
    #[error("metric file is damaged: {0}")]
    Corrupt(&'static str),
    /// Samples wait in memory for a disk that does not take them; nothing of the batch was stored.
    #[error("metrics wait for the disk: {detail}")]
    Backlog {
        /// What the last attempt to write met.
        detail: String,
    },
    /// A series without a name, with a label twice, or too big.
    #[error("invalid series: {0}")]
    InvalidSeries(&'static str),
    /// A matcher's regular expression.
    #[error("invalid pattern {pattern:?} for label {label}: {detail}")]
    InvalidPattern {
        /// The label it was for.
        label: String,
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The end of a range lies before its start.
    #[error("invalid range: ends at {to_ms} ms, before its start at {from_ms} ms")]
    InvalidRange {
        /// Start asked for.
        from_ms: i64,
        /// End asked for.
        to_ms: i64,
    },
    /// A step that is not positive.
    #[error("invalid step of {step_ms} ms: must be above 0")]
    InvalidStep {
        /// Step asked for.
        step_ms: i64,
    },
    /// The query would read more samples than one may.
    #[error("query reads more than {limit} samples: narrow its labels or its time")]
    TooManySamples {
        /// The bound.
        limit: u64,
    },
    /// The answer would hold more points than one may.
    #[error("query answers with more than {limit} points: narrow its labels, shorten its time or widen its step")]
    TooManyPoints {
        /// The bound.
        limit: u64,
    },
    /// The aggregate needs single samples, of which the older ones are gone.
    #[error("{aggregate} needs raw samples, which are kept from {raw_from_ms} ms on; older data is rolled up")]
    NeedsRaw {
        /// What was asked for.
        aggregate: Aggregate,
        /// Oldest raw sample that is kept, ms since 1970 UTC.
        raw_from_ms: i64,
    },
}

impl MetricError {
    pub(super) fn from_io(error: &io::Error) -> Self {
        let detail = error.to_string();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::StorageFull { detail },
            _ => Self::Storage { detail },
        }
    }
}

impl From<io::Error> for MetricError {
    fn from(error: io::Error) -> Self {
        Self::from_io(&error)
    }
}

impl From<redb::Error> for MetricError {
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
        impl From<redb::$kind> for MetricError {
            fn from(error: redb::$kind) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}
through_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError);
