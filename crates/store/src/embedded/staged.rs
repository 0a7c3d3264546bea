//! One batch on its way to the disk: commands run one after the other inside one write transaction.

use std::collections::HashSet;
use std::time::Duration;

use redb::{ReadableTable, Table, WriteTransaction};

use super::codec::{Header, LEASE_KEYS, LEASES, META, META_HEAD, META_LEASE, RECORDS, decode_key, redb_error};
use super::db::{Command, Reply};
use super::history::Revised;
use super::lease::ttl_ms;
use super::reader::bounds;
use crate::{Change, FailedCondition, Key, LeaseId, Limits, Op, Range, Revision, StoreError, Txn, TxnOutcome};

/// What a batch changes outside the file, to be shown once it is on disk.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// The newest revision.
    pub(crate) head: Revision,
    /// The newest lease.
    pub(crate) last_lease: u64,
    pub(crate) entries: Vec<Revised>,
    pub(crate) granted: Vec<(LeaseId, Duration)>,
    pub(crate) ended: HashSet<LeaseId>,
}

impl Staged {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.granted.is_empty() && self.ended.is_empty()
    }
}

/// Compared records that a transaction remembers; searched one by one.
const SEEN: usize = 16;

/// What a command came to: the outer error is the disk's and ends the batch, the inner one refuses
/// the command and leaves no trace.
type Answer<T> = Result<Result<T, StoreError>, StoreError>;

/// The open tables of a batch, with what it has changed so far.
pub(crate) struct Batch<'t> {
    txn: &'t WriteTransaction,
    records: Table<'t, &'static [u8], &'static [u8]>,
    /// Opened when first needed; most batches touch no lease.
    lease_tables: Option<LeaseTables<'t>>,
    limits: &'t Limits,
    scratch: Vec<u8>,
    staged: Staged,
}

struct LeaseTables<'t> {
    leases: Table<'t, u64, u64>,
    keys: Table<'t, (u64, &'static [u8]), ()>,
}

impl<'t> Batch<'t> {
    pub(crate) fn new(
        txn: &'t WriteTransaction,
        limits: &'t Limits,
        head: Revision,
        last_lease: u64,
    ) -> Result<Self, StoreError> {
        Ok(Batch {
            txn,
            records: txn.open_table(RECORDS).map_err(redb_error)?,
            lease_tables: None,
            limits,
            scratch: Vec::new(),
            staged: Staged {
                head,
                last_lease,
                ..Staged::default()
            },
        })
    }

    /// Runs one command on the state that those before it left.
    ///
    /// `alive` tells whether a lease was alive before the batch.
    pub(crate) fn run(&mut self, command: &Command, alive: impl Fn(LeaseId) -> bool) -> Answer<Reply> {
        match command {
            Command::Txn(txn) => Ok(self.txn(txn, alive)?.map(Reply::Txn)),
            Command::Grant { ttl } => Ok(self.grant(*ttl)?.map(Reply::Granted)),
            Command::Revoke { lease } => {
                if !self.is_alive(*lease, alive) {
                    return Ok(Err(StoreError::NoSuchLease { lease: *lease }));
                }
                self.end_leases(&[*lease])?;
                Ok(Ok(Reply::Revoked(self.staged.head)))
            }
        }
    }

    /// Notes the batch's revision and closes the tables.
    pub(crate) fn finish(self) -> Result<Staged, StoreError> {
        if !self.staged.is_empty() {
            let mut meta = self.txn.open_table(META).map_err(redb_error)?;
            meta.insert(META_HEAD, self.staged.head.0).map_err(redb_error)?;
            if !self.staged.granted.is_empty() {
                meta.insert(META_LEASE, self.staged.last_lease).map_err(redb_error)?;
            }
        }
        Ok(self.staged)
    }

    fn txn(&mut self, txn: &Txn, alive: impl Fn(LeaseId) -> bool) -> Answer<TxnOutcome> {
        if let Err(refused) = txn.validate(self.limits) {
            return Ok(Err(refused));
        }
        let mut failed = Vec::new();
        // Most transactions put what they have just compared: look it up once.
        let mut seen = Vec::with_capacity(txn.conditions.len().min(SEEN));
        for (index, condition) in txn.conditions.iter().enumerate() {
            let key = condition.key();
            let header = self.header(key)?;
            if seen.len() < SEEN {
                seen.push((key, header));
            }
            let current = header.map(|header| header.modified);
            if !condition.holds(current) {
                let key = key.clone();
                failed.push(FailedCondition { index, key, current });
            }
        }
        if !failed.is_empty() {
            return Ok(Ok(TxnOutcome::Conflict { failed }));
        }
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.is_alive(*lease, &alive)
            {
                return Ok(Err(StoreError::NoSuchLease { lease: *lease }));
            }
        }
        let revision = self.staged.head.next();
        let mut changes = Vec::with_capacity(txn.ops.len());
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    let before = match seen.iter().find(|(seen, _)| *seen == key) {
                        Some((_, header)) => *header,
                        None => self.header(key)?,
                    };
                    changes.push(self.put(revision, key, value, *lease, before)?);
                }
                Op::Delete { key } => changes.extend(self.delete(revision, key)?),
                Op::DeleteRange { range } => {
                    for key in self.keys(range)? {
                        changes.extend(self.delete(revision, &key)?);
                    }
                }
            }
        }
        self.stage(revision, changes);
        Ok(Ok(TxnOutcome::Committed(self.staged.head)))
    }

    fn stage(&mut self, revision: Revision, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.staged.head = revision;
            self.staged.entries.push(Revised { revision, changes });
        }
    }

    fn header(&self, key: &Key) -> Result<Option<Header>, StoreError> {
        let stored = self.records.get(key.as_bytes()).map_err(redb_error)?;
        stored
            .map(|stored| Header::decode(stored.value()).map(|(header, _)| header))
            .transpose()
    }

    fn keys(&self, range: &Range) -> Result<Vec<Key>, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.records
            .range::<&[u8]>(bounds(range))
            .map_err(redb_error)?
            .map(|row| decode_key(row.map_err(redb_error)?.0.value()))
            .collect()
    }

    fn put(
        &mut self,
        revision: Revision,
        key: &Key,
        value: &bytes::Bytes,
        lease: Option<LeaseId>,
        before: Option<Header>,
    ) -> Result<Change, StoreError> {
        let header = Header {
            created: before.map_or(revision, |before| before.created),
            modified: revision,
            version: before.map_or(1, |before| before.version + 1),
            lease,
        };
        header.encode(value, &mut self.scratch);
        self.records
            .insert(key.as_bytes(), self.scratch.as_slice())
            .map_err(redb_error)?;
        let had = before.and_then(|before| before.lease);
        if had != lease {
            if let Some(had) = had {
                self.detach(had, key)?;
            }
            if let Some(lease) = lease {
                self.lease_tables()?
                    .keys
                    .insert((lease.0, key.as_bytes()), ())
                    .map_err(redb_error)?;
            }
        }
        Ok(Change::Put(header.record(key.clone(), value.clone())))
    }

    fn delete(&mut self, revision: Revision, key: &Key) -> Result<Option<Change>, StoreError> {
        let had = {
            let removed = self.records.remove(key.as_bytes()).map_err(redb_error)?;
            let Some(removed) = removed else {
                return Ok(None);
            };
            Header::decode(removed.value())?.0.lease
        };
        if let Some(had) = had {
            self.detach(had, key)?;
        }
        Ok(Some(Change::Delete {
            key: key.clone(),
            revision,
        }))
    }

    fn lease_tables(&mut self) -> Result<&mut LeaseTables<'t>, StoreError> {
        let opened = match self.lease_tables.take() {
            Some(opened) => opened,
            None => LeaseTables {
                leases: self.txn.open_table(LEASES).map_err(redb_error)?,
                keys: self.txn.open_table(LEASE_KEYS).map_err(redb_error)?,
            },
        };
        Ok(self.lease_tables.insert(opened))
    }

    fn detach(&mut self, lease: LeaseId, key: &Key) -> Result<(), StoreError> {
        self.lease_tables()?
            .keys
            .remove((lease.0, key.as_bytes()))
            .map_err(redb_error)?;
        Ok(())
    }

    fn is_alive(&self, lease: LeaseId, alive: impl Fn(LeaseId) -> bool) -> bool {
        let granted = self.staged.granted.iter().any(|(id, _)| *id == lease);
        (granted || alive(lease)) && !self.staged.ended.contains(&lease)
    }

    fn grant(&mut self, ttl: Duration) -> Answer<LeaseId> {
        let ttl_ms = match ttl_ms(ttl) {
            Ok(ttl_ms) => ttl_ms,
            Err(refused) => return Ok(Err(refused)),
        };
        self.staged.last_lease += 1;
        let id = LeaseId(self.staged.last_lease);
        self.lease_tables()?.leases.insert(id.0, ttl_ms).map_err(redb_error)?;
        self.staged.granted.push((id, Duration::from_millis(ttl_ms)));
        Ok(Ok(id))
    }

    /// Ends leases and deletes all their records in one transaction.
    pub(crate) fn end_leases(&mut self, ids: &[LeaseId]) -> Result<(), StoreError> {
        let revision = self.staged.head.next();
        let mut changes = Vec::new();
        for &id in ids {
            let tables = self.lease_tables()?;
            tables.leases.remove(id.0).map_err(redb_error)?;
            let mut keys = Vec::new();
            for row in tables.keys.range((id.0, &[][..])..).map_err(redb_error)? {
                let (row, _) = row.map_err(redb_error)?;
                let (lease, key) = row.value();
                if lease != id.0 {
                    break;
                }
                keys.push(decode_key(key)?);
            }
            for key in keys {
                changes.extend(self.delete(revision, &key)?);
            }
            self.staged.ended.insert(id);
        }
        self.stage(revision, changes);
        Ok(())
    }
}
