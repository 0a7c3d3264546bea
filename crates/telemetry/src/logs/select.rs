//! Reading only the lines that a query asks for, with their context.
//!
//! A line is shown when it matches, or when a line of its stream matches whose number is no further away than the
//! context, with no gap in between. Gaps are always shown. That depends on the stream's text alone, not on how it is
//! cut into blocks and pages: the cursor keeps what was searched but may still be context.
//!
//! Blocks that cannot have a match are passed over unread, as their headers tell. A page looks at so much and then
//! ends, perhaps without an entry, so that no reader holds its thread for long.

use std::cell::Cell;
use std::collections::{BinaryHeap, VecDeque};

use super::block::{Header, Placed, Record, level_bit, records, unpack, unpack_payload};
use super::cursor::Place;
use super::engine::Snapshot;
use super::keys::{StreamKey, block_first};
use super::read::{Next, Reader, past, since};
use super::state::StreamState;
use super::types::{Entry, Query, Role};
use super::{Cursor, Level, LogError, Search};

/// Lines of context, at most.
const CONTEXT_MAX: u64 = 1000;

/// What a query asks of a line.
#[derive(Debug)]
pub(super) struct Filter {
    /// The level, and the [`level_bit`]s of those that are as grave.
    level: Option<(Level, u8)>,
    search: Option<Search>,
    context: u64,
}

/// What a record is to a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Match,
    Gap,
    Other,
}

impl Filter {
    /// `None` where every line is asked for.
    pub(super) fn of(query: &Query) -> Option<Self> {
        if query.level.is_none() && query.search.is_none() {
            return None;
        }
        let bits = |least: Level| {
            let unsaid = if least <= Level::Info { level_bit(None) } else { 0 };
            let said = Level::ALL.into_iter().filter(|level| *level >= least);
            said.fold(unsaid, |bits, level| bits | level_bit(Some(level)))
        };
        Some(Self {
            level: query.level.map(|level| (level, bits(level))),
            search: query.search.clone(),
            context: u64::from(query.context).min(CONTEXT_MAX),
        })
    }

    /// Whether a block may have something to show; `block` is its row.
    fn may_match(&self, header: &Header, block: &[u8]) -> bool {
        let level = || match (self.level, header.levels) {
            (Some((_, wanted)), Some(found)) => wanted & found != 0,
            _ => true,
        };
        let search = || {
            let search = self.search.as_ref();
            search.is_none_or(|search| search.may_match(|groups| header.may_hold(block, groups)))
        };
        header.gaps || level() && search()
    }

    fn judge(&self, record: &Record) -> Verdict {
        let Record::Line(line, level) = record else {
            return Verdict::Gap;
        };
        let grave = self
            .level
            .is_none_or(|(least, _)| level.unwrap_or(Level::Info) >= least);
        if grave && self.search.as_ref().is_none_or(|search| search.is_match(&line.text)) {
            Verdict::Match
        } else {
            Verdict::Other
        }
    }

    /// The records of a block, unless they can't match after all.
    fn open(&self, header: &Header, block: &[u8]) -> Result<Option<Vec<Placed>>, LogError> {
        let payload = unpack_payload(header, block)?;
        if let Some(search) = &self.search
            && !header.gaps
            && !search.may_be_in(header.texts(&payload))
        {
            return Ok(None);
        }
        records(header, &payload).map(Some)
    }
}

/// What a page may still look at.
#[derive(Debug)]
pub(super) struct Breath(Cell<usize>);

impl Breath {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Cell::new(bytes))
    }

    fn spend(&self, bytes: u64) {
        self.0.set(self.0.get().saturating_sub(bytes as usize));
    }

    fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

/// Runs `f` on the block that covers a number, without a copy.
fn with_block<T>(
    snapshot: &Snapshot,
    key: StreamKey,
    number: u64,
    f: impl FnOnce(Header, &[u8]) -> Result<T, LogError>,
) -> Result<T, LogError> {
    let missing = LogError::Corrupt {
        detail: "missing block",
    };
    let (low, high) = (key.block(0), key.block(number));
    let row = snapshot.blocks.range::<&[u8; 24]>(&low..=&high)?.next_back();
    let (first, block) = row.ok_or(missing.clone())??;
    let header = Header::decode(block_first(first.value()), block.value())?;
    if header.last < number {
        return Err(missing);
    }
    f(header, block.value())
}

/// What looking into a block gave.
enum Opened {
    /// Nothing in it can match.
    Passed(Header),
    Records(Vec<Placed>),
}

/// Looks into the block that covers a number. `all`: whatever it holds.
fn look(
    snapshot: &Snapshot,
    key: StreamKey,
    number: u64,
    filter: &Filter,
    breath: &Breath,
    all: bool,
) -> Result<Opened, LogError> {
    with_block(snapshot, key, number, |header, block| {
        if !all && !filter.may_match(&header, block) {
            // The row was read, but not unpacked.
            breath.spend(block.len() as u64 / 2);
            return Ok(Opened::Passed(header));
        }
        breath.spend(header.unpacked);
        let records = if all {
            Some(unpack(&header, block)?)
        } else {
            filter.open(&header, block)?
        };
        Ok(records.map_or(Opened::Passed(header), Opened::Records))
    })
}

/// One stream, forwards, only what is to be shown.
pub(super) struct Chosen<'a> {
    snapshot: &'a Snapshot,
    key: StreamKey,
    last: u64,
    removed_to: u64,
    until_ns: Option<i64>,
    filter: &'a Filter,
    breath: &'a Breath,
    /// Next number that may be shown.
    next: u64,
    /// First number that was not looked at.
    scan: u64,
    /// Numbers up to this are shown, as context.
    context_to: u64,
    /// The number before `next` was shown.
    joined: bool,
    /// To be shown.
    queue: VecDeque<(Placed, Role)>,
    /// The block at hand from its first number on, and what of it comes next.
    records: Vec<Placed>,
    at: usize,
    /// A page always looks into one block of each stream: it gets on, however many there are.
    looked: bool,
    ended: bool,
}

impl<'a> Chosen<'a> {
    pub(super) fn new(
        snapshot: &'a Snapshot,
        (key, state): (StreamKey, &StreamState),
        place: Place,
        until_ns: Option<i64>,
        filter: &'a Filter,
        breath: &'a Breath,
    ) -> Self {
        let next = place.next.max(1);
        Self {
            snapshot,
            key,
            last: state.last,
            removed_to: state.removed_to,
            until_ns,
            filter,
            breath,
            next,
            scan: place.scan().max(next),
            context_to: place.shown.map_or(0, |more| (next - 1).saturating_add(more)),
            joined: place.shown.is_some(),
            queue: VecDeque::new(),
            records: Vec::new(),
            at: 0,
            looked: false,
            ended: false,
        }
    }

    /// Puts the lines before a match into the queue.
    fn before(&mut self, number: u64) -> Result<(), LogError> {
        let from = self.next.max(number.saturating_sub(self.filter.context));
        let here = self.records.first().map_or(number, |p| p.record.first());
        let mut lines = VecDeque::new();
        let mut at = from;
        while at < here.min(number) {
            let earlier = with_block(self.snapshot, self.key, at, |header, block| {
                at = header.last + 1;
                unpack(&header, block)
            })?;
            lines.extend(earlier.into_iter().filter(|p| (from..here).contains(&p.record.first())));
        }
        let wanted = |p: &&Placed| (from..number).contains(&p.record.first());
        let start = self.records.partition_point(|p| p.record.first() < from);
        lines.extend(self.records[start..].iter().take_while(wanted).cloned());
        // In a tail there may be a gap that wasn't counted.
        let gap = lines.iter().rposition(|p| matches!(p.record, Record::Gap { .. }));
        let after = lines.split_off(gap.map_or(0, |gap| gap + 1));
        self.queue.extend(after.into_iter().map(|p| (p, Role::Context)));
        Ok(())
    }
}

impl Reader for Chosen<'_> {
    fn peek(&mut self) -> Result<Next, LogError> {
        loop {
            if let Some((placed, _)) = self.queue.front() {
                return Ok(Next::At(placed.order_ns));
            }
            if self.next <= self.removed_to {
                return Ok(Next::At(i64::MIN));
            }
            if self.scan > self.last || self.ended {
                return Ok(Next::End);
            }
            if self.at >= self.records.len() {
                if self.looked && self.breath.is_spent() {
                    return Ok(Next::Later);
                }
                self.looked = true;
                let all = self.scan <= self.context_to;
                match look(self.snapshot, self.key, self.scan, self.filter, self.breath, all)? {
                    Opened::Passed(header) => {
                        // Past the end asked for there is nothing more to pass over.
                        if past(self.until_ns, header.max_ns) {
                            self.ended = true;
                        }
                        self.scan = header.last + 1;
                        self.records.clear();
                        self.at = 0;
                    }
                    Opened::Records(records) => {
                        self.at = records.partition_point(|p| p.record.last() < self.scan);
                        self.records = records;
                    }
                }
                continue;
            }
            let placed = self.records[self.at].clone();
            if past(self.until_ns, placed.order_ns) {
                self.ended = true;
                continue;
            }
            let (first, last) = (placed.record.first(), placed.record.last());
            self.scan = last + 1;
            self.at += 1;
            match self.filter.judge(&placed.record) {
                Verdict::Match => {
                    self.before(first)?;
                    self.queue.push_back((placed, Role::Match));
                    self.context_to = last.saturating_add(self.filter.context);
                }
                Verdict::Gap => {
                    self.queue.push_back((placed, Role::Match));
                    self.context_to = 0;
                }
                Verdict::Other if first <= self.context_to => self.queue.push_back((placed, Role::Context)),
                Verdict::Other => {}
            }
        }
    }

    fn take(&mut self) -> Result<Entry, LogError> {
        let (attempt, rank) = (self.key.attempt(), self.key.rank());
        let Some((placed, role)) = self.queue.pop_front() else {
            let from = self.next;
            self.next = self.removed_to + 1;
            self.scan = self.scan.max(self.next);
            self.joined = false;
            return Ok(Entry::Removed {
                attempt,
                rank,
                from,
                to: self.removed_to,
            });
        };
        let apart = !self.joined || placed.record.first() != self.next;
        self.next = placed.record.last() + 1;
        self.joined = true;
        Ok(match placed.record {
            Record::Line(line, level) => Entry::Line {
                attempt,
                rank,
                level,
                role,
                apart,
                line,
            },
            Record::Gap { from, to, at_ns } => Entry::Gap {
                attempt,
                rank,
                from,
                to,
                at_ns,
            },
        })
    }

    fn place(&self) -> Place {
        let context = self.filter.context;
        let (next, scan) = match self.queue.front() {
            // What waits before a match was searched; in a tail it may even match, and yet not be counted.
            Some((placed, _)) => {
                let waiting = self.queue.iter().find(|(_, role)| *role == Role::Match);
                let next = placed.record.first();
                (next, waiting.map_or(next, |(placed, _)| placed.record.first()))
            }
            None => (self.next.max(self.scan.saturating_sub(context)), self.scan),
        };
        let more = (self.context_to + 1).saturating_sub(next);
        Place {
            next,
            searched: scan - next,
            shown: (context > 0 && self.joined && next == self.next).then_some(more),
        }
    }

    fn key(&self) -> StreamKey {
        self.key
    }
}

/// One stream, backwards, from match to match.
struct Backwards<'a> {
    snapshot: &'a Snapshot,
    key: StreamKey,
    filter: &'a Filter,
    breath: &'a Breath,
    /// First number that still exists, or where the cursor stood.
    floor: u64,
    /// Numbers from here on are counted.
    counted: u64,
    /// The match before, once it is found: its time and number.
    found: Option<(i64, u64)>,
    records: Vec<Placed>,
    looked: bool,
}

impl Backwards<'_> {
    fn peek(&mut self) -> Result<Next, LogError> {
        loop {
            if let Some((order_ns, _)) = self.found {
                return Ok(Next::At(order_ns));
            }
            if self.counted <= self.floor {
                return Ok(Next::End);
            }
            let Some(placed) = self.records.pop() else {
                if self.looked && self.breath.is_spent() {
                    return Ok(Next::Later);
                }
                self.looked = true;
                let number = self.counted - 1;
                match look(self.snapshot, self.key, number, self.filter, self.breath, false)? {
                    Opened::Passed(header) => self.counted = header.first.max(self.floor),
                    Opened::Records(mut records) => {
                        records.truncate(records.partition_point(|p| p.record.first() < self.counted));
                        self.records = records;
                    }
                }
                continue;
            };
            let first = placed.record.first().max(self.floor);
            if placed.record.last() < self.floor {
                self.counted = self.floor;
            } else if self.filter.judge(&placed.record) == Verdict::Other {
                self.counted = first;
            } else {
                self.found = Some((placed.order_ns, first));
            }
        }
    }

    /// Counts the match that [`Self::peek`] saw.
    fn count(&mut self) {
        if let Some((_, first)) = self.found.take() {
            self.counted = first;
        }
    }
}

/// Moves the cursor so that `left` matches follow it. `false`: not done yet, the cursor tells how far.
pub(super) fn seek_tail(
    snapshot: &Snapshot,
    wanted: &[(StreamKey, StreamState)],
    query: &Query,
    (filter, breath): (&Filter, &Breath),
    mut left: u64,
    cursor: &mut Cursor,
) -> Result<bool, LogError> {
    if cursor.seek.is_none() {
        for (key, state) in wanted {
            let start = cursor.of(key.attempt(), key.rank()).next;
            let end = match query.until_ns.and_then(|until_ns| until_ns.checked_add(1)) {
                Some(after) => since(snapshot, *key, state, after)?,
                None => state.last + 1,
            };
            let place = Place {
                searched: end.saturating_sub(start),
                ..Place::at(start)
            };
            cursor.set(key.attempt(), key.rank(), place);
        }
    }
    let floor = |state: &StreamState, place: Place| place.next.max(state.removed_to + 1);
    let attempts: Vec<_> = wanted.chunk_by(|a, b| a.0.attempt() == b.0.attempt()).collect();
    for attempt in attempts.into_iter().rev() {
        let mut readers = Vec::new();
        let mut heads = BinaryHeap::new();
        let mut late = false;
        for (key, state) in attempt {
            let place = cursor.of(key.attempt(), key.rank());
            let mut reader = Backwards {
                snapshot,
                key: *key,
                filter,
                breath,
                floor: floor(state, place),
                counted: place.scan(),
                found: None,
                records: Vec::new(),
                looked: false,
            };
            match reader.peek()? {
                Next::At(order_ns) => heads.push((order_ns, key.rank(), readers.len())),
                Next::End => {}
                Next::Later => late = true,
            }
            readers.push(reader);
        }
        while !late
            && left > 0
            && let Some((_, rank, index)) = heads.pop()
        {
            let reader = &mut readers[index];
            reader.count();
            left -= 1;
            match reader.peek()? {
                Next::At(order_ns) => heads.push((order_ns, rank, index)),
                Next::End => {}
                // What was counted is enough where no more is wanted.
                Next::Later => late = left > 0,
            }
        }
        for reader in readers {
            let (attempt, rank) = (reader.key.attempt(), reader.key.rank());
            let place = cursor.of(attempt, rank);
            let place = Place {
                searched: reader.counted.saturating_sub(place.next),
                ..place
            };
            cursor.set(attempt, rank, place);
        }
        if late {
            cursor.seek = Some(left);
            return Ok(false);
        }
        if left == 0 {
            break;
        }
    }
    cursor.seek = None;
    for (key, state) in wanted {
        let place = cursor.of(key.attempt(), key.rank());
        let (floor, scan) = (floor(state, place), place.scan());
        // Where the tail is longer than what is left, the reader is told of what was dropped.
        let place = if left > 0 && scan <= floor {
            Place::at(place.next)
        } else {
            let next = floor.max(scan.saturating_sub(filter.context));
            Place {
                searched: scan.saturating_sub(next),
                ..Place::at(next)
            }
        };
        cursor.set(key.attempt(), key.rank(), place);
    }
    Ok(true)
}
