//! Requests and answers about how things do: the fleet's health, and the diagnoses of nodes and workloads.
//!
//! Unknown is `null`, never zero: what wasn't measured is neither a finding nor healthy.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{GpuIndex, NodeName, Span, Timestamp, WorkloadId};

/// How a thing does, all told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Looked at, and nothing of warning or above.
    Healthy,
    /// Too little was measured to say.
    Unknown,
    /// At least one warning.
    Degraded,
    /// At least one critical finding.
    Critical,
}

impl HealthStatus {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FindingSeverity {
    /// Worth knowing; nothing has to be done.
    Info,
    /// Will hurt, or already costs something.
    Warning,
    /// Work fails, or is about to.
    Critical,
}

impl FindingSeverity {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum FindingTarget {
    /// A machine.
    Node {
        /// Its name.
        node: NodeName,
    },
    /// A GPU.
    Gpu {
        /// Its node.
        node: NodeName,
        /// Position on it.
        gpu: GpuIndex,
    },
    /// A disk, mount or network interface.
    Device {
        /// Its node.
        node: NodeName,
        /// Its name there.
        device: String,
    },
    /// A workload.
    Workload {
        /// Its id.
        workload: WorkloadId,
    },
    /// A member of a gang.
    Rank {
        /// The workload.
        workload: WorkloadId,
        /// Its number, from 0.
        rank: u32,
    },
}

impl fmt::Display for FindingTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { node } => write!(f, "{node}"),
            Self::Gpu { node, gpu } => write!(f, "{node} GPU {gpu}"),
            Self::Device { node, device } => write!(f, "{node} {device}"),
            Self::Workload { workload } => write!(f, "{workload}"),
            Self::Rank { workload, rank } => write!(f, "{workload} rank {rank}"),
        }
    }
}

/// Something that was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The metric, or the kind of event.
    pub metric: String,
    /// Its value. `null`: it was seen, and can't be put into a number.
    pub value: Option<f64>,
    /// Of value and threshold.
    pub unit: String,
    /// What it was held against. `null`: there is no such limit.
    pub threshold: Option<f64>,
    /// When. `null`: over all of `window`.
    pub at: Option<Timestamp>,
    /// Over how long. `null`: at one moment.
    pub window: Option<Span>,
    /// How it was worked out, where that isn't plain.
    pub method: Option<String>,
    /// In words.
    pub text: String,
}

/// Something that is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Stable name of what it is: `gpu-thermal-throttle`.
    pub finding: String,
    /// How bad it is.
    pub severity: FindingSeverity,
    /// What it is about.
    pub target: FindingTarget,
    /// In a few words.
    pub title: String,
    /// What it stands on; never empty.
    pub evidence: Vec<Evidence>,
    /// The class of what helps: `reset-gpu`.
    pub remedy: String,
    /// What helps, in words. May be empty.
    pub advice: String,
    /// Command lines that help, first the one to begin with. May be empty.
    pub commands: Vec<String>,
    /// How sure it is, 0–1.
    pub confidence: f64,
}

/// How the fleet does. Each answer is made from the last quarter of an hour of samples, and from the events of a day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetHealth {
    /// 0–100: 100 less all deductions. `null` without nodes.
    pub score: Option<f64>,
    /// All told.
    pub status: HealthStatus,
    /// As of when.
    pub at: Timestamp,
    /// Nodes by state.
    pub nodes: HealthNodes,
    /// What is in use.
    pub utilization: HealthUtilization,
    /// Alerts that fire, worst first.
    pub alerts: Vec<HealthAlert>,
    /// What keeps the score from 100, greatest first.
    pub deductions: Vec<Deduction>,
    /// All findings, worst first.
    pub diagnosis: Vec<Finding>,
}

/// Nodes by state; each is in one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthNodes {
    /// All.
    pub total: u32,
    /// Looked at, and nothing of warning or above.
    pub healthy: u32,
    /// With a warning.
    pub degraded: u32,
    /// With a critical finding.
    pub critical: u32,
    /// Don't answer.
    pub unreachable: u32,
    /// Take no new work.
    pub draining: u32,
    /// Have just joined.
    pub joining: u32,
    /// Too little is known.
    pub unknown: u32,
}

/// What is in use in the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthUtilization {
    /// GPUs.
    pub gpu: KnownShare,
    /// Memory of GPUs.
    pub gpu_memory: KnownShare,
    /// CPUs, by cores.
    pub cpu: KnownShare,
    /// Main memory.
    pub memory: KnownShare,
}

/// A share, and of how many nodes it is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KnownShare {
    /// Percent. `null`: measured on no node.
    pub percent: Option<f64>,
    /// Nodes on which it was measured.
    pub nodes: u32,
}

/// An alert that fires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthAlert {
    /// Name of its rule.
    pub name: String,
    /// How bad it is.
    pub severity: FindingSeverity,
    /// What it is about.
    pub target: String,
    /// Since when.
    pub since: Timestamp,
    /// Whether it is silenced.
    pub silenced: bool,
    /// In words.
    pub summary: String,
}

/// Points that something costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deduction {
    /// How many; never zero.
    pub points: f64,
    /// The finding, or `node-unreachable`, `node-unknown`.
    pub reason: String,
    /// What it is about.
    pub target: FindingTarget,
    /// What it stands on.
    pub evidence: Vec<Evidence>,
}

/// Which node is to be looked at, and how far back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DiagnoseNodeRequest {
    /// Its name, or the beginning of it.
    pub id: String,
    /// How far back samples are looked at, 1 minute to 7 days. Events and errors: a day. `null`: 1 hour.
    pub history: Option<Span>,
    /// With the figures of each metric.
    pub verbose: bool,
}

/// What is known about a node after looking closely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeDiagnosis {
    /// The node.
    pub node: NodeName,
    /// Its state, as `node list` shows it: a silent node's figures are those of the time before.
    pub state: crate::node::NodeStatus,
    /// As of when.
    pub at: Timestamp,
    /// Over how long.
    pub window: Span,
    /// All told. `unknown` if too little was measured.
    pub status: HealthStatus,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// Temperatures, throttling, fans.
    pub thermal: ThermalSection,
    /// RAM, swap, memory of GPUs.
    pub memory: MemorySection,
    /// Errors of the last day.
    pub errors: ErrorsSection,
    /// The course of each metric.
    pub trends: TrendsSection,
    /// What couldn't be checked, for want of data.
    pub unchecked: Vec<Unchecked>,
    /// Figures of each metric. `null` unless asked for.
    pub raw: Option<Vec<MetricFigures>>,
}

/// Temperatures, throttling, fans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThermalSection {
    /// All told.
    pub status: HealthStatus,
    /// Each GPU.
    pub gpus: Vec<GpuThermal>,
}

/// How hot a GPU is. What wasn't measured is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuThermal {
    /// Position on the node.
    pub gpu: GpuIndex,
    /// The newest temperature.
    pub celsius: Option<f64>,
    /// The highest of the window.
    pub celsius_max: Option<f64>,
    /// Where the hardware slows down, as the device reports it.
    pub slowdown_celsius: Option<f64>,
    /// Where the hardware switches off, as the device reports it.
    pub shutdown_celsius: Option<f64>,
    /// Newest fan speed.
    pub fan_percent: Option<f64>,
    /// Newest power draw.
    pub power_watts: Option<f64>,
    /// Power limit in force.
    pub power_limit_watts: Option<f64>,
    /// Why it ran slower than it could. `null`: not measured; empty: it didn't.
    pub throttle: Option<Vec<ThrottleShare>>,
}

/// A reason for slower clocks, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThrottleShare {
    /// NVML's name of it: `sw-power-cap`.
    pub reason: String,
    /// Share of samples.
    pub percent: f64,
    /// Whether nothing is wrong with that.
    pub normal: bool,
}

/// RAM, swap, memory of GPUs. What wasn't measured is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemorySection {
    /// All told.
    pub status: HealthStatus,
    /// In use, newest.
    pub used_bytes: Option<f64>,
    /// Of the machine.
    pub total_bytes: Option<f64>,
    /// In use.
    pub used_percent: Option<f64>,
    /// Swapped out, newest.
    pub swap_used_bytes: Option<f64>,
    /// Read from and written to swap, median.
    pub swap_bytes_per_second: Option<f64>,
    /// Time in which some task waited for memory, median.
    pub pressure_percent: Option<f64>,
    /// Time in which all tasks waited for memory, median.
    pub pressure_full_percent: Option<f64>,
    /// Until it is full, if it goes on like this. `null`: it doesn't fill up, or that can't be told.
    pub exhausted_in: Option<Span>,
    /// Processes that the kernel killed for want of memory in the last day. `null`: its log isn't read.
    pub oom_kills: Option<u64>,
    /// Each GPU.
    pub gpus: Vec<GpuMemory>,
}

/// Memory of a GPU. What wasn't measured is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuMemory {
    /// Position on the node.
    pub gpu: GpuIndex,
    /// In use, newest.
    pub used_bytes: Option<f64>,
    /// Of the device.
    pub total_bytes: Option<f64>,
    /// Corrected errors in the window.
    pub ecc_corrected: Option<f64>,
    /// Uncorrectable errors in the window.
    pub ecc_uncorrected: Option<f64>,
    /// Whether a row is replaced at the next reset.
    pub remap_pending: Option<bool>,
    /// Whether replacing a row has failed.
    pub remap_failed: Option<bool>,
}

/// Errors of the last day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorsSection {
    /// All told; `unknown` if the kernel's log isn't read.
    pub status: HealthStatus,
    /// Like ones together, worst first.
    pub groups: Vec<ErrorGroup>,
}

/// Like errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorGroup {
    /// `kernel`, `gateway`, or a workload.
    pub source: String,
    /// `warn`, `error` or `fatal`.
    pub level: String,
    /// What it says.
    pub text: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
}

/// The course of each metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrendsSection {
    /// All told; `unknown` without samples.
    pub status: HealthStatus,
    /// Each gauge.
    pub trends: Vec<Trend>,
    /// What is unlike the past or unlike peers.
    pub anomalies: Vec<Finding>,
}

/// The course of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trend {
    /// The metric.
    pub metric: String,
    /// Of which GPU.
    pub gpu: Option<GpuIndex>,
    /// Of which disk, mount or interface.
    pub device: Option<String>,
    /// Of all values.
    pub unit: String,
    /// Median of the window.
    pub median: f64,
    /// Change an hour. `null`: too few samples.
    pub per_hour: Option<f64>,
    /// `rising`, `falling` or `level`. `null`: too few samples.
    pub direction: Option<String>,
    /// Median before the window. `null`: too little history.
    pub usual: Option<f64>,
    /// Deviations from the past. `null`: too little history.
    pub z_past: Option<f64>,
    /// Deviations from peers. `null`: too few peers.
    pub z_peers: Option<f64>,
    /// How it was worked out.
    pub method: String,
}

/// Figures of a metric over the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricFigures {
    /// The metric.
    pub metric: String,
    /// Of which GPU.
    pub gpu: Option<GpuIndex>,
    /// Of which disk, mount or interface.
    pub device: Option<String>,
    /// Of all values.
    pub unit: String,
    /// Samples.
    pub count: u64,
    /// Least.
    pub min: f64,
    /// Average.
    pub avg: f64,
    /// Middle.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Greatest.
    pub max: f64,
    /// Newest.
    pub last: f64,
    /// When the newest was taken.
    pub last_at: Timestamp,
}

/// What couldn't be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unchecked {
    /// The finding that would have been made.
    pub finding: String,
    /// What it looks at, some of which wasn't measured.
    pub needs: Vec<String>,
}

/// Which workload is to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DiagnoseWorkloadRequest {
    /// Its id, its name, or the beginning of either.
    pub id: String,
    /// Where names are looked up.
    pub namespace: Option<String>,
    /// Another run, to be put beside it.
    pub compare: Option<String>,
    /// With what to do about each finding.
    pub recommendations: bool,
}

/// What is known about a workload after looking closely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadDiagnosis {
    /// Its id.
    pub workload: WorkloadId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub phase: crate::workload::Phase,
    /// As of when: now, or its end.
    pub at: Timestamp,
    /// Over how long.
    pub window: Span,
    /// All told. `unknown` if too little was measured.
    pub status: HealthStatus,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// What it uses, beside what it asked for.
    pub resources: WorkloadUse,
    /// What its output tells of errors.
    pub error_patterns: Vec<OutputPattern>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptSeen>,
    /// How fast it gets on.
    pub performance: Performance,
    /// What holds it up.
    pub bottleneck: Bottleneck,
    /// Members of the gang that keep the others waiting. `null`: that can't be told.
    pub stragglers: Option<Vec<Straggler>>,
    /// Beside the other run. `null` if none was given.
    pub comparison: Option<Comparison>,
    /// What to do. `null` unless asked for.
    pub recommendations: Option<Vec<Recommendation>>,
    /// What couldn't be checked, for want of data.
    pub unchecked: Vec<Unchecked>,
}

/// What a workload uses, beside what it asked for. What wasn't measured is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadUse {
    /// Each of its GPUs.
    pub gpus: Vec<GpuUse>,
    /// GPUs that it asked for.
    pub gpus_asked: u32,
    /// Cores in use, median.
    pub cpu_cores: Option<f64>,
    /// Cores that it asked for.
    pub cpu_cores_asked: Option<f64>,
    /// Memory in use, newest.
    pub memory_bytes: Option<f64>,
    /// The most memory used.
    pub memory_peak_bytes: Option<f64>,
    /// Its memory limit. `null`: none.
    pub memory_limit_bytes: Option<f64>,
    /// Read and written, median.
    pub io_bytes_per_second: Option<f64>,
}

/// What a workload uses of a GPU. What wasn't measured is `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuUse {
    /// Its number among those of the workload.
    pub gpu: u32,
    /// Its node.
    pub node: Option<NodeName>,
    /// Position on its node.
    pub index: Option<GpuIndex>,
    /// Median of the time under way.
    pub utilization_percent: Option<f64>,
    /// Greatest.
    pub memory_used_bytes: Option<f64>,
    /// Of the device.
    pub memory_total_bytes: Option<f64>,
    /// Highest.
    pub celsius_max: Option<f64>,
    /// Median.
    pub power_watts: Option<f64>,
}

/// How often the output told of an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputPattern {
    /// What it tells of: `cuda-oom`.
    pub pattern: String,
    /// Lines.
    pub count: u64,
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
    /// The last line.
    pub sample: String,
}

/// One go at running it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptSeen {
    /// Its number, from 1.
    pub attempt: u32,
    /// Where. `null`: nowhere yet.
    pub node: Option<NodeName>,
    /// When it began to run. `null`: it never did.
    pub started_at: Option<Timestamp>,
    /// When it ended. `null`: it goes on.
    pub ended_at: Option<Timestamp>,
    /// Its exit code. `null`: it goes on, or nobody saw.
    pub exit_code: Option<i32>,
    /// Why it ended. `null`: it goes on, or that isn't known.
    pub reason: Option<String>,
}

/// How fast it gets on. `null`: it doesn't report that, or it wasn't measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Performance {
    /// Work a second in its own unit, median.
    pub throughput: Option<f64>,
    /// Time of a step, median.
    pub step_time_ms: Option<f64>,
    /// Time of a request, median.
    pub latency_p50_ms: Option<f64>,
    /// Time of a request, 95th percentile.
    pub latency_p95_ms: Option<f64>,
    /// The newest loss.
    pub loss: Option<f64>,
    /// Share of time in which its GPUs worked, average of all.
    pub gpu_busy_percent: Option<f64>,
}

/// What holds it up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bottleneck {
    /// `data-pipeline`, `compute`, `memory-bound`, `communication` or `none`. `null`: the signals don't tell.
    pub class: Option<String>,
    /// How sure that is, 0–1.
    pub confidence: f64,
    /// All signals that were looked at.
    pub signals: Vec<Signal>,
}

/// Something that speaks for a class of bottleneck.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// What was looked at.
    pub metric: String,
    /// The class that it speaks for.
    pub speaks_for: String,
    /// How much, 0–1.
    pub weight: f64,
    /// `null`: not measured.
    pub value: Option<f64>,
    /// Of value and threshold.
    pub unit: String,
    /// What it is held against.
    pub threshold: f64,
    /// Whether it holds. `null`: not measured.
    pub holds: Option<bool>,
    /// In words.
    pub text: String,
}

/// A member of a gang that keeps the others waiting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Straggler {
    /// Its number, from 0.
    pub rank: u32,
    /// Where it is.
    pub node: Option<NodeName>,
    /// What gives it away.
    pub metric: String,
    /// Its level.
    pub value: f64,
    /// The middle of all members.
    pub usual: f64,
    /// How many times slower.
    pub times_slower: f64,
}

/// A run beside another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The other.
    pub baseline: WorkloadId,
    /// What both have.
    pub changes: Vec<Change>,
    /// What was asked for differently, in words: it may be the reason.
    pub differences: Vec<String>,
}

/// A metric of both runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The metric.
    pub metric: String,
    /// Of both.
    pub unit: String,
    /// Median of this run.
    pub now: f64,
    /// Median of the other.
    pub then: f64,
    /// Change, percent of the other. `null`: the other is zero.
    pub percent: Option<f64>,
    /// Probability of such a difference by chance. `null`: too few samples.
    pub p: Option<f64>,
    /// Rank-biserial correlation, -1 to 1. `null`: too few samples.
    pub effect: Option<f64>,
    /// `better`, `worse`, `different`, `same`, or `insufficient`: too few samples.
    pub verdict: String,
    /// How it was worked out.
    pub method: String,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recommendation {
    /// The finding that it answers.
    pub finding: String,
    /// What to do.
    pub text: String,
    /// The command that does it.
    pub command: String,
}
