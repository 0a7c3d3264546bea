//! Why workloads wait, for alerts about the queue: asked of the scheduler, for those that have waited longest.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    Timestamp,
    op::Explanation,
    workload::{Phase, Workload},
};
use diagnosis::alert::{self, RuleSet, States};
use futures_util::{StreamExt, stream};

use crate::{control::PlannerHandle, view::View};

/// The word of rules' sentences that stands for them.
pub(super) const REASONS: &str = "reasons";
/// Workloads that the scheduler is asked about.
const ASKED: usize = 20;
/// Reasons that are told.
const TOLD: usize = 3;

/// Whether a rule that names reasons has seen something: only then is the scheduler asked, which has better to do.
pub(super) fn wanted(rules: &RuleSet, alerts: &States) -> bool {
    let names = |rule: &&alert::Rule| rule.context.iter().any(|word| word == REASONS);
    let seen = |rule: &alert::Rule| {
        let alerts = alerts.rules.get(&rule.name);
        alerts.is_some_and(|alerts| alerts.values().any(|alert| alert.phase != alert::Phase::Resolved))
    };
    rules.iter().filter(names).any(seen)
}

/// Those that have waited longest.
pub(super) fn longest(view: &View) -> Vec<Arc<Workload>> {
    let waits = view.active().filter(|workload| workload.phase == Phase::Pending);
    let mut waits: Vec<Arc<Workload>> = waits.map(|workload| Arc::clone(&workload.value)).collect();
    waits.sort_by_key(|workload| workload.timeline.last().map_or(workload.submitted_at, |step| step.at));
    waits.truncate(ASKED);
    waits
}

/// Why these wait, most frequent first. `None`: none does, or the scheduler has no time.
pub(super) async fn ask(planner: &PlannerHandle, waiting: Vec<Arc<Workload>>, at: Timestamp) -> Option<String> {
    let asked = stream::iter(waiting).map(|workload| async move {
        let told = planner.explain(Arc::clone(&workload)).await.ok()?;
        Some(main(&workload, &told, at))
    });
    let told: Vec<Option<String>> = asked.buffer_unordered(ASKED).collect().await;
    words(told.into_iter().flatten())
}

/// The one reason that rules out most nodes.
fn main(workload: &Workload, told: &Explanation, at: Timestamp) -> String {
    if workload.not_before.is_some_and(|from| from > at) {
        return "waits for its next attempt".to_owned();
    }
    // Of several with as many nodes the first.
    let most = told.blockers.iter().rev().max_by_key(|blocker| blocker.nodes);
    match most.and_then(|blocker| Some((blocker.nodes, blocker.reason.split_once(' ')?.1))) {
        Some((1, what)) => format!("1 node {what}"),
        Some((nodes, what)) => format!("{nodes} nodes {what}"),
        None => told.summary.clone(),
    }
}

fn words(reasons: impl Iterator<Item = String>) -> Option<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    reasons.for_each(|reason| *counts.entry(reason).or_default() += 1);
    let all: usize = counts.values().sum();
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let told = counts.into_iter().take(TOLD).map(|(reason, count)| match all {
        1 => reason,
        _ => format!("{reason} ({count} of {all})"),
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join("; "))
}

#[cfg(test)]
mod tests {
    use api::op::Blocker;

    use super::*;

    fn workload() -> Workload {
        let asked = r#"{"name":"a","spec":{"image":"host","command":["true"]}}"#;
        let submission = serde_json::from_str(asked).unwrap();
        crate::decide::submit::workload(submission, 7, "ann", Timestamp::UNIX_EPOCH).unwrap()
    }

    fn told(blockers: &[(&str, u32)]) -> Explanation {
        let blocker = |(reason, nodes): &(&str, u32)| Blocker {
            reason: (*reason).to_owned(),
            nodes: *nodes,
        };
        Explanation {
            summary: "it is first in the queue".to_owned(),
            blockers: blockers.iter().map(blocker).collect(),
            ..Explanation::default()
        }
    }

    #[test]
    fn the_reason_that_rules_out_most_nodes_counts() {
        let now = Timestamp::UNIX_EPOCH;
        let of = |blockers: &[(&str, u32)]| main(&workload(), &told(blockers), now);
        assert_eq!(
            of(&[("1 is not H100", 1), ("8 have fewer than 4 free GPUs", 8)]),
            "8 nodes have fewer than 4 free GPUs"
        );
        assert_eq!(of(&[("1 is not H100", 1)]), "1 node is not H100");
        assert_eq!(of(&[]), "it is first in the queue");
        let backing_off = Workload {
            not_before: Some(api::time::after(now, api::Span::secs(9))),
            ..workload()
        };
        assert_eq!(main(&backing_off, &told(&[]), now), "waits for its next attempt");
    }

    #[test]
    fn the_most_frequent_is_told_first() {
        let said = |reasons: &[&str]| words(reasons.iter().map(|reason| (*reason).to_owned()));
        assert_eq!(said(&[]), None);
        assert_eq!(said(&["a"]).as_deref(), Some("a"));
        assert_eq!(
            said(&["b", "a", "c", "b", "d"]).as_deref(),
            Some("b (2 of 5); a (1 of 5); c (1 of 5)")
        );
    }
}
