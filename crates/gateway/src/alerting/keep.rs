//! What outlives the gateway: alerts by rule, what receivers were told, silences.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::{
    ApiError, Timestamp,
    event::{Event, Severity as EventSeverity},
    metric::label,
};
use diagnosis::alert::{Alerts, Change, Resolution, RuleSet, Severity, Silence, Span, States, Transition};
use serde::de::DeserializeOwned;
use store::{Order, Range, Record, Revision, Store};

use super::{ENDED_SILENCES_KEPT, Now};
use crate::{draft::Draft, hub::store_error, keys};

/// What only moves times on is written this often: after a crash, a pending alert must not have been seen too long ago.
const WRITE_EVERY: Span = Span::minutes(1);

/// Most records of a kind.
const PAGE: usize = 100_000;

/// Reads all of it.
pub(super) async fn load(store: &Store) -> Result<Now, ApiError> {
    let mut states = States::default();
    for record in all(store, keys::ALERTS).await? {
        let rule = record.key.trim_start_matches(keys::ALERTS).to_owned();
        states.rules.insert(rule, read::<Alerts>(&record)?);
    }
    let ledger = store.get(keys::ALERT_LEDGER).await.map_err(|e| store_error(&e))?;
    let ledger = ledger.map(|record| read(&record)).transpose()?.unwrap_or_default();
    let mut silences = BTreeMap::new();
    for record in all(store, keys::SILENCES).await? {
        let silence: Silence = read(&record)?;
        silences.insert(silence.id.clone(), silence);
    }
    Ok(Now {
        states: Arc::new(states),
        ledger,
        silences,
        ..Now::default()
    })
}

async fn all(store: &Store, prefix: &str) -> Result<Vec<Record>, ApiError> {
    let page = store.range(Range::prefix(prefix), PAGE, Order::Ascending).await;
    Ok(page.map_err(|e| store_error(&e))?.records)
}

fn read<T: DeserializeOwned>(record: &Record) -> Result<T, ApiError> {
    serde_json::from_slice(&record.value)
        .map_err(|error| ApiError::internal(format!("record {} can't be read", record.key)).cause(error.to_string()))
}

/// What is on disk of alerts, by rule, and since when.
#[derive(Default)]
pub(super) struct Written {
    rules: BTreeMap<String, (Alerts, Timestamp)>,
}

impl Written {
    /// As it was loaded.
    pub(super) fn new(states: &States, now: Timestamp) -> Self {
        let rules = states.rules.iter();
        Self {
            rules: rules
                .map(|(rule, alerts)| (rule.clone(), (alerts.clone(), now)))
                .collect(),
        }
    }

    /// What has to be written: rules with transitions at once, others when the last time is some while ago. `None`:
    /// nothing.
    pub(super) fn draft(
        &self,
        states: &States,
        rules: &RuleSet,
        transitions: &[Transition],
        now: Timestamp,
        last: bool,
    ) -> Option<(Draft, Self)> {
        let mut draft = Draft::new();
        let mut after = BTreeMap::new();
        let changed: BTreeSet<&str> = transitions.iter().map(|transition| transition.rule.as_str()).collect();
        let mut any = false;
        for (rule, alerts) in &states.rules {
            let before = self.rules.get(rule);
            let due = |(_, at): &(Alerts, Timestamp)| last || *at > now || Span::between(*at, now) >= WRITE_EVERY;
            let write = before.is_none_or(|kept| kept.0 != *alerts && (changed.contains(rule.as_str()) || due(kept)));
            if write {
                draft.keep(&format!("{}{rule}", keys::ALERTS), alerts);
                any = true;
            }
            let kept = before
                .filter(|_| !write)
                .cloned()
                .unwrap_or_else(|| (alerts.clone(), now));
            after.insert(rule.clone(), kept);
        }
        for rule in self.rules.keys().filter(|rule| !states.rules.contains_key(*rule)) {
            draft.forget(&format!("{}{rule}", keys::ALERTS));
            any = true;
        }
        for event in transitions.iter().filter_map(|transition| event(transition, rules)) {
            draft.event(Revision::ZERO, event);
            any = true;
        }
        any.then_some((draft, Self { rules: after }))
    }
}

/// Silences that ended long enough ago, to be forgotten.
pub(super) fn ended(silences: &BTreeMap<String, Silence>, now: Timestamp) -> Vec<String> {
    let horizon = api::time::before(now, ENDED_SILENCES_KEPT);
    let old = silences.values().filter(|silence| silence.ends_at < horizon);
    old.map(|silence| silence.id.clone()).collect()
}

/// What people should find among events. `None`: nothing worth it.
fn event(transition: &Transition, rules: &RuleSet) -> Option<Event> {
    let severity = match rules.get(&transition.rule).map(|rule| rule.severity) {
        Some(Severity::Critical) => EventSeverity::Error,
        Some(Severity::Warning) => EventSeverity::Warning,
        Some(Severity::Info) | None => EventSeverity::Info,
    };
    let summary = &transition.summary;
    let (reason, severity, message) = match transition.change {
        Change::Firing => ("Firing", severity, summary.clone()),
        Change::Resolved(Resolution::Healthy) => ("Resolved", EventSeverity::Info, format!("over: {summary}")),
        Change::Resolved(Resolution::TargetGone) => {
            ("Resolved", EventSeverity::Info, format!("it exists no more: {summary}"))
        }
        Change::Resolved(Resolution::RuleGone) => (
            "Resolved",
            EventSeverity::Info,
            format!("its rule was removed or changed: {summary}"),
        ),
        Change::Stale => ("Stale", EventSeverity::Warning, format!("without data now: {summary}")),
        Change::FlappingBegan => (
            "Flapping",
            EventSeverity::Warning,
            format!("it comes and goes: {summary}"),
        ),
        Change::FlappingEnded => (
            "Settled",
            EventSeverity::Info,
            format!("it comes and goes no more: {summary}"),
        ),
        Change::Pending | Change::Dropped | Change::Fresh => return None,
    };
    Some(Event {
        id: String::new(),
        at: transition.at,
        kind: "alert".to_owned(),
        subject: transition.fingerprint.to_string(),
        namespace: transition.target.get("namespace").cloned(),
        node: transition.target.get(label::NODE).cloned(),
        reason: reason.to_owned(),
        message: format!("{}: {message}", transition.rule),
        actor: "gateway".to_owned(),
        severity,
        fact: None,
    })
}

#[cfg(test)]
mod tests {
    use diagnosis::alert::{Labels, Observation, Observed, Reading, evaluate_all};
    use store::Op;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// The built-in rules, where one node has this status.
    fn step(rules: &RuleSet, before: &States, status: &str, second: i64) -> (States, Vec<Transition>) {
        let observation = Observation {
            target: [("node".to_owned(), "gpu-7".to_owned())].into(),
            readings: vec![Reading::State {
                value: status.to_owned(),
                since: None,
            }],
            context: Labels::new(),
        };
        let observed = Observed {
            observations: vec![observation],
            gone: Vec::new(),
        };
        evaluate_all(rules, &[("node-down".to_owned(), observed)].into(), before, at(second))
    }

    fn puts(draft: Draft, prefix: &str) -> usize {
        let wanted = |op: &&Op| matches!(op, Op::Put { key, .. } if key.starts_with(prefix));
        draft.finish().ops.iter().filter(wanted).count()
    }

    #[test]
    fn transitions_are_written_at_once_and_times_now_and_then() {
        let rules = RuleSet::built_in().unwrap();
        let mut written = Written::default();
        let mut states = States::default();
        let mut writes = Vec::new();
        for second in (0..=180).step_by(15) {
            let (after, transitions) = step(&rules, &states, "unreachable", second);
            states = after;
            if let Some((draft, now)) = written.draft(&states, &rules, &transitions, at(second), false) {
                written = now;
                writes.push((second, puts(draft.clone(), keys::ALERTS), puts(draft, keys::EVENTS)));
            }
        }
        // Pending; firing, which is an event; and that it was seen since.
        assert_eq!(writes, [(0, 1, 0), (60, 1, 1), (120, 1, 0), (180, 1, 0)]);
        assert!(
            written.draft(&states, &rules, &[], at(181), true).is_none(),
            "nothing is new"
        );
        // It is over, and forgotten after a day.
        let (states, _) = step(&rules, &states, "healthy", 195);
        let (mut states, transitions) = step(&rules, &states, "healthy", 270);
        let (draft, written) = written.draft(&states, &rules, &transitions, at(270), false).unwrap();
        assert_eq!(puts(draft, keys::EVENTS), 1);
        states.prune(&diagnosis::alert::Ledger::default(), at(2 * 86_400));
        let (draft, _) = written.draft(&states, &rules, &[], at(2 * 86_400), false).unwrap();
        let deleted = |op: &Op| matches!(op, Op::Delete { key } if key.starts_with(keys::ALERTS));
        assert!(draft.finish().ops.iter().any(deleted));
    }
}
