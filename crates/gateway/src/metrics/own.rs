//! What the gateway itself measures: whether nodes are there, how long the queue is, what the gateway takes.

use std::{collections::BTreeMap, fs, path::Path};

use api::{
    NodeName, Timestamp,
    metric::label,
    node::{GpuHealth, NodeStatus, Reach},
    time,
    workload::Phase,
};
use telemetry::metrics::{MetricError, MetricStore, Sample};
use vault::pki::Kind;

use super::Counted;
use crate::{decide::nodes, live::Nodes, view::View};

/// A value of the moment: metric, labels, value.
pub type Value = (&'static str, Vec<(&'static str, String)>, f64);

/// The gateway's process and disk, as the kernel tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    /// Resident memory. `None`: unknown, as are the others.
    pub memory_bytes: Option<u64>,
    /// CPU time since its start, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Space of the data folder's file system that isn't free.
    pub disk_used_bytes: Option<u64>,
    /// Size of that file system.
    pub disk_total_bytes: Option<u64>,
}

impl Process {
    /// Reads them now. `data`: the gateway's data folder.
    #[must_use]
    pub fn read(data: &Path) -> Self {
        let disk = rustix::fs::statvfs(data).ok();
        Self {
            memory_bytes: memory(),
            cpu_seconds: cpu(),
            disk_used_bytes: disk
                .as_ref()
                .map(|d| d.f_blocks.saturating_sub(d.f_bavail).saturating_mul(d.f_frsize)),
            disk_total_bytes: disk.as_ref().map(|d| d.f_blocks.saturating_mul(d.f_frsize)),
        }
    }
}

fn memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn cpu() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold anything; user and system time are the 12th and 13th field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / rustix::param::clock_ticks_per_second() as f64)
}

/// Writes what the gateway measured at a moment: the fleet, and itself. May wait for the disk.
///
/// # Errors
/// The store can't take it.
pub fn record(
    store: &MetricStore,
    fleet: Vec<Value>,
    process: &Process,
    sizes: &[(&'static str, u64)],
    at: Timestamp,
) -> Result<(), MetricError> {
    let mut values = fleet;
    let own = [
        ("gateway.memory", process.memory_bytes.map(|b| b as f64)),
        ("gateway.cpu", process.cpu_seconds),
        ("gateway.disk.used", process.disk_used_bytes.map(|b| b as f64)),
        ("gateway.disk.total", process.disk_total_bytes.map(|b| b as f64)),
    ];
    values.extend(
        own.into_iter()
            .filter_map(|(name, value)| Some((name, Vec::new(), value?))),
    );
    values.extend(sizes.iter().map(|(name, size)| (*name, Vec::new(), *size as f64)));
    let mut samples = Vec::with_capacity(values.len());
    for (name, labels, value) in &values {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        samples.push(Sample {
            series: store.series(name, &labels)?,
            at_ms: at.as_millisecond(),
            value: *value,
        });
    }
    store.append(&samples)?;
    Ok(())
}

/// A state as a set of numbers: 1 with the word that holds, 0 with the others.
fn state(
    name: &'static str,
    of: &[(&'static str, String)],
    words: impl IntoIterator<Item = &'static str>,
    now: &str,
) -> Vec<Value> {
    let value = |word: &'static str| {
        let mut labels = of.to_vec();
        labels.push(("state", word.to_owned()));
        (name, labels, f64::from(u8::from(word == now)))
    };
    words.into_iter().map(value).collect()
}

/// The fleet's numbers.
pub fn fleet(view: &View, live: &Nodes, counted: &Counted, at: Timestamp) -> Vec<Value> {
    let mut values = counted.look(view, at);
    let mut states: BTreeMap<&'static str, u32> = NodeStatus::ALL.iter().map(|s| (s.name(), 0)).collect();
    let (mut gpus, mut free) = (0u32, 0u32);
    for node in view.nodes() {
        let (heard_of, offset) = live.with(&node.name, |l| (l.seen_at.is_some(), l.connectivity.clock_offset_ms));
        let status = nodes::status(node, heard_of).name();
        *states.entry(status).or_default() += 1;
        let of = |name: &NodeName| vec![(label::NODE, name.to_string())];
        let words = NodeStatus::ALL.iter().map(|s| s.name());
        values.extend(state("node.status", &of(&node.name), words, status));
        // Of one that hasn't been heard of since the gateway's start nothing is known.
        if heard_of || node.reach != Reach::Online {
            let up = f64::from(u8::from(node.reach == Reach::Online));
            values.push(("node.up", of(&node.name), up));
        }
        if let Some(offset) = offset.filter(|_| node.reach == Reach::Online) {
            values.push(("clock.offset", of(&node.name), offset));
        }
        let inventory = node.inventory.as_ref().map(|i| i.gpus.as_slice()).unwrap_or_default();
        gpus += inventory.len() as u32;
        for gpu in inventory {
            let mut of = of(&node.name);
            of.extend([(label::GPU, gpu.index.to_string()), (label::UUID, gpu.uuid.clone())]);
            let health = nodes::gpu_health(node, gpu.index, heard_of);
            values.extend(state("gpu.health", &of, GpuHealth::NAMES, health));
        }
        if node.reach == Reach::Online && node.drain.is_none() {
            let usable = inventory.iter().filter(|gpu| {
                view.holder(&node.name, gpu.index).is_none()
                    && node.gpu_health.get(&gpu.index).is_none_or(GpuHealth::usable)
            });
            free += usable.count() as u32;
        }
    }
    for (status, count) in states {
        values.push(("fleet.nodes", vec![("status", status.to_owned())], f64::from(count)));
    }
    values.push(("fleet.gpus", Vec::new(), f64::from(gpus)));
    values.push(("fleet.gpus.free", Vec::new(), f64::from(free)));
    let mut phases: BTreeMap<Phase, u32> = [Phase::Pending, Phase::Scheduled, Phase::Pulling, Phase::Running]
        .into_iter()
        .map(|phase| (phase, 0))
        .collect();
    let mut oldest: Option<Timestamp> = None;
    for workload in view.active() {
        *phases.entry(workload.phase).or_default() += 1;
        if workload.phase == Phase::Pending {
            // One that runs again after days has waited since it was stopped, not since it was submitted.
            let since = workload.timeline.last().map_or(workload.submitted_at, |step| step.at);
            oldest = Some(oldest.map_or(since, |o| o.min(since)));
        }
    }
    for (phase, count) in phases {
        values.push((
            "queue.workloads",
            vec![("phase", phase.name().to_owned())],
            f64::from(count),
        ));
    }
    for cert in view
        .certs()
        .filter(|c| c.kind == Kind::Service && c.revoked.is_none() && c.replaced_by.is_none())
    {
        let remaining = time::between(at, cert.not_after).millis() as f64 / 1000.0;
        values.push(("cert.remaining", vec![("name", cert.name.to_string())], remaining));
    }
    let wait = oldest.map_or(0.0, |since| time::between(since, at).millis() as f64);
    values.push(("queue.wait", Vec::new(), wait));
    values
}
