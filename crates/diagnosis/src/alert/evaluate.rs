//! From the alerts so far and what is seen now to the alerts and what changed.
//!
//! ```text
//!            broken            broken for `for`          healthy for `keepFiringFor`, or gone
//!  (nothing) ------> pending ------------------> firing -----------------------------------> resolved
//!                       |  healthy, gone, or                   broken again                     |
//!                       +- no data for `staleAfter` -> as before     pending <-----------------+
//! ```
//!
//! Data that is missing is neither: a firing alert keeps firing and is called stale, a pending one doesn't ripen.
//! Evaluating twice at the same time with the same readings changes nothing the second time.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::judge::{Judged, Verdict, judge, overall};
use super::reading::{Observation, Observed};
use super::rule::{Rule, RuleSet};
use super::state::{Alert, Alerts, Fingerprint, Phase, Resolution, States};
use super::{Labels, Span, template};

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Seen broken; nobody is told yet.
    Pending,
    /// Broken no more, or without data, before it fired.
    Dropped,
    /// It fires.
    Firing,
    /// It is over.
    Resolved(Resolution),
    /// It fires, but there is no data any more.
    Stale,
    /// There is data again.
    Fresh,
    /// It comes and goes.
    FlappingBegan,
    /// It came to rest.
    FlappingEnded,
}

/// A change of an alert: an event to record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// Of which alert.
    pub fingerprint: Fingerprint,
    /// Of which rule.
    pub rule: String,
    /// About what.
    pub target: Labels,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub change: Change,
    /// The alert's summary.
    pub summary: String,
}

/// One rule's alerts after an evaluation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// All of them; to be handed in next time.
    pub alerts: Alerts,
    /// What changed, in order of fingerprints.
    pub transitions: Vec<Transition>,
}

/// Evaluates one rule. `previous` are the rule's alerts so far.
#[must_use]
pub fn evaluate(rule: &Rule, observed: &Observed, previous: &Alerts, now: Timestamp) -> Outcome {
    let known: BTreeMap<&Labels, &Alert> = previous.values().map(|alert| (&alert.target, alert)).collect();
    let mut seen: BTreeMap<Fingerprint, Sight<'_>> = BTreeMap::new();
    for observation in &observed.observations {
        let parts = judge(&rule.condition, &observation.readings, rule.stale_after, now);
        let target = rule.target(&observation.target);
        let before = known.get(&target).copied();
        let verdict = overall(&parts, |part| before.is_some_and(|alert| alert.because.contains(&part)));
        // Nearly all is healthy nearly always: that costs no hash.
        if before.is_none() && verdict != Verdict::Broken {
            continue;
        }
        let fingerprint = Fingerprint::new(&rule.name, &target);
        let sight = Sight {
            target,
            verdict,
            parts,
            observation: Some(observation),
        };
        match seen.get(&fingerprint) {
            Some(other) if other.verdict >= verdict => {}
            _ => {
                seen.insert(fingerprint, sight);
            }
        }
    }
    let mut outcome = Outcome::default();
    let fingerprints: BTreeSet<&Fingerprint> = previous.keys().chain(seen.keys()).collect();
    for fingerprint in fingerprints {
        let before = previous.get(fingerprint);
        let sight = seen.get(fingerprint);
        let Some(target) = before
            .map(|alert| &alert.target)
            .or_else(|| sight.map(|sight| &sight.target))
        else {
            continue;
        };
        let gone = observed.gone.iter().any(|labels| is_part_of(labels, target));
        let mut step = Step {
            rule,
            now,
            changes: Vec::new(),
        };
        let after = match (before, sight) {
            (Some(alert), _) if gone => step.end(alert.clone(), Resolution::TargetGone),
            (None, _) if gone => None,
            // The rule's targets are other ones now: nothing will be seen of this one again.
            (Some(alert), _) if alert.by != rule.by && alert.phase != Phase::Resolved => {
                step.end(alert.clone(), Resolution::RuleGone)
            }
            (before, Some(sight)) => step.advance(before.cloned(), fingerprint, sight),
            (Some(alert), None) => step.no_data(alert.clone()),
            (None, None) => None,
        };
        let after = after.map(|alert| step.settle(alert));
        if let Some(alert) = after.as_ref().or(before) {
            outcome.transitions.extend(step.transitions(alert));
        }
        if let Some(alert) = after {
            outcome.alerts.insert(fingerprint.clone(), alert);
        }
    }
    outcome
}

/// Evaluates all rules. A rule that `observed` doesn't have counts as one without any data; alerts of rules that exist
/// no more are resolved.
#[must_use]
pub fn evaluate_all(
    rules: &RuleSet,
    observed: &BTreeMap<String, Observed>,
    previous: &States,
    now: Timestamp,
) -> (States, Vec<Transition>) {
    let nothing = Observed::default();
    evaluate_each(
        rules,
        |rule| observed.get(&rule.name).unwrap_or(&nothing),
        previous,
        now,
    )
}

/// The same with one rule's observations at a time, each asked for when its rule's turn has come: those of all rules over
/// a large fleet are gigabytes.
#[must_use]
pub fn evaluate_each<O: Borrow<Observed>>(
    rules: &RuleSet,
    mut observe: impl FnMut(&Rule) -> O,
    previous: &States,
    now: Timestamp,
) -> (States, Vec<Transition>) {
    let mut states = States::default();
    let mut transitions = Vec::new();
    let none = Alerts::new();
    let mut keep = |name: &str, outcome: Outcome| {
        transitions.extend(outcome.transitions);
        if !outcome.alerts.is_empty() {
            states.rules.insert(name.to_owned(), outcome.alerts);
        }
    };
    for rule in rules.iter() {
        let previous = previous.rules.get(&rule.name).unwrap_or(&none);
        keep(&rule.name, evaluate(rule, observe(rule).borrow(), previous, now));
    }
    for (name, alerts) in &previous.rules {
        if rules.get(name).is_none() {
            keep(name, end_all(alerts, now));
        }
    }
    (states, transitions)
}

/// Ends the alerts of a rule that exists no more.
fn end_all(alerts: &Alerts, now: Timestamp) -> Outcome {
    let mut outcome = Outcome::default();
    for (fingerprint, alert) in alerts {
        let mut changes = Vec::new();
        let after =
            end(alert.clone(), Resolution::RuleGone, now, &mut changes).map(|alert| settle(alert, now, &mut changes));
        outcome
            .transitions
            .extend(transitions(&changes, after.as_ref().unwrap_or(alert), now));
        outcome.alerts.extend(after.map(|alert| (fingerprint.clone(), alert)));
    }
    outcome
}

fn is_part_of(labels: &Labels, target: &Labels) -> bool {
    !labels.is_empty() && labels.iter().all(|(name, value)| target.get(name) == Some(value))
}

/// What is seen of a target.
struct Sight<'a> {
    target: Labels,
    verdict: Verdict,
    /// By alternative.
    parts: Vec<Judged>,
    observation: Option<&'a Observation>,
}

/// One alert's step.
struct Step<'a> {
    rule: &'a Rule,
    now: Timestamp,
    changes: Vec<Change>,
}

impl Step<'_> {
    fn advance(&mut self, before: Option<Alert>, fingerprint: &Fingerprint, sight: &Sight<'_>) -> Option<Alert> {
        match (before, sight.verdict) {
            (None, Verdict::Healthy | Verdict::Unknown) => None,
            (Some(alert), Verdict::Unknown) => self.no_data(alert),
            (Some(alert), Verdict::Healthy) => self.healthy(alert),
            (before, Verdict::Broken) => Some(self.broken(before, fingerprint, sight)),
        }
    }

    fn broken(&mut self, before: Option<Alert>, fingerprint: &Fingerprint, sight: &Sight<'_>) -> Alert {
        let mut alert = match before {
            Some(alert) if alert.phase != Phase::Resolved => alert,
            before => {
                self.changes.push(Change::Pending);
                self.begin(before, fingerprint, sight)
            }
        };
        // A gap says nothing about what was in it: a pending alert begins anew.
        if alert.phase == Phase::Pending && Span::between(alert.last_seen, self.now) > self.rule.stale_after {
            alert.since = self.now;
            alert.broken_since = self.now;
        }
        self.seen(&mut alert);
        alert.healthy_since = None;
        alert.broken_at = self.now;
        self.describe(&mut alert, sight);
        if alert.phase == Phase::Pending && Span::between(alert.broken_since, self.now) >= self.rule.for_ {
            alert.phase = Phase::Firing;
            alert.since = self.now;
            alert.fired_at = Some(self.now);
            alert.episode += 1;
            alert.changes.push(self.now);
            // Without `for` nobody needs to hear that it was pending.
            if self.changes.last() == Some(&Change::Pending) {
                self.changes.pop();
            }
            self.changes.push(Change::Firing);
        }
        alert
    }

    /// A new alert, or a new episode of one that was over.
    fn begin(&self, before: Option<Alert>, fingerprint: &Fingerprint, sight: &Sight<'_>) -> Alert {
        let now = self.now;
        let fresh = Alert {
            fingerprint: fingerprint.clone(),
            rule: self.rule.name.clone(),
            severity: self.rule.severity,
            target: sight.target.clone(),
            by: self.rule.by.clone(),
            labels: Labels::new(),
            summary: String::new(),
            description: String::new(),
            evidence: Vec::new(),
            commands: Vec::new(),
            value: None,
            phase: Phase::Pending,
            since: now,
            broken_since: now,
            broken_at: now,
            last_seen: now,
            healthy_since: None,
            no_data_since: None,
            stale: false,
            episode: 0,
            fired_at: None,
            resolved_at: None,
            resolution: None,
            because: BTreeSet::new(),
            changes: Vec::new(),
            flapping: false,
        };
        match before {
            None => fresh,
            Some(over) => Alert {
                episode: over.episode,
                fired_at: over.fired_at,
                resolved_at: over.resolved_at,
                resolution: over.resolution,
                changes: over.changes,
                flapping: over.flapping,
                ..fresh
            },
        }
    }

    fn healthy(&mut self, mut alert: Alert) -> Option<Alert> {
        match alert.phase {
            Phase::Pending => self.end(alert, Resolution::Healthy),
            Phase::Firing => {
                self.seen(&mut alert);
                let since = *alert.healthy_since.get_or_insert(self.now);
                if Span::between(since, self.now) >= self.rule.keep_firing_for {
                    self.end(alert, Resolution::Healthy)
                } else {
                    Some(alert)
                }
            }
            Phase::Resolved => Some(alert),
        }
    }

    fn no_data(&mut self, mut alert: Alert) -> Option<Alert> {
        let patience = self.rule.stale_after;
        match alert.phase {
            Phase::Pending if Span::between(alert.last_seen, self.now) > patience => {
                self.end(alert, Resolution::Healthy)
            }
            Phase::Firing => {
                let since = *alert.no_data_since.get_or_insert(self.now);
                if !alert.stale && Span::between(since, self.now) >= patience {
                    alert.stale = true;
                    self.changes.push(Change::Stale);
                }
                Some(alert)
            }
            Phase::Pending | Phase::Resolved => Some(alert),
        }
    }

    /// There is data.
    fn seen(&mut self, alert: &mut Alert) {
        alert.last_seen = self.now;
        alert.no_data_since = None;
        if alert.stale {
            alert.stale = false;
            self.changes.push(Change::Fresh);
        }
    }

    fn end(&mut self, alert: Alert, resolution: Resolution) -> Option<Alert> {
        end(alert, resolution, self.now, &mut self.changes)
    }

    fn settle(&mut self, alert: Alert) -> Alert {
        settle(alert, self.now, &mut self.changes)
    }

    fn transitions<'a>(&'a self, alert: &'a Alert) -> impl Iterator<Item = Transition> + 'a {
        transitions(&self.changes, alert, self.now)
    }

    /// Says what is wrong, by the parts that are broken.
    fn describe(&self, alert: &mut Alert, sight: &Sight<'_>) {
        let broken = || {
            let parts = sight.parts.iter().enumerate();
            parts.filter(|(_, part)| part.verdict == Verdict::Broken)
        };
        alert.because.extend(broken().map(|(index, _)| index));
        alert.evidence = broken().flat_map(|(_, part)| part.evidence.clone()).collect();
        let first = broken().map(|(_, part)| part).next();
        alert.value = first.and_then(|part| part.value);
        alert.severity = self.rule.severity;
        alert.labels = self.rule.labels.clone();
        let why = alert
            .evidence
            .iter()
            .map(|fact| fact.text.as_str())
            .collect::<Vec<_>>()
            .join("; ");
        let target = (sight.target.iter().map(|(name, value)| format!("{name}={value}")))
            .collect::<Vec<_>>()
            .join(" ");
        let context = sight.observation.map(|observation| &observation.context);
        let show = |number: Option<f64>| number.map(|n| first.map_or_else(|| n.to_string(), |part| part.unit.show(n)));
        let fill = |place: &str| match place {
            "target" => Some(target.clone()),
            "why" => Some(why.clone()),
            "value" => show(first.and_then(|part| part.value)),
            "limit" => show(first.and_then(|part| part.limit)),
            "eta" => first.and_then(|part| part.eta).map(Span::rough),
            "state" => first.and_then(|part| part.state.clone()),
            name => (sight.target.get(name))
                .or_else(|| self.rule.labels.get(name))
                .or_else(|| context?.get(name))
                .cloned(),
        };
        alert.summary = template::render(&self.rule.summary, fill);
        alert.description = template::render(&self.rule.description, fill);
        alert.commands = (self.rule.commands.iter())
            .map(|command| template::render_command(command, fill))
            .collect();
    }
}

/// Ends a pending alert (back to what it was before) or a firing one.
fn end(mut alert: Alert, resolution: Resolution, now: Timestamp, changes: &mut Vec<Change>) -> Option<Alert> {
    match alert.phase {
        Phase::Pending => {
            changes.push(Change::Dropped);
            alert.since = alert.resolved_at?;
            alert.phase = Phase::Resolved;
            alert.because.clear();
        }
        Phase::Firing => {
            changes.push(Change::Resolved(resolution));
            alert.phase = Phase::Resolved;
            alert.since = now;
            alert.resolved_at = Some(now);
            alert.resolution = Some(resolution);
            alert.no_data_since = None;
            alert.stale = false;
            alert.healthy_since = None;
            alert.because.clear();
            alert.changes.push(now);
        }
        Phase::Resolved => {}
    }
    Some(alert)
}

fn settle(mut alert: Alert, now: Timestamp, changes: &mut Vec<Change>) -> Alert {
    if alert.count_changes(now) {
        changes.push(if alert.flapping {
            Change::FlappingBegan
        } else {
            Change::FlappingEnded
        });
    }
    alert
}

fn transitions<'a>(changes: &'a [Change], alert: &'a Alert, at: Timestamp) -> impl Iterator<Item = Transition> + 'a {
    changes.iter().map(move |change| Transition {
        fingerprint: alert.fingerprint.clone(),
        rule: alert.rule.clone(),
        target: alert.target.clone(),
        at,
        change: *change,
        summary: alert.summary.clone(),
    })
}

#[cfg(test)]
mod tests;
