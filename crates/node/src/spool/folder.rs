//! Waits for the kernel: for changes in a folder, and for files that become readable.

#![expect(
    unsafe_code,
    reason = "tokio has no safe way to wait for a file of the kernel's own kind"
)]

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Has tokio wait for a file, which must be non-blocking. Needs a tokio runtime.
pub(crate) fn awaitable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and stays the same file until it is dropped, and the AsyncFd owns it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Names the files in a folder that change. Nothing is missed between two calls.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    fd: AsyncFd<OwnedFd>,
}

/// What has changed in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changed {
    /// These files, in order, some more than once.
    Files(Vec<String>),
    /// More than the kernel could keep: look at all of it.
    Everything,
}

impl FolderWatch {
    /// Begins to watch.
    pub(crate) fn new(folder: &Path, flags: inotify::WatchFlags) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, folder, flags)?;
        Ok(Self { fd: awaitable(fd)? })
    }

    /// Waits for a change. Cancel safe.
    pub(crate) async fn changed(&mut self) -> io::Result<Changed> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut files: Vec<String> = Vec::new();
            let mut overflow = false;
            let mut buffer = [MaybeUninit::uninit(); 16 << 10];
            let mut reader = inotify::Reader::new(self.fd.get_ref().as_fd(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        overflow |= event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
                        if let Some(name) = event.file_name().and_then(|name| name.to_str().ok())
                            && files.last().is_none_or(|last| last != name)
                        {
                            files.push(name.to_owned());
                        }
                    }
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if overflow {
                return Ok(Changed::Everything);
            }
            if !files.is_empty() {
                return Ok(Changed::Files(files));
            }
        }
    }
}
