//! The metric store from outside.

mod bounds;
mod kill;
mod model;
mod queries;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use telemetry::metrics::{Matcher, MetricStore, Options, Sample, SeriesId};

/// A Monday, on the hour.
const START_MS: i64 = 1_795_392_000_000;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A clock that the test moves.
#[derive(Clone)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn at(now_ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(now_ms)))
    }

    fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }

    fn options(&self) -> Options {
        let hand = Arc::clone(&self.0);
        Options {
            clock: Arc::new(move || hand.load(Ordering::SeqCst)),
            ..Options::default()
        }
    }
}

fn open(dir: &Path, hand: &Hand) -> MetricStore {
    MetricStore::open(dir, hand.options()).unwrap()
}

fn sample(series: SeriesId, at_ms: i64, value: f64) -> Sample {
    Sample { series, at_ms, value }
}

/// All samples of the only series of a metric, none where there is no such series.
fn all_of(store: &MetricStore, name: &str) -> Vec<(i64, f64)> {
    let mut series = store.select(&[Matcher::name(name)], i64::MIN, i64::MAX).unwrap();
    assert!(series.len() <= 1);
    series.pop().map(|series| series.points).unwrap_or_default()
}

/// A copy of the folder, as a crash would leave it.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}
