//! What waits for the writer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::db::{Command, Reply};
use crate::StoreError;

/// A command, and where its answer goes.
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Result<Reply, StoreError>>,
    bytes: usize,
    /// Its share of the queue's room.
    _room: OwnedSemaphorePermit,
}

/// First in, first out, bounded in bytes.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    room: Arc<Semaphore>,
    room_units: usize,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closing: bool,
}

/// What the writer should do next.
pub(crate) enum Next {
    /// Run these (none, if only time has passed).
    Run(Vec<Request>),
    /// The queue is closed and empty.
    End,
}

/// Bytes that one unit of room stands for; also what a request counts besides its own bytes.
const UNIT: usize = 512;

impl Queue {
    pub(crate) fn new(bytes: usize) -> Self {
        let room_units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Queue {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(room_units)),
            room_units,
        }
    }

    /// Queues a command, once there is room, and waits for its answer.
    pub(crate) async fn ask(&self, command: Command) -> Result<Reply, StoreError> {
        let bytes = match &command {
            Command::Txn(txn) => txn.bytes(),
            Command::Grant { .. } | Command::Revoke { .. } => 0,
        };
        // One larger than the whole room takes all of it.
        let units = (1 + bytes / UNIT).min(self.room_units) as u32;
        let room = self.room.clone().acquire_many_owned(units).await;
        let room = room.map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.lock();
            if waiting.closing {
                return Err(StoreError::Closed);
            }
            waiting.requests.push_back(Request {
                command,
                answer,
                bytes,
                _room: room,
            });
            if waiting.requests.len() == 1 {
                self.wake.notify_one();
            }
        }
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Waits for requests, at most `patience` (`None`: for ever), and takes as many as fit a batch.
    pub(crate) fn take(&self, max_requests: usize, max_bytes: usize, patience: Option<Duration>) -> Next {
        let mut waiting = self.lock();
        if waiting.requests.is_empty() && !waiting.closing {
            waiting = match patience {
                Some(patience) => {
                    let woken = self.wake.wait_timeout(waiting, patience);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
        if waiting.requests.is_empty() && waiting.closing {
            return Next::End;
        }
        let mut bytes = 0;
        let fitting = waiting
            .requests
            .iter()
            .take(max_requests.max(1))
            .take_while(|request| {
                bytes += request.bytes;
                bytes <= max_bytes
            })
            .count();
        let count = fitting.max(1).min(waiting.requests.len());
        Next::Run(waiting.requests.drain(..count).collect())
    }

    /// Takes nothing new; what waits is still served.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.room.close();
        self.wake.notify_all();
    }

    /// Closes and throws away what waits: its callers get [`StoreError::Closed`].
    pub(crate) fn abandon(&self) {
        self.close();
        self.lock().requests.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
