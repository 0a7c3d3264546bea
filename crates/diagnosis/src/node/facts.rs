//! What a node's diagnosis is made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Series, SeriesSet, Target, metric};

/// How far back events and errors are looked at.
pub(super) const DAY_MS: i64 = 86_400_000;

/// All that is known about a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// As of when.
    pub now_ms: i64,
    /// Length of the window that is looked at, which ends now.
    pub window_ms: i64,
    /// Samples of the window; older ones are left out.
    pub series: SeriesSet,
    /// Samples of the time before the window, for what is usual; newer ones are left out. Coarser ones do.
    pub history: SeriesSet,
    /// The same metrics of other nodes that do the same kind of work.
    pub peers: Vec<Peer>,
    /// Events of the kernel's log, a day back.
    pub kernel: Vec<KernelEvent>,
    /// Whether the kernel's log is read at all: only then does silence mean that nothing happened.
    pub kernel_watched: bool,
    /// Lines of other logs, grouped, a day back.
    pub logs: Vec<LogGroup>,
    /// The GPUs that it has.
    pub gpus: Vec<GpuFacts>,
    /// Memory of the machine, bytes, if it isn't among the samples.
    pub memory_total_bytes: Option<f64>,
    /// Its clock less the gateway's, milliseconds, if it isn't among the samples.
    pub clock_offset_ms: Option<f64>,
    /// When it was booted; hardware errors that a reboot clears are history if they are older.
    pub booted_ms: Option<i64>,
}

/// A GPU, as its device reports it. What isn't reported is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuFacts {
    /// Its index.
    pub index: u32,
    /// Its address on PCIe, as `0000:65:00.0`.
    pub pci: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Temperature at which the hardware slows down.
    pub slowdown_celsius: Option<f64>,
    /// Temperature at which the hardware switches off.
    pub shutdown_celsius: Option<f64>,
    /// Whether it has stopped to answer on the bus.
    pub lost: Option<bool>,
    /// PCIe generation now; idle GPUs lower it to save power.
    pub pcie_generation: Option<u32>,
    /// PCIe generation that GPU and slot can do.
    pub pcie_generation_max: Option<u32>,
    /// PCIe lanes now.
    pub pcie_width: Option<u32>,
    /// PCIe lanes that GPU and slot can do.
    pub pcie_width_max: Option<u32>,
    /// NVLinks that are up.
    pub nvlinks_active: Option<u32>,
    /// NVLinks that it has and that are connected.
    pub nvlinks_total: Option<u32>,
    /// Whether it is divided into MIG instances.
    pub mig: bool,
    /// When it was last reset; errors that a reset clears are history if they are older.
    pub reset_ms: Option<i64>,
    /// Id of the workload that holds it.
    pub workload: Option<String>,
}

/// A metric of another node, or of another node's GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// The metric.
    pub metric: String,
    /// Its median over the same window.
    pub median: f64,
}

/// Something that the kernel has logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelEvent {
    /// When.
    pub at_ms: i64,
    /// What.
    pub event: Kernel,
}

/// A kind of kernel event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Kernel {
    /// An error that the NVIDIA driver reports.
    Xid {
        /// Its number.
        code: u32,
        /// The GPU, if it is known by index.
        #[serde(default)]
        gpu: Option<u32>,
        /// The GPU's address, as the log has it.
        #[serde(default)]
        pci: Option<String>,
        /// Workload that held the GPU, if known.
        #[serde(default)]
        workload: Option<String>,
        /// The rest of the line.
        #[serde(default)]
        text: String,
    },
    /// A process was killed for want of memory.
    OomKill {
        /// Its name.
        #[serde(default)]
        process: Option<String>,
        /// The workload that it belonged to.
        #[serde(default)]
        workload: Option<String>,
        /// Whether a limit of its own was reached, rather than the machine's memory.
        limited: bool,
    },
    /// A network interface went down.
    LinkDown {
        /// Its name.
        device: String,
    },
    /// A network interface's hardware or driver failed.
    NetworkError {
        /// Its name.
        device: String,
        /// The line.
        text: String,
    },
    /// A disk failed to read or write.
    DiskError {
        /// Its name.
        device: String,
        /// The line.
        text: String,
    },
    /// A file system found itself damaged, or was made read-only.
    Filesystem {
        /// Disk or mount.
        device: String,
    },
    /// A switch of the NVLink fabric reports an error.
    NvSwitch {
        /// Its number.
        sxid: u32,
        /// Whether it says that it is fatal.
        fatal: bool,
        /// The line.
        #[serde(default)]
        text: String,
    },
    /// AMD's driver reports a GPU in trouble.
    AmdGpu {
        /// The GPU, if it is known by index.
        #[serde(default)]
        gpu: Option<u32>,
        /// What.
        trouble: AmdTrouble,
        /// The line.
        #[serde(default)]
        text: String,
    },
    /// The processor slowed itself down because it was hot.
    CpuThrottled,
    /// The processor reports an error of CPU, memory or bus.
    MachineCheck {
        /// Whether it was corrected.
        corrected: bool,
        /// The line.
        text: String,
    },
    /// An error on PCIe (AER).
    Pcie {
        /// Whether it was corrected.
        corrected: bool,
        /// Address of the device.
        #[serde(default)]
        pci: Option<String>,
        /// The line.
        text: String,
    },
    /// A task or a processor hung.
    Stall {
        /// The line.
        text: String,
    },
}

/// What AMD's driver reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AmdTrouble {
    /// A workload touched memory that isn't its own.
    PageFault,
    /// Work didn't end in time.
    Timeout,
    /// It is reset.
    Reset,
    /// Errors that couldn't be corrected.
    Uncorrectable,
    /// A reset failed, or it can't be reached.
    Lost,
}

/// Like lines of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogGroup {
    /// Where from: a service, a workload.
    pub source: String,
    /// `warn`, `error` or `fatal`.
    pub level: String,
    /// One of the lines.
    pub text: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first_ms: i64,
    /// The last of them.
    pub last_ms: i64,
}

/// Domain, bus and device of a PCIe address, however it is written: `PCI:0000:65:00`, `00000000:65:00.0`, `65:00.0`.
fn address(pci: &str) -> Option<(u32, u32, u32)> {
    let text = pci.trim_start_matches("PCI:").split('.').next()?;
    let parts: Option<Vec<u32>> = text.split(':').map(|p| u32::from_str_radix(p, 16).ok()).collect();
    match parts?.as_slice() {
        [domain, bus, device] => Some((*domain, *bus, *device)),
        [bus, device] => Some((0, *bus, *device)),
        _ => None,
    }
}

/// By time; at one moment by what they say, so that the order they came in makes no difference.
pub(crate) fn sort_events(events: &mut [KernelEvent]) {
    events.sort_by_cached_key(|e| (e.at_ms, format!("{:?}", e.event)));
}

impl NodeFacts {
    /// The same in order, of the window and the day before only.
    pub(super) fn cleaned(&self) -> Self {
        let from = self.now_ms - self.window_ms;
        let day = self.now_ms - DAY_MS;
        let mut kernel: Vec<KernelEvent> = self
            .kernel
            .iter()
            .filter(|e| e.at_ms > day && e.at_ms <= self.now_ms)
            .cloned()
            .collect();
        sort_events(&mut kernel);
        let mut gpus = self.gpus.clone();
        gpus.sort_by_key(|g| g.index);
        Self {
            name: self.name.clone(),
            series: self.series.between(from, self.now_ms),
            history: self.history.between(i64::MIN, from - 1),
            peers: self.peers.iter().filter(|p| p.median.is_finite()).cloned().collect(),
            kernel,
            logs: self.logs.iter().filter(|l| l.last_ms > day).cloned().collect(),
            gpus,
            ..*self
        }
    }

    pub(super) fn node_target(&self) -> Target {
        Target::Node {
            node: self.name.clone(),
        }
    }

    pub(super) fn gpu_target(&self, gpu: u32) -> Target {
        Target::Gpu {
            node: self.name.clone(),
            gpu,
        }
    }

    pub(super) fn device_target(&self, device: &str) -> Target {
        Target::Device {
            node: self.name.clone(),
            device: device.to_owned(),
        }
    }

    /// What is known about a GPU.
    pub(super) fn gpu(&self, index: u32) -> Option<&GpuFacts> {
        self.gpus.iter().find(|g| g.index == index)
    }

    /// The GPU at an address.
    pub(super) fn gpu_at(&self, pci: &str) -> Option<u32> {
        let wanted = address(pci)?;
        self.gpus
            .iter()
            .find(|g| g.pci.as_deref().and_then(address) == Some(wanted))
            .map(|g| g.index)
    }

    /// GPUs that it has or that samples are about.
    pub(super) fn gpu_indexes(&self) -> Vec<u32> {
        let mut all = self.series.gpus();
        all.extend(self.gpus.iter().map(|g| g.index));
        all.into_iter().collect()
    }

    /// Temperature at which a GPU slows itself down, as the device reports it.
    pub(super) fn slowdown(&self, gpu: u32) -> Option<f64> {
        self.gpu(gpu)
            .and_then(|g| g.slowdown_celsius)
            .or_else(|| self.last(metric::GPU_TEMPERATURE_SLOWDOWN, gpu))
    }

    /// Temperature at which a GPU switches itself off, as the device reports it.
    pub(super) fn shutdown(&self, gpu: u32) -> Option<f64> {
        self.gpu(gpu)
            .and_then(|g| g.shutdown_celsius)
            .or_else(|| self.last(metric::GPU_TEMPERATURE_SHUTDOWN, gpu))
    }

    /// The newest sample of a GPU's metric.
    pub(super) fn last(&self, metric: &str, gpu: u32) -> Option<f64> {
        self.series.of_gpu(metric, gpu).and_then(Series::last).map(|p| p.1)
    }

    /// The median of a GPU's metric.
    pub(super) fn median(&self, metric: &str, gpu: u32) -> Option<f64> {
        self.series.of_gpu(metric, gpu).and_then(Series::median)
    }

    /// `None` if the kernel's log isn't read and nothing else has told of events.
    pub(super) fn kernel_known(&self) -> Option<()> {
        (self.kernel_watched || !self.kernel.is_empty()).then_some(())
    }

    /// Memory of the machine.
    pub(super) fn memory_total(&self) -> Option<f64> {
        let sampled = || {
            self.series
                .get(metric::MEMORY_TOTAL)
                .and_then(Series::last)
                .map(|p| p.1)
        };
        self.memory_total_bytes.or_else(sampled).filter(|t| *t > 0.0)
    }

    /// Whether a reboot or a reset of the GPU has come since.
    pub(super) fn cleared_since(&self, gpu: Option<u32>, at_ms: i64) -> bool {
        let reset = gpu.and_then(|g| self.gpu(g)).and_then(|g| g.reset_ms);
        self.booted_ms.is_some_and(|b| b > at_ms) || reset.is_some_and(|r| r > at_ms)
    }

    /// Peers' medians of a metric.
    pub(super) fn peers_of(&self, metric: &str) -> Vec<f64> {
        self.peers
            .iter()
            .filter(|p| p.metric == metric)
            .map(|p| p.median)
            .collect()
    }

    /// The growth of a counter a GPU and device: within the window, a series each.
    pub(super) fn grown<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = (&'a Series, f64)> {
        self.series.all(metric).filter_map(|s| Some((s, s.increase()?)))
    }
}

/// How often an hour, of a count over a series' span. Spans under a minute count as a minute.
pub(super) fn per_hour(count: f64, series: &Series) -> f64 {
    count * 3_600_000.0 / series.span_ms().max(60_000) as f64
}

/// Events of the kernel by a key, in order of key.
pub(super) fn grouped<'a, K: Ord>(
    facts: &'a NodeFacts,
    key: impl Fn(&'a Kernel) -> Option<K>,
) -> BTreeMap<K, Vec<&'a KernelEvent>> {
    let mut all: BTreeMap<K, Vec<&KernelEvent>> = BTreeMap::new();
    for event in &facts.kernel {
        if let Some(key) = key(&event.event) {
            all.entry(key).or_default().push(event);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_same_however_they_are_written() {
        let it = address("0000:65:00.0");
        assert!(it.is_some());
        assert_eq!(it, address("PCI:0000:65:00"));
        assert_eq!(it, address("00000000:65:00.0"));
        assert_eq!(it, address("65:00.0"));
        assert_ne!(it, address("0000:66:00.0"));
        assert_eq!(address("rubbish"), None);
    }
}
