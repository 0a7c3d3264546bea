//! The controllers: loops that look at the view, take one step, and look again. They hold nothing that a restart
//! would lose.

use std::{path::PathBuf, sync::Arc, time::Duration};

use api::{ApiError, ErrorCode, Span, Timestamp, WorkloadId, op::Explanation, workload::Workload};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    decide::{
        nodes::Patience,
        plan::{self, Planner},
        sweep::{self, Retention},
    },
    draft::Draft,
    hub::{Committed, Hub, now},
    live::Nodes,
    metrics::{self, Metrics},
    view::Touched,
};

/// How often silence is looked at, and waits are ended.
const TICK: Duration = Duration::from_secs(1);
/// Time before a pass is tried again that the store couldn't take.
const RETRY: Duration = Duration::from_secs(1);
/// How often old records are removed.
const SWEEP_EVERY: Span = Span::secs(60);
/// Most records that one sweep removes, so that it never holds the store up.
const SWEEP_MAX: usize = 2_000;

/// A question to the planner.
pub enum Ask {
    /// Why does this workload wait?
    Explain(Arc<Workload>, oneshot::Sender<Explanation>),
    /// Where would these go?
    Preview(Vec<Workload>, oneshot::Sender<Vec<Explanation>>),
}

/// Where the planner is asked.
#[derive(Debug, Clone)]
pub struct PlannerHandle(mpsc::Sender<Ask>);

impl PlannerHandle {
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let busy = || ApiError::new(ErrorCode::TimedOut, "the scheduler didn't answer in time");
        let asked = async {
            self.0.send(make(reply)).await.map_err(|_| busy())?;
            answer.await.map_err(|_| busy())
        };
        tokio::time::timeout(Duration::from_secs(10), asked)
            .await
            .map_err(|_| busy())?
    }

    /// Why a workload waits.
    ///
    /// # Errors
    /// The scheduler is too busy, or shutting down.
    pub async fn explain(&self, workload: Arc<Workload>) -> Result<Explanation, ApiError> {
        self.ask(|reply| Ask::Explain(workload, reply)).await
    }

    /// Where workloads would go, each as if those before it were placed.
    ///
    /// # Errors
    /// The scheduler is too busy, or shutting down.
    pub async fn preview(&self, workloads: Vec<Workload>) -> Result<Vec<Explanation>, ApiError> {
        self.ask(|reply| Ask::Preview(workloads, reply)).await
    }
}

/// Starts the scheduling controller.
pub fn start_planner(
    hub: Arc<Hub>,
    mut touched: mpsc::UnboundedReceiver<Arc<Vec<Touched>>>,
    min_run: Span,
    stop: CancellationToken,
) -> PlannerHandle {
    let (send, mut questions) = mpsc::channel(256);
    tokio::spawn(async move {
        let mut planner = Planner::new(min_run);
        let mut failed = false;
        loop {
            let wait = match planner.next_wake() {
                _ if failed => RETRY,
                Some(at) => api::time::between(now(), at).duration(),
                None => Duration::from_secs(3600),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                news = touched.recv() => match news {
                    Some(news) => take_in(&mut planner, &news),
                    None => return,
                },
                Some(question) = questions.recv() => {
                    while let Ok(news) = touched.try_recv() {
                        take_in(&mut planner, &news);
                    }
                    answer(&planner, question);
                    continue;
                },
                () = tokio::time::sleep(wait) => {}
            }
            // News is sent before it counts as told: all of it up to here is among what is taken in now.
            let told = hub.told();
            while let Ok(news) = touched.try_recv() {
                take_in(&mut planner, &news);
            }
            while let Ok(question) = questions.try_recv() {
                answer(&planner, question);
            }
            failed = !planner.idle() && !carry_out(&hub, &mut planner).await;
            hub.set_planned(told);
        }
    });
    PlannerHandle(send)
}

fn take_in(planner: &mut Planner, news: &[Touched]) {
    let now = now();
    for touched in news {
        planner.apply(touched, now);
    }
}

fn answer(planner: &Planner, question: Ask) {
    // Whoever asked may have gone.
    match question {
        Ask::Explain(workload, reply) => {
            let _ = reply.send(planner.explain(&workload, now()));
        }
        Ask::Preview(workloads, reply) => {
            let _ = reply.send(planner.preview(&workloads, now()));
        }
    }
}

/// One pass, carried out: every placement is its own transaction, all of them share their commit. False: the store
/// couldn't take all of them.
async fn carry_out(hub: &Hub, planner: &mut Planner) -> bool {
    let plan = planner.pass(now());
    if plan.is_idle() {
        return true;
    }
    let drafts = plan::carry_out(&hub.view(), &plan, now());
    commit_all(hub, drafts, "a placement").await
}

/// Commits drafts together. One that is overtaken is dropped: what overtook it has woken its controller again. False:
/// the store couldn't take all of them.
async fn commit_all(hub: &Hub, drafts: Vec<Draft>, what: &str) -> bool {
    let mut commits: FuturesUnordered<_> = drafts.into_iter().map(|draft| hub.commit(draft)).collect();
    let mut all = true;
    while let Some(done) = commits.next().await {
        match done {
            Ok(Committed::Done) => {}
            Ok(Committed::Overtaken(failed)) => tracing::debug!(?failed, "{what} was overtaken"),
            Err(error) => {
                if all {
                    tracing::warn!(%error, cause = error.cause, "{what} couldn't be committed");
                }
                all = false;
            }
        }
    }
    all
}

/// Measures the fleet and the gateway itself, until told to stop.
pub async fn measure(
    hub: Arc<Hub>,
    live: Arc<Nodes>,
    logs: Arc<telemetry::logs::LogStore>,
    metrics: Arc<Metrics>,
    data: PathBuf,
    every: Span,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(every.duration());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (hub, live, logs) = (Arc::clone(&hub), Arc::clone(&live), Arc::clone(&logs));
        let (metrics, data) = (Arc::clone(&metrics), data.clone());
        let measured = tokio::task::spawn_blocking(move || {
            let usage = metrics.store.usage();
            let sizes = [
                ("gateway.state.bytes", hub.store().status().disk_bytes),
                ("gateway.logs.bytes", logs.usage().file_bytes),
                ("gateway.metrics.bytes", usage.disk_bytes),
                ("gateway.metrics.series", usage.series),
                ("gateway.metrics.dropped", usage.dropped.total()),
                ("gateway.metrics.lost", usage.dropped.lost()),
            ];
            let process = metrics::Process::read(&data);
            let at = now();
            // The view is let go before the store, which may wait for its disk.
            let fleet = metrics::fleet(&hub.view(), &live, &metrics.counted, at);
            metrics::record(&metrics.store, fleet, &process, &sizes, at)
        });
        if let Ok(Err(error)) = measured.await {
            tracing::warn!(%error, "the gateway's own measurements are lost");
        }
    }
}

/// Watches silence, ends waits, empties drained and lost nodes, and removes old records, until told to stop.
pub async fn watch_over(
    hub: Arc<Hub>,
    live: Arc<Nodes>,
    logs: Arc<telemetry::logs::LogStore>,
    patience: Patience,
    retention: Retention,
    stop: CancellationToken,
) {
    let mut swept = Timestamp::MIN;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let at = now();
        let drafts = sweep::due(&hub.view(), |node| live.silence(node), patience, at);
        commit_all(&hub, drafts, "a tick's step").await;
        if api::time::between(swept, at) >= SWEEP_EVERY {
            swept = at;
            sweep_old(&hub, &logs, retention, at).await;
        }
    }
}

async fn sweep_old(hub: &Hub, logs: &telemetry::logs::LogStore, retention: Retention, at: Timestamp) {
    let mut old = sweep::forgotten(&hub.view(), retention, at);
    old.truncate(SWEEP_MAX);
    let ids: Vec<String> = old.iter().map(|(id, _)| id.clone()).collect();
    commit_all(hub, old.into_iter().map(|(_, draft)| draft).collect(), "a removal").await;
    for id in ids {
        let gone = hub.view().workload(&WorkloadId::new(&id)).is_none();
        if gone && let Err(error) = logs.remove(&id).await {
            tracing::warn!(%error, id, "the logs of a removed workload couldn't be removed");
        }
    }
    let horizon = api::time::before(at, retention.age).as_microsecond().max(0);
    let old = store::Range::between(crate::keys::EVENTS, format!("{}{horizon:016}", crate::keys::EVENTS));
    if let Err(error) = hub.store().txn(store::Txn::new().delete_range(old)).await {
        tracing::warn!(%error, "old events couldn't be removed");
    }
}
