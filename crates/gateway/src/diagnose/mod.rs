//! How the fleet, its nodes and its workloads do: the facts that the gateway has, as [`diagnosis`] wants them, and its
//! findings as the operations answer them.
//!
//! ```text
//! view ────────────┐
//! metrics ── samples ──▶ fleet, node, workload ──▶ diagnosis (pure) ──▶ answer ──▶ `health`, `diagnose`
//! events ─── journal ──┘
//! logs ────────────┘
//! ```
//!
//! What is in the view is copied before anything is read from disk, so that nobody waits for a diagnosis.

mod answer;
mod fleet;
mod journal;
mod node;
mod samples;
mod workload;

use api::{
    Timestamp,
    metric::label,
    op::{AlertFilter, AlertSeverity, AlertView},
};
use diagnosis::{AlertFact, Severity};

use crate::alerting::Alerting;

pub use fleet::{health, holders};
pub use journal::Journal;
pub use node::{Holders, Looked, Sources, diagnose as diagnose_node};
pub use workload::{Ran, diagnose as diagnose_workload, look as look_at_workload, troubled};

/// How far back kernel logs, events and errors are looked at.
pub const DAY: api::Span = api::Span::secs(86_400);

/// Alerts that fire, for `health`.
#[must_use]
pub fn firing_alerts(alerting: &Alerting, now: Timestamp) -> Vec<AlertFact> {
    let firing = alerting.list(&AlertFilter::default(), now).into_iter();
    firing
        .map(|alert| AlertFact {
            severity: match alert.severity {
                AlertSeverity::Info => Severity::Info,
                AlertSeverity::Warning => Severity::Warning,
                AlertSeverity::Critical => Severity::Critical,
            },
            target: target(&alert),
            since_ms: alert.since.as_millisecond(),
            silenced: !alert.silenced_by.is_empty(),
            name: alert.rule,
            summary: alert.summary,
        })
        .collect()
}

/// What an alert is about: `gpu-7 GPU 3`, a workload's id, or the fleet.
fn target(alert: &AlertView) -> String {
    let part = |name: &str| alert.labels.get(name).cloned();
    let gpu = part(label::GPU).map(|gpu| format!("GPU {gpu}"));
    let parts = [part(label::NODE), gpu, part(label::MOUNT), part(label::WORKLOAD)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return "the fleet".to_owned();
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests;
