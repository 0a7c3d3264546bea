//! What is dangerous or odd about a plan as a whole: it can be meant, so it is said and not refused.

use api::{
    Span,
    deploy::{Action, Plan, Strategy},
};

use super::{amount::number, steps};
use crate::{
    drive::{self, DRAIN_LEAST, MIN_READY},
    intent::{Batch, Intent},
};

/// The first try at readiness comes so soon after the start, where the check isn't made more often.
const FIRST_TRY: Span = Span::secs(1);

/// Of the timeout, in percent: a plan that takes more at the very least leaves too little for images, starts and requests
/// under way.
const TIGHT: u64 = 50;

/// What whoever asked for it should know. `there`: whether the service has replicas.
pub(super) fn of(plan: &Plan, intent: &Intent, there: bool) -> Vec<String> {
    if plan.action == Action::Scale || plan.batch {
        return Vec::new();
    }
    [
        floor(plan).filter(|_| there),
        at_once(plan, intent).filter(|_| there),
        lonely(plan),
        rounds(plan).filter(|_| there),
        waits(plan),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// "immediate" leaves no replica for a while; every other strategy keeps some.
fn floor(plan: &Plan) -> Option<String> {
    (plan.strategy == Strategy::Immediate).then(|| {
        let kept = plan.replicas.saturating_sub(plan.rolling.max_unavailable);
        format!(
            "'immediate' goes below the floor of healthy replicas: all {} stop before any new one starts; 'rolling' never has \
             fewer than {kept} ready",
            plan.replicas
        )
    })
}

/// So many at a time that it is all of them, which need what they need twice.
fn at_once(plan: &Plan, intent: &Intent) -> Option<String> {
    let said = match intent.batch? {
        Batch::Count(count) => count.to_string(),
        Batch::Percent(percent) => format!("{} %", number(percent)),
        // None is beside those that are there.
        Batch::Fewer(_) | Batch::FewerPercent(_) => return None,
    };
    let rolls = matches!(plan.strategy, Strategy::Rolling | Strategy::Canary);
    (rolls && plan.replicas > 1 && plan.rolling.max_surge >= plan.replicas).then(|| {
        format!(
            "{said} at a time is all of them: every new replica starts beside the old {}, which needs their resources once more",
            plan.replicas
        )
    })
}

/// The canary of a single replica.
fn lonely(plan: &Plan) -> Option<String> {
    let canary = plan.canary.as_ref().filter(|_| plan.replicas == 1)?;
    let of_all = number(canary.steps.first().map_or(100.0, |step| step.effective_percentage));
    let share = number(canary.percentage);
    Some(format!(
        "there is one replica: a canary of {share} % is 1 more that runs beside it, {of_all} % of the two, and needs its \
         resources once more"
    ))
}

/// In how many rounds replicas are replaced, and how long each takes at the very least: until it is first found ready,
/// until that counts, and until the old one is out of use.
fn least(plan: &Plan) -> (u32, Span) {
    let batch = plan
        .rolling
        .max_surge
        .saturating_add(plan.rolling.max_unavailable)
        .max(1);
    let rounds = match (plan.strategy, &plan.canary) {
        (Strategy::Rolling, _) | (Strategy::Canary, None) => plan.replicas.div_ceil(batch),
        (Strategy::Canary, Some(canary)) => {
            let last = canary.steps.last().map_or(0, |step| step.replicas);
            let steps = u32::try_from(canary.steps.len()).unwrap_or(u32::MAX);
            plan.replicas.saturating_sub(last).div_ceil(batch).saturating_add(steps)
        }
        (Strategy::BlueGreen | Strategy::Immediate, _) => 1,
    };
    let found = plan
        .spec
        .readiness
        .as_ref()
        .map_or(Span(0), |check| check.interval.min(FIRST_TRY));
    let each = [found, MIN_READY, DRAIN_LEAST]
        .iter()
        .fold(0, |sum, part| sum + part.millis());
    (rounds, Span(each))
}

/// The rounds take more than the timeout, or most of it.
fn rounds(plan: &Plan) -> Option<String> {
    let timeout = plan.timeout?;
    let (rounds, each) = least(plan);
    let all = Span(each.millis().saturating_mul(u64::from(rounds)));
    if all.millis().saturating_mul(100) <= timeout.millis().saturating_mul(TIGHT) {
        return None;
    }
    let counted = format!(
        "{} are replaced in {rounds} {} of at least {each}, so in {all} at the very least",
        steps::replicas(plan.replicas),
        if rounds == 1 { "round" } else { "rounds" },
    );
    let what = if all > timeout {
        format!("more than its timeout of {timeout}")
    } else {
        format!("which leaves little of its timeout of {timeout} for images, starts and requests under way")
    };
    Some(format!("{counted}, {what}: say more at a time, or a longer timeout"))
}

/// It waits longer by itself than it may take otherwise: that isn't counted, and may surprise.
fn waits(plan: &Plan) -> Option<String> {
    let timeout = plan.timeout?;
    let all = drive::longest(plan);
    let waits = Span(all.millis().saturating_sub(timeout.millis()));
    if waits <= timeout {
        return None;
    }
    let promote = plan.canary.as_ref().and_then(|canary| canary.promote_after);
    let what = match promote.filter(|after| *after > timeout) {
        Some(after) => format!("'promote after {after}' is longer than its timeout of {timeout}"),
        None => format!("its own waits are {waits}, longer than its timeout of {timeout}"),
    };
    Some(format!(
        "{what}: waits that are asked for aren't counted, so that it may take {all} in all"
    ))
}

/// What is to be said where the replicas of a plan need more GPUs of their kind than the fleet has in all.
#[must_use]
pub fn beyond_fleet(plan: &Plan, fleet_gpus: u32) -> Option<String> {
    let each = plan.resources.gpus;
    let wanted = u64::from(plan.replicas) * u64::from(each);
    (each > 0 && wanted > u64::from(fleet_gpus)).then(|| {
        let kind = plan
            .resources
            .gpu_type
            .as_deref()
            .map(|model| format!("{model} "))
            .unwrap_or_default();
        let fit = fleet_gpus / each;
        format!(
            "{} need {wanted} {kind}GPUs, and the fleet has {fleet_gpus} in all: at most {fit} can run at a time",
            steps::replicas(plan.replicas)
        )
    })
}
