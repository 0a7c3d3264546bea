//! What went wrong on nodes in the last day: their kernel logs' facts and their warnings, kept in memory.
//!
//! Events are stored by time alone, and a day can hold a million of them: reading them for each question would cost
//! seconds. So they are read once, and then followed, by [`crate::happenings`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{
    ApiError, ErrorCode, NodeName, Timestamp,
    event::{Event, Severity},
    time,
    wire::{AmdTrouble, FactKind},
};
use diagnosis::{Kernel, KernelEvent, LogGroup};
use tokio::sync::watch;

use super::DAY;

/// Events of a node that are kept; of a flood the newest.
const EACH_MAX: usize = 1_000;
/// For how long a question waits until the past has been read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nodes' troubles of the last day.
pub struct Journal {
    nodes: Mutex<BTreeMap<NodeName, VecDeque<Arc<Event>>>>,
    /// Whether the past has been read.
    ready: watch::Sender<bool>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            nodes: Mutex::default(),
            ready: watch::channel(false).0,
        }
    }
}

impl Journal {
    /// Returns when the past has been read; at once if it has.
    ///
    /// # Errors
    /// `TIMED_OUT`: it can't be read, or takes too long.
    pub async fn ready(&self) -> Result<(), ApiError> {
        let mut ready = self.ready.subscribe();
        let read = tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await;
        read.map(drop)
            .map_err(|_| ApiError::new(ErrorCode::TimedOut, "the last day's events haven't been read yet"))
    }

    /// A node's events since a time, oldest first.
    #[must_use]
    pub fn of(&self, node: &NodeName, since: Timestamp) -> Vec<Arc<Event>> {
        let nodes = self.nodes();
        let all = nodes.get(node).into_iter().flatten();
        let mut found: Vec<Arc<Event>> = all.filter(|e| e.at >= since).cloned().collect();
        found.sort_by_key(|e| e.at);
        found
    }

    /// Takes an event in, if it tells of a node's trouble.
    pub fn push(&self, event: Event, now: Timestamp) {
        let Some(node) = event.node.as_deref().filter(|_| event.kind == "node") else {
            return;
        };
        let (name, oldest) = (NodeName::new(node), time::before(now, DAY));
        if (event.fact.is_none() && event.severity == Severity::Info) || event.at < oldest {
            return;
        }
        let mut nodes = self.nodes();
        if !nodes.contains_key(&name) {
            // Rare enough to look for nodes that are gone, or well.
            nodes.retain(|_, events| events.iter().any(|e| e.at >= oldest));
        }
        let events = nodes.entry(name).or_default();
        events.retain(|e| e.at >= oldest);
        if events.len() >= EACH_MAX {
            events.pop_front();
        }
        events.push_back(Arc::new(event));
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeName, VecDeque<Arc<Event>>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been kept is read anew: questions wait.
    pub fn begin(&self) {
        self.ready.send_replace(false);
        self.nodes().clear();
    }

    /// The past has been read.
    pub fn complete(&self) {
        self.ready.send_replace(true);
    }
}

/// What the kernel said, for the diagnosis. `None`: nothing is wrong, or the kernel said nothing. `held`: who held a
/// GPU at that time.
pub(super) fn kernel(event: &Event, held: impl Fn(u32) -> Option<String>) -> Option<KernelEvent> {
    let text = || event.message.clone();
    let what = match event.fact.as_ref()? {
        FactKind::Xid { xid, pci, gpu, .. } => Kernel::Xid {
            code: *xid,
            gpu: *gpu,
            pci: Some(pci.clone()),
            workload: gpu.and_then(held),
            text: text(),
        },
        FactKind::AmdGpu { gpu, trouble, .. } => Kernel::AmdGpu {
            gpu: *gpu,
            trouble: match trouble {
                AmdTrouble::Timeout => diagnosis::AmdTrouble::Timeout,
                AmdTrouble::Reset => diagnosis::AmdTrouble::Reset,
                AmdTrouble::Lost => diagnosis::AmdTrouble::Lost,
                AmdTrouble::Uncorrectable => diagnosis::AmdTrouble::Uncorrectable,
                AmdTrouble::PageFault => diagnosis::AmdTrouble::PageFault,
            },
            text: text(),
        },
        FactKind::NvSwitch { sxid, fatal, .. } => Kernel::NvSwitch {
            sxid: *sxid,
            fatal: *fatal,
            text: text(),
        },
        FactKind::OomKill {
            process, cgroup, job, ..
        } => Kernel::OomKill {
            process: Some(process.clone()),
            workload: (job.as_ref().map(|job| job.workload.to_string()))
                .or_else(|| cgroup.as_deref().and_then(workload_of)),
            limited: cgroup.is_some(),
        },
        FactKind::LinkDown { interface } => Kernel::LinkDown {
            device: interface.clone(),
        },
        FactKind::LinkUp { .. } => return None,
        FactKind::NicError { interface } => Kernel::NetworkError {
            device: interface.clone(),
            text: text(),
        },
        FactKind::DiskError { device } => Kernel::DiskError {
            device: device.clone(),
            text: text(),
        },
        FactKind::FilesystemError { device } => Kernel::Filesystem { device: device.clone() },
        FactKind::Mce { corrected } => Kernel::MachineCheck {
            corrected: *corrected,
            text: text(),
        },
        FactKind::PcieError { pci, corrected } => Kernel::Pcie {
            corrected: *corrected,
            pci: Some(pci.clone()),
            text: text(),
        },
        FactKind::CpuThrottled => Kernel::CpuThrottled,
        FactKind::HungTask { .. } => Kernel::Stall { text: text() },
    };
    Some(KernelEvent {
        at_ms: event.at.as_millisecond(),
        event: what,
    })
}

/// The workload whose control group it is, where its agent didn't say: most jobs' groups are named by their job's key,
/// `wl-x.1.0`.
fn workload_of(cgroup: &str) -> Option<String> {
    let key = cgroup.split('/').find(|part| part.starts_with("wl-"))?;
    Some(key.split('.').next().unwrap_or(key).to_owned())
}

/// Warnings that aren't the kernel's, like ones together.
pub(super) fn warnings(events: &[Arc<Event>]) -> Vec<LogGroup> {
    let mut groups: BTreeMap<(&str, &str), LogGroup> = BTreeMap::new();
    for event in events.iter().filter(|e| e.fact.is_none()) {
        let level = match event.severity {
            Severity::Info => continue,
            Severity::Warning => "warn",
            Severity::Error => "error",
        };
        let at = event.at.as_millisecond();
        let group = groups.entry((&event.reason, level)).or_insert_with(|| LogGroup {
            source: "gateway".to_owned(),
            level: level.to_owned(),
            text: String::new(),
            count: 0,
            first_ms: at,
            last_ms: at,
        });
        group.count += 1;
        group.text.clone_from(&event.message);
        group.last_ms = at;
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use crate::draft::node_event;

    use super::*;

    #[test]
    fn a_kill_for_want_of_memory_is_the_jobs_that_the_agent_or_the_group_names() {
        let whose = |cgroup: Option<&str>, job: Option<&str>| {
            let node = NodeName::new("a");
            let at = Timestamp::UNIX_EPOCH;
            let mut event = node_event(&node, "OomKill", "x", "node:a", Severity::Warning, at);
            event.fact = Some(FactKind::OomKill {
                process: "python".to_owned(),
                pid: 7,
                cgroup: cgroup.map(str::to_owned),
                job: job.map(|job| job.parse().unwrap()),
            });
            match kernel(&event, |_| None).unwrap().event {
                Kernel::OomKill { workload, limited, .. } => (workload, limited),
                other => panic!("{other:?}"),
            }
        };
        let container = Some("/system.slice/docker-0123.scope");
        assert_eq!(whose(container, Some("wl-a.2.0")), (Some("wl-a".to_owned()), true));
        assert_eq!(whose(container, None), (None, true), "somebody else's");
        assert_eq!(
            whose(Some("/clawbernetes/wl-b.1.0"), None),
            (Some("wl-b".to_owned()), true)
        );
        assert_eq!(whose(None, None), (None, false));
    }
}
