//! What the proxy counts, here and at nodes, as metrics: totals since the gateway's start, by revision.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use api::{Timestamp, wire::ServiceCounts};
use telemetry::metrics::{Appended, MetricError, MetricStore, Sample, SeriesId};
use tokio_util::sync::CancellationToken;

use super::Doors;
use crate::{hub::now, metrics::Metrics};

/// Requests that were answered, or should have been.
pub const REQUESTS: &str = "service.requests";
/// Of them, those that failed.
pub const ERRORS: &str = "service.errors";
/// Answers by the time until they began, a counter for each of the proxy's buckets that was ever hit.
pub const BUCKETS: &str = "service.latency.buckets";
/// Label of a bucket: its place.
pub const BUCKET: &str = "bucket";
/// Quantiles of that time, of the answers since the last write.
const LATENCY: &str = "service.latency";
/// Those that are written, and their label.
const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.95, "0.95"), (0.99, "0.99")];

/// How often counts are written.
const EVERY: Duration = Duration::from_secs(1);
/// Counts that didn't change are written every so many times.
const IDLE: u32 = 10;

/// Labels of a revision's counts.
pub fn labels(namespace: &str, service: &str, revision: u32) -> Vec<(&'static str, String)> {
    vec![
        ("namespace", namespace.to_owned()),
        ("service", service.to_owned()),
        ("revision", revision.to_string()),
    ]
}

/// Totals of one revision.
#[derive(Default)]
struct Totals {
    requests: u64,
    errors: u64,
    /// Its series of requests and errors. `None`: nothing was written yet.
    series: Option<[SeriesId; 2]>,
    /// By bucket: its series, and how many fell into it.
    buckets: BTreeMap<u16, (SeriesId, u64)>,
    /// Writes since it last changed.
    idle: u32,
}

/// A service's key, and a revision.
type Group = (String, u32);

/// Writes what the proxy counts, until told to stop.
pub async fn write(doors: Arc<Doors>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut totals: HashMap<Group, Totals> = HashMap::new();
    let mut late = Late::default();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            () = stop.cancelled() => true,
            _ = ticks.tick() => false,
        };
        let mut counted: HashMap<Group, Vec<ServiceCounts>> = HashMap::new();
        for counts in doors.take_counts() {
            let group = (counts.service.clone(), counts.revision);
            counted.entry(group).or_default().push(counts);
        }
        let known = doors.groups();
        // What those did last that have left counts too.
        totals.retain(|group, _| known.contains(group) || counted.contains_key(group));
        for group in known {
            totals.entry(group).or_default();
        }
        let taken = std::mem::take(&mut totals);
        let metrics = Arc::clone(&metrics);
        let written = tokio::task::spawn_blocking(move || {
            let mut totals = taken;
            let done = record(&metrics.store, &mut totals, &counted, now());
            (totals, done)
        });
        match written.await {
            Ok((kept, done)) => {
                totals = kept;
                match done {
                    Ok(appended) => late.note(&appended),
                    Err(error) => tracing::warn!(%error, "counts of requests are lost"),
                }
            }
            Err(error) => tracing::error!(%error, "counts of requests are lost"),
        }
        if last {
            return;
        }
    }
}

fn record(
    store: &MetricStore,
    totals: &mut HashMap<Group, Totals>,
    counted: &HashMap<Group, Vec<ServiceCounts>>,
    at: Timestamp,
) -> Result<Appended, MetricError> {
    let mut samples = Vec::new();
    for (group, total) in totals.iter_mut() {
        let Some((namespace, service)) = group.0.split_once('/') else {
            continue;
        };
        let mut tick = Tick {
            store,
            labels: labels(namespace, service, group.1),
            at_ms: at.as_millisecond(),
            samples: &mut samples,
        };
        tick.write(total, counted.get(group).map_or(&[], Vec::as_slice))?;
    }
    if samples.is_empty() {
        return Ok(Appended::default());
    }
    store.append(&samples)
}

/// Samples that weren't kept, since later ones were: the clock was set back. They are totals, so that all that they counted
/// is told when it has caught up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Late {
    dropped: u64,
}

impl Late {
    /// Says when it begins and when it ends.
    fn note(&mut self, appended: &Appended) {
        let late = appended.dropped.not_newer;
        if late > 0 && self.dropped == 0 {
            tracing::warn!(
                "the clock was set back: requests are counted, but conditions on them can't be judged until it has caught up"
            );
        }
        self.dropped += late;
        if late == 0 && appended.stored > 0 && self.dropped > 0 {
            tracing::info!(
                dropped = self.dropped,
                "the clock has caught up: requests are told again"
            );
            self.dropped = 0;
        }
    }
}

/// A write of one revision's counts.
struct Tick<'a> {
    store: &'a MetricStore,
    labels: Vec<(&'static str, String)>,
    at_ms: i64,
    samples: &'a mut Vec<Sample>,
}

impl Tick<'_> {
    fn series(&self, name: &str, more: Option<(&str, &str)>) -> Result<SeriesId, MetricError> {
        let labels = self.labels.iter().map(|(k, v)| (*k, v.as_str()));
        let labels: Vec<(&str, &str)> = labels.chain(more).collect();
        self.store.series(name, &labels)
    }

    fn put(&mut self, series: SeriesId, value: f64) {
        self.samples.push(Sample {
            series,
            at_ms: self.at_ms,
            value,
        });
    }

    /// The zero from which a counter grows: what comes with the very first look counts too.
    fn zero(&mut self, series: SeriesId) {
        self.samples.push(Sample {
            series,
            at_ms: self.at_ms - 1,
            value: 0.0,
        });
    }

    fn write(&mut self, total: &mut Totals, more: &[ServiceCounts]) -> Result<(), MetricError> {
        let first = total.series.is_none();
        let [requests, errors] = match total.series {
            Some(series) => series,
            None => {
                let series = [self.series(REQUESTS, None)?, self.series(ERRORS, None)?];
                series.into_iter().for_each(|series| self.zero(series));
                *total.series.insert(series)
            }
        };
        let mut answers: BTreeMap<u16, u64> = BTreeMap::new();
        for counts in more {
            total.requests += counts.requests;
            total.errors += counts.errors;
            for (bucket, hits) in &counts.latency {
                *answers.entry(*bucket).or_default() += hits;
            }
        }
        for (bucket, hits) in &answers {
            let (_, sum) = match total.buckets.entry(*bucket) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let series = self.series(BUCKETS, Some((BUCKET, &bucket.to_string())))?;
                    self.zero(series);
                    new.insert((series, 0))
                }
            };
            *sum += hits;
        }
        let answers: Vec<(u16, u64)> = answers.into_iter().collect();
        let histogram = proxy::histogram(&answers);
        for (share, label) in QUANTILES {
            if let Some(value) = proxy::quantile(&histogram, share) {
                let series = self.series(LATENCY, Some(("quantile", label)))?;
                self.put(series, value.as_secs_f64());
            }
        }
        total.idle = if first || !more.is_empty() { 0 } else { total.idle + 1 };
        if total.idle.is_multiple_of(IDLE) {
            self.put(requests, total.requests as f64);
            self.put(errors, total.errors as f64);
            for (series, sum) in total.buckets.values() {
                self.put(*series, *sum as f64);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use api::{Span, time};

    use super::*;

    #[test]
    fn what_is_counted_while_the_clock_is_behind_is_told_when_it_has_caught_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = MetricStore::open(folder.path().join("metrics"), telemetry::metrics::Options::default()).unwrap();
        let group: Group = ("default/web".to_owned(), 1);
        let counts = |requests| ServiceCounts {
            service: group.0.clone(),
            revision: group.1,
            requests,
            errors: 0,
            latency: Vec::new(),
        };
        let begun = time::before(now(), Span::secs(3600));
        let mut totals = HashMap::from([(group.clone(), Totals::default())]);
        let mut late = Late::default();
        let mut tick = |requests, second| {
            let counted = HashMap::from([(group.clone(), vec![counts(requests)])]);
            let appended = record(&store, &mut totals, &counted, time::after(begun, Span::secs(second))).unwrap();
            late.note(&appended);
            late.dropped
        };
        assert_eq!(tick(5, 100), 0);
        // Requests and errors.
        assert_eq!(tick(7, 40), 2);
        assert_eq!(tick(1, 41), 4);
        assert_eq!(tick(1, 101), 0, "it has caught up");
        let name = telemetry::metrics::Matcher::name(REQUESTS);
        let series = store.select(&[name], 0, i64::MAX).unwrap();
        let values: Vec<f64> = series[0].points.iter().map(|(_, value)| *value).collect();
        assert_eq!(values, [0.0, 5.0, 14.0]);
    }
}
