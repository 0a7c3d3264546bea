//! Events as they happen, read once for all that look back at them: the diagnosis' journal of nodes' troubles, and what
//! rules of alerts count.
//!
//! ```text
//! store ──changes──▶ hub ──events that somebody wants──▶ follow ──▶ diagnose::Journal
//!   └──────────────the past, once──────────────────────────┘  ├───▶ alerting::Recent
//!                                                              └───▶ metrics::Counted
//! ```
//!
//! Events are stored by time alone, and a day can hold a million of them. Nearly all of them say that a workload took
//! its next step, and nobody here wants those: a few bytes tell, before anything is parsed or copied.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use api::{Timestamp, event::Event};
use store::{Order, Range, Record, Revision, Store, StoreError};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    alerting::{Alerting, Recent},
    diagnose::{self, Journal},
    hub::{Heard, Hub, now},
    keys,
    metrics::{Counted, Metrics},
};

/// Records of a page while the past is read.
const PAGE: usize = 1_000;
/// Time before the past is read again after it couldn't be.
const RETRY: Duration = Duration::from_secs(1);

/// Which events somebody wants.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Those with these reasons.
    reasons: BTreeSet<String>,
}

impl Wanted {
    /// Those that a journal keeps, and those with these reasons.
    #[must_use]
    pub fn new<'a>(reasons: impl Iterator<Item = &'a str>) -> Self {
        Self {
            reasons: reasons.map(str::to_owned).collect(),
        }
    }

    /// Whether somebody may want the event of this record, as the gateway itself wrote it.
    #[must_use]
    pub fn has(&self, record: &[u8]) -> bool {
        // Rules call facts by their family, too.
        if contains(record, br#""fact":"#) {
            return true;
        }
        let trouble = || text(record, br#""kind":""#) == Some(b"node") && !contains(record, br#""severity":"info""#);
        let counted = || {
            let reason = text(record, br#""reason":""#).and_then(|reason| std::str::from_utf8(reason).ok());
            reason.is_some_and(|reason| self.reasons.contains(reason))
        };
        counted() || trouble()
    }
}

/// The first text of a field. Within texts quotes are escaped, so that no text looks like a field; and the event's own
/// fields come before those of its fact.
fn text<'a>(record: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    let start = memchr::memmem::find(record, field)? + field.len();
    let rest = record.get(start..)?;
    rest.get(..memchr::memchr(b'"', rest)?)
}

fn contains(record: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(record, part).is_some()
}

/// Reads the past, and then follows what happens, until the store is closed.
pub async fn follow(hub: Arc<Hub>, alerting: Arc<Alerting>, journal: Arc<Journal>, metrics: Arc<Metrics>) {
    listen(&hub, &alerting, &journal, &metrics.counted).await;
}

async fn listen(hub: &Hub, alerting: &Alerting, journal: &Journal, counted: &Counted) {
    let wanted = alerting.wanted();
    let news = {
        let wanted = wanted.clone();
        hub.listen(move |record| wanted.has(record))
    };
    let ears = Ears {
        alerting,
        journal,
        counted,
        wanted: &wanted,
    };
    ears.keep_up(hub.store(), news).await;
}

/// Who is told.
struct Ears<'a> {
    alerting: &'a Alerting,
    journal: &'a Journal,
    counted: &'a Counted,
    wanted: &'a Wanted,
}

impl Ears<'_> {
    /// `news`: what comes from here on.
    async fn keep_up(&self, store: &Store, mut news: UnboundedReceiver<Heard>) {
        // What is of this revision or older has been counted. `None`: nothing, and the past before the start isn't.
        let mut through = None;
        loop {
            // What comes meanwhile waits.
            let known = match self.past(store, through).await {
                Ok(known) => known,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "events can't be read: diagnoses wait, and rules that count them see nothing new");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            through = Some(known);
            loop {
                match news.recv().await {
                    None => return,
                    Some(Heard::Event(record)) if record.modified <= known => {}
                    Some(Heard::Event(record)) => {
                        through = Some(record.modified);
                        if let Some(event) = parse(&record) {
                            self.alerting.happened(&event);
                            self.counted.event(&event, true);
                            self.journal.push(event, now());
                        }
                    }
                    // Some were missed.
                    Some(Heard::Gap) => break,
                }
            }
        }
    }

    /// Reads what happened up to a revision, for all. `through`: what has been counted.
    async fn past(&self, store: &Store, through: Option<Revision>) -> Result<Revision, StoreError> {
        let at = now();
        let mut recent = self.alerting.nothing_yet();
        self.journal.begin();
        let since = oldest(&recent, at).as_microsecond().max(0);
        let mut rest = Range::between(format!("{}{since:016}", keys::EVENTS), format!("{}~", keys::EVENTS));
        let mut known = None;
        loop {
            let page = store.range(rest.clone(), PAGE, Order::Ascending).await?;
            // Later pages may be newer: what is newer than the first one comes by the ear.
            let known = *known.get_or_insert(page.revision);
            for record in page.records.iter().filter(|record| record.modified <= known) {
                if let Some(event) = self.wanted.has(&record.value).then(|| parse(record)).flatten() {
                    recent.take(&event);
                    self.counted
                        .event(&event, through.is_some_and(|through| record.modified > through));
                    self.journal.push(event, at);
                }
            }
            match page.records.last() {
                Some(last) if page.more => rest = rest.after(&last.key),
                _ => {
                    self.alerting.know(recent);
                    self.journal.complete();
                    return Ok(known);
                }
            }
        }
    }
}

/// How far back somebody looks.
fn oldest(recent: &Recent, now: Timestamp) -> Timestamp {
    api::time::before(now, diagnose::DAY).min(recent.horizon(now))
}

fn parse(record: &Record) -> Option<Event> {
    serde_json::from_slice(&record.value).ok()
}

#[cfg(test)]
mod tests {
    use api::{NodeName, event::Severity, wire::FactKind};

    use super::*;
    use crate::{
        alerting::AlertsFile,
        draft::{Draft, node_event},
    };

    fn record(event: &Event) -> Vec<u8> {
        serde_json::to_vec(event).unwrap()
    }

    fn event(kind: &str, reason: &str, severity: Severity, fact: Option<FactKind>) -> Event {
        let message = r#"a "kind":"node" with "fact":1 and "severity":"info""#;
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        Event {
            kind: kind.to_owned(),
            fact,
            ..node_event(&NodeName::new("gpu-7"), reason, message, "node:gpu-7", severity, at)
        }
    }

    #[test]
    fn a_few_bytes_tell_whether_an_event_is_wanted() {
        let wanted = Wanted::new(["OOM_KILLED", "Xid"].into_iter());
        let has = |event: &Event| wanted.has(&record(event));
        assert!(!has(&event("node", "Online", Severity::Info, None)));
        assert!(has(&event("node", "Unreachable", Severity::Warning, None)));
        assert!(!has(&event("workload", "Failed", Severity::Error, None)));
        assert!(has(&event("workload", "OOM_KILLED", Severity::Info, None)));
        // Its kind is named in the fact again.
        let fact = FactKind::CpuThrottled;
        assert!(has(&event("node", "CpuThrottled", Severity::Info, Some(fact))));
        assert!(!wanted.has(b"nonsense"));
        assert!(!Wanted::default().has(b""));
    }

    #[tokio::test]
    async fn the_past_and_what_comes_after_are_told_once_and_gaps_are_filled() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("state.redb"), store::embedded::Options::default()).unwrap();
        let file = AlertsFile::default();
        let alerting = Alerting::load(file.rule_set().unwrap(), &file, &store).await.unwrap();
        let alerting = Arc::new(alerting);
        let journal = Arc::new(Journal::default());
        let (hub, _touched, following) = Hub::start(store).await.unwrap();
        let node = NodeName::new("gpu-7");
        let write = async |xid: u32| {
            let mut event = event("node", &format!("Xid{xid}"), Severity::Error, None);
            event.at = now();
            event.fact = Some(FactKind::Xid {
                xid,
                pci: "0000:3b:00.0".to_owned(),
                gpu: Some(2),
                uuid: None,
                pid: None,
            });
            let mut draft = Draft::new();
            draft.event(Revision(u64::from(xid)), event);
            hub.commit(draft).await.unwrap();
        };
        let known = async |count: usize| {
            while journal.of(&node, Timestamp::MIN).len() < count || alerting.recent(now()).known() < count {
                tokio::task::yield_now().await;
            }
            assert_eq!(journal.of(&node, Timestamp::MIN).len(), count);
            assert_eq!(alerting.recent(now()).known(), count);
        };
        write(1).await;
        let counted = Arc::new(Counted::default());
        let (listening, by, to, count) = (
            Arc::clone(&hub),
            Arc::clone(&alerting),
            Arc::clone(&journal),
            Arc::clone(&counted),
        );
        let happening = tokio::spawn(async move { listen(&listening, &by, &to, &count).await });
        journal.ready().await.unwrap();
        known(1).await;
        write(2).await;
        known(2).await;
        hub.listen(|_| true);
        happening.await.unwrap();

        // One who isn't told of the third event, but that there may be something.
        let (tell, news) = tokio::sync::mpsc::unbounded_channel();
        let (alone, by, to) = (Arc::clone(&hub), Arc::clone(&alerting), Arc::clone(&journal));
        let count = Arc::clone(&counted);
        let happening = tokio::spawn(async move {
            let ears = Ears {
                alerting: &by,
                journal: &to,
                counted: &count,
                wanted: &by.wanted(),
            };
            ears.keep_up(alone.store(), news).await;
        });
        known(2).await;
        write(3).await;
        tell.send(Heard::Gap).unwrap();
        known(3).await;
        drop(tell);
        happening.await.unwrap();
        hub.store().close().await;
        following.await.unwrap();
    }
}
