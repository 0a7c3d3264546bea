//! A workload's way through its phases: pure functions from what it is and what happened to what it becomes.
//!
//! ```text
//! pending -> scheduled -> [pulling] -> running -> succeeded | failed | cancelled | timed-out | lost
//!    ^                                    |
//!    +---- retry, restart, preemption, ---+
//!          drain, migration, node lost
//! ```
//!
//! An attempt is over when every member has ended, on the word of its node or by the node's loss. Then, and only
//! then, [`settle`] decides what follows. A member's end is final: later reports about it change nothing.

use api::{
    ErrorCode, GpuIndex, NodeName, Span, Timestamp,
    event::{Event, Severity},
    time,
    wire::Seen,
    workload::{
        Endpoint, JobKey, Member, MemberState, Outcome, PAST_ATTEMPTS_MAX, PastAttempt, Phase, RestartPolicy,
        StopOrder, StopReason, TIMELINE_MAX, Transition, Usage, Workload, WorkloadSpec,
    },
};

/// First delay before a new attempt; doubles with each failure.
const RETRY_DELAY: Span = Span::secs(10);
/// Longest delay before a new attempt.
const RETRY_DELAY_MAX: Span = Span::secs(300);

/// Ready for so long, it has recovered from whatever made it end before. As long as the longest delay.
const STEADY: Span = RETRY_DELAY_MAX;

/// How long a workload waits for a place on the node that it is moved to, or off those that it avoids.
const CHOOSY: Span = Span::secs(60);

/// A workload's next state, and what goes with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it becomes.
    pub workload: Workload,
    /// What is told of it.
    pub events: Vec<Event>,
    /// GPUs that it takes: node, GPU, rank.
    pub claimed: Vec<(NodeName, GpuIndex, u32)>,
    /// GPUs that it gives back.
    pub released: Vec<(NodeName, GpuIndex)>,
}

impl Step {
    fn of(workload: Workload) -> Self {
        Self {
            workload,
            events: Vec::new(),
            claimed: Vec::new(),
            released: Vec::new(),
        }
    }

    fn event(&mut self, at: Timestamp, actor: &str, severity: Severity, reason: &str, message: String) {
        let w = &self.workload;
        self.events.push(Event {
            id: String::new(),
            at,
            kind: "workload".to_owned(),
            subject: w.id.to_string(),
            namespace: Some(w.namespace.clone()),
            node: w.members.first().map(|m| m.node.to_string()),
            reason: reason.to_owned(),
            message,
            actor: actor.to_owned(),
            severity,
            fact: None,
        });
    }

    /// Moves on to a phase. The reason and message stay with the workload until the next phase.
    fn enter(&mut self, phase: Phase, at: Timestamp, actor: &str, reason: Option<&str>, message: Option<String>) {
        let w = &mut self.workload;
        debug_assert!(w.phase.may_become(phase), "{}: {} -> {phase}", w.id, w.phase);
        w.phase = phase;
        w.reason = reason.map(str::to_owned);
        w.message.clone_from(&message);
        w.timeline.push(Transition {
            at,
            phase,
            attempt: w.attempt,
            reason: reason.map(str::to_owned),
            message: message.clone(),
            actor: actor.to_owned(),
        });
        if w.timeline.len() > TIMELINE_MAX {
            w.timeline.remove(1);
        }
        if phase.ended() {
            w.finished_at = Some(at);
            w.stop = None;
        }
        let severity = match phase {
            Phase::Failed | Phase::Lost | Phase::TimedOut => Severity::Error,
            Phase::Preempted => Severity::Warning,
            Phase::Pending if reason.is_some() => Severity::Warning,
            _ => Severity::Info,
        };
        let (id, name) = (w.id.clone(), w.name.clone());
        let text = match message {
            Some(message) => format!("{name} ({id}) is {phase}: {message}"),
            None => format!("{name} ({id}) is {phase}"),
        };
        self.event(at, actor, severity, event_reason(phase), text);
    }
}

/// Why a workload was stopped and queued again without having failed.
const NOT_FAILED: [&str; 3] = ["PREEMPTED", "DRAINED", "MIGRATED"];

/// Whether a step is the end of an attempt that failed and is followed by another one.
#[must_use]
pub fn failed_again(step: &Transition) -> bool {
    let failed = |reason: &str| !NOT_FAILED.contains(&reason);
    step.phase == Phase::Pending && step.reason.as_deref().is_some_and(failed)
}

/// Whether a waiting workload ended by itself, and not because something else needed its place or its node was lost.
#[must_use]
pub fn relapsed(w: &Workload) -> bool {
    w.phase == Phase::Pending && w.reason.as_deref().is_some_and(by_itself)
}

fn by_itself(reason: &str) -> bool {
    !NOT_FAILED.contains(&reason) && reason != ErrorCode::NodeUnreachable.as_str()
}

/// Since when all members are ready, by the gateway's clock. `None`: one isn't, or it doesn't run.
#[must_use]
pub fn ready_since(w: &Workload) -> Option<Timestamp> {
    if w.phase != Phase::Running {
        return None;
    }
    let since = |member: &Member| member.state.serves().then(|| stands_since(w, member));
    let all: Option<Vec<Timestamp>> = w.members.iter().map(since).collect();
    all?.into_iter().max()
}

/// Since when a member that runs isn't ready, by the gateway's clock. `None`: all are, or none runs.
#[must_use]
pub fn unready_since(w: &Workload) -> Option<Timestamp> {
    let unready = |m: &&Member| matches!(m.state, MemberState::Running { .. }) && !m.state.serves();
    w.members.iter().filter(unready).map(|m| stands_since(w, m)).min()
}

/// Since when a member that runs can serve, or can't. Records of earlier versions tell no more than when it began.
fn stands_since(w: &Workload, member: &Member) -> Timestamp {
    let told = match &member.state {
        MemberState::Running { since, .. } => *since,
        _ => None,
    };
    let entered = || {
        w.timeline
            .iter()
            .rev()
            .find(|t| t.phase == Phase::Running)
            .map(|t| t.at)
    };
    told.or_else(entered).unwrap_or(w.submitted_at)
}

/// Forgets what went wrong before a workload was ready for [`STEADY`]. To be called before it is ready no more.
fn forgive(w: &mut Workload, now: Timestamp) {
    if ready_since(w).is_some_and(|since| time::between(since, now) >= STEADY) {
        w.relapses = 0;
    }
}

fn event_reason(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Queued",
        Phase::Scheduled => "Scheduled",
        Phase::Pulling => "Pulling",
        Phase::Running => "Started",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
        Phase::Cancelled => "Cancelled",
        Phase::TimedOut => "TimedOut",
        Phase::Preempted => "Preempted",
        Phase::Lost => "Lost",
    }
}

/// The first event of a new workload.
#[must_use]
pub fn submitted(workload: &Workload) -> Vec<Event> {
    let mut step = Step::of(workload.clone());
    let message = format!("{} ({}) was submitted", workload.name, workload.id);
    let actor = format!("user:{}", workload.owner);
    step.event(workload.submitted_at, &actor, Severity::Info, "Submitted", message);
    step.events
}

/// Binds a waiting workload to nodes and GPUs: the next attempt begins. `None`: it no longer waits.
#[must_use]
pub fn bind(before: &Workload, members: Vec<Member>, now: Timestamp) -> Option<Step> {
    if before.phase != Phase::Pending {
        return None;
    }
    let mut step = Step::of(before.clone());
    let w = &mut step.workload;
    if !w.members.is_empty() {
        let members = std::mem::take(&mut w.members);
        w.past.push(PastAttempt {
            attempt: w.attempt,
            members,
        });
        if w.past.len() > PAST_ATTEMPTS_MAX {
            w.past.remove(0);
        }
    }
    w.attempt += 1;
    w.not_before = None;
    w.stop = None;
    w.target = None;
    w.avoid.clear();
    w.exit_code = None;
    step.claimed = members
        .iter()
        .flat_map(|m| m.gpus.iter().map(|g| (m.node.clone(), g.index, m.rank)))
        .collect();
    let places: Vec<String> = members.iter().map(place).collect();
    w.members = members;
    step.enter(
        Phase::Scheduled,
        now,
        "scheduler",
        None,
        Some(format!("on {}", places.join(", "))),
    );
    Some(step)
}

fn place(member: &Member) -> String {
    if member.gpus.is_empty() {
        return member.node.to_string();
    }
    let gpus: Vec<String> = member.gpus.iter().map(|g| g.index.to_string()).collect();
    format!("{} (GPU {})", member.node, gpus.join(","))
}

/// Takes in what a node saw of a member. `None`: it changes nothing (late, doubled, of an earlier attempt).
#[must_use]
pub fn observe(before: &Workload, node: &NodeName, job: &JobKey, seen: &Seen, now: Timestamp) -> Option<Step> {
    if before.attempt != job.attempt || before.phase.ended() {
        return None;
    }
    let at = before
        .members
        .iter()
        .position(|m| m.rank == job.rank && m.node == *node && !m.state.ended())?;
    let mut step = Step::of(before.clone());
    if matches!(seen, Seen::Readiness { ready: false, .. } | Seen::Ended { .. }) {
        forgive(&mut step.workload, now);
    }
    let member = &mut step.workload.members[at];
    let actor = format!("node:{node}");
    match seen {
        Seen::Pulling => {
            if member.state != MemberState::Assigned {
                return None;
            }
            member.state = MemberState::Pulling;
            if step.workload.phase == Phase::Scheduled {
                step.enter(
                    Phase::Pulling,
                    now,
                    &actor,
                    None,
                    Some(format!("image {}", before.spec.image)),
                );
            }
        }
        Seen::Started {
            at: started_at,
            endpoints,
        } => {
            if matches!(member.state, MemberState::Running { .. }) {
                return None;
            }
            member.state = running(&before.spec, *started_at, endpoints.clone(), now);
            begin_running(&mut step, *started_at, now, &actor);
        }
        Seen::Readiness { ready: now_ready, why } => {
            let MemberState::Running {
                ready,
                not_ready,
                since,
                ..
            } = &mut member.state
            else {
                return None;
            };
            let why = why.clone().filter(|_| !now_ready);
            if *ready == Some(*now_ready) && *not_ready == why {
                return None;
            }
            if *ready != Some(*now_ready) {
                *since = Some(now);
            }
            *ready = Some(*now_ready);
            *not_ready = why;
        }
        Seen::Ended {
            started_at,
            at: ended_at,
            outcome,
            stop,
            usage,
            ..
        } => {
            if let (Some(started), MemberState::Assigned | MemberState::Pulling) = (started_at, &member.state) {
                member.state = running(&before.spec, *started, Vec::new(), now);
                begin_running(&mut step, *started, now, &actor);
            }
            end_member(&mut step, at, *started_at, *ended_at, outcome.clone(), *stop, *usage);
            after_end(&mut step, now, &actor);
        }
    }
    let lapses = matches!(seen, Seen::Readiness { ready: false, .. }) && before.members[at].state.serves();
    if lapses {
        step.workload.lapsed_at = Some(now);
    }
    Some(step)
}

/// A member that has just begun to run: it isn't ready before its node says so, if that is asked at all.
fn running(spec: &WorkloadSpec, started_at: Timestamp, endpoints: Vec<Endpoint>, now: Timestamp) -> MemberState {
    MemberState::Running {
        started_at,
        ready: spec.readiness.as_ref().map(|_| false),
        not_ready: None,
        since: Some(now),
        endpoints,
    }
}

/// Takes in several observations, in order. `None`: they change nothing.
#[must_use]
pub fn observe_all<'a>(
    before: &Workload,
    node: &NodeName,
    seen: impl IntoIterator<Item = (&'a JobKey, &'a Seen)>,
    now: Timestamp,
) -> Option<Step> {
    let mut so_far: Option<Step> = None;
    for (job, seen) in seen {
        let from = so_far.as_ref().map_or(before, |step| &step.workload);
        if let Some(mut next) = observe(from, node, job, seen, now) {
            if let Some(mut step) = so_far.take() {
                step.events.append(&mut next.events);
                step.released.append(&mut next.released);
                next.events = step.events;
                next.released = step.released;
            }
            so_far = Some(next);
        }
    }
    so_far
}

/// Once all members run (or have run), the workload does.
fn begin_running(step: &mut Step, started_at: Timestamp, now: Timestamp, actor: &str) {
    let w = &mut step.workload;
    let all = w
        .members
        .iter()
        .all(|m| matches!(m.state, MemberState::Running { .. } | MemberState::Ended { .. }));
    if all && matches!(w.phase, Phase::Scheduled | Phase::Pulling) {
        w.started_at.get_or_insert(started_at);
        step.enter(Phase::Running, now, actor, None, None);
    }
}

fn end_member(
    step: &mut Step,
    at: usize,
    started_at: Option<Timestamp>,
    ended_at: Timestamp,
    outcome: Outcome,
    stop: Option<StopReason>,
    usage: Usage,
) {
    let member = &mut step.workload.members[at];
    member.state = MemberState::Ended {
        started_at,
        at: ended_at,
        outcome,
        stop,
        usage,
    };
    step.released
        .extend(member.gpus.iter().map(|g| (member.node.clone(), g.index)));
}

/// After a member's end: settles the attempt if it was the last, stops the others if it takes them down.
fn after_end(step: &mut Step, now: Timestamp, actor: &str) {
    if step.workload.members.iter().all(|m| m.state.ended()) {
        settle(step, now, actor);
        return;
    }
    let broken = step.workload.members.iter().any(|m| match &m.state {
        // One that its node stopped is gone as well, however well it took that.
        MemberState::Ended { outcome, stop, .. } => !outcome.success() || stop.is_some(),
        _ => false,
    });
    if broken && step.workload.stop.is_none() {
        step.workload.stop = Some(StopOrder {
            reason: StopReason::GangBroken,
            grace: step.workload.spec.grace(),
            by: "gateway".to_owned(),
            at: now,
            in_favour_of: None,
            message: Some("another member of the gang ended".to_owned()),
        });
    }
}

/// Ends the members of a workload on a node that was lost and fenced. `None`: it has none there.
#[must_use]
pub fn lose(before: &Workload, node: &NodeName, now: Timestamp) -> Option<Step> {
    if before.phase.ended() {
        return None;
    }
    let mut step = Step::of(before.clone());
    forgive(&mut step.workload, now);
    let mut any = false;
    for at in 0..step.workload.members.len() {
        let member = &step.workload.members[at];
        if member.node != *node || member.state.ended() {
            continue;
        }
        any = true;
        let started_at = match member.state {
            MemberState::Running { started_at, .. } => Some(started_at),
            _ => None,
        };
        let outcome = Outcome::Unknown {
            why: format!("node {node} was lost"),
        };
        end_member(
            &mut step,
            at,
            started_at,
            now,
            outcome,
            Some(StopReason::Fenced),
            Usage::default(),
        );
    }
    if !any {
        return None;
    }
    after_end(&mut step, now, "gateway");
    Some(step)
}

/// Ends the members of a workload on a node that is removed though it may still run them, and what else there is of the
/// workload: it doesn't start elsewhere. `None`: it has none there.
#[must_use]
pub fn abandon(before: &Workload, node: &NodeName, by: &str, now: Timestamp) -> Option<Step> {
    if before.phase.ended() {
        return None;
    }
    let here = |m: &Member| m.node == *node && !m.state.ended();
    before.members.iter().find(|m| here(m))?;
    let mut step = Step::of(before.clone());
    step.workload.stop = Some(StopOrder {
        reason: StopReason::Cancelled,
        grace: before.spec.grace(),
        by: by.to_owned(),
        at: now,
        in_favour_of: None,
        message: Some(format!("node {node} was removed by {by}")),
    });
    for at in 0..step.workload.members.len() {
        let member = &step.workload.members[at];
        if !here(member) {
            continue;
        }
        let started_at = match member.state {
            MemberState::Running { started_at, .. } => Some(started_at),
            _ => None,
        };
        let why = format!("node {node} was removed");
        let outcome = Outcome::Unknown { why };
        let stop = Some(StopReason::Cancelled);
        end_member(&mut step, at, started_at, now, outcome, stop, Usage::default());
    }
    after_end(&mut step, now, by);
    Some(step)
}

/// Orders a placed workload to stop. `None`: it isn't placed, or is already under an order that wins.
///
/// A cancellation wins over every other order, and a shorter grace over a longer one of the same reason.
#[must_use]
pub fn order_stop(before: &Workload, order: StopOrder) -> Option<Step> {
    if !before.phase.placed() {
        return None;
    }
    if let Some(standing) = &before.stop {
        let wins = (order.reason == StopReason::Cancelled && standing.reason != StopReason::Cancelled)
            || (order.reason == standing.reason && order.grace < standing.grace);
        if !wins {
            return None;
        }
    }
    let mut step = Step::of(before.clone());
    let message = format!(
        "{} ({}) is being stopped: {} (grace {})",
        before.name,
        before.id,
        why_stopped(&order),
        order.grace
    );
    step.event(order.at, &order.by.clone(), Severity::Info, "Stopping", message);
    step.workload.stop = Some(order);
    Some(step)
}

/// Why an order stops a workload, in words.
#[must_use]
pub fn why_stopped(order: &StopOrder) -> String {
    let why = match order.reason {
        StopReason::Cancelled => "cancelled",
        StopReason::Timeout => "over its timeout",
        StopReason::Preempted => "preempted",
        StopReason::Drained => "its node is drained",
        StopReason::Migrated => "migrated",
        StopReason::GangBroken => "its gang is broken",
        StopReason::Unhealthy => "unhealthy",
        StopReason::Fenced | StopReason::NotWanted => "not wanted",
    };
    let favour = order.in_favour_of.as_ref();
    favour.map_or_else(|| why.to_owned(), |id| format!("{why} in favour of {id}"))
}

/// Cancels a workload: at once where it waits, by an order to stop where it is placed. `None`: nothing to do.
#[must_use]
pub fn cancel(before: &Workload, grace: Option<Span>, by: &str, now: Timestamp) -> Option<Step> {
    if before.phase == Phase::Pending {
        let mut step = Step::of(before.clone());
        step.enter(Phase::Cancelled, now, by, Some("CANCELLED"), Some(format!("by {by}")));
        return Some(step);
    }
    let grace = grace.unwrap_or_else(|| before.spec.grace());
    order_stop(
        before,
        StopOrder {
            reason: StopReason::Cancelled,
            grace,
            by: by.to_owned(),
            at: now,
            in_favour_of: None,
            message: None,
        },
    )
}

/// Ends a workload that has waited longer than it wanted to. `None`: it hasn't.
#[must_use]
pub fn give_up_waiting(before: &Workload, now: Timestamp) -> Option<Step> {
    let max_wait = before.spec.max_wait?;
    if before.phase != Phase::Pending || time::between(waits_since(before), now) < max_wait {
        return None;
    }
    let mut step = Step::of(before.clone());
    let message = format!("waited longer than {max_wait}");
    step.enter(Phase::TimedOut, now, "gateway", Some("WORKLOAD_TIMEOUT"), Some(message));
    Some(step)
}

/// Since when a pending workload has waited for a place; the delay before a new attempt is no such wait.
fn waits_since(w: &Workload) -> Timestamp {
    let pending = w.timeline.last().map_or(w.submitted_at, |t| t.at);
    w.not_before.map_or(pending, |at| at.max(pending))
}

/// Lets a workload that was to go to a certain node, or away from certain nodes, go anywhere once it has waited for
/// [`CHOOSY`]: the target may be too small or gone, and those to avoid may be all that could take it. Where there is no node
/// `elsewhere`, it needn't wait so long to know. `None`: nothing to do.
#[must_use]
pub fn take_any_node(before: &Workload, elsewhere: bool, now: Timestamp) -> Option<Step> {
    let choosy = before.target.is_some() || !before.avoid.is_empty();
    let hopes = before.target.is_some() || elsewhere;
    let long = time::between(waits_since(before), now) >= CHOOSY;
    if before.phase != Phase::Pending || !choosy || hopes && !long {
        return None;
    }
    let mut step = Step::of(before.clone());
    let w = &mut step.workload;
    let wanted = match w.target.take() {
        Some(target) => format!("on {target}"),
        None => "elsewhere".to_owned(),
    };
    w.avoid.clear();
    let message = match long {
        true => format!(
            "{} ({}) found no place {wanted} for {CHOOSY}: it now takes any node",
            w.name, w.id
        ),
        false => format!("{} ({}) can't go {wanted}: it now takes any node", w.name, w.id),
    };
    step.event(now, "gateway", Severity::Warning, "AnyNode", message);
    Some(step)
}

/// Changes what is asked for.
#[must_use]
pub fn respecify(before: &Workload, spec: WorkloadSpec, by: &str, now: Timestamp) -> Step {
    let mut step = Step::of(before.clone());
    let mut changes = Vec::new();
    if spec.memory != before.spec.memory {
        changes.push(
            spec.memory
                .map_or_else(|| "no memory limit".to_owned(), |m| format!("memory {m}")),
        );
    }
    if spec.timeout != before.spec.timeout {
        changes.push(
            spec.timeout
                .map_or_else(|| "no timeout".to_owned(), |t| format!("timeout {t}")),
        );
    }
    if spec.priority != before.spec.priority {
        changes.push(format!("priority {}", spec.priority.name()));
    }
    let message = format!("{} ({}) now has {}", before.name, before.id, changes.join(", "));
    step.workload.spec = std::sync::Arc::new(spec);
    step.event(now, by, Severity::Info, "Updated", message);
    step
}

/// What an attempt came to.
struct Verdict {
    /// Where the workload stands if nothing follows.
    phase: Phase,
    reason: Option<String>,
    message: Option<String>,
    /// How it may go on.
    next: Next,
}

enum Next {
    /// It is final.
    Nothing,
    /// A new attempt that counts as a failure, where retries or the restart policy allow one.
    Retry,
    /// A new attempt where the restart policy asks for one after success.
    Again,
    /// Back into the queue: the attempt was taken from it.
    Requeue,
}

/// Decides what follows on an attempt of which every member has ended.
fn settle(step: &mut Step, now: Timestamp, actor: &str) {
    let w = &step.workload;
    let verdict = judge(w);
    let codes: Vec<Option<i32>> = w
        .members
        .iter()
        .map(|m| match &m.state {
            MemberState::Ended { outcome, .. } => outcome.exit_code(),
            _ => None,
        })
        .collect();
    let exit_code = if codes.contains(&None) && verdict.phase != Phase::Failed {
        codes.iter().copied().flatten().find(|c| *c != 0)
    } else {
        codes.iter().copied().flatten().max()
    };
    let policy = w.spec.restart;
    let again = match verdict.next {
        Next::Nothing => None,
        Next::Requeue => Some((false, Span(0))),
        Next::Again => (policy == RestartPolicy::Always).then(|| (false, delay(w))),
        Next::Retry => {
            let may = policy != RestartPolicy::Never || w.failures < w.spec.retries;
            may.then(|| (true, delay(w)))
        }
    };
    let w = &mut step.workload;
    w.exit_code = exit_code;
    let Some((failed, wait)) = again else {
        step.enter(verdict.phase, now, actor, verdict.reason.as_deref(), verdict.message);
        return;
    };
    let nodes: Vec<NodeName> = w.members.iter().map(|m| m.node.clone()).collect();
    if w.stop.as_ref().is_some_and(|s| s.reason == StopReason::Migrated) {
        w.avoid = nodes;
    } else {
        let never_started = w.members.iter().any(|m| {
            matches!(
                &m.state,
                MemberState::Ended {
                    outcome: Outcome::StartFailed { .. },
                    // Stopped before it started: that isn't the node's fault.
                    stop: None,
                    ..
                }
            )
        });
        w.avoid = if never_started && w.target.is_none() {
            nodes
        } else {
            Vec::new()
        };
    }
    w.restarts += 1;
    w.failures += u32::from(failed);
    let reason = verdict.reason.unwrap_or_else(|| "RESTART".to_owned());
    w.relapses += u32::from(by_itself(&reason));
    w.stop = None;
    w.not_before = (!wait.is_zero()).then(|| time::after(now, wait));
    let message = match verdict.message {
        Some(message) if wait.is_zero() => message,
        Some(message) => format!("{message}; next attempt in {wait}"),
        None => format!("next attempt in {wait}"),
    };
    step.enter(Phase::Pending, now, actor, Some(&reason), Some(message));
}

/// Time before the next attempt.
fn delay(w: &Workload) -> Span {
    w.spec.retry_delay.unwrap_or_else(|| {
        let doubled = RETRY_DELAY.millis() << w.failures.min(10);
        Span(doubled.min(RETRY_DELAY_MAX.millis()))
    })
}

/// Why the latest attempt ended, in words, whatever followed. `None`: it went well, or a member of it hasn't ended.
#[must_use]
pub fn why_ended(w: &Workload) -> Option<String> {
    let all = !w.members.is_empty() && w.members.iter().all(|m| m.state.ended());
    let verdict = all.then(|| judge(w))?;
    verdict.message.or(verdict.reason)
}

/// What an attempt came to, by the member that decided it: the first that failed by itself, else the first that was
/// stopped, else the first.
fn judge(w: &Workload) -> Verdict {
    let ended = |m: &Member| match &m.state {
        MemberState::Ended { at, outcome, stop, .. } => Some((*at, m.node.clone(), outcome.clone(), *stop)),
        _ => None,
    };
    let mut all: Vec<_> = w.members.iter().filter_map(ended).collect();
    all.sort_by_key(|(at, ..)| *at);
    if all
        .iter()
        .all(|(_, _, outcome, stop)| outcome.success() && stop.is_none())
    {
        return Verdict {
            phase: Phase::Succeeded,
            reason: None,
            message: None,
            next: Next::Again,
        };
    }
    let by_itself = all
        .iter()
        .find(|(_, _, outcome, stop)| stop.is_none() && !outcome.success());
    let stopped_by = |wanted: &dyn Fn(StopReason) -> bool| all.iter().find(|(_, _, _, stop)| stop.is_some_and(wanted));
    let stopped = stopped_by(&|s| s == StopReason::Cancelled).or_else(|| stopped_by(&|s| s != StopReason::GangBroken));
    let Some((_, node, outcome, stop)) = by_itself.or(stopped).or(all.first()) else {
        return Verdict {
            phase: Phase::Lost,
            reason: None,
            message: None,
            next: Next::Retry,
        };
    };
    // An order of the gateway's explains an end by signal that the node saw before the order reached it.
    let order = w.stop.as_ref().map(|s| s.reason);
    match stop {
        Some(StopReason::Timeout) => judge_stopped(w, StopReason::Timeout, node, outcome),
        // Also where the node was under another order first, or was lost: nobody wants a further attempt.
        _ if order == Some(StopReason::Cancelled) => judge_stopped(w, StopReason::Cancelled, node, outcome),
        Some(reason) => judge_stopped(w, *reason, node, outcome),
        None => judge_outcome(w, node, outcome),
    }
}

fn judge_stopped(w: &Workload, stop: StopReason, node: &NodeName, outcome: &Outcome) -> Verdict {
    let said = w.stop.as_ref().and_then(|s| s.message.clone());
    let by = w.stop.as_ref().map(|s| format!("by {}", s.by));
    let verdict = |phase, reason: &str, message: Option<String>, next| Verdict {
        phase,
        reason: Some(reason.to_owned()),
        message,
        next,
    };
    match stop {
        StopReason::Cancelled => verdict(Phase::Cancelled, "CANCELLED", said.or(by), Next::Nothing),
        StopReason::Timeout => {
            let limit = w.spec.timeout.map_or_else(String::new, |t| format!(" of {t}"));
            let message = format!("ran longer than its timeout{limit}: raise --timeout, or make it faster");
            verdict(
                Phase::TimedOut,
                ErrorCode::WorkloadTimeout.as_str(),
                Some(message),
                Next::Nothing,
            )
        }
        StopReason::Preempted => {
            let favour = w.stop.as_ref().and_then(|s| s.in_favour_of.clone());
            let message = favour.map_or(said, |id| Some(format!("preempted in favour of {id}")));
            verdict(Phase::Preempted, "PREEMPTED", message, Next::Requeue)
        }
        StopReason::Drained => verdict(
            Phase::Cancelled,
            "DRAINED",
            Some(format!("node {node} was drained")),
            Next::Requeue,
        ),
        StopReason::Migrated => verdict(
            Phase::Cancelled,
            "MIGRATED",
            Some(format!("moved off {node}")),
            Next::Requeue,
        ),
        StopReason::Unhealthy => verdict(
            Phase::Failed,
            "UNHEALTHY",
            Some("its health check failed too often".to_owned()),
            Next::Retry,
        ),
        StopReason::GangBroken => judge_outcome(w, node, outcome),
        StopReason::Fenced | StopReason::NotWanted => verdict(
            Phase::Lost,
            ErrorCode::NodeUnreachable.as_str(),
            Some(format!("node {node} was lost while it ran there")),
            Next::Retry,
        ),
    }
}

fn judge_outcome(w: &Workload, node: &NodeName, outcome: &Outcome) -> Verdict {
    let failed = |reason: &str, message: String, next| Verdict {
        phase: Phase::Failed,
        reason: Some(reason.to_owned()),
        message: Some(message),
        next,
    };
    match outcome {
        Outcome::Exited { code: 0 } => Verdict {
            phase: Phase::Succeeded,
            reason: None,
            message: None,
            next: Next::Again,
        },
        Outcome::Exited { code } => failed("EXIT_CODE", format!("exited with code {code}"), Next::Retry),
        Outcome::Signaled { signal } => failed("SIGNALED", format!("ended by signal {signal}"), Next::Retry),
        Outcome::OomKilled {
            limit_bytes,
            peak_bytes,
        } => {
            let peak = peak_bytes.map_or_else(String::new, |p| format!(" (peak {p})"));
            let message = match limit_bytes.or(w.spec.memory) {
                Some(limit) => {
                    let more = api::Size(limit.bytes().saturating_mul(2));
                    format!("killed at its memory limit of {limit}{peak}: raise it, for example --memory {more}")
                }
                None => format!("killed because node {node} ran out of memory{peak}: give it a limit with --memory"),
            };
            failed(ErrorCode::OomKilled.as_str(), message, Next::Retry)
        }
        Outcome::StartFailed {
            code,
            message,
            retryable,
        } => failed(
            code.as_str(),
            message.clone(),
            if *retryable { Next::Retry } else { Next::Nothing },
        ),
        Outcome::Unknown { why } => Verdict {
            phase: Phase::Lost,
            reason: Some(ErrorCode::NodeUnreachable.as_str().to_owned()),
            message: Some(why.clone()),
            next: Next::Retry,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::{
        WorkloadId,
        workload::{HealthCheck, HeldGpu, Probe},
    };

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn pending(spec: WorkloadSpec) -> Workload {
        Workload {
            id: WorkloadId::new("wl-1"),
            name: "train".to_owned(),
            namespace: "default".to_owned(),
            owner: "ada".to_owned(),
            labels: Default::default(),
            annotations: Default::default(),
            spec: Arc::new(spec),
            phase: Phase::Pending,
            reason: None,
            message: None,
            attempt: 0,
            members: Vec::new(),
            submitted_at: at(0),
            started_at: None,
            finished_at: None,
            exit_code: None,
            restarts: 0,
            failures: 0,
            relapses: 0,
            not_before: None,
            stop: None,
            target: None,
            avoid: Vec::new(),
            lapsed_at: None,
            timeline: Vec::new(),
            past: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn member(rank: u32, node: &str, gpus: &[u32]) -> Member {
        let gpus = gpus
            .iter()
            .map(|i| HeldGpu {
                index: *i,
                uuid: format!("GPU-{i}"),
            })
            .collect();
        Member {
            rank,
            node: NodeName::new(node),
            gpus,
            state: MemberState::Assigned,
        }
    }

    fn job(attempt: u32, rank: u32) -> JobKey {
        JobKey {
            workload: WorkloadId::new("wl-1"),
            attempt,
            rank,
        }
    }

    fn ended(outcome: Outcome, stop: Option<StopReason>) -> Seen {
        Seen::Ended {
            started_at: Some(at(1)),
            at: at(9),
            outcome,
            stop,
            usage: Usage::default(),
            last_line: 0,
        }
    }

    fn started(second: i64) -> Seen {
        Seen::Started {
            at: at(second),
            endpoints: Vec::new(),
        }
    }

    fn bound(spec: WorkloadSpec, members: Vec<Member>) -> Workload {
        bind(&pending(spec), members, at(1)).unwrap().workload
    }

    #[test]
    fn the_straight_way() {
        let step = bind(&pending(WorkloadSpec::default()), vec![member(0, "a", &[2, 3])], at(1)).unwrap();
        assert_eq!(step.claimed, [(NodeName::new("a"), 2, 0), (NodeName::new("a"), 3, 0)]);
        let a = NodeName::new("a");
        let run = observe(&step.workload, &a, &job(1, 0), &started(2), at(2)).unwrap();
        assert_eq!(run.workload.phase, Phase::Running);
        assert!(
            observe(&run.workload, &a, &job(1, 0), &started(2), at(3)).is_none(),
            "said twice"
        );
        let end = observe(
            &run.workload,
            &a,
            &job(1, 0),
            &ended(Outcome::Exited { code: 0 }, None),
            at(9),
        )
        .unwrap();
        assert_eq!(end.workload.phase, Phase::Succeeded);
        assert_eq!(end.workload.exit_code, Some(0));
        assert_eq!(end.released, [(a.clone(), 2), (a.clone(), 3)]);
        assert!(
            observe(
                &end.workload,
                &a,
                &job(1, 0),
                &ended(Outcome::Exited { code: 1 }, None),
                at(9)
            )
            .is_none()
        );
    }

    #[test]
    fn an_end_that_overtakes_its_start_passes_through_running() {
        let w = bound(WorkloadSpec::default(), vec![member(0, "a", &[])]);
        let end = observe(
            &w,
            &NodeName::new("a"),
            &job(1, 0),
            &ended(Outcome::Exited { code: 3 }, None),
            at(9),
        )
        .unwrap();
        assert_eq!(end.workload.phase, Phase::Failed);
        assert_eq!(end.workload.started_at, Some(at(1)));
        let phases: Vec<_> = end.workload.timeline.iter().map(|t| t.phase).collect();
        assert_eq!(phases, [Phase::Scheduled, Phase::Running, Phase::Failed]);
    }

    #[test]
    fn what_another_node_or_attempt_says_changes_nothing() {
        let w = bound(WorkloadSpec::default(), vec![member(0, "a", &[])]);
        let seen = ended(Outcome::Exited { code: 0 }, None);
        assert!(observe(&w, &NodeName::new("b"), &job(1, 0), &seen, at(9)).is_none());
        assert!(observe(&w, &NodeName::new("a"), &job(2, 0), &seen, at(9)).is_none());
        assert!(observe(&w, &NodeName::new("a"), &job(1, 1), &seen, at(9)).is_none());
    }

    #[test]
    fn retries_are_counted_and_delayed() {
        let spec = WorkloadSpec {
            retries: 1,
            ..WorkloadSpec::default()
        };
        let a = NodeName::new("a");
        let w = bound(spec, vec![member(0, "a", &[0])]);
        let fail = ended(Outcome::Exited { code: 3 }, None);
        let first = observe(&w, &a, &job(1, 0), &fail, at(9)).unwrap();
        assert_eq!((first.workload.phase, first.workload.failures), (Phase::Pending, 1));
        assert_eq!(first.workload.not_before, Some(at(19)));
        assert_eq!(first.released.len(), 1);
        let again = bind(&first.workload, vec![member(0, "a", &[0])], at(20))
            .unwrap()
            .workload;
        assert_eq!((again.attempt, again.past.len()), (2, 1));
        let second = observe(&again, &a, &job(2, 0), &fail, at(30)).unwrap();
        assert_eq!(
            (second.workload.phase, second.workload.exit_code),
            (Phase::Failed, Some(3))
        );
    }

    #[test]
    fn a_member_is_ready_when_its_node_says_so_and_not_before() {
        let a = NodeName::new("a");
        let said = |ready, why: Option<&str>| Seen::Readiness {
            ready,
            why: why.map(str::to_owned),
        };
        let stands = |w: &Workload| match &w.members[0].state {
            MemberState::Running {
                ready,
                not_ready,
                endpoints,
                ..
            } => (*ready, not_ready.clone(), endpoints.len()),
            other => panic!("{other:?}"),
        };
        let w = bound(asked(), vec![member(0, "a", &[])]);
        assert!(
            observe(&w, &a, &job(1, 0), &said(true, None), at(1)).is_none(),
            "it doesn't run"
        );
        let endpoint = Endpoint {
            name: "http".to_owned(),
            port: 80,
            host_port: 20_001,
        };
        let begun = Seen::Started {
            at: at(2),
            endpoints: vec![endpoint],
        };
        let mut w = observe(&w, &a, &job(1, 0), &begun, at(2)).unwrap().workload;
        assert_eq!(stands(&w), (Some(false), None, 1));
        assert!(!w.members[0].state.serves());
        for (ready, why, lapsed) in [
            (false, Some("refused"), None),
            (true, None, None),
            (false, Some("it answered 503"), Some(at(3))),
            (false, Some("it answered 500"), Some(at(3))),
            (true, None, Some(at(3))),
        ] {
            let step = observe(&w, &a, &job(1, 0), &said(ready, why), at(3)).unwrap();
            assert_eq!(step.workload.lapsed_at, lapsed, "it was ready before or not");
            assert_eq!((step.workload.phase, step.events.len()), (Phase::Running, 0));
            w = step.workload;
            assert_eq!(stands(&w), (Some(ready), why.map(str::to_owned), 1));
            assert_eq!(w.members[0].state.serves(), ready);
            assert!(
                observe(&w, &a, &job(1, 0), &said(ready, why), at(4)).is_none(),
                "said twice"
            );
        }
        let end = observe(&w, &a, &job(1, 0), &ended(Outcome::Exited { code: 0 }, None), at(9));
        let end = end.unwrap().workload;
        assert!(
            observe(&end, &a, &job(1, 0), &said(false, None), at(10)).is_none(),
            "its end is final"
        );

        let plain = bound(WorkloadSpec::default(), vec![member(0, "a", &[])]);
        let plain = observe(&plain, &a, &job(1, 0), &started(2), at(2)).unwrap().workload;
        assert_eq!(stands(&plain), (None, None, 0));
        assert!(plain.members[0].state.serves(), "nobody asks");
    }

    fn asked() -> WorkloadSpec {
        WorkloadSpec {
            restart: RestartPolicy::Always,
            readiness: Some(HealthCheck {
                probe: Probe::Tcp(80),
                interval: Span::secs(1),
                timeout: Span::secs(1),
                failures: 1,
            }),
            ..WorkloadSpec::default()
        }
    }

    fn said(ready: bool) -> Seen {
        Seen::Readiness { ready, why: None }
    }

    #[test]
    fn it_is_ready_since_the_gateway_heard_so_whatever_its_nodes_clock_says() {
        let (a, b) = (NodeName::new("a"), NodeName::new("b"));
        let plain = bound(WorkloadSpec::default(), vec![member(0, "a", &[])]);
        assert_eq!(ready_since(&plain), None);
        // The node is an hour ahead.
        let plain = observe(&plain, &a, &job(1, 0), &started(3600), at(2)).unwrap().workload;
        assert_eq!(
            ready_since(&plain),
            Some(at(2)),
            "nobody asks: it is ready when it runs"
        );

        let mut w = bound(asked(), vec![member(0, "a", &[]), member(1, "b", &[])]);
        for (node, rank) in [(&a, 0), (&b, 1)] {
            w = observe(&w, node, &job(1, rank), &started(3600), at(2))
                .unwrap()
                .workload;
        }
        w = observe(&w, &a, &job(1, 0), &said(true), at(40)).unwrap().workload;
        assert_eq!((ready_since(&w), unready_since(&w)), (None, Some(at(2))), "one of two");
        w = observe(&w, &b, &job(1, 1), &said(true), at(50)).unwrap().workload;
        assert_eq!(
            (ready_since(&w), unready_since(&w)),
            (Some(at(50)), None),
            "48 s after its start"
        );
        w = observe(&w, &a, &job(1, 0), &said(false), at(60)).unwrap().workload;
        let why = Seen::Readiness {
            ready: false,
            why: Some("it answered 503".to_owned()),
        };
        w = observe(&w, &a, &job(1, 0), &why, at(65)).unwrap().workload;
        assert_eq!(
            (ready_since(&w), unready_since(&w)),
            (None, Some(at(60))),
            "whatever the reason is by now"
        );
        w = observe(&w, &a, &job(1, 0), &said(true), at(70)).unwrap().workload;
        assert_eq!(ready_since(&w), Some(at(70)), "anew");
    }

    #[test]
    fn a_record_of_an_earlier_version_is_ready_since_it_runs() {
        let w = bound(WorkloadSpec::default(), vec![member(0, "a", &[])]);
        let mut w = observe(&w, &NodeName::new("a"), &job(1, 0), &started(9), at(2))
            .unwrap()
            .workload;
        let MemberState::Running { since, .. } = &mut w.members[0].state else {
            panic!("it runs")
        };
        *since = None;
        assert_eq!(ready_since(&w), Some(at(2)));
    }

    /// Binds it, has it start and, where asked so, be ready; then it ends.
    fn attempt(
        w: &Workload,
        second: i64,
        ready_at: Option<i64>,
        outcome: Outcome,
        stop: Option<StopReason>,
    ) -> Workload {
        let a = NodeName::new("a");
        let w = bind(w, vec![member(0, "a", &[])], at(second)).unwrap().workload;
        let job = job(w.attempt, 0);
        let mut w = observe(&w, &a, &job, &started(second), at(second)).unwrap().workload;
        if let Some(ready_at) = ready_at {
            w = observe(&w, &a, &job, &said(true), at(ready_at)).unwrap().workload;
        }
        observe(&w, &a, &job, &ended(outcome, stop), at(second + 400))
            .unwrap()
            .workload
    }

    #[test]
    fn what_is_done_to_it_is_no_relapse_of_its_own() {
        let (lost, died) = (
            Outcome::Unknown {
                why: "node a was lost".to_owned(),
            },
            Outcome::Exited { code: 3 },
        );
        let killed = Outcome::Signaled { signal: 15 };
        let mut w = pending(asked());
        for (outcome, stop, relapsed_now, relapses) in [
            (killed.clone(), Some(StopReason::Preempted), false, 0),
            (died.clone(), None, true, 1),
            (killed.clone(), Some(StopReason::Drained), false, 1),
            (killed, Some(StopReason::Migrated), false, 1),
            (lost.clone(), Some(StopReason::Fenced), false, 1),
            (lost, None, false, 1),
            // A service doesn't end by itself, however well.
            (Outcome::Exited { code: 0 }, None, true, 2),
            (died, Some(StopReason::Unhealthy), true, 3),
        ] {
            w = attempt(&w, 10, None, outcome.clone(), stop);
            assert_eq!(
                (w.phase, relapsed(&w), w.relapses),
                (Phase::Pending, relapsed_now, relapses),
                "{outcome:?} {stop:?}"
            );
        }
        assert_eq!(w.restarts, 8);
    }

    #[test]
    fn relapses_are_forgotten_once_it_was_ready_for_long() {
        let died = || Outcome::Exited { code: 3 };
        let mut w = pending(asked());
        for (ready_at, relapses) in [
            (None, 1),
            // Ready, but for a moment.
            (Some(300), 2),
            // Ready from the 100th to the 410th second.
            (Some(100), 1),
            (None, 2),
        ] {
            w = attempt(&w, 10, ready_at, died(), None);
            assert_eq!(w.relapses, relapses, "ready at {ready_at:?}");
        }
        // It recovers, then its check fails: that is news, too.
        let a = NodeName::new("a");
        let w = bind(&w, vec![member(0, "a", &[])], at(10)).unwrap().workload;
        let job = job(w.attempt, 0);
        let mut w = observe(&w, &a, &job, &started(10), at(10)).unwrap().workload;
        for (ready, second, relapses) in [(true, 20, 2), (false, 30, 2), (true, 40, 2), (false, 400, 0)] {
            w = observe(&w, &a, &job, &said(ready), at(second)).unwrap().workload;
            assert_eq!(w.relapses, relapses, "{second}");
        }
    }

    #[test]
    fn an_unknown_image_is_not_tried_again() {
        let spec = WorkloadSpec {
            retries: 5,
            ..WorkloadSpec::default()
        };
        let w = bound(spec, vec![member(0, "a", &[])]);
        let outcome = Outcome::StartFailed {
            code: ErrorCode::ImageNotFound,
            message: "no such image".to_owned(),
            retryable: false,
        };
        let seen = Seen::Ended {
            started_at: None,
            at: at(2),
            outcome,
            stop: None,
            usage: Usage::default(),
            last_line: 0,
        };
        let end = observe(&w, &NodeName::new("a"), &job(1, 0), &seen, at(2))
            .unwrap()
            .workload;
        assert_eq!(
            (end.phase, end.reason.as_deref(), end.exit_code),
            (Phase::Failed, Some("IMAGE_NOT_FOUND"), None)
        );
    }

    #[test]
    fn preempted_work_goes_back_into_the_queue() {
        let w = bound(WorkloadSpec::default(), vec![member(0, "a", &[0])]);
        let order = StopOrder {
            reason: StopReason::Preempted,
            grace: Span::secs(10),
            by: "scheduler".to_owned(),
            at: at(3),
            in_favour_of: Some(WorkloadId::new("wl-2")),
            message: None,
        };
        let w = order_stop(&w, order.clone()).unwrap().workload;
        assert!(order_stop(&w, order).is_none(), "said twice");
        let seen = ended(Outcome::Signaled { signal: 15 }, Some(StopReason::Preempted));
        let end = observe(&w, &NodeName::new("a"), &job(1, 0), &seen, at(9))
            .unwrap()
            .workload;
        assert_eq!((end.phase, end.failures, end.restarts), (Phase::Pending, 0, 1));
        assert_eq!(end.message.as_deref(), Some("preempted in favour of wl-2"));
    }

    #[test]
    fn a_cancellation_holds_where_another_order_came_first_or_the_node_is_lost() {
        let spec = WorkloadSpec {
            restart: RestartPolicy::Always,
            ..WorkloadSpec::default()
        };
        let a = NodeName::new("a");
        let w = cancel(&bound(spec, vec![member(0, "a", &[0])]), None, "user:ada", at(3));
        let w = w.unwrap().workload;
        for first in [StopReason::Drained, StopReason::Preempted, StopReason::Unhealthy] {
            let seen = ended(Outcome::Signaled { signal: 15 }, Some(first));
            let end = observe(&w, &a, &job(1, 0), &seen, at(9)).unwrap().workload;
            assert_eq!(end.phase, Phase::Cancelled, "{first:?}");
        }
        assert_eq!(lose(&w, &a, at(400)).unwrap().workload.phase, Phase::Cancelled);
    }

    #[test]
    fn a_node_is_not_avoided_for_what_was_stopped_before_it_started() {
        let w = bound(WorkloadSpec::default(), vec![member(0, "a", &[0])]);
        let seen = Seen::Ended {
            started_at: None,
            at: at(2),
            outcome: Outcome::StartFailed {
                code: ErrorCode::Conflict,
                message: "it was stopped before it started".to_owned(),
                retryable: true,
            },
            stop: Some(StopReason::Drained),
            usage: Usage::default(),
            last_line: 0,
        };
        let end = observe(&w, &NodeName::new("a"), &job(1, 0), &seen, at(2))
            .unwrap()
            .workload;
        assert_eq!((end.phase, end.avoid.as_slice()), (Phase::Pending, &[][..]));
    }

    #[test]
    fn success_is_final_even_when_a_cancellation_was_on_its_way() {
        let w = bound(WorkloadSpec::default(), vec![member(0, "a", &[0])]);
        let w = cancel(&w, None, "user:ada", at(3)).unwrap().workload;
        let seen = ended(Outcome::Exited { code: 0 }, None);
        assert_eq!(
            observe(&w, &NodeName::new("a"), &job(1, 0), &seen, at(9))
                .unwrap()
                .workload
                .phase,
            Phase::Succeeded
        );
        let seen = ended(Outcome::Signaled { signal: 15 }, Some(StopReason::Cancelled));
        assert_eq!(
            observe(&w, &NodeName::new("a"), &job(1, 0), &seen, at(9))
                .unwrap()
                .workload
                .phase,
            Phase::Cancelled
        );
    }

    #[test]
    fn a_gang_falls_as_one_and_the_first_to_fail_is_the_reason() {
        let w = bound(
            WorkloadSpec {
                nodes: 2,
                ..WorkloadSpec::default()
            },
            vec![member(0, "a", &[0]), member(1, "b", &[0])],
        );
        let (a, b) = (NodeName::new("a"), NodeName::new("b"));
        let one = observe(&w, &a, &job(1, 0), &ended(Outcome::Exited { code: 9 }, None), at(9)).unwrap();
        assert_eq!(
            one.workload.stop.as_ref().map(|s| s.reason),
            Some(StopReason::GangBroken)
        );
        assert_eq!(one.released, [(a, 0)]);
        let seen = ended(Outcome::Signaled { signal: 15 }, Some(StopReason::GangBroken));
        let both = observe(&one.workload, &b, &job(1, 1), &seen, at(10)).unwrap().workload;
        assert_eq!(
            (both.phase, both.message.as_deref()),
            (Phase::Failed, Some("exited with code 9"))
        );
    }

    #[test]
    fn a_gang_falls_with_a_member_that_its_node_stopped_though_it_exits_well() {
        let spec = WorkloadSpec {
            nodes: 2,
            ..WorkloadSpec::default()
        };
        let w = bound(spec, vec![member(0, "a", &[0]), member(1, "b", &[0])]);
        let seen = ended(Outcome::Exited { code: 0 }, Some(StopReason::Unhealthy));
        let one = observe(&w, &NodeName::new("a"), &job(1, 0), &seen, at(9)).unwrap();
        let reason = one.workload.stop.as_ref().map(|s| s.reason);
        assert_eq!(reason, Some(StopReason::GangBroken));
    }

    #[test]
    fn a_lost_node_takes_its_work_down_or_back_into_the_queue() {
        let a = NodeName::new("a");
        let w = bound(WorkloadSpec::default(), vec![member(0, "a", &[0])]);
        let lost = lose(&w, &a, at(400)).unwrap();
        assert_eq!(
            (lost.workload.phase, lost.workload.reason.as_deref()),
            (Phase::Lost, Some("NODE_UNREACHABLE"))
        );
        assert_eq!(lost.released, [(a.clone(), 0)]);
        assert!(lose(&lost.workload, &a, at(401)).is_none());
        let w = bound(
            WorkloadSpec {
                retries: 1,
                ..WorkloadSpec::default()
            },
            vec![member(0, "a", &[0])],
        );
        assert_eq!(lose(&w, &a, at(400)).unwrap().workload.phase, Phase::Pending);
    }

    #[test]
    fn what_ran_on_a_removed_node_ends_and_starts_nowhere_else() {
        let spec = WorkloadSpec {
            nodes: 2,
            retries: 3,
            ..WorkloadSpec::default()
        };
        let w = bound(spec, vec![member(0, "a", &[0]), member(1, "b", &[0])]);
        let (a, b) = (NodeName::new("a"), NodeName::new("b"));
        let half = abandon(&w, &a, "user:ada", at(5)).unwrap();
        assert_eq!(half.released, [(a.clone(), 0)]);
        assert_eq!(half.workload.phase, w.phase, "the other member has yet to end");
        assert!(abandon(&half.workload, &a, "user:ada", at(6)).is_none());
        let seen = ended(Outcome::Exited { code: 9 }, None);
        let whole = observe(&half.workload, &b, &job(1, 1), &seen, at(9)).unwrap().workload;
        assert_eq!(
            (whole.phase, whole.message.as_deref()),
            (Phase::Cancelled, Some("node a was removed by user:ada"))
        );
    }

    #[test]
    fn waiting_has_an_end_where_one_was_asked_for() {
        let w = pending(WorkloadSpec {
            max_wait: Some(Span::secs(60)),
            ..WorkloadSpec::default()
        });
        assert!(give_up_waiting(&w, at(59)).is_none());
        assert_eq!(give_up_waiting(&w, at(60)).unwrap().workload.phase, Phase::TimedOut);
        let later = Workload {
            not_before: Some(at(50)),
            ..w
        };
        assert!(give_up_waiting(&later, at(109)).is_none(), "a delay is no wait");
        assert!(give_up_waiting(&later, at(110)).is_some());
    }

    #[test]
    fn nothing_waits_for_ever_for_its_target_or_because_of_what_it_avoids() {
        let choosy = Workload {
            target: Some(NodeName::new("gone")),
            avoid: vec![NodeName::new("only")],
            not_before: Some(at(10)),
            ..pending(WorkloadSpec::default())
        };
        for elsewhere in [true, false] {
            assert!(take_any_node(&choosy, elsewhere, at(69)).is_none());
        }
        let free = take_any_node(&choosy, true, at(70)).unwrap().workload;
        assert_eq!((&free.target, free.avoid.len()), (&None, 0));
        assert!(take_any_node(&free, true, at(1000)).is_none(), "said once");
    }

    #[test]
    fn what_can_go_nowhere_else_doesnt_wait_for_it() {
        let avoids = Workload {
            avoid: vec![NodeName::new("only")],
            ..pending(WorkloadSpec::default())
        };
        assert!(take_any_node(&avoids, true, at(1)).is_none());
        assert!(take_any_node(&avoids, false, at(1)).unwrap().workload.avoid.is_empty());
    }
}
