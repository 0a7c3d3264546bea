//! What a node offers, as the scheduler sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeName;

/// A machine that may run workloads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique in the fleet.
    pub name: NodeName,
    /// What selectors match.
    pub labels: BTreeMap<String, String>,
    /// What keeps workloads away unless they tolerate it.
    pub taints: Vec<Taint>,
    /// Whether new work may start here, and why not.
    pub state: NodeState,
    /// Ways of running work that the node offers.
    pub engines: BTreeSet<Engine>,
    /// CPU that workloads may hold, in thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory that workloads may hold, in bytes.
    pub memory_bytes: u64,
    /// Its GPUs, in any order. Those past the 64th by index are never used.
    pub gpus: Vec<Gpu>,
    /// Links between pairs of GPUs, each pair named once by GPU index in any
    /// order. Pairs left out are derived from `Gpu::switch` and `Gpu::numa`.
    pub links: Vec<GpuLink>,
    /// Images present on the node's disk.
    pub images: BTreeSet<String>,
    /// How hot or busy the node is, 0 to 1; 0.85 and above counts as hot.
    /// `None` means unknown, and counts as cool.
    pub heat: Option<f32>,
    /// No new work before this time (milliseconds since the epoch), because
    /// work keeps failing here. `None` means no back-off.
    pub back_off_until_ms: Option<i64>,
}

impl Node {
    /// A ready node without GPUs, with the native engine and nothing else.
    pub fn new(name: impl Into<NodeName>) -> Self {
        Self {
            name: name.into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            state: NodeState::Ready,
            engines: BTreeSet::from([Engine::Native]),
            cpu_millicores: 0,
            memory_bytes: 0,
            gpus: Vec::new(),
            links: Vec::new(),
            images: BTreeSet::new(),
            heat: None,
            back_off_until_ms: None,
        }
    }
}

/// One GPU of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// The node's own number for it; unique on the node (a repeated index is
    /// ignored).
    pub index: u32,
    /// The vendor's model name, such as `NVIDIA A100-SXM4-80GB`.
    pub model: String,
    /// `None` means the driver does not tell; such a GPU fails every request
    /// that asks for a minimum.
    pub memory_bytes: Option<u64>,
    /// `None` means usable; else why it may not be given to a workload
    /// ("lent to fleet-b", "XID 79").
    pub unusable: Option<String>,
    /// NUMA node it hangs off. `None` means unknown.
    pub numa: Option<u32>,
    /// PCIe switch it hangs off. `None` means unknown.
    pub switch: Option<u32>,
}

impl Gpu {
    /// A usable GPU of unknown place.
    pub fn new(index: u32, model: impl Into<String>, memory_bytes: Option<u64>) -> Self {
        Self {
            index,
            model: model.into(),
            memory_bytes,
            unusable: None,
            numa: None,
            switch: None,
        }
    }
}

/// How two GPUs reach each other, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// NVLink (or xGMI) with this many lanes.
    NvLink(u32),
    /// Through one PCIe switch.
    SameSwitch,
    /// Through one NUMA node.
    SameNuma,
    /// Across sockets, or unknown.
    System,
}

/// The link between two GPUs of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuLink {
    /// GPU index.
    pub a: u32,
    /// GPU index.
    pub b: u32,
    /// How they reach each other.
    pub link: Link,
}

/// Whether new work may start on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It may.
    Ready,
    /// Known, but its agent has not yet said what it holds.
    Joining,
    /// Taken out of service by a person; what runs may end.
    Draining,
    /// Marked as not for new work, without emptying it.
    Cordoned,
    /// Its health forbids new work.
    Unhealthy,
    /// Not heard from.
    Unreachable,
    /// Declared gone; its work counts as lost.
    Lost,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Joining => "joining",
            Self::Draining => "draining",
            Self::Cordoned => "cordoned",
            Self::Unhealthy => "unhealthy",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
        })
    }
}

/// A way of running work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Docker or Podman.
    Docker,
    /// A child process on the node's own file system.
    Native,
    /// A Kubernetes cluster's node.
    Kubernetes,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Native => "native",
            Self::Kubernetes => "kubernetes",
        })
    }
}

/// A mark on a node that keeps workloads away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Taint {
    /// What tolerations name.
    pub key: String,
    /// May be empty.
    pub value: String,
    /// How strictly.
    pub effect: TaintEffect,
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}:{}", self.key, self.effect)
        } else {
            write!(f, "{}={}:{}", self.key, self.value, self.effect)
        }
    }
}

/// How strictly a taint keeps workloads away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaintEffect {
    /// Never without a toleration.
    NoSchedule,
    /// Only where nothing else is left.
    PreferNoSchedule,
}

impl fmt::Display for TaintEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
        })
    }
}
