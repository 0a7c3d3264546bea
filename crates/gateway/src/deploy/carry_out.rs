//! A step of a rollout as one transaction: records, new replicas, orders to stop, and the events that tell of it.

use api::{
    ApiError, Span, Timestamp, WorkloadId,
    deploy::{Deployment, Moment, Phase, Service},
    event::{Event, Severity},
    op::Submission,
    workload::Workload,
};
use rollout::drive::Step;

use super::find;
use crate::{
    auth,
    decide::submit,
    draft::Draft,
    lifecycle,
    view::{Versioned, View},
};

/// Label of a replica: its service.
pub const SERVICE_LABEL: &str = "service";
/// Label of a replica: its revision's number.
pub const REVISION_LABEL: &str = "revision";

/// What a step is taken on.
pub struct Ground<'a> {
    /// The fleet.
    pub view: &'a View,
    /// The service as it was seen. `None`: there is none yet.
    pub service: Option<&'a Versioned<Service>>,
    /// The deployment as it was seen. `None`: it is new, or there is none.
    pub deployment: Option<&'a Versioned<Deployment>>,
    /// Another that the service names as under way, as it was seen. `None`: there is none.
    pub under_way: Option<&'a Versioned<Deployment>>,
    /// The wanted replicas that were ready, as they were seen: others are retired on the strength of them.
    pub ready: &'a [Versioned<Workload>],
    /// The time.
    pub now: Timestamp,
}

/// Writes a step down. It holds only if the service and the deployments are as they were seen; where a replica is retired,
/// which can't be undone, only if those that were ready are so still.
///
/// # Errors
/// What a new replica would run can't be.
pub fn draft(ground: &Ground<'_>, mut step: Step) -> Result<Draft, ApiError> {
    let mut draft = Draft::new();
    let mut made = Vec::new();
    let starts = std::mem::take(&mut step.start);
    for (revision, count) in starts {
        for _ in 0..count {
            let service = step
                .service
                .as_ref()
                .ok_or_else(|| ApiError::internal("replicas were to be started of no service"))?;
            let replica = replica(service, revision, auth::random_number()?, ground.now)?;
            step.enlist(replica.id.clone(), revision, ground.now);
            made.push(replica);
        }
    }
    for workload in &made {
        draft.create_workload(workload, lifecycle::submitted(workload));
    }
    for stop in &step.stop {
        end(&mut draft, ground, &stop.workload, stop.immediate);
    }
    if !step.retire.is_empty() {
        let stay = ground.ready.iter().filter(|w| !step.retire.contains(&w.id));
        stay.for_each(|w| draft.workload_unchanged(w));
    }
    let about = ground.service.map(|s| s.revision).unwrap_or_default();
    match (&step.service, ground.service) {
        (Some(service), seen) => draft.put_service(seen, service),
        (None, Some(seen)) => draft.service_unchanged(seen),
        (None, None) => {}
    }
    match (&step.deployment, ground.deployment) {
        (Some(deployment), seen) => {
            draft.put_deployment(seen.map(|d| d.revision), deployment);
            for moment in &step.said {
                draft.event(about, event(deployment, moment));
            }
        }
        (None, Some(seen)) => draft.deployment_unchanged(seen),
        (None, None) => {}
    }
    if let Some(superseded) = &step.superseded {
        let seen = ground.under_way.filter(|seen| seen.id == superseded.id);
        let seen = seen.ok_or_else(|| ApiError::internal("a deployment was to be superseded that wasn't seen"))?;
        draft.put_deployment(Some(seen.revision), superseded);
        if let Some(moment) = superseded.timeline.last() {
            draft.event(about, event(superseded, moment));
        }
    }
    if let Some(left) = step
        .deployment
        .as_ref()
        .and_then(|ended| find::left_over(ground.view, ended))
    {
        draft.delete_service(left);
    }
    Ok(draft)
}

/// The same step without the replicas that can't be made: what else is to be done doesn't wait for them. Its deployment says
/// why.
#[must_use]
pub fn without_starts(ground: &Ground<'_>, step: Step, error: &ApiError) -> Step {
    let mut step = Step {
        start: Vec::new(),
        ..step
    };
    if let Some(seen) = ground.deployment {
        let mut said = step.deployment.take().unwrap_or_else(|| Deployment::clone(seen));
        if !said.phase.ended() {
            said.message = Some(format!("replicas can't be started: {}", error.message));
        }
        step.deployment = (said != **seen).then_some(said);
    }
    // With replicas to be started it was to be written in any case.
    let same = |seen: &Versioned<Service>| step.service.as_ref() == Some(&**seen);
    if ground.service.is_some_and(same) {
        step.service = None;
    }
    step
}

/// Tells that replicas of a service can't be made.
#[must_use]
pub fn not_started(service: &Service, error: &ApiError, now: Timestamp) -> Event {
    Event {
        id: String::new(),
        at: now,
        kind: "service".to_owned(),
        subject: service.name.clone(),
        namespace: Some(service.namespace.clone()),
        node: None,
        reason: "ReplicasNotStarted".to_owned(),
        message: format!("{}: replicas can't be started: {}", service.name, error.message),
        actor: rollout::drive::ACTOR.to_owned(),
        severity: Severity::Error,
        fact: None,
    }
}

/// A replica, waiting for its place.
fn replica(service: &Service, number: u32, random: u64, now: Timestamp) -> Result<Workload, ApiError> {
    let revision = service
        .revision(number)
        .ok_or_else(|| ApiError::internal(format!("{} has no revision {number}", service.name)))?;
    let id = WorkloadId::from_random(random);
    let suffix: String = id.as_str().chars().rev().take(5).collect();
    // A name of at most 63 characters.
    let stem: String = service.name.chars().take(48).collect();
    let mut labels = revision.marks.labels.clone();
    labels.insert(SERVICE_LABEL.to_owned(), service.name.clone());
    labels.insert(REVISION_LABEL.to_owned(), number.to_string());
    let submission = Submission {
        name: Some(format!("{}-{number}-{suffix}", stem.trim_end_matches(['-', '.']))),
        namespace: Some(service.namespace.clone()),
        labels,
        annotations: revision.marks.annotations.clone(),
        spec: (*revision.spec).clone(),
    };
    submit::workload(submission, random, &service.owner, now)
}

/// Stops a replica that hasn't ended.
fn end(draft: &mut Draft, ground: &Ground<'_>, id: &WorkloadId, immediate: bool) {
    let Some(workload) = ground.view.workload(id) else {
        return;
    };
    let grace = immediate.then(|| Span::secs(0));
    if let Some(step) = lifecycle::cancel(workload, grace, rollout::drive::ACTOR, ground.now) {
        draft.step(workload, step);
    }
}

/// A deployment that somebody changed, with the events that tell of it. It holds only if it is as it was seen. What was made
/// for it alone, and will never have anything, goes with it.
#[must_use]
pub fn changed(view: &View, before: &Versioned<Deployment>, after: &Deployment) -> Draft {
    let mut draft = Draft::new();
    draft.put_deployment(Some(before.revision), after);
    tell(&mut draft, before, after);
    if let Some(left) = find::left_over(view, after) {
        draft.delete_service(left);
    }
    draft
}

/// Tells what happened in a deployment since it was seen.
pub fn tell(draft: &mut Draft, before: &Versioned<Deployment>, after: &Deployment) {
    let seen = before.timeline.last();
    let new = after.timeline.iter().rev().take_while(|moment| Some(*moment) != seen);
    for moment in new.collect::<Vec<_>>().into_iter().rev() {
        draft.event(before.revision, event(after, moment));
    }
}

/// A moment of a deployment as an event.
fn event(deployment: &Deployment, moment: &Moment) -> Event {
    Event {
        id: String::new(),
        at: moment.at,
        kind: "deployment".to_owned(),
        subject: deployment.id.to_string(),
        namespace: Some(deployment.namespace.clone()),
        node: None,
        reason: reason(moment.phase).to_owned(),
        message: format!("{}: {}", deployment.plan.workload, moment.message),
        actor: moment.actor.clone(),
        severity: match moment.phase {
            Phase::Failed => Severity::Error,
            Phase::RolledBack | Phase::Paused => Severity::Warning,
            Phase::Pending | Phase::Rolling | Phase::Canary | Phase::Promoting | Phase::Complete => Severity::Info,
        },
        fact: None,
    }
}

fn reason(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "DeploymentWaits",
        Phase::Rolling => "DeploymentRolls",
        Phase::Canary => "DeploymentTries",
        Phase::Promoting => "DeploymentPromotes",
        Phase::Paused => "DeploymentPaused",
        Phase::Complete => "DeploymentComplete",
        Phase::Failed => "DeploymentFailed",
        Phase::RolledBack => "DeploymentRolledBack",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use api::{DeploymentId, deploy::Hold, wire::Seen};
    use rollout::drive;

    use super::{
        super::stage::{Stage, at, first, planned, readiness, replica, request, service, started, web},
        *,
    };

    /// Two replicas that are ready, their service and its deployment.
    async fn stage() -> (Stage, [Workload; 2]) {
        let stage = Stage::of(&["a"]).await;
        let ready = |number| readiness(&started(&replica(number), "a", 1, 1), true, 2);
        let replicas = [ready(1), ready(2)];
        let (service, deployment) = service(&replicas.each_ref());
        stage.put(&replicas.each_ref(), &service, &deployment).await;
        (stage, replicas)
    }

    fn ground<'a>(view: &'a View, ready: &'a [Versioned<Workload>]) -> Ground<'a> {
        Ground {
            view,
            service: Some(web(view)),
            deployment: Some(first(view)),
            under_way: None,
            ready,
            now: at(10),
        }
    }

    /// The first deployment is held, after it was looked at.
    async fn pause(stage: &Stage) {
        let view = stage.view().await;
        let mut held = Deployment::clone(first(&view));
        held.hold = Some(Hold {
            by: "user:bob".to_owned(),
            why: "wait".to_owned(),
            at: at(11),
        });
        let mut draft = Draft::new();
        draft.put_deployment(Some(first(&view).revision), &held);
        assert!(stage.commit(draft).await);
    }

    /// A step that changes the service only.
    fn weighs(view: &View) -> Step {
        let mut service = Service::clone(web(view));
        service.weights = BTreeMap::from([(1, 10_000)]);
        Step {
            service: Some(service),
            ..Step::default()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_step_lands_after_a_persons_word() {
        for paused in [false, true] {
            let (stage, _) = stage().await;
            let view = stage.view().await;
            let draft = draft(&ground(&view, &[]), weighs(&view)).unwrap();
            if paused {
                pause(&stage).await;
            }
            assert_eq!(stage.commit(draft).await, !paused, "paused: {paused}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_supersedes_a_deployment_overwrites_nothing_that_was_said_of_it_since() {
        for paused in [false, true] {
            let (stage, _) = stage().await;
            let seen = stage.view().await;
            // Whatever it was planned on.
            let mut plan = planned("deploy web:2 as web with 2 replicas");
            plan.basis = None;
            let next = drive::request(request("dep-2", &plan), at(10));
            let step = drive::begin(&next, web(&seen), Some(first(&seen)), None, at(10)).unwrap();
            if paused {
                pause(&stage).await;
            }
            // Whatever the newest view says: the step was decided on what was seen.
            let view = stage.view().await;
            let ground = Ground {
                deployment: None,
                service: Some(web(&seen)),
                under_way: Some(first(&seen)),
                ..ground(&view, &[])
            };
            let draft = draft(&ground, step).unwrap();
            assert_eq!(stage.commit(draft).await, !paused, "paused: {paused}");
            let view = stage.view().await;
            assert_eq!(first(&view).phase.ended(), !paused);
            assert_eq!(first(&view).hold.is_some(), paused);
            assert_eq!(view.deployment(&DeploymentId::new("dep-2")).is_some(), !paused);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_retires_once_what_is_to_stay_has_died() {
        let fails = Seen::Readiness {
            ready: false,
            why: Some("it answered 503".to_owned()),
        };
        for (dies, retires) in [(None, true), (Some(0), true), (Some(1), false)] {
            let (stage, replicas) = stage().await;
            let view = stage.view().await;
            let ready: Vec<_> = replicas.iter().map(|w| view.workload(&w.id).unwrap().clone()).collect();
            let mut service = Service::clone(web(&view));
            service.members[0].retiring = Some(at(10));
            let step = Step {
                service: Some(service),
                retire: vec![replicas[0].id.clone()],
                ..Step::default()
            };
            let draft = draft(&ground(&view, &ready), step).unwrap();
            if let Some(dies) = dies {
                stage.hear(&replicas[dies].id, &fails, 11).await;
            }
            assert_eq!(stage.commit(draft).await, retires, "{dies:?} died");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_started_becomes_a_member_and_knows_its_revision() {
        let (stage, _) = stage().await;
        let view = stage.view().await;
        let step = Step {
            start: vec![(1, 2)],
            ..weighs(&view)
        };
        assert!(stage.commit(draft(&ground(&view, &[]), step).unwrap()).await);
        let view = stage.view().await;
        let made: Vec<_> = web(&view).members[2..].iter().map(|m| &m.workload).collect();
        assert_eq!(made.len(), 2);
        for id in made {
            let labels = &view.workload(id).unwrap().labels;
            assert_eq!(
                (labels[SERVICE_LABEL].as_str(), labels[REVISION_LABEL].as_str()),
                ("web", "1")
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cant_be_started_is_told_and_keeps_nothing_else_waiting() {
        let (stage, replicas) = stage().await;
        let view = stage.view().await;
        let mut service = Service::clone(web(&view));
        service.members[0].retiring = Some(at(10));
        let step = Step {
            // There is no such revision.
            start: vec![(7, 1)],
            retire: vec![replicas[0].id.clone()],
            service: Some(service),
            ..Step::default()
        };
        let error = draft(&ground(&view, &[]), step.clone()).unwrap_err();
        let left = without_starts(&ground(&view, &[]), step, &error);
        assert!(stage.commit(draft(&ground(&view, &[]), left).unwrap()).await);
        let view = stage.view().await;
        assert!(web(&view).members[0].retiring.is_some());
        let said = first(&view).message.clone().unwrap();
        assert_eq!(said, "replicas can't be started: web has no revision 7");

        // The next one says nothing new, and is none.
        let mut deployment = Deployment::clone(first(&view));
        deployment.message = Some("1 of 2 replicas are ready".to_owned());
        let again = Step {
            start: vec![(7, 1)],
            service: Some(Service::clone(web(&view))),
            deployment: Some(deployment),
            ..Step::default()
        };
        assert!(without_starts(&ground(&view, &[]), again, &error).is_idle());
    }
}
