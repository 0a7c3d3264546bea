//! Nodes with a fault, and nodes that only look like it.

use diagnosis::Severity::{Critical, Info, Warning};
use diagnosis::{AmdTrouble, Kernel, Severity, diagnose_node, metric, xid};

use crate::scenario::{Scenario, assert_all};
use crate::world::{GIB, HOUR, MINUTE, NOW, Random, World};

/// Nodes at uneven work that are looked at; of 2,000 none was taken for faulty when the rules were made.
const SEEDS: u64 = 12;

fn fault(name: &'static str, world: World, expected: &[(&'static str, Severity)]) -> Scenario {
    with_also(name, world, expected, &[])
}

fn with_also(
    name: &'static str,
    world: World,
    expected: &[(&'static str, Severity)],
    also: &'static [&'static str],
) -> Scenario {
    let findings = diagnose_node(&world.facts(), false).findings;
    Scenario {
        name,
        findings,
        expected: expected.to_vec(),
        also,
    }
}

fn healthy(name: &'static str, world: World) -> Scenario {
    fault(name, world, &[])
}

/// Clock event reasons that are up in part of the hour.
fn from(minute: f64, bits: f64) -> impl Fn(f64) -> f64 {
    move |m| if m >= minute { bits } else { 4.0 }
}

fn thermal() -> Vec<Scenario> {
    vec![
        with_also(
            "hardware thermal slow-down for half an hour",
            World::busy(1)
                .set(metric::GPU_THROTTLE, Some(2), from(30.0, 0x48 as f64))
                .set(metric::GPU_TEMPERATURE, Some(2), |m| {
                    if m > 28.0 { 86.0 } else { 70.0 + m / 2.0 }
                })
                .set(
                    metric::GPU_CLOCK_SM,
                    Some(2),
                    |m| if m >= 30.0 { 900.0 } else { 1750.0 },
                ),
            &[("gpu-thermal-throttle", Critical)],
            &["gpu-hotter-than-peers"],
        ),
        fault(
            "hardware thermal slow-down, once",
            World::busy(2).set(metric::GPU_THROTTLE, Some(0), |m| if m == 20.0 { 64.0 } else { 4.0 }),
            &[("gpu-thermal-throttle", Warning)],
        ),
        fault(
            "driver keeps the GPU from getting too hot",
            World::busy(3).set(metric::GPU_THROTTLE, Some(1), from(20.0, 0x20 as f64)),
            &[("gpu-thermal-throttle", Warning)],
        ),
        fault(
            "power brake",
            World::busy(4).set_all(metric::GPU_THROTTLE, from(40.0, 0x88 as f64)),
            &[("gpu-power-brake", Critical)],
        ),
        fault(
            "hardware slow-down without a reason",
            World::busy(5).set(metric::GPU_THROTTLE, Some(6), from(10.0, 0x8 as f64)),
            &[("gpu-hw-slowdown", Critical)],
        ),
        fault(
            "close to its slow-down temperature",
            World::busy(6).set(metric::GPU_TEMPERATURE, Some(4), |_| 85.0),
            &[("gpu-temperature-high", Warning), ("gpu-hotter-than-peers", Warning)],
        ),
        fault(
            "fan failed",
            World::busy(7)
                .set_all(metric::GPU_FAN, |_| 60.0)
                .set(metric::GPU_FAN, Some(5), |m| if m > 40.0 { 0.0 } else { 60.0 })
                .set(metric::GPU_TEMPERATURE, Some(5), |m| {
                    if m > 40.0 { 66.0 + (m - 40.0) * 0.7 } else { 66.0 }
                }),
            &[("gpu-fan-failed", Critical)],
        ),
        fault(
            "one GPU much hotter than its neighbours",
            World::busy(8).set(metric::GPU_TEMPERATURE, Some(7), |_| 80.0),
            &[("gpu-hotter-than-peers", Warning)],
        ),
        fault(
            "hotter and hotter",
            World::busy(10).set(metric::GPU_TEMPERATURE, Some(2), |m| 66.0 + m * 0.28),
            &[("gpu-temperature-rising", Warning)],
        ),
        fault(
            "clock stuck low, nothing says why",
            World::busy(9)
                .set_all(metric::GPU_THROTTLE, |_| 0.0)
                .set(metric::GPU_CLOCK_SM, Some(3), |_| 600.0),
            &[("gpu-clock-low", Warning)],
        ),
    ]
}

fn memory() -> Vec<Scenario> {
    vec![
        fault(
            "memory leak, full within the hour",
            World::busy(20).set(metric::MEMORY_USAGE, None, |m| (700.0 + 4.5 * m) * GIB),
            &[("memory-exhaustion", Critical)],
        ),
        fault(
            "memory leak, full in hours",
            World::busy(21).set(metric::MEMORY_USAGE, None, |m| (600.0 + 1.4 * m) * GIB),
            &[("memory-exhaustion", Warning)],
        ),
        fault(
            "swap storm",
            World::busy(22)
                .set(metric::SWAP_IN, None, |m| if m > 20.0 { 2e8 } else { 0.0 })
                .set(metric::SWAP_OUT, None, |m| if m > 20.0 { 2e8 } else { 0.0 })
                .set(metric::PRESSURE_MEMORY, None, |m| if m > 20.0 { 60.0 } else { 0.0 })
                .set(
                    metric::PRESSURE_MEMORY_FULL,
                    None,
                    |m| if m > 20.0 { 55.0 } else { 0.0 },
                ),
            &[("swap-storm", Critical), ("memory-pressure", Critical)],
        ),
        fault(
            "memory pressure",
            World::busy(23).set(metric::PRESSURE_MEMORY, None, |m| if m > 30.0 { 35.0 } else { 1.0 }),
            &[("memory-pressure", Warning)],
        ),
        fault(
            "the kernel killed a process of the machine",
            World::busy(24).kernel(
                50.0,
                Kernel::OomKill {
                    process: Some("python".into()),
                    workload: None,
                    limited: false,
                },
            ),
            &[("oom-kill", Critical)],
        ),
        fault(
            "double-bit ECC error by the counter",
            World::busy(25).set(
                metric::GPU_ECC_UNCORRECTED,
                Some(1),
                |m| if m > 33.0 { 1.0 } else { 0.0 },
            ),
            &[("gpu-ecc-uncorrected", Critical)],
        ),
        fault(
            "flood of corrected errors",
            World::busy(26).set(metric::GPU_ECC_CORRECTED, Some(1), |m| 12.0 + 40.0 * m),
            &[("gpu-ecc-corrected", Warning)],
        ),
        fault(
            "row remapping pending",
            World::busy(27).set(metric::GPU_REMAP_PENDING, Some(0), |m| if m > 10.0 { 1.0 } else { 0.0 }),
            &[("gpu-remap-pending", Warning)],
        ),
        fault(
            "row remapping failed",
            World::busy(28).set(metric::GPU_REMAP_FAILED, Some(0), |m| if m > 10.0 { 1.0 } else { 0.0 }),
            &[("gpu-remap-failed", Critical)],
        ),
    ]
}

fn errors() -> Vec<Scenario> {
    let nic = |text: &str| Kernel::NetworkError {
        device: "eth0".into(),
        text: text.into(),
    };
    let disk = || Kernel::DiskError {
        device: "nvme0n1".into(),
        text: "I/O error, sector 5".into(),
    };
    vec![
        fault(
            "GPU off the bus after its system processor fell silent",
            World::busy(40)
                .xid(12.0, 119)
                .xid(11.8, 79)
                .xid_text(
                    11.7,
                    154,
                    "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
                )
                .with(|f| f.gpus[3].lost = Some(true)),
            &[("gpu-xid-119", Critical), ("gpu-lost", Critical)],
        ),
        fault(
            "double-bit error, contained, row remapped, work cleaned up",
            World::busy(41).xid(9.0, 48).xid(9.0, 63).xid(8.99, 94).xid(8.98, 45),
            &[("gpu-xid-48", Critical)],
        ),
        fault(
            "NVLink error, then clean-up",
            World::busy(42).xid(10.0, 74).xid(9.95, 45),
            &[("gpu-xid-74", Critical)],
        ),
        fault(
            "program's page fault, then clean-up",
            World::busy(43).xid(5.0, 31).xid(4.99, 43).xid(4.98, 45),
            &[("gpu-xid-31", Info)],
        ),
        fault(
            "the driver asks for a reset",
            World::busy(39).xid_text(
                5.0,
                154,
                "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
            ),
            &[("gpu-xid-154", Critical)],
        ),
        fault(
            "a timeout of the system processor, and hours of work since",
            World::busy(38).xid(300.0, 119),
            &[("gpu-xid-119", Warning)],
        ),
        fault(
            "an XID that isn't in the table",
            World::busy(44).xid(5.0, 777),
            &[("gpu-xid-777", Warning)],
        ),
        fault(
            "one GPU, three workloads with errors of their own",
            World::busy(45).xid(300.0, 31).xid(200.0, 13).xid(100.0, 31).with(|f| {
                for (i, e) in f.kernel.iter_mut().enumerate() {
                    if let Kernel::Xid { workload, .. } = &mut e.event {
                        *workload = Some(format!("wl-{i}"));
                    }
                }
            }),
            &[("gpu-suspect", Warning), ("gpu-xid-31", Info), ("gpu-xid-13", Info)],
        ),
        fault(
            "NVLink errors",
            World::busy(46).set(metric::GPU_NVLINK_ERRORS, Some(2), |m| 3.0 + 10.0 * m),
            &[("gpu-nvlink-errors", Warning)],
        ),
        fault(
            "an NVLink is down",
            World::busy(47).with(|f| f.gpus[1].nvlinks_active = Some(17)),
            &[("gpu-nvlink-down", Warning)],
        ),
        fault(
            "PCIe width degraded",
            World::busy(48).with(|f| f.gpus[1].pcie_width = Some(8)),
            &[("gpu-pcie-degraded", Warning)],
        ),
        fault(
            "PCIe generation degraded while busy",
            World::busy(49).with(|f| f.gpus[1].pcie_generation = Some(3)),
            &[("gpu-pcie-degraded", Warning)],
        ),
        fault(
            "PCIe replays",
            World::busy(50).set(metric::GPU_PCIE_REPLAYS, Some(0), |m| 7.0 + 30.0 * m),
            &[("gpu-pcie-replays", Warning)],
        ),
        fault(
            "disk full within the hour",
            World::busy(51).set_device(metric::DISK_USED, "/data", |m| (1500.0 + 6.0 * m) * GIB),
            &[("disk-filling", Critical)],
        ),
        fault(
            "disk nearly full",
            World::busy(52).set_device(metric::DISK_USED, "/data", |_| 1930.0 * GIB),
            &[("disk-filling", Warning)],
        ),
        fault(
            "out of inodes",
            World::busy(53)
                .set_device(metric::DISK_INODES_USED, "/data", |_| 995.0)
                .set_device(metric::DISK_INODES_TOTAL, "/data", |_| 1000.0),
            &[("disk-inodes", Critical)],
        ),
        fault(
            "out of inodes within the hour",
            World::busy(57)
                .set_device(metric::DISK_INODES_USED, "/data", |m| 1.5e6 + 6_000.0 * m)
                .set_device(metric::DISK_INODES_TOTAL, "/data", |_| 2e6),
            &[("disk-inodes", Critical)],
        ),
        fault(
            "disk I/O errors",
            (0..6).fold(World::busy(54), |w, i| w.kernel(f64::from(i) * 7.0, disk())),
            &[("disk-io-errors", Critical)],
        ),
        fault(
            "file system damaged",
            World::busy(55).kernel(3.0, Kernel::Filesystem { device: "/data".into() }),
            &[("disk-damaged", Critical)],
        ),
        fault(
            "work waits for disks all the time",
            World::busy(56).set(metric::PRESSURE_IO, None, |_| 65.0),
            &[("io-pressure", Warning)],
        ),
        fault(
            "network interface errors",
            World::busy(57).set_device(metric::NETWORK_ERRORS, "eth0", |m| 42.0 + 200.0 * m),
            &[("nic-errors", Warning)],
        ),
        fault(
            "network link flaps",
            World::busy(58)
                .kernel(50.0, Kernel::LinkDown { device: "eth0".into() })
                .kernel(40.0, nic("transmit queue timed out"))
                .kernel(30.0, Kernel::LinkDown { device: "eth0".into() }),
            &[("nic-link-down", Critical)],
        ),
        fault(
            "clock skew",
            World::busy(59).set(metric::CLOCK_OFFSET, None, |_| -2_500.0),
            &[("clock-skew", Warning)],
        ),
        fault(
            "memory module fails",
            World::busy(60).kernel(
                9.0,
                Kernel::MachineCheck {
                    corrected: false,
                    text: "Hardware Error: memory read error".into(),
                },
            ),
            &[("machine-check", Critical)],
        ),
        fault(
            "PCIe error that was not corrected",
            World::busy(61).kernel(
                9.0,
                Kernel::Pcie {
                    corrected: false,
                    pci: None,
                    text: "AER: Completion Timeout".into(),
                },
            ),
            &[("pcie-errors", Warning)],
        ),
        fault(
            "GPU that the driver doesn't reach, by samples",
            World::busy(63).set(metric::GPU_UP, Some(4), |m| if m > 50.0 { 0.0 } else { 1.0 }),
            &[("gpu-lost", Critical)],
        ),
        fault(
            "fatal error of an NVSwitch",
            World::busy(64)
                .kernel(
                    9.0,
                    Kernel::NvSwitch {
                        sxid: 10004,
                        fatal: false,
                        text: String::new(),
                    },
                )
                .kernel(
                    8.0,
                    Kernel::NvSwitch {
                        sxid: 12020,
                        fatal: true,
                        text: String::new(),
                    },
                ),
            &[("nvswitch-error", Critical)],
        ),
        fault(
            "AMD GPU hangs and is reset",
            World::busy(65)
                .kernel(
                    9.0,
                    Kernel::AmdGpu {
                        gpu: Some(2),
                        trouble: AmdTrouble::Timeout,
                        text: "ring gfx timeout".into(),
                    },
                )
                .kernel(
                    8.9,
                    Kernel::AmdGpu {
                        gpu: Some(2),
                        trouble: AmdTrouble::Reset,
                        text: "GPU reset begin!".into(),
                    },
                ),
            &[("amd-gpu-error", Warning)],
        ),
        fault(
            "processor too hot all day",
            (0..30).fold(World::busy(66), |w, i| {
                w.kernel(f64::from(i) * 40.0, Kernel::CpuThrottled)
            }),
            &[("cpu-throttled", Warning)],
        ),
        fault(
            "processor hung",
            World::busy(62).kernel(
                9.0,
                Kernel::Stall {
                    text: "soft lockup - CPU#3 stuck for 26s".into(),
                },
            ),
            &[("kernel-stall", Warning)],
        ),
    ]
}

fn well() -> Vec<Scenario> {
    let mut random = Random(99);
    let noisy: Vec<f64> = (0..121).map(|_| random.normal()).collect();
    let at = |m: f64| noisy[(m * 2.0) as usize % noisy.len()];
    vec![
        healthy("full load at the software power cap", World::busy(80)),
        healthy(
            "100 % at 78 °C, below its threshold",
            World::busy(81)
                .set_all(metric::GPU_TEMPERATURE, |_| 78.0)
                .set_all(metric::GPU_UTILIZATION, |_| 100.0),
        ),
        healthy(
            "checkpoint bursts to disk, deleted again",
            World::busy(82)
                .set(metric::PRESSURE_IO, None, |m| if m % 15.0 < 2.0 { 80.0 } else { 1.0 })
                .set_device(metric::DISK_USED, "/data", |m| {
                    (1100.0 + 60.0 * ((m % 15.0) / 15.0)) * GIB
                }),
        ),
        healthy(
            "data is loaded into memory at the start, then stays",
            World::busy(83).set(metric::MEMORY_USAGE, None, |m| (200.0 + 30.0 * m.min(20.0)) * GIB),
        ),
        healthy(
            "idle between epochs",
            World::busy(84)
                .set_all(metric::GPU_UTILIZATION, |m| if m % 20.0 < 1.5 { 0.0 } else { 97.0 })
                .set_all(metric::GPU_THROTTLE, |m| if m % 20.0 < 1.5 { 1.0 } else { 4.0 })
                .set_all(metric::GPU_CLOCK_SM, |m| if m % 20.0 < 1.5 { 345.0 } else { 1750.0 }),
        ),
        healthy(
            "memory high and stable",
            World::busy(85).set(metric::MEMORY_USAGE, None, |m| (985.0 + at(m)) * GIB),
        ),
        healthy(
            "counters begin anew after a reboot",
            World::busy(86)
                .set_all(metric::GPU_ECC_CORRECTED, |m| if m > 30.0 { 0.0 } else { 5000.0 })
                .set_all(metric::GPU_ECC_UNCORRECTED, |m| if m > 30.0 { 0.0 } else { 9.0 })
                .set_all(metric::GPU_NVLINK_ERRORS, |m| if m > 30.0 { 0.0 } else { 1e6 })
                .set_device(metric::NETWORK_ERRORS, "eth0", |m| if m > 30.0 { 0.0 } else { 1e6 }),
        ),
        healthy(
            "an XID that a reboot has cleared",
            World::busy(87)
                .xid(300.0, 119)
                .xid(299.0, 79)
                .with(|f| f.booted_ms = Some(NOW - 200 * MINUTE)),
        ),
        healthy(
            "the driver has given the all-clear after a reset",
            World::busy(98)
                .xid(300.0, 119)
                .xid_text(
                    299.0,
                    154,
                    "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
                )
                .xid_text(
                    290.0,
                    154,
                    "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
                ),
        ),
        healthy(
            "warms up with its work",
            World::busy(77)
                .set_all(metric::GPU_TEMPERATURE, |m| 35.0 + 40.0 * (1.0 - (-m / 8.0).exp()))
                .set(metric::GPU_UTILIZATION, Some(0), |m| if m < 1.0 { 0.0 } else { 99.0 }),
        ),
        healthy(
            "memory rises to where it has been before",
            World::busy(78)
                .past(metric::MEMORY_USAGE, |m| (600.0 + 250.0 * ((m / 240.0).sin())) * GIB)
                .set(metric::MEMORY_USAGE, None, |m| (600.0 + 2.0 * m) * GIB),
        ),
        healthy(
            "noisy but normal",
            World::busy(88)
                .set(metric::CPU_USAGE, None, |m| 60.0 + 15.0 * at(m))
                .set_all(metric::GPU_TEMPERATURE, |m| 70.0 + 4.0 * at(m))
                .set(metric::MEMORY_USAGE, None, |m| (600.0 + 60.0 * at(m)) * GIB),
        ),
        healthy(
            "divided into MIG instances: no utilization to read",
            World::busy(89)
                .without(metric::GPU_UTILIZATION)
                .without(metric::GPU_CLOCK_SM)
                .with(|f| f.gpus.iter_mut().for_each(|g| g.mig = true)),
        ),
        healthy(
            "just joined, three minutes of samples",
            World::busy(90).without_history().newest(3),
        ),
        healthy(
            "idle GPUs that save power: low clocks, PCIe 1, fan off",
            World::busy(91)
                .set_all(metric::GPU_UTILIZATION, |_| 0.0)
                .set_all(metric::GPU_THROTTLE, |_| 1.0)
                .set_all(metric::GPU_POWER, |_| 70.0)
                .set_all(metric::GPU_TEMPERATURE, |_| 35.0)
                .set_all(metric::GPU_CLOCK_SM, |_| 345.0)
                .set_all(metric::GPU_FAN, |_| 0.0)
                .with(|f| f.gpus.iter_mut().for_each(|g| g.pcie_generation = Some(1))),
        ),
        healthy(
            "clocks set by an administrator",
            World::busy(92)
                .set(metric::GPU_THROTTLE, Some(0), |_| 2.0)
                .set(metric::GPU_CLOCK_SM, Some(0), |_| 1000.0),
        ),
        healthy(
            "one GPU works, seven rest",
            World::busy(93)
                .set_all(metric::GPU_POWER, |_| 70.0)
                .set_all(metric::GPU_TEMPERATURE, |_| 34.0)
                .set(metric::GPU_POWER, Some(0), |_| 690.0)
                .set(metric::GPU_TEMPERATURE, Some(0), |_| 79.0),
        ),
        healthy(
            "a workload was killed at its own limit",
            World::busy(94).kernel(
                9.0,
                Kernel::OomKill {
                    process: Some("python".into()),
                    workload: Some("wl-1".into()),
                    limited: true,
                },
            ),
        ),
        healthy(
            "slow round trip to the gateway, once",
            World::busy(95).set(metric::CLOCK_OFFSET, None, |m| if m == 59.5 { 4000.0 } else { 2.0 }),
        ),
        healthy(
            "idle pages are written to swap",
            World::busy(96)
                .set(metric::SWAP_USED, None, |m| m / 10.0 * GIB)
                .set(metric::SWAP_OUT, None, |m| if m < 30.0 { 3e7 } else { 0.0 }),
        ),
        healthy(
            "a corrected memory error",
            World::busy(97).kernel(
                9.0,
                Kernel::MachineCheck {
                    corrected: true,
                    text: "corrected DIMM memory error".into(),
                },
            ),
        ),
    ]
}

#[test]
fn faults_are_found_and_nothing_else() {
    let mut all = thermal();
    all.extend(memory());
    all.extend(errors());
    assert!(all.len() >= 30);
    assert_all(&all);
}

#[test]
fn busy_but_healthy_nodes_raise_nothing() {
    let all = well();
    assert!(all.len() >= 10);
    assert_all(&all);
}

#[test]
fn every_xid_is_told_as_the_table_has_it() {
    let all: Vec<Scenario> = xid::all()
        .map(|x| {
            let findings = diagnose_node(&World::busy(u64::from(x.code)).xid(20.0, x.code).facts(), false).findings;
            assert!(
                findings
                    .iter()
                    .any(|f| f.id == format!("gpu-xid-{}", x.code) && f.remedy == x.remedy),
                "{x:?}"
            );
            let id: &'static str = format!("gpu-xid-{}", x.code).leak();
            Scenario {
                name: x.mnemonic,
                findings,
                expected: vec![(id, x.severity)],
                also: &[],
            }
        })
        .collect();
    assert_all(&all);
}

#[test]
fn the_driver_s_own_word_decides_how_to_recover() {
    let text = "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)";
    let d = diagnose_node(&World::busy(7).xid(9.0, 119).xid_text(8.9, 154, text).facts(), false);
    let f = d.findings.iter().find(|f| f.id == "gpu-xid-119").unwrap();
    assert_eq!(f.remedy, diagnosis::Remedy::RebootNode);
    assert_eq!(f.commands[0], "clawbernetes node drain gpu-1");
    assert!(f.evidence[1].text.contains("followed by XID 154"), "{:?}", f.evidence);
}

#[test]
fn figures_stand_beside_findings() {
    let world = World::busy(5)
        .set(metric::GPU_THROTTLE, Some(2), from(30.0, 0x40 as f64))
        .set(metric::MEMORY_USAGE, None, |m| (700.0 + 4.5 * m) * GIB);
    let d = diagnose_node(&world.facts(), true);
    let reasons = d.thermal.gpus[2].throttle.as_ref().unwrap();
    assert_eq!(
        reasons.iter().map(|r| (&*r.reason, r.normal)).collect::<Vec<_>>(),
        [("sw-power-cap", true), ("hw-thermal-slowdown", false)]
    );
    let full = d.memory.exhausted_in_ms.unwrap();
    assert!(
        (10 * MINUTE..15 * MINUTE).contains(&full),
        "970 of 1024 GiB, 4.5 a minute: {full}"
    );
    assert!(
        d.trends
            .trends
            .iter()
            .any(|t| t.metric == metric::MEMORY_USAGE && t.per_hour.unwrap() > 200.0 * GIB)
    );
    let raw = d.raw.unwrap();
    assert!(
        raw.iter()
            .any(|r| r.metric == metric::GPU_TEMPERATURE && r.gpu == Some(4) && r.count == 121)
    );
    assert_eq!(d.window_ms, HOUR);
}

#[test]
fn uneven_work_raises_nothing_whatever_the_seed() {
    let wrong: Vec<String> = (0..SEEDS)
        .flat_map(|seed| {
            let d = diagnose_node(&World::wandering(seed).facts(), false);
            d.findings
                .into_iter()
                .filter(|f| f.severity >= Warning)
                .map(move |f| format!("{seed}: {} {:?}", f.id, f.evidence[0].text))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
