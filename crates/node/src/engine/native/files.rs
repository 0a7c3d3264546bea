//! Secrets that a native job gets as files: in memory, in a mount namespace of its own, which takes root.
//!
//! A mount needs something to be mounted on. Where there is no file, an empty one without rights is made (a *mark*, by
//! which it is known again) and removed with the job. Removing it would take the mounts of other jobs on it along, so
//! each job that uses a mark holds a lock on it, and the last one removes it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use api::secret::SecretValue;
use rustix::{
    fs::{FlockOperation, flock},
    mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount},
};

use super::{shim::StartError, volumes};

/// The rights of a mark: nobody's, and a bit that means nothing for a file.
const MARK: u32 = 0o1000;

/// Files in their places.
#[derive(Debug, Default)]
pub(super) struct Placed {
    points: Vec<Point>,
    /// Folders that were made for them, outer ones first.
    folders: Vec<PathBuf>,
}

/// Where a file is mounted.
#[derive(Debug)]
struct Point {
    path: PathBuf,
    /// Locked. `None`: the file that it hides isn't ours.
    mark: Option<File>,
}

/// Puts files where a job finds them; nobody else does. `workdir` is the job's own folder.
pub(super) fn place(files: &[(String, SecretValue)], workdir: &Path) -> Result<Placed, StartError> {
    let mut placed = Placed::default();
    let Some((first, _)) = files.first() else {
        return Ok(placed);
    };
    if !rustix::process::geteuid().is_root() {
        return Err(StartError::invalid(format!(
            "the secret at '{first}' can't be placed: the node's agent isn't root, so that its native engine offers secrets in variables only"
        )));
    }
    volumes::own_namespace()?;
    let folder = workdir.with_extension("secrets");
    let stored = store(files, &folder)
        .map_err(|error| StartError::machine(format!("memory for the job's secrets can't be had: {error}")));
    let result = stored.and_then(|()| {
        for (i, (path, _)) in files.iter().enumerate() {
            placed
                .add(&folder.join(i.to_string()), Path::new(path))
                .map_err(|error| StartError::invalid(format!("the secret at '{path}' can't be placed: {error}")))?;
        }
        Ok(())
    });
    // What is mounted elsewhere stays.
    let _ = unmount(&folder, UnmountFlags::DETACH);
    let _ = fs::remove_dir(&folder);
    match result {
        Ok(()) => Ok(placed),
        Err(error) => {
            placed.remove();
            Err(error)
        }
    }
}

/// Writes the files into memory that is mounted at a folder, by their numbers.
fn store(files: &[(String, SecretValue)], folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Unlike tmpfs it is never swapped out; not everybody who may mount the one may mount the other.
    if mount(c"ramfs", folder, c"ramfs", flags, c"mode=0700").is_err() {
        mount(c"tmpfs", folder, c"tmpfs", flags, c"mode=0700")?;
    }
    for (i, (_, value)) in files.iter().enumerate() {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(folder.join(i.to_string()))?;
        file.write_all(value.expose())?;
    }
    Ok(())
}

impl Placed {
    fn add(&mut self, from: &Path, at: &Path) -> io::Result<()> {
        let missing: Vec<PathBuf> = at
            .ancestors()
            .skip(1)
            .take_while(|folder| !folder.exists())
            .map(Path::to_owned)
            .collect();
        self.folders.extend(missing.into_iter().rev());
        let point = Point::at(at)?;
        let mounted = mount_bind(from, at).and_then(|()| mount_remount(at, MountFlags::BIND | MountFlags::RDONLY, c""));
        self.points.push(point);
        Ok(mounted?)
    }

    /// Takes the files away; the job has ended.
    pub(super) fn remove(self) {
        for point in self.points.into_iter().rev() {
            point.remove();
        }
        for folder in self.folders.into_iter().rev() {
            // Somebody may use it by now.
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Point {
    fn at(path: &Path) -> io::Result<Self> {
        loop {
            match OpenOptions::new().write(true).create_new(true).mode(MARK).open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Without a parent it would be the root.
                    fs::create_dir_all(path.parent().unwrap_or(path))?;
                    continue;
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let meta = match fs::metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if fs::symlink_metadata(path).is_ok() {
                        return Err(io::Error::other("there is a link that leads nowhere"));
                    }
                    // Another job has just removed it.
                    continue;
                }
                meta => meta?,
            };
            if meta.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let path = path.to_owned();
            if !is_mark(&meta) {
                return Ok(Self { path, mark: None });
            }
            let Ok(mark) = File::open(&path) else { continue };
            flock(&mark, FlockOperation::LockShared)?;
            if stands_for(&mark, &path) {
                return Ok(Self { path, mark: Some(mark) });
            }
        }
    }

    fn remove(self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        if let Some(mark) = self.mark
            && flock(&mark, FlockOperation::NonBlockingLockExclusive).is_ok()
            && stands_for(&mark, &self.path)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_mark(meta: &fs::Metadata) -> bool {
    meta.is_file() && meta.len() == 0 && meta.permissions().mode() & 0o7777 == MARK
}

/// Whether the path still is that file, and that is a mark.
fn stands_for(mark: &File, path: &Path) -> bool {
    match (mark.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()) && is_mark(&there),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_user_removes_a_mark_and_nobody_a_file_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let (first, second) = (Point::at(&path).unwrap(), Point::at(&path).unwrap());
        assert!(first.mark.is_some() && second.mark.is_some());
        first.remove();
        assert!(path.exists(), "another one uses it");
        let third = Point::at(&path).unwrap();
        second.remove();
        third.remove();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        Point::at(&path).unwrap().remove();
        assert!(path.exists(), "an empty file is somebody's");
        assert!(Point::at(folder.path()).is_err());
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        assert!(Point::at(&folder.path().join("link")).is_err());
    }
}
