//! Where decisions meet the store: drafts are committed here, and the store's changes come back into the view.
//!
//! ```text
//! handler or controller --draft--> store --changes--> view --touched--> planner, node sessions
//! ```
//!
//! Whoever commits waits until the view has caught up, and so reads its own writes. Readers take the view's lock for
//! as long as it takes to clone a few `Arc`s, and never wait for the scheduler.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use api::{ApiError, ErrorCode, NodeName, Timestamp};
use store::{Change, FailedCondition, Range, Record, Revision, Store, StoreError, TxnOutcome};
use tokio::sync::{mpsc, watch};

use crate::{
    draft::Draft,
    view::{News, Touched, View},
};

/// Tries of a decision that keeps being overtaken, before its caller is told.
const TRIES: usize = 32;

/// The view follows a commit within this; else it had the change already.
const SEE_WITHIN: std::time::Duration = std::time::Duration::from_millis(50);

/// What became of a draft.
#[derive(Debug)]
pub enum Committed {
    /// It is on disk, and in the view.
    Done,
    /// Something that it stood on has changed: look again.
    Overtaken(Vec<FailedCondition>),
}

/// The store and the view of it.
pub struct Hub {
    store: Store,
    view: RwLock<View>,
    applied: watch::Sender<Revision>,
    /// A node may have two sessions for a moment: each has its own ear, so that none takes the other's wake-up.
    nodes: Mutex<HashMap<NodeName, watch::Sender<()>>>,
    planner: mpsc::UnboundedSender<Arc<Vec<Touched>>>,
    /// The revision that the last finished scheduling pass stood on.
    planned: AtomicU64,
    /// Wakes the followers of single workloads.
    changes: tokio::sync::broadcast::Sender<Arc<Vec<Touched>>>,
    /// Who hears of events. `None`: nobody, or the store is closed.
    ear: Mutex<Option<Ear>>,
}

/// What came by [`Hub::listen`].
#[derive(Debug)]
pub enum Heard {
    /// An event's record.
    Event(Record),
    /// Some may have been missed between what came before and what comes now.
    Gap,
}

struct Ear {
    wants: Box<dyn Fn(&[u8]) -> bool + Send + Sync>,
    heard: mpsc::UnboundedSender<Heard>,
}

/// An error of the store, for a caller.
#[must_use]
pub fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::StorageFull { .. } => ApiError::new(
            ErrorCode::StorageFull,
            "the gateway's disk is full: nothing was changed",
        )
        .cause(error.to_string())
        .hint("make room on the disk that holds the gateway's data folder; service resumes by itself"),
        other => ApiError::internal("the gateway's store failed").cause(other.to_string()),
    }
}

impl Hub {
    /// Reads the store into a view, and begins to follow it. The receiver gets everything that changes from here on,
    /// after a first message with everything there is.
    ///
    /// # Errors
    /// The store can't be read, or holds records that this version doesn't know.
    pub async fn start(
        store: Store,
    ) -> Result<
        (
            Arc<Self>,
            mpsc::UnboundedReceiver<Arc<Vec<Touched>>>,
            tokio::task::JoinHandle<()>,
        ),
        ApiError,
    > {
        let (view, everything) = load(&store).await?;
        let from = view.revision();
        let watch = store.watch(Range::all(), from).await.map_err(|e| store_error(&e))?;
        let (planner, touched) = mpsc::unbounded_channel();
        let (applied, _) = watch::channel(from);
        let (changes, _) = tokio::sync::broadcast::channel(1024);
        let _ = planner.send(Arc::new(everything));
        let hub = Arc::new(Self {
            store,
            view: RwLock::new(view),
            applied,
            nodes: Mutex::default(),
            planner,
            planned: AtomicU64::new(0),
            changes,
            ear: Mutex::default(),
        });
        let task = tokio::spawn(Arc::clone(&hub).follow(watch));
        Ok((hub, touched, task))
    }

    async fn follow(self: Arc<Self>, mut watch: store::Watch) {
        loop {
            match watch.next().await {
                Ok(batch) => {
                    let touched = self.apply(&batch);
                    self.let_hear(&batch.changes);
                    self.tell(touched, batch.revision);
                }
                Err(StoreError::Closed) => break,
                Err(error) => {
                    tracing::warn!(%error, "the view fell behind the store, and is read anew");
                    let Some(anew) = self.read_anew().await else { break };
                    if let Some(ear) = &*self.ear() {
                        let _ = ear.heard.send(Heard::Gap);
                    }
                    watch = anew;
                }
            }
        }
        *self.ear() = None;
    }

    fn ear(&self) -> MutexGuard<'_, Option<Ear>> {
        self.ear.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn let_hear(&self, changes: &[Change]) {
        let ear = self.ear();
        let Some(Ear { wants, heard }) = &*ear else { return };
        for change in changes {
            if let Change::Put(record) = change
                && record.key.starts_with(crate::keys::EVENTS)
                && wants(&record.value)
            {
                let _ = heard.send(Heard::Event(record.clone()));
            }
        }
    }

    /// Hears of events from now on, those whose record is wanted, in order; in place of who listened before. Ends when the
    /// store is closed.
    pub fn listen(&self, wants: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> mpsc::UnboundedReceiver<Heard> {
        let (heard, events) = mpsc::unbounded_channel();
        let wants = Box::new(wants);
        *self.ear() = Some(Ear { wants, heard });
        events
    }

    /// Tells everybody what has changed up to a revision.
    fn tell(&self, touched: Vec<Touched>, revision: Revision) {
        for one in &touched {
            self.wake(one);
        }
        let touched = Arc::new(touched);
        // Nobody may be listening.
        let _ = self.changes.send(Arc::clone(&touched));
        let _ = self.planner.send(touched);
        self.applied.send_replace(revision);
    }

    /// Reads the whole store into the view again, tells what is new in it and what is gone, and watches from there.
    /// `None`: the store is closed.
    async fn read_anew(&self) -> Option<store::Watch> {
        loop {
            let read = async {
                let (view, mut touched) = load(&self.store).await?;
                let revision = view.revision();
                let watch = self
                    .store
                    .watch(Range::all(), revision)
                    .await
                    .map_err(|e| store_error(&e))?;
                let old = {
                    let mut current = self.view.write().unwrap_or_else(PoisonError::into_inner);
                    std::mem::replace(&mut *current, view)
                };
                touched.extend(old.missing_from(&self.view()));
                self.tell(touched, revision);
                Ok::<_, ApiError>(watch)
            };
            match read.await {
                Ok(watch) => return Some(watch),
                Err(_) if matches!(self.store.status().health, store::Health::Closed) => return None,
                Err(error) => {
                    tracing::error!(%error, cause = error.cause, "the store can't be read; trying again");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn apply(&self, batch: &store::WatchBatch) -> Vec<Touched> {
        // A batch of thousands takes a while to read; meanwhile others look at the view.
        let mut news = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            match News::read(change) {
                Ok(read) => news.push(read),
                Err(error) => tracing::error!(%error, "a record was skipped"),
            }
        }
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let touched = news.into_iter().map(|news| view.take(news));
        let all = touched.filter(|touched| !matches!(touched, Touched::Other)).collect();
        view.reached(batch.revision);
        all
    }

    fn wake(&self, touched: &Touched) {
        let Touched::Workload(_, _, nodes) = touched else {
            return;
        };
        let all = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for node in nodes {
            if let Some(wake) = all.get(node) {
                wake.send_replace(());
            }
        }
    }

    /// The fleet now. Held for as short as possible: clone what is needed.
    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The revision up to which everything has been told to everybody.
    #[must_use]
    pub fn told(&self) -> Revision {
        *self.applied.borrow()
    }

    /// A scheduling pass that stood on at least this revision is carried out.
    pub fn set_planned(&self, revision: Revision) {
        self.planned.store(revision.0, Ordering::Relaxed);
    }

    /// What waits and was last written at or before this revision has been looked at, and found no place.
    #[must_use]
    pub fn planned(&self) -> Revision {
        Revision(self.planned.load(Ordering::Relaxed))
    }

    /// Woken whenever what a node should run may have changed.
    #[must_use]
    pub fn node_wakes(&self, node: &NodeName) -> watch::Receiver<()> {
        let mut all = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(node.clone())
            .or_insert_with(|| watch::Sender::new(()))
            .subscribe()
    }

    /// Everything that changes from now on. A receiver that falls behind is told how many batches it missed.
    #[must_use]
    pub fn changes(&self) -> tokio::sync::broadcast::Receiver<Arc<Vec<Touched>>> {
        self.changes.subscribe()
    }

    /// Commits a draft, and waits until the view has it.
    ///
    /// # Errors
    /// The store can't take it (`STORAGE_FULL`, `INTERNAL`).
    pub async fn commit(&self, draft: Draft) -> Result<Committed, ApiError> {
        match self.store.txn(draft.finish()).await.map_err(|e| store_error(&e))? {
            TxnOutcome::Committed(revision) => {
                self.until_seen(revision).await?;
                Ok(Committed::Done)
            }
            TxnOutcome::Conflict { failed } => Ok(Committed::Overtaken(failed)),
        }
    }

    /// Waits until the view has everything up to a revision: for whoever has read the store itself.
    ///
    /// # Errors
    /// The gateway is shutting down.
    pub async fn until_seen(&self, revision: Revision) -> Result<(), ApiError> {
        let mut applied = self.applied.subscribe();
        match applied.wait_for(|done| *done >= revision).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ApiError::internal("the gateway is shutting down")),
        }
    }

    /// Decides on the present view and commits, again and again while it is overtaken. `decide` gives `None` where
    /// there is nothing to do. The answer says whether something was committed.
    ///
    /// # Errors
    /// Those of `decide` and of the store; `CONFLICT` when it was overtaken too often.
    pub async fn decide<D>(&self, mut decide: D) -> Result<bool, ApiError>
    where
        D: FnMut(&View) -> Result<Option<Draft>, ApiError>,
    {
        let mut applied = self.applied.subscribe();
        for _ in 0..TRIES {
            applied.mark_unchanged();
            let Some(draft) = decide(&self.view())? else {
                return Ok(false);
            };
            if let Committed::Done = self.commit(draft).await? {
                return Ok(true);
            }
            // The change that overtook us is committed; let the view see it, if it hasn't by now.
            let _ = tokio::time::timeout(SEE_WITHIN, applied.changed()).await;
        }
        Err(ApiError::conflict("it keeps changing: try again"))
    }
}

/// Reads the whole store, and says what is there.
async fn load(store: &Store) -> Result<(View, Vec<Touched>), ApiError> {
    let mut view = View::default();
    let mut everything = Vec::new();
    let mut rest = Range::all();
    let mut from = None;
    loop {
        let page = store
            .range(rest.clone(), 4096, store::Order::Ascending)
            .await
            .map_err(|e| store_error(&e))?;
        // Later pages may be newer: what they hold comes again by the watch, and changes nothing.
        let first = *from.get_or_insert(page.revision);
        for record in &page.records {
            use crate::keys::{ANSWERS, AUDIT, EVENTS, SECRET_VALUES};
            if [EVENTS, ANSWERS, AUDIT, SECRET_VALUES]
                .iter()
                .any(|prefix| record.key.starts_with(prefix))
            {
                continue;
            }
            let touched = view.apply(&store::Change::Put(record.clone())).map_err(|e| {
                let cause = std::error::Error::source(&e).map(ToString::to_string);
                ApiError {
                    cause,
                    ..ApiError::internal(e.to_string())
                }
            })?;
            everything.push(touched);
        }
        view.reached(first);
        match page.records.last() {
            Some(last) if page.more => rest = rest.after(&last.key),
            _ => return Ok((view, everything)),
        }
    }
}

/// The wall clock.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}
