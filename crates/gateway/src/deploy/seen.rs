//! Replicas as a rollout sees them.

use api::{
    Timestamp, WorkloadId,
    deploy::Service,
    node::Reach,
    time,
    workload::{MemberState, Outcome, Phase, Workload},
};
use rollout::drive::{MIN_READY, RESTARTS_MAX, SeenReplica, State};

use super::Doors;
use crate::{lifecycle, view::View};

/// Whether a replica can serve: it runs, is ready if it says so, hasn't been told to stop, and its node is heard of.
#[must_use]
pub fn ready(view: &View, workload: &WorkloadId) -> bool {
    view.workload(workload).is_some_and(|w| {
        lifecycle::ready_since(w).is_some() && w.stop.is_none() && !matches!(heard(view, w), Heard::Silent { .. })
    })
}

/// Why a replica that runs isn't ready. `None`: it is, or doesn't run.
#[must_use]
pub fn why_not_ready(view: &View, w: &Workload) -> Option<String> {
    if w.phase != Phase::Running {
        return None;
    }
    if let Some(order) = &w.stop {
        return Some(lifecycle::why_stopped(order));
    }
    match heard(view, w) {
        Heard::Silent { why, .. } => Some(why),
        Heard::Since(_) => fails(w),
    }
}

/// Why a member that runs isn't ready, as its node told.
fn fails(w: &Workload) -> Option<String> {
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
pub fn replicas(view: &View, doors: &Doors, service: &Service, now: Timestamp) -> Vec<SeenReplica> {
    service
        .members
        .iter()
        .map(|member| SeenReplica {
            workload: member.workload.clone(),
            state: match view.workload(&member.workload) {
                Some(workload) => state(view, workload, now),
                None => State::Ended {
                    why: "its record is gone".to_owned(),
                    code: None,
                    hopeless: false,
                },
            },
            in_flight: doors.pending(service, &member.workload),
        })
        .collect()
}

/// When a replica of a service that failed may be started again: until then it fails, and then it waits for its place.
#[must_use]
pub fn due(view: &View, service: &Service, now: Timestamp) -> Option<Timestamp> {
    let waiting = service.members.iter().filter_map(|m| view.workload(&m.workload));
    let waiting = waiting.filter(|w| w.phase == Phase::Pending);
    waiting.filter_map(|w| w.not_before).filter(|at| *at > now).min()
}

/// Where a replica stands.
#[must_use]
pub fn state(view: &View, w: &Workload, now: Timestamp) -> State {
    let said = || {
        let why = w.message.clone().or_else(|| w.reason.clone());
        why.unwrap_or_else(|| format!("it is {}", w.phase))
    };
    let failing = |why: String| State::Failing {
        why,
        code: code(w),
        restarts: w.relapses,
    };
    match w.phase {
        // Once its rest is over, it is a place that it waits for.
        Phase::Pending
            if lifecycle::relapsed(w)
                && (w.relapses >= RESTARTS_MAX || w.not_before.is_some_and(|until| until > now)) =>
        {
            // When the next attempt is due may be past when this is read.
            failing(lifecycle::why_ended(w).unwrap_or_else(said))
        }
        Phase::Pending => State::Waiting { why: said() },
        Phase::Scheduled | Phase::Pulling => State::Starting,
        // It is about to wait for another place, or to end.
        Phase::Running if w.stop.is_some() => State::Waiting {
            why: why_not_ready(view, w).unwrap_or_else(said),
        },
        Phase::Running => match (fails(w), heard(view, w)) {
            (Some(why), _) if w.relapses > 0 => failing(why),
            (Some(why), _) => State::Unready {
                since: lifecycle::unready_since(w).unwrap_or(w.submitted_at),
                why,
            },
            (None, Heard::Silent { since, why }) => State::Unready { since, why },
            (None, Heard::Since(heard)) => {
                let since = lifecycle::ready_since(w).max(heard).unwrap_or(w.submitted_at);
                // What has yet to come is of a clock that was set back since: it has been ready all the while.
                let set_back = time::between(now, since) > MIN_READY;
                State::Ready {
                    since: if set_back { time::before(now, MIN_READY) } else { since },
                }
            }
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

/// What is heard of the nodes that a workload is on.
enum Heard {
    /// Of all, since then. `None`: it is on none.
    Since(Option<Timestamp>),
    /// Nothing of one of them: what runs there isn't known.
    Silent {
        /// Since when.
        since: Timestamp,
        /// In words.
        why: String,
    },
}

fn heard(view: &View, w: &Workload) -> Heard {
    let mut since = None;
    for member in w.members.iter().filter(|m| !m.state.ended()) {
        match view.node(&member.node) {
            Some(node) if node.reach == Reach::Online => since = since.max(Some(node.reach_since)),
            known => {
                return Heard::Silent {
                    since: known.map_or(w.submitted_at, |node| node.reach_since),
                    why: format!("nothing is heard of its node {}", member.node),
                };
            }
        }
    }
    Heard::Since(since)
}

fn code(w: &Workload) -> Option<api::ErrorCode> {
    if w.phase == Phase::Lost {
        return Some(api::ErrorCode::NodeUnreachable);
    }
    // While it runs again, the attempt before says how it ended.
    let before = w.past.last().filter(|_| w.phase == Phase::Running);
    let before = before.into_iter().flat_map(|past| &past.members);
    w.members.iter().chain(before).find_map(|m| match &m.state {
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
    use api::{
        ErrorCode,
        wire::Seen,
        workload::{StopReason, Usage},
    };

    use super::{
        super::stage::{Stage, at, bound, readiness, replica, started, told},
        *,
    };

    fn ended(outcome: Outcome, stop: Option<StopReason>) -> Seen {
        Seen::Ended {
            started_at: None,
            at: at(0),
            outcome,
            stop,
            usage: Usage::default(),
            last_line: 0,
        }
    }

    fn died() -> Seen {
        ended(Outcome::Exited { code: 3 }, None)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_is_ready_since_it_says_so_not_since_it_began() {
        let view = Stage::of(&["a"]).await.view().await;
        for ahead in [0, 2400, -2400] {
            let w = started(&replica(1), "a", 10, 10 + ahead);
            let unready = state(&view, &w, at(11));
            assert!(
                matches!(&unready, State::Unready { since, .. } if *since == at(10)),
                "{unready:?}"
            );
            let w = readiness(&w, true, 60);
            assert_eq!(
                state(&view, &w, at(61)),
                State::Ready { since: at(60) },
                "its node is {ahead} s ahead"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_runs_on_a_silent_node_isnt_known_to_be_ready() {
        let stage = Stage::of(&["a"]).await;
        let w = readiness(&started(&replica(1), "a", 10, 10), true, 20);
        stage.reach("a", Reach::Unreachable, 100).await;
        let view = stage.view().await;
        let silent = state(&view, &w, at(101));
        let State::Unready { since, why } = &silent else {
            panic!("{silent:?}")
        };
        assert_eq!((*since, why.as_str()), (at(100), "nothing is heard of its node a"));
        assert_eq!(why_not_ready(&view, &w).as_ref(), Some(why));
        stage.reach("a", Reach::Online, 130).await;
        let view = stage.view().await;
        assert_eq!(
            state(&view, &w, at(131)),
            State::Ready { since: at(130) },
            "it proves itself anew"
        );
        let elsewhere = readiness(&started(&replica(2), "removed", 10, 10), true, 20);
        assert!(matches!(state(&view, &elsewhere, at(131)), State::Unready { .. }));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_took_its_place_is_no_failure_of_its_own() {
        let view = Stage::of(&["a"]).await.view().await;
        let mut w = replica(1);
        assert!(matches!(state(&view, &w, at(1)), State::Waiting { .. }));
        for stop in [StopReason::Preempted, StopReason::Drained, StopReason::Migrated] {
            for _ in 0..3 {
                let killed = ended(Outcome::Signaled { signal: 15 }, Some(stop));
                w = told(&readiness(&started(&w, "a", 10, 10), true, 11), &killed, 20);
                let waits = state(&view, &w, at(21));
                assert!(matches!(waits, State::Waiting { .. }), "{stop:?}: {waits:?}");
            }
        }
        let w = started(&w, "a", 30, 30);
        assert!(
            matches!(state(&view, &w, at(31)), State::Unready { .. }),
            "it comes up: nothing failed"
        );
        let lost = Outcome::Unknown {
            why: "node a was lost".to_owned(),
        };
        let w = told(&w, &ended(lost, Some(StopReason::Fenced)), 40);
        assert!(matches!(state(&view, &w, at(41)), State::Waiting { .. }));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_dies_fails_while_it_rests_and_then_waits_for_a_place() {
        let view = Stage::of(&["a"]).await.view().await;
        let w = told(&started(&replica(1), "a", 10, 10), &died(), 20);
        let rests = state(&view, &w, at(21));
        let State::Failing { why, restarts, .. } = &rests else {
            panic!("{rests:?}")
        };
        assert_eq!((*restarts, why.as_str()), (1, "exited with code 3"));
        assert!(
            matches!(state(&view, &w, at(30)), State::Waiting { .. }),
            "there was room before"
        );
        assert_eq!(state(&view, &bound(&w, "a", 31), at(31)), State::Starting);
        let again = started(&w, "a", 31, 31);
        assert!(
            matches!(state(&view, &again, at(32)), State::Failing { restarts: 1, .. }),
            "it isn't ready, and ended before"
        );
        let ready = readiness(&again, true, 40);
        assert_eq!(state(&view, &ready, at(41)), State::Ready { since: at(40) });
        // Ready for a moment only.
        let w = told(&ready, &died(), 50);
        let w = told(&started(&w, "a", 70, 70), &died(), 71);
        assert!(matches!(state(&view, &w, at(72)), State::Failing { restarts: 3, .. }));
        assert!(
            matches!(state(&view, &w, at(9_000)), State::Failing { restarts: 3, .. }),
            "it had its tries"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn how_it_ended_is_told_while_it_runs_again() {
        let view = Stage::of(&["a"]).await.view().await;
        let oom = Outcome::OomKilled {
            limit_bytes: None,
            peak_bytes: None,
        };
        let w = told(&started(&replica(1), "a", 10, 10), &ended(oom, None), 20);
        let w = started(&w, "a", 30, 30);
        let failing = state(&view, &w, at(31));
        assert!(
            matches!(
                failing,
                State::Failing {
                    code: Some(ErrorCode::OomKilled),
                    ..
                }
            ),
            "{failing:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_clock_that_was_set_back_makes_nothing_unready() {
        let view = Stage::of(&["a"]).await.view().await;
        let w = readiness(&started(&replica(1), "a", 3_590, 3_590), true, 3_600);
        let State::Ready { since } = state(&view, &w, at(60)) else {
            panic!("it is ready")
        };
        assert_eq!(time::between(since, at(60)), MIN_READY);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_end_that_nothing_follows_says_whether_another_helps() {
        let view = Stage::of(&["a"]).await.view().await;
        for (retryable, hopeless) in [(false, true), (true, false)] {
            let outcome = Outcome::StartFailed {
                code: ErrorCode::ImageNotFound,
                message: "no such image".to_owned(),
                retryable,
            };
            let mut w = replica(1);
            let spec = std::sync::Arc::make_mut(&mut w.spec);
            spec.restart = api::workload::RestartPolicy::Never;
            let w = told(&bound(&w, "a", 10), &ended(outcome, None), 20);
            assert_eq!(
                state(&view, &w, at(21)),
                State::Ended {
                    why: "no such image".to_owned(),
                    code: Some(ErrorCode::ImageNotFound),
                    hopeless,
                }
            );
        }
    }
}
