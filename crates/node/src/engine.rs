//! An engine carries jobs out on this node: a handful of verbs, the same for containers and plain processes.
//!
//! Verbs are idempotent: the agent repeats them after a crash. What happens to a job comes back as [`EngineEvent`]s
//! on the channel that the engine was made with, in order for each job. An engine keeps on disk (or in Docker) all
//! that it needs to know its jobs again after the agent was killed.

pub mod docker;
pub mod native;

use std::{future::Future, pin::Pin, sync::Arc};

use api::{
    ApiError, Size, Span, Timestamp,
    node::EngineInfo,
    wire::{Assignment, ExecEvent, PullProgress},
    workload::{HOST_IMAGE, JobKey, Outcome, Usage},
};
use tokio::sync::mpsc;

use crate::secret::Secrets;

/// A boxed future, so that engines can stand behind one trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whether a job's ports are those of its container, published on the node's: where ports are picked for a container.
/// Members of a gang use the node's network, by which they find each other.
#[must_use]
pub(crate) fn published(job: &Assignment) -> bool {
    job.dynamic_ports && job.image != HOST_IMAGE && job.gang.is_none()
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// Which.
    pub job: JobKey,
    /// What.
    pub what: What,
}

/// What can happen to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Its image is being fetched: said at least once before the first progress.
    Pulling(PullProgress),
    /// Its process runs.
    Started {
        /// Since when.
        at: Timestamp,
    },
    /// Nothing of it runs any more, no child and no thread: its GPUs are free. All of its output is in the spool.
    /// Said exactly once for each `start` that was accepted, also when it never started.
    Ended {
        /// When.
        at: Timestamp,
        /// How.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
    },
}

/// A job that an engine found when the agent started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub job: JobKey,
    /// Since when it runs, or ran. `None`: it was accepted but hadn't started.
    pub started_at: Option<Timestamp>,
    /// How it ended meanwhile. `None`: it is alive and watched from here on; its end will come as an event.
    pub ended: Option<(Timestamp, Outcome, Usage)>,
    /// It waits for [`Engine::secrets`]: either it was accepted and can't begin without them, or its output isn't read
    /// before it is known what must not be readable in it.
    pub wants_secrets: bool,
}

/// What a running job uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobStats {
    /// CPU time so far. `None`: not measured.
    pub cpu_ms: Option<u64>,
    /// Memory now. `None`: not measured.
    pub memory_bytes: Option<Size>,
    /// Most memory so far. `None`: not measured.
    pub memory_peak_bytes: Option<Size>,
    /// Read from and written to disks so far. `None`: not measured.
    pub io_bytes: Option<Size>,
}

/// A command that runs inside a job. Dropping it kills the command.
pub struct Exec {
    /// Bytes for its standard input; an empty message or a dropped sender is the end of input.
    pub input: mpsc::Sender<bytes::Bytes>,
    /// Its output and its end. The last message is `Exited` or `Failed`.
    pub events: mpsc::Receiver<ExecEvent>,
}

/// Carries jobs out.
pub trait Engine: Send + Sync + 'static {
    /// What it is, and what it can't do on this machine.
    fn info(&self) -> EngineInfo;

    /// Begins a job and returns at once; what becomes of it comes as events. Beginning a job that this engine
    /// already knows does nothing. `secrets` are those of a job that uses any; they are kept in memory, no longer than
    /// needed.
    fn start(&self, job: Arc<Assignment>, secrets: Option<Arc<Secrets>>);

    /// The secrets of a job that was found waiting for them ([`Found::wants_secrets`]), or why it can't have them: then
    /// it doesn't begin, or its further output isn't kept. Nothing happens to other jobs.
    fn secrets(&self, job: &JobKey, answer: Result<Arc<Secrets>, ApiError>);

    /// SIGTERM now, SIGKILL to all that is left after `grace` (at once for zero). A second call may only shorten
    /// the grace. Returns at once; the end comes as an event. Nothing happens to a job that isn't known.
    fn stop(&self, job: &JobKey, grace: Span);

    /// Finds the jobs of an earlier life of the agent, and watches the living ones. Called once, before any other
    /// verb. Whatever carries this agent's mark but no readable record is an error's message in the second list.
    fn adopt(&self) -> BoxFuture<'_, (Vec<Found>, Vec<String>)>;

    /// Forgets an ended job with everything that is kept of it (files, container), except its spool.
    fn forget(&self, job: &JobKey) -> BoxFuture<'_, ()>;

    /// Changes the memory limit of a running job.
    fn set_memory(&self, job: &JobKey, limit: Option<Size>) -> BoxFuture<'_, Result<(), ApiError>>;

    /// Runs a command inside a running job.
    fn exec(&self, job: &JobKey, command: Vec<String>) -> BoxFuture<'_, Result<Exec, ApiError>>;

    /// Adds a line of the node's own to a running job's log, soon. What can't be added isn't; nothing happens to a job
    /// that isn't known or has ended.
    fn remark(&self, job: &JobKey, text: &str);

    /// The job whose processes are in a control group, which the kernel named by its path. `None`: none of this
    /// engine's, or that can't be told any more.
    fn owner(&self, cgroup: &str) -> BoxFuture<'_, Option<JobKey>>;

    /// What a running job uses now. `None`: it isn't known or doesn't run.
    fn stats(&self, job: &JobKey) -> BoxFuture<'_, Option<JobStats>>;
}
