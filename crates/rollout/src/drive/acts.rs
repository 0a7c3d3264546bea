//! What a person may do to a deployment. Each is a change of its record; the next [`step`](super::step) acts upon it.

use api::{
    ApiError, DeploymentId, Timestamp,
    deploy::{Course, Deployment, Hold, Phase, Promotion},
    time::{after, between},
};

use super::{
    ACTOR,
    begin::{Request, request},
    judge,
    turn::{self, Stage},
};

fn under_way(deployment: &Deployment) -> Result<(), ApiError> {
    let id = &deployment.id;
    if deployment.phase.ended() {
        return Err(ApiError::conflict(format!("{id} has ended: {}", deployment.phase))
            .hint(format!("see `clawbernetes deploy status {id}`")));
    }
    if deployment.started_at.is_none() {
        return Err(ApiError::conflict(format!("{id} hasn't begun")).hint(format!(
            "it waits for its time; `clawbernetes deploy rollback {id}` calls it off"
        )));
    }
    Ok(())
}

fn forward(deployment: &Deployment) -> Result<(), ApiError> {
    under_way(deployment)?;
    match &deployment.course {
        Course::Forward => Ok(()),
        Course::Back { why, .. } => Err(ApiError::conflict(format!("{} goes back: {why}", deployment.id)).hint(
            format!(
                "when it has ended, `clawbernetes deploy retry {}` tries it once more",
                deployment.id
            ),
        )),
    }
}

/// A person's word that a deployment goes on: a canary all the way, or up to `percentage` of the requests; a second set is
/// switched to; an old set that is kept goes; a revision that is watched is called good. It also ends a hold.
///
/// # Errors
/// It has ended, hasn't begun or goes back; there is nothing to promote just now; `percentage` isn't for a canary, isn't
/// above its present share and below 100, or a condition fails or can't be told, and it isn't with `force`.
pub fn promote(
    deployment: &Deployment,
    by: &str,
    percentage: Option<f64>,
    force: bool,
    now: Timestamp,
) -> Result<Deployment, ApiError> {
    forward(deployment)?;
    let id = &deployment.id;
    let refuse = |message: &str, hint: String| Err(ApiError::conflict(format!("{id}: {message}")).hint(hint));
    match turn::stage(deployment) {
        Stage::Canary(i) => {
            let present = deployment.canary_steps[i].percentage;
            if let Some(percentage) = percentage
                && !(percentage > present && percentage < 100.0)
            {
                return Err(ApiError::invalid(
                    "percentage",
                    format!("{id} is at {present} % of the requests; the next share is above that and below 100"),
                )
                .hint(format!("all the way: `clawbernetes deploy promote {id}`")));
            }
        }
        Stage::Fill | Stage::Kept | Stage::Watch if percentage.is_some() => {
            return refuse(
                "only a canary has shares of requests",
                format!("`clawbernetes deploy promote {id}`"),
            );
        }
        Stage::Fill | Stage::Kept | Stage::Watch => {}
        Stage::Scale | Stage::Roll | Stage::Clear | Stage::Stop | Stage::Start if deployment.hold.is_some() => {
            return refuse(
                "there is nothing to promote",
                format!("let it go on: `clawbernetes deploy resume {id}`"),
            );
        }
        Stage::Scale | Stage::Roll | Stage::Clear | Stage::Stop | Stage::Start => {
            return refuse(
                "it goes on by itself",
                format!("`clawbernetes deploy status {id}` shows how far it is"),
            );
        }
    }
    if let Some(word) = deployment.promotion.as_ref().filter(|word| word.force || !force) {
        return refuse(
            &format!(
                "it was promoted already, by {}, and does so when its replicas are ready",
                word.by
            ),
            format!("`clawbernetes deploy status {id}` shows how far it is"),
        );
    }
    if let Some(objection) = judge::objection(deployment).filter(|_| !force) {
        return Err(
            ApiError::conflict(format!("{id} isn't found good: {objection}")).hint(format!(
                "promote it all the same: `clawbernetes deploy promote {id} --force`"
            )),
        );
    }
    let mut promoted = release(deployment, now);
    promoted.promotion = Some(Promotion {
        by: by.to_owned(),
        at: now,
        percentage,
        force,
    });
    turn::say(&mut promoted, &mut Vec::new(), "promoted".to_owned(), by, now);
    Ok(promoted)
}

/// Holds a deployment where it is: what it has is kept alive, and conditions still bring the old revision back.
///
/// # Errors
/// It has ended, hasn't begun, goes back or is held already.
pub fn pause(deployment: &Deployment, by: &str, why: Option<&str>, now: Timestamp) -> Result<Deployment, ApiError> {
    forward(deployment)?;
    if let Some(hold) = &deployment.hold {
        return Err(ApiError::conflict(format!(
            "{} is held already, by {}: {}",
            deployment.id, hold.by, hold.why
        ))
        .hint(format!("`clawbernetes deploy resume {}`", deployment.id)));
    }
    let mut paused = deployment.clone();
    let why = why.unwrap_or("paused").to_owned();
    paused.hold = Some(Hold {
        by: by.to_owned(),
        why: why.clone(),
        at: now,
    });
    paused.phase = Phase::Paused;
    turn::say(&mut paused, &mut Vec::new(), format!("held: {why}"), by, now);
    Ok(paused)
}

/// Lets a deployment that is held go on. The time on hold isn't counted; one that is held because its time was over has its
/// whole time once more.
///
/// # Errors
/// It isn't held.
pub fn resume(deployment: &Deployment, by: &str, now: Timestamp) -> Result<Deployment, ApiError> {
    forward(deployment)?;
    if deployment.hold.is_none() {
        return Err(ApiError::conflict(format!("{} isn't held", deployment.id)));
    }
    let mut resumed = release(deployment, now);
    turn::say(&mut resumed, &mut Vec::new(), "goes on".to_owned(), by, now);
    Ok(resumed)
}

/// The deployment without its hold.
fn release(deployment: &Deployment, now: Timestamp) -> Deployment {
    let mut released = deployment.clone();
    if let Some(hold) = released.hold.take() {
        let later = |deadline| match after(deadline, between(hold.at, now)) {
            later if deadline > hold.at => later,
            _ => after(now, turn::time(&deployment.plan)),
        };
        released.deadline = released.deadline.map(later);
    }
    released.phase = turn::phase(&released);
    released
}

/// Brings back what was before the deployment; one that hasn't begun is called off. Once more on one that goes back already,
/// it can only be made `immediate`: replicas are stopped without waiting for their requests.
///
/// # Errors
/// It has ended (a deployment that goes back to a revision is another one), or goes back already.
pub fn roll_back(
    deployment: &Deployment,
    why: &str,
    by: &str,
    immediate: bool,
    now: Timestamp,
) -> Result<Deployment, ApiError> {
    let id = &deployment.id;
    if deployment.phase.ended() {
        return Err(
            ApiError::conflict(format!("{id} has ended: {}", deployment.phase)).hint(format!(
                "to go back to a revision: `clawbernetes deploy rollback {} --to VERSION`",
                deployment.plan.workload
            )),
        );
    }
    let mut back = deployment.clone();
    if deployment.started_at.is_none() {
        back.phase = Phase::Failed;
        back.finished_at = Some(now);
        back.error = Some(ApiError::conflict(format!("called off by {by}: {why}")));
        turn::say(&mut back, &mut Vec::new(), format!("called off: {why}"), by, now);
        return Ok(back);
    }
    if let Course::Back {
        why: reason,
        by: who,
        immediate: already,
    } = &deployment.course
    {
        if *already || !immediate {
            return Err(
                ApiError::conflict(format!("{id} goes back already: {reason}")).hint(format!(
                    "without waiting for requests: `clawbernetes deploy rollback {id} --immediate`"
                )),
            );
        }
        back.course = Course::Back {
            why: reason.clone(),
            by: who.clone(),
            immediate,
        };
        turn::say(
            &mut back,
            &mut Vec::new(),
            "goes back without waiting for requests".to_owned(),
            by,
            now,
        );
        return Ok(back);
    }
    turn::turn_back(&mut back, why, by, immediate, now);
    turn::say(&mut back, &mut Vec::new(), format!("rolled back: {why}"), by, now);
    Ok(back)
}

/// Has a deployment whose way forward is to an earlier revision not wait for requests any more.
///
/// # Errors
/// It has ended, hasn't begun, is turned round itself, or doesn't wait already.
pub fn hasten(deployment: &Deployment, by: &str, now: Timestamp) -> Result<Deployment, ApiError> {
    forward(deployment)?;
    if deployment.immediate {
        return Err(ApiError::conflict(format!(
            "{} doesn't wait for requests already",
            deployment.id
        )));
    }
    let mut hastened = deployment.clone();
    hastened.immediate = true;
    let message = "goes back without waiting for requests".to_owned();
    turn::say(&mut hastened, &mut Vec::new(), message, by, now);
    Ok(hastened)
}

/// The same once more: another deployment with the same plan, at once. It makes a revision of its own.
///
/// # Errors
/// It hasn't ended, or it is complete.
pub fn retry(
    deployment: &Deployment,
    id: DeploymentId,
    by: &str,
    reason: Option<String>,
    now: Timestamp,
) -> Result<Deployment, ApiError> {
    match deployment.phase {
        Phase::Failed | Phase::RolledBack => {}
        Phase::Complete => {
            return Err(ApiError::conflict(format!(
                "{} is complete: there is nothing to try again",
                deployment.id
            )));
        }
        Phase::Pending | Phase::Rolling | Phase::Canary | Phase::Promoting | Phase::Paused => {
            return Err(
                ApiError::conflict(format!("{} hasn't ended: {}", deployment.id, deployment.phase))
                    .hint(format!("`clawbernetes deploy rollback {}` ends it", deployment.id)),
            );
        }
    }
    let mut plan = (*deployment.plan).clone();
    plan.schedule = None;
    let asked = Request {
        id,
        intent: deployment.intent.clone(),
        read_by: deployment.read_by.clone(),
        plan: std::sync::Arc::new(plan),
        by: by.to_owned(),
        reason,
        immediate: false,
    };
    Ok(request(asked, now))
}

/// A deployment whose service was deleted: it has ended.
#[must_use]
pub fn orphan(deployment: &Deployment, now: Timestamp) -> Deployment {
    let mut ended = deployment.clone();
    ended.phase = Phase::Failed;
    ended.finished_at = Some(now);
    let message = format!("the service '{}' was deleted", deployment.plan.workload);
    ended.error = Some(ApiError::not_found(message.clone()));
    turn::say(&mut ended, &mut Vec::new(), message, ACTOR, now);
    ended
}
