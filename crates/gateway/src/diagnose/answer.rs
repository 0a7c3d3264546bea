//! The diagnosis' findings as the operations answer them.

use api::{
    NodeName, Span, Timestamp, WorkloadId,
    node::NodeStatus,
    op::{
        AttemptSeen, Bottleneck, Change, Comparison, Deduction, ErrorGroup, ErrorsSection, Evidence, Finding,
        FindingSeverity, FindingTarget, FleetHealth, GpuMemory, GpuThermal, GpuUse, HealthAlert, HealthNodes,
        HealthStatus, HealthUtilization, KnownShare, MemorySection, MetricFigures, NodeDiagnosis, OutputPattern,
        Performance, Recommendation, Signal, Straggler, ThermalSection, ThrottleShare, Trend, TrendsSection, Unchecked,
        WorkloadDiagnosis, WorkloadUse,
    },
    workload::Workload,
};
use diagnosis::{Severity, Status, Target, metric::Unit};
use serde::Serialize;

/// A unit as metrics' answers name it.
pub(super) fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Percent => "percent",
        Unit::Celsius => "celsius",
        Unit::Bytes => "bytes",
        Unit::BytesPerSecond => "bytes/s",
        Unit::LinesPerSecond => "lines/s",
        Unit::Watts => "watts",
        Unit::Megahertz => "megahertz",
        Unit::Milliseconds => "ms",
        Unit::Cores => "cores",
        Unit::PerHour => "1/h",
        Unit::Count => "count",
    }
}

/// A variant's word.
fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// A moment; one that no calendar has is the epoch.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn span(ms: i64) -> Span {
    Span(ms.max(0).unsigned_abs())
}

fn status(status: Status) -> HealthStatus {
    match status {
        Status::Healthy => HealthStatus::Healthy,
        Status::Unknown => HealthStatus::Unknown,
        Status::Degraded => HealthStatus::Degraded,
        Status::Critical => HealthStatus::Critical,
    }
}

fn severity(severity: Severity) -> FindingSeverity {
    match severity {
        Severity::Info => FindingSeverity::Info,
        Severity::Warning => FindingSeverity::Warning,
        Severity::Critical => FindingSeverity::Critical,
    }
}

fn target(target: Target) -> FindingTarget {
    match target {
        Target::Node { node } => FindingTarget::Node {
            node: NodeName::new(node),
        },
        Target::Gpu { node, gpu } => FindingTarget::Gpu {
            node: NodeName::new(node),
            gpu,
        },
        Target::Device { node, device } => FindingTarget::Device {
            node: NodeName::new(node),
            device,
        },
        Target::Workload { workload } => FindingTarget::Workload {
            workload: WorkloadId::new(workload),
        },
        Target::Rank { workload, rank } => FindingTarget::Rank {
            workload: WorkloadId::new(workload),
            rank,
        },
    }
}

fn evidence(all: Vec<diagnosis::Evidence>) -> Vec<Evidence> {
    let one = |e: diagnosis::Evidence| Evidence {
        metric: e.metric.into_owned(),
        value: e.value,
        unit: unit(e.unit).to_owned(),
        threshold: e.threshold,
        at: e.at_ms.map(at),
        window: e.window_ms.map(span),
        method: e.method.map(|m| m.into_owned()),
        text: e.text,
    };
    all.into_iter().map(one).collect()
}

fn findings(all: Vec<diagnosis::Finding>) -> Vec<Finding> {
    let one = |f: diagnosis::Finding| Finding {
        finding: f.id.into_owned(),
        severity: severity(f.severity),
        target: target(f.target),
        title: f.title.into_owned(),
        evidence: evidence(f.evidence),
        remedy: word(f.remedy),
        advice: f.advice.into_owned(),
        commands: f.commands,
        confidence: f.confidence,
    };
    all.into_iter().map(one).collect()
}

fn unchecked(all: Vec<diagnosis::Unchecked>) -> Vec<Unchecked> {
    let one = |u: diagnosis::Unchecked| Unchecked {
        finding: u.rule.into_owned(),
        needs: u.needs.into_iter().map(|n| n.into_owned()).collect(),
    };
    all.into_iter().map(one).collect()
}

/// The fleet's.
pub(super) fn health(health: diagnosis::Health, now: Timestamp) -> FleetHealth {
    let n = health.nodes;
    let u = health.utilization;
    let share = |s: diagnosis::Share| KnownShare {
        percent: s.percent,
        nodes: s.nodes as u32,
    };
    FleetHealth {
        score: health.score.map(f64::from),
        status: status(health.status),
        at: now,
        nodes: HealthNodes {
            total: n.total as u32,
            healthy: n.healthy as u32,
            degraded: n.degraded as u32,
            critical: n.critical as u32,
            unreachable: n.unreachable as u32,
            draining: n.draining as u32,
            joining: n.joining as u32,
            unknown: n.unknown as u32,
        },
        utilization: HealthUtilization {
            gpu: share(u.gpu),
            gpu_memory: share(u.gpu_memory),
            cpu: share(u.cpu),
            memory: share(u.memory),
        },
        alerts: health
            .alerts
            .into_iter()
            .map(|a| HealthAlert {
                name: a.name,
                severity: severity(a.severity),
                target: a.target,
                since: at(a.since_ms),
                silenced: a.silenced,
                summary: a.summary,
            })
            .collect(),
        deductions: health
            .deductions
            .into_iter()
            .map(|d| Deduction {
                points: d.points.into(),
                reason: d.reason.into_owned(),
                target: target(d.target),
                evidence: evidence(d.evidence),
            })
            .collect(),
        diagnosis: findings(health.diagnosis),
    }
}

/// A node's.
pub(super) fn node(found: diagnosis::NodeDiagnosis, state: NodeStatus) -> NodeDiagnosis {
    NodeDiagnosis {
        node: NodeName::new(found.node),
        state,
        at: at(found.now_ms),
        window: span(found.window_ms),
        status: status(found.status),
        findings: findings(found.findings),
        thermal: thermal(found.thermal),
        memory: memory(found.memory),
        errors: errors(found.errors),
        trends: trends(found.trends),
        unchecked: unchecked(found.unchecked),
        raw: found.raw.map(|all| all.into_iter().map(figures).collect()),
    }
}

fn thermal(section: diagnosis::ThermalSection) -> ThermalSection {
    let share = |s: diagnosis::ThrottleShare| ThrottleShare {
        reason: s.reason,
        percent: s.percent,
        normal: s.normal,
    };
    let gpu = |g: diagnosis::GpuThermal| GpuThermal {
        gpu: g.gpu,
        celsius: g.celsius,
        celsius_max: g.celsius_max,
        slowdown_celsius: g.slowdown_celsius,
        shutdown_celsius: g.shutdown_celsius,
        fan_percent: g.fan_percent,
        power_watts: g.power_watts,
        power_limit_watts: g.power_limit_watts,
        throttle: g.throttle.map(|all| all.into_iter().map(share).collect()),
    };
    ThermalSection {
        status: status(section.status),
        gpus: section.gpus.into_iter().map(gpu).collect(),
    }
}

fn memory(section: diagnosis::MemorySection) -> MemorySection {
    let gpu = |g: diagnosis::GpuMemory| GpuMemory {
        gpu: g.gpu,
        used_bytes: g.used_bytes,
        total_bytes: g.total_bytes,
        ecc_corrected: g.ecc_corrected,
        ecc_uncorrected: g.ecc_uncorrected,
        remap_pending: g.remap_pending,
        remap_failed: g.remap_failed,
    };
    MemorySection {
        status: status(section.status),
        used_bytes: section.used_bytes,
        total_bytes: section.total_bytes,
        used_percent: section.used_percent,
        swap_used_bytes: section.swap_used_bytes,
        swap_bytes_per_second: section.swap_bytes_per_second,
        pressure_percent: section.pressure_percent,
        pressure_full_percent: section.pressure_full_percent,
        exhausted_in: section.exhausted_in_ms.map(span),
        oom_kills: section.oom_kills,
        gpus: section.gpus.into_iter().map(gpu).collect(),
    }
}

fn errors(section: diagnosis::ErrorsSection) -> ErrorsSection {
    let group = |g: diagnosis::ErrorGroup| ErrorGroup {
        source: g.source,
        level: g.level,
        text: g.text,
        count: g.count,
        first: at(g.first_ms),
        last: at(g.last_ms),
    };
    ErrorsSection {
        status: status(section.status),
        groups: section.groups.into_iter().map(group).collect(),
    }
}

fn trends(section: diagnosis::TrendsSection) -> TrendsSection {
    let trend = |t: diagnosis::Trend| Trend {
        metric: t.metric,
        gpu: t.gpu,
        device: t.device,
        unit: unit(t.unit).to_owned(),
        median: t.median,
        per_hour: t.per_hour,
        direction: t.direction.map(word),
        usual: t.usual,
        z_past: t.z_past,
        z_peers: t.z_peers,
        method: t.method,
    };
    TrendsSection {
        status: status(section.status),
        trends: section.trends.into_iter().map(trend).collect(),
        anomalies: findings(section.anomalies),
    }
}

fn figures(f: diagnosis::MetricStats) -> MetricFigures {
    MetricFigures {
        metric: f.metric,
        gpu: f.gpu,
        device: f.device,
        unit: unit(f.unit).to_owned(),
        count: f.count as u64,
        min: f.min,
        avg: f.avg,
        p50: f.p50,
        p95: f.p95,
        max: f.max,
        last: f.last,
        last_at: at(f.last_ms),
    }
}

/// A workload's. `place`: node and index of each of its GPUs, in the order in which they are numbered through.
pub(super) fn workload(
    found: diagnosis::WorkloadDiagnosis,
    of: &Workload,
    place: &[(NodeName, u32)],
    recommendations: bool,
) -> WorkloadDiagnosis {
    let recommendation = |r: diagnosis::Recommendation| Recommendation {
        finding: r.finding,
        text: r.text,
        command: r.command,
    };
    let straggler = |s: diagnosis::Straggler| Straggler {
        rank: s.rank,
        node: s.node.map(NodeName::new),
        metric: s.metric,
        value: s.value,
        usual: s.usual,
        times_slower: s.times_slower,
    };
    let pattern = |p: diagnosis::patterns::LogFact| OutputPattern {
        pattern: p.pattern,
        count: p.count,
        first: at(p.first_ms),
        last: at(p.last_ms),
        sample: p.sample,
    };
    let attempt = |a: diagnosis::Attempt| AttemptSeen {
        attempt: a.number,
        node: a.node.map(NodeName::new),
        started_at: a.started_ms.map(at),
        ended_at: a.ended_ms.map(at),
        exit_code: a.exit_code,
        reason: a.reason.map(word),
    };
    WorkloadDiagnosis {
        workload: WorkloadId::new(found.workload),
        name: of.name.clone(),
        phase: of.phase,
        at: at(found.now_ms),
        window: span(found.window_ms),
        status: status(found.status),
        findings: findings(found.findings),
        resources: uses(found.resources, place),
        error_patterns: found.error_patterns.into_iter().map(pattern).collect(),
        attempts: found.attempts.into_iter().map(attempt).collect(),
        performance: Performance {
            throughput: found.performance.throughput,
            step_time_ms: found.performance.step_time_ms,
            latency_p50_ms: found.performance.latency_p50_ms,
            latency_p95_ms: found.performance.latency_p95_ms,
            loss: found.performance.loss,
            gpu_busy_percent: found.performance.gpu_busy_percent,
        },
        bottleneck: bottleneck(found.bottleneck),
        stragglers: found.stragglers.map(|all| all.into_iter().map(straggler).collect()),
        comparison: found.comparison.map(comparison),
        recommendations: recommendations.then(|| found.recommendations.into_iter().map(recommendation).collect()),
        unchecked: unchecked(found.unchecked),
    }
}

fn uses(section: diagnosis::UseSection, place: &[(NodeName, u32)]) -> WorkloadUse {
    let gpu = |g: diagnosis::GpuUse| {
        let place = place.get(g.gpu as usize);
        GpuUse {
            gpu: g.gpu,
            node: place.map(|p| p.0.clone()),
            index: place.map(|p| p.1),
            utilization_percent: g.utilization_percent,
            memory_used_bytes: g.memory_used_bytes,
            memory_total_bytes: g.memory_total_bytes,
            celsius_max: g.celsius_max,
            power_watts: g.power_watts,
        }
    };
    WorkloadUse {
        gpus: section.gpus.into_iter().map(gpu).collect(),
        gpus_asked: section.gpus_asked,
        cpu_cores: section.cpu_cores,
        cpu_cores_asked: section.cpu_cores_asked,
        memory_bytes: section.memory_bytes,
        memory_peak_bytes: section.memory_peak_bytes,
        memory_limit_bytes: section.memory_limit_bytes,
        io_bytes_per_second: section.io_bytes_per_second,
    }
}

fn bottleneck(found: diagnosis::Bottleneck) -> Bottleneck {
    let signal = |s: diagnosis::Signal| Signal {
        metric: s.metric.into_owned(),
        speaks_for: word(s.speaks_for),
        weight: s.weight,
        value: s.value,
        unit: unit(s.unit).to_owned(),
        threshold: s.threshold,
        holds: s.holds,
        text: s.text.into_owned(),
    };
    Bottleneck {
        class: found.class.map(word),
        confidence: found.confidence,
        signals: found.signals.into_iter().map(signal).collect(),
    }
}

fn comparison(found: diagnosis::Comparison) -> Comparison {
    let change = |c: diagnosis::Change| Change {
        metric: c.metric,
        unit: unit(c.unit).to_owned(),
        now: c.now,
        then: c.then,
        percent: c.percent,
        p: c.p,
        effect: c.effect,
        verdict: word(c.verdict),
        method: c.method,
    };
    Comparison {
        baseline: WorkloadId::new(found.baseline),
        changes: found.changes.into_iter().map(change).collect(),
        differences: found.differences,
    }
}
