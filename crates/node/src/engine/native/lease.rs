//! The lease: until when jobs may run without another word from the agent. Kept in one file, as a point on the
//! clock that counts sleep too, so that shims keep to it when the agent is dead.

use std::{fs, io, path::PathBuf};

use super::proc;

/// The lease's file.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    path: PathBuf,
}

impl Lease {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// When it runs out, in nanoseconds since the boot. `None`: there is none, or it is of an earlier boot.
    pub(super) fn read(&self) -> Option<u64> {
        let text = fs::read_to_string(&self.path).ok()?;
        let (deadline, boot) = text.trim().split_once(' ')?;
        (boot == proc::boot_id()).then(|| deadline.parse().ok())?
    }

    /// Sets it. `None`: jobs may run for ever.
    pub(super) fn write(&self, deadline_ns: Option<u64>) -> io::Result<()> {
        match deadline_ns {
            Some(deadline) => {
                let next = self.path.with_extension("next");
                fs::write(&next, format!("{deadline} {}\n", proc::boot_id()))?;
                fs::rename(next, &self.path)
            }
            None => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_for_this_boot_only() {
        let folder = tempfile::tempdir().unwrap();
        let lease = Lease::at(folder.path().join("lease"));
        assert_eq!(lease.read(), None);
        lease.write(Some(42)).unwrap();
        assert_eq!(lease.read(), Some(42));
        fs::write(folder.path().join("lease"), "42 another-boot\n").unwrap();
        assert_eq!(lease.read(), None);
        lease.write(None).unwrap();
        lease.write(None).unwrap();
        assert_eq!(lease.read(), None);
    }
}
