//! How many replicas a load needs.
//!
//! The rule is that of Kubernetes' horizontal autoscaler, `ceil(replicas * value / target)`: as many as would bring the
//! mean load of a replica to its target. With it come the habits that keep it calm:
//!
//! - within [`TOLERANCE`] of the target nothing changes
//! - up at once; down to the most that was called for during [`CALM`]
//! - at most doubled, or 4 more, in [`UP_PERIOD`]; at most halved in [`DOWN_PERIOD`]
//! - what isn't measured never moves anything: for going up it counts as idle, for going down as loaded to its target.
//!   So do replicas that aren't ready
//! - nothing while a deployment decides how many there are of what, and nothing where the errors sit in one revision: more
//!   replicas would feed a bad release
//!
//! What is measured is the load of the wanted replicas of one revision. Those that exist beyond them for a while (a rolling
//! surge, what is retiring) are left out by the caller; where one is counted all the same, the sum of the load is still
//! that of the service, and the answer the same.
//!
//! [`decide`] has no memory: what it must remember is a [`History`], which the caller keeps with the service, so that a
//! restart forgets nothing.

use std::collections::VecDeque;

use api::{
    Span, Timestamp,
    deploy::{Autoscale, Load},
    time::{after, before, between},
};
use serde::{Deserialize, Serialize};

use crate::{analysis, plan::REPLICAS_MAX};

/// How far the mean load may be from its target before anything changes, as a part of the target.
pub const TOLERANCE: f64 = 0.1;

/// How long fewer replicas must have been enough before any is taken away.
pub const CALM: Span = Span::secs(300);

/// In this time replicas are at most doubled, or [`UP_LEAST`] more.
pub const UP_PERIOD: Span = Span::secs(15);

/// So many more are always allowed in an [`UP_PERIOD`].
pub const UP_LEAST: u32 = 4;

/// In this time replicas are at most halved.
pub const DOWN_PERIOD: Span = Span::secs(60);

/// How often to decide: what is called for in between is remembered in slots of [`SLOT`].
pub const EVERY: Span = Span::secs(15);

/// Of what was called for within such a time only the most is remembered.
const SLOT: Span = Span::secs(10);

/// After such a time without a decision it isn't known what was called for meanwhile.
const GAP: Span = Span::secs(60);

/// What is seen of a service.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The bounds, and what is followed.
    pub bounds: &'a Autoscale,
    /// Replicas that are wanted now.
    pub wanted: u32,
    /// The wanted replicas of the service's revision. Fewer than `wanted`: of the others nothing is known.
    pub replicas: &'a [Seen],
    /// What became of the requests of each revision over the last minutes; empty where that isn't counted.
    pub errors: &'a [Errors],
    /// Whether a deployment is under way that decides how many replicas there are of what.
    pub deciding: bool,
}

/// What is seen of a replica.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Whether it can serve.
    pub ready: bool,
    /// Its load, in the unit of what is followed, at least 0. `None`: not measured.
    pub load: Option<f64>,
}

/// What became of a revision's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errors {
    /// The revision.
    pub revision: u32,
    /// Requests that failed.
    pub failed: u64,
    /// Of so many.
    pub of: u64,
}

/// What an autoscaler remembers. Plain data: kept with the service, it survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct History {
    /// How many replicas were called for during [`CALM`], oldest first; at most one entry in 10 s.
    called: VecDeque<Called>,
    /// How many replicas there were before each change within [`DOWN_PERIOD`], oldest first.
    changed: VecDeque<Called>,
    /// How many it decided on last. `None`: it hasn't yet.
    left: Option<u32>,
}

/// So many replicas, at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Called {
    at: Timestamp,
    replicas: u32,
}

/// How many replicas there are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaling {
    /// So many; as many as are wanted where nothing changes. Always within the bounds.
    pub replicas: u32,
    /// Why, in a sentence.
    pub why: String,
    /// What to remember until the next time.
    pub history: History,
}

/// How many replicas there are to be. See the module.
#[must_use]
pub fn decide(input: &Input<'_>, history: &History, now: Timestamp) -> Scaling {
    let mut history = history.clone();
    history.forget(now);
    let (replicas, why) = if input.deciding {
        let why = "a deployment is under way: it decides how many replicas there are";
        (input.wanted, why.to_owned())
    } else {
        let (replicas, why) = within(input, &mut history, now);
        if replicas != input.wanted {
            history.change(input.wanted, now);
        }
        history.left = Some(replicas);
        (replicas, why)
    };
    Scaling { replicas, why, history }
}

/// How many there are to be, and why, where that is for the autoscaler to say.
fn within(input: &Input<'_>, history: &mut History, now: Timestamp) -> (u32, String) {
    let least = input.bounds.min.clamp(1, REPLICAS_MAX);
    let most = input.bounds.max.clamp(least, REPLICAS_MAX);
    let wanted = input.wanted.clamp(least, most);
    if wanted != input.wanted {
        let why = format!("{} replicas are outside of the bounds {least} to {most}", input.wanted);
        return (wanted, why);
    }
    let Some(load) = &input.bounds.load else {
        return (wanted, format!("within the bounds {least} to {most}"));
    };
    if let Some(revision) = failing(input.errors) {
        let why = format!("requests fail at revision {revision} alone: other replicas of it would fail as well");
        return (wanted, why);
    }
    let called = match called_for(input, load) {
        Ok(called) => called,
        Err(why) => return (wanted, why),
    };
    history.call(called.replicas, wanted, now);
    let (replicas, limited) = if called.replicas > wanted {
        let from = history.fewest_since(before(now, UP_PERIOD), wanted);
        let most_now = from.saturating_mul(2).max(from.saturating_add(UP_LEAST));
        let limited = called.replicas.min(most_now).max(wanted);
        let why = format!("at most {} within {UP_PERIOD}", most_now.max(wanted));
        (limited, (limited < called.replicas).then_some(why))
    } else {
        let calm = history.most_called(called.replicas).min(wanted);
        let from = history.most_since(before(now, DOWN_PERIOD), wanted);
        let least_now = from.div_ceil(2).min(wanted);
        let limited = calm.max(least_now);
        let why = match (calm > called.replicas, limited > calm) {
            (_, true) => Some(format!("at least {least_now} within {DOWN_PERIOD}")),
            (true, false) => Some(format!("{calm} were called for within {CALM}")),
            (false, false) => None,
        };
        (limited, why)
    };
    let replicas = replicas.clamp(least, most);
    let mut why = called.why;
    if let Some(limited) = limited {
        why = format!("{why}; {limited}");
    }
    if called.replicas.clamp(least, most) != called.replicas && (replicas == least || replicas == most) {
        why = format!("{why}; the bounds are {least} to {most}");
    }
    (replicas, why)
}

/// What the load by itself calls for.
struct Call {
    replicas: u32,
    why: String,
}

/// `ceil(replicas * value / target)`, or as many as there are within the tolerance or where what isn't measured could
/// tell otherwise. The error is why nothing can be said.
fn called_for(input: &Input<'_>, load: &Load) -> Result<Call, String> {
    let target = input.bounds.target;
    if !(target.is_finite() && target > 0.0) {
        return Err(format!("{load} has no target"));
    }
    let measured = || {
        input
            .replicas
            .iter()
            .filter(|seen| seen.ready)
            .filter_map(|seen| seen.load.filter(|load| load.is_finite() && *load >= 0.0))
    };
    let (sum, known): (f64, u32) = measured().fold((0.0, 0), |(sum, known), load| (sum + load, known + 1));
    if known == 0 {
        return Err(format!("{load} of no replica is known"));
    }
    let there = u32::try_from(input.replicas.len())
        .unwrap_or(u32::MAX)
        .max(input.wanted);
    let unknown = there - known;
    let needed = sum / target;
    let wanted = f64::from(input.wanted);
    // Idle, if that keeps it from growing; loaded to their target, if that keeps it from shrinking.
    let full = needed + f64::from(unknown);
    let mean = sum / f64::from(known);
    let beside = match unknown {
        0 => String::new(),
        n => format!(", {n} not known"),
    };
    let seen = format!("{load} is {} of {} aimed at{beside}", rounded(mean), rounded(target));
    let replicas = if needed > wanted * (1.0 + TOLERANCE) {
        up(needed)
    } else if full < wanted * (1.0 - TOLERANCE) {
        up(full)
    } else {
        input.wanted
    };
    Ok(Call {
        why: format!("{seen}: that calls for {replicas}"),
        replicas,
    })
}

/// A need as a number of replicas; what binary fractions add is left out.
fn up(needed: f64) -> u32 {
    (needed - 1e-9).ceil().clamp(1.0, f64::from(REPLICAS_MAX)) as u32
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The revision at which alone requests fail: it is shown to fail often, and every other one to fail less. `None`: there
/// is no such, or no other to compare it with (a service whose every revision fails may just be overloaded).
fn failing(errors: &[Errors]) -> Option<u32> {
    let served = || errors.iter().filter(|one| one.of > 0);
    if served().count() < 2 {
        return None;
    }
    served()
        .find(|one| {
            analysis::fails_often(one.failed, one.of)
                && served()
                    .filter(|other| other.revision != one.revision)
                    .all(|other| analysis::fails_more((one.failed, one.of), (other.failed, other.of)))
        })
        .map(|one| one.revision)
}

impl History {
    /// Drops what is too old to count.
    fn forget(&mut self, now: Timestamp) {
        let (calm, moved) = (before(now, CALM), before(now, DOWN_PERIOD));
        self.called
            .retain(|called| after(called.at, SLOT) > calm && called.at <= now);
        self.changed.retain(|changed| changed.at > moved && changed.at <= now);
    }

    /// Remembers what was called for. Where it isn't known what was before, or somebody else has changed the number since,
    /// as many as there are were.
    fn call(&mut self, replicas: u32, wanted: u32, now: Timestamp) {
        let slot = slot(now);
        let recent = self.called.back().is_some_and(|last| between(last.at, now) <= GAP);
        let known = recent && self.left == Some(wanted);
        let replicas = if known { replicas } else { replicas.max(wanted) };
        match self.called.back_mut() {
            Some(last) if last.at == slot => last.replicas = last.replicas.max(replicas),
            _ => self.called.push_back(Called { at: slot, replicas }),
        }
    }

    /// Remembers how many there were before a change.
    fn change(&mut self, wanted: u32, now: Timestamp) {
        self.changed.push_back(Called {
            at: now,
            replicas: wanted,
        });
    }

    /// The most that was called for during [`CALM`].
    fn most_called(&self, now: u32) -> u32 {
        self.called.iter().map(|called| called.replicas).fold(now, u32::max)
    }

    fn fewest_since(&self, time: Timestamp, wanted: u32) -> u32 {
        self.since(time).fold(wanted, u32::min)
    }

    fn most_since(&self, time: Timestamp, wanted: u32) -> u32 {
        self.since(time).fold(wanted, u32::max)
    }

    fn since(&self, time: Timestamp) -> impl Iterator<Item = u32> {
        self.changed
            .iter()
            .filter(move |changed| changed.at > time)
            .map(|changed| changed.replicas)
    }
}

/// The beginning of the slot in which a time lies.
fn slot(time: Timestamp) -> Timestamp {
    let length = i64::try_from(SLOT.millis()).unwrap_or(i64::MAX);
    let begun = time.as_millisecond().div_euclid(length) * length;
    Timestamp::from_millisecond(begun).unwrap_or(time)
}
