//! The recent changes, in memory, for watchers.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::{BoxFuture, Change, Range, Revision, StoreError, WatchBatch, WatchSource};

/// What one transaction did.
#[derive(Debug)]
pub(crate) struct Revised {
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<Change>,
}

impl Revised {
    /// Memory that it takes, roughly.
    fn bytes(&self) -> usize {
        self.changes
            .iter()
            .map(|change| {
                let value = match change {
                    Change::Put(record) => record.value.len(),
                    Change::Delete { .. } => 0,
                };
                std::mem::size_of::<Change>() + change.key().len() + value
            })
            .sum()
    }
}

/// Transactions looked at under one hold of the lock; bounds how long a writer may wait for it.
const SCAN: usize = 256;
/// Changes after which a batch is handed out.
const BATCH: usize = 1024;

/// Every transaction after `floor`, without a gap, bounded in number and size.
pub(crate) struct History {
    kept: RwLock<Kept>,
    signal: watch::Sender<Signal>,
    max_changes: usize,
    max_bytes: usize,
}

struct Kept {
    /// Those with revisions `floor + 1`, `floor + 2`, …
    entries: VecDeque<Arc<Revised>>,
    floor: Revision,
    changes: usize,
    bytes: usize,
}

impl Kept {
    fn head(&self) -> Revision {
        Revision(self.floor.0 + self.entries.len() as u64)
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.floor = oldest.revision;
            self.changes -= oldest.changes.len();
            self.bytes -= oldest.bytes();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Signal {
    head: Revision,
    closed: bool,
}

impl History {
    pub(crate) fn new(head: Revision, max_changes: usize, max_bytes: usize) -> Self {
        History {
            kept: RwLock::new(Kept {
                entries: VecDeque::new(),
                floor: head,
                changes: 0,
                bytes: 0,
            }),
            signal: watch::Sender::new(Signal { head, closed: false }),
            max_changes,
            max_bytes,
        }
    }

    /// Adds the transactions that follow the newest, and wakes watchers.
    pub(crate) fn publish(&self, entries: impl IntoIterator<Item = Revised>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let before = kept.head();
        for entry in entries {
            debug_assert_eq!(entry.revision, kept.head().next());
            kept.changes += entry.changes.len();
            kept.bytes += entry.bytes();
            kept.entries.push_back(Arc::new(entry));
        }
        while kept.entries.len() > 1 && (kept.changes > self.max_changes || kept.bytes > self.max_bytes) {
            kept.drop_oldest();
        }
        let head = kept.head();
        drop(kept);
        if head != before {
            self.signal.send_modify(|signal| signal.head = head);
        }
    }

    /// Forgets everything and starts anew at `head`: watchers from before get `Compacted`.
    pub(crate) fn restart(&self, head: Revision) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.entries.clear();
        kept.changes = 0;
        kept.bytes = 0;
        kept.floor = head;
        drop(kept);
        self.signal.send_modify(|signal| signal.head = head);
    }

    /// Forgets revisions up to and including `upto`.
    pub(crate) fn compact(&self, upto: Revision) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        while kept.floor < upto && !kept.entries.is_empty() {
            kept.drop_oldest();
        }
    }

    /// The oldest revision from which a watch can start.
    pub(crate) fn floor(&self) -> Revision {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).floor
    }

    /// The newest revision published.
    pub(crate) fn head(&self) -> Revision {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).head()
    }

    /// Lets watchers end once they have everything.
    pub(crate) fn close(&self) {
        self.signal.send_modify(|signal| signal.closed = true);
    }

    /// Changes of `range` after `from`, and the revision up to which they are complete: beyond
    /// `from` unless there was nothing newer.
    pub(crate) fn after(&self, range: &Range, from: Revision) -> Result<(Vec<Change>, Revision), StoreError> {
        let mut at = from;
        let mut changes = Vec::new();
        loop {
            let scanned: Vec<Arc<Revised>> = {
                let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
                if at < kept.floor {
                    if changes.is_empty() {
                        return Err(StoreError::Compacted { oldest: kept.floor });
                    }
                    // What was gathered is complete up to `at`; the next call says the rest.
                    return Ok((changes, at));
                }
                let skip = usize::try_from(at.0 - kept.floor.0).unwrap_or(usize::MAX);
                if skip >= kept.entries.len() {
                    return Ok((changes, at));
                }
                kept.entries.iter().skip(skip).take(SCAN).cloned().collect()
            };
            for entry in &scanned {
                changes.extend(
                    entry
                        .changes
                        .iter()
                        .filter(|change| range.contains(change.key()))
                        .cloned(),
                );
                at = entry.revision;
                if changes.len() >= BATCH {
                    return Ok((changes, at));
                }
            }
        }
    }

    /// A watch of `range` from `from`.
    pub(crate) fn watch(self: &Arc<Self>, range: Range, from: Revision) -> Result<HistoryWatch, StoreError> {
        let oldest = self.floor();
        if from < oldest {
            return Err(StoreError::Compacted { oldest });
        }
        Ok(HistoryWatch {
            signal: self.signal.subscribe(),
            history: self.clone(),
            range,
            at: from,
        })
    }
}

/// A place in the history.
pub(crate) struct HistoryWatch {
    history: Arc<History>,
    signal: watch::Receiver<Signal>,
    range: Range,
    at: Revision,
}

impl WatchSource for HistoryWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchBatch, StoreError>> {
        Box::pin(async move {
            loop {
                let closed = self.signal.borrow_and_update().closed;
                let (changes, revision) = self.history.after(&self.range, self.at)?;
                self.at = revision;
                if !changes.is_empty() {
                    return Ok(WatchBatch { revision, changes });
                }
                if closed {
                    return Err(StoreError::Closed);
                }
                // The sender lives in `history`, so this fails never.
                if self.signal.changed().await.is_err() {
                    return Err(StoreError::Closed);
                }
            }
        })
    }

    fn revision(&self) -> Revision {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn revised(revision: u64, keys: &[&str]) -> Revised {
        let revision = Revision(revision);
        let changes = keys
            .iter()
            .map(|key| Change::Delete {
                key: Key::from(*key),
                revision,
            })
            .collect();
        Revised { revision, changes }
    }

    #[test]
    fn a_reader_gets_all_after_its_place_or_is_told() {
        let history = History::new(Revision(10), 4, usize::MAX);
        let all = Range::all();
        assert_eq!(history.after(&all, Revision(10)).unwrap(), (vec![], Revision(10)));
        history.publish([revised(11, &["a", "b"]), revised(12, &["c"])]);
        assert_eq!(history.after(&all, Revision(10)).unwrap().0.len(), 3);
        assert_eq!(history.after(&all, Revision(11)).unwrap().0.len(), 1);
        assert_eq!(
            history.after(&Range::key("a"), Revision(10)).unwrap(),
            (revised(11, &["a"]).changes, Revision(12))
        );
        history.publish([revised(13, &["d", "e"])]);
        assert!(matches!(
            history.after(&all, Revision(10)),
            Err(StoreError::Compacted { oldest }) if oldest == Revision(11)
        ));
        history.compact(Revision(12));
        assert_eq!(history.floor(), Revision(12));
        history.compact(Revision(99));
        assert_eq!((history.floor(), history.head()), (Revision(13), Revision(13)));
        // A place in the future waits.
        assert_eq!(history.after(&all, Revision(20)).unwrap().1, Revision(20));
    }

    #[test]
    fn the_newest_transaction_is_kept_however_large() {
        let history = History::new(Revision(0), 1, 1);
        history.publish([revised(1, &["a", "b", "c"])]);
        assert_eq!(history.after(&Range::all(), Revision(0)).unwrap().0.len(), 3);
    }
}
