//! Control groups: memory and CPU limits, the kernel's own word on out-of-memory, and what belongs to a job.
//!
//! Version 2 is used where it has the memory controller, version 1 (one tree a controller) otherwise.

use std::{
    fs::{self, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use api::{Cpu, Size};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Length of a CPU quota's period, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;

/// Where this agent's cgroups lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    version: Version,
    /// Parent of the jobs' groups in the tree that tracks them and limits memory.
    memory: PathBuf,
    /// Parent of the groups that limit CPU; in version 2 the same. `None`: no CPU limits.
    cpu: Option<PathBuf>,
}

/// The form of the kernel's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Version {
    V1,
    V2,
}

/// The control group of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cgroup {
    version: Version,
    memory: PathBuf,
    /// Only for a job with a CPU limit.
    cpu: Option<PathBuf>,
}

impl Tree {
    /// Finds a tree under `root` (`/sys/fs/cgroup`) that can be written, and makes the parent `name` in it.
    /// The strings say what can't be enforced.
    pub(super) fn find(root: &Path, name: &str) -> (Option<Self>, Vec<String>) {
        let parent = |tree: &Path| tree.join("clawbernetes").join(name);
        let mut why = Vec::new();
        for tree in [root.to_owned(), root.join("unified")] {
            let has = |controller: &str| {
                fs::read_to_string(tree.join("cgroup.controllers"))
                    .is_ok_and(|text| text.split_ascii_whitespace().any(|c| c == controller))
            };
            if !has("memory") {
                continue;
            }
            match enable(&tree, name, has("cpu")) {
                Ok(cpu) => {
                    let memory = parent(&tree);
                    if !cpu {
                        why.push(NO_CPU.to_owned());
                    }
                    let found = Self {
                        version: Version::V2,
                        cpu: cpu.then(|| memory.clone()),
                        memory,
                    };
                    return (Some(found), why);
                }
                Err(error) => why.push(format!("{NO_MEMORY}: {} can't be used ({error})", tree.display())),
            }
        }
        let v1 = root.join("memory");
        if v1.join("memory.limit_in_bytes").exists() || v1.join("memory.use_hierarchy").exists() {
            let memory = parent(&v1);
            match make_writable(&memory) {
                Ok(()) => {
                    let cpu = parent(&root.join("cpu"));
                    let cpu = (root.join("cpu").exists() && make_writable(&cpu).is_ok()).then_some(cpu);
                    if cpu.is_none() {
                        why.push(NO_CPU.to_owned());
                    }
                    let found = Self {
                        version: Version::V1,
                        memory,
                        cpu,
                    };
                    return (Some(found), why);
                }
                Err(error) => why.push(format!("{NO_MEMORY}: {} can't be written ({error})", v1.display())),
            }
        }
        if why.is_empty() {
            why.push(format!("{NO_MEMORY}: no memory controller under {}", root.display()));
        }
        why.push(NO_CPU.to_owned());
        (None, why)
    }

    /// The group of a job, which is yet to be made.
    pub(super) fn job(&self, name: &str, cpu: Option<Cpu>) -> Cgroup {
        Cgroup {
            version: self.version,
            memory: self.memory.join(name),
            cpu: self
                .cpu
                .as_ref()
                .filter(|_| cpu.is_some())
                .map(|parent| parent.join(name)),
        }
    }

    /// The group of a job of which only the name is known.
    pub(super) fn whole_job(&self, name: &str) -> Cgroup {
        self.job(name, Some(Cpu(0)))
    }

    /// Names of the groups that exist.
    pub(super) fn jobs(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.memory).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Removes the parents, if no job is left.
    pub(super) fn remove(&self) {
        for parent in [Some(&self.memory), self.cpu.as_ref()].into_iter().flatten() {
            let _ = fs::remove_dir(parent);
        }
    }
}

const NO_MEMORY: &str = "memory limits aren't enforced and out-of-memory isn't told apart";
const NO_CPU: &str = "CPU limits aren't enforced: no writable cpu cgroup";

/// Makes the parent and hands the controllers down to it; returns whether CPU is among them.
fn enable(tree: &Path, name: &str, cpu: bool) -> io::Result<bool> {
    let top = tree.join("clawbernetes");
    let parent = top.join(name);
    fs::create_dir_all(&parent)?;
    let mut has_cpu = cpu;
    for folder in [tree, &top, &parent] {
        let control = folder.join("cgroup.subtree_control");
        // Only counted, so that nothing is lost without it.
        let _ = write(&control, "+io");
        write(&control, "+memory")?;
        has_cpu = has_cpu && write(&control, "+cpu").is_ok();
    }
    Ok(has_cpu)
}

fn make_writable(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK)?;
    Ok(())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    // Never creates: a missing file is a missing feature.
    io::Write::write_all(&mut OpenOptions::new().write(true).open(path)?, text.as_bytes())
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind a word at the start of a line.
fn counter(path: &Path, word: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == word).then(|| value.trim().parse().ok())?
    })
}

impl Cgroup {
    /// Makes it, with its limits.
    pub(super) fn create(&self, memory: Option<Size>, cpu: Option<Cpu>) -> io::Result<()> {
        make(&self.memory)?;
        if let Some(limit) = memory {
            self.set_memory(Some(limit))?;
        }
        if let (Some(cpu), Some(folder)) = (cpu, &self.cpu) {
            if *folder != self.memory {
                make(folder)?;
            }
            let quota_us = u64::from(cpu.millis().max(10)) * PERIOD_US / 1000;
            match self.version {
                Version::V1 => write(&folder.join("cpu.cfs_quota_us"), &quota_us.to_string())?,
                Version::V2 => write(&folder.join("cpu.max"), &format!("{quota_us} {PERIOD_US}"))?,
            }
        }
        Ok(())
    }

    /// Changes the memory limit. `None`: none.
    pub(super) fn set_memory(&self, limit: Option<Size>) -> io::Result<()> {
        let file = |name: &str| self.memory.join(name);
        match self.version {
            Version::V1 => {
                let value = limit.map_or("-1".to_owned(), |limit| limit.bytes().to_string());
                let (plain, swap) = (file("memory.limit_in_bytes"), file("memory.memsw.limit_in_bytes"));
                if !swap.exists() {
                    return write(&plain, &value);
                }
                // Memory and swap together may never be less than memory alone: the order depends on the direction.
                if write(&plain, &value).is_ok() {
                    write(&swap, &value)
                } else {
                    write(&swap, &value)?;
                    write(&plain, &value)
                }
            }
            Version::V2 => {
                let value = limit.map_or("max".to_owned(), |limit| limit.bytes().to_string());
                write(&file("memory.max"), &value)?;
                // One that is killed takes the others with it: half a job helps nobody. Both may be missing.
                let _ = write(&file("memory.swap.max"), if limit.is_some() { "0" } else { "max" });
                let _ = write(&file("memory.oom.group"), "1");
                Ok(())
            }
        }
    }

    /// Files through which a process enters the group by writing `0`.
    pub(super) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let mut doors = Vec::new();
        for folder in self.folders() {
            let file = OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?;
            doors.push(file.into());
        }
        Ok(doors)
    }

    fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        let cpu = self.cpu.as_ref().filter(|cpu| **cpu != self.memory);
        [Some(&self.memory), cpu].into_iter().flatten()
    }

    /// How many of its processes the kernel killed because memory ran out.
    pub(super) fn oom_kills(&self) -> u64 {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        counter(&self.memory.join(file), "oom_kill").unwrap_or(0)
    }

    /// Memory now, in bytes.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        number(&self.memory.join(match self.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        }))
    }

    /// Most memory so far, in bytes.
    pub(super) fn memory_peak_bytes(&self) -> Option<u64> {
        number(&self.memory.join(match self.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        }))
    }

    /// CPU time so far, in milliseconds. `None`: this tree doesn't count it.
    pub(super) fn cpu_ms(&self) -> Option<u64> {
        match self.version {
            Version::V1 => None,
            Version::V2 => counter(&self.memory.join("cpu.stat"), "usage_usec").map(|us| us / 1000),
        }
    }

    /// Read from and written to disks so far. `None`: this tree doesn't count it.
    pub(super) fn io_bytes(&self) -> Option<u64> {
        match self.version {
            Version::V1 => None,
            Version::V2 => io_stat(&fs::read_to_string(self.memory.join("io.stat")).ok()?),
        }
    }

    /// Its processes.
    pub(super) fn processes(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.memory.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills all of it and gives handles on what hasn't died yet, each readable once it has. Empty: nothing is left.
    pub(super) fn kill(&self) -> Vec<OwnedFd> {
        if self.version == Version::V2 {
            // Where it is missing (before Linux 5.14) the loop below does it.
            let _ = write(&self.memory.join("cgroup.kill"), "1");
        }
        let handles: Vec<(i32, OwnedFd)> = self
            .processes()
            .into_iter()
            .filter_map(|pid| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?)))
            .collect();
        if handles.is_empty() {
            return Vec::new();
        }
        // Whoever is still listed after its handle was made is who the handle stands for, or another of this group.
        let still = self.processes();
        handles
            .into_iter()
            .filter(|(pid, _)| still.contains(pid))
            .map(|(_, handle)| {
                let _ = pidfd_send_signal(&handle, Signal::KILL);
                handle
            })
            .collect()
    }

    /// Removes the empty group.
    pub(super) fn remove(&self) {
        for folder in self.folders() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The bytes of all disks in `8:0 rbytes=1 wbytes=2 rios=…`. A group that has moved nothing has an empty file.
fn io_stat(text: &str) -> Option<u64> {
    let bytes = |word: &str| {
        let number = word.strip_prefix("rbytes=").or_else(|| word.strip_prefix("wbytes="))?;
        number.parse::<u64>().ok()
    };
    Some(text.split_ascii_whitespace().filter_map(bytes).sum())
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::engine::native::sys;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn disk_traffic_of_all_disks_is_added() {
        let text = "8:0 rbytes=100 wbytes=20 rios=3 wios=1 dbytes=7 dios=0\n259:0 rbytes=3 wbytes=0 rios=1 wios=0\n";
        assert_eq!(io_stat(text), Some(123));
        assert_eq!(io_stat(""), Some(0));
    }

    #[test]
    fn version_2_is_taken_where_it_has_the_memory_controller() {
        let root = tree(&[
            ("cgroup.controllers", "cpuset cpu io memory pids\n"),
            ("cgroup.subtree_control", ""),
            ("clawbernetes/cgroup.subtree_control", ""),
            ("clawbernetes/n/cgroup.subtree_control", ""),
        ]);
        let (found, why) = Tree::find(root.path(), "n");
        let tree = found.unwrap();
        assert_eq!((tree.version, why), (Version::V2, Vec::new()));
        let job = tree.job("wl-a.1.0", Some(Cpu(1500)));
        fs::create_dir(&job.memory).unwrap();
        for file in ["memory.max", "memory.swap.max", "memory.oom.group", "cpu.max"] {
            fs::write(job.memory.join(file), "").unwrap();
        }
        job.create(Some(Size::mib(1)), Some(Cpu(1500))).unwrap();
        assert_eq!(read(&job.memory.join("memory.max")), "1048576");
        assert_eq!(read(&job.memory.join("memory.swap.max")), "0");
        assert_eq!(read(&job.memory.join("cpu.max")), "150000 100000");
        fs::write(
            job.memory.join("memory.events"),
            "low 0\noom 3\noom_kill 2\noom_group_kill 1\n",
        )
        .unwrap();
        fs::write(job.memory.join("memory.peak"), "77\n").unwrap();
        fs::write(job.memory.join("cpu.stat"), "usage_usec 12345\nuser_usec 1\n").unwrap();
        assert_eq!(
            (job.oom_kills(), job.memory_peak_bytes(), job.cpu_ms()),
            (2, Some(77), Some(12))
        );
        assert_eq!(tree.jobs(), ["wl-a.1.0"]);
    }

    #[test]
    fn version_1_is_taken_beside_an_empty_version_2() {
        let root = tree(&[
            ("unified/cgroup.controllers", "\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("cpu/cpu.shares", "1024"),
        ]);
        let (found, why) = Tree::find(root.path(), "n");
        let tree = found.unwrap();
        assert_eq!((tree.version, why), (Version::V1, Vec::new()));
        assert_eq!(tree.job("j", None).cpu, None);
        let job = tree.job("j", Some(Cpu(250)));
        for (folder, file) in [
            (&job.memory, "memory.limit_in_bytes"),
            (&job.memory, "memory.memsw.limit_in_bytes"),
            (job.cpu.as_ref().unwrap(), "cpu.cfs_quota_us"),
        ] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(file), "").unwrap();
        }
        job.create(Some(Size(4096)), Some(Cpu(250))).unwrap();
        assert_eq!(read(&job.memory.join("memory.limit_in_bytes")), "4096");
        assert_eq!(read(&job.memory.join("memory.memsw.limit_in_bytes")), "4096");
        assert_eq!(read(&job.cpu.as_ref().unwrap().join("cpu.cfs_quota_us")), "25000");
        fs::write(
            job.memory.join("memory.oom_control"),
            "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        )
        .unwrap();
        assert_eq!(job.oom_kills(), 1);
        let no_limit = "-1";
        job.set_memory(None).unwrap();
        assert!(read(&job.memory.join("memory.limit_in_bytes")).starts_with(no_limit));
    }

    #[test]
    fn where_there_is_nothing_it_says_what_is_not_enforced() {
        let root = tree(&[]);
        let (found, why) = Tree::find(root.path(), "n");
        assert_eq!(found, None);
        assert!(why[0].starts_with(NO_MEMORY) && why[1] == NO_CPU, "{why:?}");
        // Controllers that can't be handed down are as good as none.
        let root = tree(&[("cgroup.controllers", "memory cpu")]);
        let (found, why) = Tree::find(root.path(), "n");
        assert!(found.is_none() && why[0].contains("can't be used"), "{why:?}");
    }

    #[test]
    fn version_2_kills_all_at_once() {
        let parent = PathBuf::from("/sys/fs/cgroup").join("unified");
        let cgroup = Cgroup {
            version: Version::V2,
            memory: parent.join(format!("clawbernetes-test-{}", std::process::id())),
            cpu: None,
        };
        if cgroup.create(None, None).is_err() {
            eprintln!("skipped: no writable cgroup v2 here");
            return;
        }
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & sleep 1001"]);
        sys::enter_before_exec(&mut command, cgroup.doors().unwrap(), None);
        let mut child = command.spawn().unwrap();
        assert!(!cgroup.processes().is_empty());
        while !cgroup.processes().is_empty() {
            for handle in cgroup.kill() {
                rustix::event::poll(
                    &mut [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)],
                    None,
                )
                .unwrap();
            }
        }
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()),
            Some(9)
        );
        assert!(cgroup.cpu_ms().is_some());
        cgroup.remove();
        assert!(!cgroup.memory.exists());
    }
}
