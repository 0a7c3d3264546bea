//! Output that is more than anybody reads, or than could be kept.

use super::facts::WorkloadFacts;
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Series, Severity, metric, stats, words};

/// The rate is that of this long.
const LATELY_MS: i64 = 10 * 60_000;
/// More lines a second than this are a flood: 86 million a day, which nobody reads and every search has to pass over.
const LINES: f64 = 1_000.0;
/// More text a second than this is one, too: the gateway's 20 GiB for all workloads' output are full in hours.
const BYTES: f64 = 1024.0 * 1024.0;
/// The rule's id.
pub(super) const FLOOD: &str = "log-flood";

pub(super) static RULES: &[Rule<WorkloadFacts>] = &[Rule {
    id: FLOOD,
    section: Section::Resources,
    title: "it floods its log",
    remedy: Remedy::FixProgram,
    advice: "Write less: a higher log level, a progress bar that isn't drawn anew for each step, data into files.",
    needs: &[metric::WORKLOAD_LOG_LINES],
    check: flood,
}];

fn flood(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    let lines = facts.series.get(metric::WORKLOAD_LOG_LINES)?;
    let lost = facts.series.get(metric::WORKLOAD_LOG_LOST);
    let mut evidence: Vec<Evidence> = Vec::new();
    if let Some((series, lost)) = lost.and_then(|s| Some((s, s.increase().filter(|n| *n > 0.0)?))) {
        let text = format!("{lost:.0} lines were lost: more was written than could be sent and kept");
        let mut found = Evidence::count(metric::WORKLOAD_LOG_LOST, lost as u64, text).over(series.span_ms());
        found.at_ms = series.last().map(|p| p.0);
        evidence.push(found);
    }
    let losing = !evidence.is_empty();
    let bytes = facts.series.get(metric::WORKLOAD_LOG_BYTES);
    let rates = [
        (metric::WORKLOAD_LOG_LINES, Some(lines), LINES),
        (metric::WORKLOAD_LOG_BYTES, bytes, BYTES),
    ];
    for (name, series, limit) in rates {
        let Some(rate) = series.and_then(|series| level(facts, series)) else {
            continue;
        };
        if rate >= limit || losing {
            let text = format!("it writes {}", words::value(rate, metric::unit(name)));
            let found = Evidence::value(name, rate, text).against(limit).over(LATELY_MS);
            evidence.push(found.by("median of the last 10 min"));
        }
    }
    if evidence.is_empty() {
        return Some(Vec::new());
    }
    // Much output harms nobody else; lines that are gone are missed.
    let severity = if losing { Severity::Warning } else { Severity::Info };
    Some(vec![rule.finding(severity, facts.target(), 0.9, evidence)])
}

/// The rate of the last while.
fn level(facts: &WorkloadFacts, series: &Series) -> Option<f64> {
    let lately = series.since(facts.now_ms - LATELY_MS);
    stats::median(&lately.iter().map(|p| p.1).collect::<Vec<_>>())
}
