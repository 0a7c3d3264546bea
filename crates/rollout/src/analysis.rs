//! What was measured of a revision, judged by a condition.
//!
//! [`judge`] is a function of the evidence alone: an evidence that was kept, judged again, gives the same verdict. It never
//! lets something pass for want of data: what wasn't measured is [`Outcome::Insufficient`], what can't be is
//! [`Outcome::Error`], and only what was shown is [`Outcome::Pass`] or [`Outcome::Fail`].
//!
//! - shares of requests (error rate; latency, where the slow ones were counted): a test that holds however often one
//!   looks, see `sequential`. Going back is wrong in at most [`ALPHA_ROLLBACK`] of all deployments whose rate is at the
//!   bound (and in fewer where it is lower), going on in at most [`ALPHA_PROMOTE`], be it because a condition for going on
//!   holds or because one for going back isn't breached
//!   (per window: one that grows is one, one that slides is another each time that none of its requests is the same)
//! - other measured values: compared as they are, if they stand on enough samples ([`samples_min`])
//! - health and restarts: exact
//!
//! A revision isn't brought down for what the stable one does as well over the same time: where that breaches the bound
//! too, the new one must be shown to be worse (requests), or be worse by [`MARGIN`] (values). A stable revision that is
//! bad never keeps a good one from going on. One that is better does, in a condition for going on that is told by requests:
//! there the new revision must be within the bound, and not be shown to be worse than the stable one by more than
//! [`MARGIN`] of the bound. Smaller differences don't matter to whoever named the bound; and values that are no shares of
//! requests are compared with the bound alone, since nothing says by how much they differ by chance.

mod sequential;

use api::{
    Timestamp,
    deploy::{Comparison, Evidence, Outcome, Purpose, Sample, Signal, Verdict},
};
use sequential::{Counts, Side, larger};

/// How often a revision that keeps to its bound may be brought down for breaking it, of all deployments.
pub const ALPHA_ROLLBACK: f64 = 0.01;

/// How often a revision that doesn't keep to its bound may go on for keeping to it, of all deployments.
pub const ALPHA_PROMOTE: f64 = 0.05;

/// Fewer requests than this tell nothing: those of a replica's first moment share its fate.
pub const REQUESTS_MIN: u64 = 20;

/// A bound of 0 is about what was seen, since no number of requests shows that none will ever fail: it holds if none of at
/// least so many failed.
pub const NONE_FAILED_MIN: u64 = 100;

/// Samples of a metric that a mean stands on at least.
const METRIC_MIN: u64 = 5;

/// By this part a value must be worse than the stable revision's where that breaches the bound too; and by this part of the
/// bound a share must be worse than the stable revision's to be held against a new one that keeps to the bound.
pub const MARGIN: f64 = 0.1;

/// Judges an evidence. See the module.
///
/// The verdict holds the evidence as it can be written down: a value that isn't finite is kept as an error.
#[must_use]
pub fn judge(evidence: &Evidence, at: Timestamp) -> Verdict {
    let evidence = writable(evidence);
    let (outcome, message, method) = match refusal(&evidence) {
        Some(why) => (Outcome::Error, why, "none".to_owned()),
        None => match counted(&evidence) {
            Some(counts) => by_share(&evidence, counts),
            None => by_value(&evidence),
        },
    };
    Verdict {
        at,
        outcome,
        message,
        method,
        evidence,
    }
}

/// The evidence without values that JSON can't hold, which would be no values when it is read again.
fn writable(evidence: &Evidence) -> Evidence {
    let mut evidence = evidence.clone();
    if let Some(value) = evidence.subject.value.take_if(|value| !value.is_finite()) {
        evidence.error.get_or_insert_with(|| format!("its value is {value}"));
    }
    if let Some(stable) = &mut evidence.baseline {
        stable.value = stable.value.filter(|value| value.is_finite());
    }
    evidence
}

/// How many requests a condition takes in all to be told, if they go on failing as they did; about. `None`: no number of
/// them will tell, or it isn't told by a number of requests.
///
/// For "error rate < 0.5 %" it is 688 where none fails, and about 3.4 divided by the bound in general; some 6,000 where
/// 0.25 % fail.
#[must_use]
pub fn requests_needed(evidence: &Evidence) -> Option<u64> {
    let condition = &evidence.condition;
    let counts = match &condition.metric {
        Signal::ErrorRate => Counts::new(evidence.subject.failed.unwrap_or(0), evidence.subject.count),
        Signal::Latency { .. } => counted(evidence)?,
        Signal::RequestRate | Signal::Healthy | Signal::Restarts | Signal::Metric { .. } | Signal::Query { .. } => {
            return None;
        }
    };
    let (side, bound) = claim(evidence);
    if bound <= 0.0 {
        return (side == Side::Below && counts.failed == 0.0).then_some(NONE_FAILED_MIN);
    }
    let to_show = |side, holds| counts.needed(side, bound, alpha(evidence.purpose, holds));
    let needed = to_show(side, true).or_else(|| to_show(side.other(), false))?;
    Some(needed.max(REQUESTS_MIN))
}

/// The least number of samples that a value of a signal stands on.
///
/// A quantile needs 5 samples beyond it: 20 of the median, 100 of p95, 500 of p99. A mean of a metric needs 5, a rate of
/// requests [`REQUESTS_MIN`] of them; anything else is exact, and needs to have been looked at.
#[must_use]
pub fn samples_min(signal: &Signal) -> u64 {
    match signal {
        Signal::ErrorRate | Signal::RequestRate => REQUESTS_MIN,
        Signal::Latency { percentile } => {
            let beyond = (100.0 - percentile).clamp(0.001, 100.0);
            ((500.0 / beyond - 1e-9).ceil() as u64).max(REQUESTS_MIN)
        }
        Signal::Metric { .. } => METRIC_MIN,
        Signal::Healthy | Signal::Restarts | Signal::Query { .. } => 1,
    }
}

/// Above this share of failed requests a revision fails often, whatever its conditions say.
const OFTEN: f64 = 0.05;

/// Whether a revision is shown to fail often: more than 5 % of its requests, wrong in at most [`ALPHA_ROLLBACK`].
pub(crate) fn fails_often(failed: u64, of: u64) -> bool {
    of >= REQUESTS_MIN && failed <= of && Counts::new(failed, of).show(Side::Above, OFTEN, ALPHA_ROLLBACK)
}

/// Whether one revision is shown to fail more than another (failed, of so many), wrong in at most [`ALPHA_ROLLBACK`].
pub(crate) fn fails_more(one: (u64, u64), other: (u64, u64)) -> bool {
    larger(
        Counts::new(one.0, one.1),
        Counts::new(other.0, other.1),
        0.0,
        ALPHA_ROLLBACK,
    )
}

/// The error that is allowed in saying so of a condition.
const fn alpha(purpose: Purpose, holds: bool) -> f64 {
    match (purpose, holds) {
        (Purpose::Rollback, true) => ALPHA_ROLLBACK,
        (Purpose::Rollback, false) | (Purpose::Promote, _) => ALPHA_PROMOTE,
    }
}

/// The side on which a condition claims its value to be.
const fn side(operator: Comparison) -> Side {
    match operator {
        Comparison::Above | Comparison::AtLeast => Side::Above,
        Comparison::Below | Comparison::AtMost => Side::Below,
    }
}

/// What a condition claims about the share of its bad requests: those that failed or, of latency, those slower than the
/// bound, of which a quantile below the bound leaves only so many.
fn claim(evidence: &Evidence) -> (Side, f64) {
    let condition = &evidence.condition;
    let bound = match &condition.metric {
        Signal::Latency { percentile } => 1.0 - percentile / 100.0,
        _ => condition.threshold,
    };
    (side(condition.operator), bound)
}

/// What makes an evidence one that can't be judged.
fn refusal(evidence: &Evidence) -> Option<String> {
    let condition = &evidence.condition;
    if let Some(error) = &evidence.error {
        return Some(format!("'{condition}' couldn't be measured: {error}"));
    }
    if !condition.threshold.is_finite() {
        return Some(format!("'{condition}' has no bound"));
    }
    if let Signal::Latency { percentile } = &condition.metric
        && !(*percentile > 0.0 && *percentile < 100.0)
    {
        return Some(format!("'{condition}': a percentile is above 0 and below 100"));
    }
    if evidence.from > evidence.to {
        return Some(format!(
            "'{condition}' was measured from {} back to {}",
            evidence.from, evidence.to
        ));
    }
    let sample = &evidence.subject;
    if !sensible(sample) {
        return Some(format!(
            "what was measured for '{condition}' makes no sense: {}",
            words(sample)
        ));
    }
    match (&condition.metric, sample.value) {
        (Signal::Healthy, Some(value)) if value != 0.0 && value != 1.0 => {
            Some(format!("health is 0 or 1, and {value} was measured"))
        }
        _ => None,
    }
}

fn sensible(sample: &Sample) -> bool {
    sample.failed.is_none_or(|failed| failed <= sample.count)
}

fn words(sample: &Sample) -> String {
    let value = sample.value.map(|value| format!(", value {value}")).unwrap_or_default();
    let failed = sample
        .failed
        .map(|failed| format!("{failed} bad of "))
        .unwrap_or_default();
    format!("{failed}{} samples{value}", sample.count)
}

/// The counts of a condition that is judged by the share of bad requests.
fn counted(evidence: &Evidence) -> Option<Counts> {
    let sample = &evidence.subject;
    match evidence.condition.metric {
        // Without the number of failures an error rate is no value either: see `by_value`.
        Signal::ErrorRate | Signal::Latency { .. } => Some(Counts::new(sample.failed?, sample.count)),
        _ => None,
    }
}

/// What it means that a condition was shown to hold, or shown not to.
const fn outcome(purpose: Purpose, holds: bool) -> Outcome {
    match (purpose, holds) {
        (Purpose::Promote, true) | (Purpose::Rollback, false) => Outcome::Pass,
        (Purpose::Promote, false) | (Purpose::Rollback, true) => Outcome::Fail,
    }
}

/// What is said of a condition that was shown to hold, or shown not to.
const fn said(purpose: Purpose, holds: bool) -> &'static str {
    match (purpose, holds) {
        (Purpose::Promote, true) => "holds",
        (Purpose::Promote, false) => "doesn't hold",
        (Purpose::Rollback, true) => "is breached",
        (Purpose::Rollback, false) => "isn't breached",
    }
}

type Judged = (Outcome, String, String);

fn by_share(evidence: &Evidence, counts: Counts) -> Judged {
    let (condition, purpose) = (&evidence.condition, evidence.purpose);
    let bad = match condition.metric {
        Signal::Latency { .. } => "were slower",
        _ => "failed",
    };
    let seen = format!("{} of {} requests {bad}", counts.failed, counts.of);
    let (side, bound) = claim(evidence);
    if bound <= 0.0 {
        return by_none(evidence, counts, &seen);
    }
    let wrong = match purpose {
        Purpose::Promote => format!("{} %", percent(ALPHA_PROMOTE)),
        Purpose::Rollback => format!(
            "{} % where it is breached and {} % where it isn't,",
            percent(ALPHA_ROLLBACK),
            percent(ALPHA_PROMOTE)
        ),
    };
    let method = format!(
        "mixture sequential probability ratio test, wrong in at most {wrong} however often it is looked at, from \
         {REQUESTS_MIN} requests on"
    );
    let enough = evidence.subject.count >= REQUESTS_MIN;
    let shows = |side, holds| enough && counts.show(side, bound, alpha(purpose, holds));
    let holds = match (shows(side, true), shows(side.other(), false)) {
        (true, _) => true,
        (false, true) => false,
        (false, false) => {
            let still = match requests_needed(evidence) {
                Some(needed) if needed > evidence.subject.count => format!("; about {} would tell", about(needed)),
                Some(_) | None => String::new(),
            };
            let message = format!("'{condition}' can't be told yet: {seen}{still}");
            return (Outcome::Insufficient, message, method);
        }
    };
    let shown = if holds { side } else { side.other() };
    let limit = counts.limit(shown, alpha(purpose, holds));
    let bounded = match shown {
        Side::Above => format!("more than {} %", percent(limit)),
        Side::Below => format!("less than {} %", percent(limit)),
    };
    let mut message = format!(
        "'{condition}' {}: {seen}, {bounded} in the long run",
        said(purpose, holds)
    );
    let Some(stable) = stable_counts(evidence).filter(|_| holds) else {
        return (outcome(purpose, holds), message, method);
    };
    let its = format!("{} of {} of the stable revision's", stable.failed, stable.of);
    match (purpose, side) {
        (Purpose::Rollback, Side::Above) if stable.share() < bound => message = format!("{message}; {its}"),
        (Purpose::Rollback, Side::Above) if larger(counts, stable, 0.0, ALPHA_ROLLBACK) => {
            message = format!("{message}; {its} as well, but that is less");
        }
        (Purpose::Rollback, Side::Above) => {
            let message = format!(
                "'{condition}' is no fault of the new revision, as far as can be told: {seen}, and {its} as well"
            );
            return (Outcome::Insufficient, message, method);
        }
        (Purpose::Promote, Side::Below) if larger(counts, stable, MARGIN * bound, ALPHA_ROLLBACK) => {
            let message = format!("'{condition}' holds, but the stable revision does better: {seen}, and {its}");
            return (Outcome::Fail, message, method);
        }
        (Purpose::Promote, Side::Below) => message = format!("{message}; {its}"),
        (Purpose::Rollback, Side::Below) | (Purpose::Promote, Side::Above) => {}
    }
    (outcome(purpose, holds), message, method)
}

/// A bound of 0: whether any failed.
fn by_none(evidence: &Evidence, counts: Counts, seen: &str) -> Judged {
    let (condition, purpose) = (&evidence.condition, evidence.purpose);
    let method = format!("whether any failed, of at least {NONE_FAILED_MIN} requests");
    // "< 0" and ">= 0" say nothing about requests.
    let any = match condition.operator {
        Comparison::Above => true,
        Comparison::AtMost => false,
        Comparison::AtLeast | Comparison::Below => {
            let message = format!("'{condition}' doesn't depend on what happens");
            return (Outcome::Error, message, method);
        }
    };
    let enough = evidence.subject.count >= NONE_FAILED_MIN;
    let holds = match (counts.failed > 0.0, enough) {
        (true, _) => any,
        (false, true) => !any,
        (false, false) => {
            let message = format!("'{condition}' can't be told yet: {seen}; {NONE_FAILED_MIN} would tell");
            return (Outcome::Insufficient, message, method);
        }
    };
    // One failure of each says that both fail.
    if purpose == Purpose::Rollback
        && holds
        && let Some(stable) = stable_counts(evidence)
        && stable.failed > 0.0
        && !larger(counts, stable, 0.0, ALPHA_ROLLBACK)
    {
        let message = format!(
            "'{condition}' is no fault of the new revision, as far as can be told: {seen}, and {} of {} of the stable \
             revision's as well",
            stable.failed, stable.of
        );
        return (Outcome::Insufficient, message, method);
    }
    let message = format!("'{condition}' {}: {seen}", said(purpose, holds));
    (outcome(purpose, holds), message, method)
}

/// The stable revision's counts, where they are enough to say anything.
fn stable_counts(evidence: &Evidence) -> Option<Counts> {
    let stable = evidence.baseline.as_ref().filter(|stable| sensible(stable))?;
    (stable.count >= REQUESTS_MIN)
        .then_some(stable.failed)?
        .map(|failed| Counts::new(failed, stable.count))
}

fn by_value(evidence: &Evidence) -> Judged {
    let (condition, purpose, sample) = (&evidence.condition, evidence.purpose, &evidence.subject);
    if condition.metric == Signal::ErrorRate {
        let message = format!("'{condition}' can't be told: how many failed wasn't counted");
        return (Outcome::Insufficient, message, "none".to_owned());
    }
    let least = samples_min(&condition.metric);
    let method = match condition.metric {
        Signal::Healthy | Signal::Restarts => "exact".to_owned(),
        _ => format!("as measured, from {least} samples on"),
    };
    let Some(value) = sample.value else {
        let message = format!("'{condition}' can't be told yet: there is no value");
        return (Outcome::Insufficient, message, method);
    };
    if sample.count < least {
        let message = format!(
            "'{condition}' can't be told yet: {} of at least {least} samples",
            sample.count
        );
        return (Outcome::Insufficient, message, method);
    }
    let holds = condition.operator.holds(value, condition.threshold);
    let mut message = format!("'{condition}' {}", said(purpose, holds));
    match (&condition.metric, sample.failed) {
        (Signal::Healthy, Some(ill)) => message = format!("{message}: {ill} of {} replicas ill", sample.count),
        (Signal::Healthy, None) => {}
        _ => message = format!("{message}: {}", condition.value(value)),
    }
    if purpose == Purpose::Rollback
        && holds
        && let Some(stable) = stable_value(evidence, least)
    {
        let its = format!("the stable revision's is {}", condition.value(stable));
        let worse = match side(condition.operator) {
            Side::Above => value > stable + MARGIN * stable.abs(),
            Side::Below => value < stable - MARGIN * stable.abs(),
        };
        if condition.operator.holds(stable, condition.threshold) && !worse {
            let message = format!(
                "'{condition}' is no fault of the new revision, as far as can be told: {}, and {its}",
                condition.value(value)
            );
            return (Outcome::Insufficient, message, method);
        }
        message = format!("{message}; {its}");
    }
    (outcome(purpose, holds), message, method)
}

/// The stable revision's value, where it stands on enough samples and can be compared: shares of the requests, health and
/// restarts of the two revisions are different by themselves, and a query about both gives both the same.
fn stable_value(evidence: &Evidence, least: u64) -> Option<f64> {
    let metric = &evidence.condition.metric;
    let comparable = match metric {
        Signal::Latency { .. } | Signal::Metric { .. } => true,
        Signal::Query { .. } => metric.of_one_revision(),
        Signal::ErrorRate | Signal::RequestRate | Signal::Healthy | Signal::Restarts => false,
    };
    let stable = evidence
        .baseline
        .as_ref()
        .filter(|stable| comparable && sensible(stable))?;
    stable.value.filter(|_| stable.count >= least)
}

/// A share as a percentage of two digits that say something.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent >= 10.0 {
        10.0
    } else if percent >= 1.0 {
        100.0
    } else {
        1000.0
    };
    ((percent * digits).round() / digits).to_string()
}

/// A number rounded up to two digits: 688 is about 690.
fn about(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number.div_ceil(unit) * unit
}
