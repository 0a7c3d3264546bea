//! The fleet's health: every node looked at, over a short time.

use std::collections::BTreeMap;

use api::{ApiError, Span, Timestamp, op::FleetHealth, time};
use diagnosis::{AlertFact, Finding, FleetFacts, NodeHealth, NodeState, Series, Usage, metric as wanted};
use telemetry::metrics::MetricStore;

use super::{
    DAY, Journal, Looked, answer,
    node::Holders,
    samples::{self, Stretch},
};
use crate::view::View;

/// What is looked at: how the fleet does now, not how it did an hour ago. `diagnose node` looks further.
const WINDOW: Span = Span::secs(900);
/// Time between two points: a thousand nodes' samples as they are would be ten times as many.
const STEP_MS: i64 = 60_000;

/// Threads that look at nodes at most, and nodes below which another thread isn't worth it.
const THREADS_MAX: usize = 4;
const SHARE_MIN: usize = 32;

/// Metrics that nothing is found by over a quarter of an hour without a past: they aren't read.
const UNUSED: &[&str] = &[
    wanted::GPU_MEMORY_BANDWIDTH,
    wanted::GPU_CLOCK_MEMORY,
    wanted::GPU_PCIE_RX,
    wanted::GPU_PCIE_TX,
    wanted::GPU_PCIE_GENERATION,
    wanted::GPU_PCIE_WIDTH,
    wanted::GPU_NVLINK_RX,
    wanted::GPU_NVLINK_TX,
    wanted::GPU_REMAP_UNCORRECTED,
    wanted::CPU_LOAD1,
    wanted::PRESSURE_CPU,
    wanted::DISK_THROUGHPUT,
    wanted::NETWORK_THROUGHPUT,
];

/// Judges the fleet. `held`: who held GPUs that the kernels' logs tell of.
///
/// # Errors
/// Samples can't be read.
pub fn health(
    nodes: &[Looked],
    held: &Holders,
    workloads: Vec<Finding>,
    alerts: Vec<AlertFact>,
    (metrics, journal): (&MetricStore, &Journal),
    now: Timestamp,
) -> Result<FleetHealth, ApiError> {
    let window_ms = WINDOW.millis() as i64;
    let stretch = Stretch {
        step_ms: STEP_MS,
        ..Stretch::before(now.as_millisecond(), window_ms)
    };
    let names = samples::OF_GPUS.iter().chain(samples::OF_NODES).copied();
    let names = names.filter(|name| !UNUSED.contains(name));
    let mut series = samples::of_all(metrics, nodes.iter().map(|n| n.node.name.as_str()), names, stretch)?;
    let look = |(looked, series): (&Looked, &mut Vec<Series>)| one(looked, std::mem::take(series), held, journal, now);
    let share = nodes.len().div_ceil(threads()).max(SHARE_MIN);
    let looked_at: Vec<NodeHealth> = std::thread::scope(|scope| {
        let shares = nodes.chunks(share).zip(series.chunks_mut(share));
        let running: Vec<_> = shares
            .map(|(nodes, series)| scope.spawn(|| nodes.iter().zip(series).map(look).collect::<Vec<_>>()))
            .collect();
        let done = running.into_iter().map(|thread| thread.join());
        done.flat_map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let facts = FleetFacts {
        now_ms: now.as_millisecond(),
        nodes: looked_at,
        workloads,
        alerts,
    };
    Ok(answer::health(diagnosis::health(&facts), now))
}

/// Threads that look at nodes: the others serve.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX))
}

fn one(looked: &Looked, series: Vec<Series>, held: &Holders, journal: &Journal, now: Timestamp) -> NodeHealth {
    let state = looked.state();
    if matches!(state, NodeState::Unreachable | NodeState::Joining | NodeState::Unknown) {
        // Its last samples say nothing about now.
        return NodeHealth {
            name: looked.node.name.to_string(),
            state,
            measured: false,
            gpus: looked.node.inventory.as_ref().map_or(0, |i| i.gpus.len() as u32),
            findings: looked.own_findings(&[], now),
            usage: Usage::default(),
        };
    }
    let events = journal.of(&looked.node.name, time::before(now, DAY));
    let facts = looked.facts(now, WINDOW.millis() as i64, samples::set(series), &events, held);
    let mut node = NodeHealth::new(state, &facts);
    node.findings.extend(looked.own_findings(&node.findings, now));
    let cores = looked
        .node
        .inventory
        .as_ref()
        .map(|i| f64::from(i.cpu.millis()) / 1000.0);
    node.usage.cpu_cores = cores;
    node
}

/// What `health` is made from, copied from the view: all nodes, and who held the GPUs that their kernels tell of.
#[must_use]
pub fn holders(view: &View, nodes: &[Looked], journal: &Journal, now: Timestamp) -> Holders {
    let since = time::before(now, DAY);
    let events: BTreeMap<_, _> = nodes
        .iter()
        .map(|n| (&n.node.name, journal.of(&n.node.name, since)))
        .collect();
    Holders::look(view, events.iter().map(|(name, all)| (*name, all)))
}
