//! What a pass decided: plain data that can be printed, compared and kept.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AllocationKey, NodeName, Owner, RequestId};

/// Everything one pass decided. Every choice is made: the executor chooses
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What starts, in the order in which it was decided.
    pub placements: Vec<Placement>,
    /// What is to be evicted now, for whom, and why.
    pub preemptions: Vec<Preemption>,
    /// What is kept for requests that have waited longest; smaller work
    /// starts ahead of them only where it can't delay them.
    pub reservations: Vec<Reservation>,
    /// How many requests wait on, per reason.
    pub waiting: BTreeMap<Wait, u64>,
    /// Requests decided: placed or left waiting.
    pub decisions: u64,
    /// The pass ended at one of its limits: carry it out and plan again.
    pub truncated: bool,
}

impl Plan {
    /// Whether there is nothing to carry out.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.placements.is_empty() && self.preemptions.is_empty()
    }
}

/// One workload, placed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The workload.
    pub request: RequestId,
    /// One per rank, in order of rank; each on a node of its own.
    pub members: Vec<Member>,
    /// CPU of each member, in thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory of each member, in bytes.
    pub memory_bytes: u64,
}

/// Where one member of a gang goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its number, from 0.
    pub rank: u32,
    /// Where.
    pub node: NodeName,
    /// GPU indices on that node, ascending.
    pub gpus: Vec<u32>,
    /// What speaks against the place; every other place had at least as many
    /// points against it. Empty for an ideal one.
    pub deductions: Vec<Deduction>,
}

/// Something that speaks against a place, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deduction {
    /// What.
    pub why: Flaw,
    /// How much: a GPU that is left over on the node counts 10.
    pub points: u32,
}

/// What may speak against a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// GPUs are left over on the node, which breaks up a larger free block.
    LeftOver,
    /// The GPUs are linked less well than by NVLink.
    Links,
    /// The image has to be pulled.
    NoImage,
    /// The node is hot or busy.
    Hot,
    /// The node would rather have nobody (`PreferNoSchedule`).
    Unwelcome,
}

impl Flaw {
    /// Every flaw, in order.
    pub(crate) const ALL: [Self; 5] = [Self::LeftOver, Self::Links, Self::NoImage, Self::Hot, Self::Unwelcome];
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeftOver => "GPUs left over on the node",
            Self::Links => "GPUs not linked by NVLink",
            Self::NoImage => "image not on the node",
            Self::Hot => "node is hot",
            Self::Unwelcome => "node would rather have nobody",
        })
    }
}

/// Victims of one request. Mark each allocation as
/// [`evicting_for`](crate::Allocation::evicting_for) that request, and the
/// request as [`preempting`](crate::Request::preempting).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preemption {
    /// For whom.
    pub request: RequestId,
    /// Where it is to run then.
    pub nodes: Vec<NodeName>,
    /// Who has to go.
    pub victims: Vec<Victim>,
}

/// A workload that is to be evicted, with all its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Victim {
    /// The workload.
    pub request: RequestId,
    /// Whose it is.
    pub owner: Owner,
    /// How long its oldest member has run, in milliseconds.
    pub ran_ms: i64,
    /// What it holds, in order of rank.
    pub allocations: Vec<AllocationKey>,
}

/// Room kept for a request that can't start yet: the head of the queue, or
/// one that victims are being evicted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// For whom.
    pub request: RequestId,
    /// The nodes, in order of name.
    pub nodes: Vec<NodeName>,
    /// When it can start at the latest, milliseconds since the epoch, going
    /// by timeouts. `None`: what it waits for has no known end.
    pub start_ms: Option<i64>,
    /// The room comes from evictions; what they free is already given away.
    pub evicting: bool,
}

/// Why a request was left waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// It could run, but what it needs is held.
    Resources,
    /// It would fit, but would delay a request ahead of it.
    Reserved,
    /// Victims are being evicted for it.
    Preempting,
    /// Its own back-off is not over.
    BackOff,
    /// Nothing in today's fleet, even if empty, could run it.
    Never,
    /// The pass ended at a limit before its turn.
    Limit,
}

impl Wait {
    /// Every reason, in order.
    pub(crate) const ALL: [Self; 6] = [
        Self::Resources,
        Self::Reserved,
        Self::Preempting,
        Self::BackOff,
        Self::Never,
        Self::Limit,
    ];
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resources => "wait for resources",
            Self::Reserved => "would delay the head of the queue",
            Self::Preempting => "wait for evictions",
            Self::BackOff => "back off",
            Self::Never => "fit no node even if empty",
            Self::Limit => "not looked at",
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for placement in &self.placements {
            write!(f, "place {}:", placement.request)?;
            for member in &placement.members {
                write!(f, " {}{:?}", member.node, member.gpus)?;
            }
            writeln!(f)?;
        }
        for preemption in &self.preemptions {
            writeln!(f, "{preemption}")?;
        }
        for reservation in &self.reservations {
            write!(f, "keep {} for {}", join(&reservation.nodes), reservation.request)?;
            match reservation.start_ms {
                _ if reservation.evicting => writeln!(f, ", starts after evictions")?,
                Some(start) => writeln!(f, ", starts by {start}")?,
                None => writeln!(f, ", start unknown")?,
            }
        }
        for (wait, count) in &self.waiting {
            writeln!(f, "{count} {wait}")?;
        }
        if self.truncated {
            writeln!(f, "cut short: plan again")?;
        }
        Ok(())
    }
}

impl fmt::Display for Preemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let victims: Vec<&RequestId> = self.victims.iter().map(|v| &v.request).collect();
        write!(
            f,
            "evict {} for {} on {}",
            join(&victims),
            self.request,
            join(&self.nodes)
        )
    }
}

pub(crate) fn join<T: fmt::Display>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    texts.join(", ")
}
