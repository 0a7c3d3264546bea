//! The catalogue of metrics: what is measured, in which unit, and what it is called in Prometheus' format.
//!
//! A series is a metric's name and its labels. Agents add the labels below; the gateway adds [`label::NODE`].
//!
//! | scope | labels |
//! | --- | --- |
//! | [`Scope::Gpu`] | `gpu` (index), `uuid`, `model`. Who held the GPU is known to the gateway, and isn't a label |
//! | [`Scope::Node`] | none, or the part: `mount`, `device` (disk or network interface) |
//! | [`Scope::Workload`] | `workload`, `attempt`, `rank`, and those of the workload's own metrics |
//! | [`Scope::Gateway`] | as each says: those of the node, GPU or workload that it is about, and `state` or `xid` |
//!
//! Metrics that workloads report themselves aren't in the catalogue: their names begin with [`OWN_PREFIX`].

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the names of metrics begin with that workloads report themselves: `custom.loss`.
pub const OWN_PREFIX: &str = "custom.";

/// Labels that Clawbernetes gives.
pub mod label {
    /// The node's name; added by the gateway.
    pub const NODE: &str = "node";
    /// Index of a GPU on its node.
    pub const GPU: &str = "gpu";
    /// The vendor's identifier of a GPU.
    pub const UUID: &str = "uuid";
    /// A GPU's marketing name.
    pub const MODEL: &str = "model";
    /// A workload's id.
    pub const WORKLOAD: &str = "workload";
    /// A workload's attempt, from 1.
    pub const ATTEMPT: &str = "attempt";
    /// The member of a gang, from 0.
    pub const RANK: &str = "rank";
    /// Where a file system is mounted.
    pub const MOUNT: &str = "mount";
    /// A disk or a network interface.
    pub const DEVICE: &str = "device";
    /// Those that a workload's own metrics can't set.
    pub const RESERVED: &[&str] = &[NODE, GPU, UUID, WORKLOAD, ATTEMPT, RANK];
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Unit {
    /// 0–100.
    #[serde(rename = "percent")]
    Percent,
    /// Bytes.
    #[serde(rename = "bytes")]
    Bytes,
    /// Bytes a second.
    #[serde(rename = "bytes/s")]
    BytesPerSecond,
    /// Operations a second.
    #[serde(rename = "ops/s")]
    OpsPerSecond,
    /// Lines a second.
    #[serde(rename = "lines/s")]
    LinesPerSecond,
    /// Degrees.
    #[serde(rename = "celsius")]
    Celsius,
    /// Watts.
    #[serde(rename = "watts")]
    Watts,
    /// Megahertz.
    #[serde(rename = "megahertz")]
    Megahertz,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// CPUs kept busy.
    #[serde(rename = "cores")]
    Cores,
    /// Things, told by the metric's name.
    #[serde(rename = "count")]
    Count,
    /// 0 or 1.
    #[serde(rename = "bool")]
    Bool,
    /// A set of bits.
    #[serde(rename = "bits")]
    Bits,
}

impl Unit {
    /// The unit, as shown and as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Percent => "percent",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes/s",
            Self::OpsPerSecond => "ops/s",
            Self::LinesPerSecond => "lines/s",
            Self::Celsius => "celsius",
            Self::Watts => "watts",
            Self::Megahertz => "megahertz",
            Self::Millis => "ms",
            Self::Seconds => "s",
            Self::Cores => "cores",
            Self::Count => "count",
            Self::Bool => "bool",
            Self::Bits => "bits",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a number moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Up and down.
    Gauge,
    /// Up, or anew from zero.
    Counter,
}

/// What a metric is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A GPU of a node.
    Gpu,
    /// A node.
    Node,
    /// A member of a workload's attempt.
    Workload,
    /// What the gateway alone knows: itself, the fleet, its word on nodes, GPUs and workloads.
    Gateway,
}

/// How several points, or several series, become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// Mean.
    Avg,
    /// Largest.
    Max,
    /// Smallest.
    Min,
    /// 95th percentile.
    P95,
    /// 99th percentile.
    P99,
}

impl Aggregate {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::Max => "max",
            Self::Min => "min",
            Self::P95 => "p95",
            Self::P99 => "p99",
        }
    }
}

/// A metric of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name: `gpu.temperature`.
    pub name: &'static str,
    /// Its name in Prometheus' format: that of NVIDIA's DCGM exporter where there is one.
    pub prometheus: &'static str,
    /// What a value is multiplied by for Prometheus, whose conventions and DCGM's have units of their own.
    pub prometheus_scale: f64,
    /// Unit of the values.
    pub unit: Unit,
    /// How it moves.
    pub kind: Kind,
    /// What it is about.
    pub scope: Scope,
    /// How several become one, where nobody says.
    pub aggregate: Aggregate,
    /// One sentence.
    pub help: &'static str,
}

impl Metric {
    /// Whether its name in Prometheus' format is DCGM's: then labels are called as there, too.
    #[must_use]
    pub fn dcgm(&self) -> bool {
        self.prometheus.starts_with("DCGM_")
    }
}

const MIB: f64 = 1.0 / 1_048_576.0;
const RATIO: f64 = 0.01;
const SECONDS: f64 = 0.001;

macro_rules! catalogue {
    ($( $name:literal, $prometheus:literal * $scale:expr, $unit:ident, $kind:ident, $scope:ident, $aggregate:ident, $help:literal; )*) => {
        /// All metrics that Clawbernetes measures, by scope.
        ///
        /// `DCGM_…` names, types and units are those of dcgm-exporter's `default-counters.csv` and of DCGM's field
        /// list (`dcgm_fields.h`).
        pub const CATALOGUE: &[Metric] = &[
            $( Metric {
                name: $name,
                prometheus: $prometheus,
                prometheus_scale: $scale,
                unit: Unit::$unit,
                kind: Kind::$kind,
                scope: Scope::$scope,
                aggregate: Aggregate::$aggregate,
                help: $help,
            }, )*
        ];
    };
}

catalogue! {
    "gpu.up", "clawbernetes_gpu_up" * 1.0, Bool, Gauge, Gpu, Min, "Whether the driver reaches the GPU.";
    "gpu.utilization", "DCGM_FI_DEV_GPU_UTIL" * 1.0, Percent, Gauge, Gpu, Avg, "Share of the time in which at least one kernel ran.";
    "gpu.memory", "DCGM_FI_DEV_FB_USED" * MIB, Bytes, Gauge, Gpu, Avg, "Device memory in use.";
    "gpu.memory.total", "DCGM_FI_DEV_FB_TOTAL" * MIB, Bytes, Gauge, Gpu, Max, "Device memory.";
    "gpu.memory.bandwidth", "DCGM_FI_DEV_MEM_COPY_UTIL" * 1.0, Percent, Gauge, Gpu, Avg, "Share of the time in which device memory was read or written.";
    "gpu.temperature", "DCGM_FI_DEV_GPU_TEMP" * 1.0, Celsius, Gauge, Gpu, Max, "Core temperature.";
    "gpu.temperature.memory", "DCGM_FI_DEV_MEMORY_TEMP" * 1.0, Celsius, Gauge, Gpu, Max, "Temperature of the device memory.";
    "gpu.temperature.slowdown", "DCGM_FI_DEV_SLOWDOWN_TEMP" * 1.0, Celsius, Gauge, Gpu, Min, "Core temperature at which the device slows itself down.";
    "gpu.temperature.shutdown", "DCGM_FI_DEV_SHUTDOWN_TEMP" * 1.0, Celsius, Gauge, Gpu, Min, "Core temperature at which the device shuts itself down.";
    "gpu.power", "DCGM_FI_DEV_POWER_USAGE" * 1.0, Watts, Gauge, Gpu, Avg, "Power drawn.";
    "gpu.power.limit", "DCGM_FI_DEV_ENFORCED_POWER_LIMIT" * 1.0, Watts, Gauge, Gpu, Min, "Power limit in force.";
    "gpu.clock.sm", "DCGM_FI_DEV_SM_CLOCK" * 1.0, Megahertz, Gauge, Gpu, Avg, "Clock of the processors.";
    "gpu.clock.memory", "DCGM_FI_DEV_MEM_CLOCK" * 1.0, Megahertz, Gauge, Gpu, Avg, "Clock of the device memory.";
    "gpu.fan", "DCGM_FI_DEV_FAN_SPEED" * 1.0, Percent, Gauge, Gpu, Max, "Fan speed, of its maximum.";
    "gpu.pcie.rx", "DCGM_FI_PROF_PCIE_RX_BYTES" * 1.0, BytesPerSecond, Gauge, Gpu, Avg, "Received over PCIe.";
    "gpu.pcie.tx", "DCGM_FI_PROF_PCIE_TX_BYTES" * 1.0, BytesPerSecond, Gauge, Gpu, Avg, "Sent over PCIe.";
    // DCGM's own name, DCGM_FI_DEV_PCIE_REPLAY_COUNTER, has a type in it, which promtool refuses.
    "gpu.pcie.replays", "clawbernetes_gpu_pcie_replays_total" * 1.0, Count, Counter, Gpu, Max, "PCIe packets that had to be sent again.";
    "gpu.pcie.generation", "DCGM_FI_DEV_PCIE_LINK_GEN" * 1.0, Count, Gauge, Gpu, Min, "PCIe generation of the link as it is now.";
    "gpu.pcie.width", "DCGM_FI_DEV_PCIE_LINK_WIDTH" * 1.0, Count, Gauge, Gpu, Min, "PCIe lanes of the link as it is now.";
    "gpu.nvlink.rx", "DCGM_FI_PROF_NVLINK_RX_BYTES" * 1.0, BytesPerSecond, Gauge, Gpu, Avg, "Received over all NVLinks.";
    "gpu.nvlink.tx", "DCGM_FI_PROF_NVLINK_TX_BYTES" * 1.0, BytesPerSecond, Gauge, Gpu, Avg, "Sent over all NVLinks.";
    "gpu.nvlink.errors", "clawbernetes_gpu_nvlink_errors_total" * 1.0, Count, Counter, Gpu, Max, "Errors on all NVLinks: CRC, replays and recoveries.";
    "gpu.ecc.corrected", "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL" * 1.0, Count, Counter, Gpu, Max, "Memory errors corrected since the driver was loaded.";
    "gpu.ecc.uncorrected", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL" * 1.0, Count, Counter, Gpu, Max, "Memory errors not corrected since the driver was loaded.";
    "gpu.remap.corrected", "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS" * 1.0, Count, Counter, Gpu, Max, "Memory rows remapped after correctable errors.";
    "gpu.remap.uncorrected", "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS" * 1.0, Count, Counter, Gpu, Max, "Memory rows remapped after uncorrectable errors.";
    "gpu.remap.pending", "DCGM_FI_DEV_ROW_REMAP_PENDING" * 1.0, Bool, Gauge, Gpu, Max, "Whether rows are remapped at the next reset.";
    "gpu.remap.failed", "DCGM_FI_DEV_ROW_REMAP_FAILURE" * 1.0, Bool, Gauge, Gpu, Max, "Whether a row couldn't be remapped.";
    "gpu.throttle", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS" * 1.0, Bits, Gauge, Gpu, Max, "Why clocks are held down: bits of NVML's nvmlClocksEventReasons.";

    "node.up", "clawbernetes_node_up" * 1.0, Bool, Gauge, Node, Min, "Whether the node's session is alive.";
    "clock.offset", "clawbernetes_node_clock_offset_seconds" * SECONDS, Millis, Gauge, Node, Max, "The node's wall clock less the gateway's.";
    "cpu.usage", "clawbernetes_node_cpu_usage_ratio" * RATIO, Percent, Gauge, Node, Avg, "Share of all CPUs busy.";
    "cpu.load1", "clawbernetes_node_load1" * 1.0, Count, Gauge, Node, Avg, "Load average over 1 min.";
    "cpu.load5", "clawbernetes_node_load5" * 1.0, Count, Gauge, Node, Avg, "Load average over 5 min.";
    "cpu.load15", "clawbernetes_node_load15" * 1.0, Count, Gauge, Node, Avg, "Load average over 15 min.";
    "memory.usage", "clawbernetes_node_memory_used_bytes" * 1.0, Bytes, Gauge, Node, Avg, "Main memory in use: all but what the kernel calls available.";
    "memory.total", "clawbernetes_node_memory_size_bytes" * 1.0, Bytes, Gauge, Node, Max, "Main memory.";
    "swap.usage", "clawbernetes_node_swap_used_bytes" * 1.0, Bytes, Gauge, Node, Avg, "Swap in use.";
    "swap.total", "clawbernetes_node_swap_size_bytes" * 1.0, Bytes, Gauge, Node, Max, "Swap.";
    "swap.in", "clawbernetes_node_swap_in_bytes_per_second" * 1.0, BytesPerSecond, Gauge, Node, Avg, "Read from swap.";
    "swap.out", "clawbernetes_node_swap_out_bytes_per_second" * 1.0, BytesPerSecond, Gauge, Node, Avg, "Written to swap.";
    "pressure.cpu", "clawbernetes_node_pressure_cpu_ratio" * RATIO, Percent, Gauge, Node, Avg, "Share of the last 10 s in which some task waited for a CPU.";
    "pressure.memory", "clawbernetes_node_pressure_memory_ratio" * RATIO, Percent, Gauge, Node, Avg, "Share of the last 10 s in which some task waited for memory.";
    "pressure.memory.full", "clawbernetes_node_pressure_memory_full_ratio" * RATIO, Percent, Gauge, Node, Avg, "Share of the last 10 s in which all tasks waited for memory.";
    "pressure.io", "clawbernetes_node_pressure_io_ratio" * RATIO, Percent, Gauge, Node, Avg, "Share of the last 10 s in which some task waited for input or output.";
    "disk.used", "clawbernetes_node_disk_used_bytes" * 1.0, Bytes, Gauge, Node, Max, "Space of a file system that isn't free.";
    "disk.total", "clawbernetes_node_disk_size_bytes" * 1.0, Bytes, Gauge, Node, Max, "Size of a file system.";
    "disk.inodes.used", "clawbernetes_node_disk_inodes_used" * 1.0, Count, Gauge, Node, Max, "Inodes of a file system that aren't free: files and folders.";
    "disk.inodes.total", "clawbernetes_node_disk_inodes" * 1.0, Count, Gauge, Node, Max, "Inodes of a file system; one that makes them as it needs them has none to tell.";
    "disk.iops", "clawbernetes_node_disk_operations_per_second" * 1.0, OpsPerSecond, Gauge, Node, Avg, "Reads and writes that a disk completed.";
    "disk.throughput", "clawbernetes_node_disk_bytes_per_second" * 1.0, BytesPerSecond, Gauge, Node, Avg, "Read from and written to a disk.";
    "network.throughput", "clawbernetes_node_network_bytes_per_second" * 1.0, BytesPerSecond, Gauge, Node, Avg, "Received and sent over an interface.";
    "network.rx", "clawbernetes_node_network_receive_bytes_per_second" * 1.0, BytesPerSecond, Gauge, Node, Avg, "Received over an interface.";
    "network.tx", "clawbernetes_node_network_transmit_bytes_per_second" * 1.0, BytesPerSecond, Gauge, Node, Avg, "Sent over an interface.";
    "network.errors", "clawbernetes_node_network_errors_total" * 1.0, Count, Counter, Node, Max, "Packets with errors, received and sent, of an interface.";

    "workload.cpu", "clawbernetes_workload_cpu_cores" * 1.0, Cores, Gauge, Workload, Avg, "CPUs that it kept busy.";
    "workload.memory", "clawbernetes_workload_memory_used_bytes" * 1.0, Bytes, Gauge, Workload, Max, "Main memory that it uses, without the page cache that can go at once.";
    "workload.memory.limit", "clawbernetes_workload_memory_limit_bytes" * 1.0, Bytes, Gauge, Workload, Max, "Its memory limit.";
    "workload.io", "clawbernetes_workload_io_bytes_per_second" * 1.0, BytesPerSecond, Gauge, Workload, Avg, "Read from and written to disks.";
    "workload.log.lines", "clawbernetes_workload_log_lines_per_second" * 1.0, LinesPerSecond, Gauge, Workload, Avg, "Lines of output that it writes.";
    "workload.log.bytes", "clawbernetes_workload_log_bytes_per_second" * 1.0, BytesPerSecond, Gauge, Workload, Avg, "Text of output that it writes.";
    "workload.log.lost", "clawbernetes_workload_log_lost_lines_total" * 1.0, Count, Counter, Workload, Max, "Lines of its output that were lost since its node's agent started: it wrote more than could be sent and kept.";
    "workload.restarts", "clawbernetes_workload_restarts" * 1.0, Count, Gauge, Workload, Max, "Attempts before this one.";

    "fleet.nodes", "clawbernetes_nodes" * 1.0, Count, Gauge, Gateway, Avg, "Nodes, by status.";
    "fleet.gpus", "clawbernetes_gpus" * 1.0, Count, Gauge, Gateway, Avg, "GPUs of all nodes.";
    "fleet.gpus.free", "clawbernetes_gpus_free" * 1.0, Count, Gauge, Gateway, Avg, "GPUs that a workload could be given.";
    "queue.workloads", "clawbernetes_workloads" * 1.0, Count, Gauge, Gateway, Avg, "Workloads that haven't ended, by phase.";
    "queue.wait", "clawbernetes_queue_wait_seconds" * SECONDS, Millis, Gauge, Gateway, Max, "For how long the workload has waited that waits longest.";
    "node.status", "clawbernetes_node_status" * 1.0, Bool, Gauge, Gateway, Max, "1 for the status (label state) that a node has, 0 for all others.";
    "gpu.health", "clawbernetes_gpu_health" * 1.0, Bool, Gauge, Gateway, Max, "1 for the health (label state) that a GPU has, 0 for all others.";
    "gpu.xids", "clawbernetes_gpu_xids_total" * 1.0, Count, Counter, Gateway, Max, "XID errors of a GPU since the gateway's start, by number (label xid).";
    "workload.oom_kills", "clawbernetes_workload_oom_kills_total" * 1.0, Count, Counter, Gateway, Max, "Attempts of a workload that ended for want of memory, since the gateway's start.";
    "workload.crashes", "clawbernetes_workload_crashes_total" * 1.0, Count, Counter, Gateway, Max, "Attempts of a workload that failed and were followed by another one, since the gateway's start.";
    "cert.remaining", "clawbernetes_certificate_remaining_seconds" * 1.0, Seconds, Gauge, Gateway, Min, "Until a certificate ends that was issued on request, isn't revoked, and has no successor (label name).";
    "service.requests", "clawbernetes_service_requests_total" * 1.0, Count, Counter, Gateway, Max, "Requests of a service's revision that were proxied, since the gateway's start (labels namespace, service, revision).";
    "service.errors", "clawbernetes_service_errors_total" * 1.0, Count, Counter, Gateway, Max, "Of them, those that failed: status 5xx, or no answer.";
    "service.latency", "clawbernetes_service_latency_seconds" * 1.0, Seconds, Gauge, Gateway, Max, "Time until their answers began, over a second (label quantile).";
    "service.latency.buckets", "clawbernetes_service_latency_bucket_total" * 1.0, Count, Counter, Gateway, Max, "Answers by that time, in steps of a quarter (label bucket).";
    "gateway.memory", "clawbernetes_gateway_memory_bytes" * 1.0, Bytes, Gauge, Gateway, Avg, "Memory that the gateway takes.";
    "gateway.cpu", "clawbernetes_gateway_cpu_seconds_total" * 1.0, Seconds, Counter, Gateway, Max, "CPU time that the gateway took since its start.";
    "gateway.disk.used", "clawbernetes_gateway_disk_used_bytes" * 1.0, Bytes, Gauge, Gateway, Max, "Space that isn't free where the gateway keeps its data.";
    "gateway.disk.total", "clawbernetes_gateway_disk_size_bytes" * 1.0, Bytes, Gauge, Gateway, Max, "Size of the file system where the gateway keeps its data.";
    "gateway.state.bytes", "clawbernetes_gateway_state_bytes" * 1.0, Bytes, Gauge, Gateway, Max, "Disk space of the fleet's records.";
    "gateway.logs.bytes", "clawbernetes_gateway_logs_bytes" * 1.0, Bytes, Gauge, Gateway, Max, "Disk space of workloads' output.";
    "gateway.metrics.bytes", "clawbernetes_gateway_metrics_bytes" * 1.0, Bytes, Gauge, Gateway, Max, "Disk space of metrics.";
    "gateway.metrics.series", "clawbernetes_gateway_metrics_series" * 1.0, Count, Gauge, Gateway, Max, "Series of metrics that are kept.";
    "gateway.metrics.dropped", "clawbernetes_gateway_metrics_dropped_total" * 1.0, Count, Counter, Gateway, Max, "Samples that weren't kept: sent twice, out of order, or not finite.";
    "gateway.metrics.lost", "clawbernetes_gateway_metrics_lost_total" * 1.0, Count, Counter, Gateway, Max, "Samples that are lost: ahead of the clock, too old, or not finite.";
    "gateway.remote_write.lag", "clawbernetes_gateway_remote_write_lag_seconds" * SECONDS, Millis, Gauge, Gateway, Max, "Up to how long ago everything was sent by remote write.";
    "gateway.remote_write.sent", "clawbernetes_gateway_remote_write_samples_total" * 1.0, Count, Counter, Gateway, Max, "Samples that the receiver of remote write took.";
    "gateway.remote_write.failures", "clawbernetes_gateway_remote_write_failures_total" * 1.0, Count, Counter, Gateway, Max, "Attempts at remote write that failed and are tried again.";
    "gateway.remote_write.dropped", "clawbernetes_gateway_remote_write_dropped_samples_total" * 1.0, Count, Counter, Gateway, Max, "Samples that the receiver of remote write refused for good.";
}

/// The metric of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    CATALOGUE.iter().find(|metric| metric.name == name)
}

/// The name of the catalogue that is most like this one; `None` where none is.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    // clap's own threshold for "did you mean".
    const ALIKE: f64 = 0.7;
    let name = name.to_lowercase();
    let likeness = |metric: &Metric| strsim::jaro(metric.name, &name);
    let best = CATALOGUE.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > ALIKE).then_some(best.name)
}

/// The name in the catalogue's style under which a workload's own metric is kept: `custom.loss`.
///
/// `None`: it can't be one. A name has 1 to 100 letters, digits, `_`, `:`, `.`, `-` and `/`, and begins with a letter
/// or `_`.
#[must_use]
pub fn own_name(name: &str) -> Option<String> {
    let begins = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let goes_on = |b: u8| b.is_ascii_alphanumeric() || b"_:.-/".contains(&b);
    (begins && name.len() <= 100 && name.bytes().all(goes_on)).then(|| format!("{OWN_PREFIX}{name}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_there_once() {
        let names: BTreeSet<_> = CATALOGUE.iter().map(|m| m.name).collect();
        let prometheus: BTreeSet<_> = CATALOGUE.iter().map(|m| m.prometheus).collect();
        assert_eq!(names.len(), CATALOGUE.len());
        assert_eq!(prometheus.len(), CATALOGUE.len());
    }

    #[test]
    fn prometheus_conventions() {
        for metric in CATALOGUE {
            let counter = metric.kind == Kind::Counter;
            if !metric.dcgm() {
                assert_eq!(metric.prometheus.ends_with("_total"), counter, "{}", metric.name);
                assert!(metric.prometheus.starts_with("clawbernetes_"), "{}", metric.name);
            }
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn names_that_are_meant() {
        assert_eq!(nearest("gpu.temp"), Some("gpu.temperature"));
        assert_eq!(nearest("GPU.Utilisation"), Some("gpu.utilization"));
        assert_eq!(nearest("memory.use"), Some("memory.usage"));
        assert_eq!(nearest("zzz"), None);
        assert_eq!(find("cpu.usage").map(|m| m.unit), Some(Unit::Percent));
        assert_eq!(find("cpu"), None);
    }

    #[test]
    fn own_names() {
        assert_eq!(own_name("train/loss").as_deref(), Some("custom.train/loss"));
        for bad in ["", "1st", "a b", "a=b", "é", &"x".repeat(101)] {
            assert_eq!(own_name(bad), None, "{bad}");
        }
    }
}
