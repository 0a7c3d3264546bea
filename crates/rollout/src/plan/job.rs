//! Batch jobs: what runs once, to its end.

use std::sync::Arc;

use api::{
    ApiError, Span,
    deploy::{Action, Plan, Rolling, Strategy},
    workload::RestartPolicy,
};

use super::{
    Facts, Notes, bounds, changes, schedule,
    service::resources,
    spec::{self, Base},
    steps,
};
use crate::intent::{Intent, Verb};

/// Whether a sentence about something new means a batch job: it says so, or it asks for GPUs for a limited time and for
/// nothing that only a service has ("deploy pytorch-trainer with 8 A100 GPUs, priority high, timeout 48h").
pub(super) fn is_meant(intent: &Intent) -> bool {
    let gpus = intent.gpus.is_some() || intent.gpu_model.is_some() || intent.gpu_memory.is_some();
    intent.batch_job
        || (intent.verb == Verb::Deploy && gpus && intent.timeout.is_some() && of_services(intent).is_none())
}

/// What a sentence says that only a service has.
fn of_services(intent: &Intent) -> Option<&'static str> {
    [
        (bounds::said(intent), "replicas"),
        (
            intent.strategy.is_some() || !intent.canary_steps.is_empty() || intent.batch.is_some(),
            "strategy",
        ),
        (intent.pause_between.is_some(), "batches"),
        (
            intent.promote_after.is_some() || !intent.promote_if.is_empty() || intent.promote_by_hand,
            "promotion",
        ),
        (!intent.rollback_if.is_empty(), "way back"),
        (intent.keep_old_for.is_some(), "old set"),
        (intent.port.is_some(), "port that is kept open for requests"),
    ]
    .into_iter()
    .find_map(|(said, what)| said.then_some(what))
}

/// The plan of a batch job. Its timeout is that of its run: the sentence's, `--timeout`, or the template's; none means
/// that it may run for ever.
pub(super) fn plan(intent: &Intent, facts: &Facts<'_>) -> Result<Plan, ApiError> {
    if let Some(what) = of_services(intent) {
        let message = format!("'{}' runs once, to its end: a job has no {what}", intent.target);
        return Err(ApiError::invalid("intent", message).hint("leave that out, or the word 'job'"));
    }
    let mut notes = Notes::default();
    let base = Base {
        spec: facts.workload.map(|standalone| standalone.spec),
        version: None,
    };
    let built = spec::build(intent, facts, base, &mut notes)?;
    let mut spec = built.spec;
    spec::hurry(&mut spec, intent);
    if let (Some(standalone), None) = (facts.workload, facts.template) {
        notes.warn(format!(
            "what isn't said is as in the workload {} of that name, which has ended",
            standalone.id
        ));
    }
    // A job that is started again after its success never ends.
    if spec.restart == RestartPolicy::Always {
        spec.restart = RestartPolicy::Never;
        notes.warn("it runs once: that it be started again after its success is left out");
    }
    spec.timeout = intent.timeout.or(facts.timeout).or(spec.timeout);
    if spec.timeout.is_some_and(Span::is_zero) {
        return Err(
            ApiError::invalid("timeout", "a job runs for some time: its timeout can't be 0")
                .hint("leave it out for none, or give it a length: 48h"),
        );
    }
    if spec.timeout.is_none() {
        notes.warn("it has no timeout: it may hold what it is given for ever; say `timeout 48h`");
    }
    let limit = spec
        .timeout
        .map_or_else(String::new, |timeout| format!(", for at most {timeout}"));
    let marks = facts.marks.cloned().unwrap_or_default();
    let mut changes = changes::of_spec(None, &spec, built.version.as_deref());
    changes.extend(changes::of_marks(None, &marks));
    let schedule = schedule(intent, facts)?;
    let mut plan = Plan {
        action: Action::Deploy,
        workload: intent.target.clone(),
        namespace: facts.namespace.to_owned(),
        batch: true,
        image: spec.image.clone(),
        replicas: 1,
        resources: resources(&spec),
        priority: spec.priority,
        timeout: spec.timeout,
        strategy: Strategy::Rolling,
        canary: None,
        blue_green: None,
        rolling: Rolling::default(),
        rollback_conditions: Vec::new(),
        autoscale: None,
        schedule,
        to_revision: None,
        basis: None,
        changes,
        marks,
        version: built.version,
        spec: Arc::new(spec),
        steps: Vec::new(),
        placement: Vec::new(),
        warnings: Vec::new(),
        missing: Vec::new(),
        digest: String::new(),
    };
    plan.steps = steps::of_job(&plan, &limit);
    plan.warnings = notes.warnings;
    plan.missing = notes.missing;
    Ok(plan)
}
