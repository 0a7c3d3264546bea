//! Workloads: what is asked for, where it runs, and how it got there.

use std::{collections::BTreeMap, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{Cpu, GpuIndex, NodeName, Size, Span, Timestamp, WorkloadId, node::TaintEffect, secret::SecretUse};

/// The image name that means the node's own file system (native engine).
pub const HOST_IMAGE: &str = "host";

/// Time between SIGTERM and SIGKILL where a workload names none.
pub const DEFAULT_GRACE: Span = Span::secs(10);

/// Where a workload stands in the queue, and whether it may push others aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// May be preempted by `High`.
    Low,
    /// Neither preempts nor is preempted.
    #[default]
    Normal,
    /// May preempt `Low`.
    High,
}

impl Priority {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// When a workload that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Only `retries` count.
    #[default]
    Never,
    /// After each failure, with growing delays.
    OnFailure,
    /// After each end, success included.
    Always,
}

/// GPUs asked for, per node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuRequest {
    /// How many; 0 is a CPU workload.
    pub count: u32,
    /// Model, matched by whole words (`A100` fits `NVIDIA A100-SXM4-80GB`). `None`: any.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Least device memory of each. `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Something mounted into a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Its name; may be empty for `--mount`.
    #[serde(default)]
    pub name: String,
    /// Where it appears.
    pub mount_path: String,
    /// What is mounted.
    #[serde(flatten)]
    pub source: VolumeSource,
}

/// What a volume holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum VolumeSource {
    /// A folder or file of the node.
    #[serde(rename_all = "camelCase")]
    HostPath {
        /// Absolute path on the node.
        source: String,
        /// Can't be written.
        #[serde(default)]
        read_only: bool,
    },
    /// An empty folder that lives as long as the attempt.
    #[serde(rename_all = "camelCase")]
    EmptyDir {
        /// Kept in memory rather than on disk.
        #[serde(default)]
        memory: bool,
        /// Upper bound. `None`: the node's.
        #[serde(default)]
        size_limit: Option<Size>,
    },
}

/// Keys that stand beside each other are read one by one: a flattened enum would swallow those that nobody knows, and
/// whoever looks for them ([`crate::op`]'s callers do) would never hear of them.
impl<'de> Deserialize<'de> for Volume {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        enum Type {
            #[serde(rename = "hostPath")]
            HostPath,
            #[serde(rename = "emptyDir")]
            EmptyDir,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Keys {
            #[serde(default)]
            name: String,
            mount_path: String,
            r#type: Type,
            source: Option<String>,
            read_only: Option<bool>,
            memory: Option<bool>,
            size_limit: Option<Size>,
        }
        let keys = Keys::deserialize(from)?;
        let misplaced = |key: &str, of: &str| {
            Err(D::Error::custom(format!(
                "'{key}' has no meaning for a volume of type {of}"
            )))
        };
        let source = match keys.r#type {
            Type::HostPath => match (keys.source, keys.memory, keys.size_limit) {
                (None, ..) => return Err(D::Error::missing_field("source")),
                (_, Some(_), _) => return misplaced("memory", "hostPath"),
                (_, _, Some(_)) => return misplaced("sizeLimit", "hostPath"),
                (Some(source), None, None) => VolumeSource::HostPath {
                    source,
                    read_only: keys.read_only.unwrap_or_default(),
                },
            },
            Type::EmptyDir => match (keys.source, keys.read_only) {
                (Some(_), _) => return misplaced("source", "emptyDir"),
                (_, Some(true)) => return misplaced("readOnly", "emptyDir"),
                (None, _) => VolumeSource::EmptyDir {
                    memory: keys.memory.unwrap_or_default(),
                    size_limit: keys.size_limit,
                },
            },
        };
        Ok(Self {
            name: keys.name,
            mount_path: keys.mount_path,
            source,
        })
    }
}

/// A taint that a workload puts up with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// The taint's key. `None`: every key (operator `Exists`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How the value is compared.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// The value, for `Equal`.
    #[serde(default)]
    pub value: String,
    /// Which effect. `None`: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

/// How a toleration compares values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The value must be the same.
    #[default]
    Equal,
    /// Any value.
    Exists,
}

/// A port that a workload listens on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Its name; may be empty.
    #[serde(default)]
    pub name: String,
    /// Its number.
    pub port: u16,
    /// `TCP` or `UDP`.
    #[serde(default = "tcp")]
    pub protocol: String,
}

fn tcp() -> String {
    "TCP".to_owned()
}

/// Where a declared port of a member that runs can be reached on its node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The declared port's name; may be empty.
    #[serde(default)]
    pub name: String,
    /// The declared port.
    pub port: u16,
    /// The port of the node.
    pub host_port: u16,
}

/// How a gang finds itself: sets `MASTER_ADDR`, `MASTER_PORT`, `WORLD_SIZE`, `RANK`, `LOCAL_RANK`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Distributed {
    /// Number of members. `None`: the number of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world_size: Option<u32>,
    /// The port of rank 0.
    pub master_port: u16,
}

/// How it is told that a workload works.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// What is tried.
    #[serde(flatten)]
    pub probe: Probe,
    /// Time between tries.
    pub interval: Span,
    /// A try that takes longer has failed.
    pub timeout: Span,
    /// After this many failed tries in a row the workload is stopped as unhealthy, or is no longer ready.
    pub failures: u32,
}

impl HealthCheck {
    /// How long a workload that also has a readiness check may take to become ready for the first time before this
    /// check's failures count: ten times as long as it takes this check to find something unhealthy (15 min with the
    /// defaults). A large model is read for minutes before anything listens.
    #[must_use]
    pub fn patience(&self) -> Span {
        let failing = self.interval.millis().saturating_mul(u64::from(self.failures.max(1)));
        Span(failing.saturating_mul(10))
    }
}

/// One try at a workload's health.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Probe {
    /// GET of this URL answers 2xx or 3xx. A bare path or port means the workload's own address, a path without a port
    /// the first that it declares. A declared port of the workload means the real one.
    Http(String),
    /// This port accepts a connection. A declared port means the real one.
    Tcp(u16),
    /// This command exits 0 in the workload.
    Command(Vec<String>),
}

/// Key by key, as a [`Volume`].
impl<'de> Deserialize<'de> for HealthCheck {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Keys {
            http: Option<String>,
            tcp: Option<u16>,
            command: Option<Vec<String>>,
            interval: Span,
            timeout: Span,
            failures: u32,
        }
        let keys = Keys::deserialize(from)?;
        let probe = match (keys.http, keys.tcp, keys.command) {
            (Some(url), None, None) => Probe::Http(url),
            (None, Some(port), None) => Probe::Tcp(port),
            (None, None, Some(command)) => Probe::Command(command),
            _ => {
                return Err(D::Error::custom(
                    "a health check tries one of 'http', 'tcp' and 'command'",
                ));
            }
        };
        Ok(Self {
            probe,
            interval: keys.interval,
            timeout: keys.timeout,
            failures: keys.failures,
        })
    }
}

/// Commands around the workload's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// Runs before the command, in its environment; failure fails the attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_start: Vec<String>,
    /// Runs after the command, however it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_stop: Vec<String>,
}

/// A promise to write checkpoints, told to the workload by `CLAWBERNETES_CHECKPOINT_DIR` and `…_INTERVAL_SECONDS`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkpointing {
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// Where.
    pub path: String,
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// Container image, or [`HOST_IMAGE`].
    pub image: String,
    /// The command; empty means the image's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// GPUs per node.
    pub gpus: GpuRequest,
    /// CPU per node. `None`: no reservation, no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory per node, a limit and a reservation. `None`: neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Secrets that it gets when it starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// Mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Place in the queue.
    pub priority: Priority,
    /// Labels that the node must carry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// The one node it may run on. `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Taints it puts up with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Number of nodes, all or none; 0 and 1 both mean one.
    pub nodes: u32,
    /// Longest run of one attempt. `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// New attempts after a failure.
    pub retries: u32,
    /// Time before a new attempt. `None`: 10 s, doubled each time up to 5 min.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_delay: Option<Span>,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// Longest stay in the queue. `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Span>,
    /// Between SIGTERM and SIGKILL. `None`: [`DEFAULT_GRACE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// Checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpointing: Option<Checkpointing>,
    /// Ports it listens on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// How a gang finds itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distributed: Option<Distributed>,
    /// The numbers in `ports` are names: each attempt listens on ports that its node picks, so that several may run on one
    /// node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dynamic_ports: bool,
    /// How it is told that it works: after too many failed tries it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// How it is told that it can serve: nothing is stopped for it. `None`: nobody asks.
    #[serde(rename = "readinessCheck", skip_serializing_if = "Option::is_none")]
    pub readiness: Option<HealthCheck>,
    /// Commands around its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// The port on which it serves its own metrics, as Prometheus reads them. `None`: it serves none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_port: Option<u16>,
}

impl WorkloadSpec {
    /// Number of nodes, at least 1.
    #[must_use]
    pub fn node_count(&self) -> u32 {
        self.nodes.max(1)
    }

    /// Between SIGTERM and SIGKILL.
    #[must_use]
    pub fn grace(&self) -> Span {
        self.grace.unwrap_or(DEFAULT_GRACE)
    }
}

/// Where a workload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// In the queue.
    Pending,
    /// Bound to nodes and GPUs; the nodes have yet to begin.
    Scheduled,
    /// A node fetches the image.
    Pulling,
    /// Its process runs (all members' processes, for a gang).
    Running,
    /// Ended with exit code 0.
    Succeeded,
    /// Ended otherwise, or couldn't start.
    Failed,
    /// Stopped on request.
    Cancelled,
    /// Stopped at its timeout, or waited longer than `maxWait`.
    TimedOut,
    /// Pushed aside by another, and not allowed back into the queue.
    Preempted,
    /// Its node was lost, and it may not start elsewhere.
    Lost,
}

impl Phase {
    /// Whether nothing can follow.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::TimedOut | Self::Preempted | Self::Lost
        )
    }

    /// Whether it holds nodes and GPUs.
    #[must_use]
    pub const fn placed(self) -> bool {
        matches!(self, Self::Scheduled | Self::Pulling | Self::Running)
    }

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Scheduled => "scheduled",
            Self::Pulling => "pulling",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed-out",
            Self::Preempted => "preempted",
            Self::Lost => "lost",
        }
    }

    /// The named transitions; anything else is a defect.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::Scheduled | Self::Cancelled | Self::TimedOut | Self::Failed),
            Self::Scheduled => !matches!(next, Self::Scheduled),
            Self::Pulling => !matches!(next, Self::Scheduled | Self::Pulling),
            Self::Running => !matches!(next, Self::Scheduled | Self::Pulling | Self::Running),
            _ => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One member of one attempt: what a node is given to run, and what a log line belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobKey {
    /// The workload.
    pub workload: WorkloadId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The member of the gang, from 0.
    pub rank: u32,
}

impl fmt::Display for JobKey {
    /// `wl-x.1.0`: also the stem of file names and the name of containers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.workload, self.attempt, self.rank)
    }
}

impl std::str::FromStr for JobKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("'{text}' is no job key (workload.attempt.rank)");
        let (rest, rank) = text.rsplit_once('.').ok_or_else(refuse)?;
        let (workload, attempt) = rest.rsplit_once('.').ok_or_else(refuse)?;
        Ok(Self {
            workload: WorkloadId::new(workload),
            attempt: attempt.parse().map_err(|_| refuse())?,
            rank: rank.parse().map_err(|_| refuse())?,
        })
    }
}

/// A GPU given to a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldGpu {
    /// Position on its node.
    pub index: GpuIndex,
    /// The vendor's identifier.
    pub uuid: String,
}

/// How a member's process ended. Only the kernel's or engine's own word makes it `OomKilled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Outcome {
    /// It exited by itself.
    #[serde(rename_all = "camelCase")]
    Exited {
        /// Exit code, 0–255.
        code: i32,
    },
    /// A signal ended it.
    #[serde(rename_all = "camelCase")]
    Signaled {
        /// Signal number.
        signal: i32,
    },
    /// The kernel or engine killed it at its memory limit.
    #[serde(rename_all = "camelCase")]
    OomKilled {
        /// The limit. `None`: the machine's memory ran out.
        limit_bytes: Option<Size>,
        /// Most memory it used. `None`: not measured.
        peak_bytes: Option<Size>,
    },
    /// It never started.
    #[serde(rename_all = "camelCase")]
    StartFailed {
        /// `IMAGE_NOT_FOUND`, `INVALID_ARGUMENT`, …
        code: crate::ErrorCode,
        /// What happened.
        message: String,
        /// Whether another try may help.
        retryable: bool,
    },
    /// It is gone, and nobody saw how.
    #[serde(rename_all = "camelCase")]
    Unknown {
        /// Why it isn't known.
        why: String,
    },
}

impl Outcome {
    /// The exit code as a shell would give it: 128 + signal for signals. `None`: it never started, or unknown.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { code } => Some(*code),
            Self::Signaled { signal } => Some(128 + signal),
            Self::OomKilled { .. } => Some(137),
            Self::StartFailed { .. } | Self::Unknown { .. } => None,
        }
    }

    /// Whether it did what it should.
    #[must_use]
    pub fn success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }
}

/// Why a member is to be stopped, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// Somebody cancelled it.
    Cancelled,
    /// It ran longer than its timeout.
    Timeout,
    /// A workload of higher priority needs its place.
    Preempted,
    /// Its node is being emptied.
    Drained,
    /// It is to run on another node.
    Migrated,
    /// Another member of its gang ended.
    GangBroken,
    /// Its health check failed too often.
    Unhealthy,
    /// The node had no word from the gateway for its whole grace period and fenced itself.
    Fenced,
    /// The gateway doesn't want it on this node.
    NotWanted,
}

/// Resources an attempt's member used, as far as they were measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// CPU time. `None`: not measured.
    pub cpu_ms: Option<u64>,
    /// Most memory at once. `None`: not measured.
    pub memory_peak_bytes: Option<Size>,
}

/// Where a member stands on its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum MemberState {
    /// The node has yet to begin.
    #[default]
    Assigned,
    /// The node fetches the image.
    Pulling,
    /// Its process runs.
    #[serde(rename_all = "camelCase")]
    Running {
        /// Since when, by the node's clock.
        started_at: Timestamp,
        /// Whether it can serve, as its node said last. `None`: it has no readiness check.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ready: Option<bool>,
        /// Why it isn't ready: what the last try came to, as far as its node said. `None`: it is, or hasn't been tried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_ready: Option<String>,
        /// Since when it can serve, or can't, by the gateway's clock. `None`: in records of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
        /// Where its declared ports are, in their order. Empty: it has none, or its node doesn't know.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        endpoints: Vec<Endpoint>,
    },
    /// The node confirmed that nothing of it is left, or the node was lost and fenced.
    #[serde(rename_all = "camelCase")]
    Ended {
        /// When it started. `None`: it never did.
        started_at: Option<Timestamp>,
        /// When it ended.
        at: Timestamp,
        /// How.
        outcome: Outcome,
        /// Why it was stopped. `None`: it ended by itself.
        stop: Option<StopReason>,
        /// What it used.
        usage: Usage,
    },
}

impl MemberState {
    /// Whether the node confirmed its end.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }

    /// Whether it runs and, if it has a readiness check, is ready.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self, Self::Running { ready, .. } if *ready != Some(false))
    }
}

/// One member of an attempt on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// From 0.
    pub rank: u32,
    /// Where.
    pub node: NodeName,
    /// The GPUs it holds until it has ended.
    pub gpus: Vec<HeldGpu>,
    /// Where it stands.
    pub state: MemberState,
}

/// A step on a workload's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// When.
    pub at: Timestamp,
    /// What it became.
    pub phase: Phase,
    /// The attempt it belongs to.
    pub attempt: u32,
    /// One word or code. `None`: as expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who or what did it.
    pub actor: String,
}

/// A standing order to stop a placed workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StopOrder {
    /// Why.
    pub reason: StopReason,
    /// Between SIGTERM and SIGKILL.
    pub grace: Span,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// In whose favour, for a preemption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_favour_of: Option<WorkloadId>,
    /// The sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// An attempt that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastAttempt {
    /// From 1.
    pub attempt: u32,
    /// Its members, all ended.
    pub members: Vec<Member>,
}

/// A workload as the gateway keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its id.
    pub id: WorkloadId,
    /// Its name; unique among those of its namespace that haven't ended.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Who submitted it.
    pub owner: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What is asked for.
    pub spec: Arc<WorkloadSpec>,
    /// Where it stands.
    pub phase: Phase,
    /// One word or code for why it stands there. `None`: as expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The attempt under way, from 1; 0 before the first.
    pub attempt: u32,
    /// The members of the attempt under way, or of the last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When its first attempt began to run. `None`: not yet.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended. `None`: not yet.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// Its exit code: the highest of its members'. `None`: it hasn't ended, never started, or nobody saw.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// How many of the restarts count against `retries`.
    #[serde(default)]
    pub failures: u32,
    /// How often it ended by itself and was started again, since it was last ready for five minutes. Neither what stopped it
    /// from outside (preemption, a drain, a migration) nor the loss of its node counts.
    #[serde(default)]
    pub relapses: u32,
    /// Not to be placed before this moment. `None`: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// A standing order to stop. `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopOrder>,
    /// The node it should move to when it has stopped (`migrate --target`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<NodeName>,
    /// Nodes to stay away from in the next placement (`migrate`, failed starts).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<NodeName>,
    /// When it last stopped being ready though it ran on, by the gateway's clock. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lapsed_at: Option<Timestamp>,
    /// Every step so far, oldest first; the oldest are dropped past [`TIMELINE_MAX`].
    pub timeline: Vec<Transition>,
    /// Attempts before the one under way; the oldest are dropped past [`PAST_ATTEMPTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastAttempt>,
    /// Said at submission: no timeout, larger than the fleet, ….
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Workload {
    /// Whether it can serve, as its nodes said last. `None`: it isn't running, or nobody asks.
    #[must_use]
    pub fn ready(&self) -> Option<bool> {
        let told = |member: &Member| match member.state {
            MemberState::Running { ready, .. } => ready,
            MemberState::Assigned | MemberState::Pulling | MemberState::Ended { .. } => None,
        };
        let told = self.members.iter().filter_map(told);
        (self.phase == Phase::Running)
            .then(|| told.reduce(|all, one| all && one))
            .flatten()
    }
}

/// Steps kept in a workload's timeline: enough for a dozen attempts; all of them are in `events`.
pub const TIMELINE_MAX: usize = 64;

/// Past attempts kept with a workload.
pub const PAST_ATTEMPTS_MAX: usize = 10;

/// A GPU in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuOnNode {
    /// The node.
    pub node: NodeName,
    /// Position on it.
    pub index: GpuIndex,
}

/// A workload as `workload list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSummary {
    /// Its id.
    pub id: WorkloadId,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Who submitted it.
    pub owner: String,
    /// Its image.
    pub image: String,
    /// Where it stands.
    pub phase: Phase,
    /// Code for why. `null`: as expected.
    pub reason: Option<String>,
    /// The sentence. `null`: nothing to say.
    pub message: Option<String>,
    /// The node of its first member. `null`: not placed.
    pub node: Option<NodeName>,
    /// The GPUs it holds, or held last.
    pub gpus: Vec<GpuOnNode>,
    /// GPUs that it asks for, over all nodes.
    pub gpus_requested: u32,
    /// Place in the queue.
    pub priority: Priority,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// `null`: not yet.
    pub started_at: Option<Timestamp>,
    /// `null`: not yet.
    pub finished_at: Option<Timestamp>,
    /// `null`: not ended, never started, or unknown.
    pub exit_code: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether it can serve, as its nodes said last: all of its members that are asked. `null`: it isn't running, or has no
    /// readiness check.
    #[serde(default)]
    pub ready: Option<bool>,
}

impl From<&Workload> for WorkloadSummary {
    fn from(w: &Workload) -> Self {
        Self {
            id: w.id.clone(),
            name: w.name.clone(),
            namespace: w.namespace.clone(),
            owner: w.owner.clone(),
            image: w.spec.image.clone(),
            phase: w.phase,
            reason: w.reason.clone(),
            message: w.message.clone(),
            node: w.members.first().map(|m| m.node.clone()),
            gpus: w
                .members
                .iter()
                .flat_map(|m| {
                    m.gpus.iter().map(|g| GpuOnNode {
                        node: m.node.clone(),
                        index: g.index,
                    })
                })
                .collect(),
            gpus_requested: w.spec.gpus.count * w.spec.node_count(),
            priority: w.spec.priority,
            submitted_at: w.submitted_at,
            started_at: w.started_at,
            finished_at: w.finished_at,
            exit_code: w.exit_code,
            restarts: w.restarts,
            ready: w.ready(),
        }
    }
}

/// Where a log line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    /// The workload's standard output.
    Stdout,
    /// The workload's standard error.
    Stderr,
    /// Clawbernetes itself: gaps, hooks, image pulls.
    System,
}

/// How grave a log line is, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Finer than debug.
    Trace,
    /// For whoever debugs the program.
    Debug,
    /// What a line without a level counts as.
    Info,
    /// Odd, but the program goes on.
    Warn,
    /// Something failed; also tracebacks, panics, CUDA and NCCL errors, all their lines.
    Error,
    /// The program can't go on.
    Fatal,
}

impl LogLevel {
    /// All, from least to most grave.
    pub const ALL: [Self; 6] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
        Self::Fatal,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Phase; 10] = [
        Phase::Pending,
        Phase::Scheduled,
        Phase::Pulling,
        Phase::Running,
        Phase::Succeeded,
        Phase::Failed,
        Phase::Cancelled,
        Phase::TimedOut,
        Phase::Preempted,
        Phase::Lost,
    ];

    #[test]
    fn nothing_follows_an_ended_phase() {
        for from in ALL {
            for to in ALL {
                assert!(!(from.ended() && from.may_become(to)), "{from} -> {to}");
            }
            assert!(!from.may_become(from));
        }
    }

    #[test]
    fn every_phase_can_be_reached() {
        for to in ALL {
            assert!(
                to == Phase::Pending || ALL.iter().any(|from| from.may_become(to)),
                "{to}"
            );
        }
    }

    #[test]
    fn job_keys_survive_names_with_dots() {
        let key = JobKey {
            workload: WorkloadId::new("wl-a.b"),
            attempt: 2,
            rank: 7,
        };
        assert_eq!(key.to_string().parse(), Ok(key));
    }

    #[test]
    fn a_workload_is_ready_when_all_of_it_is() {
        let workload = |phase: &str, members: &[&str]| -> Workload {
            let member = |state: &&str| {
                let mut json = serde_json::json!({"rank": 0, "node": "n", "gpus": [], "state": {"state": "running",
                    "startedAt": "2026-01-02T03:04:05Z"}});
                if let Ok(ready) = state.parse::<bool>() {
                    json["state"]["ready"] = ready.into();
                }
                json
            };
            let members: Vec<_> = members.iter().map(member).collect();
            serde_json::from_value(
                serde_json::json!({"id": "wl-0000000001", "name": "w", "namespace": "default",
                "owner": "a", "spec": {}, "phase": phase, "attempt": 1, "members": members,
                "submittedAt": "2026-01-02T03:04:05Z", "timeline": []}),
            )
            .unwrap()
        };
        for (phase, members, ready) in [
            ("running", &["true"][..], Some(true)),
            ("running", &["false"], Some(false)),
            ("running", &["unasked"], None),
            ("running", &["true", "false"], Some(false)),
            ("running", &["true", "true"], Some(true)),
            ("running", &[], None),
            // What its node said before the phase was written doesn't count yet, or not any more.
            ("pulling", &["true"], None),
            ("failed", &["true"], None),
        ] {
            let summary = WorkloadSummary::from(&workload(phase, members));
            assert_eq!(summary.ready, ready, "{phase} {members:?}");
        }
    }

    #[test]
    fn records_of_earlier_versions_are_read() {
        let running: MemberState =
            serde_json::from_str(r#"{"state":"running","startedAt":"2026-01-02T03:04:05Z"}"#).unwrap();
        let MemberState::Running {
            ready,
            not_ready,
            since,
            endpoints,
            ..
        } = &running
        else {
            panic!("{running:?}")
        };
        assert_eq!((ready, not_ready, endpoints.len()), (&None, &None, 0));
        assert_eq!(since, &None);
        assert!(running.serves());
        let spec: WorkloadSpec = serde_json::from_str("{}").unwrap();
        assert!(!spec.dynamic_ports && spec.readiness.is_none());
        assert!(!serde_json::to_string(&spec).unwrap().contains("ynamic"));
    }
}
