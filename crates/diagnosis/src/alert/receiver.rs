//! Who wants to be told of which alerts, how often, and in which form.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::matcher::Matcher;
use super::rule::Severity;
use super::state::Alert;
use super::{Labels, Span};

/// What a receiver understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An incoming webhook of Slack, Mattermost, Rocket.Chat or Discord (`/slack`).
    Slack,
    /// What Alertmanager itself sends to webhooks, version 4.
    Webhook,
    /// Alertmanager's `POST /api/v2/alerts`. It groups, holds back and repeats by itself: it is told at once, and
    /// again each `repeat`, without which it takes an alert as over. One that is silenced here is not sent.
    Alertmanager,
}

/// Where a receiver listens. It may hold a secret, so that printing it for debugging shows the host only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(pub String);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let host = rest.split(['/', '?']).next().unwrap_or("");
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        write!(f, "{scheme}://{host}/…")
    }
}

/// Someone who wants to be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receiver {
    /// Unique. What was told is remembered under it.
    pub name: String,
    /// What it understands.
    pub format: Format,
    /// Where it listens. For Alertmanager the base address, without `/api/v2/alerts`.
    pub url: Address,
    /// All must match an alert's labels; every alert if empty.
    #[serde(default)]
    pub matchers: Vec<Matcher>,
    /// Only alerts from this severity on.
    #[serde(default = "info")]
    pub min_severity: Severity,
    /// Alerts that have these labels in common are told together. `[rule]` if unsaid.
    #[serde(default = "by_rule")]
    pub group_by: Vec<String>,
    /// How long a new group waits for more to come. 30 s if unsaid; none for Alertmanager.
    #[serde(default)]
    pub group_wait: Option<Span>,
    /// How long changes of a group that was told wait for more. 1 min if unsaid; none for Alertmanager.
    #[serde(default)]
    pub group_interval: Option<Span>,
    /// When a group that still fires is told again. 4 h if unsaid; 1 min for Alertmanager.
    #[serde(default)]
    pub repeat: Option<Span>,
    /// Whether ends are told.
    #[serde(default = "yes")]
    pub send_resolved: bool,
    /// A flapping alert's changes are told at most this often. 1 h if unsaid; unlimited for Alertmanager.
    #[serde(default)]
    pub flapping_interval: Option<Span>,
}

const fn info() -> Severity {
    Severity::Info
}

fn by_rule() -> Vec<String> {
    vec!["rule".to_owned()]
}

const fn yes() -> bool {
    true
}

/// Why receivers can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverError {
    /// Two have this name.
    #[error("there are two receivers called {name:?}")]
    Twice {
        /// The name.
        name: String,
    },
    /// Its address is not HTTP.
    #[error("the address of receiver {name:?} must begin with http:// or https://")]
    Address {
        /// Whose.
        name: String,
    },
    /// It would be told without a pause.
    #[error("receiver {name:?}: `repeat` is below 10s")]
    Repeat {
        /// Whose.
        name: String,
    },
}

impl Receiver {
    /// Whether these can be used together.
    ///
    /// # Errors
    /// A name that is there twice, an address that isn't HTTP, or repeats without a pause.
    pub fn check(receivers: &[Self]) -> Result<(), ReceiverError> {
        let mut names = BTreeSet::new();
        for receiver in receivers {
            let name = receiver.name.clone();
            if !names.insert(&receiver.name) {
                return Err(ReceiverError::Twice { name });
            }
            if !(receiver.url.0.starts_with("http://") || receiver.url.0.starts_with("https://")) {
                return Err(ReceiverError::Address { name });
            }
            if receiver.repeat() < Span::seconds(10) {
                return Err(ReceiverError::Repeat { name });
            }
        }
        Ok(())
    }

    fn default_for(&self, said: Option<Span>, alertmanager: Span, others: Span) -> Span {
        said.unwrap_or(match self.format {
            Format::Alertmanager => alertmanager,
            Format::Slack | Format::Webhook => others,
        })
    }

    pub(super) fn group_wait(&self) -> Span {
        self.default_for(self.group_wait, Span::ZERO, Span::seconds(30))
    }

    pub(super) fn group_interval(&self) -> Span {
        self.default_for(self.group_interval, Span::ZERO, Span::minutes(1))
    }

    pub(super) fn repeat(&self) -> Span {
        self.default_for(self.repeat, Span::minutes(1), Span::hours(4))
    }

    pub(super) fn flapping_interval(&self) -> Span {
        self.default_for(self.flapping_interval, Span::ZERO, Span::hours(1))
    }

    pub(super) fn wants(&self, alert: &Alert, labels: &Labels) -> bool {
        alert.severity >= self.min_severity && self.matchers.iter().all(|matcher| matcher.matches(labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver() -> Receiver {
        serde_json::from_str(r#"{"name":"ops","format":"slack","url":"https://hooks.example/T0/secret"}"#).unwrap()
    }

    #[test]
    fn an_address_is_not_printed() {
        let text = format!("{:?}", receiver());
        assert!(
            text.contains("https://hooks.example/…") && !text.contains("secret"),
            "{text}"
        );
        assert_eq!(format!("{:?}", Address("https://me:pw@h/x".to_owned())), "https://h/…");
    }

    #[test]
    fn receivers_are_checked() {
        let one = receiver();
        assert_eq!(Receiver::check(std::slice::from_ref(&one)), Ok(()));
        assert!(matches!(
            Receiver::check(&[one.clone(), one.clone()]),
            Err(ReceiverError::Twice { .. })
        ));
        let bad = |change: fn(&mut Receiver)| {
            let mut receiver = one.clone();
            change(&mut receiver);
            Receiver::check(&[receiver]).is_err()
        };
        assert!(bad(|receiver| receiver.url = Address("file:///etc/passwd".to_owned())));
        assert!(bad(|receiver| receiver.repeat = Some(Span::ZERO)));
        assert!(
            serde_json::from_str::<Receiver>(r#"{"name":"a","format":"slack","url":"http://x","every":"1h"}"#).is_err()
        );
    }
}
