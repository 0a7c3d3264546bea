//! A workload's facts, and its diagnosis.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    ApiError, NodeName, Timestamp,
    event::Event,
    metric::{self, Kind, label},
    op::WorkloadDiagnosis,
    time,
    wire::FactKind,
    workload::{Member, MemberState, Outcome, Phase, StopReason, Workload},
};
use diagnosis::{
    Attempt, ExitReason, Finding, KernelEvent, Oom, Rank, Requests, Series, WorkloadFacts, metric as wanted,
    patterns::Scanner,
};
use telemetry::metrics::Matcher;

use super::{
    DAY, Sources, answer,
    journal::kernel,
    node::scan,
    samples::{self, Points, Stretch},
};
use crate::{
    metrics::{Held, Metrics, held},
    view::{View, Within},
};

/// The longest time that is looked at, counted back from now or from the end.
const WINDOW_MS: i64 = 86_400_000;
/// The shortest.
const WINDOW_MIN_MS: i64 = 60_000;
/// Lines of output that are looked at, from the end.
const LINES_MAX: u64 = 10_000;
/// Workloads that fail again and again that `health` tells of.
const TROUBLED_MAX: usize = 100;

/// Metrics of machines that bear on a workload.
const OF_ITS_NODES: &[&str] = &[wanted::PRESSURE_IO, wanted::NETWORK_THROUGHPUT];

/// Metrics of each member that its agent measures.
const MEASURED: [&str; 6] = [
    wanted::WORKLOAD_CPU,
    wanted::WORKLOAD_MEMORY,
    wanted::WORKLOAD_IO,
    wanted::WORKLOAD_LOG_LINES,
    wanted::WORKLOAD_LOG_BYTES,
    wanted::WORKLOAD_LOG_LOST,
];

/// A workload as it is known at one moment.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its record.
    pub workload: Arc<Workload>,
}

/// Copies what is known of a workload.
///
/// # Errors
/// `NOT_FOUND`.
pub fn look(view: &View, text: &str, within: Within<'_>) -> Result<Ran, ApiError> {
    let workload = view.find_workload(text, within)?;
    Ok(Ran {
        workload: Arc::clone(&workload.value),
    })
}

impl Ran {
    /// Its last attempt that ran: what its members had.
    fn last(&self) -> Vec<Held> {
        let all = held(&self.workload);
        let last = all.iter().map(|h| h.attempt).max();
        let mut last: Vec<Held> = all.into_iter().filter(|h| Some(h.attempt) == last).collect();
        last.sort_by_key(|h| h.rank);
        last
    }
}

/// Looks closely at a workload until `now`, or until its end, and beside another if one is given.
///
/// # Errors
/// Samples or output can't be read.
pub fn diagnose(
    sources: Sources<'_>,
    metrics: &Metrics,
    ran: &Ran,
    baseline: Option<&Ran>,
    recommendations: bool,
    now: Timestamp,
) -> Result<WorkloadDiagnosis, ApiError> {
    let facts = facts(sources, metrics, ran, now)?;
    let other = baseline
        .map(|other| self::facts(sources, metrics, other, now))
        .transpose()?;
    let found = diagnosis::diagnose_workload(&facts, other.as_ref());
    let place: Vec<(NodeName, u32)> = places(&ran.last()).collect();
    Ok(answer::workload(found, &ran.workload, &place, recommendations))
}

/// Its GPUs in the order in which they are numbered through.
fn places(last: &[Held]) -> impl Iterator<Item = (NodeName, u32)> + '_ {
    last.iter().flat_map(|h| h.gpus.iter().map(|g| (h.node.clone(), *g)))
}

fn facts(sources: Sources<'_>, metrics: &Metrics, ran: &Ran, now: Timestamp) -> Result<WorkloadFacts, ApiError> {
    let workload = &ran.workload;
    let end = workload.finished_at.unwrap_or(now);
    let last = ran.last();
    let started = last.iter().map(|h| h.from).min();
    let now_ms = end.as_millisecond();
    let lived = started.map_or(WINDOW_MIN_MS, |s| now_ms - s.as_millisecond());
    let window_ms = lived.clamp(WINDOW_MIN_MS, WINDOW_MS);
    let stretch = Stretch::before(now_ms, window_ms);
    let mut series = Vec::new();
    let mut ranks = Vec::new();
    let mut own = own_series(metrics, workload, last.first().map(|h| h.attempt), stretch)?;
    let mut first = 0;
    for had in &last {
        let mut of_rank = own.remove(&had.rank).unwrap_or_default();
        let gpus = gpu_series(metrics, had, first, now_ms, stretch)?;
        first += had.gpus.len() as u32;
        of_rank.extend(gpus.iter().cloned());
        series.extend(gpus);
        series.extend(node_series(metrics, had, now_ms, stretch)?);
        ranks.push(Rank {
            rank: had.rank,
            node: Some(had.node.to_string()),
            series: samples::set(of_rank),
        });
    }
    series.extend(together(&ranks));
    let mut scanner = Scanner::default();
    scan(
        sources.logs,
        &workload.id,
        Timestamp::UNIX_EPOCH,
        LINES_MAX,
        &mut scanner,
    );
    Ok(WorkloadFacts {
        window_ms,
        started_ms: started.map(|s| s.as_millisecond()),
        nodes: nodes_of(&last),
        series: samples::set(series),
        logs: scanner.facts(),
        kernel: xids(sources, &last, now),
        ranks: if last.len() > 1 { ranks } else { Vec::new() },
        ..by_record(workload, now_ms)
    })
}

/// What the record alone tells.
fn by_record(workload: &Workload, now_ms: i64) -> WorkloadFacts {
    let spec = &workload.spec;
    let members = spec.node_count();
    WorkloadFacts {
        id: workload.id.to_string(),
        now_ms,
        window_ms: WINDOW_MIN_MS,
        phase: match workload.phase {
            Phase::Pending | Phase::Scheduled => diagnosis::Phase::Pending,
            Phase::Pulling => diagnosis::Phase::Pulling,
            Phase::Running => diagnosis::Phase::Running,
            Phase::Succeeded | Phase::Failed | Phase::Cancelled => diagnosis::Phase::Ended,
            Phase::TimedOut | Phase::Preempted | Phase::Lost => diagnosis::Phase::Ended,
        },
        requests: Requests {
            gpus: spec.gpus.count * members,
            cpu_cores: spec.cpu.map(|c| f64::from(c.millis()) / 1000.0),
            memory_bytes: spec.memory.map(|m| m.bytes() as f64),
        },
        attempts: attempts(workload),
        ..WorkloadFacts::default()
    }
}

fn nodes_of(last: &[Held]) -> Vec<String> {
    let mut nodes: Vec<String> = last.iter().map(|h| h.node.to_string()).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

/// The stretch's part in which a member had what it had.
fn while_held(had: &Held, now_ms: i64, points: Points) -> Points {
    let (from, to) = (had.from.as_millisecond(), had.to.map_or(now_ms, |t| t.as_millisecond()));
    points.into_iter().filter(|p| p.0 >= from && p.0 <= to).collect()
}

/// Samples of a member's GPUs while it held them, numbered from `first`.
fn gpu_series(
    metrics: &Metrics,
    had: &Held,
    first: u32,
    now_ms: i64,
    stretch: Stretch,
) -> Result<Vec<Series>, ApiError> {
    let mut all = Vec::new();
    if had.gpus.is_empty() {
        return Ok(all);
    }
    let matcher = [Matcher::eq(label::NODE, had.node.as_str())];
    for name in samples::OF_GPUS {
        for (labels, points) in samples::read(&metrics.store, name, &matcher, stretch)? {
            let mut series = samples::series(name, &labels, while_held(had, now_ms, points));
            let place = had.gpus.iter().position(|g| Some(*g) == series.gpu);
            if let Some(place) = place {
                series.gpu = Some(first + place as u32);
                all.push(series);
            }
        }
    }
    Ok(all)
}

/// What of its machine bears on it; the machine's name tells members' apart.
fn node_series(metrics: &Metrics, had: &Held, now_ms: i64, stretch: Stretch) -> Result<Vec<Series>, ApiError> {
    let matcher = [Matcher::eq(label::NODE, had.node.as_str())];
    let mut all = Vec::new();
    for name in OF_ITS_NODES {
        for (labels, points) in samples::read(&metrics.store, name, &matcher, stretch)? {
            let series = samples::series(name, &labels, while_held(had, now_ms, points));
            let device = match &series.device {
                Some(device) => format!("{} {device}", had.node),
                None => had.node.to_string(),
            };
            all.push(series.device(device));
        }
    }
    Ok(all)
}

/// What each member used and reported itself, in one attempt. Of several metrics that mean the same the shortest name
/// counts: `loss` before `val/loss`.
fn own_series(
    metrics: &Metrics,
    workload: &Workload,
    attempt: Option<u32>,
    stretch: Stretch,
) -> Result<BTreeMap<u32, Vec<Series>>, ApiError> {
    let mut ranks: BTreeMap<u32, Vec<Series>> = BTreeMap::new();
    let Some(attempt) = attempt.map(|a| a.to_string()) else {
        return Ok(ranks);
    };
    let matcher = [
        Matcher::eq(label::WORKLOAD, workload.id.as_str()),
        Matcher::eq(label::ATTEMPT, &attempt),
    ];
    let measured = MEASURED.map(|m| (m.to_owned(), m, 1.0));
    let own = metrics.own();
    let gauge = |name: &str| own.get(name).is_none_or(|m| m.kind == Kind::Gauge);
    let names = metrics.store.names();
    let mut reported: Vec<(String, &'static str, f64)> = names
        .into_iter()
        .filter(|(name, _)| name.starts_with(metric::OWN_PREFIX) && gauge(name))
        .filter_map(|(name, _)| wanted::reported(&name).map(|(metric, scale)| (name, metric, scale)))
        .collect();
    drop(own);
    reported.sort_by_key(|(name, ..)| name.len());
    for (name, metric, scale) in measured.into_iter().chain(reported) {
        for (labels, points) in samples::read(&metrics.store, &name, &matcher, stretch)? {
            let Some(rank) = labels.get(label::RANK).and_then(|r| r.parse().ok()) else {
                continue;
            };
            let all = ranks.entry(rank).or_default();
            if !all.iter().any(|s| s.metric == metric) {
                all.push(Series::new(
                    metric,
                    points.into_iter().map(|(t, v)| (t, v * scale)).collect(),
                ));
            }
        }
    }
    Ok(ranks)
}

/// Members' own series as the workload's: of memory, which each has a limit for, the greatest; of I/O, output and
/// throughput the sum; of others the mean. Steps of all members lie on the same times.
fn together(ranks: &[Rank]) -> Vec<Series> {
    let mut by: BTreeMap<String, (Series, BTreeMap<i64, Vec<f64>>)> = BTreeMap::new();
    for series in ranks.iter().flat_map(|r| r.series.iter()).filter(|s| s.gpu.is_none()) {
        let entry = by.entry(series.metric.to_string());
        let (_, at) = entry.or_insert_with(|| {
            let empty = Series {
                points: Vec::new(),
                ..series.clone()
            };
            (empty, BTreeMap::new())
        });
        for (t, v) in &series.points {
            at.entry(*t).or_default().push(*v);
        }
    }
    let fold = |metric: &str, values: &[f64]| match metric {
        wanted::WORKLOAD_MEMORY => values.iter().copied().fold(f64::MIN, f64::max),
        wanted::WORKLOAD_IO
        | wanted::WORKLOAD_LOG_LINES
        | wanted::WORKLOAD_LOG_BYTES
        | wanted::WORKLOAD_LOG_LOST
        | wanted::REPORTED_THROUGHPUT => values.iter().sum(),
        _ => values.iter().sum::<f64>() / values.len() as f64,
    };
    by.into_iter()
        .map(|(metric, (series, at))| Series {
            points: at.into_iter().map(|(t, values)| (t, fold(&metric, &values))).collect(),
            ..series
        })
        .collect()
}

/// XID errors of its GPUs while it held them, of the last day.
fn xids(sources: Sources<'_>, last: &[Held], now: Timestamp) -> Vec<KernelEvent> {
    let since = time::before(now, DAY);
    let mut found = Vec::new();
    let mut first = 0;
    for had in last {
        let within = |e: &&Arc<Event>| e.at >= had.from && had.to.is_none_or(|to| e.at <= time::after(to, LATE));
        for event in sources.journal.of(&had.node, since).iter().filter(within) {
            let Some(FactKind::Xid { gpu: Some(gpu), .. }) = &event.fact else {
                continue;
            };
            let Some(place) = had.gpus.iter().position(|g| g == gpu) else {
                continue;
            };
            let mut event = Event::clone(event);
            if let Some(FactKind::Xid { gpu, .. }) = &mut event.fact {
                *gpu = Some(first + place as u32);
            }
            found.extend(kernel(&event, |_| None));
        }
        first += had.gpus.len() as u32;
    }
    found
}

/// A program may be gone before the kernel has written why.
const LATE: api::Span = api::Span::secs(5);

fn attempts(workload: &Workload) -> Vec<Attempt> {
    let past = workload.past.iter().map(|p| (p.attempt, &p.members));
    let all = past.chain((workload.attempt > 0).then_some((workload.attempt, &workload.members)));
    all.map(|(number, members)| attempt(number, members)).collect()
}

/// A gang ended for the reason of the first member that ended by itself.
fn attempt(number: u32, members: &[Member]) -> Attempt {
    let started = |m: &Member| match &m.state {
        MemberState::Running { started_at, .. } => Some(*started_at),
        MemberState::Ended { started_at, .. } => *started_at,
        MemberState::Assigned | MemberState::Pulling => None,
    };
    let ended = |m: &Member| match &m.state {
        MemberState::Ended { at, .. } => Some(*at),
        _ => None,
    };
    let over = !members.is_empty() && members.iter().all(|m| m.state.ended());
    let told = members
        .iter()
        .min_by_key(|m| (matches!(stop_of(m), Some(StopReason::GangBroken)), ended(m)))
        .filter(|_| over);
    let outcome = told.and_then(|m| match &m.state {
        MemberState::Ended { outcome, stop, .. } => Some((outcome, *stop)),
        _ => None,
    });
    let oom = members.iter().find_map(|m| match &m.state {
        MemberState::Ended {
            outcome: Outcome::OomKilled {
                limit_bytes,
                peak_bytes,
            },
            ..
        } => Some(Oom {
            limit_bytes: limit_bytes.map(|b| b.bytes() as f64),
            peak_bytes: peak_bytes.map(|b| b.bytes() as f64),
        }),
        _ => None,
    });
    Attempt {
        number,
        node: told.or(members.first()).map(|m| m.node.to_string()),
        started_ms: members.iter().filter_map(started).min().map(|t| t.as_millisecond()),
        ended_ms: over
            .then(|| members.iter().filter_map(ended).max())
            .flatten()
            .map(|t| t.as_millisecond()),
        exit_code: outcome.and_then(|(o, _)| o.exit_code()),
        reason: outcome.and_then(|(o, stop)| reason(o, stop)),
        oom,
    }
}

fn stop_of(member: &Member) -> Option<StopReason> {
    match &member.state {
        MemberState::Ended { stop, .. } => *stop,
        _ => None,
    }
}

fn reason(outcome: &Outcome, stop: Option<StopReason>) -> Option<ExitReason> {
    match (outcome, stop) {
        (Outcome::OomKilled { .. }, _) => Some(ExitReason::OomKilled),
        (_, Some(StopReason::Timeout)) => Some(ExitReason::TimedOut),
        (_, Some(StopReason::Preempted)) => Some(ExitReason::Preempted),
        (_, Some(StopReason::Unhealthy)) => Some(ExitReason::Unhealthy),
        (_, Some(StopReason::Fenced)) => Some(ExitReason::NodeLost),
        (_, Some(StopReason::Cancelled | StopReason::Drained | StopReason::Migrated | StopReason::NotWanted)) => {
            Some(ExitReason::Cancelled)
        }
        (Outcome::StartFailed { code, .. }, _) if *code == api::ErrorCode::ImageNotFound => Some(ExitReason::ImagePull),
        (Outcome::StartFailed { .. }, _) => Some(ExitReason::StartFailed),
        (Outcome::Exited { code: 0 }, _) => Some(ExitReason::Completed),
        (Outcome::Exited { .. } | Outcome::Signaled { .. }, _) => Some(ExitReason::Error),
        (Outcome::Unknown { .. }, _) => None,
    }
}

/// Workloads that haven't ended and fail again and again, for `health`: told by their attempts alone.
#[must_use]
pub fn troubled(view: &View, now: Timestamp) -> Vec<Finding> {
    let failing = view.active().filter(|w| w.restarts > 0 && !w.past.is_empty());
    failing
        .take(TROUBLED_MAX)
        .flat_map(|w| diagnosis::diagnose_workload(&by_record(w, now.as_millisecond()), None).findings)
        .collect()
}
