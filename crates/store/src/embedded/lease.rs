//! Leases: who is alive until when.
//!
//! Only a lease's existence and time to live are on disk. Deadlines live in memory, on the caller's
//! monotonic clock, so that keeping a lease alive costs no commit; after a restart every lease gets
//! its full time again, and none ends because the store was away.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::{LeaseId, StoreError};

/// The leases that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    table: HashMap<LeaseId, Lease>,
    by_deadline: BTreeSet<(Duration, LeaseId)>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) ttl: Duration,
    /// On the same clock as every `now`.
    pub(crate) deadline: Duration,
}

/// Ten years; keeps sums of times from overflowing.
const TTL_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// A time to live in milliseconds, if it can be one.
pub(crate) fn ttl_ms(ttl: Duration) -> Result<u64, StoreError> {
    let ttl_ms = ttl.as_millis();
    match u64::try_from(ttl_ms) {
        Ok(ms) if ms > 0 && ttl <= TTL_MAX => Ok(ms),
        _ => Err(StoreError::BadTtl { ttl_ms }),
    }
}

impl Leases {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.table.contains_key(&id)
    }

    /// Adds a lease, or replaces it.
    pub(crate) fn insert(&mut self, id: LeaseId, lease: Lease) {
        self.remove(id);
        self.table.insert(id, lease);
        self.by_deadline.insert((lease.deadline, id));
    }

    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.table.remove(&id)?;
        self.by_deadline.remove(&(lease.deadline, id));
        Some(lease)
    }

    /// Starts a lease's time anew; false if there is none. Never shortens it.
    pub(crate) fn keep_alive(&mut self, id: LeaseId, now: Duration) -> bool {
        let Some(lease) = self.table.get_mut(&id) else {
            return false;
        };
        let deadline = now + lease.ttl;
        if deadline > lease.deadline {
            self.by_deadline.remove(&(lease.deadline, id));
            lease.deadline = deadline;
            self.by_deadline.insert((deadline, id));
        }
        true
    }

    /// Removes and returns the leases whose time has come.
    pub(crate) fn take_due(&mut self, now: Duration) -> Vec<(LeaseId, Lease)> {
        let mut due = Vec::new();
        while let Some(&(deadline, id)) = self.by_deadline.first() {
            if deadline > now {
                break;
            }
            due.extend(self.remove(id).map(|lease| (id, lease)));
        }
        due
    }

    /// When the next lease ends unless it is kept alive.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Makes the set that of `ids`: those unknown get their full time from `now`.
    pub(crate) fn reconcile(&mut self, ids: &HashMap<LeaseId, Duration>, now: Duration) {
        let gone: Vec<LeaseId> = self.table.keys().filter(|id| !ids.contains_key(id)).copied().collect();
        for id in gone {
            self.remove(id);
        }
        for (&id, &ttl) in ids {
            if !self.contains(id) {
                let deadline = now + ttl;
                self.insert(id, Lease { ttl, deadline });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_in_order_and_only_when_due() {
        let second = Duration::from_secs;
        let lease = |ttl| Lease {
            ttl: second(ttl),
            deadline: second(ttl),
        };
        let mut leases = Leases::default();
        leases.insert(LeaseId(1), lease(5));
        leases.insert(LeaseId(2), lease(3));
        assert!(leases.take_due(second(2)).is_empty());
        assert!(leases.keep_alive(LeaseId(2), second(2)));
        assert!(leases.keep_alive(LeaseId(2), second(1)));
        assert_eq!(leases.next_deadline(), Some(second(5)));
        let due = leases.take_due(second(5));
        assert_eq!(due.iter().map(|d| d.0.0).collect::<Vec<_>>(), [1, 2]);
        assert!(!leases.keep_alive(LeaseId(1), second(5)));
        assert_eq!(leases.len(), 0);
    }

    #[test]
    fn times_to_live_have_bounds() {
        assert!(ttl_ms(Duration::from_millis(1)).is_ok());
        assert!(ttl_ms(Duration::ZERO).is_err());
        assert!(ttl_ms(Duration::MAX).is_err());
    }
}
