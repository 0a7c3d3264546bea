//! Workloads' output, numbered and on disk until the gateway has acknowledged it.

use std::io;

use api::workload::{JobKey, LogSource};

/// Where an engine writes the output of one job. One writer a job at a time.
pub trait Sink: Send {
    /// Number and time (nanoseconds since 1970) of the last line that is kept or was kept. `None`: none yet.
    fn last(&self) -> Option<(u64, i64)>;

    /// Keeps a line (without its newline, at most [`api::wire::LINE_MAX_BYTES`]) and returns its number.
    ///
    /// # Errors
    /// The disk is full or broken; the line isn't kept.
    fn append(&mut self, source: LogSource, at_ns: i64, text: &[u8], partial: bool) -> io::Result<u64>;
}

/// Opens the sinks of jobs.
pub trait Sinks: Send + Sync + 'static {
    /// The sink of a job, which goes on where an earlier writer ended.
    ///
    /// # Errors
    /// The disk is full or broken.
    fn open(&self, job: &JobKey) -> io::Result<Box<dyn Sink>>;
}
