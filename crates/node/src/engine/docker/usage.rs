//! What a job used, read after its end.
//!
//! A container's cgroup is gone with the container, and what it counted with it. So each job gets a cgroup of its
//! own above its containers', which counts all that ran below it and stays until the job is forgotten. Possible where
//! Docker makes cgroups itself (not systemd), on this machine, and the agent is root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use api::{
    Size,
    workload::{JobKey, Usage},
};

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

    /// What was counted for a job. What isn't there wasn't measured.
    pub(super) fn usage(&self, job: &JobKey) -> Usage {
        let of = self.of(job);
        let read = |hierarchy: &str, file: &str| {
            let path = self.mount.join(hierarchy).join(of.trim_start_matches('/')).join(file);
            fs::read_to_string(path).ok()
        };
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
        write("memory/claw/wl-a.1.0/memory.max_usage_in_bytes", "8192\n");
        write("cpuacct/claw/wl-a.1.0/cpuacct.usage", "7000000\n");
        let v1 = Usage {
            cpu_ms: Some(7),
            memory_peak_bytes: Some(Size(8192)),
        };
        assert_eq!(cgroups.usage(&job), v1);
    }
}
