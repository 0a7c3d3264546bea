//! What a workload's diagnosis is made from.

use serde::{Deserialize, Serialize};

use crate::node::{KernelEvent, sort_events};
use crate::patterns::LogFact;
use crate::{Series, SeriesSet, Target, metric};

/// Time after the start that isn't judged: images, data and compilers warm up.
const WARM_UP_MS: i64 = 5 * 60_000;

/// All that is known about a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadFacts {
    /// Its id.
    pub id: String,
    /// As of when: now, or when it ended.
    pub now_ms: i64,
    /// Length of the window that is looked at, which ends now.
    pub window_ms: i64,
    /// Where it stands.
    pub phase: Phase,
    /// When the present attempt began to run.
    pub started_ms: Option<i64>,
    /// What it asked for.
    pub requests: Requests,
    /// Nodes that it is on.
    pub nodes: Vec<String>,
    /// Samples of the window: of its GPUs while it held them (numbered through), of itself (`workload.…`), what it
    /// reports (`reported.…`, see [`crate::metric::reported`]), and of its nodes what bears on it (`pressure.…`, `network.throughput`).
    pub series: SeriesSet,
    /// Samples of the same run before the window, for what is usual: of its memory and its throughput. Coarser ones do.
    pub history: SeriesSet,
    /// What an interface of its nodes can carry. `None`: not known.
    pub network_capacity_bytes_per_second: Option<f64>,
    /// What a GPU's NVLinks can carry. `None`: not known, or none.
    pub nvlink_capacity_bytes_per_second: Option<f64>,
    /// Its attempts.
    pub attempts: Vec<Attempt>,
    /// What its output tells, as [`crate::patterns::Scanner`] has counted it.
    pub logs: Vec<LogFact>,
    /// XID errors of its GPUs while it held them. Others are left aside.
    pub kernel: Vec<KernelEvent>,
    /// Members of its gang.
    pub ranks: Vec<Rank>,
}

/// Where a workload stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It waits for a place, or to be tried again.
    #[default]
    Pending,
    /// Its image is being fetched.
    Pulling,
    /// It runs.
    Running,
    /// It has ended.
    Ended,
}

/// What a workload asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Requests {
    /// GPUs, of all members together.
    pub gpus: u32,
    /// Cores. `None`: no limit.
    pub cpu_cores: Option<f64>,
    /// Memory. `None`: no limit.
    pub memory_bytes: Option<f64>,
}

/// One go at running it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attempt {
    /// Its number.
    pub number: u32,
    /// Where.
    pub node: Option<String>,
    /// When it began to run. `None`: it never did.
    pub started_ms: Option<i64>,
    /// When it ended. `None`: it goes on.
    pub ended_ms: Option<i64>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// Why it ended. `None`: it goes on, or that isn't known.
    pub reason: Option<ExitReason>,
    /// What kernel or engine tell of memory that ran out. `None`: they tell of none.
    pub oom: Option<Oom>,
}

/// Why an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitReason {
    /// Exit code 0.
    Completed,
    /// Another exit code, or a signal.
    Error,
    /// Kernel or engine say that memory ran out.
    OomKilled,
    /// The image could not be fetched.
    ImagePull,
    /// It could not be started.
    StartFailed,
    /// Its health check failed.
    Unhealthy,
    /// Its time was up.
    TimedOut,
    /// Somebody stopped it.
    Cancelled,
    /// It made room for another.
    Preempted,
    /// Its node was lost.
    NodeLost,
}

/// Memory that ran out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Oom {
    /// The limit in force.
    pub limit_bytes: Option<f64>,
    /// The most that was used.
    pub peak_bytes: Option<f64>,
}

/// A member of a gang.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rank {
    /// Its number, from 0.
    pub rank: u32,
    /// Where it is.
    pub node: Option<String>,
    /// What it reports, and its GPUs.
    pub series: SeriesSet,
}

impl WorkloadFacts {
    /// The same in order, of the window only.
    pub(super) fn cleaned(&self) -> Self {
        let from = self.now_ms - self.window_ms;
        let mut it = Self {
            series: self.series.between(from, self.now_ms),
            history: self.history.between(i64::MIN, from - 1),
            ..self.clone()
        };
        it.attempts.sort_by_key(|a| a.number);
        it.logs.sort_by(|a, b| a.pattern.cmp(&b.pattern));
        sort_events(&mut it.kernel);
        it.ranks.sort_by_key(|r| r.rank);
        for r in &mut it.ranks {
            r.series = r.series.between(from, self.now_ms);
        }
        it
    }

    pub(super) fn target(&self) -> Target {
        Target::Workload {
            workload: self.id.clone(),
        }
    }

    /// Samples of the time when it was under way: without its first minutes.
    pub(super) fn steady(&self) -> SeriesSet {
        match self.started_ms {
            Some(start) => self.series.between(start + WARM_UP_MS, self.now_ms),
            None => self.series.clone(),
        }
    }

    /// Whether it runs, and has for longer than a time.
    pub(super) fn runs_for(&self, ms: i64) -> bool {
        self.phase == Phase::Running && self.started_ms.is_some_and(|s| self.now_ms - s >= ms)
    }

    /// The most memory that it has used, by samples or by what an out-of-memory kill tells.
    pub(super) fn memory_peak(&self) -> Option<f64> {
        let sampled = self
            .series
            .get(metric::WORKLOAD_MEMORY)
            .and_then(Series::max)
            .map(|p| p.1);
        let told = self.attempts.iter().filter_map(|a| a.oom?.peak_bytes).reduce(f64::max);
        match (sampled, told) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        }
    }

    /// What a larger limit has to be larger than. `None`: neither limit nor use is known.
    pub(super) fn memory_needed(&self) -> Option<f64> {
        let limit = self
            .attempts
            .iter()
            .filter_map(|a| a.oom?.limit_bytes)
            .reduce(f64::max)
            .or(self.requests.memory_bytes);
        match (limit, self.memory_peak()) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        }
    }

    /// Lines of a pattern.
    pub(super) fn lines(&self, pattern: &str) -> u64 {
        self.logs.iter().filter(|l| l.pattern == pattern).map(|l| l.count).sum()
    }
}
