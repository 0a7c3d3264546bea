//! The audit log: who did what, on what, from where, and whether it was allowed; each record chained to those before.
//!
//! One task writes, so that the chain has one end; what comes together shares a commit. A record is a line with its
//! hash, and its JSON as it was hashed.

use std::{net::IpAddr, time::Duration};

use api::{
    ApiError, ErrorCode, Span, Timestamp,
    auth::{Identity, Role},
    op::{AuditFilter, AuditRecord, AuditVerdict},
    time,
};
use serde::{Deserialize, Serialize};
use store::{Order, Range, Record, Store, StoreError, Txn, TxnOutcome};
use tokio::sync::{mpsc, oneshot};
use vault::chain::{self, Broken, Hash, Head};

use crate::{
    draft::json,
    hub::{now, store_error},
    keys,
};

/// Records that may wait to be written; whoever comes then waits.
const AHEAD: usize = 4_096;
/// Records of one commit, and of one page of reading.
const TOGETHER: usize = 1_000;
/// Before what the store couldn't take is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long records are kept, and how many at most.
const KEPT: Span = Span::secs(400 * 86_400);
const KEPT_COUNT: u64 = 500_000;

/// What happened, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Who: `user:alice`.
    pub actor: String,
    /// The id of the token that was used. `None`: none that was recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The operation.
    pub action: String,
    /// On what. `None`: nothing in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// From which address. `None`: from the gateway itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether it was allowed.
    pub allowed: bool,
    /// The code of the error that it ended with. `None`: it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where the kept part of the chain begins: the last record that isn't kept any more.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Base {
    head: Head,
}

struct Waiting {
    /// `None`: only tell when all before it is written.
    entry: Option<Entry>,
    done: Option<oneshot::Sender<Result<(), ApiError>>>,
}

/// The audit log.
pub struct Audit {
    send: mpsc::Sender<Waiting>,
    store: Store,
}

impl Audit {
    /// Takes up the chain where it ended.
    ///
    /// # Errors
    /// The store can't be read, or the last record isn't one.
    pub async fn start(store: Store) -> Result<Self, ApiError> {
        let last = store
            .range(everything(), 1, Order::Descending)
            .await
            .map_err(|e| store_error(&e))?;
        let head = match last.records.first() {
            Some(record) => {
                let (sequence, _, hash) = parts(record).ok_or_else(|| damaged(&record.key))?;
                Head { sequence, hash }
            }
            None => base(&store).await?.map_or(Head::START, |base| base.head),
        };
        let (send, receive) = mpsc::channel(AHEAD);
        tokio::spawn(write(store.clone(), receive, head));
        Ok(Self { send, store })
    }

    /// Notes what happened; it is written soon.
    pub async fn note(&self, entry: Entry) {
        let waiting = Waiting {
            entry: Some(entry),
            done: None,
        };
        if self.send.send(waiting).await.is_err() {
            tracing::warn!("the audit log is closed; something was not noted");
        }
    }

    /// Notes what happened, and waits until it is on the disk: for what must not happen unseen.
    ///
    /// # Errors
    /// It can't be written.
    pub async fn record(&self, entry: Entry) -> Result<(), ApiError> {
        let closed = || ApiError::internal("the audit log is closed");
        let (done, written) = oneshot::channel();
        let waiting = Waiting {
            entry: Some(entry),
            done: Some(done),
        };
        self.send.send(waiting).await.map_err(|_| closed())?;
        written.await.map_err(|_| closed())?
    }

    /// Waits until everything that was noted is on the disk, or can't be.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        let waiting = Waiting {
            entry: None,
            done: Some(done),
        };
        if self.send.send(waiting).await.is_ok() {
            let _ = written.await;
        }
    }

    /// The records that fit, oldest first; of too many the newest.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn list(&self, filter: &AuditFilter) -> Result<Vec<AuditRecord>, ApiError> {
        let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        let mut found = std::collections::VecDeque::new();
        let mut rest = everything();
        while found.len() < limit {
            let page = self
                .store
                .range(rest.clone(), TOGETHER, Order::Descending)
                .await
                .map_err(|e| store_error(&e))?;
            let mut over = false;
            for record in &page.records {
                let Some(read) = view(record) else { continue };
                over = filter.since.is_some_and(|since| read.at < since);
                if over || found.len() >= limit {
                    break;
                }
                if fits(filter, &read) {
                    found.push_front(read);
                }
            }
            match page.records.last() {
                Some(last) if page.more && !over => rest = rest.before(&last.key),
                _ => break,
            }
        }
        Ok(found.into())
    }

    /// Checks the whole chain.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn verify(&self) -> Result<AuditVerdict, ApiError> {
        let start = base(&self.store).await?.map_or(Head::START, |base| base.head);
        let mut head = start;
        let mut broken = None;
        let mut checked = 0;
        let mut rest = everything();
        loop {
            let page = self
                .store
                .range(rest.clone(), TOGETHER, Order::Ascending)
                .await
                .map_err(|e| store_error(&e))?;
            for record in &page.records {
                let verdict = match parts(record) {
                    Some(parts) => chain::verify([parts], head),
                    None => Err(Broken {
                        sequence: head.sequence + 1,
                        reason: chain::Reason::Altered,
                    }),
                };
                match verdict {
                    Ok(next) => head = next,
                    Err(error) => {
                        broken = Some(error);
                        break;
                    }
                }
                checked += 1;
            }
            match page.records.last() {
                Some(last) if page.more && broken.is_none() => rest = rest.after(&last.key),
                _ => break,
            }
        }
        let any = head.sequence > start.sequence;
        Ok(AuditVerdict {
            intact: broken.is_none(),
            checked,
            first: any.then_some(start.sequence + 1),
            last: any.then_some(head.sequence),
            head: any.then(|| head.hash.to_string()),
            broken: broken.map(|broken| broken.sequence),
            why: broken.map(|broken| broken.reason.to_string()),
        })
    }

    /// Drops what has been kept long enough, and notes where the chain begins from then on. Whether there was anything.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub async fn prune(&self, now: Timestamp) -> Result<bool, ApiError> {
        let newest = self
            .store
            .range(everything(), 1, Order::Descending)
            .await
            .map_err(|e| store_error(&e))?;
        let last = newest
            .records
            .first()
            .and_then(|r| parts(r))
            .map_or(0, |(sequence, ..)| sequence);
        let page = self
            .store
            .range(everything(), TOGETHER, Order::Ascending)
            .await
            .map_err(|e| store_error(&e))?;
        let horizon = time::before(now, KEPT);
        let old: Vec<&Record> = page
            .records
            .iter()
            .take_while(|record| {
                let surplus = parts(record).is_some_and(|(sequence, ..)| sequence + KEPT_COUNT <= last);
                surplus || view(record).is_some_and(|read| read.at < horizon)
            })
            .collect();
        let Some((sequence, _, hash)) = old.last().and_then(|record| parts(record)) else {
            return Ok(false);
        };
        let base = Base {
            head: Head { sequence, hash },
        };
        let mut txn = Txn::default().put(keys::AUDIT_BASE, json(&base));
        for record in &old {
            txn = txn.delete(record.key.clone());
        }
        // It has no condition, and so can't be overtaken.
        let _ = self.store.txn(txn).await.map_err(|e| store_error(&e))?;
        Ok(true)
    }
}

fn everything() -> Range {
    Range::prefix(keys::AUDIT)
}

fn damaged(key: &str) -> ApiError {
    ApiError::internal(format!("the audit log's record {key} can't be read"))
}

async fn base(store: &Store) -> Result<Option<Base>, ApiError> {
    let record = store.get(keys::AUDIT_BASE).await.map_err(|e| store_error(&e))?;
    let Some(record) = record else { return Ok(None) };
    serde_json::from_slice(&record.value)
        .map(Some)
        .map_err(|_| damaged(&record.key))
}

/// A record's number, its text as it was hashed, and its hash. `None`: it isn't a record.
fn parts(record: &Record) -> Option<(u64, &[u8], Hash)> {
    let sequence = record.key.strip_prefix(keys::AUDIT)?.parse().ok()?;
    let at = record.value.iter().position(|b| *b == b'\n')?;
    let hash = std::str::from_utf8(&record.value[..at]).ok()?.parse().ok()?;
    Some((sequence, &record.value[at + 1..], hash))
}

fn view(record: &Record) -> Option<AuditRecord> {
    let (sequence, text, hash) = parts(record)?;
    let Entry {
        at,
        actor,
        token,
        action,
        target,
        from,
        allowed,
        error,
    } = serde_json::from_slice(text).ok()?;
    Some(AuditRecord {
        sequence,
        at,
        actor,
        token,
        action,
        target,
        from,
        allowed,
        error,
        hash: hash.to_string(),
    })
}

fn fits(filter: &AuditFilter, record: &AuditRecord) -> bool {
    let AuditFilter {
        since,
        until,
        actor,
        target,
        action,
        denied,
        limit: _,
    } = filter;
    let named =
        |actor: &String| record.actor == *actor || record.actor.split_once(':').is_some_and(|(_, n)| n == actor);
    let about = |wanted: &String| {
        record.target.as_ref().is_some_and(|target| {
            target.starts_with(wanted.as_str()) || target.split('/').any(|part| part.starts_with(wanted.as_str()))
        })
    };
    let does = |wanted: &String| {
        let rest = record.action.strip_prefix(wanted.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || wanted.ends_with('.'))
    };
    since.is_none_or(|since| record.at >= since)
        && until.is_none_or(|until| record.at < until)
        && actor.as_ref().is_none_or(named)
        && target.as_ref().is_none_or(about)
        && action.as_ref().is_none_or(does)
        && (!denied || !record.allowed)
}

async fn write(store: Store, mut receive: mpsc::Receiver<Waiting>, mut head: Head) {
    let mut together = Vec::new();
    while receive.recv_many(&mut together, TOGETHER).await > 0 {
        let mut next = head;
        let mut records = Vec::with_capacity(together.len());
        for entry in together.iter().filter_map(|waiting| waiting.entry.as_ref()) {
            let text = json(entry);
            next = chain::append(&next, &text);
            let mut value = format!("{}\n", next.hash).into_bytes();
            value.extend_from_slice(&text);
            records.push((keys::audit(next.sequence), value));
        }
        let txn = || {
            records.iter().fold(Txn::default(), |txn, (key, value)| {
                txn.absent(key.as_str()).put(key.as_str(), value.clone())
            })
        };
        loop {
            if records.is_empty() {
                told(&mut together, &Ok(()));
                together.clear();
                break;
            }
            let failed = match store.txn(txn()).await {
                Ok(TxnOutcome::Committed(_)) => None,
                // Only another gateway's.
                Ok(TxnOutcome::Conflict { .. }) => Some(ApiError::internal("another gateway writes to the audit log")),
                Err(StoreError::Closed) => return,
                Err(error) => Some(store_error(&error)),
            };
            let Some(error) = failed else {
                head = next;
                told(&mut together, &Ok(()));
                together.clear();
                break;
            };
            tracing::error!(%error, cause = error.cause, "the audit log can't be written");
            // Whoever waits is told, and their call fails; what was noted stays, and is tried again.
            told(&mut together, &Err(error));
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Tells whoever waits.
fn told(together: &mut [Waiting], done: &Result<(), ApiError>) {
    for waiting in together.iter_mut().filter_map(|waiting| waiting.done.take()) {
        let _ = waiting.send(done.clone());
    }
}

/// A call that has just come in. `identity`: who calls; `None`: nobody that is known, or somebody who may not.
#[must_use]
pub fn entry(action: &str, identity: Option<&Identity>, from: IpAddr) -> Entry {
    Entry {
        at: now(),
        actor: identity.map_or_else(|| "nobody".to_owned(), actor),
        token: identity.map(|identity| identity.token_id.clone()),
        action: action.to_owned(),
        target: None,
        from: Some(from.to_canonical().to_string()),
        allowed: true,
        error: None,
    }
}

/// How the log names somebody.
fn actor(identity: &Identity) -> String {
    match identity.role {
        Role::Node => format!("node:{}", identity.name),
        _ => format!("user:{}", identity.name),
    }
}

impl Entry {
    /// The same, once it is known how it ended.
    #[must_use]
    pub fn ended(&self, error: Option<&ApiError>) -> Self {
        let refused = [ErrorCode::AuthFailed, ErrorCode::PermissionDenied];
        Self {
            allowed: error.is_none_or(|error| !refused.contains(&error.code)),
            error: error.map(|error| error.code.to_string()),
            ..self.clone()
        }
    }
}
