//! Workloads, why they are where they are, and events.

use api::{
    Timestamp,
    event::Event,
    op::{Explanation, Submitted, UsageRow, WorkloadDetail},
    secret::{SecretTarget, SecretUse},
    time,
    workload::{
        Endpoint, GpuOnNode, HealthCheck, Member, MemberState, Outcome, Probe, StopReason, VolumeSource, Workload,
        WorkloadSpec, WorkloadSummary,
    },
};

use super::{
    Grid, Page, Render,
    cells::{ago, clock, dash, moment, or_dash, pairs, ranges, size, span_of},
    fleet::since,
};

impl Render for Vec<WorkloadSummary> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No workloads.");
            return;
        }
        let namespaces = self.windows(2).any(|pair| pair[0].namespace != pair[1].namespace);
        // Of jobs nobody asks whether they are ready.
        let asked = self.iter().any(|workload| workload.ready.is_some());
        let mut header = vec![
            "ID",
            "NAME",
            "PHASE",
            "GPUS",
            "NODE",
            "PRIORITY",
            "SUBMITTED",
            "RUNTIME",
            "EXIT",
            "REASON",
        ];
        if asked {
            header.insert(3, "READY");
        }
        if namespaces {
            header.insert(1, "NAMESPACE");
        }
        let mut grid = Grid::new(header).lesser(["PRIORITY", "SUBMITTED", "EXIT"]);
        for workload in self {
            let runtime = workload
                .started_at
                .map(|from| since(from, workload.finished_at.unwrap_or(page.now())));
            let mut cells = vec![
                workload.id.to_string(),
                workload.name.clone(),
                workload.phase.name().to_owned(),
                workload.gpus_requested.to_string(),
                dash(workload.node.as_ref()),
                workload.priority.name().to_owned(),
                time::relative(workload.submitted_at, page.now()),
                dash(runtime),
                dash(workload.exit_code),
                dash(workload.reason.as_deref()),
            ];
            if asked {
                cells.insert(3, dash(workload.ready.map(|ready| if ready { "yes" } else { "no" })));
            }
            if namespaces {
                cells.insert(1, workload.namespace.clone());
            }
            grid.row(cells);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|workload| workload.id.to_string()).collect()
    }
}

impl Render for WorkloadSummary {
    fn render(&self, page: &mut Page) {
        vec![self.clone()].render(page);
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.to_string()]
    }
}

impl Render for Vec<Submitted> {
    fn render(&self, page: &mut Page) {
        for submitted in self {
            match &submitted.preview {
                Some(explanation) => preview(page, &submitted.workload, explanation),
                None => page.line(submitted.workload.id.as_str()),
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|submitted| submitted.workload.id.to_string()).collect()
    }
}

impl Render for WorkloadDetail {
    fn render(&self, page: &mut Page) {
        let workload = &self.workload;
        let now = page.now();
        page.fields(about(workload, now));
        if let Some(pull) = &self.pull {
            let text = match pull.total_bytes {
                0 => size(Some(api::Size(pull.done_bytes))),
                total => format!(
                    "{} of {} ({}%)",
                    size(Some(api::Size(pull.done_bytes))),
                    size(Some(api::Size(total))),
                    u128::from(pull.done_bytes) * 100 / u128::from(total)
                ),
            };
            page.fields([("Pulling", text)]);
        }
        if let Some(explanation) = &self.explanation {
            page.heading("WHY IT WAITS");
            explain(page, explanation);
        }
        page.heading("ASKED FOR");
        page.fields(asked(&workload.spec));
        if !workload.members.is_empty() {
            page.heading(&format!("ATTEMPT {}", workload.attempt));
            members(page, &workload.members);
        }
        for past in workload.past.iter().rev() {
            page.heading(&format!("ATTEMPT {}", past.attempt));
            members(page, &past.members);
        }
        page.heading("TIMELINE");
        let mut grid =
            Grid::new(["TIME", "AGO", "PHASE", "ATTEMPT", "BY", "REASON", "MESSAGE"]).lesser(["AGO", "ATTEMPT"]);
        for step in &workload.timeline {
            grid.row([
                clock(step.at),
                time::relative(step.at, now),
                step.phase.name().to_owned(),
                step.attempt.to_string(),
                step.actor.clone(),
                dash(step.reason.as_deref()),
                dash(step.message.as_deref()),
            ]);
        }
        page.grid(&grid);
        for warning in &workload.warnings {
            page.line(format!("warning: {warning}"));
        }
    }

    fn names(&self) -> Vec<String> {
        vec![self.workload.id.to_string()]
    }
}

fn about(workload: &Workload, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut phase = workload.phase.name().to_owned();
    if let Some(reason) = &workload.reason {
        phase.push_str(&format!(" ({reason})"));
    }
    let runtime = workload
        .started_at
        .map(|from| since(from, workload.finished_at.unwrap_or(now)));
    let mut fields = vec![
        ("Id", workload.id.to_string()),
        ("Name", workload.name.clone()),
        ("Namespace", workload.namespace.clone()),
        ("Owner", workload.owner.clone()),
        ("Phase", phase),
    ];
    if let Some(message) = &workload.message {
        fields.push(("Message", message.clone()));
    }
    fields.extend([
        ("Labels", pairs(&workload.labels)),
        ("Submitted", ago(Some(workload.submitted_at), now)),
        ("Started", ago(workload.started_at, now)),
        ("Finished", ago(workload.finished_at, now)),
        ("Runtime", dash(runtime)),
        ("Exit code", dash(workload.exit_code)),
        ("Restarts", workload.restarts.to_string()),
    ]);
    if !workload.annotations.is_empty() {
        fields.push(("Annotations", pairs(&workload.annotations)));
    }
    if let Some(stop) = &workload.stop {
        let favour = stop
            .in_favour_of
            .as_ref()
            .map(|id| format!(", in favour of {id}"))
            .unwrap_or_default();
        fields.push((
            "Stopping",
            format!(
                "{}, by {} {}, grace {}{favour}",
                stopped(stop.reason),
                stop.by,
                time::relative(stop.at, now),
                span_of(stop.grace)
            ),
        ));
    }
    if let Some(at) = workload.not_before.filter(|at| *at > now) {
        fields.push(("Not before", time::relative(at, now)));
    }
    if let Some(target) = &workload.target {
        fields.push(("Moving to", target.to_string()));
    }
    if !workload.avoid.is_empty() {
        let nodes: Vec<&str> = workload.avoid.iter().map(api::NodeName::as_str).collect();
        fields.push(("Avoids", nodes.join(",")));
    }
    fields
}

pub(super) fn asked(spec: &WorkloadSpec) -> Vec<(&'static str, String)> {
    let mut gpus = spec.gpus.count.to_string();
    if let Some(model) = &spec.gpus.model {
        gpus.push_str(&format!(" x {model}"));
    }
    if let Some(memory) = spec.gpus.memory {
        gpus.push_str(&format!(" with {} each", size(Some(memory))));
    }
    let mut fields = vec![
        ("Image", spec.image.clone()),
        ("Command", or_dash(words(&spec.command))),
        ("GPUs", gpus),
        ("CPUs", dash(spec.cpu)),
        ("Memory", size(spec.memory)),
        ("Nodes", spec.node_count().to_string()),
        ("Priority", spec.priority.name().to_owned()),
        ("Timeout", dash(spec.timeout.map(span_of))),
        ("Grace", span_of(spec.grace())),
        (
            "Retries",
            match spec.retry_delay {
                Some(delay) => format!("{}, {} apart", spec.retries, span_of(delay)),
                None => spec.retries.to_string(),
            },
        ),
    ];
    let env: Vec<&str> = spec.env.iter().map(|variable| variable.name.as_str()).collect();
    if !env.is_empty() {
        // Names alone: values are often keys and passwords, and a status is often on a screen that others see.
        fields.push(("Environment", env.join(", ")));
    }
    fields.extend(spec.secrets.iter().map(|entry| ("Secret", given(entry))));
    for volume in &spec.volumes {
        let text = match &volume.source {
            VolumeSource::HostPath { source, read_only } => {
                format!(
                    "{source} at {}{}",
                    volume.mount_path,
                    if *read_only { " (read-only)" } else { "" }
                )
            }
            VolumeSource::EmptyDir { memory, size_limit } => format!(
                "empty{} at {}{}",
                if *memory { ", in memory," } else { "" },
                volume.mount_path,
                size_limit
                    .map(|limit| format!(", up to {}", size(Some(limit))))
                    .unwrap_or_default()
            ),
        };
        fields.push(("Mount", text));
    }
    if !spec.node_selector.is_empty() {
        fields.push(("Node labels", pairs(&spec.node_selector)));
    }
    if let Some(node) = &spec.node {
        fields.push(("Node", node.to_string()));
    }
    if let Some(wait) = spec.max_wait {
        fields.push(("Waits", format!("up to {}", span_of(wait))));
    }
    if !spec.ports.is_empty() {
        let ports: Vec<String> = spec
            .ports
            .iter()
            .map(|port| port_named(&port.name, port.port))
            .collect();
        let picked = if spec.dynamic_ports {
            " (the node picks the real ones)"
        } else {
            ""
        };
        fields.push(("Ports", format!("{}{picked}", ports.join(", "))));
    }
    let checks = [
        ("Health check", &spec.health_check),
        ("Readiness check", &spec.readiness),
    ];
    for (title, check) in checks {
        fields.extend(check.as_ref().map(|check| (title, tried(check))));
    }
    fields
}

/// What is tried, and how often.
fn tried(check: &HealthCheck) -> String {
    let probe = match &check.probe {
        Probe::Http(target) => format!("GET {target}"),
        Probe::Tcp(port) => format!("TCP {port}"),
        Probe::Command(command) => words(command),
    };
    format!(
        "{probe}, every {}, {} failures",
        span_of(check.interval),
        check.failures
    )
}

/// Which secret, and where the workload gets it: never what it holds.
fn given(entry: &SecretUse) -> String {
    let key = entry
        .key
        .as_ref()
        .map(|key| format!(", key {key},"))
        .unwrap_or_default();
    match &entry.to {
        SecretTarget::Env(name) => format!("{}{key} as ${name}", entry.secret),
        SecretTarget::File(path) => format!("{}{key} at {path}", entry.secret),
    }
}

/// A command as a shell would take it.
fn words(command: &[String]) -> String {
    shlex::try_join(command.iter().map(String::as_str)).unwrap_or_else(|_| command.join(" "))
}

fn members(page: &mut Page, members: &[Member]) {
    let places = members.iter().any(|member| !endpoints(member).is_empty());
    let mut header = vec!["RANK", "NODE", "GPUS", "STATE", "ENDED", "CPU TIME", "PEAK MEMORY"];
    if places {
        header.insert(3, "PORTS");
    }
    let mut grid = Grid::new(header);
    for member in members {
        let (state, ended, cpu, peak) = match &member.state {
            MemberState::Assigned => ("assigned".to_owned(), None, None, None),
            MemberState::Pulling => ("pulling".to_owned(), None, None, None),
            MemberState::Running { ready, not_ready, .. } => {
                let state = match (ready, not_ready) {
                    (None, _) => "running".to_owned(),
                    (Some(true), _) => "running, ready".to_owned(),
                    (Some(false), None) => "running, not ready".to_owned(),
                    (Some(false), Some(why)) => format!("running, not ready: {why}"),
                };
                (state, None, None, None)
            }
            MemberState::Ended {
                at,
                outcome,
                stop,
                usage,
                ..
            } => {
                let mut state = told(outcome);
                if let Some(stop) = stop {
                    state.push_str(&format!(", {}", stopped(*stop)));
                }
                (state, Some(*at), usage.cpu_ms, usage.memory_peak_bytes)
            }
        };
        let mut cells = vec![
            member.rank.to_string(),
            member.node.to_string(),
            or_dash(ranges(member.gpus.iter().map(|gpu| gpu.index))),
            state,
            ago(ended, page.now()),
            dash(cpu.map(|ms| format!("{:.1}s", ms as f64 / 1000.0))),
            size(peak),
        ];
        if places {
            cells.insert(
                3,
                or_dash(endpoints(member).iter().map(place_of).collect::<Vec<_>>().join(", ")),
            );
        }
        grid.row(cells);
    }
    page.grid(&grid);
}

/// Where a member's ports are. Empty: it has none, or doesn't run.
fn endpoints(member: &Member) -> &[Endpoint] {
    match &member.state {
        MemberState::Running { endpoints, .. } => endpoints,
        _ => &[],
    }
}

/// `http 8000 at 20117`: the declared port, and that of the node where it is another.
fn place_of(endpoint: &Endpoint) -> String {
    let named = port_named(&endpoint.name, endpoint.port);
    if endpoint.host_port == endpoint.port {
        named
    } else {
        format!("{named} at {}", endpoint.host_port)
    }
}

fn port_named(name: &str, port: u16) -> String {
    if name.is_empty() {
        port.to_string()
    } else {
        format!("{name} {port}")
    }
}

/// How a member ended, in words.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exited { code } => format!("exited {code}"),
        Outcome::Signaled { signal } => format!("killed by signal {signal}"),
        Outcome::OomKilled {
            limit_bytes,
            peak_bytes,
        } => format!("OOM_KILLED (limit {}, peak {})", size(*limit_bytes), size(*peak_bytes)),
        Outcome::StartFailed { code, message, .. } => format!("didn't start: {code}: {message}"),
        Outcome::Unknown { why } => format!("unknown: {why}"),
    }
}

fn stopped(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Cancelled => "cancelled",
        StopReason::Timeout => "at its timeout",
        StopReason::Preempted => "preempted",
        StopReason::Drained => "its node is drained",
        StopReason::Migrated => "migrated",
        StopReason::GangBroken => "another member ended",
        StopReason::Unhealthy => "unhealthy",
        StopReason::Fenced => "its node fenced itself",
        StopReason::NotWanted => "not wanted on its node",
    }
}

impl Render for Explanation {
    fn render(&self, page: &mut Page) {
        explain(page, self);
    }

    fn names(&self) -> Vec<String> {
        self.placement.iter().map(|member| member.node.to_string()).collect()
    }
}

fn explain(page: &mut Page, explanation: &Explanation) {
    let now = page.now();
    page.line(&explanation.summary);
    for member in &explanation.placement {
        page.line(format!(
            "  {}",
            place(
                member.rank,
                member.node.as_str(),
                &member.gpus,
                explanation.placement.len()
            )
        ));
    }
    for because in &explanation.because {
        page.line(format!("  because {because}"));
    }
    if !explanation.blockers.is_empty() {
        page.line("what stands in the way:");
        for blocker in &explanation.blockers {
            page.line(format!("  {}", blocker.reason));
        }
    }
    if let Some(position) = explanation.queue_position {
        page.line(format!("place in the queue: {position}"));
    }
    if !explanation.waiting_for.is_empty() {
        page.line(format!(
            "would be freed by the end of: {}",
            ids(&explanation.waiting_for)
        ));
    }
    if let Some(at) = explanation.estimate {
        page.line(format!("estimated start: {}", moment(at, now)));
    }
    if !explanation.preempts.is_empty() {
        page.line(format!("would preempt: {}", ids(&explanation.preempts)));
    }
    if explanation.fits_empty_fleet == Some(false) {
        page.line("today's fleet couldn't run it even if it were empty");
    }
    for suggestion in &explanation.suggestions {
        page.line(format!("try: {suggestion}"));
    }
}

/// Where a workload would go, for `--dry-run`.
pub(crate) fn preview(page: &mut Page, workload: &Workload, explanation: &Explanation) {
    let name = &workload.name;
    if explanation.placement.is_empty() {
        page.line(format!("{name} would wait:"));
    } else {
        page.line(format!("{name} would start at once:"));
    }
    explain(page, explanation);
    for entry in &workload.spec.secrets {
        page.line(format!("secret: {}", given(entry)));
    }
}

fn place(rank: u32, node: &str, gpus: &[GpuOnNode], members: usize) -> String {
    let rank = if members > 1 {
        format!("rank {rank}: ")
    } else {
        String::new()
    };
    let gpus = ranges(gpus.iter().map(|gpu| gpu.index));
    if gpus.is_empty() {
        format!("{rank}{node}")
    } else {
        format!("{rank}{node}, GPUs {gpus}")
    }
}

fn ids(ids: &[api::WorkloadId]) -> String {
    ids.iter().map(api::WorkloadId::as_str).collect::<Vec<_>>().join(", ")
}

impl Render for Vec<UsageRow> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No usage.");
            return;
        }
        let mut grid = Grid::new(["KEY", "GPU-HOURS", "WORKLOADS", "ATTEMPTS", "SINCE"]);
        for row in self {
            grid.row([
                or_dash(row.key.clone()),
                format!("{:.2}", row.gpu_hours),
                row.workloads.to_string(),
                row.attempts.to_string(),
                clock(row.since),
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|row| row.key.clone()).collect()
    }
}

impl Render for Vec<Event> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No events.");
            return;
        }
        let mut grid = Grid::new(["WHEN", "SEVERITY", "SUBJECT", "REASON", "BY", "MESSAGE"]).lesser(["BY"]);
        for event in self {
            grid.row([
                time::relative(event.at, page.now()),
                format!("{:?}", event.severity).to_lowercase(),
                format!("{}/{}", event.kind, event.subject),
                event.reason.clone(),
                event.actor.clone(),
                event.message.clone(),
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|event| event.id.clone()).collect()
    }
}

/// An event on a line of its own, as streams show them.
pub(crate) fn event_line(event: &Event) -> String {
    let severity = format!("{:?}", event.severity).to_lowercase();
    format!(
        "{}  {severity:<7}  {}/{}  {}  {}  ({})\n",
        clock(event.at),
        event.kind,
        event.subject,
        event.reason,
        event.message,
        event.actor
    )
}
