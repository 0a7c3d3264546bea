//! Prometheus remote write: what the metric store takes in goes on to another one, in order.
//!
//! ```text
//! metric store ──pending (newer than what was sent of each series)──▶ wire (protobuf, snappy) ──▶ receiver
//!       ▲                                                                        │
//!       └────────── place: up to when all was sent, on disk ◀────────────────────┘
//! ```
//!
//! The store itself is the queue: it is on disk, and keeps single samples for days. While the receiver is away nothing
//! is lost that the store still has; afterwards it is sent oldest first, slice by slice.

mod pending;
mod place;
mod receiver;
mod wire;

use std::{path::PathBuf, sync::Arc, time::Duration};

use telemetry::metrics::{MetricError, MetricStore, Sample};
use tokio_util::sync::CancellationToken;

use crate::{hub::now, metrics::Metrics};

use pending::{Pending, Request};
use place::Place;
use receiver::Outcome;

pub use receiver::{Target, TargetError};

/// How often what came in is sent.
const EVERY: Duration = Duration::from_secs(5);
/// Samples are sent this long after they were measured, so that those of one moment have come in from all nodes.
const SETTLED_MS: i64 = 5_000;
/// Longest part of the past that is read at once.
const SLICE_MS: i64 = 30_000;
/// Waits after failures: the first, and the longest.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What became of the samples, since the gateway's start.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    sent: u64,
    /// Attempts that are tried again.
    failures: u64,
    /// Samples that the receiver refused for good.
    dropped: u64,
}

/// Sends until told to stop. `folder`: where the place is kept.
pub async fn run(metrics: Arc<Metrics>, target: Target, folder: PathBuf, stop: CancellationToken) {
    let file = folder.join("remote-write.json");
    let mut writer = Writer {
        place: Place::read(&file, target.url(), now().as_millisecond()),
        target,
        counts: Counts::default(),
        metrics,
        file,
    };
    let mut pending = Pending::new(writer.place.sent_to_ms);
    let mut wait = WAIT;
    loop {
        let pause = match writer.catch_up(&mut pending, &stop).await {
            Ok(()) => {
                wait = WAIT;
                EVERY
            }
            Err(retry) => {
                let pause = retry.max(wait).min(WAIT_MAX);
                wait = (wait * 2).min(WAIT_MAX);
                pause
            }
        };
        if let Err(error) = writer.record() {
            tracing::warn!(%error, "what remote write did couldn't be recorded");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Writer {
    metrics: Arc<Metrics>,
    target: Target,
    place: Place,
    file: PathBuf,
    counts: Counts,
}

impl Writer {
    /// Sends all that has settled, a slice at a time. `Err`: at least how long to wait before trying again.
    async fn catch_up(&mut self, pending: &mut Pending, stop: &CancellationToken) -> Result<(), Duration> {
        // What settles meanwhile is for the next time.
        let settled = now().as_millisecond() - SETTLED_MS;
        loop {
            let from = self.place.sent_to_ms.max(self.oldest_before(settled));
            let to = match self.place.sending_to_ms {
                // Once begun, a slice stays as it is: what of it has arrived is refused as a whole, and nothing else.
                Some(to) => to,
                None => settled.min(from.saturating_add(SLICE_MS)),
            };
            if to <= from || stop.is_cancelled() {
                return Ok(());
            }
            self.place.sending_to_ms = Some(to);
            self.keep_place();
            let metrics = Arc::clone(&self.metrics);
            let reading = std::mem::take(pending);
            let read = tokio::task::spawn_blocking(move || {
                let requests = reading.requests(&metrics, from, to);
                (reading, requests)
            });
            let (back, requests) = read.await.map_err(|_| WAIT)?;
            *pending = back;
            let requests = requests.map_err(|error| {
                tracing::warn!(%error, "metrics for remote write can't be read");
                WAIT
            })?;
            for mut request in requests {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    outcome = self.send(&mut request) => outcome?,
                }
                pending.sent(&request);
            }
            pending.forget_before(to);
            self.place.sent_to_ms = to;
            self.place.sending_to_ms = None;
        }
    }

    /// Where the store's single samples begin, if that is after the place: what was before is gone.
    fn oldest_before(&self, settled: i64) -> i64 {
        let oldest = self.metrics.store.usage().oldest_raw_ms;
        // Without any sample there is nothing to send up to now.
        let oldest = oldest.map_or(settled, |oldest| oldest.saturating_sub(1).min(settled));
        if oldest > self.place.sent_to_ms && self.place.sending_to_ms.is_none() {
            tracing::debug!(
                from_ms = self.place.sent_to_ms,
                to_ms = oldest,
                "no samples of this time are kept"
            );
        }
        oldest
    }

    async fn send(&mut self, request: &mut Request) -> Result<(), Duration> {
        match self.target.send(std::mem::take(&mut request.body)).await {
            Outcome::Taken => self.counts.sent += request.samples,
            Outcome::Refused(why) => {
                self.counts.dropped += request.samples;
                tracing::warn!(
                    samples = request.samples,
                    "remote write: the receiver refuses samples: {why}"
                );
            }
            Outcome::Later { wait, why } => {
                self.counts.failures += 1;
                tracing::warn!("remote write: {why}; trying again");
                return Err(wait);
            }
        }
        Ok(())
    }

    fn keep_place(&self) {
        if let Err(error) = self.place.write(&self.file) {
            tracing::warn!(%error, file = %self.file.display(), "the place of remote write can't be kept");
        }
    }

    /// Makes what was done metrics of the gateway's own.
    fn record(&self) -> Result<(), MetricError> {
        let at_ms = now().as_millisecond();
        let values = [
            ("gateway.remote_write.lag", (at_ms - self.place.sent_to_ms) as f64),
            ("gateway.remote_write.sent", self.counts.sent as f64),
            ("gateway.remote_write.failures", self.counts.failures as f64),
            ("gateway.remote_write.dropped", self.counts.dropped as f64),
        ];
        let store: &MetricStore = &self.metrics.store;
        let mut samples = Vec::with_capacity(values.len());
        for (name, value) in values {
            let series = store.series(name, &[])?;
            samples.push(Sample { series, at_ms, value });
        }
        store.append(&samples).map(drop)
    }
}
