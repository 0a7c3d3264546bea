//! New services, new revisions, and new numbers of replicas.

use std::sync::Arc;

use api::{
    ApiError,
    deploy::{Action, Basis, Change, Marks, Numbers, Phase, Plan, Resources, Revision, Service, Standing, Strategy},
    workload::WorkloadSpec,
};

use super::{
    Facts, Notes, basis, bounds, changes, current, dangers, known_as, schedule,
    spec::{self, Base},
    steps,
    strategy::{self, Shape},
    supersede,
};
use crate::intent::{Intent, Verb};

/// The plan of a service that isn't there.
pub(super) fn create(intent: &Intent, facts: &Facts<'_>) -> Result<Plan, ApiError> {
    let mut notes = Notes::default();
    let base = Base {
        spec: facts.workload.map(|standalone| standalone.spec),
        version: None,
    };
    let built = spec::build(intent, facts, base, &mut notes)?;
    let mut spec = built.spec;
    spec::hurry(&mut spec, intent);
    spec::as_replica(&mut spec, &mut notes);
    if let (Some(standalone), None) = (facts.workload, facts.template) {
        notes.warn(format!(
            "what isn't said is as in the workload {} of that name, which has ended",
            standalone.id
        ));
    }
    let marks = facts.marks.cloned().unwrap_or_default();
    let mut changed = changes::of_spec(None, &spec, built.version.as_deref());
    changed.extend(changes::of_marks(None, &marks));
    let target = Target {
        action: Action::Deploy,
        spec,
        marks,
        version: built.version,
        number: Some(1),
        back: None,
        changed,
    };
    finish(intent, facts, None, target, notes)
}

/// The plan of a service that is there: another revision, or another number of replicas.
pub(super) fn change(intent: &Intent, facts: &Facts<'_>, service: &Service) -> Result<Plan, ApiError> {
    let mut notes = Notes::default();
    let now = current(service, facts.under_way);
    let base = Base {
        spec: now.map(|revision| &*revision.spec),
        version: now.and_then(|revision| revision.version.as_deref()),
    };
    let built = spec::build(intent, facts, base, &mut notes)?;
    let mut spec = built.spec;
    spec::as_replica(&mut spec, &mut notes);
    let before = now.map(|revision| &revision.marks);
    let marks = facts.marks.or(before).cloned().unwrap_or_default();
    let same = now.is_some_and(|now| *now.spec == spec && now.version == built.version && now.marks == marks);
    let restart = intent.verb == Verb::Restart;
    if same && !restart && bounds::said(intent) {
        return scale(intent, facts, service, now, notes);
    }
    if same && !restart {
        let settled = now.is_some_and(|now| now.standing != Standing::Bad);
        if settled {
            let action = if intent.verb == Verb::Scale {
                Action::Scale
            } else {
                Action::Update
            };
            return Err(no_op(action, service, facts));
        }
    }
    if !same || restart {
        spec::hurry(&mut spec, intent);
    }
    let number = next(service);
    let mut changed = changes::of_spec(
        now.map(|revision| (&*revision.spec, revision.version.as_deref())),
        &spec,
        built.version.as_deref(),
    );
    changed.extend(changes::of_marks(before, &marks));
    if changed.is_empty() {
        changed.push(Change {
            field: "revision".to_owned(),
            from: now.map(|now| now.number.to_string()),
            to: format!("{number}, the same anew"),
        });
    } else if let Some(known) = known_as(&spec, service)
        && known.standing == Standing::Bad
    {
        notes.warn(format!(
            "this is what {} was, and that was rolled back or couldn't be rolled out",
            steps::revision(known)
        ));
    }
    let target = Target {
        action: if intent.verb == Verb::Deploy {
            Action::Deploy
        } else {
            Action::Update
        },
        spec,
        marks,
        version: built.version,
        number: Some(number),
        back: None,
        changed,
    };
    finish(intent, facts, Some(service), target, notes)
}

/// The number of the revision that is made next.
fn next(service: &Service) -> u32 {
    let newest = service.revisions.iter().map(|revision| revision.number).max();
    newest.unwrap_or(0).saturating_add(1)
}

/// Another number of replicas, or other bounds, of what runs.
///
/// Not while another revision is on its way: the numbers of that deployment stand on the present one.
fn scale(
    intent: &Intent,
    facts: &Facts<'_>,
    service: &Service,
    now: Option<&Revision>,
    mut notes: Notes,
) -> Result<Plan, ApiError> {
    if let Some(deployment) = facts.under_way.filter(|deployment| {
        deployment.plan.action != Action::Scale
            && !matches!(deployment.phase, Phase::Pending)
            && !deployment.phase.ended()
    }) && intent.when.is_none()
    {
        let message = format!(
            "{} of '{}' is {}: how many replicas there are is decided when it is done",
            deployment.id, service.name, deployment.phase
        );
        return Err(ApiError::conflict(message).hint(format!(
            "`clawbernetes deploy promote {0}` or `deploy rollback {0}` ends it; or say `after {0}`",
            deployment.id
        )));
    }
    let refuse = |what: &str| {
        Err(ApiError::invalid(
            "intent",
            format!("{what}: only the number of replicas changes, no revision does"),
        )
        .hint("leave it out, or name a version"))
    };
    match intent.strategy {
        Some(Strategy::Canary | Strategy::BlueGreen) => return refuse("there is nothing to compare"),
        Some(Strategy::Immediate) => notes.warn("'immediate' changes nothing here: no replica is replaced"),
        Some(Strategy::Rolling) | None => {}
    }
    if !intent.canary_steps.is_empty()
        || !intent.promote_if.is_empty()
        || intent.promote_after.is_some()
        || intent.promote_by_hand
        || intent.keep_old_for.is_some()
    {
        return refuse("there is nothing to promote");
    }
    let Some(now) = now.filter(|_| service.stable.is_some()) else {
        let message = format!(
            "no revision of '{}' is known to be good: there is nothing to scale",
            service.name
        );
        return Err(ApiError::conflict(message).hint("deploy a version that works first"));
    };
    let target = Target {
        action: Action::Scale,
        spec: (*now.spec).clone(),
        marks: now.marks.clone(),
        version: now.version.clone(),
        number: None,
        back: None,
        changed: Vec::new(),
    };
    // Everyday words are about how replicas are replaced; none is.
    let plain = Intent {
        care: None,
        strategy: None,
        ..intent.clone()
    };
    finish(&plain, facts, Some(service), target, notes)
}

fn no_op(action: Action, service: &Service, facts: &Facts<'_>) -> ApiError {
    let name = &service.name;
    let error = ApiError::conflict(format!("nothing would change: {}", steps::unchanged(action, name)));
    match facts.under_way.filter(|deployment| !deployment.phase.ended()) {
        Some(deployment) if action != Action::Scale => error
            .cause(format!("{} is on its way there ({})", deployment.id, deployment.phase))
            .hint(format!("clawbernetes deploy status {}", deployment.id)),
        _ if action == Action::Scale => error,
        _ => error.hint(format!(
            "name another version, or --image; to start its replicas anew: clawbernetes deploy \"restart {name}\""
        )),
    }
}

/// What a service is to run.
pub(super) struct Target {
    /// What is done.
    pub action: Action,
    /// What each replica runs.
    pub spec: WorkloadSpec,
    /// What each replica is marked with.
    pub marks: Marks,
    /// As it is called.
    pub version: Option<String>,
    /// The number of the revision that comes in. `None`: none changes.
    pub number: Option<u32>,
    /// Whether it is an earlier one.
    pub back: Option<u32>,
    /// What changes in it.
    pub changed: Vec<Change>,
}

/// The plan with its numbers of replicas, its strategy, its times and its sentences.
pub(super) fn finish(
    intent: &Intent,
    facts: &Facts<'_>,
    service: Option<&Service>,
    target: Target,
    mut notes: Notes,
) -> Result<Plan, ApiError> {
    let spec = Arc::new(target.spec);
    let port = !spec.ports.is_empty();
    let count = bounds::count(intent, service, port, spec.gpus.count, &mut notes)?;
    let replicas_change = changes::of_replicas(service.map(|service| service.replicas), count.replicas);
    let bounds_change = changes::of_bounds(
        service.and_then(|service| service.autoscale.as_ref()),
        count.autoscale.as_ref(),
    );
    if let (Action::Scale, Some(service), None, None) = (target.action, service, &replicas_change, &bounds_change) {
        return Err(no_op(Action::Scale, service, facts));
    }
    let shape = Shape {
        replicas: count.replicas,
        proven: service.is_some_and(|service| service.stable.is_some()),
        port,
    };
    let timeout = intent.timeout.or(facts.timeout).unwrap_or(facts.default_timeout);
    if timeout.is_zero() {
        return Err(
            ApiError::invalid("timeout", "a deployment takes some time: its timeout can't be 0")
                .hint("leave it out for 30m, or give it a length: 2h"),
        );
    }
    let way = strategy::choose(intent, shape, &mut notes)?;
    let schedule = schedule(intent, facts)?;
    supersede(facts, schedule.as_ref(), &mut notes);
    let mut plan = Plan {
        action: target.action,
        workload: intent.target.clone(),
        namespace: facts.namespace.to_owned(),
        batch: false,
        version: target.version,
        image: spec.image.clone(),
        replicas: count.replicas,
        resources: resources(&spec),
        priority: spec.priority,
        timeout: Some(timeout),
        strategy: way.strategy,
        canary: way.canary,
        blue_green: way.blue_green,
        rolling: way.rolling,
        rollback_conditions: way.rollback,
        autoscale: count.autoscale,
        schedule,
        spec,
        marks: target.marks,
        to_revision: target.back,
        basis: Some(Basis {
            revision: service.and_then(|service| basis(service, facts.under_way)),
            replicas: count.from,
            bounds: if bounds::changes(intent) {
                Numbers::Said
            } else {
                Numbers::Kept
            },
        }),
        changes: target.changed,
        steps: Vec::new(),
        placement: Vec::new(),
        warnings: Vec::new(),
        missing: Vec::new(),
        digest: String::new(),
    };
    plan.changes.extend(replicas_change);
    plan.changes.extend(bounds_change);
    let called = target
        .number
        .map(|number| steps::called(number, plan.version.as_deref()));
    plan.steps = steps::of(&plan, service, called.as_deref());
    plan.warnings = notes.warnings;
    let there = service.is_some_and(|service| !service.members.is_empty() || service.stable.is_some());
    plan.warnings.extend(dangers::of(&plan, intent, there));
    plan.missing = notes.missing;
    Ok(plan)
}

/// What replicas ask for, in short.
pub(super) fn resources(spec: &WorkloadSpec) -> Resources {
    Resources {
        gpus: spec.gpus.count,
        gpu_type: spec.gpus.model.clone(),
        memory: spec.memory,
        cpu: spec.cpu,
    }
}
