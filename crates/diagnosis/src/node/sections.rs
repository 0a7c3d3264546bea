//! The figures that stand beside the findings.

use serde::{Deserialize, Serialize};

use super::facts::{Kernel, NodeFacts};
use super::trends::{self, Trend};
use super::{Filling, course};
use crate::metric::{self, Unit};
use crate::throttle::{self, Kind};
use crate::{Finding, Series, Status, finding, stats, xid};

/// Temperatures, throttling, fans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThermalSection {
    /// All told; `unknown` if a GPU's temperature or throttling wasn't measured, or there is none.
    pub status: Status,
    /// Each GPU.
    pub gpus: Vec<GpuThermal>,
}

/// How hot a GPU is. What wasn't measured is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuThermal {
    /// Its index.
    pub gpu: u32,
    /// The newest temperature.
    pub celsius: Option<f64>,
    /// The highest of the window.
    pub celsius_max: Option<f64>,
    /// Where the hardware slows down, as the device reports it.
    pub slowdown_celsius: Option<f64>,
    /// Where the hardware switches off, as the device reports it.
    pub shutdown_celsius: Option<f64>,
    /// Newest fan speed, percent.
    pub fan_percent: Option<f64>,
    /// Newest power draw.
    pub power_watts: Option<f64>,
    /// Power limit in force.
    pub power_limit_watts: Option<f64>,
    /// Why it ran slower than it could. `None`: not measured; empty: it didn't.
    pub throttle: Option<Vec<ThrottleShare>>,
}

/// A reason for slower clocks, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThrottleShare {
    /// NVML's name of it, as `sw-power-cap`.
    pub reason: String,
    /// Share of samples, percent.
    pub percent: f64,
    /// Whether nothing is wrong with that.
    pub normal: bool,
}

/// RAM, swap, memory of GPUs. What wasn't measured is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemorySection {
    /// All told; `unknown` if use and size weren't measured.
    pub status: Status,
    /// In use, newest.
    pub used_bytes: Option<f64>,
    /// Of the machine.
    pub total_bytes: Option<f64>,
    /// In use, percent.
    pub used_percent: Option<f64>,
    /// Swapped out, newest.
    pub swap_used_bytes: Option<f64>,
    /// Read from and written to swap, median.
    pub swap_bytes_per_second: Option<f64>,
    /// Waiting for memory, median, percent.
    pub pressure_percent: Option<f64>,
    /// All tasks waiting for memory, median, percent.
    pub pressure_full_percent: Option<f64>,
    /// Until it is full, if it goes on like this. `None`: it doesn't fill up, or that can't be told.
    pub exhausted_in_ms: Option<i64>,
    /// Processes that the kernel killed for want of memory in the last day. `None`: its log isn't read.
    pub oom_kills: Option<u64>,
    /// Each GPU.
    pub gpus: Vec<GpuMemory>,
}

/// Memory of a GPU. What wasn't measured is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuMemory {
    /// Its index.
    pub gpu: u32,
    /// In use, newest.
    pub used_bytes: Option<f64>,
    /// Of the device.
    pub total_bytes: Option<f64>,
    /// Corrected errors in the window.
    pub ecc_corrected: Option<f64>,
    /// Uncorrectable errors in the window.
    pub ecc_uncorrected: Option<f64>,
    /// Whether a row is replaced at the next reset.
    pub remap_pending: Option<bool>,
    /// Whether replacing a row has failed.
    pub remap_failed: Option<bool>,
}

/// Errors of the last day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorsSection {
    /// All told; `unknown` if the kernel's log isn't read.
    pub status: Status,
    /// Like ones together, worst first by number.
    pub groups: Vec<ErrorGroup>,
}

/// Like errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorGroup {
    /// `kernel`, a service, or a workload.
    pub source: String,
    /// `warn`, `error` or `fatal`.
    pub level: String,
    /// What it says.
    pub text: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first_ms: i64,
    /// The last of them.
    pub last_ms: i64,
}

/// Course of each metric, beside the node's past and its peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrendsSection {
    /// All told; `unknown` without samples.
    pub status: Status,
    /// Each gauge.
    pub trends: Vec<Trend>,
    /// What is unlike the past or unlike peers.
    pub anomalies: Vec<Finding>,
}

/// Figures of a metric over the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricStats {
    /// The metric.
    pub metric: String,
    /// Of which GPU.
    pub gpu: Option<u32>,
    /// Of which device.
    pub device: Option<String>,
    /// Of all values.
    pub unit: Unit,
    /// Samples.
    pub count: usize,
    /// Least.
    pub min: f64,
    /// Average.
    pub avg: f64,
    /// Middle.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Greatest.
    pub max: f64,
    /// Newest.
    pub last: f64,
    /// When the newest was taken.
    pub last_ms: i64,
}

pub(super) fn thermal(facts: &NodeFacts, findings: &[Finding]) -> ThermalSection {
    let gpus: Vec<GpuThermal> = facts.gpu_indexes().into_iter().map(|g| gpu_thermal(facts, g)).collect();
    let measured = !gpus.is_empty()
        && gpus
            .iter()
            .all(|g| g.throttle.is_some() || (g.celsius.is_some() && g.slowdown_celsius.is_some()));
    ThermalSection {
        status: finding::status(findings, measured),
        gpus,
    }
}

fn gpu_thermal(facts: &NodeFacts, gpu: u32) -> GpuThermal {
    let share = |s: &Series| {
        let with = |r: &throttle::Reason| {
            let share = s.share(|v| throttle::of_sample(v) & r.bit != 0)?;
            (share > 0.0).then(|| ThrottleShare {
                reason: r.name.to_owned(),
                percent: share * 100.0,
                normal: r.kind == Kind::Normal,
            })
        };
        throttle::TABLE
            .iter()
            .filter(|r| r.bit != 0x1)
            .filter_map(with)
            .collect()
    };
    GpuThermal {
        gpu,
        celsius: facts.last(metric::GPU_TEMPERATURE, gpu),
        celsius_max: facts
            .series
            .of_gpu(metric::GPU_TEMPERATURE, gpu)
            .and_then(Series::max)
            .map(|p| p.1),
        slowdown_celsius: facts.slowdown(gpu),
        shutdown_celsius: facts.shutdown(gpu),
        fan_percent: facts.last(metric::GPU_FAN, gpu),
        power_watts: facts.last(metric::GPU_POWER, gpu),
        power_limit_watts: facts.last(metric::GPU_POWER_LIMIT, gpu),
        throttle: facts.series.of_gpu(metric::GPU_THROTTLE, gpu).map(share),
    }
}

pub(super) fn memory(facts: &NodeFacts, findings: &[Finding]) -> MemorySection {
    let last = |m: &str| facts.series.get(m).and_then(Series::last).map(|p| p.1);
    let median = |m: &str| facts.series.get(m).and_then(Series::median);
    let (used, total) = (last(metric::MEMORY_USAGE), facts.memory_total());
    let swap = match (median(metric::SWAP_IN), median(metric::SWAP_OUT)) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0.0) + b.unwrap_or(0.0)),
    };
    let filling: Option<Filling> = total
        .zip(facts.series.get(metric::MEMORY_USAGE))
        .and_then(|(t, s)| course::filling(s, t, None));
    let flag = |m: &str, g: u32| facts.last(m, g).map(|v| v >= 1.0);
    let grown = |m: &str, g: u32| facts.series.of_gpu(m, g).and_then(Series::increase);
    let kills = facts
        .kernel
        .iter()
        .filter(|e| matches!(e.event, Kernel::OomKill { .. }))
        .count() as u64;
    let gpu = |g: u32| GpuMemory {
        gpu: g,
        used_bytes: facts.last(metric::GPU_MEMORY_USED, g),
        total_bytes: facts.last(metric::GPU_MEMORY_TOTAL, g),
        ecc_corrected: grown(metric::GPU_ECC_CORRECTED, g),
        ecc_uncorrected: grown(metric::GPU_ECC_UNCORRECTED, g),
        remap_pending: flag(metric::GPU_REMAP_PENDING, g),
        remap_failed: flag(metric::GPU_REMAP_FAILED, g),
    };
    MemorySection {
        status: finding::status(findings, used.is_some() && total.is_some()),
        used_bytes: used,
        total_bytes: total,
        used_percent: used.zip(total).map(|(u, t)| u / t * 100.0),
        swap_used_bytes: last(metric::SWAP_USED),
        swap_bytes_per_second: swap,
        pressure_percent: median(metric::PRESSURE_MEMORY),
        pressure_full_percent: median(metric::PRESSURE_MEMORY_FULL),
        exhausted_in_ms: filling.map(|f| f.full_in_ms),
        oom_kills: facts.kernel_known().map(|()| kills),
        gpus: facts.gpu_indexes().into_iter().map(gpu).collect(),
    }
}

/// Level and words of a kernel event.
fn told(event: &Kernel) -> (&'static str, String) {
    match event {
        Kernel::Xid { code, gpu, .. } => {
            let gpu = gpu.map(|g| format!("GPU {g}: ")).unwrap_or_default();
            ("error", format!("{gpu}XID {code}: {}", xid::lookup(*code).meaning))
        }
        Kernel::OomKill { process, limited, .. } => {
            let who = process.as_deref().unwrap_or("a process");
            let why = if *limited {
                "at its own limit"
            } else {
                "for want of memory"
            };
            ("error", format!("killed {who} {why}"))
        }
        Kernel::LinkDown { device } => ("warn", format!("{device} went down")),
        Kernel::NetworkError { device, text } | Kernel::DiskError { device, text } => {
            ("error", format!("{device}: {text}"))
        }
        Kernel::Filesystem { device } => ("error", format!("{device} is damaged or was made read-only")),
        Kernel::NvSwitch { sxid, fatal, .. } => {
            (if *fatal { "fatal" } else { "warn" }, format!("NVSwitch error {sxid}"))
        }
        Kernel::AmdGpu { text, .. } => ("error", text.clone()),
        Kernel::CpuThrottled => ("warn", "the processor slowed itself down: too hot".to_owned()),
        Kernel::MachineCheck { corrected, text } | Kernel::Pcie { corrected, text, .. } => {
            (if *corrected { "warn" } else { "error" }, text.clone())
        }
        Kernel::Stall { text } => ("error", text.clone()),
    }
}

pub(super) fn errors(facts: &NodeFacts, findings: &[Finding]) -> ErrorsSection {
    let mut groups: Vec<ErrorGroup> = Vec::new();
    for e in &facts.kernel {
        let (level, text) = told(&e.event);
        match groups.iter_mut().find(|g| g.text == text) {
            Some(g) => {
                g.count += 1;
                g.last_ms = e.at_ms;
            }
            None => groups.push(ErrorGroup {
                source: "kernel".to_owned(),
                level: level.to_owned(),
                text,
                count: 1,
                first_ms: e.at_ms,
                last_ms: e.at_ms,
            }),
        }
    }
    groups.extend(facts.logs.iter().map(|l| ErrorGroup {
        source: l.source.clone(),
        level: l.level.clone(),
        text: l.text.clone(),
        count: l.count,
        first_ms: l.first_ms,
        last_ms: l.last_ms,
    }));
    let rank = |level: &str| match level {
        "fatal" => 0,
        "error" => 1,
        _ => 2,
    };
    groups.sort_by(|a, b| {
        (rank(&a.level), b.count, &a.source, &a.text, a.first_ms).cmp(&(
            rank(&b.level),
            a.count,
            &b.source,
            &b.text,
            b.first_ms,
        ))
    });
    ErrorsSection {
        status: finding::status(findings, facts.kernel_known().is_some()),
        groups,
    }
}

pub(super) fn trends(facts: &NodeFacts, findings: &[Finding]) -> TrendsSection {
    let trends = trends::trends(facts);
    TrendsSection {
        status: finding::status(findings, !trends.is_empty()),
        trends,
        anomalies: findings.to_vec(),
    }
}

pub(super) fn raw(facts: &NodeFacts) -> Vec<MetricStats> {
    let figures = |s: &Series| {
        let v = s.values();
        let (last_ms, last) = s.last()?;
        Some(MetricStats {
            metric: s.metric.to_string(),
            gpu: s.gpu,
            device: s.device.clone(),
            unit: metric::unit(&s.metric),
            count: v.len(),
            min: stats::quantile(&v, 0.0)?,
            avg: stats::mean(&v)?,
            p50: stats::median(&v)?,
            p95: stats::quantile(&v, 0.95)?,
            max: stats::quantile(&v, 1.0)?,
            last,
            last_ms,
        })
    };
    facts.series.iter().filter_map(figures).collect()
}
