//! How far a deployment is, and how long it takes.

use api::{
    Span,
    deploy::{Course, Deployment, Service},
    op::StepView,
    time::{after, between},
};

use super::{
    Seen, State,
    judge::observation,
    turn::{self, Stage},
};

/// The step that a deployment is in. `None`: it hasn't begun, or has ended.
#[must_use]
pub fn step_view(deployment: &Deployment, service: &Service) -> Option<StepView> {
    if deployment.phase.ended() || deployment.started_at.is_none() {
        return None;
    }
    let called = |revision: Option<u32>| revision.map_or_else(String::new, |revision| turn::called(service, revision));
    if let Course::Back { .. } = deployment.course {
        let what = match deployment.from {
            Some(from) => format!("back to {}", called(Some(from))),
            None => "what was started is stopped".to_owned(),
        };
        return Some(StepView {
            number: 1,
            of: 1,
            what,
            since: None,
            until: None,
        });
    }
    let stages = turn::stages(deployment);
    let stage = turn::stage(deployment);
    let plan = &deployment.plan;
    let new = called(deployment.revision);
    let what = match stage {
        Stage::Scale => format!("from {} to {} replicas", deployment.replicas_before, plan.replicas),
        Stage::Roll => format!("replicas are replaced by {new}"),
        Stage::Canary(i) => format!("{} % of the requests to {new}", deployment.canary_steps[i].percentage),
        Stage::Fill => format!("a whole second set, of {new}"),
        Stage::Kept => format!("all requests to {new}; the old set is kept"),
        Stage::Clear => "the old set goes".to_owned(),
        Stage::Stop => "the old replicas stop".to_owned(),
        Stage::Start => format!("replicas of {new} start"),
        Stage::Watch => format!("{new} is watched"),
    };
    let waits = wait(deployment, stage).filter(|_| deployment.hold.is_none());
    let since = deployment.step_since;
    Some(StepView {
        number: deployment.step.saturating_add(1),
        of: u32::try_from(stages.len()).unwrap_or(u32::MAX),
        what,
        since,
        until: waits
            .filter(|_| stage != Stage::Roll)
            .and_then(|wait| Some(after(since?, wait))),
    })
}

/// How long a stage lasts once all that it needs is there. `None`: until a person or a judgement says so, or it isn't known.
fn wait(deployment: &Deployment, stage: Stage) -> Option<Span> {
    let plan = &deployment.plan;
    match stage {
        Stage::Canary(_) => {
            let canary = plan.canary.as_ref().filter(|canary| canary.auto_promote)?;
            canary.promote_after
        }
        Stage::Fill => {
            let plan = plan.blue_green.as_ref()?;
            plan.auto_switch.then_some(plan.check_for)
        }
        Stage::Kept => {
            let kept = plan.blue_green.as_ref()?.keep_old_for;
            let kept = if deployment.from.is_some() { kept } else { Span(0) };
            Some(kept.max(observation(plan)))
        }
        Stage::Watch => Some(observation(plan)),
        Stage::Scale | Stage::Roll | Stage::Clear | Stage::Stop | Stage::Start => Some(Span(0)),
    }
}

/// Time until the deployment is done, if nothing is found against it: the waits that it still asks for, and for replicas to
/// come the time that those took that came. `None`: a person or a judgement is waited for, it goes back, or replicas are to
/// come and none has come yet.
#[must_use]
pub fn remaining(deployment: &Deployment, seen: &Seen<'_>) -> Option<Span> {
    if deployment.phase.ended() || deployment.started_at.is_none() || deployment.hold.is_some() {
        return None;
    }
    if deployment.course != Course::Forward {
        return None;
    }
    let plan = &deployment.plan;
    let now = stages_left(deployment);
    let subject = deployment.revision.or(seen.service.stable)?;
    let wanted = seen.service.replicas.max(1);
    let (mut ready, mut startup): (u32, Option<u64>) = (0, None);
    for member in seen.service.members.iter().filter(|member| member.revision == subject) {
        let state = seen.replicas.iter().find(|replica| replica.workload == member.workload);
        if let Some(State::Ready { since }) = state.map(|replica| &replica.state) {
            ready += u32::from(member.retiring.is_none());
            // One that was ready before this deployment tells nothing of how long it takes to start now.
            startup = startup.max(Some(between(member.since, *since).millis()));
        }
    }
    let batch = u64::from(
        plan.rolling
            .max_surge
            .saturating_add(plan.rolling.max_unavailable)
            .max(1),
    );
    let mut left: u64 = 0;
    let mut there = ready;
    for (i, stage) in now.into_iter().enumerate() {
        let goal = match stage {
            Stage::Canary(i) => deployment.canary_steps[i].replicas.max(1),
            _ => wanted,
        };
        let missing = u64::from(goal.saturating_sub(there));
        if missing > 0 && !matches!(stage, Stage::Stop) {
            let batches = if stage == Stage::Roll {
                missing.div_ceil(batch)
            } else {
                1
            };
            left = left.saturating_add(startup?.saturating_mul(batches));
            if stage == Stage::Roll {
                left = left.saturating_add(
                    plan.rolling
                        .pause_between
                        .millis()
                        .saturating_mul(batches.saturating_sub(1)),
                );
            }
            there = goal;
        }
        let wait = wait(deployment, stage)?.millis();
        let passed = match deployment.step_since {
            Some(since) if i == 0 => between(since, seen.now).millis(),
            _ => 0,
        };
        left = left.saturating_add(wait.saturating_sub(passed));
    }
    Some(Span(left))
}

fn stages_left(deployment: &Deployment) -> Vec<Stage> {
    let step = usize::try_from(deployment.step).unwrap_or(usize::MAX);
    turn::stages(deployment).into_iter().skip(step).collect()
}
