//! What is counted since the gateway's start: XID errors of GPUs, and attempts of workloads that ended badly.
//!
//! What happened in the day before is there with 0: a counter that was at 1 before a restart and comes back with 1 would
//! look as if nothing had happened.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use api::{
    GpuIndex, Span, Timestamp, WorkloadId,
    event::Event,
    metric::label,
    time,
    wire::FactKind,
    workload::{Transition, Workload},
};

use super::own::Value;
use crate::{lifecycle, view::View};

/// For how long a workload's counts are told after the last of them.
const TOLD: Span = Span::secs(86_400);

/// The counts.
#[derive(Debug, Default)]
pub struct Counted {
    xids: Mutex<BTreeMap<Xid, u64>>,
    ends: Mutex<Ends>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Xid {
    node: String,
    gpu: Option<GpuIndex>,
    uuid: Option<String>,
    code: u32,
}

#[derive(Debug, Default)]
struct Ends {
    /// When counting began. `None`: it hasn't.
    since: Option<Timestamp>,
    workloads: BTreeMap<WorkloadId, Tally>,
}

#[derive(Debug)]
struct Tally {
    namespace: String,
    /// Steps up to this time are counted.
    through: Timestamp,
    oom_kills: u64,
    crashes: u64,
}

impl Counted {
    /// Takes an event in. `new`: it happened since the gateway's start.
    pub fn event(&self, event: &Event, new: bool) {
        if let (Some(node), Some(FactKind::Xid { xid, gpu, uuid, .. })) = (&event.node, &event.fact) {
            let of = Xid {
                node: node.clone(),
                gpu: *gpu,
                uuid: uuid.clone(),
                code: *xid,
            };
            *lock(&self.xids).entry(of).or_default() += u64::from(new);
        }
    }

    /// Looks at the steps that workloads have taken, and tells all counts. The first look begins the counting.
    pub fn look(&self, view: &View, at: Timestamp) -> Vec<Value> {
        let horizon = time::before(at, TOLD);
        let mut ends = lock(&self.ends);
        let lately = |workload: &&Workload| workload.timeline.last().is_some_and(|step| step.at >= horizon);
        view.workloads()
            .map(|workload| &**workload)
            .filter(lately)
            .for_each(|workload| ends.take(workload, horizon, at));
        ends.since.get_or_insert(at);
        ends.workloads
            .retain(|id, tally| tally.through >= horizon && view.workload(id).is_some());
        let mut values = Vec::new();
        for (id, tally) in &ends.workloads {
            let labels = || {
                vec![
                    ("namespace", tally.namespace.clone()),
                    (label::WORKLOAD, id.to_string()),
                ]
            };
            values.push(("workload.oom_kills", labels(), tally.oom_kills as f64));
            values.push(("workload.crashes", labels(), tally.crashes as f64));
        }
        for (of, count) in lock(&self.xids).iter() {
            let mut labels = vec![(label::NODE, of.node.clone()), ("xid", of.code.to_string())];
            labels.extend(of.gpu.map(|gpu| (label::GPU, gpu.to_string())));
            labels.extend(of.uuid.clone().map(|uuid| (label::UUID, uuid)));
            values.push(("gpu.xids", labels, *count as f64));
        }
        values
    }
}

impl Ends {
    fn take(&mut self, workload: &Workload, horizon: Timestamp, at: Timestamp) {
        let since = self.since.unwrap_or(at);
        let oom = |step: &Transition| step.reason.as_deref() == Some("OOM_KILLED");
        let ended_badly = |step: &&Transition| oom(step) || lifecycle::failed_again(step);
        for step in workload
            .timeline
            .iter()
            .filter(|step| step.at >= horizon)
            .filter(ended_badly)
        {
            let tally = self.workloads.entry(workload.id.clone()).or_insert_with(|| Tally {
                namespace: workload.namespace.clone(),
                through: Timestamp::MIN,
                oom_kills: 0,
                crashes: 0,
            });
            if step.at > tally.through {
                tally.through = step.at;
                if step.at > since {
                    tally.oom_kills += u64::from(oom(step));
                    tally.crashes += u64::from(lifecycle::failed_again(step));
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use api::{event::Severity, workload::Phase};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn workload() -> Workload {
        let asked = r#"{"name":"a","spec":{"image":"host","command":["true"]}}"#;
        crate::decide::submit::workload(serde_json::from_str(asked).unwrap(), 7, "ann", at(0)).unwrap()
    }

    fn step(second: i64, phase: Phase, reason: &str) -> Transition {
        Transition {
            at: at(second),
            phase,
            attempt: 1,
            reason: Some(reason.to_owned()),
            message: None,
            actor: "node:a".to_owned(),
        }
    }

    fn counts(ends: &Ends) -> Vec<(u64, u64)> {
        ends.workloads.values().map(|t| (t.oom_kills, t.crashes)).collect()
    }

    #[test]
    fn bad_ends_are_counted_once_and_from_the_start() {
        let mut workload = workload();
        workload.timeline.push(step(10, Phase::Pending, "OOM_KILLED"));
        let mut ends = Ends::default();
        ends.take(&workload, at(-1_000), at(20));
        assert_eq!(counts(&ends), [(0, 0)], "that was before");
        ends.since = Some(at(20));
        workload.timeline.push(step(30, Phase::Pending, "OOM_KILLED"));
        workload.timeline.push(step(40, Phase::Pending, "PREEMPTED"));
        workload.timeline.push(step(50, Phase::Pending, "EXIT_1"));
        for _ in 0..2 {
            ends.take(&workload, at(-1_000), at(60));
            assert_eq!(counts(&ends), [(1, 2)]);
        }
        // The last one isn't followed by another attempt, and the oldest steps are forgotten.
        workload.timeline.drain(..3);
        workload.timeline.push(step(70, Phase::Failed, "OOM_KILLED"));
        ends.take(&workload, at(-1_000), at(80));
        assert_eq!(counts(&ends), [(2, 2)]);
    }

    #[test]
    fn xids_are_counted_by_gpu_and_number() {
        let counted = Counted::default();
        let event = |xid| Event {
            id: String::new(),
            at: at(0),
            kind: "node".to_owned(),
            subject: "gpu-7".to_owned(),
            namespace: None,
            node: Some("gpu-7".to_owned()),
            reason: format!("Xid{xid}"),
            message: String::new(),
            actor: "node:gpu-7".to_owned(),
            severity: Severity::Error,
            fact: Some(FactKind::Xid {
                xid,
                pci: "0000:3b:00.0".to_owned(),
                gpu: Some(2),
                uuid: None,
                pid: None,
            }),
        };
        counted.event(&event(79), false);
        counted.event(&event(31), true);
        counted.event(&event(31), true);
        let xids = lock(&counted.xids);
        assert_eq!(xids.values().copied().collect::<Vec<_>>(), [2, 0]);
    }
}
