//! Following a workload's logs as they come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::store::Shared;
use super::types::{Page, Query};
use super::{Cursor, LogError, read};

/// What a follower is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// Something may have come.
    Wake,
    /// The logs were removed.
    Removed,
    /// The store is closed.
    Closed,
}

/// Who follows what.
#[derive(Debug, Default)]
pub(super) struct Hub {
    followed: Mutex<HashMap<String, watch::Sender<News>>>,
}

impl Hub {
    fn join(&self, workload: &str) -> watch::Receiver<News> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        match followed.get(workload) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = watch::channel(News::Wake);
                followed.insert(workload.to_owned(), sender);
                receiver
            }
        }
    }

    /// Called by a follower that still holds its receiver.
    fn leave(&self, workload: &str, news: &watch::Receiver<News>) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        // After a removal the name may belong to others already.
        let last_of_ours =
            |sender: &watch::Sender<News>| sender.receiver_count() <= 1 && sender.subscribe().same_channel(news);
        if followed.get(workload).is_some_and(last_of_ours) {
            followed.remove(workload);
        }
    }

    /// Followers of these workloads look again.
    pub(super) fn wake<'a>(&self, workloads: impl Iterator<Item = &'a String>) {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.is_empty() {
            return;
        }
        for workload in workloads {
            if let Some(sender) = followed.get(workload) {
                sender.send_replace(News::Wake);
            }
        }
    }

    pub(super) fn remove(&self, workload: &str) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = followed.remove(workload) {
            sender.send_replace(News::Removed);
        }
    }

    pub(super) fn close(&self) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, sender) in followed.drain() {
            sender.send_replace(News::Closed);
        }
    }
}

/// A reader that waits for more.
///
/// Holds one page at most. It reads from the store, not from a queue: however slow it is, it misses nothing.
pub struct Follow {
    shared: Arc<Shared>,
    workload: String,
    query: Query,
    news: watch::Receiver<News>,
    told_finished: bool,
}

impl Follow {
    pub(super) fn new(shared: Arc<Shared>, workload: &str, query: Query) -> Self {
        let news = shared.hub.join(workload);
        Self {
            shared,
            workload: workload.to_owned(),
            query,
            news,
            told_finished: false,
        }
    }

    /// The next page, as soon as it has an entry, or once when all known streams have ended (`finished`,
    /// perhaps without entries). After that it waits for a new attempt, so the caller decides when to leave.
    ///
    /// Cancellation safe: a page that was not returned comes again. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`LogError::WorkloadRemoved`] and [`LogError::Closed`] are final; after others the call may be
    /// repeated.
    pub async fn next(&mut self) -> Result<Page, LogError> {
        loop {
            // Seen before reading, so that what comes while reading wakes again.
            let news = *self.news.borrow_and_update();
            match news {
                News::Wake => {}
                News::Removed => {
                    return Err(LogError::WorkloadRemoved {
                        workload: self.workload.clone(),
                    });
                }
                News::Closed => return Err(LogError::Closed),
            }
            let shared = Arc::clone(&self.shared);
            let workload = self.workload.clone();
            let query = self.query.clone();
            let reading = tokio::task::spawn_blocking(move || {
                shared.engine.read(|snapshot| read::page(snapshot, &workload, &query))
            });
            let page = reading.await.map_err(|_| LogError::Closed)??;
            let filtered = self.query.level.is_some() || self.query.search.is_some();
            // From here on the cursor alone says where to go on. Without a filter a tail stays one until there is
            // something to take it of.
            if !page.entries.is_empty() || filtered {
                self.query.cursor = Some(page.cursor.clone());
                self.query.tail = None;
            }
            if !page.entries.is_empty() || page.finished != self.told_finished {
                self.told_finished = page.finished;
                if !page.entries.is_empty() || page.finished {
                    self.query.cursor = Some(page.cursor.clone());
                    self.query.tail = None;
                    return Ok(page);
                }
            }
            if !page.complete {
                // A long search goes on.
                continue;
            }
            if self.news.changed().await.is_err() {
                return Err(LogError::Closed);
            }
        }
    }

    /// Where the next page starts: after the last page returned.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.query.cursor.clone().unwrap_or_default()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.shared.hub.leave(&self.workload, &self.news);
    }
}
