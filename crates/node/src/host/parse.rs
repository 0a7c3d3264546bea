//! What the kernel's text files say. Each function takes the text of one file.

use api::Size;

/// The first CPU's model. `None`: the file doesn't name one (as on many ARM machines).
pub(super) fn cpu_model(cpuinfo: &str) -> Option<String> {
    ["model name", "cpu model", "uarch", "Hardware"].iter().find_map(|key| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            (name.trim() == *key && !value.is_empty()).then_some(value)
        })
    })
}

/// The operating system's name for people.
pub(super) fn os_name(os_release: &str) -> Option<String> {
    let get = |key: &str| {
        os_release.lines().find_map(|line| {
            let value = line.trim().strip_prefix(key)?.strip_prefix('=')?;
            let value = value.trim_matches(['"', '\'']).trim();
            (!value.is_empty()).then(|| value.to_owned())
        })
    };
    get("PRETTY_NAME").or_else(|| get("NAME"))
}

/// Main memory, as the kernel counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub total: Option<Size>,
    /// What programs could still get without swapping.
    pub available: Option<Size>,
}

impl Memory {
    pub(super) fn used(self) -> Option<Size> {
        Some(Size(self.total?.0.saturating_sub(self.available?.0)))
    }
}

pub(super) fn memory(meminfo: &str) -> Memory {
    let get = |key: &str| {
        meminfo.lines().find_map(|line| {
            let kib: u64 = line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024).map(Size)
        })
    };
    Memory {
        total: get("MemTotal:"),
        available: get("MemAvailable:"),
    }
}

/// Time that all CPUs together have spent, in ticks since the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTimes {
    total: u64,
    idle: u64,
}

impl CpuTimes {
    /// The first line of `/proc/stat`. Guest time is part of user time there, and isn't counted twice.
    pub(super) fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .take(8)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        // user, nice, system, idle, iowait, irq, softirq, steal
        let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0);
        Some(Self {
            total: ticks.iter().sum(),
            idle,
        })
    }

    /// Share of time spent busy, 0–100. `None`: no time has passed, or the counters went back.
    pub(super) fn busy_since(self, before: Self) -> Option<f32> {
        let total = self.total.checked_sub(before.total).filter(|total| *total > 0)?;
        // Waiting for disks may be counted backwards by the kernel.
        let idle = self.idle.saturating_sub(before.idle).min(total);
        Some(((total - idle) as f64 * 100.0 / total as f64) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "\
cpu  10132153 290696 3084719 46828483 16683 0 25195 0 175628 0
cpu0 1393280 32966 572056 13343292 6130 0 17875 0 23933 0
intr 1462898 0
btime 1700000000
";

    const MEMINFO: &str = "\
MemTotal:       32594616 kB
MemFree:         1201328 kB
MemAvailable:   21437252 kB
Buffers:          632552 kB
";

    #[test]
    fn cpu_models_are_found_where_they_are() {
        let intel = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+\n";
        assert_eq!(cpu_model(intel).as_deref(), Some("Intel(R) Xeon(R) Platinum 8480+"));
        let arm = "processor\t: 0\nBogoMIPS\t: 2000.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n";
        assert_eq!(cpu_model(arm), None);
        let pi = "processor\t: 0\nHardware\t: BCM2835\n";
        assert_eq!(cpu_model(pi).as_deref(), Some("BCM2835"));
        assert_eq!(
            cpu_model("model name\t:   Two   Spaces \n").as_deref(),
            Some("Two Spaces")
        );
    }

    #[test]
    fn operating_systems_have_names() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nID=debian\n";
        assert_eq!(os_name(debian).as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(os_name("NAME='Void'\n").as_deref(), Some("Void"));
        assert_eq!(os_name("PRETTY_NAME=\"\"\n"), None);
    }

    #[test]
    fn memory_in_use_is_what_nobody_could_get() {
        assert_eq!(memory(MEMINFO).total, Some(Size(32_594_616 << 10)));
        assert_eq!(memory(MEMINFO).used(), Some(Size((32_594_616 - 21_437_252) << 10)));
        assert_eq!(
            memory("MemTotal: 5 kB\n").used(),
            None,
            "old kernels don't say what is available"
        );
        assert_eq!(memory("MemTotal: many kB\n"), Memory::default());
    }

    #[test]
    fn cpu_time_is_read_without_guests() {
        let times = CpuTimes::parse(STAT).expect("times");
        assert_eq!(times.idle, 46_828_483 + 16_683);
        assert_eq!(
            times.total,
            10_132_153 + 290_696 + 3_084_719 + 46_828_483 + 16_683 + 25_195
        );
        assert_eq!(CpuTimes::parse("cpu  1 2\n"), None);
        assert_eq!(CpuTimes::parse("cpu  1 2 x 4\n"), None);
        assert_eq!(CpuTimes::parse("cpu0 1 2 3 4\n"), None);
    }

    #[test]
    fn counters_that_go_back_are_no_load() {
        let at = |total, idle| CpuTimes { total, idle };
        assert_eq!(at(90, 50).busy_since(at(100, 50)), None);
        assert_eq!(at(110, 40).busy_since(at(100, 50)), Some(100.0));
        assert_eq!(at(110, 60).busy_since(at(100, 50)), Some(0.0));
    }
}
