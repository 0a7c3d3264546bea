//! Disks: room and errors.

use super::course::{filling, urgency};
use super::facts::{DAY_MS, Kernel, NodeFacts, grouped};
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Series, Severity, metric, words};

/// Share of a disk from which it counts as nearly full, and as full, percent.
const NEARLY_FULL: f64 = 95.0;
const FULL: f64 = 99.0;
/// Share of time that tasks wait for I/O, most of the window through, percent.
const IO_PRESSURE: f64 = 40.0;

pub(super) static RULES: &[Rule<NodeFacts>] = &[
    Rule {
        id: "disk-filling",
        section: Section::Errors,
        title: "disk is filling up",
        remedy: Remedy::FreeDisk,
        advice: "Make room, or find what writes: images, checkpoints, logs.",
        needs: &[metric::DISK_USED, metric::DISK_TOTAL],
        check: room,
    },
    Rule {
        id: "disk-inodes",
        section: Section::Errors,
        title: "disk runs out of inodes",
        remedy: Remedy::FreeDisk,
        advice: "Too many small files: data sets, caches, unpacked images.",
        needs: &[metric::DISK_INODES_USED, metric::DISK_INODES_TOTAL],
        check: inodes,
    },
    Rule {
        id: "disk-io-errors",
        section: Section::Errors,
        title: "disk fails to read or write",
        remedy: Remedy::Replace,
        advice: "Drain the node and have the disk replaced.",
        needs: &["kernel log"],
        check: io_errors,
    },
    Rule {
        id: "disk-damaged",
        section: Section::Errors,
        title: "file system is damaged or was made read-only",
        remedy: Remedy::Replace,
        advice: "The kernel met errors on it: drain the node, check the file system and the disk.",
        needs: &["kernel log"],
        check: damaged,
    },
    Rule {
        id: "io-pressure",
        section: Section::Trends,
        title: "work waits for disks",
        remedy: Remedy::Watch,
        advice: "Move one of the workloads that read and write most, or give data sets a faster disk.",
        needs: &[metric::PRESSURE_IO],
        check: io_pressure,
    },
];

/// Each file system with its size.
fn disks<'a>(facts: &'a NodeFacts, used: &'a str, total: &'a str) -> Vec<(&'a Series, f64)> {
    let size = |s: &Series| facts.series.of_device(total, s.device.as_deref())?.last().map(|p| p.1);
    facts
        .series
        .all(used)
        .filter_map(|s| Some((s, size(s).filter(|t| *t > 0.0)?)))
        .collect()
}

fn room(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    filled(facts, rule, metric::DISK_USED, metric::DISK_TOTAL, "")
}

fn inodes(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    filled(
        facts,
        rule,
        metric::DISK_INODES_USED,
        metric::DISK_INODES_TOTAL,
        " inodes",
    )
}

/// File systems of which something runs out: by its course, or by what is left. `things`: what they are, after a
/// number of them.
fn filled(
    facts: &NodeFacts,
    rule: &Rule<NodeFacts>,
    used_metric: &'static str,
    total_metric: &'static str,
    things: &str,
) -> Option<Vec<Finding>> {
    let all = disks(facts, used_metric, total_metric);
    if all.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    for (series, size) in all {
        let Some((at, used)) = series.last() else { continue };
        let share = used / size * 100.0;
        let past = facts.history.of_device(used_metric, series.device.as_deref());
        let course = filling(series, size, past).and_then(|f| Some((f, urgency(&f)?)));
        let level = match share {
            _ if share >= FULL => Some((Severity::Critical, FULL)),
            _ if share >= NEARLY_FULL => Some((Severity::Warning, NEARLY_FULL)),
            _ => None,
        };
        let mut evidence = Vec::new();
        if let Some((f, _)) = course {
            evidence.push(f.evidence(used_metric, series));
        }
        if let Some((_, threshold)) = level {
            let amount = |n: f64| words::value(n.round(), metric::unit(used_metric));
            let text = format!("{share:.0} % full: {} of {}{things}", amount(used), amount(size));
            evidence.push(
                Evidence::value(used_metric, used, text)
                    .against(size * threshold / 100.0)
                    .at(at),
            );
        }
        if let Some(severity) = course.map(|c| c.1).max(level.map(|l| l.0)) {
            let target = series
                .device
                .as_deref()
                .map_or_else(|| facts.node_target(), |d| facts.device_target(d));
            found.push(rule.finding(severity, target, 0.85, evidence));
        }
    }
    Some(found)
}

fn io_errors(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let by = grouped(facts, |e| match e {
        Kernel::DiskError { device, .. } => Some(device.as_str()),
        _ => None,
    });
    let finding = |(device, events): (&str, Vec<&super::KernelEvent>)| {
        let (count, last) = (events.len() as u64, events.last().map_or(0, |e| e.at_ms));
        let severity = if count >= 5 {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let text = format!("{count} I/O errors of {device}");
        let evidence = Evidence::count("kernel.disk", count, text).at(last).over(DAY_MS);
        rule.finding(severity, facts.device_target(device), 0.95, vec![evidence])
    };
    Some(by.into_iter().map(finding).collect())
}

fn damaged(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let by = grouped(facts, |e| match e {
        Kernel::Filesystem { device } => Some(device.as_str()),
        _ => None,
    });
    let finding = |(device, events): (&str, Vec<&super::KernelEvent>)| {
        let last = events.last().map_or(0, |e| e.at_ms);
        let severity = if facts.cleared_since(None, last) {
            Severity::Info
        } else {
            Severity::Critical
        };
        let evidence = Evidence::event(
            "kernel.filesystem",
            last,
            format!("{device} is damaged or was made read-only"),
        );
        rule.finding(severity, facts.device_target(device), 0.95, vec![evidence])
    };
    Some(by.into_iter().map(finding).collect())
}

fn io_pressure(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    let series = facts.series.get(metric::PRESSURE_IO)?;
    let share = series.share(|v| v >= IO_PRESSURE)?;
    // Bursts, as of checkpoints, are no matter.
    if share < 0.7 || series.points.len() < crate::stats::SAMPLES_MIN {
        return Some(Vec::new());
    }
    let level = series.median()?;
    let evidence = Evidence::value(
        metric::PRESSURE_IO,
        level,
        format!("some task waited for I/O {level:.0} % of the time"),
    )
    .against(IO_PRESSURE)
    .over(series.span_ms())
    .by("median; above the threshold in 70 % of samples");
    Some(vec![rule.finding(
        Severity::Warning,
        facts.node_target(),
        0.8,
        vec![evidence],
    )])
}
