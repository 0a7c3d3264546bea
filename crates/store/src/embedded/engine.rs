//! The embedded engine: the core on a thread of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Options;
use super::db::{Command, Db, Reply};
use super::disk::Disk;
use super::queue::{Next, Queue};
use super::reader::Reader;
use crate::{
    BoxFuture, Engine, Key, LeaseId, Order, Page, Range, Record, Revision, Status, StoreError, Txn, TxnOutcome, Watch,
};

/// How long the writer waits before it tries a failed disk again.
const RETRY: Duration = Duration::from_millis(250);
/// Rows up to which a listing is read on the caller's thread; handing it to another costs more.
const INLINE_ROWS: usize = 256;

/// The embedded store as an [`Engine`]. See [`Store::open`](crate::Store::open).
pub struct Embedded {
    queue: Arc<Queue>,
    reader: Reader,
    start: Instant,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Becomes true when the writer has let go of the file.
    done: watch::Receiver<bool>,
}

impl Embedded {
    /// Opens the store on `disk` and starts its writer thread.
    ///
    /// # Errors
    /// As [`Db::open`]; or the thread cannot be started.
    pub fn open(disk: impl Disk, options: Options) -> Result<Self, StoreError> {
        let start = Instant::now();
        let queue = Arc::new(Queue::new(options.queue_bytes));
        let batch = (options.batch_txns, options.batch_bytes);
        let db = Db::open(disk, options, start.elapsed())?;
        let reader = db.reader();
        let (done_sender, done) = watch::channel(false);
        let writer = thread::Builder::new()
            .name("store-writer".into())
            .spawn({
                let queue = queue.clone();
                move || {
                    let _ending = Ending {
                        queue: &queue,
                        done: done_sender,
                    };
                    write(db, &queue, batch, start);
                }
            })
            .map_err(StoreError::from_io)?;
        Ok(Embedded {
            queue,
            reader,
            start,
            writer: Mutex::new(Some(writer)),
            done,
        })
    }

    /// Reads without a future.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }
}

/// Runs even if the writer panics: nobody must wait for an answer that never comes.
struct Ending<'a> {
    queue: &'a Queue,
    done: watch::Sender<bool>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.queue.abandon();
        self.done.send_replace(true);
    }
}

/// The writer: takes what has queued up, commits it, answers, and again.
fn write(mut db: Db, queue: &Queue, batch: (usize, usize), start: Instant) {
    loop {
        let failing = db.is_failing();
        let patience = if failing {
            Some(RETRY)
        } else {
            db.next_deadline()
                .map(|deadline| deadline.saturating_sub(start.elapsed()))
        };
        let Next::Run(requests) = queue.take(batch.0, batch.1, patience) else {
            return;
        };
        let now = start.elapsed();
        if requests.is_empty() && failing && db.recover(now).is_err() {
            continue;
        }
        let (commands, answers): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .map(|request| (request.command, request.answer))
            .unzip();
        for (answer, reply) in answers.into_iter().zip(db.run(&commands, now)) {
            // A caller may have gone; its command counts all the same.
            let _ = answer.send(reply);
        }
    }
}

impl Engine for Embedded {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, StoreError>> {
        Box::pin(async move {
            match self.queue.ask(Command::Txn(txn)).await? {
                Reply::Txn(outcome) => Ok(outcome),
                Reply::Granted(_) | Reply::Revoked(_) => {
                    unreachable!("a transaction is answered by an outcome")
                }
            }
        })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(std::future::ready(self.reader.get(&key)))
    }

    fn range(&self, range: Range, limit: usize, order: Order) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            // Most listings are short: look inline first, and start over elsewhere if this one is
            // not. Outside a runtime there is nobody to hold up.
            let page = self.reader.range(&range, limit.min(INLINE_ROWS), order)?;
            if !page.more || limit <= INLINE_ROWS {
                return Ok(page);
            }
            let reader = self.reader.clone();
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => runtime
                    .spawn_blocking(move || reader.range(&range, limit, order))
                    .await
                    .map_err(|_| StoreError::Closed)?,
                Err(_) => reader.range(&range, limit, order),
            }
        })
    }

    fn watch(&self, range: Range, from: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        let watch = self.reader.shared.history.watch(range, from);
        Box::pin(std::future::ready(watch.map(|watch| Watch::new(Box::new(watch)))))
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        Box::pin(async move {
            match self.queue.ask(Command::Grant { ttl }).await? {
                Reply::Granted(lease) => Ok(lease),
                Reply::Txn(_) | Reply::Revoked(_) => {
                    unreachable!("a grant is answered by a lease")
                }
            }
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        let kept = {
            let leases = &self.reader.shared.leases;
            let mut leases = leases.lock().unwrap_or_else(PoisonError::into_inner);
            leases.keep_alive(lease, self.start.elapsed())
        };
        let kept = if *self.done.borrow() {
            Err(StoreError::Closed)
        } else if kept {
            Ok(())
        } else {
            Err(StoreError::NoSuchLease { lease })
        };
        Box::pin(std::future::ready(kept))
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            match self.queue.ask(Command::Revoke { lease }).await? {
                Reply::Revoked(revision) => Ok(revision),
                Reply::Txn(_) | Reply::Granted(_) => {
                    unreachable!("a revocation is answered by a revision")
                }
            }
        })
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        let compacted = if *self.done.borrow() {
            Err(StoreError::Closed)
        } else {
            self.reader.shared.history.compact(upto);
            Ok(())
        };
        Box::pin(std::future::ready(compacted))
    }

    fn status(&self) -> Status {
        self.reader.status()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.queue.close();
        let mut done = self.done.clone();
        Box::pin(async move {
            // An error means that the writer is gone, which is what we wait for.
            let _ = done.wait_for(|done| *done).await;
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // Waits for one commit at most, so that the file is free when this returns.
            let _ = writer.join();
        }
    }
}
