//! What hasn't been sent yet.
//!
//! The store takes the samples of one series in order only. So of each series, what is newer than the last that was
//! sent is what wasn't: also samples of a node that was out of reach and came after those of others. All series are
//! looked at for [`RECENT_MS`] back, those that come back after a silence for [`LATE_MS`]: agents keep an hour. What
//! comes later than that, or came late while the gateway ended, isn't sent.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use telemetry::{
    metrics::{Labels, Matcher, MetricError, Series},
    promql::Source,
};

use super::wire;
use crate::metrics::{Metrics, Named};

/// How far back every series is looked at.
const RECENT_MS: i64 = 300_000;
/// How late a sample may come in and is still sent.
const LATE_MS: i64 = 3_600_000;
/// Most samples of a request; Prometheus' own default.
const SAMPLES_MAX: usize = 2_000;

/// A request that is ready to go.
pub(super) struct Request {
    pub(super) body: Vec<u8>,
    pub(super) samples: u64,
    /// Its series, and when the last sample of each was measured.
    last: Vec<(u64, i64)>,
}

/// What was sent of each series, as far as that matters.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// All before was sent by an earlier run, or isn't to be.
    since_ms: i64,
    /// By the hash of their labels: two of 2^64 that are alike aren't expected.
    sent: HashMap<u64, i64>,
}

impl Pending {
    pub(super) fn new(since_ms: i64) -> Self {
        Self {
            since_ms,
            sent: HashMap::new(),
        }
    }

    /// Requests with all samples measured up to `to_ms` that weren't sent yet. `from_ms`: up to when all were that had
    /// come by then.
    pub(super) fn requests(&self, metrics: &Metrics, from_ms: i64, to_ms: i64) -> Result<Vec<Request>, MetricError> {
        let named = Named::new(metrics);
        let recent_ms = from_ms.saturating_sub(RECENT_MS).max(self.since_ms);
        let late_ms = from_ms.saturating_sub(LATE_MS).max(self.since_ms);
        let mut packing = Packing::default();
        for name in named.names() {
            let matchers = [Matcher::name(&name.shown)];
            let recent = named.select(&matchers, recent_ms.saturating_add(1), to_ms)?;
            let silent = recent.iter().map(|series| key(&series.labels));
            let silent: HashSet<u64> = silent.filter(|key| self.sent_to(*key) < recent_ms).collect();
            let mut piece_ms = late_ms;
            while !silent.is_empty() && piece_ms < recent_ms {
                let end_ms = recent_ms.min(piece_ms.saturating_add(RECENT_MS));
                for series in named.select(&matchers, piece_ms.saturating_add(1), end_ms)? {
                    if silent.contains(&key(&series.labels)) {
                        packing.add(self.unsent(series));
                    }
                }
                piece_ms = end_ms;
            }
            for series in recent {
                packing.add(self.unsent(series));
            }
        }
        Ok(packing.finish())
    }

    /// Up to when a series was sent.
    fn sent_to(&self, key: u64) -> i64 {
        self.sent.get(&key).copied().unwrap_or(self.since_ms)
    }

    fn unsent(&self, mut series: Series) -> Series {
        let sent_to_ms = self.sent_to(key(&series.labels));
        let sent = series.points.partition_point(|(at, _)| *at <= sent_to_ms);
        series.points.drain(..sent);
        series
    }

    /// A request has arrived, or is given up.
    pub(super) fn sent(&mut self, request: &Request) {
        self.sent.extend(request.last.iter().copied());
    }

    /// Forgets series of which nothing that comes now could have been sent already.
    pub(super) fn forget_before(&mut self, to_ms: i64) {
        let late_ms = to_ms.saturating_sub(LATE_MS);
        self.sent.retain(|_, last_ms| *last_ms > late_ms);
    }
}

fn key(labels: &Labels) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    hasher.finish()
}

/// Series on their way into requests.
#[derive(Default)]
struct Packing {
    requests: Vec<Request>,
    series: Vec<wire::TimeSeries>,
    last: Vec<(u64, i64)>,
    samples: usize,
}

impl Packing {
    fn add(&mut self, series: Series) {
        let Some((last_ms, _)) = series.points.last() else {
            return;
        };
        if self.samples + series.points.len() > SAMPLES_MAX {
            self.pack();
        }
        self.samples += series.points.len();
        self.last.push((key(&series.labels), *last_ms));
        self.series.push(series.into());
    }

    fn pack(&mut self) {
        let series = std::mem::take(&mut self.series);
        let last = std::mem::take(&mut self.last);
        let samples = std::mem::take(&mut self.samples) as u64;
        if samples > 0
            && let Some(body) = wire::body(series)
        {
            self.requests.push(Request { body, samples, last });
        }
    }

    fn finish(mut self) -> Vec<Request> {
        self.pack();
        self.requests
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use telemetry::metrics::{MetricStore, Options, Sample};

    use super::*;

    fn append(metrics: &Metrics, node: &str, times: &[i64]) {
        let series = metrics.store.series("node.up", &[("node", node)]).unwrap();
        let samples: Vec<Sample> = times
            .iter()
            .map(|&at_ms| Sample {
                series,
                at_ms,
                value: 1.0,
            })
            .collect();
        assert_eq!(metrics.store.append(&samples).unwrap().dropped.total(), 0);
    }

    /// Sends all requests; how many samples.
    fn send(pending: &mut Pending, metrics: &Metrics, from_ms: i64, to_ms: i64) -> u64 {
        let requests = pending.requests(metrics, from_ms, to_ms).unwrap();
        for request in &requests {
            assert!(request.samples as usize <= SAMPLES_MAX && !request.body.is_empty());
            pending.sent(request);
        }
        pending.forget_before(to_ms);
        requests.iter().map(|request| request.samples).sum()
    }

    #[test]
    fn each_sample_is_sent_once_also_a_late_one() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            clock: Arc::new(|| 10_000_000),
            ..Options::default()
        };
        let metrics = Metrics::new(MetricStore::open(folder.path(), options).unwrap());
        let mut pending = Pending::new(100_000);
        append(&metrics, "a", &[90_000, 100_000, 110_000, 120_000]);
        assert_eq!(
            send(&mut pending, &metrics, 100_000, 115_000),
            1,
            "neither before nor after"
        );
        append(&metrics, "b", &[105_000, 125_000]);
        assert_eq!(send(&mut pending, &metrics, 115_000, 130_000), 3, "b's first came late");
        assert_eq!(send(&mut pending, &metrics, 130_000, 150_000), 0);
        append(&metrics, "b", &[140_000, 500_000]);
        assert_eq!(
            send(&mut pending, &metrics, 450_000, 600_000),
            2,
            "it was silent for longer than all are looked at"
        );
        append(&metrics, "b", &[2_000_000, 2_500_000, 6_000_000]);
        assert_eq!(
            send(&mut pending, &metrics, 5_900_000, 6_100_000),
            2,
            "the first is too late"
        );
    }

    #[test]
    fn many_samples_are_several_requests() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new(MetricStore::open(folder.path(), Options::default()).unwrap());
        let now = jiff::Timestamp::now().as_millisecond();
        for node in 0..50 {
            let times: Vec<i64> = (0..100).map(|n| now - 100_000 + n * 1_000).collect();
            append(&metrics, &format!("n{node}"), &times);
        }
        let pending = Pending::new(now - 200_000);
        let requests = pending.requests(&metrics, now - 200_000, now).unwrap();
        let samples: Vec<u64> = requests.iter().map(|request| request.samples).collect();
        assert_eq!(samples, [2_000, 2_000, 1_000]);
    }
}
