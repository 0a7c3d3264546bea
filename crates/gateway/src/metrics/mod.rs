//! Numbers over time: taken in from nodes, joined with what the gateway itself knows, and asked for.
//!
//! ```text
//! node ──Metrics──▶ intake ──▶ telemetry::metrics ◀── own (node.up, queue, …, counted)
//!                                     ▲
//!           query (who held which GPU when: held) ──▶ `metrics`, /metrics, Prometheus' API
//! ```

mod counted;
mod held;
mod intake;
mod own;
mod prometheus;
mod query;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use telemetry::metrics::MetricStore;

pub use counted::Counted;
pub use held::{Held, held};
pub use intake::{Intake, IntakeError, OwnMetric};
pub use own::{Process, Value, fleet, record};
pub use prometheus::{Name, Named};
pub use query::{Question, list, store_failed, understand};

/// All numbers over time, and what is known of their names.
pub struct Metrics {
    /// The numbers.
    pub store: MetricStore,
    /// What is counted since the gateway's start.
    pub counted: Counted,
    own: Mutex<BTreeMap<String, OwnMetric>>,
}

impl Metrics {
    /// Over a store.
    #[must_use]
    pub fn new(store: MetricStore) -> Self {
        Self {
            store,
            counted: Counted::default(),
            own: Mutex::default(),
        }
    }

    /// Metrics that workloads report themselves, as their nodes told them in this gateway's life.
    pub fn own(&self) -> MutexGuard<'_, BTreeMap<String, OwnMetric>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
