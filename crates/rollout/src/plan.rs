//! An intent and what is there become a plan: every number that the sentence leaves open is filled in, and every sentence
//! that can't be carried out is refused here, before anything moves.
//!
//! - what it is about: a new service, another revision, a number of replicas, the way back, or a batch job
//! - `spec`: what a replica runs; `image`: which image a version means
//! - `bounds`: how many replicas, and between which bounds
//! - `strategy`: how one revision takes another's place, in numbers
//! - `changes` and `steps`: the same for people
//! - `dangers`: what is odd or dangerous about it as a whole
//! - `digest`: what an applied plan is told by
//!
//! Left to the caller, because it needs the fleet: where replicas would go ([`Plan::placement`]), and whether secrets are
//! there ([`Plan::missing`]).

mod amount;
mod back;
mod bounds;
mod changes;
mod dangers;
mod digest;
mod image;
mod job;
mod service;
mod spec;
mod steps;
mod strategy;

use api::{
    ApiError, ErrorCode, Size, Span, Timestamp, WorkloadId,
    deploy::{Action, Course, Deployment, Marks, Numbers, Plan, Revision, Schedule, Service, Standing, Strategy},
    id::check_name,
    nearest,
    workload::WorkloadSpec,
};

use crate::intent::{Intent, Verb, When};
pub use amount::canary_replicas;
pub use dangers::beyond_fleet;
pub use digest::{Footing, seal};

/// How long a deployment may take where nobody says.
pub const DEFAULT_TIMEOUT: Span = Span::secs(30 * 60);

/// Most replicas of a service.
pub const REPLICAS_MAX: u32 = 1_000;

/// Least memory that a replica can be given: less holds no process that does anything.
pub const MEMORY_MIN: Size = Size::mib(16);

/// What is there when a sentence is said.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The namespace that it is about: the sentence's own, if it names one.
    pub namespace: &'a str,
    /// The present.
    pub now: Timestamp,
    /// The service of the target's name.
    pub service: Option<&'a Service>,
    /// The deployment of it that is under way.
    pub under_way: Option<&'a Deployment>,
    /// The newest workload of the target's name that is no service's replica.
    pub workload: Option<Standalone<'a>>,
    /// The names of the namespace's services, for "did you mean".
    pub known: &'a [&'a str],
    /// `--image`.
    pub image: Option<&'a str>,
    /// `--file`.
    pub template: Option<&'a WorkloadSpec>,
    /// What the manifest marks replicas with. `None`: as before.
    pub marks: Option<&'a Marks>,
    /// `--timeout`, where it was given.
    pub timeout: Option<Span>,
    /// What a deployment may take where nobody says, beside the waits that it asks for itself: [`DEFAULT_TIMEOUT`].
    pub default_timeout: Span,
    /// The most memory that a replica was measured to use. `None`: not measured.
    pub memory_used: Option<Size>,
    /// Whether what was refused for being known as bad is wanted all the same.
    pub force: bool,
}

/// A workload that is no service's replica.
#[derive(Debug, Clone, Copy)]
pub struct Standalone<'a> {
    /// Its id.
    pub id: &'a WorkloadId,
    /// What it runs: the template of the first revision of a service of its name.
    pub spec: &'a WorkloadSpec,
    /// Whether it has ended; otherwise it holds its name.
    pub ended: bool,
}

/// What is said about a plan beside its numbers.
#[derive(Debug, Default)]
struct Notes {
    warnings: Vec<String>,
    missing: Vec<String>,
}

impl Notes {
    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }
}

/// What a deployment will do, sealed ([`seal`]), with an empty placement.
///
/// A plan with something in [`Plan::missing`] says what it would do, and can't be applied.
///
/// # Errors
/// - [`ErrorCode::InvalidArgument`]: parts of the sentence contradict each other, or a number is out of its range
/// - [`ErrorCode::NotFound`]: there is no such service or revision; names the nearest
/// - [`ErrorCode::AlreadyExists`]: a workload that is no service holds the name
/// - [`ErrorCode::Conflict`]: nothing would change, or the state doesn't allow it
pub fn make(intent: &Intent, facts: &Facts<'_>) -> Result<Plan, ApiError> {
    check_name(&intent.target).map_err(|error| {
        ApiError::invalid("intent", format!("'{}' can't be a service's name", intent.target)).cause(error.to_string())
    })?;
    if let Some(namespace) = &intent.namespace
        && namespace != facts.namespace
    {
        let message = format!(
            "the sentence is about namespace '{namespace}', the request about '{}'",
            facts.namespace
        );
        return Err(ApiError::invalid("namespace", message).hint("name one of them"));
    }
    let mut plan = match (intent.verb, facts.service) {
        (Verb::Rollback | Verb::Abort, Some(service)) => back::plan(intent, facts, service)?,
        (Verb::Deploy | Verb::Update | Verb::Scale | Verb::Restart, Some(service)) => {
            if intent.batch_job {
                let message = format!("'{}' is a service: it doesn't run once, to its end", service.name);
                return Err(ApiError::conflict(message).hint("give the job another name"));
            }
            service::change(intent, facts, service)?
        }
        (verb, None) => {
            if let Some(standalone) = facts.workload
                && !standalone.ended
            {
                return Err(name_taken(&intent.target, standalone.id));
            }
            let template = facts.template.is_some() || facts.workload.is_some();
            match verb {
                Verb::Deploy if job::is_meant(intent) => job::plan(intent, facts)?,
                Verb::Deploy => service::create(intent, facts)?,
                // What was started by `run`, and goes on as a service.
                Verb::Update if template => service::create(intent, facts)?,
                Verb::Update | Verb::Scale | Verb::Rollback | Verb::Abort | Verb::Restart => {
                    return Err(unknown(&intent.target, facts));
                }
            }
        }
    };
    seal(&mut plan, facts);
    Ok(plan)
}

/// Why a plan is refused unless it is forced: it brings back what is known as bad.
///
/// `None`: nothing is known against what it runs, or a later revision of the same was good, or it makes no revision (going
/// back to a bad one is refused by [`make`]).
#[must_use]
pub fn looping(plan: &Plan, service: &Service) -> Option<ApiError> {
    if !matches!(plan.action, Action::Deploy | Action::Update) {
        return None;
    }
    let revision = known_as(&plan.spec, service)?;
    (revision.standing == Standing::Bad).then(|| {
        let message = format!(
            "this is what {} was, and that was rolled back or couldn't be rolled out",
            steps::revision(revision)
        );
        ApiError::conflict(message).hint("change what was wrong with it, or say --force to try it again")
    })
}

/// The newest judged revision that runs just this.
fn known_as<'a>(spec: &WorkloadSpec, service: &'a Service) -> Option<&'a Revision> {
    let judged = |revision: &&Revision| revision.standing != Standing::New && *revision.spec == *spec;
    service.revisions.iter().rev().find(judged)
}

/// The most replicas that exist beyond those that are asked for while a plan is carried out, of its new revision.
#[must_use]
pub fn surge(plan: &Plan) -> u32 {
    if plan.batch || plan.action == Action::Scale {
        return 0;
    }
    match plan.strategy {
        Strategy::BlueGreen => plan.replicas,
        Strategy::Rolling => plan.rolling.max_surge,
        Strategy::Canary if plan.replicas == 1 => plan.rolling.max_surge.max(1),
        Strategy::Canary => plan.rolling.max_surge,
        Strategy::Immediate => 0,
    }
}

/// The revision that a service is on its way to, or is at: what a change is a change of.
fn current<'a>(service: &'a Service, under_way: Option<&Deployment>) -> Option<&'a Revision> {
    let number = basis(service, under_way);
    let known = number.and_then(|number| service.revision(number));
    known.or_else(|| service.revisions.last())
}

/// The revision on which a plan stands: the one on its way, otherwise the stable one. `None`: there is neither.
pub(crate) fn basis(service: &Service, under_way: Option<&Deployment>) -> Option<u32> {
    let coming = under_way
        .filter(|deployment| deployment.course == Course::Forward && !deployment.phase.ended())
        .and_then(|deployment| deployment.revision)
        .and_then(|number| service.revision(number));
    coming.or_else(|| service.stable()).map(|revision| revision.number)
}

/// The same plan for what a service has by now: numbers of replicas that nobody said are the service's, within bounds that
/// were said, and as large a part of them may be missing meanwhile.
pub(crate) fn for_service(plan: &Plan, service: &Service) -> Plan {
    let mut plan = plan.clone();
    let Some(basis) = plan.basis.clone() else {
        return plan;
    };
    let kept = basis.replicas == Numbers::Kept;
    if basis.bounds == Numbers::Kept {
        plan.autoscale.clone_from(&service.autoscale);
    }
    if kept {
        let (min, max) = plan
            .autoscale
            .as_ref()
            .map_or((1, u32::MAX), |bounds| (bounds.min, bounds.max));
        let planned = u64::from(plan.replicas.max(1));
        plan.replicas = service.replicas.max(min).min(max).max(1);
        let missing = u64::from(plan.rolling.max_unavailable) * u64::from(plan.replicas) / planned;
        plan.rolling.max_unavailable = u32::try_from(missing).unwrap_or(u32::MAX);
        if let Some(canary) = &mut plan.canary {
            for step in &mut canary.steps {
                step.replicas = amount::canary_replicas(step.percentage, plan.replicas);
                step.effective_percentage = amount::effective_percentage(step.replicas, plan.replicas);
            }
            canary.effective_replicas = canary.steps.first().map_or(1, |step| step.replicas);
        }
    }
    plan
}

/// When it begins.
fn schedule(intent: &Intent, facts: &Facts<'_>) -> Result<Option<Schedule>, ApiError> {
    match &intent.when {
        None => Ok(None),
        Some(When::At { time, .. }) if *time < facts.now => {
            Err(ApiError::invalid("intent", format!("{time} is past")).hint("leave the time out to begin at once"))
        }
        Some(When::At { time, zone }) => Ok(Some(Schedule {
            at: Some(*time),
            timezone: Some(zone.clone()),
            after: None,
        })),
        Some(When::After(deployment)) => Ok(Some(Schedule {
            at: None,
            timezone: None,
            after: Some(deployment.clone()),
        })),
    }
}

/// What becomes of the deployment that is under way.
fn supersede(facts: &Facts<'_>, schedule: Option<&Schedule>, notes: &mut Notes) {
    let Some(deployment) = facts.under_way.filter(|deployment| !deployment.phase.ended()) else {
        return;
    };
    if schedule.is_some_and(|schedule| schedule.after.as_ref() == Some(&deployment.id)) {
        return;
    }
    let what = deployment
        .plan
        .version
        .as_ref()
        .map(|version| format!(" ({version})"))
        .unwrap_or_default();
    notes.warn(format!(
        "supersedes {}{what}, which is {}: that one goes no further",
        deployment.id, deployment.phase
    ));
}

fn name_taken(name: &str, holder: &WorkloadId) -> ApiError {
    let message = format!("'{name}' is a workload by itself ({holder}), not a service: it has its name until it ends");
    ApiError::new(ErrorCode::AlreadyExists, message).hint(format!(
        "choose another name; or `clawbernetes workload cancel {name}` and say it again: the service then begins with \
         what that workload ran"
    ))
}

fn unknown(name: &str, facts: &Facts<'_>) -> ApiError {
    let error = ApiError::not_found(format!(
        "there is no service '{name}' in namespace '{}'",
        facts.namespace
    ));
    match nearest(name, facts.known.iter().copied()) {
        Some(near) => error.hint(format!("did you mean '{near}'?")),
        None if facts.workload.is_some() => error.hint(format!(
            "a workload of that name has ended; `clawbernetes deploy \"deploy {name}\"` makes a service of it"
        )),
        None if facts.known.is_empty() => error.hint(format!(
            "make it: clawbernetes deploy \"deploy {name}\" --image reg/{name}:v1"
        )),
        None => error.hint("`clawbernetes service list` shows those that there are"),
    }
}
