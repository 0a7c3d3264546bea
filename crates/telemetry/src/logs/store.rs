//! The store as its users hold it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};

use super::LogError;
use super::engine::Engine;
use super::follow::{Follow, Hub};
use super::keeper::Keeper;
use super::keys::StreamKey;
use super::read;
use super::state::{Recent, StreamState, Totals};
use super::types::{Chunk, Options, Page, Query, StreamId, StreamInfo, Usage};
use super::writer::{Command, Writer};

/// Commands waiting for the writer; more callers wait for a place.
const QUEUE: usize = 4096;
/// Longest text of a line.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// What writer, readers and followers share.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) known: Mutex<Known>,
    pub(super) hub: Hub,
    /// [`Options::merge_blocks`].
    pub(super) merge_blocks: u64,
}

/// What is known without reading; only the writer adds to it, after its fsync.
pub(super) struct Known {
    pub(super) workloads: Recent<String, u64>,
    pub(super) streams: Recent<StreamKey, StreamState>,
    pub(super) totals: Totals,
}

impl Known {
    /// Forgets all but the totals, which the next transaction renews.
    pub(super) fn clear(&mut self) {
        self.workloads.clear();
        self.streams.clear();
    }
}

/// The durable store of workload logs.
///
/// One process may have it open at a time. Calls named `async` return once the change is on disk (fsync);
/// dropping their future does not take the change back. The others read, block for the time of a disk read
/// at most, and never wait for writers. Dropping the store closes the file; followers then end with
/// [`LogError::Closed`].
pub struct LogStore {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    threads: Vec<JoinHandle<()>>,
}

impl LogStore {
    /// Opens the store in `dir`, made with mode 0700 where it is missing; the file is `logs.redb`, mode 0600.
    ///
    /// # Errors
    /// [`LogError::Open`] when the file can't be opened or another process holds it.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, LogError> {
        let engine = Engine::open(dir.as_ref(), options.cache_bytes)?;
        Self::start(engine, &options)
    }

    pub(super) fn start(engine: Engine, options: &Options) -> Result<Self, LogError> {
        let totals = engine.read(|snapshot| match snapshot.totals.get(0)? {
            Some(row) => Totals::decode(row.value()),
            None => Ok(Totals::default()),
        })?;
        let shared = Arc::new(Shared {
            engine,
            known: Mutex::new(Known {
                workloads: Recent::new(options.cached_streams),
                streams: Recent::new(options.cached_streams),
                totals,
            }),
            hub: Hub::default(),
            merge_blocks: options.merge_blocks.max(1),
        });
        let (commands, queue) = mpsc::channel(QUEUE);
        let (chores, todo) = std_mpsc::channel();
        let keeper = Keeper::new(Arc::clone(&shared), todo, commands.downgrade(), options.max_age)?;
        let writer = Writer::new(Arc::clone(&shared), queue, chores, options.max_bytes)?;
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            thread::Builder::new()
                .name(name.into())
                .spawn(body)
                .map_err(|e| LogError::from_io(&e))
        };
        // Should the second fail, the first ends as its channel does.
        let threads = vec![
            spawn("log-writer", Box::new(move || writer.run()))?,
            spawn("log-keeper", Box::new(move || keeper.run()))?,
        ];
        Ok(Self {
            shared,
            commands,
            threads,
        })
    }

    /// Stores lines, each once, and returns when they are on disk: for each stream, the highest number that
    /// is now durable (also when all lines were doubles).
    ///
    /// Lines whose number is not above the stream's last are dropped as doubles. A number that jumps ahead
    /// leaves a gap that readers see; what would have filled it is dropped when it comes later. Lines of a
    /// stream out of order are sorted first. Callers at the same time share one fsync.
    ///
    /// # Errors
    /// [`LogError::InvalidWorkload`], [`LogError::InvalidLine`]: nothing was stored.
    /// [`LogError::StorageFull`], [`LogError::Storage`]: not acknowledged; send it again.
    pub async fn append(
        &self,
        batch: impl IntoIterator<Item = impl Into<Chunk>>,
    ) -> Result<Vec<(StreamId, u64)>, LogError> {
        let batch: Vec<Chunk> = batch.into_iter().map(Into::into).collect();
        for chunk in &batch {
            check_workload(&chunk.stream.workload)?;
            check_end(chunk.end)?;
            for line in &chunk.lines {
                let (number, bytes) = (line.number, line.text.len());
                if number == 0 || number == u64::MAX || bytes > TEXT_BYTES_MAX {
                    return Err(LogError::InvalidLine { number, bytes });
                }
            }
        }
        self.ask(|reply| Command::Append { batch, reply }).await
    }

    /// Records that the stream has ended with line `last` and returns its highest number, durable.
    ///
    /// Lines up to `last` that never came become a gap. A stream that has more than `last` keeps it, and
    /// lines that come still later are stored too: nothing is thrown away over a wrong end. Idempotent.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn finish(&self, stream: &StreamId, last: u64) -> Result<u64, LogError> {
        check_workload(&stream.workload)?;
        check_end(Some(last))?;
        let batch = vec![Chunk {
            stream: stream.clone(),
            lines: Vec::new(),
            end: Some(last),
        }];
        let lasts = self.ask(|reply| Command::Append { batch, reply }).await?;
        Ok(lasts.first().map_or(0, |(_, last)| *last))
    }

    /// Removes all that is kept of a workload, markers included; `false` when nothing was known of it.
    /// Followers end with [`LogError::WorkloadRemoved`].
    ///
    /// # Errors
    /// [`LogError::StorageFull`], [`LogError::Storage`]: nothing was removed.
    pub async fn remove(&self, workload: &str) -> Result<bool, LogError> {
        let workload = workload.to_owned();
        self.ask(|reply| Command::Remove { workload, reply }).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> Command,
    ) -> Result<T, LogError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(command(reply)).await;
        sent.map_err(|_| LogError::Closed)?;
        answer.await.map_err(|_| LogError::Closed)?
    }

    /// Highest durable number of a stream: what a node need not send again. 0 when nothing is known of it.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the file had to be read and could not.
    pub fn last(&self, stream: &StreamId) -> Result<u64, LogError> {
        let cached = {
            let known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
            let number = known.workloads.peek(stream.workload.as_str());
            number.and_then(|number| known.streams.peek(&StreamKey::new(number, stream.attempt, stream.rank)))
        };
        if let Some(state) = cached {
            return Ok(state.last);
        }
        self.shared.engine.read(|snapshot| {
            let Some(number) = snapshot.workloads.get(stream.workload.as_str())? else {
                return Ok(0);
            };
            let key = StreamKey::new(number.value(), stream.attempt, stream.rank);
            match snapshot.streams.get(&key.0)? {
                Some(row) => Ok(StreamState::decode(row.value())?.last),
                None => Ok(0),
            }
        })
    }

    /// The workload's streams, by attempt and rank; empty when nothing is known of it.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the file could not be read.
    pub fn streams(&self, workload: &str) -> Result<Vec<StreamInfo>, LogError> {
        self.shared.engine.read(|snapshot| {
            let streams = read::streams(snapshot, workload)?;
            let info = streams.into_iter().map(|(key, state)| StreamInfo {
                id: StreamId {
                    workload: workload.to_owned(),
                    attempt: key.attempt(),
                    rank: key.rank(),
                },
                first: state.removed_to + 1,
                last: state.last,
                lines: state.lines,
                bytes: state.bytes,
                finished: state.finished,
            });
            Ok(info.collect())
        })
    }

    /// Reads one page of a workload's logs; its cursor leads on.
    ///
    /// Entries come by attempt, then time, then rank, then number. What arrives after a page was read comes
    /// in a later page, also where its time is earlier. Blocks the thread while it reads.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the file could not be read, [`LogError::Corrupt`] when it is damaged.
    pub fn read(&self, workload: &str, query: &Query) -> Result<Page, LogError> {
        self.shared
            .engine
            .read(|snapshot| read::page(snapshot, workload, query))
    }

    /// Follows a workload's logs, starting where the query says (which may be before it has any).
    #[must_use]
    pub fn follow(&self, workload: &str, query: Query) -> Follow {
        Follow::new(Arc::clone(&self.shared), workload, query)
    }

    /// What the store holds; from memory.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let totals = {
            let known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.totals
        };
        Usage {
            file_bytes: self.shared.engine.file_bytes(),
            stored_bytes: totals.bytes,
            streams: totals.streams,
            lines: totals.lines,
        }
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        // The writer ends when it has done what is queued and nobody can queue more: the keeper holds only
        // a weak end.
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.commands, closed));
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log store panicked");
            }
        }
        self.shared.engine.close();
        self.shared.hub.close();
    }
}

fn check_end(end: Option<u64>) -> Result<(), LogError> {
    match end {
        Some(u64::MAX) => Err(LogError::InvalidLine {
            number: u64::MAX,
            bytes: 0,
        }),
        _ => Ok(()),
    }
}

fn check_workload(name: &str) -> Result<(), LogError> {
    match name.len() {
        1..=255 => Ok(()),
        bytes => Err(LogError::InvalidWorkload { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::logs::{Entry, Line, Source};

    /// A disk that can be full, and survives the database on it.
    #[derive(Debug)]
    struct Disk {
        bytes: InMemoryBackend,
        room: AtomicU64,
    }

    #[derive(Debug, Clone)]
    struct Mounted(Arc<Disk>);

    impl Mounted {
        fn check(&self, end: u64) -> io::Result<()> {
            if end > self.0.room.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    impl StorageBackend for Mounted {
        fn len(&self) -> io::Result<u64> {
            self.0.bytes.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.bytes.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            if len > self.0.bytes.len()? {
                self.check(len)?;
            }
            self.0.bytes.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.bytes.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check(offset + data.len() as u64)?;
            self.0.bytes.write(offset, data)
        }
    }

    fn store_on(disk: &Arc<Disk>) -> LogStore {
        let disk = Arc::clone(disk);
        let opener: crate::logs::engine::Opener =
            Box::new(move |builder| Ok(builder.create_with_backend(Mounted(Arc::clone(&disk)))?));
        let engine = Engine::with_opener(opener, 1 << 20, None).unwrap();
        LogStore::start(engine, &Options::default()).unwrap()
    }

    fn batch(from: u64, count: u64) -> Vec<(StreamId, Vec<Line>)> {
        let id = StreamId {
            workload: "w".into(),
            attempt: 1,
            rank: 0,
        };
        let lines = (from..from + count).map(|number| Line {
            number,
            at_ns: number as i64,
            source: Source::Stdout,
            // Hard to compress.
            text: (0..200u64)
                .map(|n| ((number * 7919 + n * n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
                .collect::<Vec<u8>>()
                .into(),
            partial: false,
        });
        vec![(id, lines.collect())]
    }

    #[tokio::test]
    async fn a_full_disk_loses_nothing_and_passes() {
        let disk = Arc::new(Disk {
            bytes: InMemoryBackend::new(),
            room: AtomicU64::new(u64::MAX),
        });
        let store = store_on(&disk);
        let mut last = store.append(batch(1, 100)).await.unwrap()[0].1;
        assert_eq!(last, 100);
        for round in 0..3 {
            disk.room.store(disk.bytes.len().unwrap(), Ordering::SeqCst);
            // Fills the room that the file has, then fails.
            let error = loop {
                match store.append(batch(last + 1, 100)).await {
                    Ok(acked) => last = acked[0].1,
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, LogError::StorageFull { .. }), "{error}");
            // Once more, as soon as compaction in the background frees no more room.
            let again = loop {
                match store.append(batch(last + 1, 5000)).await {
                    Ok(acked) => last = acked[0].1,
                    Err(error) => break error,
                }
            };
            assert!(matches!(again, LogError::StorageFull { .. }), "{again}");
            // What was acknowledged can be read all the while.
            let page = store
                .read(
                    "w",
                    &Query {
                        tail: Some(1),
                        ..Query::default()
                    },
                )
                .unwrap();
            assert!(matches!(&page.entries[..], [Entry::Line { line, .. }] if line.number >= last));
            // Room again: the same batch is taken.
            disk.room.store(u64::MAX, Ordering::SeqCst);
            let acked = store.append(batch(last + 1, 5000)).await.unwrap();
            assert_eq!(acked[0].1, last + 5000, "round {round}");
            last = acked[0].1;
        }
        drop(store);
        let store = store_on(&disk);
        let mut query = Query::default();
        let mut next = 1;
        loop {
            let page = store.read("w", &query).unwrap();
            for entry in &page.entries {
                assert!(matches!(entry, Entry::Line { line, .. } if line.number == next));
                next += 1;
            }
            if page.complete {
                break;
            }
            query.cursor = Some(page.cursor);
        }
        assert_eq!(next, last + 1);
        assert_eq!(store.usage().lines, last);
    }

    #[tokio::test]
    async fn small_blocks_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path(), Options::default()).unwrap();
        for n in 1..=1000 {
            store.append(batch(n, 1)).await.unwrap();
        }
        let blocks = || {
            let count =
                |snapshot: &crate::logs::engine::Snapshot| Ok(redb::ReadableTableMetadata::len(&snapshot.blocks)?);
            store.shared.engine.read(count).unwrap()
        };
        while blocks() > 150 {
            tokio::task::yield_now().await;
        }
        let id = batch(1, 1).remove(0).0;
        store.finish(&id, 1000).await.unwrap();
        while blocks() > 10 {
            tokio::task::yield_now().await;
        }
        let page = store.read("w", &Query::default()).unwrap();
        assert_eq!(page.entries.len(), 1000);
        assert!(page.finished);
    }
}
