//! Links of GPUs: NVLink and PCIe.

use super::facts::{NodeFacts, per_hour};
use super::thermal::each_gpu;
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Severity, metric};

/// NVLink replays and CRC errors an hour that a sound link may have: the protocol mends them.
const NVLINK_AN_HOUR: f64 = 100.0;
/// PCIe replays an hour from which a link is bad: eight a minute, as DCGM's health check has it.
const PCIE_AN_HOUR: f64 = 480.0;
/// Below this a GPU may have lowered its PCIe generation to save power, percent.
const BUSY: f64 = 30.0;

pub(super) static RULES: &[Rule<NodeFacts>] = &[
    Rule {
        id: "gpu-nvlink-errors",
        section: Section::Errors,
        title: "NVLink has errors",
        remedy: Remedy::CheckCabling,
        advice: "Traffic between GPUs is repeated: check bridge or cable, reset the GPUs when they are free.",
        needs: &[metric::GPU_NVLINK_ERRORS],
        check: nvlink_errors,
    },
    Rule {
        id: "gpu-nvlink-down",
        section: Section::Errors,
        title: "an NVLink is down",
        remedy: Remedy::ResetGpu,
        advice: "Traffic between GPUs takes slower ways: drain the node, reset the GPUs; then check bridge or cable.",
        needs: &["gpu inventory"],
        check: nvlink_down,
    },
    Rule {
        id: "gpu-pcie-replays",
        section: Section::Errors,
        title: "PCIe repeats packets",
        remedy: Remedy::CheckCabling,
        advice: "The link is bad: reseat the GPU, check riser and slot.",
        needs: &[metric::GPU_PCIE_REPLAYS],
        check: pcie_replays,
    },
    Rule {
        id: "gpu-pcie-degraded",
        section: Section::Errors,
        title: "PCIe runs below what GPU and slot can do",
        remedy: Remedy::CheckCabling,
        advice: "Transfers to the GPU are slow: reseat the GPU, check riser and slot, reboot.",
        needs: &["gpu inventory"],
        check: pcie_degraded,
    },
];

fn nvlink_errors(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.series.all(metric::GPU_NVLINK_ERRORS).next()?;
    let mut found: Vec<Finding> = Vec::new();
    for (series, grown) in facts.grown(metric::GPU_NVLINK_ERRORS) {
        let Some(gpu) = series.gpu else { continue };
        let kind = series.device.as_deref().unwrap_or("all kinds");
        let rate = per_hour(grown, series);
        // A link that had to be brought up again is never sound.
        let recovery = kind.contains("recovery") && grown >= 1.0;
        if !recovery && (rate < NVLINK_AN_HOUR || grown < 10.0) {
            continue;
        }
        let evidence = Evidence::value(
            metric::GPU_NVLINK_ERRORS,
            rate,
            format!("{grown:.0} NVLink errors ({kind}), {rate:.0} an hour"),
        )
        .unit(metric::Unit::PerHour)
        .against(if recovery { 0.0 } else { NVLINK_AN_HOUR })
        .over(series.span_ms())
        .by("growth of the counter");
        let target = facts.gpu_target(gpu);
        match found.iter_mut().find(|f| f.target == target) {
            Some(f) => f.evidence.push(evidence),
            None => found.push(rule.finding(Severity::Warning, target, 0.85, vec![evidence])),
        }
    }
    Some(found)
}

fn nvlink_down(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    let known: Vec<_> = facts
        .gpus
        .iter()
        .filter_map(|g| Some((g.index, g.nvlinks_active?, g.nvlinks_total?)))
        .collect();
    if known.is_empty() {
        return None;
    }
    let finding = |(gpu, active, total): (u32, u32, u32)| {
        let text = format!("{active} of {total} NVLinks are up");
        let evidence = Evidence::count("gpu.nvlink.active", u64::from(active), text)
            .against(f64::from(total))
            .at(facts.now_ms);
        rule.finding(Severity::Warning, facts.gpu_target(gpu), 0.95, vec![evidence])
    };
    Some(known.into_iter().filter(|k| k.1 < k.2).map(finding).collect())
}

fn pcie_replays(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    each_gpu(facts, metric::GPU_PCIE_REPLAYS, |gpu, series| {
        let grown = series.increase()?;
        let rate = per_hour(grown, series);
        if rate < PCIE_AN_HOUR || grown < 20.0 {
            return None;
        }
        let evidence = vec![
            Evidence::value(metric::GPU_PCIE_REPLAYS, rate, format!("{rate:.0} replays an hour"))
                .unit(metric::Unit::PerHour)
                .against(PCIE_AN_HOUR)
                .over(series.span_ms())
                .by("growth of the counter"),
        ];
        Some(rule.finding(Severity::Warning, facts.gpu_target(gpu), 0.85, evidence))
    })
}

fn pcie_degraded(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    let sampled = |metric: &str, gpu: u32| facts.last(metric, gpu).map(|v| v as u32);
    let width = |g: &super::GpuFacts| {
        Some((
            g.pcie_width.or_else(|| sampled(metric::GPU_PCIE_WIDTH, g.index))?,
            g.pcie_width_max?,
        ))
    };
    let generation = |g: &super::GpuFacts| {
        let now = g
            .pcie_generation
            .or_else(|| sampled(metric::GPU_PCIE_GENERATION, g.index));
        Some((now?, g.pcie_generation_max?))
    };
    if facts.gpus.iter().all(|g| width(g).is_none() && generation(g).is_none()) {
        return None;
    }
    let mut found = Vec::new();
    for gpu in &facts.gpus {
        let mut evidence = Vec::new();
        if let Some((now, max)) = width(gpu).filter(|(now, max)| now < max && *now > 0) {
            evidence.push(
                Evidence::count("gpu.pcie.width", u64::from(now), format!("{now} of {max} PCIe lanes"))
                    .against(f64::from(max))
                    .at(facts.now_ms),
            );
        }
        let busy = facts
            .last(metric::GPU_UTILIZATION, gpu.index)
            .is_some_and(|u| u >= BUSY);
        if let Some((now, max)) = generation(gpu).filter(|(now, max)| now < max && *now > 0 && busy) {
            evidence.push(
                Evidence::count(
                    "gpu.pcie.generation",
                    u64::from(now),
                    format!("PCIe {now} instead of {max} while busy"),
                )
                .against(f64::from(max))
                .at(facts.now_ms),
            );
        }
        if !evidence.is_empty() {
            found.push(rule.finding(Severity::Warning, facts.gpu_target(gpu.index), 0.9, evidence));
        }
    }
    Some(found)
}
