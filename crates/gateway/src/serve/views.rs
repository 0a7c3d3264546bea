//! What callers are shown of nodes: the durable facts beside the numbers of the moment.

use std::collections::BTreeSet;

use api::{
    Timestamp, WorkloadId,
    node::{
        Connectivity, GpuHealth, GpuInfo, GpuView, MoltView, Node, NodeCondition, NodeDetail, NodeSample, NodeView,
        Reach,
    },
    op::{GpuCount, NodeBrief},
};

use crate::{
    decide::nodes::status,
    live::Nodes,
    view::{Versioned, View},
};

/// A clock that differs by more than this is worth a word.
const CLOCK_SKEW_MAX_MS: f64 = 500.0;

/// A node as `status` shows it. Thousands are made for one answer, so nothing is copied that isn't shown.
pub fn brief(view: &View, live: &Nodes, node: &Versioned<Node>) -> NodeBrief {
    let (utilization, heard_of) = live.with(&node.name, |l| {
        let sample = l.sample.as_ref().filter(|_| node.reach == Reach::Online);
        (sample.and_then(mean_utilization), l.seen_at.is_some())
    });
    let gpus = node.inventory.as_ref().map(|i| i.gpus.as_slice()).unwrap_or_default();
    let usable = |gpu: &&GpuInfo| {
        view.holder(&node.name, gpu.index).is_none() && node.gpu_health.get(&gpu.index).is_none_or(GpuHealth::usable)
    };
    let models: BTreeSet<&str> = gpus.iter().map(|g| g.model.as_str()).collect();
    NodeBrief {
        name: node.name.clone(),
        status: status(node, heard_of),
        gpus: GpuCount {
            available: if takes_work(node) {
                gpus.iter().filter(usable).count() as u32
            } else {
                0
            },
            total: gpus.len() as u32,
            model: (!models.is_empty()).then(|| models.into_iter().collect::<Vec<_>>().join(", ")),
            simulated: gpus.iter().any(GpuInfo::simulated),
        },
        utilization,
    }
}

fn takes_work(node: &Node) -> bool {
    node.reach == Reach::Online && node.drain.is_none()
}

/// Over the GPUs that report it. `None`: none does.
fn mean_utilization(sample: &NodeSample) -> Option<f32> {
    let known = sample.gpus.iter().filter_map(|g| g.utilization_percent);
    let (count, sum) = known.fold((0u32, 0f32), |(count, sum), u| (count + 1, sum + f32::from(u)));
    (count > 0).then(|| sum / count as f32)
}

/// A node as `node list` shows it.
pub fn node(view: &View, live: &Nodes, node: &Versioned<Node>) -> NodeView {
    let (sample, seen_at) = live.with(&node.name, |l| (l.sample.clone(), l.seen_at));
    // Numbers of a node that is silent are not numbers of now.
    let sample = if node.reach == Reach::Online {
        sample.unwrap_or_default()
    } else {
        NodeSample::default()
    };
    let status = status(node, seen_at.is_some());
    let inventory = node.inventory.as_ref();
    let gpus: Vec<GpuView> = inventory
        .map(|i| i.gpus.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|gpu| {
            let now = sample.gpus.iter().find(|s| s.index == gpu.index);
            let known = node.gpu_health.get(&gpu.index).unwrap_or(&GpuHealth::Ok);
            let health = if node.reach == Reach::Online {
                known.clone()
            } else {
                GpuHealth::Unknown {
                    reason: "its node is silent".to_owned(),
                }
            };
            GpuView {
                index: gpu.index,
                uuid: gpu.uuid.clone(),
                model: gpu.model.clone(),
                memory_total_bytes: gpu.memory_total_bytes,
                memory_used_bytes: now.and_then(|s| s.memory_used_bytes),
                utilization_percent: now.and_then(|s| s.utilization_percent),
                temperature_celsius: now.and_then(|s| s.temperature_celsius),
                power_watts: now.and_then(|s| s.power_watts),
                health: health.name().to_owned(),
                health_reason: health.reason().map(str::to_owned),
                simulated: gpu.simulated(),
                workload: view.holder(&node.name, gpu.index).map(|c| c.workload.clone()),
            }
        })
        .collect();
    let usable =
        |gpu: &&GpuView| gpu.workload.is_none() && node.gpu_health.get(&gpu.index).is_none_or(GpuHealth::usable);
    NodeView {
        id: node.name.clone(),
        name: node.name.clone(),
        status,
        gpus_free: if takes_work(node) {
            gpus.iter().filter(usable).count() as u32
        } else {
            0
        },
        gpus,
        cpu_cores: inventory.map(|i| i.cpu.millis() as f32 / 1000.0),
        memory_total_bytes: inventory.map(|i| i.memory_total_bytes),
        memory_used_bytes: sample.memory_used_bytes,
        engine: inventory.and_then(|i| i.engines.first()).map(|e| e.kind),
        labels: node.labels.clone(),
        taints: node.taints.clone(),
        molt: MoltView::default(),
        last_seen: seen_at,
    }
}

/// A node as `node info` shows it.
pub fn detail(view: &View, live: &Nodes, of: &Versioned<Node>, now: Timestamp) -> NodeDetail {
    let (sample, connectivity) = live.with(&of.name, |l| (l.sample.clone(), l.connectivity.clone()));
    let workloads: Vec<WorkloadId> = view.on_node(&of.name).map(|w| w.id.clone()).collect();
    NodeDetail {
        view: node(view, live, of),
        inventory: of.inventory.clone(),
        cpu_percent: sample.filter(|_| of.reach == Reach::Online).and_then(|s| s.cpu_percent),
        workloads,
        conditions: conditions(of, &connectivity, now),
        connectivity,
        drain: of.drain.clone(),
        joined_at: of.joined_at,
    }
}

fn conditions(node: &Node, connectivity: &Connectivity, now: Timestamp) -> Vec<NodeCondition> {
    let mut out = Vec::new();
    let mut say = |kind: &str, reason: String| {
        out.push(NodeCondition {
            kind: kind.to_owned(),
            reason,
        })
    };
    let since = api::time::between(node.reach_since, now);
    match node.reach {
        Reach::Joining => say("joining", "its agent has never connected".to_owned()),
        Reach::Unreachable => say(
            "unreachable",
            format!("silent: noticed {since} ago; what it runs is unknown"),
        ),
        Reach::Lost => say("lost", format!("silent past its grace period: fenced {since} ago")),
        Reach::Online => {}
    }
    if let Some(drain) = &node.drain {
        say("draining", format!("on request of {} since {}", drain.by, drain.since));
    }
    for (index, health) in &node.gpu_health {
        if let Some(reason) = health.reason() {
            say(&format!("gpu-{}", health.name()), format!("GPU {index}: {reason}"));
        }
    }
    if let Some(offset) = connectivity.clock_offset_ms.filter(|o| o.abs() > CLOCK_SKEW_MAX_MS) {
        say(
            "clock-skew",
            format!(
                "its clock is {:.1} s {} the gateway's",
                offset.abs() / 1000.0,
                if offset > 0.0 { "ahead of" } else { "behind" }
            ),
        );
    }
    if let Some(inventory) = &node.inventory {
        for engine in &inventory.engines {
            for limitation in &engine.limitations {
                say("limitation", format!("{}: {limitation}", engine.kind.name()));
            }
        }
        for note in &inventory.notes {
            say("note", note.clone());
        }
    }
    out
}
