//! What a job used, read after its end.
//!
//! A container's cgroup is gone with the container, and what it counted with it. So each job gets a cgroup of its
//! own above its containers', which counts all that ran below it and stays until the job is forgotten. Possible where
//! Docker makes cgroups itself (not systemd), on this machine, and the agent is root. It is also the way to a job's
//! processes when the daemon doesn't answer.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use api::{
    Size,
    workload::{JobKey, Usage},
};
use rustix::process::{Pid, Signal, kill_process};

/// The cgroups of jobs.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    /// Where the hierarchies are mounted.
    mount: PathBuf,
    /// The cgroup above all jobs', such as `/clawbernetes`.
    root: String,
}

impl Cgroups {
    pub(super) fn new(root: &str) -> Self {
        Self {
            mount: PathBuf::from("/sys/fs/cgroup"),
            root: format!("/{}", root.trim_matches('/')),
        }
    }

    /// The cgroup above a job's containers, as Docker takes it.
    pub(super) fn of(&self, job: &JobKey) -> String {
        format!("{}/{job}", self.root)
    }

    fn read(&self, job: &JobKey, hierarchy: &str, file: &str) -> Option<String> {
        let of = self.of(job);
        let path = self.mount.join(hierarchy).join(of.trim_start_matches('/')).join(file);
        fs::read_to_string(path).ok()
    }

    /// How many of a job's processes the kernel killed for want of memory. `None`: it isn't counted.
    pub(super) fn oom_kills(&self, job: &JobKey) -> Option<u64> {
        let counts = self
            .read(job, "memory", "memory.oom_control")
            .or_else(|| self.read(job, "", "memory.events"))?;
        let count = counts.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        count.trim().parse().ok()
    }

    /// Kills all that runs in a job's cgroup, without the daemon. Returns how many processes were found.
    pub(super) fn kill(&self, job: &JobKey) -> usize {
        let mut pids = BTreeSet::new();
        for hierarchy in ["", "memory", "cpuacct", "pids", "freezer", "systemd"] {
            let mut folders = vec![self.mount.join(hierarchy).join(self.of(job).trim_start_matches('/'))];
            while let Some(folder) = folders.pop() {
                let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
                let below = fs::read_dir(&folder).into_iter().flatten().flatten();
                folders.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
            }
        }
        // A number that stands for nothing in the agent's own namespace of processes reads 0.
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            if let Err(error) = kill_process(pid, Signal::KILL) {
                tracing::debug!(pid = pid.as_raw_nonzero(), %error, "a process of a job can't be killed");
            }
        }
        pids.len()
    }

    /// What was counted for a job. What isn't there wasn't measured.
    pub(super) fn usage(&self, job: &JobKey) -> Usage {
        let read = |hierarchy: &str, file: &str| self.read(job, hierarchy, file);
        let number = |text: String| text.trim().parse::<u64>().ok().filter(|n| *n > 0);
        let peak = read("memory", "memory.max_usage_in_bytes").or_else(|| read("", "memory.peak"));
        let cpu_ms = read("cpuacct", "cpuacct.usage")
            .or_else(|| read("cpu,cpuacct", "cpuacct.usage"))
            .and_then(number)
            .map(|nanoseconds| nanoseconds / 1_000_000)
            .or_else(|| {
                let stat = read("", "cpu.stat")?;
                let microseconds = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
                Some(number(microseconds.to_owned())? / 1000)
            });
        Usage {
            cpu_ms,
            memory_peak_bytes: peak.and_then(number).map(Size),
        }
    }

    /// Removes a job's cgroup, and the one above it with the last.
    pub(super) fn remove(&self, job: &JobKey) {
        let of = self.of(job);
        let hierarchies = fs::read_dir(&self.mount).into_iter().flatten().flatten();
        let tops = hierarchies.map(|entry| entry.path()).chain([self.mount.clone()]);
        for top in tops {
            for cgroup in [&of, &self.root] {
                let path = top.join(cgroup.trim_start_matches('/'));
                // Controllers that share a mount do so by links; only empty cgroups can be removed.
                let _ = fs::remove_dir(Path::new(&path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::WorkloadId;

    use super::*;

    #[test]
    fn both_versions_are_read() {
        let job = JobKey {
            workload: WorkloadId::new("wl-a"),
            attempt: 1,
            rank: 0,
        };
        let dir = tempfile::tempdir().unwrap();
        let cgroups = Cgroups {
            mount: dir.path().to_owned(),
            root: "/claw".to_owned(),
        };
        assert_eq!(cgroups.of(&job), "/claw/wl-a.1.0");
        assert_eq!(cgroups.usage(&job), Usage::default());
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("claw/wl-a.1.0/memory.peak", "4096\n");
        write("claw/wl-a.1.0/cpu.stat", "usage_usec 2500000\nuser_usec 1\n");
        let v2 = Usage {
            cpu_ms: Some(2500),
            memory_peak_bytes: Some(Size(4096)),
        };
        assert_eq!(cgroups.usage(&job), v2);
        assert_eq!(cgroups.oom_kills(&job), None);
        write("claw/wl-a.1.0/memory.events", "oom 2\noom_kill 1\noom_group_kill 0\n");
        assert_eq!(cgroups.oom_kills(&job), Some(1));
        write("memory/claw/wl-a.1.0/memory.max_usage_in_bytes", "8192\n");
        write("cpuacct/claw/wl-a.1.0/cpuacct.usage", "7000000\n");
        let v1 = Usage {
            cpu_ms: Some(7),
            memory_peak_bytes: Some(Size(8192)),
        };
        assert_eq!(cgroups.usage(&job), v1);
        write(
            "memory/claw/wl-a.1.0/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        );
        assert_eq!(cgroups.oom_kills(&job), Some(3));
    }
}
