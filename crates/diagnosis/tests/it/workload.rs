//! Workloads with a fault, and workloads that only look like it.

use diagnosis::Severity::{Critical, Info, Warning};
use diagnosis::patterns::Scanner;
use diagnosis::{
    Attempt, Class, ExitReason, Kernel, KernelEvent, Oom, Phase, Rank, Requests, Series, SeriesSet, Severity, Status,
    Verdict, WorkloadFacts, diagnose_workload, metric,
};

use crate::scenario::{Scenario, assert_all};
use crate::world::{GIB, HOUR, MINUTE, NOW, Random, STEP, hour, span};

/// A training job on four GPUs, two hours under way, which computes as fast as it can.
struct Job {
    facts: WorkloadFacts,
    series: Vec<Series>,
    random: Random,
}

impl Job {
    fn training(seed: u64) -> Self {
        let facts = WorkloadFacts {
            id: "wl-train".into(),
            now_ms: NOW,
            window_ms: HOUR,
            phase: Phase::Running,
            started_ms: Some(NOW - 2 * HOUR),
            requests: Requests {
                gpus: 4,
                cpu_cores: Some(32.0),
                memory_bytes: Some(128.0 * GIB),
            },
            nodes: vec!["gpu-1".into()],
            attempts: vec![Attempt {
                number: 1,
                node: Some("gpu-1".into()),
                started_ms: Some(NOW - 2 * HOUR),
                ..Attempt::default()
            }],
            ..WorkloadFacts::default()
        };
        let mut it = Self {
            facts,
            series: Vec::new(),
            random: Random(seed),
        };
        for gpu in 0..4 {
            for (name, level, noise) in [
                (metric::GPU_UTILIZATION, 96.0, 1.0),
                (metric::GPU_POWER, 660.0, 10.0),
                (metric::GPU_POWER_LIMIT, 700.0, 0.0),
                (metric::GPU_MEMORY_BANDWIDTH, 45.0, 3.0),
                (metric::GPU_MEMORY_USED, 70.0 * GIB, 0.1 * GIB),
                (metric::GPU_MEMORY_TOTAL, 80.0 * GIB, 0.0),
                (metric::GPU_TEMPERATURE, 66.0, 1.0),
                (metric::GPU_CLOCK_SM, 1750.0, 15.0),
                (metric::GPU_THROTTLE, 4.0, 0.0),
            ] {
                it.gauge(name, Some(gpu), level, noise);
            }
        }
        for (name, level, noise) in [
            (metric::WORKLOAD_CPU, 12.0, 1.0),
            (metric::WORKLOAD_MEMORY, 60.0 * GIB, 1.0 * GIB),
            (metric::WORKLOAD_IO, 1e8, 2e7),
            (metric::PRESSURE_IO, 2.0, 0.5),
            (metric::REPORTED_THROUGHPUT, 1000.0, 12.0),
            (metric::REPORTED_STEP_TIME, 250.0, 3.0),
        ] {
            it.gauge(name, None, level, noise);
        }
        it
    }

    fn gauge(&mut self, name: &'static str, gpu: Option<u32>, level: f64, noise: f64) {
        let points = hour(|_| level + noise * self.random.normal());
        self.series.push(Series {
            gpu,
            ..Series::new(name, points)
        });
    }

    /// Another level of a metric, wherever it is.
    fn level(mut self, name: &'static str, level: f64) -> Self {
        let gpus: Vec<Option<u32>> = self.series.iter().filter(|s| s.metric == name).map(|s| s.gpu).collect();
        self.series.retain(|s| s.metric != name);
        for gpu in if gpus.is_empty() { vec![None] } else { gpus } {
            self.gauge(name, gpu, level, level * 0.01);
        }
        self
    }

    fn course(mut self, name: &'static str, value: impl Fn(f64) -> f64) -> Self {
        let mut gpus: Vec<Option<u32>> = self.series.iter().filter(|s| s.metric == name).map(|s| s.gpu).collect();
        self.series.retain(|s| s.metric != name);
        if gpus.is_empty() {
            gpus.push(None);
        }
        self.series.extend(gpus.into_iter().map(|gpu| Series {
            gpu,
            ..Series::new(name, hour(&value))
        }));
        self
    }

    fn of_gpu(mut self, gpu: u32, name: &'static str, value: f64) -> Self {
        self.series.retain(|s| !(s.metric == name && s.gpu == Some(gpu)));
        self.series.push(Series::new(name, hour(|_| value)).gpu(gpu));
        self
    }

    fn without(mut self, names: &[&str]) -> Self {
        self.series.retain(|s| !names.contains(&&*s.metric));
        self
    }

    /// Lines of its output, a minute apart, the last now.
    fn output(mut self, lines: &[&str]) -> Self {
        let mut scanner = Scanner::default();
        for (i, line) in lines.iter().rev().enumerate() {
            scanner.push(NOW - i as i64 * MINUTE, line);
        }
        self.facts.logs = scanner.facts();
        self
    }

    /// XID errors of its second GPU, minutes ago.
    fn xid(mut self, errors: &[(i64, u32)]) -> Self {
        let event = |&(ago, code): &(i64, u32)| KernelEvent {
            at_ms: NOW - ago * MINUTE,
            event: Kernel::Xid {
                code,
                gpu: Some(1),
                pci: None,
                workload: None,
                text: String::new(),
            },
        };
        self.facts.kernel = errors.iter().map(event).collect();
        self
    }

    /// Ended attempts, the last just now; it waits to be tried again.
    fn ended(mut self, attempts: &[(ExitReason, i32)]) -> Self {
        self.facts.phase = Phase::Pending;
        self.facts.attempts = attempts
            .iter()
            .enumerate()
            .map(|(i, (reason, code))| {
                let end = NOW - (attempts.len() - 1 - i) as i64 * 5 * MINUTE;
                Attempt {
                    number: i as u32 + 1,
                    node: Some("gpu-1".into()),
                    started_ms: (*reason != ExitReason::ImagePull).then_some(end - 2 * MINUTE),
                    ended_ms: Some(end),
                    exit_code: (*reason != ExitReason::ImagePull).then_some(*code),
                    reason: Some(*reason),
                    oom: None,
                }
            })
            .collect();
        self
    }

    fn with(mut self, change: impl FnOnce(&mut WorkloadFacts)) -> Self {
        change(&mut self.facts);
        self
    }

    /// Eight members, one of them with another level of a metric.
    fn gang(mut self, name: &'static str, usual: f64, slow: f64) -> Self {
        for rank in 0..8 {
            let level = if rank == 5 { slow } else { usual };
            let points = hour(|_| level * (1.0 + 0.005 * self.random.normal()));
            self.facts.ranks.push(Rank {
                rank,
                node: Some(format!("gpu-{}", rank + 1)),
                series: SeriesSet::from(vec![Series::new(name, points)]),
            });
        }
        self
    }

    fn facts(mut self) -> WorkloadFacts {
        self.facts.series = SeriesSet::from(self.series);
        self.facts
    }
}

fn fault(name: &'static str, job: Job, expected: &[(&'static str, Severity)]) -> Scenario {
    let findings = diagnose_workload(&job.facts(), None).findings;
    Scenario {
        name,
        findings,
        expected: expected.to_vec(),
        also: &[],
    }
}

fn healthy(name: &'static str, job: Job) -> Scenario {
    fault(name, job, &[])
}

/// GPUs that get their data in gulps.
fn gulps(m: f64) -> f64 {
    if ((m * 2.0) as u32).is_multiple_of(3) {
        90.0
    } else {
        12.0
    }
}

#[test]
fn faults_are_found_and_nothing_else() {
    use ExitReason::{Error, ImagePull, OomKilled};
    let oom = Oom {
        limit_bytes: Some(32.0 * GIB),
        peak_bytes: Some(32.0 * GIB),
    };
    let all = [
        fault(
            "starved for data: all its CPU in use",
            Job::training(1)
                .course(metric::GPU_UTILIZATION, gulps)
                .level(metric::GPU_POWER, 250.0)
                .level(metric::WORKLOAD_CPU, 31.5),
            &[("bottleneck-data-pipeline", Warning)],
        ),
        fault(
            "starved for data: slow disk",
            Job::training(2)
                .level(metric::GPU_UTILIZATION, 45.0)
                .level(metric::GPU_POWER, 300.0)
                .level(metric::PRESSURE_IO, 55.0)
                .level(metric::REPORTED_DATA_WAIT, 50.0),
            &[("bottleneck-data-pipeline", Warning)],
        ),
        fault(
            "loader stalls, in its own words",
            Job::training(3)
                .level(metric::GPU_UTILIZATION, 50.0)
                .level(metric::GPU_POWER, 300.0)
                .output(&["WARNING data loader stalled for 4.2 s"; 5]),
            &[("loader-stall", Warning), ("bottleneck-data-pipeline", Warning)],
        ),
        fault(
            "bound by GPU memory",
            Job::training(4).level(metric::GPU_MEMORY_BANDWIDTH, 88.0).level(metric::GPU_POWER, 420.0),
            &[("bottleneck-memory-bound", Info)],
        ),
        fault(
            "bound by communication: busy GPUs that wait",
            Job::training(5)
                .level(metric::GPU_POWER, 280.0)
                .level(metric::GPU_MEMORY_BANDWIDTH, 15.0)
                .level(metric::REPORTED_COMMUNICATION, 45.0),
            &[("bottleneck-communication", Warning)],
        ),
        fault(
            "bound by communication: the network is full",
            Job::training(6)
                .level(metric::GPU_POWER, 300.0)
                .level(metric::GPU_MEMORY_BANDWIDTH, 20.0)
                .level(metric::NETWORK_THROUGHPUT, 4.6e10)
                .with(|f| f.network_capacity_bytes_per_second = Some(5e10)),
            &[("bottleneck-communication", Warning)],
        ),
        fault("straggler by its step time", Job::training(7).gang(metric::REPORTED_STEP_TIME, 250.0, 390.0), &[("straggler", Warning)]),
        fault("straggler by its clock", Job::training(8).gang(metric::GPU_CLOCK_SM, 1750.0, 1200.0), &[("straggler", Warning)]),
        fault(
            "crash loop",
            Job::training(9).ended(&[(Error, 1), (Error, 1), (Error, 1), (Error, 1)]),
            &[("crash-loop", Critical)],
        ),
        fault("image-pull loop", Job::training(10).ended(&[(ImagePull, 0), (ImagePull, 0)]), &[("image-pull-loop", Critical)]),
        fault(
            "killed at its memory limit",
            Job::training(11).ended(&[(OomKilled, 137)]).with(|f| f.attempts[0].oom = Some(oom)),
            &[("oom-killed", Critical)],
        ),
        fault(
            "GPU memory ran out",
            Job::training(12)
                .ended(&[(Error, 1)])
                .output(&["Traceback (most recent call last):", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"]),
            &[("cuda-oom", Critical)],
        ),
        fault(
            "collective timed out",
            Job::training(13).ended(&[(Error, 134)]).output(&[
                "[rank3]:[E ProcessGroupNCCL.cpp:607] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9) ran for 600029 milliseconds",
            ]),
            &[("nccl-timeout", Critical)],
        ),
        fault(
            "program's GPU fault",
            Job::training(14).ended(&[(Error, 1)]).output(&["RuntimeError: CUDA error: an illegal memory access was encountered"]),
            &[("cuda-error", Critical)],
        ),
        fault(
            "shared memory too small",
            Job::training(15).ended(&[(Error, 1)]).output(&["RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error."]),
            &[("shm-full", Critical)],
        ),
        fault(
            "image doesn't fit the driver",
            Job::training(16).ended(&[(Error, 1)]).output(&["CUDA driver version is insufficient for CUDA runtime version"]),
            &[("driver-mismatch", Critical)],
        ),
        fault("the loss is no number", Job::training(17).output(&["step 9 loss: nan"; 3]), &[("loss-nan", Warning)]),
        fault("disk full", Job::training(18).ended(&[(Error, 1)]).output(&["OSError: [Errno 28] No space left on device"]), &[("disk-full", Critical)]),
        fault(
            "memory leak toward its limit",
            Job::training(19).course(metric::WORKLOAD_MEMORY, |m| (70.0 + 0.8 * m) * GIB),
            &[("workload-memory-growth", Critical)],
        ),
        fault("holds GPUs and does nothing", Job::training(20).level(metric::GPU_UTILIZATION, 0.0).level(metric::GPU_POWER, 70.0), &[("gpu-idle-held", Warning)]),
        fault("uses two of four GPUs", Job::training(21).of_gpu(2, metric::GPU_UTILIZATION, 0.0).of_gpu(3, metric::GPU_UTILIZATION, 0.0), &[("gpu-unused", Warning)]),
        fault("on a GPU that is too hot", Job::training(22).of_gpu(1, metric::GPU_THROTTLE, 64.0), &[("workload-gpu-throttled", Warning)]),
        fault(
            "slower and slower",
            Job::training(23).course(metric::REPORTED_THROUGHPUT, |m| 1000.0 - 6.0 * m),
            &[("throughput-falling", Warning)],
        ),
        fault(
            "floods its log",
            Job::training(27).level(metric::WORKLOAD_LOG_LINES, 20_000.0).level(metric::WORKLOAD_LOG_BYTES, 4e6),
            &[("log-flood", Info)],
        ),
        fault(
            "long lines are a flood, too",
            Job::training(28).level(metric::WORKLOAD_LOG_LINES, 50.0).level(metric::WORKLOAD_LOG_BYTES, 4e6),
            &[("log-flood", Info)],
        ),
        fault(
            "loses lines of its log",
            Job::training(29).level(metric::WORKLOAD_LOG_LINES, 300.0).course(metric::WORKLOAD_LOG_LOST, |m| if m < 30.0 { 0.0 } else { 5_000.0 }),
            &[("log-flood", Warning)],
        ),
        fault("exit 137 that nobody explains is no OOM", Job::training(24).ended(&[(Error, 137)]), &[("killed", Info)]),
        fault("asks for four times what it uses", Job::training(25).level(metric::WORKLOAD_MEMORY, 20.0 * GIB), &[("memory-over-asked", Info)]),
        fault(
            "GPUs wait, nothing says for what",
            Job::training(26).level(metric::GPU_UTILIZATION, 55.0).level(metric::GPU_POWER, 450.0),
            &[("gpu-underused", Info)],
        ),
        fault(
            "its GPU failed under it",
            Job::training(27).ended(&[(Error, 1)]).xid(&[(2, 48), (1, 94), (1, 45)]),
            &[("gpu-xid-48", Critical)],
        ),
        fault("its own page fault", Job::training(28).ended(&[(Error, 1)]).xid(&[(1, 31), (1, 43)]), &[("gpu-xid-31", Critical)]),
    ];
    assert_all(&all);
}

#[test]
fn busy_but_healthy_workloads_raise_nothing() {
    let all = [
        healthy("computes as fast as it can", Job::training(50)),
        healthy(
            "full load at 83 °C, not slowed down",
            Job::training(51).level(metric::GPU_TEMPERATURE, 83.0),
        ),
        healthy(
            "loads data at the start",
            Job::training(52)
                .course(metric::GPU_UTILIZATION, |m| if m < 59.0 { 0.0 } else { 95.0 })
                .with(|f| f.started_ms = Some(NOW - 4 * MINUTE)),
        ),
        healthy(
            "brief rests between epochs",
            Job::training(53).course(metric::GPU_UTILIZATION, |m| if m % 12.0 < 1.0 { 0.0 } else { 96.0 }),
        ),
        healthy(
            "writes checkpoints in bursts",
            Job::training(54)
                .course(metric::PRESSURE_IO, |m| if m % 15.0 < 2.0 { 90.0 } else { 1.0 })
                .course(metric::GPU_UTILIZATION, |m| if m % 15.0 < 1.0 { 5.0 } else { 96.0 }),
        ),
        healthy(
            "memory high and stable",
            Job::training(55).level(metric::WORKLOAD_MEMORY, 122.0 * GIB),
        ),
        healthy(
            "runs again after one failure",
            Job::training(56).ended(&[(ExitReason::Error, 1)]).with(|f| {
                f.phase = Phase::Running;
            }),
        ),
        healthy(
            "preempted three times",
            Job::training(57).ended(&[(ExitReason::Preempted, 143); 3]),
        ),
        healthy(
            "members of a gang in step",
            Job::training(58).gang(metric::REPORTED_STEP_TIME, 250.0, 252.0),
        ),
        healthy(
            "talks about errors that it doesn't have",
            Job::training(59).output(&[
                "CUDA error checking enabled",
                "NCCL timeout set to 1800 s",
                "0 errors",
                "loss: 2.3",
            ]),
        ),
        healthy(
            "needs no GPU",
            Job::training(60)
                .without(&[
                    metric::GPU_UTILIZATION,
                    metric::GPU_POWER,
                    metric::GPU_POWER_LIMIT,
                    metric::GPU_MEMORY_BANDWIDTH,
                    metric::GPU_MEMORY_USED,
                    metric::GPU_MEMORY_TOTAL,
                    metric::GPU_TEMPERATURE,
                    metric::GPU_CLOCK_SM,
                    metric::GPU_THROTTLE,
                ])
                .with(|f| f.requests.gpus = 0),
        ),
        healthy(
            "ended well",
            Job::training(61).with(|f| {
                f.phase = Phase::Ended;
                f.attempts[0].reason = Some(ExitReason::Completed);
            }),
        ),
    ];
    assert_all(&all);
}

/// The class that is told.
fn class(job: Job) -> (Option<Class>, f64) {
    let b = diagnose_workload(&job.facts(), None).bottleneck;
    (b.class, b.confidence)
}

#[test]
fn the_bottleneck_stands_on_signals() {
    assert_eq!(class(Job::training(1)).0, Some(Class::Compute));
    let well_used = Job::training(2)
        .level(metric::GPU_UTILIZATION, 76.0)
        .level(metric::GPU_POWER, 500.0);
    assert_eq!(class(well_used).0, Some(Class::None));
    let low = || {
        Job::training(3)
            .level(metric::GPU_UTILIZATION, 50.0)
            .level(metric::GPU_POWER, 450.0)
    };
    assert_eq!(class(low()).0, None, "low utilization alone is a question");
    assert_eq!(
        class(low().level(metric::REPORTED_DATA_WAIT, 40.0)).0,
        Some(Class::DataPipeline)
    );
    let waiting = Job::training(4)
        .level(metric::GPU_POWER, 250.0)
        .level(metric::GPU_MEMORY_BANDWIDTH, 15.0);
    assert_ne!(
        class(waiting).0,
        Some(Class::Compute),
        "busy at a third of its power isn't computing"
    );
}

#[test]
fn confidence_falls_where_signals_are_missing() {
    let all = class(Job::training(1)).1;
    let fewer = class(Job::training(1).without(&[metric::GPU_MEMORY_BANDWIDTH])).1;
    let fewest = class(Job::training(1).without(&[metric::GPU_MEMORY_BANDWIDTH, metric::GPU_POWER])).1;
    assert!(all > fewer && fewer > fewest, "{all} {fewer} {fewest}");
    assert_eq!(class(Job::training(1).without(&[metric::GPU_UTILIZATION])), (None, 0.0));
}

#[test]
fn uneven_jobs_raise_nothing_whatever_the_seed() {
    // Levels that forget where they were after ten minutes or so, now as in the five hours before.
    let wander = |mut job: Job, name: &'static str, middle: f64, spread: f64, highest: f64, seed: u64| {
        let mut random = Random(seed);
        let mut away = random.normal();
        let keep: f64 = 0.95;
        let mut next = |_: f64| {
            away = away * keep + random.normal() * (1.0 - keep * keep).sqrt();
            (middle + spread * away).clamp(0.0, highest)
        };
        let past = Series::new(name, span(5 * HOUR, STEP, NOW - HOUR - STEP, &mut next));
        let mut history: Vec<Series> = job.facts.history.into();
        history.push(past);
        job.facts.history = SeriesSet::from(history);
        let points: Vec<f64> = (0..=120).map(|_| next(0.0)).collect();
        job.course(name, move |m| points[(m * 2.0) as usize])
    };
    let wrong: Vec<String> = (0..40)
        .flat_map(|seed| {
            let job = Job::training(seed);
            let job = wander(job, metric::GPU_UTILIZATION, 90.0, 6.0, 100.0, seed);
            let job = wander(job, metric::GPU_POWER, 600.0, 50.0, 700.0, seed + 100);
            let job = wander(job, metric::WORKLOAD_CPU, 16.0, 5.0, 32.0, seed + 200);
            let job = wander(
                job,
                metric::WORKLOAD_MEMORY,
                80.0 * GIB,
                8.0 * GIB,
                120.0 * GIB,
                seed + 300,
            );
            let job = wander(job, metric::REPORTED_THROUGHPUT, 1000.0, 60.0, 2000.0, seed + 400);
            let findings = diagnose_workload(&job.facts(), None).findings;
            findings
                .into_iter()
                .filter(|f| f.severity >= Warning)
                .map(move |f| format!("{seed}: {} {}", f.id, f.evidence[0].text))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn without_data_nothing_is_known_and_nothing_is_found() {
    let facts = WorkloadFacts {
        id: "wl-1".into(),
        now_ms: NOW,
        window_ms: HOUR,
        phase: Phase::Running,
        requests: Requests {
            gpus: 1,
            ..Requests::default()
        },
        ..WorkloadFacts::default()
    };
    let d = diagnose_workload(&facts, None);
    assert_eq!(
        (d.status, d.findings.len(), d.bottleneck.class),
        (Status::Unknown, 0, None)
    );
    assert_eq!(d.stragglers, None);
    assert_eq!(d.performance.throughput, None);
    assert!(
        d.bottleneck
            .signals
            .iter()
            .filter(|s| s.metric != "output")
            .all(|s| s.holds.is_none())
    );
}

#[test]
fn any_metric_may_be_missing() {
    let names: std::collections::BTreeSet<String> =
        Job::training(2).series.iter().map(|s| s.metric.to_string()).collect();
    for name in names {
        let d = diagnose_workload(&Job::training(2).without(&[&name]).facts(), None);
        let worst = d.findings.iter().map(|f| f.severity).max();
        assert!(worst < Some(Warning), "without {name}: {:?}", d.findings);
    }
}

#[test]
fn a_run_is_put_beside_another() {
    let baseline = || Job::training(1).with(|f| f.id = "wl-old".into()).facts();
    let beside = |job: Job| diagnose_workload(&job.facts(), Some(&baseline()));
    let verdict = |job: Job, name: &str| {
        let c = beside(job).comparison.unwrap();
        c.changes.into_iter().find(|c| c.metric == name).map(|c| c.verdict)
    };
    let throughput = metric::REPORTED_THROUGHPUT;
    assert_eq!(verdict(Job::training(2), throughput), Some(Verdict::Same));
    assert_eq!(
        verdict(Job::training(2).level(throughput, 1020.0), throughput),
        Some(Verdict::Same),
        "sure, and too little"
    );
    assert_eq!(
        verdict(Job::training(2).level(throughput, 1200.0), throughput),
        Some(Verdict::Better)
    );
    assert_eq!(
        verdict(Job::training(2).level(throughput, 800.0), throughput),
        Some(Verdict::Worse)
    );
    assert_eq!(
        verdict(Job::training(2).level(metric::GPU_POWER, 400.0), metric::GPU_POWER),
        Some(Verdict::Different)
    );
    assert_eq!(verdict(Job::training(2).without(&[throughput]), throughput), None);
    let short = Job::training(2).with(|f| f.window_ms = 3 * MINUTE);
    assert_eq!(verdict(short, throughput), Some(Verdict::Insufficient));
    let slower = beside(Job::training(2).level(throughput, 800.0).with(|f| f.requests.gpus = 2));
    assert!(
        slower
            .findings
            .iter()
            .any(|f| f.id == "slower-than-baseline" && f.evidence[0].method.is_some())
    );
    assert_eq!(slower.comparison.unwrap().differences, ["2 GPUs instead of 4"]);
}

#[test]
fn recommendations_name_the_command() {
    let oom = Oom {
        limit_bytes: Some(32.0 * GIB),
        peak_bytes: Some(32.0 * GIB),
    };
    let job = Job::training(11)
        .ended(&[(ExitReason::OomKilled, 137)])
        .with(|f| f.attempts[0].oom = Some(oom));
    let d = diagnose_workload(&job.level(metric::WORKLOAD_MEMORY, 20.0 * GIB).facts(), None);
    assert_eq!(
        d.recommendations[0].command,
        "clawbernetes workload update wl-train --memory 48Gi"
    );
    let hot = diagnose_workload(&Job::training(22).of_gpu(1, metric::GPU_THROTTLE, 64.0).facts(), None);
    assert_eq!(hot.recommendations[0].command, "clawbernetes workload migrate wl-train");
    let starved = Job::training(1)
        .course(metric::GPU_UTILIZATION, gulps)
        .level(metric::GPU_POWER, 250.0)
        .level(metric::WORKLOAD_CPU, 31.5);
    let d = diagnose_workload(&starved.facts(), None);
    assert_eq!(
        d.recommendations[0].command,
        "clawbernetes run --file workload.yaml --cpus 64"
    );
}

#[test]
fn a_diagnosis_is_read_back_from_json() {
    let facts = Job::training(7).gang(metric::REPORTED_STEP_TIME, 250.0, 390.0).facts();
    let d = diagnose_workload(&facts, Some(&facts));
    let text = serde_json::to_string(&d).unwrap();
    let back: diagnosis::WorkloadDiagnosis = serde_json::from_str(&text).unwrap();
    assert_eq!(back.findings.len(), d.findings.len());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["bottleneck"]["class"], "compute");
    assert_eq!(json["findings"][0]["target"]["kind"], "rank");
    assert!(json["resources"]["memoryLimitBytes"].is_number());
}
