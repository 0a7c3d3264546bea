//! Services and deployments as callers see them.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    Timestamp,
    deploy::{Action, Course, Deployment, Phase, Replica, Service},
    op::{DeploymentStatus, DeploymentSummary, ReplicaView, RevisionReplicas, ServiceView},
    time,
    workload::{MemberState, Workload},
};

use super::{Doors, seen, way};
use crate::view::{View, name_of};

/// A deployment in a list.
#[must_use]
pub fn summary(view: &View, deployment: &Deployment, now: Timestamp) -> DeploymentSummary {
    let d = deployment;
    let plan = &d.plan;
    let service = view.service(&name_of(d));
    let revision = d.revision.or(plan.to_revision);
    // Of what has ended nothing is left to be seen once another revision is in its place.
    let passed = d.phase.ended() && service.is_none_or(|s| s.stable != revision && revision.is_some());
    let ready = match (&d.job, service) {
        (Some(job), _) => {
            let running = |w: &Workload| w.phase == api::workload::Phase::Running;
            u32::from(view.workload(job).is_some_and(|w| running(w)))
        }
        (None, Some(service)) => service
            .members
            .iter()
            .filter(|m| m.retiring.is_none() && revision.is_none_or(|r| r == m.revision))
            .filter(|m| seen::ready(view, &m.workload))
            .count() as u32,
        (None, None) => 0,
    };
    // Nor is there anything of what hasn't begun.
    let begun = d.started_at.is_some() || plan.action == Action::Scale;
    let replaces = matches!(plan.action, Action::Deploy | Action::Update | Action::Rollback) && !plan.batch;
    DeploymentSummary {
        id: d.id.clone(),
        workload: plan.workload.clone(),
        namespace: d.namespace.clone(),
        action: plan.action,
        version: plan.version.clone(),
        revision,
        from: d.from,
        strategy: replaces.then_some(plan.strategy),
        phase: d.phase,
        ready: (begun && !passed).then_some(ready),
        replicas: plan.replicas,
        by: d.by.clone(),
        // Why it went back says more than why it was asked for.
        reason: match &d.course {
            Course::Back { why, .. } => Some(why.clone()),
            Course::Forward => d.reason.clone(),
        },
        created_at: d.created_at,
        started_at: d.started_at,
        finished_at: d.finished_at,
        duration: d
            .started_at
            .map(|began| time::between(began, d.finished_at.unwrap_or(now))),
    }
}

/// How a deployment stands.
#[must_use]
pub fn status(view: &View, doors: &Doors, deployment: &Deployment, now: Timestamp) -> DeploymentStatus {
    let d = deployment;
    let name = name_of(d);
    let service = view.service(&name);
    let under_way = !d.phase.ended();
    // What is there now is another deployment's when this one has ended.
    let shown = service.filter(|s| under_way || s.deployment.is_none());
    let (step, remaining) = match service {
        Some(service) if under_way => {
            let replicas = seen::replicas(view, doors, service, now);
            let seen = rollout::drive::Seen {
                now,
                deployment: d,
                service,
                under_way: None,
                after: None,
                replicas: &replicas,
                verdicts: &d.verdicts,
            };
            (
                rollout::drive::step_view(d, service),
                rollout::drive::remaining(d, &seen),
            )
        }
        _ => (None, None),
    };
    let waits_for = match (&d.hold, d.phase) {
        (Some(hold), _) => Some(format!("{} ({})", hold.why, hold.by)),
        (None, Phase::Pending) => d.message.clone(),
        _ => None,
    };
    DeploymentStatus {
        summary: summary(view, d, now),
        intent: d.intent.clone(),
        read_by: d.read_by.clone(),
        message: match (&d.message, &d.course) {
            (Some(message), _) => Some(message.clone()),
            (None, Course::Back { why, .. }) => Some(why.clone()),
            (None, Course::Forward) => None,
        },
        error: d.error.clone(),
        waits_for,
        revisions: shown.map(|s| revisions(view, s)).unwrap_or_default(),
        checks: shown.map(|s| checks(view, s)).unwrap_or_default(),
        step,
        verdicts: d.verdicts.clone(),
        remaining,
        address: service.and_then(|s| doors.address(s)),
        job: d.job.clone(),
        timeline: d.timeline.clone(),
        plan: Arc::unwrap_or_clone(Arc::clone(&d.plan)),
    }
}

/// A service as it is.
#[must_use]
pub fn service(view: &View, doors: &Doors, service: &Service) -> ServiceView {
    let s = service;
    let stable = s.stable();
    let newest = s.revisions.last();
    let checks = checks(view, s);
    let mut under_way: BTreeMap<u32, u64> = BTreeMap::new();
    if s.port.is_some() {
        for member in &s.members {
            *under_way.entry(member.revision).or_default() += doors.in_flight(s, &member.workload);
        }
    }
    ServiceView {
        name: s.name.clone(),
        namespace: s.namespace.clone(),
        owner: s.owner.clone(),
        created_at: s.created_at,
        version: stable.and_then(|r| r.version.clone()),
        revision: s.stable,
        marks: stable.or(newest).map(|r| r.marks.clone()).unwrap_or_default(),
        image: stable.or(newest).map(|r| r.spec.image.clone()).unwrap_or_default(),
        ready: checks.iter().filter(|c| c.ready && !c.retiring).count() as u32,
        replicas: s.replicas,
        revisions: revisions(view, s),
        checks,
        address: doors.address(s),
        closed: doors.failed(&(s.namespace.clone(), s.name.clone())),
        carried_by: doors.carried(s),
        protocol: s.port.as_ref().map(|p| p.protocol),
        autoscale: s.autoscale.clone(),
        scaling: doors.scaling(s),
        deployment: s.deployment.clone(),
        requests_under_way: under_way,
    }
}

fn revisions(view: &View, s: &Service) -> Vec<RevisionReplicas> {
    let all: u32 = s.weights.values().sum();
    let has_replicas = |number: u32| s.members.iter().any(|m| m.revision == number);
    s.revisions
        .iter()
        .filter(|r| has_replicas(r.number) || s.weights.get(&r.number).is_some_and(|w| *w > 0))
        .map(|r| {
            let wanted = |m: &&Replica| m.revision == r.number && m.retiring.is_none();
            let weight = s.weights.get(&r.number).copied().unwrap_or(0);
            RevisionReplicas {
                revision: r.number,
                version: r.version.clone(),
                standing: r.standing,
                ready: s
                    .members
                    .iter()
                    .filter(wanted)
                    .filter(|m| seen::ready(view, &m.workload))
                    .count() as u32,
                total: s.members.iter().filter(wanted).count() as u32,
                traffic_percent: (s.port.is_some() && all > 0).then(|| f64::from(weight) * 100.0 / f64::from(all)),
            }
        })
        .collect()
}

fn checks(view: &View, s: &Service) -> Vec<ReplicaView> {
    s.members
        .iter()
        .filter_map(|m| {
            let w = view.workload(&m.workload)?;
            let ready = seen::ready(view, &m.workload);
            let not_running = || match &w.members.first()?.state {
                MemberState::Running { .. } => None,
                _ => w.message.clone().or_else(|| w.reason.clone()),
            };
            Some(ReplicaView {
                workload: m.workload.clone(),
                revision: m.revision,
                node: w.members.first().map(|member| member.node.clone()),
                phase: w.phase,
                ready,
                retiring: m.retiring.is_some(),
                why: if ready {
                    None
                } else {
                    seen::why_not_ready(view, w).or_else(not_running)
                },
                restarts: w.restarts,
                address: way::spot(view, s, w).map(|(_, address)| address.to_string()),
            })
        })
        .collect()
}
