//! A node's measurements on their way into the store: its session's dictionary, and what is let in.

use std::{collections::HashMap, sync::Arc};

use api::{
    NodeName, WorkloadId,
    metric::{self, Kind, OWN_PREFIX, Scope, label},
    wire::{BatchError, MetricBatch, SeriesKey},
};
use telemetry::metrics::{MetricError, MetricStore, Sample, SeriesId};

use super::Metrics;

/// Most series of metrics of its own that one workload may have on a node; the agent's cap, held here too.
const OWN_SERIES_MAX: usize = 200;

/// Metrics of nodes that the gateway measures.
const GATEWAYS: &[&str] = &["node.up", "clock.offset"];

/// How a workload's own metric is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnMetric {
    /// In the workload's words. `None`: it didn't say.
    pub unit: Option<String>,
    /// How it moves.
    pub kind: Kind,
}

/// What a session's series are in the store.
#[derive(Debug, Default)]
pub struct Intake {
    /// By position in the session's dictionary. `None`: not let in.
    series: Vec<Option<SeriesId>>,
    keys: Vec<Arc<SeriesKey>>,
    /// Series of their own, by workload.
    own: HashMap<String, usize>,
}

/// A series that wasn't let in, and why.
pub type Refused = (Arc<SeriesKey>, &'static str);

/// Why a batch wasn't taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It breaks the protocol.
    #[error("measurements that can't be read")]
    Batch(#[from] BatchError),
    /// The store failed.
    #[error("measurements can't be kept")]
    Store(#[from] MetricError),
}

impl Intake {
    /// Takes a batch in. `runs`: whether a workload is, or was, on this node. Answers the series that weren't let in,
    /// with the reason.
    ///
    /// # Errors
    /// The batch isn't one: nothing of it was used. Or the store can't take its samples now; the dictionary is as
    /// after it all the same.
    pub fn take(
        &mut self,
        metrics: &Metrics,
        node: &NodeName,
        batch: &MetricBatch,
        runs: impl Fn(&WorkloadId) -> bool,
    ) -> Result<Vec<Refused>, IntakeError> {
        batch.check(self.keys.len())?;
        let mut refused = Vec::new();
        if batch.anew {
            *self = Self::default();
        }
        for key in &batch.define {
            let opened = self.admit(key, &runs).and_then(|()| open(&metrics.store, node, key));
            self.series.push(opened.as_ref().ok().copied());
            self.keys.push(Arc::clone(key));
            match opened {
                Err(reason) => refused.push((Arc::clone(key), reason)),
                Ok(_) if key.metric.starts_with(OWN_PREFIX) => {
                    let own = OwnMetric {
                        unit: key.unit.clone(),
                        kind: key.kind.unwrap_or(Kind::Gauge),
                    };
                    metrics.own().insert(key.metric.clone(), own);
                }
                Ok(_) => {}
            }
        }
        let appended = metrics.store.append(&self.samples(batch))?;
        if appended.dropped.unknown > 0 {
            // Series of which nothing was kept any more begin anew. What is known is dropped as a double.
            for (id, key) in self.series.iter_mut().zip(&self.keys) {
                if id.is_some() {
                    *id = open(&metrics.store, node, key).ok();
                }
            }
            metrics.store.append(&self.samples(batch))?;
        }
        Ok(refused)
    }

    fn samples(&self, batch: &MetricBatch) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(batch.ticks.iter().map(|t| t.values.len()).sum());
        for tick in &batch.ticks {
            for (id, value) in self.series.iter().zip(&tick.values) {
                if let (Some(series), Some(value)) = (*id, *value) {
                    samples.push(Sample {
                        series,
                        at_ms: tick.at_ms,
                        value,
                    });
                }
            }
        }
        samples
    }

    /// Whether a series is one that this node may report.
    fn admit(&mut self, key: &SeriesKey, runs: &impl Fn(&WorkloadId) -> bool) -> Result<(), &'static str> {
        let own = key.metric.strip_prefix(OWN_PREFIX);
        if GATEWAYS.contains(&key.metric.as_str()) {
            return Err("only the gateway measures this");
        }
        let of_workload = match (metric::find(&key.metric), own) {
            (Some(metric), _) if metric.scope == Scope::Gateway => return Err("only the gateway measures this"),
            (Some(metric), _) => metric.scope == Scope::Workload,
            (None, Some(name)) if metric::own_name(name).is_some() => true,
            (None, _) => return Err("there is no such metric"),
        };
        if key.labels.contains_key(label::NODE) {
            return Err("the gateway itself names the node");
        }
        if !of_workload {
            return Ok(());
        }
        let Some(workload) = key.labels.get(label::WORKLOAD) else {
            return Err("it names no workload");
        };
        if !runs(&WorkloadId::new(workload)) {
            return Err("its workload isn't this node's");
        }
        if own.is_some() {
            let count = self.own.entry(workload.clone()).or_default();
            if *count >= OWN_SERIES_MAX {
                return Err("its workload has too many series of its own");
            }
            *count += 1;
        }
        Ok(())
    }
}

fn open(store: &MetricStore, node: &NodeName, key: &SeriesKey) -> Result<SeriesId, &'static str> {
    let labels = key.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let all: Vec<(&str, &str)> = labels.chain([(label::NODE, node.as_str())]).collect();
    store.series(&key.metric, &all).map_err(|error| match error {
        MetricError::InvalidSeries(reason) => reason,
        _ => "the store has no room for it",
    })
}
