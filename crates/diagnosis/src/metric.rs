//! The names and units of what is measured: the one place where this crate
//! and the metric catalogue have to agree.

use serde::{Deserialize, Serialize};

/// Share of time in which a kernel ran, percent.
pub const GPU_UTILIZATION: &str = "gpu.utilization";
/// Whether the driver reaches the GPU: 1 or 0.
pub const GPU_UP: &str = "gpu.up";
/// Memory in use, bytes.
pub const GPU_MEMORY_USED: &str = "gpu.memory";
/// Memory of the device, bytes.
pub const GPU_MEMORY_TOTAL: &str = "gpu.memory.total";
/// Share of time in which memory was read or written (NVML's memory utilization), percent.
pub const GPU_MEMORY_BANDWIDTH: &str = "gpu.memory.bandwidth";
/// Core temperature, degrees Celsius.
pub const GPU_TEMPERATURE: &str = "gpu.temperature";
/// Temperature at which the hardware slows itself down, as the device reports it.
pub const GPU_TEMPERATURE_SLOWDOWN: &str = "gpu.temperature.slowdown";
/// Temperature at which the hardware switches itself off, as the device reports it.
pub const GPU_TEMPERATURE_SHUTDOWN: &str = "gpu.temperature.shutdown";
/// Power drawn, watts.
pub const GPU_POWER: &str = "gpu.power";
/// Power limit in force, watts.
pub const GPU_POWER_LIMIT: &str = "gpu.power.limit";
/// Clock of the streaming multiprocessors, MHz.
pub const GPU_CLOCK_SM: &str = "gpu.clock.sm";
/// Clock of the memory, MHz.
pub const GPU_CLOCK_MEMORY: &str = "gpu.clock.memory";
/// Fan speed, percent of its maximum. Passively cooled devices report none.
pub const GPU_FAN: &str = "gpu.fan";
/// Received over PCIe, bytes a second.
pub const GPU_PCIE_RX: &str = "gpu.pcie.rx";
/// Sent over PCIe, bytes a second.
pub const GPU_PCIE_TX: &str = "gpu.pcie.tx";
/// PCIe packets sent again; a counter.
pub const GPU_PCIE_REPLAYS: &str = "gpu.pcie.replays";
/// PCIe generation now; idle GPUs lower it to save power.
pub const GPU_PCIE_GENERATION: &str = "gpu.pcie.generation";
/// PCIe lanes now.
pub const GPU_PCIE_WIDTH: &str = "gpu.pcie.width";
/// Received over NVLink, bytes a second.
pub const GPU_NVLINK_RX: &str = "gpu.nvlink.rx";
/// Sent over NVLink, bytes a second.
pub const GPU_NVLINK_TX: &str = "gpu.nvlink.tx";
/// NVLink errors; a counter. The series' device says which, where that is known: `replay`,
/// `recovery`, `crc`.
pub const GPU_NVLINK_ERRORS: &str = "gpu.nvlink.errors";
/// Single-bit memory errors that were corrected; a counter.
pub const GPU_ECC_CORRECTED: &str = "gpu.ecc.corrected";
/// Double-bit memory errors that could not be corrected; a counter.
pub const GPU_ECC_UNCORRECTED: &str = "gpu.ecc.uncorrected";
/// Memory rows replaced after uncorrectable errors.
pub const GPU_REMAP_UNCORRECTED: &str = "gpu.remap.uncorrected";
/// 1 while a row is to be replaced at the next reset.
pub const GPU_REMAP_PENDING: &str = "gpu.remap.pending";
/// 1 once a row could not be replaced.
pub const GPU_REMAP_FAILED: &str = "gpu.remap.failed";
/// NVML's clock event reasons, a set of bits: see [`crate::throttle`].
pub const GPU_THROTTLE: &str = "gpu.throttle";
/// Share of multiprocessors that held work, percent. Few devices tell.
pub const GPU_SM_ACTIVE: &str = "gpu.sm.active";
/// All cores, percent.
pub const CPU_USAGE: &str = "cpu.usage";
/// Runnable tasks, averaged over a minute.
pub const CPU_LOAD1: &str = "cpu.load1";
/// Memory in use that can't be reclaimed, bytes.
pub const MEMORY_USAGE: &str = "memory.usage";
/// Memory of the machine, bytes.
pub const MEMORY_TOTAL: &str = "memory.total";
/// Swap in use, bytes.
pub const SWAP_USED: &str = "swap.usage";
/// Read from swap, bytes a second.
pub const SWAP_IN: &str = "swap.in";
/// Written to swap, bytes a second.
pub const SWAP_OUT: &str = "swap.out";
/// Share of time in which some task waited for the CPU (PSI, avg10), percent.
pub const PRESSURE_CPU: &str = "pressure.cpu";
/// Share of time in which some task waited for memory (PSI, avg10), percent.
pub const PRESSURE_MEMORY: &str = "pressure.memory";
/// Share of time in which all tasks waited for memory (PSI, avg10), percent.
pub const PRESSURE_MEMORY_FULL: &str = "pressure.memory.full";
/// Share of time in which some task waited for I/O (PSI, avg10), percent.
pub const PRESSURE_IO: &str = "pressure.io";
/// Used on a file system, bytes; the series' device is where it is mounted.
pub const DISK_USED: &str = "disk.used";
/// Size of a file system, bytes; the series' device is where it is mounted.
pub const DISK_TOTAL: &str = "disk.total";
/// Inodes used on a file system.
pub const DISK_INODES_USED: &str = "disk.inodes.used";
/// Inodes of a file system.
pub const DISK_INODES_TOTAL: &str = "disk.inodes.total";
/// Read and written, bytes a second.
pub const DISK_THROUGHPUT: &str = "disk.throughput";
/// Received and sent, bytes a second.
pub const NETWORK_THROUGHPUT: &str = "network.throughput";
/// Errors of a network interface; a counter. The series' device is the interface.
pub const NETWORK_ERRORS: &str = "network.errors";
/// The node's clock less the gateway's, milliseconds.
pub const CLOCK_OFFSET: &str = "clock.offset";
/// CPU that a workload used, cores.
pub const WORKLOAD_CPU: &str = "workload.cpu";
/// Memory that a workload used, bytes.
pub const WORKLOAD_MEMORY: &str = "workload.memory";
/// Read and written by a workload, bytes a second.
pub const WORKLOAD_IO: &str = "workload.io";
/// Lines of output that a workload writes, a second.
pub const WORKLOAD_LOG_LINES: &str = "workload.log.lines";
/// Text of output that a workload writes, bytes a second.
pub const WORKLOAD_LOG_BYTES: &str = "workload.log.bytes";
/// Lines of output that were lost; a counter.
pub const WORKLOAD_LOG_LOST: &str = "workload.log.lost";
/// Reported by the workload: work done a second, in its own unit.
pub const REPORTED_THROUGHPUT: &str = "reported.throughput";
/// Reported by the workload: time of a step, milliseconds.
pub const REPORTED_STEP_TIME: &str = "reported.step_time";
/// Reported by the workload: time of a request, milliseconds.
pub const REPORTED_LATENCY: &str = "reported.latency";
/// Reported by the workload: the loss.
pub const REPORTED_LOSS: &str = "reported.loss";
/// Reported by the workload: share of a step spent waiting for data, percent.
pub const REPORTED_DATA_WAIT: &str = "reported.data_wait";
/// Reported by the workload: share of a step spent in collectives, percent.
pub const REPORTED_COMMUNICATION: &str = "reported.communication";

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// 0–100.
    Percent,
    /// Degrees.
    Celsius,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    #[serde(rename = "bytes/s")]
    BytesPerSecond,
    /// Lines a second.
    #[serde(rename = "lines/s")]
    LinesPerSecond,
    /// Watts.
    Watts,
    /// Megahertz.
    Megahertz,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// CPU cores.
    Cores,
    /// Things an hour.
    #[serde(rename = "1/h")]
    PerHour,
    /// A plain number.
    Count,
}

/// The unit of a metric; plain numbers where it is not known.
#[must_use]
pub fn unit(metric: &str) -> Unit {
    match metric {
        GPU_UTILIZATION
        | GPU_MEMORY_BANDWIDTH
        | GPU_FAN
        | GPU_SM_ACTIVE
        | CPU_USAGE
        | PRESSURE_CPU
        | PRESSURE_MEMORY
        | PRESSURE_MEMORY_FULL
        | PRESSURE_IO
        | REPORTED_DATA_WAIT
        | REPORTED_COMMUNICATION => Unit::Percent,
        GPU_TEMPERATURE | GPU_TEMPERATURE_SLOWDOWN | GPU_TEMPERATURE_SHUTDOWN => Unit::Celsius,
        GPU_MEMORY_USED | GPU_MEMORY_TOTAL | MEMORY_USAGE | MEMORY_TOTAL | SWAP_USED | DISK_USED | DISK_TOTAL
        | WORKLOAD_MEMORY => Unit::Bytes,
        GPU_PCIE_RX | GPU_PCIE_TX | GPU_NVLINK_RX | GPU_NVLINK_TX | SWAP_IN | SWAP_OUT | DISK_THROUGHPUT
        | NETWORK_THROUGHPUT | WORKLOAD_IO | WORKLOAD_LOG_BYTES => Unit::BytesPerSecond,
        WORKLOAD_LOG_LINES => Unit::LinesPerSecond,
        GPU_POWER | GPU_POWER_LIMIT => Unit::Watts,
        GPU_CLOCK_SM | GPU_CLOCK_MEMORY => Unit::Megahertz,
        CLOCK_OFFSET | REPORTED_STEP_TIME | REPORTED_LATENCY => Unit::Milliseconds,
        WORKLOAD_CPU => Unit::Cores,
        _ => Unit::Count,
    }
}

/// What a workload calls its own metrics, and what they are here: words that have to be in the name, words that may
/// not, the metric. First match wins.
const REPORTED: &[(&[&str], &[&str], &str)] = &[
    (&["data", "wait"], &["total"], REPORTED_DATA_WAIT),
    (&["data", "share"], &[], REPORTED_DATA_WAIT),
    (&["comm", "share"], &[], REPORTED_COMMUNICATION),
    (&["throughput"], &[], REPORTED_THROUGHPUT),
    (&["per_sec"], &[], REPORTED_THROUGHPUT),
    (&["step_time"], &[], REPORTED_STEP_TIME),
    (&["step_duration"], &[], REPORTED_STEP_TIME),
    (&["iteration_time"], &[], REPORTED_STEP_TIME),
    (&["latency"], &[], REPORTED_LATENCY),
    (&["loss"], &["lossless", "packet", "scale"], REPORTED_LOSS),
];

/// What a workload's own metric is here, and what its values have to be multiplied by: times whose name says seconds
/// become milliseconds, shares whose name says ratio percent. `None`: nothing that is judged.
///
/// A time whose name tells no unit is taken as it is, for comparing it with itself.
#[must_use]
pub fn reported(name: &str) -> Option<(&'static str, f64)> {
    let name = name.to_ascii_lowercase();
    let fits = |(words, not, _): &&(&[&str], &[&str], &str)| {
        words.iter().all(|w| name.contains(w)) && !not.iter().any(|w| name.contains(w))
    };
    let metric = REPORTED.iter().find(fits)?.2;
    let scale = match unit(metric) {
        Unit::Milliseconds if name.ends_with("_us") => 0.001,
        Unit::Milliseconds if ["_s", "_sec", "seconds"].iter().any(|end| name.ends_with(end)) => 1000.0,
        Unit::Percent if ["ratio", "fraction", "share"].iter().any(|end| name.ends_with(end)) => 100.0,
        _ => 1.0,
    };
    Some((metric, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workloads_own_metrics_are_understood() {
        for (name, wanted) in [
            ("custom.train/loss", Some((REPORTED_LOSS, 1.0))),
            ("custom.tokens_per_second", Some((REPORTED_THROUGHPUT, 1.0))),
            ("custom.step_time_seconds", Some((REPORTED_STEP_TIME, 1000.0))),
            ("custom.step_time_ms", Some((REPORTED_STEP_TIME, 1.0))),
            ("custom.request_latency_us", Some((REPORTED_LATENCY, 0.001))),
            ("custom.data_wait_ratio", Some((REPORTED_DATA_WAIT, 100.0))),
            ("custom.loss_scale", None),
            ("custom.learning_rate", None),
        ] {
            assert_eq!(reported(name), wanted, "{name}");
        }
    }
}
