//! Ages and sizes are kept, series without samples are forgotten, damage is set aside.

use std::time::Duration;

use telemetry::metrics::{Aggregate, Matcher, MetricStore, Options};

use super::{DAY_MS, HOUR_MS, Hand, START_MS, all_of, copy, open, sample};

#[test]
fn series_of_which_nothing_is_left_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(START_MS);
    let options = || Options {
        raw_keep: Duration::from_secs(2 * 3600),
        rollup_keep: Duration::from_secs(2 * 86_400),
        ..hand.options()
    };
    let store = MetricStore::open(dir.path(), options()).unwrap();
    let old = store.series("old", &[("workload", "w1")]).unwrap();
    let live = store.series("live", &[("workload", "w2")]).unwrap();
    store.append(&[sample(old, START_MS, 1.0)]).unwrap();
    for hour in 0..80 {
        let at_ms = START_MS + hour * HOUR_MS;
        hand.set(at_ms);
        store.append(&[sample(live, at_ms, 1.0)]).unwrap();
        store.settle().unwrap();
    }
    assert_eq!(store.names(), [("live".to_owned(), 1)]);
    assert_eq!(store.usage().series, 1);
    let oldest = store.usage().oldest_ms.unwrap();
    assert!((START_MS + DAY_MS..START_MS + 2 * DAY_MS).contains(&oldest), "{oldest}");
    // Its id is no longer good, also when its number is used again.
    let fresh = store.series("fresh", &[]).unwrap();
    let now = START_MS + 80 * HOUR_MS;
    hand.set(now);
    let done = store.append(&[sample(old, now, 5.0), sample(fresh, now, 6.0)]).unwrap();
    assert_eq!((done.stored, done.dropped.unknown), (1, 1));
    drop(store);
    let store = MetricStore::open(dir.path(), options()).unwrap();
    assert_eq!(all_of(&store, "fresh"), [(now, 6.0)]);
    assert_eq!(all_of(&store, "old"), []);
    let again = store.series("old", &[("workload", "w1")]).unwrap();
    store.append(&[sample(again, now, 7.0)]).unwrap();
    assert_eq!(all_of(&store, "old"), [(now, 7.0)]);
}

#[test]
fn the_size_is_bounded_and_the_newest_kept() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(START_MS);
    let max_bytes = 8 << 20;
    let options = Options {
        max_bytes,
        ..hand.options()
    };
    let store = MetricStore::open(dir.path(), options).unwrap();
    let ids: Vec<_> = (0..200)
        .map(|n| store.series("m", &[("gpu", &n.to_string())]).unwrap())
        .collect();
    let mut noise = 1u64;
    let mut last_ms = 0;
    for row in 0..60 * 60 {
        last_ms = START_MS + row * 60_000;
        hand.set(last_ms);
        let batch = ids.iter().map(|&id| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            sample(id, last_ms, f64::from_bits(noise >> 2 | 1 << 60))
        });
        store.append(&batch.collect::<Vec<_>>()).unwrap();
        if row % 60 == 59 {
            store.settle().unwrap();
            let disk: u64 = std::fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().metadata().unwrap().len())
                .sum();
            assert!(disk <= max_bytes, "{disk}");
            assert_eq!(store.usage().disk_bytes, disk);
        }
    }
    let usage = store.usage();
    assert!(
        usage.oldest_raw_ms.unwrap() > START_MS && usage.samples > 100_000,
        "{usage:?}"
    );
    let last = store
        .windows(&[Matcher::name("m")], last_ms, last_ms + 1, 1, Aggregate::Count)
        .unwrap();
    assert_eq!(last.series.len(), 200);
}

#[test]
fn refused_samples_are_counted_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(START_MS);
    let store = open(dir.path(), &hand);
    let id = store.series("m", &[]).unwrap();
    let batch = [
        sample(id, START_MS, 1.0),
        sample(id, START_MS, 2.0),
        sample(id, START_MS - 1, 2.0),
        sample(id, START_MS + 1, f64::NAN),
        sample(id, START_MS + 1, f64::NEG_INFINITY),
        sample(id, START_MS + 600_001, 3.0),
        sample(id, START_MS - 8 * DAY_MS, 3.0),
        sample(id, START_MS + 600_000, 3.0),
    ];
    let done = store.append(&batch).unwrap();
    assert_eq!(done.stored, 2);
    let dropped = done.dropped;
    let counts = (dropped.not_newer, dropped.not_finite, dropped.too_new, dropped.too_old);
    assert_eq!(counts, (2, 2, 1, 1));
    assert_eq!(store.usage().dropped.total(), 6);
    // Sent again, nothing changes.
    assert_eq!(store.append(&batch).unwrap().stored, 0);
}

#[test]
fn a_damaged_file_is_set_aside_and_strangers_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::at(START_MS + DAY_MS);
    let store = open(dir.path(), &hand);
    let id = store.series("m", &[]).unwrap();
    for hour in 0..3 {
        store.append(&[sample(id, START_MS + hour * HOUR_MS, 1.0)]).unwrap();
    }
    store.close().unwrap();
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    let mut files: Vec<_> = names
        .iter()
        .filter(|name| name.to_string_lossy().ends_with(".seg"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 3);
    let broken = copy(dir.path());
    let path = broken.path().join(files[1]);
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len() - 25;
    bytes[end] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(broken.path().join("77.seg"), b"half a file").unwrap();
    let store = open(broken.path(), &hand);
    assert_eq!(store.usage().damaged_files, 1);
    assert_eq!(all_of(&store, "m").len(), 2);
    assert!(!broken.path().join("77.seg").exists());
    assert!(path.with_extension("damaged").exists());
    // One process at a time.
    assert!(MetricStore::open(broken.path(), hand.options()).is_err());
}
