//! A deployment begins, or the one under way is taken back: planned on what is there, and written on just that.
//!
//! ```text
//!  wish ── plan ──▶ act, on what was there ── still so? ──▶ one transaction
//!            ▲                                  │
//!            └───── a rollout went on meanwhile ┘     somebody else deployed meanwhile ──▶ CONFLICT, says who
//! ```
//!
//! A service's controller writes its record at every step of a rollout. Whoever deploys is never told of that: where the plan
//! stays the same, it is carried out on the service as it is now; where it doesn't, it is made anew. A plan that was shown is
//! carried out as it was shown, or refused as stale.

use std::sync::Arc;

use api::{
    ApiError, DeploymentId, ErrorCode, Timestamp,
    deploy::{Deployment, Phase, Plan},
    op::{ApplyRequest, DeploymentStatus, PlanRequest, RetryRequest, RollbackRequest, Submission},
};
use rollout::{
    drive,
    intent::{Intent, Verb},
    plan,
};

use super::{
    answers,
    deploy_ops::{find, shown},
    face::Call,
    workload_ops,
};
use crate::{
    auth,
    decide::submit,
    deploy::{self, Back, Before, Ground, Proposal},
    draft::Draft,
    hub::now,
    view::{ServiceName, View, Within, name_of},
};

/// Plans of one call, each made because the one before didn't fit any more.
const TRIES: usize = 16;

/// What somebody wants.
#[derive(Clone, Copy)]
pub enum Wish<'a> {
    /// What a sentence says.
    Said(&'a ApplyRequest),
    /// An earlier revision.
    Back(&'a RollbackRequest),
    /// The same once more.
    Again(&'a RetryRequest),
}

/// What a wish comes to, on what is there.
enum Act {
    /// A deployment begins, or waits for its time.
    Begin(Box<Deployment>, Before),
    /// The deployment under way goes back.
    TakeBack(TakeBack),
    /// The deployment that goes back already no longer waits for requests.
    Hasten(DeploymentId),
}

struct TakeBack {
    id: DeploymentId,
    why: String,
    immediate: bool,
    /// Whether one that is complete by now is gone back from like one that was complete before.
    complete_too: bool,
}

/// Does what is wished for, and shows the deployment that it is about. A repetition with the same idempotency key shows what
/// the first call made.
///
/// # Errors
/// It can't be done; `CONFLICT` if somebody else deployed at the same time, or the plan that was shown is stale.
pub async fn fulfil(call: &Call, wish: Wish<'_>) -> Result<DeploymentStatus, ApiError> {
    // Before anything else: what the first call made would stand in the way of its own repetition.
    if let Some(id) = made_earlier(call).await? {
        return shown(&call.app, &id);
    }
    let id = match attempts(call, wish).await {
        Ok(id) => id,
        // It may have been overtaken by its own repetition.
        Err(error) => match made_earlier(call).await {
            Ok(Some(id)) => id,
            Ok(None) | Err(_) => return Err(error),
        },
    };
    shown(&call.app, &id)
}

/// The deployment that an earlier call with the same idempotency key was about.
async fn made_earlier(call: &Call) -> Result<Option<DeploymentId>, ApiError> {
    match &call.idempotency {
        Some(key) => answers::earlier(call, key).await,
        None => Ok(None),
    }
}

/// Plans and writes, until what was planned on is what is there.
async fn attempts(call: &Call, wish: Wish<'_>) -> Result<DeploymentId, ApiError> {
    let mut begun = None;
    for _ in 0..TRIES {
        let done = match look(call, wish).await? {
            Act::Begin(deployment, before) => {
                let begun = begun.get_or_insert_with(|| before.begun.clone());
                begin(call, &deployment, &before, begun.as_ref()).await?
            }
            Act::TakeBack(asked) => take_back(call, &asked).await?,
            Act::Hasten(id) => Some(hasten(call, id).await?),
        };
        if let Some(id) = done {
            return Ok(id);
        }
    }
    Err(ApiError::conflict("it keeps changing: try again"))
}

async fn look(call: &Call, wish: Wish<'_>) -> Result<Act, ApiError> {
    match wish {
        Wish::Said(request) => said(call, request).await,
        Wish::Back(request) => back(call, request).await,
        Wish::Again(request) => again(call, request),
    }
}

async fn said(call: &Call, request: &ApplyRequest) -> Result<Act, ApiError> {
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
        let why = request.reason.clone().unwrap_or_else(|| "it was given up".to_owned());
        return Ok(Act::TakeBack(TakeBack {
            id: under_way.id.clone(),
            why,
            immediate: false,
            complete_too: false,
        }));
    }
    let asked = Asked {
        intent: request.request.intent.clone(),
        read_by: request.read_by.clone(),
        reason: request.reason.clone(),
        force: request.force,
        immediate: false,
    };
    asked.of(call, proposal)
}

async fn back(call: &Call, request: &RollbackRequest) -> Result<Act, ApiError> {
    let within = auth::within(&call.identity, request.namespace.as_deref())?;
    let meant = {
        let view = call.app.hub.view();
        match &request.to {
            None => deploy::going_back(&view, &request.id, within, request.immediate)?,
            Some(_) => Back::Anew(service_of(&view, &request.id, within)?),
        }
    };
    let (namespace, name) = match meant {
        Back::Turn(id) => {
            let why = request.reason.clone();
            return Ok(Act::TakeBack(TakeBack {
                id,
                why: why.unwrap_or_else(|| format!("{} asked for it", call.actor())),
                immediate: request.immediate,
                complete_too: true,
            }));
        }
        Back::Hasten(id) => return Ok(Act::Hasten(id)),
        Back::Anew(name) => name,
    };
    let intent = Intent {
        back_to: request.to.clone(),
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
        reason: request.reason.clone(),
        force: request.force,
        immediate: request.immediate,
    };
    asked.of(call, proposal)
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

fn again(call: &Call, request: &RetryRequest) -> Result<Act, ApiError> {
    let found = find(call, &request.id, request.namespace.as_deref())?;
    let id = DeploymentId::from_random(auth::random_number()?);
    let again = drive::retry(&found, id, &call.actor(), request.reason.clone(), now())?;
    let before = Before::look(&call.app.hub.view(), &name_of(&found));
    Ok(Act::Begin(Box::new(again), before))
}

/// What goes with a plan into its deployment's record.
struct Asked {
    intent: String,
    read_by: Option<String>,
    reason: Option<String>,
    force: bool,
    immediate: bool,
}

impl Asked {
    /// The deployment of what is proposed, unless something stands against it.
    fn of(self, call: &Call, proposal: Proposal) -> Result<Act, ApiError> {
        refuse(&proposal, self.force)?;
        let request = drive::Request {
            id: DeploymentId::from_random(auth::random_number()?),
            intent: self.intent,
            read_by: self.read_by,
            plan: Arc::new(proposal.planned.plan),
            by: call.actor(),
            reason: self.reason,
            immediate: self.immediate,
        };
        Ok(Act::Begin(Box::new(drive::request(request, now())), proposal.before))
    }
}

/// What stands against a plan.
fn refuse(proposal: &Proposal, force: bool) -> Result<(), ApiError> {
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
        Some(service) if !force => plan::looping(plan, service).map_or(Ok(()), Err),
        _ => Ok(()),
    }
}

/// Writes a new deployment and its first step, all in one transaction, on what it was planned on. `None`: that isn't what is
/// there any more. `begun`: the deployment that began last when the call was first looked at.
async fn begin(
    call: &Call,
    deployment: &Deployment,
    before: &Before,
    begun: Option<&DeploymentId>,
) -> Result<Option<DeploymentId>, ApiError> {
    let app = &call.app;
    let name = name_of(deployment);
    check_spec(call, &deployment.plan).await?;
    let answer = Answer::of(call).await?;
    let written = app
        .hub
        .decide(|view| {
            let at = now();
            let there = Before::look(view, &name);
            if there.begun.as_ref() != begun {
                return Err(overtaken(view, &there, &deployment.plan));
            }
            if !there.same_footing(before) {
                return Ok(None);
            }
            let mut draft = first_step(call, view, &there, deployment, at)?;
            answer.write(&mut draft, &deployment.id);
            Ok(Some(draft))
        })
        .await?;
    Ok(written.then(|| deployment.id.clone()))
}

fn first_step(
    call: &Call,
    view: &View,
    there: &Before,
    deployment: &Deployment,
    at: Timestamp,
) -> Result<Draft, ApiError> {
    let plan = &deployment.plan;
    if plan.batch {
        return batch(view, deployment.clone(), at);
    }
    if there.service.is_none()
        && let Some(holder) = view.active_named(&plan.namespace, &plan.workload)
    {
        return Err(submit::name_taken(&plan.workload, &plan.namespace, Some(&holder.id)));
    }
    let step = deploy::begin(&call.app, view, there, deployment, &call.identity.name, at)?;
    let ground = Ground {
        view,
        service: there.service.as_ref(),
        deployment: None,
        under_way: there.under_way.as_ref(),
        ready: &[],
        now: at,
    };
    deploy::draft(&ground, step)
}

/// A batch job's deployment: begun now, unless it is for later.
fn batch(view: &View, mut deployment: Deployment, at: Timestamp) -> Result<Draft, ApiError> {
    let mut draft = Draft::new();
    match deploy::job_due(view, &deployment, at) {
        drive::Due::Now => deploy::begin_job(&mut draft, view, &mut deployment, at, auth::random_number()?)?,
        drive::Due::Later(_) => {}
        drive::Due::Never(error) => return Err(error),
    }
    draft.put_deployment(None, &deployment);
    Ok(draft)
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
fn overtaken(view: &View, there: &Before, plan: &Plan) -> ApiError {
    match there.begun.as_ref().and_then(|id| view.deployment(id)) {
        Some(winner) => ApiError::conflict(format!(
            "{} deployed '{}' at the same time ({})",
            winner.by, plan.workload, winner.id
        ))
        .hint(format!("look at it first: clawbernetes deploy status {}", winner.id)),
        None => ApiError::conflict(format!("'{}' changed at the same time: try again", plan.workload)),
    }
}

/// Takes the deployment under way back. `None`: it is complete, and going back from it is to be planned.
async fn take_back(call: &Call, asked: &TakeBack) -> Result<Option<DeploymentId>, ApiError> {
    let TakeBack {
        id,
        why,
        immediate,
        complete_too,
    } = asked;
    let by = call.actor();
    let taken = change(call, id, |deployment, at| {
        if *complete_too && deployment.phase == Phase::Complete {
            return Ok(None);
        }
        drive::roll_back(deployment, why, &by, *immediate, at).map(Some)
    });
    Ok(taken.await?.then(|| id.clone()))
}

/// Has the deployment that goes back wait for no requests any more.
async fn hasten(call: &Call, id: DeploymentId) -> Result<DeploymentId, ApiError> {
    let by = call.actor();
    change(call, &id, |deployment, at| drive::hasten(deployment, &by, at).map(Some)).await?;
    Ok(id)
}

/// Changes a deployment as it is when this is written; whether there was anything to change.
pub(super) async fn change(
    call: &Call,
    id: &DeploymentId,
    mut act: impl FnMut(&Deployment, Timestamp) -> Result<Option<Deployment>, ApiError>,
) -> Result<bool, ApiError> {
    let answer = Answer::of(call).await?;
    call.app
        .hub
        .decide(|view| {
            let gone = || ApiError::not_found(format!("the deployment {id} is gone"));
            let deployment = view.deployment(id).ok_or_else(gone)?;
            Ok(act(deployment, now())?.map(|changed| {
                let mut draft = deploy::changed(view, deployment, &changed);
                answer.write(&mut draft, id);
                draft
            }))
        })
        .await
}

/// The answer that is kept for a repetition of the call, if it may be repeated.
struct Answer<'a> {
    call: &'a Call,
    kept: Option<(&'a str, store::LeaseId)>,
}

impl<'a> Answer<'a> {
    async fn of(call: &'a Call) -> Result<Self, ApiError> {
        let kept = match call.idempotency.as_deref() {
            None => None,
            Some(key) => Some((key, answers::lease(&call.app).await?)),
        };
        Ok(Self { call, kept })
    }

    fn write(&self, draft: &mut Draft, id: &DeploymentId) {
        if let Some((key, lease)) = self.kept {
            draft.answer(&self.call.identity.token_id, key, id, lease);
        }
    }
}
