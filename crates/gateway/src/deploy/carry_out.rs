//! A step of a rollout as one transaction: records, new replicas, orders to stop, and the events that tell of it.

use std::collections::BTreeMap;

use api::{
    ApiError, Span, Timestamp, WorkloadId,
    deploy::{Deployment, Moment, Phase, Service},
    event::{Event, Severity},
    op::Submission,
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
    /// The time.
    pub now: Timestamp,
}

/// Writes a step down. It holds only if the service and the deployments are as they were seen.
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
    let about = ground.service.map(|s| s.revision).unwrap_or_default();
    match (&step.service, ground.service) {
        (Some(service), seen) => draft.put_service(seen.map(|s| s.revision), service),
        (None, Some(seen)) => draft.service_unchanged(seen),
        (None, None) => {}
    }
    if let Some(deployment) = &step.deployment {
        draft.put_deployment(ground.deployment.map(|d| d.revision), deployment);
        for moment in &step.said {
            draft.event(about, event(deployment, moment));
        }
    }
    if let Some(superseded) = &step.superseded {
        let seen = ground.view.deployment(&superseded.id).map(|d| d.revision);
        draft.put_deployment(seen, superseded);
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

/// A replica, waiting for its place.
fn replica(service: &Service, number: u32, random: u64, now: Timestamp) -> Result<api::workload::Workload, ApiError> {
    let revision = service
        .revision(number)
        .ok_or_else(|| ApiError::internal(format!("{} has no revision {number}", service.name)))?;
    let id = WorkloadId::from_random(random);
    let suffix: String = id.as_str().chars().rev().take(5).collect();
    // A name of at most 63 characters.
    let stem: String = service.name.chars().take(48).collect();
    let labels = BTreeMap::from([
        (SERVICE_LABEL.to_owned(), service.name.clone()),
        (REVISION_LABEL.to_owned(), number.to_string()),
    ]);
    let submission = Submission {
        name: Some(format!("{}-{number}-{suffix}", stem.trim_end_matches(['-', '.']))),
        namespace: Some(service.namespace.clone()),
        labels,
        annotations: BTreeMap::new(),
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
