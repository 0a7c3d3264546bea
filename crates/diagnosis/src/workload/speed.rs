//! How fast it gets on.

use serde::{Deserialize, Serialize};

use super::facts::WorkloadFacts;
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Series, Severity, metric, stats};

/// Loss of throughput over the window that is worth a warning, percent.
const SLOWER: f64 = 15.0;

pub(super) static RULES: &[Rule<WorkloadFacts>] = &[Rule {
    id: "throughput-falling",
    section: Section::Performance,
    title: "it gets slower and slower",
    remedy: Remedy::Watch,
    advice: "Look for what grows with time: memory, files, logs, data that is further away.",
    needs: &[metric::REPORTED_THROUGHPUT],
    check: falling,
}];

/// What it reports. `None`: it doesn't.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Performance {
    /// Work a second in its own unit, median.
    pub throughput: Option<f64>,
    /// Time of a step, median.
    pub step_time_ms: Option<f64>,
    /// Time of a request, median.
    pub latency_p50_ms: Option<f64>,
    /// Time of a request, 95th percentile.
    pub latency_p95_ms: Option<f64>,
    /// The newest loss.
    pub loss: Option<f64>,
    /// Share of time in which its GPUs worked, average of all. Measured, not reported.
    pub gpu_busy_percent: Option<f64>,
}

pub(super) fn section(facts: &WorkloadFacts) -> Performance {
    let steady = facts.steady();
    let median = |m: &str| steady.get(m).and_then(Series::median);
    let busy: Vec<f64> = steady
        .all(metric::GPU_UTILIZATION)
        .filter_map(|s| stats::mean(&s.values()))
        .collect();
    Performance {
        throughput: median(metric::REPORTED_THROUGHPUT),
        step_time_ms: median(metric::REPORTED_STEP_TIME),
        latency_p50_ms: median(metric::REPORTED_LATENCY),
        latency_p95_ms: steady
            .get(metric::REPORTED_LATENCY)
            .and_then(|s| stats::quantile(&s.values(), 0.95)),
        loss: facts
            .series
            .get(metric::REPORTED_LOSS)
            .and_then(Series::last)
            .map(|p| p.1),
        gpu_busy_percent: stats::mean(&busy),
    }
}

fn falling(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    let steady = facts.steady();
    let series = steady.get(metric::REPORTED_THROUGHPUT)?;
    let line = stats::line(&series.points)?;
    let lost = -line.per_second * series.span_ms() as f64 / 1000.0;
    let began = line.now + lost;
    let percent = if began > 0.0 { lost / began * 100.0 } else { 0.0 };
    // It has been about as slow before, and got over it.
    let past = facts.history.get(metric::REPORTED_THROUGHPUT).map(Series::values);
    let away = past.and_then(|p| stats::robust_z(line.now, &p, 0.02 * began.abs()));
    let usual = away.is_some_and(|z| z > -3.0);
    if !line.is_steady() || percent < SLOWER || usual {
        return Some(Vec::new());
    }
    let text = format!("from {began:.1} to {:.1} a second: {percent:.0} % less", line.now);
    let evidence = Evidence::value(metric::REPORTED_THROUGHPUT, line.now, text)
        .against(began)
        .over(series.span_ms())
        .by(stats::TREND_METHOD);
    Some(vec![rule.finding(
        Severity::Warning,
        facts.target(),
        0.75,
        vec![evidence],
    )])
}
