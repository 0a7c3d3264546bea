//! Lost GPUs and XID errors.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{DAY_MS, NodeFacts};
use crate::rule::{Rule, Section};
use crate::xid::{self, Fault};
use crate::xid_finding::{Seen, Standing, findings};
use crate::{Evidence, Finding, Remedy, Severity, metric, stats};

/// Different workloads whose own fault an error seems to be, from which the GPU is suspected instead.
const SUSPICIOUS_WORKLOADS: usize = 3;

pub(super) static RULES: &[Rule<NodeFacts>] = &[
    Rule {
        id: "gpu-lost",
        section: Section::Errors,
        title: "GPU doesn't answer on the bus",
        remedy: Remedy::RebootNode,
        advice: "Drain the node and reboot it, by power cycle if need be; check seating and power if it comes again.",
        needs: &[metric::GPU_UP],
        check: lost,
    },
    Rule {
        id: "gpu-xid",
        section: Section::Errors,
        title: "GPU error",
        remedy: Remedy::Watch,
        advice: "",
        needs: &["kernel log"],
        check: errors,
    },
    Rule {
        id: "gpu-suspect",
        section: Section::Errors,
        title: "programs of different workloads fail on this GPU",
        remedy: Remedy::ResetGpu,
        advice: "Each looks like the program's own fault, all together don't: drain the node, reset the GPU, test it.",
        needs: &["kernel log"],
        check: suspect,
    },
];

fn lost(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    // By the driver's word, or by the newest two samples: one may be a hiccup.
    let down = |g: u32| {
        let up = facts.series.of_gpu(metric::GPU_UP, g)?;
        Some(up.points.len() >= 2 && up.points.iter().rev().take(2).all(|p| p.1 == 0.0))
    };
    let said = |g: u32| facts.gpu(g).and_then(|g| g.lost);
    let is_lost = |g: u32| match (said(g), down(g)) {
        (None, None) => None,
        (a, b) => Some(a == Some(true) || b == Some(true)),
    };
    let known: Vec<(u32, bool)> = facts
        .gpu_indexes()
        .into_iter()
        .filter_map(|g| Some((g, is_lost(g)?)))
        .collect();
    if known.is_empty() {
        return None;
    }
    let finding = |gpu: u32| {
        let text = format!("the driver doesn't reach GPU {gpu} any more");
        let evidence = Evidence {
            value: Some(0.0),
            ..Evidence::event(metric::GPU_UP, facts.now_ms, text)
        };
        rule.finding(Severity::Critical, facts.gpu_target(gpu), 1.0, vec![evidence])
    };
    Some(known.into_iter().filter(|k| k.1).map(|k| finding(k.0)).collect())
}

/// Time without errors, and at work, after which an error that a reset mends weighs less.
const CLEAN_MS: i64 = 30 * 60_000;
/// Utilization from which a GPU counts as at work, percent.
const WORKING: f64 = 20.0;

/// By GPU; `None` holds those that can't be laid at any GPU's door.
fn by_gpu(facts: &NodeFacts) -> BTreeMap<Option<u32>, Vec<Seen<'_>>> {
    let mut all: BTreeMap<Option<u32>, Vec<Seen<'_>>> = BTreeMap::new();
    for e in &facts.kernel {
        if let Some(seen) = Seen::of(e) {
            let gpu = seen.gpu.or_else(|| seen.pci.and_then(|p| facts.gpu_at(p)));
            all.entry(gpu).or_default().push(seen);
        }
    }
    all
}

fn errors(facts: &NodeFacts, _: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let of_gpu = |(gpu, seen): (Option<u32>, Vec<Seen<'_>>)| {
        let target = gpu.map_or_else(|| facts.node_target(), |g| facts.gpu_target(g));
        let is_hard =
            |s: &&Seen<'_>| xid::lookup(s.code).severity > Severity::Info || xid::recovery_action(s.text).is_some();
        let last_hard = seen.iter().rev().find(is_hard).map(|s| s.at_ms);
        let works = gpu.is_some_and(|g| has_worked_since(facts, g, last_hard.unwrap_or(i64::MIN)));
        let standing = |at_ms| {
            if facts.cleared_since(gpu, at_ms) {
                Standing::Cleared
            } else if works {
                Standing::WorkedSince
            } else {
                Standing::Now
            }
        };
        findings(&seen, &target, standing)
    };
    Some(by_gpu(facts).into_iter().flat_map(of_gpu).collect())
}

/// Whether a GPU has been at work for a while after a time, and up all that while.
fn has_worked_since(facts: &NodeFacts, gpu: u32, at_ms: i64) -> bool {
    let from = at_ms.max(facts.now_ms - facts.window_ms);
    let since = |metric: &str| {
        facts
            .series
            .of_gpu(metric, gpu)
            .map(|s| s.since(from))
            .unwrap_or_default()
    };
    let busy: Vec<f64> = since(metric::GPU_UTILIZATION).iter().map(|p| p.1).collect();
    let up = since(metric::GPU_UP).iter().all(|p| p.1 > 0.0) && facts.gpu(gpu).and_then(|g| g.lost) != Some(true);
    facts.now_ms.saturating_sub(at_ms) >= CLEAN_MS
        && busy.len() >= stats::SAMPLES_MIN
        && stats::median(&busy).is_some_and(|u| u >= WORKING)
        && up
}

fn suspect(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let mut found = Vec::new();
    for (gpu, seen) in by_gpu(facts) {
        let Some(gpu) = gpu else { continue };
        let own =
            |s: &&Seen<'_>| xid::lookup(s.code).fault == Fault::Program && !facts.cleared_since(Some(gpu), s.at_ms);
        let failed: Vec<&Seen<'_>> = seen.iter().filter(own).collect();
        let workloads: BTreeSet<&str> = failed.iter().filter_map(|s| s.workload).collect();
        if workloads.len() < SUSPICIOUS_WORKLOADS {
            continue;
        }
        let names: Vec<&str> = workloads.iter().copied().take(5).collect();
        let text = format!(
            "{} workloads failed with errors of their own: {}",
            workloads.len(),
            names.join(", ")
        );
        let last = failed.last().map_or(facts.now_ms, |s| s.at_ms);
        let evidence = vec![
            Evidence::count("gpu.xid", workloads.len() as u64, text)
                .against(SUSPICIOUS_WORKLOADS as f64)
                .at(last)
                .over(DAY_MS),
        ];
        found.push(rule.finding(Severity::Warning, facts.gpu_target(gpu), 0.6, evidence));
    }
    Some(found)
}
