//! Who isn't told: silences that people set, and alerts that say nothing new beside another one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Labels;
use super::matcher::Matcher;
use super::rule::{Inhibition, Rule, RuleSet};
use super::state::{Alert, Fingerprint, Phase, States};

/// Alerts that nobody wants to hear of for a while. They are listed all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    /// Given by the caller.
    pub id: String,
    /// All must match an alert's labels (its target's, its rule's, `rule` and `severity`).
    pub matchers: Vec<Matcher>,
    /// Who set it.
    pub created_by: String,
    /// Why.
    pub comment: String,
    /// From then on.
    pub starts_at: Timestamp,
    /// Until then, exclusively. To end one early, move this.
    pub ends_at: Timestamp,
}

/// Why a silence can't be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    /// Every alert would match.
    #[error("a silence needs a matcher that not every alert satisfies, such as node=gpu-7")]
    Everything,
    /// It ends before it starts.
    #[error("the silence ends at {ends_at}, not after its start at {starts_at}")]
    Order {
        /// Its start.
        starts_at: Timestamp,
        /// Its end.
        ends_at: Timestamp,
    },
}

impl Silence {
    /// Whether it can be set.
    ///
    /// # Errors
    /// It would silence everything, or ends before it starts.
    pub fn check(&self) -> Result<(), SilenceError> {
        if self.matchers.iter().all(|matcher| matcher.accepts("")) {
            return Err(SilenceError::Everything);
        }
        if self.starts_at >= self.ends_at {
            return Err(SilenceError::Order {
                starts_at: self.starts_at,
                ends_at: self.ends_at,
            });
        }
        Ok(())
    }

    /// Whether it holds at that time.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.starts_at <= now && now < self.ends_at
    }

    /// Whether it is about these labels, whatever the time.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels))
    }
}

/// Why an alert isn't told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mute {
    /// Ids of silences.
    pub silenced_by: Vec<String>,
    /// Firing alerts that make it pointless.
    pub inhibited_by: Vec<Fingerprint>,
}

/// The alerts that aren't told now, and why. A silenced alert still inhibits others: what it explains, it explains.
#[must_use]
pub fn mutes(states: &States, rules: &RuleSet, silences: &[Silence], now: Timestamp) -> BTreeMap<Fingerprint, Mute> {
    let active: Vec<&Silence> = silences.iter().filter(|silence| silence.is_active(now)).collect();
    let sources = sources(states, rules);
    let mut muted = BTreeMap::new();
    for (name, alerts) in &states.rules {
        let sources: Vec<&Source<'_>> = (sources.iter())
            .filter(|source| rules.concerns(source.rule, source.inhibition, name))
            .collect();
        for (fingerprint, alert) in alerts {
            let mut mute = Mute::default();
            if !active.is_empty() {
                let labels = alert.all_labels();
                mute.silenced_by = (active.iter().filter(|silence| silence.matches(&labels)))
                    .map(|silence| silence.id.clone())
                    .collect();
            }
            for source in &sources {
                let same = values(alert, &source.inhibition.equal).and_then(|values| source.firing.get(&values));
                mute.inhibited_by
                    .extend(same.into_iter().flatten().map(|source| (*source).clone()));
            }
            if mute != Mute::default() {
                muted.insert(fingerprint.clone(), mute);
            }
        }
    }
    muted
}

/// Firing alerts of one rule, by the labels that one of its inhibitions compares.
struct Source<'a> {
    rule: &'a Rule,
    inhibition: &'a Inhibition,
    firing: BTreeMap<Vec<&'a str>, Vec<&'a Fingerprint>>,
}

fn sources<'a>(states: &'a States, rules: &'a RuleSet) -> Vec<Source<'a>> {
    let mut sources = Vec::new();
    for (name, alerts) in &states.rules {
        let Some(rule) = rules.get(name) else { continue };
        for inhibition in &rule.inhibits {
            let mut firing: BTreeMap<Vec<&str>, Vec<&Fingerprint>> = BTreeMap::new();
            for (fingerprint, alert) in alerts.iter().filter(|(_, alert)| alert.phase == Phase::Firing) {
                if let Some(values) = values(alert, &inhibition.equal) {
                    firing.entry(values).or_default().push(fingerprint);
                }
            }
            sources.push(Source {
                rule,
                inhibition,
                firing,
            });
        }
    }
    sources
}

/// `None` where a label isn't there: nothing in common.
fn values<'a>(alert: &'a Alert, labels: &[String]) -> Option<Vec<&'a str>> {
    labels
        .iter()
        .map(|name| {
            (alert.target.get(name))
                .or_else(|| alert.labels.get(name))
                .map(String::as_str)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::super::scene::{Scene, at, built_in};
    use super::*;

    fn silence(matchers: &[&str]) -> Silence {
        Silence {
            id: "sil-1".to_owned(),
            matchers: matchers.iter().map(|text| text.parse().unwrap()).collect(),
            created_by: "user:ann".to_owned(),
            comment: "new fans".to_owned(),
            starts_at: at(10),
            ends_at: at(20),
        }
    }

    #[test]
    fn edges_of_the_window() {
        let silence = silence(&["node=gpu-7"]);
        let before = Span::millis(1);
        assert!(!silence.is_active(at(9)));
        assert!(silence.is_active(at(10)));
        assert!(silence.is_active(at(19)));
        assert!(silence.is_active(before.after(at(19))));
        assert!(!silence.is_active(at(20)));
    }

    #[test]
    fn one_for_everything_is_refused() {
        assert_eq!(silence(&[]).check(), Err(SilenceError::Everything));
        assert_eq!(silence(&["node=~.*"]).check(), Err(SilenceError::Everything));
        assert_eq!(silence(&["node!=gpu-7"]).check(), Err(SilenceError::Everything));
        assert_eq!(silence(&["node=gpu-7"]).check(), Ok(()));
        let turned = Silence {
            ends_at: at(10),
            ..silence(&["node=gpu-7"])
        };
        assert!(matches!(turned.check(), Err(SilenceError::Order { .. })));
    }

    #[test]
    fn a_silence_is_kept_as_text() {
        let text = serde_json::to_value(silence(&["node=~gpu-.*", "severity!=critical"])).unwrap();
        assert_eq!(
            text["matchers"],
            serde_json::json!(["node=~gpu-.*", "severity!=critical"])
        );
        assert_eq!(
            serde_json::from_value::<Silence>(text).unwrap(),
            silence(&["node=~gpu-.*", "severity!=critical"])
        );
    }

    #[test]
    fn a_silenced_alert_says_by_what() {
        let scene = Scene::firing("gpu-lost", &[("node", "gpu-7"), ("gpu", "3")], at(0));
        let rules = built_in();
        let muted = |matchers: &[&str], now| mutes(&scene.states, rules, &[silence(matchers)], now);
        assert_eq!(muted(&["node=gpu-7", "rule=gpu-lost"], at(12)).len(), 1);
        assert_eq!(muted(&["severity=critical"], at(12)).len(), 1);
        assert_eq!(muted(&["node=gpu-7", "gpu=4"], at(12)).len(), 0);
        assert_eq!(muted(&["node=gpu-7"], at(20)).len(), 0);
    }

    #[test]
    fn a_node_that_is_down_explains_the_rest_of_it_only() {
        let mut scene = Scene::firing("node-down", &[("node", "gpu-7")], at(0));
        scene.fire("gpu-lost", &[("node", "gpu-7"), ("gpu", "3")], at(0));
        scene.fire("gpu-lost", &[("node", "gpu-8"), ("gpu", "3")], at(0));
        scene.fire("queue-stuck", &[("reason", "NO_NODE")], at(0));
        let rules = built_in();
        let muted = mutes(&scene.states, rules, &[], at(1));
        assert_eq!(muted.len(), 1);
        let (fingerprint, mute) = muted.first_key_value().unwrap();
        assert_eq!(scene.states.get(fingerprint).unwrap().target["node"], "gpu-7");
        assert_eq!(scene.states.get(&mute.inhibited_by[0]).unwrap().rule, "node-down");
        // Once it is back, the GPU speaks for itself.
        scene.resolve("node-down", &[("node", "gpu-7")], at(2));
        assert!(mutes(&scene.states, rules, &[], at(2)).is_empty());
    }
}
