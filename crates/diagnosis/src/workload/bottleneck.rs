//! What holds it up: a class, the signals that it stands on, and how sure that is.
//!
//! Each class has a question that has to be asked first (its gate) and signals that speak for it, each with a weight.
//! Signals that hold add up as independent hints: `1 - Π (1 - weight)`. That is lowered where signals were not measured
//! (down to half), and where they were measured and don't hold (by up to 30 %). Lines of output count if they are
//! there; their absence says nothing. Below [`SURE_ENOUGH`] the class stays unknown: low utilization alone raises the
//! question and doesn't answer it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::facts::WorkloadFacts;
use super::gpu_level;
use crate::metric::{self, Unit};
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Series, SeriesSet, Severity, stats, words};

/// Below this the class is unknown.
const SURE_ENOUGH: f64 = 0.4;
/// Below this a GPU is mostly waiting, percent.
const GAP: f64 = 30.0;
/// Utilization below which something may starve the GPUs, percent.
const STARVED: f64 = 70.0;
/// Utilization from which the GPUs are busy, percent.
const BUSY: f64 = 80.0;

/// What holds a workload up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// GPUs wait for data.
    DataPipeline,
    /// GPUs compute as fast as they can: nothing is wrong.
    Compute,
    /// GPUs wait for their memory.
    MemoryBound,
    /// GPUs wait for each other.
    Communication,
    /// GPUs are well used, and nothing is at its limit.
    None,
}

/// What holds it up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bottleneck {
    /// `None`: the signals don't tell.
    pub class: Option<Class>,
    /// How sure that is, 0–1.
    pub confidence: f64,
    /// All signals that were looked at.
    pub signals: Vec<Signal>,
}

/// Something that speaks for a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// What was looked at.
    pub metric: Cow<'static, str>,
    /// The class that it speaks for.
    pub speaks_for: Class,
    /// How much, 0–1.
    pub weight: f64,
    /// `None`: not measured.
    pub value: Option<f64>,
    /// Of value and threshold.
    pub unit: Unit,
    /// What it is held against.
    pub threshold: f64,
    /// Whether it holds. `None`: not measured.
    pub holds: Option<bool>,
    /// In words.
    pub text: Cow<'static, str>,
}

/// All levels that signals read, each `None` if it wasn't measured.
struct Levels {
    utilization: Option<f64>,
    gaps: Option<f64>,
    bandwidth: Option<f64>,
    power: Option<f64>,
    sm_active: Option<f64>,
    cpu: Option<f64>,
    io: Option<f64>,
    data_wait: Option<f64>,
    communication: Option<f64>,
    network: Option<f64>,
    nvlink: Option<f64>,
    loader_lines: f64,
    collective_lines: f64,
    gpus: u32,
}

impl Levels {
    fn of(facts: &WorkloadFacts) -> Self {
        let steady = facts.steady();
        let gaps: Vec<f64> = steady
            .all(metric::GPU_UTILIZATION)
            .filter_map(|s| s.share(|u| u < GAP))
            .collect();
        let share = |part: Option<f64>, whole: Option<f64>| Some(part? / whole.filter(|w| *w > 0.0)? * 100.0);
        let median = |m: &str| level(&steady, m);
        let sum = |a: Option<f64>, b: Option<f64>| {
            if a.is_none() && b.is_none() {
                None
            } else {
                Some(a.unwrap_or(0.0) + b.unwrap_or(0.0))
            }
        };
        Self {
            utilization: gpu_level(facts, metric::GPU_UTILIZATION),
            gaps: stats::median(&gaps).map(|g| g * 100.0),
            bandwidth: gpu_level(facts, metric::GPU_MEMORY_BANDWIDTH),
            power: share(
                gpu_level(facts, metric::GPU_POWER),
                gpu_level(facts, metric::GPU_POWER_LIMIT),
            ),
            sm_active: gpu_level(facts, metric::GPU_SM_ACTIVE),
            cpu: share(median(metric::WORKLOAD_CPU), facts.requests.cpu_cores),
            io: median(metric::PRESSURE_IO),
            data_wait: median(metric::REPORTED_DATA_WAIT),
            communication: median(metric::REPORTED_COMMUNICATION),
            network: share(busiest(&steady), facts.network_capacity_bytes_per_second),
            nvlink: share(
                sum(
                    gpu_level(facts, metric::GPU_NVLINK_RX),
                    gpu_level(facts, metric::GPU_NVLINK_TX),
                ),
                facts.nvlink_capacity_bytes_per_second,
            ),
            loader_lines: (facts.lines("loader-stall") + facts.lines("shm-full")) as f64,
            collective_lines: facts.lines("nccl-timeout") as f64,
            gpus: facts.requests.gpus.max(steady.gpus().len() as u32),
        }
    }

    /// Whether a class comes into question. `None`: that isn't measured.
    fn gate(&self, class: Class) -> Option<bool> {
        let busy = self.utilization.map(|u| u >= BUSY);
        match class {
            Class::DataPipeline => Some(self.utilization? < STARVED || self.gaps? >= 20.0),
            Class::Communication => Some(self.gpus > 1),
            Class::MemoryBound => busy,
            // Busy at low power, or with few multiprocessors at work, is waiting.
            Class::Compute => {
                busy.map(|b| b && self.power.is_none_or(|p| p >= 65.0) && self.sm_active.is_none_or(|s| s >= 50.0))
            }
            Class::None => Some(self.utilization? >= STARVED && self.gaps? < 20.0),
        }
    }
}

/// The median of a metric, over all that has it.
fn level(series: &SeriesSet, metric: &str) -> Option<f64> {
    let all: Vec<f64> = series.all(metric).filter_map(Series::median).collect();
    stats::median(&all)
}

/// The busiest network interface.
fn busiest(series: &SeriesSet) -> Option<f64> {
    series
        .all(metric::NETWORK_THROUGHPUT)
        .filter_map(Series::median)
        .reduce(f64::max)
}

/// A signal: where it speaks, and how it is read.
struct Hint {
    class: Class,
    metric: &'static str,
    weight: f64,
    threshold: f64,
    /// Whether it holds at or above its threshold, or at or below it.
    above: bool,
    /// Whether its absence says nothing.
    only_if_seen: bool,
    read: fn(&Levels) -> Option<f64>,
    unit: Unit,
    text: &'static str,
}

const fn hint(
    class: Class,
    metric: &'static str,
    weight: f64,
    threshold: f64,
    read: fn(&Levels) -> Option<f64>,
    text: &'static str,
) -> Hint {
    Hint {
        class,
        metric,
        weight,
        threshold,
        above: true,
        only_if_seen: false,
        read,
        unit: Unit::Percent,
        text,
    }
}

/// A hint that holds at or below its threshold.
const fn low(hint: Hint) -> Hint {
    Hint { above: false, ..hint }
}

/// A hint by lines of output.
const fn lines(class: Class, weight: f64, read: fn(&Levels) -> Option<f64>, text: &'static str) -> Hint {
    Hint {
        only_if_seen: true,
        unit: Unit::Count,
        ..hint(class, "output", weight, 1.0, read, text)
    }
}

use Class::{Communication, Compute, DataPipeline, MemoryBound};

/// All signals.
static HINTS: &[Hint] = &[
    hint(
        DataPipeline,
        metric::REPORTED_DATA_WAIT,
        0.7,
        20.0,
        |l| l.data_wait,
        "share of a step spent waiting for data",
    ),
    lines(
        DataPipeline,
        0.6,
        |l| Some(l.loader_lines),
        "its output says that the loader can't keep up",
    ),
    hint(
        DataPipeline,
        metric::WORKLOAD_CPU,
        0.5,
        90.0,
        |l| l.cpu,
        "CPU in use, of what it asked for",
    ),
    hint(
        DataPipeline,
        metric::PRESSURE_IO,
        0.45,
        20.0,
        |l| l.io,
        "time in which tasks wait for disks",
    ),
    hint(
        DataPipeline,
        metric::GPU_UTILIZATION,
        0.25,
        20.0,
        |l| l.gaps,
        "share of samples in which the GPUs mostly rest",
    ),
    low(hint(
        DataPipeline,
        metric::GPU_POWER,
        0.1,
        60.0,
        |l| l.power,
        "power, of its limit: little is computed",
    )),
    hint(
        Communication,
        metric::REPORTED_COMMUNICATION,
        0.7,
        25.0,
        |l| l.communication,
        "share of a step spent in collectives",
    ),
    lines(
        Communication,
        0.6,
        |l| Some(l.collective_lines),
        "its output tells of collectives that timed out",
    ),
    hint(
        Communication,
        metric::NETWORK_THROUGHPUT,
        0.5,
        70.0,
        |l| l.network,
        "network in use, of what it can carry",
    ),
    hint(
        Communication,
        metric::GPU_NVLINK_TX,
        0.4,
        70.0,
        |l| l.nvlink,
        "NVLink in use, of what it can carry",
    ),
    low(hint(
        Communication,
        metric::GPU_POWER,
        0.45,
        55.0,
        |l| l.power.filter(|_| l.utilization >= Some(BUSY)),
        "power of busy GPUs, of its limit: they wait in collectives",
    )),
    low(hint(
        Communication,
        metric::GPU_SM_ACTIVE,
        0.4,
        40.0,
        |l| l.sm_active.filter(|_| l.utilization >= Some(BUSY)),
        "multiprocessors at work in busy GPUs",
    )),
    hint(
        MemoryBound,
        metric::GPU_MEMORY_BANDWIDTH,
        0.6,
        70.0,
        |l| l.bandwidth,
        "share of time in which GPU memory is read or written",
    ),
    low(hint(
        MemoryBound,
        metric::GPU_POWER,
        0.15,
        85.0,
        |l| l.power,
        "power, of its limit: units wait",
    )),
    hint(
        MemoryBound,
        metric::GPU_SM_ACTIVE,
        0.15,
        60.0,
        |l| l.sm_active,
        "multiprocessors that hold work",
    ),
    hint(
        Compute,
        metric::GPU_UTILIZATION,
        0.4,
        BUSY,
        |l| l.utilization,
        "GPUs are busy",
    ),
    hint(
        Compute,
        metric::GPU_POWER,
        0.45,
        80.0,
        |l| l.power,
        "power, of its limit: much is computed",
    ),
    low(hint(
        Compute,
        metric::GPU_MEMORY_BANDWIDTH,
        0.25,
        65.0,
        |l| l.bandwidth,
        "share of time in which GPU memory is read or written",
    )),
    hint(
        Compute,
        metric::GPU_SM_ACTIVE,
        0.3,
        60.0,
        |l| l.sm_active,
        "multiprocessors that hold work",
    ),
];

/// Tells what holds a workload up.
pub(super) fn tell(facts: &WorkloadFacts) -> Bottleneck {
    let levels = Levels::of(facts);
    let signals: Vec<Signal> = HINTS.iter().map(|h| signal(h, &levels)).collect();
    let sure = |class: Class| match levels.gate(class) {
        Some(true) => confidence(HINTS.iter().zip(&signals).filter(|(h, _)| h.class == class)),
        _ => 0.0,
    };
    let best = [Communication, DataPipeline, MemoryBound, Compute]
        .into_iter()
        .map(|c| (c, sure(c)))
        .fold(None, |best: Option<(Class, f64)>, next| match best {
            Some(b) if b.1 >= next.1 => Some(b),
            _ => Some(next),
        })
        .filter(|(_, sure)| *sure >= SURE_ENOUGH);
    let (class, confidence) = match best {
        Some((class, sure)) => (Some(class), sure),
        // Nothing stands out; that takes having looked at what could.
        None if levels.gate(Class::None) == Some(true)
            && levels.utilization < Some(BUSY)
            && levels.power.is_some()
            && levels.bandwidth.is_some() =>
        {
            (Some(Class::None), 0.5)
        }
        None => (None, 0.0),
    };
    Bottleneck {
        class,
        confidence,
        signals,
    }
}

fn signal(hint: &Hint, levels: &Levels) -> Signal {
    let value = (hint.read)(levels);
    Signal {
        metric: hint.metric.into(),
        speaks_for: hint.class,
        weight: hint.weight,
        value,
        unit: hint.unit,
        threshold: hint.threshold,
        holds: value.map(|v| {
            if hint.above {
                v >= hint.threshold
            } else {
                v <= hint.threshold
            }
        }),
        text: hint.text.into(),
    }
}

/// See the head of this file.
fn confidence<'a>(of_class: impl Iterator<Item = (&'a Hint, &'a Signal)>) -> f64 {
    let (mut doubt, mut all, mut measured, mut against) = (1.0, 0.0, 0.0, 0.0);
    for (hint, signal) in of_class {
        if hint.only_if_seen && signal.holds != Some(true) {
            continue;
        }
        all += hint.weight;
        match signal.holds {
            Some(true) => {
                doubt *= 1.0 - hint.weight;
                measured += hint.weight;
            }
            Some(false) => {
                against += hint.weight;
                measured += hint.weight;
            }
            None => {}
        }
    }
    if measured <= 0.0 {
        return 0.0;
    }
    (1.0 - doubt) * (0.5 + 0.5 * measured / all) * (1.0 - 0.3 * against / measured)
}

/// Whether it uses all the CPU that it asked for.
pub(super) fn cpu_bound(facts: &WorkloadFacts) -> bool {
    Levels::of(facts).cpu.is_some_and(|c| c >= 90.0)
}

pub(super) static RULES: &[Rule<WorkloadFacts>] = &[
    Rule {
        id: "bottleneck-data-pipeline",
        section: Section::Performance,
        title: "GPUs wait for data",
        remedy: Remedy::TuneData,
        advice: "More loader workers and CPUs, prefetching, a faster disk or a cached data set.",
        needs: &[metric::GPU_UTILIZATION],
        check: |facts, rule| found(facts, rule, DataPipeline, Severity::Warning),
    },
    Rule {
        id: "bottleneck-communication",
        section: Section::Performance,
        title: "GPUs wait for each other",
        remedy: Remedy::TuneCommunication,
        advice: "Place the members closer together, overlap communication with computation, exchange less often.",
        needs: &[metric::GPU_UTILIZATION],
        check: |facts, rule| found(facts, rule, Communication, Severity::Warning),
    },
    Rule {
        id: "bottleneck-memory-bound",
        section: Section::Performance,
        title: "GPUs wait for their memory",
        remedy: Remedy::FixProgram,
        advice: "Fuse kernels, use smaller number formats or larger batches, so that more is computed a byte.",
        needs: &[metric::GPU_UTILIZATION, metric::GPU_MEMORY_BANDWIDTH],
        check: |facts, rule| found(facts, rule, MemoryBound, Severity::Info),
    },
];

fn found(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>, class: Class, severity: Severity) -> Option<Vec<Finding>> {
    gpu_level(facts, metric::GPU_UTILIZATION)?;
    let told = tell(facts);
    if told.class != Some(class) {
        return Some(Vec::new());
    }
    let utilization = gpu_level(facts, metric::GPU_UTILIZATION).map(|u| {
        Evidence::value(
            metric::GPU_UTILIZATION,
            u,
            format!("GPUs busy {u:.0} % of the time, in the middle"),
        )
        .over(facts.window_ms)
    });
    let signals = told
        .signals
        .iter()
        .filter(|s| s.speaks_for == class && s.holds == Some(true))
        .filter_map(|s| {
            let value = s.value?;
            Some(Evidence {
                metric: s.metric.clone(),
                value: Some(value),
                unit: s.unit,
                threshold: Some(s.threshold),
                at_ms: None,
                window_ms: Some(facts.window_ms),
                method: Some("median".into()),
                text: format!("{}: {}", s.text, words::value(value, s.unit)),
            })
        });
    let evidence = utilization.into_iter().chain(signals).collect();
    Some(vec![rule.finding(severity, facts.target(), told.confidence, evidence)])
}
