//! Network interfaces and the clock.

use super::facts::{DAY_MS, Kernel, NodeFacts, grouped, per_hour};
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Series, Severity, metric, stats};

/// Errors an hour that a sound interface may have.
const ERRORS_AN_HOUR: f64 = 600.0;
/// Offsets of the clock that are worth a warning, and that break certificates and collectives' time-outs, ms.
const SKEW: f64 = 500.0;
const SKEW_CRITICAL: f64 = 30_000.0;

pub(super) static RULES: &[Rule<NodeFacts>] = &[
    Rule {
        id: "nic-errors",
        section: Section::Errors,
        title: "network interface has errors",
        remedy: Remedy::CheckCabling,
        advice: "Check cable, transceiver and switch port.",
        needs: &[metric::NETWORK_ERRORS],
        check: errors,
    },
    Rule {
        id: "nic-link-down",
        section: Section::Errors,
        title: "network interface went down",
        remedy: Remedy::CheckCabling,
        advice: "Check cable, transceiver and switch port.",
        needs: &["kernel log"],
        check: link_down,
    },
    Rule {
        id: "clock-skew",
        section: Section::Errors,
        title: "the node's clock is off",
        remedy: Remedy::FixClock,
        advice: "Start or repair its time service (chrony, systemd-timesyncd).",
        needs: &[metric::CLOCK_OFFSET],
        check: clock,
    },
];

fn errors(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.series.all(metric::NETWORK_ERRORS).next()?;
    let look = |(series, grown): (&Series, f64)| {
        let rate = per_hour(grown, series);
        if rate < ERRORS_AN_HOUR || grown < 50.0 {
            return None;
        }
        let target = series
            .device
            .as_deref()
            .map_or_else(|| facts.node_target(), |d| facts.device_target(d));
        let evidence = Evidence::value(
            metric::NETWORK_ERRORS,
            rate,
            format!("{grown:.0} errors, {rate:.0} an hour"),
        )
        .unit(metric::Unit::PerHour)
        .against(ERRORS_AN_HOUR)
        .over(series.span_ms())
        .by("growth of the counter");
        Some(rule.finding(Severity::Warning, target, 0.85, vec![evidence]))
    };
    Some(facts.grown(metric::NETWORK_ERRORS).filter_map(look).collect())
}

fn link_down(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let by = grouped(facts, |e| match e {
        Kernel::LinkDown { device } | Kernel::NetworkError { device, .. } => Some(device.as_str()),
        _ => None,
    });
    let finding = |(device, events): (&str, Vec<&super::KernelEvent>)| {
        let (count, last) = (events.len() as u64, events.last().map_or(0, |e| e.at_ms));
        // Once may have been somebody at the cable, or a reboot of the switch.
        let severity = if count >= 3 {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let text = format!("{device} went down or failed {count} times");
        let evidence = Evidence::count("kernel.network", count, text).at(last).over(DAY_MS);
        rule.finding(severity, facts.device_target(device), 0.9, vec![evidence])
    };
    Some(by.into_iter().map(finding).collect())
}

fn clock(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    // Of some samples the median: one slow round trip looks like skew.
    let sampled = facts.series.get(metric::CLOCK_OFFSET).map(|s| {
        let newest: Vec<f64> = s.values().into_iter().rev().take(5).collect();
        stats::median(&newest)
    });
    let offset = sampled.flatten().or(facts.clock_offset_ms.filter(|o| o.is_finite()))?;
    let severity = match offset.abs() {
        o if o >= SKEW_CRITICAL => Severity::Critical,
        o if o >= SKEW => Severity::Warning,
        _ => return Some(Vec::new()),
    };
    let way = if offset > 0.0 { "ahead of" } else { "behind" };
    let text = format!("{:.0} ms {way} the gateway", offset.abs());
    let evidence = Evidence::value(metric::CLOCK_OFFSET, offset, text)
        .against(if severity == Severity::Critical {
            SKEW_CRITICAL
        } else {
            SKEW
        })
        .at(facts.now_ms)
        .by("median of the newest five");
    Some(vec![rule.finding(severity, facts.node_target(), 0.9, vec![evidence])])
}
