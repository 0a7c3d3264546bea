//! What the proxy counts, as metrics: totals since the gateway's start, by revision.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use api::Timestamp;
use proxy::Counts;
use telemetry::metrics::{MetricError, MetricStore, Sample, SeriesId};
use tokio_util::sync::CancellationToken;

use super::Doors;
use crate::{hub::now, metrics::Metrics};

/// Requests that were answered, or should have been.
pub const REQUESTS: &str = "service.requests";
/// Of them, those that failed.
pub const ERRORS: &str = "service.errors";
/// Requests whose answer began within `le` seconds: a histogram as Prometheus has them.
pub const LATENCY: &str = "service.latency";
/// Label of a latency's bucket.
pub const LE: &str = "le";

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

/// The bound of a bucket of latency, as its label.
pub fn le(place: usize) -> String {
    match proxy::BOUNDS_SECONDS.get(place) {
        Some(bound) => bound.to_string(),
        None => "+Inf".to_owned(),
    }
}

/// Totals of one revision.
#[derive(Default)]
struct Totals {
    requests: u64,
    errors: u64,
    latency: Vec<u64>,
    /// Its series; empty until the first are written.
    series: Vec<SeriesId>,
    /// Writes since it last changed.
    idle: u32,
}

/// Writes what the proxy counts, until told to stop.
pub async fn write(doors: Arc<Doors>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut totals: HashMap<(String, String), Totals> = HashMap::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            () = stop.cancelled() => true,
            _ = ticks.tick() => false,
        };
        let counted = doors.take_counts();
        let known = doors.groups();
        totals.retain(|key, _| known.contains(key));
        for key in known {
            totals.entry(key).or_default();
        }
        let mut by_group: BTreeMap<(String, String), Counts> = BTreeMap::new();
        for counts in counted {
            by_group.insert((counts.route.clone(), counts.group.clone()), counts);
        }
        let taken = std::mem::take(&mut totals);
        let metrics = Arc::clone(&metrics);
        let written = tokio::task::spawn_blocking(move || {
            let mut totals = taken;
            let done = record(&metrics.store, &mut totals, &by_group, now());
            (totals, done)
        });
        match written.await {
            Ok((kept, done)) => {
                totals = kept;
                if let Err(error) = done {
                    tracing::warn!(%error, "counts of requests are lost");
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
    totals: &mut HashMap<(String, String), Totals>,
    counted: &BTreeMap<(String, String), Counts>,
    at: Timestamp,
) -> Result<(), MetricError> {
    let at = at.as_millisecond();
    let mut samples = Vec::new();
    for (key, total) in totals.iter_mut() {
        let Some((namespace, service)) = key.0.split_once('/') else { continue };
        let Ok(revision) = key.1.parse() else { continue };
        let first = total.series.is_empty();
        if first {
            let labels = labels(namespace, service, revision);
            let mut of: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
            total.series.push(store.series(REQUESTS, &of)?);
            total.series.push(store.series(ERRORS, &of)?);
            for place in 0..=proxy::BOUNDS_SECONDS.len() {
                let le = le(place);
                of.push((LE, &le));
                total.series.push(store.series(LATENCY, &of)?);
                of.pop();
            }
            total.latency = vec![0; proxy::BOUNDS_SECONDS.len() + 1];
            // The zero from which it grows: what comes with the very first look counts too.
            samples.extend(total.series.iter().map(|series| Sample {
                series: *series,
                at_ms: at - 1,
                value: 0.0,
            }));
        }
        let changed = match counted.get(key) {
            Some(more) => {
                total.requests += more.requests;
                total.errors += more.errors;
                for (sum, more) in total.latency.iter_mut().zip(&more.latency) {
                    *sum += more;
                }
                more.requests > 0
            }
            None => false,
        };
        total.idle = if changed || first { 0 } else { total.idle + 1 };
        if total.idle % IDLE != 0 {
            continue;
        }
        let within = total.latency.iter().scan(0, |sum, more| {
            *sum += more;
            Some(*sum)
        });
        let values = [total.requests, total.errors].into_iter().chain(within);
        samples.extend(total.series.iter().zip(values).map(|(series, value)| Sample {
            series: *series,
            at_ms: at,
            value: value as f64,
        }));
    }
    if !samples.is_empty() {
        store.append(&samples)?;
    }
    Ok(())
}
