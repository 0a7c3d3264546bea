//! Nodes: let in, heard of, silent, lost, emptied, removed.

use std::{collections::BTreeMap, net::IpAddr};

use api::{
    ApiError, ErrorCode, GpuIndex, NodeName, Span, Timestamp,
    event::Severity,
    node::{Drain, GpuHealth, Inventory, Node, NodeStatus, Reach},
    time,
    workload::{StopOrder, StopReason},
};

use vault::pki::{Certificate, Reason};

use crate::{
    draft::{Draft, node_event},
    lifecycle,
    view::{Versioned, View},
};

/// The one word for a node's state.
#[must_use]
pub fn status(node: &Node, heard_of: bool) -> NodeStatus {
    match node.reach {
        Reach::Joining => NodeStatus::Joining,
        Reach::Unreachable | Reach::Lost => NodeStatus::Unreachable,
        Reach::Online if !heard_of => NodeStatus::Unknown,
        Reach::Online if node.drain.is_some() => NodeStatus::Draining,
        Reach::Online if node.gpu_health.values().any(|h| !h.usable()) => NodeStatus::Critical,
        Reach::Online if node.gpu_health.values().any(|h| *h != GpuHealth::Ok) => NodeStatus::Degraded,
        Reach::Online => NodeStatus::Healthy,
    }
}

/// The one word for the health of a node's GPU. Of a silent node's nothing is known.
#[must_use]
pub fn gpu_health(node: &Node, gpu: GpuIndex, heard_of: bool) -> &'static str {
    if node.reach != Reach::Online || !heard_of {
        return "unknown";
    }
    node.gpu_health.get(&gpu).map_or("ok", GpuHealth::name)
}

/// A node that a join token lets in.
#[must_use]
pub fn joined(name: &NodeName, credential_hash: String, by: &str, now: Timestamp) -> (Node, api::event::Event) {
    let node = Node {
        name: name.clone(),
        joined_at: now,
        credential_hash,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        drain: None,
        reach: Reach::Joining,
        reach_since: now,
        inventory: None,
        gpu_health: BTreeMap::new(),
        session: 0,
        address: None,
        services: None,
        facts_seen: None,
    };
    let event = node_event(name, "Joined", format!("{name} joined"), by, Severity::Info, now);
    (node, event)
}

/// With what a node comes.
#[derive(Debug, Clone)]
pub struct Came {
    /// The machine that its agent found.
    pub inventory: Inventory,
    /// Labels that it gives itself.
    pub labels: BTreeMap<String, String>,
    /// Where it calls from.
    pub address: IpAddr,
    /// Where it listens for requests of services. `None`: it carries none.
    pub services: Option<IpAddr>,
}

/// A node's session begins: it is online.
#[must_use]
pub fn online(node: &Versioned<Node>, came: Came, now: Timestamp) -> Draft {
    let Came {
        inventory,
        labels,
        address,
        services,
    } = came;
    let mut new = Node::clone(node);
    let mut draft = Draft::new();
    come_online(node, &mut new, &mut draft, now);
    new.session += 1;
    new.labels.extend(labels);
    new.gpu_health
        .retain(|index, _| inventory.gpus.iter().any(|g| g.index == *index));
    mark_vanished(&mut new, &inventory);
    new.inventory = Some(keep_vanished(node.inventory.as_ref(), inventory));
    new.address = Some(address);
    new.services = services;
    draft.put_node(Some(node.revision), &new);
    draft
}

fn come_online(node: &Versioned<Node>, new: &mut Node, draft: &mut Draft, now: Timestamp) {
    if node.reach == Reach::Online {
        return;
    }
    let message = match node.reach {
        Reach::Joining => format!("{} is online for the first time", node.name),
        _ => format!("{} is back after {}", node.name, time::between(node.reach_since, now)),
    };
    draft.event(
        node.revision,
        node_event(&node.name, "Online", message, "gateway", Severity::Info, now),
    );
    new.reach = Reach::Online;
    new.reach_since = now;
}

/// GPUs that were there before and are not found any more stay in the inventory, as failed: their holders and their
/// history don't vanish with them. They go when the machine is booted anew.
fn keep_vanished(old: Option<&Inventory>, mut new: Inventory) -> Inventory {
    if let Some(old) = old.filter(|old| old.boot_id == new.boot_id && old.boot_id.is_some()) {
        for gpu in &old.gpus {
            if !new.gpus.iter().any(|g| g.uuid == gpu.uuid) && !new.gpus.iter().any(|g| g.index == gpu.index) {
                new.gpus.push(gpu.clone());
            }
        }
        new.gpus.sort_by_key(|g| g.index);
    }
    new
}

fn mark_vanished(node: &mut Node, inventory: &Inventory) {
    let Some(old) = &node.inventory else { return };
    if old.boot_id != inventory.boot_id || old.boot_id.is_none() {
        return;
    }
    for gpu in &old.gpus {
        if !inventory.gpus.iter().any(|g| g.index == gpu.index) {
            let reason = format!("{} is no longer found by its driver", gpu.uuid);
            node.gpu_health.insert(gpu.index, GpuHealth::Failed { reason });
        }
    }
}

/// A node speaks in its session: it is online, also where its silence was noted meanwhile; and the machine, or the
/// health of its GPUs, may have changed. `None`: nothing is new.
#[must_use]
pub fn changed(
    node: &Versioned<Node>,
    inventory: Option<Inventory>,
    health: &BTreeMap<GpuIndex, GpuHealth>,
    now: Timestamp,
) -> Option<Draft> {
    let mut new = Node::clone(node);
    let mut draft = Draft::new();
    come_online(node, &mut new, &mut draft, now);
    if let Some(inventory) = inventory {
        mark_vanished(&mut new, &inventory);
        new.inventory = Some(keep_vanished(node.inventory.as_ref(), inventory));
    }
    for (index, health) in health {
        let known = new.gpu_health.get(index).unwrap_or(&GpuHealth::Ok);
        if known == health {
            continue;
        }
        let (reason, severity, message) = match health {
            GpuHealth::Ok => (
                "GpuRecovered",
                Severity::Info,
                format!("GPU {index} of {} is well again", node.name),
            ),
            other => (
                if other.usable() { "GpuDegraded" } else { "GpuFailed" },
                if other.usable() {
                    Severity::Warning
                } else {
                    Severity::Error
                },
                format!("GPU {index} of {}: {}", node.name, other.reason().unwrap_or("unknown")),
            ),
        };
        draft.event(
            node.revision,
            node_event(&node.name, reason, message, "gateway", severity, now),
        );
        match health {
            GpuHealth::Ok => new.gpu_health.remove(index),
            other => new.gpu_health.insert(*index, other.clone()),
        };
    }
    if new == **node {
        return None;
    }
    draft.put_node(Some(node.revision), &new);
    Some(draft)
}

/// How long a node may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Before it counts as unreachable.
    pub unreachable: Span,
    /// Before it is declared lost. Its agent fences itself strictly earlier.
    pub lost: Span,
}

/// Share of the time to loss after which a node must have fenced itself: the rest is the margin for clocks that run
/// at different speeds and for the time that killing takes.
const FENCE_SHARE: f64 = 0.9;

impl Patience {
    /// After how long without an acknowledged sign of life a node must have stopped everything it runs.
    #[must_use]
    pub fn fence(&self) -> Span {
        Span((self.lost.millis() as f64 * FENCE_SHARE) as u64)
    }
}

/// A node that has been silent for `silence`: unreachable, then lost. `None`: nothing new.
#[must_use]
pub fn silent(node: &Versioned<Node>, silence: Span, patience: Patience, now: Timestamp) -> Option<Draft> {
    let (reach, reason, message, severity) = match node.reach {
        Reach::Online if silence >= patience.unreachable => (
            Reach::Unreachable,
            ErrorCode::NodeUnreachable.as_str(),
            format!(
                "{} has been silent for {silence}; its workloads are unknown until {}",
                node.name, patience.lost
            ),
            Severity::Warning,
        ),
        Reach::Unreachable if silence >= patience.lost => (
            Reach::Lost,
            "Lost",
            format!(
                "{} has been silent for {silence}: it is fenced and its workloads are lost",
                node.name
            ),
            Severity::Error,
        ),
        _ => return None,
    };
    let mut draft = Draft::new();
    let new = Node {
        reach,
        reach_since: now,
        ..Node::clone(node)
    };
    draft.put_node(Some(node.revision), &new);
    draft.event(
        node.revision,
        node_event(&node.name, reason, message, "gateway", severity, now),
    );
    Some(draft)
}

/// The next step of taking down what ran on lost nodes, and of emptying drained ones: one draft a workload.
#[must_use]
pub fn evict(view: &View, now: Timestamp) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for node in view.nodes() {
        if node.reach == Reach::Lost {
            for before in view.on_node(&node.name) {
                if let Some(step) = lifecycle::lose(before, &node.name, now) {
                    let mut draft = Draft::new();
                    // Only while it is lost: a node that comes back at this moment keeps its work.
                    draft.node_unchanged(node);
                    draft.step(before, step);
                    drafts.push(draft);
                }
            }
        }
        let Some(drain) = &node.drain else { continue };
        let over = drain.timeout.is_some_and(|t| time::between(drain.since, now) >= t);
        if !drain.force && !over {
            continue;
        }
        for before in view.on_node(&node.name) {
            let order = StopOrder {
                reason: StopReason::Drained,
                grace: before.spec.grace(),
                by: drain.by.clone(),
                at: now,
                in_favour_of: None,
                message: None,
            };
            if before.stop.is_none()
                && let Some(step) = lifecycle::order_stop(before, order)
            {
                let mut draft = Draft::new();
                draft.step(before, step);
                drafts.push(draft);
            }
        }
    }
    drafts
}

/// Begins to empty a node.
#[must_use]
pub fn drain(node: &Versioned<Node>, force: bool, timeout: Option<Span>, by: &str, now: Timestamp) -> Draft {
    let since = node.drain.as_ref().map_or(now, |d| d.since);
    let new = Node {
        drain: Some(Drain {
            since,
            by: by.to_owned(),
            timeout,
            force,
        }),
        ..Node::clone(node)
    };
    let mut draft = Draft::new();
    draft.put_node(Some(node.revision), &new);
    let how = match (force, timeout) {
        (true, _) => "its workloads are stopped now".to_owned(),
        (false, Some(timeout)) => format!("its workloads are stopped after {timeout}"),
        (false, None) => "its workloads may finish".to_owned(),
    };
    let message = format!("{} takes no new work; {how}", node.name);
    draft.event(
        node.revision,
        node_event(&node.name, "Draining", message, by, Severity::Info, now),
    );
    draft
}

/// Lets a node take work again. `None`: it isn't drained.
#[must_use]
pub fn undrain(node: &Versioned<Node>, by: &str, now: Timestamp) -> Option<Draft> {
    node.drain.as_ref()?;
    let mut draft = Draft::new();
    draft.put_node(
        Some(node.revision),
        &Node {
            drain: None,
            ..Node::clone(node)
        },
    );
    let message = format!("{} takes work again", node.name);
    draft.event(
        node.revision,
        node_event(&node.name, "Undrained", message, by, Severity::Info, now),
    );
    Some(draft)
}

/// Removes a node with everything on it. Workloads that were there end, and don't start elsewhere unless the node was
/// lost and fenced: nobody can tell when their processes will be gone.
///
/// Only a drained node can be removed: what is being placed at this moment then loses against the drain, and nothing
/// is on the node that `view` doesn't show.
///
/// # Errors
/// `CONFLICT` while workloads are on it, unless forced, and where it isn't drained.
pub fn remove(view: &View, node: &Versioned<Node>, force: bool, by: &str, now: Timestamp) -> Result<Draft, ApiError> {
    may_remove(view, node, force)?;
    if node.drain.is_none() {
        return Err(ApiError::conflict(format!("{} takes work again: try again", node.name)));
    }
    let mut draft = Draft::new();
    let busy: Vec<_> = view.on_node(&node.name).collect();
    for before in busy {
        let step = if node.reach == Reach::Lost {
            lifecycle::lose(before, &node.name, now)
        } else {
            lifecycle::abandon(before, &node.name, by, now)
        };
        if let Some(step) = step {
            draft.step(before, step);
        }
    }
    draft.delete_node(node);
    for cert in view.certs_of_node(&node.name) {
        // One that was revoked before is as it should be.
        if let Ok(revoked) = Certificate::clone(cert).revoke(Reason::CessationOfOperation, by, now) {
            draft.put_cert(Some(cert.revision), &revoked);
        }
    }
    let message = format!("{} was removed", node.name);
    draft.event(
        node.revision,
        node_event(&node.name, "Removed", message, by, Severity::Warning, now),
    );
    Ok(draft)
}

/// Whether a node may be removed as things stand.
///
/// # Errors
/// `CONFLICT` while workloads are on it, unless forced.
pub fn may_remove(view: &View, node: &Versioned<Node>, force: bool) -> Result<(), ApiError> {
    let busy: Vec<_> = view.on_node(&node.name).collect();
    if busy.is_empty() || force {
        return Ok(());
    }
    let ids: Vec<&str> = busy.iter().take(5).map(|w| w.id.as_str()).collect();
    Err(ApiError::conflict(format!(
        "{} workloads are on {}: {}",
        busy.len(),
        node.name,
        ids.join(", ")
    ))
    .hint(format!(
        "clawbernetes node drain {0}, or clawbernetes node remove {0} --force",
        node.name
    )))
}

#[cfg(test)]
mod tests {
    use store::Revision;

    use super::*;

    fn node(change: impl FnOnce(&mut Node)) -> Versioned<Node> {
        let (mut node, _) = joined(&NodeName::new("a"), String::new(), "user:ada", Timestamp::UNIX_EPOCH);
        change(&mut node);
        Versioned {
            value: std::sync::Arc::new(node),
            revision: Revision(1),
        }
    }

    #[test]
    fn a_node_that_speaks_is_online_again() {
        let now = Timestamp::UNIX_EPOCH;
        let silent = node(|n| n.reach = Reach::Unreachable);
        assert!(changed(&silent, None, &BTreeMap::new(), now).is_some());
        let online = node(|n| n.reach = Reach::Online);
        assert!(changed(&online, None, &BTreeMap::new(), now).is_none());
    }

    #[test]
    fn only_a_drained_node_is_removed() {
        let (view, now) = (View::default(), Timestamp::UNIX_EPOCH);
        let open = node(|n| n.reach = Reach::Online);
        let refused = remove(&view, &open, true, "user:ada", now).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        let drained = node(|n| {
            n.drain = Some(Drain {
                since: now,
                by: "user:ada".to_owned(),
                timeout: None,
                force: false,
            });
        });
        assert!(remove(&view, &drained, false, "user:ada", now).is_ok());
    }
}
