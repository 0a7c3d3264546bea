//! What is known of nodes from moment to moment: not kept, and gone with a restart. Durable facts are in the view.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use api::{
    NodeName, Span, Timestamp,
    node::{Connectivity, NodeSample},
    wire::{ExecEvent, PullProgress, ToNode},
    workload::JobKey,
};
use tokio::sync::mpsc;

/// A node as of now.
#[derive(Debug)]
pub struct Live {
    /// The last sign of life. Monotonic: liveness never depends on the wall clock.
    pub seen: Instant,
    /// The same on the wall clock. `None`: none since the gateway started.
    pub seen_at: Option<Timestamp>,
    /// The numbers of the last heartbeat.
    pub sample: Option<NodeSample>,
    /// The link to the agent.
    pub connectivity: Connectivity,
    /// Where the node called from last. `None`: it hasn't called since the gateway started.
    pub peer: Option<IpAddr>,
    /// The session under way. `None`: not connected.
    pub session: Option<Session>,
}

/// A session under way.
#[derive(Debug, Clone)]
pub struct Session {
    /// Counts sessions of this gateway's life.
    pub number: u64,
    /// Messages to the node. Bounded: a node that doesn't read is disconnected.
    pub send: mpsc::Sender<ToNode>,
    /// Ends the session when the sender is dropped or told.
    pub end: std::sync::Arc<tokio::sync::Notify>,
}

/// All nodes as of now.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: Mutex<HashMap<NodeName, Live>>,
    pulls: Mutex<HashMap<JobKey, PullProgress>>,
    execs: Mutex<HashMap<u64, (NodeName, mpsc::Sender<ExecEvent>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Nodes {
    /// Runs something on a node's state; a node that wasn't known is taken as seen now, so that after a restart of
    /// the gateway every node has its whole patience.
    pub fn with<T>(&self, node: &NodeName, run: impl FnOnce(&mut Live) -> T) -> T {
        let mut nodes = lock(&self.nodes);
        let live = nodes.entry(node.clone()).or_insert_with(|| Live {
            seen: Instant::now(),
            seen_at: None,
            sample: None,
            connectivity: Connectivity {
                address: None,
                since: None,
                round_trip_ms: None,
                clock_offset_ms: None,
            },
            peer: None,
            session: None,
        });
        run(live)
    }

    /// A sign of life.
    pub fn seen(&self, node: &NodeName, at: Timestamp) {
        self.with(node, |live| {
            live.seen = Instant::now();
            live.seen_at = Some(at);
        });
    }

    /// For how long a node has been silent.
    #[must_use]
    pub fn silence(&self, node: &NodeName) -> Span {
        self.with(node, |live| live.seen.elapsed().into())
    }

    /// Whether a node has been heard of since the gateway started.
    #[must_use]
    pub fn heard_of(&self, node: &NodeName) -> bool {
        self.with(node, |live| live.seen_at.is_some())
    }

    /// The address that a node called from last: an agent that is away for a moment takes nothing with it, what it started is
    /// reached where it was. `None`: it hasn't called since the gateway started.
    #[must_use]
    pub fn address(&self, node: &NodeName) -> Option<IpAddr> {
        lock(&self.nodes).get(node)?.peer
    }

    /// Forgets a removed node; its session ends.
    pub fn remove(&self, node: &NodeName) {
        if let Some(live) = lock(&self.nodes).remove(node)
            && let Some(session) = live.session
        {
            session.end.notify_one();
        }
    }

    /// Ends a node's session: what it was let in by holds no longer. It may come again.
    pub fn end(&self, node: &NodeName) {
        if let Some(session) = lock(&self.nodes).get(node).and_then(|live| live.session.as_ref()) {
            session.end.notify_one();
        }
    }

    /// Ends every session: the gateway shuts down.
    pub fn end_all(&self) {
        for live in lock(&self.nodes).values() {
            if let Some(session) = &live.session {
                session.end.notify_one();
            }
        }
    }

    /// How far a job's image has come.
    pub fn set_pull(&self, job: JobKey, progress: PullProgress) {
        lock(&self.pulls).insert(job, progress);
    }

    /// How far a job's image has come. `None`: nothing is fetched for it.
    #[must_use]
    pub fn pull(&self, job: &JobKey) -> Option<PullProgress> {
        lock(&self.pulls).get(job).copied()
    }

    /// The image has arrived, or never will.
    pub fn end_pull(&self, job: &JobKey) {
        lock(&self.pulls).remove(job);
    }

    /// Where the events of a command that runs on a node go.
    pub fn register_exec(&self, id: u64, node: NodeName, events: mpsc::Sender<ExecEvent>) {
        lock(&self.execs).insert(id, (node, events));
    }

    /// Where the events of a command go. `None`: its caller has gone, or it doesn't run on this node.
    #[must_use]
    pub fn exec(&self, node: &NodeName, id: u64) -> Option<mpsc::Sender<ExecEvent>> {
        let execs = lock(&self.execs);
        let (at, events) = execs.get(&id)?;
        (at == node).then(|| events.clone())
    }

    /// The command has ended, or its caller has gone.
    pub fn end_exec(&self, id: u64) {
        lock(&self.execs).remove(&id);
    }
}
