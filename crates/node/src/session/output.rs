//! Reading workloads' output on its way to the gateway.

use std::{collections::HashMap, io};

use api::{wire::LogLine, workload::JobKey};

use crate::{
    engine::BoxFuture,
    spool::{self, Volume},
};

/// The reading side of the spool. Calls may block for milliseconds, except [`Changes::changed`].
pub trait Output: Send + Sync + 'static {
    /// Lines of a job from a number on, in order: at least one if there is any, otherwise no more than `max_bytes`
    /// of text.
    ///
    /// # Errors
    /// The disk is broken.
    fn read(&self, job: &JobKey, from: u64, max_bytes: usize) -> io::Result<Vec<LogLine>>;

    /// The number of a job's last line, 0 for none.
    ///
    /// # Errors
    /// The disk is broken.
    fn last(&self, job: &JobKey) -> io::Result<u64>;

    /// How much each job has said so far; one that has said nothing may be missing.
    ///
    /// # Errors
    /// The disk is broken.
    fn volumes(&self) -> io::Result<HashMap<JobKey, Volume>>;

    /// Lines up to a number aren't needed any more.
    ///
    /// # Errors
    /// The disk is broken.
    fn trim(&self, job: &JobKey, through: u64) -> io::Result<()>;

    /// Forgets all of a job's lines.
    ///
    /// # Errors
    /// The disk is broken.
    fn remove(&self, job: &JobKey) -> io::Result<()>;

    /// Begins to tell which jobs have new lines. Called within the runtime.
    ///
    /// # Errors
    /// The kernel doesn't allow it.
    fn watch(&self) -> io::Result<Box<dyn Changes>>;
}

/// Tells which jobs have new lines.
pub trait Changes: Send {
    /// Waits until jobs have new lines. Nothing is missed between two calls.
    ///
    /// # Errors
    /// The kernel's word can't be read any more.
    fn changed(&mut self) -> BoxFuture<'_, io::Result<Vec<JobKey>>>;
}

impl Output for spool::Spool {
    fn read(&self, job: &JobKey, from: u64, max_bytes: usize) -> io::Result<Vec<LogLine>> {
        self.read(job, from, max_bytes)
    }

    fn last(&self, job: &JobKey) -> io::Result<u64> {
        Ok(self.last(job)?.map_or(0, |(number, _)| number))
    }

    fn volumes(&self) -> io::Result<HashMap<JobKey, Volume>> {
        self.volumes()
    }

    fn trim(&self, job: &JobKey, through: u64) -> io::Result<()> {
        self.trim(job, through)
    }

    fn remove(&self, job: &JobKey) -> io::Result<()> {
        self.remove(job)
    }

    fn watch(&self) -> io::Result<Box<dyn Changes>> {
        Ok(Box::new(self.watch()?))
    }
}

impl Changes for spool::Watch {
    fn changed(&mut self) -> BoxFuture<'_, io::Result<Vec<JobKey>>> {
        Box::pin(self.changed())
    }
}
