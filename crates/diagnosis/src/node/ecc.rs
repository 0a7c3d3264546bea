//! Memory errors of GPUs.

use super::facts::{NodeFacts, per_hour};
use super::thermal::each_gpu;
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Series, Severity, metric};

/// Corrected errors an hour from which they are worth a look: NVIDIA asks nothing to be done about single-bit errors,
/// but a rate like this often comes before double-bit ones.
const CORRECTED_AN_HOUR: f64 = 1000.0;

pub(super) static RULES: &[Rule<NodeFacts>] = &[
    Rule {
        id: "gpu-ecc-uncorrected",
        section: Section::Memory,
        title: "GPU memory lost data",
        remedy: Remedy::ResetGpu,
        advice: "Results of work on it are suspect. Drain the node and reset the GPU, which replaces the worn row; if \
                 it comes again, have the GPU replaced.",
        needs: &[metric::GPU_ECC_UNCORRECTED],
        check: uncorrected,
    },
    Rule {
        id: "gpu-ecc-corrected",
        section: Section::Memory,
        title: "GPU memory corrects many errors",
        remedy: Remedy::Watch,
        advice: "Nothing is lost yet; watch for uncorrected ones.",
        needs: &[metric::GPU_ECC_CORRECTED],
        check: corrected,
    },
    Rule {
        id: "gpu-remap-pending",
        section: Section::Memory,
        title: "GPU has a worn memory row to replace",
        remedy: Remedy::ResetGpu,
        advice: "Work goes on; reset the GPU when it is free, which replaces the row.",
        needs: &[metric::GPU_REMAP_PENDING],
        check: remap_pending,
    },
    Rule {
        id: "gpu-remap-failed",
        section: Section::Memory,
        title: "GPU could not replace a worn memory row",
        remedy: Remedy::Replace,
        advice: "No spare rows are left: drain the node and have the GPU replaced.",
        needs: &[metric::GPU_REMAP_FAILED],
        check: remap_failed,
    },
];

fn uncorrected(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    each_gpu(facts, metric::GPU_ECC_UNCORRECTED, |gpu, series| {
        let grown = series.increase()?;
        if grown < 1.0 {
            return None;
        }
        let at = series.points.windows(2).rev().find(|w| w[1].1 > w[0].1)?[1].0;
        let evidence = vec![
            Evidence::value(
                metric::GPU_ECC_UNCORRECTED,
                grown,
                format!("{grown:.0} uncorrectable errors"),
            )
            .against(0.0)
            .at(at)
            .over(series.span_ms())
            .by("growth of the counter"),
        ];
        Some(rule.finding(Severity::Critical, facts.gpu_target(gpu), 0.99, evidence))
    })
}

fn corrected(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    each_gpu(facts, metric::GPU_ECC_CORRECTED, |gpu, series| {
        let grown = series.increase()?;
        let rate = per_hour(grown, series);
        if rate < CORRECTED_AN_HOUR || grown < 100.0 {
            return None;
        }
        let evidence = vec![
            Evidence::value(
                metric::GPU_ECC_CORRECTED,
                rate,
                format!("{rate:.0} corrected errors an hour"),
            )
            .unit(metric::Unit::PerHour)
            .against(CORRECTED_AN_HOUR)
            .over(series.span_ms())
            .by("growth of the counter"),
        ];
        Some(rule.finding(Severity::Warning, facts.gpu_target(gpu), 0.7, evidence))
    })
}

/// A finding for each GPU whose flag is up now.
fn flag(
    facts: &NodeFacts,
    rule: &Rule<NodeFacts>,
    metric: &'static str,
    severity: Severity,
    text: &str,
) -> Option<Vec<Finding>> {
    each_gpu(facts, metric, |gpu, series| {
        let (at, value) = Series::last(series)?;
        let evidence = || vec![Evidence::value(metric, value, text).at(at).against(0.0)];
        (value >= 1.0).then(|| rule.finding(severity, facts.gpu_target(gpu), 1.0, evidence()))
    })
}

fn remap_pending(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    flag(
        facts,
        rule,
        metric::GPU_REMAP_PENDING,
        Severity::Warning,
        "a row is to be replaced at the next reset",
    )
}

fn remap_failed(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    flag(
        facts,
        rule,
        metric::GPU_REMAP_FAILED,
        Severity::Critical,
        "replacing a row has failed",
    )
}
