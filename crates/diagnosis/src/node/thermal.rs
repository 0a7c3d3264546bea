//! Heat, power and fans.

use super::course::filling;
use super::facts::NodeFacts;
use crate::rule::{Rule, Section};
use crate::throttle::{self, Kind};
use crate::{Evidence, Finding, Remedy, Series, Severity, metric, stats, words};

/// Share of samples from which a slow-down is no passing matter.
const LASTING: f64 = 0.1;
/// So close to its slow-down temperature a GPU has no room left, degrees.
const MARGIN: f64 = 3.0;
/// A GPU at or above this with its fan at rest isn't resting: fans that stop on purpose start below it.
const FAN_NEEDED: f64 = 70.0;
/// So much hotter than its like a GPU stands out, degrees.
const HOTTER: f64 = 12.0;

pub(super) static RULES: &[Rule<NodeFacts>] = &[
    Rule {
        id: "gpu-thermal-throttle",
        section: Section::Thermal,
        title: "GPU is slowed down by heat",
        remedy: Remedy::CheckCooling,
        advice: "Move the work to a cooler node; then check fans, air flow and room temperature.",
        needs: &[metric::GPU_THROTTLE],
        check: thermal_throttle,
    },
    Rule {
        id: "gpu-power-brake",
        section: Section::Thermal,
        title: "GPU is slowed down by the power supply",
        remedy: Remedy::CheckPower,
        advice: "The power supply or the rack asks for less: check supplies, cables and the power budget.",
        needs: &[metric::GPU_THROTTLE],
        check: power_brake,
    },
    Rule {
        id: "gpu-hw-slowdown",
        section: Section::Thermal,
        title: "GPU is slowed down by its hardware",
        remedy: Remedy::CheckPower,
        advice: "Neither heat nor the power supply is named as the reason: check power cables and seating.",
        needs: &[metric::GPU_THROTTLE],
        check: hw_slowdown,
    },
    Rule {
        id: "gpu-temperature-high",
        section: Section::Thermal,
        title: "GPU is about as hot as it may get",
        remedy: Remedy::CheckCooling,
        advice: "It will slow down soon: move the work to a cooler node, and check fans and air flow.",
        needs: &[metric::GPU_TEMPERATURE, metric::GPU_TEMPERATURE_SLOWDOWN],
        check: temperature_high,
    },
    Rule {
        id: "gpu-temperature-rising",
        section: Section::Thermal,
        title: "GPU gets hotter and hotter",
        remedy: Remedy::CheckCooling,
        advice: "It will slow down within the hour if that goes on: check fans, air flow and room temperature.",
        needs: &[metric::GPU_TEMPERATURE, metric::GPU_TEMPERATURE_SLOWDOWN],
        check: temperature_rising,
    },
    Rule {
        id: "gpu-fan-failed",
        section: Section::Thermal,
        title: "GPU's fan stands still although it is hot",
        remedy: Remedy::Replace,
        advice: "Drain the node and have the fan replaced.",
        needs: &[metric::GPU_FAN, metric::GPU_TEMPERATURE],
        check: fan_failed,
    },
    Rule {
        id: "gpu-hotter-than-peers",
        section: Section::Thermal,
        title: "GPU is much hotter than its like at the same work",
        remedy: Remedy::CheckCooling,
        advice: "Check the air flow at this GPU: dust, a missing blank, its heat sink.",
        needs: &[metric::GPU_TEMPERATURE, metric::GPU_POWER],
        check: hotter_than_peers,
    },
];

/// A finding for each GPU of which a metric is there. `None` if it is there for no GPU.
pub(super) fn each_gpu(
    facts: &NodeFacts,
    metric: &str,
    look: impl Fn(u32, &Series) -> Option<Finding>,
) -> Option<Vec<Finding>> {
    let mut all = facts.series.all(metric).filter_map(|s| Some((s.gpu?, s))).peekable();
    all.peek()?;
    Some(all.filter_map(|(gpu, series)| look(gpu, series)).collect())
}

/// Share of samples with some of the bits, and the last time.
fn share_of(series: &Series, holds: impl Fn(u64) -> bool) -> Option<(f64, i64)> {
    let share = series.share(|v| holds(throttle::of_sample(v)))?;
    let last = series.points.iter().rev().find(|p| holds(throttle::of_sample(p.1)))?;
    Some((share, last.0))
}

fn share_evidence(series: &Series, share: f64, last_ms: i64, text: &str) -> Evidence {
    Evidence::value(
        metric::GPU_THROTTLE,
        share * 100.0,
        format!("{text} in {}", words::samples(share)),
    )
    .unit(metric::Unit::Percent)
    .against(0.0)
    .at(last_ms)
    .over(series.span_ms())
    .by("NVML clock event reasons")
}

fn temperature_evidence(facts: &NodeFacts, gpu: u32) -> Option<Evidence> {
    let (at, hottest) = facts.series.of_gpu(metric::GPU_TEMPERATURE, gpu)?.max()?;
    let it = Evidence::value(metric::GPU_TEMPERATURE, hottest, format!("up to {hottest:.0} °C")).at(at);
    Some(match facts.slowdown(gpu) {
        Some(limit) => Evidence {
            text: format!("up to {hottest:.0} °C; the hardware slows down at {limit:.0} °C"),
            ..it.against(limit)
        },
        None => it,
    })
}

/// How far the clock falls while slowed down.
fn clock_evidence(facts: &NodeFacts, gpu: u32, slowed: &Series, holds: impl Fn(u64) -> bool) -> Option<Evidence> {
    let clock = facts.series.of_gpu(metric::GPU_CLOCK_SM, gpu)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for (at, value) in &clock.points {
        let reasons = slowed.before(at + 1).last()?;
        if holds(throttle::of_sample(reasons.1)) {
            with.push(*value)
        } else {
            without.push(*value)
        }
    }
    let (slow, usual) = (stats::median(&with)?, stats::median(&without));
    // A few percent are noise.
    usual.filter(|usual| slow < 0.95 * usual).map(|usual| {
        let text = format!("clock at {slow:.0} MHz instead of {usual:.0} MHz");
        Evidence::value(metric::GPU_CLOCK_SM, slow, text).against(usual)
    })
}

/// A slow-down by the hardware is critical where it lasts, and a warning where it passed.
fn hard_severity(share: f64) -> Severity {
    if share >= LASTING {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

fn thermal_throttle(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    let (soft, hard) = (throttle::bits(Kind::SoftHeat), throttle::bits(Kind::HardHeat));
    each_gpu(facts, metric::GPU_THROTTLE, |gpu, series| {
        let holds = |bits: u64| bits & (soft | hard) != 0;
        let (share, last) = share_of(series, holds)?;
        let (severity, text) = match share_of(series, |bits| bits & hard != 0) {
            Some((share, _)) => (hard_severity(share), "slowed down by the hardware: too hot"),
            None if share >= LASTING => (Severity::Warning, "slowed down by the driver: too hot"),
            None => (Severity::Info, "slowed down by the driver for a moment: too hot"),
        };
        let mut evidence = vec![share_evidence(series, share, last, text)];
        evidence.extend(temperature_evidence(facts, gpu));
        evidence.extend(clock_evidence(facts, gpu, series, holds));
        Some(rule.finding(severity, facts.gpu_target(gpu), 0.97, evidence))
    })
}

fn power_brake(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    let brake = throttle::bits(Kind::PowerBrake);
    each_gpu(facts, metric::GPU_THROTTLE, |gpu, series| {
        let (share, last) = share_of(series, |bits| bits & brake != 0)?;
        let mut evidence = vec![share_evidence(series, share, last, "power brake asserted from outside")];
        evidence.extend(clock_evidence(facts, gpu, series, |bits| bits & brake != 0));
        Some(rule.finding(hard_severity(share), facts.gpu_target(gpu), 0.97, evidence))
    })
}

fn hw_slowdown(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    let hard = throttle::bits(Kind::Hard);
    let named = throttle::bits(Kind::PowerBrake) | throttle::bits(Kind::HardHeat) | throttle::bits(Kind::SoftHeat);
    each_gpu(facts, metric::GPU_THROTTLE, |gpu, series| {
        let holds = |bits: u64| bits & hard != 0 && bits & named == 0;
        let (share, last) = share_of(series, holds)?;
        let mut evidence = vec![share_evidence(
            series,
            share,
            last,
            "slowed down by the hardware, no reason named",
        )];
        evidence.extend(temperature_evidence(facts, gpu));
        evidence.extend(clock_evidence(facts, gpu, series, holds));
        Some(rule.finding(hard_severity(share), facts.gpu_target(gpu), 0.85, evidence))
    })
}

fn temperature_high(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    let known = facts
        .series
        .all(metric::GPU_TEMPERATURE)
        .any(|s| s.gpu.is_some_and(|g| facts.slowdown(g).is_some()));
    if !known {
        return None;
    }
    each_gpu(facts, metric::GPU_TEMPERATURE, |gpu, series| {
        let slowdown = facts.slowdown(gpu)?;
        let p95 = stats::quantile(&series.values(), 0.95)?;
        let (at, hottest) = series.max()?;
        let over = series.share(|t| t >= slowdown - MARGIN)?;
        let severity = match facts.shutdown(gpu) {
            Some(off) if p95 >= off - MARGIN => Severity::Critical,
            _ if over >= 0.2 => Severity::Warning,
            _ => return None,
        };
        let evidence = vec![
            Evidence::value(
                metric::GPU_TEMPERATURE,
                p95,
                format!(
                    "within {MARGIN:.0} °C of its {slowdown:.0} °C limit in {}, up to {hottest:.0} °C",
                    words::samples(over)
                ),
            )
            .against(slowdown)
            .at(at)
            .over(series.span_ms())
            .by("95th percentile against the device's own threshold"),
        ];
        Some(rule.finding(severity, facts.gpu_target(gpu), 0.9, evidence))
    })
}

fn temperature_rising(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    const HOUR_MS: i64 = 3_600_000;
    let known = facts
        .series
        .all(metric::GPU_TEMPERATURE)
        .any(|s| s.gpu.is_some_and(|g| facts.slowdown(g).is_some()));
    if !known {
        return None;
    }
    each_gpu(facts, metric::GPU_TEMPERATURE, |gpu, series| {
        let limit = facts.slowdown(gpu)?;
        let course = filling(series, limit, facts.history.of_gpu(metric::GPU_TEMPERATURE, gpu))?;
        let grown = course.line.per_second * series.span_ms() as f64 / 1000.0;
        // More power is more work: that it warms up by, and stays.
        let harder = facts
            .series
            .of_gpu(metric::GPU_POWER, gpu)
            .and_then(|s| stats::line(&s.points));
        let worked_harder = harder.is_some_and(|l| l.is_steady() && l.per_second > 0.0);
        // What is still far from its limit, has hardly moved, or goes up and down warms up with its work.
        if course.usual
            || worked_harder
            || course.line.tau < 0.75
            || course.full_in_ms > HOUR_MS
            || grown < 5.0
            || course.level < limit - 15.0
        {
            return None;
        }
        let text = format!(
            "{:.0} °C, rising by {:.1} °C an hour: at {limit:.0} °C in {}",
            course.level,
            course.line.per_second * 3600.0,
            words::duration(course.full_in_ms)
        );
        let evidence = Evidence::value(metric::GPU_TEMPERATURE, course.level, text)
            .against(limit)
            .over(series.span_ms())
            .by(stats::TREND_METHOD);
        // A forecast from afar is worth knowing; near the limit it is worth acting on.
        let severity = if course.level >= limit - 6.0 {
            Severity::Warning
        } else {
            Severity::Info
        };
        Some(rule.finding(severity, facts.gpu_target(gpu), 0.7, vec![evidence]))
    })
}

fn fan_failed(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    each_gpu(facts, metric::GPU_FAN, |gpu, fan| {
        let temperature = facts.series.of_gpu(metric::GPU_TEMPERATURE, gpu)?;
        // Three samples in a row: a fan that is starting reads zero for one.
        let stood = fan.points.iter().rev().take_while(|p| p.1 <= 1.0).count();
        let (at, now) = temperature.last()?;
        if stood < 3 || now < FAN_NEEDED {
            return None;
        }
        let evidence = vec![
            Evidence::value(metric::GPU_FAN, 0.0, "fan at 0 %").at(fan.last()?.0),
            Evidence::value(metric::GPU_TEMPERATURE, now, format!("{now:.0} °C"))
                .at(at)
                .against(FAN_NEEDED),
        ];
        Some(rule.finding(Severity::Critical, facts.gpu_target(gpu), 0.85, evidence))
    })
}

fn hotter_than_peers(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    // Its like: the node's other GPUs that draw as much power, or other nodes' GPUs.
    let level = |gpu| {
        Some((
            facts.median(metric::GPU_TEMPERATURE, gpu)?,
            facts.median(metric::GPU_POWER, gpu)?,
        ))
    };
    let all: Vec<(u32, f64, f64)> = facts
        .gpu_indexes()
        .into_iter()
        .filter_map(|g| level(g).map(|(t, p)| (g, t, p)))
        .collect();
    if all.is_empty() {
        return None;
    }
    // Other nodes' GPUs say something only if they work as hard.
    let away = facts.peers_of(metric::GPU_TEMPERATURE);
    let power_away = stats::median(&facts.peers_of(metric::GPU_POWER));
    let look = |&(gpu, t, power): &(u32, f64, f64)| {
        let mut like: Vec<f64> = all
            .iter()
            .filter(|o| o.0 != gpu && (o.2 - power).abs() <= 0.2 * power)
            .map(|o| o.1)
            .collect();
        let here = like.len();
        if power_away.is_some_and(|away| (away - power).abs() <= 0.2 * power) {
            like.extend(&away);
        }
        let usual = stats::median(&like)?;
        let z = if here >= 3 && like.len() < stats::SAMPLES_MIN {
            // A handful of neighbours: their own spread, with the same floor.
            (t - usual) / stats::robust_sigma(&like)?.max(2.0)
        } else {
            stats::robust_z(t, &like, 2.0)?
        };
        if z < 4.0 || t - usual < HOTTER {
            return None;
        }
        let near = facts.slowdown(gpu).is_some_and(|s| t >= s - 10.0);
        let evidence = vec![
            Evidence::value(
                metric::GPU_TEMPERATURE,
                t,
                format!("{t:.0} °C where {} like it have {usual:.0} °C", like.len()),
            )
            .against(usual)
            .over(facts.window_ms)
            .by("median and MAD of peers at like power"),
        ];
        let severity = if near { Severity::Warning } else { Severity::Info };
        Some(rule.finding(severity, facts.gpu_target(gpu), 0.7, evidence))
    };
    Some(all.iter().filter_map(look).collect())
}
