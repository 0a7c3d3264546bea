//! What the metric store costs, beside Prometheus fed with the same samples in the same run.
//!
//! `cargo bench -p clawbernetes-telemetry --bench metrics` for the figures: 1,000 nodes x 8 GPUs x 10 metrics, six
//! hours at ten seconds; then a tenth of the nodes, again into the store, and by remote write into the
//! `prometheus` on the path if there is one. `-- --millions` adds two million series for five minutes.
//! `-- --quick` (and `cargo test --benches`) only shows that it runs. Nothing is asserted as a time.
//!
//! CPU is that of the process without the generator's; Prometheus' includes HTTP and decoding, the store's doesn't.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends where something fails, and prints its figures"
)]

mod prometheus;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use telemetry::metrics::{Aggregate, Matcher, MetricStore, Options, Sample, SeriesId};

use prometheus::Prometheus;

const START_MS: i64 = 1_795_392_000_000;
const STEP_MS: i64 = 10_000;
const GPUS: usize = 8;
const METRICS: [&str; 10] = [
    "gpu.utilization",
    "gpu.temperature",
    "gpu.power",
    "gpu.memory.used",
    "gpu.memory.total",
    "gpu.memory.utilization",
    "gpu.clock.sm",
    "gpu.energy",
    "gpu.pcie.tx",
    "gpu.ecc.uncorrected",
];
/// Series of a node.
const NODE: usize = GPUS * METRICS.len();

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal, deviation 1.
    fn normal(&mut self) -> f64 {
        let word = self.next();
        let sum: u64 = (0..4).map(|n| (word >> (n * 16)) & 0xffff).sum();
        (sum as f64 / 65_536.0 - 2.0) * 1.732
    }
}

/// A GPU whose jobs come and go, as NVML would read it: whole percents, degrees, milliwatts, bytes.
struct Gpu {
    busy: bool,
    temperature: f64,
    energy_mj: f64,
    used_mib: f64,
}

impl Gpu {
    fn new(random: &mut Random) -> Self {
        Self {
            busy: random.share() < 0.7,
            temperature: 45.0,
            energy_mj: (random.share() * 1e12).round(),
            used_mib: (random.share() * 70_000.0).floor(),
        }
    }

    /// Ten seconds later.
    fn step(&mut self, random: &mut Random) -> [f64; METRICS.len()] {
        if random.share() < 0.003 {
            self.busy = !self.busy;
            self.used_mib = (random.share() * 70_000.0).floor();
        }
        let (utilization, watts, ambient) = if self.busy {
            (
                (97.0 + 2.0 * random.normal()).clamp(0.0, 100.0),
                620.0 + 12.0 * random.normal(),
                68.0,
            )
        } else {
            (0.0, 72.0 + 0.6 * random.normal(), 34.0)
        };
        self.temperature += (ambient - self.temperature) * 0.05 + 0.15 * random.normal();
        self.energy_mj += (watts * 10_000.0).round();
        let busy = f64::from(u8::from(self.busy));
        let throttled = if random.share() < 0.2 { 15.0 } else { 0.0 };
        [
            utilization.round(),
            self.temperature.round(),
            (watts * 1000.0).round() / 1000.0,
            busy * self.used_mib * 1_048_576.0,
            85_520_809_984.0,
            (utilization * 0.6).round(),
            if self.busy { 1980.0 - throttled } else { 345.0 },
            self.energy_mj,
            busy * (9e6 + 4e5 * random.normal()).round() * 1024.0,
            0.0,
        ]
    }
}

/// Nodes that each report all of their GPUs every ten seconds, at a time of their own.
struct Fleet {
    random: Random,
    gpus: Vec<Gpu>,
    phases: Vec<i64>,
}

impl Fleet {
    fn new(nodes: usize) -> Self {
        let mut random = Random(0x5eed_0000_0000_0001);
        Self {
            gpus: (0..nodes * GPUS).map(|_| Gpu::new(&mut random)).collect(),
            phases: (0..nodes).map(|_| (random.next() % 10_000) as i64).collect(),
            random,
        }
    }

    /// Time and values of a node's row; a few ms early or late.
    fn row(&mut self, row: i64, node: usize, values: &mut Vec<f64>) -> i64 {
        values.clear();
        for gpu in &mut self.gpus[node * GPUS..(node + 1) * GPUS] {
            values.extend_from_slice(&gpu.step(&mut self.random));
        }
        START_MS + row * STEP_MS + self.phases[node] + (self.random.next() % 20) as i64
    }
}

/// Name and labels of a node's series, in the order of a row.
fn labels(node: usize, at: usize) -> (&'static str, [(&'static str, String); 4]) {
    let (gpu, metric) = (at / METRICS.len(), at % METRICS.len());
    let labels = [
        ("node", format!("gpu-{node:05}")),
        ("gpu", gpu.to_string()),
        (
            "uuid",
            format!("GPU-{:016x}", (node * GPUS + gpu) as u64 ^ 0x9e37_79b9_7f4a_7c15),
        ),
        ("model", "NVIDIA H100 80GB HBM3".to_owned()),
    ];
    (METRICS[metric], labels)
}

/// CPU time of a process, all threads.
fn cpu(pid: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(12) + ticks(13)) * 10)
}

/// CPU time of this thread.
fn own_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// Memory of a process now, MB.
fn memory(pid: &str, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|kib| kib.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e6
}

fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return fs::metadata(dir).map_or(0, |meta| meta.len());
    };
    entries.flatten().map(|entry| folder_bytes(&entry.path())).sum()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Reports the median of the time that `work` takes, and the mean of its CPU, over `rounds`.
fn timed(what: &str, pid: &str, rounds: usize, mut work: impl FnMut()) {
    work();
    let before = cpu(pid);
    let once = |_| {
        let since = Instant::now();
        work();
        since.elapsed()
    };
    let wall = median((0..rounds).map(once).collect());
    let busy = cpu(pid).saturating_sub(before).as_secs_f64() * 1e3 / rounds as f64;
    println!("  {what:<54} {wall:>12.3} ms, of CPU {busy:.3} ms");
}

fn report(what: &str, figure: f64, unit: &str) {
    println!("  {what:<54} {figure:>12.3} {unit}");
}

/// Runs `nodes` for `rows` through a store, then asks it.
fn embedded(dir: &Path, nodes: usize, rows: i64, rounds: usize) {
    let mut fleet = Fleet::new(nodes);
    let before = memory("self", "VmRSS");
    let now = Arc::new(AtomicI64::new(START_MS));
    let clock = Arc::clone(&now);
    let options = Options {
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        ..Options::default()
    };
    let store = MetricStore::open(dir, options).unwrap();
    let since = Instant::now();
    let ids: Vec<SeriesId> = (0..nodes * NODE)
        .map(|at| {
            let (name, labels) = labels(at / NODE, at % NODE);
            let labels = labels.each_ref().map(|(label, value)| (*label, value.as_str()));
            store.series(name, &labels).unwrap()
        })
        .collect();
    let series = ids.len() as f64;
    println!("store, {} series, {rows} samples each", ids.len());
    report("naming a series", since.elapsed().as_secs_f64() * 1e6 / series, "us");
    report(
        "memory for names alone",
        (memory("self", "VmRSS") - before) * 1e6 / series,
        "bytes/series",
    );
    let (mut values, mut batch) = (Vec::new(), Vec::new());
    let mut generating = Duration::ZERO;
    let mut longest = Duration::ZERO;
    let (since, cpu_before) = (Instant::now(), cpu("self"));
    for row in 0..rows {
        for (node, ids) in ids.chunks_exact(NODE).enumerate() {
            let started = own_cpu();
            let at_ms = fleet.row(row, node, &mut values);
            batch.clear();
            batch.extend(
                ids.iter()
                    .zip(&values)
                    .map(|(&series, &value)| Sample { series, at_ms, value }),
            );
            generating += own_cpu() - started;
            let called = Instant::now();
            now.store(at_ms, Ordering::Relaxed);
            assert_eq!(store.append(&batch).unwrap().stored, NODE as u64);
            longest = longest.max(called.elapsed());
        }
    }
    let wall = since.elapsed();
    let peak = memory("self", "VmRSS");
    store.settle().unwrap();
    let busy = cpu("self").saturating_sub(cpu_before).saturating_sub(generating);
    let samples = series * rows as f64;
    let usage = store.usage();
    assert_eq!(usage.samples as f64, samples);
    report("ingest", samples / busy.as_secs_f64() / 1e3, "k samples/CPU-s");
    report(
        "ingest, wall, generator included",
        samples / wall.as_secs_f64() / 1e3,
        "k samples/s",
    );
    report(
        "longest append of 80 (waits for the disk included)",
        longest.as_secs_f64() * 1e3,
        "ms",
    );
    report(
        "on disk, all of the folder",
        folder_bytes(dir) as f64 / samples,
        "bytes/sample",
    );
    report("  raw / roll-ups", usage.raw_bytes as f64 / samples, "bytes/sample");
    report("", usage.rollup_bytes as f64 / samples, "bytes/sample");
    report("memory after ingest, this process", peak, "MB");
    report("  of it the generator's and before", before, "MB");
    report("  most so far", memory("self", "VmHWM"), "MB");
    let to_ms = START_MS + rows * STEP_MS;
    let from_ms = to_ms - 3_600_000;
    let name = Matcher::name("gpu.utilization");
    let node = Matcher::eq("node", "gpu-00007");
    let (named, on_node, both) = ([name.clone()], [node.clone()], [name, node]);
    let ask = |matchers: &[Matcher], step_ms, wanted: usize| {
        let answer = store
            .windows(matchers, from_ms, to_ms, step_ms, Aggregate::Avg)
            .unwrap();
        assert_eq!(answer.series.len(), wanted);
    };
    let hour = 3_600_000;
    let what = format!("one-hour average of {} series", nodes * GPUS);
    timed(&what, "self", rounds, || ask(&named, hour, nodes * GPUS));
    timed("  in minutes", "self", rounds, || ask(&named, 60_000, nodes * GPUS));
    timed("of one node's 8", "self", rounds * 50, || ask(&both, hour, 8));
    timed("of one node's 80", "self", rounds * 50, || ask(&on_node, hour, 80));
    let all = |step_ms| {
        let answer = store.windows(&both, START_MS, to_ms, step_ms, Aggregate::Max).unwrap();
        assert_eq!(answer.series.len(), 8);
    };
    timed("all hours of one node's 8, in minutes", "self", rounds, || all(60_000));
    report("memory after queries", memory("self", "VmRSS"), "MB");
    let since = Instant::now();
    store.close().unwrap();
    report("close", since.elapsed().as_secs_f64() * 1e3, "ms");
    let since = Instant::now();
    let store = MetricStore::open(dir, Options::default()).unwrap();
    report("open", since.elapsed().as_secs_f64() * 1e3, "ms");
    assert_eq!(store.usage().samples as f64, samples);
}

/// The same through Prometheus.
fn beside(dir: &Path, nodes: usize, rows: i64, rounds: usize) {
    let Some(mut prometheus) = Prometheus::start(dir) else {
        println!("prometheus is not installed (Debian: apt-get install prometheus): nothing beside the store");
        return;
    };
    let series = nodes * NODE;
    println!(
        "{}, {series} series, {rows} samples each, by remote write",
        prometheus.version()
    );
    let mut fleet = Fleet::new(nodes);
    let heads: Vec<Vec<u8>> = (0..series)
        .map(|at| {
            let (name, labels) = labels(at / NODE, at % NODE);
            prometheus::labels(name, &labels)
        })
        .collect();
    let mut values = Vec::new();
    let pid = prometheus.pid();
    let cpu_before = cpu(&pid);
    let since = Instant::now();
    // As many samples a request as Prometheus itself sends.
    const NODES_A_REQUEST: usize = 6;
    for row in 0..rows {
        let mut body = Vec::new();
        for node in 0..nodes {
            let at_ms = fleet.row(row, node, &mut values);
            for (head, value) in heads[node * NODE..].iter().zip(&values) {
                prometheus::series(&mut body, head, at_ms, *value);
            }
            if node % NODES_A_REQUEST == NODES_A_REQUEST - 1 || node + 1 == nodes {
                prometheus.write(&body);
                body.clear();
            }
        }
    }
    let wall = since.elapsed();
    let busy = cpu(&pid).saturating_sub(cpu_before);
    let samples = series as f64 * rows as f64;
    report("ingest", samples / busy.as_secs_f64() / 1e3, "k samples/CPU-s");
    report("ingest, wall", samples / wall.as_secs_f64() / 1e3, "k samples/s");
    report(
        "on disk, log included",
        folder_bytes(dir) as f64 / samples,
        "bytes/sample",
    );
    report("memory after ingest", memory(&pid, "VmRSS"), "MB");
    let at = (START_MS + rows * STEP_MS) / 1000;
    let what = format!("one-hour average of {} series", nodes * GPUS);
    let all = "avg(avg_over_time(gpu_utilization[1h]))";
    timed(&what, &pid, rounds, || prometheus.query(all, at));
    let node = r#"avg_over_time(gpu_utilization{node="gpu-00007"}[1h])"#;
    timed("of one node's 8", &pid, rounds * 50, || prometheus.query(node, at));
    // An average would drop the names that tell them apart.
    let node = r#"last_over_time({node="gpu-00007"}[1h])"#;
    timed("the same of its 80, the last value", &pid, rounds * 50, || {
        prometheus.query(node, at)
    });
    report("memory after queries", memory(&pid, "VmRSS"), "MB");
}

fn main() {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let quick = has("--quick") || !has("--bench");
    let root = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or_else(|| "/var/tmp".into())).unwrap();
    let dir = |name: &str| {
        let dir = root.path().join(name);
        fs::create_dir(&dir).unwrap();
        dir
    };
    println!("metric store{}", if quick { " (quick)" } else { "" });
    if quick {
        embedded(&dir("quick"), 10, 400, 2);
        return beside(&dir("prometheus"), 10, 400, 2);
    }
    embedded(&dir("fleet"), 1000, 6 * 360, 21);
    embedded(&dir("tenth"), 100, 6 * 360, 21);
    beside(&dir("prometheus"), 100, 6 * 360, 21);
    if has("--millions") {
        embedded(&dir("millions"), 25_000, 30, 5);
    }
}
