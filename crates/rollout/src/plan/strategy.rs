//! How one revision takes another's place, in numbers.

use api::{
    ApiError, Span,
    deploy::{BlueGreen, Canary, CanaryStep, Comparison, Condition, Rolling, Signal, Strategy},
};

use super::{
    Notes,
    amount::{canary_step, number, share_down, share_up},
    steps,
};
use crate::intent::{Batch, Care, Intent};

/// Part of the requests of a canary where nobody says, in percent.
const CANARY_PERCENT: f64 = 10.0;

/// Part of the replicas by which a rolling deployment may go above and below, in percent: what Kubernetes' deployments do,
/// rounded as there (above up, below down).
const ROLLING_PERCENT: f64 = 25.0;

/// The rest between batches that "slowly" means.
const SLOW_REST: Span = Span::secs(30);

/// How long a second set must have been ready as a whole before the switch.
const CHECK_FOR: Span = Span::secs(10);

/// How long an old set is kept after the switch.
const KEEP_OLD_FOR: Span = Span::secs(600);

/// How long the canary that "safely" means lasts.
const SAFE_STEP: Span = Span::secs(15 * 60);

/// The share of failed requests that "safely" means.
const SAFE_ERRORS: f64 = 0.01;

/// What a strategy depends on beside the sentence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// How many replicas there will be.
    pub replicas: u32,
    /// Whether there is a revision that is known to be good: to compare with, and to go back to.
    pub proven: bool,
    /// Whether requests come through a port, so that they are counted and shared out.
    pub port: bool,
}

/// A strategy in numbers.
#[derive(Debug)]
pub(super) struct Way {
    pub strategy: Strategy,
    pub canary: Option<Canary>,
    pub blue_green: Option<BlueGreen>,
    pub rolling: Rolling,
    pub rollback: Vec<Condition>,
}

/// A bound on the share of failed requests.
fn errors(operator: Comparison) -> Condition {
    Condition {
        metric: Signal::ErrorRate,
        operator,
        threshold: SAFE_ERRORS,
        window: None,
    }
}

fn healthy() -> Condition {
    Condition {
        metric: Signal::Healthy,
        operator: Comparison::AtLeast,
        threshold: 1.0,
        window: None,
    }
}

/// The sentence with its everyday words replaced by what they mean; what it says in numbers stays.
///
/// - safely: a canary; back if more than 1 % of the requests fail; on after 15 m if fewer than 1 % do (without a port: if
///   it is healthy)
/// - slowly: one at a time, with rests of 30 s
/// - quickly, emergency: as many at once as there are, beside the old ones
fn spelled_out(intent: &Intent, shape: Shape) -> Intent {
    let mut said = intent.clone();
    match intent.care {
        None => {}
        Some(Care::Safely) => {
            let canary = said.strategy.is_none_or(|strategy| strategy == Strategy::Canary);
            if said.rollback_if.is_empty() && shape.port {
                said.rollback_if.push(errors(Comparison::Above));
            }
            if canary && said.batch.is_none() {
                said.strategy = Some(Strategy::Canary);
                if !promotes(&said) {
                    said.promote_after = Some(SAFE_STEP);
                    said.promote_if.push(if shape.port {
                        errors(Comparison::Below)
                    } else {
                        healthy()
                    });
                }
            }
        }
        Some(Care::Slowly) => {
            said.batch.get_or_insert(Batch::Count(1));
            said.pause_between.get_or_insert(SLOW_REST);
        }
        Some(Care::Quickly | Care::Emergency) => {
            said.batch.get_or_insert(Batch::Percent(100.0));
        }
    }
    said
}

/// Whether the sentence says how it is to go on.
fn promotes(intent: &Intent) -> bool {
    intent.promote_after.is_some() || !intent.promote_if.is_empty() || intent.promote_by_hand
}

/// The strategy: the one that is said, or the only one that has what is said, or rolling.
fn named(intent: &Intent) -> Strategy {
    intent.strategy.unwrap_or_else(|| {
        if !intent.canary_steps.is_empty() || promotes(intent) {
            Strategy::Canary
        } else if intent.keep_old_for.is_some() {
            Strategy::BlueGreen
        } else {
            Strategy::Rolling
        }
    })
}

/// Refuses what the named strategy doesn't have.
fn check(intent: &Intent, strategy: Strategy) -> Result<(), ApiError> {
    let refuse = |what: &str| {
        Err(
            ApiError::invalid("intent", format!("a {strategy} deployment has no {what}"))
                .hint("leave one of them out, or name another strategy: canary, blue-green, rolling, immediate"),
        )
    };
    let (canary, blue_green) = (strategy == Strategy::Canary, strategy == Strategy::BlueGreen);
    if !canary && !intent.canary_steps.is_empty() {
        return refuse("canary steps");
    }
    if !canary && !blue_green && promotes(intent) {
        return refuse("promotion: it goes on as replicas become ready");
    }
    if !blue_green && intent.keep_old_for.is_some() {
        return refuse("old set that could be kept");
    }
    let at_once = matches!(strategy, Strategy::BlueGreen | Strategy::Immediate);
    if at_once && intent.care.is_none() && (intent.batch.is_some() || intent.pause_between.is_some()) {
        return refuse("batches");
    }
    if blue_green
        && intent
            .promote_if
            .iter()
            .any(|condition| condition.metric != Signal::Healthy)
    {
        return refuse("requests on the new set before it is switched to: only its health can be told");
    }
    Ok(())
}

/// The strategy in numbers.
pub(super) fn choose(intent: &Intent, shape: Shape, notes: &mut Notes) -> Result<Way, ApiError> {
    let intent = &spelled_out(intent, shape);
    let mut strategy = named(intent);
    check(intent, strategy)?;
    for condition in intent.rollback_if.iter().chain(&intent.promote_if) {
        check_condition(condition)?;
    }
    let rolling = rolling(intent, shape.replicas)?;
    let mut canary = match strategy {
        Strategy::Canary => Some(canary_of(intent, shape)?),
        Strategy::BlueGreen | Strategy::Rolling | Strategy::Immediate => None,
    };
    let mut blue_green = (strategy == Strategy::BlueGreen).then(|| blue_green_of(intent));
    if !shape.proven && (canary.is_some() || blue_green.is_some()) {
        notes.warn(format!(
            "no revision of it is known to be good yet, so there is nothing to compare with: it starts as rolling, not as \
             {strategy}"
        ));
        strategy = Strategy::Rolling;
        canary = None;
        blue_green = None;
    }
    if !shape.proven && !intent.rollback_if.is_empty() {
        notes.warn("there is no good revision to go back to: where a rollback condition holds, it only stops");
    }
    if let Some(canary) = &canary {
        warn_of_canary(canary, shape, notes);
    }
    if !shape.port {
        for condition in intent.rollback_if.iter().chain(&intent.promote_if) {
            if condition.metric.of_requests() {
                notes.warn(format!(
                    "'{condition}' can't be judged: it has no port, so its requests aren't seen; it will wait for a person"
                ));
            }
        }
    }
    for condition in intent.rollback_if.iter().chain(&intent.promote_if) {
        if !condition.metric.of_one_revision() {
            notes.warn(format!(
                "'{condition}' is about all revisions together: it names no $revision, so the new one isn't compared with \
                 the stable one"
            ));
        }
    }
    Ok(Way {
        strategy,
        canary,
        blue_green,
        rolling,
        rollback: intent.rollback_if.clone(),
    })
}

fn warn_of_canary(canary: &Canary, shape: Shape, notes: &mut Notes) {
    if !shape.port {
        notes.warn(format!(
            "it has no port: the canary is a part of the replicas ({} %), not of the requests",
            number(canary.steps.first().map_or(0.0, |step| step.effective_percentage))
        ));
        if canary.steps.windows(2).any(|pair| pair[0].replicas == pair[1].replicas) {
            notes.warn(format!(
                "with {} some of the canary's steps are the same number of replicas",
                steps::replicas(shape.replicas)
            ));
        }
    } else if canary.rollback_conditions.is_empty() {
        notes.warn("nothing brings the old revision back by itself: say `rollback if errors > 1%`");
    }
}

/// A few at a time. Where the sentence names how many, so many exist beyond those asked for, and none fewer are ready; "max
/// unavailable" is so many fewer (rounded down) and none beyond; otherwise a quarter more (rounded up) and a quarter fewer
/// (rounded down).
fn rolling(intent: &Intent, replicas: u32) -> Result<Rolling, ApiError> {
    let refuse = |message: &str| Err(ApiError::invalid("intent", message));
    // The last one stays until its replacement is proven.
    let fewer = |count: u32| match count {
        0 => Err(ApiError::invalid("intent", "with none at a time nothing would happen")),
        count if count >= replicas => {
            let message = format!(
                "with {count} unavailable none of {} would be left",
                steps::replicas(replicas)
            );
            Err(ApiError::invalid("intent", message)
                .hint("name fewer, or say 'immediate' to stop all before the new ones start"))
        }
        count => Ok(count),
    };
    let (max_surge, max_unavailable) = match intent.batch {
        None => (
            share_up(ROLLING_PERCENT, replicas).max(1),
            share_down(ROLLING_PERCENT, replicas),
        ),
        Some(Batch::Count(0)) => return refuse("with none at a time nothing would happen"),
        Some(Batch::Count(count)) => (count.min(replicas), 0),
        Some(Batch::Percent(percent)) if percent > 0.0 && percent <= 100.0 => (share_up(percent, replicas).max(1), 0),
        Some(Batch::Percent(_)) => return refuse("a part at a time is above 0 % and at most 100 %"),
        Some(Batch::Fewer(count)) => (0, fewer(count)?),
        Some(Batch::FewerPercent(percent)) if percent > 0.0 && percent < 100.0 => {
            (0, fewer(share_down(percent, replicas).max(1))?)
        }
        Some(Batch::FewerPercent(_)) => return refuse("a part that is unavailable is above 0 % and below 100 %"),
    };
    Ok(Rolling {
        max_unavailable,
        max_surge,
        pause_between: intent.pause_between.unwrap_or_default(),
    })
}

fn canary_of(intent: &Intent, shape: Shape) -> Result<Canary, ApiError> {
    let percentages = match intent.canary_steps.as_slice() {
        [] => &[CANARY_PERCENT],
        said => said,
    };
    if let Some(wrong) = percentages
        .iter()
        .find(|percent| !(**percent > 0.0 && **percent < 100.0))
    {
        let message = format!("a canary of {} %: it is above 0 % and below 100 %", number(*wrong));
        return Err(ApiError::invalid("intent", message));
    }
    if percentages.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(ApiError::invalid(
            "intent",
            "a canary's steps grow: `canary 10% then 50%`",
        ));
    }
    let steps: Vec<CanaryStep> = percentages
        .iter()
        .map(|&percentage| canary_step(percentage, shape.replicas))
        .collect();
    Ok(Canary {
        percentage: percentages[0],
        effective_replicas: steps[0].replicas,
        steps,
        auto_promote: !intent.promote_by_hand && (intent.promote_after.is_some() || !intent.promote_if.is_empty()),
        promote_after: intent.promote_after,
        promote_conditions: intent.promote_if.clone(),
        rollback_conditions: intent.rollback_if.clone(),
    })
}

fn blue_green_of(intent: &Intent) -> BlueGreen {
    let window = intent.promote_if.iter().find_map(|condition| condition.window);
    BlueGreen {
        check_for: intent.promote_after.or(window).unwrap_or(CHECK_FOR),
        auto_switch: !intent.promote_by_hand,
        keep_old_for: intent.keep_old_for.unwrap_or(KEEP_OLD_FOR),
    }
}

fn check_condition(condition: &Condition) -> Result<(), ApiError> {
    let refuse = |message: &str| Err(ApiError::invalid("intent", format!("'{condition}': {message}")));
    let threshold = condition.threshold;
    if !threshold.is_finite() {
        return refuse("the bound must be a number");
    }
    match &condition.metric {
        Signal::ErrorRate if !(0.0..=1.0).contains(&threshold) => refuse("a share of requests is 0 % to 100 %"),
        Signal::Latency { percentile } if !(*percentile > 0.0 && *percentile < 100.0) => {
            refuse("a percentile is above 0 and below 100")
        }
        Signal::Latency { .. } if threshold <= 0.0 => refuse("no request is answered in no time"),
        Signal::RequestRate | Signal::Restarts if threshold < 0.0 => refuse("there are never fewer than 0"),
        _ if condition.window.is_some_and(Span::is_zero) => refuse("a window has some length"),
        _ => Ok(()),
    }
}
