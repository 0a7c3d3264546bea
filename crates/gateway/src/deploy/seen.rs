//! Replicas as a rollout sees them.

use api::{
    Timestamp, WorkloadId,
    deploy::Service,
    workload::{MemberState, Outcome, Phase, Workload},
};
use rollout::drive::{SeenReplica, State};

use super::Doors;
use crate::view::View;

/// Whether a replica can serve: it runs, and is ready if it says so.
#[must_use]
pub fn ready(view: &View, workload: &WorkloadId) -> bool {
    view.workload(workload)
        .is_some_and(|w| w.phase == Phase::Running && w.members.iter().all(|m| m.state.serves()))
}

/// Why a replica that runs isn't ready, as its node told. `None`: it is, doesn't run, or nothing was told.
#[must_use]
pub fn why_not_ready(w: &Workload) -> Option<String> {
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
            in_flight: doors.pending(service, &member.workload),
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
    match w.phase {
        Phase::Pending if w.restarts > 0 => State::Failing {
            why: said(),
            code: code(w),
            restarts: w.restarts,
        },
        Phase::Pending => State::Waiting { why: said() },
        Phase::Scheduled | Phase::Pulling => State::Starting,
        Phase::Running => match why_not_ready(w) {
            None => State::Ready {
                since: started(w).unwrap_or(w.submitted_at),
            },
            Some(why) if w.restarts > 0 => State::Failing {
                why,
                code: code(w),
                restarts: w.restarts,
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
