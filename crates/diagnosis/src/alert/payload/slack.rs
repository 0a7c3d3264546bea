//! A message for an incoming webhook of Slack, and of what imitates it: `text` and attachments, which all of them show.

use serde_json::{Value, json};

use super::super::list::AlertView;
use super::super::notify::{Delivery, Occasion};
use super::super::rule::Severity;
use super::super::state::Phase;
use super::{notes, why};

/// Alerts that are shown; the others are counted. Slack takes 20 attachments at the most.
const SHOWN_MAX: usize = 10;

/// Characters of one text; Slack folds what is longer.
const TEXT_MAX: usize = 700;

/// The message.
#[must_use]
pub fn slack(delivery: &Delivery, link: Option<&str>) -> Value {
    let firing = delivery
        .alerts
        .iter()
        .filter(|alert| alert.status == Phase::Firing)
        .count();
    let resolved = delivery.alerts.len() - firing;
    let mut counts = Vec::new();
    if firing > 0 {
        counts.push(format!("{firing} firing"));
    }
    if resolved > 0 {
        counts.push(format!("{resolved} resolved"));
    }
    let again = match delivery.occasion {
        Occasion::News => "",
        Occasion::Repeat => "still ",
    };
    let about = delivery
        .group
        .values()
        .map(|value| escaped(value))
        .collect::<Vec<_>>()
        .join(", ");
    let about = if about.is_empty() { "alerts".to_owned() } else { about };
    let mut text = format!("*{about}*: {again}{}", counts.join(", "));
    if let Some(only) = delivery.alerts.first().filter(|_| delivery.alerts.len() == 1) {
        text = format!("*{again}{}*: {}", phase(only), escaped(&only.summary));
    }
    let mut attachments: Vec<Value> = delivery
        .alerts
        .iter()
        .take(SHOWN_MAX)
        .map(|alert| attachment(alert, link))
        .collect();
    if delivery.alerts.len() > SHOWN_MAX {
        let more = format!(
            "and {} more: `clawbernetes alerts list`",
            delivery.alerts.len() - SHOWN_MAX
        );
        attachments.push(json!({ "color": "#808080", "text": more, "fallback": more, "mrkdwn_in": ["text"] }));
    }
    json!({ "text": text, "attachments": attachments })
}

fn attachment(alert: &AlertView, link: Option<&str>) -> Value {
    let color = match (alert.status, alert.severity) {
        (Phase::Resolved | Phase::Pending, _) => "good",
        (Phase::Firing, Severity::Critical) => "danger",
        (Phase::Firing, Severity::Warning) => "warning",
        (Phase::Firing, Severity::Info) => "#439fe0",
    };
    let title = format!("{}: {}", phase(alert), escaped(&alert.summary));
    let mut lines = Vec::new();
    lines.extend(
        Some(alert.description.as_str())
            .filter(|text| !text.is_empty())
            .map(|text| escaped(&cut(text))),
    );
    let why = why(alert);
    if !why.is_empty() {
        lines.push(format!("*Evidence:* {}", escaped(&cut(&why))));
    }
    lines.extend(notes(alert).iter().map(|note| format!("_{}_", escaped(note))));
    if alert.status == Phase::Firing {
        lines.extend(
            alert
                .commands
                .iter()
                .map(|command| format!("`{}`", escaped(&cut(command)))),
        );
    }
    let mut body = json!({
        "color": color,
        "title": title,
        "fallback": title,
        "text": lines.join("\n"),
        "fields": [
            { "title": "Severity", "value": alert.severity.word(), "short": true },
            { "title": "Rule", "value": alert.rule, "short": true },
        ],
        "footer": format!("clawbernetes · {}", alert.id),
        "ts": alert.since.as_second(),
        "mrkdwn_in": ["text"],
    });
    if let Some(link) = link {
        body["title_link"] = json!(link);
    }
    body
}

const fn phase(alert: &AlertView) -> &'static str {
    match alert.status {
        Phase::Firing => "FIRING",
        Phase::Pending => "PENDING",
        Phase::Resolved => "RESOLVED",
    }
}

/// Slack's three special characters.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
