//! Limits of the control group that the agent runs in, of either version. A limit may stand at any level above.

use std::path::Path;

use api::{Cpu, Size};

use super::read;

/// The control group of this process: where it is in each hierarchy.
pub(super) struct Cgroup<'a> {
    root: &'a Path,
    /// Path in the unified hierarchy (version 2). `None`: there is none.
    unified: Option<String>,
    /// Folder of the controller and path in it (version 1).
    cpu: Option<(String, String)>,
    memory: Option<(String, String)>,
}

impl<'a> Cgroup<'a> {
    /// This process's own, of the machine below a root.
    pub(super) fn own(root: &'a Path) -> Self {
        Self::of(root, &read(root, "proc/self/cgroup").unwrap_or_default())
    }

    /// From the text of `/proc/self/cgroup`.
    fn of(root: &'a Path, text: &str) -> Self {
        let mut group = Self {
            root,
            unified: None,
            cpu: None,
            memory: None,
        };
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            let at = || Some((controllers.to_owned(), path.to_owned()));
            match controllers {
                "" => group.unified = Some(path.to_owned()),
                _ if controllers.split(',').any(|name| name == "cpu") => group.cpu = at(),
                _ if controllers.split(',').any(|name| name == "memory") => group.memory = at(),
                _ => {}
            }
        }
        group
    }

    /// The lowest CPU quota. `None`: there is none.
    pub(super) fn cpu_limit(&self) -> Option<Cpu> {
        let v2 = self.lowest("", self.unified.as_deref(), |folder| {
            cpu_max(&read(self.root, &format!("{folder}/cpu.max"))?)
        });
        let v1 = self.lowest_v1(self.cpu.as_ref(), "cpu", |folder| {
            let get = |file: &str| read(self.root, &format!("{folder}/{file}"));
            cpu_max(&format!(
                "{} {}",
                get("cpu.cfs_quota_us")?.trim(),
                get("cpu.cfs_period_us")?
            ))
        });
        v2.into_iter().chain(v1).map(|(limit, _)| limit).min()
    }

    /// The lowest memory limit. `None`: there is none.
    pub(super) fn memory_limit(&self) -> Option<Size> {
        self.memory_bound().map(|(limit, _)| limit)
    }

    /// Memory in use below the lowest limit, without what the kernel would give up first. `None`: no limit, or it
    /// isn't known.
    pub(super) fn memory_used(&self) -> Option<Size> {
        let (_, folder) = self.memory_bound()?;
        let get = |file: &str| read(self.root, &format!("{folder}/{file}"));
        let used: u64 = get("memory.current")
            .or_else(|| get("memory.usage_in_bytes"))?
            .trim()
            .parse()
            .ok()?;
        let stat = get("memory.stat").unwrap_or_default();
        let field = |key: &str| {
            stat.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
        };
        let reclaimable = field("total_inactive_file")
            .or_else(|| field("inactive_file"))
            .unwrap_or(0);
        Some(Size(used.saturating_sub(reclaimable)))
    }

    fn memory_bound(&self) -> Option<(Size, String)> {
        let v2 = self.lowest("", self.unified.as_deref(), |folder| {
            number(&read(self.root, &format!("{folder}/memory.max"))?)
        });
        let v1 = self.lowest_v1(self.memory.as_ref(), "memory", |folder| {
            number(&read(self.root, &format!("{folder}/memory.limit_in_bytes"))?)
        });
        v2.into_iter().chain(v1).min()
    }

    /// Version 1 mounts a controller under its own name or that of the group of controllers it is mounted with.
    fn lowest_v1<T: Ord>(
        &self,
        at: Option<&(String, String)>,
        controller: &str,
        limit: impl Fn(&str) -> Option<T>,
    ) -> Option<(T, String)> {
        let (mount, path) = at?;
        self.lowest(mount, Some(path), &limit)
            .or_else(|| self.lowest(controller, Some(path), &limit))
    }

    /// The lowest limit on the way from the group up to the top, and the folder that it stands in. In a container the
    /// path may be the host's: then only the top exists, which is the container's own group.
    fn lowest<T: Ord>(
        &self,
        mount: &str,
        path: Option<&str>,
        limit: impl Fn(&str) -> Option<T>,
    ) -> Option<(T, String)> {
        let top = format!("sys/fs/cgroup/{mount}");
        let top = top.trim_end_matches('/');
        Path::new(path?)
            .ancestors()
            .filter_map(|level| {
                let level = level.to_str()?.trim_matches('/');
                let folder = if level.is_empty() {
                    top.to_owned()
                } else {
                    format!("{top}/{level}")
                };
                limit(&folder).map(|limit| (limit, folder))
            })
            .min()
    }
}

/// `50000 100000` as half a core; `max 100000` and `-1 100000` as no limit.
fn cpu_max(text: &str) -> Option<Cpu> {
    let mut parts = text.split_whitespace();
    let quota: u64 = parts.next()?.parse().ok()?;
    let period: u64 = parts.next()?.parse().ok().filter(|period| *period > 0)?;
    // A group can run for less than a thousandth of a core, but not for nothing.
    let millis = (quota.saturating_mul(1000) / period).max(1);
    u32::try_from(millis).ok().map(Cpu)
}

/// A number of bytes; `max` is no limit.
fn number(text: &str) -> Option<Size> {
    text.trim().parse().ok().map(|bytes: u64| Size(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (file, text) in files {
            let path = root.path().join("sys/fs/cgroup").join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        root
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let root = machine(&[
            ("system.slice/cpu.max", "200000 100000\n"),
            ("system.slice/agent.service/cpu.max", "max 100000\n"),
            ("system.slice/memory.max", "4000\n"),
            ("system.slice/memory.current", "1000\n"),
            ("system.slice/agent.service/memory.max", "8000\n"),
            ("system.slice/agent.service/memory.current", "700\n"),
        ]);
        let group = Cgroup::of(root.path(), "0::/system.slice/agent.service\n");
        assert_eq!(group.cpu_limit(), Some(Cpu::cores(2)));
        assert_eq!(group.memory_limit(), Some(Size(4000)));
        assert_eq!(group.memory_used(), Some(Size(1000)), "of the group that is limited");
    }

    #[test]
    fn version_1_is_read_too() {
        let text = "12:cpu,cpuacct:/docker/0a1b\n5:memory:/docker/0a1b\n0::/docker/0a1b\n";
        let root = machine(&[
            ("cpu,cpuacct/cpu.cfs_quota_us", "150000\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("memory/memory.limit_in_bytes", "9000\n"),
            ("memory/memory.usage_in_bytes", "5000\n"),
            ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n"),
        ]);
        let group = Cgroup::of(root.path(), text);
        assert_eq!(group.cpu_limit(), Some(Cpu(1500)));
        assert_eq!(group.memory_limit(), Some(Size(9000)));
        assert_eq!(group.memory_used(), Some(Size(3000)));
    }

    #[test]
    fn no_limit_is_none() {
        let root = machine(&[
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
            ("cpu.max", "max 100000\n"),
            ("memory.max", "max\n"),
        ]);
        let group = Cgroup::of(root.path(), "3:cpu:/\n0::/\nnonsense\n");
        assert_eq!(group.cpu_limit(), None);
        assert_eq!(group.memory_limit(), None);
        assert_eq!(group.memory_used(), None);
        assert_eq!(Cgroup::of(root.path(), "").cpu_limit(), None);
    }
}
