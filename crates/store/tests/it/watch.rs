//! Watches under concurrent writers.

use std::collections::BTreeMap;

use clawbernetes_store::embedded::{Embedded, MemoryDisk, Options};
use clawbernetes_store::{Change, Order, Range, Revision, Store, StoreError, Txn, TxnOutcome, Watch};

use crate::model::Model;

fn open(options: Options) -> Store {
    Store::new(Embedded::open(MemoryDisk::new(), options).unwrap())
}

async fn collect_until(watch: &mut Watch, last: Revision) -> Vec<Change> {
    let mut all = Vec::new();
    while watch.revision() < last {
        let batch = watch.next().await.unwrap();
        assert_eq!(batch.revision, watch.revision());
        all.extend(batch.changes);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_early_or_late_sees_every_change_once_in_order() {
    const WRITERS: u64 = 8;
    const EACH: u64 = 60;
    let store = open(Options::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    let txn = Txn::new()
                        .put(format!("/w/{writer}"), n.to_string())
                        .put(format!("/both/{writer}/{n}"), "v");
                    let _ = store.txn(txn).await.unwrap();
                }
            })
        })
        .collect();
    let last = Revision(WRITERS * EACH);
    let watchers: Vec<_> = (0..6)
        .map(|nth| {
            let store = store.clone();
            tokio::spawn(async move {
                // Subscribe in the middle of it, from a listing.
                while store.status().revision < Revision(nth * 50) {
                    tokio::task::yield_now().await;
                }
                let page = store.range(Range::all(), usize::MAX, Order::Ascending).await.unwrap();
                let mut watch = store.watch(Range::all(), page.revision).await.unwrap();
                let changes = collect_until(&mut watch, last).await;
                let mut revisions: Vec<u64> = changes.iter().map(|c| c.revision().0).collect();
                revisions.dedup();
                let wanted: Vec<u64> = (page.revision.0 + 1..=last.0).collect();
                assert_eq!(revisions, wanted);
                assert_eq!(changes.len(), wanted.len() * 2);
                // Listing and changes together are the present state.
                let mut state: std::collections::BTreeMap<_, _> =
                    page.records.into_iter().map(|r| (r.key.clone(), r)).collect();
                for change in changes {
                    if let Change::Put(record) = change {
                        state.insert(record.key.clone(), record);
                    }
                }
                let now = store.range(Range::all(), usize::MAX, Order::Ascending).await.unwrap();
                assert_eq!(now.records, state.into_values().collect::<Vec<_>>());
            })
        })
        .collect();
    for task in writers.into_iter().chain(watchers) {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_watcher_is_told_what_it_missed_and_holds_up_nobody() {
    let store = open(Options {
        history_changes: 20,
        ..Options::default()
    });
    let mut slow = store.watch(Range::all(), Revision::ZERO).await.unwrap();
    let mut other = store.watch(Range::key("/never"), Revision::ZERO).await.unwrap();
    for n in 0..50 {
        let _ = store.txn(Txn::new().put("/a", n.to_string())).await.unwrap();
    }
    for watch in [&mut slow, &mut other] {
        assert!(matches!(
            watch.next().await,
            Err(StoreError::Compacted { oldest }) if oldest == Revision(30)
        ));
    }
    let error = store.watch(Range::all(), Revision(29)).await.unwrap_err();
    assert!(matches!(error, StoreError::Compacted { .. }));
    let mut fresh = store.watch(Range::all(), Revision(30)).await.unwrap();
    assert_eq!(fresh.next().await.unwrap().changes.len(), 20);
    store.compact(Revision(45)).await.unwrap();
    assert_eq!(store.status().watchable_from, Revision(45));
}

#[tokio::test]
async fn a_watch_delivers_what_is_there_and_ends_with_the_store() {
    let store = open(Options::default());
    let mut watch = store.watch(Range::prefix("/a"), Revision::ZERO).await.unwrap();
    // A future that is dropped loses nothing.
    drop(watch.next());
    let _ = store.txn(Txn::new().put("/a", "1").put("/b", "1")).await.unwrap();
    let _ = store.txn(Txn::new().delete("/a")).await.unwrap();
    store.close().await;
    let batch = watch.next().await.unwrap();
    assert_eq!((batch.changes.len(), batch.revision), (2, Revision(2)));
    assert!(matches!(watch.next().await, Err(StoreError::Closed)));
    assert!(matches!(store.get("/a").await, Err(StoreError::Closed)));
    assert!(matches!(
        store.txn(Txn::new().put("/a", "1")).await,
        Err(StoreError::Closed)
    ));
    store.close().await;
}

/// Random transactions from many tasks: their answers must be those of one order, the order of the
/// revisions, and each must have happened between its question and its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_transactions_are_linearizable() {
    struct Told {
        txn: Txn,
        outcome: TxnOutcome,
        before: Revision,
        after: Revision,
    }
    let store = open(Options::default());
    let tasks: Vec<_> = (0..12_u64)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut dice = task;
                let mut roll = move |sides: u64| {
                    dice = dice
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (dice >> 33) % sides
                };
                let mut told = Vec::new();
                for n in 0..80 {
                    let (looked, changed) = (format!("/{}", roll(5)), format!("/{}", roll(5)));
                    let txn = match roll(4) {
                        0 => Txn::new().absent(&looked),
                        1 => Txn::new().exists(&looked),
                        _ => match store.get(&looked).await.unwrap() {
                            Some(record) => Txn::new().unchanged(&looked, record.modified),
                            None => Txn::new().absent(&looked),
                        },
                    };
                    let txn = match roll(3) {
                        0 => txn.delete(&changed),
                        _ => txn.put(&changed, format!("{task}/{n}")),
                    };
                    let before = store.status().revision;
                    let outcome = store.txn(txn.clone()).await.unwrap();
                    let after = store.status().revision;
                    told.push(Told {
                        txn,
                        outcome,
                        before,
                        after,
                    });
                }
                told
            })
        })
        .collect();
    let mut told = Vec::new();
    for task in tasks {
        told.extend(task.await.unwrap());
    }
    let last = store.status().revision;
    let mut watch = store.watch(Range::all(), Revision::ZERO).await.unwrap();
    // The state after each revision, as watchers were told.
    let mut states = vec![BTreeMap::new()];
    for change in collect_until(&mut watch, last).await {
        let mut state = states.last().unwrap().clone();
        assert_eq!(change.revision().0, states.len() as u64);
        match change {
            Change::Put(record) => state.insert(record.key.clone(), record),
            Change::Delete { key, .. } => state.remove(&key),
        };
        states.push(state);
    }
    let run = |txn: &Txn, on: u64| {
        let mut model = Model::at(Revision(on), states[on as usize].clone());
        let outcome = model.txn(txn).unwrap();
        (outcome, model)
    };
    let mut conflicts = 0;
    for Told {
        txn,
        outcome,
        before,
        after,
    } in told
    {
        match &outcome {
            TxnOutcome::Committed(revision) => {
                assert!(before <= *revision && *revision <= after);
                let changed = revision.0 > 0 && {
                    let (expected, model) = run(&txn, revision.0 - 1);
                    expected == outcome && model.records == states[revision.0 as usize] && *revision > before
                };
                assert!(changed || run(&txn, revision.0).0 == outcome, "{txn:?}");
            }
            TxnOutcome::Conflict { .. } => {
                conflicts += 1;
                let mut moments = before.0..=after.0;
                assert!(moments.any(|on| run(&txn, on).0 == outcome), "{txn:?}");
            }
        }
    }
    assert!(conflicts > 0);
}
