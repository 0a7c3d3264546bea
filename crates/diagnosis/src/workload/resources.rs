//! What it uses, beside what it asked for.

use serde::{Deserialize, Serialize};

use super::facts::WorkloadFacts;
use crate::node::{filling, urgency};
use crate::rule::{Rule, Section};
use crate::throttle::{self, Kind};
use crate::{Evidence, Finding, Remedy, Series, Severity, metric, stats, words};

/// Time of rest after which held GPUs are wasted, and how long it has to have been running: loading takes its time.
const IDLE_MS: i64 = 30 * 60_000;
const IDLE_AFTER_MS: i64 = 45 * 60_000;
/// A GPU at or below this does nothing, percent.
const IDLE: f64 = 2.0;
/// Share of samples with slowed clocks from which it costs something.
const THROTTLED: f64 = 0.05;
/// Below this a GPU may be kept waiting: it raises the question, other signals answer it. Percent.
const BUSY_ENOUGH: f64 = 70.0;
/// Above this a GPU may be slowed down by heat: it raises the question, clock event reasons answer it. Celsius.
const WARM: f64 = 80.0;
/// Id of the rule about memory that isn't used.
pub(super) const OVER_ASKED: &str = "memory-over-asked";

pub(super) static RULES: &[Rule<WorkloadFacts>] = &[
    Rule {
        id: "workload-memory-growth",
        section: Section::Resources,
        title: "it will reach its memory limit",
        remedy: Remedy::MoreMemory,
        advice: "Raise the limit to gain time, and look for what is kept: caches, lists of results, loader workers.",
        needs: &[metric::WORKLOAD_MEMORY, "memory limit"],
        check: growth,
    },
    Rule {
        id: OVER_ASKED,
        section: Section::Resources,
        title: "it uses little of the memory that it asked for",
        remedy: Remedy::AskLess,
        advice: "A smaller limit lets other work onto the node.",
        needs: &[metric::WORKLOAD_MEMORY, "memory limit"],
        check: over_asked,
    },
    Rule {
        id: "gpu-idle-held",
        section: Section::Resources,
        title: "it holds GPUs and doesn't use them",
        remedy: Remedy::AskLess,
        advice: "Cancel it if it hangs or is forgotten.",
        needs: &[metric::GPU_UTILIZATION],
        check: idle,
    },
    Rule {
        id: "gpu-unused",
        section: Section::Resources,
        title: "it uses some of its GPUs only",
        remedy: Remedy::AskLess,
        advice: "Ask for fewer GPUs, or make the program use all of them.",
        needs: &[metric::GPU_UTILIZATION],
        check: unused,
    },
    Rule {
        id: "workload-gpu-throttled",
        section: Section::Resources,
        title: "its GPUs are slowed down",
        remedy: Remedy::Migrate,
        advice: "Move it to a node whose GPUs aren't.",
        needs: &[metric::GPU_THROTTLE],
        check: throttled,
    },
    Rule {
        id: "gpu-warm",
        section: Section::Resources,
        title: "its GPUs are warm; whether they are slowed down isn't measured",
        remedy: Remedy::Watch,
        advice: "Look at the node's own diagnosis.",
        needs: &[metric::GPU_TEMPERATURE],
        check: warm,
    },
    Rule {
        id: "gpu-underused",
        section: Section::Performance,
        title: "its GPUs wait, and no signal says for what",
        remedy: Remedy::Watch,
        advice: "Let it report its step and data times, or profile a few steps.",
        needs: &[metric::GPU_UTILIZATION],
        check: underused,
    },
];

/// What it uses, beside what it asked for. What wasn't measured is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UseSection {
    /// Each of its GPUs.
    pub gpus: Vec<GpuUse>,
    /// GPUs that it asked for.
    pub gpus_asked: u32,
    /// Cores in use, median.
    pub cpu_cores: Option<f64>,
    /// Cores that it asked for.
    pub cpu_cores_asked: Option<f64>,
    /// Memory in use, newest.
    pub memory_bytes: Option<f64>,
    /// The most memory used.
    pub memory_peak_bytes: Option<f64>,
    /// Its memory limit.
    pub memory_limit_bytes: Option<f64>,
    /// Read and written, median.
    pub io_bytes_per_second: Option<f64>,
}

/// What it uses of a GPU. What wasn't measured is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuUse {
    /// Its number among those of the workload.
    pub gpu: u32,
    /// Utilization, median of the time under way.
    pub utilization_percent: Option<f64>,
    /// Memory in use, greatest.
    pub memory_used_bytes: Option<f64>,
    /// Memory of the device.
    pub memory_total_bytes: Option<f64>,
    /// Temperature, highest.
    pub celsius_max: Option<f64>,
    /// Power, median.
    pub power_watts: Option<f64>,
}

pub(super) fn section(facts: &WorkloadFacts) -> UseSection {
    let median = |m: &str| facts.series.get(m).and_then(Series::median);
    let steady = facts.steady();
    let gpu = |g: u32| {
        let max = |m: &str| facts.series.of_gpu(m, g).and_then(Series::max).map(|p| p.1);
        GpuUse {
            gpu: g,
            utilization_percent: steady.of_gpu(metric::GPU_UTILIZATION, g).and_then(Series::median),
            memory_used_bytes: max(metric::GPU_MEMORY_USED),
            memory_total_bytes: max(metric::GPU_MEMORY_TOTAL),
            celsius_max: max(metric::GPU_TEMPERATURE),
            power_watts: steady.of_gpu(metric::GPU_POWER, g).and_then(Series::median),
        }
    };
    UseSection {
        gpus: facts.series.gpus().into_iter().map(gpu).collect(),
        gpus_asked: facts.requests.gpus,
        cpu_cores: median(metric::WORKLOAD_CPU),
        cpu_cores_asked: facts.requests.cpu_cores,
        memory_bytes: facts
            .series
            .get(metric::WORKLOAD_MEMORY)
            .and_then(Series::last)
            .map(|p| p.1),
        memory_peak_bytes: facts.memory_peak(),
        memory_limit_bytes: facts.requests.memory_bytes,
        io_bytes_per_second: median(metric::WORKLOAD_IO),
    }
}

fn growth(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    let limit = facts.requests.memory_bytes?;
    let series = facts.series.get(metric::WORKLOAD_MEMORY)?;
    let found =
        filling(series, limit, facts.history.get(metric::WORKLOAD_MEMORY)).and_then(|f| Some((f, urgency(&f)?)));
    let finding = |(f, severity): (crate::node::Filling, Severity)| {
        rule.finding(
            severity,
            facts.target(),
            0.8,
            vec![f.evidence(metric::WORKLOAD_MEMORY, series)],
        )
    };
    Some(found.map(finding).into_iter().collect())
}

fn over_asked(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    const WORTH_IT: f64 = 16.0 * 1024.0 * 1024.0 * 1024.0;
    let limit = facts.requests.memory_bytes?;
    let series = facts.series.get(metric::WORKLOAD_MEMORY)?;
    let peak = facts.memory_peak()?;
    if !facts.runs_for(3_600_000) || peak > 0.25 * limit || limit < WORTH_IT {
        return Some(Vec::new());
    }
    let text = format!("{} used at most of {} asked", words::bytes(peak), words::bytes(limit));
    let evidence = Evidence::value(metric::WORKLOAD_MEMORY, peak, text)
        .against(limit)
        .over(series.span_ms());
    Some(vec![rule.finding(Severity::Info, facts.target(), 0.7, vec![evidence])])
}

/// Its GPUs' utilization.
fn busy(facts: &WorkloadFacts) -> Option<Vec<&Series>> {
    let all: Vec<&Series> = facts.series.all(metric::GPU_UTILIZATION).collect();
    (!all.is_empty()).then_some(all)
}

/// The greatest sample of the last while, if there are enough.
fn highest_lately(series: &Series, facts: &WorkloadFacts) -> Option<f64> {
    let from = facts.now_ms - IDLE_MS;
    let lately = series.since(from);
    let covers = series.points.first().is_some_and(|p| p.0 <= from);
    (covers && lately.len() >= stats::SAMPLES_MIN).then(|| lately.iter().map(|p| p.1).fold(0.0, f64::max))
}

fn idle(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    let all = busy(facts)?;
    let highest: Option<Vec<f64>> = all.iter().map(|s| highest_lately(s, facts)).collect();
    let at_rest = highest.is_some_and(|h| h.iter().all(|v| *v <= IDLE));
    if !facts.runs_for(IDLE_AFTER_MS) || !at_rest {
        return Some(Vec::new());
    }
    let text = format!("{} GPUs at rest for {}", all.len(), words::duration(IDLE_MS));
    let evidence = Evidence::value(metric::GPU_UTILIZATION, 0.0, text)
        .against(IDLE)
        .over(IDLE_MS);
    Some(vec![rule.finding(
        Severity::Warning,
        facts.target(),
        0.85,
        vec![evidence],
    )])
}

fn unused(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    let all = busy(facts)?;
    if !facts.runs_for(IDLE_AFTER_MS) {
        return Some(Vec::new());
    }
    let (mut rest, mut work) = (Vec::new(), 0);
    for s in &all {
        match (highest_lately(s, facts), s.gpu) {
            (Some(v), Some(gpu)) if v <= IDLE => rest.push(gpu.to_string()),
            (Some(v), _) if v >= 20.0 => work += 1,
            _ => {}
        }
    }
    if rest.is_empty() || work == 0 {
        return Some(Vec::new());
    }
    let text = format!(
        "GPUs {} of {} did nothing for {}",
        rest.join(", "),
        all.len(),
        words::duration(IDLE_MS)
    );
    let evidence = Evidence::value(metric::GPU_UTILIZATION, 0.0, text)
        .against(IDLE)
        .over(IDLE_MS);
    Some(vec![rule.finding(
        Severity::Warning,
        facts.target(),
        0.85,
        vec![evidence],
    )])
}

fn throttled(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    facts.series.all(metric::GPU_THROTTLE).next()?;
    let slowed = [Kind::SoftHeat, Kind::HardHeat, Kind::Hard, Kind::PowerBrake]
        .map(throttle::bits)
        .iter()
        .fold(0, |a, b| a | b);
    let mut evidence = Vec::new();
    for s in facts.series.all(metric::GPU_THROTTLE) {
        let share = s.share(|v| throttle::of_sample(v) & slowed != 0).unwrap_or(0.0);
        if share >= THROTTLED {
            let seen = s.points.iter().fold(0, |bits, p| bits | throttle::of_sample(p.1)) & slowed;
            let why: Vec<&str> = throttle::TABLE
                .iter()
                .filter(|r| seen & r.bit != 0)
                .map(|r| r.text)
                .collect();
            let text = format!(
                "GPU {}: {} in {}",
                s.gpu.unwrap_or(0),
                why.join(", "),
                words::samples(share)
            );
            evidence.push(
                Evidence::value(metric::GPU_THROTTLE, share * 100.0, text)
                    .unit(metric::Unit::Percent)
                    .against(THROTTLED * 100.0)
                    .over(s.span_ms())
                    .by("NVML clock event reasons"),
            );
        }
    }
    let finding = |evidence| rule.finding(Severity::Warning, facts.target(), 0.95, evidence);
    Some(
        Some(evidence)
            .filter(|e| !e.is_empty())
            .map(finding)
            .into_iter()
            .collect(),
    )
}

fn warm(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    facts.series.all(metric::GPU_TEMPERATURE).next()?;
    let known = facts.series.all(metric::GPU_THROTTLE).next().is_some();
    let level = super::gpu_level(facts, metric::GPU_TEMPERATURE).filter(|t| *t > WARM && !known);
    let finding = |t: f64| {
        let evidence = Evidence::value(metric::GPU_TEMPERATURE, t, format!("{t:.0} °C"))
            .against(WARM)
            .over(facts.window_ms);
        rule.finding(Severity::Info, facts.target(), 0.3, vec![evidence])
    };
    Some(level.map(finding).into_iter().collect())
}

fn underused(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    let level = super::gpu_level(facts, metric::GPU_UTILIZATION)?;
    if level >= BUSY_ENOUGH || level <= IDLE || super::bottleneck::tell(facts).class.is_some() {
        return Some(Vec::new());
    }
    let evidence = Evidence::value(metric::GPU_UTILIZATION, level, format!("{level:.0} % in the middle"))
        .against(BUSY_ENOUGH)
        .over(facts.window_ms);
    Some(vec![rule.finding(Severity::Info, facts.target(), 0.4, vec![evidence])])
}
