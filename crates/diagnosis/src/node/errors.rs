//! Errors of the machine that the kernel tells about.

use std::collections::BTreeMap;

use super::facts::{AmdTrouble, DAY_MS, Kernel, NodeFacts};
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
    Rule {
        id: "nvswitch-error",
        section: Section::Errors,
        title: "a switch of the NVLink fabric has errors",
        remedy: Remedy::RebootNode,
        advice: "Drain the node; reset all GPUs and switches together, or reboot it.",
        needs: &["kernel log"],
        check: nvswitch,
    },
    Rule {
        id: "amd-gpu-error",
        section: Section::Errors,
        title: "the AMD GPU's driver reports trouble",
        remedy: Remedy::ResetGpu,
        advice: "Drain the node and reset the GPU (rocm-smi --gpureset -d N), or reboot it.",
        needs: &["kernel log"],
        check: amd,
    },
    Rule {
        id: "cpu-throttled",
        section: Section::Thermal,
        title: "the processor slows itself down: too hot",
        remedy: Remedy::CheckCooling,
        advice: "Check the node's fans, air flow and room temperature.",
        needs: &["kernel log"],
        check: cpu_throttled,
    },
];

/// Errors of the fabric's switches. Which are fatal the driver says itself.
fn nvswitch(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let seen: Vec<(i64, u32, bool)> = facts
        .kernel
        .iter()
        .filter_map(|e| match &e.event {
            Kernel::NvSwitch { sxid, fatal, .. } => Some((e.at_ms, *sxid, *fatal)),
            _ => None,
        })
        .collect();
    let Some((at, sxid, _)) = seen.iter().rev().find(|s| s.2).or(seen.last()) else {
        return Some(Vec::new());
    };
    let fatal = seen.iter().filter(|s| s.2).count();
    let over = facts.cleared_since(None, *at);
    let severity = if fatal > 0 && !over {
        Severity::Critical
    } else {
        Severity::Info
    };
    let words = format!("{} errors, {fatal} of them fatal; number {sxid}", seen.len());
    let evidence = Evidence::count("kernel.nvswitch", seen.len() as u64, words)
        .at(*at)
        .over(DAY_MS);
    Some(vec![rule.finding(severity, facts.node_target(), 0.9, vec![evidence])])
}

/// The worst that AMD's driver tells of each GPU.
fn amd(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let mut worst: BTreeMap<Option<u32>, (AmdTrouble, i64, &str, u64)> = BTreeMap::new();
    for e in &facts.kernel {
        if let Kernel::AmdGpu { gpu, trouble, text } = &e.event {
            let seen = worst.entry(*gpu).or_insert((*trouble, e.at_ms, text, 0));
            seen.3 += 1;
            if *trouble >= seen.0 {
                (seen.0, seen.1, seen.2) = (*trouble, e.at_ms, text);
            }
        }
    }
    let finding = |(gpu, (trouble, at, text, count)): (Option<u32>, (AmdTrouble, i64, &str, u64))| {
        let severity = match trouble {
            _ if facts.cleared_since(gpu, at) => Severity::Info,
            AmdTrouble::PageFault => Severity::Info,
            AmdTrouble::Timeout | AmdTrouble::Reset => Severity::Warning,
            AmdTrouble::Uncorrectable | AmdTrouble::Lost => Severity::Critical,
        };
        let target = gpu.map_or_else(|| facts.node_target(), |g| facts.gpu_target(g));
        let evidence = Evidence::count("kernel.amdgpu", count, format!("{count} times; the worst: {text}"))
            .at(at)
            .over(DAY_MS);
        rule.finding(severity, target, 0.85, vec![evidence])
    };
    Some(worst.into_iter().map(finding).collect())
}

fn cpu_throttled(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let hot = |e: &&super::KernelEvent| e.event == Kernel::CpuThrottled;
    let Some(last) = facts.kernel.iter().rev().find(hot) else {
        return Some(Vec::new());
    };
    let count = facts.kernel.iter().filter(hot).count() as u64;
    // A single time is a burst; every hour is a fan.
    let severity = if count >= CORRECTED_A_DAY {
        Severity::Warning
    } else {
        Severity::Info
    };
    let evidence = Evidence::count("kernel.cpu-throttled", count, format!("{count} times"))
        .at(last.at_ms)
        .over(DAY_MS);
    Some(vec![rule.finding(severity, facts.node_target(), 0.8, vec![evidence])])
}

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
