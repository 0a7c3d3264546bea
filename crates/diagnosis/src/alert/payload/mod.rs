//! Deliveries in the forms that receivers understand. The caller sends them as JSON by `POST`.

mod alertmanager;
mod slack;
mod webhook;

pub use alertmanager::alertmanager;
pub use slack::slack;
pub use webhook::webhook;

use std::collections::BTreeMap;

use serde_json::Value;

use super::list::AlertView;
use super::notify::Delivery;
use super::receiver::Format;

/// The body for the delivery's receiver. `link`: where people see the alerts, such as the dashboard's address.
#[must_use]
pub fn body(delivery: &Delivery, link: Option<&str>) -> Value {
    match delivery.format {
        Format::Slack => slack(delivery, link),
        Format::Webhook => webhook(delivery, link),
        Format::Alertmanager => alertmanager(delivery, link),
    }
}

/// Labels whose names Prometheus accepts: anything but letters, digits and `_` becomes `_`. Empty values mean no label.
fn prometheus_labels(alert: &AlertView) -> BTreeMap<String, &str> {
    alert
        .labels
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (label_name(name), value.as_str()))
        .collect()
}

/// A name that Prometheus accepts as a label's.
pub(super) fn label_name(name: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(clean).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

/// What is said about an alert beside its labels; nothing that is empty.
fn annotations(alert: &AlertView) -> BTreeMap<&'static str, String> {
    let pairs = [
        ("summary", alert.summary.clone()),
        ("description", alert.description.clone()),
        ("evidence", why(alert)),
        ("commands", alert.commands.join("\n")),
        ("note", notes(alert).join("; ")),
    ];
    pairs.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

fn why(alert: &AlertView) -> String {
    alert
        .evidence
        .iter()
        .map(|fact| fact.text.as_str())
        .collect::<Vec<_>>()
        .join("; ")
}

/// What a reader must know to take an alert rightly.
fn notes(alert: &AlertView) -> Vec<String> {
    let mut notes = Vec::new();
    if alert.flapping {
        notes.push(format!(
            "flapping: {} changes in the last hour, told at a slower rate",
            alert.changes_last_hour
        ));
    }
    if alert.stale {
        notes.push(format!("stale: no data since {}", alert.last_seen));
    }
    notes.extend(alert.resolution.map(|resolution| {
        use super::state::Resolution;
        match resolution {
            Resolution::Healthy => "resolved: seen healthy",
            Resolution::TargetGone => "resolved: it exists no more",
            Resolution::RuleGone => "resolved: its rule was removed or changed",
        }
        .to_owned()
    }));
    notes
}

#[cfg(test)]
mod tests;
