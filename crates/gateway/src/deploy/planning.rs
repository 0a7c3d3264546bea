//! From a sentence to a plan, with what only the fleet can tell: where it would go, and what is missing.

use api::{
    ApiError, ErrorCode, Size, Span, Timestamp,
    auth::Identity,
    deploy::{Deployment, Marks, Plan, PlannedReplica, Service, ServicePort, ServiceProtocol, Strategy},
    node::GpuInfo,
    op::{Explanation, PlanRequest, Planned, Submission},
    time,
    workload::Workload,
};
use jiff::tz::TimeZone;
use rollout::{
    drive,
    intent::{self, Intent, Verb},
    plan::{self, Facts, Standalone},
};
use telemetry::metrics::{Aggregate, Matcher};

use super::{
    Before,
    carry_out::{REVISION_LABEL, SERVICE_LABEL},
    find,
};
use crate::{
    auth,
    decide::submit,
    hub::now,
    secrets::{Place, Secrets, unreadable},
    serve::App,
    view::{ServiceName, Versioned, View},
};

/// How far back the memory of replicas is looked at.
const MEMORY_WINDOW: Span = Span::secs(3600);
/// Most replicas whose places are looked for: the scheduler has other work, too.
const PLACED_MAX: u32 = 200;

/// A plan, and what it was made on.
pub struct Proposal {
    /// The plan, as it is shown.
    pub planned: Planned,
    /// What the sentence asks for.
    pub verb: Verb,
    /// What it was made on.
    pub before: Before,
    /// Whether some node could run what is new in it, with nothing else on it; as far as is known.
    pub fits: bool,
}

/// Reads a sentence, and plans what it asks for.
///
/// # Errors
/// It can't be read, or can't be done.
pub async fn plan(app: &App, identity: &Identity, request: &PlanRequest, force: bool) -> Result<Proposal, ApiError> {
    let at = now();
    let zone = match request.timezone.as_deref() {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name).map_err(|error| {
            ApiError::invalid("timezone", format!("'{}' is no time zone", name.escape_debug())).cause(error.to_string())
        })?,
    };
    let reading = intent::read_about(&request.intent, &at.to_zoned(zone), request.name.as_deref())?;
    let mut proposal = propose(app, identity, &reading.intent, request, force).await?;
    proposal.planned.plan.warnings.extend(reading.notes);
    Ok(proposal)
}

/// As [`plan`], only to be shown: words that the grammar can't read are given to the model, if there is one.
///
/// # Errors
/// They can't be read, by the model neither; or can't be done.
pub async fn plan_to_show(app: &App, identity: &Identity, request: &PlanRequest) -> Result<Planned, ApiError> {
    let refused = match plan(app, identity, request, false).await {
        Ok(proposal) => return Ok(proposal.planned),
        Err(error) => error,
    };
    let Some(reader) = app.reader.as_ref().filter(|_| misread(&refused)) else {
        return Err(refused);
    };
    let namespace = auth::namespace(identity, request.namespace.as_deref())?;
    let sentence = match reader.rewrite(app, &request.intent, namespace).await {
        Ok(sentence) => sentence,
        Err(error) => return Err(refused.cause(error.message)),
    };
    let again = PlanRequest {
        intent: sentence.clone(),
        ..request.clone()
    };
    let mut proposal = plan(app, identity, &again, false).await.map_err(|error| {
        let cause = format!("{} read it as \"{sentence}\"", reader.name());
        ApiError {
            cause: Some(cause),
            ..error
        }
    })?;
    proposal.planned.read_by = Some(reader.name().to_owned());
    Ok(proposal.planned)
}

/// Whether the words themselves are what was refused.
fn misread(error: &ApiError) -> bool {
    error.code == ErrorCode::InvalidArgument && error.field.as_deref() == Some("intent")
}

/// Plans what an intent asks for.
///
/// # Errors
/// It can't be done.
pub async fn propose(
    app: &App,
    identity: &Identity,
    intent: &Intent,
    request: &PlanRequest,
    force: bool,
) -> Result<Proposal, ApiError> {
    let at = now();
    let asked = intent.namespace.as_deref().or(request.namespace.as_deref());
    let namespace = auth::namespace(identity, asked)?.to_owned();
    let name: ServiceName = (namespace.clone(), intent.target.clone());
    let there = There::look(&app.hub.view(), &name);
    check_from(intent, &there)?;
    let known: Vec<&str> = there.known.iter().map(String::as_str).collect();
    let before = &there.before;
    let memory_used = before.service.as_ref().and_then(|s| memory_used(app, s, at));
    let facts = Facts {
        namespace: &namespace,
        now: at,
        service: before.service.as_deref(),
        under_way: before.under_way.as_deref(),
        workload: there.workload.as_ref().map(|w| Standalone {
            id: &w.id,
            spec: &w.spec,
            ended: w.phase.ended(),
        }),
        known: &known,
        image: request.image.as_deref(),
        template: request.template.as_ref(),
        marks: request.marks.as_ref(),
        timeout: request.timeout,
        default_timeout: plan::DEFAULT_TIMEOUT,
        memory_used,
        force,
    };
    let mut plan = plan::make(intent, &facts)?;
    if !plan.batch {
        check_labels(&plan.marks)?;
    }
    if let Some(id) = plan.schedule.as_ref().and_then(|schedule| schedule.after.as_ref())
        && app.hub.view().deployment(id).is_none()
    {
        return Err(
            ApiError::not_found(format!("there is no deployment {id} that it could wait for"))
                .hint("clawbernetes deploy list --all"),
        );
    }
    let fits = place(app, &mut plan, &there, identity).await?;
    missing_secrets(app, &mut plan).await?;
    Ok(Proposal {
        planned: Planned {
            understood: intent.to_string(),
            read_by: None,
            plan,
        },
        verb: intent.verb,
        before: there.before,
        fits,
    })
}

/// "from v1 to v2" is refused where v1 isn't what runs: whoever said it has another state in mind.
fn check_from(intent: &Intent, there: &There) -> Result<(), ApiError> {
    let (Some(from), Some(service)) = (&intent.from_version, &there.before.service) else {
        return Ok(());
    };
    let stable = service.stable().and_then(|revision| revision.version.as_deref());
    if stable.is_some_and(|stable| stable.trim_start_matches('v') == from.trim_start_matches('v')) {
        return Ok(());
    }
    let runs = stable.map_or_else(|| "no version of a name".to_owned(), str::to_owned);
    let message = format!("'{}' runs {runs}, not {from}", service.value.name);
    Err(ApiError::conflict(message).hint("leave \"from …\" out, or look first: clawbernetes service status"))
}

/// Labels that each replica gets by itself aren't for others to give.
fn check_labels(marks: &Marks) -> Result<(), ApiError> {
    let own = |key: &&String| [SERVICE_LABEL, REVISION_LABEL].contains(&key.as_str());
    match marks.labels.keys().find(own) {
        None => Ok(()),
        Some(key) => Err(ApiError::invalid(
            "metadata.labels",
            format!("the label '{key}' can't be given: each replica gets it by itself"),
        )
        .hint("leave it out, or give it another name")),
    }
}

/// What is there of a name.
struct There {
    before: Before,
    workload: Option<Versioned<Workload>>,
    known: Vec<String>,
}

impl There {
    fn look(view: &View, name: &ServiceName) -> Self {
        Self {
            before: Before::look(view, name),
            workload: view.named(&name.0, &name.1).cloned(),
            known: view
                .services()
                .filter(|s| s.namespace == name.0)
                .map(|s| s.value.name.clone())
                .collect(),
        }
    }
}

/// The most memory that a replica was measured to use of late. `None`: not measured.
fn memory_used(app: &App, service: &Service, at: Timestamp) -> Option<Size> {
    let (from, to) = (
        time::before(at, MEMORY_WINDOW).as_millisecond(),
        at.as_millisecond() + 1,
    );
    let used = service.members.iter().filter_map(|member| {
        let matchers = [
            Matcher::name("workload.memory"),
            Matcher::eq("workload", member.workload.as_str()),
        ];
        let windows = app
            .metrics
            .store
            .windows(&matchers, from, to, to - from, Aggregate::Max);
        let series = windows.ok()?.series;
        let points = series.iter().flat_map(|s| &s.points).map(|(_, value)| *value);
        points.fold(None, |most: Option<f64>, value| {
            Some(most.map_or(value, |most| most.max(value)))
        })
    });
    let most = used.fold(None, |most: Option<f64>, value| {
        Some(most.map_or(value, |most| most.max(value)))
    })?;
    Some(Size(most.max(0.0) as u64))
}

/// Looks where the replicas that a plan adds would go, and names what no node has. False: none could ever run them.
async fn place(app: &App, plan: &mut Plan, there: &There, identity: &Identity) -> Result<bool, ApiError> {
    if plan.image.is_empty() {
        return Ok(true);
    }
    let more = added(plan, there.before.service.as_deref()).min(PLACED_MAX);
    let mut preview = Vec::new();
    for i in 0..more.max(1) {
        let submission = Submission {
            // Names don't matter here, but must differ.
            name: Some(format!("preview-{i}")),
            namespace: Some(plan.namespace.clone()),
            spec: (*plan.spec).clone(),
            ..Submission::default()
        };
        // It says as well what nothing can run.
        preview.push(submit::workload(submission, u64::from(i), &identity.name, now())?);
    }
    let gpus = fleet_gpus(&app.hub.view(), plan.resources.gpu_type.as_deref());
    plan.warnings
        .extend(gpus.and_then(|gpus| plan::beyond_fleet(plan, gpus)));
    if more == 0 {
        return Ok(true);
    }
    let told = app.planner.preview(preview).await?;
    let known = gpus.is_some();
    let fits = !known || told.first().is_none_or(|t| t.fits_empty_fleet != Some(false));
    if !fits {
        let why = told.first().map(|t| t.summary.clone()).unwrap_or_default();
        plan.missing
            .push(format!("a node that can run it, even with nothing else on it: {why}"));
    }
    plan.placement = told.iter().map(planned).collect();
    let waiting = plan.placement.iter().filter(|p| p.node.is_none()).count();
    if waiting > 0 && plan.missing.is_empty() {
        let why = told.iter().find(|t| t.placement.is_empty()).map(|t| t.summary.as_str());
        plan.warnings.push(format!(
            "{waiting} of {more} new replicas would wait: {}",
            why.unwrap_or_default()
        ));
    }
    Ok(fits)
}

/// GPUs of this model that the fleet has in all. `None`: not known, of a node that has yet to say what it has, or of a fleet
/// that has yet to come.
fn fleet_gpus(view: &View, model: Option<&str>) -> Option<u32> {
    let all: Option<Vec<_>> = view.nodes().map(|node| node.inventory.as_ref()).collect();
    let all = all.filter(|all| !all.is_empty())?;
    let of_model = |gpu: &&GpuInfo| model.is_none_or(|model| scheduler::model_matches(model, &gpu.model));
    u32::try_from(
        all.iter()
            .flat_map(|inventory| &inventory.gpus)
            .filter(of_model)
            .count(),
    )
    .ok()
}

/// How many replicas a plan adds at once, before it takes any away.
fn added(plan: &Plan, service: Option<&Service>) -> u32 {
    let stable = service.and_then(|s| s.stable).is_some();
    match plan.action {
        _ if plan.batch => 1,
        api::deploy::Action::Scale => plan.replicas.saturating_sub(service.map_or(0, |s| s.replicas)),
        _ if !stable => plan.replicas,
        _ => match plan.strategy {
            Strategy::Canary => plan.canary.as_ref().map_or(1, |c| c.effective_replicas),
            Strategy::Immediate => 0,
            Strategy::BlueGreen | Strategy::Rolling => plan::surge(plan),
        },
    }
}

fn planned(told: &Explanation) -> PlannedReplica {
    match told.placement.first() {
        Some(member) => PlannedReplica {
            node: Some(member.node.clone()),
            why: None,
        },
        None => PlannedReplica {
            node: None,
            why: Some(told.summary.clone()),
        },
    }
}

/// Names the secrets that aren't there.
async fn missing_secrets(app: &App, plan: &mut Plan) -> Result<(), ApiError> {
    let secrets = Secrets {
        store: app.hub.store(),
        trust: &app.trust,
    };
    for used in &plan.spec.secrets {
        let place = Place::new(&plan.namespace, &used.secret)?;
        let missing = match secrets.get(&place).await {
            Ok(secret) => secret.value.read(None, now()).err().map(|e| unreadable(&e).message),
            Err(error) if error.code == ErrorCode::NotFound => Some("it isn't there".to_owned()),
            Err(error) => return Err(error),
        };
        if let Some(why) = missing {
            let how = format!("clawbernetes secret set {} -n {}", used.secret, plan.namespace);
            plan.missing.push(format!("the secret {}: {why} ({how})", used.secret));
        }
    }
    Ok(())
}

/// Begins what was planned, on what it was planned on: the step that is to be written.
///
/// # Errors
/// It can't be begun now.
pub fn begin(
    app: &App,
    view: &View,
    before: &Before,
    deployment: &Deployment,
    owner: &str,
    at: Timestamp,
) -> Result<drive::Step, ApiError> {
    let plan = &deployment.plan;
    let mut service = match &before.service {
        Some(service) => Service::clone(service),
        None => drive::service(plan, owner, None, at),
    };
    if service.port.is_none() && !plan.spec.ports.is_empty() {
        service.port = Some(ServicePort {
            port: app.doors.free_port(view)?,
            protocol: ServiceProtocol::of(&plan.spec),
        });
    }
    let under_way = before.under_way.as_deref();
    let mut step = drive::begin(deployment, &service, under_way, find::awaited(view, plan), at)?;
    // What was added here, or is new altogether, is to be written though the step itself changes nothing of it.
    let known = before.service.as_ref().is_some_and(|seen| **seen == service);
    if step.service.is_none() && !known {
        step.service = Some(service);
    }
    if step.deployment.is_none() {
        step.deployment = Some(deployment.clone());
    }
    Ok(step)
}
