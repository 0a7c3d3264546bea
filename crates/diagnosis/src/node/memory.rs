//! The machine's memory: pressure, swap, and whether it will run out.

use super::course::{filling, urgency};
use super::facts::{Kernel, NodeFacts};
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Series, Severity, metric, stats, words};

/// Share of time that tasks wait for memory from which it costs work, percent (PSI `some`).
const PRESSURE: f64 = 20.0;
/// The same, all tasks at once (PSI `full`): a tenth of all time lost.
const PRESSURE_FULL: f64 = 10.0;
/// Half of all time lost: the machine hardly gets on.
const PRESSURE_FULL_CRITICAL: f64 = 50.0;
/// Swap traffic above what tidying away idle pages makes, bytes a second.
const SWAPPING: f64 = 10.0 * 1024.0 * 1024.0;

pub(super) static RULES: &[Rule<NodeFacts>] = &[
    Rule {
        id: "memory-pressure",
        section: Section::Memory,
        title: "work waits for memory",
        remedy: Remedy::MoreMemory,
        advice: "Move a workload away, or give the ones here tighter limits.",
        needs: &[metric::PRESSURE_MEMORY],
        check: pressure,
    },
    Rule {
        id: "swap-storm",
        section: Section::Memory,
        title: "memory is swapped in and out all the time",
        remedy: Remedy::MoreMemory,
        advice: "More is in use than fits: move a workload away.",
        needs: &[metric::SWAP_IN, metric::SWAP_OUT],
        check: swapping,
    },
    Rule {
        id: "memory-exhaustion",
        section: Section::Memory,
        title: "memory will run out",
        remedy: Remedy::MoreMemory,
        advice: "Find the workload that grows, and move or limit it before the kernel kills one.",
        needs: &[metric::MEMORY_USAGE, metric::MEMORY_TOTAL],
        check: exhaustion,
    },
    Rule {
        id: "oom-kill",
        section: Section::Memory,
        title: "the kernel killed a process for want of memory",
        remedy: Remedy::MoreMemory,
        advice: "The machine itself ran out: place less on it, or give workloads limits.",
        needs: &["kernel log"],
        check: oom_kills,
    },
];

/// The newest third of a window: what holds there is going on.
fn recent(series: &Series) -> Series {
    let from = series.last().map_or(0, |l| l.0 - series.span_ms() / 3);
    Series {
        points: series.since(from).to_vec(),
        ..series.clone()
    }
}

fn pressure(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    let some = facts.series.get(metric::PRESSURE_MEMORY);
    let full = facts.series.get(metric::PRESSURE_MEMORY_FULL);
    if some.is_none() && full.is_none() {
        return None;
    }
    let level = |s: Option<&Series>| s.and_then(|s| recent(s).median());
    let mut evidence = Vec::new();
    let mut severity = None;
    if let Some(full) = level(full).filter(|v| *v >= PRESSURE_FULL) {
        let critical = full >= PRESSURE_FULL_CRITICAL;
        severity = Some(if critical {
            Severity::Critical
        } else {
            Severity::Warning
        });
        evidence.push(
            Evidence::value(
                metric::PRESSURE_MEMORY_FULL,
                full,
                format!("all tasks waited {full:.0} % of the time"),
            )
            .against(if critical {
                PRESSURE_FULL_CRITICAL
            } else {
                PRESSURE_FULL
            }),
        );
    }
    if let Some(some) = level(some).filter(|v| *v >= PRESSURE) {
        severity = severity.or(Some(Severity::Warning));
        evidence.push(
            Evidence::value(
                metric::PRESSURE_MEMORY,
                some,
                format!("some task waited {some:.0} % of the time"),
            )
            .against(PRESSURE),
        );
    }
    let evidence = evidence
        .into_iter()
        .map(|e| e.over(facts.window_ms / 3).by("median of the newest third"));
    Some(
        severity
            .map(|s| rule.finding(s, facts.node_target(), 0.95, evidence.collect()))
            .into_iter()
            .collect(),
    )
}

fn swapping(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    let (inward, outward) = (facts.series.get(metric::SWAP_IN), facts.series.get(metric::SWAP_OUT));
    if inward.is_none() && outward.is_none() {
        return None;
    }
    // Pages that come back are what hurts: writing out what nobody uses is thrift.
    let level = |s: Option<&Series>| s.and_then(|s| recent(s).median()).unwrap_or(0.0);
    let (read, written) = (level(inward), level(outward));
    if read < SWAPPING {
        return Some(Vec::new());
    }
    let full = facts
        .series
        .get(metric::PRESSURE_MEMORY_FULL)
        .and_then(|s| recent(s).median());
    let severity = match full {
        Some(full) if full >= PRESSURE_FULL => Severity::Critical,
        _ => Severity::Warning,
    };
    let mut evidence = vec![
        Evidence::value(
            metric::SWAP_IN,
            read,
            format!(
                "{}/s read back, {}/s written",
                words::bytes(read),
                words::bytes(written)
            ),
        )
        .against(SWAPPING)
        .over(facts.window_ms / 3)
        .by("median of the newest third"),
    ];
    if let Some((at, used)) = facts.series.get(metric::SWAP_USED).and_then(Series::last) {
        evidence.push(Evidence::value(metric::SWAP_USED, used, format!("{} swapped out", words::bytes(used))).at(at));
    }
    Some(vec![rule.finding(severity, facts.node_target(), 0.9, evidence)])
}

fn exhaustion(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    let total = facts.memory_total()?;
    let used = facts.series.get(metric::MEMORY_USAGE)?;
    if used.points.len() < stats::SAMPLES_MIN {
        return None;
    }
    let found = filling(used, total, facts.history.get(metric::MEMORY_USAGE)).and_then(|f| Some((f, urgency(&f)?)));
    Some(
        found
            .map(|(f, severity)| {
                let evidence = vec![f.evidence(metric::MEMORY_USAGE, used)];
                rule.finding(severity, facts.node_target(), 0.8, evidence)
            })
            .into_iter()
            .collect(),
    )
}

fn oom_kills(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let kills: Vec<_> = facts
        .kernel
        .iter()
        .filter_map(|e| match &e.event {
            Kernel::OomKill {
                process,
                workload,
                limited,
            } => Some((e.at_ms, process, workload, *limited)),
            _ => None,
        })
        .collect();
    let own = kills.iter().filter(|k| k.3).count();
    let machine = kills.len() - own;
    let (Some(last), false) = (kills.last(), kills.is_empty()) else {
        return Some(Vec::new());
    };
    // A workload that hits its own limit is that workload's matter.
    let severity = if machine > 0 {
        Severity::Critical
    } else {
        Severity::Info
    };
    let who = last.1.as_deref().or(last.2.as_deref()).unwrap_or("a process");
    let evidence = vec![
        Evidence::count(
            "kernel.oom",
            kills.len() as u64,
            format!("{machine} for want of memory of the machine, {own} at a limit of their own; the last: {who}"),
        )
        .at(last.0)
        .over(super::facts::DAY_MS),
    ];
    Some(vec![rule.finding(severity, facts.node_target(), 1.0, evidence)])
}
