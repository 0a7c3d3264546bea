//! What is kept of alerts: plain data, the same after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::judge::Evidence;
use super::notify::Ledger;
use super::rule::Severity;
use super::{Labels, Span};

/// Firing and being resolved more often than this within [`FLAP_WINDOW`] is flapping: three whole rounds.
const FLAPPING_FROM: usize = 6;

/// Flapping ends at this many changes within [`FLAP_WINDOW`], well below where it began.
const FLAPPING_UNTIL: usize = 2;

/// Over which changes are counted.
const FLAP_WINDOW: Span = Span::hours(1);

/// Resolved alerts are kept this long, to be listed.
const RESOLVED_KEPT: Span = Span::hours(24);

/// Resolved alerts whose end couldn't be told to a receiver are kept this long.
const UNTOLD_KEPT: Span = Span::days(7);

/// The identity of an alert: the first 8 bytes of the SHA-256 of its rule's name and its target's labels, in hex.
///
/// The text that is hashed is `rule`, then for each label in order of its name `name` and `value`, each followed by a
/// zero byte. It is the same in every run and version, and doesn't depend on severity, values or the rule's own labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of a rule's alert for a target.
    #[must_use]
    pub fn new(rule: &str, target: &Labels) -> Self {
        let words = std::iter::once(rule).chain(target.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]));
        Self(hash(words))
    }

    /// 16 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// 16 hex digits of the SHA-256 of words, each followed by a zero byte.
pub(super) fn hash<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut sha = Sha256::new();
    for word in words {
        sha.update(word.as_bytes());
        sha.update([0]);
    }
    sha.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How far an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Broken, but not yet for as long as the rule asks. Nobody is told.
    Pending,
    /// Broken for long enough, and not yet healthy for long enough.
    Firing,
    /// It fired, and is over.
    Resolved,
}

/// Why an alert is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Resolution {
    /// It was seen healthy.
    Healthy,
    /// What it was about exists no more.
    TargetGone,
    /// Its rule exists no more, or tells targets apart by other labels.
    RuleGone,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// The rule's name.
    pub rule: String,
    /// As of the last evaluation.
    pub severity: Severity,
    /// Labels of the target.
    pub target: Labels,
    /// Names of labels by which the rule told targets apart when this began.
    pub by: Vec<String>,
    /// The rule's own labels.
    pub labels: Labels,
    /// What is wrong, in a line. As of the last time that it was seen broken, like all that follows up to `value`.
    pub summary: String,
    /// What it means; may be empty.
    pub description: String,
    /// What it stands on.
    pub evidence: Vec<Evidence>,
    /// Commands that show more or would help.
    pub commands: Vec<String>,
    /// The value that broke the rule; `None` for states.
    pub value: Option<f64>,
    /// How far it is.
    pub phase: Phase,
    /// When it came to this phase.
    pub since: Timestamp,
    /// When it was first seen broken, this time.
    pub broken_since: Timestamp,
    /// When it was last seen broken.
    pub broken_at: Timestamp,
    /// When it last was seen at all, broken or healthy.
    pub last_seen: Timestamp,
    /// Healthy since then, though it still fires (`keepFiringFor`). `None` while broken.
    pub healthy_since: Option<Timestamp>,
    /// Without data since then. `None` while there is data.
    pub no_data_since: Option<Timestamp>,
    /// Without data for as long as the rule's `staleAfter`: it may be long over, or worse.
    pub stale: bool,
    /// How many times it has fired; each time is an episode of its own.
    pub episode: u64,
    /// When it last began to fire. `None` if it never did.
    pub fired_at: Option<Timestamp>,
    /// When it last was resolved. May be earlier than `fired_at`.
    pub resolved_at: Option<Timestamp>,
    /// Why it last was resolved.
    pub resolution: Option<Resolution>,
    /// The alternatives of the rule's condition that have been broken in this episode.
    pub because: BTreeSet<usize>,
    /// When it fired or was resolved, within the last hour.
    pub changes: Vec<Timestamp>,
    /// It changes so often that it is told at a slower rate.
    pub flapping: bool,
}

impl Alert {
    /// All labels: the target's, the rule's, `rule`, `alertname` (the same, as Prometheus calls it) and `severity`.
    /// What silences and receivers look at.
    #[must_use]
    pub fn all_labels(&self) -> Labels {
        let mut labels = self.labels.clone();
        labels.extend(self.target.clone());
        labels.insert("rule".to_owned(), self.rule.clone());
        labels.insert("alertname".to_owned(), self.rule.clone());
        labels.insert("severity".to_owned(), self.severity.word().to_owned());
        labels
    }

    /// Forgets changes that are too old, and tells flapping by the rest. True if that changed.
    pub(super) fn count_changes(&mut self, now: Timestamp) -> bool {
        self.changes.retain(|at| Span::between(*at, now) < FLAP_WINDOW);
        let before = self.flapping;
        self.flapping = match self.changes.len() {
            FLAPPING_FROM.. => true,
            0..=FLAPPING_UNTIL => false,
            _ => before,
        };
        self.flapping != before
    }
}

/// The alerts of one rule.
pub type Alerts = BTreeMap<Fingerprint, Alert>;

/// All alerts, by rule. To be kept across restarts, as JSON for example.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct States {
    /// By the rule's name. A rule without alerts isn't there.
    pub rules: BTreeMap<String, Alerts>,
}

impl States {
    /// All alerts, by rule and fingerprint.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.rules.values().flat_map(BTreeMap::values)
    }

    /// One alert.
    #[must_use]
    pub fn get(&self, fingerprint: &Fingerprint) -> Option<&Alert> {
        self.rules.values().find_map(|alerts| alerts.get(fingerprint))
    }

    /// Forgets what was resolved more than a day ago; what some receiver still believes to fire, a week ago.
    pub fn prune(&mut self, ledger: &Ledger, now: Timestamp) {
        for alerts in self.rules.values_mut() {
            alerts.retain(|fingerprint, alert| {
                let kept = if ledger.owes(fingerprint) {
                    UNTOLD_KEPT
                } else {
                    RESOLVED_KEPT
                };
                alert.phase != Phase::Resolved || Span::between(alert.since, now) < kept
            });
        }
        self.rules.retain(|_, alerts| !alerts.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_never_changes() {
        let target: Labels = [("node", "gpu-7"), ("gpu", "3")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        // Recorded: another version must find the alerts that this one kept. Check: printf
        // 'gpu-lost\0gpu\0003\0node\0gpu-7\0' | sha256sum
        assert_eq!(Fingerprint::new("gpu-lost", &target).as_str(), "dc0a5722ae2d6e14");
        assert_ne!(
            Fingerprint::new("gpu-hot", &target),
            Fingerprint::new("gpu-lost", &target)
        );
    }

    #[test]
    fn words_do_not_run_into_one_another() {
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
    }
}
