//! Runs one built-in rule: a reading a minute, from minute 0 on.

use std::collections::BTreeMap;

use super::super::evaluate::evaluate;
use super::super::reading::{Observation, Observed, Reading};
use super::super::rule::Rule;
use super::super::scene::{at, built_in, labels};
use super::super::state::{Alert, Alerts, Phase};

pub(super) fn rule(name: &str) -> Rule {
    built_in().get(name).unwrap().clone()
}

/// The alert after `minutes` minutes of the same readings, and the minute in which it began to fire.
pub(super) fn run(
    name: &str,
    target: &[(&str, &str)],
    minutes: u64,
    readings: impl Fn(u64) -> Vec<Reading>,
) -> Option<(Alert, Option<u64>)> {
    let rule = rule(name);
    let mut alerts = Alerts::new();
    let mut fired = None;
    for minute in 0..=minutes {
        let readings = readings(minute);
        assert_eq!(readings.len(), rule.needs().len(), "{:?}", rule.needs());
        let observed = Observed {
            observations: vec![Observation {
                target: labels(target),
                readings,
                context: BTreeMap::new(),
            }],
            gone: Vec::new(),
        };
        alerts = evaluate(&rule, &observed, &alerts, at(minute)).alerts;
        if fired.is_none() && alerts.values().any(|alert| alert.phase == Phase::Firing) {
            fired = Some(minute);
        }
    }
    alerts.into_values().next().map(|alert| (alert, fired))
}

/// The minute in which the rule fires, with its summary; `None` if it doesn't within two hours.
pub(super) fn fires(
    name: &str,
    target: &[(&str, &str)],
    readings: impl Fn(u64) -> Vec<Reading>,
) -> Option<(u64, String)> {
    let (alert, fired) = run(name, target, 120, readings)?;
    Some((fired?, alert.summary))
}

pub(super) fn value(value: f64, minute: u64) -> Reading {
    Reading::Value { value, at: at(minute) }
}

pub(super) fn state(word: &str) -> Reading {
    Reading::State {
        value: word.to_owned(),
        since: None,
    }
}

/// A sample a minute over the last six hours, by its minute (the first ones lie before minute 0).
pub(super) fn six_hours(minute: u64, value: impl Fn(f64) -> f64) -> Reading {
    let start = at(minute).checked_sub(jiff::SignedDuration::from_hours(6)).unwrap();
    Reading::Points {
        points: (0..=360)
            .map(|i| {
                let time = super::super::Span::minutes(i).after(start);
                (time, value(minute as f64 + i as f64 - 360.0))
            })
            .collect(),
    }
}
