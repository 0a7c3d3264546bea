//! The fleet as a whole.

use std::collections::BTreeMap;

use api::{
    ApiError, Timestamp,
    node::NodeStatus,
    op::{ClusterStatus, Empty, Fleet, MoltBrief, NodeBrief, Ping, StatusRequest, WorkloadBrief},
    time,
    workload::{MemberState, Phase, Workload},
};

use super::{App, face::Call, views};
use crate::{hub::now, view::Versioned};

/// `ok`, or what is the matter with the store.
pub fn store_health(app: &App) -> String {
    match app.hub.store().status().health {
        store::Health::Serving => "ok".to_owned(),
        store::Health::Failing(error) => error.to_string(),
        store::Health::Closed => "closed".to_owned(),
    }
}

fn pong(app: &App) -> Ping {
    let status = app.hub.store().status();
    Ping {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        leader: true,
        store: store_health(app),
        revision: status.revision.0,
        store_bytes: status.disk_bytes,
        started_at: app.started_at,
        now: now(),
    }
}

/// `gateway.ping`
pub async fn ping(call: Call, _: Empty) -> Result<Ping, ApiError> {
    Ok(pong(&call.app))
}

/// `fleet.status`
pub async fn status(call: Call, request: StatusRequest) -> Result<Fleet, ApiError> {
    let app = &call.app;
    let at = now();
    let rows = request.rows.map_or(usize::MAX, |rows| rows as usize);
    let (mut nodes, active): (Vec<NodeBrief>, Vec<Versioned<Workload>>) = {
        let view = app.hub.view();
        (
            view.nodes().map(|n| views::brief(&view, &app.live, n)).collect(),
            view.active()
                .filter(|w| call.identity.reaches(&w.namespace))
                .cloned()
                .collect(),
        )
    };
    let cluster = cluster(&nodes, &active);
    if nodes.len() > rows {
        nodes.sort_by_key(|n| urgency(n.status));
        nodes.truncate(rows);
    }
    let placed = active.iter().filter(|w| w.phase.placed());
    let waiting = active.iter().filter(|w| !w.phase.placed());
    let workloads = if active.len() > rows {
        placed.chain(waiting).take(rows).map(|w| workload(w, at)).collect()
    } else {
        active.iter().map(|w| workload(w, at)).collect()
    };
    Ok(Fleet {
        gateway: pong(app),
        cluster,
        nodes,
        workloads,
        molt: MoltBrief::default(),
        // They are about the fleet, and name what others run.
        alerts: match call.identity.namespace {
            None => app.alerting.firing(at),
            Some(_) => Vec::new(),
        },
    })
}

/// What comes first where not all is shown.
fn urgency(status: NodeStatus) -> u8 {
    match status {
        NodeStatus::Critical => 0,
        NodeStatus::Unreachable => 1,
        NodeStatus::Degraded => 2,
        NodeStatus::Unknown => 3,
        NodeStatus::Joining => 4,
        NodeStatus::Draining => 5,
        NodeStatus::Healthy => 6,
    }
}

fn workload(w: &Workload, at: Timestamp) -> WorkloadBrief {
    WorkloadBrief {
        id: w.id.clone(),
        name: w.name.clone(),
        status: w.phase,
        gpus: w.spec.gpus.count * w.spec.node_count(),
        runtime: running_since(w).map(|started| time::between(started, at).millis() / 1000),
        node: w.members.first().filter(|_| w.phase.placed()).map(|m| m.node.clone()),
    }
}

/// Since when the attempt under way runs. `None`: none does.
fn running_since(w: &Workload) -> Option<Timestamp> {
    let started = w.members.iter().filter_map(|m| match &m.state {
        MemberState::Running { started_at, .. } => Some(*started_at),
        _ => None,
    });
    started.min().filter(|_| w.phase == Phase::Running)
}

/// The score counts nodes by their status. That of `health` looks at a quarter of an hour of every series, which takes
/// longer than `status` may.
fn cluster(nodes: &[NodeBrief], active: &[Versioned<Workload>]) -> ClusterStatus {
    let count = |wanted: &[NodeStatus]| nodes.iter().filter(|n| wanted.contains(&n.status)).count();
    let healthy = count(&[NodeStatus::Healthy]);
    let well = count(&[NodeStatus::Healthy, NodeStatus::Draining]);
    let bad = count(&[NodeStatus::Critical, NodeStatus::Unreachable]);
    let status = match nodes.len() {
        0 => "empty",
        all if bad * 2 >= all => "critical",
        all if well < all => "degraded",
        _ => "healthy",
    };
    let mut active_workloads = BTreeMap::new();
    for w in active {
        *active_workloads.entry(w.phase).or_default() += 1;
    }
    ClusterStatus {
        status: status.to_owned(),
        score: (!nodes.is_empty()).then(|| (well * 100 / nodes.len()) as u8),
        total_nodes: nodes.len() as u32,
        healthy_nodes: healthy as u32,
        total_gpus: nodes.iter().map(|n| n.gpus.total).sum(),
        available_gpus: nodes.iter().map(|n| n.gpus.available).sum(),
        active_workloads,
    }
}
