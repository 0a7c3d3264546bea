//! A job in the agent's memory.

use api::{
    Timestamp,
    workload::{Outcome, Usage},
};

use super::{JobView, Left, readiness::Untold, record::JobRecord};

/// A job: its record, and what needn't outlive the agent.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) record: JobRecord,
    /// An engine has it, or had it.
    pub(super) handed: bool,
    /// The gateway has asked for it since this agent began. One that hasn't begun waits for that: while no agent was
    /// here, the node may have been declared lost and the job begun elsewhere.
    pub(super) wanted: bool,
    /// The gateway doesn't want it any more. Isn't kept: each session begins with the whole set.
    pub(super) forget: bool,
    /// Its removal is on its way, and can't be stopped.
    pub(super) forgetting: bool,
    /// Its engine has it, and waits for its secrets.
    pub(super) wants_secrets: bool,
    /// Its secrets were asked for in this session, and there is no answer yet.
    pub(super) asked: bool,
    /// Ports are looked for.
    pub(super) finding_ports: bool,
    /// What its readiness check came to last. `None`: the gateway has been told, or there is nothing to tell.
    pub(super) untold: Option<Untold>,
    /// Monotonic time at which something was last said of its readiness, in this life of the agent.
    pub(super) told_ms: Option<u64>,
    /// Monotonic time at which the shortest grace so far is over. `None`: it may run.
    pub(super) kill_ms: Option<u64>,
    /// Monotonic time of its start. `None`: it hasn't started.
    pub(super) started_ms: Option<u64>,
    /// Monotonic time at which it has run too long. `None`: never.
    pub(super) timeout_ms: Option<u64>,
}

impl Job {
    pub(super) fn new(record: JobRecord) -> Self {
        Self {
            record,
            handed: false,
            wanted: false,
            forget: false,
            forgetting: false,
            wants_secrets: false,
            asked: false,
            finding_ports: false,
            untold: None,
            told_ms: None,
            kill_ms: None,
            started_ms: None,
            timeout_ms: None,
        }
    }

    pub(super) fn live(&self) -> bool {
        self.record.ended.is_none()
    }

    pub(super) fn view(&self) -> JobView<'_> {
        JobView {
            assignment: &self.record.assignment,
            handed: self.handed,
            started_at: self.record.started_at,
            stop: self.record.stop.map(|stop| stop.reason),
            last_line: self.record.ended.map(|end| end.last_line),
            lines_acked: self.record.lines_acked,
            started_ms: self.started_ms,
            ready: self.record.readiness.as_ref().is_some_and(|said| said.ready),
            was_ready: self.record.readiness.as_ref().is_some_and(|said| said.was_ready),
        }
    }
}

/// A job that an engine found and that has no record.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) started_at: Option<Timestamp>,
    /// When, how, what it used and what it left. `None`: it lives.
    pub(super) ended: Option<(Timestamp, Outcome, Usage, Left)>,
    /// The engine waits for its secrets.
    pub(super) wants_secrets: bool,
    /// It has been told to stop, and is to be forgotten.
    pub(super) stopped: bool,
}
