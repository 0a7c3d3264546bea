//! The stores from outside: against models, across restarts, under `kill -9`.
#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

mod follow;
mod kill;
mod metrics;
mod model;
mod order;
mod promql;
mod search;

use telemetry::logs::{Entry, Line, LogStore, Options, Page, Query, Source, StreamId};

fn stream(workload: &str, attempt: u32, rank: u32) -> StreamId {
    StreamId {
        workload: workload.into(),
        attempt,
        rank,
    }
}

fn line(number: u64, at_ns: i64, text: &str) -> Line {
    Line {
        number,
        at_ns,
        source: Source::Stdout,
        text: text.to_owned().into(),
        partial: false,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// All pages of a query.
fn read_all(store: &LogStore, workload: &str, query: Query) -> Vec<Entry> {
    let mut query = query;
    let mut entries = Vec::new();
    loop {
        let page: Page = store.read(workload, &query).unwrap();
        entries.extend(page.entries);
        if page.complete {
            return entries;
        }
        query.cursor = Some(page.cursor);
        query.tail = None;
    }
}

fn open(dir: &std::path::Path) -> LogStore {
    LogStore::open(dir, Options::default()).unwrap()
}

fn number(entry: &Entry) -> u64 {
    match entry {
        Entry::Line { line, .. } => line.number,
        other => panic!("no line: {other:?}"),
    }
}
