//! Which jobs have new lines, as the kernel tells.

use std::{collections::BTreeSet, io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use api::workload::JobKey;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use super::segment::{self, Name};

/// Tells which jobs have new lines. Nothing is missed between two calls.
#[derive(Debug)]
pub struct Watch {
    fd: AsyncFd<OwnedFd>,
    folder: std::path::PathBuf,
}

impl Watch {
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, folder, inotify::WatchFlags::MODIFY)?;
        Ok(Self {
            fd: AsyncFd::register(fd)?,
            folder: folder.to_owned(),
        })
    }

    /// Waits until a job has new lines, and returns all that have, in order. Cancel safe.
    ///
    /// # Errors
    /// The kernel's queue is broken, or the folder can't be read.
    pub async fn changed(&mut self) -> io::Result<Vec<JobKey>> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut jobs = BTreeSet::new();
            let mut buffer = [MaybeUninit::uninit(); 16 << 10];
            let mut reader = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) => {
                        jobs.extend(segment::list(&self.folder)?.into_iter().map(|name| name.job));
                    }
                    Ok(event) => {
                        let name = event.file_name().and_then(|name| name.to_str().ok());
                        jobs.extend(name.and_then(Name::parse).map(|name| name.job));
                    }
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
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
            assert_eq!(watch.changed().await.unwrap(), [job.clone()]);
            sink.append(LogSource::Stdout, 1, b"y", false).unwrap();
            assert_eq!(watch.changed().await.unwrap(), [job]);
        }
    }
}
