//! Operations on deployments.

use std::sync::Arc;

use api::{
    ApiError, DeploymentId, ErrorCode, Timestamp,
    deploy::{Deployment, Plan},
    op::{
        ApplyRequest, DeployFilter, DeployRef, DeploymentStatus, DeploymentSummary, PauseRequest, PlanRequest, Planned,
        PromoteRequest, RetryRequest, RollbackRequest, Submission,
    },
};
use futures_util::Stream;
use rollout::{
    drive,
    intent::{Intent, Verb},
    plan,
};
use tokio::sync::mpsc;

use super::{App, answers, events::tokio_stream, face::Call, stream::until_touched, workload_ops};
use crate::{
    auth,
    decide::submit,
    deploy::{self, Before, Ground, Proposal},
    draft::Draft,
    hub::{Committed, now},
    view::{ServiceName, Touched, Versioned, View, Within, name_of},
};

/// `deploy.plan`
pub async fn plan(call: Call, request: PlanRequest) -> Result<Planned, ApiError> {
    deploy::plan_to_show(&call.app, &call.identity, &request).await
}

/// `deploy.apply`
pub async fn apply(call: Call, request: ApplyRequest) -> Result<DeploymentStatus, ApiError> {
    // Before anything else: what the first call made would stand in the way of its own repetition.
    if let Some(key) = &call.idempotency
        && let Some(id) = answers::earlier::<DeploymentId>(&call, key).await?
    {
        return shown(&call.app, &id);
    }
    let proposal = deploy::plan(&call.app, &call.identity, &request.request, request.force).await?;
    if let Some(shown) = &request.digest
        && *shown != proposal.planned.plan.digest
    {
        return Err(
            ApiError::conflict("the plan that was shown is stale: something has changed since")
                .hint("look at the plan again, and apply that"),
        );
    }
    if let (Verb::Abort, Some(under_way)) = (proposal.verb, &proposal.before.under_way) {
        let (id, by) = (under_way.id.clone(), call.actor());
        let why = request.reason.unwrap_or_else(|| "it was given up".to_owned());
        return change(&call, &id, |deployment, at| {
            drive::roll_back(deployment, &why, &by, false, at)
        })
        .await;
    }
    let intent = request.request.intent.clone();
    let asked = Asked {
        intent,
        read_by: request.read_by,
        reason: request.reason,
        force: request.force,
        immediate: false,
    };
    start(&call, proposal, asked).await
}

/// What goes with a plan into its deployment's record.
struct Asked {
    intent: String,
    read_by: Option<String>,
    reason: Option<String>,
    force: bool,
    immediate: bool,
}

/// Makes a deployment of a plan, and begins it or has it wait for its time.
async fn start(call: &Call, proposal: Proposal, asked: Asked) -> Result<DeploymentStatus, ApiError> {
    refuse(&proposal, &asked)?;
    let request = drive::Request {
        id: DeploymentId::from_random(auth::random_number()?),
        intent: asked.intent,
        read_by: asked.read_by,
        plan: Arc::new(proposal.planned.plan),
        by: call.actor(),
        reason: asked.reason,
        immediate: asked.immediate,
    };
    write(call, drive::request(request, now()), proposal.before).await
}

/// Writes a new deployment and its first step: all in one transaction, on just what the plan was made on.
async fn write(call: &Call, mut deployment: Deployment, before: Before) -> Result<DeploymentStatus, ApiError> {
    let (app, at) = (&call.app, now());
    let id = deployment.id.clone();
    let plan = Arc::clone(&deployment.plan);
    check_spec(call, &plan).await?;
    let lease = match &call.idempotency {
        None => None,
        Some(_) => Some(answers::lease(app).await?),
    };
    let mut draft = {
        let view = app.hub.view();
        if plan.batch {
            batch(&view, &mut deployment, at)?
        } else {
            let step = deploy::begin(app, &view, &before, &deployment, &call.identity.name, at)?;
            let ground = Ground {
                view: &view,
                service: before.service.as_ref(),
                deployment: None,
                now: at,
            };
            deploy::draft(&ground, step)?
        }
    };
    if let (Some(key), Some(lease)) = (&call.idempotency, lease) {
        draft.answer(&call.identity.token_id, key, &id, lease);
    }
    match app.hub.commit(draft).await? {
        Committed::Done => shown(app, &id),
        Committed::Overtaken(_) => {
            if let Some(key) = &call.idempotency
                && let Some(id) = answers::earlier::<DeploymentId>(call, key).await?
            {
                return shown(app, &id);
            }
            Err(overtaken(&app.hub.view(), &plan))
        }
    }
}

/// A batch job's deployment: begun now, unless it is for later.
fn batch(view: &View, deployment: &mut Deployment, at: Timestamp) -> Result<Draft, ApiError> {
    let mut draft = Draft::new();
    match deploy::job_due(view, deployment, at) {
        drive::Due::Now => deploy::begin_job(&mut draft, view, deployment, at, auth::random_number()?)?,
        drive::Due::Later(_) => {}
        drive::Due::Never(error) => return Err(error),
    }
    draft.put_deployment(None, deployment);
    Ok(draft)
}

/// What stands against a plan.
fn refuse(proposal: &Proposal, asked: &Asked) -> Result<(), ApiError> {
    let plan = &proposal.planned.plan;
    if !plan.missing.is_empty() {
        let code = if plan.image.is_empty() {
            ErrorCode::InvalidArgument
        } else if !proposal.fits {
            ErrorCode::NoGpusAvailable
        } else {
            ErrorCode::NotFound
        };
        let message = format!(
            "something is missing for '{}': {}",
            plan.workload,
            plan.missing.join("; ")
        );
        return Err(ApiError::new(code, message).hint("--dry-run shows the whole plan"));
    }
    match &proposal.before.service {
        Some(service) if !asked.force => plan::looping(plan, service).map_or(Ok(()), Err),
        _ => Ok(()),
    }
}

/// What any workload is checked for: what a replica runs, and the secrets that it gets.
async fn check_spec(call: &Call, plan: &Plan) -> Result<(), ApiError> {
    let submission = Submission {
        name: Some(plan.workload.clone()),
        namespace: Some(plan.namespace.clone()),
        spec: (*plan.spec).clone(),
        ..Submission::default()
    };
    let workload = submit::workload(submission, 0, &call.identity.name, now())?;
    workload_ops::check_secrets(call, &[workload]).await
}

/// Two deployed at once: this one didn't win, and says who did.
fn overtaken(view: &View, plan: &Plan) -> ApiError {
    let name = (plan.namespace.clone(), plan.workload.clone());
    let winner = view.service(&name).and_then(|s| s.deployment.as_ref());
    match winner.and_then(|id| view.deployment(id)) {
        Some(winner) => ApiError::conflict(format!(
            "{} deployed '{}' at the same time ({})",
            winner.by, plan.workload, winner.id
        ))
        .hint(format!("look at it first: clawbernetes deploy status {}", winner.id)),
        None => match view.active_named(&name.0, &name.1) {
            Some(holder) => submit::name_taken(&name.1, &name.0, Some(&holder.id)),
            None => ApiError::conflict(format!("'{}' changed at the same time: try again", plan.workload)),
        },
    }
}

fn shown(app: &App, id: &DeploymentId) -> Result<DeploymentStatus, ApiError> {
    let view = app.hub.view();
    let deployment = view
        .deployment(id)
        .ok_or_else(|| ApiError::not_found(format!("the deployment {id} is no longer kept")))?;
    Ok(deploy::status(&view, &app.doors, deployment, now()))
}

fn find(call: &Call, id: &str, given: Option<&str>) -> Result<Versioned<Deployment>, ApiError> {
    let within = auth::within(&call.identity, given)?;
    deploy::deployment(&call.app.hub.view(), id, within).cloned()
}

/// `deploy.get`
pub async fn get(call: Call, request: DeployRef) -> Result<DeploymentStatus, ApiError> {
    let found = find(&call, &request.id, request.namespace.as_deref())?;
    shown(&call.app, &found.id)
}

/// `deploy.list`
pub async fn list(call: Call, filter: DeployFilter) -> Result<Vec<DeploymentSummary>, ApiError> {
    let only = auth::only(&call.identity, filter.namespace.as_deref())?;
    let (view, at) = (call.app.hub.view(), now());
    let mut found: Vec<_> = view
        .deployments()
        .filter(|d| only.is_none_or(|only| d.namespace == only))
        .filter(|d| filter.workload.as_ref().is_none_or(|name| d.plan.workload == *name))
        .filter(|d| !filter.running || !d.phase.ended())
        .filter(|d| !filter.successful || successful(d))
        .collect();
    found.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    found.truncate(filter.limit.map_or(usize::MAX, |l| l as usize));
    Ok(found.iter().map(|d| deploy::summary(&view, d, at)).collect())
}

/// Whether nothing went wrong with it, so far.
fn successful(deployment: &Deployment) -> bool {
    use api::deploy::Phase;
    !matches!(deployment.phase, Phase::Failed | Phase::RolledBack)
}

/// Changes a deployment, and shows it as it is then.
async fn change(
    call: &Call,
    id: &DeploymentId,
    mut act: impl FnMut(&Deployment, Timestamp) -> Result<Deployment, ApiError>,
) -> Result<DeploymentStatus, ApiError> {
    let app = &call.app;
    let kept = match &call.idempotency {
        None => None,
        Some(key) => Some((key, answers::lease(app).await?)),
    };
    let done = app
        .hub
        .decide(|view| {
            let gone = || ApiError::not_found(format!("the deployment {id} is gone"));
            let deployment = view.deployment(id).ok_or_else(gone)?;
            let changed = act(deployment, now())?;
            let mut draft = Draft::new();
            draft.put_deployment(Some(deployment.revision), &changed);
            deploy::tell(&mut draft, deployment, &changed);
            if let Some(left) = deploy::left_over(view, &changed) {
                draft.delete_service(left);
            }
            if let Some((key, lease)) = kept {
                draft.answer(&call.identity.token_id, key, id, lease);
            }
            Ok(Some(draft))
        })
        .await;
    // Another call with the same key may have done it meanwhile.
    if let (Err(error), Some((key, _))) = (done, kept) {
        let id = answers::earlier::<DeploymentId>(call, key).await?.ok_or(error)?;
        return shown(app, &id);
    }
    shown(app, id)
}

/// `deploy.promote`
pub async fn promote(call: Call, request: PromoteRequest) -> Result<DeploymentStatus, ApiError> {
    let found = find(&call, &request.id, request.namespace.as_deref())?;
    let by = call.actor();
    change(&call, &found.id, |deployment, at| {
        drive::promote(deployment, &by, request.percentage, request.force, at)
    })
    .await
}

/// `deploy.pause`
pub async fn pause(call: Call, request: PauseRequest) -> Result<DeploymentStatus, ApiError> {
    let found = find(&call, &request.id, request.namespace.as_deref())?;
    let by = call.actor();
    let why = request.reason.as_deref();
    change(&call, &found.id, |deployment, at| {
        drive::pause(deployment, &by, why, at)
    })
    .await
}

/// `deploy.resume`
pub async fn resume(call: Call, request: DeployRef) -> Result<DeploymentStatus, ApiError> {
    let found = find(&call, &request.id, request.namespace.as_deref())?;
    let by = call.actor();
    change(&call, &found.id, |deployment, at| drive::resume(deployment, &by, at)).await
}

/// `deploy.rollback`
pub async fn rollback(call: Call, request: RollbackRequest) -> Result<DeploymentStatus, ApiError> {
    if let Some(key) = &call.idempotency
        && let Some(id) = answers::earlier::<DeploymentId>(&call, key).await?
    {
        return shown(&call.app, &id);
    }
    let back = {
        let within = auth::within(&call.identity, request.namespace.as_deref())?;
        let view = call.app.hub.view();
        match &request.to {
            None => deploy::going_back(&view, &request.id, within, request.immediate)?,
            Some(_) => deploy::Back::Anew(service_of(&view, &request.id, within)?),
        }
    };
    let by = call.actor();
    let (namespace, name) = match back {
        deploy::Back::Turn(id) => {
            let why = request.reason.as_deref().unwrap_or("it was rolled back");
            return change(&call, &id, |deployment, at| {
                drive::roll_back(deployment, why, &by, request.immediate, at)
            })
            .await;
        }
        deploy::Back::Hasten(id) => {
            return change(&call, &id, |deployment, at| drive::hasten(deployment, &by, at)).await;
        }
        deploy::Back::Anew(name) => name,
    };
    let intent = Intent {
        back_to: request.to,
        ..Intent::new(Verb::Rollback, name.as_str())
    };
    let plan = PlanRequest {
        intent: intent.to_string(),
        namespace: Some(namespace),
        ..PlanRequest::default()
    };
    let proposal = deploy::propose(&call.app, &call.identity, &intent, &plan, request.force).await?;
    let asked = Asked {
        intent: plan.intent,
        read_by: None,
        reason: request.reason,
        force: request.force,
        immediate: request.immediate,
    };
    start(&call, proposal, asked).await
}

/// The service that is meant by its name, or by one of its deployments.
fn service_of(view: &View, text: &str, within: Within<'_>) -> Result<ServiceName, ApiError> {
    match deploy::deployment(view, text, within) {
        Ok(found) => Ok(name_of(found)),
        Err(error) => match deploy::service(view, text, within.namespace) {
            Ok(service) => Ok((service.namespace.clone(), service.value.name.clone())),
            Err(_) => Err(error),
        },
    }
}

/// `deploy.retry`
pub async fn retry(call: Call, request: RetryRequest) -> Result<DeploymentStatus, ApiError> {
    if let Some(key) = &call.idempotency
        && let Some(id) = answers::earlier::<DeploymentId>(&call, key).await?
    {
        return shown(&call.app, &id);
    }
    let found = find(&call, &request.id, request.namespace.as_deref())?;
    let id = DeploymentId::from_random(auth::random_number()?);
    let again = drive::retry(&found, id, &call.actor(), request.reason, now())?;
    let before = {
        let view = call.app.hub.view();
        let service = view.service(&name_of(&found)).cloned();
        let under_way = service.as_ref().and_then(|s| s.deployment.as_ref());
        Before {
            under_way: under_way.and_then(|id| view.deployment(id)).cloned(),
            service,
        }
    };
    write(&call, again, before).await
}

/// `deploy.watch`
pub fn watch(call: Call, request: DeployRef) -> impl Stream<Item = Result<DeploymentStatus, ApiError>> + Send {
    let (send, receive) = mpsc::channel(16);
    tokio::spawn(async move {
        if let Err(error) = send_states(&call, request, &send).await {
            let _ = send.send(Err(error)).await;
        }
    });
    tokio_stream(receive)
}

async fn send_states(
    call: &Call,
    request: DeployRef,
    send: &mpsc::Sender<Result<DeploymentStatus, ApiError>>,
) -> Result<(), ApiError> {
    let app = &call.app;
    let mut changes = app.hub.changes();
    let found = find(call, &request.id, request.namespace.as_deref())?;
    let name = name_of(&found);
    let mut last = None;
    loop {
        let status = shown(app, &found.id)?;
        let ended = status.summary.phase.ended();
        // Times pass by themselves: what counts is what happened.
        let told = (
            status.summary.phase,
            status.message.clone(),
            status.revisions.clone(),
            status.checks.clone(),
            status.verdicts.clone(),
            status.waits_for.clone(),
        );
        if last.as_ref() != Some(&told) || ended {
            last = Some(told);
            if send.send(Ok(status)).await.is_err() || ended {
                return Ok(());
            }
        }
        let about = |touched: &Touched| match touched {
            Touched::Service(service, _) => *service == name,
            Touched::Deployment(id, _) => *id == found.id,
            Touched::Workload(id, ..) => app.hub.view().replica_of(id) == Some(&name) || found.job.as_ref() == Some(id),
            Touched::Node(..) | Touched::Other => false,
        };
        if !until_touched(&mut changes, send, about).await {
            return Ok(());
        }
    }
}
