//! Workloads' output, numbered and on disk until the gateway has acknowledged it.
//!
//! A [`Spool`] is one folder. Each job's lines lie in segment files named by the number of their first line
//! (`wl-x.1.0.1.log`), appended to by one [`Writer`] (in the agent, or in a job's shim) and read by the agent.
//! Where the folder outgrows its limit, the oldest finished segments of the job that has most make room, so that one
//! that floods costs the others nothing: their lines become a hole in the numbers, and the reader says so in a System line that stands at the hole's last number.

pub(crate) mod folder;
mod meter;
mod read;
mod segment;
mod watch;
mod write;

use std::io;

use api::workload::{JobKey, LogSource};

pub use meter::Volume;
pub use read::Spool;
pub use watch::Watch;
pub use write::Writer;

/// How much a spool may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// All segments together, in bytes. Kept at each change of segments, so that it may be passed by one unfinished
    /// segment a job.
    pub total_bytes: u64,
    /// Size at which a segment is finished, in bytes.
    pub segment_bytes: u64,
}

impl Default for Limits {
    /// 1 GiB in segments of 16 MiB.
    fn default() -> Self {
        Self {
            total_bytes: 1 << 30,
            segment_bytes: 16 << 20,
        }
    }
}

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
