//! What queries refuse, and what they are answered from.

use telemetry::metrics::{Aggregate, Matcher, MetricError, MetricStore, Options, Resolution};

use super::{DAY_MS, HOUR_MS, Hand, MINUTE_MS, START_MS, open, sample};

#[test]
fn bad_questions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(START_MS + HOUR_MS);
    let options = Options {
        query_points_max: 50,
        query_samples_max: 99,
        ..hand.options()
    };
    let store = MetricStore::open(dir.path(), options).unwrap();
    let id = store.series("m", &[]).unwrap();
    let batch: Vec<_> = (0..100).map(|n| sample(id, START_MS + n * 1000, n as f64)).collect();
    store.append(&batch).unwrap();
    let m = [Matcher::name("m")];
    let end = START_MS + 100_000;
    assert_eq!(
        store.select(&m, 5, 4),
        Err(MetricError::InvalidRange { from_ms: 5, to_ms: 4 })
    );
    assert_eq!(
        store.windows(&m, 4, 5, 0, Aggregate::Avg),
        Err(MetricError::InvalidStep { step_ms: 0 })
    );
    let points = MetricError::TooManyPoints { limit: 50 };
    assert_eq!(store.select(&m, START_MS, end), Err(points.clone()));
    assert_eq!(store.windows(&m, START_MS, end, 1000, Aggregate::Avg), Err(points));
    let samples = MetricError::TooManySamples { limit: 99 };
    assert_eq!(store.windows(&m, START_MS, end, 10_000, Aggregate::Avg), Err(samples));
    assert_eq!(store.select(&[Matcher::name("n")], START_MS, end), Ok(Vec::new()));
    assert!(store.windows(&m, i64::MIN, i64::MAX, i64::MAX, Aggregate::Max).is_err());
    let short = store
        .windows(&m, START_MS, START_MS + 20_000, 10_000, Aggregate::Avg)
        .unwrap();
    assert_eq!(short.series[0].points, [(START_MS, 4.5), (START_MS + 10_000, 14.5)]);
}

#[test]
fn series_are_checked_and_the_same_labels_are_the_same_series() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Hand::at(START_MS));
    for (name, labels) in [
        ("", &[("a", "b")][..]),
        ("m", &[("a", "b"), ("a", "c")]),
        ("m", &[("", "b")]),
        ("m", &[("__name__", "n")]),
        ("m", &[("a", &"x".repeat(20_000))]),
    ] {
        assert!(
            matches!(store.series(name, labels), Err(MetricError::InvalidSeries(_))),
            "{name}"
        );
    }
    let one = store.series("m", &[("a", "1"), ("b", "2"), ("c", "")]).unwrap();
    assert_eq!(store.series("m", &[("b", "2"), ("a", "1")]), Ok(one));
    assert_ne!(store.series("m", &[("b", "2")]), Ok(one));
    assert_eq!(store.names(), [("m".to_owned(), 2)]);
    assert_eq!(store.label_names(), ["a", "b"]);
    assert_eq!(store.label_values("a"), [("1".to_owned(), 1)]);
    assert_eq!(store.series_count("b", "2"), 2);
}

/// A sample a minute for ten days, of which two are kept raw.
#[test]
fn what_is_too_old_is_answered_from_roll_ups() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(START_MS);
    let options = Options {
        raw_keep: std::time::Duration::from_secs(2 * 86_400),
        ..hand.options()
    };
    let store = MetricStore::open(dir.path(), options).unwrap();
    let id = store.series("m", &[("node", "a")]).unwrap();
    let minutes = 10 * 24 * 60;
    for minute in 0..minutes {
        let at_ms = START_MS + minute * MINUTE_MS;
        hand.set(at_ms);
        store.append(&[sample(id, at_ms, (minute % 100) as f64)]).unwrap();
        if minute % 120 == 0 {
            store.settle().unwrap();
        }
    }
    store.settle().unwrap();
    let now = START_MS + minutes * MINUTE_MS;
    let m = [Matcher::name("m")];
    let usage = store.usage();
    assert!(usage.samples < 50 * 60 && usage.samples >= 48 * 60, "{usage:?}");
    assert_eq!(usage.oldest_ms, Some(START_MS));
    let all = store.windows(&m, START_MS, now, DAY_MS, Aggregate::Count).unwrap();
    assert_eq!(all.resolution, Resolution::Rollup);
    let days: Vec<_> = (0..10).map(|day| (START_MS + day * DAY_MS, 1440.0)).collect();
    assert_eq!(all.series[0].points, days);
    let hour = START_MS + 3 * DAY_MS + 7 * HOUR_MS;
    let sum: i64 = (0..60).map(|n| ((hour - START_MS) / MINUTE_MS + n) % 100).sum();
    let old = store
        .windows(&m, hour, hour + HOUR_MS, HOUR_MS, Aggregate::Avg)
        .unwrap();
    assert_eq!(old.resolution, Resolution::Rollup);
    assert_eq!(old.series[0].points, [(hour, sum as f64 / 60.0)]);
    let needs = store.windows(&m, hour, hour + HOUR_MS, HOUR_MS, Aggregate::P95);
    assert!(matches!(needs, Err(MetricError::NeedsRaw { raw_from_ms, .. }) if raw_from_ms > hour));
    let new = store.windows(&m, now - HOUR_MS, now, HOUR_MS, Aggregate::P95).unwrap();
    assert_eq!(new.resolution, Resolution::Raw);
    // A year of files is not needed for it: a day is one.
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files < 2 * 24 + 8 + 24 + 10, "{files} files");
}

/// [`MetricStore::each_windows`] as a list: metric, node, points; sorted.
fn each(
    store: &MetricStore,
    metrics: &[(&str, Aggregate)],
    range: (i64, i64),
) -> Vec<(String, String, Vec<(i64, f64)>)> {
    let mut all = Vec::new();
    let key = |name: &str, labels: &mut dyn Iterator<Item = (&str, &str)>| {
        let mut labels = labels;
        let (_, node) = Iterator::find(&mut labels, |(label, _)| *label == "node")?;
        (node != "unasked").then(|| (name.to_owned(), node.to_owned()))
    };
    let seen = |(name, node), points| all.push((name, node, points));
    store.each_windows(metrics, range, MINUTE_MS, key, seen).unwrap();
    all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    all
}

#[test]
fn many_metrics_are_read_in_one_pass_as_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(START_MS);
    let store = open(dir.path(), &hand);
    let names = ["load", "power", "events", "unasked"];
    let mut ids = Vec::new();
    // More than one part of them, and more than one thread's.
    for node in 0..3_000 {
        let node = if node == 7 {
            "unasked".to_owned()
        } else {
            format!("n{node}")
        };
        ids.extend(names.map(|name| store.series(name, &[("node", &node)]).unwrap()));
    }
    ids.push(store.series("load", &[("disk", "no node")]).unwrap());
    for row in 0..90 {
        let at_ms = START_MS + row * 10_000;
        hand.set(at_ms);
        let batch: Vec<_> = (0..)
            .zip(&ids)
            .map(|(n, &id)| sample(id, at_ms, ((n * 7 + row) % 50) as f64))
            .collect();
        store.append(&batch).unwrap();
        // Some of it in a file, some in memory.
        if row == 60 {
            store.settle().unwrap();
        }
    }
    let metrics = [
        ("load", Aggregate::Avg),
        ("power", Aggregate::Max),
        ("events", Aggregate::Last),
    ];
    let range = (START_MS + 65_000, START_MS + 900_000);
    let mut wanted = Vec::new();
    for (name, aggregate) in metrics {
        let matchers = [
            Matcher::name(name),
            Matcher::ne("node", "unasked"),
            Matcher::ne("node", ""),
        ];
        let found = store
            .windows(&matchers, range.0, range.1, MINUTE_MS, aggregate)
            .unwrap();
        wanted.extend(found.series.into_iter().map(|series| {
            let node = series.labels.get("node").unwrap().to_owned();
            (series.labels.name, node, series.points)
        }));
    }
    wanted.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    assert_eq!(wanted.len(), 3 * 2_999);
    assert!(each(&store, &metrics, range) == wanted, "they differ");
    assert_eq!(each(&store, &metrics, (START_MS + HOUR_MS, START_MS + DAY_MS)), []);
    assert_eq!(each(&store, &[("nothing", Aggregate::Avg)], range), []);
    let key = |_: &str, _: &mut dyn Iterator<Item = (&str, &str)>| Some(());
    assert_eq!(
        store.each_windows(&metrics, range, 0, key, |(), _| {}),
        Err(MetricError::InvalidStep { step_ms: 0 })
    );
}
