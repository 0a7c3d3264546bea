//! Secrets that containers get as files: below a folder of this machine that lies in memory, from where each is mounted
//! into its container. They are there from before the container is made until its job has ended.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use api::{NodeName, secret::SecretValue, workload::JobKey};
use bollard::{errors::Error, query_parameters::DownloadFromContainerOptionsBuilder};
use futures_util::StreamExt;
use rustix::mount::{MountFlags, mount};

use super::daemon::{Daemon, words};

/// The kernel's names for file systems in memory (`statfs(2)`).
const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;

/// Most bytes of a container's `/etc/passwd` that are read.
const PASSWD_MAX: usize = 1 << 20;

/// Bytes of a header in a tar archive.
const TAR_HEADER: usize = 512;

/// The files of all jobs.
pub(super) struct Files {
    folder: PathBuf,
    /// Held while the folder is made.
    making: Mutex<()>,
    /// Users in containers are others outside: no file can be given to one.
    remapped: bool,
}

/// Where the files of a node's jobs are, unless somebody says otherwise: one folder a node.
pub(super) fn usual(node: &NodeName) -> PathBuf {
    let run = if rustix::process::geteuid().is_root() {
        PathBuf::from("/run")
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(
            || PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw())),
            PathBuf::from,
        )
    };
    run.join("clawbernetes/secrets").join(node.as_str())
}

impl Files {
    pub(super) fn new(folder: PathBuf, remapped: bool) -> Self {
        Self {
            folder,
            making: Mutex::default(),
            remapped,
        }
    }

    fn job(&self, job: &JobKey) -> PathBuf {
        self.folder.join(job.to_string())
    }

    /// The file of this number.
    pub(super) fn path(&self, job: &JobKey, number: usize) -> PathBuf {
        self.job(job).join(number.to_string())
    }

    /// Writes a job's files, in place of any that are there.
    pub(super) fn put(&self, job: &JobKey, files: &[(String, SecretValue)]) -> io::Result<()> {
        if self.remapped {
            return Err(io::Error::other(
                "the container engine gives users other numbers (userns-remap), so that no file can be a user's alone",
            ));
        }
        {
            let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            in_memory(&self.folder)?;
        }
        self.remove(job);
        DirBuilder::new().mode(0o700).create(self.job(job))?;
        for (number, (_, value)) in files.iter().enumerate() {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o400)
                .open(self.path(job, number))?;
            file.write_all(value.expose())?;
        }
        Ok(())
    }

    /// Gives a job's files to a user.
    pub(super) fn give(&self, job: &JobKey, count: usize, user: u32) -> io::Result<()> {
        if user == 0 {
            // The engine's own user, as which this process has written them.
            return Ok(());
        }
        (0..count).try_for_each(|number| chown(self.path(job, number), Some(user), None))
    }

    pub(super) fn remove(&self, job: &JobKey) {
        match fs::remove_dir_all(self.job(job)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%job, %error, "a job's secrets can't be removed");
            }
            _ => {}
        }
    }

    /// Removes the files of all jobs but these.
    pub(super) fn keep(&self, jobs: &BTreeSet<JobKey>) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let job = entry.file_name().to_str().and_then(|name| name.parse::<JobKey>().ok());
            if let Some(job) = job.filter(|job| !jobs.contains(job)) {
                self.remove(&job);
            }
        }
    }
}

/// Makes a folder that lies in memory.
fn in_memory(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if lies_in_memory(folder)? {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(c"tmpfs", folder, c"tmpfs", flags, c"mode=0700").map_err(|error| {
        io::Error::other(format!(
            "{} isn't in memory (tmpfs), and nothing can be mounted there: {error}",
            folder.display()
        ))
    })?;
    if lies_in_memory(folder)? {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} isn't in memory (tmpfs)",
        folder.display()
    )))
}

fn lies_in_memory(folder: &Path) -> io::Result<bool> {
    let kind = rustix::fs::statfs(folder)?.f_type;
    // Its width and sign differ between machines; the names have 32 bits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the lower 32 bits are the name"
    )]
    let kind = kind as u32;
    Ok(kind == TMPFS || kind == RAMFS)
}

/// The number of the user that a container's command runs as. `user` is as its configuration says.
pub(super) async fn number_of(daemon: &Daemon, container: &str, user: &str) -> Result<u32, String> {
    let name = user.split(':').next().unwrap_or_default();
    if name.is_empty() {
        return Ok(0);
    }
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let archive = passwd(daemon, container).await.map_err(|error| words(&error))?;
    find(name, &archive).ok_or_else(|| format!("its /etc/passwd has no user '{name}'"))
}

/// A container's `/etc/passwd`, as the only file of a tar archive.
async fn passwd(daemon: &Daemon, container: &str) -> Result<Vec<u8>, Error> {
    let options = DownloadFromContainerOptionsBuilder::new().path("/etc/passwd").build();
    let mut parts = Box::pin(daemon.api().download_from_container(container, Some(options)));
    let mut archive = Vec::new();
    daemon
        .call(async {
            while let Some(part) = parts.next().await {
                archive.extend_from_slice(&part?);
                if archive.len() > PASSWD_MAX {
                    break;
                }
            }
            Ok(())
        })
        .await?;
    Ok(archive)
}

fn find(name: &str, archive: &[u8]) -> Option<u32> {
    let size = archive.get(124..135)?;
    let size = usize::from_str_radix(std::str::from_utf8(size).ok()?.trim_matches(['\0', ' ']), 8).ok()?;
    let text = archive.get(TAR_HEADER..TAR_HEADER.checked_add(size)?)?;
    String::from_utf8_lossy(text).lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn key(text: &str) -> JobKey {
        text.parse().unwrap()
    }

    fn secret(text: &str) -> Vec<(String, SecretValue)> {
        vec![("/token".to_owned(), SecretValue::from(text.to_owned()))]
    }

    #[test]
    fn files_lie_in_memory_and_go_with_their_jobs() {
        // On a disk, unless this machine has none.
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("run/secrets");
        let files = Files::new(folder.clone(), false);
        let (a, b) = (key("wl-a.1.0"), key("wl-b.1.0"));
        let put = files.put(&a, &secret("one"));
        if !rustix::process::geteuid().is_root() {
            assert!(put.is_ok() || put.unwrap_err().to_string().contains("isn't in memory"));
            return;
        }
        put.unwrap();
        assert!(lies_in_memory(&folder).unwrap());
        files.put(&b, &secret("two")).unwrap();
        files.put(&b, &secret("new")).unwrap();
        files.give(&b, 1, 1234).unwrap();
        let meta = fs::metadata(files.path(&b, 0)).unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.uid()), (0o400, 1234));
        assert_eq!(fs::read(files.path(&b, 0)).unwrap(), b"new");
        files.keep(&BTreeSet::from([b.clone()]));
        assert!(!files.job(&a).exists() && files.job(&b).exists());
        files.remove(&b);
        files.remove(&b);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let error = Files::new(folder.clone(), true).put(&a, &secret("one")).unwrap_err();
        assert!(error.to_string().contains("userns-remap"));
        let _ = rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::DETACH);
    }

    #[test]
    fn users_are_found_by_name() {
        let mut archive = vec![0; TAR_HEADER];
        let text = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\nbad\n";
        archive[124..135].copy_from_slice(format!("{:011o}", text.len()).as_bytes());
        archive.extend_from_slice(text);
        assert_eq!(find("app", &archive), Some(1000));
        assert_eq!(find("root", &archive), Some(0));
        for missing in ["nobody", "bad", "x"] {
            assert_eq!(find(missing, &archive), None, "{missing}");
        }
        assert_eq!(find("app", &archive[..560]), None);
        assert_eq!(find("app", &[]), None);
    }
}
