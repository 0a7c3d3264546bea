//! For tests: alerts in a wanted phase, and points in time.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;

use super::evaluate::evaluate;
use super::reading::{Observation, Observed, Reading};
use super::rule::{Rule, RuleSet};
use super::state::{Fingerprint, Phase, States};
use super::{Labels, Span};

/// Built once: its expressions take a while.
pub(super) fn built_in() -> &'static RuleSet {
    static RULES: LazyLock<RuleSet> = LazyLock::new(|| RuleSet::built_in().unwrap());
    &RULES
}

/// Minutes after a fixed time.
pub(super) fn at(minute: u64) -> Timestamp {
    let start: Timestamp = "2026-02-16T14:00:00Z".parse().unwrap();
    Span::minutes(minute).after(start)
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub(super) fn seen(target: &[(&str, &str)], readings: Vec<Reading>) -> Observed {
    Observed {
        observations: vec![Observation {
            target: labels(target),
            readings,
            context: BTreeMap::new(),
        }],
        gone: Vec::new(),
    }
}

/// Alerts of the built-in rules, made by evaluating rules that break when they are told to.
#[derive(Default)]
pub(super) struct Scene {
    pub states: States,
}

impl Scene {
    pub fn firing(rule: &str, target: &[(&str, &str)], at: Timestamp) -> Self {
        let mut scene = Self::default();
        scene.fire(rule, target, at);
        scene
    }

    pub fn fire(&mut self, rule: &str, target: &[(&str, &str)], at: Timestamp) -> Fingerprint {
        self.step(rule, target, 1.0, at);
        let fingerprint = Fingerprint::new(rule, &labels(target));
        assert_eq!(self.states.get(&fingerprint).unwrap().phase, Phase::Firing);
        fingerprint
    }

    pub fn resolve(&mut self, rule: &str, target: &[(&str, &str)], at: Timestamp) {
        self.step(rule, target, 0.0, at);
    }

    fn step(&mut self, name: &str, target: &[(&str, &str)], value: f64, now: Timestamp) {
        let rule = Rule {
            by: target.iter().map(|(k, _)| (*k).to_owned()).collect(),
            condition: serde_json::from_str(r#"{"kind":"threshold","metric":"broken","op":">","bound":0}"#).unwrap(),
            for_: Span::ZERO,
            keep_firing_for: Span::ZERO,
            ..built_in().get(name).unwrap().clone()
        };
        let mut observed = seen(&[], vec![Reading::Value { value, at: now }]);
        observed.observations[0].target = labels(target);
        let alerts = self.states.rules.entry(name.to_owned()).or_default();
        *alerts = evaluate(&rule, &observed, alerts, now).alerts;
    }
}
