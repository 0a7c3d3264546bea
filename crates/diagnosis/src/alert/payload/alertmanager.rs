//! Alertmanager's `POST /api/v2/alerts`.

use serde_json::{Value, json};

use super::super::notify::Delivery;
use super::super::state::Phase;
use super::{annotations, prometheus_labels};

/// The array of alerts. A firing one ends at the delivery's `believedUntil`, by when it must have been told again.
#[must_use]
pub fn alertmanager(delivery: &Delivery, link: Option<&str>) -> Value {
    let alerts = delivery.alerts.iter().map(|alert| {
        let ends_at = if alert.status == Phase::Firing {
            Some(delivery.believed_until)
        } else {
            alert.ends_at
        };
        let mut body = json!({
            "labels": prometheus_labels(alert),
            "annotations": annotations(alert),
            "startsAt": alert.starts_at,
            "endsAt": ends_at,
        });
        if let Some(link) = link {
            body["generatorURL"] = json!(link);
        }
        body
    });
    alerts.collect()
}
