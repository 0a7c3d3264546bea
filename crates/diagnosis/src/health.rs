//! How the fleet does: a score whose every point is accounted for.
//!
//! **The score.** Every node is worth the same share of 100 points, whatever its size. What is wrong with a node costs a
//! part of its share:
//!
//! | what | part of the node's share |
//! | --- | --- |
//! | unreachable | all |
//! | a critical finding about the node, or about a device of it | all |
//! | a warning about the node, or about a device of it | 30 % |
//! | a critical finding about a GPU | all, divided by the number of GPUs |
//! | a warning about a GPU | 30 %, divided by the number of GPUs |
//! | state unknown | 50 % |
//! | draining, joining | nothing |
//!
//! Of several findings about a node only the worst counts, of several about a GPU too, and a node never costs more than
//! its share. So one dead node of three costs 33.3334 points and one of a thousand 0.1. Points are whole
//! ten-thousandths: the score is 100 less their sum, to the last digit, and 0 at least. Workloads' findings and alerts are shown and cost nothing: they
//! tell about work, or repeat what was found.
//!
//! **The status.** `unknown` without nodes, or if more than half of the nodes that should answer are in an unknown
//! state; else `critical` below 50 points; `degraded` below 95, or if more than 1 % of the nodes are unreachable or
//! critical; else `healthy`.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Evidence, Finding, NodeFacts, Series, Severity, Status, Target, check_node, finding, metric, stats};

/// Ten-thousandths of points; printed as points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Points(pub u32);

impl From<f64> for Points {
    fn from(points: f64) -> Self {
        Self((points.clamp(0.0, 100.0) * 10_000.0).round() as u32)
    }
}

impl From<Points> for f64 {
    fn from(points: Points) -> Self {
        Self::from(points.0) / 10_000.0
    }
}

impl std::fmt::Display for Points {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", f64::from(*self))
    }
}

/// 100 points.
const ALL: u32 = 1_000_000;

/// How the gateway sees a node, apart from what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It answers.
    Ready,
    /// It answers, and takes no new work.
    Draining,
    /// It has joined and hasn't been looked at yet.
    Joining,
    /// It doesn't answer.
    Unreachable,
    /// Nothing is known.
    #[default]
    Unknown,
}

/// A node, as health sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeHealth {
    /// Its name.
    pub name: String,
    /// How the gateway sees it.
    pub state: NodeState,
    /// Whether enough was measured to call it healthy: its diagnosis' status wasn't `unknown`.
    pub measured: bool,
    /// GPUs that it has.
    pub gpus: u32,
    /// What was found on it, and on its GPUs and devices.
    pub findings: Vec<Finding>,
    /// What is in use on it.
    pub usage: Usage,
}

/// What is in use on a node. `None`: not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Average of its GPUs, percent.
    pub gpu_percent: Option<f64>,
    /// Memory of its GPUs in use.
    pub gpu_memory_used_bytes: Option<f64>,
    /// Memory of its GPUs.
    pub gpu_memory_total_bytes: Option<f64>,
    /// All cores, percent.
    pub cpu_percent: Option<f64>,
    /// Its cores, which weigh the percentage.
    pub cpu_cores: Option<f64>,
    /// Memory in use.
    pub memory_used_bytes: Option<f64>,
    /// Memory of the machine.
    pub memory_total_bytes: Option<f64>,
}

impl NodeHealth {
    /// Looks at a node.
    #[must_use]
    pub fn new(state: NodeState, facts: &NodeFacts) -> Self {
        let (status, findings) = check_node(facts);
        Self {
            name: facts.name.clone(),
            state,
            measured: status != Status::Unknown,
            gpus: facts.gpus.len() as u32,
            findings,
            usage: Usage::of(facts),
        }
    }
}

impl Usage {
    /// The newest samples of a node. Cores aren't among them.
    #[must_use]
    pub fn of(facts: &NodeFacts) -> Self {
        let last = |m: &str| facts.series.get(m).and_then(Series::last).map(|p| p.1);
        let of_gpus = |m: &str| -> Vec<f64> { facts.series.all(m).filter_map(|s| s.last().map(|p| p.1)).collect() };
        let (used, total) = (of_gpus(metric::GPU_MEMORY_USED), of_gpus(metric::GPU_MEMORY_TOTAL));
        // Sums are of the same GPUs only.
        let both = !used.is_empty() && used.len() == total.len();
        Self {
            gpu_percent: stats::mean(&of_gpus(metric::GPU_UTILIZATION)),
            gpu_memory_used_bytes: both.then(|| used.iter().sum()),
            gpu_memory_total_bytes: both.then(|| total.iter().sum()),
            cpu_percent: last(metric::CPU_USAGE),
            cpu_cores: None,
            memory_used_bytes: last(metric::MEMORY_USAGE),
            memory_total_bytes: facts.memory_total_bytes.or_else(|| last(metric::MEMORY_TOTAL)),
        }
    }
}

/// An alert, as it is handed through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertFact {
    /// Name of its rule.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, in words.
    pub target: String,
    /// Since when it fires.
    pub since_ms: i64,
    /// Whether it is silenced.
    pub silenced: bool,
    /// In words.
    pub summary: String,
}

/// All that the fleet's health is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetFacts {
    /// As of when.
    pub now_ms: i64,
    /// All nodes.
    pub nodes: Vec<NodeHealth>,
    /// What was found about workloads.
    pub workloads: Vec<Finding>,
    /// Alerts that fire.
    pub alerts: Vec<AlertFact>,
}

/// How the fleet does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// 0–100: 100 less all deductions. `None` without nodes: there is nothing to judge.
    pub score: Option<Points>,
    /// All told.
    pub status: Status,
    /// Nodes by state.
    pub nodes: NodeCounts,
    /// What is in use.
    pub utilization: Overview,
    /// Alerts that fire, worst first.
    pub alerts: Vec<AlertFact>,
    /// What keeps the score from 100, greatest first.
    pub deductions: Vec<Deduction>,
    /// All findings, worst first.
    pub diagnosis: Vec<Finding>,
}

/// Nodes by state. Each is in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// All.
    pub total: usize,
    /// Looked at, and nothing of warning or above.
    pub healthy: usize,
    /// With a warning.
    pub degraded: usize,
    /// With a critical finding.
    pub critical: usize,
    /// Don't answer.
    pub unreachable: usize,
    /// Take no new work.
    pub draining: usize,
    /// Have just joined.
    pub joining: usize,
    /// Too little is known.
    pub unknown: usize,
}

/// What is in use in the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// GPUs, by their number.
    pub gpu: Share,
    /// Memory of GPUs.
    pub gpu_memory: Share,
    /// CPU, by cores.
    pub cpu: Share,
    /// Memory.
    pub memory: Share,
}

/// A share, and of how many nodes it is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Percent. `None`: measured on no node.
    pub percent: Option<f64>,
    /// Nodes on which it was measured.
    pub nodes: usize,
}

/// Points that something costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deduction {
    /// How many; never zero.
    pub points: Points,
    /// Id of the finding, or `node-unreachable`, `node-unknown`.
    pub reason: Cow<'static, str>,
    /// What it is about.
    pub target: Target,
    /// What it stands on.
    pub evidence: Vec<Evidence>,
}

/// What a severity costs, of a whole share in percent.
fn part(severity: Severity) -> u64 {
    match severity {
        Severity::Critical => 100,
        Severity::Warning => 30,
        Severity::Info => 0,
    }
}

/// A cost of a node: percent of its share, divided by GPUs.
struct Cost<'a> {
    percent: u64,
    divisor: u64,
    reason: Cow<'static, str>,
    target: Target,
    evidence: Cow<'a, [Evidence]>,
}

/// Judges the fleet. The same facts, in whatever order, give the same answer.
#[must_use]
pub fn health(facts: &FleetFacts) -> Health {
    let mut nodes: Vec<&NodeHealth> = facts.nodes.iter().collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let mut deductions = Vec::new();
    let mut counts = NodeCounts {
        total: nodes.len(),
        ..NodeCounts::default()
    };
    for node in &nodes {
        count(&mut counts, node);
        deduct(node, nodes.len(), facts.now_ms, &mut deductions);
    }
    deductions.sort_by(|a: &Deduction, b| {
        (Reverse(a.points), &a.reason, &a.target).cmp(&(Reverse(b.points), &b.reason, &b.target))
    });
    let lost: u32 = deductions.iter().map(|d| d.points.0).sum();
    let score = Points(ALL.saturating_sub(lost));
    let mut diagnosis: Vec<Finding> = nodes
        .iter()
        .flat_map(|n| &n.findings)
        .chain(&facts.workloads)
        .cloned()
        .collect();
    finding::sort(&mut diagnosis);
    let mut alerts = facts.alerts.clone();
    alerts.sort_by(|a, b| {
        (a.silenced, Reverse(a.severity), &a.name, &a.target, a.since_ms).cmp(&(
            b.silenced,
            Reverse(b.severity),
            &b.name,
            &b.target,
            b.since_ms,
        ))
    });
    Health {
        score: (!nodes.is_empty()).then_some(score),
        status: status(&counts, score),
        nodes: counts,
        utilization: overview(&nodes),
        alerts,
        deductions,
        diagnosis,
    }
}

fn worst(node: &NodeHealth) -> Option<Severity> {
    node.findings.iter().map(|f| f.severity).max()
}

fn count(counts: &mut NodeCounts, node: &NodeHealth) {
    let slot = match (node.state, worst(node)) {
        (NodeState::Unreachable, _) => &mut counts.unreachable,
        (NodeState::Unknown, _) => &mut counts.unknown,
        (_, Some(Severity::Critical)) => &mut counts.critical,
        (NodeState::Draining, _) => &mut counts.draining,
        (NodeState::Joining, _) => &mut counts.joining,
        (NodeState::Ready, Some(Severity::Warning)) => &mut counts.degraded,
        (NodeState::Ready, _) if node.measured => &mut counts.healthy,
        (NodeState::Ready, _) => &mut counts.unknown,
    };
    *slot += 1;
}

/// What a node's state costs; it says all there is to say, so findings don't count beside it.
fn cost_of_state(node: &NodeHealth, now_ms: i64) -> Option<Cost<'static>> {
    let cost = |percent, reason: &'static str, text: &str| Cost {
        percent,
        divisor: 1,
        reason: Cow::Borrowed(reason),
        target: Target::Node {
            node: node.name.clone(),
        },
        evidence: Cow::Owned(vec![Evidence::event("node.state", now_ms, text)]),
    };
    match node.state {
        NodeState::Unreachable => Some(cost(100, "node-unreachable", "it doesn't answer")),
        NodeState::Unknown => Some(cost(50, "node-unknown", "nothing is known about it")),
        NodeState::Ready if !node.measured && worst(node) < Some(Severity::Warning) => {
            Some(cost(50, "node-unknown", "too little was measured"))
        }
        _ => None,
    }
}

fn deduct(node: &NodeHealth, nodes: usize, now_ms: i64, deductions: &mut Vec<Deduction>) {
    let costs = match cost_of_state(node, now_ms) {
        Some(cost) => vec![cost],
        None => costs_of_findings(node),
    };
    // A whole node is rounded against it, so that a fleet without a sound node has no points left; parts of it are
    // rounded to the nearest, so that many small ones don't add up to more than they are.
    let whole = ALL.div_ceil(nodes as u32);
    let share = |percent: u64, divisor: u64| {
        let exact = 100 * divisor * nodes as u64;
        match percent {
            0 => 0,
            _ if percent == 100 && divisor == 1 => whole,
            _ => ((u64::from(ALL) * percent + exact / 2) / exact).max(1) as u32,
        }
    };
    let mut left = whole;
    for cost in costs {
        let points = share(cost.percent, cost.divisor).min(left);
        if points > 0 {
            left -= points;
            deductions.push(Deduction {
                points: Points(points),
                reason: cost.reason,
                target: cost.target,
                evidence: cost.evidence.into_owned(),
            });
        }
    }
}

/// The worst of the node itself, then the worst of each GPU, dearest first.
fn costs_of_findings(node: &NodeHealth) -> Vec<Cost<'_>> {
    let mut findings: Vec<&Finding> = node.findings.iter().collect();
    findings.sort_by(|a, b| (Reverse(a.severity), &a.id, &a.target).cmp(&(Reverse(b.severity), &b.id, &b.target)));
    let mut by: BTreeMap<Option<u32>, &Finding> = BTreeMap::new();
    for f in findings {
        let gpu = match f.target {
            Target::Gpu { gpu, .. } => Some(gpu),
            _ => None,
        };
        by.entry(gpu).or_insert(f);
    }
    let mut costs: Vec<Cost<'_>> = by
        .into_iter()
        .map(|(gpu, f)| Cost {
            percent: part(f.severity),
            divisor: if gpu.is_some() { u64::from(node.gpus.max(1)) } else { 1 },
            reason: f.id.clone(),
            target: f.target.clone(),
            evidence: Cow::Borrowed(f.evidence.as_slice()),
        })
        .collect();
    costs.sort_by_key(|c| Reverse(c.percent * 1000 / c.divisor));
    costs
}

fn status(counts: &NodeCounts, score: Points) -> Status {
    let expected = counts.total - counts.joining;
    let bad = counts.critical + counts.unreachable;
    if expected == 0 || counts.unknown * 2 > expected {
        Status::Unknown
    } else if score.0 < ALL / 2 {
        Status::Critical
    } else if score.0 < ALL / 100 * 95 || bad * 100 > counts.total {
        Status::Degraded
    } else {
        Status::Healthy
    }
}

/// An average by weights, of the nodes that have both.
fn average(nodes: &[&NodeHealth], of: impl Fn(&NodeHealth) -> Option<(f64, f64)>) -> Share {
    let known: Vec<(f64, f64)> = nodes
        .iter()
        .filter_map(|n| of(n))
        .filter(|(part, weight)| part.is_finite() && weight.is_finite() && *weight > 0.0)
        .collect();
    let (part, weight) = known.iter().fold((0.0, 0.0), |(p, w), k| (p + k.0, w + k.1));
    Share {
        percent: (weight > 0.0).then(|| part / weight * 100.0),
        nodes: known.len(),
    }
}

fn overview(nodes: &[&NodeHealth]) -> Overview {
    let weighed = |percent: Option<f64>, weight: f64| percent.map(|p| (p / 100.0 * weight, weight));
    Overview {
        gpu: average(nodes, |n| weighed(n.usage.gpu_percent, f64::from(n.gpus))),
        gpu_memory: average(nodes, |n| {
            n.usage.gpu_memory_used_bytes.zip(n.usage.gpu_memory_total_bytes)
        }),
        cpu: average(nodes, |n| {
            weighed(n.usage.cpu_percent, n.usage.cpu_cores.unwrap_or(1.0))
        }),
        memory: average(nodes, |n| n.usage.memory_used_bytes.zip(n.usage.memory_total_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Remedy;

    fn node(name: &str) -> NodeHealth {
        NodeHealth {
            name: name.into(),
            state: NodeState::Ready,
            measured: true,
            gpus: 8,
            ..NodeHealth::default()
        }
    }

    fn found(id: &'static str, severity: Severity, target: Target) -> Finding {
        Finding {
            id: id.into(),
            severity,
            target,
            title: "".into(),
            evidence: vec![Evidence::event("x", 0, "x")],
            remedy: Remedy::Watch,
            advice: "".into(),
            commands: Vec::new(),
            confidence: 1.0,
        }
    }

    fn gpu(node: &str, gpu: u32) -> Target {
        Target::Gpu { node: node.into(), gpu }
    }

    fn fleet(nodes: Vec<NodeHealth>) -> Health {
        health(&FleetFacts {
            nodes,
            ..FleetFacts::default()
        })
    }

    fn of(n: usize, bad: NodeHealth) -> Health {
        let good = (1..n).map(|i| node(&format!("n{i:05}")));
        fleet(good.chain([bad]).collect())
    }

    #[test]
    fn no_nodes_are_not_healthy() {
        let h = fleet(Vec::new());
        assert_eq!((h.score, h.status), (None, Status::Unknown));
    }

    #[test]
    fn one_bad_node_costs_its_share() {
        let bad = || NodeHealth {
            state: NodeState::Unreachable,
            ..node("bad")
        };
        assert_eq!(
            of(3, bad()).score,
            Some(Points(666_666)),
            "a third, rounded against the node"
        );
        assert_eq!(of(1000, bad()).score, Some(Points(999_000)));
        assert_eq!(of(3, bad()).status, Status::Degraded);
        assert_eq!(of(1000, bad()).status, Status::Healthy);
        assert_eq!(of(1, bad()).score, Some(Points(0)));
        assert_eq!(of(10_000, bad()).deductions[0].points, Points(100));
    }

    #[test]
    fn a_gpu_costs_its_part_of_the_node_and_only_its_worst_finding_counts() {
        let mut bad = node("bad");
        bad.findings = vec![
            found("gpu-remap-pending", Severity::Warning, gpu("bad", 1)),
            found("gpu-xid-79", Severity::Critical, gpu("bad", 1)),
            found("gpu-thermal-throttle", Severity::Warning, gpu("bad", 2)),
        ];
        let h = of(2, bad);
        let told: Vec<(u32, &str)> = h.deductions.iter().map(|d| (d.points.0, &*d.reason)).collect();
        assert_eq!(told, [(62_500, "gpu-xid-79"), (18_750, "gpu-thermal-throttle")]);
        assert_eq!(h.nodes.critical, 1);
    }

    #[test]
    fn a_node_never_costs_more_than_its_share() {
        let mut bad = node("bad");
        bad.findings = (0..8)
            .map(|i| found("gpu-lost", Severity::Critical, gpu("bad", i)))
            .collect();
        bad.findings.push(found(
            "disk-read-only",
            Severity::Critical,
            Target::Node { node: "bad".into() },
        ));
        assert_eq!(of(4, bad).score, Some(Points(750_000)));
    }

    #[test]
    fn unknown_is_not_healthy() {
        let h = of(
            2,
            NodeHealth {
                measured: false,
                ..node("x")
            },
        );
        assert_eq!((h.nodes.healthy, h.nodes.unknown), (1, 1));
        assert_eq!(h.deductions[0].reason, "node-unknown");
        let all = fleet(vec![NodeHealth {
            state: NodeState::Unknown,
            ..node("x")
        }]);
        assert_eq!(all.status, Status::Unknown);
        let joining = fleet(vec![NodeHealth {
            state: NodeState::Joining,
            measured: false,
            ..node("x")
        }]);
        assert_eq!(
            (joining.status, joining.score),
            (Status::Unknown, Some(Points(1_000_000)))
        );
    }

    #[test]
    fn the_same_facts_in_another_order_give_the_same_answer_and_add_up() {
        let mut seed = 3u64;
        let mut next = |n: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        for _ in 0..200 {
            let nodes: Vec<NodeHealth> = (0..=next(40))
                .map(|i| {
                    let mut n = node(&format!("n{i}"));
                    n.state = [
                        NodeState::Ready,
                        NodeState::Ready,
                        NodeState::Draining,
                        NodeState::Unreachable,
                        NodeState::Unknown,
                    ][next(5) as usize];
                    n.gpus = next(9) as u32;
                    for g in 0..n.gpus {
                        let severity = [Severity::Info, Severity::Warning, Severity::Critical][next(3) as usize];
                        n.findings.push(found("a", severity, gpu(&n.name, g)));
                        n.findings.push(found("b", Severity::Warning, gpu(&n.name, g)));
                    }
                    n
                })
                .collect();
            let mut turned = nodes.clone();
            turned.reverse();
            turned.iter_mut().for_each(|n| n.findings.reverse());
            let (a, b) = (fleet(nodes), fleet(turned));
            assert_eq!(a, b);
            let lost: u32 = a.deductions.iter().map(|d| d.points.0).sum();
            assert_eq!(a.score.unwrap().0, 1_000_000u32.saturating_sub(lost));
            assert!(a.deductions.iter().all(|d| d.points.0 > 0));
            let c = a.nodes;
            let sum = c.healthy + c.degraded + c.critical + c.unreachable + c.draining + c.joining + c.unknown;
            assert_eq!(sum, c.total);
        }
    }

    #[test]
    fn what_was_not_measured_is_no_zero() {
        let mut a = node("a");
        a.usage.gpu_percent = Some(90.0);
        let h = fleet(vec![a, node("b")]);
        assert_eq!(
            h.utilization.gpu,
            Share {
                percent: Some(90.0),
                nodes: 1
            }
        );
        assert_eq!(
            h.utilization.memory,
            Share {
                percent: None,
                nodes: 0
            }
        );
    }

    #[test]
    fn points_are_printed_as_points() {
        let h = of(
            1000,
            NodeHealth {
                state: NodeState::Unreachable,
                ..node("bad")
            },
        );
        let json = serde_json::to_value(&h).unwrap();
        assert_eq!(json["score"], 99.9);
        assert_eq!(json["deductions"][0]["points"], 0.1);
        assert_eq!(serde_json::from_value::<Health>(json).unwrap(), h);
    }
}
