//! `kill -9` of a real process, and logs that end anywhere.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use telemetry::metrics::{MetricStore, Options, SeriesId};

use super::{HOUR_MS, Hand, START_MS, all_of, copy, open, sample};

const DIR: &str = "METRIC_STORE_KILL_DIR";
const SERIES: usize = 20;
/// Rows ever written at most: the clock stands behind them.
const ROWS: i64 = 1_000_000;

fn name(series: usize) -> String {
    format!("m{series}")
}

fn at(row: i64) -> i64 {
    START_MS + row * 10_000 + row % 7
}

fn value(row: i64, series: usize) -> f64 {
    (row % 50) as f64 + series as f64 / 10.0
}

fn open_small(dir: &Path) -> MetricStore {
    let options = Options {
        // A file every hundred rows, so that writing files and merging them is cut short as well.
        head_bytes: 16 << 10,
        max_bytes: u64::MAX,
        ..Hand::at(at(ROWS)).options()
    };
    let options = Options {
        raw_keep: std::time::Duration::from_millis((at(ROWS) - START_MS) as u64 + HOUR_MS as u64),
        ..options
    };
    MetricStore::open(dir, options).unwrap()
}

/// Rows of the only sample sequence there may be: from 0, none left out.
fn rows(store: &MetricStore, series: usize) -> i64 {
    let points = all_of(store, &name(series));
    for (row, point) in (0..).zip(&points) {
        assert_eq!(*point, (at(row), value(row, series)));
    }
    points.len() as i64
}

/// The child: appends rows as fast as it can and prints what it knows to be synced. Does nothing where the parent
/// did not start it.
#[test]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let store = open_small(Path::new(&dir));
    let ids: Vec<SeriesId> = (0..SERIES).map(|n| store.series(&name(n), &[]).unwrap()).collect();
    let first = rows(&store, 0);
    for row in first..ROWS {
        let batch: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(n, &id)| sample(id, at(row), value(row, n)))
            .collect();
        assert_eq!(store.append(&batch).unwrap().stored, SERIES as u64);
        if row % 5 == 0 {
            store.sync().unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "ack {row}").unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
fn synced_samples_survive() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = 0;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "metrics::kill::child_that_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |text: &str| {
            // The harness prints on the same line before the first.
            let row = text.rsplit_once("ack ").and_then(|(_, row)| row.parse().ok());
            acked = row.unwrap_or(acked).max(acked);
            row.is_some()
        };
        let mut seen = 0;
        while seen < 50 + round * 37 {
            let text = output.next().expect("the child ended by itself").unwrap();
            seen += usize::from(note(&text));
        }
        child.kill().unwrap();
        let rest: Vec<String> = output.map_while(Result::ok).collect();
        for text in rest.iter().take(rest.len().saturating_sub(1)) {
            note(text);
        }
        child.wait().unwrap();
        let store = open_small(dir.path());
        let kept: Vec<i64> = (0..SERIES).map(|n| rows(&store, n)).collect();
        assert!(kept.iter().all(|&kept| kept > acked), "{kept:?} after {acked}");
        // A batch is there whole or not at all.
        assert!(kept.iter().all(|&other| other == kept[0]));
    }
    assert!(acked > 400);
}

#[test]
fn the_log_is_synced_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(START_MS);
    let store = open(dir.path(), &hand);
    let id = store.series("m", &[("node", "a")]).unwrap();
    store.append(&[sample(id, START_MS, 4.5)]).unwrap();
    while store.usage().wal_bytes == 0 {
        std::thread::yield_now();
    }
    let copy = copy(dir.path());
    assert_eq!(all_of(&open(copy.path(), &hand), "m"), [(START_MS, 4.5)]);
}

#[test]
fn a_log_may_end_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(START_MS + HOUR_MS);
    let store = open(dir.path(), &hand);
    for n in 0..10 {
        let ids = [store.series("a", &[]).unwrap(), store.series(&name(n), &[]).unwrap()];
        let batch = ids.map(|id| sample(id, START_MS + n as i64, n as f64));
        store.append(&batch).unwrap();
        store.sync().unwrap();
        if n == 4 {
            store.settle().unwrap();
        }
    }
    let crashed = copy(dir.path());
    drop(store);
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    let paths = std::fs::read_dir(crashed.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let log = paths.into_iter().find(|path| is_log(path)).unwrap();
    let whole = std::fs::read(&log).unwrap();
    let mut lengths = Vec::new();
    for cut in (0..=whole.len()).step_by(11).chain([whole.len()]) {
        for garbage in [0, 30] {
            let crashed = copy(crashed.path());
            let log = crashed.path().join(log.file_name().unwrap());
            let mut torn = whole[..cut].to_vec();
            torn.extend((0..garbage).map(|n: u8| n.wrapping_mul(37)));
            std::fs::write(&log, torn).unwrap();
            let store = open(crashed.path(), &hand);
            let kept = all_of(&store, "a");
            let expected: Vec<_> = (0..kept.len() as i64).map(|n| (START_MS + n, n as f64)).collect();
            assert_eq!(kept, expected);
            assert!(kept.len() >= 5);
            lengths.push(kept.len());
            // And it goes on behind the tear, through another crash.
            let id = store.series("a", &[]).unwrap();
            store.append(&[sample(id, START_MS + 100, 1.0)]).unwrap();
            store.sync().unwrap();
            let crashed = copy(crashed.path());
            let again = open(crashed.path(), &hand);
            assert_eq!(all_of(&again, "a").len(), kept.len() + 1);
        }
    }
    assert_eq!((lengths.first(), lengths.last()), (Some(&5), Some(&10)));
}
