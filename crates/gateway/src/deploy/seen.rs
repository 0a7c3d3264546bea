//! Replicas as a rollout sees them.

use api::{
    Timestamp, WorkloadId,
    deploy::Service,
    workload::{MemberState, Outcome, Phase, Workload},
};
use rollout::drive::{SeenReplica, State};

use super::Doors;
use crate::{lifecycle, view::View};

/// Whether a replica can serve: it runs, is ready if it says so, and hasn't been told to stop.
#[must_use]
pub fn ready(view: &View, workload: &WorkloadId) -> bool {
    view.workload(workload)
        .is_some_and(|w| w.phase == Phase::Running && w.stop.is_none() && w.members.iter().all(|m| m.state.serves()))
}

/// Why a replica that runs isn't ready: it has to stop, or what its node told. `None`: it is, or doesn't run.
#[must_use]
pub fn why_not_ready(w: &Workload) -> Option<String> {
    if let (Some(order), Phase::Running) = (&w.stop, w.phase) {
        return Some(lifecycle::why_stopped(order));
    }
    w.members.iter().find_map(|m| match &m.state {
        MemberState::Running {
            ready: Some(false),
            not_ready,
            ..
        } => Some(not_ready.clone().unwrap_or_else(|| "it isn't ready yet".to_owned())),
        _ => None,
    })
}

/// A service's replicas.
#[must_use]
pub fn replicas(view: &View, doors: &Doors, service: &Service) -> Vec<SeenReplica> {
    service
        .members
        .iter()
        .map(|member| SeenReplica {
            workload: member.workload.clone(),
            state: match view.workload(&member.workload) {
                Some(workload) => state(workload),
                None => State::Ended {
                    why: "its record is gone".to_owned(),
                    code: None,
                    hopeless: false,
                },
            },
            in_flight: doors.in_flight(service, &member.workload),
        })
        .collect()
}

/// Where a replica stands.
#[must_use]
pub fn state(w: &Workload) -> State {
    let said = || {
        let why = w.message.clone().or_else(|| w.reason.clone());
        why.unwrap_or_else(|| format!("it is {}", w.phase))
    };
    let restarts = failed(w);
    match w.phase {
        // When the next attempt is due may be past when this is read.
        Phase::Pending if w.timeline.last().is_some_and(lifecycle::failed_again) => State::Failing {
            why: lifecycle::why_ended(w).unwrap_or_else(said),
            code: code(w),
            restarts,
        },
        Phase::Pending => State::Waiting { why: said() },
        Phase::Scheduled | Phase::Pulling => State::Starting,
        // It is about to wait for another place, or to end.
        Phase::Running if w.stop.is_some() => State::Waiting {
            why: why_not_ready(w).unwrap_or_else(said),
        },
        Phase::Running => match why_not_ready(w) {
            None => State::Ready {
                since: started(w).unwrap_or(w.submitted_at),
            },
            Some(why) if restarts > 0 => State::Failing {
                why,
                code: code(w),
                restarts,
            },
            Some(why) => State::Unready {
                since: started(w).unwrap_or(w.submitted_at),
                why,
            },
        },
        Phase::Succeeded | Phase::Failed | Phase::Cancelled | Phase::TimedOut | Phase::Preempted | Phase::Lost => {
            State::Ended {
                why: said(),
                code: code(w),
                hopeless: hopeless(w),
            }
        }
    }
}

/// Attempts that ended by themselves. Those that were taken from it (preempted, drained, moved) say nothing about it.
fn failed(w: &Workload) -> u32 {
    w.timeline.iter().filter(|step| lifecycle::failed_again(step)).count() as u32
}

/// Since when the attempt under way runs, by its node's clock, but not before the gateway knew of it.
fn started(w: &Workload) -> Option<Timestamp> {
    let entered = w
        .timeline
        .iter()
        .rev()
        .find(|t| t.phase == Phase::Running)
        .map(|t| t.at);
    let by_node = w.members.iter().filter_map(|m| match &m.state {
        MemberState::Running { started_at, .. } => Some(*started_at),
        _ => None,
    });
    by_node.max().max(entered)
}

fn code(w: &Workload) -> Option<api::ErrorCode> {
    if w.phase == Phase::Lost {
        return Some(api::ErrorCode::NodeUnreachable);
    }
    w.members.iter().find_map(|m| match &m.state {
        MemberState::Ended {
            outcome: Outcome::StartFailed { code, .. },
            ..
        } => Some(*code),
        MemberState::Ended {
            outcome: Outcome::OomKilled { .. },
            ..
        } => Some(api::ErrorCode::OomKilled),
        _ => None,
    })
}

/// Whether starting it again can't help: no such image, arguments that nothing can run.
fn hopeless(w: &Workload) -> bool {
    w.members.iter().any(|m| {
        matches!(
            &m.state,
            MemberState::Ended {
                outcome: Outcome::StartFailed { retryable: false, .. },
                ..
            }
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::{
        NodeName, Span,
        op::Submission,
        wire::Seen,
        workload::{Member, RestartPolicy, StopOrder, StopReason, Usage, WorkloadSpec},
    };

    use super::*;
    use crate::decide::submit;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn replica() -> Workload {
        let spec = WorkloadSpec {
            image: "web:v1".to_owned(),
            restart: RestartPolicy::Always,
            ..WorkloadSpec::default()
        };
        let submission = Submission {
            name: Some("web-1-a".to_owned()),
            spec,
            ..Submission::default()
        };
        submit::workload(submission, 7, "ada", at(0)).unwrap()
    }

    fn running(before: &Workload) -> Workload {
        let member = Member {
            rank: 0,
            node: NodeName::new("a"),
            gpus: Vec::new(),
            state: MemberState::Assigned,
        };
        let bound = lifecycle::bind(before, vec![member], at(1)).unwrap().workload;
        let started = Seen::Started {
            at: at(2),
            endpoints: Vec::new(),
        };
        see(&bound, &started)
    }

    fn see(before: &Workload, seen: &Seen) -> Workload {
        let job = api::workload::JobKey {
            workload: before.id.clone(),
            attempt: before.attempt,
            rank: 0,
        };
        let step = lifecycle::observe(before, &NodeName::new("a"), &job, seen, at(3));
        step.unwrap().workload
    }

    fn ended(outcome: Outcome, stop: Option<StopReason>) -> Seen {
        Seen::Ended {
            started_at: Some(at(2)),
            at: at(3),
            outcome,
            stop,
            usage: Usage::default(),
            last_line: 0,
        }
    }

    fn pushed_aside(before: &Workload) -> Workload {
        let order = StopOrder {
            reason: StopReason::Preempted,
            grace: Span::secs(1),
            by: "scheduler".to_owned(),
            at: at(3),
            in_favour_of: Some(WorkloadId::new("wl-big")),
            message: None,
        };
        lifecycle::order_stop(before, order).unwrap().workload
    }

    #[test]
    fn one_that_gives_way_waits_for_another_place_however_often() {
        let mut w = running(&replica());
        let waits = State::Waiting {
            why: "preempted in favour of wl-big".to_owned(),
        };
        for restarts in 1..=4 {
            assert!(matches!(state(&w), State::Ready { .. }));
            w = pushed_aside(&w);
            assert_eq!(state(&w), waits, "it still runs, and may not be sent anything");
            assert_eq!(why_not_ready(&w).as_deref(), Some("preempted in favour of wl-big"));
            w = see(
                &w,
                &ended(Outcome::Signaled { signal: 15 }, Some(StopReason::Preempted)),
            );
            assert_eq!((state(&w), w.restarts), (waits.clone(), restarts));
            w = running(&w);
        }
    }

    #[test]
    fn one_that_ends_by_itself_fails_and_only_that_is_counted() {
        let mut w = pushed_aside(&running(&replica()));
        w = see(&w, &ended(Outcome::Exited { code: 0 }, Some(StopReason::Preempted)));
        for failed in 1..=3 {
            // Also well: a service has no end.
            w = see(&running(&w), &ended(Outcome::Exited { code: failed % 2 }, None));
            let State::Failing { restarts, .. } = state(&w) else {
                panic!("{:?}", state(&w))
            };
            assert_eq!((restarts, w.restarts), (failed as u32, failed as u32 + 1));
        }
        // It runs again, and isn't ready yet.
        w.spec = Arc::new(WorkloadSpec {
            readiness: Some(api::workload::HealthCheck {
                probe: api::workload::Probe::Tcp(80),
                interval: Span::secs(1),
                timeout: Span::secs(1),
                failures: 1,
            }),
            ..WorkloadSpec::clone(&w.spec)
        });
        let w = running(&w);
        assert!(
            matches!(state(&w), State::Failing { restarts: 3, .. }),
            "{:?}",
            state(&w)
        );
    }
}
