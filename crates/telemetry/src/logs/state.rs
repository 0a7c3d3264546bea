//! What the store knows of a stream besides its lines, and its cache.

use std::collections::HashMap;
use std::hash::Hash;

use super::{Detector, LogError};
use crate::varint;

/// The state row of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamState {
    /// Highest number covered by a block.
    pub(super) last: u64,
    /// Latest time of any line; `i64::MIN` before the first.
    pub(super) latest_ns: i64,
    pub(super) lines: u64,
    /// Bytes of its blocks with their keys.
    pub(super) bytes: u64,
    /// Numbers up to this were dropped; 0 is none.
    pub(super) removed_to: u64,
    pub(super) finished: bool,
    /// Numbers up to this lie in blocks that compaction leaves alone.
    pub(super) settled: u64,
    /// Unpacked size of the block after `settled` that compaction has made but may still grow; 0 is none.
    pub(super) growing: u64,
    /// Blocks after that one, as appends made them.
    pub(super) loose_blocks: u64,
    /// Their unpacked size.
    pub(super) loose_bytes: u64,
    /// What the last lines of standard output and error say of the level of the next.
    pub(super) detectors: [Detector; 2],
}

impl Default for StreamState {
    fn default() -> Self {
        Self {
            last: 0,
            latest_ns: i64::MIN,
            lines: 0,
            bytes: 0,
            removed_to: 0,
            finished: false,
            settled: 0,
            growing: 0,
            loose_blocks: 0,
            loose_bytes: 0,
            detectors: [Detector::default(); 2],
        }
    }
}

impl StreamState {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.push(u8::from(self.finished));
        varint::put_signed(&mut out, self.latest_ns);
        for value in [
            self.last,
            self.lines,
            self.bytes,
            self.removed_to,
            self.settled,
            self.growing,
            self.loose_blocks,
            self.loose_bytes,
        ] {
            varint::put(&mut out, value);
        }
        if self.detectors != [Detector::default(); 2] {
            for detector in self.detectors {
                varint::put(&mut out, detector.encode());
            }
        }
        out
    }

    pub(super) fn decode(mut row: &[u8]) -> Result<Self, LogError> {
        let input = &mut row;
        let (&finished, rest) = input.split_first().ok_or(LogError::Corrupt {
            detail: "empty stream row",
        })?;
        *input = rest;
        let latest_ns = varint::take_signed(input)?;
        let mut state = Self {
            finished: finished != 0,
            latest_ns,
            last: varint::take(input)?,
            lines: varint::take(input)?,
            bytes: varint::take(input)?,
            removed_to: varint::take(input)?,
            settled: varint::take(input)?,
            growing: varint::take(input)?,
            loose_blocks: varint::take(input)?,
            loose_bytes: varint::take(input)?,
            detectors: [Detector::default(); 2],
        };
        // Rows of earlier versions end here, and those of streams in which nothing goes on.
        if !input.is_empty() {
            for detector in &mut state.detectors {
                *detector = Detector::decode(varint::take(input)?);
            }
        }
        Ok(state)
    }
}

/// Sums over the store, one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    /// Number that the next new workload gets.
    pub(super) next_workload: u64,
    pub(super) streams: u64,
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

impl Totals {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        for value in [self.next_workload, self.streams, self.lines, self.bytes] {
            varint::put(&mut out, value);
        }
        out
    }

    pub(super) fn decode(mut row: &[u8]) -> Result<Self, LogError> {
        let input = &mut row;
        Ok(Self {
            next_workload: varint::take(input)?,
            streams: varint::take(input)?,
            lines: varint::take(input)?,
            bytes: varint::take(input)?,
        })
    }
}

/// A map that forgets what has not been used for a while.
///
/// Two halves: when the young one is full it becomes the old one, whose entries are gone unless they were
/// used since. Holds at most its capacity, costs one or two look-ups.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Hash + Eq, V: Copy> Recent<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: (capacity / 2).max(1),
        }
    }

    /// Looks without counting as a use.
    pub(super) fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(super) fn remove<Q>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive() {
        let state = StreamState {
            last: 9,
            latest_ns: -5,
            lines: 8,
            bytes: 1 << 40,
            removed_to: 3,
            finished: true,
            settled: 4,
            growing: 5,
            loose_blocks: 6,
            loose_bytes: 7,
            detectors: [Detector::default(); 2],
        };
        assert_eq!(StreamState::decode(&state.encode()), Ok(state));
        let mut failing = state;
        failing.detectors[1].next(b"Traceback (most recent call last):", true);
        assert_eq!(StreamState::decode(&failing.encode()), Ok(failing));
        let fresh = StreamState::default();
        assert_eq!(StreamState::decode(&fresh.encode()), Ok(fresh));
        assert!(StreamState::decode(&[]).is_err());
        let totals = Totals {
            next_workload: 1,
            streams: 2,
            lines: 3,
            bytes: 4,
        };
        assert_eq!(Totals::decode(&totals.encode()), Ok(totals));
    }

    #[test]
    fn recent_is_bounded_and_keeps_what_is_used() {
        let mut recent = Recent::new(8);
        for n in 0..100u64 {
            recent.insert(0, 7);
            recent.insert(n + 1, n);
            assert!(recent.young.len() + recent.old.len() <= 8);
            assert_eq!(recent.peek(&0), Some(7));
        }
        assert_eq!(recent.peek(&1), None);
        recent.remove(&0);
        assert_eq!(recent.peek(&0), None);
    }
}
