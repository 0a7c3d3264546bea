//! Random histories against a plain map.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clawbernetes_store::embedded::{Command, Db, MemoryDisk, Options, Reply};
use clawbernetes_store::{
    Change, Condition, FailedCondition, Key, LeaseId, Op, Order, Range, Record, Revision, StoreError, Txn, TxnOutcome,
};
use proptest::prelude::*;

/// What a store should be, said as plainly as possible.
#[derive(Clone, Default)]
pub(crate) struct Model {
    pub(crate) records: BTreeMap<Key, Record>,
    pub(crate) head: Revision,
    pub(crate) log: Vec<Change>,
    leases: BTreeMap<LeaseId, (Duration, Duration)>,
    last_lease: u64,
}

impl Model {
    pub(crate) fn at(head: Revision, records: BTreeMap<Key, Record>) -> Self {
        Model {
            records,
            head,
            ..Model::default()
        }
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        let failed: Vec<FailedCondition> = txn
            .conditions
            .iter()
            .enumerate()
            .filter_map(|(index, condition)| {
                let key = condition.key().clone();
                let current = self.records.get(&key).map(|record| record.modified);
                let holds = match condition {
                    Condition::Absent(_) => current.is_none(),
                    Condition::Exists(_) => current.is_some(),
                    Condition::Unchanged(_, wanted) => current == Some(*wanted),
                    _ => unreachable!("the model knows every condition"),
                };
                (!holds).then_some(FailedCondition { index, key, current })
            })
            .collect();
        if !failed.is_empty() {
            return Ok(TxnOutcome::Conflict { failed });
        }
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.leases.contains_key(lease)
            {
                return Err(StoreError::NoSuchLease { lease: *lease });
            }
        }
        let revision = self.head.next();
        let mut changes = Vec::new();
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    let before = self.records.get(key);
                    let record = Record {
                        key: key.clone(),
                        value: value.clone(),
                        created: before.map_or(revision, |before| before.created),
                        modified: revision,
                        version: before.map_or(1, |before| before.version + 1),
                        lease: *lease,
                    };
                    self.records.insert(key.clone(), record.clone());
                    changes.push(Change::Put(record));
                }
                Op::Delete { key } => {
                    if self.records.remove(key).is_some() {
                        let key = key.clone();
                        changes.push(Change::Delete { key, revision });
                    }
                }
                Op::DeleteRange { range } => {
                    let keys: Vec<Key> = self.records.keys().cloned().collect();
                    for key in keys.into_iter().filter(|key| range.contains(key)) {
                        self.records.remove(&key);
                        changes.push(Change::Delete { key, revision });
                    }
                }
                _ => unreachable!("the model knows every operation"),
            }
        }
        self.log(revision, changes);
        Ok(TxnOutcome::Committed(self.head))
    }

    fn log(&mut self, revision: Revision, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.head = revision;
            self.log.extend(changes);
        }
    }

    fn end(&mut self, leases: &BTreeSet<LeaseId>) {
        let revision = self.head.next();
        let mut changes = Vec::new();
        let held: Vec<Key> = self
            .records
            .values()
            .filter(|record| record.lease.is_some_and(|lease| leases.contains(&lease)))
            .map(|record| record.key.clone())
            .collect();
        for key in held {
            self.records.remove(&key);
            changes.push(Change::Delete { key, revision });
        }
        self.leases.retain(|lease, _| !leases.contains(lease));
        self.log(revision, changes);
    }

    pub(crate) fn run(&mut self, command: &Command, now: Duration) -> Result<Reply, StoreError> {
        match command {
            Command::Txn(txn) => self.txn(txn).map(Reply::Txn),
            Command::Grant { ttl } => {
                self.last_lease += 1;
                let id = LeaseId(self.last_lease);
                self.leases.insert(id, (*ttl, now + *ttl));
                Ok(Reply::Granted(id))
            }
            Command::Revoke { lease } => {
                if !self.leases.contains_key(lease) {
                    return Err(StoreError::NoSuchLease { lease: *lease });
                }
                self.end(&BTreeSet::from([*lease]));
                Ok(Reply::Revoked(self.head))
            }
        }
    }

    fn tick(&mut self, now: Duration) {
        let due: BTreeSet<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, (_, deadline))| *deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        if !due.is_empty() {
            self.end(&due);
        }
    }

    fn keep_alive(&mut self, lease: LeaseId, now: Duration) -> bool {
        let Some((ttl, deadline)) = self.leases.get_mut(&lease) else {
            return false;
        };
        *deadline = (*deadline).max(now + *ttl);
        true
    }

    fn reopen(&mut self, now: Duration) {
        for (ttl, deadline) in self.leases.values_mut() {
            *deadline = now + *ttl;
        }
    }
}

/// One step of a history. Keys, leases and revisions are small numbers, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Cmd>),
    KeepAlive(u64),
    Wait(u64),
    Reopen,
}

#[derive(Clone, Debug)]
enum Cmd {
    Txn(Vec<Cond>, BTreeMap<u8, Edit>, Option<(u8, u8)>),
    Grant(u64),
    Revoke(u64),
}

#[derive(Clone, Debug)]
enum Cond {
    Absent(u8),
    Exists(u8),
    /// The key's present revision, less this much.
    Unchanged(u8, u64),
}

#[derive(Clone, Debug)]
enum Edit {
    Put(u8, Option<u64>),
    Delete,
}

fn key(number: u8) -> Key {
    // Some are prefixes of others.
    Key::from(format!("/k/{}", "x".repeat(usize::from(number % 5))) + &number.to_string())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cond = prop_oneof![
        (0..8u8).prop_map(Cond::Absent),
        (0..8u8).prop_map(Cond::Exists),
        (0..8u8, 0..2u64).prop_map(|(key, back)| Cond::Unchanged(key, back)),
    ];
    let edit = prop_oneof![
        3 => (any::<u8>(), proptest::option::weighted(0.3, 1..6u64))
            .prop_map(|(value, lease)| Edit::Put(value, lease)),
        1 => Just(Edit::Delete),
    ];
    let txn = (
        proptest::collection::vec(cond, 0..3),
        proptest::collection::btree_map(0..8u8, edit, 0..4),
        proptest::option::weighted(0.1, (0..8u8, 0..8u8)),
    );
    let command = prop_oneof![
        8 => txn.prop_map(|(conds, edits, sweep)| Cmd::Txn(conds, edits, sweep)),
        1 => (1..20u64).prop_map(Cmd::Grant),
        1 => (1..6u64).prop_map(Cmd::Revoke),
    ];
    let step = prop_oneof![
        8 => proptest::collection::vec(command, 1..6).prop_map(Step::Batch),
        1 => (1..6u64).prop_map(Step::KeepAlive),
        2 => (0..15u64).prop_map(Step::Wait),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..30)
}

/// A transaction out of numbers; `model` supplies present revisions.
fn command(cmd: &Cmd, model: &Model) -> Command {
    match cmd {
        Cmd::Grant(ttl) => Command::Grant {
            ttl: Duration::from_secs(*ttl),
        },
        Cmd::Revoke(lease) => Command::Revoke { lease: LeaseId(*lease) },
        Cmd::Txn(conds, edits, sweep) => {
            let mut txn = Txn::new();
            for cond in conds {
                txn = match cond {
                    Cond::Absent(n) => txn.absent(key(*n)),
                    Cond::Exists(n) => txn.exists(key(*n)),
                    Cond::Unchanged(n, back) => {
                        let present = model.records.get(&key(*n)).map_or(1, |r| r.modified.0);
                        txn.unchanged(key(*n), Revision(present.saturating_sub(*back)))
                    }
                };
            }
            let sweep = sweep.map(|(a, b)| {
                let (low, high) = (key(a).min(key(b)), key(a).max(key(b)));
                Range::between(low, high)
            });
            for (n, edit) in edits {
                if sweep.as_ref().is_some_and(|sweep| sweep.contains(&key(*n))) {
                    continue;
                }
                txn = match edit {
                    Edit::Put(value, None) => txn.put(key(*n), vec![*value]),
                    Edit::Put(value, Some(lease)) => txn.put_leased(key(*n), vec![*value], LeaseId(*lease)),
                    Edit::Delete => txn.delete(key(*n)),
                };
            }
            Command::Txn(match sweep {
                Some(sweep) => txn.delete_range(sweep),
                None => txn,
            })
        }
    }
}

fn open(disk: &MemoryDisk, now: Duration) -> Db {
    Db::open(disk.clone(), Options::default(), now).unwrap()
}

/// Everything that a watch would deliver from here on.
pub(crate) fn drain(db: &Db, mut from: Revision) -> Vec<Change> {
    let mut all = Vec::new();
    loop {
        let (changes, upto) = db.reader().changes(&Range::all(), from).unwrap();
        all.extend(changes);
        if upto == from {
            return all;
        }
        from = upto;
    }
}

/// The same changes within one transaction may come in another order for expiring leases.
fn sorted(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by(|a, b| (a.revision(), a.key()).cmp(&(b.revision(), b.key())));
    changes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_core_is_the_model(steps in steps()) {
        let disk = MemoryDisk::new();
        let mut now = Duration::ZERO;
        let mut db = open(&disk, now);
        let mut model = Model::default();
        let mut watched_from = Revision::ZERO;
        let mut logged = 0;
        for step in &steps {
            match step {
                Step::Batch(cmds) => {
                    // The model's answers are those of running one after the other; conditions
                    // that name revisions are filled in as the batch goes.
                    model.tick(now);
                    let mut commands = Vec::new();
                    let mut expected = Vec::new();
                    for cmd in cmds {
                        let command = command(cmd, &model);
                        expected.push(format!("{:?}", model.run(&command, now)));
                        commands.push(command);
                    }
                    let got: Vec<String> =
                        db.run(&commands, now).iter().map(|r| format!("{r:?}")).collect();
                    prop_assert_eq!(got, expected);
                }
                Step::KeepAlive(lease) => {
                    let lease = LeaseId(*lease);
                    prop_assert_eq!(db.keep_alive(lease, now).is_ok(), model.keep_alive(lease, now));
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(*seconds);
                    db.run(&[], now);
                    model.tick(now);
                }
                Step::Reopen => {
                    let seen = drain(&db, watched_from);
                    prop_assert_eq!(sorted(seen), sorted(model.log[logged..].to_vec()));
                    logged = model.log.len();
                    drop(db);
                    db = open(&disk, now);
                    model.reopen(now);
                    watched_from = model.head;
                }
            }
            let page = db.reader().range(&Range::all(), usize::MAX, Order::Ascending).unwrap();
            prop_assert_eq!(page.revision, model.head);
            prop_assert_eq!(&page.records, &model.records.values().cloned().collect::<Vec<_>>());
            prop_assert_eq!(db.reader().status().leases, model.leases.len());
        }
        let seen = drain(&db, watched_from);
        prop_assert_eq!(sorted(seen), sorted(model.log[logged..].to_vec()));
        for number in 0..8 {
            let found = db.reader().get(&key(number)).unwrap();
            prop_assert_eq!(found.as_ref(), model.records.get(&key(number)));
        }
        let down = db.reader().range(&Range::prefix("/k/x"), 2, Order::Descending).unwrap();
        let wanted: Vec<Record> = model.records.values().rev()
            .filter(|r| r.key.starts_with("/k/x")).cloned().collect();
        prop_assert_eq!(down.more, wanted.len() > 2);
        prop_assert_eq!(down.records, wanted.into_iter().take(2).collect::<Vec<_>>());
    }
}
