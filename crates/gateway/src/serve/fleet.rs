//! The fleet as a whole.

use std::collections::BTreeSet;

use api::{
    ApiError, Timestamp,
    node::{NodeStatus, NodeView},
    op::{ClusterStatus, Empty, Fleet, GpuCount, MoltBrief, NodeBrief, Ping, WorkloadBrief},
    time,
    workload::{MemberState, Phase, Workload},
};

use super::{App, face::Call, views};
use crate::hub::now;

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
pub async fn status(call: Call, _: Empty) -> Result<Fleet, ApiError> {
    let app = &call.app;
    let at = now();
    let (views, workloads): (Vec<NodeView>, Vec<WorkloadBrief>) = {
        let view = app.hub.view();
        let workloads = view.active().map(|w| WorkloadBrief {
            id: w.id.clone(),
            name: w.name.clone(),
            status: w.phase,
            gpus: w.spec.gpus.count * w.spec.node_count(),
            runtime: running_since(w).map(|started| time::between(started, at).millis() / 1000),
            node: w.members.first().filter(|_| w.phase.placed()).map(|m| m.node.clone()),
        });
        (
            view.nodes().map(|n| views::node(&view, &app.live, n)).collect(),
            workloads.collect(),
        )
    };
    let nodes: Vec<NodeBrief> = views.iter().map(brief).collect();
    Ok(Fleet {
        gateway: pong(app),
        cluster: cluster(&views),
        nodes,
        workloads,
        molt: MoltBrief::default(),
        alerts: Vec::new(),
    })
}

/// Since when the attempt under way runs. `None`: none does.
fn running_since(w: &Workload) -> Option<Timestamp> {
    let started = w.members.iter().filter_map(|m| match &m.state {
        MemberState::Running { started_at } => Some(*started_at),
        _ => None,
    });
    started.min().filter(|_| w.phase == Phase::Running)
}

fn brief(node: &NodeView) -> NodeBrief {
    let models: BTreeSet<&str> = node.gpus.iter().map(|g| g.model.as_str()).collect();
    let known: Vec<f32> = node
        .gpus
        .iter()
        .filter_map(|g| g.utilization_percent)
        .map(f32::from)
        .collect();
    NodeBrief {
        name: node.name.clone(),
        status: node.status,
        gpus: GpuCount {
            available: node.gpus_free,
            total: node.gpus.len() as u32,
            model: (!models.is_empty()).then(|| models.into_iter().collect::<Vec<_>>().join(", ")),
            simulated: node.gpus.iter().any(|g| g.simulated),
        },
        utilization: (!known.is_empty()).then(|| known.iter().sum::<f32>() / known.len() as f32),
    }
}

fn cluster(nodes: &[NodeView]) -> ClusterStatus {
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
    ClusterStatus {
        status: status.to_owned(),
        score: (!nodes.is_empty()).then(|| (well * 100 / nodes.len()) as u8),
        total_nodes: nodes.len() as u32,
        healthy_nodes: healthy as u32,
        total_gpus: nodes.iter().map(|n| n.gpus.len() as u32).sum(),
        available_gpus: nodes.iter().map(|n| n.gpus_free).sum(),
    }
}
