//! A run beside another.

use serde::{Deserialize, Serialize};

use super::facts::WorkloadFacts;
use crate::metric::{self, Unit};
use crate::{Evidence, Finding, Remedy, Series, Severity, stats, words};

/// Differences below this don't matter, however sure they are, percent.
const MATTERS: f64 = 5.0;
/// Probability by chance below which a difference is taken as real.
const SURE: f64 = 0.01;
/// Samples of a side are brought down to so many medians of blocks: neighbouring samples aren't independent.
const BLOCKS: usize = 30;

/// What is compared; whether more of it is better, worse, or just different.
const COMPARED: &[(&str, Better)] = &[
    (metric::REPORTED_THROUGHPUT, Better::More),
    (metric::REPORTED_STEP_TIME, Better::Less),
    (metric::REPORTED_LATENCY, Better::Less),
    (metric::REPORTED_LOSS, Better::Less),
    (metric::GPU_UTILIZATION, Better::Neither),
    (metric::GPU_POWER, Better::Neither),
    (metric::GPU_CLOCK_SM, Better::Neither),
    (metric::GPU_MEMORY_USED, Better::Neither),
    (metric::WORKLOAD_CPU, Better::Neither),
    (metric::WORKLOAD_MEMORY, Better::Neither),
    (metric::WORKLOAD_IO, Better::Neither),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
    Neither,
}

/// A run beside another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Id of the other.
    pub baseline: String,
    /// What both have.
    pub changes: Vec<Change>,
    /// What was asked for differently, in words: it may be the reason.
    pub differences: Vec<String>,
}

/// A metric of both runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The metric.
    pub metric: String,
    /// Of both.
    pub unit: Unit,
    /// Median of this run.
    pub now: f64,
    /// Median of the other.
    pub then: f64,
    /// Change, percent of the other. `None`: the other is zero.
    pub percent: Option<f64>,
    /// Probability of such a difference by chance. `None`: too few samples.
    pub p: Option<f64>,
    /// Rank-biserial correlation, -1 to 1. `None`: too few samples.
    pub effect: Option<f64>,
    /// What to make of it.
    pub verdict: Verdict,
    /// How it was worked out.
    pub method: String,
}

/// What to make of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Surely, and by enough to matter.
    Better,
    /// Surely, and by enough to matter.
    Worse,
    /// Surely other, which is neither better nor worse by itself.
    Different,
    /// Chance, or too small to matter.
    Same,
    /// Too few samples.
    Insufficient,
}

/// Values of a metric, brought down to blocks, of all GPUs together.
fn values(facts: &WorkloadFacts, name: &str) -> Vec<f64> {
    let steady = facts.steady();
    let count = steady.all(name).count().max(1);
    let blocks = |s: &Series| {
        stats::thin(&s.points, BLOCKS.div_ceil(count))
            .into_iter()
            .map(|p| p.1)
            .collect::<Vec<_>>()
    };
    steady.all(name).flat_map(blocks).collect()
}

/// The loss of the time both have run: it falls with time, and only like times compare.
fn losses(a: &WorkloadFacts, b: &WorkloadFacts) -> (Vec<f64>, Vec<f64>) {
    let elapsed = |f: &WorkloadFacts| -> Vec<(i64, f64)> {
        let start = f.started_ms.unwrap_or(f.now_ms - f.window_ms);
        f.series
            .get(metric::REPORTED_LOSS)
            .map(|s| s.points.iter().map(|p| (p.0 - start, p.1)).collect())
            .unwrap_or_default()
    };
    let (x, y) = (elapsed(a), elapsed(b));
    let bound = |v: &[(i64, f64)]| Some((v.first()?.0, v.last()?.0));
    let (Some((x0, x1)), Some((y0, y1))) = (bound(&x), bound(&y)) else {
        return (Vec::new(), Vec::new());
    };
    let cut = |v: &[(i64, f64)]| {
        let both: Vec<(i64, f64)> = v
            .iter()
            .filter(|p| p.0 >= x0.max(y0) && p.0 <= x1.min(y1))
            .copied()
            .collect();
        stats::thin(&both, BLOCKS).into_iter().map(|p| p.1).collect()
    };
    (cut(&x), cut(&y))
}

/// Puts a run beside another. Both leave out their first minutes.
#[must_use]
pub fn compare(now: &WorkloadFacts, then: &WorkloadFacts) -> Comparison {
    let change = |&(name, better): &(&str, Better)| {
        let (a, b) = match name {
            metric::REPORTED_LOSS => losses(now, then),
            _ => (values(now, name), values(then, name)),
        };
        let (level, was) = (stats::median(&a)?, stats::median(&b)?);
        let percent = (was != 0.0).then(|| (level - was) / was.abs() * 100.0);
        let test = stats::mann_whitney(&a, &b);
        let verdict = match (test, percent) {
            (None, _) => Verdict::Insufficient,
            (Some(t), percent) if t.p < SURE && percent.is_none_or(|p| p.abs() >= MATTERS) => match better {
                Better::Neither => Verdict::Different,
                Better::More if level > was => Verdict::Better,
                Better::Less if level < was => Verdict::Better,
                _ => Verdict::Worse,
            },
            _ => Verdict::Same,
        };
        Some(Change {
            metric: name.to_owned(),
            unit: metric::unit(name),
            now: level,
            then: was,
            percent,
            p: test.map(|t| t.p),
            effect: test.map(|t| t.effect),
            verdict,
            method: "Mann-Whitney U of block medians".to_owned(),
        })
    };
    Comparison {
        baseline: then.id.clone(),
        changes: COMPARED.iter().filter_map(change).collect(),
        differences: differences(now, then),
    }
}

fn differences(now: &WorkloadFacts, then: &WorkloadFacts) -> Vec<String> {
    let (a, b) = (now.requests, then.requests);
    let mut all = Vec::new();
    if a.gpus != b.gpus {
        all.push(format!("{} GPUs instead of {}", a.gpus, b.gpus));
    }
    let cores = |c: Option<f64>| c.map_or_else(|| "no limit".to_owned(), |c| format!("{c}"));
    if a.cpu_cores != b.cpu_cores {
        all.push(format!(
            "{} CPU cores instead of {}",
            cores(a.cpu_cores),
            cores(b.cpu_cores)
        ));
    }
    let size = |m: Option<f64>| m.map_or_else(|| "no limit".to_owned(), words::bytes);
    if a.memory_bytes != b.memory_bytes {
        all.push(format!(
            "{} of memory instead of {}",
            size(a.memory_bytes),
            size(b.memory_bytes)
        ));
    }
    if now.nodes != then.nodes {
        all.push(format!(
            "on {} instead of {}",
            now.nodes.join(", "),
            then.nodes.join(", ")
        ));
    }
    all
}

/// That it does worse than the other, if it does.
pub(super) fn finding(facts: &WorkloadFacts, comparison: &Comparison) -> Option<Finding> {
    let worse: Vec<&Change> = comparison
        .changes
        .iter()
        .filter(|c| c.verdict == Verdict::Worse)
        .collect();
    let evidence: Vec<Evidence> = worse
        .iter()
        .map(|c| {
            let percent = c.percent.map(|p| format!(" ({p:+.0} %)")).unwrap_or_default();
            let text = format!(
                "{}: {} instead of {}{percent}",
                c.metric,
                words::value(c.now, c.unit),
                words::value(c.then, c.unit)
            );
            Evidence {
                metric: c.metric.clone().into(),
                method: Some(c.method.clone().into()),
                ..Evidence::value(metric::REPORTED_THROUGHPUT, c.now, text)
                    .unit(c.unit)
                    .against(c.then)
                    .over(facts.window_ms)
            }
        })
        .collect();
    (!evidence.is_empty()).then(|| Finding {
        id: "slower-than-baseline".into(),
        severity: Severity::Warning,
        target: facts.target(),
        title: format!("it does worse than {}", comparison.baseline).into(),
        evidence,
        remedy: Remedy::Watch,
        advice: "Look at what was asked for differently, at the bottleneck, and at its nodes.".into(),
        commands: Vec::new(),
        confidence: 0.9,
    })
}
