//! The course of each metric, beside the node's own past and its peers.

use serde::{Deserialize, Serialize};

use super::facts::NodeFacts;
use crate::metric::{self, Unit};
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Series, Severity, stats, words};

/// Id of the rule about levels unlike the past.
pub(super) const UNUSUAL: &str = "unusual-level";

/// Deviations from the usual that count as an anomaly.
const STRANGE: f64 = 5.0;

/// Metrics whose level follows from the machine rather than from what happens to run: how far they have to stray to
/// matter (a share of the usual, and at least so much).
const WATCHED: &[(&str, f64, f64)] = &[
    (metric::GPU_TEMPERATURE, 0.1, 8.0),
    (metric::MEMORY_USAGE, 0.3, 4.0 * 1024.0 * 1024.0 * 1024.0),
    (metric::PRESSURE_MEMORY, 0.5, 10.0),
    (metric::PRESSURE_IO, 0.5, 20.0),
    (metric::NETWORK_THROUGHPUT, 0.5, 1e8),
    (metric::DISK_THROUGHPUT, 0.5, 1e8),
    (metric::CPU_USAGE, 0.5, 30.0),
];

pub(super) static RULES: &[Rule<NodeFacts>] = &[
    Rule {
        id: "gpu-clock-low",
        section: Section::Trends,
        title: "GPU runs slower than its like at the same work",
        remedy: Remedy::ResetGpu,
        advice: "Nothing says why: look for locked clocks (nvidia-smi -q -d CLOCK), reset the GPU when it is free.",
        needs: &[metric::GPU_CLOCK_SM, metric::GPU_UTILIZATION],
        check: clock_low,
    },
    Rule {
        id: UNUSUAL,
        section: Section::Trends,
        title: "unlike its own past",
        remedy: Remedy::Watch,
        advice: "Unusual isn't wrong: look what has changed.",
        needs: &["history"],
        check: unusual,
    },
];

/// The course of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trend {
    /// The metric.
    pub metric: String,
    /// Of which GPU.
    pub gpu: Option<u32>,
    /// Of which device.
    pub device: Option<String>,
    /// Of all values.
    pub unit: Unit,
    /// Median of the window.
    pub median: f64,
    /// Change an hour. `None`: too few samples.
    pub per_hour: Option<f64>,
    /// Whether it rises or falls steadily. `None`: too few samples.
    pub direction: Option<Direction>,
    /// Median before the window. `None`: too little history.
    pub usual: Option<f64>,
    /// Deviations from the past. `None`: too little history.
    pub z_past: Option<f64>,
    /// Deviations from peers. `None`: too few peers.
    pub z_peers: Option<f64>,
    /// How it was worked out.
    pub method: String,
}

/// Which way a metric goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Up, steadily.
    Rising,
    /// Down, steadily.
    Falling,
    /// Neither.
    Level,
}

/// What the past was like, as medians of 60 blocks at most: neighbouring samples say the same.
fn past(facts: &NodeFacts, series: &Series) -> Option<Vec<f64>> {
    let same = |s: &&Series| s.metric == series.metric && s.gpu == series.gpu && s.device == series.device;
    let past = facts.history.iter().find(same)?;
    Some(stats::thin(&past.points, 60).into_iter().map(|p| p.1).collect())
}

/// The least deviation that is taken for granted, so that constants don't make wonders.
fn sigma_min(level: f64) -> f64 {
    level.abs() * 0.02
}

/// The course of each gauge.
pub(super) fn trends(facts: &NodeFacts) -> Vec<Trend> {
    const COUNTERS: &[&str] = &[
        metric::GPU_THROTTLE,
        metric::GPU_ECC_CORRECTED,
        metric::GPU_ECC_UNCORRECTED,
        metric::GPU_NVLINK_ERRORS,
        metric::GPU_PCIE_REPLAYS,
        metric::NETWORK_ERRORS,
        metric::GPU_REMAP_PENDING,
        metric::GPU_REMAP_FAILED,
        metric::GPU_REMAP_UNCORRECTED,
    ];
    let trend = |s: &Series| {
        let median = s.median()?;
        let line = stats::line(&s.points);
        let past = past(facts, s).filter(|p| p.len() >= stats::SAMPLES_MIN);
        let usual = past.as_deref().and_then(stats::median);
        Some(Trend {
            metric: s.metric.to_string(),
            gpu: s.gpu,
            device: s.device.clone(),
            unit: metric::unit(&s.metric),
            median,
            per_hour: line.map(|l| l.per_second * 3600.0),
            direction: line.map(|l| match l {
                l if !l.is_steady() => Direction::Level,
                l if l.per_second > 0.0 => Direction::Rising,
                l if l.per_second < 0.0 => Direction::Falling,
                _ => Direction::Level,
            }),
            usual,
            z_past: past
                .as_deref()
                .and_then(|p| stats::robust_z(median, p, sigma_min(usual.unwrap_or(0.0)))),
            z_peers: stats::robust_z(median, &facts.peers_of(&s.metric), sigma_min(median)),
            method: format!("median; {}; z by median and MAD", stats::TREND_METHOD),
        })
    };
    facts
        .series
        .iter()
        .filter(|s| !COUNTERS.contains(&&*s.metric))
        .filter_map(trend)
        .collect()
}

fn unusual(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    if facts.history.is_empty() {
        return None;
    }
    let look = |series: &Series| {
        let (_, share, least) = WATCHED.iter().find(|w| w.0 == series.metric)?;
        let usual = past(facts, series)?;
        let level = series.median()?;
        let middle = stats::median(&usual)?;
        let z = stats::robust_z(level, &usual, sigma_min(middle))?;
        if z.abs() < STRANGE || (level - middle).abs() < least.max(share * middle.abs()) {
            return None;
        }
        let unit = metric::unit(&series.metric);
        let evidence = Evidence {
            metric: series.metric.clone(),
            text: format!(
                "{}: {} where {} is usual ({z:+.0} deviations)",
                series.metric,
                words::value(level, unit),
                words::value(middle, unit)
            ),
            ..Evidence::value(metric::CPU_USAGE, level, "")
                .unit(unit)
                .against(middle)
                .over(series.span_ms())
                .by("median and MAD of the past")
        };
        let target = match (series.gpu, &series.device) {
            (Some(gpu), _) => facts.gpu_target(gpu),
            (None, Some(device)) => facts.device_target(device),
            (None, None) => facts.node_target(),
        };
        Some(rule.finding(Severity::Info, target, 0.5, vec![evidence]))
    };
    Some(facts.series.iter().filter_map(look).collect())
}

fn clock_low(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    // The clock while busy, by samples of both at about one time.
    let busy_clock = |gpu: u32| {
        let clock = facts.series.of_gpu(metric::GPU_CLOCK_SM, gpu)?;
        let busy = facts.series.of_gpu(metric::GPU_UTILIZATION, gpu)?;
        (busy.median()? >= 80.0).then(|| clock.median()).flatten()
    };
    let gpus = facts.gpu_indexes();
    gpus.iter()
        .find(|g| facts.series.of_gpu(metric::GPU_CLOCK_SM, **g).is_some())?;
    let all: Vec<(u32, f64)> = gpus.into_iter().filter_map(|g| busy_clock(g).map(|c| (g, c))).collect();
    let look = |&(gpu, clock): &(u32, f64)| {
        let model = |g: u32| facts.gpu(g).and_then(|g| g.model.as_deref());
        let like: Vec<f64> = all
            .iter()
            .filter(|o| o.0 != gpu && model(o.0) == model(gpu))
            .map(|o| o.1)
            .collect();
        let usual = stats::median(&like).filter(|_| like.len() >= 3)?;
        // Whoever says why it is slow is told by its own rule.
        let explained = facts
            .series
            .of_gpu(metric::GPU_THROTTLE, gpu)
            .and_then(|s| s.share(|v| crate::throttle::of_sample(v) & !0x1 != 0))
            .is_some_and(|share| share >= 0.1);
        if explained || clock >= 0.7 * usual {
            return None;
        }
        let text = format!("{clock:.0} MHz while {} like it run at {usual:.0} MHz", like.len());
        let evidence = Evidence::value(metric::GPU_CLOCK_SM, clock, text)
            .against(usual)
            .over(facts.window_ms)
            .by("median of the node's busy GPUs");
        Some(rule.finding(Severity::Warning, facts.gpu_target(gpu), 0.7, vec![evidence]))
    };
    Some(all.iter().filter_map(look).collect())
}
