//! The fleet and its nodes.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    GpuIndex, Span, Timestamp,
    node::{GpuLink, GpuPair, GpuView, NodeDetail, NodeView, Taint},
    op::{Fleet, MoltBrief},
    time,
    workload::Phase,
};

use super::{
    Grid, Page, Render,
    cells::{ago, dash, of_size, or_dash, pairs, percent, size, span_of},
};

/// The mark of GPUs that are made up.
const SIMULATED: &str = "(simulated)";

impl Render for Fleet {
    fn render(&self, page: &mut Page) {
        let cluster = &self.cluster;
        page.fields([
            (
                "Gateway",
                format!(
                    "{}, {}, store {}, up {}",
                    self.gateway.version,
                    if self.gateway.leader { "leader" } else { "follower" },
                    self.gateway.store,
                    span_of(time::between(self.gateway.started_at, page.now())),
                ),
            ),
            (
                "Cluster",
                format!(
                    "{} (score {}), {} of {} nodes healthy",
                    cluster.status,
                    dash(cluster.score),
                    cluster.healthy_nodes,
                    cluster.total_nodes
                ),
            ),
            (
                "GPUs",
                format!("{} of {} available", cluster.available_gpus, cluster.total_gpus),
            ),
            ("Workloads", active(&cluster.active_workloads)),
            ("MOLT", molt(&self.molt)),
            (
                "Alerts",
                if self.alerts.is_empty() {
                    "none".to_owned()
                } else {
                    self.alerts.join("; ")
                },
            ),
        ]);
        if self.nodes.is_empty() {
            page.heading("No nodes yet: clawbernetes auth join-token, then clawbernetes node start --join TOKEN");
        } else {
            page.heading("NODES");
            let mut grid = Grid::new(["NAME", "STATUS", "GPUS FREE", "TYPE", "UTILIZATION"]);
            for node in &self.nodes {
                grid.row([
                    node.name.to_string(),
                    node.status.name().to_owned(),
                    format!("{}/{}", node.gpus.available, node.gpus.total),
                    marked(node.gpus.model.as_deref(), node.gpus.simulated),
                    percent(node.utilization),
                ]);
            }
            page.grid(&grid);
            left_out(page, cluster.total_nodes as usize, self.nodes.len(), "node list");
        }
        if self.workloads.is_empty() {
            page.heading("No workloads are running or waiting.");
        } else {
            page.heading("WORKLOADS");
            let mut grid = Grid::new(["ID", "NAME", "STATUS", "GPUS", "RUNTIME", "NODE"]);
            for workload in &self.workloads {
                grid.row([
                    workload.id.to_string(),
                    workload.name.clone(),
                    workload.status.name().to_owned(),
                    workload.gpus.to_string(),
                    dash(workload.runtime.map(|seconds| span_of(Span::secs(seconds)))),
                    dash(workload.node.as_ref()),
                ]);
            }
            page.grid(&grid);
            let all: u32 = cluster.active_workloads.values().sum();
            left_out(page, all as usize, self.workloads.len(), "workload list");
        }
    }

    fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.to_string()).collect()
    }
}

/// Says what a shortened table doesn't show.
fn left_out(page: &mut Page, all: usize, shown: usize, command: &str) {
    if all > shown {
        page.line(format!("... and {} more: clawbernetes {command}", all - shown));
    }
}

/// How many workloads stand where: `3 running, 12 pending`.
fn active(phases: &BTreeMap<Phase, u32>) -> String {
    let texts: Vec<String> = phases
        .iter()
        .rev()
        .map(|(phase, count)| format!("{count} {}", phase.name()))
        .collect();
    if texts.is_empty() {
        return "none running or waiting".to_owned();
    }
    texts.join(", ")
}

fn molt(molt: &MoltBrief) -> String {
    if !molt.active {
        return "not active".to_owned();
    }
    format!(
        "active, {}, {} GPUs shared, earned in 24h: {}",
        molt.mode.as_deref().unwrap_or("-"),
        molt.shared_gpus,
        dash(molt.earnings24h)
    )
}

fn marked(model: Option<&str>, simulated: bool) -> String {
    match model {
        None => "-".to_owned(),
        Some(model) if simulated => format!("{model} {SIMULATED}"),
        Some(model) => model.to_owned(),
    }
}

/// The models of a node's GPUs.
fn models(gpus: &[GpuView]) -> String {
    let models: BTreeSet<&str> = gpus.iter().map(|gpu| gpu.model.as_str()).collect();
    let text = models.into_iter().collect::<Vec<_>>().join(", ");
    marked(
        (!text.is_empty()).then_some(text.as_str()),
        gpus.iter().any(|gpu| gpu.simulated),
    )
}

/// The mean utilization of the GPUs that report one.
fn utilization(gpus: &[GpuView]) -> Option<f32> {
    let known: Vec<f32> = gpus
        .iter()
        .filter_map(|gpu| gpu.utilization_percent.map(f32::from))
        .collect();
    (!known.is_empty()).then(|| known.iter().sum::<f32>() / known.len() as f32)
}

/// GPU memory, used and all; unknown unless every GPU reports it.
fn gpu_memory(gpus: &[GpuView]) -> String {
    if gpus.is_empty() {
        return "-".to_owned();
    }
    let sum = |of: fn(&GpuView) -> Option<api::Size>| {
        gpus.iter()
            .map(|gpu| of(gpu).map(api::Size::bytes))
            .sum::<Option<u64>>()
            .map(api::Size)
    };
    of_size(sum(|gpu| gpu.memory_used_bytes), sum(|gpu| gpu.memory_total_bytes))
}

impl Render for Vec<NodeView> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No nodes.");
            return;
        }
        let mut grid = Grid::new([
            "NAME",
            "STATUS",
            "GPUS FREE",
            "MODEL",
            "GPU MEMORY",
            "UTILIZATION",
            "CPUS",
            "MEMORY",
            "ENGINE",
            "SEEN",
        ])
        .lesser(["ENGINE", "CPUS", "SEEN", "MEMORY"]);
        for node in self {
            grid.row([
                node.name.to_string(),
                node.status.name().to_owned(),
                format!("{}/{}", node.gpus_free, node.gpus.len()),
                models(&node.gpus),
                gpu_memory(&node.gpus),
                percent(utilization(&node.gpus)),
                dash(node.cpu_cores),
                of_size(node.memory_used_bytes, node.memory_total_bytes),
                dash(node.engine.map(|engine| engine.name())),
                ago(node.last_seen, page.now()),
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|node| node.id.to_string()).collect()
    }
}

impl Render for NodeDetail {
    fn render(&self, page: &mut Page) {
        let now = page.now();
        let view = &self.view;
        let mut fields = vec![
            ("Name", view.name.to_string()),
            ("Status", view.status.name().to_owned()),
            ("Joined", time::relative(self.joined_at, now)),
            ("Labels", pairs(&view.labels)),
            ("Taints", taints(&view.taints)),
            (
                "MOLT",
                if view.molt.active { "shares GPUs" } else { "not active" }.to_owned(),
            ),
        ];
        if let Some(drain) = &self.drain {
            let mut text = format!("since {}, by {}", time::relative(drain.since, now), drain.by);
            if let Some(timeout) = drain.timeout {
                text.push_str(&format!("; what still runs after {} is stopped", span_of(timeout)));
            }
            if drain.force {
                text.push_str("; workloads are being stopped");
            }
            fields.push(("Draining", text));
        }
        page.fields(fields);
        if !self.conditions.is_empty() {
            page.heading("CONDITIONS");
            page.fields(self.conditions.iter().map(|c| (c.kind.clone(), c.reason.clone())));
        }
        page.heading("HARDWARE");
        let machine = self.inventory.as_ref();
        page.fields([
            ("Host", dash(machine.map(|m| m.hostname.as_str()))),
            (
                "CPU",
                match machine.and_then(|m| m.cpu_model.as_deref()) {
                    Some(model) => format!("{} x {model}", dash(view.cpu_cores)),
                    None => format!("{} cores", dash(view.cpu_cores)),
                },
            ),
            ("Memory", size(view.memory_total_bytes)),
            ("OS", dash(machine.and_then(|m| m.os.as_deref()))),
            (
                "Kernel",
                dash(machine.map(|m| format!("{} {}", m.kernel.as_deref().unwrap_or("-"), m.arch))),
            ),
            ("Engines", engines(self)),
            ("Agent", dash(machine.map(|m| m.agent_version.as_str()))),
        ]);
        for note in machine.map(|m| m.notes.as_slice()).unwrap_or_default() {
            page.line(format!("note: {note}"));
        }
        gpus(page, self);
        page.heading("UTILIZATION");
        page.fields([
            ("CPU", percent(self.cpu_percent)),
            ("Memory", of_size(view.memory_used_bytes, view.memory_total_bytes)),
            ("GPUs", percent(utilization(&view.gpus))),
            ("GPU memory", gpu_memory(&view.gpus)),
        ]);
        page.heading("WORKLOADS");
        if self.workloads.is_empty() {
            page.line("none");
        }
        for workload in &self.workloads {
            page.line(workload);
        }
        page.heading("CONNECTIVITY");
        let link = &self.connectivity;
        page.fields([
            ("Address", dash(link.address.as_deref())),
            ("Connected", ago(link.since, now)),
            ("Last seen", ago(view.last_seen, now)),
            ("Round trip", dash(link.round_trip_ms.map(|ms| format!("{ms:.1} ms")))),
            (
                "Clock offset",
                dash(link.clock_offset_ms.map(|ms| format!("{ms:+.1} ms"))),
            ),
        ]);
    }

    fn names(&self) -> Vec<String> {
        vec![self.view.id.to_string()]
    }
}

fn taints(taints: &[Taint]) -> String {
    let texts: Vec<String> = taints
        .iter()
        .map(|taint| {
            let value = if taint.value.is_empty() {
                String::new()
            } else {
                format!("={}", taint.value)
            };
            format!("{}{value}:{:?}", taint.key, taint.effect)
        })
        .collect();
    or_dash(texts.join(","))
}

fn engines(node: &NodeDetail) -> String {
    let engines = node
        .inventory
        .as_ref()
        .map(|m| m.engines.as_slice())
        .unwrap_or_default();
    let texts: Vec<String> = engines
        .iter()
        .map(|engine| {
            let mut text = engine.kind.name().to_owned();
            if let Some(version) = &engine.version {
                text.push_str(&format!(" {version}"));
            }
            if !engine.limitations.is_empty() {
                text.push_str(&format!(" ({})", engine.limitations.join("; ")));
            }
            text
        })
        .collect();
    or_dash(texts.join(", "))
}

fn gpus(page: &mut Page, node: &NodeDetail) {
    let gpus = &node.view.gpus;
    page.heading("GPUS");
    if gpus.is_empty() {
        page.line("none");
        return;
    }
    let mut grid = Grid::new([
        "INDEX",
        "MODEL",
        "MEMORY",
        "UTILIZATION",
        "TEMPERATURE",
        "POWER",
        "HEALTH",
        "WORKLOAD",
    ]);
    for gpu in gpus {
        let health = match &gpu.health_reason {
            Some(reason) => format!("{}: {reason}", gpu.health),
            None => gpu.health.clone(),
        };
        grid.row([
            gpu.index.to_string(),
            marked(Some(&gpu.model), gpu.simulated),
            of_size(gpu.memory_used_bytes, gpu.memory_total_bytes),
            percent(gpu.utilization_percent.map(f32::from)),
            dash(gpu.temperature_celsius.map(|celsius| format!("{celsius}°C"))),
            dash(gpu.power_watts.map(|watts| format!("{watts:.0} W"))),
            health,
            dash(gpu.workload.as_ref()),
        ]);
    }
    page.grid(&grid);
    let links = node.inventory.as_ref().map(|m| m.links.as_slice()).unwrap_or_default();
    if gpus.len() > 1 && !links.is_empty() {
        page.heading(
            "LINKS (NV: NVLink lanes, XGMI: hops, PXB: one PCIe switch, NODE: one NUMA node, SYS: across sockets)",
        );
        let indices: Vec<GpuIndex> = gpus.iter().map(|gpu| gpu.index).collect();
        page.grid(&matrix(&indices, links));
    }
}

fn matrix(indices: &[GpuIndex], links: &[GpuPair]) -> Grid {
    let mut grid = Grid::new(std::iter::once(String::new()).chain(indices.iter().map(|index| format!("GPU{index}"))));
    for a in indices {
        let cells = indices.iter().map(|b| {
            if a == b {
                return "X".to_owned();
            }
            let pair = links.iter().find(|pair| (pair.a, pair.b) == (*a.min(b), *a.max(b)));
            dash(pair.map(|pair| match pair.link {
                GpuLink::NvLink { lanes } => format!("NV{lanes}"),
                GpuLink::Xgmi { hops } => format!("XGMI{hops}"),
                GpuLink::SameSwitch => "PXB".to_owned(),
                GpuLink::SameNuma => "NODE".to_owned(),
                GpuLink::System => "SYS".to_owned(),
            }))
        });
        grid.row(std::iter::once(format!("GPU{a}")).chain(cells));
    }
    grid
}

/// How long ago something began, for a sentence.
pub(super) fn since(at: Timestamp, now: Timestamp) -> String {
    span_of(time::between(at, now))
}
