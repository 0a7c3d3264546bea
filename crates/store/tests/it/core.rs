//! The synchronous core.

use std::time::Duration;

use clawbernetes_store::embedded::{Command, Db, FaultyDisk, MemoryDisk, Options, Reply};
use clawbernetes_store::{Change, FailedCondition, Key, LeaseId, Order, Range, Revision, StoreError, Txn, TxnOutcome};

use crate::model::drain;

const START: Duration = Duration::from_secs(1000);

fn seconds(count: u64) -> Duration {
    START + Duration::from_secs(count)
}

fn open() -> Db {
    Db::open(MemoryDisk::new(), Options::default(), START).unwrap()
}

#[test]
fn conditions_see_what_the_batch_did_before() {
    let mut db = open();
    let answers = db.apply(
        &[
            Txn::new().absent("/a").put("/a", "1"),
            Txn::new().absent("/a").put("/a", "2"),
            Txn::new().unchanged("/a", Revision(1)).put("/b", "3"),
            Txn::new().exists("/c").unchanged("/b", Revision(9)).delete("/a"),
        ],
        START,
    );
    let answers: Vec<TxnOutcome> = answers.into_iter().map(Result::unwrap).collect();
    let failed = |index, key: &str, current| FailedCondition {
        index,
        key: Key::from(key),
        current,
    };
    assert_eq!(
        answers,
        [
            TxnOutcome::Committed(Revision(1)),
            TxnOutcome::Conflict {
                failed: vec![failed(0, "/a", Some(Revision(1)))],
            },
            TxnOutcome::Committed(Revision(2)),
            TxnOutcome::Conflict {
                failed: vec![failed(0, "/c", None), failed(1, "/b", Some(Revision(2)))],
            },
        ]
    );
    assert_eq!(drain(&db, Revision::ZERO).len(), 2);
}

#[test]
fn one_refused_transaction_does_not_harm_its_batch() {
    let mut db = open();
    let answers = db.apply(
        &[
            Txn::new().put("/a", "1"),
            Txn::new().put("/x", "1").put_leased("/y", "1", LeaseId(77)),
            Txn::new().put("", "1"),
            Txn::new().put("/b", vec![0; 2 << 20]),
            Txn::new().put("/c", "1"),
        ],
        START,
    );
    assert!(answers[0].is_ok() && answers[4].is_ok());
    assert!(matches!(answers[1], Err(StoreError::NoSuchLease { .. })));
    assert!(matches!(answers[2], Err(StoreError::EmptyKey)));
    assert!(matches!(answers[3], Err(StoreError::TooLarge { .. })));
    let page = db.reader().range(&Range::all(), 10, Order::Ascending).unwrap();
    let keys: Vec<&str> = page.records.iter().map(|r| r.key.as_str()).collect();
    assert_eq!((keys, page.revision), (vec!["/a", "/c"], Revision(2)));
}

#[test]
fn a_batch_is_one_commit_and_nothing_is_no_commit() {
    let disk = FaultyDisk::new();
    let mut db = Db::open(disk.clone(), Options::default(), START).unwrap();
    // The file's first growth is behind us.
    let warm: Vec<Txn> = (0..64).map(|n| Txn::new().put(format!("/{n}"), "v")).collect();
    let _ = db.apply(&warm, START);
    let syncs = || disk.operations().1;
    let before = syncs();
    let _ = db.apply(&[Txn::new().put("/1", "w")], START);
    let one = syncs() - before;
    let before = syncs();
    let many: Vec<Txn> = (0..64).map(|n| Txn::new().put(format!("/{n}"), "w")).collect();
    assert!(db.apply(&many, START).iter().all(Result::is_ok));
    assert_eq!(syncs() - before, one);

    let before = disk.operations();
    let head = db.reader().status().revision;
    let answers = db.apply(
        &[
            Txn::new().absent("/1").put("/1", "never"),
            Txn::new().delete("/nothing").delete_range(Range::prefix("/none")),
            Txn::new(),
        ],
        START,
    );
    assert!(matches!(answers[0], Ok(TxnOutcome::Conflict { .. })));
    assert_eq!(*answers[1].as_ref().unwrap(), TxnOutcome::Committed(head));
    assert_eq!(*answers[2].as_ref().unwrap(), TxnOutcome::Committed(head));
    assert_eq!(db.reader().status().revision, head);
    assert_eq!(disk.operations(), before);
}

#[test]
fn a_lease_takes_its_records_along_in_one_transaction() {
    let mut db = open();
    let lease = db.grant(Duration::from_secs(10), START).unwrap();
    let other = db.grant(Duration::from_secs(100), START).unwrap();
    let _ = db.apply(
        &[
            Txn::new()
                .put_leased("/a", "1", lease)
                .put_leased("/b", "1", lease)
                .put_leased("/moved", "1", lease)
                .put_leased("/freed", "1", lease)
                .put("/plain", "1"),
            Txn::new().put_leased("/moved", "2", other).put("/freed", "2"),
        ],
        START,
    );
    db.keep_alive(lease, seconds(5)).unwrap();
    assert_eq!(db.next_deadline(), Some(seconds(15)));
    db.run(&[], seconds(14));
    assert_eq!(db.reader().status().revision, Revision(2));
    db.run(&[], seconds(15));
    let gone = drain(&db, Revision(2));
    assert_eq!(
        gone,
        [
            Change::Delete {
                key: Key::from("/a"),
                revision: Revision(3),
            },
            Change::Delete {
                key: Key::from("/b"),
                revision: Revision(3),
            },
        ]
    );
    assert!(matches!(
        db.keep_alive(lease, seconds(15)),
        Err(StoreError::NoSuchLease { .. })
    ));
    // Nor can anything hang on it now.
    let late = db.apply(&[Txn::new().put_leased("/late", "1", lease)], seconds(15));
    assert!(matches!(late[0], Err(StoreError::NoSuchLease { .. })));
    assert_eq!(db.revoke(other, seconds(16)).unwrap(), Revision(4));
    assert!(db.reader().get(&Key::from("/moved")).unwrap().is_none());
    assert_eq!(db.reader().get(&Key::from("/freed")).unwrap().unwrap().value, "2");
}

#[test]
fn a_due_lease_ends_before_the_batch_that_notices() {
    let mut db = open();
    let lease = db.grant(Duration::from_secs(1), START).unwrap();
    let _ = db.apply(&[Txn::new().put_leased("/holder", "me", lease)], START);
    let taken = db.apply(&[Txn::new().absent("/holder").put("/holder", "you")], seconds(1));
    assert_eq!(*taken[0].as_ref().unwrap(), TxnOutcome::Committed(Revision(3)));
}

#[test]
fn a_restart_gives_every_lease_its_full_time() {
    let disk = MemoryDisk::new();
    let open = |now| Db::open(disk.clone(), Options::default(), now).unwrap();
    let mut db = open(START);
    let lease = db.grant(Duration::from_secs(10), START).unwrap();
    let _ = db.apply(&[Txn::new().put_leased("/a", "1", lease)], START);
    drop(db);
    let mut db = open(seconds(60));
    db.run(&[], seconds(69));
    assert!(db.reader().get(&Key::from("/a")).unwrap().is_some());
    let next = db.grant(Duration::from_secs(1), seconds(69)).unwrap();
    assert!(next > lease);
    db.run(&[], seconds(70));
    assert!(db.reader().get(&Key::from("/a")).unwrap().is_none());
}

#[test]
fn grants_and_revocations_share_a_batch() {
    let mut db = open();
    let ttl = Duration::from_secs(5);
    let answers = db.run(
        &[
            Command::Grant { ttl },
            Command::Txn(Txn::new().put_leased("/a", "1", LeaseId(1))),
            Command::Revoke { lease: LeaseId(1) },
            Command::Txn(Txn::new().put_leased("/b", "1", LeaseId(1))),
            Command::Revoke { lease: LeaseId(1) },
            Command::Grant { ttl: Duration::ZERO },
        ],
        START,
    );
    assert_eq!(*answers[0].as_ref().unwrap(), Reply::Granted(LeaseId(1)));
    assert_eq!(*answers[2].as_ref().unwrap(), Reply::Revoked(Revision(2)));
    assert!(matches!(answers[3], Err(StoreError::NoSuchLease { .. })));
    assert!(matches!(answers[4], Err(StoreError::NoSuchLease { .. })));
    assert!(matches!(answers[5], Err(StoreError::BadTtl { .. })));
    assert_eq!(db.reader().status().leases, 0);
}

#[test]
fn history_is_bounded_and_says_so() {
    let options = Options {
        history_changes: 10,
        ..Options::default()
    };
    let disk = MemoryDisk::new();
    let mut db = Db::open(disk.clone(), options, START).unwrap();
    for n in 0..30 {
        let _ = db.apply(&[Txn::new().put("/a", n.to_string())], START);
    }
    let status = db.reader().status();
    assert_eq!(status.watchable_from, Revision(20));
    assert_eq!(drain(&db, Revision(20)).len(), 10);
    assert!(matches!(
        db.reader().changes(&Range::all(), Revision(19)),
        Err(StoreError::Compacted { oldest }) if oldest == Revision(20)
    ));
    drop(db);
    let db = Db::open(disk, Options::default(), START).unwrap();
    assert_eq!(db.reader().status().watchable_from, Revision(30));
}
