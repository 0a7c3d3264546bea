//! The controller of rollouts: one task a service, which looks at what is, takes one step, and looks again. It holds nothing
//! that a restart would lose.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{
    ApiError, Span, Timestamp,
    deploy::{Deployment, Phase, Service, Verdict},
    time,
    workload::Workload,
};
use rollout::{analysis, autoscale, drive};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Doors, batch, carry_out, evidence,
    evidence::Sources,
    find,
    judging::Judging,
    scale, seen,
    tenders::{End, Tenders},
};
use crate::{
    auth,
    draft::Draft,
    hub::{Committed, now},
    view::{ServiceName, Touched, Versioned, View, name_of},
};

/// Steps of one service in a row, after which others get a turn.
const STEPS: usize = 32;
/// Rest after a step that couldn't be written; doubled with each that follows, up to [`RETRY_MOST`].
const RETRY: Duration = Duration::from_secs(1);
/// The longest rest after a step that couldn't be written.
const RETRY_MOST: Duration = Duration::from_secs(30);
/// How often a replica's requests under way are looked at while it is waited for.
const DRAINING: Duration = Duration::from_millis(100);
/// How often conditions are judged at first: what is bad shows soon.
const JUDGE_SOON: Span = Span::secs(2);
/// So long after its step began a deployment is judged as often; then every [`drive::JUDGE_EVERY`].
const SOON: Span = Span::secs(60);
/// The longest rest while something is due: that is a time of the clock, which may be set, and goes on while the machine
/// sleeps; a rest doesn't.
const DUE: Duration = Duration::from_secs(30);
/// The longest rest: nothing is due, and nothing changed.
const IDLE: Duration = Duration::from_secs(3600);

/// Carries deployments out until told to stop.
pub async fn run(sources: Sources, doors: Arc<Doors>, stop: CancellationToken) {
    let mut changes = sources.hub.changes();
    let tender = Arc::new(Tender { sources, doors });
    let mut tenders = Tenders::default();
    let mut touched = tender.everything();
    loop {
        for name in touched.drain() {
            let tend = |wake| tend(Arc::clone(&tender), name.clone(), wake, Duration::ZERO, stop.clone());
            tenders.wake(name.clone(), tend);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            // What there is to tend after all came while it ended.
            (name, end) = tenders.ended() => match end {
                End::Over if tender.is_there(&name) => {
                    touched.insert(name);
                }
                End::Over => {}
                End::Broken => {
                    tracing::error!(service = %name.1, namespace = %name.0, "a service's controller broke, and is begun anew");
                    let tend = |wake| tend(Arc::clone(&tender), name.clone(), wake, RETRY_MOST, stop.clone());
                    tenders.wake(name.clone(), tend);
                }
            },
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
    tenders.join().await;
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

/// Tends a service until it is gone and nothing is to come; begins after a `rest`.
async fn tend(tender: Arc<Tender>, name: ServiceName, wake: Arc<Notify>, rest: Duration, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = tokio::time::sleep(rest) => {}
    }
    let mut scaled: Option<Instant> = None;
    let mut failed = 0;
    let mut care = Care::default();
    loop {
        let round = tender.round(&name, &mut care).await;
        failed = if round.is_ok() { 0 } else { failed + 1 };
        let rest = match round {
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
                retry(failed)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.notified() => {}
            () = care.judging.done() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Rest after so many steps in a row that couldn't be written.
fn retry(failed: u32) -> Duration {
    let doubled = RETRY.saturating_mul(1 << failed.saturating_sub(1).min(16));
    doubled.min(RETRY_MOST)
}

/// Rest until something is due by the clock. `None`: nothing is.
fn until(due: Option<Timestamp>, at: Timestamp) -> Duration {
    due.map_or(IDLE, |due| time::between(at, due).duration().min(DUE))
}

/// What a service's task remembers between two rounds; nothing that a restart would lose.
#[derive(Default)]
struct Care {
    judging: Judging,
    /// Why replicas can't be made, as it was told. `None`: they can, as far as is known.
    trouble: Option<String>,
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
    /// Its replicas.
    replicas: Vec<drive::SeenReplica>,
    /// Those of them that are wanted and ready.
    ready: Vec<Versioned<Workload>>,
    /// When something of them is due.
    due: Option<Timestamp>,
    /// The time.
    at: Timestamp,
}

/// What is to be written now, and when to look again.
#[derive(Default)]
struct Next {
    draft: Option<Draft>,
    due: Option<Timestamp>,
    /// Why replicas weren't started that were to be.
    trouble: Option<ApiError>,
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

    /// Whether there is something to tend.
    fn is_there(&self, name: &ServiceName) -> bool {
        let view = self.sources.hub.view();
        view.service(name).is_some() || view.deployments_of(name).any(|d| !d.phase.ended())
    }

    /// All as it is at one moment.
    fn look(&self, name: &ServiceName) -> Now {
        let at = now();
        let view = self.sources.hub.view();
        // What the proxy does is told from here alone, before replicas' requests are counted.
        self.doors.tell(&view, name);
        let mut deployments: Vec<_> = view
            .deployments_of(name)
            .filter(|d| !d.phase.ended())
            .cloned()
            .collect();
        deployments.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        let service = view.service(name).cloned();
        let (mut replicas, mut ready, mut due) = (Vec::new(), Vec::new(), None);
        if let Some(service) = &service {
            replicas = seen::replicas(&view, &self.doors, service, at);
            let wanted = service.members.iter().filter(|m| m.retiring.is_none());
            let wanted = wanted.filter(|m| seen::ready(&view, &m.workload));
            ready = wanted.filter_map(|m| view.workload(&m.workload)).cloned().collect();
            due = seen::due(&view, service, at);
        }
        Now {
            service,
            deployments,
            replicas,
            ready,
            due,
            at,
        }
    }

    /// Steps until there is nothing to do.
    async fn round(self: &Arc<Self>, name: &ServiceName, care: &mut Care) -> Result<Rest, ApiError> {
        for _ in 0..STEPS {
            let there = self.look(name);
            if there.service.is_none() && there.deployments.is_empty() {
                return Ok(Rest::Over);
            }
            let next = self.next(&there, care)?;
            self.tell_trouble(&there, next.trouble, care).await?;
            let Some(draft) = next.draft else {
                let draining = there.service.as_ref().is_some_and(|s| self.draining(s));
                let most = match self.doors.failed(name) {
                    _ if draining => DRAINING,
                    Some(_) => RETRY,
                    None if care.trouble.is_some() => RETRY_MOST,
                    None => IDLE,
                };
                return Ok(Rest::For(until(next.due, there.at).min(most)));
            };
            if let Committed::Overtaken(failed) = self.sources.hub.commit(draft).await? {
                tracing::debug!(?failed, "a step was overtaken");
            }
        }
        // Others get their turn.
        Ok(Rest::For(Duration::ZERO))
    }

    /// The next step of what there is. Nothing is waited for: it is decided on what was just seen.
    fn next(self: &Arc<Self>, there: &Now, care: &mut Care) -> Result<Next, ApiError> {
        let mut all = Next {
            due: there.due,
            ..Next::default()
        };
        let mut take = |next: Next| {
            all.due = all.due.into_iter().chain(next.due).min();
            all.draft = next.draft;
            all.trouble = next.trouble.or(all.trouble.take());
            // The next one may stand on what this one changes.
            all.draft.is_some()
        };
        for deployment in &there.deployments {
            if take(self.step(there, deployment, &mut care.judging)?) {
                return Ok(all);
            }
        }
        if let Some(service) = there.service.as_ref().filter(|s| s.deployment.is_none()) {
            let step = drive::steady(service, &there.replicas, there.at);
            take(self.draft(there, None, None, step)?);
        }
        Ok(all)
    }

    /// Tells why replicas can't be made, once for each reason.
    async fn tell_trouble(&self, there: &Now, trouble: Option<ApiError>, care: &mut Care) -> Result<(), ApiError> {
        let said = trouble.as_ref().map(|error| error.message.clone());
        if care.trouble == said {
            return Ok(());
        }
        care.trouble = said;
        if let (Some(error), Some(service)) = (trouble, &there.service) {
            tracing::warn!(service = %service.value.name, namespace = %service.namespace, %error, "replicas can't be started");
            let mut draft = Draft::new();
            draft.event(service.revision, carry_out::not_started(service, &error, there.at));
            self.sources.hub.commit(draft).await?;
        }
        Ok(())
    }

    /// Whether a replica is waited for that still has requests to answer.
    fn draining(&self, service: &Service) -> bool {
        service
            .members
            .iter()
            .any(|m| m.retiring.is_some() && self.doors.pending(service, &m.workload) > 0)
    }

    /// A deployment's next step.
    fn step(
        self: &Arc<Self>,
        there: &Now,
        deployment: &Versioned<Deployment>,
        judging: &mut Judging,
    ) -> Result<Next, ApiError> {
        let at = there.at;
        if deployment.plan.batch {
            let view = self.sources.hub.view();
            let (draft, due) = batch::step(&view, deployment, at, auth::random_number()?)?;
            return Ok(Next {
                draft,
                due,
                trouble: None,
            });
        }
        let Some(service) = &there.service else {
            // Its service was deleted.
            let ended = drive::orphan(deployment, at);
            let mut draft = Draft::new();
            draft.put_deployment(Some(deployment.revision), &ended);
            return Ok(Next {
                draft: Some(draft),
                ..Next::default()
            });
        };
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
            replicas: &there.replicas,
            verdicts: &[],
        };
        let questions = drive::questions(&seen);
        let mut again = None;
        if !questions.is_empty() {
            let every = match deployment.step_since.or(deployment.started_at) {
                Some(since) if time::between(since, at) >= SOON => drive::JUDGE_EVERY,
                _ => JUDGE_SOON,
            };
            // The record tells when the last verdict was, before a restart too. One of the future is of a clock that was set
            // back.
            let last = deployment
                .verdicts
                .iter()
                .map(|v| v.at)
                .filter(|last| *last <= at)
                .max();
            let due = last.map_or(at, |last| time::after(last, every));
            let rest = judging.rest(&deployment.id, every.duration());
            again = rest.map(|rest| due.max(time::after(at, Span(rest.as_millis() as u64))));
            if again.is_some_and(|again| again <= at) {
                let (tender, service) = (Arc::clone(self), service.clone());
                let judge = async move { tender.judge(&service, &questions, at).await };
                judging.begin(deployment.id.clone(), judge);
                again = None;
            }
        }
        seen.verdicts = judging.verdicts(&deployment.id, at);
        let step = drive::step(&seen);
        let mut next = self.draft(there, Some(deployment), under_way.as_ref(), step)?;
        next.due = next.due.into_iter().chain(again).min();
        Ok(next)
    }

    fn draft(
        &self,
        there: &Now,
        deployment: Option<&Versioned<Deployment>>,
        under_way: Option<&Versioned<Deployment>>,
        mut step: drive::Step,
    ) -> Result<Next, ApiError> {
        let due = step.look_again;
        let mut trouble = None;
        let view = self.sources.hub.view();
        let ground = carry_out::Ground {
            view: &view,
            service: there.service.as_ref(),
            deployment,
            under_way,
            ready: &there.ready,
            now: there.at,
        };
        if !step.start.is_empty() {
            match carry_out::draft(&ground, step.clone()) {
                Ok(draft) => {
                    return Ok(Next {
                        draft: Some(draft),
                        due,
                        trouble,
                    });
                }
                Err(error) => {
                    step = carry_out::without_starts(&ground, step, &error);
                    trouble = Some(error);
                }
            }
        }
        let draft = match step.is_idle() {
            true => None,
            false => Some(carry_out::draft(&ground, step)?),
        };
        Ok(Next { draft, due, trouble })
    }

    async fn judge(&self, service: &Service, questions: &[drive::Question], at: Timestamp) -> Vec<Verdict> {
        let judge = async |question| {
            let evidence = evidence::gather(&self.sources, service, question).await;
            analysis::judge(&evidence, at)
        };
        // All at once: a Prometheus may take long for each.
        futures_util::future::join_all(questions.iter().map(judge)).await
    }
}

#[cfg(test)]
mod tests {
    use super::{super::stage::at, *};

    #[test]
    fn a_time_of_the_clock_is_never_slept_through() {
        assert_eq!(until(None, at(0)), IDLE);
        assert_eq!(until(Some(at(5)), at(0)), Duration::from_secs(5));
        assert_eq!(until(Some(at(36_000)), at(0)), DUE, "the clock may be set meanwhile");
        assert_eq!(until(Some(at(0)), at(7)), Duration::ZERO);
    }

    #[test]
    fn what_cant_be_written_is_tried_ever_less_often() {
        let rests: Vec<u64> = [1, 2, 3, 5, 6, 40].map(|n| retry(n).as_secs()).to_vec();
        assert_eq!(rests, [1, 2, 4, 16, 30, 30]);
    }
}
