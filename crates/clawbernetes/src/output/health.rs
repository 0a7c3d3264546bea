//! Health and diagnoses: what was found first, worst first, each with what it stands on and what to type.

use api::{
    Size, Span, Timestamp,
    op::{
        Bottleneck, Comparison, Deduction, ErrorsSection, Evidence, Finding, FleetHealth, HealthNodes, KnownShare,
        MemorySection, MetricFigures, NodeDiagnosis, ThermalSection, TrendsSection, Unchecked, WorkloadDiagnosis,
    },
    time,
};
use serde::{Serialize, Serializer};

use super::{
    Grid, Page, Render,
    cells::{ago, dash, or_dash, size, span_of},
    metrics::value,
};

/// Findings and deductions that a table shows: what a person still reads.
const ROWS: usize = 15;
/// Time after its start that isn't judged of a workload.
const WARM_UP: Span = Span::secs(300);
/// Deviations from the usual that a trend is shown for.
const STRANGE: f64 = 3.0;

/// The fleet's health, to be shown.
pub(crate) struct HealthShown {
    /// What was answered.
    pub(crate) health: FleetHealth,
    /// Whether the table shows all of it.
    pub(crate) all: bool,
}

impl Serialize for HealthShown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.health.serialize(serializer)
    }
}

impl Render for HealthShown {
    fn render(&self, page: &mut Page) {
        let health = &self.health;
        let rows = if self.all { usize::MAX } else { ROWS };
        let mut fields = Grid::bare();
        fields.row(["Health".to_owned(), health.status.name().to_owned()]);
        fields.row(["Score".to_owned(), score(health.score)]);
        fields.row(["Nodes".to_owned(), nodes(&health.nodes)]);
        let u = &health.utilization;
        let used = [
            ("GPU", &u.gpu),
            ("GPU memory", &u.gpu_memory),
            ("CPU", &u.cpu),
            ("memory", &u.memory),
        ];
        let used = used.map(|(what, share)| format!("{what} {}", share_of(share, health.nodes.total)));
        fields.row(["In use".to_owned(), used.join(", ")]);
        if health.alerts.is_empty() {
            fields.row(["Alerts", "none"]);
        }
        page.grid(&fields);
        if !health.alerts.is_empty() {
            page.heading("ALERTS");
            let mut grid = Grid::new(["NAME", "SEVERITY", "OF", "SINCE", "WHAT"]);
            for alert in &health.alerts {
                let silenced = if alert.silenced { " (silenced)" } else { "" };
                grid.row([
                    alert.name.clone(),
                    alert.severity.name().to_owned(),
                    alert.target.clone(),
                    time::relative(alert.since, page.now()),
                    format!("{}{silenced}", alert.summary),
                ]);
            }
            page.grid(&grid);
        }
        deductions(page, &health.deductions, rows);
        findings(page, &health.diagnosis, rows);
        if health.nodes.total == 0 {
            page.heading("No nodes yet: clawbernetes auth join-token, then clawbernetes node start --join TOKEN");
        }
    }

    fn names(&self) -> Vec<String> {
        self.health.diagnosis.iter().map(|f| f.finding.clone()).collect()
    }
}

/// A score never looks better than it is: 99.97 is 99.9.
fn score(score: Option<f64>) -> String {
    let Some(score) = score else { return "-".to_owned() };
    let tenths = (score * 10.0).floor() / 10.0;
    let text = format!("{tenths:.1}");
    format!("{} of 100", text.strip_suffix(".0").unwrap_or(&text))
}

fn nodes(n: &HealthNodes) -> String {
    let all = [
        (n.critical, "critical"),
        (n.unreachable, "unreachable"),
        (n.degraded, "degraded"),
        (n.unknown, "unknown"),
        (n.joining, "joining"),
        (n.draining, "draining"),
    ];
    let mut words = vec![format!("{} of {} healthy", n.healthy, n.total)];
    words.extend(
        all.iter()
            .filter(|(count, _)| *count > 0)
            .map(|(c, w)| format!("{c} {w}")),
    );
    words.join(", ")
}

fn share_of(share: &KnownShare, total: u32) -> String {
    let text = value(share.percent, "percent");
    match share.nodes {
        0 => text,
        nodes if nodes == total => text,
        nodes => format!("{text} (of {nodes} nodes)"),
    }
}

fn deductions(page: &mut Page, all: &[Deduction], rows: usize) {
    if all.is_empty() {
        return;
    }
    page.heading("WHAT IT COSTS");
    let mut grid = Grid::new(["POINTS", "FOR", "OF", "BECAUSE"]);
    for d in all.iter().take(rows) {
        grid.row([
            points(d.points),
            d.reason.clone(),
            d.target.to_string(),
            or_dash(d.evidence.first().map(|e| e.text.clone()).unwrap_or_default()),
        ]);
    }
    page.grid(&grid);
    more(page, all.len(), rows, "deductions");
}

/// Points in as many digits as say something: 33.3, 0.75, 0.0038.
fn points(points: f64) -> String {
    let text = match points {
        p if p >= 10.0 => format!("{p:.1}"),
        p if p >= 0.1 => format!("{p:.2}"),
        p => format!("{p:.4}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn more(page: &mut Page, all: usize, shown: usize, what: &str) {
    if all > shown {
        page.line(format!("... and {} more {what}: --all", all - shown));
    }
}

/// Findings, each with its evidence and what to type.
fn findings(page: &mut Page, all: &[Finding], rows: usize) {
    if all.is_empty() {
        page.heading("Nothing was found.");
        return;
    }
    page.heading("FOUND");
    let mut grid = Grid::bare();
    for (number, f) in all.iter().take(rows).enumerate() {
        if number > 0 {
            grid.row(["", ""]);
        }
        grid.row([
            f.severity.name().to_owned(),
            format!("{}: {} ({})", f.target, f.title, f.finding),
        ]);
        for e in &f.evidence {
            grid.row([String::new(), format!("- {}", seen(e, page.now()))]);
        }
        if !f.advice.is_empty() {
            grid.row([String::new(), f.advice.clone()]);
        }
        for command in &f.commands {
            grid.row([String::new(), format!("try: {command}")]);
        }
    }
    page.grid(&grid);
    more(page, all.len(), rows, "findings");
}

/// Evidence in words, with when.
fn seen(e: &Evidence, now: Timestamp) -> String {
    match e.at {
        Some(at) => format!("{} ({})", e.text, time::relative(at, now)),
        None => e.text.clone(),
    }
}

/// A size of bytes that was measured.
fn bytes(bytes: Option<f64>) -> String {
    size(bytes.map(|b| Size(b.max(0.0) as u64)))
}

/// `used of total`, or a dash where neither is known.
fn bytes_of(used: Option<f64>, total: Option<f64>) -> String {
    match (used, total) {
        (None, None) => "-".to_owned(),
        (used, None) => bytes(used),
        (used, total) => format!("{} of {}", bytes(used), bytes(total)),
    }
}

fn number(value: Option<f64>) -> String {
    dash(value.map(|v| format!("{v:.0}")))
}

impl Render for NodeDiagnosis {
    fn render(&self, page: &mut Page) {
        page.fields([
            ("Node", format!("{} ({})", self.node, self.state.name())),
            (
                "Looked at",
                format!("the last {}; errors of the last 24h", span_of(self.window)),
            ),
        ]);
        let mut grid = Grid::bare();
        grid.row(["Diagnosis", self.status.name()]);
        page.grid(&grid);
        findings(page, &self.findings, usize::MAX);
        thermal(page, &self.thermal);
        memory(page, &self.memory);
        errors(page, &self.errors);
        trends(page, &self.trends);
        if let Some(raw) = &self.raw {
            figures(page, raw);
        }
        unchecked(page, &self.unchecked, self.raw.is_some());
    }

    fn names(&self) -> Vec<String> {
        self.findings.iter().map(|f| f.finding.clone()).collect()
    }
}

fn thermal(page: &mut Page, section: &ThermalSection) {
    page.heading(&format!("HEAT: {}", section.status.name()));
    if section.gpus.is_empty() {
        page.line("No GPUs.");
        return;
    }
    let mut grid = Grid::new(["GPU", "NOW", "HIGHEST", "SLOWS AT", "FAN", "POWER", "SLOWED DOWN"]);
    for gpu in &section.gpus {
        let slowed = match &gpu.throttle {
            None => "-".to_owned(),
            Some(all) if all.is_empty() => "no".to_owned(),
            Some(all) => {
                let words: Vec<String> = all
                    .iter()
                    .map(|t| {
                        format!(
                            "{} {:.0}%{}",
                            t.reason,
                            t.percent,
                            if t.normal { " (normal)" } else { "" }
                        )
                    })
                    .collect();
                words.join(", ")
            }
        };
        grid.row([
            gpu.gpu.to_string(),
            value(gpu.celsius, "celsius"),
            value(gpu.celsius_max, "celsius"),
            value(gpu.slowdown_celsius, "celsius"),
            value(gpu.fan_percent, "percent"),
            match gpu.power_limit_watts {
                Some(limit) => format!("{} of {limit:.0} W", number(gpu.power_watts)),
                None => value(gpu.power_watts, "watts"),
            },
            slowed,
        ]);
    }
    page.grid(&grid);
}

fn memory(page: &mut Page, section: &MemorySection) {
    page.heading(&format!("MEMORY: {}", section.status.name()));
    let percent = section.used_percent.map(|p| format!(" ({p:.0}%)")).unwrap_or_default();
    let swap = match section.swap_bytes_per_second {
        Some(rate) => format!("{}, {}", bytes(section.swap_used_bytes), value(Some(rate), "bytes/s")),
        None => bytes(section.swap_used_bytes),
    };
    let mut fields = vec![
        (
            "Used",
            format!("{}{percent}", bytes_of(section.used_bytes, section.total_bytes)),
        ),
        ("Swap", swap),
        (
            "Waiting for memory",
            format!(
                "some {}, all {}",
                value(section.pressure_percent, "percent"),
                value(section.pressure_full_percent, "percent")
            ),
        ),
        ("Killed for memory", dash(section.oom_kills)),
    ];
    if let Some(span) = section.exhausted_in {
        fields.push(("Full in", span_of(span)));
    }
    page.fields(fields);
    if section.gpus.is_empty() {
        return;
    }
    let mut grid = Grid::new(["GPU", "MEMORY", "ECC CORRECTED", "ECC UNCORRECTED", "ROW REMAP"]);
    for gpu in &section.gpus {
        let remap = match (gpu.remap_failed, gpu.remap_pending) {
            (Some(true), _) => "failed",
            (_, Some(true)) => "pending",
            (None, None) => "-",
            _ => "none",
        };
        grid.row([
            gpu.gpu.to_string(),
            bytes_of(gpu.used_bytes, gpu.total_bytes),
            number(gpu.ecc_corrected),
            number(gpu.ecc_uncorrected),
            remap.to_owned(),
        ]);
    }
    page.grid(&grid);
}

fn errors(page: &mut Page, section: &ErrorsSection) {
    page.heading(&format!("ERRORS: {}", section.status.name()));
    if section.groups.is_empty() {
        page.line("None in the last 24h that is known of.");
        return;
    }
    let mut grid = Grid::new(["LEVEL", "FROM", "TIMES", "LAST", "WHAT"]);
    for group in &section.groups {
        grid.row([
            group.level.clone(),
            group.source.clone(),
            group.count.to_string(),
            time::relative(group.last, page.now()),
            group.text.clone(),
        ]);
    }
    page.grid(&grid);
}

/// Of which part of the node: `GPU 3`, `/data`.
fn part(gpu: Option<u32>, device: Option<&String>) -> String {
    match (gpu, device) {
        (Some(gpu), Some(device)) => format!("GPU {gpu} {device}"),
        (Some(gpu), None) => format!("GPU {gpu}"),
        (None, device) => dash(device),
    }
}

fn trends(page: &mut Page, section: &TrendsSection) {
    page.heading(&format!("TRENDS: {}", section.status.name()));
    let strange = |z: Option<f64>| z.is_some_and(|z| z.abs() >= STRANGE);
    let moves = |d: &Option<String>| d.as_deref().is_some_and(|d| d != "level");
    let telling: Vec<_> = section
        .trends
        .iter()
        .filter(|t| moves(&t.direction) || strange(t.z_past) || strange(t.z_peers))
        .collect();
    if telling.is_empty() {
        page.line(match section.trends.len() {
            0 => "Nothing was measured.".to_owned(),
            n => format!("{n} series, all level and as usual as far as is known."),
        });
        return;
    }
    let mut grid = Grid::new(["METRIC", "OF", "LEVEL", "COURSE", "AN HOUR", "USUAL"]);
    for t in &telling {
        grid.row([
            t.metric.clone(),
            part(t.gpu, t.device.as_ref()),
            value(Some(t.median), &t.unit),
            dash(t.direction.as_ref()),
            match t.per_hour {
                Some(v) if v < 0.0 => format!("-{}", value(Some(-v), &t.unit)),
                Some(v) => format!("+{}", value(Some(v), &t.unit)),
                None => "-".to_owned(),
            },
            value(t.usual, &t.unit),
        ]);
    }
    page.grid(&grid);
    if telling.len() < section.trends.len() {
        page.line(format!("{} others are level.", section.trends.len() - telling.len()));
    }
}

fn figures(page: &mut Page, raw: &[MetricFigures]) {
    page.heading("FIGURES");
    let mut grid = Grid::new(["METRIC", "OF", "SAMPLES", "MIN", "AVG", "P50", "P95", "MAX", "LAST"]);
    for f in raw {
        let cells = [f.min, f.avg, f.p50, f.p95, f.max, f.last].map(|v| value(Some(v), &f.unit));
        let head = [f.metric.clone(), part(f.gpu, f.device.as_ref()), f.count.to_string()];
        grid.row(head.into_iter().chain(cells));
    }
    page.grid(&grid);
}

fn unchecked(page: &mut Page, all: &[Unchecked], verbose: bool) {
    if all.is_empty() {
        return;
    }
    if !verbose {
        let names: Vec<&str> = all.iter().map(|u| u.finding.as_str()).collect();
        page.heading(&format!("Not checked, for want of data: {}", names.join(", ")));
        return;
    }
    page.heading("NOT CHECKED");
    let mut grid = Grid::new(["FINDING", "NEEDS"]);
    for u in all {
        grid.row([u.finding.clone(), u.needs.join(", ")]);
    }
    page.grid(&grid);
}

impl Render for WorkloadDiagnosis {
    fn render(&self, page: &mut Page) {
        page.fields([
            ("Workload", format!("{} ({}), {}", self.name, self.workload, self.phase)),
            (
                "Looked at",
                format!("{} until {}", span_of(self.window), ago(Some(self.at), page.now())),
            ),
        ]);
        let mut grid = Grid::bare();
        grid.row(["Diagnosis", self.status.name()]);
        page.grid(&grid);
        if self.window < WARM_UP {
            page.line("The first 5 minutes of a run aren't judged: levels of GPUs are told after them.");
        }
        findings(page, &self.findings, usize::MAX);
        resources(page, self);
        attempts(page, self);
        performance(page, self);
        bottleneck(page, &self.bottleneck);
        if let Some(comparison) = &self.comparison {
            compared(page, comparison);
        }
        if let Some(all) = &self.recommendations {
            page.heading("RECOMMENDED");
            if all.is_empty() {
                page.line("Nothing: no finding asks for it.");
            }
            for (number, r) in (1..).zip(all) {
                page.line(format!("{number}. {} ({})", r.text, r.finding));
                page.line(format!("   try: {}", r.command));
            }
        }
        unchecked(page, &self.unchecked, false);
    }

    fn names(&self) -> Vec<String> {
        self.findings.iter().map(|f| f.finding.clone()).collect()
    }
}

fn resources(page: &mut Page, of: &WorkloadDiagnosis) {
    page.heading("RESOURCES");
    let r = &of.resources;
    let cores = |c: Option<f64>| dash(c.map(|c| format!("{c:.1}")));
    let asked = r
        .cpu_cores_asked
        .map_or_else(|| "no limit".to_owned(), |c| format!("{c} asked"));
    let limit = r
        .memory_limit_bytes
        .map_or_else(|| "no limit".to_owned(), |l| format!("limit {}", bytes(Some(l))));
    page.fields([
        ("GPUs", format!("{} asked", r.gpus_asked)),
        ("CPU", format!("{} cores, {asked}", cores(r.cpu_cores))),
        (
            "Memory",
            format!(
                "{}, peak {}, {limit}",
                bytes(r.memory_bytes),
                bytes(r.memory_peak_bytes)
            ),
        ),
        ("Disks", value(r.io_bytes_per_second, "bytes/s")),
    ]);
    if r.gpus.is_empty() {
        return;
    }
    let mut grid = Grid::new(["GPU", "UTILIZATION", "MEMORY", "HOTTEST", "POWER"]);
    for gpu in &r.gpus {
        let place = match (&gpu.node, gpu.index) {
            (Some(node), Some(index)) => format!("{node} GPU {index}"),
            _ => format!("GPU {}", gpu.gpu),
        };
        grid.row([
            place,
            value(gpu.utilization_percent, "percent"),
            bytes_of(gpu.memory_used_bytes, gpu.memory_total_bytes),
            value(gpu.celsius_max, "celsius"),
            value(gpu.power_watts, "watts"),
        ]);
    }
    page.grid(&grid);
}

fn attempts(page: &mut Page, of: &WorkloadDiagnosis) {
    page.heading("ERRORS");
    if of.attempts.is_empty() {
        page.line("It hasn't been tried yet.");
    } else {
        let mut grid = Grid::new(["ATTEMPT", "NODE", "STARTED", "RAN FOR", "EXIT", "ENDED"]);
        for a in &of.attempts {
            let ran = a.started_at.map(|s| time::between(s, a.ended_at.unwrap_or(of.at)));
            grid.row([
                a.attempt.to_string(),
                dash(a.node.as_ref()),
                ago(a.started_at, page.now()),
                dash(ran.map(span_of)),
                dash(a.exit_code),
                match (&a.reason, a.ended_at) {
                    (Some(reason), _) => reason.clone(),
                    (None, None) => "no".to_owned(),
                    (None, Some(_)) => "unknown".to_owned(),
                },
            ]);
        }
        page.grid(&grid);
    }
    if !of.error_patterns.is_empty() {
        let mut grid = Grid::new(["IN ITS OUTPUT", "LINES", "LAST", "THE LAST LINE"]);
        for p in &of.error_patterns {
            grid.row([
                p.pattern.clone(),
                p.count.to_string(),
                time::relative(p.last, page.now()),
                p.sample.clone(),
            ]);
        }
        page.grid(&grid);
    }
}

fn performance(page: &mut Page, of: &WorkloadDiagnosis) {
    page.heading("PERFORMANCE");
    let p = &of.performance;
    let known = [
        ("GPUs busy", p.gpu_busy_percent, "percent"),
        ("Throughput", p.throughput, ""),
        ("Step", p.step_time_ms, "ms"),
        ("Latency, middle", p.latency_p50_ms, "ms"),
        ("Latency, p95", p.latency_p95_ms, "ms"),
        ("Loss", p.loss, ""),
    ];
    let fields: Vec<(&str, String)> = known
        .into_iter()
        .filter(|(_, v, _)| v.is_some())
        .map(|(what, v, unit)| (what, value(v, unit)))
        .collect();
    if fields.is_empty() {
        page.line("None is known.");
    }
    page.fields(fields);
    for s in of.stragglers.iter().flatten() {
        page.line(format!(
            "Rank {} on {} is {:.2} times slower by {}.",
            s.rank,
            dash(s.node.as_ref()),
            s.times_slower,
            s.metric
        ));
    }
}

fn bottleneck(page: &mut Page, found: &Bottleneck) {
    let title = match &found.class {
        Some(class) => format!("BOTTLENECK: {class}, {:.0}% sure", found.confidence * 100.0),
        None => "BOTTLENECK: the signals don't tell".to_owned(),
    };
    page.heading(&title);
    // Of the class that was found; else all that was measured.
    let shown = |s: &&api::op::Signal| match &found.class {
        Some(class) if class != "none" => s.speaks_for == *class,
        _ => s.value.is_some(),
    };
    let mut grid = Grid::new(["SIGNAL", "SPEAKS FOR", "VALUE", "AGAINST", "HOLDS"]);
    let mut any = false;
    for s in found.signals.iter().filter(shown) {
        any = true;
        grid.row([
            s.text.clone(),
            s.speaks_for.clone(),
            value(s.value, &s.unit),
            value(Some(s.threshold), &s.unit),
            s.holds.map_or("-", |holds| if holds { "yes" } else { "no" }).to_owned(),
        ]);
    }
    if any {
        page.grid(&grid);
    } else {
        page.line("None was measured.");
    }
}

fn compared(page: &mut Page, comparison: &Comparison) {
    page.heading(&format!("BESIDE {}", comparison.baseline));
    let mut grid = Grid::new(["METRIC", "NOW", "THEN", "CHANGE", "VERDICT"]);
    for c in &comparison.changes {
        grid.row([
            c.metric.clone(),
            value(Some(c.now), &c.unit),
            value(Some(c.then), &c.unit),
            dash(c.percent.map(|p| format!("{p:+.0}%"))),
            c.verdict.clone(),
        ]);
    }
    if comparison.changes.is_empty() {
        page.line("Nothing was measured of both.");
    } else {
        page.grid(&grid);
    }
    for difference in &comparison.differences {
        page.line(format!("Asked for: {difference}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::View;

    #[test]
    fn a_score_never_looks_better_than_it_is() {
        let texts = [Some(100.0), Some(99.97), Some(66.6666), None].map(score);
        assert_eq!(texts, ["100 of 100", "99.9 of 100", "66.6 of 100", "-"]);
    }

    #[test]
    fn points_keep_the_digits_that_say_something() {
        assert_eq!(
            [33.3334, 25.0, 3.75, 0.0038].map(points),
            ["33.3", "25", "3.75", "0.0038"]
        );
    }

    #[test]
    fn findings_come_with_evidence_and_what_to_type() {
        let target = json!({"kind": "gpu", "node": "gpu-7", "gpu": 3});
        let evidence = json!([{"metric": "gpu.throttle", "value": 80.0, "unit": "percent", "threshold": 0.0,
            "at": "2026-02-16T13:58:00Z", "window": "15m", "method": null, "text": "slowed down in 80 % of samples"}]);
        let unknown = json!({"percent": null, "nodes": 0});
        let health = serde_json::from_value(json!({
            "score": 96.25, "status": "degraded", "at": "2026-02-16T14:00:00Z",
            "nodes": {"total": 2, "healthy": 1, "degraded": 0, "critical": 1, "unreachable": 0, "draining": 0,
                "joining": 0, "unknown": 0},
            "utilization": {"gpu": {"percent": 43.2, "nodes": 1}, "gpuMemory": unknown, "cpu": unknown,
                "memory": unknown},
            "alerts": [], "deductions": [{"points": 3.75, "reason": "gpu-thermal-throttle", "target": target,
                "evidence": evidence}],
            "diagnosis": [{"finding": "gpu-thermal-throttle", "severity": "critical", "target": target,
                "title": "GPU is slowed down by heat", "evidence": evidence, "remedy": "check-cooling",
                "advice": "Check fans.", "commands": ["clawbernetes node drain gpu-7"], "confidence": 0.97}],
        }))
        .unwrap();
        let mut page = Page::new(View {
            now: "2026-02-16T14:00:00Z".parse().unwrap(),
            width: None,
            color: false,
        });
        HealthShown { health, all: false }.render(&mut page);
        insta::assert_snapshot!(page.text, @r"
        Health  degraded
        Score   96.2 of 100
        Nodes   1 of 2 healthy, 1 critical
        In use  GPU 43% (of 1 nodes), GPU memory -, CPU -, memory -
        Alerts  none

        WHAT IT COSTS
        POINTS  FOR                   OF           BECAUSE
        3.75    gpu-thermal-throttle  gpu-7 GPU 3  slowed down in 80 % of samples

        FOUND
        critical  gpu-7 GPU 3: GPU is slowed down by heat (gpu-thermal-throttle)
                  - slowed down in 80 % of samples (2m ago)
                  Check fans.
                  try: clawbernetes node drain gpu-7
        ");
    }
}
