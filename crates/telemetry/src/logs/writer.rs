//! The one thread that writes: all that waits goes into one transaction and one fsync.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, mpsc as std_mpsc};

use tokio::sync::{mpsc, oneshot};

use super::block::{Encoded, Packer};
use super::group::{Answer, Done, Group, Refusal};
use super::keeper::Chore;
use super::keys::StreamKey;
use super::state::StreamState;
use super::store::Shared;
use super::{Chunk, LogError, StreamId};

/// Texts taken into one transaction, about: bounds memory and the wait of the first in it.
const GROUP_BYTES: usize = 8 << 20;
/// Commands taken into one transaction.
const GROUP_COMMANDS: usize = 2048;
/// Unpacked size of small blocks that are merged: enough for a full one.
const MERGE_BYTES: u64 = 256 << 10;
/// Small blocks that are merged once the stream has ended.
const MERGE_BLOCKS_AT_END: u64 = 8;

pub(super) type Reply<T> = oneshot::Sender<Result<T, LogError>>;

pub(super) enum Command {
    Append {
        batch: Vec<Chunk>,
        reply: Reply<Vec<(StreamId, u64)>>,
    },
    Remove {
        workload: String,
        reply: Reply<bool>,
    },
    /// Compaction read the blocks that start at `old` and made `new` of them.
    Replace {
        stream: StreamKey,
        old: Vec<u64>,
        new: Vec<Encoded>,
        /// Unpacked size of the old blocks that were loose, and their number.
        loose: (u64, u64),
    },
    /// Drop the lines up to these numbers.
    Evict {
        cuts: Vec<(StreamKey, u64)>,
    },
}

impl Command {
    fn size(&self) -> usize {
        match self {
            Self::Append { batch, .. } => batch
                .iter()
                .flat_map(|chunk| &chunk.lines)
                .map(|line| line.text.len() + 32)
                .sum(),
            Self::Replace { new, .. } => new.iter().map(|b| b.bytes.len()).sum(),
            _ => 0,
        }
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    chores: std_mpsc::Sender<Chore>,
    packer: Packer,
    /// Streams that the keeper is at.
    compacting: HashSet<StreamKey>,
    evicting: bool,
    max_bytes: Option<u64>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        chores: std_mpsc::Sender<Chore>,
        max_bytes: Option<u64>,
    ) -> Result<Self, LogError> {
        Ok(Self {
            shared,
            commands,
            chores,
            packer: Packer::new()?,
            compacting: HashSet::new(),
            evicting: false,
            max_bytes,
        })
    }

    /// Runs until nobody is left who could send a command.
    pub(super) fn run(mut self) {
        let mut group = Vec::new();
        while let Some(command) = self.commands.blocking_recv() {
            let mut size = command.size();
            group.push(command);
            while size < GROUP_BYTES && group.len() < GROUP_COMMANDS {
                let Ok(command) = self.commands.try_recv() else {
                    break;
                };
                size += command.size();
                group.push(command);
            }
            self.commit(std::mem::take(&mut group));
        }
        let _ = self.chores.send(Chore::Stop);
    }

    fn commit(&mut self, group: Vec<Command>) {
        for command in &group {
            match command {
                Command::Replace { stream, .. } => {
                    self.compacting.remove(stream);
                }
                Command::Evict { .. } => self.evicting = false,
                _ => {}
            }
        }
        let shared = Arc::clone(&self.shared);
        let mut refusals = Vec::with_capacity(group.len());
        let outcome = shared
            .engine
            .with(|database| Group::apply(database, &shared, &mut self.packer, group, &mut refusals));
        match outcome {
            Ok(Some(done)) => self.publish(done),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, waiting = refusals.len(), "log lines not stored");
                // Whether the commit reached the disk is unknown: the file tells.
                shared.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
                for refusal in refusals {
                    // A caller that has gone needs no answer.
                    match refusal {
                        Refusal::Append(reply) => drop(reply.send(Err(error.clone()))),
                        Refusal::Remove(reply) => drop(reply.send(Err(error.clone()))),
                    }
                }
            }
        }
    }

    /// After the fsync: readers and callers may know.
    fn publish(&mut self, done: Done) {
        self.shared.hub.wake(done.workloads.keys());
        {
            let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
            for name in &done.removed {
                known.workloads.remove(name.as_str());
            }
            for key in &done.removed_streams {
                known.streams.remove(key);
            }
            for (name, number) in done.workloads {
                known.workloads.insert(name, number);
            }
            for (key, state) in &done.streams {
                known.streams.insert(*key, *state);
            }
            known.totals = done.totals;
        }
        for answer in done.answers {
            match answer {
                Answer::Append(reply, value) => drop(reply.send(Ok(value))),
                Answer::Remove(reply, value) => drop(reply.send(Ok(value))),
            }
        }
        for name in &done.removed {
            self.shared.hub.remove(name);
        }
        for (key, state) in done.streams {
            if wants_compaction(&state, self.shared.merge_blocks) && self.compacting.insert(key) {
                let _ = self.chores.send(Chore::Compact(key));
            }
        }
        if let Some(max) = self.max_bytes
            && done.totals.bytes > max
            && !self.evicting
        {
            self.evicting = true;
            let _ = self.chores.send(Chore::Evict {
                // Some room more, so that it is not done for each batch.
                bytes: done.totals.bytes - max + max / 10,
            });
        }
    }
}

/// Whether enough small blocks have come together.
pub(super) fn wants_compaction(state: &StreamState, merge_blocks: u64) -> bool {
    let full = state.loose_bytes + state.growing >= MERGE_BYTES;
    // A block that grows is written again each time: only for a fair share of new bytes.
    let many = state.loose_blocks >= merge_blocks && state.loose_bytes >= state.growing / 4;
    let ended = state.finished && state.loose_blocks >= merge_blocks.min(MERGE_BLOCKS_AT_END);
    // One block alone has nothing to be merged with.
    let several = state.loose_blocks > 1 || state.loose_blocks == 1 && state.growing > 0;
    several && (full || many || ended)
}
