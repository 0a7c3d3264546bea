//! One transaction of the writer: the commands of all who wait, done in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;

use redb::{Database, Durability, ReadableTable, Table};

use super::block::{Encoded, FULL_BYTES_MAX, Header, Packer, Placed, Record, SETTLED_BYTES, detect, unpack};
use super::keys::{BLOCKS, STREAMS, StreamKey, TOTALS, WORKLOADS, block_first};
use super::state::{StreamState, Totals};
use super::store::Shared;
use super::writer::{Command, Reply};
use super::{Chunk, Line, LogError, StreamId};

/// What a block costs besides its bytes: its key and its place in the page.
const ROW_BYTES: u64 = 32;
/// Up to this size the file is simply walked through when it is opened after a crash (well under a second);
/// over it every commit also stores what makes that needless, which costs it a second fsync.
const WALKED_BYTES_MAX: u64 = 256 << 20;

/// What a command will answer once the transaction is durable.
pub(super) enum Answer {
    Append(Reply<Vec<(StreamId, u64)>>, Vec<(StreamId, u64)>),
    Remove(Reply<bool>, bool),
}

/// Told of a command's failure.
pub(super) enum Refusal {
    Append(Reply<Vec<(StreamId, u64)>>),
    Remove(Reply<bool>),
}

/// A stream touched in this transaction.
struct Touched {
    state: StreamState,
    /// The latest time before `records`.
    latest_before: i64,
    records: Vec<Record>,
}

/// What a durable transaction has changed.
pub(super) struct Done {
    pub(super) answers: Vec<Answer>,
    pub(super) totals: Totals,
    pub(super) streams: Vec<(StreamKey, StreamState)>,
    /// Those that commands named.
    pub(super) workloads: HashMap<String, u64>,
    pub(super) removed: Vec<String>,
    pub(super) removed_streams: Vec<StreamKey>,
}

/// One transaction in the making.
pub(super) struct Group<'a, 'txn> {
    shared: &'a Shared,
    packer: &'a mut Packer,
    workloads: Table<'txn, &'static str, u64>,
    streams: Table<'txn, &'static [u8; 16], &'static [u8]>,
    blocks: Table<'txn, &'static [u8; 24], &'static [u8]>,
    /// In key order, so that rows go into the trees side by side.
    touched: BTreeMap<StreamKey, Touched>,
    names: HashMap<String, u64>,
    totals: Totals,
    removed: Vec<String>,
    removed_streams: Vec<StreamKey>,
    changed: bool,
}

impl Group<'_, '_> {
    /// Does the commands in order; `None` when they changed nothing and nobody waits.
    pub(super) fn apply(
        database: &Database,
        shared: &Shared,
        packer: &mut Packer,
        commands: Vec<Command>,
        refusals: &mut Vec<Refusal>,
    ) -> Result<Option<Done>, LogError> {
        // The senders stay outside until the end, so that each gets an answer whatever fails.
        let mut work = Vec::with_capacity(commands.len());
        for command in commands {
            match command {
                Command::Append { batch, reply } => {
                    refusals.push(Refusal::Append(reply));
                    work.push(Work::Append(batch));
                }
                Command::Remove { workload, reply } => {
                    refusals.push(Refusal::Remove(reply));
                    work.push(Work::Remove(workload));
                }
                Command::Replace {
                    stream,
                    old,
                    new,
                    loose,
                } => work.push(Work::Replace(stream, old, new, loose)),
                Command::Evict { cuts } => work.push(Work::Evict(cuts)),
            }
        }
        if work.is_empty() {
            return Ok(None);
        }
        let mut txn = database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        let (mut outcomes, mut done, quick_repair);
        {
            let mut totals_table = txn.open_table(TOTALS)?;
            let totals = match totals_table.get(0)? {
                Some(row) => Totals::decode(row.value())?,
                None => Totals::default(),
            };
            quick_repair = totals.bytes > WALKED_BYTES_MAX;
            let mut group = Group {
                shared,
                packer,
                workloads: txn.open_table(WORKLOADS)?,
                streams: txn.open_table(STREAMS)?,
                blocks: txn.open_table(BLOCKS)?,
                touched: BTreeMap::new(),
                names: HashMap::new(),
                totals,
                removed: Vec::new(),
                removed_streams: Vec::new(),
                changed: false,
            };
            outcomes = Vec::with_capacity(refusals.len());
            for item in work {
                match item {
                    Work::Append(batch) => outcomes.push(Outcome::Append(group.append(batch)?)),
                    Work::Remove(name) => outcomes.push(Outcome::Remove(group.remove(&name)?)),
                    Work::Replace(stream, old, new, loose) => {
                        group.replace(stream, &old, &new, loose)?;
                    }
                    Work::Evict(cuts) => group.evict(&cuts)?,
                }
            }
            group.flush()?;
            let changed = group.changed;
            done = Done {
                answers: Vec::new(),
                totals: group.totals,
                streams: Vec::with_capacity(group.touched.len()),
                workloads: std::mem::take(&mut group.names),
                removed: std::mem::take(&mut group.removed),
                removed_streams: std::mem::take(&mut group.removed_streams),
            };
            for (key, touched) in &group.touched {
                if changed {
                    let row = touched.state.encode();
                    group.streams.insert(&key.0, row.as_slice())?;
                }
                done.streams.push((*key, touched.state));
            }
            if changed {
                totals_table.insert(0, group.totals.encode().as_slice())?;
            }
            drop(group);
            drop(totals_table);
            if changed {
                txn.set_quick_repair(quick_repair);
                txn.commit()?;
            } else {
                // Nothing but doubles: what they ask for is durable already.
                txn.abort()?;
            }
        }
        done.answers = refusals
            .drain(..)
            .zip(outcomes.drain(..))
            .filter_map(|(refusal, outcome)| match (refusal, outcome) {
                (Refusal::Append(reply), Outcome::Append(v)) => Some(Answer::Append(reply, v)),
                (Refusal::Remove(reply), Outcome::Remove(v)) => Some(Answer::Remove(reply, v)),
                _ => None,
            })
            .collect();
        Ok(Some(done))
    }

    /// The workload's number; a new one gets the next where `make` says so.
    fn workload(&mut self, name: &str, make: bool) -> Result<Option<u64>, LogError> {
        if let Some(&number) = self.names.get(name) {
            return Ok(Some(number));
        }
        let cached = {
            let known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.workloads.peek(name)
        };
        // One removed earlier in this very transaction is still in the cache.
        let cached = cached.filter(|_| !self.removed.iter().any(|r| r == name));
        let number = match cached {
            Some(number) => Some(number),
            None => self.workloads.get(name)?.map(|row| row.value()),
        };
        let number = match number {
            None if make => {
                let number = self.totals.next_workload;
                self.totals.next_workload += 1;
                self.workloads.insert(name, number)?;
                self.changed = true;
                Some(number)
            }
            other => other,
        };
        if let Some(number) = number {
            self.names.insert(name.to_owned(), number);
        }
        Ok(number)
    }

    /// The stream, ready to be changed; `None` where it does not exist and `make` is not set.
    fn touch(&mut self, key: StreamKey, make: bool) -> Result<Option<&mut Touched>, LogError> {
        if !self.touched.contains_key(&key) {
            let cached = {
                let known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.streams.peek(&key)
            };
            let cached = cached.filter(|_| !self.removed_streams.contains(&key));
            let stored = match cached {
                Some(state) => Some(state),
                None => match self.streams.get(&key.0)? {
                    Some(row) => Some(StreamState::decode(row.value())?),
                    None => None,
                },
            };
            let state = match stored {
                Some(state) => state,
                None if make => {
                    self.totals.streams += 1;
                    self.changed = true;
                    StreamState::default()
                }
                None => return Ok(None),
            };
            let touched = Touched {
                state,
                latest_before: state.latest_ns,
                records: Vec::new(),
            };
            self.touched.insert(key, touched);
        }
        Ok(self.touched.get_mut(&key))
    }

    fn append(&mut self, batch: Vec<Chunk>) -> Result<Vec<(StreamId, u64)>, LogError> {
        let mut lasts = Vec::with_capacity(batch.len());
        for chunk in batch {
            let id = chunk.stream;
            let number = self.workload(&id.workload, true)?;
            let key = StreamKey::new(number.unwrap_or_default(), id.attempt, id.rank);
            let Some(touched) = self.touch(key, true)? else {
                continue;
            };
            let before = touched.state;
            let mut lines = chunk.lines;
            if !lines.is_sorted_by_key(|line| line.number) {
                lines.sort_by_key(|line| line.number);
            }
            for line in lines {
                if line.number > touched.state.last {
                    touched.push(line);
                }
            }
            if let Some(end) = chunk.end {
                touched.finish(end);
            }
            lasts.push((id, touched.state.last));
            let after = touched.state;
            self.totals.lines += after.lines - before.lines;
            self.changed |= after != before;
        }
        Ok(lasts)
    }

    /// Writes the collected records as blocks.
    fn flush(&mut self) -> Result<(), LogError> {
        for (key, touched) in &mut self.touched {
            if touched.records.is_empty() {
                continue;
            }
            let records = std::mem::take(&mut touched.records);
            let blocks = self.packer.pack(&records, touched.latest_before)?;
            touched.latest_before = touched.state.latest_ns;
            for block in blocks {
                self.blocks.insert(&key.block(block.first), block.bytes.as_slice())?;
                let bytes = block.bytes.len() as u64 + ROW_BYTES;
                touched.state.bytes += bytes;
                self.totals.bytes += bytes;
                let state = &mut touched.state;
                if state.loose_blocks == 0 && state.growing == 0 && block.unpacked >= SETTLED_BYTES as u64 {
                    state.settled = block.last;
                } else {
                    state.loose_blocks += 1;
                    state.loose_bytes += block.unpacked;
                }
            }
        }
        Ok(())
    }

    /// Drops the stream's blocks that start up to `to`; `None` when there is none.
    fn cut(&mut self, key: StreamKey, to: u64) -> Result<Option<Cut>, LogError> {
        let mut cut = Cut::default();
        let mut doomed = Vec::new();
        for row in self.blocks.range::<&[u8; 24]>(&key.block(0)..=&key.block(to))? {
            let (first, block) = row?;
            let (first, block) = (block_first(first.value()), block.value());
            let header = Header::decode(first, block)?;
            cut.last = header.last;
            cut.bytes += block.len() as u64 + ROW_BYTES;
            cut.lines += if !header.gaps {
                header.records
            } else {
                let is_line = |p: &Placed| matches!(p.record, Record::Line(..));
                unpack(&header, block)?.into_iter().filter(is_line).count() as u64
            };
            doomed.push(first);
        }
        for &first in &doomed {
            self.blocks.remove(&key.block(first))?;
        }
        Ok((!doomed.is_empty()).then_some(cut))
    }

    fn remove(&mut self, name: &str) -> Result<bool, LogError> {
        let Some(number) = self.workload(name, false)? else {
            return Ok(false);
        };
        self.flush()?;
        // What this transaction has touched is not in the table yet.
        let mut states = BTreeMap::new();
        let range = StreamKey::new(number, 0, 0)..=StreamKey::new(number, u32::MAX, u32::MAX);
        for row in self.streams.range::<&[u8; 16]>(&range.start().0..=&range.end().0)? {
            let (key, row) = row?;
            states.insert(StreamKey(*key.value()), StreamState::decode(row.value())?);
        }
        let touched: Vec<StreamKey> = self.touched.range(range).map(|(key, _)| *key).collect();
        for key in touched {
            if let Some(touched) = self.touched.remove(&key) {
                states.insert(key, touched.state);
            }
        }
        for (key, state) in states {
            self.cut(key, u64::MAX)?;
            self.streams.remove(&key.0)?;
            self.totals.streams -= 1;
            self.totals.lines -= state.lines;
            self.totals.bytes -= state.bytes;
            self.removed_streams.push(key);
        }
        self.workloads.remove(name)?;
        self.names.remove(name);
        self.removed.push(name.to_owned());
        self.changed = true;
        Ok(true)
    }

    fn replace(
        &mut self,
        key: StreamKey,
        old: &[u64],
        new: &[Encoded],
        (loose_blocks, loose_bytes): (u64, u64),
    ) -> Result<(), LogError> {
        // The stream may have been cut or removed since the blocks were read; then nothing is to be done.
        if old.is_empty() || self.touch(key, false)?.is_none() {
            return Ok(());
        }
        for &first in old {
            if self.blocks.get(&key.block(first))?.is_none() {
                return Ok(());
            }
        }
        let (mut freed, mut used) = (0, 0);
        for &first in old {
            if let Some(row) = self.blocks.remove(&key.block(first))? {
                freed += row.value().len() as u64 + ROW_BYTES;
            }
        }
        for block in new {
            self.blocks.insert(&key.block(block.first), block.bytes.as_slice())?;
            used += block.bytes.len() as u64 + ROW_BYTES;
        }
        self.totals.bytes = self.totals.bytes + used - freed;
        self.changed = true;
        if let Some(touched) = self.touch(key, false)? {
            let state = &mut touched.state;
            state.bytes = state.bytes + used - freed;
            state.loose_blocks -= loose_blocks;
            state.loose_bytes -= loose_bytes;
            state.growing = 0;
            for (left, block) in (0..new.len()).rev().zip(new) {
                if left > 0 || block.unpacked >= FULL_BYTES_MAX as u64 {
                    state.settled = block.last;
                } else {
                    state.growing = block.unpacked;
                }
            }
        }
        Ok(())
    }

    fn evict(&mut self, cuts: &[(StreamKey, u64)]) -> Result<(), LogError> {
        self.flush()?;
        for &(key, to) in cuts {
            let Some(state) = self.touch(key, false)?.map(|t| t.state) else {
                continue;
            };
            // Only the whole of an ended stream, or what compaction has settled: the rest is in motion.
            let whole = state.finished && to == state.last;
            let to = if whole { to } else { to.min(state.settled) };
            if to <= state.removed_to {
                continue;
            }
            let Some(cut) = self.cut(key, to)? else {
                continue;
            };
            self.totals.bytes -= cut.bytes;
            self.totals.lines -= cut.lines;
            self.changed = true;
            if let Some(touched) = self.touch(key, false)? {
                let to = cut.last;
                let state = &mut touched.state;
                state.bytes -= cut.bytes;
                state.lines -= cut.lines;
                state.removed_to = to;
                state.settled = state.settled.max(to);
                if to == state.last {
                    state.growing = 0;
                    state.loose_blocks = 0;
                    state.loose_bytes = 0;
                }
            }
        }
        Ok(())
    }
}

/// What left the file.
#[derive(Default)]
struct Cut {
    /// Last number that went.
    last: u64,
    bytes: u64,
    lines: u64,
}

impl Touched {
    fn push(&mut self, line: Line) {
        if line.number > self.state.last + 1 {
            let at_ns = if self.state.latest_ns == i64::MIN {
                line.at_ns
            } else {
                self.state.latest_ns
            };
            self.push_record(Record::Gap {
                from: self.state.last + 1,
                to: line.number - 1,
                at_ns,
            });
        }
        self.state.lines += 1;
        let level = detect(&mut self.state.detectors, line.source, &line.text, line.partial);
        self.push_record(Record::Line(line, level));
    }

    fn finish(&mut self, end: u64) {
        if self.state.last < end {
            let at_ns = if self.state.latest_ns == i64::MIN {
                now_ns()
            } else {
                self.state.latest_ns
            };
            self.push_record(Record::Gap {
                from: self.state.last + 1,
                to: end,
                at_ns,
            });
        }
        self.state.finished = true;
    }

    fn push_record(&mut self, record: Record) {
        self.state.last = record.last();
        self.state.latest_ns = self.state.latest_ns.max(record.at_ns());
        self.records.push(record);
    }
}

/// A command without its sender.
enum Work {
    Append(Vec<Chunk>),
    Remove(String),
    Replace(StreamKey, Vec<u64>, Vec<Encoded>, (u64, u64)),
    Evict(Vec<(StreamKey, u64)>),
}

enum Outcome {
    Append(Vec<(StreamId, u64)>),
    Remove(bool),
}

fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}
