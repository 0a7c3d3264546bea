//! What is wrong, on what evidence, and what helps.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::metric::{self, Unit};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing has to be done.
    Info,
    /// Will hurt, or already costs something.
    Warning,
    /// Work fails, or is about to.
    Critical,
}

/// How a thing does, all told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Looked at, and nothing of warning or above.
    Healthy,
    /// Too little was measured to say.
    Unknown,
    /// At least one warning.
    Degraded,
    /// At least one critical finding.
    Critical,
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Target {
    /// A machine.
    Node {
        /// Its name.
        node: String,
    },
    /// A GPU.
    Gpu {
        /// The node that it is in.
        node: String,
        /// Its index there.
        gpu: u32,
    },
    /// A disk, mount or network interface.
    Device {
        /// The node that it is in.
        node: String,
        /// Its name there.
        device: String,
    },
    /// A workload.
    Workload {
        /// Its id.
        workload: String,
    },
    /// One member of a gang.
    Rank {
        /// The workload's id.
        workload: String,
        /// Its number, from 0.
        rank: u32,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { node } => f.write_str(node),
            Self::Gpu { node, gpu } => write!(f, "{node} GPU {gpu}"),
            Self::Device { node, device } => write!(f, "{node} {device}"),
            Self::Workload { workload } => f.write_str(workload),
            Self::Rank { workload, rank } => write!(f, "{workload} rank {rank}"),
        }
    }
}

impl Target {
    /// The node that it belongs to, if it belongs to one.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Node { node } | Self::Gpu { node, .. } | Self::Device { node, .. } => Some(node),
            Self::Workload { .. } | Self::Rank { .. } => None,
        }
    }
}

/// The class of what helps. In order of how far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// Nothing has to be done.
    Ignore,
    /// Look again; act if it grows.
    Watch,
    /// The program or its input is wrong.
    FixProgram,
    /// The image can't be had as it is named.
    FixImage,
    /// Give the program its data faster.
    TuneData,
    /// Make collectives cheaper, or place the members closer together.
    TuneCommunication,
    /// Ask for more memory, or use less.
    MoreMemory,
    /// Ask for less of what isn't used.
    AskLess,
    /// Use less GPU memory: smaller batch, checkpointing, sharding.
    LessGpuMemory,
    /// Start the workload again.
    RestartWorkload,
    /// Run the workload elsewhere.
    Migrate,
    /// Make room on the disk.
    FreeDisk,
    /// Set the clock right.
    FixClock,
    /// Fans, air flow, dust, room temperature.
    CheckCooling,
    /// Power supplies, power cables, the rack's budget.
    CheckPower,
    /// Cables, risers, seating, NVLink bridges, switches.
    CheckCabling,
    /// Driver or firmware of another version.
    UpdateDriver,
    /// Take work off the GPU and reset it.
    ResetGpu,
    /// Take work off the node and reboot it.
    RebootNode,
    /// Take work off the node and have the part replaced.
    Replace,
}

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The metric, or the kind of event.
    pub metric: Cow<'static, str>,
    /// Its value. `None`: it was seen, and can't be put into a number.
    pub value: Option<f64>,
    /// Of value and threshold.
    pub unit: Unit,
    /// What it was held against. `None`: there is no such limit.
    pub threshold: Option<f64>,
    /// When. `None`: over all of `window_ms`.
    pub at_ms: Option<i64>,
    /// Over how long. `None`: at one moment.
    pub window_ms: Option<i64>,
    /// How it was worked out, where that isn't plain.
    pub method: Option<Cow<'static, str>>,
    /// In words.
    pub text: String,
}

impl Evidence {
    /// A value of a metric.
    pub fn value(metric: &'static str, value: f64, text: impl Into<String>) -> Self {
        Self {
            metric: metric.into(),
            value: value.is_finite().then_some(value),
            unit: metric::unit(metric),
            threshold: None,
            at_ms: None,
            window_ms: None,
            method: None,
            text: text.into(),
        }
    }

    /// Something that was seen at a time.
    pub fn event(kind: impl Into<Cow<'static, str>>, at_ms: i64, text: impl Into<String>) -> Self {
        Self {
            metric: kind.into(),
            value: None,
            unit: Unit::Count,
            threshold: None,
            at_ms: Some(at_ms),
            window_ms: None,
            method: None,
            text: text.into(),
        }
    }

    /// How often something was seen.
    pub fn count(kind: impl Into<Cow<'static, str>>, count: u64, text: impl Into<String>) -> Self {
        Self {
            metric: kind.into(),
            value: Some(count as f64),
            unit: Unit::Count,
            threshold: None,
            at_ms: None,
            window_ms: None,
            method: None,
            text: text.into(),
        }
    }

    /// With what it was held against.
    #[must_use]
    pub fn against(mut self, threshold: f64) -> Self {
        self.threshold = threshold.is_finite().then_some(threshold);
        self
    }

    /// With when it was seen.
    #[must_use]
    pub fn at(mut self, at_ms: i64) -> Self {
        self.at_ms = Some(at_ms);
        self
    }

    /// With over how long.
    #[must_use]
    pub fn over(mut self, window_ms: i64) -> Self {
        self.window_ms = Some(window_ms);
        self
    }

    /// With another unit than the metric's.
    #[must_use]
    pub fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// With how it was worked out.
    #[must_use]
    pub fn by(mut self, method: &'static str) -> Self {
        self.method = Some(method.into());
        self
    }
}

/// Something that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Stable name of what it is, as `gpu-thermal-throttle`.
    pub id: Cow<'static, str>,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub target: Target,
    /// In a few words.
    pub title: Cow<'static, str>,
    /// What it stands on; never empty.
    pub evidence: Vec<Evidence>,
    /// What helps.
    pub remedy: Remedy,
    /// What helps, in words.
    pub advice: Cow<'static, str>,
    /// Command lines that help, first the one to begin with. May be empty.
    pub commands: Vec<String>,
    /// How sure it is, 0–1.
    pub confidence: f64,
}

/// Worst first, then by name and target: the same findings in the same order, however they were found.
pub(crate) fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        (Reverse(a.severity), &a.id, &a.target)
            .cmp(&(Reverse(b.severity), &b.id, &b.target))
            .then(b.confidence.total_cmp(&a.confidence))
    });
}

/// How a thing does, by what was found; `measured` tells whether enough was looked at.
pub(crate) fn status(findings: &[Finding], measured: bool) -> Status {
    match findings.iter().map(|f| f.severity).max() {
        Some(Severity::Critical) => Status::Critical,
        Some(Severity::Warning) => Status::Degraded,
        _ if measured => Status::Healthy,
        _ => Status::Unknown,
    }
}
