//! Carries a deployment out, one step a call: from what is recorded and what is seen to what is recorded next and what is
//! started and stopped.
//!
//! ```text
//!  records (deployment, service), replicas, verdicts ── step ──▶ records, starts, stops ── one transaction ──▶ store
//!        ▲                                                                                                     │
//!        └──────────────────────────── look again: something changed, or it is time ◀──────────────────────────┘
//! ```
//!
//! All that is remembered is in the two records, so that the one who carries steps out may die between any two of them.
//! A step on its own result asks for nothing more. What a strategy wants at a time is a number of replicas of each
//! revision and a share of the requests; `fleet` is the one place that starts and takes away replicas, within bounds.
//!
//! - A replica that is ready is taken away only while enough others have been ready for [`MIN_READY`]: the last healthy copy
//!   stays until its replacement is proven. [`Strategy::Immediate`](api::deploy::Strategy::Immediate) is the one exception.
//! - Going back is one record: its course, its weights, the standing of the revision that failed. There are no steps on the
//!   way back.
//! - Whatever isn't done by the deadline goes back; what waits for a judgement or a person waits for a person. Going back has
//!   a deadline of its own; past it the deployment has failed, and [`steady`] goes on with what it left.

mod acts;
mod begin;
mod fleet;
mod judge;
mod rewind;
mod steady;
mod turn;
mod view;
mod weigh;

use api::{
    ErrorCode, Span, Timestamp, WorkloadId,
    deploy::{Deployment, Moment, Phase, Replica, Service, Verdict},
};

pub use acts::{hasten, orphan, pause, promote, resume, retry, roll_back};
pub use begin::{Due, Request, begin, due, request, service};
pub use judge::{Question, observation, questions};
pub use steady::steady;
pub(crate) use turn::time as longest;
pub use view::{remaining, step_view};

/// A replica counts when it has been ready so long: one that answers its first check and dies at its second doesn't.
pub const MIN_READY: Span = Span::secs(1);

/// A replica that gets no new requests is stopped when it has answered those it has, and after this time at the latest.
pub const DRAIN: Span = Span::secs(30);

/// Least time between a replica's last place in the balance and its stop: by then whoever chooses replicas has seen it.
pub const DRAIN_LEAST: Span = Span::secs(1);

/// Starts anew after which a replica that doesn't stay ready has failed.
pub const RESTARTS_MAX: u32 = 3;

/// With rollback conditions, a revision that was rolled out whole is watched at least so long before it is called good.
pub const OBSERVE_LEAST: Span = Span::secs(60);

/// So long a verdict speaks for the present.
pub const VERDICT_FRESH: Span = Span::secs(60);

/// How often conditions are judged.
pub const JUDGE_EVERY: Span = Span::secs(10);

/// A deployment whose time is further past than this isn't begun any more.
pub const MISSED_AFTER: Span = Span::secs(300);

/// A deployment that begins so much after its time says so: the clock was set, or nobody looked.
pub const LATE: Span = Span::secs(5);

/// Longest deployment where the plan names no time.
pub const TIMEOUT: Span = Span::secs(30 * 60);

/// Rest before a replica is started in the place of one that ended by itself; doubled with each that follows, up to
/// [`SETBACK_MOST`]. The same as for attempts of a workload.
pub const SETBACK: Span = Span::secs(10);

/// Longest rest before a replica is started in the place of one that ended by itself.
pub const SETBACK_MOST: Span = Span::secs(300);

/// Who is named where nobody in person did it.
pub const ACTOR: &str = "rollout";

/// What is there when a step is decided.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The time.
    pub now: Timestamp,
    /// The deployment that is to take a step.
    pub deployment: &'a Deployment,
    /// Its service. Its members say which revision a replica has and whether it retires.
    pub service: &'a Service,
    /// The deployment that the service names as under way, where that is another one: it is superseded when this one begins.
    pub under_way: Option<&'a Deployment>,
    /// Where the deployment stands that this one waits for. `None`: it waits for none, or there is no such deployment.
    pub after: Option<Phase>,
    /// The service's replicas as they are. A member that isn't among them has ended.
    pub replicas: &'a [SeenReplica],
    /// Verdicts on what was asked ([`questions`]). Those that were taken into account before do nothing.
    pub verdicts: &'a [Verdict],
}

/// A replica as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenReplica {
    /// The workload that it is.
    pub workload: WorkloadId,
    /// How it does.
    pub state: State,
    /// Requests that it has yet to answer. 0 where nothing is proxied.
    pub in_flight: u64,
}

/// How a replica does.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It has no place yet, or none any more: what took it was no failure of its own.
    Waiting {
        /// Why.
        why: String,
    },
    /// It is pulled or started, and hasn't been ready yet.
    Starting,
    /// It may be sent requests.
    Ready {
        /// Since when, by the gateway's clock: it was told so, and has heard of its node since.
        since: Timestamp,
    },
    /// It was ready, and isn't now; or its checks fail, or nothing is heard of its node.
    Unready {
        /// Since when, by the gateway's clock.
        since: Timestamp,
        /// Why.
        why: String,
    },
    /// It ends and is started again.
    Failing {
        /// Why it ended the last time.
        why: String,
        /// What kind of end. `None`: none that has a code.
        code: Option<ErrorCode>,
        /// Starts anew after ends of its own, since it was last ready for long.
        restarts: u32,
    },
    /// It has ended and isn't started again.
    Ended {
        /// Why.
        why: String,
        /// What kind of end. `None`: none that has a code.
        code: Option<ErrorCode>,
        /// Whether another of the same revision would end as well: no such image, arguments that can't be.
        hopeless: bool,
    },
}

/// One step: all of it is one transaction.
///
/// Replicas that are started become members of `service` by [`Step::enlist`], in the same transaction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// The deployment as it is now. `None`: it hasn't changed.
    pub deployment: Option<Deployment>,
    /// The deployment that it ends, as it is now.
    pub superseded: Option<Deployment>,
    /// The service as it is now. `None`: it hasn't changed, and nothing is started.
    pub service: Option<Service>,
    /// So many replicas of these revisions are to be made.
    pub start: Vec<(u32, u32)>,
    /// Replicas that get no new requests from now on; recorded in `service`.
    pub retire: Vec<WorkloadId>,
    /// Replicas that are to end; recorded in `service`.
    pub stop: Vec<Stop>,
    /// When something is due although nothing changes. `None`: nothing is.
    pub look_again: Option<Timestamp>,
    /// What happened; in `deployment`'s timeline as well.
    pub said: Vec<Moment>,
}

/// A replica that is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub workload: WorkloadId,
    /// Whether it is killed at once, without the time between SIGTERM and SIGKILL.
    pub immediate: bool,
}

impl Step {
    /// Whether there is nothing to write and nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.deployment.is_none()
            && self.superseded.is_none()
            && self.service.is_none()
            && self.start.is_empty()
            && self.retire.is_empty()
            && self.stop.is_empty()
    }

    /// Makes a workload that was made for `start` a member of the service.
    pub fn enlist(&mut self, workload: WorkloadId, revision: u32, now: Timestamp) {
        if let Some(service) = &mut self.service {
            service.members.push(Replica {
                workload,
                revision,
                since: now,
                retiring: None,
                stopped: None,
            });
        }
    }
}

/// The next step of a deployment.
///
/// `seen.service.deployment` names it, or it is pending. On one that has ended, and on one that the service doesn't name,
/// nothing is done.
#[must_use]
pub fn step(seen: &Seen<'_>) -> Step {
    if seen.deployment.phase == Phase::Pending {
        return begin::when_due(seen);
    }
    if seen.deployment.phase.ended() || seen.service.deployment.as_ref() != Some(&seen.deployment.id) {
        return Step::default();
    }
    turn::turn(seen)
}
