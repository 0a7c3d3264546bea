//! From records and stored samples to the operations' answers.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    Cpu, NodeName, Size, Span, Timestamp, WorkloadId,
    event::Severity,
    node::{GpuHealth, GpuInfo, Inventory, Reach, Vendor},
    op::{FindingSeverity, FindingTarget, FleetHealth, HealthStatus, NodeDiagnosis, Submission, WorkloadDiagnosis},
    time,
    wire::FactKind,
    workload::{GpuRequest, HeldGpu, Member, MemberState, Outcome, Phase, Usage, Workload, WorkloadSpec},
};
use telemetry::{
    logs::{self, LogStore},
    metrics::{self, MetricStore, Sample},
};

use super::{Holders, Journal, Looked, Ran, Sources};
use crate::{decide, draft::node_event, hub, metrics::Metrics};

/// Time between two samples.
const EVERY_MS: i64 = 10_000;

struct World {
    now: Timestamp,
    metrics: Metrics,
    logs: LogStore,
    journal: Journal,
    nodes: Vec<Looked>,
    _folder: tempfile::TempDir,
}

impl World {
    /// Nodes of two GPUs each.
    fn of(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = MetricStore::open(folder.path().join("metrics"), metrics::Options::default()).unwrap();
        let now = hub::now();
        Self {
            now,
            metrics: Metrics::new(store),
            logs: LogStore::open(folder.path().join("logs"), logs::Options::default()).unwrap(),
            journal: Journal::default(),
            nodes: names.iter().map(|name| looked(name, now)).collect(),
            _folder: folder,
        }
    }

    /// Samples of the last hour: of each the metric, its labels, and its value by sample, 0 to 359.
    fn measure(&self, name: &str, labels: &[(&str, &str)], value: impl Fn(i64) -> f64) {
        let series = self.metrics.store.series(name, labels).unwrap();
        let samples: Vec<Sample> = (0..360)
            .map(|i| Sample {
                series,
                at_ms: self.now.as_millisecond() - (359 - i) * EVERY_MS,
                value: value(i),
            })
            .collect();
        assert_eq!(self.metrics.store.append(&samples).unwrap().stored, 360);
    }

    /// What a healthy idle node reports; of `but` nothing.
    fn idle(&self, node: &str, but: &[&str]) {
        let gib = 1_073_741_824.0;
        let on = [("node", node)];
        for (name, value) in [
            ("cpu.usage", 3.0),
            ("memory.usage", 12.0 * gib),
            ("memory.total", 512.0 * gib),
            ("swap.in", 0.0),
            ("swap.out", 0.0),
            ("pressure.memory", 0.0),
            ("pressure.memory.full", 0.0),
            ("pressure.io", 0.2),
            ("clock.offset", 3.0),
        ] {
            if !but.contains(&name) {
                self.measure(name, &on, |_| value);
            }
        }
        for gpu in ["0", "1"] {
            let uuid = format!("{node}-{gpu}");
            for (name, value) in [
                ("gpu.up", 1.0),
                ("gpu.utilization", 0.0),
                ("gpu.memory", 0.0),
                ("gpu.memory.total", 80.0 * gib),
                ("gpu.temperature", 34.0),
                ("gpu.temperature.slowdown", 87.0),
                ("gpu.temperature.shutdown", 92.0),
                ("gpu.power", 70.0),
                ("gpu.power.limit", 700.0),
                ("gpu.clock.sm", 345.0),
                ("gpu.throttle", 1.0),
                ("gpu.ecc.corrected", 0.0),
                ("gpu.ecc.uncorrected", 0.0),
            ] {
                if !but.contains(&name) || gpu == "0" {
                    let labels = [("node", node), ("gpu", gpu), ("uuid", &*uuid), ("model", "H100")];
                    self.measure(name, &labels, |_| value);
                }
            }
        }
    }

    /// A metric of a node's GPU 1.
    fn gpu1(&self, node: &str, name: &str, value: impl Fn(i64) -> f64) {
        let uuid = format!("{node}-1");
        let labels = [("node", node), ("gpu", "1"), ("uuid", &*uuid), ("model", "H100")];
        self.measure(name, &labels, value);
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            metrics: &self.metrics.store,
            logs: &self.logs,
            journal: &self.journal,
        }
    }

    fn health(&self) -> FleetHealth {
        let held = Holders::default();
        let from = (&self.metrics.store, &self.journal);
        super::health(&self.nodes, &held, Vec::new(), Vec::new(), from, self.now).unwrap()
    }

    fn node(&self, index: usize) -> NodeDiagnosis {
        let held = Holders::default();
        super::diagnose_node(
            self.sources(),
            &self.nodes[index],
            &held,
            &[],
            Span::secs(3_600),
            false,
            self.now,
        )
        .unwrap()
    }

    fn workload(&self, workload: &Ran, baseline: Option<&Ran>) -> WorkloadDiagnosis {
        super::diagnose_workload(self.sources(), &self.metrics, workload, baseline, true, self.now).unwrap()
    }
}

fn looked(name: &str, now: Timestamp) -> Looked {
    let (mut node, _) = decide::nodes::joined(&NodeName::new(name), String::new(), "user:ada", now);
    let gpu = |index| GpuInfo {
        index,
        uuid: format!("{name}-{index}"),
        vendor: Vendor::Nvidia,
        model: "NVIDIA H100 80GB HBM3".to_owned(),
        memory_total_bytes: Some(Size::gib(80)),
        pci_address: Some(format!("0000:{:02x}:00.0", 0x3b + index)),
        numa_node: None,
        power_limit_watts: None,
        driver_version: None,
    };
    node.reach = Reach::Online;
    node.inventory = Some(Inventory {
        hostname: name.to_owned(),
        cpu: Cpu::cores(64),
        cpu_model: None,
        memory_total_bytes: Size::gib(512),
        os: None,
        kernel: None,
        arch: "x86_64".to_owned(),
        boot_id: None,
        gpus: vec![gpu(0), gpu(1)],
        links: Vec::new(),
        engines: Vec::new(),
        agent_version: String::new(),
        notes: Vec::new(),
    });
    Looked {
        node: Arc::new(node),
        heard_of: true,
        clock_offset_ms: None,
        holders: BTreeMap::new(),
        workloads: Vec::new(),
    }
}

fn gpu1(node: &str) -> FindingTarget {
    FindingTarget::Gpu {
        node: NodeName::new(node),
        gpu: 1,
    }
}

fn rounded(points: f64) -> f64 {
    (points * 100.0).round() / 100.0
}

#[test]
fn a_healthy_idle_fleet_raises_nothing() {
    let world = World::of(&["a", "b", "c"]);
    for node in ["a", "b", "c"] {
        world.idle(node, &[]);
    }
    let health = world.health();
    assert_eq!(health.score, Some(100.0));
    assert_eq!(health.status, HealthStatus::Healthy);
    assert_eq!((health.nodes.total, health.nodes.healthy), (3, 3));
    assert_eq!((&health.deductions[..], &health.diagnosis[..]), (&[][..], &[][..]));
    assert_eq!(health.utilization.gpu.percent, Some(0.0));
    assert_eq!(rounded(health.utilization.memory.percent.unwrap()), 2.34);
    let node = world.node(0);
    assert_eq!((node.status, &node.findings[..]), (HealthStatus::Healthy, &[][..]));
    assert_eq!(node.thermal.gpus[1].celsius, Some(34.0));
    assert_eq!(node.memory.total_bytes, Some(512.0 * 1_073_741_824.0));
}

#[test]
fn an_empty_fleet_has_no_score() {
    let health = World::of(&[]).health();
    assert_eq!((health.score, health.status), (None, HealthStatus::Unknown));
}

#[test]
fn a_gpu_that_the_hardware_slows_down_costs_its_share() {
    let world = World::of(&["a", "b"]);
    world.idle("a", &[]);
    world.idle("b", &["gpu.throttle", "gpu.temperature"]);
    world.gpu1("b", "gpu.temperature", |_| 88.0);
    // NVML: slowed down by the hardware, because of heat.
    world.gpu1("b", "gpu.throttle", |_| 72.0);
    let health = world.health();
    assert_eq!(health.score, Some(75.0), "one GPU of two of one node of two");
    assert_eq!((health.nodes.healthy, health.nodes.critical), (1, 1));
    let deduction = &health.deductions[0];
    assert_eq!((deduction.points, &*deduction.reason), (25.0, "gpu-thermal-throttle"));
    assert_eq!(deduction.target, gpu1("b"));
    let found = &health.diagnosis[0];
    assert_eq!(
        (&*found.finding, found.severity),
        ("gpu-thermal-throttle", FindingSeverity::Critical)
    );
    assert!(!found.evidence.is_empty() && !found.commands.is_empty(), "{found:?}");
    let node = world.node(1);
    assert_eq!(node.status, HealthStatus::Critical);
    assert_eq!(node.findings[0].finding, "gpu-thermal-throttle");
    assert_eq!(node.thermal.status, HealthStatus::Critical);
    let why: Vec<&str> = node.thermal.gpus[1]
        .throttle
        .as_ref()
        .unwrap()
        .iter()
        .map(|t| &*t.reason)
        .collect();
    assert_eq!(why, ["hw-slowdown", "hw-thermal-slowdown"]);
    assert_eq!(world.node(0).status, HealthStatus::Healthy);
}

#[test]
fn memory_errors_are_counted_by_growth_and_not_by_level() {
    let world = World::of(&["a", "b"]);
    // A counter that has stood at 7 since the driver was loaded tells nothing about today.
    world.idle("a", &["gpu.ecc.uncorrected"]);
    world.gpu1("a", "gpu.ecc.uncorrected", |_| 7.0);
    world.idle("b", &["gpu.ecc.uncorrected"]);
    world.gpu1("b", "gpu.ecc.uncorrected", |i| if i < 350 { 7.0 } else { 9.0 });
    let health = world.health();
    let found: Vec<_> = health.diagnosis.iter().map(|f| (&*f.finding, &f.target)).collect();
    assert_eq!(found, [("gpu-ecc-uncorrected", &gpu1("b"))]);
    let evidence = &health.diagnosis[0].evidence[0];
    assert_eq!((evidence.value, &*evidence.metric), (Some(2.0), "gpu.ecc.uncorrected"));
    let at = evidence.at.unwrap();
    assert!(time::between(at, world.now) < Span::secs(150), "{at}");
    assert_eq!(world.node(1).memory.gpus[1].ecc_uncorrected, Some(2.0));
    assert_eq!(world.node(0).memory.gpus[1].ecc_uncorrected, Some(0.0));
}

#[test]
fn what_was_not_measured_is_unknown_and_not_healthy() {
    let world = World::of(&["a", "b"]);
    world.idle("a", &[]);
    let health = world.health();
    assert_eq!((health.nodes.healthy, health.nodes.unknown), (1, 1));
    assert_eq!(health.deductions[0].reason, "node-unknown");
    assert_eq!(health.score, Some(75.0));
    let node = world.node(1);
    assert_eq!(node.status, HealthStatus::Unknown);
    assert_eq!(node.thermal.gpus[1].celsius, None);
    assert_eq!(node.thermal.gpus[1].throttle, None);
    assert_eq!(node.memory.used_bytes, None);
    assert!(node.unchecked.iter().any(|u| u.finding == "gpu-thermal-throttle"));
}

#[test]
fn silent_nodes_and_what_agents_say_of_gpus_are_told() {
    let mut world = World::of(&["a", "b", "c"]);
    for node in ["a", "b", "c"] {
        world.idle(node, &[]);
    }
    Arc::get_mut(&mut world.nodes[0].node).unwrap().reach = Reach::Unreachable;
    let reason = "needs a reset".to_owned();
    let failed = GpuHealth::Failed { reason };
    Arc::get_mut(&mut world.nodes[1].node)
        .unwrap()
        .gpu_health
        .insert(1, failed);
    let health = world.health();
    assert_eq!((health.nodes.unreachable, health.nodes.critical), (1, 1));
    let found: Vec<&str> = health.diagnosis.iter().map(|f| &*f.finding).collect();
    assert_eq!(found, ["gpu-failed", "node-unreachable"]);
    assert!(health.diagnosis[0].evidence[0].text.contains("needs a reset"));
    assert_eq!(
        rounded(health.score.unwrap()),
        50.0,
        "a node of three, and half of another"
    );
    assert_eq!(
        health.utilization.gpu.nodes, 2,
        "a silent node's samples aren't those of now"
    );
}

#[test]
fn the_kernels_word_is_heard_for_a_day_and_laid_at_the_gpus_door() {
    let world = World::of(&["a"]);
    world.idle("a", &[]);
    let fact = |ago: Span, gpu| {
        let line = "GPU 1: NVRM: Xid (PCI:0000:3c:00): 48, Double Bit ECC Error";
        let at = time::before(world.now, ago);
        let mut event = node_event(&NodeName::new("a"), "Xid48", line, "node:a", Severity::Error, at);
        event.fact = Some(FactKind::Xid {
            xid: 48,
            pci: "0000:3c:00.0".to_owned(),
            gpu,
            uuid: None,
            pid: None,
        });
        event
    };
    world.journal.push(fact(Span::secs(25 * 3_600), Some(1)), world.now);
    assert_eq!(world.health().diagnosis, [], "that was yesterday");
    world.journal.push(fact(Span::secs(600), None), world.now);
    let health = world.health();
    assert_eq!(health.diagnosis[0].target, gpu1("a"), "by its address: {health:?}");
    assert!(health.diagnosis[0].finding.contains("48"), "{health:?}");
    let node = world.node(0);
    assert_eq!(node.errors.groups[0].source, "kernel");
    assert_eq!(node.errors.groups[0].count, 1);
}

#[test]
fn events_about_workloads_and_good_news_are_no_trouble() {
    let world = World::of(&["a"]);
    let name = NodeName::new("a");
    let event = |reason, severity| node_event(&name, reason, "words", "gateway", severity, world.now);
    world.journal.push(event("Online", Severity::Info), world.now);
    let mut other = event("Failed", Severity::Error);
    other.kind = "workload".to_owned();
    world.journal.push(other, world.now);
    assert_eq!(world.journal.of(&name, Timestamp::UNIX_EPOCH).len(), 0);
    world.journal.push(event("Unreachable", Severity::Warning), world.now);
    world.journal.push(event("Unreachable", Severity::Warning), world.now);
    let group = &world.node(0).errors.groups[0];
    assert_eq!((&*group.source, &*group.level, group.count), ("gateway", "warn", 2));
}

/// A workload of two GPUs' node "a", which held GPU 1 for the last `minutes`.
fn ran(world: &World, number: u64, minutes: u64) -> Workload {
    let spec = WorkloadSpec {
        image: "trainer".to_owned(),
        gpus: GpuRequest {
            count: 1,
            ..GpuRequest::default()
        },
        cpu: Some(Cpu::cores(8)),
        memory: Some(Size::gib(32)),
        timeout: Some(Span::secs(86_400)),
        ..WorkloadSpec::default()
    };
    let submission = Submission {
        name: None,
        namespace: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        spec,
    };
    let begun = time::before(world.now, Span::secs(minutes * 60));
    let mut workload = decide::submit::workload(submission, number, "ada", begun).unwrap();
    workload.phase = Phase::Running;
    workload.attempt = 1;
    workload.started_at = Some(begun);
    workload.members = vec![Member {
        rank: 0,
        node: NodeName::new("a"),
        gpus: vec![HeldGpu {
            index: 1,
            uuid: "a-1".to_owned(),
        }],
        state: MemberState::Running {
            started_at: begun,
            ready: None,
            not_ready: None,
            since: Some(begun),
            endpoints: Vec::new(),
        },
    }];
    workload
}

fn of(workload: Workload) -> Ran {
    Ran {
        workload: Arc::new(workload),
    }
}

/// What a workload reports itself, over the last hour.
fn reports(world: &World, workload: &WorkloadId, name: &str, value: impl Fn(i64) -> f64) {
    let labels = [
        ("node", "a"),
        ("workload", workload.as_str()),
        ("attempt", "1"),
        ("rank", "0"),
    ];
    world.measure(name, &labels, value);
}

#[test]
fn a_starved_gpu_waits_for_data() {
    let world = World::of(&["a"]);
    world.idle("a", &["gpu.utilization", "gpu.power", "gpu.throttle"]);
    // Before the last 40 minutes another workload kept the GPU busy: that isn't this one's work.
    world.gpu1("a", "gpu.utilization", |i| match i {
        0..120 => 100.0,
        i => {
            if i % 4 == 0 {
                90.0
            } else {
                5.0
            }
        }
    });
    world.gpu1("a", "gpu.power", |i| if i < 120 { 690.0 } else { 190.0 });
    world.gpu1("a", "gpu.throttle", |_| 0.0);
    let workload = ran(&world, 1, 40);
    reports(&world, &workload.id, "workload.cpu", |_| 7.9);
    reports(&world, &workload.id, "workload.memory", |_| 8e9);
    reports(&world, &workload.id, "custom.data_wait_ratio", |_| 0.6);
    let found = world.workload(&of(workload), None);
    assert_eq!(found.bottleneck.class.as_deref(), Some("data-pipeline"), "{found:#?}");
    assert!(found.bottleneck.confidence >= 0.6, "{:?}", found.bottleneck);
    assert!(found.findings.iter().any(|f| f.finding == "bottleneck-data-pipeline"));
    let waits = found
        .bottleneck
        .signals
        .iter()
        .find(|s| s.metric == "reported.data_wait")
        .unwrap();
    assert_eq!((waits.value.map(f64::round), waits.holds), (Some(60.0), Some(true)));
    let gpu = &found.resources.gpus[0];
    assert_eq!(
        (gpu.node.as_ref().map(NodeName::as_str), gpu.index),
        (Some("a"), Some(1))
    );
    assert_eq!(gpu.utilization_percent, Some(5.0), "its own time only");
    assert_eq!(gpu.power_watts, Some(190.0));
    assert_eq!(found.resources.cpu_cores_asked, Some(8.0));
    assert!(found.recommendations.is_some_and(|r| !r.is_empty()));
}

#[test]
fn a_kill_for_memory_names_limit_and_command() {
    let world = World::of(&["a"]);
    let mut workload = ran(&world, 1, 10);
    workload.phase = Phase::Failed;
    workload.finished_at = Some(world.now);
    workload.members[0].state = MemberState::Ended {
        started_at: workload.started_at,
        at: world.now,
        outcome: Outcome::OomKilled {
            limit_bytes: Some(Size::gib(32)),
            peak_bytes: Some(Size::gib(32)),
        },
        stop: None,
        usage: Usage::default(),
    };
    let found = world.workload(&of(workload), None);
    assert_eq!(found.status, HealthStatus::Critical);
    let oom = &found.findings[0];
    assert_eq!(oom.finding, "oom-killed");
    assert!(oom.commands[0].contains("--memory 48Gi"), "{oom:?}");
    assert_eq!(found.attempts[0].exit_code, Some(137));
    assert_eq!(found.attempts[0].reason.as_deref(), Some("oom-killed"));
    assert_eq!(found.bottleneck.class, None);
}

#[test]
fn a_run_is_put_beside_another() {
    let world = World::of(&["a"]);
    world.idle("a", &[]);
    let (slow, fast) = (ran(&world, 1, 59), ran(&world, 2, 59));
    reports(&world, &slow.id, "custom.tokens_per_second", |i| 700.0 + (i % 7) as f64);
    reports(&world, &fast.id, "custom.tokens_per_second", |i| {
        1000.0 + (i % 7) as f64
    });
    let found = world.workload(&of(slow), Some(&of(fast.clone())));
    let comparison = found.comparison.unwrap();
    assert_eq!(comparison.baseline, fast.id);
    let change = comparison
        .changes
        .iter()
        .find(|c| c.metric == "reported.throughput")
        .unwrap();
    assert_eq!(
        (&*change.verdict, change.percent.map(f64::round)),
        ("worse", Some(-30.0))
    );
    assert!(found.findings.iter().any(|f| f.finding == "slower-than-baseline"));
}

#[test]
fn a_workload_that_waits_has_nothing_to_be_judged_by() {
    let world = World::of(&["a"]);
    let mut workload = ran(&world, 1, 1);
    workload.phase = Phase::Pending;
    workload.attempt = 0;
    workload.members.clear();
    let found = world.workload(&of(workload), None);
    assert_eq!((found.status, found.attempts.len()), (HealthStatus::Unknown, 0));
    assert_eq!(found.resources.gpus, []);
    assert_eq!(found.resources.memory_bytes, None);
}

/// How long a fleet of a thousand nodes takes: `cargo test --release -- --ignored --nocapture thousand`.
#[test]
#[ignore = "a measurement"]
fn a_thousand_nodes_of_eight_gpus() {
    let world = World::of(&[]);
    let names: Vec<String> = (0..1000).map(|i| format!("gpu-{i:04}")).collect();
    let store = &world.metrics.store;
    let mut ids = Vec::new();
    for node in &names {
        for name in super::samples::OF_NODES {
            ids.push((*name, store.series(name, &[("node", node)]).unwrap()));
        }
        for gpu in 0..8 {
            let (index, uuid) = (gpu.to_string(), format!("{node}-{gpu}"));
            let labels = [("node", &**node), ("gpu", &index), ("uuid", &uuid), ("model", "H100")];
            for name in super::samples::OF_GPUS {
                ids.push((*name, store.series(name, &labels).unwrap()));
            }
        }
    }
    let value = |name: &str, i: i64| match name {
        "gpu.up" => 1.0,
        "gpu.throttle" | "gpu.remap.failed" | "gpu.remap.pending" => 0.0,
        counter if counter.contains("ecc") || counter.contains("errors") || counter.contains("replays") => 7.0,
        "gpu.temperature" => 60.0 + (i % 5) as f64,
        "gpu.temperature.slowdown" | "gpu.temperature.shutdown" => 90.0,
        "memory.total" | "disk.total" => 1e12,
        _ => (i % 9) as f64,
    };
    for i in 0..180 {
        let at_ms = world.now.as_millisecond() - (179 - i) * EVERY_MS;
        let samples: Vec<Sample> = ids
            .iter()
            .map(|(name, series)| Sample {
                series: *series,
                at_ms,
                value: value(name, i),
            })
            .collect();
        store.append(&samples).unwrap();
    }
    let nodes: Vec<Looked> = names.iter().map(|n| looked(n, world.now)).collect();
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let all = super::samples::OF_GPUS.iter().chain(super::samples::OF_NODES).copied();
        let stretch = super::samples::Stretch {
            step_ms: 60_000,
            ..super::samples::Stretch::before(world.now.as_millisecond(), 900_000)
        };
        let read = super::samples::of_all(store, names.iter().map(String::as_str), all, stretch).unwrap();
        eprintln!("read in full, {} nodes: {:?}", read.len(), start.elapsed());
        drop(read);
        let start = std::time::Instant::now();
        let from = (store, &world.journal);
        let health = super::health(&nodes, &Holders::default(), Vec::new(), Vec::new(), from, world.now).unwrap();
        let took = start.elapsed();
        eprintln!(
            "{} series, {} nodes: {took:?}, {} found",
            ids.len(),
            nodes.len(),
            health.diagnosis.len()
        );
    }
}
