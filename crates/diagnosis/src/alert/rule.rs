//! A rule: what to look for, how long it must last, what to say, and what would help. Data, from here or a file.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::matcher::is_label_name;
use super::reading::Need;
use super::template::{self, Piece, TemplateError};
use super::{Labels, Span};

/// Places that every sentence may have, apart from the target's labels.
///
/// `target`: all of its labels. `value`, `limit`: as written for people. `eta`: until a trend crosses its limit.
/// `state`: the word of a state. `why`: the evidence.
const PLACES: [&str; 6] = ["target", "value", "limit", "eta", "state", "why"];

/// How much an alert matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it in working hours.
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Alerts that say nothing new while the rule's own alert fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inhibition {
    /// Names of rules; `*` stands for all but those that inhibit this rule.
    pub rules: Vec<String>,
    /// Only alerts with the same values of these labels, which must be there.
    pub equal: Vec<String>,
}

/// What to look for, and what to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Unique; lower-case words joined by `-`.
    pub name: String,
    /// How much its alerts matter.
    pub severity: Severity,
    /// One line about an alert; a template.
    pub summary: String,
    /// What it means and what follows from it; a template. Empty: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Labels that tell targets apart: one alert for each combination. Those that a target lacks are left out.
    pub by: Vec<String>,
    /// When it is broken.
    pub condition: Condition,
    /// How long it must be broken before the alert fires.
    #[serde(rename = "for", default)]
    pub for_: Span,
    /// How long it must be healthy before the alert is resolved.
    #[serde(default)]
    pub keep_firing_for: Span,
    /// Without data for this long, a firing alert is called stale, and a pending one is dropped. Also the age from
    /// which a sample is no data.
    #[serde(default = "five_minutes")]
    pub stale_after: Span,
    /// Commands that show more or would help; templates whose values are quoted for a shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// Further labels of its alerts, for silences and receivers.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Words of the caller that its sentences use, beside the target's labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// What its alerts make pointless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inhibits: Vec<Inhibition>,
}

const fn five_minutes() -> Span {
    Span::minutes(5)
}

/// Why a rule, or a set of them, can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The name isn't lower-case words joined by `-`.
    #[error("{name:?} is no name of a rule (lower-case letters, digits and -)")]
    Name {
        /// What was given.
        name: String,
    },
    /// Two rules of one file have this name.
    #[error("there are two rules called {name:?}")]
    Twice {
        /// The name.
        name: String,
    },
    /// The condition makes no sense.
    #[error("rule {rule}: {flaw}")]
    Condition {
        /// The rule.
        rule: String,
        /// In words.
        flaw: String,
    },
    /// A label name that isn't one, or that is taken.
    #[error("rule {rule}: {label:?} can't be a label here (letters, digits and _; not rule, severity, alertname)")]
    Label {
        /// The rule.
        rule: String,
        /// The label.
        label: String,
    },
    /// A template that can't be read.
    #[error("rule {rule}")]
    Template {
        /// The rule.
        rule: String,
        /// What is wrong with it.
        source: TemplateError,
    },
    /// A place in a template that nothing fills.
    #[error("rule {rule}: nothing fills {{{place}}} (known here: {known})")]
    Place {
        /// The rule.
        rule: String,
        /// The place.
        place: String,
        /// What it may be.
        known: String,
    },
    /// A rule that is named isn't there.
    #[error("{by} names the rule {name:?}, which isn't there")]
    NoSuchRule {
        /// Who names it.
        by: String,
        /// The name.
        name: String,
    },
    /// An inhibition without labels in common would silence the whole fleet.
    #[error("rule {rule}: `equal` of an inhibition is empty: it would silence the whole fleet")]
    Equal {
        /// The rule.
        rule: String,
    },
    /// Rules that inhibit each other would hide both.
    #[error("rules inhibit each other in a circle: {circle}")]
    Circle {
        /// Names, with arrows between them.
        circle: String,
    },
}

impl Rule {
    /// What has to be asked for, in the order in which [`super::Observation::readings`] answers it.
    #[must_use]
    pub fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        self.condition.needs(&mut needs);
        needs
    }

    /// The labels of a series that make its target.
    #[must_use]
    pub fn target(&self, labels: &Labels) -> Labels {
        self.by
            .iter()
            .filter_map(|name| Some((name.clone(), labels.get(name)?.clone())))
            .collect()
    }

    fn check(&self) -> Result<(), RuleError> {
        let rule = || self.name.clone();
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !self.name.starts_with(|c: char| c.is_ascii_lowercase()) || !self.name.chars().all(lower) {
            return Err(RuleError::Name { name: rule() });
        }
        let taken = ["rule", "severity", "alertname"];
        if let Some(label) = (self.by.iter().chain(self.labels.keys()).chain(&self.context))
            .find(|label| !is_label_name(label) || taken.contains(&label.as_str()))
        {
            return Err(RuleError::Label {
                rule: rule(),
                label: label.clone(),
            });
        }
        if let Some(flaw) = self.condition.flaw(0) {
            return Err(RuleError::Condition { rule: rule(), flaw });
        }
        if self.stale_after == Span::ZERO {
            return Err(RuleError::Condition {
                rule: rule(),
                flaw: "`staleAfter` is 0: every sample would be too old".to_owned(),
            });
        }
        let known: Vec<&str> = (self.by.iter().chain(self.labels.keys()).chain(&self.context))
            .map(String::as_str)
            .chain(PLACES)
            .collect();
        for template in [&self.summary, &self.description].into_iter().chain(&self.commands) {
            let pieces = template::pieces(template).map_err(|source| RuleError::Template { rule: rule(), source })?;
            for piece in pieces {
                if let Piece::Place(place) = piece
                    && !known.contains(&place)
                {
                    return Err(RuleError::Place {
                        rule: rule(),
                        place: place.to_owned(),
                        known: known.join(", "),
                    });
                }
            }
        }
        if self.inhibits.iter().any(|inhibition| inhibition.equal.is_empty()) {
            return Err(RuleError::Equal { rule: rule() });
        }
        Ok(())
    }
}

/// A user's file of rules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleFile {
    /// Own rules. One with the name of a built-in rule replaces it.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Names of built-in rules that are not wanted.
    #[serde(default)]
    pub off: Vec<String>,
}

/// Rules that were checked, each on its own and against the others.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleSet {
    rules: BTreeMap<String, Rule>,
}

impl RuleSet {
    /// The built-in rules alone.
    ///
    /// # Errors
    /// None in practice: a test checks the built-in rules.
    pub fn built_in() -> Result<Self, RuleError> {
        Self::with(RuleFile::default())
    }

    /// The built-in rules as a user's file changes them.
    ///
    /// # Errors
    /// A rule that can't be used, or that doesn't fit the others.
    pub fn with(file: RuleFile) -> Result<Self, RuleError> {
        let mut rules: BTreeMap<String, Rule> = super::defaults::rules()
            .into_iter()
            .map(|rule| (rule.name.clone(), rule))
            .collect();
        for name in &file.off {
            if rules.remove(name).is_none() {
                return Err(RuleError::NoSuchRule {
                    by: "`off`".to_owned(),
                    name: name.clone(),
                });
            }
        }
        let mut own = BTreeSet::new();
        for rule in file.rules {
            if !own.insert(rule.name.clone()) {
                return Err(RuleError::Twice { name: rule.name });
            }
            rules.insert(rule.name.clone(), rule);
        }
        // A built-in rule may name one that was switched off.
        for rule in rules.values_mut().filter(|rule| !own.contains(&rule.name)) {
            for inhibition in &mut rule.inhibits {
                inhibition.rules.retain(|name| !file.off.contains(name));
            }
        }
        let set = Self { rules };
        set.rules.values().try_for_each(Rule::check)?;
        set.check_inhibitions()?;
        Ok(set)
    }

    /// The rules, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Rule> {
        self.rules.get(name)
    }

    /// Whether an inhibition of the rule `source` is about alerts of the rule `other`.
    pub(super) fn concerns(&self, source: &Rule, inhibition: &Inhibition, other: &str) -> bool {
        let named = |inhibition: &Inhibition, name: &str| inhibition.rules.iter().any(|rule| rule == name);
        let named_back = || {
            self.get(other)
                .is_some_and(|rule| rule.inhibits.iter().any(|back| named(back, &source.name)))
        };
        other != source.name && (named(inhibition, other) || (named(inhibition, "*") && !named_back()))
    }

    fn check_inhibitions(&self) -> Result<(), RuleError> {
        for rule in self.rules.values() {
            for name in rule.inhibits.iter().flat_map(|inhibition| &inhibition.rules) {
                if name != "*" && !self.rules.contains_key(name) {
                    return Err(RuleError::NoSuchRule {
                        by: format!("rule {}", rule.name),
                        name: name.clone(),
                    });
                }
            }
        }
        // Depth first; what is finished can't be part of a circle.
        let mut finished = BTreeSet::new();
        for rule in self.rules.values() {
            self.walk(rule, &mut Vec::new(), &mut finished)?;
        }
        Ok(())
    }

    fn walk<'a>(
        &'a self,
        rule: &'a Rule,
        path: &mut Vec<&'a str>,
        finished: &mut BTreeSet<&'a str>,
    ) -> Result<(), RuleError> {
        if let Some(start) = path.iter().position(|name| *name == rule.name) {
            let mut circle = path[start..].to_vec();
            circle.push(&rule.name);
            return Err(RuleError::Circle {
                circle: circle.join(" -> "),
            });
        }
        if finished.contains(rule.name.as_str()) || rule.inhibits.is_empty() {
            return Ok(());
        }
        path.push(&rule.name);
        for other in self.rules.values() {
            if rule
                .inhibits
                .iter()
                .any(|inhibition| self.concerns(rule, inhibition, &other.name))
            {
                self.walk(other, path, finished)?;
            }
        }
        path.pop();
        finished.insert(&rule.name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "
rules:
- name: vram-full
  severity: warning
  summary: '{gpu} of {node}: {value} of memory used'
  by: [node, gpu]
  for: 10m
  condition:
    kind: threshold
    metric: gpu.memory
    labels: ['node!=lab']
    take: avg
    over: 5m
    op: '>='
    bound: {metric: gpu.memory.total, times: 0.98}
    unit: bytes
  commands: ['clawbernetes node info {node}']
off: [node-swap-storm]
";

    fn own(change: impl Fn(&str) -> String) -> Result<RuleSet, RuleError> {
        RuleSet::with(serde_saphyr::from_str(&change(OWN)).unwrap())
    }

    #[test]
    fn a_users_file_adds_and_removes() {
        let set = own(str::to_owned).unwrap();
        let rule = set.get("vram-full").unwrap();
        assert_eq!(rule.for_, Span::minutes(10));
        assert_eq!(rule.needs().len(), 2);
        assert!(set.get("node-swap-storm").is_none());
        assert!(set.get("node-down").is_some());
        let text = serde_json::to_string(rule).unwrap();
        assert_eq!(&serde_json::from_str::<Rule>(&text).unwrap(), rule);
    }

    #[test]
    fn a_rule_of_the_same_name_replaces_the_built_in_one() {
        let set = own(|text| {
            text.replace("vram-full", "node-down")
                .replace("node-swap-storm", "gpu-lost")
        })
        .unwrap();
        assert_eq!(set.get("node-down").unwrap().severity, Severity::Warning);
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line() {
        let text = OWN.replace("  for: 10m", "  fro: 10m");
        let error = serde_saphyr::from_str::<RuleFile>(&text).unwrap_err().to_string();
        assert!(error.contains("fro") && error.contains("line 7"), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, words) in [
            ("name: vram-full", "name: VRAM full", "no name of a rule"),
            ("{value}", "{vlaue}", "nothing fills {vlaue}"),
            ("{value}", "{value", "no partner"),
            ("    over: 5m\n", "", "needs a window"),
            ("[node, gpu]", "[node, severity]", "can't be a label"),
            ("[node-swap-storm]", "[nope]", "\"nope\", which isn't there"),
            (
                "  for: 10m",
                "  inhibits: [{rules: [nope], equal: [node]}]",
                "\"nope\", which isn't there",
            ),
            ("  for: 10m", "  inhibits: [{rules: ['*'], equal: []}]", "whole fleet"),
            (
                "  for: 10m",
                "  inhibits: [{rules: [node-down], equal: [node]}, {rules: [gpu-lost], equal: [node]}]",
                "",
            ),
            ("  for: 10m", "  staleAfter: 0s", "staleAfter"),
        ] {
            let read = own(|text| text.replacen(from, to, 1));
            if words.is_empty() {
                // It inhibits node-down by name, so that node-down's `*` leaves it out.
                assert!(read.is_ok(), "{to}: {read:?}");
                continue;
            }
            let error = read.unwrap_err();
            let text = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(": ");
            assert!(text.contains(words), "{to}: {text}");
        }
    }

    #[test]
    fn circles_of_inhibition_are_refused() {
        let error = own(|text| text.replacen("  for: 10m", "  inhibits: [{rules: ['*'], equal: [node]}]", 1));
        assert!(matches!(error, Err(RuleError::Circle { .. })), "{error:?}");
    }
}
