//! Who held which GPU when: what makes series of GPUs and nodes those of a workload.

use api::{
    GpuIndex, NodeName, Timestamp,
    workload::{Member, MemberState, Workload},
};

/// What one member of one attempt had, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which attempt.
    pub attempt: u32,
    /// Which member.
    pub rank: u32,
    /// Its node.
    pub node: NodeName,
    /// Its GPUs.
    pub gpus: Vec<GpuIndex>,
    /// Since when its process ran, by the node's clock.
    pub from: Timestamp,
    /// Until when. `None`: it runs.
    pub to: Option<Timestamp>,
}

/// What a workload had, oldest first. Members that never ran had nothing worth a number.
#[must_use]
pub fn held(workload: &Workload) -> Vec<Held> {
    let past = workload
        .past
        .iter()
        .flat_map(|p| p.members.iter().map(|m| (p.attempt, m)));
    let now = workload.members.iter().map(|m| (workload.attempt, m));
    past.chain(now)
        .filter_map(|(attempt, member)| one(attempt, member))
        .collect()
}

fn one(attempt: u32, member: &Member) -> Option<Held> {
    let (from, to) = match &member.state {
        MemberState::Assigned | MemberState::Pulling => return None,
        MemberState::Running { started_at, .. } => (*started_at, None),
        MemberState::Ended { started_at, at, .. } => ((*started_at)?, Some(*at)),
    };
    Some(Held {
        attempt,
        rank: member.rank,
        node: member.node.clone(),
        gpus: member.gpus.iter().map(|g| g.index).collect(),
        from,
        to,
    })
}
