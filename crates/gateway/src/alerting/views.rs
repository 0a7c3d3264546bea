//! Alerts, silences, rules and receivers as callers are shown them.

use std::collections::BTreeMap;

use api::{
    ApiError, Timestamp,
    metric::label,
    op::{
        AlertEvidence, AlertFilter, AlertReceiverView, AlertResolution, AlertRuleView, AlertSeverity, AlertStatus,
        AlertView, SilenceView,
    },
};
use diagnosis::alert::{self, Format, MatchOp, Matcher, Phase, Resolution, Severity, Silence, list};

use super::Alerting;

impl Alerting {
    /// Alerts for people: firing ones first, the worst first.
    #[must_use]
    pub fn list(&self, filter: &AlertFilter, at: Timestamp) -> Vec<AlertView> {
        let now = self.now();
        let all = list(&now.states, &now.mutes(&self.rules, at), &now.ledger);
        let wanted = |view: &alert::AlertView| {
            (filter.all || view.status == Phase::Firing)
                && filter
                    .node
                    .as_ref()
                    .is_none_or(|node| view.labels.get(label::NODE) == Some(node))
                && filter.rule.as_ref().is_none_or(|rule| view.rule == *rule)
        };
        all.into_iter().filter(wanted).map(alert).collect()
    }

    /// What fires and isn't held back, the worst first, in a line each.
    #[must_use]
    pub fn firing(&self, at: Timestamp) -> Vec<String> {
        let heard = |view: &AlertView| view.silenced_by.is_empty() && view.inhibited_by.is_empty();
        let firing = self.list(&AlertFilter::default(), at).into_iter().filter(heard);
        firing
            .map(|view| format!("{}: {}", view.severity.name(), view.summary))
            .collect()
    }

    /// Conditions that hold for one alert alone, which is named by the beginning of its id.
    ///
    /// # Errors
    /// `NOT_FOUND`: there is none, or there are several.
    pub fn matchers_of(&self, id: &str) -> Result<Vec<Matcher>, ApiError> {
        let states = std::sync::Arc::clone(&self.now().states);
        let found: Vec<_> = states
            .alerts()
            .filter(|alert| alert.fingerprint.as_str().starts_with(id))
            .collect();
        let [alert] = found.as_slice() else {
            let message = match found.len() {
                0 => format!("there is no alert '{id}'"),
                n => format!("{n} alerts begin with '{id}'"),
            };
            return Err(ApiError::not_found(message).hint("clawbernetes alerts list --all"));
        };
        let rule = ("rule".to_owned(), alert.rule.clone());
        let pairs = std::iter::once((&rule.0, &rule.1)).chain(&alert.target);
        pairs
            .map(|(name, value)| Matcher::new(name, MatchOp::Is, value))
            .collect::<Result<_, _>>()
            .map_err(|error| ApiError::internal("the alert's labels are no matchers").cause(error.to_string()))
    }

    /// Silences: those that hold or will, the first to end first; with `all` those too that ended.
    #[must_use]
    pub fn silences(&self, all: bool, at: Timestamp) -> Vec<SilenceView> {
        let now = self.now();
        let mutes = now.mutes(&self.rules, at);
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for (fingerprint, mute) in &mutes {
            if now
                .states
                .get(fingerprint)
                .is_some_and(|alert| alert.phase == Phase::Firing)
            {
                for id in &mute.silenced_by {
                    *counts.entry(id).or_default() += 1;
                }
            }
        }
        let wanted = now.silences.values().filter(|silence| all || silence.ends_at > at);
        let mut views: Vec<SilenceView> = wanted
            .map(|one| silence(one, counts.get(one.id.as_str()).copied().unwrap_or(0), at))
            .collect();
        views.sort_by(|a, b| a.ends_at.cmp(&b.ends_at).then_with(|| a.id.cmp(&b.id)));
        views
    }

    /// What is looked for, and what it sees.
    #[must_use]
    pub fn rules(&self) -> Vec<AlertRuleView> {
        let now = self.now();
        let view = |rule: &alert::Rule| {
            let count = |phase: Phase| {
                let alerts = now.states.rules.get(&rule.name).into_iter().flat_map(BTreeMap::values);
                alerts.filter(|alert| alert.phase == phase).count() as u32
            };
            AlertRuleView {
                name: rule.name.clone(),
                severity: severity(rule.severity),
                summary: rule.summary.clone(),
                description: rule.description.clone(),
                by: rule.by.clone(),
                // Plain data with string keys: writing it as JSON can't fail.
                condition: serde_json::to_value(&rule.condition).unwrap_or_default(),
                for_: api::Span(rule.for_.as_millis()),
                keep_firing_for: api::Span(rule.keep_firing_for.as_millis()),
                own: self.own.contains(&rule.name),
                firing: count(Phase::Firing),
                pending: count(Phase::Pending),
                evaluated_at: now.evaluated_at,
            }
        };
        self.rules.iter().map(view).collect()
    }

    /// Who is told, and whether that works.
    #[must_use]
    pub fn receivers(&self) -> Vec<AlertReceiverView> {
        let now = self.now();
        let view = |receiver: &alert::Receiver| {
            let told = now.deliveries.get(&receiver.name);
            AlertReceiverView {
                name: receiver.name.clone(),
                format: match receiver.format {
                    Format::Slack => "slack",
                    Format::Webhook => "webhook",
                    Format::Alertmanager => "alertmanager",
                }
                .to_owned(),
                // For debugging an address shows its host only.
                host: format!("{:?}", receiver.url).trim_end_matches("/…").to_owned(),
                delivered_at: told.and_then(|told| told.at),
                failing: told.and_then(|told| told.failing.clone()),
            }
        };
        self.receivers.iter().map(view).collect()
    }
}

fn severity(severity: Severity) -> AlertSeverity {
    match severity {
        Severity::Info => AlertSeverity::Info,
        Severity::Warning => AlertSeverity::Warning,
        Severity::Critical => AlertSeverity::Critical,
    }
}

/// An alert, in the API's words.
#[must_use]
pub fn alert(view: alert::AlertView) -> AlertView {
    AlertView {
        id: view.id.to_string(),
        rule: view.rule,
        severity: severity(view.severity),
        status: match view.status {
            Phase::Pending => AlertStatus::Pending,
            Phase::Firing => AlertStatus::Firing,
            Phase::Resolved => AlertStatus::Resolved,
        },
        labels: view.labels,
        summary: view.summary,
        description: view.description,
        evidence: view
            .evidence
            .into_iter()
            .map(|fact| AlertEvidence {
                metric: fact.metric,
                value: fact.value,
                state: fact.state,
                threshold: fact.threshold,
                at: fact.at,
                text: fact.text,
            })
            .collect(),
        commands: view.commands,
        value: view.value,
        since: view.since,
        starts_at: view.starts_at,
        ends_at: view.ends_at,
        resolution: view.resolution.map(|resolution| match resolution {
            Resolution::Healthy => AlertResolution::Healthy,
            Resolution::TargetGone => AlertResolution::TargetGone,
            Resolution::RuleGone => AlertResolution::RuleGone,
        }),
        last_seen: view.last_seen,
        stale: view.stale,
        flapping: view.flapping,
        changes_last_hour: u32::try_from(view.changes_last_hour).unwrap_or(u32::MAX),
        silenced_by: view.silenced_by,
        inhibited_by: view.inhibited_by.iter().map(ToString::to_string).collect(),
        notified_at: view.notified_at,
    }
}

/// A silence, in the API's words. `alerts`: how many it holds back.
#[must_use]
pub fn silence(silence: &Silence, alerts: u32, now: Timestamp) -> SilenceView {
    SilenceView {
        id: silence.id.clone(),
        matchers: silence.matchers.iter().map(ToString::to_string).collect(),
        created_by: silence.created_by.clone(),
        comment: silence.comment.clone(),
        starts_at: silence.starts_at,
        ends_at: silence.ends_at,
        active: silence.is_active(now),
        alerts,
    }
}
