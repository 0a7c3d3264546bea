//! Operations on deployments.

use api::{
    ApiError, DeploymentId, Timestamp,
    deploy::Deployment,
    op::{
        ApplyRequest, DeployFilter, DeployRef, DeploymentStatus, DeploymentSummary, PauseRequest, PlanRequest, Planned,
        PromoteRequest, RetryRequest, RollbackRequest,
    },
};
use futures_util::Stream;
use rollout::drive;
use tokio::sync::mpsc;

use super::{
    App,
    deploying::{self, Wish, fulfil},
    events::tokio_stream,
    face::Call,
    stream::until_touched,
};
use crate::{
    auth, deploy,
    hub::now,
    view::{Touched, Versioned, name_of},
};

/// `deploy.plan`
pub async fn plan(call: Call, request: PlanRequest) -> Result<Planned, ApiError> {
    deploy::plan_to_show(&call.app, &call.identity, &request).await
}

/// `deploy.apply`
pub async fn apply(call: Call, request: ApplyRequest) -> Result<DeploymentStatus, ApiError> {
    fulfil(&call, Wish::Said(&request)).await
}

pub(super) fn shown(app: &App, id: &DeploymentId) -> Result<DeploymentStatus, ApiError> {
    let view = app.hub.view();
    let deployment = view
        .deployment(id)
        .ok_or_else(|| ApiError::not_found(format!("the deployment {id} is no longer kept")))?;
    Ok(deploy::status(&view, &app.doors, deployment, now()))
}

pub(super) fn find(call: &Call, id: &str, given: Option<&str>) -> Result<Versioned<Deployment>, ApiError> {
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
    deploying::change(call, id, |deployment, at| act(deployment, at).map(Some)).await?;
    shown(&call.app, id)
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
    fulfil(&call, Wish::Back(&request)).await
}

/// `deploy.retry`
pub async fn retry(call: Call, request: RetryRequest) -> Result<DeploymentStatus, ApiError> {
    fulfil(&call, Wish::Again(&request)).await
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
