//! Volumes of a native job: bind mounts in a mount namespace of its own, which takes root.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use api::workload::{Volume, VolumeSource};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change, mount_remount};

use super::shim::StartError;

/// Mounts the volumes for this process and its children. `workdir` is the job's own folder.
pub(super) fn mount_all(volumes: &[Volume], workdir: &Path) -> Result<(), StartError> {
    let mut wanted = Vec::new();
    for (i, volume) in volumes.iter().enumerate() {
        if let Some(bind) = plan(volume, &scratch(workdir, i))? {
            wanted.push(bind);
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(StartError::invalid(format!(
            "the volume at '{}' can't be mounted: the node's agent isn't root, so that its native engine can only offer a folder of the node under its own path",
            wanted[0].at.display()
        )));
    }
    let fail = |what: &Path, error: &dyn std::fmt::Display| {
        StartError::invalid(format!("the volume at '{}' can't be mounted: {error}", what.display()))
    };
    own_namespace()?;
    for bind in wanted {
        bind.mount().map_err(|error| fail(&bind.at, &error))?;
    }
    Ok(())
}

/// Gives this process a mount namespace of its own, whose mounts don't reach the node's.
pub(super) fn own_namespace() -> Result<(), StartError> {
    super::sys::own_mounts()
        .and_then(|()| {
            Ok(mount_change(
                "/",
                MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
            )?)
        })
        .map_err(|error| StartError::machine(format!("no mount namespace can be had: {error}")))
}

/// Where the empty folder of a volume lies on disk.
fn scratch(workdir: &Path, i: usize) -> PathBuf {
    workdir.with_extension("volumes").join(i.to_string())
}

/// A mount that has to be made.
struct Bind {
    at: PathBuf,
    from: From,
    read_only: bool,
}

enum From {
    /// A folder or file that exists.
    Host(PathBuf),
    /// A folder that is yet to be made.
    Scratch(PathBuf),
    /// Memory, of at most so many bytes.
    Memory(Option<u64>),
}

/// What is to be done for a volume. `None`: nothing, it is there already.
fn plan(volume: &Volume, scratch: &Path) -> Result<Option<Bind>, StartError> {
    let at = PathBuf::from(&volume.mount_path);
    let refuse = |why: &str| StartError::invalid(format!("the volume at '{}' {why}", volume.mount_path));
    if !at.is_absolute() || at.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(refuse("must be at an absolute path without '..'"));
    }
    if scratch.starts_with(&at) {
        return Err(refuse("would hide the agent's own files"));
    }
    match &volume.source {
        VolumeSource::HostPath { source, read_only } => {
            let from = PathBuf::from(source);
            if !from.is_absolute() {
                return Err(refuse("must come from an absolute path"));
            }
            if !from.exists() {
                return Err(refuse(&format!("comes from '{source}', which this node doesn't have")));
            }
            if from == at && !read_only {
                return Ok(None);
            }
            Ok(Some(Bind {
                at,
                from: From::Host(from),
                read_only: *read_only,
            }))
        }
        VolumeSource::EmptyDir { memory, size_limit } => Ok(Some(Bind {
            at,
            from: if *memory {
                From::Memory(size_limit.map(api::Size::bytes))
            } else {
                From::Scratch(scratch.to_owned())
            },
            read_only: false,
        })),
    }
}

impl Bind {
    fn mount(&self) -> io::Result<()> {
        match &self.from {
            From::Host(from) => {
                if from.is_dir() {
                    fs::create_dir_all(&self.at)?;
                } else if !self.at.exists() {
                    if let Some(folder) = self.at.parent() {
                        fs::create_dir_all(folder)?;
                    }
                    fs::File::create(&self.at)?;
                }
                mount_bind_recursive(from, &self.at)?;
            }
            From::Scratch(from) => {
                fs::create_dir_all(from)?;
                fs::create_dir_all(&self.at)?;
                mount_bind_recursive(from, &self.at)?;
            }
            From::Memory(limit) => {
                fs::create_dir_all(&self.at)?;
                let size = limit.map(|limit| format!("size={limit}")).unwrap_or_default();
                let size = std::ffi::CString::new(size).map_err(io::Error::other)?;
                let flags = MountFlags::NOSUID | MountFlags::NODEV;
                mount(c"tmpfs", &self.at, c"tmpfs", flags, size.as_c_str())?;
            }
        }
        if self.read_only {
            mount_remount(&self.at, MountFlags::BIND | MountFlags::RDONLY, c"")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(at: &str, source: &str, read_only: bool) -> Volume {
        Volume {
            name: String::new(),
            mount_path: at.to_owned(),
            source: VolumeSource::HostPath {
                source: source.to_owned(),
                read_only,
            },
        }
    }

    #[test]
    fn only_what_is_elsewhere_needs_a_mount() {
        let scratch = Path::new("/data/work/job.volumes/0");
        assert!(plan(&host("/usr", "/usr", false), scratch).unwrap().is_none());
        assert!(plan(&host("/usr", "/usr", true), scratch).unwrap().is_some());
        assert!(plan(&host("/x", "/usr", false), scratch).unwrap().is_some());
        for (at, source, why) in [
            ("x", "/usr", "absolute"),
            ("/x/../etc", "/usr", "without '..'"),
            ("/x", "usr", "absolute"),
            ("/x", "/no/such", "doesn't have"),
            ("/data", "/usr", "hide"),
            ("/", "/usr", "hide"),
        ] {
            let error = plan(&host(at, source, false), scratch).err().unwrap();
            assert!(
                error.message.contains(why) && !error.retryable,
                "{at}: {}",
                error.message
            );
        }
    }
}
