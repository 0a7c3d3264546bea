//! What nodes saw, as transactions.

use std::collections::BTreeMap;

use api::{NodeName, Timestamp, WorkloadId, wire::Observation};

use crate::{draft::Draft, lifecycle, view::View};

/// A frame's observations by workload, in their order: each workload has its own transaction.
#[must_use]
pub fn by_workload(observations: &[Observation]) -> BTreeMap<WorkloadId, Vec<&Observation>> {
    let mut all: BTreeMap<WorkloadId, Vec<&Observation>> = BTreeMap::new();
    for observation in observations {
        let of = all.entry(observation.job.workload.clone()).or_default();
        of.push(observation);
    }
    all
}

/// Takes in what a node saw of one workload. `None`: it changes nothing.
#[must_use]
pub fn observed(
    view: &View,
    node: &NodeName,
    workload: &WorkloadId,
    seen: &[&Observation],
    now: Timestamp,
) -> Option<Draft> {
    let before = view.workload(workload)?;
    let step = lifecycle::observe_all(before, node, seen.iter().map(|o| (&o.job, &o.seen)), now)?;
    let mut draft = Draft::new();
    draft.step(before, step);
    Some(draft)
}
