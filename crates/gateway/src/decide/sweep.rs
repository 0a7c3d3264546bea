//! What only time brings about: waits that end, records that have been kept long enough.

use api::{NodeName, Span, Timestamp, time};

use super::nodes::{self, Patience};
use crate::{draft::Draft, lifecycle, view::View};

/// What time has brought about by now: silent nodes, lost and drained ones to be emptied, waits that are over; each
/// draft stands for itself. `silence` says for how long a node hasn't been heard of.
#[must_use]
pub fn due(view: &View, silence: impl Fn(&NodeName) -> Span, patience: Patience, now: Timestamp) -> Vec<Draft> {
    let silent = view
        .nodes()
        .filter_map(|node| nodes::silent(node, silence(&node.name), patience, now));
    silent
        .chain(nodes::evict(view, now))
        .chain(tired_of_waiting(view, now))
        .collect()
}

/// How long ended workloads are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// At most this long.
    pub age: Span,
    /// At most this many, youngest first.
    pub count: usize,
}

/// Workloads that have waited too long, or too long for a certain node: one draft each.
#[must_use]
pub fn tired_of_waiting(view: &View, now: Timestamp) -> Vec<Draft> {
    view.active()
        .filter_map(|before| {
            let elsewhere = || view.nodes().any(|node| !before.avoid.contains(&node.name));
            let step = lifecycle::give_up_waiting(before, now)
                .or_else(|| lifecycle::take_any_node(before, before.avoid.is_empty() || elsewhere(), now))?;
            let mut draft = Draft::new();
            draft.step(before, step);
            Some(draft)
        })
        .collect()
}

/// Ended workloads whose time is over, with the ids of their logs.
#[must_use]
pub fn forgotten(view: &View, retention: Retention, now: Timestamp) -> Vec<(String, Draft)> {
    let mut ended: Vec<_> = view
        .workloads()
        .filter_map(|w| w.finished_at.map(|at| (at, w)))
        .collect();
    let surplus = ended.len().saturating_sub(retention.count);
    let horizon = time::before(now, retention.age);
    if surplus > 0 {
        ended.select_nth_unstable_by_key(surplus - 1, |(at, _)| *at);
    }
    ended
        .iter()
        .enumerate()
        .filter(|(i, (at, _))| *i < surplus || *at < horizon)
        .map(|(_, (_, w))| {
            let mut draft = Draft::new();
            draft.delete_workload(w);
            (w.id.to_string(), draft)
        })
        .collect()
}
