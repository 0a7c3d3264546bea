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

pub use fleet::{health, holders};
pub use journal::{Journal, follow};
pub use node::{Holders, Looked, Sources, diagnose as diagnose_node};
pub use workload::{Ran, diagnose as diagnose_workload, look as look_at_workload, troubled};

/// How far back kernel logs, events and errors are looked at.
pub const DAY: api::Span = api::Span::secs(86_400);

/// Alerts that fire, for `health`.
#[must_use]
pub fn firing_alerts(_: &crate::serve::App) -> Vec<diagnosis::AlertFact> {
    Vec::new()
}

#[cfg(test)]
mod tests;
