//! Deployments of batch jobs: one workload, followed to its end.

use api::{
    ApiError, ErrorCode, Timestamp,
    deploy::{Deployment, MOMENTS_MAX, Moment, Phase},
    op::Submission,
    workload::{Phase as JobPhase, Workload},
};
use rollout::drive;

use super::{carry_out, find};
use crate::{
    decide::submit,
    draft::Draft,
    lifecycle,
    view::{Versioned, View},
};

/// Who is named where nobody in person did it.
const ACTOR: &str = drive::ACTOR;

/// A deployment's next step, and when to look again although nothing changed. `random` makes the job's id.
///
/// # Errors
/// The job can't be submitted for a reason that may pass.
pub fn step(
    view: &View,
    deployment: &Versioned<Deployment>,
    now: Timestamp,
    random: u64,
) -> Result<(Option<Draft>, Option<Timestamp>), ApiError> {
    let mut next = Deployment::clone(deployment);
    let mut draft = Draft::new();
    match &deployment.job {
        None => match due(view, deployment, now) {
            drive::Due::Later(at) => return Ok((None, at)),
            drive::Due::Never(error) => fail(&mut next, error, now),
            drive::Due::Now => {
                if let Err(error) = begin(&mut draft, view, &mut next, now, random) {
                    fail(&mut next, error, now);
                }
            }
        },
        Some(id) => match view.workload(id) {
            Some(job) => follow(&mut next, job, now),
            None => fail(&mut next, ApiError::not_found(format!("the job {id} is gone")), now),
        },
    }
    if next == **deployment {
        return Ok((None, None));
    }
    draft.put_deployment(Some(deployment.revision), &next);
    carry_out::tell(&mut draft, deployment, &next);
    Ok((Some(draft), None))
}

/// When a deployment may begin.
#[must_use]
pub fn due(view: &View, deployment: &Deployment, now: Timestamp) -> drive::Due {
    let plan = &deployment.plan;
    drive::due(plan.schedule.as_ref(), find::awaited(view, plan), now)
}

/// Begins a deployment: its job is put into the queue.
///
/// # Errors
/// Its name is taken, or nothing can run what it asks for.
pub fn begin(
    draft: &mut Draft,
    view: &View,
    deployment: &mut Deployment,
    now: Timestamp,
    random: u64,
) -> Result<(), ApiError> {
    let plan = &deployment.plan;
    if let Some(holder) = view.active_named(&plan.namespace, &plan.workload) {
        return Err(submit::name_taken(&plan.workload, &plan.namespace, Some(&holder.id)));
    }
    let submission = Submission {
        name: Some(plan.workload.clone()),
        namespace: Some(plan.namespace.clone()),
        labels: plan.marks.labels.clone(),
        annotations: plan.marks.annotations.clone(),
        spec: (*plan.spec).clone(),
    };
    let job = submit::workload(submission, random, &deployment.by, now)?;
    deployment.job = Some(job.id.clone());
    deployment.started_at = Some(now);
    let message = format!("{} is in the queue", job.id);
    enter(deployment, Phase::Rolling, message, now);
    draft.create_workload(&job, lifecycle::submitted(&job));
    Ok(())
}

fn follow(deployment: &mut Deployment, job: &Workload, now: Timestamp) {
    let why = || job.message.clone().or_else(|| job.reason.clone()).unwrap_or_default();
    match job.phase {
        JobPhase::Succeeded => {
            deployment.finished_at = job.finished_at.or(Some(now));
            enter(deployment, Phase::Complete, format!("{} succeeded", job.id), now);
        }
        JobPhase::Failed | JobPhase::Cancelled | JobPhase::TimedOut | JobPhase::Preempted | JobPhase::Lost => {
            let code = job
                .reason
                .as_deref()
                .and_then(ErrorCode::named)
                .unwrap_or(match job.phase {
                    JobPhase::TimedOut => ErrorCode::WorkloadTimeout,
                    _ => ErrorCode::Internal,
                });
            let error = ApiError::new(code, format!("{} {}: {}", job.id, job.phase, why()))
                .hint(format!("clawbernetes workload logs {}", job.id));
            fail(deployment, error, now);
        }
        JobPhase::Pending | JobPhase::Scheduled | JobPhase::Pulling | JobPhase::Running => {
            let message = match job.phase {
                JobPhase::Running => format!("{} runs", job.id),
                phase => format!("{} is {phase}: {}", job.id, why()),
            };
            // Told where it changes; not each of the queue's reasons is a moment of the deployment.
            deployment.message = Some(message.trim_end_matches(": ").to_owned());
        }
    }
}

fn fail(deployment: &mut Deployment, error: ApiError, now: Timestamp) {
    deployment.finished_at = Some(now);
    enter(deployment, Phase::Failed, error.message.clone(), now);
    deployment.error = Some(error);
}

fn enter(deployment: &mut Deployment, phase: Phase, message: String, now: Timestamp) {
    deployment.phase = phase;
    deployment.message = Some(message.clone());
    deployment.timeline.push(Moment {
        at: now,
        phase,
        message,
        actor: ACTOR.to_owned(),
    });
    let over = deployment.timeline.len().saturating_sub(MOMENTS_MAX);
    deployment.timeline.drain(..over);
}
