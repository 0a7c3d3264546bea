//! The rest of a machine: CPUs, memory, operating system; from `/proc`, `/sys` and `/etc`.
//!
//! What is told is what workloads can have: CPUs by affinity and quota, memory by the control group's limit where
//! there is one below the machine's own.

mod cgroup;
mod parse;
mod readings;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use api::{
    Cpu, Size,
    node::{Inventory, NodeSample},
};

use self::{cgroup::Cgroup, parse::CpuTimes};
use crate::sample::Reading;

/// Reads this machine, and remembers what it needs to tell the CPU load between two samples.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    last: Mutex<Option<CpuTimes>>,
    /// The same, of readings.
    read: Mutex<Option<CpuTimes>>,
}

impl Default for Host {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Host {
    /// Reads the machine whose `proc`, `sys` and `etc` are below a folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            last: Mutex::new(None),
            read: Mutex::new(None),
        }
    }

    /// The machine without GPUs, links, engines and notes, which others know: these four are empty.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        let uname = rustix::system::uname();
        let group = Cgroup::own(&self.root);
        let cpus = group
            .cpu_limit()
            .map_or(allowed_cpus(), |quota| quota.min(allowed_cpus()));
        let total = self.memory_total();
        let limit = group.memory_limit().filter(|limit| *limit < total);
        Inventory {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            cpu: cpus,
            cpu_model: self.read("proc/cpuinfo").as_deref().and_then(parse::cpu_model),
            memory_total_bytes: limit.unwrap_or(total),
            os: ["etc/os-release", "usr/lib/os-release"]
                .iter()
                .find_map(|file| parse::os_name(&self.read(file)?)),
            kernel: Some(uname.release().to_string_lossy().into_owned()).filter(|release| !release.is_empty()),
            arch: env::consts::ARCH.to_owned(),
            boot_id: self
                .read("proc/sys/kernel/random/boot_id")
                .map(|id| id.trim().to_owned())
                .filter(|id| !id.is_empty()),
            gpus: Vec::new(),
            links: Vec::new(),
            engines: Vec::new(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            notes: Vec::new(),
        }
    }

    /// Memory in use, and the CPU load since the last sample of this `Host`. The GPUs are left empty.
    ///
    /// CPU load is of the whole machine, memory of the control group where that limits it.
    #[must_use]
    pub fn sample(&self) -> NodeSample {
        let cpu_percent = self.busy_since(&self.last);
        NodeSample {
            memory_used_bytes: self.memory_used(),
            cpu_percent,
            gpus: Vec::new(),
        }
    }

    /// All that can be measured of the machine now, beside its GPUs. CPU load is that since the last call.
    ///
    /// File systems that may be far away aren't asked: one that is gone would hold up everything.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        let mut readings = readings::all(&self.root);
        let busy = self.busy_since(&self.read);
        readings.extend(busy.map(|percent| Reading::now("cpu.usage", percent)));
        let used = self.memory_used();
        readings.extend(used.map(|used| Reading::count("memory.usage", used.0)));
        let total = self.memory_total();
        let limit = Cgroup::own(&self.root).memory_limit().filter(|limit| *limit < total);
        readings.push(Reading::count("memory.total", limit.unwrap_or(total).0));
        readings
    }

    /// Share of CPU time spent busy since this was last asked with the same memory.
    fn busy_since(&self, last: &Mutex<Option<CpuTimes>>) -> Option<f32> {
        let times = self.read("proc/stat").as_deref().and_then(CpuTimes::parse);
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = last.zip(times).and_then(|(before, now)| now.busy_since(before));
        *last = times.or(*last);
        busy
    }

    /// Memory in use: of the control group where that limits it.
    fn memory_used(&self) -> Option<Size> {
        let meminfo = self.read("proc/meminfo").as_deref().map(parse::memory);
        let total = meminfo.as_ref().and_then(|memory| memory.total);
        let group = Cgroup::own(&self.root);
        let limited = group
            .memory_limit()
            .is_some_and(|limit| total.is_none_or(|total| limit < total));
        if limited {
            group.memory_used()
        } else {
            meminfo.and_then(|memory| memory.used())
        }
    }

    /// Main memory of the machine.
    fn memory_total(&self) -> Size {
        self.read("proc/meminfo")
            .and_then(|text| parse::memory(&text).total)
            .unwrap_or_else(|| {
                let info = rustix::system::sysinfo();
                Size(info.totalram.saturating_mul(u64::from(info.mem_unit)))
            })
    }

    fn read(&self, file: &str) -> Option<String> {
        read(&self.root, file)
    }
}

/// A file below a root; bytes that aren't UTF-8 (in model names) are replaced.
fn read(root: &Path, file: &str) -> Option<String> {
    let bytes = fs::read(root.join(file)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The CPUs that this process may run on.
fn allowed_cpus() -> Cpu {
    let by_affinity = rustix::thread::sched_getaffinity(None).map(|set| set.count()).ok();
    // More than 1,024 CPUs don't fit the call above.
    let count = by_affinity
        .filter(|count| *count > 0)
        .or_else(|| std::thread::available_parallelism().ok()?.get().try_into().ok())
        .unwrap_or(1);
    Cpu::cores(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    #[test]
    fn this_machine_is_described() {
        let host = Host::default();
        let machine = host.inventory();
        assert!(machine.cpu.millis() > 0);
        assert!(machine.memory_total_bytes > Size::mib(16));
        assert!(!machine.arch.is_empty());
        let sample = host.sample();
        assert_eq!(sample.cpu_percent, None, "nothing to compare with yet");
        assert!(
            sample
                .memory_used_bytes
                .is_none_or(|used| used <= machine.memory_total_bytes)
        );
    }

    #[test]
    fn a_container_is_described_by_its_limits() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        write(
            root,
            "proc/meminfo",
            "MemTotal:       65536000 kB\nMemAvailable:   32768000 kB\n",
        );
        write(root, "proc/self/cgroup", "0::/\n");
        write(root, "sys/fs/cgroup/memory.max", "1073741824\n");
        write(root, "sys/fs/cgroup/memory.current", "500000000\n");
        write(root, "sys/fs/cgroup/memory.stat", "anon 100\ninactive_file 100000000\n");
        write(root, "sys/fs/cgroup/cpu.max", "50000 100000\n");
        let host = Host::at(root);
        let machine = host.inventory();
        assert_eq!(machine.memory_total_bytes, Size::gib(1));
        assert_eq!(machine.cpu, Cpu(500));
        assert_eq!(machine.boot_id, None);
        assert_eq!(machine.os, None);
        assert_eq!(host.sample().memory_used_bytes, Some(Size(400_000_000)));
        // Without the limit it is the machine that counts.
        write(root, "sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(host.inventory().memory_total_bytes, Size(65_536_000 << 10));
        assert_eq!(host.sample().memory_used_bytes, Some(Size(32_768_000 << 10)));
    }

    #[test]
    fn load_is_measured_between_two_samples() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        let host = Host::at(root);
        write(root, "proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\n");
        assert_eq!(host.sample().cpu_percent, None);
        write(root, "proc/stat", "cpu  150 0 125 825 0 0 0 0 0 0\n");
        assert_eq!(host.sample().cpu_percent, Some(75.0));
        assert_eq!(host.sample().cpu_percent, None, "no time has passed");
    }
}
