use proptest::prelude::*;

use super::super::reading::Reading;
use super::super::scene::{at, labels, seen};
use super::*;

const NODE: &[(&str, &str)] = &[("node", "gpu-7")];

/// Broken above 10 for three minutes, healthy for two, without data for five.
fn rule() -> Rule {
    serde_json::from_str(
        r#"{"name":"too-much","severity":"warning","summary":"{node}: {value}, limit {limit}","by":["node"],
            "condition":{"kind":"threshold","metric":"m","op":">","bound":10},
            "for":"3m","keepFiringFor":"2m","commands":["look {node}"]}"#,
    )
    .unwrap()
}

/// One reading a minute: a number, or nothing.
fn reading(value: Option<f64>, now: Timestamp) -> Reading {
    value.map_or(Reading::Missing, |value| Reading::Value { value, at: now })
}

struct Run {
    rule: Rule,
    alerts: Alerts,
    /// Minute and change.
    log: Vec<(u64, Change)>,
}

impl Run {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            alerts: Alerts::new(),
            log: Vec::new(),
        }
    }

    fn step(&mut self, minute: u64, observed: &Observed) {
        let outcome = evaluate(&self.rule, observed, &self.alerts, at(minute));
        self.alerts = outcome.alerts;
        self.log.extend(outcome.transitions.iter().map(|t| (minute, t.change)));
    }

    fn values(mut self, values: &[Option<f64>]) -> Self {
        for (minute, value) in (0..).zip(values) {
            self.step(minute, &seen(NODE, vec![reading(*value, at(minute))]));
        }
        self
    }

    fn alert(&self) -> &Alert {
        self.alerts.values().next().unwrap()
    }
}

const BAD: Option<f64> = Some(11.5);
const GOOD: Option<f64> = Some(1.0);

#[test]
fn from_pending_over_firing_to_resolved() {
    let run = Run::new(rule()).values(&[GOOD, BAD, BAD, BAD, BAD, GOOD, GOOD, GOOD, GOOD]);
    assert_eq!(
        run.log,
        [
            (1, Change::Pending),
            (4, Change::Firing),
            (7, Change::Resolved(Resolution::Healthy))
        ]
    );
    let alert = run.alert();
    assert_eq!((alert.fired_at, alert.resolved_at), (Some(at(4)), Some(at(7))));
    assert_eq!(alert.summary, "gpu-7: 11.5, limit 10");
    assert_eq!(alert.commands, ["look gpu-7"]);
    assert_eq!(alert.evidence[0].text, "m is 11.5, limit 10");
}

#[test]
fn a_short_spike_is_dropped_without_a_trace() {
    let run = Run::new(rule()).values(&[BAD, BAD, GOOD]);
    assert_eq!(run.log, [(0, Change::Pending), (2, Change::Dropped)]);
    assert!(run.alerts.is_empty());
}

#[test]
fn a_spike_after_an_alert_leaves_that_as_it_was() {
    let run = Run::new(rule()).values(&[BAD, BAD, BAD, BAD, GOOD, GOOD, GOOD]);
    let before = run.alert().clone();
    let mut run = run;
    run.step(7, &seen(NODE, vec![reading(BAD, at(7))]));
    assert_eq!(run.alert().phase, Phase::Pending);
    run.step(8, &seen(NODE, vec![reading(GOOD, at(8))]));
    let after = run.alert();
    assert_eq!((after.phase, after.since), (before.phase, before.since));
    assert_eq!(
        (after.fired_at, after.resolved_at, after.episode),
        (before.fired_at, before.resolved_at, 1)
    );
}

#[test]
fn one_bad_sample_makes_it_keep_firing() {
    let run = Run::new(rule()).values(&[BAD, BAD, BAD, BAD, GOOD, BAD, GOOD, GOOD, GOOD]);
    assert_eq!(run.log[2], (8, Change::Resolved(Resolution::Healthy)));
}

#[test]
fn missing_data_resolves_nothing_and_is_told() {
    let run = Run::new(rule()).values(&[
        BAD, BAD, BAD, BAD, None, None, None, None, None, None, None, GOOD, GOOD, GOOD,
    ]);
    assert_eq!(
        run.log,
        [
            (0, Change::Pending),
            (3, Change::Firing),
            (9, Change::Stale),
            (11, Change::Fresh),
            (13, Change::Resolved(Resolution::Healthy))
        ]
    );
}

#[test]
fn a_target_that_is_not_even_mentioned_is_without_data_too() {
    let mut run = Run::new(rule()).values(&[BAD; 4]);
    for minute in 4..20 {
        run.step(minute, &Observed::default());
    }
    assert_eq!(run.alert().phase, Phase::Firing);
    assert!(run.alert().stale);
    assert_eq!(run.alert().last_seen, at(3));
}

#[test]
fn a_pending_alert_does_not_ripen_without_data() {
    let mut values = vec![BAD, BAD];
    values.extend([None; 8]);
    let run = Run::new(rule()).values(&values);
    assert_eq!(run.log, [(0, Change::Pending), (7, Change::Dropped)]);
}

#[test]
fn a_gap_in_evaluating_begins_anew() {
    let mut run = Run::new(rule()).values(&[BAD, BAD]);
    // The gateway was away for an hour. What was then, nobody saw.
    run.step(60, &seen(NODE, vec![reading(BAD, at(60))]));
    assert_eq!(run.alert().phase, Phase::Pending);
    run.step(63, &seen(NODE, vec![reading(BAD, at(63))]));
    assert_eq!(run.alert().phase, Phase::Firing);
}

#[test]
fn what_exists_no_more_is_over() {
    let mut run = Run::new(rule()).values(&[BAD; 5]);
    let elsewhere = Observed {
        gone: vec![labels(&[("node", "gpu-8")]), labels(&[])],
        ..Observed::default()
    };
    run.step(5, &elsewhere);
    assert_eq!(run.alert().phase, Phase::Firing);
    let gone = Observed {
        gone: vec![labels(NODE)],
        ..seen(NODE, vec![reading(BAD, at(6))])
    };
    run.step(6, &gone);
    run.step(7, &gone);
    assert_eq!(run.log[2..], [(6, Change::Resolved(Resolution::TargetGone))]);
}

#[test]
fn the_worst_of_several_series_speaks() {
    let mut run = Run::new(Rule {
        for_: Span::ZERO,
        keep_firing_for: Span::ZERO,
        ..rule()
    });
    let several = |values: &[Option<f64>], minute| {
        let observations = values
            .iter()
            .map(|value| seen(NODE, vec![reading(*value, at(minute))]).observations.remove(0));
        Observed {
            observations: observations.collect(),
            gone: Vec::new(),
        }
    };
    run.step(0, &several(&[GOOD, BAD, GOOD], 0));
    assert_eq!(run.log, [(0, Change::Firing)]);
    // One is well, the other has no data.
    run.step(1, &several(&[GOOD, None], 1));
    assert_eq!(run.alert().phase, Phase::Firing);
    run.step(2, &several(&[GOOD, GOOD], 2));
    assert_eq!(run.alert().phase, Phase::Resolved);
}

#[test]
fn flapping_begins_and_ends() {
    let mut run = Run::new(Rule {
        for_: Span::ZERO,
        keep_firing_for: Span::ZERO,
        ..rule()
    });
    for minute in 0..6 {
        let value = if minute % 2 == 0 { BAD } else { GOOD };
        run.step(minute, &seen(NODE, vec![reading(value, at(minute))]));
    }
    assert_eq!(run.log.last(), Some(&(5, Change::FlappingBegan)));
    for minute in 6..63 {
        run.step(minute, &Observed::default());
        assert!(run.alert().flapping, "{minute}");
    }
    // Two changes are left of the last hour.
    run.step(63, &Observed::default());
    assert_eq!(run.log.last(), Some(&(63, Change::FlappingEnded)));
}

#[test]
fn a_rule_that_was_removed_ends_its_alerts() {
    let run = Run::new(rule()).values(&[BAD; 5]);
    let states = States {
        rules: [("too-much".to_owned(), run.alerts)].into(),
    };
    let rules = RuleSet::built_in().unwrap();
    let (states, transitions) = evaluate_all(&rules, &BTreeMap::new(), &states, at(5));
    assert_eq!(transitions[0].change, Change::Resolved(Resolution::RuleGone));
    assert_eq!(states.alerts().next().unwrap().phase, Phase::Resolved);
    let (again, transitions) = evaluate_all(&rules, &BTreeMap::new(), &states, at(6));
    assert_eq!((again, transitions), (states, Vec::new()));
}

#[test]
fn a_rule_with_other_targets_ends_its_alerts_and_goes_on() {
    let mut run = Run::new(rule()).values(&[BAD; 5]);
    run.rule.by.push("disk".to_owned());
    for minute in 5..10 {
        run.step(minute, &seen(NODE, vec![reading(BAD, at(minute))]));
    }
    assert_eq!(
        run.log[2..],
        [
            (5, Change::Resolved(Resolution::RuleGone)),
            (6, Change::Pending),
            (9, Change::Firing)
        ]
    );
}

#[test]
fn context_fills_the_sentence() {
    let rule = Rule {
        summary: "{node} runs {image}, {{{image}}}".to_owned(),
        context: vec!["image".to_owned()],
        commands: vec!["pull {image}".to_owned()],
        ..rule()
    };
    let mut observed = seen(NODE, vec![reading(BAD, at(0))]);
    let outcome = evaluate(&rule, &observed, &Alerts::new(), at(0));
    assert_eq!(outcome.transitions[0].summary, "gpu-7 runs unknown, {unknown}");
    observed.observations[0].context = labels(&[("image", "a; reboot")]);
    let outcome = evaluate(&rule, &observed, &Alerts::new(), at(0));
    assert_eq!(outcome.alerts.values().next().unwrap().commands, ["pull 'a; reboot'"]);
}

/// What is seen in a minute: of each of three targets a number or nothing, or that it is gone.
#[derive(Debug, Clone)]
enum Seen {
    Value(f64),
    Missing,
    Gone,
}

fn minutes() -> impl Strategy<Value = Vec<(u64, Vec<Seen>)>> {
    let seen = prop_oneof![
        5 => Just(Seen::Value(20.0)),
        4 => Just(Seen::Value(1.0)),
        2 => Just(Seen::Missing),
        1 => Just(Seen::Gone),
    ];
    // Mostly a minute apart, at times a gap.
    let pause = prop_oneof![9 => Just(1u64), 1 => 2u64..90];
    prop::collection::vec((pause, prop::collection::vec(seen, 3)), 1..80)
}

fn observed(seen: &[Seen], now: Timestamp) -> Observed {
    let mut observed = Observed::default();
    for (node, seen) in seen.iter().enumerate() {
        let target = labels(&[("node", &format!("n{node}"))]);
        let readings = match seen {
            Seen::Value(value) => vec![Reading::Value { value: *value, at: now }],
            Seen::Missing => vec![Reading::Missing],
            Seen::Gone => {
                observed.gone.push(target);
                continue;
            }
        };
        observed.observations.push(Observation {
            target,
            readings,
            context: Labels::new(),
        });
    }
    observed
}

proptest! {
    #[test]
    fn laws(
        minutes in minutes(),
        for_ in 0u64..6,
        keep in 0u64..6,
    ) {
        let rule = Rule { for_: Span::minutes(for_), keep_firing_for: Span::minutes(keep), ..rule() };
        let mut alerts = Alerts::new();
        let mut minute = 0;
        // Since when each target has been broken at every look, with no gap longer than `staleAfter`.
        let mut broken_since: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut last_broken: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut firing: BTreeMap<Fingerprint, bool> = BTreeMap::new();
        for (pause, seen) in &minutes {
            minute += pause;
            let now = at(minute);
            let input = observed(seen, now);
            for (node, seen) in seen.iter().enumerate() {
                let node = format!("n{node}");
                match seen {
                    Seen::Value(value) if *value > 10.0 => {
                        let gap = last_broken.get(&node).is_some_and(|last| Span::between(*last, now) > rule.stale_after);
                        if gap {
                            broken_since.remove(&node);
                        }
                        broken_since.entry(node.clone()).or_insert(now);
                        last_broken.insert(node, now);
                    }
                    Seen::Missing => {}
                    Seen::Value(_) | Seen::Gone => {
                        broken_since.remove(&node);
                        last_broken.remove(&node);
                    }
                }
            }
            let outcome = evaluate(&rule, &input, &alerts, now);

            // Restart: through JSON, the outcome is the same.
            let text = serde_json::to_string(&alerts).unwrap();
            let restored: Alerts = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&restored, &alerts);
            prop_assert_eq!(&evaluate(&rule, &input, &restored, now), &outcome);

            // Looking again at the same time changes nothing.
            let again = evaluate(&rule, &input, &outcome.alerts, now);
            prop_assert_eq!(&again.alerts, &outcome.alerts);
            prop_assert!(again.transitions.is_empty());

            for transition in &outcome.transitions {
                let fires = firing.entry(transition.fingerprint.clone()).or_insert(false);
                match transition.change {
                    // Never before `for`, and only with a broken sample of now.
                    Change::Firing => {
                        prop_assert!(!*fires);
                        let node = &transition.target["node"];
                        let since = broken_since.get(node);
                        prop_assert!(since.is_some_and(|since| Span::between(*since, now) >= rule.for_), "{:?}", since);
                        prop_assert_eq!(last_broken.get(node), Some(&now));
                        *fires = true;
                    }
                    // Only what fired, and never for want of data.
                    Change::Resolved(resolution) => {
                        prop_assert!(*fires);
                        let index: usize = transition.target["node"][1..].parse().unwrap();
                        match (&seen[index], resolution) {
                            (Seen::Value(value), Resolution::Healthy) => prop_assert!(*value <= 10.0),
                            (Seen::Gone, Resolution::TargetGone) => {}
                            other => prop_assert!(false, "{:?}", other),
                        }
                        *fires = false;
                    }
                    Change::Pending | Change::Dropped => prop_assert!(!*fires),
                    Change::Stale | Change::Fresh => prop_assert!(*fires),
                    Change::FlappingBegan | Change::FlappingEnded => {}
                }
            }
            for (fingerprint, alert) in &outcome.alerts {
                prop_assert_eq!(&alert.fingerprint, fingerprint);
                prop_assert_eq!(alert.phase == Phase::Firing, firing.get(fingerprint) == Some(&true));
                prop_assert!(alert.since <= now && alert.last_seen <= now);
                prop_assert!(!alert.summary.is_empty() && !alert.evidence.is_empty());
            }
            alerts = outcome.alerts;
        }
    }
}
