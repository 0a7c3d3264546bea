//! A node's facts, and its diagnosis.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use api::{
    ApiError, GpuIndex, NodeName, Span, Timestamp, WorkloadId,
    event::Event,
    metric::label,
    node::{GpuHealth, Node, NodeStatus},
    op::NodeDiagnosis,
    time,
    wire::FactKind,
    workload::{Member, MemberState, Workload},
};
use diagnosis::{
    Evidence, Finding, GpuFacts, LogGroup, NodeFacts, NodeState, Peer, Remedy, SeriesSet, Severity, Status, Target,
    command, metric as wanted, patterns::Scanner,
};
use telemetry::{
    logs::{Entry, LogStore, Query},
    metrics::{Matcher, MetricStore},
};

use super::{
    DAY, Journal, answer,
    journal::{kernel, warnings},
    samples::{self, Stretch},
};
use crate::{
    decide::nodes::status,
    live::Nodes,
    view::{Versioned, View},
};

/// How far back a node's own past goes, at least.
const PAST: Span = DAY;
/// Other nodes' GPUs that one is held against; more add nothing.
const PEERS_MAX: usize = 64;
/// Metrics that are compared with other nodes'.
const COMPARED: &[&str] = &[
    wanted::GPU_TEMPERATURE,
    wanted::GPU_POWER,
    wanted::GPU_UTILIZATION,
    wanted::GPU_CLOCK_SM,
];
/// Workloads of a node whose newest lines are looked at, and how many of each.
const OUTPUTS_MAX: usize = 32;
const LINES_MAX: u64 = 2_000;

/// A node as it is known at one moment.
#[derive(Debug, Clone)]
pub struct Looked {
    /// Its record.
    pub node: Arc<Node>,
    /// Whether it has been heard of since the gateway's start.
    pub heard_of: bool,
    /// Its clock less the gateway's. `None`: not measured.
    pub clock_offset_ms: Option<f64>,
    /// Who holds which of its GPUs.
    pub holders: BTreeMap<GpuIndex, WorkloadId>,
    /// Workloads that are on it.
    pub workloads: Vec<WorkloadId>,
}

impl Looked {
    /// Copies what is known of a node.
    #[must_use]
    pub fn at(view: &View, live: &Nodes, node: &Versioned<Node>) -> Self {
        let (heard_of, clock_offset_ms) =
            live.with(&node.name, |l| (l.seen_at.is_some(), l.connectivity.clock_offset_ms));
        let gpus = node.inventory.as_ref().map(|i| i.gpus.as_slice()).unwrap_or_default();
        let holder = |index| Some((index, view.holder(&node.name, index)?.workload.clone()));
        Self {
            holders: gpus.iter().filter_map(|g| holder(g.index)).collect(),
            workloads: view.on_node(&node.name).map(|w| w.id.clone()).collect(),
            node: Arc::clone(&node.value),
            heard_of,
            clock_offset_ms,
        }
    }

    pub(super) fn status(&self) -> NodeStatus {
        status(&self.node, self.heard_of)
    }

    /// How the gateway sees it.
    pub(super) fn state(&self) -> NodeState {
        match self.status() {
            NodeStatus::Joining => NodeState::Joining,
            NodeStatus::Unreachable => NodeState::Unreachable,
            NodeStatus::Unknown => NodeState::Unknown,
            NodeStatus::Draining => NodeState::Draining,
            NodeStatus::Healthy | NodeStatus::Degraded | NodeStatus::Critical => NodeState::Ready,
        }
    }

    /// What the diagnosis is made from. `held`: who held a GPU when an event happened.
    pub(super) fn facts(
        &self,
        now: Timestamp,
        window_ms: i64,
        series: SeriesSet,
        events: &[Arc<Event>],
        held: &Holders,
    ) -> NodeFacts {
        let inventory = self.node.inventory.as_ref();
        let holder = |at| move |gpu| held.of(&self.node.name, gpu, at);
        NodeFacts {
            name: self.node.name.to_string(),
            now_ms: now.as_millisecond(),
            window_ms,
            series,
            kernel: events.iter().filter_map(|e| kernel(e, holder(e.at))).collect(),
            kernel_watched: inventory.is_some_and(|i| !i.notes.iter().any(|n| n.starts_with(KERNEL_LOG_UNREAD))),
            logs: warnings(events),
            gpus: self.gpus(),
            memory_total_bytes: inventory.map(|i| i.memory_total_bytes.bytes() as f64),
            clock_offset_ms: self.clock_offset_ms,
            ..NodeFacts::default()
        }
    }

    fn gpus(&self) -> Vec<GpuFacts> {
        let of = |gpu: &api::node::GpuInfo| GpuFacts {
            index: gpu.index,
            pci: gpu.pci_address.clone(),
            model: Some(gpu.model.clone()),
            workload: self.holders.get(&gpu.index).map(ToString::to_string),
            ..GpuFacts::default()
        };
        let gpus = self.node.inventory.as_ref().map(|i| i.gpus.iter().map(of).collect());
        gpus.unwrap_or_default()
    }

    /// What the node's record alone tells: that it is silent, and what its agent says of its GPUs where the diagnosis
    /// hasn't found the reason.
    pub(super) fn own_findings(&self, found: &[Finding], now: Timestamp) -> Vec<Finding> {
        let name = self.node.name.to_string();
        let mut own = Vec::new();
        if self.state() == NodeState::Unreachable {
            let since = self.node.reach_since;
            let text = format!("silent: noticed {} ago", time::between(since, now));
            own.push(Finding {
                id: "node-unreachable".into(),
                severity: Severity::Critical,
                target: Target::Node { node: name.clone() },
                title: "node doesn't answer".into(),
                evidence: vec![Evidence::event("node.up", since.as_millisecond(), text)],
                remedy: Remedy::RebootNode,
                advice: "Look whether the machine, its agent and the network between are up.".into(),
                commands: vec![format!("clawbernetes node info {name}"), command::events(&name)],
                confidence: 1.0,
            });
            return own;
        }
        for (gpu, health) in &self.node.gpu_health {
            let (severity, id, title) = match health {
                GpuHealth::Ok => continue,
                GpuHealth::Degraded { .. } => (Severity::Warning, "gpu-degraded", "GPU needs attention"),
                GpuHealth::Failed { .. } => (Severity::Critical, "gpu-failed", "GPU can't be used"),
                GpuHealth::Unknown { .. } => (
                    Severity::Critical,
                    "gpu-silent",
                    "the driver doesn't answer for the GPU",
                ),
            };
            let target = Target::Gpu {
                node: name.clone(),
                gpu: *gpu,
            };
            if found.iter().any(|f| f.target == target && f.severity >= severity) {
                continue;
            }
            let text = health.reason().unwrap_or_default();
            let evidence = Evidence::event("gpu.health", now.as_millisecond(), format!("its agent says: {text}"));
            own.push(Finding {
                id: id.into(),
                severity,
                target,
                title: title.into(),
                evidence: vec![evidence],
                remedy: Remedy::Watch,
                advice: "Look at the node's events; take work off it if it lasts.".into(),
                commands: vec![command::events(&name), command::drain(&name)],
                confidence: 1.0,
            });
        }
        own
    }
}

/// What the agent notes where it may not read the kernel's log.
const KERNEL_LOG_UNREAD: &str = "the kernel's log can't be read";

/// Who held which GPU when, of nodes whose kernels told of GPUs.
#[derive(Debug, Clone, Default)]
pub struct Holders(BTreeMap<(NodeName, GpuIndex), Vec<Stay>>);

/// A workload, since when it held a GPU, and until when. `None`: it does.
type Stay = (WorkloadId, Timestamp, Option<Timestamp>);

impl Holders {
    /// Looks through the workloads, if any of the events tells of an XID error.
    pub(super) fn look<'a>(view: &View, events: impl Iterator<Item = (&'a NodeName, &'a Vec<Arc<Event>>)>) -> Self {
        let xid = |e: &Arc<Event>| matches!(e.fact, Some(FactKind::Xid { gpu: Some(_), .. }));
        let nodes: Vec<&NodeName> = events.filter(|(_, all)| all.iter().any(xid)).map(|(n, _)| n).collect();
        let mut held = Self::default();
        if nodes.is_empty() {
            return held;
        }
        for workload in view.workloads() {
            let past = workload.past.iter().flat_map(|p| &p.members);
            for member in past.chain(&workload.members).filter(|m| nodes.contains(&&m.node)) {
                held.add(workload, member);
            }
        }
        held
    }

    fn add(&mut self, workload: &Workload, member: &Member) {
        let (from, to) = match &member.state {
            MemberState::Assigned | MemberState::Pulling => return,
            MemberState::Running { started_at, .. } => (*started_at, None),
            MemberState::Ended { started_at: None, .. } => return,
            MemberState::Ended {
                started_at: Some(from),
                at,
                ..
            } => (*from, Some(*at)),
        };
        for gpu in &member.gpus {
            let all = self.0.entry((member.node.clone(), gpu.index)).or_default();
            all.push((workload.id.clone(), from, to));
        }
    }

    fn of(&self, node: &NodeName, gpu: GpuIndex, at: Timestamp) -> Option<String> {
        let stays = self.0.get(&(node.clone(), gpu))?;
        let stay = stays
            .iter()
            .find(|(_, from, to)| *from <= at && to.is_none_or(|to| at <= to));
        stay.map(|(id, ..)| id.to_string())
    }
}

/// Worst first, by name and target: as the diagnosis sorts them.
pub(super) fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| (Reverse(a.severity), &a.id, &a.target).cmp(&(Reverse(b.severity), &b.id, &b.target)));
}

/// Adds what the record tells to what was found.
pub(super) fn complete(diagnosis: &mut diagnosis::NodeDiagnosis, looked: &Looked, now: Timestamp) {
    let own = looked.own_findings(&diagnosis.findings, now);
    for finding in own {
        let worse = match finding.severity {
            Severity::Critical => Status::Critical,
            _ => Status::Degraded,
        };
        diagnosis.status = diagnosis.status.max(worse);
        diagnosis.findings.push(finding);
    }
    sort(&mut diagnosis.findings);
}

/// What a node's diagnosis is read from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Numbers over time.
    pub metrics: &'a MetricStore,
    /// Workloads' output.
    pub logs: &'a LogStore,
    /// Nodes' events of a day.
    pub journal: &'a Journal,
}

/// Looks closely at a node, over `window` until `now`. `alike`: names of nodes whose GPUs are of the same models.
///
/// # Errors
/// Samples or output can't be read.
pub fn diagnose(
    sources: Sources<'_>,
    looked: &Looked,
    held: &Holders,
    alike: &[NodeName],
    window: Span,
    verbose: bool,
    now: Timestamp,
) -> Result<NodeDiagnosis, ApiError> {
    let window_ms = i64::try_from(window.millis()).unwrap_or(i64::MAX);
    let stretch = Stretch::before(now.as_millisecond(), window_ms);
    let name = &looked.node.name;
    let series = samples::of_node(sources.metrics, name.as_str(), stretch)?;
    let past_ms = window_ms.max(PAST.millis() as i64);
    let events = sources.journal.of(name, time::before(now, DAY));
    let mut facts = looked.facts(now, window_ms, series, &events, held);
    facts.history = samples::of_node(sources.metrics, name.as_str(), stretch.past(past_ms))?;
    facts.peers = peers(sources.metrics, alike, stretch)?;
    facts.logs.extend(outputs(sources.logs, &looked.workloads, now));
    let mut found = diagnosis::diagnose_node(&facts, verbose);
    complete(&mut found, looked, now);
    Ok(answer::node(found, looked.status()))
}

/// Medians of other nodes' GPUs.
fn peers(store: &MetricStore, alike: &[NodeName], stretch: Stretch) -> Result<Vec<Peer>, ApiError> {
    let mut peers = Vec::new();
    // Evenly chosen, so that a large fleet costs no more than a rack.
    let every = alike.len().div_ceil(PEERS_MAX / 8).max(1);
    for node in alike.iter().step_by(every) {
        let matcher = [Matcher::eq(label::NODE, node.as_str())];
        for name in COMPARED {
            for (labels, points) in samples::read(store, name, &matcher, stretch)? {
                let median = samples::series(name, &labels, points).median();
                peers.extend(median.map(|median| Peer {
                    metric: (*name).to_owned(),
                    median,
                }));
            }
        }
    }
    Ok(peers)
}

/// What the newest lines of its workloads tell of errors. What can't be read tells nothing.
fn outputs(logs: &LogStore, workloads: &[WorkloadId], now: Timestamp) -> Vec<LogGroup> {
    let since = time::before(now, DAY);
    let mut groups = Vec::new();
    for id in workloads.iter().take(OUTPUTS_MAX) {
        let mut scanner = Scanner::default();
        scan(logs, id, since, LINES_MAX, &mut scanner);
        groups.extend(scanner.facts().into_iter().map(|fact| LogGroup {
            source: id.to_string(),
            level: "error".to_owned(),
            text: fact.sample,
            count: fact.count,
            first_ms: fact.first_ms,
            last_ms: fact.last_ms,
        }));
    }
    groups
}

/// Looks at a workload's newest lines.
pub(super) fn scan(logs: &LogStore, id: &WorkloadId, since: Timestamp, lines: u64, scanner: &mut Scanner) {
    let mut query = Query {
        tail: Some(lines),
        since_ns: i64::try_from(since.as_nanosecond()).ok(),
        ..Query::default()
    };
    while let Ok(page) = logs.read(id.as_str(), &query) {
        for entry in &page.entries {
            if let Entry::Line { line, .. } = entry {
                scanner.push(line.at_ns / 1_000_000, &String::from_utf8_lossy(&line.text));
            }
        }
        if page.complete || page.entries.is_empty() {
            return;
        }
        query.tail = None;
        query.cursor = Some(page.cursor);
    }
}
