//! Lines of the kernel's log that mean something.
//!
//! - [`parse`](Parser): what a line means
//! - [`log`]: `/dev/kmsg`, record by record
//! - [`queue`]: facts on their way to the gateway, bounded; the kernel's own ring is what outlives the agent

pub(crate) mod log;
pub(crate) mod queue;

use std::collections::BTreeMap;

use api::wire::{AmdTrouble, FactKind};

use crate::gpu::pci;

/// Reads lines in order. Only a kill for want of memory takes two lines to understand.
#[derive(Debug, Default)]
pub struct Parser {
    /// Control groups whose limit was reached, by the process that the kernel chose.
    chosen: BTreeMap<u32, String>,
}

impl Parser {
    /// What a line means. `None`: nothing that matters here.
    pub fn parse(&mut self, line: &str) -> Option<FactKind> {
        if let Some(rest) = line.strip_prefix("oom-kill:") {
            self.choose(rest);
            return None;
        }
        self.oom_kill(line)
            .or_else(|| nvidia(line))
            .or_else(|| amd(line))
            .or_else(|| network(line))
            .or_else(|| disk(line))
            .or_else(|| hardware(line))
            .or_else(|| hung(line))
    }

    /// `constraint=CONSTRAINT_MEMCG,…,oom_memcg=/a,task_memcg=/a/b,task=python,pid=12,uid=0`.
    fn choose(&mut self, rest: &str) {
        let field = |name: &str| {
            rest.split(',')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        // A line whose other half never came isn't kept for ever.
        if self.chosen.len() > 16 {
            self.chosen.clear();
        }
        if let Some(pid) = field("pid").and_then(|pid| pid.parse().ok())
            && field("constraint") == Some("CONSTRAINT_MEMCG")
            && let Some(group) = field("oom_memcg")
        {
            self.chosen.insert(pid, group.to_owned());
        }
    }

    /// `Memory cgroup out of memory: Killed process 12 (python) total-vm:…`, or `Out of memory: …`.
    fn oom_kill(&mut self, line: &str) -> Option<FactKind> {
        let (why, rest) = line.split_once("illed process ")?;
        if !why.to_ascii_lowercase().contains("out of memory") {
            return None;
        }
        let (pid, rest) = rest.split_once(" (")?;
        let pid = pid.parse().ok()?;
        // A name may hold brackets itself.
        let end = rest
            .find(") ")
            .or_else(|| rest.find("),"))
            .or_else(|| rest.rfind(')'))?;
        Some(FactKind::OomKill {
            process: rest[..end].to_owned(),
            pid,
            cgroup: self.chosen.remove(&pid),
            job: None,
        })
    }
}

/// `0000:3b:00` or `PCI:0000:3b:00.0` as one address.
fn address(text: &str) -> Option<String> {
    let text = text.strip_prefix("PCI:").unwrap_or(text);
    pci::normalise(text).or_else(|| pci::normalise(&format!("{text}.0")))
}

/// A number at a text's beginning.
fn leading(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

fn nvidia(line: &str) -> Option<FactKind> {
    if let Some((_, rest)) = line.split_once("SXid (") {
        let (place, rest) = rest.split_once("): ")?;
        return Some(FactKind::NvSwitch {
            sxid: leading(rest)?,
            pci: address(place)?,
            fatal: rest.contains("Fatal") && !rest.contains("Non-fatal"),
        });
    }
    let (_, rest) = line.split_once("NVRM: Xid (")?;
    let (place, rest) = rest.split_once("): ")?;
    let pid = rest.split(',').find_map(|part| part.trim().strip_prefix("pid="));
    Some(FactKind::Xid {
        xid: leading(rest)?,
        pci: address(place)?,
        gpu: None,
        uuid: None,
        pid: pid.and_then(leading),
    })
}

fn amd(line: &str) -> Option<FactKind> {
    let (place, rest) = line.strip_prefix("amdgpu ")?.split_once(": ")?;
    let pci = address(place)?;
    // First match wins: a reset that failed is more than a reset.
    let table = [
        ("device lost from bus", AmdTrouble::Lost),
        ("failed to reset", AmdTrouble::Lost),
        (") failed", AmdTrouble::Lost),
        ("GPU reset begin", AmdTrouble::Reset),
        ("uncorrectable hardware errors detected", AmdTrouble::Uncorrectable),
        ("page fault", AmdTrouble::PageFault),
        ("timeout", AmdTrouble::Timeout),
    ];
    let fits = |words: &str| match words {
        ") failed" => rest.contains("GPU reset(") && rest.contains(words),
        "timeout" => rest.contains("ring ") && rest.contains(words),
        _ => rest.contains(words),
    };
    let (_, trouble) = table.into_iter().find(|(words, _)| fits(words))?;
    Some(FactKind::AmdGpu {
        pci,
        gpu: None,
        uuid: None,
        trouble,
    })
}

fn network(line: &str) -> Option<FactKind> {
    if let Some(rest) = line.strip_prefix("NETDEV WATCHDOG: ") {
        let interface = rest.split([' ', ':']).next()?.to_owned();
        return Some(FactKind::NicError { interface });
    }
    if let Some(rest) = line.strip_prefix("mlx5_core ") {
        let bad = ["health compromised", "Fatal error", "assert_var", "Internal error"];
        if bad.iter().any(|words| rest.contains(words)) {
            let interface = rest.split(": ").next()?.split([' ', ':']).next_back()?;
            let interface = rest
                .split(": ")
                .next()
                .filter(|place| !place.contains(' '))
                .unwrap_or(interface);
            return Some(FactKind::NicError {
                interface: interface.to_owned(),
            });
        }
    }
    let lower = line.to_ascii_lowercase();
    let at = lower
        .find("link is ")
        .or_else(|| lower.find("link up"))
        .or_else(|| lower.find("link down"))?;
    let said = &lower[at..];
    // `mlx5_core 0000:3b:00.0 eth0: Link up`, `igb 0000:01:00.0 eth0: igb: eth0 NIC Link is Up`.
    let before = line[..at].trim_end().trim_end_matches(" NIC").trim_end_matches("NIC");
    let (place, rest) = before
        .split_once(": ")
        .or_else(|| Some((before.strip_suffix(':')?, "")))?;
    let interface = if rest.is_empty() { place } else { rest }.rsplit(' ').next()?;
    let named = !interface.is_empty() && !interface.contains(':') && !place.starts_with("ata");
    if !named || rest.split(' ').count() > 4 {
        return None;
    }
    let interface = interface.to_owned();
    if said.starts_with("link is up") || said.starts_with("link up") {
        Some(FactKind::LinkUp { interface })
    } else if said.starts_with("link is down") || said.starts_with("link down") {
        Some(FactKind::LinkDown { interface })
    } else {
        None
    }
}

fn disk(line: &str) -> Option<FactKind> {
    let named = |rest: &str| {
        rest.split([',', ' ', ')', ':'])
            .next()
            .filter(|d| !d.is_empty())
            .map(str::to_owned)
    };
    for words in [
        "EXT4-fs error (device ",
        "BTRFS error (device ",
        "BTRFS critical (device ",
    ] {
        if let Some((_, rest)) = line.split_once(words) {
            let device = named(rest)?;
            return Some(FactKind::FilesystemError { device });
        }
    }
    let mounted = [
        ("EXT4-fs (", "Remounting filesystem read-only"),
        ("XFS (", "Corruption"),
        ("XFS (", "orruption detected"),
        ("XFS (", "Metadata I/O error"),
        ("XFS (", "Filesystem has been shut down"),
    ];
    for (begins, words) in mounted {
        if let Some(rest) = line.strip_prefix(begins)
            && rest.contains(words)
        {
            let device = named(rest)?;
            return Some(FactKind::FilesystemError { device });
        }
    }
    for words in ["I/O error, dev ", "medium error, dev ", "Buffer I/O error on dev "] {
        if let Some((_, rest)) = line.split_once(words) {
            let device = named(rest)?;
            return Some(FactKind::DiskError { device });
        }
    }
    let rest = line.strip_prefix("nvme ")?;
    let (device, rest) = rest.split_once(": ")?;
    let bad = (rest.starts_with("I/O ") && rest.contains("timeout")) || rest.starts_with("controller is down");
    bad.then(|| FactKind::DiskError {
        device: device.to_owned(),
    })
}

fn hardware(line: &str) -> Option<FactKind> {
    if let Some((port, rest)) = line.split_once(": AER: ") {
        let (what, rest) = rest.split_once("error received")?;
        let named = rest.trim_start_matches(':').split_whitespace().next();
        let port = port.rsplit(' ').next()?;
        return Some(FactKind::PcieError {
            pci: named.and_then(address).or_else(|| address(port))?,
            corrected: what.contains("Corrected") || what.contains("Correctable"),
        });
    }
    if line.starts_with("mce: [Hardware Error]: ") {
        let uncorrected = line.contains("Machine Check: ") || line.contains("Machine Check Exception");
        let logged = line.contains("Machine check events logged");
        return (uncorrected || logged).then_some(FactKind::Mce {
            corrected: !uncorrected,
        });
    }
    if line.starts_with("EDAC ") && line.contains(" error on ") {
        let corrected = line.contains(" CE ");
        return (corrected || line.contains(" UE ")).then_some(FactKind::Mce { corrected });
    }
    if let Some((_, severity)) = line.split_once("[Hardware Error]: event severity: ") {
        return Some(FactKind::Mce {
            corrected: severity.starts_with("corrected"),
        });
    }
    (line.starts_with("CPU") && line.contains("temperature above threshold"))
        .then_some(FactKind::CpuThrottled)
        .or_else(|| {
            line.starts_with("mce: CPU")
                .then(|| line.contains("temperature above threshold"))?
                .then_some(FactKind::CpuThrottled)
        })
}

/// `INFO: task kworker/u8:1:1234 blocked for more than 120 seconds.`
fn hung(line: &str) -> Option<FactKind> {
    let rest = line.strip_prefix("INFO: task ")?;
    let (task, _) = rest.split_once(" blocked for more than ")?;
    let (process, pid) = task.rsplit_once(':')?;
    Some(FactKind::HungTask {
        process: process.to_owned(),
        pid: pid.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Option<String> {
        let fact = Parser::default().parse(line)?;
        Some(serde_json::to_string(&fact).unwrap())
    }

    #[test]
    fn gpus() {
        for (line, wanted) in [
            (
                "NVRM: Xid (PCI:0000:3b:00): 79, pid=2741, name=python3, GPU has fallen off the bus.",
                r#"{"kind":"xid","xid":79,"pci":"0000:3b:00.0","pid":2741}"#,
            ),
            (
                "NVRM: Xid (PCI:0000:c1:00): 94, pid='<unknown>', name=<unknown>, Contained: CE User Channel (0x9). RST: No, D-RST: No",
                r#"{"kind":"xid","xid":94,"pci":"0000:c1:00.0"}"#,
            ),
            (
                "NVRM: Xid (0000:03:00): 31, Ch 00000010, engmask 00000101, intr 10000000",
                r#"{"kind":"xid","xid":31,"pci":"0000:03:00.0"}"#,
            ),
            (
                "NVRM: Xid (PCI:0000:1b:00.0): 63, Row Remapper: New row (0x1, 0x2) marked for remapping, reset gpu to activate.",
                r#"{"kind":"xid","xid":63,"pci":"0000:1b:00.0"}"#,
            ),
            (
                "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 22013, Non-fatal, Link 60 DL Minion Link State Interrupt",
                r#"{"kind":"nvSwitch","sxid":22013,"pci":"0000:c1:00.0","fatal":false}"#,
            ),
            (
                "amdgpu 0000:c1:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=5, emitted seq=7",
                r#"{"kind":"amdGpu","pci":"0000:c1:00.0","trouble":"timeout"}"#,
            ),
            (
                "amdgpu 0000:c1:00.0: amdgpu: GPU reset begin!",
                r#"{"kind":"amdGpu","pci":"0000:c1:00.0","trouble":"reset"}"#,
            ),
            (
                "amdgpu 0000:c1:00.0: amdgpu: GPU reset(2) failed",
                r#"{"kind":"amdGpu","pci":"0000:c1:00.0","trouble":"lost"}"#,
            ),
            (
                "amdgpu 0000:63:00.0: amdgpu: 1 uncorrectable hardware errors detected in UMC block",
                r#"{"kind":"amdGpu","pci":"0000:63:00.0","trouble":"uncorrectable"}"#,
            ),
        ] {
            assert_eq!(one(line).as_deref(), Some(wanted), "{line}");
        }
    }

    #[test]
    fn the_rest_of_the_machine() {
        for (line, wanted) in [
            (
                "mlx5_core 0000:5e:00.0 ens1f0np0: Link down",
                r#"{"kind":"linkDown","interface":"ens1f0np0"}"#,
            ),
            (
                "igb 0000:01:00.0 eth0: igb: eth0 NIC Link is Up 1000 Mbps Full Duplex, Flow Control: RX/TX",
                r#"{"kind":"linkUp","interface":"eth0"}"#,
            ),
            (
                "e1000e: eth1 NIC Link is Down",
                r#"{"kind":"linkDown","interface":"eth1"}"#,
            ),
            (
                "NETDEV WATCHDOG: eth0 (mlx5_core): transmit queue 3 timed out",
                r#"{"kind":"nicError","interface":"eth0"}"#,
            ),
            (
                "mlx5_core 0000:5e:00.0: poll_health:739:(pid 0): device's health compromised - reached miss count",
                r#"{"kind":"nicError","interface":"0000:5e:00.0"}"#,
            ),
            (
                "blk_update_request: I/O error, dev sda, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0",
                r#"{"kind":"diskError","device":"sda"}"#,
            ),
            (
                "critical medium error, dev nvme1n1, sector 7 op 0x0:(READ)",
                r#"{"kind":"diskError","device":"nvme1n1"}"#,
            ),
            (
                "Buffer I/O error on dev dm-0, logical block 0, async page read",
                r#"{"kind":"diskError","device":"dm-0"}"#,
            ),
            (
                "nvme nvme0: I/O 128 QID 2 timeout, aborting",
                r#"{"kind":"diskError","device":"nvme0"}"#,
            ),
            (
                "nvme nvme0: controller is down; will reset: CSTS=0xffffffff",
                r#"{"kind":"diskError","device":"nvme0"}"#,
            ),
            (
                "EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm ls: reading directory lblock 0",
                r#"{"kind":"filesystemError","device":"sda1"}"#,
            ),
            (
                "EXT4-fs (sda1): Remounting filesystem read-only",
                r#"{"kind":"filesystemError","device":"sda1"}"#,
            ),
            (
                "XFS (dm-3): Corruption of in-memory data detected.  Shutting down filesystem",
                r#"{"kind":"filesystemError","device":"dm-3"}"#,
            ),
            (
                "mce: [Hardware Error]: Machine check events logged",
                r#"{"kind":"mce","corrected":true}"#,
            ),
            (
                "mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 5: be00000000800400",
                r#"{"kind":"mce","corrected":false}"#,
            ),
            (
                "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#1_Chan#0_DIMM#0",
                r#"{"kind":"mce","corrected":true}"#,
            ),
            (
                "{1}[Hardware Error]: event severity: fatal",
                r#"{"kind":"mce","corrected":false}"#,
            ),
            (
                "pcieport 0000:00:01.1: AER: Corrected error received: 0000:01:00.0",
                r#"{"kind":"pcieError","pci":"0000:01:00.0","corrected":true}"#,
            ),
            (
                "pcieport 0000:20:03.1: AER: Multiple Uncorrected (Fatal) error received: id=2018",
                r#"{"kind":"pcieError","pci":"0000:20:03.1","corrected":false}"#,
            ),
            (
                "CPU11: Core temperature above threshold, cpu clock throttled (total events = 1)",
                r#"{"kind":"cpuThrottled"}"#,
            ),
            (
                "INFO: task kworker/u8:1:1234 blocked for more than 120 seconds.",
                r#"{"kind":"hungTask","process":"kworker/u8:1","pid":1234}"#,
            ),
        ] {
            assert_eq!(one(line).as_deref(), Some(wanted), "{line}");
        }
    }

    #[test]
    fn most_lines_mean_nothing() {
        for line in [
            "",
            "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05",
            "NVRM: Xid (PCI:zzz): 79",
            "NVRM: Xid (PCI:0000:3b:00): , nothing",
            "ata1: SATA link down (SStatus 0 SControl 300)",
            "IPv6: ADDRCONF(NETDEV_UP): eth0: link is not ready",
            "amdgpu 0000:c1:00.0: amdgpu: SMU is initialized successfully!",
            "EXT4-fs (vda): mounted filesystem with ordered data mode",
            "mce: [Hardware Error]: TSC 0 ADDR 1",
            "memory: usage 32768kB, limit 32768kB, failcnt 0",
            "Killed process",
            "INFO: task x blocked",
        ] {
            assert_eq!(one(line), None, "{line}");
        }
    }

    #[test]
    fn a_kill_names_the_group_whose_limit_was_reached() {
        let mut parser = Parser::default();
        for line in [
            "python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/clawbernetes/wl-a.1.0,task_memcg=/clawbernetes/wl-a.1.0,task=python3,pid=4242,uid=0",
        ] {
            assert_eq!(parser.parse(line), None);
        }
        let kill = |process: &str, pid, cgroup: Option<&str>| {
            Some(FactKind::OomKill {
                process: process.to_owned(),
                pid,
                cgroup: cgroup.map(str::to_owned),
                job: None,
            })
        };
        let line = "Memory cgroup out of memory: Killed process 4242 (python3) total-vm:33168kB, anon-rss:32000kB, file-rss:0kB";
        assert_eq!(
            parser.parse(line),
            kill("python3", 4242, Some("/clawbernetes/wl-a.1.0"))
        );
        assert_eq!(parser.parse(line), kill("python3", 4242, None));
        let global = "Out of memory: Killed process 7 ((sd-pam)) total-vm:1kB";
        assert_eq!(parser.parse(global), kill("(sd-pam)", 7, None));
        let old = "Memory cgroup out of memory: Kill process 8 (x) score 9 or sacrifice child";
        assert_eq!(parser.parse(old), None, "that is said before the kill");
    }
}
