//! Which files there are, and which are to be merged or dropped: decided from their descriptions alone.

use std::collections::BTreeMap;

use super::MetricError;
use crate::varint;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Span of a roll-up row.
pub(super) const ROLLUP_MS: i64 = 5 * MINUTE_MS;

/// How long after its end a window is taken for complete; what comes later is merged in later.
const SETTLED_MS: i64 = 2 * MINUTE_MS;
/// Latecomers are merged in when there are so many files of them ...
const LATE_FILES: usize = 8;
/// ... or when none has come for so long.
const LATE_QUIET_MS: i64 = HOUR_MS;

/// What a file's chunks hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Samples.
    Raw,
    /// Rows of five minutes: [`rollup`] names the columns.
    Rollup,
}

/// Columns of roll-up rows; a row's time is its start, a multiple of [`ROLLUP_MS`].
pub(super) mod rollup {
    pub(in super::super) const MIN: usize = 0;
    pub(in super::super) const MAX: usize = 1;
    pub(in super::super) const SUM: usize = 2;
    pub(in super::super) const COUNT: usize = 3;
}

impl Kind {
    pub(super) fn columns(self) -> usize {
        match self {
            Self::Raw => 1,
            Self::Rollup => 4,
        }
    }

    /// Span of one file: an hour of samples, a day of roll-ups.
    pub(super) fn window_ms(self) -> i64 {
        match self {
            Self::Raw => HOUR_MS,
            Self::Rollup => DAY_MS,
        }
    }

    /// Start of the window in which a time lies.
    pub(super) fn window_of(self, at_ms: i64) -> i64 {
        at_ms - at_ms.rem_euclid(self.window_ms())
    }
}

/// A file, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    /// Its number, never given twice.
    pub(super) file: u64,
    /// Among raw files of a window: those of a series' earlier samples first. Among roll-ups: where two have the
    /// same row, the higher counts.
    pub(super) order: u64,
    pub(super) kind: Kind,
    /// Raw: whether it was merged, and so is rolled up. Roll-ups: whether it holds the whole day.
    pub(super) merged: bool,
    /// Start of the window that all of it lies in.
    pub(super) window_ms: i64,
    /// Oldest and newest time.
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    pub(super) series: u64,
    pub(super) samples: u64,
    pub(super) bytes: u64,
    /// Newest sample of the store when it was written.
    pub(super) newest_ms: i64,
}

impl Meta {
    /// First time after its window.
    pub(super) fn end_ms(&self) -> i64 {
        self.window_ms + self.kind.window_ms()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.kind == Kind::Rollup), u8::from(self.merged)];
        for value in [self.order, self.series, self.samples, self.bytes] {
            varint::put(&mut out, value);
        }
        for value in [self.window_ms, self.min_ms, self.max_ms, self.newest_ms] {
            varint::put_signed(&mut out, value);
        }
        out
    }

    pub(super) fn decode(file: u64, mut row: &[u8]) -> Result<Self, MetricError> {
        let input = &mut row;
        let flags = varint::take_slice(input, 2)?;
        Ok(Self {
            file,
            kind: if flags[0] == 0 { Kind::Raw } else { Kind::Rollup },
            merged: flags[1] != 0,
            order: varint::take(input)?,
            series: varint::take(input)?,
            samples: varint::take(input)?,
            bytes: varint::take(input)?,
            window_ms: varint::take_signed(input)?,
            min_ms: varint::take_signed(input)?,
            max_ms: varint::take_signed(input)?,
            newest_ms: varint::take_signed(input)?,
        })
    }
}

/// Files of one window to be made one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) kind: Kind,
    pub(super) window_ms: i64,
    /// Files, by order.
    pub(super) inputs: Vec<u64>,
    /// Roll-ups of an hour that the merge of its samples makes anew.
    pub(super) replaced: Vec<u64>,
}

/// The next merge that is due, oldest window first. `newest_ms` is the newest sample of the store.
///
/// A window of samples is merged once it is over, and again when latecomers have gathered. `urgent` names windows
/// that must be merged whatever came late, because their samples are about to be dropped: those before it.
pub(super) fn next_merge(files: &[Meta], newest_ms: i64, urgent_ms: i64) -> Option<Merge> {
    let mut windows: BTreeMap<(Kind, i64), Vec<&Meta>> = BTreeMap::new();
    for meta in files {
        windows.entry((meta.kind, meta.window_ms)).or_default().push(meta);
    }
    let due = windows.iter().find(|((kind, _), metas)| {
        let fresh: Vec<&&Meta> = metas.iter().filter(|meta| !meta.merged).collect();
        let over = metas
            .iter()
            .any(|meta| newest_ms >= meta.end_ms().saturating_add(SETTLED_MS));
        let Some(latest) = fresh.iter().map(|meta| meta.newest_ms).max() else {
            return false;
        };
        let first = fresh.len() == metas.len();
        // A roll-up file alone is not changed by merging, but a raw one is rolled up by it.
        let quiet = newest_ms.saturating_sub(latest) >= LATE_QUIET_MS;
        let urgent = *kind == Kind::Raw && metas.iter().any(|meta| meta.end_ms() <= urgent_ms);
        over && (fresh.len() >= LATE_FILES || quiet || urgent || (first && *kind == Kind::Raw))
    });
    due.map(|(&(kind, window_ms), metas)| {
        let mut inputs: Vec<&Meta> = metas.clone();
        inputs.sort_unstable_by_key(|meta| meta.order);
        let is_same_hour = |meta: &&Meta| {
            meta.kind == Kind::Rollup
                && !meta.merged
                && kind == Kind::Raw
                && Kind::Raw.window_of(meta.min_ms) == window_ms
        };
        Merge {
            kind,
            window_ms,
            inputs: inputs.iter().map(|meta| meta.file).collect(),
            replaced: files.iter().filter(is_same_hour).map(|meta| meta.file).collect(),
        }
    })
}

/// Files past their age, and as many of the oldest as keep the rest within `room_bytes`.
pub(super) fn expired(files: &[Meta], raw_before_ms: i64, rollup_before_ms: i64, room_bytes: u64) -> Vec<u64> {
    let mut oldest: Vec<&Meta> = files.iter().collect();
    oldest.sort_unstable_by_key(|meta| (meta.end_ms(), meta.order));
    let mut total: u64 = files.iter().map(|meta| meta.bytes).sum();
    let mut gone = Vec::new();
    for meta in oldest {
        let before_ms = match meta.kind {
            Kind::Raw => raw_before_ms,
            Kind::Rollup => rollup_before_ms,
        };
        if meta.end_ms() <= before_ms || total > room_bytes {
            total -= meta.bytes;
            gone.push(meta.file);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(file: u64, hour: i64, merged: bool, newest_ms: i64) -> Meta {
        Meta {
            file,
            order: file,
            kind: Kind::Raw,
            merged,
            window_ms: hour * HOUR_MS,
            min_ms: hour * HOUR_MS,
            max_ms: hour * HOUR_MS + 1,
            series: 1,
            samples: 2,
            bytes: 100,
            newest_ms,
        }
    }

    #[test]
    fn an_hour_is_merged_when_it_is_over() {
        let files = [
            raw(1, 0, false, 0),
            raw(2, 0, false, HOUR_MS),
            raw(3, 1, false, HOUR_MS),
        ];
        assert_eq!(next_merge(&files, HOUR_MS, 0), None);
        let merge = next_merge(&files, HOUR_MS + SETTLED_MS, 0).unwrap();
        assert_eq!((merge.window_ms, merge.inputs), (0, vec![1, 2]));
        assert_eq!(next_merge(&[raw(4, 0, true, 0)], DAY_MS, DAY_MS), None);
    }

    #[test]
    fn latecomers_wait_for_company_or_quiet() {
        let now = 10 * HOUR_MS;
        let mut files = vec![raw(1, 0, true, HOUR_MS), raw(2, 0, false, now)];
        assert_eq!(next_merge(&files, now, 0), None);
        assert!(next_merge(&files, now, HOUR_MS).is_some());
        assert!(next_merge(&files, now + LATE_QUIET_MS, 0).is_some());
        files.extend((3..10).map(|file| raw(file, 0, false, now)));
        assert_eq!(next_merge(&files, now, 0).unwrap().inputs.len(), 9);
    }

    #[test]
    fn the_oldest_go_first() {
        let files: Vec<Meta> = (0..10).map(|hour| raw(hour as u64, hour, true, 0)).collect();
        assert_eq!(expired(&files, 3 * HOUR_MS, 0, u64::MAX), [0, 1, 2]);
        assert_eq!(expired(&files, 0, 0, 450), [0, 1, 2, 3, 4, 5]);
        assert_eq!(expired(&files, 0, 0, 1000), [0u64; 0]);
    }

    #[test]
    fn descriptions_survive() {
        let meta = Meta {
            kind: Kind::Rollup,
            min_ms: -5,
            ..raw(7, 3, true, 9)
        };
        assert_eq!(Meta::decode(7, &meta.encode()), Ok(meta));
    }
}
