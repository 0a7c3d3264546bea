//! Figures of the embedded store beside the bare disk, on the same disk in the same run.
//!
//! `cargo bench -p clawbernetes-store`, or `-- --quick` for a smoke run, `-- --core` for the core alone. The file is made under
//! `STORE_BENCH_DIR`, or the system's directory for temporary files. Nothing is asserted.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where anything fails"
)]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clawbernetes_store::embedded::{Db, FileDisk, MemoryDisk, Options};
use clawbernetes_store::{Order, Range, Store, Txn};

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick" || arg == "--test");
    let dir = match std::env::var_os("STORE_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    if std::env::args().any(|arg| arg == "--core") {
        return core_cost(quick);
    }
    let span = Duration::from_millis(if quick { 50 } else { 1500 });
    let rounds = if quick { 1 } else { 3 };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    // First, while the process holds nothing else.
    runtime.block_on(reads(&dir.path().join("reads"), quick));
    println!("durable commits of one 1 KiB record; median of {rounds} rounds");
    println!("  quick repair  callers  commits/s  p50 us  p99 us  cpu us/txn  x bare append+fdatasync");
    for quick_repair in [true, false] {
        for callers in [1, 32, 256] {
            let mut runs: Vec<Run> = (0..rounds)
                .map(|round| {
                    // Bare and store take turns, so that both see the same disk.
                    let bare = bare_syncs(&dir.path().join("bare"), span / 3);
                    let path = dir.path().join(format!("{quick_repair}-{callers}-{round}"));
                    let options = Options {
                        quick_repair,
                        ..Options::default()
                    };
                    let store = Store::open(&path, options).unwrap();
                    let mut run = runtime.block_on(commits(&store, callers, span));
                    drop(store);
                    std::fs::remove_file(&path).unwrap();
                    run.ratio = run.rate / bare;
                    run
                })
                .collect();
            runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
            let run = &runs[rounds / 2];
            println!(
                "  {quick_repair:<12}  {callers:>7}  {:>9.0}  {:>6.0}  {:>6.0}  {:>10.1}  {:>6.2}",
                run.rate, run.p50_us, run.p99_us, run.cpu_us, run.ratio
            );
        }
    }
    core_cost(quick);
    opening(dir.path(), quick);
}

struct Run {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
    ratio: f64,
}

/// Appends of 1 KiB, each made durable: what the disk alone does, per second.
fn bare_syncs(path: &Path, span: Duration) -> f64 {
    let mut file = File::create(path).unwrap();
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < span {
        file.write_all(&[7; 1024]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

async fn commits(store: &Store, callers: usize, span: Duration) -> Run {
    let value = Bytes::from(vec![7; 1024]);
    let cpu = cpu_time();
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (store, value) = (store.clone(), value.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while start.elapsed() < span {
                    // Each caller works on records of its own, as workloads do.
                    let key = format!("/workload/{caller:04}/{:03}", took.len() % 200);
                    let asked = Instant::now();
                    let outcome = store.txn(Txn::new().put(key, value.clone())).await;
                    assert!(outcome.unwrap().committed().is_some());
                    took.push(asked.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    let elapsed = start.elapsed();
    let cpu = cpu_time() - cpu;
    took.sort_unstable();
    let at = |share: f64| micros(took[((took.len() - 1) as f64 * share) as usize]);
    Run {
        rate: took.len() as f64 / elapsed.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
        cpu_us: micros(cpu) / took.len() as f64,
        ratio: 0.0,
    }
}

/// The core without a disk or threads: what a transaction costs in CPU alone.
fn core_cost(quick: bool) {
    println!("core alone, in memory: transactions of 3 puts of 1 KiB over 30,000 records");
    println!("  batch  us/txn (median commit)");
    let value = Bytes::from(vec![7; 1024]);
    for batch in [1, 16, 64, 256] {
        let mut db = Db::open(MemoryDisk::new(), Options::default(), Duration::ZERO).unwrap();
        let mut next = 0_u64;
        let mut some = |count: usize| -> Vec<Txn> {
            (0..count)
                .map(|_| {
                    next += 1;
                    // Spread as ids are.
                    let id = next.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 10_000;
                    Txn::new()
                        .put(format!("/workload/wl-{id}"), value.clone())
                        .put(format!("/node/gpu-{}", id % 1000), value.clone())
                        .put(format!("/event/{next:012}"), value.clone())
                })
                .collect()
        };
        for _ in 0..(if quick { 1 } else { 40 }) {
            let _ = db.apply(&some(250), Duration::ZERO);
        }
        let mut took: Vec<Duration> = (0..(if quick { 3 } else { 200 }))
            .map(|_| {
                let txns = some(batch);
                let start = Instant::now();
                let answers = db.apply(&txns, Duration::ZERO);
                let took = start.elapsed();
                assert!(answers.iter().all(Result::is_ok));
                took
            })
            .collect();
        took.sort_unstable();
        println!("  {batch:>5}  {:>6.1}", micros(took[took.len() / 2]) / batch as f64);
    }
}

/// How long opening takes after a crash: the copy of an open file is what a crash leaves.
fn opening(dir: &Path, quick: bool) {
    println!("opening after a crash; records of 1 KiB");
    println!("  quick repair  records  file MiB      ms");
    let value = Bytes::from(vec![7; 1024]);
    for quick_repair in [true, false] {
        for records in if quick { [1_000, 2_000] } else { [10_000, 100_000] } {
            let options = Options {
                quick_repair,
                ..Options::default()
            };
            let path = dir.join("whole");
            let disk = FileDisk::open(&path).unwrap();
            let mut db = Db::open(disk, options.clone(), Duration::ZERO).unwrap();
            for chunk in 0..records / 1000 {
                let txn = (0..1000).fold(Txn::new(), |txn, n| {
                    txn.put(format!("/workload/{chunk:06}/{n:06}"), value.clone())
                });
                assert!(db.apply(&[txn], Duration::ZERO)[0].is_ok());
            }
            let crashed = dir.join("crashed");
            std::fs::copy(&path, &crashed).unwrap();
            drop(db);
            let start = Instant::now();
            let disk = FileDisk::open(&crashed).unwrap();
            let db = Db::open(disk, options, Duration::ZERO).unwrap();
            let took = start.elapsed();
            let mib = db.reader().status().disk_bytes >> 20;
            println!(
                "  {quick_repair:<12}  {records:>7}  {mib:>8}  {:>6.1}",
                took.as_secs_f64() * 1e3
            );
            drop(db);
            std::fs::remove_file(&crashed).unwrap();
            std::fs::remove_file(&path).unwrap();
        }
    }
}

async fn reads(path: &Path, quick: bool) {
    let store = Store::open(path, Options::default()).unwrap();
    let records = if quick { 1_000 } else { 10_000 };
    let value = Bytes::from(vec![7; 1024]);
    for chunk in (0..records).collect::<Vec<_>>().chunks(500) {
        let txn = chunk
            .iter()
            .fold(Txn::new(), |txn, n| txn.put(format!("/workload/{n:06}"), value.clone()));
        let _ = store.txn(txn).await.unwrap();
    }
    println!("reads over {records} records of 1 KiB; median us");
    let mut got = Vec::new();
    for n in 0..records {
        let key = format!("/workload/{:06}", n * 7919 % records);
        let start = Instant::now();
        assert!(store.get(key).await.unwrap().is_some());
        got.push(start.elapsed());
    }
    println!("  get          {:>8.1}", median(got));
    for rows in [100, 10_000] {
        let mut got = Vec::new();
        for _ in 0..(if quick { 2 } else { 30 }) {
            let start = Instant::now();
            let page = store
                .range(Range::prefix("/workload/"), rows, Order::Ascending)
                .await
                .unwrap();
            assert_eq!(page.records.len(), rows.min(records));
            got.push(start.elapsed());
        }
        println!("  range {rows:>6} {:>8.1}", median(got));
    }
    println!("  resident memory, this process: {} MiB", resident_mib());
}

fn median(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    micros(took[took.len() / 2])
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Resident memory now.
fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.map_or(0, |pages: u64| (pages * 4096) >> 20)
}

/// CPU time of this process so far, all threads, to 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks: u64 = [11, 12]
        .iter()
        .filter_map(|field| fields.get(*field)?.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}
