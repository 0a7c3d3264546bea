//! Alerts: rules are evaluated, what they find is kept and recorded, and whoever wants to know is told.
//!
//! ```text
//! metrics, view, live, events ──▶ answers ──▶ diagnosis::alert::evaluate_each ──▶ keep (store, events)
//!                                                                                   │ nudge
//! receivers ◀── send ◀── deliver (diagnosis::alert::plan) ◀─────────────────────────┘
//! ```
//!
//! The engine (`diagnosis::alert`) decides; here are its effects. Two loops: [`watch`] evaluates, [`deliver`] sends, so
//! that a receiver that doesn't answer holds up no rule. A store that takes no writes, whose full disk may be what has
//! to be told, holds up neither.

mod answers;
mod file;
mod keep;
mod occurrences;
mod reasons;
mod run;
mod send;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{ApiError, Timestamp, event::Event};
use diagnosis::alert::{Fingerprint, Ledger, Mute, Receiver, RuleSet, Silence, States, mutes};
use store::Store;
use tokio::sync::{Notify, watch};

use crate::happenings::Wanted;

pub use file::{AlertsFile, FileError};
pub use occurrences::Recent;
pub use run::{Sources, deliver, watch};
pub use send::{Sender, SenderError};
pub use views::{alert, silence};

/// How long silences that ended are listed.
const ENDED_SILENCES_KEPT: api::Span = api::Span::secs(86_400);

/// Alerts: the rules, and what they found.
pub struct Alerting {
    rules: RuleSet,
    /// Names of rules that the file brought.
    own: BTreeSet<String>,
    receivers: Vec<Receiver>,
    link: Option<String>,
    now: Mutex<Now>,
    /// There may be something to send.
    news: Notify,
    /// What happened lately that rules count. `None`: the past hasn't been read yet.
    recent: watch::Sender<Option<Recent>>,
}

/// What changes.
#[derive(Default)]
struct Now {
    states: Arc<States>,
    ledger: Ledger,
    silences: BTreeMap<String, Silence>,
    evaluated_at: Option<Timestamp>,
    /// How the last message to each receiver went, by its name.
    deliveries: BTreeMap<String, Delivered>,
}

/// How messages to a receiver went, in this gateway's life.
#[derive(Debug, Clone, Default)]
struct Delivered {
    at: Option<Timestamp>,
    failing: Option<String>,
}

impl Now {
    fn mutes(&self, rules: &RuleSet, now: Timestamp) -> BTreeMap<Fingerprint, Mute> {
        let silences: Vec<Silence> = self.silences.values().cloned().collect();
        mutes(&self.states, rules, &silences, now)
    }
}

impl Alerting {
    /// Takes up what an earlier gateway kept.
    ///
    /// # Errors
    /// The store can't be read, or holds records that this version doesn't know.
    pub async fn load(rules: RuleSet, file: &AlertsFile, store: &Store) -> Result<Self, ApiError> {
        Ok(Self {
            own: file.own(),
            rules,
            receivers: file.receivers.clone(),
            link: file.link.clone(),
            now: Mutex::new(keep::load(store).await?),
            news: Notify::new(),
            recent: watch::Sender::new(None),
        })
    }

    /// What happened lately, with nothing in it.
    #[must_use]
    pub fn nothing_yet(&self) -> Recent {
        Recent::new(&self.rules)
    }

    /// Which events are worth reading.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted::new(self.nothing_yet().wanted())
    }

    /// What happened lately has been read, in place of what was known.
    pub fn know(&self, recent: Recent) {
        self.recent.send_replace(Some(recent));
    }

    /// Something happened that a rule may count.
    pub fn happened(&self, event: &Event) {
        self.recent.send_if_modified(|recent| {
            if let Some(recent) = recent {
                recent.take(event);
            }
            false
        });
    }

    /// What happened lately, as far as a rule still counts it.
    #[must_use]
    pub fn recent(&self, now: Timestamp) -> Recent {
        self.recent.send_if_modified(|recent| {
            if let Some(recent) = recent {
                recent.prune(now);
            }
            false
        });
        let known = self.recent.borrow().clone();
        known.unwrap_or_else(|| self.nothing_yet())
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a silence as it is on disk now.
    pub fn put_silence(&self, silence: Silence) {
        self.now().silences.insert(silence.id.clone(), silence);
        self.news.notify_one();
    }

    /// A silence.
    ///
    /// # Errors
    /// `NOT_FOUND`: none is called so, or several begin like this.
    pub fn find_silence(&self, id: &str) -> Result<Silence, ApiError> {
        let now = self.now();
        let found = now
            .silences
            .range(id.to_owned()..)
            .take_while(|(known, _)| known.starts_with(id));
        let found: Vec<&Silence> = match now.silences.get(id) {
            Some(exact) => vec![exact],
            None => found.map(|(_, silence)| silence).collect(),
        };
        match found.as_slice() {
            [silence] => Ok((*silence).clone()),
            [] => Err(ApiError::not_found(format!("there is no silence '{id}'")).hint("clawbernetes alerts silences")),
            several => Err(
                ApiError::not_found(format!("{} silences begin with '{id}'", several.len()))
                    .hint("clawbernetes alerts silences"),
            ),
        }
    }
}
