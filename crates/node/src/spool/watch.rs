//! Which jobs have new lines, as the kernel tells.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use api::workload::JobKey;
use rustix::fs::inotify::WatchFlags;

use super::{
    folder::{Changed, FolderWatch},
    segment::{self, Name},
};

/// Tells which jobs have new lines. Nothing is missed between two calls.
#[derive(Debug)]
pub struct Watch {
    watch: FolderWatch,
    folder: PathBuf,
}

impl Watch {
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            watch: FolderWatch::new(folder, WatchFlags::MODIFY)?,
            folder: folder.to_owned(),
        })
    }

    /// Waits until a job has new lines, and returns all that have, in order. Cancel safe.
    ///
    /// # Errors
    /// The kernel's queue is broken, or the folder can't be read.
    pub async fn changed(&mut self) -> io::Result<Vec<JobKey>> {
        loop {
            let jobs: BTreeSet<JobKey> = match self.watch.changed().await? {
                Changed::Everything => segment::list(&self.folder)?.into_iter().map(|name| name.job).collect(),
                Changed::Files(files) => files
                    .iter()
                    .filter_map(|name| Name::parse(name))
                    .map(|name| name.job)
                    .collect(),
            };
            if !jobs.is_empty() {
                return Ok(jobs.into_iter().collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::workload::LogSource;

    use crate::spool::{Limits, Sinks, Spool};

    #[tokio::test]
    async fn writing_wakes_the_watch() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), Limits::default()).unwrap();
        let mut watch = spool.watch().unwrap();
        for name in ["wl-a.1.0", "wl-b.1.0"] {
            let job = name.parse().unwrap();
            let mut sink = Sinks::open(&spool, &job).unwrap();
            sink.append(LogSource::Stdout, 1, b"x", false).unwrap();
            assert_eq!(watch.changed().await.unwrap(), std::slice::from_ref(&job));
            sink.append(LogSource::Stdout, 1, b"y", false).unwrap();
            assert_eq!(watch.changed().await.unwrap(), [job]);
        }
    }
}
