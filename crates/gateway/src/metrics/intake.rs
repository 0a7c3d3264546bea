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
    /// By position in the session's dictionary. `None`: not let in. What it is called is the store's to know: ten thousand
    /// sessions with their names would be gigabytes.
    series: Vec<Option<SeriesId>>,
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
    /// Of a series nothing was kept any more, and so the store forgot it: a new session names all anew. What the batch
    /// has of other series is kept, and dropped as a double when it comes again.
    #[error("the store has forgotten series of this session")]
    Forgotten,
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
        batch.check(self.series.len())?;
        let mut refused = Vec::new();
        if batch.anew {
            *self = Self::default();
        }
        for key in &batch.define {
            let opened = self.admit(key, &runs).and_then(|()| open(&metrics.store, node, key));
            self.series.push(opened.as_ref().ok().copied());
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
        if !batch.define.is_empty() {
            self.series.shrink_to_fit();
        }
        let appended = metrics.store.append(&self.samples(batch))?;
        if appended.dropped.unknown > 0 {
            return Err(IntakeError::Forgotten);
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

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::atomic::{AtomicI64, Ordering},
        time::Duration,
    };

    use api::wire::Tick;
    use telemetry::metrics::{Matcher, Options};

    use super::*;

    const START_MS: i64 = 1_800_000_000_000;
    const DAY_MS: i64 = 24 * 3_600_000;

    fn named(metric: &str) -> Arc<SeriesKey> {
        Arc::new(SeriesKey {
            metric: metric.to_owned(),
            labels: BTreeMap::from([(label::GPU.to_owned(), "0".to_owned())]),
            unit: None,
            kind: None,
        })
    }

    fn batch(define: &[&str], number: u64, at_ms: i64, values: &[f64]) -> MetricBatch {
        MetricBatch {
            define: define.iter().map(|metric| named(metric)).collect(),
            ticks: vec![Tick {
                number,
                at_ms,
                values: values.iter().copied().map(Some).collect(),
            }],
            ..MetricBatch::default()
        }
    }

    #[test]
    fn a_session_names_its_series_once_and_anew_when_the_store_has_forgotten_one() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(START_MS));
        let told = Arc::clone(&clock);
        let options = Options {
            raw_keep: Duration::from_secs(2 * 3600),
            rollup_keep: Duration::from_secs(2 * 3600),
            clock: Arc::new(move || told.load(Ordering::Relaxed)),
            ..Options::default()
        };
        let metrics = Metrics::new(MetricStore::open(dir.path(), options).unwrap());
        let node = NodeName::new("gpu-7");
        let take = |intake: &mut Intake, batch: &MetricBatch| intake.take(&metrics, &node, batch, |_| false);
        let known = |metric: &str| {
            let found = metrics
                .store
                .select(&[Matcher::name(metric)], i64::MIN, i64::MAX)
                .unwrap();
            found.iter().map(|series| series.points.len()).sum::<usize>()
        };
        let mut intake = Intake::default();
        let first = batch(
            &["gpu.temperature", "gpu.nonsense", "gpu.power"],
            1,
            START_MS,
            &[60.0, 1.0, 400.0],
        );
        let refused = take(&mut intake, &first).unwrap();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0.metric, "gpu.nonsense");
        // Only the temperature goes on.
        for day in 1..=4 {
            let at_ms = START_MS + day * DAY_MS;
            clock.store(at_ms, Ordering::Relaxed);
            take(&mut intake, &batch(&[], 1 + day.unsigned_abs(), at_ms, &[61.0])).unwrap();
            metrics.store.settle().unwrap();
        }
        assert_eq!(metrics.store.series_count("__name__", "gpu.power"), 0);
        let late = START_MS + 4 * DAY_MS + 10_000;
        let again = batch(&[], 8, late, &[62.0, 1.0, 401.0]);
        assert!(matches!(take(&mut intake, &again), Err(IntakeError::Forgotten)));
        let before = known("gpu.temperature");
        // As a new session sends it.
        let names = ["gpu.temperature", "gpu.nonsense", "gpu.power"];
        let again = batch(&names, 8, late, &[62.0, 1.0, 401.0]);
        take(&mut Intake::default(), &again).unwrap();
        assert_eq!((known("gpu.temperature"), known("gpu.power")), (before, 1));
        metrics.store.settle().unwrap();
    }
}
