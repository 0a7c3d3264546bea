//! Any sequence of calls, against a plain `Vec` for each series.

use std::time::Duration;

use proptest::prelude::*;
use telemetry::metrics::{Aggregate, Dropped, Matcher, MetricStore, NAME_LABEL, Options, Resolution};

use super::{DAY_MS, Hand, MINUTE_MS, START_MS, sample};

const SERIES: usize = 12;

#[derive(Debug, Clone)]
enum Op {
    /// The clock goes on; then rows of some series, each so long after the one before, the first so long after
    /// now.
    Append(i64, i64, Vec<(i64, Vec<(usize, f64)>)>),
    Settle,
    Reopen,
    Select(usize, i64, i64),
    /// Of one node, or all: start and length in minutes, step in ms.
    Windows(Option<usize>, i64, i64, i64, Aggregate),
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        20 => (-50..1000i64).prop_map(|v| v as f64),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY)],
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let cells = prop_oneof![
        3 => prop::collection::vec((0..SERIES, value()), 1..6),
        // What a node sends: all of its series.
        3 => (0..4usize, value()).prop_map(|(node, v)| (0..3).map(|n| (node * 3 + n, v)).collect()),
    ];
    let step = prop_oneof![Just(0), Just(10_000), 1..600_000i64];
    let append = |jump, rows| {
        let step = step.clone();
        let row = (step, cells.clone());
        (jump, -700_000..700_000i64, prop::collection::vec(row, rows)).prop_map(|(j, o, rows)| Op::Append(j, o, rows))
    };
    let aggregate = prop::sample::select(vec![
        Aggregate::Avg,
        Aggregate::Max,
        Aggregate::Min,
        Aggregate::Sum,
        Aggregate::Count,
        Aggregate::P95,
        Aggregate::P99,
        Aggregate::Last,
    ]);
    let grid = prop_oneof![Just(5 * MINUTE_MS), Just(60 * MINUTE_MS), 1000..5_000_000i64];
    prop_oneof![
        8 => append(0..120_000i64, 1..20),
        3 => append(0..8 * 3_600_000i64, 1..20),
        1 => append(0..2000i64, 100..200),
        2 => Just(Op::Settle),
        1 => Just(Op::Reopen),
        3 => (0..SERIES, -60..2000i64, 0..4000i64).prop_map(|(s, f, l)| Op::Select(s, f, l)),
        4 => (prop::option::of(0..4usize), -12..600i64, 0..1000i64, grid, aggregate)
            .prop_map(|(n, f, l, step, a)| Op::Windows(n, f * 5, l * 5, step, a)),
    ]
}

fn labels(series: usize) -> (&'static str, String, String) {
    let name = ["gpu.temperature", "gpu.power", "gpu.memory"][series % 3];
    (name, format!("node-{}", series / 3), (series % 2).to_string())
}

fn naive(points: &[(i64, f64)], (from, to): (i64, i64), step: i64, aggregate: Aggregate) -> Vec<(i64, f64)> {
    let mut windows: Vec<(i64, Vec<f64>)> = Vec::new();
    for &(at, value) in points.iter().filter(|(at, _)| (from..to).contains(at)) {
        let start = from + (at - from) / step * step;
        match windows.last_mut() {
            Some((known, values)) if *known == start => values.push(value),
            _ => windows.push((start, vec![value])),
        }
    }
    let quantile = |values: &[f64], q: f64| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = q * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
        low * (1.0 - rank.fract()) + high * rank.fract()
    };
    let point = |(start, values): (i64, Vec<f64>)| {
        let sum: f64 = values.iter().sum();
        let value = match aggregate {
            Aggregate::Avg => sum / values.len() as f64,
            Aggregate::Max => values.iter().copied().fold(f64::MIN, f64::max),
            Aggregate::Min => values.iter().copied().fold(f64::MAX, f64::min),
            Aggregate::Sum => sum,
            Aggregate::Count => values.len() as f64,
            Aggregate::P95 => quantile(&values, 0.95),
            Aggregate::P99 => quantile(&values, 0.99),
            Aggregate::Last => values[values.len() - 1],
        };
        (start, value)
    };
    windows.into_iter().map(point).collect()
}

struct World {
    dir: tempfile::TempDir,
    hand: Hand,
    now_ms: i64,
    store: Option<MetricStore>,
    points: Vec<Vec<(i64, f64)>>,
}

impl World {
    fn open(&mut self) {
        let options = Options {
            head_bytes: 4096,
            raw_keep: Duration::from_secs(10_000 * 86_400),
            ..self.hand.options()
        };
        self.store = Some(MetricStore::open(self.dir.path(), options).unwrap());
    }

    fn store(&self) -> &MetricStore {
        self.store.as_ref().unwrap()
    }

    fn append(&mut self, jump: i64, offset: i64, rows: Vec<(i64, Vec<(usize, f64)>)>) {
        self.now_ms += jump;
        self.hand.set(self.now_ms);
        let mut at_ms = self.now_ms + offset;
        let mut batch = Vec::new();
        let (mut stored, mut dropped) = (0, Dropped::default());
        for (step, cells) in rows {
            at_ms += step;
            for (series, value) in cells {
                let (name, node, gpu) = labels(series);
                let id = self.store().series(name, &[("node", &node), ("gpu", &gpu)]).unwrap();
                batch.push(sample(id, at_ms, value));
                let points = &mut self.points[series];
                if !value.is_finite() {
                    dropped.not_finite += 1;
                } else if at_ms > self.now_ms + 600_000 {
                    dropped.too_new += 1;
                } else if points.last().is_some_and(|(last, _)| *last >= at_ms) {
                    dropped.not_newer += 1;
                } else {
                    points.push((at_ms, value));
                    stored += 1;
                }
            }
        }
        let done = self.store().append(&batch).unwrap();
        assert_eq!((done.stored, done.dropped), (stored, dropped));
    }

    fn windows(&self, node: Option<usize>, range: (i64, i64), step: i64, aggregate: Aggregate) {
        let all = [Matcher::re(NAME_LABEL, "gpu[.].*").unwrap()];
        let one = node.map(|node| [Matcher::eq("node", &format!("node-{node}"))]);
        let matchers = one.as_ref().unwrap_or(&all);
        let answer = self
            .store()
            .windows(matchers, range.0, range.1, step, aggregate)
            .unwrap();
        let long = range.1 - range.0 > DAY_MS && step % (5 * MINUTE_MS) == 0;
        let rolled = long && aggregate.from_rollups();
        assert_eq!(answer.resolution == Resolution::Rollup, rolled);
        let mut expected = Vec::new();
        for (series, points) in self.points.iter().enumerate() {
            let windows = naive(points, range, step, aggregate);
            if node.is_none_or(|node| series / 3 == node) && !windows.is_empty() {
                let (name, node, gpu) = labels(series);
                expected.push(((name.to_owned(), gpu, node), windows));
            }
        }
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(answer.series.len(), expected.len());
        for (got, (labels, wanted)) in answer.series.iter().zip(&expected) {
            let of = |label| got.labels.get(label).unwrap_or_default().to_owned();
            assert_eq!((of(NAME_LABEL), of("gpu"), of("node")), *labels);
            let near = |a: &(i64, f64), b: &(i64, f64)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6;
            let same = got.points.len() == wanted.len() && got.points.iter().zip(wanted).all(|(a, b)| near(a, b));
            assert!(same, "{aggregate} of {labels:?}: {:?}, wanted {wanted:?}", got.points);
        }
    }

    fn check_all(&self) {
        let got = self.store().select(&[], i64::MIN, i64::MAX).unwrap();
        let mut wanted: Vec<_> = self
            .points
            .iter()
            .enumerate()
            .filter(|(_, points)| !points.is_empty())
            .collect();
        wanted.sort_by_key(|(series, _)| {
            let (name, node, gpu) = labels(*series);
            (name, gpu, node)
        });
        assert_eq!(got.len(), wanted.len());
        for (got, (_, points)) in got.iter().zip(&wanted) {
            assert_eq!(&got.points, *points);
        }
        let samples: usize = self.points.iter().map(Vec::len).sum();
        assert_eq!(self.store().usage().samples, samples as u64);
    }
}

fn run(ops: Vec<Op>) {
    let mut world = World {
        dir: tempfile::tempdir().unwrap(),
        hand: Hand::at(START_MS),
        now_ms: START_MS,
        store: None,
        points: vec![Vec::new(); SERIES],
    };
    world.open();
    for op in ops {
        match op {
            Op::Append(jump, offset, rows) => world.append(jump, offset, rows),
            Op::Settle => world.store().settle().unwrap(),
            Op::Reopen => {
                world.store = None;
                world.open();
            }
            Op::Select(series, from, length) => {
                let from = START_MS + from * MINUTE_MS;
                let to = from + length * MINUTE_MS;
                let (name, node, gpu) = labels(series);
                let matchers = [
                    Matcher::name(name),
                    Matcher::eq("node", &node),
                    Matcher::eq("gpu", &gpu),
                ];
                let got = world.store().select(&matchers, from, to).unwrap();
                let inside = |(at, _): &&(i64, f64)| (from..=to).contains(at);
                let wanted: Vec<_> = world.points[series].iter().filter(inside).copied().collect();
                assert_eq!(
                    got.into_iter().flat_map(|series| series.points).collect::<Vec<_>>(),
                    wanted
                );
            }
            Op::Windows(node, from, length, step, aggregate) => {
                let from = START_MS + from * MINUTE_MS;
                world.windows(node, (from, from + length * MINUTE_MS), step, aggregate);
            }
        }
    }
    world.check_all();
    world.store().settle().unwrap();
    world.check_all();
    let range = (START_MS - DAY_MS, START_MS + 200 * DAY_MS);
    world.windows(None, range, DAY_MS, Aggregate::Sum);
    world.windows(None, range, DAY_MS, Aggregate::P95);
    world.store = None;
    world.open();
    world.check_all();
    world.windows(None, range, 60 * MINUTE_MS, Aggregate::Avg);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_as_the_model(ops in prop::collection::vec(op(), 1..60)) {
        run(ops);
    }
}
