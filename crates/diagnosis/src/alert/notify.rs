//! Who is told what, and when.
//!
//! [`plan`] compares the alerts with what the [`Ledger`] says each receiver was told. For each delivery the caller
//!
//! 1. calls [`Ledger::sending`] and keeps the ledger,
//! 2. sends it,
//! 3. calls [`Ledger::delivered`] or [`Ledger::failed`] and keeps the ledger.
//!
//! A crash in between sends again: at least once. As long as nothing else has changed meanwhile, the second one has the
//! same [`Delivery::key`], by which a receiver that knows it drops it. Because of the first step the end of an alert is
//! told too when its beginning may have arrived but wasn't recorded: no receiver is left with an alert that is over.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::list::AlertView;
use super::receiver::{Format, Receiver};
use super::silence::Mute;
use super::state::{Alert, Fingerprint, Phase, States, hash};
use super::{Labels, Span};

/// The first wait after a failure; each further one is twice as long.
const RETRY_FIRST: Span = Span::seconds(10);

/// The longest wait after a failure.
const RETRY_MAX: Span = Span::minutes(5);

/// An Alertmanager believes an alert for this many rounds: three may be lost.
const ROUNDS_BELIEVED: u64 = 4;

/// What each receiver was told. To be kept across restarts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger {
    /// By receiver and group.
    receivers: BTreeMap<String, BTreeMap<String, Group>>,
}

/// What a receiver was told about one group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    /// Number of deliveries so far.
    sequence: u64,
    /// When the last one arrived.
    sent_at: Option<Timestamp>,
    /// Failed attempts since.
    failures: u32,
    /// Not before.
    retry_at: Option<Timestamp>,
    alerts: BTreeMap<Fingerprint, Told>,
}

/// What was said last about an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    firing: bool,
    episode: u64,
    /// It arrived. False: it was sent, and may have.
    arrived: bool,
    /// When the last news about it arrived.
    news_at: Option<Timestamp>,
    /// When a message that was also about it last arrived.
    told_at: Option<Timestamp>,
}

impl Told {
    /// That is what the receiver knows for sure.
    const fn says(&self, said: Said) -> bool {
        self.arrived && self.firing == said.firing && self.episode == said.episode
    }
}

impl Ledger {
    /// Records that a delivery is about to be sent, and so may arrive.
    pub fn sending(&mut self, delivery: &Delivery) {
        let group = self.group(delivery);
        if group.sequence != delivery.sequence {
            return;
        }
        for (fingerprint, said) in delivery.said.iter().filter(|(_, said)| said.firing) {
            let told = group.alerts.entry(fingerprint.clone()).or_default();
            if !told.says(*said) {
                (told.firing, told.episode, told.arrived) = (true, said.episode, false);
            }
        }
    }

    /// Records that a delivery arrived. Recording it twice changes nothing.
    pub fn delivered(&mut self, delivery: &Delivery, now: Timestamp) {
        let group = self.group(delivery);
        if group.sequence != delivery.sequence {
            return;
        }
        group.sequence += 1;
        group.sent_at = Some(now);
        group.failures = 0;
        group.retry_at = None;
        for (fingerprint, said) in &delivery.said {
            let told = group.alerts.entry(fingerprint.clone()).or_default();
            if !told.says(*said) {
                (told.firing, told.episode, told.arrived) = (said.firing, said.episode, true);
                told.news_at = Some(now);
            }
            told.told_at = Some(now);
        }
    }

    /// Records that a delivery failed: it is planned again after 10 s, then 20 s, up to every 5 min.
    pub fn failed(&mut self, delivery: &Delivery, now: Timestamp) {
        let group = self.group(delivery);
        if group.sequence != delivery.sequence {
            return;
        }
        let wait = RETRY_FIRST.times(1 << group.failures.min(10)).min(RETRY_MAX);
        group.failures = group.failures.saturating_add(1);
        group.retry_at = Some(wait.after(now));
    }

    /// When any receiver was last told of an alert.
    #[must_use]
    pub fn notified_at(&self, fingerprint: &Fingerprint) -> Option<Timestamp> {
        self.told(fingerprint).filter_map(|told| told.told_at).max()
    }

    /// Whether some receiver believes that it fires, or may.
    #[must_use]
    pub fn owes(&self, fingerprint: &Fingerprint) -> bool {
        self.told(fingerprint).any(|told| told.firing)
    }

    /// Forgets alerts that exist no more, and receivers that do.
    pub fn prune(&mut self, states: &States, receivers: &[Receiver]) {
        self.receivers
            .retain(|name, _| receivers.iter().any(|receiver| &receiver.name == name));
        let known: BTreeSet<&Fingerprint> = states.alerts().map(|alert| &alert.fingerprint).collect();
        for groups in self.receivers.values_mut() {
            for group in groups.values_mut() {
                group.alerts.retain(|fingerprint, _| known.contains(fingerprint));
            }
            groups.retain(|_, group| !group.alerts.is_empty());
        }
    }

    fn told<'a>(&'a self, fingerprint: &'a Fingerprint) -> impl Iterator<Item = &'a Told> + 'a {
        let groups = self.receivers.values().flat_map(BTreeMap::values);
        groups.filter_map(|group| group.alerts.get(fingerprint))
    }

    fn group(&mut self, delivery: &Delivery) -> &mut Group {
        let groups = self.receivers.entry(delivery.receiver.clone()).or_default();
        groups.entry(delivery.group_key.clone()).or_default()
    }
}

/// Why a delivery is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Occasion {
    /// Something began to fire, or was resolved.
    News,
    /// It still fires.
    Repeat,
}

/// One message to one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// To whom.
    pub receiver: String,
    /// In which form.
    pub format: Format,
    /// The same for every message about the group.
    pub group_key: String,
    /// What its alerts have in common.
    pub group: Labels,
    /// The same for the same message sent again; to be sent along (`Idempotency-Key`).
    pub key: String,
    /// Why now.
    pub occasion: Occasion,
    /// The group's firing alerts, then those that were resolved since the last message.
    pub alerts: Vec<AlertView>,
    /// When an Alertmanager takes the firing ones as over unless it is told again.
    pub believed_until: Timestamp,
    sequence: u64,
    said: BTreeMap<Fingerprint, Said>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    firing: bool,
    episode: u64,
}

const fn said(alert: &Alert) -> Said {
    Said {
        firing: matches!(alert.phase, Phase::Firing),
        episode: alert.episode,
    }
}

/// What is to be sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Now; independent of one another.
    pub deliveries: Vec<Delivery>,
    /// When planning again yields something, should nothing change until then.
    pub next_at: Option<Timestamp>,
}

/// Plans what is to be sent now. Alerts that are pending, and resolved ones that were never told, are told to nobody;
/// muted ones neither, but for the end of one that was told.
#[must_use]
pub fn plan(
    states: &States,
    mutes: &BTreeMap<Fingerprint, Mute>,
    receivers: &[Receiver],
    ledger: &Ledger,
    now: Timestamp,
) -> Plan {
    let alerts: Vec<(&Alert, Labels)> = states
        .alerts()
        .filter(|alert| alert.phase != Phase::Pending)
        .map(|alert| (alert, alert.all_labels()))
        .collect();
    let mut plan = Plan::default();
    let nothing = BTreeMap::new();
    for receiver in receivers {
        let told = ledger.receivers.get(&receiver.name).unwrap_or(&nothing);
        let mut groups: BTreeMap<String, (Labels, Vec<&Alert>)> = BTreeMap::new();
        for (alert, labels) in alerts.iter().filter(|(alert, labels)| receiver.wants(alert, labels)) {
            let common: Labels = (receiver.group_by.iter())
                .filter_map(|name| Some((name.clone(), labels.get(name)?.clone())))
                .collect();
            groups
                .entry(group_key(&common))
                .or_insert_with(|| (common, Vec::new()))
                .1
                .push(alert);
        }
        for (key, (common, alerts)) in groups {
            let group = told.get(&key).cloned().unwrap_or_default();
            let review = Review::of(&alerts, mutes, receiver, &group, now);
            let Some((due, occasion)) = review.due(receiver, &group) else {
                continue;
            };
            if due > now {
                plan.next_at = Some(plan.next_at.map_or(due, |next| next.min(due)));
            } else {
                plan.deliveries
                    .push(deliver(receiver, &group, key, common, review, occasion, ledger, now));
            }
        }
    }
    plan
}

/// `node="gpu-7",rule="gpu-lost"`.
fn group_key(labels: &Labels) -> String {
    labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// What there is to say about a group.
#[derive(Default)]
struct Review<'a> {
    firing: Vec<&'a Alert>,
    resolved: Vec<&'a Alert>,
    /// Since when the oldest news has waited.
    news_since: Option<Timestamp>,
    /// When the first news that is held back may be told.
    held_until: Option<Timestamp>,
    /// The receiver knows of something that fires.
    ongoing: bool,
}

impl<'a> Review<'a> {
    fn of(
        alerts: &[&'a Alert],
        mutes: &BTreeMap<Fingerprint, Mute>,
        receiver: &Receiver,
        group: &Group,
        now: Timestamp,
    ) -> Self {
        let mut review = Self::default();
        for alert in alerts.iter().copied() {
            let told = group.alerts.get(&alert.fingerprint);
            let firing = alert.phase == Phase::Firing;
            review.ongoing |= told.is_some_and(|told| told.firing && (firing || receiver.send_resolved));
            let muted = mutes.contains_key(&alert.fingerprint);
            let news = if firing {
                !muted && told.is_none_or(|told| !told.says(said(alert)))
            } else {
                receiver.send_resolved && told.is_some_and(|told| told.firing)
            };
            let since = if firing { alert.fired_at } else { alert.resolved_at };
            if news {
                let last = told.filter(|_| alert.flapping).and_then(|told| told.news_at);
                let free = last.map(|at| receiver.flapping_interval().after(at));
                if let Some(free) = free.filter(|free| *free > now) {
                    review.held_until = Some(review.held_until.map_or(free, |held| held.min(free)));
                    continue;
                }
                let since = since.unwrap_or(now);
                review.news_since = Some(review.news_since.map_or(since, |first| first.min(since)));
            }
            if firing && !muted {
                review.firing.push(alert);
            } else if news {
                review.resolved.push(alert);
            }
        }
        review
    }

    /// When the group is to be told, and why; `None` while there is nothing to say.
    fn due(&self, receiver: &Receiver, group: &Group) -> Option<(Timestamp, Occasion)> {
        let news = self
            .news_since
            .map(|since| match group.sent_at.filter(|_| self.ongoing) {
                Some(sent) => receiver.group_interval().after(sent),
                None => receiver.group_wait().after(since),
            });
        let repeat = group
            .sent_at
            .filter(|_| !self.firing.is_empty())
            .map(|sent| receiver.repeat().after(sent));
        let first = match (news.or(self.held_until), repeat) {
            (Some(news), Some(repeat)) if repeat < news => (repeat, Occasion::Repeat),
            (Some(news), _) => (news, Occasion::News),
            (None, Some(repeat)) => (repeat, Occasion::Repeat),
            (None, None) => return None,
        };
        // Whatever made it due: if it has news, news it is.
        let occasion = if self.news_since.is_some() {
            Occasion::News
        } else {
            first.1
        };
        let due = group.retry_at.map_or(first.0, |retry| first.0.max(retry));
        Some((due, occasion))
    }
}

#[expect(clippy::too_many_arguments, reason = "one caller; the parts of a message")]
fn deliver(
    receiver: &Receiver,
    group: &Group,
    group_key: String,
    common: Labels,
    review: Review<'_>,
    occasion: Occasion,
    ledger: &Ledger,
    now: Timestamp,
) -> Delivery {
    let mut alerts = review.firing;
    alerts.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.fired_at.cmp(&b.fired_at)));
    alerts.extend(review.resolved);
    let said: BTreeMap<Fingerprint, Said> = alerts
        .iter()
        .map(|alert| (alert.fingerprint.clone(), said(alert)))
        .collect();
    // An alert that was forgotten begins anew with its first episode: the time tells it from the one before.
    let fired = |alert: &&Alert| alert.fired_at.map_or_else(String::new, |at| at.to_string());
    let words: Vec<String> = [receiver.name.clone(), group_key.clone(), group.sequence.to_string()]
        .into_iter()
        .chain(
            said.iter()
                .map(|(f, said)| format!("{f} {} {}", said.firing, said.episode)),
        )
        .chain(alerts.iter().map(fired))
        .collect();
    Delivery {
        receiver: receiver.name.clone(),
        format: receiver.format,
        key: hash(words.iter().map(String::as_str)),
        group_key,
        group: common,
        occasion,
        alerts: alerts
            .iter()
            .map(|alert| AlertView::new(alert, None, ledger.notified_at(&alert.fingerprint)))
            .collect(),
        believed_until: receiver.repeat().times(ROUNDS_BELIEVED).after(now),
        sequence: group.sequence,
        said,
    }
}

#[cfg(test)]
mod tests;
