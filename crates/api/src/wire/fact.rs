//! What a node's kernel log said: facts, from which others draw conclusions.

use serde::{Deserialize, Serialize};

use crate::{GpuIndex, Timestamp, workload::JobKey};

/// Most facts in a message.
pub const FACTS_MAX: usize = 500;

/// Longest line of the kernel log that is kept; a longer one is cut.
pub const FACT_LINE_MAX_BYTES: usize = 1024;

/// A line of the kernel log that means something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// Position in the agent's own sequence, from 1; begins anew with each start of the agent. A hole is a fact that
    /// the agent couldn't keep.
    pub number: u64,
    /// The kernel's own number of the line: unique within a boot (`bootId` of the inventory), so that a fact that is
    /// sent again after an agent's restart is known. `None`: made up, by a simulated GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// When, by the node's wall clock: the kernel's monotonic stamp, mapped. May lie long before the session.
    pub at: Timestamp,
    /// What.
    pub what: FactKind,
    /// The line itself, without its stamp.
    pub line: String,
}

/// What a line of the kernel log means. Names and addresses are as the kernel writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum FactKind {
    /// NVIDIA's driver reports an XID error.
    Xid {
        /// Its number; see NVIDIA's list.
        xid: u32,
        /// The GPU's PCI address, `0000:3b:00.0`.
        pci: String,
        /// The GPU of the inventory at that address. `None`: none is there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<GpuIndex>,
        /// Its identifier. `None`: as for `gpu`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uuid: Option<String>,
        /// The process that it names. `None`: none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
    },
    /// AMD's driver reports a GPU in trouble: a hang, a reset, uncorrectable errors.
    AmdGpu {
        /// The GPU's PCI address.
        pci: String,
        /// The GPU of the inventory at that address. `None`: none is there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<GpuIndex>,
        /// Its identifier. `None`: as for `gpu`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uuid: Option<String>,
        /// What.
        trouble: AmdTrouble,
    },
    /// An NVSwitch of the node's NVLink fabric reports an error.
    NvSwitch {
        /// Its number (SXid).
        sxid: u32,
        /// Its PCI address.
        pci: String,
        /// Whether it says that the error is fatal.
        fatal: bool,
    },
    /// The kernel killed a process for want of memory.
    OomKill {
        /// The process's name.
        process: String,
        /// Its number.
        pid: u32,
        /// The control group whose limit was reached. `None`: the machine's memory ran out, or the kernel doesn't say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<String>,
        /// The job whose control group that is, as far as the agent knows. `None`: nobody's, or it isn't known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobKey>,
    },
    /// A network interface lost its link.
    LinkDown {
        /// Which.
        interface: String,
    },
    /// A network interface has its link back.
    LinkUp {
        /// Which.
        interface: String,
    },
    /// A network interface or its driver reports an error.
    NicError {
        /// Which interface or device.
        interface: String,
    },
    /// A disk couldn't be read or written.
    DiskError {
        /// Which.
        device: String,
    },
    /// A file system found itself damaged, or went read-only.
    FilesystemError {
        /// The device that holds it.
        device: String,
    },
    /// The processor or its memory reports an error (machine check).
    Mce {
        /// Whether it says that it was corrected.
        corrected: bool,
    },
    /// A PCIe link reports an error (AER).
    PcieError {
        /// The device that reports it.
        pci: String,
        /// Whether it says that it was corrected.
        corrected: bool,
    },
    /// The processor slowed itself down because it was hot.
    CpuThrottled,
    /// A process hasn't run for minutes: stuck on disk, network or a driver.
    HungTask {
        /// Its name.
        process: String,
        /// Its number.
        pid: u32,
    },
}

/// What AMD's driver reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AmdTrouble {
    /// Work didn't end in time.
    Timeout,
    /// It is reset.
    Reset,
    /// A reset failed, or it can't be reached.
    Lost,
    /// Errors that couldn't be corrected.
    Uncorrectable,
    /// A workload touched memory that isn't its own.
    PageFault,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_fact_is_read() {
        let fact = Fact {
            number: 3,
            sequence: Some(4711),
            at: "2026-02-16T14:00:00Z".parse().unwrap(),
            what: FactKind::Xid {
                xid: 79,
                pci: "0000:3b:00.0".to_owned(),
                gpu: Some(2),
                uuid: None,
                pid: None,
            },
            line: "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.".to_owned(),
        };
        let text = r#"{"number":3,"sequence":4711,"at":"2026-02-16T14:00:00Z","what":{"kind":"xid","xid":79,"pci":"0000:3b:00.0","gpu":2},"line":"NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."}"#;
        assert_eq!(serde_json::to_string(&fact).unwrap(), text);
        assert_eq!(serde_json::from_str::<Fact>(text).unwrap(), fact);
    }
}
