//! The metric store: time series of nodes, GPUs and workloads on one disk.
//!
//! A series is a metric's name and its labels. Its samples are kept raw for days, and as minimum, maximum, sum
//! and count of five minutes for a year. How the parts fit:
//!
//! ```text
//! append ──▶ head (rows of series that report together) ──▶ sorted files ──▶ merged: one file an hour
//!    └─────▶ write-ahead log, fsync once a second             (keeper)        └──▶ roll-ups ──▶ one a day
//! select, windows ◀── head + files as they are at one moment
//! ```
//!
//! Which files count, and the series' labels, stand in a small redb beside them, changed in one transaction per
//! step: a crash between any two lines leaves the state before or after it. At most the last unsynced second of
//! samples is lost.

mod aggregate;
mod catalog;
mod codec;
mod error;
mod head;
mod index;
mod keeper;
mod matcher;
mod merge;
mod plan;
mod query;
mod segment;
mod segment_writer;
mod store;
mod symbols;
mod types;
mod wal;

pub use error::MetricError;
pub use matcher::{Matcher, NAME_LABEL};
pub use store::MetricStore;
pub use types::{
    Aggregate, Appended, Clock, Dropped, Labels, Options, Resolution, Sample, Series, SeriesId, Usage, Windows,
};
