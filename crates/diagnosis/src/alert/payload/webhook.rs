//! A JSON message in the shape that Alertmanager sends to webhooks (version 4), so that what reads one reads the other.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::notify::Delivery;
use super::super::state::Phase;
use super::{annotations, label_name, prometheus_labels};

/// What Go writes for "no time": the end of an alert that fires.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// The message. Beyond version 4 it has `notificationKey`: the delivery's key, to drop doubles by.
#[must_use]
pub fn webhook(delivery: &Delivery, link: Option<&str>) -> Value {
    let link = link.unwrap_or("");
    let alerts: Vec<Value> = delivery
        .alerts
        .iter()
        .map(|alert| {
            json!({
                "status": status(alert.status == Phase::Firing),
                "labels": prometheus_labels(alert),
                "annotations": annotations(alert),
                "startsAt": alert.starts_at,
                "endsAt": alert.ends_at.map_or_else(|| NO_TIME.to_owned(), |at| at.to_string()),
                "generatorURL": link,
                "fingerprint": alert.id,
            })
        })
        .collect();
    let any_firing = delivery.alerts.iter().any(|alert| alert.status == Phase::Firing);
    let group: BTreeMap<String, &String> = delivery
        .group
        .iter()
        .map(|(name, value)| (label_name(name), value))
        .collect();
    json!({
        "version": "4",
        "groupKey": delivery.group_key,
        "truncatedAlerts": 0,
        "status": status(any_firing),
        "receiver": delivery.receiver,
        "groupLabels": group,
        "commonLabels": common(&alerts, "labels"),
        "commonAnnotations": common(&alerts, "annotations"),
        "externalURL": link,
        "alerts": alerts,
        "notificationKey": delivery.key,
    })
}

const fn status(firing: bool) -> &'static str {
    if firing { "firing" } else { "resolved" }
}

/// The pairs of a field that all alerts have.
fn common(alerts: &[Value], field: &str) -> Value {
    let Some((first, rest)) = alerts.split_first() else {
        return json!({});
    };
    let pairs = first[field].as_object().into_iter().flatten();
    pairs
        .filter(|(name, value)| rest.iter().all(|alert| alert[field].get(name.as_str()) == Some(value)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
