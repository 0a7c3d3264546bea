//! Compaction and the size bound, beside the writer: reads snapshots, lets the writer make the change.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::WeakSender;

use super::LogError;
use super::block::{Header, Packer, Record, unpack};
use super::engine::Snapshot;
use super::keys::{StreamKey, block_first};
use super::state::StreamState;
use super::store::Shared;
use super::writer::{Command, wants_compaction};

/// Unpacked bytes merged in one go: bounds memory.
const MERGE_BYTES: u64 = 1 << 20;

/// Something to do in the background.
pub(super) enum Chore {
    Compact(StreamKey),
    /// Find logs of about so many bytes to drop.
    Evict {
        bytes: u64,
    },
    Stop,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    chores: Receiver<Chore>,
    /// Weak, so that the writer ends when the store is dropped.
    commands: WeakSender<Command>,
    packer: Packer,
    max_age: Option<Duration>,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        chores: Receiver<Chore>,
        commands: WeakSender<Command>,
        max_age: Option<Duration>,
    ) -> Result<Self, LogError> {
        Ok(Self {
            shared,
            chores,
            commands,
            packer: Packer::new()?,
            max_age,
        })
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        for stream in self.left_over() {
            let command = self.compact(stream);
            if !self.send(command) {
                return;
            }
        }
        let mut aged_at = None;
        loop {
            if let Some(max_age) = self.max_age
                && aged_at.is_none_or(|at: Instant| at.elapsed() >= every(max_age))
            {
                aged_at = Some(Instant::now());
                let command = self.aged(max_age);
                if !self.send(command) {
                    return;
                }
            }
            let wait = self.max_age.map_or(Duration::MAX, every);
            let chore = match self.chores.recv_timeout(wait) {
                Ok(chore) => chore,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let command = match chore {
                Chore::Compact(stream) => self.compact(stream),
                Chore::Evict { bytes } => self.victims(bytes),
                Chore::Stop => return,
            };
            if !self.send(command) {
                return;
            }
        }
    }

    /// Hands the writer a change; `false` when it has ended.
    fn send(&self, command: Command) -> bool {
        let commands = self.commands.upgrade();
        commands.is_some_and(|commands| commands.blocking_send(command).is_ok())
    }

    /// Streams that were to be merged when the store was closed last.
    fn left_over(&self) -> Vec<StreamKey> {
        let streams = self.shared.engine.read(|snapshot| {
            let mut streams = Vec::new();
            for row in snapshot.streams.range::<&[u8; 16]>(..)? {
                let (key, row) = row?;
                let state = StreamState::decode(row.value())?;
                if wants_compaction(&state, self.shared.merge_blocks) {
                    streams.push(StreamKey(*key.value()));
                }
            }
            Ok(streams)
        });
        streams.unwrap_or_else(|error| {
            tracing::warn!(%error, "log compaction put off");
            Vec::new()
        })
    }

    /// Merges the stream's loose blocks. Always has an answer: the writer waits for it.
    fn compact(&mut self, stream: StreamKey) -> Command {
        let shared = Arc::clone(&self.shared);
        let merged = shared.engine.read(|snapshot| self.merge(snapshot, stream));
        merged.unwrap_or_else(|error| {
            tracing::warn!(%error, "log compaction put off");
            Command::Replace {
                stream,
                old: Vec::new(),
                new: Vec::new(),
                loose: (0, 0),
            }
        })
    }

    fn merge(&mut self, snapshot: &Snapshot, stream: StreamKey) -> Result<Command, LogError> {
        let nothing = Command::Replace {
            stream,
            old: Vec::new(),
            new: Vec::new(),
            loose: (0, 0),
        };
        let Some(state) = load(snapshot, stream)? else {
            return Ok(nothing);
        };
        if !wants_compaction(&state, self.shared.merge_blocks) {
            return Ok(nothing);
        }
        let mut old = Vec::new();
        let mut records: Vec<Record> = Vec::new();
        let mut lead_ns = i64::MIN;
        let mut loose = (0, 0);
        let mut unpacked = 0;
        let (low, high) = (stream.block(state.settled + 1), stream.block(u64::MAX));
        for row in snapshot.blocks.range::<&[u8; 24]>(&low..=&high)? {
            let (first, block) = row?;
            let header = Header::decode(block_first(first.value()), block.value())?;
            if old.is_empty() {
                lead_ns = header.lead_ns;
            }
            if !old.is_empty() || state.growing == 0 {
                loose.0 += 1;
                loose.1 += header.unpacked;
            }
            old.push(header.first);
            let placed = unpack(&header, block.value())?;
            records.extend(placed.into_iter().map(|p| p.record));
            unpacked += header.unpacked;
            if unpacked >= MERGE_BYTES {
                break;
            }
        }
        if records.is_empty() {
            return Ok(nothing);
        }
        let new = self.packer.pack(&records, lead_ns)?;
        Ok(Command::Replace {
            stream,
            old,
            new,
            loose,
        })
    }

    /// Lines that are too old.
    fn aged(&self, max_age: Duration) -> Command {
        let before_ns = now_ns().saturating_sub(i64::try_from(max_age.as_nanos()).unwrap_or(i64::MAX));
        let cuts = self.shared.engine.read(|snapshot| older(snapshot, before_ns));
        let cuts = cuts.unwrap_or_else(|error| {
            tracing::warn!(%error, "old logs were not dropped yet");
            Vec::new()
        });
        Command::Evict { cuts }
    }

    /// Which logs to drop.
    fn victims(&self, bytes: u64) -> Command {
        let cuts = self.shared.engine.read(|snapshot| {
            let cuts = oldest_ended(snapshot, bytes)?;
            if cuts.is_empty() {
                return oldest_of_largest(snapshot, bytes);
            }
            Ok(cuts)
        });
        let cuts = cuts.unwrap_or_else(|error| {
            tracing::warn!(%error, "logs over their bound were not dropped yet");
            Vec::new()
        });
        Command::Evict { cuts }
    }
}

/// How often lines of this age are looked for.
fn every(max_age: Duration) -> Duration {
    (max_age / 50).clamp(Duration::from_secs(1), Duration::from_secs(600))
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// Blocks whose lines are all from before a time.
fn older(snapshot: &Snapshot, before_ns: i64) -> Result<Vec<(StreamKey, u64)>, LogError> {
    let mut cuts = Vec::new();
    for row in snapshot.streams.range::<&[u8; 16]>(..)? {
        let (key, row) = row?;
        let key = StreamKey(*key.value());
        let state = StreamState::decode(row.value())?;
        if state.last <= state.removed_to {
            continue;
        }
        if state.latest_ns < before_ns {
            cuts.push((key, state.last));
            continue;
        }
        let mut to = 0;
        let (low, high) = (key.block(0), key.block(state.settled));
        for row in snapshot.blocks.range::<&[u8; 24]>(&low..=&high)? {
            let (first, block) = row?;
            let header = Header::decode(block_first(first.value()), block.value())?;
            if header.max_ns >= before_ns {
                break;
            }
            to = header.last;
        }
        if to > 0 {
            cuts.push((key, to));
        }
    }
    Ok(cuts)
}

/// All lines of the oldest workloads whose streams have all ended, until `bytes` come together.
fn oldest_ended(snapshot: &Snapshot, bytes: u64) -> Result<Vec<(StreamKey, u64)>, LogError> {
    let mut cuts: Vec<(StreamKey, u64)> = Vec::new();
    // The workload at hand: its number, whether all ended, its bytes, where its cuts start.
    let (mut workload, mut ended, mut size, mut from) = (None, true, 0, 0);
    let mut freed = 0;
    for row in snapshot.streams.range::<&[u8; 16]>(..)? {
        let (key, row) = row?;
        let key = StreamKey(*key.value());
        let state = StreamState::decode(row.value())?;
        if workload != Some(key.workload()) {
            if ended {
                freed += size;
            } else {
                cuts.truncate(from);
            }
            if freed >= bytes {
                return Ok(cuts);
            }
            (workload, ended, size, from) = (Some(key.workload()), true, 0, cuts.len());
        }
        ended &= state.finished;
        if state.last > state.removed_to {
            size += state.bytes;
            cuts.push((key, state.last));
        }
    }
    if !ended {
        cuts.truncate(from);
    }
    Ok(cuts)
}

/// The oldest settled blocks of the stream that has most.
fn oldest_of_largest(snapshot: &Snapshot, bytes: u64) -> Result<Vec<(StreamKey, u64)>, LogError> {
    let mut largest: Option<(StreamKey, StreamState)> = None;
    for row in snapshot.streams.range::<&[u8; 16]>(..)? {
        let (key, row) = row?;
        let state = StreamState::decode(row.value())?;
        if state.settled > state.removed_to && largest.is_none_or(|(_, l)| state.bytes > l.bytes) {
            largest = Some((StreamKey(*key.value()), state));
        }
    }
    let Some((key, state)) = largest else {
        return Ok(Vec::new());
    };
    let (mut freed, mut to) = (0, 0);
    let (low, high) = (key.block(0), key.block(state.settled));
    for row in snapshot.blocks.range::<&[u8; 24]>(&low..=&high)? {
        let (first, block) = row?;
        to = Header::decode(block_first(first.value()), block.value())?.last;
        freed += block.value().len() as u64;
        if freed >= bytes {
            break;
        }
    }
    Ok(if to == 0 { Vec::new() } else { vec![(key, to)] })
}

fn load(snapshot: &Snapshot, stream: StreamKey) -> Result<Option<StreamState>, LogError> {
    match snapshot.streams.get(&stream.0)? {
        Some(row) => Ok(Some(StreamState::decode(row.value())?)),
        None => Ok(None),
    }
}
