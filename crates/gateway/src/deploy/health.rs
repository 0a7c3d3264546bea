//! Whether a revision's replicas are ready and stay so, and how often they were started anew, as their records tell.
//!
//! One that has yet to be ready for the first time says nothing, nor does one that was stopped for another's sake and waits
//! for another place. *Ill* is one that was ready and isn't, or that ended by itself and isn't ready again.

use api::{
    ErrorCode, Span, Timestamp,
    deploy::{Replica, Sample, Service},
    time,
    workload::{Phase, Transition, Workload},
};
use rollout::drive::Question;

use crate::{lifecycle, view::View};

/// What is claimed of each replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// It has been ill for so long.
    IllFor(Span),
    /// It has been ready ever since then.
    WellSince(Timestamp),
}

impl Claim {
    /// "unhealthy for 5m" means all of the five minutes, and without a time just now; "healthy" the whole window.
    fn of(question: &Question) -> Self {
        let condition = &question.condition;
        if condition.operator.holds(0.0, condition.threshold) {
            Self::IllFor(condition.window.unwrap_or_default())
        } else {
            Self::WellSince(question.from)
        }
    }

    /// Whether a replica speaks for health at `now`. `None`: it says nothing.
    fn well(self, w: &Workload, now: Timestamp) -> Option<bool> {
        let serves = w.phase == Phase::Running && w.members.iter().all(|m| m.state.serves());
        let ill = ill_since(w);
        if !serves && ill.is_none() {
            return None;
        }
        Some(match self {
            Self::IllFor(time) => ill.is_none_or(|since| time::between(since, now) < time),
            Self::WellSince(from) => {
                let within = |at: Timestamp| at > from && at <= now;
                let trouble = w.timeline.iter().filter(|t| by_itself(t)).map(|t| t.at);
                serves && !trouble.chain(w.lapsed_at).any(within)
            }
        })
    }
}

/// Since when a replica is ill. `None`: it isn't.
fn ill_since(w: &Workload) -> Option<Timestamp> {
    let last = |of: fn(&Transition) -> bool| w.timeline.iter().rev().find(|t| of(t));
    let ended = || {
        last(|t| t.phase == Phase::Pending)
            .filter(|t| by_itself(t))
            .map(|t| t.at)
    };
    match w.phase {
        Phase::Running if w.members.iter().all(|m| m.state.serves()) => None,
        Phase::Running => {
            let began = last(|t| t.phase == Phase::Running).map(|t| t.at);
            w.lapsed_at.filter(|lapsed| Some(*lapsed) >= began).or_else(ended)
        }
        Phase::Pending | Phase::Scheduled | Phase::Pulling => ended(),
        Phase::Succeeded | Phase::Failed | Phase::Cancelled | Phase::TimedOut | Phase::Preempted | Phase::Lost => None,
    }
}

/// Whether a step is an end of its own after which it is started again, and not that of its node.
fn by_itself(step: &Transition) -> bool {
    lifecycle::failed_again(step) && step.reason.as_deref() != Some(ErrorCode::NodeUnreachable.as_str())
}

/// Whether a revision's replicas are as a condition about health claims: 0 where one of them is ill, else 1. `failed` is how
/// many are; nothing is known where none says anything.
pub fn healthy(view: &View, service: &Service, question: &Question) -> Sample {
    let claim = Claim::of(question);
    let wanted = |m: &&Replica| m.revision == question.subject && m.retiring.is_none();
    let replicas = service.members.iter().filter(wanted);
    let said: Vec<bool> = replicas
        .filter_map(|m| claim.well(view.workload(&m.workload)?, question.to))
        .collect();
    let ill = said.iter().filter(|well| !**well).count() as u64;
    Sample {
        count: said.len() as u64,
        failed: Some(ill),
        value: (!said.is_empty()).then(|| f64::from(u8::from(ill == 0))),
    }
}

/// How often a revision's replicas were started anew in a window.
pub fn restarts(view: &View, service: &Service, revision: u32, from: Timestamp, to: Timestamp) -> Sample {
    let (mut replicas, mut restarts) = (0u64, 0u64);
    for member in service.members.iter().filter(|m| m.revision == revision) {
        let Some(workload) = view.workload(&member.workload) else {
            continue;
        };
        replicas += 1;
        let again = |t: &&Transition| lifecycle::failed_again(t) && t.at > from && t.at <= to;
        restarts += workload.timeline.iter().filter(again).count() as u64;
    }
    Sample {
        count: replicas,
        failed: None,
        value: (replicas > 0).then_some(restarts as f64),
    }
}

#[cfg(test)]
mod tests {
    use api::{
        wire::Seen,
        workload::{Outcome, StopReason, Usage},
    };

    use super::{
        super::stage::{at, readiness, replica, started, told},
        *,
    };

    fn ended(w: &Workload, stop: Option<StopReason>, second: i64) -> Workload {
        let outcome = Outcome::Exited { code: 1 };
        let seen = Seen::Ended {
            started_at: None,
            at: at(second),
            outcome,
            stop,
            usage: Usage::default(),
            last_line: 0,
        };
        told(w, &seen, second)
    }

    /// "unhealthy", "unhealthy for 5m" and "healthy" since then, looked at a moment: whether each finds it well.
    #[track_caller]
    fn finds(w: &Workload, since: i64, now: i64, expected: [Option<bool>; 3]) {
        let claims = [
            Claim::IllFor(Span(0)),
            Claim::IllFor(Span::secs(300)),
            Claim::WellSince(at(since)),
        ];
        assert_eq!(claims.map(|claim| claim.well(w, at(now))), expected);
    }

    const SILENT: [Option<bool>; 3] = [None, None, None];
    const WELL: [Option<bool>; 3] = [Some(true), Some(true), Some(true)];
    const ILL: [Option<bool>; 3] = [Some(false), Some(true), Some(false)];
    const WAS_ILL: [Option<bool>; 3] = [Some(true), Some(true), Some(false)];

    #[test]
    fn one_that_was_never_ready_says_nothing() {
        let waiting = replica(1);
        finds(&waiting, 0, 10, SILENT);
        let starting = started(&waiting, "a", 20, 20);
        finds(&starting, 0, 900, SILENT);
        let refused = Seen::Readiness {
            ready: false,
            why: Some("refused".to_owned()),
        };
        finds(&told(&starting, &refused, 21), 0, 900, SILENT);
        // It came up, which is no trouble of the time before.
        finds(&readiness(&starting, true, 60), 50, 61, WELL);
    }

    #[test]
    fn one_that_stops_being_ready_is_ill_until_it_is_again_and_that_is_remembered() {
        let ready = readiness(&started(&replica(1), "a", 20, 20), true, 60);
        let ill = readiness(&ready, false, 100);
        finds(&ill, 50, 100, ILL);
        finds(&ill, 50, 399, ILL);
        finds(&ill, 50, 400, [Some(false); 3]);
        let again = readiness(&ill, true, 120);
        finds(&again, 50, 130, WAS_ILL);
        finds(&again, 110, 130, WELL);
    }

    #[test]
    fn one_that_ends_by_itself_is_ill_until_it_is_ready_again() {
        let ready = readiness(&started(&replica(1), "a", 20, 20), true, 60);
        let died = ended(&ready, None, 200);
        assert_eq!(died.phase, Phase::Pending, "{died:?}");
        finds(&died, 50, 201, ILL);
        let starting = started(&died, "a", 220, 220);
        finds(&starting, 50, 221, ILL);
        finds(&starting, 50, 500, [Some(false); 3]);
        let again = readiness(&starting, true, 230);
        finds(&again, 50, 240, WAS_ILL);
        finds(&again, 210, 240, WELL);
    }

    #[test]
    fn one_that_was_stopped_for_another_is_not_ill() {
        let mut w = readiness(&started(&replica(1), "a", 20, 20), true, 60);
        for (stop, second) in [(StopReason::Preempted, 200), (StopReason::Drained, 300)] {
            let stopped = ended(&w, Some(stop), second);
            finds(&stopped, 50, second + 1, SILENT);
            let starting = started(&stopped, "a", second + 10, second + 10);
            finds(&starting, 50, second + 11, SILENT);
            w = readiness(&starting, true, second + 20);
            finds(&w, 50, second + 21, WELL);
        }
        let lost = ended(&w, Some(StopReason::Fenced), 400);
        finds(&lost, 50, 401, SILENT);
    }
}
