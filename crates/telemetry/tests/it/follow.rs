//! Following: each line once, also for the slow, also across a restart.

use std::sync::Arc;

use telemetry::logs::{Cursor, Entry, LogError, LogStore, Options, Query};

use crate::{line, number, open, stream};

#[tokio::test(flavor = "multi_thread")]
async fn sees_each_line_once_under_concurrent_appends() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        merge_blocks: 2,
        ..Options::default()
    };
    let store = Arc::new(LogStore::open(dir.path(), options).unwrap());
    let ranks = 4u32;
    let count = 300u64;
    let mut followers = Vec::new();
    for limit in [1, 7, 10_000] {
        let query = Query {
            limit,
            ..Query::default()
        };
        let mut follow = store.follow("train", query);
        followers.push(tokio::spawn(async move {
            let mut seen = vec![0u64; ranks as usize];
            loop {
                let page = follow.next().await.unwrap();
                for entry in &page.entries {
                    let Entry::Line { rank, line, .. } = entry else {
                        panic!("no gap was made: {entry:?}");
                    };
                    assert_eq!(line.number, seen[*rank as usize] + 1);
                    seen[*rank as usize] = line.number;
                }
                if seen.iter().all(|&n| n == count) && page.finished {
                    return;
                }
            }
        }));
    }
    let writers: Vec<_> = (0..ranks)
        .map(|rank| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let id = stream("train", 1, rank);
                // Sent double, as after a lost acknowledgement.
                for n in 1..=count {
                    let from = n.saturating_sub(2).max(1);
                    let lines = (from..=n).map(|n| line(n, n as i64, "loss 0.1")).collect();
                    store.append(vec![(id.clone(), lines)]).await.unwrap();
                }
                store.finish(&id, count).await.unwrap();
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for follower in followers {
        follower.await.unwrap();
    }
}

#[tokio::test]
async fn resumes_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let id = stream("train", 1, 0);
    let store = open(dir.path());
    let lines = |range: std::ops::RangeInclusive<u64>| {
        let lines = range.map(|n| line(n, n as i64, "text")).collect();
        vec![(id.clone(), lines)]
    };
    store.append(lines(1..=10)).await.unwrap();
    let query = Query {
        limit: 4,
        ..Query::default()
    };
    let mut follow = store.follow("train", query);
    let page = follow.next().await.unwrap();
    assert_eq!(page.entries.len(), 4);
    let cursor = follow.cursor().to_string();
    drop(store);
    assert_eq!(follow.next().await.unwrap_err(), LogError::Closed);

    let store = open(dir.path());
    store.append(lines(8..=12)).await.unwrap();
    // Late lines of an earlier attempt are not passed over.
    let early = vec![(stream("train", 0, 0), vec![line(1, 0, "late")])];
    store.append(early).await.unwrap();
    let cursor: Cursor = cursor.parse().unwrap();
    let query = Query {
        cursor: Some(cursor),
        ..Query::default()
    };
    let mut follow = store.follow("train", query);
    let page = follow.next().await.unwrap();
    let numbers: Vec<u64> = page.entries.iter().map(number).collect();
    assert_eq!(numbers, [1, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert!(!page.finished);
    store.finish(&id, 12).await.unwrap();
    store.finish(&stream("train", 0, 0), 1).await.unwrap();
    let page = follow.next().await.unwrap();
    assert!(page.finished && page.entries.is_empty());
    // A further attempt goes on.
    let again = vec![(stream("train", 2, 0), vec![line(1, 99, "again")])];
    store.append(again).await.unwrap();
    let page = follow.next().await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert!(!page.finished);
}

#[tokio::test]
async fn removal_ends_followers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = stream("gone", 1, 0);
    let batch = || vec![(id.clone(), vec![line(1, 1, "x")])];
    store.append(batch()).await.unwrap();
    let mut follow = store.follow("gone", Query::default());
    assert_eq!(follow.next().await.unwrap().entries.len(), 1);
    assert!(store.remove("gone").await.unwrap());
    assert!(!store.remove("gone").await.unwrap());
    let removed = LogError::WorkloadRemoved {
        workload: "gone".into(),
    };
    // The name may be used again; its new followers are not touched by the old one's end.
    let mut fresh = store.follow("gone", Query::default());
    assert_eq!(follow.next().await.unwrap_err(), removed);
    drop(follow);
    let (page, _) = tokio::join!(fresh.next(), store.append(batch()));
    assert_eq!(page.unwrap().entries.len(), 1);
    assert_eq!(store.last(&id).unwrap(), 1);
}
