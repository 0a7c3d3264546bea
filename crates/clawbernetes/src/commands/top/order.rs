//! In which order rows come, and which the filter lets through.

use api::{
    GpuIndex, NodeName, Size, Span, Timestamp,
    node::{GpuView, NodeStatus},
    time,
    workload::{Phase, WorkloadSummary},
};

use super::state::{Item, Sort, State};

impl State {
    /// By which equal rows are told apart.
    pub(super) fn name(&self, item: Item) -> (&str, &str, GpuIndex) {
        match item {
            Item::Node(at) => (self.node(at).name.as_str(), "", GpuIndex::MIN),
            Item::Gpu(at, gpu) => (self.node(at).name.as_str(), "", self.node(at).gpus[gpu].index),
            Item::Workload(at) => {
                let workload = self.workload(at);
                let node = workload.node.as_ref().map_or("", NodeName::as_str);
                match self.sort().0 {
                    Sort::Node => (node, workload.id.as_str(), GpuIndex::MIN),
                    Sort::Name => (&workload.name, workload.id.as_str(), GpuIndex::MIN),
                    _ => (workload.id.as_str(), "", GpuIndex::MIN),
                }
            }
        }
    }

    /// The number that a row is sorted by; greater ones come first. `None`: unknown.
    pub(super) fn number(&self, item: Item, sort: Sort) -> Option<i64> {
        match item {
            Item::Node(at) => {
                let node = self.node(at);
                match sort {
                    Sort::Utilization => utilization(&node.gpus).map(|percent| (percent * 100.0) as i64),
                    Sort::Temperature => hottest(&node.gpus).map(i64::from),
                    Sort::Memory => memory(&node.gpus).and_then(memory_share),
                    Sort::Free => Some(i64::from(node.gpus_free)),
                    Sort::Attention => {
                        Some(trouble(node.status) * WRONG + heat(hottest(&node.gpus), utilization(&node.gpus)))
                    }
                    _ => Some(0),
                }
            }
            Item::Gpu(at, gpu) => {
                let node = self.node(at);
                let gpu = &node.gpus[gpu];
                match sort {
                    Sort::Utilization => gpu.utilization_percent.map(i64::from),
                    Sort::Temperature => gpu.temperature_celsius.map(i64::from),
                    Sort::Memory => memory(std::slice::from_ref(gpu)).and_then(memory_share),
                    Sort::Power => gpu.power_watts.map(|watts| (watts * 100.0) as i64),
                    Sort::Attention => {
                        let wrong = match gpu.health.as_str() {
                            "failed" => 4,
                            "degraded" => 3,
                            _ if self.stale(node) => 2,
                            "ok" => 0,
                            _ => 1,
                        };
                        let busy = gpu.utilization_percent.map(f32::from);
                        Some(wrong * WRONG + heat(gpu.temperature_celsius, busy))
                    }
                    _ => Some(0),
                }
            }
            Item::Workload(at) => {
                let workload = self.workload(at);
                match sort {
                    Sort::Gpus => Some(i64::from(workload.gpus_requested)),
                    Sort::Submitted => Some(workload.submitted_at.as_millisecond()),
                    Sort::Runtime => runtime(workload, self.clock()).and_then(|span| i64::try_from(span.millis()).ok()),
                    Sort::Attention => Some(urgency(workload)),
                    // What isn't placed has no node.
                    Sort::Node => workload.node.as_ref().map(|_| 0),
                    _ => Some(0),
                }
            }
        }
    }

    /// Whether something about a row holds this word.
    pub(super) fn holds(&self, item: Item, word: &str) -> bool {
        match item {
            Item::Node(at) => {
                let node = self.node(at);
                contains(node.name.as_str(), word)
                    || contains(node.status.name(), word)
                    || node.gpus.iter().any(|gpu| contains(&gpu.model, word))
                    || node
                        .labels
                        .iter()
                        .any(|(key, value)| contains(&format!("{key}={value}"), word))
            }
            Item::Gpu(at, gpu) => {
                let node = self.node(at);
                let gpu = &node.gpus[gpu];
                contains(node.name.as_str(), word)
                    || contains(&gpu.model, word)
                    || contains(&gpu.health, word)
                    || contains(&gpu.uuid, word)
                    || gpu.workload.as_ref().is_some_and(|id| contains(id.as_str(), word))
            }
            Item::Workload(at) => {
                let workload = self.workload(at);
                let texts = [
                    workload.id.as_str(),
                    &workload.name,
                    &workload.namespace,
                    &workload.owner,
                    &workload.image,
                    workload.phase.name(),
                    workload.reason.as_deref().unwrap_or_default(),
                    workload.node.as_ref().map_or("", NodeName::as_str),
                ];
                texts.iter().any(|text| contains(text, word))
            }
        }
    }
}

/// What one degree of something wrong weighs, against any heat.
const WRONG: i64 = 1_000_000;

/// How wrong a node's state is.
const fn trouble(status: NodeStatus) -> i64 {
    match status {
        NodeStatus::Critical => 6,
        NodeStatus::Unreachable => 5,
        NodeStatus::Degraded => 4,
        NodeStatus::Unknown => 3,
        NodeStatus::Joining => 2,
        NodeStatus::Draining => 1,
        NodeStatus::Healthy => 0,
    }
}

/// How hot and how busy, in steps of 5 °C and 20 %: rows that change places at every look can't be read.
fn heat(celsius: Option<i16>, percent: Option<f32>) -> i64 {
    let celsius = celsius.map_or(0, |celsius| i64::from(celsius.max(0)) / 5);
    let percent = percent.map_or(0, |percent| percent as i64 / 20);
    celsius * 1000 + percent
}

/// What ended badly comes first, newest first; then what waits, longest first; then what runs, then what is over.
fn urgency(workload: &WorkloadSummary) -> i64 {
    // Milliseconds of many thousand years.
    const CLASS: i64 = 1 << 50;
    let ended = workload.finished_at.unwrap_or(workload.submitted_at).as_millisecond();
    let waits = -workload.submitted_at.as_millisecond();
    match workload.phase {
        Phase::Failed | Phase::Lost | Phase::TimedOut | Phase::Preempted => 4 * CLASS + ended,
        Phase::Pending => 3 * CLASS + waits,
        Phase::Scheduled | Phase::Pulling => 2 * CLASS + waits,
        Phase::Running => CLASS + i64::from(workload.gpus_requested),
        Phase::Succeeded | Phase::Cancelled => ended - CLASS,
    }
}

/// Mean of the GPUs that report it, 0–100. `None`: none does.
pub(super) fn utilization(gpus: &[GpuView]) -> Option<f32> {
    let known = || gpus.iter().filter_map(|gpu| gpu.utilization_percent.map(f32::from));
    let count = known().count();
    (count > 0).then(|| known().sum::<f32>() / count as f32)
}

/// Of the GPUs that report it, in °C. `None`: none does.
pub(super) fn hottest(gpus: &[GpuView]) -> Option<i16> {
    gpus.iter().filter_map(|gpu| gpu.temperature_celsius).max()
}

/// How long the attempt has run, or ran. `None`: it hasn't begun.
pub(super) fn runtime(workload: &WorkloadSummary, now: Timestamp) -> Option<Span> {
    let from = workload.started_at?;
    Some(time::between(from, workload.finished_at.unwrap_or(now)))
}

/// GPU memory in use, and all of it. `None`: there is none, or some GPU doesn't report it.
pub(super) fn memory(gpus: &[GpuView]) -> Option<(Size, Size)> {
    let mut sum = (0u64, 0u64);
    for gpu in gpus {
        sum.0 = sum.0.saturating_add(gpu.memory_used_bytes?.bytes());
        sum.1 = sum.1.saturating_add(gpu.memory_total_bytes?.bytes());
    }
    (sum.1 > 0).then_some((Size(sum.0), Size(sum.1)))
}

/// Share of memory in use, in hundredths of a percent.
fn memory_share((used, total): (Size, Size)) -> Option<i64> {
    i64::try_from(u128::from(used.bytes()) * 10_000 / u128::from(total.bytes())).ok()
}

/// Whether a text holds a word, whatever the case of ASCII letters.
fn contains(text: &str, word: &str) -> bool {
    let (text, word) = (text.as_bytes(), word.as_bytes());
    text.windows(word.len().max(1))
        .any(|part| part.eq_ignore_ascii_case(word))
}
