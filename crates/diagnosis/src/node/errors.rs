//! Errors of the machine that the kernel tells about.

use super::facts::{DAY_MS, Kernel, NodeFacts};
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Severity};

/// Corrected errors a day from which a part wears out.
const CORRECTED_A_DAY: u64 = 24;

pub(super) static RULES: &[Rule<NodeFacts>] = &[
    Rule {
        id: "machine-check",
        section: Section::Errors,
        title: "the processor reports hardware errors",
        remedy: Remedy::Replace,
        advice: "Drain the node and test memory modules and processor.",
        needs: &["kernel log"],
        check: machine_checks,
    },
    Rule {
        id: "pcie-errors",
        section: Section::Errors,
        title: "errors on PCIe",
        remedy: Remedy::CheckCabling,
        advice: "Reseat the device, check riser and slot.",
        needs: &["kernel log"],
        check: pcie,
    },
    Rule {
        id: "kernel-stall",
        section: Section::Errors,
        title: "tasks or processors hung",
        remedy: Remedy::RebootNode,
        advice: "Read the node's events for what they waited on; drain and reboot it if it goes on.",
        needs: &["kernel log"],
        check: stalls,
    },
];

/// Time and line of each event that fits, with whether it was corrected.
fn lines(facts: &NodeFacts, pick: impl Fn(&Kernel) -> Option<(bool, &str)>) -> Vec<(i64, bool, String)> {
    facts
        .kernel
        .iter()
        .filter_map(|e| pick(&e.event).map(|(c, t)| (e.at_ms, c, t.to_owned())))
        .collect()
}

/// Errors that were corrected matter by their number, others each.
fn judged(
    facts: &NodeFacts,
    rule: &Rule<NodeFacts>,
    kind: &'static str,
    lines: &[(i64, bool, String)],
    uncorrected: Severity,
) -> Vec<Finding> {
    let Some((at, _, text)) = lines.last() else {
        return Vec::new();
    };
    let bad = lines.iter().filter(|l| !l.1).count() as u64;
    let mended = lines.len() as u64 - bad;
    let severity = match (bad, mended) {
        (1.., _) => uncorrected,
        (0, CORRECTED_A_DAY..) => Severity::Warning,
        _ => Severity::Info,
    };
    let words = format!("{bad} uncorrected, {mended} corrected; the last: {text}");
    let evidence = Evidence::count(kind, bad + mended, words).at(*at).over(DAY_MS);
    vec![rule.finding(severity, facts.node_target(), 0.9, vec![evidence])]
}

fn machine_checks(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let seen = lines(facts, |e| match e {
        Kernel::MachineCheck { corrected, text } => Some((*corrected, text)),
        _ => None,
    });
    Some(judged(facts, rule, "kernel.mce", &seen, Severity::Critical))
}

fn pcie(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let seen = lines(facts, |e| match e {
        Kernel::Pcie { corrected, text, .. } => Some((*corrected, text)),
        _ => None,
    });
    Some(judged(facts, rule, "kernel.pcie", &seen, Severity::Warning))
}

fn stalls(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let seen = lines(facts, |e| match e {
        Kernel::Stall { text } => Some((false, text)),
        _ => None,
    });
    let Some((at, _, text)) = seen.last() else {
        return Some(Vec::new());
    };
    let severity = if facts.cleared_since(None, *at) {
        Severity::Info
    } else {
        Severity::Warning
    };
    let words = format!("{} times; the last: {text}", seen.len());
    let evidence = Evidence::count("kernel.stall", seen.len() as u64, words)
        .at(*at)
        .over(DAY_MS);
    Some(vec![rule.finding(severity, facts.node_target(), 0.8, vec![evidence])])
}
