//! What a rule asks for, and what it is given.
//!
//! The engine asks nobody: [`super::Rule::needs`] lists the questions, the caller answers them from its stores, and
//! [`gather`] lines the answers up by target.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Labels, Matcher, Rule, Span};

/// What is taken of a series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Take {
    /// The newest sample, of whatever age; its time comes with it.
    #[default]
    Last,
    /// Mean of the window.
    Avg,
    /// Smallest of the window.
    Min,
    /// Largest of the window.
    Max,
    /// Sum of the window.
    Sum,
    /// 95th percentile of the window.
    P95,
    /// 99th percentile of the window.
    P99,
    /// Growth of a counter over the window, restarts from zero allowed for.
    Increase,
    /// [`Take::Increase`] per second.
    Rate,
    /// Number of samples in the window.
    Count,
}

/// One question to the caller's stores, to be answered for every target at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// One number a series: a [`Reading::Value`].
    Metric {
        /// Dotted name.
        metric: String,
        /// Which series.
        labels: Vec<Matcher>,
        /// What of it.
        take: Take,
        /// The window, which ends now. `None` for [`Take::Last`] only.
        over: Option<Span>,
    },
    /// The samples of a window that ends now, in time order, thinned to some hundreds where there are more: a
    /// [`Reading::Points`].
    Points {
        /// Dotted name.
        metric: String,
        /// Which series.
        labels: Vec<Matcher>,
        /// The window.
        over: Span,
    },
    /// Something that is one word at a time, such as a node's status: a [`Reading::State`].
    State {
        /// Dotted name, such as `node.status`.
        state: String,
        /// Of which.
        labels: Vec<Matcher>,
    },
    /// How often something was recorded in a window that ends now: a [`Reading::Value`].
    Events {
        /// The event's reason, such as `OomKilled`.
        event: String,
        /// Of which.
        labels: Vec<Matcher>,
        /// The window.
        over: Span,
    },
}

impl Need {
    /// Whether a target without any answer has a zero rather than nothing: something was counted.
    const fn counts(&self) -> bool {
        matches!(self, Self::Metric { take: Take::Count, .. } | Self::Events { .. })
    }
}

/// One answer for one target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Reading {
    /// There is no data, or it couldn't be asked for. Neither good nor bad.
    #[default]
    Missing,
    /// One number.
    Value {
        /// In the metric's unit.
        value: f64,
        /// When it was measured; the time of asking for a value over a window.
        at: Timestamp,
    },
    /// Samples, in time order.
    Points {
        /// Time and value.
        points: Vec<(Timestamp, f64)>,
    },
    /// One word.
    State {
        /// The word.
        value: String,
        /// Since when, where that is known.
        since: Option<Timestamp>,
    },
}

/// A target and the answers to all needs of a rule, in the order of [`super::Rule::needs`].
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Labels of the target; those that [`super::Rule::by`] names identify it, others are ignored.
    pub target: Labels,
    /// One a need. Missing at the end where there are fewer.
    pub readings: Vec<Reading>,
    /// Words for the rule's sentences that no label has: an image, a reason.
    pub context: Labels,
}

/// All that is known when a rule is evaluated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Of each target. Several of one target: the worst one speaks.
    pub observations: Vec<Observation>,
    /// Labels of things that exist no more: alerts that have all of them are resolved.
    ///
    /// A level, not an edge: name a thing at each evaluation for as long as an alert has its labels
    /// ([`super::States::alerts`] tells them), so that a restart in between forgets nothing.
    pub gone: Vec<Labels>,
}

/// A series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// All labels of the series.
    pub labels: Labels,
    /// What was asked of it.
    pub reading: Reading,
}

/// Lines answers up by target.
///
/// `answers` is in the order of [`super::Rule::needs`]; `None` where asking failed. `targets` are those known from
/// elsewhere (the inventory), so that a target without any series is seen too; what is counted is then zero.
#[must_use]
pub fn gather(rule: &Rule, answers: &[Option<Vec<Series>>], targets: &[Labels], now: Timestamp) -> Vec<Observation> {
    let needs = rule.needs();
    let mut rows: BTreeMap<Labels, Vec<Vec<Reading>>> = BTreeMap::new();
    let row = || vec![Vec::new(); needs.len()];
    for target in targets {
        rows.entry(rule.target(target)).or_insert_with(row);
    }
    for (index, series) in answers.iter().take(needs.len()).enumerate() {
        for series in series.iter().flatten() {
            rows.entry(rule.target(&series.labels)).or_insert_with(row)[index].push(series.reading.clone());
        }
    }
    let nothing = |index: usize| match answers.get(index) {
        Some(Some(_)) if needs[index].counts() => Reading::Value { value: 0.0, at: now },
        _ => Reading::Missing,
    };
    let mut observations = Vec::with_capacity(rows.len());
    for (target, columns) in rows {
        // Several series of one target and need: one observation each; the others' answers are the same in all.
        let depth = columns.iter().map(Vec::len).max().unwrap_or(0).max(1);
        for layer in 0..depth {
            observations.push(Observation {
                target: target.clone(),
                readings: columns
                    .iter()
                    .enumerate()
                    .map(|(index, readings)| {
                        readings
                            .get(layer)
                            .or_else(|| readings.last())
                            .cloned()
                            .unwrap_or_else(|| nothing(index))
                    })
                    .collect(),
                context: Labels::new(),
            });
        }
    }
    observations
}

#[cfg(test)]
mod tests {
    use super::super::evaluate::evaluate;
    use super::super::scene::{at, labels};
    use super::super::state::{Alerts, Phase};
    use super::*;

    /// Broken above a limit of its own, or without a sample for five minutes.
    fn rule() -> Rule {
        serde_json::from_str(
            r#"{"name":"r","severity":"info","summary":"{node}","by":["node"],"condition":{"kind":"any","of":[
                {"kind":"threshold","metric":"m","op":">","bound":{"metric":"limit"}},
                {"kind":"absent","metric":"m","over":"5m"}]}}"#,
        )
        .unwrap()
    }

    fn series(pairs: &[(&str, &str)], value: f64) -> Series {
        Series {
            labels: labels(pairs),
            reading: Reading::Value { value, at: at(0) },
        }
    }

    fn firing(answers: &[Option<Vec<Series>>], targets: &[Labels]) -> Vec<String> {
        let rule = rule();
        assert_eq!(rule.needs().len(), 3);
        let observed = Observed {
            observations: gather(&rule, answers, targets, at(0)),
            gone: Vec::new(),
        };
        let alerts = evaluate(&rule, &observed, &Alerts::new(), at(0)).alerts;
        let firing = alerts.into_values().filter(|alert| alert.phase == Phase::Firing);
        firing.map(|alert| alert.evidence[0].text.clone()).collect()
    }

    #[test]
    fn answers_meet_by_target() {
        let a = |value| series(&[("node", "a"), ("disk", "1")], value);
        let b = |value| series(&[("node", "b"), ("disk", "1")], value);
        let answers = [
            Some(vec![a(5.0), b(5.0)]),
            Some(vec![b(4.0), a(6.0)]),
            Some(vec![a(9.0), b(9.0)]),
        ];
        assert_eq!(firing(&answers, &[]), ["m is 5, limit 4 (limit)"]);
    }

    #[test]
    fn several_series_of_a_target_share_its_limit() {
        let disk = |disk: &str, value| series(&[("node", "a"), ("disk", disk)], value);
        let answers = [
            Some(vec![disk("1", 3.0), disk("2", 5.0)]),
            Some(vec![series(&[("node", "a")], 4.0)]),
            Some(vec![disk("1", 9.0), disk("2", 9.0)]),
        ];
        assert_eq!(firing(&answers, &[]), ["m is 5, limit 4 (limit)"]);
    }

    #[test]
    fn a_known_target_without_series_is_absent_but_a_failed_question_says_nothing() {
        let known = [labels(&[("node", "c"), ("rack", "7")])];
        let nothing = || Some(Vec::new());
        assert_eq!(
            firing(&[nothing(), nothing(), nothing()], &known),
            ["no sample of m in the last 5m"]
        );
        assert_eq!(firing(&[nothing(), nothing(), None], &known), [""; 0]);
        assert_eq!(firing(&[nothing(), nothing()], &known), [""; 0]);
        assert_eq!(firing(&[nothing(), nothing(), nothing()], &[]), [""; 0]);
    }
}
