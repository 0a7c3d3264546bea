//! Reading: the streams of a workload merged into one.
//!
//! Within a stream time never runs backwards (a record counts with the latest time up to it), so the order
//! (time, rank, number) keeps every stream in its own order and does not depend on how blocks are cut.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, btree_map};

use super::block::{Header, Placed, Record, unpack};
use super::cursor::Place;
use super::engine::Snapshot;
use super::keys::{StreamKey, block_first};
use super::select::{Breath, Chosen, Filter, seek_tail as seek_matches};
use super::state::StreamState;
use super::types::{Entry, Page, Query, Role};
use super::{Cursor, LogError};

/// What a reader of one stream has next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// An entry of this time.
    At(i64),
    /// Nothing more.
    End,
    /// What it has is known only when a later page goes on.
    Later,
}

/// One stream, forwards.
pub(super) trait Reader {
    /// Looks for the next entry.
    fn peek(&mut self) -> Result<Next, LogError>;
    /// The entry that [`Self::peek`] saw.
    fn take(&mut self) -> Result<Entry, LogError>;
    /// Where the next page goes on.
    fn place(&self) -> Place;
    fn key(&self) -> StreamKey;
}

/// The workload's streams in key order: by attempt, then rank.
pub(super) fn streams(snapshot: &Snapshot, workload: &str) -> Result<Vec<(StreamKey, StreamState)>, LogError> {
    let Some(number) = snapshot.workloads.get(workload)?.map(|row| row.value()) else {
        return Ok(Vec::new());
    };
    let (low, high) = (StreamKey::new(number, 0, 0), StreamKey::new(number, u32::MAX, u32::MAX));
    let mut streams = Vec::new();
    for row in snapshot.streams.range::<&[u8; 16]>(&low.0..=&high.0)? {
        let (key, row) = row?;
        streams.push((StreamKey(*key.value()), StreamState::decode(row.value())?));
    }
    Ok(streams)
}

/// Reads the page that the query asks for.
pub(super) fn page(snapshot: &Snapshot, workload: &str, query: &Query) -> Result<Page, LogError> {
    let mut cursor = query.cursor.clone().unwrap_or_default();
    let mut wanted = streams(snapshot, workload)?;
    wanted.retain(|(key, _)| {
        query.attempt.is_none_or(|attempt| attempt == key.attempt()) && query.rank.is_none_or(|rank| rank == key.rank())
    });
    if let Some(since_ns) = query.since_ns {
        for (key, state) in &wanted {
            if let btree_map::Entry::Vacant(place) = cursor.next.entry((key.attempt(), key.rank())) {
                let start = since(snapshot, *key, state, since_ns)?;
                // Lines dropped before the first that is left may belong here: the reader is told.
                place.insert(Place::at(if start == state.removed_to + 1 { 1 } else { start }));
            }
        }
    }
    let breath = Breath::new(query.scan_bytes);
    let Some(filter) = Filter::of(query) else {
        cursor.seek = None;
        if let Some(tail) = query.tail {
            seek_tail(snapshot, &wanted, query, tail, &mut cursor)?;
        }
        return merge(&wanted, query, cursor, |key, state, place| {
            (place.next <= state.last).then(|| Forward::new(snapshot, key, state, place.next, query.until_ns))
        });
    };
    if let Some(left) = cursor.seek.or(query.tail)
        && !seek_matches(snapshot, &wanted, query, (&filter, &breath), left, &mut cursor)?
    {
        return Ok(Page {
            entries: Vec::new(),
            cursor,
            complete: false,
            finished: false,
        });
    }
    merge(&wanted, query, cursor, |key, state, place| {
        let more = place.scan() <= state.last || place.next <= state.removed_to;
        more.then(|| Chosen::new(snapshot, (key, state), place, query.until_ns, &filter, &breath))
    })
}

/// Merges the streams, attempt after attempt; `open` gives the reader of one that has more.
fn merge<R: Reader>(
    wanted: &[(StreamKey, StreamState)],
    query: &Query,
    mut cursor: Cursor,
    open: impl Fn(StreamKey, &StreamState, Place) -> Option<R>,
) -> Result<Page, LogError> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut complete = true;
    let limit = query.limit.max(1);
    for attempt in wanted.chunk_by(|a, b| a.0.attempt() == b.0.attempt()) {
        let mut readers = Vec::new();
        let mut heads = BinaryHeap::new();
        for (key, state) in attempt {
            let Some(mut reader) = open(*key, state, cursor.of(key.attempt(), key.rank())) else {
                continue;
            };
            match reader.peek()? {
                Next::At(order_ns) => heads.push(Reverse((order_ns, key.rank(), readers.len()))),
                Next::End => {}
                Next::Later => complete = false,
            }
            readers.push(reader);
        }
        while complete && let Some(Reverse((_, rank, index))) = heads.pop() {
            if entries.len() >= limit || bytes >= query.page_bytes.max(1) {
                complete = false;
                break;
            }
            let reader = &mut readers[index];
            let entry = reader.take()?;
            if let Entry::Line { line, .. } = &entry {
                bytes += line.text.len();
            }
            entries.push(entry);
            match reader.peek()? {
                Next::At(order_ns) => heads.push(Reverse((order_ns, rank, index))),
                Next::End => {}
                Next::Later => complete = false,
            }
        }
        for reader in readers {
            cursor.set(reader.key().attempt(), reader.key().rank(), reader.place());
        }
        if !complete {
            break;
        }
    }
    let finished = complete && !wanted.is_empty() && wanted.iter().all(|(_, s)| s.finished);
    Ok(Page {
        entries,
        cursor,
        complete,
        finished,
    })
}

/// The block that covers `number`, or the last one before it.
fn block_at(snapshot: &Snapshot, key: StreamKey, number: u64) -> Result<Option<(Header, Vec<u8>)>, LogError> {
    let (low, high) = (key.block(0), key.block(number));
    match snapshot.blocks.range::<&[u8; 24]>(&low..=&high)?.next_back() {
        Some(row) => {
            let (first, block) = row?;
            let header = Header::decode(block_first(first.value()), block.value())?;
            Ok(Some((header, block.value().to_vec())))
        }
        None => Ok(None),
    }
}

/// The same, where it must exist.
fn block_covering(snapshot: &Snapshot, key: StreamKey, number: u64) -> Result<(Header, Vec<u8>), LogError> {
    block_at(snapshot, key, number)?
        .filter(|(header, _)| header.last >= number)
        .ok_or(LogError::Corrupt {
            detail: "missing block",
        })
}

/// Number of the first record from `since_ns` on.
pub(super) fn since(snapshot: &Snapshot, key: StreamKey, state: &StreamState, since_ns: i64) -> Result<u64, LogError> {
    if state.latest_ns < since_ns {
        return Ok(state.last + 1);
    }
    // Blocks are in time order: halve the numbers until one block is left.
    let (mut low, mut high) = (state.removed_to + 1, state.last + 1);
    let mut found = None;
    while low < high {
        let (header, block) = block_covering(snapshot, key, low + (high - low) / 2)?;
        if header.max_ns < since_ns {
            low = header.last + 1;
        } else {
            high = header.first;
            found = Some((header, block));
        }
    }
    let Some((header, block)) = found else {
        return Ok(state.last + 1);
    };
    if header.lead_ns >= since_ns {
        return Ok(header.first);
    }
    let placed = unpack(&header, &block)?;
    let first = placed.iter().find(|p| p.order_ns >= since_ns);
    Ok(first.map_or(header.last + 1, |p| p.record.first()))
}

/// Moves the cursor so that at most `tail` entries follow it.
fn seek_tail(
    snapshot: &Snapshot,
    wanted: &[(StreamKey, StreamState)],
    query: &Query,
    tail: u64,
    cursor: &mut Cursor,
) -> Result<(), LogError> {
    let mut left = tail;
    let attempts: Vec<_> = wanted.chunk_by(|a, b| a.0.attempt() == b.0.attempt()).collect();
    for attempt in attempts.into_iter().rev() {
        let mut readers = Vec::new();
        let mut heads = BinaryHeap::new();
        for (key, state) in attempt {
            let start = cursor.of(key.attempt(), key.rank()).next;
            let mut reader = Backward::new(snapshot, *key, state, start, query.until_ns)?;
            if let Some(order_ns) = reader.peek()? {
                heads.push((order_ns, key.rank(), readers.len()));
            }
            readers.push(reader);
        }
        while left > 0
            && let Some((_, rank, index)) = heads.pop()
        {
            let reader = &mut readers[index];
            // Alone, whole blocks are counted without being unpacked.
            left -= if heads.is_empty() {
                reader.skip(left)?
            } else {
                reader.skip(1)?
            };
            if let Some(order_ns) = reader.peek()? {
                heads.push((order_ns, rank, index));
            }
        }
        for reader in readers {
            // Where the tail is longer than what is left, the reader is told of what was dropped.
            let next = if left > 0 && reader.next <= reader.floor {
                reader.start
            } else {
                reader.next
            };
            if next > reader.start {
                cursor.set(reader.key.attempt(), reader.key.rank(), Place::at(next));
            }
        }
    }
    Ok(())
}

/// Whether a record at `order_ns` is past the end asked for.
pub(super) fn past(until_ns: Option<i64>, order_ns: i64) -> bool {
    until_ns.is_some_and(|until_ns| order_ns > until_ns)
}

/// One stream, forwards.
struct Forward<'a> {
    snapshot: &'a Snapshot,
    key: StreamKey,
    last: u64,
    removed_to: u64,
    until_ns: Option<i64>,
    /// Next number wanted.
    next: u64,
    /// The block at hand, still packed while it has not been taken from.
    packed: Option<(Header, Vec<u8>)>,
    records: std::iter::Peekable<std::vec::IntoIter<Placed>>,
}

impl<'a> Forward<'a> {
    fn new(snapshot: &'a Snapshot, key: StreamKey, state: &StreamState, next: u64, until_ns: Option<i64>) -> Self {
        Self {
            snapshot,
            key,
            last: state.last,
            removed_to: state.removed_to,
            until_ns,
            next: next.max(1),
            packed: None,
            records: Vec::new().into_iter().peekable(),
        }
    }

    fn open(&mut self, header: &Header, block: &[u8]) -> Result<(), LogError> {
        let mut records = unpack(header, block)?;
        let before = records.partition_point(|p| p.record.last() < self.next);
        records.drain(..before);
        self.records = records.into_iter().peekable();
        Ok(())
    }

    /// Time of the next entry; `None` at the end.
    fn order_ns(&mut self) -> Result<Option<i64>, LogError> {
        if self.next > self.last {
            return Ok(None);
        }
        if self.next <= self.removed_to {
            return Ok(Some(i64::MIN));
        }
        if self.records.peek().is_none() && self.packed.is_none() {
            let (header, block) = block_covering(self.snapshot, self.key, self.next)?;
            if header.first == self.next {
                self.packed = Some((header, block));
            } else {
                self.open(&header, &block)?;
            }
        }
        let order_ns = match &self.packed {
            Some((header, _)) => Some(header.lead_ns),
            None => self.records.peek().map(|p| p.order_ns),
        };
        Ok(order_ns.filter(|&order_ns| !past(self.until_ns, order_ns)))
    }
}

impl Reader for Forward<'_> {
    fn peek(&mut self) -> Result<Next, LogError> {
        Ok(self.order_ns()?.map_or(Next::End, Next::At))
    }

    fn place(&self) -> Place {
        Place::at(self.next)
    }

    fn key(&self) -> StreamKey {
        self.key
    }

    fn take(&mut self) -> Result<Entry, LogError> {
        let (attempt, rank) = (self.key.attempt(), self.key.rank());
        if self.next <= self.removed_to {
            let from = self.next;
            self.next = self.removed_to + 1;
            return Ok(Entry::Removed {
                attempt,
                rank,
                from,
                to: self.removed_to,
            });
        }
        if let Some((header, block)) = self.packed.take() {
            self.open(&header, &block)?;
        }
        let placed = self.records.next().ok_or(LogError::Corrupt {
            detail: "missing record",
        })?;
        let from = self.next;
        self.next = placed.record.last() + 1;
        Ok(match placed.record {
            Record::Line(line, level) => Entry::Line {
                attempt,
                rank,
                level,
                role: Role::Match,
                apart: false,
                line,
            },
            Record::Gap { to, at_ns, .. } => Entry::Gap {
                attempt,
                rank,
                from,
                to,
                at_ns,
            },
        })
    }
}

/// One stream, backwards, only counting.
struct Backward<'a> {
    snapshot: &'a Snapshot,
    key: StreamKey,
    until_ns: Option<i64>,
    /// Where the cursor stood: not to go before.
    start: u64,
    /// First number that still exists, or the start.
    floor: u64,
    /// First number passed over so far.
    next: u64,
    /// The block before `next`, still packed while it has not been entered.
    packed: Option<(Header, Vec<u8>)>,
    records: Vec<Placed>,
}

impl<'a> Backward<'a> {
    fn new(
        snapshot: &'a Snapshot,
        key: StreamKey,
        state: &StreamState,
        start: u64,
        until_ns: Option<i64>,
    ) -> Result<Self, LogError> {
        let mut end = state.last + 1;
        if let Some(until_ns) = until_ns {
            end = match until_ns.checked_add(1) {
                Some(after) => since(snapshot, key, state, after)?,
                None => end,
            };
        }
        Ok(Self {
            snapshot,
            key,
            until_ns,
            start,
            floor: start.max(state.removed_to + 1),
            next: end.max(start),
            packed: None,
            records: Vec::new(),
        })
    }

    /// Time of the entry before `next`; `None` at the floor.
    fn peek(&mut self) -> Result<Option<i64>, LogError> {
        if self.next <= self.floor {
            return Ok(None);
        }
        if self.records.is_empty() && self.packed.is_none() {
            let (header, block) = block_covering(self.snapshot, self.key, self.next - 1)?;
            if header.last + 1 == self.next && header.first >= self.floor {
                self.packed = Some((header, block));
            } else {
                self.open(&header, &block)?;
            }
        }
        let order_ns = match &self.packed {
            Some((header, _)) => Some(header.max_ns),
            None => self.records.last().map(|p| p.order_ns),
        };
        debug_assert!(order_ns.is_none_or(|order_ns| !past(self.until_ns, order_ns)));
        Ok(order_ns)
    }

    fn open(&mut self, header: &Header, block: &[u8]) -> Result<(), LogError> {
        let mut records = unpack(header, block)?;
        let end = records.partition_point(|p| p.record.first() < self.next);
        records.truncate(end);
        let before = records.partition_point(|p| p.record.last() < self.floor);
        records.drain(..before);
        self.records = records;
        Ok(())
    }

    /// Passes over 1 to `most` entries after a [`Self::peek`] that saw one; says how many.
    fn skip(&mut self, most: u64) -> Result<u64, LogError> {
        if let Some((header, block)) = self.packed.take() {
            if header.records <= most {
                self.next = header.first;
                return Ok(header.records);
            }
            self.open(&header, &block)?;
        }
        let placed = self.records.pop().ok_or(LogError::Corrupt {
            detail: "missing record",
        })?;
        self.next = placed.record.first().max(self.floor);
        Ok(1)
    }
}
