//! The controller of rollouts: one task a service, which looks at what is, takes one step, and looks again. It holds nothing
//! that a restart would lose.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use api::{
    ApiError, Span, Timestamp,
    deploy::{Deployment, Phase, Service, Verdict},
    time,
};
use rollout::{analysis, autoscale, drive};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Doors, batch, carry_out, evidence, evidence::Sources, find, scale, seen};
use crate::{
    auth,
    draft::Draft,
    hub::{Committed, now},
    view::{ServiceName, Touched, Versioned, View, name_of},
};

/// Steps of one service in a row, after which others get a turn.
const STEPS: usize = 32;
/// Rest after a step that couldn't be written.
const RETRY: Duration = Duration::from_secs(1);
/// How often a replica's requests under way are looked at while it is waited for.
const DRAINING: Duration = Duration::from_millis(100);
/// How often conditions are judged at first: what is bad shows soon.
const JUDGE_SOON: Span = Span::secs(2);
/// So long after its step began a deployment is judged as often; then every [`drive::JUDGE_EVERY`].
const SOON: Span = Span::secs(60);
/// The longest rest: nothing is due, and nothing changed.
const IDLE: Duration = Duration::from_secs(3600);

/// Carries deployments out until told to stop.
pub async fn run(sources: Sources, doors: Arc<Doors>, stop: CancellationToken) {
    let mut changes = sources.hub.changes();
    let tender = Arc::new(Tender { sources, doors });
    let mut tasks: HashMap<ServiceName, (Arc<Notify>, tokio::task::JoinHandle<()>)> = HashMap::new();
    let mut touched = tender.everything();
    loop {
        tasks.retain(|_, (_, task)| !task.is_finished());
        for name in touched.drain() {
            let (wake, _) = tasks.entry(name.clone()).or_insert_with(|| {
                let wake = Arc::new(Notify::new());
                let tending = tend(Arc::clone(&tender), name, Arc::clone(&wake), stop.clone());
                (wake, tokio::spawn(tending))
            });
            wake.notify_one();
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = changes.recv() => match changed {
                Ok(changed) => {
                    let view = tender.sources.hub.view();
                    touched.extend(changed.iter().flat_map(|one| about(&view, one)));
                }
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => touched = tender.everything(),
                Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
            },
        }
    }
    for (_, (_, task)) in tasks {
        let _ = task.await;
    }
}

/// The services that a change is about.
fn about(view: &View, touched: &Touched) -> Vec<ServiceName> {
    match touched {
        Touched::Service(name, _) => vec![name.clone()],
        Touched::Deployment(id, name) => {
            // Whoever waits for it to be complete may begin.
            let waiting = view.open_deployments().filter(|d| {
                let schedule = d.plan.schedule.as_ref();
                d.phase == Phase::Pending && schedule.and_then(|s| s.after.as_ref()) == Some(id)
            });
            let waiting = waiting.map(|d| name_of(d));
            std::iter::once(name.clone()).chain(waiting).collect()
        }
        Touched::Workload(id, workload, _) => {
            let job = workload.as_ref().map(|w| (w.namespace.clone(), w.name.clone()));
            let job = job.filter(|name| view.deployments_of(name).any(|d| d.job.as_ref() == Some(id)));
            view.replica_of(id).cloned().into_iter().chain(job).collect()
        }
        // Where its replicas are reached.
        Touched::Node(node, _) => {
            let replicas = view.on_node(node).filter_map(|w| view.replica_of(&w.id));
            replicas.cloned().collect()
        }
        Touched::Other => Vec::new(),
    }
}

/// Tends a service until it is gone and nothing is to come.
async fn tend(tender: Arc<Tender>, name: ServiceName, wake: Arc<Notify>, stop: CancellationToken) {
    let mut scaled: Option<Instant> = None;
    loop {
        let rest = match tender.round(&name).await {
            Ok(Rest::For(rest)) if tender.scales(&name) => {
                let every = autoscale::EVERY.duration();
                if scaled.is_none_or(|at| at.elapsed() >= every) {
                    scaled = Some(Instant::now());
                    if let Err(error) = scale::scale(&tender.sources, &tender.doors, &name).await {
                        tracing::warn!(service = %name.1, namespace = %name.0, %error, "a service can't be scaled");
                    }
                }
                rest.min(scaled.map_or(every, |at| every.saturating_sub(at.elapsed())))
            }
            Ok(Rest::For(rest)) => rest,
            Ok(Rest::Over) => return,
            Err(error) => {
                tracing::warn!(service = %name.1, namespace = %name.0, %error, cause = error.cause, "a step can't be taken");
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.notified() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

enum Rest {
    /// Something is due then, at the latest.
    For(Duration),
    /// There is nothing left to tend.
    Over,
}

/// A service and its deployments, as they are at one moment.
struct Now {
    service: Option<Versioned<Service>>,
    /// Those that haven't ended, oldest first.
    deployments: Vec<Versioned<Deployment>>,
}

struct Tender {
    sources: Sources,
    doors: Arc<Doors>,
}

impl Tender {
    fn everything(&self) -> HashSet<ServiceName> {
        let view = self.sources.hub.view();
        let services = view.services().map(|s| (s.namespace.clone(), s.value.name.clone()));
        let deployments = view.open_deployments().map(|d| name_of(d));
        services.chain(deployments).collect()
    }

    /// Whether the number of a service's replicas follows its load.
    fn scales(&self, name: &ServiceName) -> bool {
        let view = self.sources.hub.view();
        view.service(name).is_some_and(|s| s.autoscale.is_some())
    }

    fn look(&self, name: &ServiceName) -> Now {
        let view = self.sources.hub.view();
        // What the proxy does is told from here alone, before replicas' requests are counted.
        self.doors.tell(&view, name);
        let mut deployments: Vec<_> = view
            .deployments_of(name)
            .filter(|d| !d.phase.ended())
            .cloned()
            .collect();
        deployments.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Now {
            service: view.service(name).cloned(),
            deployments,
        }
    }

    /// Steps until there is nothing to do.
    async fn round(&self, name: &ServiceName) -> Result<Rest, ApiError> {
        for _ in 0..STEPS {
            let there = self.look(name);
            if there.service.is_none() && there.deployments.is_empty() {
                return Ok(Rest::Over);
            }
            let at = now();
            let mut due: Option<Timestamp> = {
                let view = self.sources.hub.view();
                there.service.as_ref().and_then(|s| seen::due(&view, s, at))
            };
            let mut next = None;
            for deployment in &there.deployments {
                let (draft, again) = self.step(&there, deployment, at).await?;
                due = due.into_iter().chain(again).min();
                if draft.is_some() {
                    next = draft;
                    // The next one may stand on what this one changes.
                    break;
                }
            }
            let under_way = there.service.as_ref().is_some_and(|s| s.deployment.is_some());
            if let Some(service) = &there.service
                && next.is_none()
                && !under_way
            {
                let (draft, again) = self.keep(service, at)?;
                due = due.into_iter().chain(again).min();
                next = draft;
            }
            let Some(draft) = next else {
                let rest = due.map_or(IDLE, |due| time::between(at, due).duration());
                let draining = there.service.as_ref().is_some_and(|s| self.draining(s));
                let most = match self.doors.failed(name) {
                    _ if draining => DRAINING,
                    Some(_) => RETRY,
                    None => IDLE,
                };
                return Ok(Rest::For(rest.min(most)));
            };
            if let Committed::Overtaken(failed) = self.sources.hub.commit(draft).await? {
                tracing::debug!(?failed, "a step was overtaken");
            }
        }
        // Others get their turn.
        Ok(Rest::For(Duration::ZERO))
    }

    /// Whether a replica is waited for that still has requests to answer.
    fn draining(&self, service: &Service) -> bool {
        service
            .members
            .iter()
            .any(|m| m.retiring.is_some() && self.doors.pending(service, &m.workload) > 0)
    }

    /// A deployment's next step. `None`: there is nothing to do before the time that is given.
    async fn step(
        &self,
        there: &Now,
        deployment: &Versioned<Deployment>,
        at: Timestamp,
    ) -> Result<(Option<Draft>, Option<Timestamp>), ApiError> {
        if deployment.plan.batch {
            let view = self.sources.hub.view();
            return batch::step(&view, deployment, at, auth::random_number()?);
        }
        let Some(service) = &there.service else {
            // Its service was deleted.
            let ended = drive::orphan(deployment, at);
            let mut draft = Draft::new();
            draft.put_deployment(Some(deployment.revision), &ended);
            return Ok((Some(draft), None));
        };
        let replicas = seen::replicas(&self.sources.hub.view(), &self.doors, service, at);
        let (under_way, after) = {
            let view = self.sources.hub.view();
            let other = service.deployment.as_ref().filter(|id| **id != deployment.id);
            (
                other.and_then(|id| view.deployment(id)).cloned(),
                find::awaited(&view, &deployment.plan),
            )
        };
        let mut seen = drive::Seen {
            now: at,
            deployment,
            service,
            under_way: under_way.as_deref(),
            after,
            replicas: &replicas,
            verdicts: &[],
        };
        let questions = drive::questions(&seen);
        let mut verdicts = Vec::new();
        let mut again = None;
        if !questions.is_empty() {
            let every = match deployment.step_since.or(deployment.started_at) {
                Some(since) if time::between(since, at) >= SOON => drive::JUDGE_EVERY,
                _ => JUDGE_SOON,
            };
            // Each verdict is a change, after which its service is looked at again: the record tells when the last one was. One
            // of the future is of a clock that was set back.
            let last = deployment.verdicts.iter().map(|v| v.at).max();
            let last = last.filter(|last| *last <= at && time::after(*last, every) > at);
            if last.is_none() {
                verdicts = self.judge(service, &questions, at).await;
            }
            again = Some(time::after(last.unwrap_or(at), every));
        }
        seen.verdicts = &verdicts;
        let step = drive::step(&seen);
        let (draft, due) = self.draft(Some(service), Some(deployment), step, at)?;
        Ok((draft, due.into_iter().chain(again).min()))
    }

    /// What keeps a service as it is while no deployment is under way.
    fn keep(
        &self,
        service: &Versioned<Service>,
        at: Timestamp,
    ) -> Result<(Option<Draft>, Option<Timestamp>), ApiError> {
        let replicas = seen::replicas(&self.sources.hub.view(), &self.doors, service, at);
        let step = drive::steady(service, &replicas, at);
        self.draft(Some(service), None, step, at)
    }

    fn draft(
        &self,
        service: Option<&Versioned<Service>>,
        deployment: Option<&Versioned<Deployment>>,
        step: drive::Step,
        at: Timestamp,
    ) -> Result<(Option<Draft>, Option<Timestamp>), ApiError> {
        let again = step.look_again;
        if step.is_idle() {
            return Ok((None, again));
        }
        let view = self.sources.hub.view();
        let ground = carry_out::Ground {
            view: &view,
            service,
            deployment,
            now: at,
        };
        let draft = carry_out::draft(&ground, step)?;
        Ok((Some(draft), again))
    }

    async fn judge(&self, service: &Service, questions: &[drive::Question], at: Timestamp) -> Vec<Verdict> {
        let judged = questions.iter().map(async |question| {
            let evidence = evidence::gather(&self.sources, service, question).await;
            analysis::judge(&evidence, at)
        });
        // Together: a Prometheus that doesn't answer holds a rollout up once, not once a condition.
        futures_util::future::join_all(judged).await
    }
}
