//! What waits for resources, and what holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AllocationKey, Engine, NodeName, Owner, RequestId, Taint, TaintEffect};

/// The image name that means the node's own file system, and so the native
/// engine.
pub const HOST_IMAGE: &str = "host";

/// How urgent a workload is. `High` may preempt `Low`; nothing else preempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// May be preempted.
    Low,
    /// Neither preempts nor is preempted.
    #[default]
    Normal,
    /// May preempt `Low`.
    High,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        })
    }
}

/// A workload that waits to be placed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Unique in the queue.
    pub id: RequestId,
    /// Whose share it counts against.
    pub owner: Owner,
    /// Carried along; it decides nothing.
    pub namespace: String,
    /// How urgent.
    pub priority: Priority,
    /// Milliseconds since the epoch; older goes first within an owner.
    pub submitted_at_ms: i64,
    /// Not placed before this time (back-off between attempts). `None` means
    /// at once.
    pub not_before_ms: Option<i64>,
    /// Members of the gang, each on a node of its own; 0 counts as 1. All or
    /// none start.
    pub nodes: u32,
    /// GPUs per node; 0 is a CPU workload.
    pub gpus: u32,
    /// Loose model name, see [`model_matches`](crate::model_matches). `None`
    /// means any.
    pub gpu_model: Option<String>,
    /// Least memory of each GPU, in bytes; 0 means any.
    pub gpu_memory_bytes: u64,
    /// CPU per node, in thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory per node, in bytes.
    pub memory_bytes: u64,
    /// Labels that a node must have, all of them.
    pub node_selector: BTreeMap<String, String>,
    /// The only node it may run on.
    pub node: Option<NodeName>,
    /// Nodes it may not run on (where it failed, or is being moved from).
    pub excluded_nodes: BTreeSet<NodeName>,
    /// Taints it puts up with.
    pub tolerations: Vec<Toleration>,
    /// Preferred where present. `host` needs the native engine.
    pub image: String,
    /// The engine it needs. `None` means any (or native, for image `host`).
    pub engine: Option<Engine>,
    /// The longest it may hold its resources once placed, in milliseconds:
    /// timeout and the grace for stopping. `None` means for ever.
    pub timeout_ms: Option<i64>,
    /// Victims were evicted for it, or are being: it is decided before the
    /// fair order, so that nobody else takes what was freed.
    pub preempting: bool,
}

impl Request {
    /// A request of normal priority that asks for one node and nothing on it.
    pub fn new(id: impl Into<RequestId>, owner: impl Into<Owner>) -> Self {
        Self {
            id: id.into(),
            owner: owner.into(),
            namespace: "default".to_owned(),
            priority: Priority::Normal,
            submitted_at_ms: 0,
            not_before_ms: None,
            nodes: 1,
            gpus: 0,
            gpu_model: None,
            gpu_memory_bytes: 0,
            cpu_millicores: 0,
            memory_bytes: 0,
            node_selector: BTreeMap::new(),
            node: None,
            excluded_nodes: BTreeSet::new(),
            tolerations: Vec::new(),
            image: String::new(),
            engine: None,
            timeout_ms: None,
            preempting: false,
        }
    }

    /// What placing it adds to its owner's share, in thousandths of a GPU:
    /// 32 cores weigh as much as one GPU.
    #[must_use]
    pub fn weight(&self) -> u64 {
        weight(u64::from(self.gpus), self.cpu_millicores).saturating_mul(u64::from(self.nodes.max(1)))
    }
}

/// Thousandths of a GPU that a held set weighs in the fair share.
pub(crate) fn weight(gpus: u64, cpu_millicores: u64) -> u64 {
    gpus.saturating_mul(1000).saturating_add(cpu_millicores / 32)
}

/// A taint that a request puts up with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Toleration {
    /// Taint key; empty with `Exists` matches every key.
    pub key: String,
    /// How the value is compared.
    pub operator: TolerationOperator,
    /// Only looked at by `Equal`.
    pub value: String,
    /// `None` means every effect.
    pub effect: Option<TaintEffect>,
}

impl Toleration {
    /// Whether it covers `taint`.
    #[must_use]
    pub fn covers(&self, taint: &Taint) -> bool {
        let effect = self.effect.is_none_or(|effect| effect == taint.effect);
        effect
            && match self.operator {
                TolerationOperator::Exists => self.key.is_empty() || self.key == taint.key,
                TolerationOperator::Equal => self.key == taint.key && self.value == taint.value,
            }
    }
}

/// How a toleration compares a taint's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TolerationOperator {
    /// Any value.
    Exists,
    /// The same value.
    Equal,
}

/// What one member of one workload holds on one node, from the moment it is
/// granted until the node confirms that it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Whose it is.
    pub key: AllocationKey,
    /// Where.
    pub node: NodeName,
    /// GPU indices on that node.
    pub gpus: Vec<u32>,
    /// CPU, in thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Whose share it counts against.
    pub owner: Owner,
    /// Only `Low` is ever preempted.
    pub priority: Priority,
    /// When it was granted, milliseconds since the epoch.
    pub started_at_ms: i64,
    /// Not preempted before this time. `None` means at any time.
    pub min_run_until_ms: Option<i64>,
    /// When its timeout (grace included) makes it end at the latest. `None`
    /// means unknown, and is never counted on.
    pub expected_end_ms: Option<i64>,
    /// `false` means that it is never preempted.
    pub preemptible: bool,
    /// The request that it is being evicted for. Such an allocation is no
    /// victim again, and what it frees is that request's.
    pub evicting_for: Option<RequestId>,
}
