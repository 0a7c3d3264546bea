//! The words of the metric store: series, samples, windows, usage.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::NAME_LABEL;

/// A series of one open store; what [`MetricStore::series`](super::MetricStore::series) gave.
///
/// Not durable, and no longer valid once the series was dropped because nothing is kept of it: samples for it are
/// then counted as [`Dropped::unknown`], and the caller asks for the series again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// One measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Of what.
    pub series: SeriesId,
    /// When it was measured, ms since 1970 UTC.
    pub at_ms: i64,
    /// Finite; others are dropped and counted.
    pub value: f64,
}

/// A series' name and labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels {
    /// The metric.
    pub name: String,
    /// Label names and values, sorted by name; no name twice, no empty value.
    pub labels: Vec<(String, String)>,
}

impl Labels {
    /// A label's value, the metric's name for [`NAME_LABEL`]; `None` where the series has no such label.
    #[must_use]
    pub fn get(&self, label: &str) -> Option<&str> {
        if label == NAME_LABEL {
            return Some(&self.name);
        }
        let at = self
            .labels
            .binary_search_by(|(name, _)| name.as_str().cmp(label))
            .ok()?;
        self.labels.get(at).map(|(_, value)| value.as_str())
    }
}

/// A series with points of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Which.
    pub labels: Labels,
    /// (ms since 1970 UTC, value), times ascending.
    pub points: Vec<(i64, f64)>,
}

/// What [`MetricStore::append`](super::MetricStore::append) did with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Appended {
    /// Samples taken.
    pub stored: u64,
    /// Samples not taken.
    pub dropped: Dropped,
}

/// Samples that were not taken, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// NaN or infinite.
    pub not_finite: u64,
    /// Not newer than the series' last sample: out of order, or sent twice.
    pub not_newer: u64,
    /// Further ahead of the clock than [`Options::ahead_max`].
    pub too_new: u64,
    /// Older than raw samples are kept.
    pub too_old: u64,
    /// Of a series that was dropped in the meantime: ask for it again.
    pub unknown: u64,
}

impl Dropped {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.not_finite + self.not_newer + self.too_new + self.too_old + self.unknown
    }

    /// Those that nothing else makes up for: neither sent twice nor of a series that is asked for anew.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.not_finite + self.too_new + self.too_old
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.not_finite += more.not_finite;
        self.not_newer += more.not_newer;
        self.too_new += more.too_new;
        self.too_old += more.too_old;
        self.unknown += more.unknown;
    }
}

/// How the samples of a window become one point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// Mean of the samples.
    Avg,
    /// Biggest sample.
    Max,
    /// Smallest sample.
    Min,
    /// Sum of the samples.
    Sum,
    /// Number of samples.
    Count,
    /// 95th percentile, linear between the two nearest samples. Needs raw samples.
    P95,
    /// 99th percentile, as [`Self::P95`].
    P99,
    /// Latest sample. Needs raw samples.
    Last,
}

impl Aggregate {
    /// Whether five-minute roll-ups can answer it.
    #[must_use]
    pub fn from_rollups(self) -> bool {
        matches!(self, Self::Avg | Self::Max | Self::Min | Self::Sum | Self::Count)
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avg => "avg",
            Self::Max => "max",
            Self::Min => "min",
            Self::Sum => "sum",
            Self::Count => "count",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Last => "last",
        })
    }
}

/// What an answer was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Every sample.
    Raw,
    /// Five-minute roll-ups, and raw samples where they are not rolled up yet. A roll-up counts wholly into the
    /// window in which it starts.
    Rollup,
}

/// The answer of [`MetricStore::windows`](super::MetricStore::windows).
#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    /// What it was computed from.
    pub resolution: Resolution,
    /// One point for each window that has samples, at the window's start; series without any are left out.
    /// Sorted by labels.
    pub series: Vec<Series>,
}

/// What the store holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Everything in the folder.
    pub disk_bytes: u64,
    /// Of it: raw samples.
    pub raw_bytes: u64,
    /// Of it: roll-ups.
    pub rollup_bytes: u64,
    /// Of it: samples on their way into files.
    pub wal_bytes: u64,
    /// The bound that retention keeps.
    pub max_bytes: u64,
    /// Series of which something is kept, or which are new.
    pub series: u64,
    /// Raw samples kept.
    pub samples: u64,
    /// Rows of five minutes kept; a series that was rolled up twice over late samples counts twice until merged.
    pub rollups: u64,
    /// Samples and other things held in memory for the head, bytes.
    pub head_bytes: u64,
    /// Oldest raw sample, ms since 1970 UTC; `None` when there is none.
    pub oldest_raw_ms: Option<i64>,
    /// Oldest data of any kind; `None` when there is none.
    pub oldest_ms: Option<i64>,
    /// Samples taken since the store was opened.
    pub appended: u64,
    /// Samples refused since the store was opened.
    pub dropped: Dropped,
    /// Files that could not be read when the store was opened, and were set aside.
    pub damaged_files: u64,
    /// What the last attempt to write met; `None` when it went well.
    pub failing: Option<String>,
}

/// Tells the time, ms since 1970 UTC.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How a store behaves.
#[derive(Clone)]
pub struct Options {
    /// How long raw samples are kept; 7 days.
    pub raw_keep: Duration,
    /// How long five-minute roll-ups are kept; 365 days. No shorter than `raw_keep`.
    pub rollup_keep: Duration,
    /// Bound of the folder's size; what is oldest is dropped first. 20 GiB. The head's log (see `head_bytes`), a
    /// merge in progress and the catalogue come on top for moments.
    pub max_bytes: u64,
    /// Memory for samples before they go into a file; 16 MiB. 240 bytes a series are granted in any case, so that
    /// files do not become too many.
    pub head_bytes: usize,
    /// Samples stay in memory no longer than this; 20 minutes.
    pub head_age: Duration,
    /// How far a sample may be ahead of the clock; 10 minutes.
    pub ahead_max: Duration,
    /// Most samples that one query reads; 100 million.
    pub query_samples_max: u64,
    /// Most points that one query answers with, 16 bytes each; 5 million.
    pub query_points_max: u64,
    /// The clock: the system's.
    pub clock: Clock,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("raw_keep", &self.raw_keep)
            .field("rollup_keep", &self.rollup_keep)
            .field("max_bytes", &self.max_bytes)
            .field("head_bytes", &self.head_bytes)
            .finish_non_exhaustive()
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Options {
    fn default() -> Self {
        Self {
            raw_keep: DAY * 7,
            rollup_keep: DAY * 365,
            max_bytes: 20 << 30,
            head_bytes: 16 << 20,
            head_age: Duration::from_secs(20 * 60),
            ahead_max: Duration::from_secs(600),
            query_samples_max: 100_000_000,
            query_points_max: 5_000_000,
            clock: Arc::new(|| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
            }),
        }
    }
}

/// A span as ms, saturating.
pub(super) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
