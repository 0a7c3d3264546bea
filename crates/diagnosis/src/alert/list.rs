//! An alert as people and receivers see it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Labels;
use super::judge::Evidence;
use super::notify::Ledger;
use super::rule::Severity;
use super::silence::Mute;
use super::state::{Alert, Fingerprint, Phase, Resolution, States};

/// An alert, and who isn't told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertView {
    /// Its fingerprint.
    pub id: Fingerprint,
    /// The rule's name.
    pub rule: String,
    /// How much it matters.
    pub severity: Severity,
    /// How far it is.
    pub status: Phase,
    /// All labels: its target's, its rule's, `rule`, `alertname` and `severity`.
    pub labels: Labels,
    /// What is wrong, in a line.
    pub summary: String,
    /// What it means; may be empty.
    pub description: String,
    /// What it stands on; as of the last time that it was seen broken.
    pub evidence: Vec<Evidence>,
    /// Commands that show more or would help.
    pub commands: Vec<String>,
    /// The value that broke the rule; `None` for states.
    pub value: Option<f64>,
    /// Since when it has had its status.
    pub since: Timestamp,
    /// When it began to fire; `None` for one that never did.
    pub starts_at: Option<Timestamp>,
    /// When it was resolved; `None` unless it is.
    pub ends_at: Option<Timestamp>,
    /// Why it is over; `None` unless it is.
    pub resolution: Option<Resolution>,
    /// When there last was data about it.
    pub last_seen: Timestamp,
    /// There has been no data for long: it may be over, or worse.
    pub stale: bool,
    /// It comes and goes.
    pub flapping: bool,
    /// How often it fired or was resolved in the last hour.
    pub changes_last_hour: usize,
    /// Ids of the silences that hold it back.
    pub silenced_by: Vec<String>,
    /// Fingerprints of alerts that explain it.
    pub inhibited_by: Vec<Fingerprint>,
    /// When a receiver was last told of it; `None` if none was.
    pub notified_at: Option<Timestamp>,
}

impl AlertView {
    pub(super) fn new(alert: &Alert, mute: Option<&Mute>, notified_at: Option<Timestamp>) -> Self {
        let over = alert.phase == Phase::Resolved;
        Self {
            id: alert.fingerprint.clone(),
            rule: alert.rule.clone(),
            severity: alert.severity,
            status: alert.phase,
            labels: alert.all_labels(),
            summary: alert.summary.clone(),
            description: alert.description.clone(),
            evidence: alert.evidence.clone(),
            commands: alert.commands.clone(),
            value: alert.value,
            since: alert.since,
            starts_at: alert.fired_at.filter(|_| alert.phase != Phase::Pending),
            ends_at: alert.resolved_at.filter(|_| over),
            resolution: alert.resolution.filter(|_| over),
            last_seen: alert.last_seen,
            stale: alert.stale,
            flapping: alert.flapping,
            changes_last_hour: alert.changes.len(),
            silenced_by: mute.map_or_else(Vec::new, |mute| mute.silenced_by.clone()),
            inhibited_by: mute.map_or_else(Vec::new, |mute| mute.inhibited_by.clone()),
            notified_at,
        }
    }
}

/// All alerts for people: firing ones first, then pending, then resolved; within these the worst first, then the
/// newest.
#[must_use]
pub fn list(states: &States, mutes: &BTreeMap<Fingerprint, Mute>, ledger: &Ledger) -> Vec<AlertView> {
    let mut views: Vec<AlertView> = states
        .alerts()
        .map(|alert| {
            AlertView::new(
                alert,
                mutes.get(&alert.fingerprint),
                ledger.notified_at(&alert.fingerprint),
            )
        })
        .collect();
    let order = |status: Phase| match status {
        Phase::Firing => 0,
        Phase::Pending => 1,
        Phase::Resolved => 2,
    };
    views.sort_by(|a, b| {
        (order(a.status).cmp(&order(b.status)))
            .then(b.severity.cmp(&a.severity))
            .then(b.since.cmp(&a.since))
            .then(a.id.cmp(&b.id))
    });
    views
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Scene, at};
    use super::*;

    #[test]
    fn what_matters_comes_first() {
        let mut scene = Scene::firing("node-memory-low", &[("node", "a")], at(0));
        scene.fire("gpu-lost", &[("node", "b")], at(1));
        scene.fire("node-down", &[("node", "c")], at(2));
        scene.resolve("node-down", &[("node", "c")], at(3));
        let views = list(&scene.states, &BTreeMap::new(), &Ledger::default());
        let rules: Vec<&str> = views.iter().map(|view| view.rule.as_str()).collect();
        assert_eq!(rules, ["gpu-lost", "node-memory-low", "node-down"]);
        assert_eq!(views[0].ends_at, None);
        assert_eq!(views[2].starts_at, Some(at(2)));
        assert_eq!(views[2].ends_at, Some(at(3)));
        assert_eq!(views[2].resolution, Some(Resolution::Healthy));
    }
}
