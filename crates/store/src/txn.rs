//! Transactions: conditions, operations, outcome.

use std::collections::HashSet;

use bytes::Bytes;

use crate::{Key, LeaseId, Part, Range, Revision, StoreError};

/// Something that must be true of the store for a transaction to take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// The key has no record.
    Absent(Key),
    /// The key has a record, whichever.
    Exists(Key),
    /// The key has a record that was last put at just this revision ([`Record::modified`](crate::Record)).
    Unchanged(Key, Revision),
}

impl Condition {
    /// The key it looks at.
    pub fn key(&self) -> &Key {
        match self {
            Condition::Absent(key) | Condition::Exists(key) | Condition::Unchanged(key, _) => key,
        }
    }

    /// Whether it holds where the key's record has `modified` (`None`: no record).
    pub(crate) fn holds(&self, modified: Option<Revision>) -> bool {
        match self {
            Condition::Absent(_) => modified.is_none(),
            Condition::Exists(_) => modified.is_some(),
            Condition::Unchanged(_, expected) => modified == Some(*expected),
        }
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Creates or replaces a record.
    Put {
        /// The record's key.
        key: Key,
        /// Its whole new value. A slice of a larger buffer keeps that buffer alive in the watch
        /// history for a while.
        value: Bytes,
        /// The lease it now hangs on. `None` detaches it from the one it had.
        lease: Option<LeaseId>,
    },
    /// Removes a record; nothing happens where there is none.
    Delete {
        /// The record's key.
        key: Key,
    },
    /// Removes every record in a range.
    DeleteRange {
        /// The range.
        range: Range,
    },
}

/// Changes that happen all at once if all conditions hold, and not at all otherwise.
///
/// A key may be put or deleted only once, and must not also lie in a deleted range
/// ([`StoreError::DuplicateKey`]); so the order of the operations carries no meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a transaction does nothing until it is handed to the store"]
pub struct Txn {
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// What then happens.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Without conditions or operations.
    pub fn new() -> Self {
        Txn::default()
    }

    /// Only if `key` has no record.
    pub fn absent(mut self, key: impl Into<Key>) -> Self {
        self.conditions.push(Condition::Absent(key.into()));
        self
    }

    /// Only if `key` has a record.
    pub fn exists(mut self, key: impl Into<Key>) -> Self {
        self.conditions.push(Condition::Exists(key.into()));
        self
    }

    /// Only if `key` was last put at `modified`.
    pub fn unchanged(mut self, key: impl Into<Key>, modified: Revision) -> Self {
        self.conditions.push(Condition::Unchanged(key.into(), modified));
        self
    }

    /// Creates or replaces `key`, without a lease.
    pub fn put(mut self, key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        });
        self
    }

    /// Creates or replaces `key`, to be deleted when `lease` ends.
    pub fn put_leased(mut self, key: impl Into<Key>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.ops.push(Op::Put {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        });
        self
    }

    /// Removes `key`, if it is there.
    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }

    /// Removes everything in `range`.
    pub fn delete_range(mut self, range: Range) -> Self {
        self.ops.push(Op::DeleteRange { range });
        self
    }

    /// Whether it would do nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of keys and values that it carries.
    pub(crate) fn bytes(&self) -> usize {
        let conditions: usize = self.conditions.iter().map(|c| c.key().len()).sum();
        let ops: usize = self
            .ops
            .iter()
            .map(|op| match op {
                Op::Put { key, value, .. } => key.len() + value.len(),
                Op::Delete { key } => key.len(),
                Op::DeleteRange { range } => range.start_bytes().len() + range.end_bytes().map_or(0, <[u8]>::len),
            })
            .sum();
        conditions + ops
    }

    /// Checks everything that can be checked without looking at the store.
    pub(crate) fn validate(&self, limits: &Limits) -> Result<(), StoreError> {
        within(Part::TxnParts, self.conditions.len() + self.ops.len(), limits.txn_parts)?;
        within(Part::TxnBytes, self.bytes(), limits.txn_bytes)?;
        for condition in &self.conditions {
            check_key(condition.key(), limits)?;
        }
        for op in &self.ops {
            match op {
                Op::Put { key, value, .. } => {
                    check_key(key, limits)?;
                    within(Part::ValueBytes, value.len(), limits.value_bytes)?;
                }
                Op::Delete { key } => check_key(key, limits)?,
                Op::DeleteRange { .. } => {}
            }
        }
        self.touches_each_key_once()
    }

    fn touches_each_key_once(&self) -> Result<(), StoreError> {
        let keys = || {
            self.ops.iter().filter_map(|op| match op {
                Op::Put { key, .. } | Op::Delete { key } => Some(key),
                Op::DeleteRange { .. } => None,
            })
        };
        let duplicate = if self.ops.len() <= 8 {
            keys()
                .enumerate()
                .find(|(at, key)| keys().take(*at).any(|earlier| earlier == *key))
                .map(|(_, key)| key)
        } else {
            let mut seen = HashSet::with_capacity(self.ops.len());
            keys().find(|key| !seen.insert(*key))
        };
        let swept = || {
            self.ops.iter().find_map(|op| match op {
                Op::DeleteRange { range } => keys().find(|key| range.contains(key)),
                _ => None,
            })
        };
        match duplicate.or_else(swept) {
            Some(key) => Err(StoreError::DuplicateKey { key: key.clone() }),
            None => Ok(()),
        }
    }
}

fn check_key(key: &Key, limits: &Limits) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    within(Part::KeyBytes, key.len(), limits.key_bytes)
}

fn within(part: Part, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit {
        return Err(StoreError::TooLarge { part, size, limit });
    }
    Ok(())
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a conflict means that nothing was written"]
pub enum TxnOutcome {
    /// It took effect, durably, at this revision. One that changed nothing (no operations, or
    /// deletions of what was not there) carries the revision at which it found that.
    Committed(Revision),
    /// It did nothing.
    Conflict {
        /// The conditions that did not hold, in the transaction's order; at least one.
        failed: Vec<FailedCondition>,
    },
}

impl TxnOutcome {
    /// The revision, if it took effect.
    pub fn committed(&self) -> Option<Revision> {
        match self {
            TxnOutcome::Committed(revision) => Some(*revision),
            TxnOutcome::Conflict { .. } => None,
        }
    }
}

/// A condition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCondition {
    /// Its place in [`Txn::conditions`].
    pub index: usize,
    /// The key it looked at.
    pub key: Key,
    /// When the key was last put; `None` means that it has no record.
    pub current: Option<Revision>,
}

/// How large a request may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one key. Default 1 KiB.
    pub key_bytes: usize,
    /// Bytes of one value. Default 1 MiB.
    pub value_bytes: usize,
    /// Bytes of all keys and values of one transaction. Default 8 MiB.
    pub txn_bytes: usize,
    /// Conditions and operations of one transaction, together. Default 32,768: every GPU of a
    /// large gang in one transaction.
    pub txn_parts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            key_bytes: 1 << 10,
            value_bytes: 1 << 20,
            txn_bytes: 8 << 20,
            txn_parts: 1 << 15,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_touched_once_only() {
        let limits = Limits::default();
        let fine = Txn::new().put("a", "1").delete("b");
        assert!(fine.validate(&limits).is_ok());
        let twice = fine.clone().delete("a");
        assert!(matches!(
            twice.validate(&limits),
            Err(StoreError::DuplicateKey { key }) if key == "a"
        ));
        let swept = fine.delete_range(Range::prefix("b"));
        assert!(matches!(
            swept.validate(&limits),
            Err(StoreError::DuplicateKey { key }) if key == "b"
        ));
        let many = (0..50).fold(Txn::new(), |txn, n| txn.put(format!("k{n}"), "v"));
        assert!(many.validate(&limits).is_ok());
        assert!(many.put("k7", "w").validate(&limits).is_err());
    }

    #[test]
    fn limits_name_the_part() {
        let limits = Limits {
            key_bytes: 4,
            value_bytes: 4,
            txn_bytes: 10,
            txn_parts: 2,
        };
        let part = |txn: Txn| match txn.validate(&limits) {
            Err(StoreError::TooLarge { part, .. }) => Some(part),
            _ => None,
        };
        assert_eq!(part(Txn::new().put("abcd", "abcd")), None);
        assert_eq!(part(Txn::new().exists("abcde")), Some(Part::KeyBytes));
        assert_eq!(part(Txn::new().put("a", "abcde")), Some(Part::ValueBytes));
        assert_eq!(
            part(Txn::new().put("ab", "abcd").put("ac", "abcd")),
            Some(Part::TxnBytes)
        );
        assert_eq!(
            part(Txn::new().delete("a").delete("b").delete("c")),
            Some(Part::TxnParts)
        );
        assert!(matches!(
            Txn::new().delete("").validate(&limits),
            Err(StoreError::EmptyKey)
        ));
    }
}
