//! Requests and answers about alerts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Span, Timestamp};

/// Which alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AlertFilter {
    /// Pending ones, and those resolved within the last day, beside those that fire.
    pub all: bool,
    /// Only those about this node, or something on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only those of this rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// How much an alert matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertSeverity {
    /// Good to know.
    Info,
    /// Look at it in working hours.
    Warning,
    /// Look at it now.
    Critical,
}

impl AlertSeverity {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// How far an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// Broken, but not yet for as long as its rule asks. Nobody is told.
    Pending,
    /// It fires.
    Firing,
    /// It fired, and is over.
    Resolved,
}

impl AlertStatus {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// Why an alert is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AlertResolution {
    /// It was seen healthy.
    Healthy,
    /// What it was about exists no more.
    TargetGone,
    /// Its rule exists no more, or tells targets apart by other labels.
    RuleGone,
}

/// An alert as `alerts list` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertView {
    /// The same for the same rule and target, always.
    pub id: String,
    /// The rule's name.
    pub rule: String,
    /// How much it matters.
    pub severity: AlertSeverity,
    /// How far it is.
    pub status: AlertStatus,
    /// What it is about, and the rule's own labels, `rule`, `alertname` and `severity`: what silences look at.
    pub labels: BTreeMap<String, String>,
    /// What is wrong, in a line.
    pub summary: String,
    /// What it means; may be empty.
    pub description: String,
    /// What it stands on, as of the last time that it was seen broken.
    pub evidence: Vec<AlertEvidence>,
    /// Commands that show more or would help.
    pub commands: Vec<String>,
    /// The value that broke the rule. `null`: it stands on a state.
    pub value: Option<f64>,
    /// Since when it has had its status.
    pub since: Timestamp,
    /// When it began to fire. `null`: it never did.
    pub starts_at: Option<Timestamp>,
    /// When it was resolved. `null`: it isn't.
    pub ends_at: Option<Timestamp>,
    /// Why it is over. `null`: it isn't.
    pub resolution: Option<AlertResolution>,
    /// When there last was data about it.
    pub last_seen: Timestamp,
    /// There has been no data for long: it may be over, or worse.
    pub stale: bool,
    /// It comes and goes.
    pub flapping: bool,
    /// How often it fired or was resolved in the last hour.
    pub changes_last_hour: u32,
    /// Ids of the silences that hold it back.
    pub silenced_by: Vec<String>,
    /// Ids of firing alerts that explain it, so that nobody is told of it.
    pub inhibited_by: Vec<String>,
    /// When a receiver was last told of it. `null`: none was.
    pub notified_at: Option<Timestamp>,
}

/// A fact that an alert stands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertEvidence {
    /// The metric, state or event.
    pub metric: String,
    /// Its value. `null`: it is a state.
    pub value: Option<f64>,
    /// The state. `null`: it is a number.
    pub state: Option<String>,
    /// What the value was compared with. `null`: it is a state.
    pub threshold: Option<f64>,
    /// When it was measured.
    pub at: Timestamp,
    /// All of it, in a sentence.
    pub text: String,
}

/// Alerts that nobody wants to hear of for a while. Either `alert` or `matchers` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SilenceRequest {
    /// This alert alone: its id, or the beginning of it. `null`: `matchers` say which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// All must match an alert's labels: `node=gpu-7`, `rule=~gpu-.*`, `severity!=critical`, `team!~a|b`.
    #[serde(default)]
    pub matchers: Vec<String>,
    /// For how long, from now on.
    pub duration: Span,
    /// Why.
    #[serde(default)]
    pub comment: String,
}

/// Which silences.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SilenceFilter {
    /// Those too that ended within the last day.
    pub all: bool,
}

/// Names a silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SilenceRef {
    /// Its id, or the beginning of it where only one fits.
    pub id: String,
}

/// A silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SilenceView {
    /// Its id, `sil-…`.
    pub id: String,
    /// All must match an alert's labels.
    pub matchers: Vec<String>,
    /// Who set it.
    pub created_by: String,
    /// Why; may be empty.
    pub comment: String,
    /// From then on.
    pub starts_at: Timestamp,
    /// Until then.
    pub ends_at: Timestamp,
    /// Whether it holds now.
    pub active: bool,
    /// Firing alerts that it holds back now.
    pub alerts: u32,
}

/// A rule, and what it sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertRuleView {
    /// Its name.
    pub name: String,
    /// How much its alerts matter.
    pub severity: AlertSeverity,
    /// What its alerts say, with `{places}`.
    pub summary: String,
    /// What it means; may be empty.
    pub description: String,
    /// Labels that tell its targets apart.
    pub by: Vec<String>,
    /// What is looked for, as in a rules file.
    pub condition: serde_json::Value,
    /// How long it must be broken before an alert fires.
    #[serde(rename = "for")]
    pub for_: Span,
    /// How long it must be healthy before an alert is resolved.
    pub keep_firing_for: Span,
    /// From the rules file; else built in.
    pub own: bool,
    /// Its alerts that fire.
    pub firing: u32,
    /// Its alerts that are pending.
    pub pending: u32,
    /// When it was last evaluated. `null`: not since the gateway's start.
    pub evaluated_at: Option<Timestamp>,
}

/// A receiver of alerts. Its address isn't told: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertReceiverView {
    /// Its name.
    pub name: String,
    /// `slack`, `webhook` or `alertmanager`.
    pub format: String,
    /// Scheme and host.
    pub host: String,
    /// When a message last arrived, in this gateway's life. `null`: none did.
    pub delivered_at: Option<Timestamp>,
    /// Why the last message didn't arrive; it is sent again. `null`: it did, or none was sent.
    pub failing: Option<String>,
}
