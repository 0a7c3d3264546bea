//! What the metric store costs, beside Prometheus and VictoriaMetrics fed with the same samples in the same run.
//!
//! `cargo bench -p clawbernetes-telemetry --bench metrics` for the figures: 1,000 nodes x 8 GPUs x 10 metrics, six
//! hours at ten seconds; then a tenth of the nodes, again into the store, and by remote write into the
//! `prometheus` on the path if there is one. `-- --millions` adds two million series for five minutes.
//! `-- --references` instead gives all of 1,000 nodes to the store, to `victoria-metrics` and to `prometheus`, as far as
//! they are installed, and asks each the same: half an hour (`--nodes 100` for a tenth). `-- --quick` (and `cargo test --benches`) only shows that
//! it runs. Nothing is asserted as a time.
//!
//! CPU is that of the process without the generator's; the others' includes HTTP and decoding, the store's doesn't. They
//! get a minute's samples of a series at once, which costs them less than one at a time.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends where something fails, and prints its figures"
)]

mod reference;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use telemetry::metrics::{Aggregate, Matcher, MetricError, MetricStore, Options, Sample, Series, SeriesId};
use telemetry::promql::{self, Answer, Limits, Query};

use reference::Reference;

const START_MS: i64 = 1_795_392_000_000;
const STEP_MS: i64 = 10_000;
const GPUS: usize = 8;
const METRICS: [&str; 10] = [
    "gpu_utilization",
    "gpu_temperature",
    "gpu_power",
    "gpu_memory_used",
    "gpu_memory_total",
    "gpu_memory_utilization",
    "gpu_clock_sm",
    "gpu_energy",
    "gpu_pcie_tx",
    "gpu_ecc_uncorrected",
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

/// Reports the middle and the 99th percentile of the time that `work` takes, and the mean of its CPU, over `rounds`.
fn timed(what: &str, pid: &str, rounds: usize, mut work: impl FnMut()) {
    work();
    let before = cpu(pid);
    let once = |_| {
        let since = Instant::now();
        work();
        since.elapsed()
    };
    let mut times: Vec<Duration> = (0..rounds).map(once).collect();
    times.sort_unstable();
    let share = |hundredths: usize| times[(rounds * hundredths / 100).min(rounds - 1)].as_secs_f64() * 1e3;
    let busy = cpu(pid).saturating_sub(before).as_secs_f64() * 1e3 / rounds as f64;
    println!(
        "  {what:<54} {:>12.3} ms, p99 {:.3} ms, of CPU {busy:.3} ms",
        share(50),
        share(99)
    );
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
        // As many as Prometheus reads for a query: six hours of 8,000 series are 17 million.
        query_points_max: 50_000_000,
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
    let name = Matcher::name("gpu_utilization");
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
    typical(rounds, nodes, rows, "self", |question| question.ask_store(&store));
    report("memory after queries", memory("self", "VmRSS"), "MB");
    let since = Instant::now();
    store.close().unwrap();
    report("close", since.elapsed().as_secs_f64() * 1e3, "ms");
    let since = Instant::now();
    let store = MetricStore::open(dir, Options::default()).unwrap();
    report("open", since.elapsed().as_secs_f64() * 1e3, "ms");
    assert_eq!(store.usage().samples as f64, samples);
}

/// A question in PromQL.
struct Question {
    what: String,
    expression: String,
    from_ms: i64,
    to_ms: i64,
    /// `None`: at the end alone.
    step_ms: Option<i64>,
    /// How many series the answer has.
    series: usize,
}

struct Plain<'a>(&'a MetricStore);

impl promql::Source for Plain<'_> {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Series>, MetricError> {
        self.0.select(matchers, from_ms, to_ms)
    }
}

impl Question {
    fn ask_store(&self, store: &MetricStore) {
        let limits = Limits {
            samples: 50_000_000,
            points: 50_000_000,
            deadline: Instant::now() + Duration::from_secs(600),
        };
        let query = Query::parse(&self.expression).unwrap();
        let answer = match self.step_ms {
            None => query.instant(&Plain(store), self.to_ms, &limits),
            Some(step_ms) => query.range(&Plain(store), (self.from_ms, self.to_ms), step_ms, &limits),
        };
        let series = match answer.unwrap() {
            Answer::Vector(rows) => rows.len(),
            Answer::Matrix(rows) => rows.len(),
            Answer::Scalar(_) | Answer::Text(_) => 0,
        };
        assert_eq!(series, self.series, "{}", self.expression);
    }

    fn ask(&self, reference: &mut Reference) {
        match self.step_ms {
            None => reference.query(&self.expression, self.to_ms / 1000),
            Some(step_ms) => {
                let range = (self.from_ms / 1000, self.to_ms / 1000);
                reference.range(&self.expression, range, step_ms / 1000);
            }
        }
    }
}

/// Times six typical questions.
fn typical(rounds: usize, nodes: usize, rows: i64, pid: &str, mut ask: impl FnMut(&Question)) {
    let to_ms = START_MS + rows * STEP_MS;
    let question = |what: &str, expression: &str, series, step_ms| Question {
        what: what.to_owned(),
        expression: expression.to_owned(),
        from_ms: START_MS + 60_000,
        to_ms,
        step_ms,
        series,
    };
    let hundred = nodes.min(100);
    let all = [
        question(
            &format!("PromQL: one-hour average of {} series", nodes * GPUS),
            "avg(avg_over_time(gpu_utilization[1h]))",
            1,
            None,
        ),
        question(
            "PromQL: of one node's 8",
            r#"avg_over_time(gpu_utilization{node="gpu-00007"}[1h])"#,
            8,
            None,
        ),
        question(
            "PromQL: each node's maximum of six hours",
            "max by (node) (max_over_time(gpu_temperature[6h]))",
            nodes,
            None,
        ),
        question(
            "PromQL: each node's rate of five minutes",
            "sum by (node) (rate(gpu_energy[5m]))",
            nodes,
            None,
        ),
        question(
            &format!("PromQL: 95th percentile of an hour of {}", hundred * GPUS),
            r#"quantile_over_time(0.95, gpu_power{node=~"gpu-000.*"}[1h])"#,
            hundred * GPUS,
            None,
        ),
        question(
            "PromQL: six hours of one node's 8, in minutes",
            r#"avg_over_time(gpu_utilization{node="gpu-00007"}[1m])"#,
            8,
            Some(60_000),
        ),
    ];
    for question in all {
        timed(&question.what, pid, rounds, || ask(&question));
    }
}

/// The same through another server.
fn beside(reference: Option<Reference>, name: &str, dir: &Path, nodes: usize, rows: i64, rounds: usize) {
    let Some(mut reference) = reference else {
        println!("{name} is not installed (Debian: apt-get install {name}): nothing of it beside the store");
        return;
    };
    let series = nodes * NODE;
    println!(
        "{}, {series} series, {rows} samples each, by remote write",
        reference.version()
    );
    let mut fleet = Fleet::new(nodes);
    let heads: Vec<Vec<u8>> = (0..series)
        .map(|at| {
            let (name, labels) = labels(at / NODE, at % NODE);
            reference::labels(name, &labels)
        })
        .collect();
    let pid = reference.pid();
    let cpu_before = cpu(&pid);
    let since = Instant::now();
    // A minute of some nodes: somewhat more samples a request than Prometheus itself sends.
    const ROWS_A_REQUEST: i64 = 6;
    const NODES_A_REQUEST: usize = 6;
    let mut times = vec![Vec::new(); nodes];
    let mut values = vec![Vec::new(); nodes];
    let mut row_values = Vec::new();
    for row in 0..rows {
        for node in 0..nodes {
            times[node].push(fleet.row(row, node, &mut row_values));
            values[node].extend_from_slice(&row_values);
        }
        if (row + 1) % ROWS_A_REQUEST != 0 && row + 1 < rows {
            continue;
        }
        let mut body = Vec::new();
        for node in 0..nodes {
            for (at, head) in heads[node * NODE..(node + 1) * NODE].iter().enumerate() {
                let column = values[node].iter().skip(at).step_by(NODE);
                let samples = times[node].iter().copied().zip(column.copied());
                reference::series(&mut body, head, samples);
            }
            times[node].clear();
            values[node].clear();
            if node % NODES_A_REQUEST == NODES_A_REQUEST - 1 || node + 1 == nodes {
                reference.write(&body);
                body.clear();
            }
        }
    }
    let wall = since.elapsed();
    reference.settle();
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
    report("  most so far", memory(&pid, "VmHWM"), "MB");
    typical(rounds, nodes, rows, &pid, |question| question.ask(&mut reference));
    report("memory after queries", memory(&pid, "VmRSS"), "MB");
    report(
        "on disk then, log included",
        folder_bytes(dir) as f64 / samples,
        "bytes/sample",
    );
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
    let prometheus = |dir: &Path, nodes, rows, rounds| {
        beside(Reference::prometheus(dir), "prometheus", dir, nodes, rows, rounds);
    };
    let victoria = |dir: &Path, nodes, rows, rounds| {
        beside(Reference::victoria(dir), "victoria-metrics", dir, nodes, rows, rounds);
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average {}", load.trim());
    if quick {
        embedded(&dir("quick"), 10, 400, 2);
        prometheus(&dir("prometheus"), 10, 400, 2);
        return victoria(&dir("victoria"), 10, 400, 2);
    }
    if has("--references") {
        let nodes = std::env::args().skip_while(|arg| arg != "--nodes").nth(1);
        let nodes = nodes.map_or(1000, |nodes| nodes.parse().unwrap());
        embedded(&dir("fleet"), nodes, 6 * 360, 21);
        victoria(&dir("victoria"), nodes, 6 * 360, 21);
        return prometheus(&dir("prometheus"), nodes, 6 * 360, 21);
    }
    embedded(&dir("fleet"), 1000, 6 * 360, 21);
    embedded(&dir("tenth"), 100, 6 * 360, 21);
    prometheus(&dir("prometheus"), 100, 6 * 360, 21);
    if has("--millions") {
        embedded(&dir("millions"), 25_000, 30, 5);
    }
}
