//! The synchronous core.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};

use super::Options;
use super::codec::{
    FORMAT, LEASE_KEYS, LEASES, META, META_FORMAT, META_HEAD, META_LEASE, META_PROBE, RECORDS, redb_error,
};
use super::disk::{Disk, Doubtful, Gate, GateState};
use super::history::History;
use super::lease::{Lease, Leases};
use super::reader::{Reader, Shared, Snapshot};
use super::staged::{Batch, Staged};
use crate::{Health, LeaseId, Revision, StoreError, Txn, TxnOutcome};

/// Something that changes the store.
#[derive(Clone, Debug)]
pub enum Command {
    /// See [`Store::txn`](crate::Store::txn).
    Txn(Txn),
    /// See [`Store::grant`](crate::Store::grant).
    Grant {
        /// Time to live.
        ttl: Duration,
    },
    /// See [`Store::revoke`](crate::Store::revoke).
    Revoke {
        /// The lease to end.
        lease: LeaseId,
    },
}

/// What a [`Command`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Of [`Command::Txn`].
    Txn(TxnOutcome),
    /// Of [`Command::Grant`].
    Granted(LeaseId),
    /// Of [`Command::Revoke`]: the revision that deleted the lease's records.
    Revoked(Revision),
}

/// The embedded store without threads or clock: it does what it is told, when it is told.
///
/// Every `now` is the time since some fixed moment of the caller's choice, on a clock that never
/// goes back (an earlier `now` is harmless: leases just end later).
///
/// If the disk fails, the batch in hand fails, and each later call first opens the file anew;
/// readers go on as soon as that works. Dropping a `Db` ends its readers and watches with
/// [`StoreError::Closed`].
pub struct Db {
    // Dropped in this order: the database lets go of the file before the disk unlocks it.
    open: Result<Open, StoreError>,
    disk: Box<dyn Disk>,
    options: Options,
    shared: Arc<Shared>,
    head: Revision,
    last_lease: u64,
    /// A batch whose commit failed: only the reopened file tells whether it took effect.
    unsure: Option<Staged>,
    failing: bool,
    /// What failed files had not synced, until a commit succeeds.
    doubtful: Doubtful,
}

struct Open {
    database: Database,
    gate: Arc<GateState>,
}

/// What a file says when opened.
struct Found {
    open: Open,
    head: Revision,
    last_lease: u64,
    leases: HashMap<LeaseId, Duration>,
}

impl Db {
    /// Opens, or makes, the store on `disk`. The watch history begins at its present revision;
    /// every lease gets its full time from `now`.
    ///
    /// # Errors
    /// [`StoreError::FormatTooNew`], [`StoreError::Corrupt`], or the disk's.
    pub fn open(disk: impl Disk, options: Options, now: Duration) -> Result<Self, StoreError> {
        let disk: Box<dyn Disk> = Box::new(disk);
        let found = open_file(&*disk, &options, &Doubtful::default())?;
        disk.keep().map_err(StoreError::from_io)?;
        let history = History::new(found.head, options.history_changes, options.history_bytes);
        let mut db = Db {
            open: Err(StoreError::Closed),
            disk,
            options,
            shared: Arc::new(Shared::new(history)),
            head: found.head,
            last_lease: found.last_lease,
            unsure: None,
            failing: false,
            doubtful: Doubtful::default(),
        };
        db.adopt(found, now)?;
        Ok(db)
    }

    /// Reads beside this writer, from any thread.
    pub fn reader(&self) -> Reader {
        Reader {
            shared: self.shared.clone(),
        }
    }

    /// Runs transactions one after the other in one durable commit; the answers are in their order.
    ///
    /// Each sees what those before it did. Leases that are due at `now` end first. If the disk
    /// fails, every answer is that error, and none of the changes can be counted on.
    pub fn apply(&mut self, batch: &[Txn], now: Duration) -> Vec<Result<TxnOutcome, StoreError>> {
        let commands: Vec<Command> = batch.iter().cloned().map(Command::Txn).collect();
        self.run(&commands, now)
            .into_iter()
            .map(|answer| match answer? {
                Reply::Txn(outcome) => Ok(outcome),
                Reply::Granted(_) | Reply::Revoked(_) => {
                    unreachable!("a transaction is answered by an outcome")
                }
            })
            .collect()
    }

    /// As [`apply`](Self::apply), for every kind of command.
    pub fn run(&mut self, commands: &[Command], now: Duration) -> Vec<Result<Reply, StoreError>> {
        let due = self.leases().take_due(now);
        if commands.is_empty() && due.is_empty() {
            return Vec::new();
        }
        match self.commit(commands, &due, now) {
            Ok(answers) => answers,
            Err(error) => {
                let mut leases = self.leases();
                for (id, lease) in due {
                    // Unless the reopened file no longer knows it.
                    leases.insert(id, lease);
                }
                drop(leases);
                self.fail(error.clone(), now);
                commands.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    /// Makes a lease. See [`Store::grant`](crate::Store::grant).
    ///
    /// # Errors
    /// [`StoreError::BadTtl`], or the disk's.
    pub fn grant(&mut self, ttl: Duration, now: Duration) -> Result<LeaseId, StoreError> {
        match self.run(&[Command::Grant { ttl }], now).pop() {
            Some(Ok(Reply::Granted(lease))) => Ok(lease),
            Some(Err(error)) => Err(error),
            _ => unreachable!("a grant is answered by a lease"),
        }
    }

    /// Ends a lease and deletes its records. See [`Store::revoke`](crate::Store::revoke).
    ///
    /// # Errors
    /// [`StoreError::NoSuchLease`], or the disk's.
    pub fn revoke(&mut self, lease: LeaseId, now: Duration) -> Result<Revision, StoreError> {
        match self.run(&[Command::Revoke { lease }], now).pop() {
            Some(Ok(Reply::Revoked(revision))) => Ok(revision),
            Some(Err(error)) => Err(error),
            _ => unreachable!("a revocation is answered by a revision"),
        }
    }

    /// Starts a lease's time anew. Touches no disk.
    ///
    /// # Errors
    /// [`StoreError::NoSuchLease`] if it has ended.
    pub fn keep_alive(&mut self, lease: LeaseId, now: Duration) -> Result<(), StoreError> {
        if self.leases().keep_alive(lease, now) {
            Ok(())
        } else {
            Err(StoreError::NoSuchLease { lease })
        }
    }

    /// When the next lease ends unless it is kept alive: call [`run`](Self::run) then, with no
    /// commands if need be.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.leases().next_deadline()
    }

    /// Whether the last write failed for the disk's sake.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// After a failure: opens the file anew if need be, and tries a small durable write.
    ///
    /// # Errors
    /// The disk's, if it still fails.
    pub fn recover(&mut self, now: Duration) -> Result<(), StoreError> {
        let probed = self.ensure_open(now).and_then(|()| self.probe());
        match probed {
            Ok(()) => {
                self.failing = false;
                self.shared.set_health(Health::Serving);
                Ok(())
            }
            Err(error) => {
                self.fail(error.clone(), now);
                Err(error)
            }
        }
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(
        &mut self,
        commands: &[Command],
        due: &[(LeaseId, Lease)],
        now: Duration,
    ) -> Result<Vec<Result<Reply, StoreError>>, StoreError> {
        self.ensure_open(now)?;
        let open = self.open.as_ref().map_err(StoreError::clone)?;
        let txn = begin(&open.database, &self.options)?;
        let mut batch = Batch::new(&txn, &self.options.limits, self.head, self.last_lease)?;
        if !due.is_empty() {
            let ids: Vec<LeaseId> = due.iter().map(|(id, _)| *id).collect();
            batch.end_leases(&ids)?;
        }
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let alive = |lease| self.leases().contains(lease);
            answers.push(batch.run(command, alive)?);
        }
        let staged = batch.finish()?;
        if staged.is_empty() {
            txn.abort().map_err(redb_error)?;
            return Ok(answers);
        }
        if let Err(error) = txn.commit() {
            self.unsure = Some(staged);
            return Err(redb_error(error));
        }
        self.doubtful.clear();
        // From here on it is durable: what follows may fail for readers, not for the callers.
        let shown = snapshot(&open.database, staged.head);
        self.shared.set_disk_bytes(open.gate.bytes());
        if self.failing {
            self.failing = false;
            self.shared.set_health(Health::Serving);
        }
        let failed = shown.as_ref().err().cloned();
        self.shared.show(shown);
        self.publish(staged, now);
        if let Some(error) = failed {
            self.fail(error, now);
        }
        Ok(answers)
    }

    /// Shows a batch that is on disk to watchers, and takes over its leases.
    fn publish(&mut self, staged: Staged, now: Duration) {
        self.head = staged.head;
        self.last_lease = staged.last_lease;
        let mut leases = self.leases();
        for (id, ttl) in staged.granted {
            if !staged.ended.contains(&id) {
                let deadline = now + ttl;
                leases.insert(id, Lease { ttl, deadline });
            }
        }
        for id in staged.ended {
            leases.remove(id);
        }
        drop(leases);
        self.shared.history.publish(staged.entries);
    }

    /// Lets go of a failed database and tries at once to open the file anew, for the readers.
    fn fail(&mut self, error: StoreError, now: Duration) {
        tracing::warn!(error = %chain(&error), "the store's file failed; opening it anew");
        self.failing = true;
        self.shared.set_health(Health::Failing(error.clone()));
        self.shut(error);
        if let Err(error) = self.ensure_open(now) {
            self.shared.set_health(Health::Failing(error));
        }
    }

    fn shut(&mut self, error: StoreError) {
        if let Ok(open) = &self.open {
            open.gate.shut();
            self.doubtful.add(&open.gate);
        }
        self.shared.show(Err(error.clone()));
        self.open = Err(error);
    }

    fn ensure_open(&mut self, now: Duration) -> Result<(), StoreError> {
        if self.open.is_ok() {
            return Ok(());
        }
        let opened = open_file(&*self.disk, &self.options, &self.doubtful).and_then(|found| self.adopt(found, now));
        if let Err(error) = &opened {
            self.shut(error.clone());
        }
        opened
    }

    /// Goes on with a freshly opened file.
    fn adopt(&mut self, found: Found, now: Duration) -> Result<(), StoreError> {
        let snapshot = snapshot(&found.open.database, found.head)?;
        self.shared.set_disk_bytes(found.open.gate.bytes());
        self.open = Ok(found.open);
        self.shared.show(Ok(snapshot));
        match self.unsure.take() {
            // The commit had reached the disk although it reported a failure.
            Some(staged) if staged.head == found.head => self.publish(staged, now),
            _ if self.head == found.head => {}
            _ => {
                tracing::warn!(
                    expected = self.head.0,
                    found = found.head.0,
                    "the reopened store is at another revision; watches start anew"
                );
                self.shared.history.restart(found.head);
            }
        }
        self.head = found.head;
        self.last_lease = found.last_lease;
        self.leases().reconcile(&found.leases, now);
        Ok(())
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        let open = self.open.as_ref().map_err(StoreError::clone)?;
        let txn = begin(&open.database, &self.options)?;
        {
            let mut meta = txn.open_table(META).map_err(redb_error)?;
            let count = number(&meta, META_PROBE)?;
            meta.insert(META_PROBE, count + 1).map_err(redb_error)?;
        }
        txn.commit().map_err(redb_error)?;
        self.doubtful.clear();
        Ok(())
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn begin(database: &Database, options: &Options) -> Result<WriteTransaction, StoreError> {
    let mut txn = database.begin_write().map_err(redb_error)?;
    txn.set_durability(Durability::Immediate).map_err(redb_error)?;
    txn.set_quick_repair(options.quick_repair);
    Ok(txn)
}

fn snapshot(database: &Database, revision: Revision) -> Result<Snapshot, StoreError> {
    let txn = database.begin_read().map_err(redb_error)?;
    let records = txn.open_table(RECORDS).map_err(redb_error)?;
    Ok(Snapshot { revision, records })
}

fn number(meta: &impl ReadableTable<&'static str, u64>, name: &'static str) -> Result<u64, StoreError> {
    let found = meta.get(name).map_err(redb_error)?;
    Ok(found.map_or(0, |found| found.value()))
}

fn open_file(disk: &dyn Disk, options: &Options, doubtful: &Doubtful) -> Result<Found, StoreError> {
    let backend = disk.open().map_err(StoreError::from_io)?;
    let (gate, state) = Gate::new(backend, doubtful).map_err(StoreError::from_io)?;
    let database = Builder::new()
        .set_cache_size(options.cache_bytes)
        .create_with_backend(gate)
        .map_err(redb_error)?;
    let txn = begin(&database, options)?;
    let (head, last_lease, leases, fresh) = {
        let mut meta = txn.open_table(META).map_err(redb_error)?;
        let fresh = match number(&meta, META_FORMAT)? {
            0 => {
                meta.insert(META_FORMAT, FORMAT).map_err(redb_error)?;
                true
            }
            found if found > FORMAT => {
                return Err(StoreError::FormatTooNew {
                    found,
                    supported: FORMAT,
                });
            }
            _ => false,
        };
        if fresh {
            txn.open_table(RECORDS).map_err(redb_error)?;
            txn.open_table(LEASE_KEYS).map_err(redb_error)?;
        }
        let mut leases = HashMap::new();
        for row in txn.open_table(LEASES).map_err(redb_error)?.iter().map_err(redb_error)? {
            let (id, ttl_ms) = row.map_err(redb_error)?;
            leases.insert(LeaseId(id.value()), Duration::from_millis(ttl_ms.value()));
        }
        let head = Revision(number(&meta, META_HEAD)?);
        (head, number(&meta, META_LEASE)?, leases, fresh)
    };
    if fresh {
        txn.commit().map_err(redb_error)?;
    } else {
        txn.abort().map_err(redb_error)?;
    }
    Ok(Found {
        open: Open { database, gate: state },
        head,
        last_lease,
        leases,
    })
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
