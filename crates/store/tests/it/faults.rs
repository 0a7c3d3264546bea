//! Loss of power, torn writes, full disks.

use std::time::Duration;

use clawbernetes_store::embedded::{Db, Embedded, FaultyDisk, Options};
use clawbernetes_store::{Change, Health, Key, Order, Range, Record, Revision, Store, StoreError, Txn};

use crate::model::{Model, drain};

const NOW: Duration = Duration::ZERO;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn random_txn(dice: &mut Dice) -> Txn {
    (0..=dice.roll(3)).fold(Txn::new(), |txn, part| {
        let key = format!("/{part}/{}", dice.roll(40));
        match dice.roll(4) {
            0 => txn.delete(key),
            _ => {
                let len = dice.roll(3000) as usize;
                let byte = dice.roll(256) as u8;
                txn.put(key, vec![byte; len])
            }
        }
    })
}

fn all(db: &Db) -> (Vec<Record>, Revision) {
    let page = db.reader().range(&Range::all(), usize::MAX, Order::Ascending).unwrap();
    (page.records, page.revision)
}

fn state(model: &Model) -> (Vec<Record>, Revision) {
    (model.records.values().cloned().collect(), model.head)
}

fn lose_power(seed: u64, quick_repair: bool) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9));
    let disk = FaultyDisk::new();
    let options = Options {
        quick_repair,
        ..Options::default()
    };
    let mut model = Model::default();
    for round in 0..6 {
        // A crash may also hit the opening (and the repair) itself.
        if dice.roll(4) == 0 {
            disk.lose_power_after(dice.roll(20));
            let opened = Db::open(disk.clone(), options.clone(), NOW);
            drop(opened);
            disk.restore_power(dice.roll(u64::MAX >> 33));
        }
        let mut db = Db::open(disk.clone(), options.clone(), NOW)
            .unwrap_or_else(|error| panic!("seed {seed} round {round}: {error:?}"));
        assert_eq!(all(&db), state(&model), "seed {seed} round {round}");
        disk.lose_power_after(1 + dice.roll(150));
        loop {
            let batch: Vec<Txn> = (0..=dice.roll(6)).map(|_| random_txn(&mut dice)).collect();
            let mut next = model.clone();
            next.log.clear();
            let expected: Vec<_> = batch.iter().map(|txn| next.txn(txn).unwrap()).collect();
            let answers = db.apply(&batch, NOW);
            if answers.iter().all(Result::is_ok) {
                let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
                assert_eq!(answers, expected, "seed {seed} round {round}");
                model = next.clone();
                if !disk.is_dark() {
                    continue;
                }
            }
            drop(db);
            disk.restore_power(dice.roll(u64::MAX >> 33));
            let db = Db::open(disk.clone(), options.clone(), NOW)
                .unwrap_or_else(|error| panic!("seed {seed} round {round}: {error:?}"));
            // The batch in flight is there as a whole or not at all.
            let found = all(&db);
            if found == state(&next) {
                model = next;
            }
            assert_eq!(found, state(&model), "seed {seed} round {round}");
            break;
        }
    }
}

/// `STORE_TEST_SEEDS=10000` looks further.
#[test]
fn what_was_acknowledged_survives_loss_of_power() {
    let seeds = std::env::var("STORE_TEST_SEEDS").map_or(100, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        for quick_repair in [false, true] {
            lose_power(seed, quick_repair);
        }
    }
}

/// Fills the disk, sees it refused, makes room, sees it go on.
#[test]
fn a_full_disk_refuses_loses_nothing_and_resumes() {
    for slack in 0..60 {
        let disk = FaultyDisk::new();
        let mut db = Db::open(disk.clone(), Options::default(), NOW).unwrap();
        let mut model = Model::default();
        let mut put = |db: &mut Db, n: u64| {
            let txn = Txn::new().put(format!("/{n}"), vec![n as u8; 4000]);
            let answer = db.apply(std::slice::from_ref(&txn), NOW).pop().unwrap();
            if let Ok(outcome) = &answer {
                assert_eq!(outcome, &model.txn(&txn).unwrap());
            }
            (answer, state(&model), model.log.clone())
        };
        for n in 0..20 {
            assert!(put(&mut db, n).0.is_ok());
        }
        disk.set_quota_bytes(Some(disk.used_bytes() + slack * 4096));
        let mut n = 20;
        let refused = loop {
            match put(&mut db, n).0 {
                Ok(_) => n += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, StoreError::StorageFull { .. }), "{refused:?}");
        assert!(matches!(
            db.reader().status().health,
            Health::Failing(StoreError::StorageFull { .. })
        ));
        // Again, and again: reads go on as if nothing were.
        for _ in 0..3 {
            assert!(put(&mut db, n).0.is_err());
            assert_eq!(all(&db).0.len() as u64, n, "slack {slack}");
        }
        disk.set_quota_bytes(None);
        let (answer, wanted, log) = put(&mut db, n);
        assert!(answer.is_ok(), "slack {slack}: {answer:?}");
        assert_eq!(all(&db), wanted);
        assert!(matches!(db.reader().status().health, Health::Serving));
        // Watchers have missed nothing.
        assert_eq!(drain(&db, Revision::ZERO), log);
    }
}

/// A commit whose last sync fails may have taken effect: callers get an error, but records,
/// revisions and watch history must agree with each other.
#[test]
fn a_failed_sync_leaves_one_truth() {
    for skip in 0..4 {
        let disk = FaultyDisk::new();
        let mut db = Db::open(disk.clone(), Options::default(), NOW).unwrap();
        let mut errors = 0;
        for n in 0..40 {
            if n % 5 == skip {
                disk.fail_syncs(1 + n % 3);
            }
            let txn = Txn::new().put(format!("/{}", n % 7), n.to_string());
            errors += u32::from(db.apply(&[txn], NOW)[0].is_err());
            let mut replayed = std::collections::BTreeMap::new();
            for change in drain(&db, Revision::ZERO) {
                match change {
                    Change::Put(record) => replayed.insert(record.key.clone(), record),
                    Change::Delete { key, .. } => replayed.remove(&key),
                };
            }
            if let Ok(page) = db.reader().range(&Range::all(), 100, Order::Ascending) {
                assert_eq!(page.records, replayed.into_values().collect::<Vec<_>>());
                assert_eq!(page.revision, db.reader().status().revision);
            }
        }
        assert!(errors > 0);
    }
}

/// After a failed sync the system may forget that it owes the disk some pages. What is acknowledged
/// later must not stand on them.
#[test]
fn a_failed_sync_is_made_up_for() {
    for seed in 0..200_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9));
        let disk = FaultyDisk::new();
        let options = Options {
            quick_repair: seed % 2 == 0,
            ..Options::default()
        };
        let mut db = Db::open(disk.clone(), options.clone(), NOW).unwrap();
        // The last state acknowledged, and those that a failed commit may have left since.
        let mut possible = vec![all(&db)];
        for _ in 0..5 + dice.roll(30) {
            if dice.roll(4) == 0 {
                disk.fail_syncs(1 + dice.roll(2));
            }
            let answer = db.apply(&[random_txn(&mut dice)], NOW).pop().unwrap();
            if answer.is_ok() {
                possible.clear();
            }
            match db.reader().range(&Range::all(), usize::MAX, Order::Ascending) {
                Ok(page) => possible.push((page.records, page.revision)),
                Err(_) => assert!(answer.is_err()),
            }
        }
        disk.lose_power_after(0);
        drop(db);
        disk.restore_power(seed);
        disk.fail_syncs(0);
        let db = Db::open(disk.clone(), options, NOW).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        assert!(possible.contains(&all(&db)), "seed {seed}");
    }
}

#[tokio::test]
async fn the_engine_recovers_without_being_asked() {
    let disk = FaultyDisk::new();
    let store = Store::new(Embedded::open(disk.clone(), Options::default()).unwrap());
    let _ = store.txn(Txn::new().put("/a", "1")).await.unwrap();
    disk.set_quota_bytes(Some(disk.used_bytes()));
    let mut n = 0;
    let refused = loop {
        let txn = Txn::new().put(format!("/{n}"), vec![0; 4000]);
        match store.txn(txn).await {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::StorageFull { .. }));
    disk.set_quota_bytes(None);
    while !matches!(store.status().health, Health::Serving) {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.get("/a").await.unwrap().unwrap().value, "1");
    let _ = store.txn(Txn::new().put("/b", "2")).await.unwrap();
}

#[test]
fn a_damaged_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    std::fs::write(&path, vec![7; 9000]).unwrap();
    assert!(matches!(
        Store::open(&path, Options::default()),
        Err(StoreError::Corrupt { .. } | StoreError::Io { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), vec![7; 9000]);
}

#[test]
fn a_newer_format_is_refused_by_both_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let database = redb::Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
        txn.open_table(table).unwrap().insert("format", 9).unwrap();
        txn.commit().unwrap();
    }
    let error = Store::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, StoreError::FormatTooNew { found: 9, supported: 1 }));
    assert!(error.to_string().contains('9') && error.to_string().contains('1'));
}

#[test]
fn a_reader_outlives_its_store_politely() {
    let db = Db::open(FaultyDisk::new(), Options::default(), NOW).unwrap();
    let reader = db.reader();
    drop(db);
    assert!(matches!(reader.get(&Key::from("/a")), Err(StoreError::Closed)));
    assert!(matches!(reader.status().health, Health::Closed));
}
