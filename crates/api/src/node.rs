//! Nodes and their GPUs. A value that isn't known is `None` (JSON `null`), never zero.

use std::{collections::BTreeMap, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Cpu, GpuIndex, NodeName, Size, Span, Timestamp, WorkloadId};

/// Who makes a GPU, or that nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// NVIDIA, read by NVML.
    Nvidia,
    /// AMD, read by sysfs.
    Amd,
    /// Made up by `--simulate-gpus`, and marked so wherever it is shown.
    Simulated,
}

/// What is fixed about a GPU while its driver is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuInfo {
    /// Position on its node, as the driver counts.
    pub index: GpuIndex,
    /// The vendor's identifier of this very device.
    pub uuid: String,
    /// Who makes it.
    pub vendor: Vendor,
    /// The marketing name, such as `NVIDIA H100 80GB HBM3`.
    pub model: String,
    /// Device memory. `None`: the driver doesn't say.
    pub memory_total_bytes: Option<Size>,
    /// PCI address, `0000:3b:00.0`. `None`: unknown.
    pub pci_address: Option<String>,
    /// NUMA node nearest to it. `None`: unknown or a machine without NUMA.
    pub numa_node: Option<u32>,
    /// Power limit in force, in watts. `None`: unknown.
    pub power_limit_watts: Option<u32>,
    /// Driver version. `None`: unknown.
    pub driver_version: Option<String>,
}

impl GpuInfo {
    /// Whether this GPU is made up.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.vendor == Vendor::Simulated
    }
}

/// Whether a GPU can be trusted with work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum GpuHealth {
    /// Nothing is known to be wrong.
    #[default]
    Ok,
    /// It works, but something needs attention; still schedulable.
    Degraded {
        /// What is wrong.
        reason: String,
    },
    /// It can't be used: fell off the bus, uncorrectable errors, needs a reset.
    Failed {
        /// What is wrong.
        reason: String,
    },
    /// The driver doesn't answer.
    Unknown {
        /// Why it isn't known.
        reason: String,
    },
}

impl GpuHealth {
    /// All words.
    pub const NAMES: [&str; 4] = ["ok", "degraded", "failed", "unknown"];

    /// Whether new work may be placed on it.
    #[must_use]
    pub fn usable(&self) -> bool {
        matches!(self, Self::Ok | Self::Degraded { .. })
    }

    /// `ok`, `degraded`, `failed` or `unknown`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded { .. } => "degraded",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// What is wrong. `None` when nothing is.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Ok => None,
            Self::Degraded { reason } | Self::Failed { reason } | Self::Unknown { reason } => Some(reason),
        }
    }
}

/// What changes about a GPU from moment to moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuSample {
    /// Which GPU of the node.
    pub index: GpuIndex,
    /// Device memory in use. `None`: not reported.
    pub memory_used_bytes: Option<Size>,
    /// Share of the sampling window in which at least one kernel ran, 0–100. `None`: not reported, which isn't idle.
    pub utilization_percent: Option<u8>,
    /// Core temperature. `None`: not reported.
    pub temperature_celsius: Option<i16>,
    /// Power drawn, in watts. `None`: not reported.
    pub power_watts: Option<f32>,
    /// Whether it can be trusted with work.
    #[serde(default)]
    pub health: GpuHealth,
}

/// How two GPUs of a node reach each other, best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum GpuLink {
    /// Through the interconnect between CPU sockets.
    System,
    /// Through the host bridge of one NUMA node.
    SameNuma,
    /// Through one PCIe switch.
    SameSwitch,
    /// Directly (AMD Infinity Fabric).
    Xgmi {
        /// Hops.
        hops: u32,
    },
    /// Directly, over this many NVLink lanes (through NVSwitch or not).
    NvLink {
        /// Active lanes.
        lanes: u32,
    },
}

/// The link between two GPUs of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuPair {
    /// One of the two; `a < b`.
    pub a: GpuIndex,
    /// The other.
    pub b: GpuIndex,
    /// How they reach each other.
    pub link: GpuLink,
}

/// What carries workloads out on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Docker or Podman, by its API.
    Docker,
    /// Child processes of the node itself; runs the image `host`.
    Native,
    /// A Kubernetes cluster.
    Kubernetes,
}

impl EngineKind {
    /// The name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Native => "native",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// An engine that a node offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineInfo {
    /// Which.
    pub kind: EngineKind,
    /// Its version. `None`: unknown.
    pub version: Option<String>,
    /// What it can't enforce on this machine, in words ("no memory limit: cgroup not writable").
    #[serde(default)]
    pub limitations: Vec<String>,
}

/// A machine as its agent finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// The machine's host name.
    pub hostname: String,
    /// Logical CPUs that workloads may use.
    pub cpu: Cpu,
    /// CPU model. `None`: unknown.
    pub cpu_model: Option<String>,
    /// Main memory.
    pub memory_total_bytes: Size,
    /// Operating system, such as `Debian GNU/Linux 12 (bookworm)`. `None`: unknown.
    pub os: Option<String>,
    /// Kernel release. `None`: unknown.
    pub kernel: Option<String>,
    /// CPU architecture, such as `x86_64`.
    pub arch: String,
    /// Identifies this boot of the machine. `None`: unknown.
    pub boot_id: Option<String>,
    /// The GPUs, by index.
    pub gpus: Vec<GpuInfo>,
    /// Links between the GPUs. Pairs that aren't listed are unknown.
    #[serde(default)]
    pub links: Vec<GpuPair>,
    /// The engines, preferred first. Never empty.
    pub engines: Vec<EngineInfo>,
    /// The agent's version.
    pub agent_version: String,
    /// Drivers that were looked for and not found, or that failed, in words.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What changes about a machine from moment to moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSample {
    /// Main memory in use (total less what the kernel calls available). `None`: unknown.
    pub memory_used_bytes: Option<Size>,
    /// Share of all CPUs busy since the last sample, 0–100. `None`: no earlier sample to compare with.
    pub cpu_percent: Option<f32>,
    /// The GPUs, by index.
    #[serde(default)]
    pub gpus: Vec<GpuSample>,
}

/// Keeps workloads off a node unless they tolerate it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// What it is called.
    pub key: String,
    /// Its value; may be empty.
    #[serde(default)]
    pub value: String,
    /// How strict it is.
    pub effect: TaintEffect,
}

/// How strictly a taint keeps workloads off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// Nothing new is placed here.
    NoSchedule,
    /// Only where nothing else fits.
    PreferNoSchedule,
}

/// A wish to empty a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Since when.
    pub since: Timestamp,
    /// Who asked.
    pub by: String,
    /// Workloads that are still there after this long are stopped all the same. `None`: they may finish.
    pub timeout: Option<Span>,
    /// Stop the workloads now, with their grace period.
    pub force: bool,
}

/// How far a node can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Reach {
    /// It made itself known but its first session hasn't begun.
    Joining,
    /// Its session is alive.
    Online,
    /// No sign of life for longer than the heartbeat allows; what it runs is unknown.
    Unreachable,
    /// Silent past the grace period: fenced, its workloads are lost.
    Lost,
}

/// A node as the gateway keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its id.
    pub name: NodeName,
    /// When it joined.
    pub joined_at: Timestamp,
    /// Hash of the node's own credential, hex. Never leaves the gateway.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub credential_hash: String,
    /// Labels given by people and by the agent's `--label`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints.
    #[serde(default)]
    pub taints: Vec<Taint>,
    /// Present while the node is being emptied.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// How far it can be relied on.
    pub reach: Reach,
    /// Since when `reach` is what it is.
    pub reach_since: Timestamp,
    /// The machine as its agent last found it. `None` before the first session.
    #[serde(default)]
    pub inventory: Option<Inventory>,
    /// GPUs that can't be used, or need attention, with the reason; GPUs that aren't listed are `Ok`.
    #[serde(default)]
    pub gpu_health: BTreeMap<GpuIndex, GpuHealth>,
    /// Counts the node's sessions: a message of an older one is refused.
    #[serde(default)]
    pub session: u64,
    /// The address that it called from last. `None`: it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Where it listens for requests of services. `None`: it carries none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<IpAddr>,
    /// The lines of its kernel log that are known. `None`: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts_seen: Option<FactsSeen>,
}

/// How far a node's kernel log is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FactsSeen {
    /// The boot whose log it is. `None`: the node can't tell its boots apart.
    pub boot: Option<String>,
    /// The kernel's number of the last line that meant something.
    pub sequence: u64,
}

/// The one word for a node's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// Alive, and nothing is known to be wrong.
    Healthy,
    /// Alive, but something needs attention.
    Degraded,
    /// Alive, but some GPU can't be used.
    Critical,
    /// No sign of life.
    Unreachable,
    /// Being emptied on request.
    Draining,
    /// Not yet seen.
    Joining,
    /// The gateway has just started and hasn't heard of it yet.
    Unknown,
}

impl NodeStatus {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Healthy,
        Self::Degraded,
        Self::Critical,
        Self::Unreachable,
        Self::Draining,
        Self::Joining,
        Self::Unknown,
    ];

    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
            Self::Unreachable => "unreachable",
            Self::Draining => "draining",
            Self::Joining => "joining",
            Self::Unknown => "unknown",
        }
    }
}

/// A GPU as `node list` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuView {
    /// Position on its node.
    pub index: GpuIndex,
    /// The vendor's identifier.
    pub uuid: String,
    /// Marketing name.
    pub model: String,
    /// Device memory. `null`: unknown.
    pub memory_total_bytes: Option<Size>,
    /// In use, by the last heartbeat. `null`: unknown.
    pub memory_used_bytes: Option<Size>,
    /// 0–100, by the last heartbeat. `null`: unknown.
    pub utilization_percent: Option<u8>,
    /// By the last heartbeat. `null`: unknown.
    pub temperature_celsius: Option<i16>,
    /// By the last heartbeat. `null`: unknown.
    pub power_watts: Option<f32>,
    /// `ok`, `degraded`, `failed` or `unknown`.
    pub health: String,
    /// What is wrong. `null` when nothing is.
    pub health_reason: Option<String>,
    /// True for a GPU that `--simulate-gpus` made up.
    pub simulated: bool,
    /// The workload that holds it. `null`: free.
    pub workload: Option<WorkloadId>,
}

/// MOLT participation of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MoltView {
    /// Whether GPUs of this node are offered to other fleets.
    pub active: bool,
}

/// A condition of a node that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCondition {
    /// A word: `unreachable`, `gpu-failed`, `clock-skew`, `limitation`, …
    pub kind: String,
    /// What is the matter.
    pub reason: String,
}

/// A node as `node list` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Its id.
    pub id: NodeName,
    /// Its name; the same as the id.
    pub name: NodeName,
    /// The one word for its state.
    pub status: NodeStatus,
    /// Its GPUs.
    pub gpus: Vec<GpuView>,
    /// GPUs that a workload could be given now.
    pub gpus_free: u32,
    /// Logical CPUs. `null`: unknown.
    pub cpu_cores: Option<f32>,
    /// `null`: unknown.
    pub memory_total_bytes: Option<Size>,
    /// By the last heartbeat. `null`: unknown.
    pub memory_used_bytes: Option<Size>,
    /// The preferred engine. `null`: unknown.
    pub engine: Option<EngineKind>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// MOLT participation.
    pub molt: MoltView,
    /// The last sign of life. `null`: none since the gateway started.
    pub last_seen: Option<Timestamp>,
}

/// The link to a node's agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connectivity {
    /// The address it called from. `null`: not connected.
    pub address: Option<String>,
    /// Connected since. `null`: not connected.
    pub since: Option<Timestamp>,
    /// Round trip of the last heartbeat. `null`: not measured.
    pub round_trip_ms: Option<f64>,
    /// The node's wall clock less the gateway's, in milliseconds. `null`: not measured.
    pub clock_offset_ms: Option<f64>,
}

/// A node as `node info` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeDetail {
    /// All that `node list` shows.
    #[serde(flatten)]
    pub view: NodeView,
    /// The machine. `null` before the first session.
    pub inventory: Option<Inventory>,
    /// Share of all CPUs busy, 0–100. `null`: unknown.
    pub cpu_percent: Option<f32>,
    /// What runs here.
    pub workloads: Vec<WorkloadId>,
    /// The link to the agent.
    pub connectivity: Connectivity,
    /// What a person should know.
    pub conditions: Vec<NodeCondition>,
    /// Present while it is being emptied.
    pub drain: Option<Drain>,
    /// When it joined.
    pub joined_at: Timestamp,
}
