//! What the gateway and a node's agent say to each other: JSON text frames over one WebSocket.
//!
//! The node calls, says [`FromNode::Hello`], and is answered with [`ToNode::Welcome`]. From then on the gateway
//! tells it what it should run ([`ToNode::Desired`]), and the node reports what it sees, numbered, until each report
//! is acknowledged. Any message may be lost with the connection; none may be lost or doubled in effect.

mod fact;
mod metrics;
mod route;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::{
    fact::{AmdTrouble, FACT_LINE_MAX_BYTES, FACTS_MAX, Fact, FactKind},
    metrics::{
        BatchError, LABELS_MAX, MetricBatch, NAME_MAX_BYTES, SERIES_MAX, SeriesKey, TICKS_MAX, Tick, VALUES_MAX,
    },
    route::{Counted, RouteEndpoint, RouteGroup, Routes, ServiceCounts, ServiceLoad, ServiceRoute, Traffic},
};
use crate::{
    ApiError, Cpu, NodeName, Size, Span, Timestamp,
    node::{Inventory, NodeSample},
    secret::{SecretUse, SecretValue},
    workload::{
        Checkpointing, Distributed, Endpoint, EnvVar, HealthCheck, HeldGpu, Hooks, JobKey, LogSource, Outcome, Port,
        StopReason, Usage, Volume,
    },
};

/// The protocol's version. A gateway refuses a node of another major version and names both.
pub const PROTOCOL: u32 = 5;

/// Longest frame either side accepts.
pub const FRAME_MAX_BYTES: usize = 16 << 20;

/// Longest piece of a desired set, unless a single job is longer. Small enough that signs of life aren't held up behind
/// it on a slow line for long, and that neither side ever has a second copy of a large set as text.
pub const DESIRED_PIECE_BYTES: usize = 4 << 20;

/// Longest log line; a longer one is split into partial lines.
pub const LINE_MAX_BYTES: usize = 64 << 10;

/// What a node is to run: everything is decided, the node chooses nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Which member of which attempt.
    pub job: JobKey,
    /// The workload's name, for people.
    pub name: String,
    /// The workload's namespace.
    pub namespace: String,
    /// Container image, or `host`.
    pub image: String,
    /// Command; empty means the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Environment, complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Secrets that it gets: their values are asked for when it starts ([`FromNode::SecretsWanted`]), and no disk of the
    /// node ever holds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// Mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// The GPUs that it alone may see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<HeldGpu>,
    /// CPU limit. `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory limit. `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Longest run, from the start of its process. `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Span,
    /// Where and how often it writes checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpointing: Option<Checkpointing>,
    /// How a gang finds itself; with the address of rank 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<Gang>,
    /// Ports it listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// The node picks real ports for those in `ports`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dynamic_ports: bool,
    /// The real ports, in the order of `ports`: what the node itself has picked and keeps with the job. A gateway says
    /// none, and what it says is dropped. Empty: not picked yet, or not to be picked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<u16>,
    /// How it is told that it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// How it is told that it can serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<HealthCheck>,
    /// Commands around its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// The port on which it serves metrics of its own, as Prometheus reads them. `None`: it serves none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_port: Option<u16>,
    /// Present once it is to be stopped. A node stops it and reports its end; it never un-stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
}

impl Assignment {
    /// Where its declared ports are. Empty where they are still to be picked.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let real = |at: usize, declared: u16| match self.dynamic_ports {
            true => self.host_ports.get(at).copied(),
            false => Some(declared),
        };
        let endpoint = |(at, port): (usize, &Port)| {
            Some(Endpoint {
                name: port.name.clone(),
                port: port.port,
                host_port: real(at, port.port)?,
            })
        };
        self.ports.iter().enumerate().filter_map(endpoint).collect()
    }
}

/// What a member must know of its gang.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gang {
    /// Number of members.
    pub world_size: u32,
    /// Address of the node of rank 0.
    pub master_address: String,
    /// As asked for.
    pub distributed: Option<Distributed>,
}

/// An order to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// Why.
    pub reason: StopReason,
    /// Between SIGTERM and SIGKILL; zero means SIGKILL at once.
    pub grace: Span,
}

/// What a node saw of a member. Later observations of a job never contradict earlier ones: an end is final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// Position in the node's own sequence, from 1, without holes.
    pub number: u64,
    /// Which job.
    pub job: JobKey,
    /// What.
    pub seen: Seen,
}

/// What a node can see of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "what")]
pub enum Seen {
    /// It fetches the image.
    Pulling,
    /// Its process runs.
    #[serde(rename_all = "camelCase")]
    Started {
        /// Since when, by the node's clock.
        at: Timestamp,
        /// Where its declared ports are.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        endpoints: Vec<Endpoint>,
    },
    /// Its readiness check comes to something else than before. One that has such a check and of which nothing was said
    /// isn't ready.
    #[serde(rename_all = "camelCase")]
    Readiness {
        /// Whether it can serve.
        ready: bool,
        /// Why not. `None`: it can.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Nothing of it is left on the node: its GPUs are free.
    #[serde(rename_all = "camelCase")]
    Ended {
        /// When it started. `None`: it never did.
        started_at: Option<Timestamp>,
        /// When it ended.
        at: Timestamp,
        /// How.
        outcome: Outcome,
        /// Why the node stopped it. `None`: it ended by itself.
        stop: Option<StopReason>,
        /// What it used.
        usage: Usage,
        /// The number of its last log line, 0 for none.
        last_line: u64,
    },
}

/// A log line on its way to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// Position in the job's stream, from 1; a hole is a gap that the node couldn't keep.
    #[serde(rename = "n")]
    pub number: u64,
    /// Nanoseconds since 1970, by the node's clock.
    #[serde(rename = "t")]
    pub at_ns: i64,
    /// Where it came from.
    #[serde(rename = "s")]
    pub source: LogSource,
    /// The text, without its newline. Bytes that aren't UTF-8 are kept as U+FFFD.
    #[serde(rename = "m")]
    pub text: String,
    /// The line goes on in the next one: it was longer than [`LINE_MAX_BYTES`], or the process ended within it.
    #[serde(rename = "p", default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// Bytes of an image that have arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullProgress {
    /// Arrived.
    pub done_bytes: u64,
    /// Known so far; grows while layers are discovered. 0: unknown.
    pub total_bytes: u64,
}

/// From a node to the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum FromNode {
    /// The first message of a session.
    #[serde(rename_all = "camelCase")]
    Hello {
        /// [`PROTOCOL`] of the agent.
        protocol: u32,
        /// Who it says it is; must be who its credential says.
        name: NodeName,
        /// The machine.
        inventory: Box<Inventory>,
        /// Labels from the agent's command line.
        labels: std::collections::BTreeMap<String, String>,
        /// Jobs that it knows and hasn't been told to forget.
        jobs: Vec<JobKey>,
        /// Where it listens for requests of services. `None`: it carries none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        services: Option<IpAddr>,
    },
    /// A sign of life, and the numbers of the moment.
    #[serde(rename_all = "camelCase")]
    Heartbeat {
        /// Counts the session's heartbeats.
        number: u64,
        /// The node's wall clock.
        at: Timestamp,
        /// Round trip of the previous heartbeat, as the node measured it. `None`: the first.
        round_trip_ms: Option<f64>,
        /// What it measured.
        sample: Box<NodeSample>,
    },
    /// The machine has changed (a GPU vanished, Docker came up).
    #[serde(rename_all = "camelCase")]
    Changed {
        /// The machine.
        inventory: Box<Inventory>,
    },
    /// What it saw, in order.
    #[serde(rename_all = "camelCase")]
    Observations {
        /// Not yet acknowledged ones.
        observations: Vec<Observation>,
    },
    /// Log lines, in order within each job.
    #[serde(rename_all = "camelCase")]
    Logs {
        /// By job.
        streams: Vec<(JobKey, Vec<LogLine>)>,
    },
    /// How far an image has come; not kept, not acknowledged.
    #[serde(rename_all = "camelCase")]
    Pulling {
        /// For which job.
        job: JobKey,
        /// How far.
        progress: PullProgress,
    },
    /// What it measured, since the last acknowledged tick; again after a lost connection. A value of a series at a
    /// time is the same each time it is sent.
    #[serde(rename_all = "camelCase")]
    Metrics {
        /// The measurements.
        batch: MetricBatch,
    },
    /// What the kernel log said, in order; at most [`FACTS_MAX`].
    #[serde(rename_all = "camelCase")]
    Facts {
        /// Not yet acknowledged ones.
        facts: Vec<Fact>,
    },
    /// A job that is to start, or was found running, uses secrets: what are they? Asked again after a lost connection.
    #[serde(rename_all = "camelCase")]
    SecretsWanted {
        /// Which job; it must be in what the node should run.
        job: JobKey,
    },
    /// The change of the desired set didn't follow on what the node has: send all of it.
    Resync,
    /// What it does for the services that it carries.
    Traffic(Traffic),
    /// Output or end of something that the gateway asked to run in a job.
    #[serde(rename_all = "camelCase")]
    Exec {
        /// The gateway's number for it.
        id: u64,
        /// What.
        event: ExecEvent,
    },
}

/// What a node should run: the whole set, or a change to the set of an earlier generation; all of it, or a piece that
/// means nothing before the last one is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// Grows with every set and every change of the session. All pieces have the same.
    pub generation: u64,
    /// The generation that this is a change to. `None`: this is the whole set.
    pub base: Option<u64>,
    /// Which piece this is, from 0.
    pub piece: u32,
    /// Another piece follows.
    pub more: bool,
    /// New or changed jobs.
    pub put: Vec<Assignment>,
    /// Jobs to stop at once, if they run, and to forget, with all that is kept of them.
    pub forget: Vec<JobKey>,
}

/// From the gateway to a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ToNode {
    /// The answer to hello.
    #[serde(rename_all = "camelCase")]
    Welcome {
        /// [`PROTOCOL`] of the gateway.
        protocol: u32,
        /// The gateway's wall clock.
        at: Timestamp,
        /// How often the node should give a sign of life.
        heartbeat: Span,
        /// After this long without an acknowledged sign of life (counted from when it was sent) the node must have
        /// stopped everything it runs.
        fence: Span,
        /// There is no other gateway: while connections to this one are refused, nobody can declare the node lost,
        /// and the node's time to fence starts anew with each refusal.
        alone: bool,
    },
    /// The session can't be: why.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// Why.
        error: ApiError,
    },
    /// A sign of life has arrived.
    #[serde(rename_all = "camelCase")]
    HeartbeatAck {
        /// Its number.
        number: u64,
    },
    /// What the node should run, or a piece of it.
    Desired(Desired),
    /// Observations up to this number are on the gateway's disk.
    #[serde(rename_all = "camelCase")]
    ObservationsAck {
        /// The number.
        through: u64,
    },
    /// Log lines up to these numbers are on the gateway's disk.
    #[serde(rename_all = "camelCase")]
    LogsAck {
        /// By job.
        through: Vec<(JobKey, u64)>,
    },
    /// Ticks up to this number are kept, or aren't wanted.
    #[serde(rename_all = "camelCase")]
    MetricsAck {
        /// The number.
        through: u64,
    },
    /// Facts up to this number are on the gateway's disk.
    #[serde(rename_all = "camelCase")]
    FactsAck {
        /// The number.
        through: u64,
    },
    /// The answer to [`FromNode::SecretsWanted`].
    #[serde(rename_all = "camelCase")]
    Secrets {
        /// For which job.
        job: JobKey,
        /// The values, or why the job can't start.
        answer: SecretsAnswer,
    },
    /// Services that it is to carry: only to a node that said that it carries some.
    Routes(Routes),
    /// Counts of services up to this number are counted, or aren't wanted.
    #[serde(rename_all = "camelCase")]
    TrafficAck {
        /// The number.
        through: u64,
    },
    /// Run something in a job.
    #[serde(rename_all = "camelCase")]
    Exec {
        /// The gateway's number for it.
        id: u64,
        /// What.
        request: ExecRequest,
    },
}

/// A job's secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum SecretsAnswer {
    /// They are there.
    #[serde(rename_all = "camelCase")]
    Values {
        /// One for each entry of [`Assignment::secrets`], in its order.
        values: Vec<SecretValue>,
        /// Values that are to be made unreadable in the job's output: these, and older versions that it may still have.
        mask: Vec<SecretValue>,
    },
    /// They aren't: a job that hasn't started ends with this.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// Why.
        error: ApiError,
    },
}

/// What is asked of something that runs in a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum ExecRequest {
    /// Start a command.
    #[serde(rename_all = "camelCase")]
    Start {
        /// In which job.
        job: JobKey,
        /// The command.
        command: Vec<String>,
    },
    /// Bytes for its standard input.
    #[serde(rename_all = "camelCase")]
    Input {
        /// The bytes. Empty: end of input.
        data: Vec<u8>,
    },
    /// Kill it: its caller has gone.
    Kill,
}

/// What happens to something that runs in a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "what")]
pub enum ExecEvent {
    /// Bytes of its output.
    #[serde(rename_all = "camelCase")]
    Output {
        /// From which stream.
        source: LogSource,
        /// The bytes.
        data: Vec<u8>,
    },
    /// It ended.
    #[serde(rename_all = "camelCase")]
    Exited {
        /// Its exit code, 128 + signal for signals.
        code: i32,
    },
    /// It couldn't be started.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// Why.
        error: ApiError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of protocol 3, which agents' records still hold.
    #[test]
    fn what_earlier_versions_wrote_is_read() {
        let started: Observation = serde_json::from_str(
            r#"{"number":7,"job":{"workload":"wl-a","attempt":1,"rank":0},"seen":{"what":"started","at":"2026-01-02T03:04:05Z"}}"#,
        )
        .unwrap();
        assert!(matches!(&started.seen, Seen::Started { endpoints, .. } if endpoints.is_empty()));
        let assignment: Assignment = serde_json::from_str(
            r#"{"job":{"workload":"wl-a","attempt":1,"rank":0},"name":"a","namespace":"default","image":"host","command":["true"],"grace":"10s","metricsPort":9400}"#,
        )
        .unwrap();
        assert_eq!(
            (assignment.endpoints(), assignment.metrics_port),
            (Vec::new(), Some(9400))
        );
        assert!(!assignment.dynamic_ports && assignment.readiness.is_none());
    }

    #[test]
    fn what_a_node_says_of_readiness_and_ports_stays_as_it_is_written() {
        let endpoint = Endpoint {
            name: "http".to_owned(),
            port: 8000,
            host_port: 20_001,
        };
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        let why = Some("it answered 503".to_owned());
        for (seen, text) in [
            (
                Seen::Started {
                    at,
                    endpoints: vec![endpoint],
                },
                r#"{"what":"started","at":"2026-01-02T03:04:05Z","endpoints":[{"name":"http","port":8000,"hostPort":20001}]}"#,
            ),
            (
                Seen::Readiness { ready: true, why: None },
                r#"{"what":"readiness","ready":true}"#,
            ),
            (
                Seen::Readiness { ready: false, why },
                r#"{"what":"readiness","ready":false,"why":"it answered 503"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&seen).unwrap(), text);
            assert_eq!(serde_json::from_str::<Seen>(text).unwrap(), seen);
        }
    }
}
