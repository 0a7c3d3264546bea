//! What the log store costs, beside bare append + fdatasync on the same disk in the same run.
//!
//! `cargo bench -p clawbernetes-telemetry` for the figures; `-- --quick` (and `cargo test --benches`) only
//! shows that it runs. Nothing is asserted as a time.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends where something fails, and prints its figures"
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use telemetry::logs::{Chunk, Level, Line, LogStore, Options, Query, Search, Source, StreamId};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

fn stream(workload: String) -> StreamId {
    StreamId {
        workload,
        attempt: 1,
        rank: 0,
    }
}

/// About 100 bytes as a training job writes them.
fn line(number: u64) -> Line {
    let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let text = format!(
        "step {number:>8} loss {}.{:06} lr 3.0e-4 grad_norm 0.{:05} tokens/s {:>6} mem 71.{:02} GiB eta 1:{:02}:{:02} ok..",
        noise % 3,
        noise % 999_983,
        noise % 99_991,
        120_000 + noise % 7919,
        noise % 97,
        noise % 59,
        noise % 53,
    );
    Line {
        number,
        at_ns: 1_795_000_000_000_000_000 + number as i64 * 1_003_517,
        source: Source::Stdout,
        text: text.into(),
        partial: false,
    }
}

fn lines(from: u64, count: u64) -> Vec<Line> {
    (from..from + count).map(line).collect()
}

/// CPU time of this process, all threads.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(12) + ticks(13)) * 10)
}

struct Measured {
    wall: Duration,
    cpu: Duration,
}

fn measure(work: impl FnOnce()) -> Measured {
    let (started, before) = (Instant::now(), cpu());
    work();
    Measured {
        wall: started.elapsed(),
        cpu: cpu().saturating_sub(before),
    }
}

fn report(what: &str, count: u64, unit: &str, m: &Measured) {
    println!(
        "{what:<46} {:>10.0} {unit}/s   {:>8.2} us CPU/{unit}",
        count as f64 / m.wall.as_secs_f64(),
        m.cpu.as_secs_f64() * 1e6 / count as f64,
    );
}

fn bare(dir: &Path, batches: u64) {
    let mut file = File::create(dir.join("bare")).unwrap();
    let batch = vec![b'x'; 10_000];
    let m = measure(|| {
        for _ in 0..batches {
            file.write_all(&batch).unwrap();
            file.sync_data().unwrap();
        }
    });
    report("bare append + fdatasync, 10 kB", batches, "sync", &m);
    report("  the same, as lines of 100 bytes", batches * 100, "line", &m);
}

/// `appenders` tasks, each with its own stream, `batches` batches of `size` lines.
fn ingest(runtime: &Runtime, dir: &Path, appenders: u64, batches: u64, size: u64) -> Measured {
    let store = Arc::new(LogStore::open(dir, Options::default()).unwrap());
    // Made before the clock starts: the store is measured, not `format!`.
    let made: Vec<Vec<Vec<Line>>> = (0..appenders)
        .map(|_| (0..batches).map(|b| lines(1 + b * size, size)).collect())
        .collect();
    measure(|| {
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (appender, batches) in made.into_iter().enumerate() {
                let store = Arc::clone(&store);
                tasks.spawn(async move {
                    let id = stream(format!("job-{appender}"));
                    for batch in batches {
                        store.append(vec![(id.clone(), batch)]).await.unwrap();
                    }
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        });
        drop(store);
    })
}

/// Jobs of two lines and an end, `clients` at a time.
fn trivial_jobs(runtime: &Runtime, dir: &Path, jobs: u64, clients: u64) -> Measured {
    let store = Arc::new(LogStore::open(dir, Options::default()).unwrap());
    let m = measure(|| {
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for client in 0..clients {
                let store = Arc::clone(&store);
                tasks.spawn(async move {
                    for job in 0..jobs / clients {
                        let id = stream(format!("wl-{client}-{job}"));
                        let chunk = Chunk {
                            stream: id,
                            lines: lines(1, 2),
                            end: Some(2),
                        };
                        store.append([chunk]).await.unwrap();
                    }
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        });
    });
    let usage = store.usage();
    println!(
        "  {} jobs: {:.0} bytes/job stored, {:.0} in the file",
        usage.streams,
        usage.stored_bytes as f64 / usage.streams as f64,
        usage.file_bytes as f64 / usage.streams as f64,
    );
    m
}

fn quantiles(what: &str, rounds: usize, mut work: impl FnMut(usize)) {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|round| {
            let started = Instant::now();
            work(round);
            started.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "{what:<46} p50 {:>8.1} us   p99 {:>8.1} us",
        times[rounds / 2].as_secs_f64() * 1e6,
        times[rounds * 99 / 100].as_secs_f64() * 1e6,
    );
}

fn long_stream(runtime: &Runtime, dir: &Path, count: u64, rounds: usize) {
    let store = LogStore::open(dir, Options::default()).unwrap();
    let id = stream("long".into());
    let text_bytes = line(1).text.len() as u64;
    runtime.block_on(async {
        for from in (1..=count).step_by(400) {
            let batch = vec![(id.clone(), lines(from, 400.min(count + 1 - from)))];
            store.append(batch).await.unwrap();
        }
    });
    drop(store);
    let store = LogStore::open(dir, Options::default()).unwrap();
    // Until the background has merged what is left.
    let mut before = 0;
    while before != store.usage().stored_bytes {
        before = store.usage().stored_bytes;
        std::thread::sleep(Duration::from_millis(300));
    }
    // A copy of the open file is what a crash leaves.
    let crashed = dir.join("crashed");
    fs::create_dir(&crashed).unwrap();
    fs::copy(dir.join("logs.redb"), crashed.join("logs.redb")).unwrap();
    let started = Instant::now();
    let copy = LogStore::open(&crashed, Options::default()).unwrap();
    let reopened = started.elapsed();
    assert_eq!(copy.usage().lines, count);
    drop(copy);
    let usage = store.usage();
    println!(
        "opened after a crash: {} MB in {:.1} ms",
        usage.file_bytes / 1_000_000,
        reopened.as_secs_f64() * 1e3,
    );
    println!(
        "stream of {count} lines of {text_bytes} bytes: {:.1} bytes/line stored, {:.1} in the file",
        usage.stored_bytes as f64 / count as f64,
        usage.file_bytes as f64 / count as f64,
    );
    for tail in [10, 1000] {
        quantiles(&format!("  tail {tail}"), rounds, |_| {
            let query = Query {
                tail: Some(tail),
                ..Query::default()
            };
            let page = store.read("long", &query).unwrap();
            assert_eq!(page.entries.len() as u64, tail.min(count));
        });
    }
    quantiles("  since a random time, 100 lines", rounds, |round| {
        let at = line(1 + round as u64 * 7919 % (count - 100)).at_ns;
        let query = Query {
            since_ns: Some(at),
            limit: 100,
            ..Query::default()
        };
        assert_eq!(store.read("long", &query).unwrap().entries.len(), 100);
    });
    let m = measure(|| {
        let mut query = Query::default();
        let mut seen = 0;
        loop {
            let page = store.read("long", &query).unwrap();
            seen += page.entries.len() as u64;
            query.cursor = Some(page.cursor);
            if page.complete {
                break;
            }
        }
        assert_eq!(seen, count);
    });
    report("  read from start to end", count, "line", &m);
}

/// The line of a workload to be searched: one in 50,000 is an error, one in ten of them of CUDA.
fn mixed(number: u64) -> Line {
    let text = match number % 500_000 {
        0 => "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB",
        n if n % 50_000 == 0 => "2026-11-21 10:00:00,123 - loader - ERROR - shard is missing, trying again",
        _ => return line(number),
    };
    Line {
        text: text.into(),
        ..line(number)
    }
}

/// All pages of a query; the number of its entries.
fn pages(store: &LogStore, query: &Query) -> u64 {
    let mut query = query.clone();
    let mut seen = 0;
    loop {
        let page = store.read("searched", &query).unwrap();
        seen += page.entries.len() as u64;
        if page.complete {
            return seen;
        }
        query.cursor = Some(page.cursor);
        query.tail = None;
    }
}

fn search(runtime: &Runtime, dir: &Path, count: u64, rounds: usize) {
    let store = LogStore::open(dir, Options::default()).unwrap();
    let id = stream("searched".into());
    let (mut text_bytes, mut appending) = (0, Duration::ZERO);
    let mut packed = Counted::default();
    let mut encoder = zstd::stream::Encoder::new(&mut packed, 3).unwrap();
    runtime.block_on(async {
        for from in (1..=count).step_by(4000) {
            let batch: Vec<Line> = (from..(from + 4000).min(count + 1)).map(mixed).collect();
            for line in &batch {
                text_bytes += line.text.len() as u64 + 1;
                encoder.write_all(&line.text).unwrap();
                encoder.write_all(b"\n").unwrap();
            }
            let started = Instant::now();
            store.append(vec![(id.clone(), batch)]).await.unwrap();
            appending += started.elapsed();
        }
    });
    encoder.finish().unwrap();
    let mut before = 0;
    while before != store.usage().stored_bytes {
        before = store.usage().stored_bytes;
        std::thread::sleep(Duration::from_millis(300));
    }
    println!(
        "search in {count} lines, appended one batch of 4,000 after the other at {:.0} lines/s",
        count as f64 / appending.as_secs_f64(),
    );
    println!(
        "  {:.1} bytes/line of text; at rest {:.2} bytes/line, zstd -3 of the same text {:.2}",
        text_bytes as f64 / count as f64,
        store.usage().stored_bytes as f64 / count as f64,
        packed.0 as f64 / count as f64,
    );
    let last_ns = mixed(count).at_ns;
    let error = Query {
        level: Some(Level::Error),
        ..Query::default()
    };
    let recent = Query {
        since_ns: Some(last_ns - 3_600_000_000_000),
        ..error.clone()
    };
    let found = |pattern: &str| Query {
        search: Some(Search::new(pattern).unwrap()),
        ..Query::default()
    };
    let tail = |query: &Query| Query {
        tail: Some(100),
        ..query.clone()
    };
    let number = format!("step {:>8} ", count / 2 + 1);
    let queries = [
        ("--level error --since 1h", recent.clone()),
        ("--level error --since 1h --tail 100", tail(&recent)),
        ("--level error, all lines", error.clone()),
        ("--search 'CUDA out of memory'", found("CUDA out of memory")),
        (
            "  with --context 3",
            Query {
                context: 3,
                ..found("CUDA out of memory")
            },
        ),
        ("--search 'step <n> ', a number", found(&number)),
        (
            r"--search 'loss 2\.99\d+ .* eta 1:0'",
            found(r"loss 2\.99\d+ .* eta 1:0"),
        ),
        ("  with --tail 100", tail(&found(r"loss 2\.99\d+ .* eta 1:0"))),
    ];
    for (what, query) in queries {
        let entries = pages(&store, &query);
        let m = measure(|| {
            quantiles(&format!("  {what}: {entries}"), rounds, |_| {
                assert_eq!(pages(&store, &query), entries);
            });
        });
        println!("    {:.0} ms CPU", m.cpu.as_secs_f64() * 1e3 / rounds as f64);
    }
}

/// Counts what is written.
#[derive(Default)]
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn main() {
    let quick = std::env::args().any(|a| a == "--quick") || !std::env::args().any(|a| a == "--bench");
    let scale = |full: u64, small: u64| if quick { small } else { full };
    let root = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or_else(|| "/var/tmp".into())).unwrap();
    let dir = |name: &str| {
        let dir = root.path().join(name);
        fs::create_dir(&dir).unwrap();
        dir
    };
    let runtime = Runtime::new().unwrap();
    println!("log store{}", if quick { " (quick)" } else { "" });
    bare(root.path(), scale(1000, 20));

    let batches = scale(1000, 10);
    let m = ingest(&runtime, &dir("one"), 1, batches, 100);
    report("1 appender, batches of 100", batches * 100, "line", &m);

    let batches = scale(200, 2);
    let m = ingest(&runtime, &dir("many"), 64, batches, 100);
    report("64 appenders, batches of 100", 64 * batches * 100, "line", &m);

    let (streams, batches) = (scale(1000, 50), scale(50, 2));
    let m = ingest(&runtime, &dir("singles"), streams, batches, 1);
    report("1,000 streams, batches of 1", streams * batches, "line", &m);

    let (jobs, clients) = (scale(20_000, 100), scale(64, 10));
    let m = trivial_jobs(&runtime, &dir("jobs"), jobs, clients);
    report("jobs of 2 lines, 64 at a time", jobs / clients * clients, "job", &m);

    let batches = scale(200, 2);
    let m = ingest(&runtime, &dir("flood"), 8, batches, 1000);
    report("8 appenders, batches of 1,000", 8 * batches * 1000, "line", &m);

    long_stream(&runtime, &dir("long"), scale(1_000_000, 3000), scale(500, 10) as usize);
    search(
        &runtime,
        &dir("search"),
        scale(10_000_000, 20_000),
        scale(9, 2) as usize,
    );
}
