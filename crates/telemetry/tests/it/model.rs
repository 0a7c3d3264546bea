//! Any sequence of calls, against a plain `Vec` for each stream.

use std::collections::BTreeMap;

use proptest::prelude::*;
use telemetry::logs::{Cursor, Detector, Entry, Level, Line, LogStore, Options, Query, Role, Source};

use crate::{read_all, runtime, stream};

type Place = (u8, u32, u32);
/// How far the clock moves, and the text.
type Step = (i64, Vec<u8>);

#[derive(Debug, Clone)]
enum Op {
    /// Lines from `last + offset` on.
    Append(Vec<(Place, i64, Vec<Step>)>),
    Finish(Place, u64),
    Remove(u8),
    Reopen,
    /// Read on from the cursor, a few entries.
    Page(u8, usize),
    Tail(u8, u64),
    Window(u8, i64, i64),
}

fn place() -> impl Strategy<Value = Place> {
    (0..2u8, 1..3u32, 0..3u32)
}

fn lines() -> impl Strategy<Value = Vec<Step>> {
    let text = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 1000..70_000usize).prop_map(|(b, n)| vec![b; n]),
    ];
    prop::collection::vec((-3..20i64, text), 0..8)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop::collection::vec((place(), -4..4i64, lines()), 1..4).prop_map(Op::Append),
        2 => (place(), 0..4u64).prop_map(|(p, more)| Op::Finish(p, more)),
        1 => (0..2u8).prop_map(Op::Remove),
        1 => Just(Op::Reopen),
        4 => (0..2u8, 1..20usize).prop_map(|(w, n)| Op::Page(w, n)),
        3 => (0..2u8, 0..30u64).prop_map(|(w, n)| Op::Tail(w, n)),
        2 => (0..2u8, 0..60i64, 0..200i64).prop_map(|(w, a, b)| Op::Window(w, a, b)),
    ]
}

#[derive(Debug, Default, Clone)]
struct Model {
    entries: Vec<Entry>,
    last: u64,
    latest: Option<i64>,
    clock: i64,
    finished: bool,
    detectors: [Detector; 2],
}

impl Model {
    fn append(&mut self, (_, attempt, rank): Place, line: Line) {
        if line.number <= self.last {
            return;
        }
        if line.number > self.last + 1 {
            self.entries.push(Entry::Gap {
                attempt,
                rank,
                from: self.last + 1,
                to: line.number - 1,
                at_ns: self.latest.unwrap_or(line.at_ns),
            });
        }
        self.last = line.number;
        self.latest = self.latest.max(Some(line.at_ns));
        let level = match line.source {
            Source::Stdout => self.detectors[0].next(&line.text, line.partial),
            Source::Stderr => self.detectors[1].next(&line.text, line.partial),
            Source::System => Some(Level::Warn),
        };
        self.entries.push(Entry::Line {
            attempt,
            rank,
            level,
            role: Role::Match,
            apart: false,
            line,
        });
    }

    /// Entries with their times in the stream's order.
    fn placed(&self, attempt: u32, rank: u32) -> Vec<((u32, i64, u32, usize), Entry)> {
        let mut latest = i64::MIN;
        let placed = self.entries.iter().enumerate().map(|(index, entry)| {
            let at = match entry {
                Entry::Line { line, .. } => line.at_ns,
                Entry::Gap { at_ns, .. } => *at_ns,
                Entry::Removed { .. } => panic!("nothing is dropped here"),
            };
            latest = latest.max(at);
            ((attempt, latest, rank, index), entry.clone())
        });
        placed.collect()
    }
}

#[derive(Default)]
struct World {
    streams: BTreeMap<Place, Model>,
    cursors: BTreeMap<u8, Cursor>,
    paged: BTreeMap<u8, Vec<Entry>>,
}

impl World {
    fn merged(&self, workload: u8) -> Vec<((u32, i64, u32, usize), Entry)> {
        let mut all: Vec<_> = self
            .streams
            .iter()
            .filter(|(place, _)| place.0 == workload)
            .flat_map(|(place, model)| model.placed(place.1, place.2))
            .collect();
        all.sort_by_key(|(key, _)| *key);
        all
    }

    fn all(&self, workload: u8) -> Vec<Entry> {
        self.merged(workload).into_iter().map(|(_, e)| e).collect()
    }
}

fn name(workload: u8) -> String {
    format!("w{workload}")
}

/// The entries of one stream, in the order in which they came.
fn only(entries: &[Entry], attempt: u32, rank: u32) -> Vec<Entry> {
    let is_of = |entry: &&Entry| match entry {
        Entry::Line {
            attempt: a, rank: r, ..
        }
        | Entry::Gap {
            attempt: a, rank: r, ..
        }
        | Entry::Removed {
            attempt: a, rank: r, ..
        } => (*a, *r) == (attempt, rank),
    };
    entries.iter().filter(is_of).cloned().collect()
}

fn run(ops: Vec<Op>, merge_blocks: u64) {
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        merge_blocks,
        cached_streams: 4,
        ..Options::default()
    };
    let mut store = LogStore::open(dir.path(), options.clone()).unwrap();
    let mut world = World::default();
    for op in ops {
        match op {
            Op::Append(parts) => {
                let mut batch = Vec::new();
                let mut expected = Vec::new();
                for (place, offset, lines) in parts {
                    let model = world.streams.entry(place).or_default();
                    let start = model.last.saturating_add_signed(offset).max(1);
                    let mut sent = Vec::new();
                    for (n, (step, text)) in (start..).zip(lines) {
                        model.clock += step;
                        let line = Line {
                            number: n,
                            at_ns: model.clock,
                            source: [Source::Stdout, Source::Stderr, Source::System][n as usize % 3],
                            partial: text.len() > 30,
                            text: text.into(),
                        };
                        model.append(place, line.clone());
                        sent.push(line);
                    }
                    let id = stream(&name(place.0), place.1, place.2);
                    expected.push((id.clone(), model.last));
                    batch.push((id, sent));
                }
                assert_eq!(runtime.block_on(store.append(batch)).unwrap(), expected);
            }
            Op::Finish(place, more) => {
                let model = world.streams.entry(place).or_default();
                // Only where a time is known; an empty stream's gap has the time of the call.
                let last = if model.latest.is_some() { model.last + more } else { 0 };
                if last > model.last {
                    model.entries.push(Entry::Gap {
                        attempt: place.1,
                        rank: place.2,
                        from: model.last + 1,
                        to: last,
                        at_ns: model.latest.unwrap(),
                    });
                    model.last = last;
                }
                model.finished = true;
                let id = stream(&name(place.0), place.1, place.2);
                assert_eq!(runtime.block_on(store.finish(&id, last)).unwrap(), model.last);
            }
            Op::Remove(workload) => {
                let known = world.streams.keys().any(|place| place.0 == workload);
                assert_eq!(runtime.block_on(store.remove(&name(workload))).unwrap(), known);
                world.streams.retain(|place, _| place.0 != workload);
                world.cursors.remove(&workload);
                world.paged.remove(&workload);
            }
            Op::Reopen => {
                drop(store);
                store = LogStore::open(dir.path(), options.clone()).unwrap();
            }
            Op::Page(workload, limit) => {
                let cursor = world.cursors.entry(workload).or_default();
                // Through the string, as a client would.
                let query = Query {
                    cursor: Some(cursor.to_string().parse().unwrap()),
                    limit,
                    ..Query::default()
                };
                let page = store.read(&name(workload), &query).unwrap();
                assert!(page.entries.len() <= limit);
                *cursor = page.cursor;
                let seen = world.paged.entry(workload).or_default();
                seen.extend(page.entries);
                let known = world.streams.iter().filter(|(place, _)| place.0 == workload);
                if page.complete {
                    for (place, model) in known.clone() {
                        assert_eq!(only(seen, place.1, place.2), model.entries);
                    }
                }
                let ended = known.clone().count() > 0 && known.clone().all(|(_, m)| m.finished);
                assert_eq!(page.finished, page.complete && ended);
            }
            Op::Tail(workload, tail) => {
                let query = Query {
                    tail: Some(tail),
                    limit: 7,
                    ..Query::default()
                };
                let all = world.all(workload);
                let from = all.len().saturating_sub(tail as usize);
                assert_eq!(read_all(&store, &name(workload), query), all[from..]);
            }
            Op::Window(workload, since, length) => {
                let until = since + length;
                let query = Query {
                    since_ns: Some(since),
                    until_ns: Some(until),
                    ..Query::default()
                };
                let all = world.merged(workload);
                let inside: Vec<Entry> = all
                    .into_iter()
                    .filter(|((_, at, ..), _)| (since..=until).contains(at))
                    .map(|(_, entry)| entry)
                    .collect();
                assert_eq!(read_all(&store, &name(workload), query.clone()), inside);
                let query = Query { tail: Some(5), ..query };
                let from = inside.len().saturating_sub(5);
                assert_eq!(read_all(&store, &name(workload), query), inside[from..]);
            }
        }
    }
    for workload in 0..2 {
        let query = Query {
            limit: 5,
            page_bytes: 10_000,
            ..Query::default()
        };
        assert_eq!(read_all(&store, &name(workload), query), world.all(workload));
    }
    let usage = store.usage();
    assert_eq!(usage.streams, world.streams.len() as u64);
    let is_line = |entry: &&Entry| matches!(entry, Entry::Line { .. });
    let lines = |model: &Model| model.entries.iter().filter(is_line).count() as u64;
    assert_eq!(usage.lines, world.streams.values().map(lines).sum::<u64>());
    let bytes: u64 = (0..2)
        .flat_map(|w| store.streams(&name(w)).unwrap())
        .map(|info| info.bytes)
        .sum();
    if merge_blocks == u64::MAX {
        // Nothing moves in the background.
        assert_eq!(usage.stored_bytes, bytes);
    }
    for (place, model) in &world.streams {
        let id = stream(&name(place.0), place.1, place.2);
        assert_eq!(store.last(&id).unwrap(), model.last);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Blocks are merged all the time, at moments that the threads choose.
    #[test]
    fn merging_all_the_time(ops in prop::collection::vec(op(), 1..60)) {
        run(ops, 1);
    }

    /// Blocks stay as appends made them: what is read is the same.
    #[test]
    fn never_merging_small_blocks(ops in prop::collection::vec(op(), 1..60)) {
        run(ops, u64::MAX);
    }
}
