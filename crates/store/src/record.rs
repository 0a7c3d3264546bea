//! What the store keeps: records, their revisions, and how they change.

use std::fmt;

use bytes::Bytes;

use crate::Key;

/// A point in the store's history: the number of transactions committed so far that changed anything.
///
/// Store-wide and strictly increasing; survives restarts. [`Revision::ZERO`] is the empty store before
/// its first change. A transaction without effect makes no revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first change.
    pub const ZERO: Revision = Revision(0);

    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Names a lease. Never reused by the same store, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One key's value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The record's name.
    pub key: Key,
    /// The bytes last put, untouched.
    pub value: Bytes,
    /// The revision that brought the key into being (since its last deletion).
    pub created: Revision,
    /// The revision that last put the key: what [`Condition::Unchanged`](crate::Condition) compares.
    pub modified: Revision,
    /// How often the key has been put since it was created; the first put makes it 1.
    pub version: u64,
    /// The lease whose end deletes this record; `None` means it stays until deleted.
    pub lease: Option<LeaseId>,
}

/// What one transaction did to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was created or replaced; its revision is [`Record::modified`].
    Put(Record),
    /// The key was deleted, by a transaction or with its lease.
    Delete {
        /// The key that is gone.
        key: Key,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl Change {
    /// The key concerned.
    pub fn key(&self) -> &Key {
        match self {
            Change::Put(record) => &record.key,
            Change::Delete { key, .. } => key,
        }
    }

    /// The revision at which it happened.
    pub fn revision(&self) -> Revision {
        match self {
            Change::Put(record) => record.modified,
            Change::Delete { revision, .. } => *revision,
        }
    }
}
