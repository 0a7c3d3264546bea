//! Processes from outside: CPU time and memory by `/proc`.

use std::{fs, time::Duration};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU time so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// Of the process itself.
    pub own: Duration,
    /// Of its children that it has waited for.
    pub children: Duration,
}

impl Cpu {
    /// Since an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            own: self.own.saturating_sub(earlier.own),
            children: self.children.saturating_sub(earlier.children),
        }
    }
}

/// CPU time of a process so far.
pub fn cpu(pid: u32) -> anyhow::Result<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The name may hold spaces; what follows its closing bracket doesn't. Field 14 is the 12th of the rest.
    let rest = stat.rsplit_once(')').context("not a stat file")?.1;
    let field = |n: usize| {
        rest.split_whitespace()
            .nth(n - 3)
            .and_then(|v| v.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let ticks = |n: u64| Duration::from_secs_f64(n as f64 / rustix::param::clock_ticks_per_second() as f64);
    Ok(Cpu {
        own: ticks(field(14) + field(15)),
        children: ticks(field(16) + field(17)),
    })
}

/// Resident memory of a process, and the most of it so far, in MB (10^6 bytes).
pub fn memory(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let of = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
        let kib: f64 = line
            .split_whitespace()
            .next()
            .and_then(|v| v.parse().ok())
            .unwrap_or(0.0);
        kib * 1024.0 / 1e6
    };
    Ok((of("VmRSS:"), of("VmHWM:")))
}

/// Lets this process, and those that it starts, hold as many files and sockets as the system allows.
pub fn allow_many_files() -> anyhow::Result<()> {
    let now = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: now.maximum,
            maximum: now.maximum,
        },
    )
    .context("the limit of open files can't be raised")
}

/// The machine in a line.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown CPU", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} cores ({model}), Linux {}, load average {}",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").trim()
    )
}
