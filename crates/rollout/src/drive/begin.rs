//! How a deployment begins: at once, at its time, after another, or not at all.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    ApiError, DeploymentId, ErrorCode, Span, Timestamp,
    deploy::{
        Action, Course, Deployment, Moment, Numbers, Phase, Plan, REVISIONS_MAX, Revision, Schedule, Service,
        ServicePort, Standing, Strategy,
    },
    time::{after, between},
};

use super::{ACTOR, LATE, MISSED_AFTER, Seen, Step, turn};
use crate::plan;

/// A deployment that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its id.
    pub id: DeploymentId,
    /// What was asked for, as it was said.
    pub intent: String,
    /// The model that read it. `None`: the grammar did.
    pub read_by: Option<String>,
    /// What it does.
    pub plan: Arc<Plan>,
    /// Who asks.
    pub by: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// Whether replicas are stopped without waiting for their requests.
    pub immediate: bool,
}

/// The record of a deployment that is asked for, not begun yet.
#[must_use]
pub fn request(request: Request, now: Timestamp) -> Deployment {
    let Request {
        id,
        intent,
        read_by,
        plan,
        by,
        reason,
        immediate,
    } = request;
    let asked = Moment {
        at: now,
        phase: Phase::Pending,
        message: "asked for".to_owned(),
        actor: by.clone(),
    };
    Deployment {
        id,
        namespace: plan.namespace.clone(),
        intent,
        read_by,
        plan,
        by,
        reason,
        created_at: now,
        started_at: None,
        finished_at: None,
        phase: Phase::Pending,
        message: None,
        error: None,
        revision: None,
        from: None,
        replicas_before: 0,
        course: Course::Forward,
        step: 0,
        step_since: None,
        moved_at: None,
        moved: 0,
        canary_steps: Vec::new(),
        deadline: None,
        immediate,
        hold: None,
        promotion: None,
        vouched: None,
        verdicts: Vec::new(),
        timeline: vec![asked],
        job: None,
    }
}

/// The record of a service that a plan makes, without revisions yet.
#[must_use]
pub fn service(plan: &Plan, owner: &str, port: Option<ServicePort>, now: Timestamp) -> Service {
    Service {
        name: plan.workload.clone(),
        namespace: plan.namespace.clone(),
        owner: owner.to_owned(),
        created_at: now,
        revisions: Vec::new(),
        stable: None,
        replicas: plan.replicas,
        members: Vec::new(),
        weights: BTreeMap::new(),
        port,
        deployment: None,
        autoscale: plan.autoscale.clone(),
        setbacks: BTreeMap::new(),
    }
}

/// When a deployment may begin.
#[derive(Debug, Clone, PartialEq)]
pub enum Due {
    /// Now.
    Now,
    /// At this time. `None`: when the deployment that it waits for is complete.
    Later(Option<Timestamp>),
    /// Not any more.
    Never(ApiError),
}

/// When a plan of this schedule may begin. `stands`: where the deployment stands that it waits for, if there is such.
#[must_use]
pub fn due(schedule: Option<&Schedule>, stands: Option<Phase>, now: Timestamp) -> Due {
    let Some(schedule) = schedule else {
        return Due::Now;
    };
    if let Some(id) = &schedule.after {
        match stands {
            Some(Phase::Complete) => {}
            Some(Phase::Failed | Phase::RolledBack) => {
                let message = format!("{id}, which it waited for, didn't bring what it was to bring");
                return Due::Never(
                    ApiError::conflict(message)
                        .hint(format!("see `clawbernetes deploy status {id}`, then ask for it anew")),
                );
            }
            Some(Phase::Pending | Phase::Rolling | Phase::Canary | Phase::Promoting | Phase::Paused) => {
                return Due::Later(None);
            }
            None => {
                return Due::Never(ApiError::not_found(format!(
                    "{id}, which it waited for, isn't known any more"
                )));
            }
        }
    }
    match schedule.at {
        Some(at) if at > now => Due::Later(Some(at)),
        // With another to wait for, the time is the earliest, not the only one.
        Some(at) if schedule.after.is_none() && between(at, now) > MISSED_AFTER => Due::Never(
            ApiError::new(
                ErrorCode::TimedOut,
                format!("it missed its time: {at} had passed more than {MISSED_AFTER} ago when it could have begun"),
            )
            .hint("it isn't begun late on its own: ask for it anew, without a time or with another one"),
        ),
        _ => Due::Now,
    }
}

/// Begins a deployment, or has it wait for its time.
///
/// It ends `under_way`, the deployment that the service names now (`None`: none), and takes over what that one leaves: the
/// way back is the revision that the service knows to be good, not what was half rolled out. `stands`: where the deployment
/// stands that this one waits for.
///
/// # Errors
/// It was begun before, its time has passed, what it was planned on has changed since, there is nothing to scale or to go
/// back to, or it would scale while another deployment brings a revision (that one would be lost).
pub fn begin(
    deployment: &Deployment,
    service: &Service,
    under_way: Option<&Deployment>,
    stands: Option<Phase>,
    now: Timestamp,
) -> Result<Step, ApiError> {
    if deployment.phase != Phase::Pending {
        return Err(ApiError::conflict(format!("{} has begun before", deployment.id)));
    }
    match due(deployment.plan.schedule.as_ref(), stands, now) {
        Due::Never(error) => return Err(error),
        Due::Later(at) => {
            let message = match (
                at,
                deployment
                    .plan
                    .schedule
                    .as_ref()
                    .and_then(|schedule| schedule.after.as_ref()),
            ) {
                (Some(at), _) => format!("begins at {at}"),
                (None, Some(id)) => format!("begins when {id} is complete"),
                (None, None) => "waits".to_owned(),
            };
            let mut waiting = deployment.clone();
            waiting.message = Some(message);
            return Ok(Step {
                look_again: at,
                deployment: (waiting != *deployment).then_some(waiting),
                ..Step::default()
            });
        }
        Due::Now => {}
    }
    stands_on(&deployment.plan, service, under_way)?;
    let mut begun = deployment.clone();
    let plan = plan::for_service(&deployment.plan, service);
    if plan != *deployment.plan {
        begun.plan = Arc::new(plan);
    }
    let plan = Arc::clone(&begun.plan);
    let plan = &*plan;
    let mut changed = service.clone();
    let superseded = under_way.filter(|other| other.id != deployment.id && !other.phase.ended());
    begun.revision = match plan.action {
        Action::Scale => {
            if let Some(other) = superseded.filter(|other| other.plan.action != Action::Scale) {
                return Err(ApiError::conflict(format!(
                    "{} brings another revision just now; scaling would end it",
                    other.id
                ))
                .hint(format!(
                    "wait for it, or end it: `clawbernetes deploy rollback {}`",
                    other.id
                )));
            }
            if service.stable.is_none() {
                return Err(
                    ApiError::conflict(format!("{} has no revision that could be scaled", service.name))
                        .hint("deploy it first"),
                );
            }
            None
        }
        Action::Rollback => {
            let to = plan.to_revision.or(service.stable);
            let Some(to) = to.filter(|to| service.revision(*to).is_some()) else {
                return Err(ApiError::not_found(format!(
                    "{} has no such revision any more",
                    service.name
                )));
            };
            Some(to)
        }
        Action::Deploy | Action::Update => {
            let number = service
                .revisions
                .iter()
                .map(|revision| revision.number)
                .max()
                .unwrap_or(0)
                + 1;
            changed.revisions.push(Revision {
                number,
                version: plan.version.clone(),
                spec: plan.spec.clone(),
                marks: plan.marks.clone(),
                created_at: now,
                created_by: deployment.by.clone(),
                deployment: deployment.id.clone(),
                standing: Standing::New,
            });
            Some(number)
        }
    };
    begun.from = service.stable.filter(|stable| service.revision(*stable).is_some());
    begun.replicas_before = service.replicas;
    begun.started_at = Some(now);
    begun.deadline = Some(after(now, turn::time(plan)));
    if let (Strategy::Canary, Action::Deploy | Action::Update, Some(canary)) =
        (plan.strategy, plan.action, &plan.canary)
    {
        begun.canary_steps.clone_from(&canary.steps);
    }
    if let Some(revision) = begun.revision {
        changed.setbacks.remove(&revision);
    }
    changed.deployment = Some(begun.id.clone());
    changed.replicas = plan.replicas.max(1);
    if plan.action != Action::Rollback {
        changed.autoscale.clone_from(&plan.autoscale);
    }
    forget_revisions(&mut changed, &begun);
    begun.phase = turn::phase(&begun);
    let message = match begun.revision {
        Some(revision) if plan.replicas != deployment.plan.replicas => format!(
            "{} begins, with as many replicas as there are by now: {}, not {}",
            turn::called(&changed, revision),
            plan.replicas,
            deployment.plan.replicas
        ),
        Some(revision) => format!("{} begins", turn::called(&changed, revision)),
        None => format!("from {} to {} replicas", service.replicas, changed.replicas),
    };
    let message = message + &late(plan.schedule.as_ref(), now);
    let mut step = Step {
        look_again: Some(now),
        ..Step::default()
    };
    turn::say(&mut begun, &mut step.said, message, ACTOR, now);
    step.superseded = superseded.map(|other| superseded_by(other, &begun, now));
    step.deployment = Some(begun);
    step.service = Some(changed);
    Ok(step)
}

/// Refuses a plan that was made on something else than there is now: it would undo what happened since.
fn stands_on(plan: &Plan, service: &Service, under_way: Option<&Deployment>) -> Result<(), ApiError> {
    let Some(basis) = &plan.basis else {
        return Ok(());
    };
    let stale = |was: String, is: String| {
        Err(
            ApiError::conflict(format!("what it was planned on has changed: {was} then, {is} now"))
                .hint("ask for it anew: it is planned on what is there then"),
        )
    };
    let now = plan::basis(service, under_way);
    // How many replicas there are doesn't depend on what they run.
    if now != basis.revision && plan.action != Action::Scale {
        let called = |number: Option<u32>| match number {
            Some(number) => match service.revision(number).and_then(|revision| revision.version.clone()) {
                Some(version) => format!("revision {number} ({version})"),
                None => format!("revision {number}"),
            },
            None => "no good revision".to_owned(),
        };
        return stale(called(basis.revision), called(now));
    }
    match basis.replicas {
        Numbers::ChangeOf(before) if before != service.replicas => {
            stale(format!("{before} replicas"), format!("{} replicas", service.replicas))
        }
        Numbers::ChangeOf(_) | Numbers::Said | Numbers::Kept => Ok(()),
    }
}

/// How much later than its time a deployment begins, in words; nothing where that isn't worth a word.
fn late(schedule: Option<&Schedule>, now: Timestamp) -> String {
    let time = schedule
        .filter(|schedule| schedule.after.is_none())
        .and_then(|schedule| schedule.at);
    let late = time.map_or(Span(0), |time| between(time, now));
    match late.millis() / 1000 {
        seconds if late >= LATE => format!(", {} late", Span::secs(seconds)),
        _ => String::new(),
    }
}

/// The record of a deployment in whose place another one has begun.
fn superseded_by(other: &Deployment, by: &Deployment, now: Timestamp) -> Deployment {
    let mut ended = other.clone();
    let message = format!("superseded by {}", by.id);
    ended.phase = Phase::Failed;
    ended.finished_at = Some(now);
    ended.hold = None;
    ended.promotion = None;
    ended.error = Some(ended.error.unwrap_or_else(|| ApiError::conflict(message.clone())));
    turn::say(&mut ended, &mut Vec::new(), message, &by.by, now);
    ended
}

/// Drops the oldest revisions that nothing needs.
fn forget_revisions(service: &mut Service, deployment: &Deployment) {
    let mut surplus = service.revisions.len().saturating_sub(REVISIONS_MAX);
    let members = &service.members;
    let stable = service.stable;
    service.revisions.retain(|revision| {
        let needed = [stable, deployment.revision, deployment.from].contains(&Some(revision.number))
            || members.iter().any(|member| member.revision == revision.number);
        let drop = surplus > 0 && !needed;
        surplus -= usize::from(drop);
        !drop
    });
    let revisions = &service.revisions;
    service
        .setbacks
        .retain(|number, _| revisions.iter().any(|revision| revision.number == *number));
}

/// A step of a deployment that waits.
pub(super) fn when_due(seen: &Seen<'_>) -> Step {
    match begin(seen.deployment, seen.service, seen.under_way, seen.after, seen.now) {
        Ok(begun) => match (&begun.deployment, &begun.service) {
            // It goes on at once: a step leaves nothing to do.
            (Some(deployment), Some(service)) => {
                let next = turn::turn(&Seen {
                    deployment,
                    service,
                    ..*seen
                });
                Step {
                    deployment: next.deployment.or(begun.deployment.clone()),
                    superseded: begun.superseded,
                    service: next.service.or(begun.service.clone()),
                    said: begun.said.into_iter().chain(next.said).collect(),
                    ..next
                }
            }
            _ => begun,
        },
        Err(error) => {
            let mut ended = seen.deployment.clone();
            let mut step = Step::default();
            ended.phase = Phase::Failed;
            ended.finished_at = Some(seen.now);
            turn::say(&mut ended, &mut step.said, error.message.clone(), ACTOR, seen.now);
            ended.error = Some(error);
            step.deployment = Some(ended);
            step
        }
    }
}
