//! What is wrong with a node.
//!
//! [`NodeFacts`] go past the rules of this folder, one file a part; what they
//! find is put beside the figures of each part.

mod course;
mod disk;
mod ecc;
mod errors;
mod facts;
mod link;
mod memory;
mod network;
mod sections;
mod thermal;
mod trends;
mod xids;

use serde::{Deserialize, Serialize};

pub(crate) use course::{Filling, filling, urgency};
pub(crate) use facts::sort_events;
pub use facts::{AmdTrouble, GpuFacts, Kernel, KernelEvent, LogGroup, NodeFacts, Peer};
pub use sections::{
    ErrorGroup, ErrorsSection, GpuMemory, GpuThermal, MemorySection, MetricStats, ThermalSection, ThrottleShare,
    TrendsSection,
};
pub use trends::{Direction, Trend};

use crate::rule::{self, Rule, RuleInfo, Section, Unchecked};
use crate::{Finding, Status, Target, command, finding, metric};

/// What says nothing beside what says it better, about the same thing.
const SAID_BETTER: &[(&str, &[&str])] = &[
    (
        "gpu-temperature-rising",
        &["gpu-thermal-throttle", "gpu-temperature-high", "gpu-fan-failed"],
    ),
    ("gpu-temperature-high", &["gpu-thermal-throttle", "gpu-fan-failed"]),
    ("gpu-hw-slowdown", &["gpu-thermal-throttle", "gpu-power-brake"]),
];

/// Leaves out what is said better by another finding. An unusual level is, where its metric is another's evidence.
fn drop_repetitions(found: &mut Vec<(Section, Finding)>) {
    let all: Vec<Finding> = found.iter().map(|(_, f)| f.clone()).collect();
    let better = |weak: &Finding, strong: &Finding| {
        let by_id = SAID_BETTER
            .iter()
            .any(|(id, by)| weak.id == *id && by.contains(&&*strong.id));
        let same_metric = || {
            strong
                .evidence
                .iter()
                .any(|e| weak.evidence.iter().any(|w| w.metric == e.metric))
        };
        let unusual = |f: &Finding| f.id == trends::UNUSUAL;
        strong.target == weak.target && (by_id || (unusual(weak) && !unusual(strong) && same_metric()))
    };
    // A passing slow-down doesn't stand for heat that lasts.
    found.retain(|(_, f)| !all.iter().any(|s| s.severity >= f.severity && better(f, s)));
}

/// What is known about a node after looking closely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeDiagnosis {
    /// The node's name.
    pub node: String,
    /// As of when.
    pub now_ms: i64,
    /// Over how long.
    pub window_ms: i64,
    /// All told. `unknown` if neither CPU nor memory was measured, or GPUs that it has were not.
    pub status: Status,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// Temperatures, throttling, fans.
    pub thermal: ThermalSection,
    /// RAM, swap, memory of GPUs.
    pub memory: MemorySection,
    /// Errors of the last day.
    pub errors: ErrorsSection,
    /// Course of each metric, beside the node's past and its peers.
    pub trends: TrendsSection,
    /// Rules that couldn't be checked, for want of data.
    pub unchecked: Vec<Unchecked>,
    /// Figures of each metric. `None` unless asked for.
    pub raw: Option<Vec<MetricStats>>,
}

/// All rules, in the order in which they are checked.
static RULES: &[&[Rule<NodeFacts>]] = &[
    thermal::RULES,
    memory::RULES,
    ecc::RULES,
    xids::RULES,
    link::RULES,
    disk::RULES,
    network::RULES,
    errors::RULES,
    trends::RULES,
];

/// What can be found on a node; XID errors are in [`crate::xid::all`].
pub fn node_rules() -> impl Iterator<Item = RuleInfo> {
    RULES.iter().flat_map(|rules| rules.iter()).map(Rule::info)
}

/// What the rules find, by section, each with its commands.
fn look(facts: &NodeFacts) -> (Vec<(Section, Finding)>, Vec<Unchecked>) {
    let mut found = Vec::new();
    let mut unchecked = Vec::new();
    for rules in RULES {
        let (f, u) = rule::check(facts, rules);
        found.extend(f);
        unchecked.extend(u);
    }
    drop_repetitions(&mut found);
    for (_, f) in &mut found {
        let workload = match &f.target {
            Target::Gpu { gpu, .. } => facts.gpu(*gpu).and_then(|g| g.workload.as_deref()),
            _ => None,
        };
        f.commands = command::for_node(f.remedy, &facts.name, workload);
    }
    (found, unchecked)
}

/// Looks at a node without writing down figures: what the fleet's health needs. Findings are as
/// [`diagnose_node`]'s, worst first.
#[must_use]
pub fn check_node(facts: &NodeFacts) -> (Status, Vec<Finding>) {
    let facts = &facts.cleaned();
    let mut findings: Vec<Finding> = look(facts).0.into_iter().map(|(_, f)| f).collect();
    finding::sort(&mut findings);
    (finding::status(&findings, is_measured(facts)), findings)
}

/// Looks closely at a node. `verbose` adds the figures of each metric.
#[must_use]
pub fn diagnose_node(facts: &NodeFacts, verbose: bool) -> NodeDiagnosis {
    let facts = &facts.cleaned();
    let (found, unchecked) = look(facts);
    let of = |section: Section| -> Vec<Finding> {
        found
            .iter()
            .filter(|(s, _)| *s == section)
            .map(|(_, f)| f.clone())
            .collect()
    };
    let mut findings: Vec<Finding> = found.iter().map(|(_, f)| f.clone()).collect();
    finding::sort(&mut findings);
    NodeDiagnosis {
        node: facts.name.clone(),
        now_ms: facts.now_ms,
        window_ms: facts.window_ms,
        status: finding::status(&findings, is_measured(facts)),
        thermal: sections::thermal(facts, &of(Section::Thermal)),
        memory: sections::memory(facts, &of(Section::Memory)),
        errors: sections::errors(facts, &of(Section::Errors)),
        trends: sections::trends(facts, &of(Section::Trends)),
        findings,
        unchecked,
        raw: verbose.then(|| sections::raw(facts)),
    }
}

/// Whether enough was measured to call the node healthy if nothing is found.
fn is_measured(facts: &NodeFacts) -> bool {
    let machine = facts.series.get(metric::CPU_USAGE).is_some() || facts.series.get(metric::MEMORY_USAGE).is_some();
    let gpu = |i: u32| {
        [metric::GPU_TEMPERATURE, metric::GPU_UTILIZATION, metric::GPU_THROTTLE]
            .iter()
            .any(|m| facts.series.of_gpu(m, i).is_some())
    };
    machine && facts.gpus.iter().all(|g| gpu(g.index))
}
