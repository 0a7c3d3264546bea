//! The selected thing in full, as lines.

use api::{
    Timestamp,
    node::{GpuView, NodeView},
    workload::WorkloadSummary,
};

use super::{
    state::{Item, State},
    view::{degrees, gpu_memory, of, watts},
};
use crate::output::{ago, dash};

/// What it is called, and what is known of it.
pub(super) fn lines(state: &State, item: Item) -> (String, Vec<String>) {
    match item {
        Item::Node(at) => node_detail(state, state.node(at)),
        Item::Gpu(at, gpu) => gpu_detail(state, state.node(at), &state.node(at).gpus[gpu]),
        Item::Workload(at) => workload_detail(state, state.workload(at)),
    }
}

fn field(name: &str, value: impl AsRef<str>) -> String {
    format!("{name:<12}{}", value.as_ref())
}

fn node_detail(state: &State, node: &NodeView) -> (String, Vec<String>) {
    let machine = node.memory_used_bytes.zip(node.memory_total_bytes);
    let mut lines = vec![
        field(
            "Status",
            format!("{}, seen {}", node.status.name(), ago(node.last_seen, state.clock())),
        ),
        field(
            "Machine",
            format!(
                "{} CPUs, memory {}, engine {}",
                dash(node.cpu_cores),
                dash(machine.map(of)),
                dash(node.engine.map(|engine| engine.name()))
            ),
        ),
    ];
    if !node.labels.is_empty() {
        let labels: Vec<String> = node
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        lines.push(field("Labels", labels.join(", ")));
    }
    if !node.taints.is_empty() {
        let taints: Vec<&str> = node.taints.iter().map(|taint| taint.key.as_str()).collect();
        lines.push(field("Taints", taints.join(", ")));
    }
    for gpu in &node.gpus {
        let what = gpu.workload.as_ref().map_or("free", |id| id.as_str());
        lines.push(field(
            &format!("GPU {}", gpu.index),
            format!(
                "{:<8} {:>4} {:>5} {:>9} {:>6}  {what}  {}",
                gpu.health,
                dash(gpu.utilization_percent.map(|percent| format!("{percent}%"))),
                degrees(gpu.temperature_celsius),
                gpu_memory(gpu),
                watts(gpu),
                gpu.health_reason.as_deref().unwrap_or_default(),
            )
            .trim_end(),
        ));
    }
    lines.push(field("More", format!("clawbernetes node info {}", node.name)));
    (node.name.to_string(), lines)
}

fn gpu_detail(state: &State, node: &NodeView, gpu: &GpuView) -> (String, Vec<String>) {
    let simulated = if gpu.simulated { ", simulated" } else { "" };
    let health = match &gpu.health_reason {
        Some(reason) => format!("{}: {reason}", gpu.health),
        None => gpu.health.clone(),
    };
    let lines = vec![
        field("Model", format!("{}{simulated}", gpu.model)),
        field("UUID", &gpu.uuid),
        field("Health", health),
        field(
            "Measured",
            format!(
                "utilization {}, {}, memory {}, {}, {}",
                dash(gpu.utilization_percent.map(|percent| format!("{percent}%"))),
                degrees(gpu.temperature_celsius),
                gpu_memory(gpu),
                watts(gpu),
                ago(node.last_seen, state.clock()),
            ),
        ),
        field("Workload", gpu.workload.as_ref().map_or("none", |id| id.as_str())),
        field("Node", format!("{}, {}", node.name, node.status.name())),
        field(
            "More",
            format!(
                "clawbernetes metrics gpu.temperature --node {} --gpu {}",
                node.name, gpu.index
            ),
        ),
    ];
    (format!("{} GPU {}", node.name, gpu.index), lines)
}

fn workload_detail(state: &State, workload: &WorkloadSummary) -> (String, Vec<String>) {
    let now = state.clock();
    let mut phase = workload.phase.name().to_owned();
    if let Some(reason) = &workload.reason {
        phase.push_str(&format!(" ({reason})"));
    }
    if let Some(message) = &workload.message {
        phase.push_str(&format!(": {message}"));
    }
    let gpus: Vec<String> = workload
        .gpus
        .iter()
        .map(|gpu| format!("{}/{}", gpu.node, gpu.index))
        .collect();
    let when = |at: Option<Timestamp>| ago(at, now);
    let lines = vec![
        field("Phase", phase),
        field(
            "Id",
            format!(
                "{}, namespace {}, owner {}",
                workload.id, workload.namespace, workload.owner
            ),
        ),
        field("Image", &workload.image),
        field(
            "GPUs",
            format!(
                "{} asked for, {}",
                workload.gpus_requested,
                if gpus.is_empty() {
                    "none held".to_owned()
                } else {
                    gpus.join(" ")
                }
            ),
        ),
        field(
            "Times",
            format!(
                "submitted {}, started {}, finished {}",
                when(Some(workload.submitted_at)),
                when(workload.started_at),
                when(workload.finished_at)
            ),
        ),
        field(
            "Exit",
            format!("code {}, {} restarts", dash(workload.exit_code), workload.restarts),
        ),
        field("More", format!("clawbernetes workload status {}", workload.id)),
    ];
    (workload.name.clone(), lines)
}
