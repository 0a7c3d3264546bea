//! Watches: changes in order, without a gap.

use std::fmt;

use crate::{BoxFuture, Change, Revision, StoreError};

/// Some of a watch's changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// The watch has now delivered everything in its range up to and including this revision.
    pub revision: Revision,
    /// The changes since the batch before, oldest first; those of one transaction are never split
    /// over two batches. Never empty.
    pub changes: Vec<Change>,
}

/// A running watch, made by [`Store::watch`](crate::Store::watch).
///
/// It holds no changes itself: it reads them from the store's shared history, so one that is never
/// asked costs nothing and holds up nobody.
pub struct Watch {
    source: Box<dyn WatchSource>,
}

impl Watch {
    /// Wraps an engine's watch.
    pub fn new(source: Box<dyn WatchSource>) -> Self {
        Watch { source }
    }

    /// Waits for the next changes.
    ///
    /// Cancel-safe: a dropped future loses nothing.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if the watch fell behind what the history keeps (final: read the
    /// present state and watch anew); [`StoreError::Closed`] once the store is closed and every
    /// change is delivered.
    pub async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        self.source.next().await
    }

    /// The revision up to which everything has been delivered.
    pub fn revision(&self) -> Revision {
        self.source.revision()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

/// An engine's side of a [`Watch`]; the same contract.
pub trait WatchSource: Send {
    /// See [`Watch::next`].
    fn next(&mut self) -> BoxFuture<'_, Result<WatchBatch, StoreError>>;

    /// See [`Watch::revision`].
    fn revision(&self) -> Revision;
}
