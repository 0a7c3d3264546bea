//! Tails, times, long and odd lines, bounds.

use bytes::Bytes;
use telemetry::logs::{Entry, Line, LogError, LogStore, Options, Query, Source};

use crate::{line, number, open, read_all, stream};

#[tokio::test]
async fn odd_texts_survive() {
    let dir = tempfile::tempdir().unwrap();
    let id = stream("odd", 1, 0);
    let texts = [
        Bytes::from_static(b"\xff\xfe\x00 not utf-8 \r"),
        Bytes::new(),
        Bytes::from(vec![b'x'; 1 << 20]),
        Bytes::from(
            (0..1u32 << 20)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect::<Vec<u8>>(),
        ),
    ];
    let lines: Vec<Line> = (1..)
        .zip(&texts)
        .map(|(number, text)| Line {
            number,
            at_ns: -1,
            source: Source::Stderr,
            text: text.clone(),
            partial: number == 3,
        })
        .collect();
    {
        let store = open(dir.path());
        store.append(vec![(id.clone(), lines.clone())]).await.unwrap();
    }
    let store = open(dir.path());
    let seen: Vec<Line> = read_all(&store, "odd", Query::default())
        .into_iter()
        .map(|entry| match entry {
            Entry::Line { line, .. } => line,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, lines);
}

#[tokio::test]
async fn bad_input_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let append = |id, line| store.append(vec![(id, vec![line])]);
    let zero = append(stream("w", 1, 0), line(0, 0, "x")).await;
    assert_eq!(zero, Err(LogError::InvalidLine { number: 0, bytes: 1 }));
    let unnamed = append(stream("", 1, 0), line(1, 0, "x")).await;
    assert_eq!(unnamed, Err(LogError::InvalidWorkload { bytes: 0 }));
    assert_eq!(store.usage().streams, 0);
    assert!(store.read("nobody", &Query::default()).unwrap().complete);
    assert_eq!(store.last(&stream("nobody", 1, 0)), Ok(0));
    assert!(store.streams("nobody").unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("logs");
    let _store = open(&inner);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    assert_eq!(mode(&inner.join("logs.redb")), 0o600);
    assert!(matches!(
        LogStore::open(&inner, Options::default()).err(),
        Some(LogError::Open { .. })
    ));
}

#[tokio::test]
async fn an_end_without_its_lines_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = stream("lost", 1, 0);
    assert_eq!(store.finish(&id, 5).await, Ok(5));
    let page = store.read("lost", &Query::default()).unwrap();
    assert!(page.finished);
    assert!(matches!(page.entries[..], [Entry::Gap { from: 1, to: 5, .. }]));
    assert_eq!(store.usage().lines, 0);
}

#[tokio::test]
async fn tail_of_a_gang_is_the_end_of_the_merged_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for rank in 0..3u32 {
        for from in [1u64, 101] {
            let lines = (from..from + 100)
                .map(|n| line(n, (n * 3) as i64 + i64::from(rank), "step"))
                .collect();
            store.append(vec![(stream("gang", 1, rank), lines)]).await.unwrap();
        }
    }
    let query = Query {
        tail: Some(7),
        ..Query::default()
    };
    let tail = store.read("gang", &query).unwrap();
    let numbers: Vec<u64> = tail.entries.iter().map(number).collect();
    assert_eq!(numbers, [198, 199, 199, 199, 200, 200, 200]);
    // The tail's cursor goes on with what comes after it.
    let query = Query {
        cursor: Some(tail.cursor),
        ..Query::default()
    };
    assert!(store.read("gang", &query).unwrap().entries.is_empty());
}

#[tokio::test]
async fn the_bound_drops_the_oldest_ended_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        max_bytes: Some(200_000),
        ..Options::default()
    };
    let store = LogStore::open(dir.path(), options).unwrap();
    // Not compressible, so that sizes are what they seem.
    let noise = |seed: u64| {
        let mut x = seed + 1;
        let mut byte = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (x >> 56) as u8
        };
        Bytes::from((0..1000).map(|_| byte()).collect::<Vec<u8>>())
    };
    let lines = |range: std::ops::Range<u64>| -> Vec<Line> {
        let of = |n| Line {
            text: noise(n),
            ..line(n, n as i64, "")
        };
        range.map(of).collect()
    };
    let running = stream("running", 1, 0);
    store.append(vec![(running.clone(), lines(1..11))]).await.unwrap();
    for n in 0..30 {
        let id = stream(&format!("job-{n}"), 1, 0);
        store.append(vec![(id.clone(), lines(1..21))]).await.unwrap();
        store.finish(&id, 20).await.unwrap();
    }
    while store.usage().stored_bytes > 200_000 {
        tokio::task::yield_now().await;
    }
    // The oldest went, told of; the newest and the running one stayed; doubles are still known.
    let page = store.read("job-0", &Query::default()).unwrap();
    assert!(matches!(page.entries[..], [Entry::Removed { from: 1, to: 20, .. }]));
    assert!(page.finished);
    let tail = Query {
        tail: Some(3),
        ..Query::default()
    };
    assert_eq!(store.read("job-0", &tail).unwrap().entries, page.entries);
    let job = stream("job-0", 1, 0);
    assert_eq!(
        store.append(vec![(job.clone(), lines(1..21))]).await.unwrap(),
        [(job, 20)]
    );
    assert_eq!(store.read("job-29", &Query::default()).unwrap().entries.len(), 20);
    assert_eq!(store.read("running", &Query::default()).unwrap().entries.len(), 10);
    // Nothing ended is left to drop: the largest running stream loses its oldest lines.
    for n in 0..30u64 {
        store
            .append(vec![(running.clone(), lines(11 + n * 20..31 + n * 20))])
            .await
            .unwrap();
    }
    while store.usage().stored_bytes > 200_000 {
        tokio::task::yield_now().await;
    }
    let entries = read_all(&store, "running", Query::default());
    let Entry::Removed { from: 1, to, .. } = entries[0] else {
        panic!("told of nothing: {:?}", entries[0]);
    };
    let numbers: Vec<u64> = entries[1..].iter().map(number).collect();
    assert_eq!(numbers, (to + 1..=610).collect::<Vec<_>>());
}
