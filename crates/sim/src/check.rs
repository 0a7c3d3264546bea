//! What must hold, whatever happens. Checked whenever the store changes and whenever a process begins or ends.
//!
//! 1. No GPU has two claims, and claims and members agree ([`View::check`]).
//! 2. No two living processes share a GPU.
//! 3. A living process is one that the store knows as not ended. So a later attempt never begins while a process of
//!    an earlier one lives anywhere: not after an end that a node reported, and not after a loss, because fencing
//!    has ended everything on the node by then. And no two processes of one rank live at once. Only what ran on a
//!    node that was removed by force may outlive its end in the store; its workload never has a later attempt.
//! 4. An ended workload never changes; the ends that are kept are those that processes really had; a success is
//!    not run again unless that was asked for.
//! 5. No node is given more CPU or memory than it has.
//! 6. A gang is bound whole.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    GpuIndex, NodeName, WorkloadId,
    workload::{JobKey, Member, MemberState, Outcome, Phase, RestartPolicy, Workload},
};
use gateway::{
    decide::plan::DEFAULT_CPU,
    view::{Touched, Versioned, View},
};
use store::{Range, embedded::Reader};

use crate::world::World;

/// What is known of the world, apart from what anybody in it believes.
#[derive(Default)]
pub(crate) struct Checks {
    /// The store, as it is on disk.
    pub(crate) truth: View,
    /// Every workload as it was last written.
    last: BTreeMap<WorkloadId, Versioned<Workload>>,
    on_gpu: BTreeMap<(usize, GpuIndex), (JobKey, u64)>,
    /// Living processes: machine and process.
    living: BTreeMap<JobKey, (usize, u64)>,
    /// How each process really ended.
    ends: BTreeMap<(JobKey, usize), Outcome>,
    /// Jobs of removed nodes.
    abandoned: BTreeSet<JobKey>,
    pub(crate) commits: u64,
    pub(crate) conflicts: u64,
    pub(crate) started: u64,
    pub(crate) bound: u64,
    pub(crate) lost: u64,
    pub(crate) preempted: u64,
}

fn member<'a>(w: &'a Workload, job: &JobKey, node: &NodeName) -> Option<&'a Member> {
    (w.attempt == job.attempt)
        .then(|| w.members.iter().find(|m| m.rank == job.rank && m.node == *node))
        .flatten()
}

fn success_by_itself(member: &Member) -> bool {
    matches!(
        &member.state,
        MemberState::Ended { outcome, stop: None, .. } if outcome.success()
    )
}

/// What is wrong with a workload's change. `None`: nothing.
fn wrong_change(old: Option<&Workload>, new: &Workload) -> Option<String> {
    let id = &new.id;
    let Some(old) = old else {
        return (new.attempt != 0 || new.phase != Phase::Pending).then(|| format!("{id} begins as {}", new.phase));
    };
    if old.phase.ended() {
        return (old != new).then(|| format!("{id} changed after its end: {} -> {}", old.phase, new.phase));
    }
    if new.phase == Phase::Succeeded {
        let success = |m: &Member| matches!(&m.state, MemberState::Ended { outcome, .. } if outcome.success());
        if !new.members.iter().all(success) {
            return Some(format!("{id} succeeded without its members"));
        }
    }
    if new.spec.restart == RestartPolicy::Never && new.failures > new.spec.retries {
        return Some(format!(
            "{id} was retried {} times of {}",
            new.failures, new.spec.retries
        ));
    }
    if new.attempt == old.attempt {
        let same = old
            .members
            .iter()
            .zip(&new.members)
            .all(|(a, b)| a.node == b.node && a.gpus == b.gpus && (!a.state.ended() || a.state == b.state));
        return (old.members.len() != new.members.len() || !same).then(|| format!("the members of {id} changed"));
    }
    if new.attempt != old.attempt + 1 {
        return Some(format!("{id} went from attempt {} to {}", old.attempt, new.attempt));
    }
    let removed = |m: &&Member| matches!(&m.state, MemberState::Ended { outcome: Outcome::Unknown { why }, .. } if why.ends_with("was removed"));
    if let Some(m) = old.members.iter().find(removed) {
        return Some(format!("{id} begins anew though rank {} was on a removed node", m.rank));
    }
    if let Some(m) = old.members.iter().find(|m| !m.state.ended()) {
        return Some(format!("{id} begins anew though rank {} hasn't ended", m.rank));
    }
    if !old.members.is_empty() && old.spec.restart == RestartPolicy::Never && old.members.iter().all(success_by_itself)
    {
        return Some(format!("{id} succeeded and is run again"));
    }
    let spec = &new.spec;
    let mut nodes: Vec<_> = new.members.iter().map(|m| &m.node).collect();
    nodes.sort();
    nodes.dedup();
    let whole = new.members.len() == spec.node_count() as usize
        && nodes.len() == new.members.len()
        && new.members.iter().all(|m| m.gpus.len() == spec.gpus.count as usize);
    (!whole).then(|| format!("{id} was bound in part: {:?}", new.members))
}

impl World {
    /// A process begins.
    pub(crate) fn begins(&mut self, at: usize, job: &JobKey, id: u64, gpus: &[GpuIndex]) {
        self.checks.started += 1;
        self.mix(id);
        let name = self.nodes[at].name.clone();
        let mut wrong = None;
        for gpu in gpus {
            let before = self.checks.on_gpu.insert((at, *gpu), (job.clone(), id));
            if let Some((other, _)) = before {
                wrong = Some(format!("{job} and {other} both use GPU {gpu} of {name}"));
            }
        }
        let from = JobKey {
            attempt: 0,
            rank: 0,
            ..job.clone()
        };
        for (other, (there, _)) in self.checks.living.range(from..) {
            if other.workload != job.workload {
                break;
            }
            if other.attempt != job.attempt || other.rank == job.rank {
                let there = &self.nodes[*there].name;
                wrong = Some(format!("{job} begins on {name} while {other} lives on {there}"));
            }
        }
        self.checks.living.insert(job.clone(), (at, id));
        let known = self.checks.truth.workload(&job.workload);
        let ended = known
            .and_then(|w| member(w, job, &name))
            .is_none_or(|m| m.state.ended());
        if ended && !self.checks.abandoned.contains(job) {
            wrong.get_or_insert_with(|| format!("{job} begins on {name}, where the store has it as ended"));
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    /// A process is gone.
    pub(crate) fn ends(&mut self, at: usize, job: &JobKey, id: u64, gpus: &[GpuIndex]) {
        for gpu in gpus {
            if self
                .checks
                .on_gpu
                .get(&(at, *gpu))
                .is_some_and(|(_, holder)| *holder == id)
            {
                self.checks.on_gpu.remove(&(at, *gpu));
            }
        }
        if self.checks.living.get(job) == Some(&(at, id)) {
            self.checks.living.remove(job);
        }
    }

    /// This is how a job really ended.
    pub(crate) fn happened(&mut self, at: usize, job: &JobKey, outcome: &Outcome) {
        let before = self.checks.ends.insert((job.clone(), at), outcome.clone());
        if before.is_some() {
            self.fail(format!("{job} ended twice on n{at}"));
        }
    }

    /// A gateway that starts must find what the one before it has written.
    pub(crate) fn check_start(&mut self, view: &View) {
        let truth = &self.checks.truth;
        let same = view.revision() == truth.revision()
            && view.claims().eq(truth.claims())
            && view
                .workloads()
                .map(|w| &w.value)
                .eq(truth.workloads().map(|w| &w.value))
            && view.nodes().map(|n| &n.value).eq(truth.nodes().map(|n| &n.value));
        if !same {
            let text = format!(
                "the store was at revision {} and is now at {}, or holds something else",
                truth.revision(),
                view.revision()
            );
            self.fail(text);
        }
    }

    /// The store has changed.
    pub(crate) fn check_commit(&mut self, reader: &Reader) {
        let mut touched = Vec::new();
        loop {
            let from = self.checks.truth.revision();
            let (changes, to) = match reader.changes(&Range::all(), from) {
                Ok(read) => read,
                Err(error) => return self.fail(format!("the store's changes can't be read: {error}")),
            };
            for change in &changes {
                match self.checks.truth.apply(change) {
                    Ok(one) => touched.push(one),
                    Err(error) => return self.fail(error.to_string()),
                }
            }
            self.checks.truth.reached(to);
            if to == from {
                break;
            }
        }
        if touched.is_empty() {
            return;
        }
        self.mix(self.checks.truth.revision().0);
        for one in touched {
            match one {
                Touched::Workload(id, Some(new), _) => self.check_workload(id, new),
                Touched::Workload(id, None, _) => {
                    if self.checks.last.get(&id).is_some_and(|w| !w.phase.ended()) {
                        return self.fail(format!("{id} was removed before its end"));
                    }
                }
                Touched::Node(name, node) => {
                    let state = node.map_or_else(|| "removed".to_owned(), |n| format!("{:?}", n.reach));
                    self.trace(|| format!("store: node {name} is {state}"));
                }
                Touched::Service(..) | Touched::Deployment(..) | Touched::Other => {}
            }
        }
        if let Err(wrong) = self.checks.truth.check() {
            return self.fail(wrong);
        }
        self.check_living();
        self.check_capacity();
    }

    fn check_workload(&mut self, id: WorkloadId, new: Versioned<Workload>) {
        let old = self.checks.last.insert(id.clone(), new.clone());
        if let Some(wrong) = wrong_change(old.as_deref(), &new) {
            return self.fail(wrong);
        }
        if old.as_ref().is_none_or(|old| old.attempt != new.attempt) && new.attempt > 0 {
            self.checks.bound += 1;
        }
        let place = || {
            let all: Vec<String> = new
                .members
                .iter()
                .map(|m| {
                    let gpus: Vec<_> = m.gpus.iter().map(|g| g.index).collect();
                    let state = match &m.state {
                        MemberState::Ended { outcome, stop, .. } => format!("{outcome:?} {stop:?}"),
                        MemberState::Running { .. } => "running".to_owned(),
                        other => format!("{other:?}"),
                    };
                    format!("{}{gpus:?} {state}", m.node)
                })
                .collect();
            all.join("; ")
        };
        let stop = new.stop.as_ref().map(|s| s.reason);
        self.trace(|| {
            format!(
                "store: {id} attempt {} is {} {:?}, stop {stop:?}: {}",
                new.attempt,
                new.phase,
                new.reason,
                place()
            )
        });
        let mut wrong = None;
        for m in &new.members {
            let MemberState::Ended { outcome, .. } = &m.state else {
                continue;
            };
            let before = old.as_ref().filter(|old| old.attempt == new.attempt);
            let known = before.and_then(|old| old.members.iter().find(|o| o.rank == m.rank));
            if known.is_some_and(|o| o.state.ended()) {
                continue;
            }
            match outcome {
                Outcome::Unknown { why } if why.ends_with("was removed") => {
                    let job = JobKey {
                        workload: id.clone(),
                        attempt: new.attempt,
                        rank: m.rank,
                    };
                    self.checks.abandoned.insert(job);
                }
                Outcome::Unknown { .. } => self.checks.lost += 1,
                Outcome::StartFailed { .. } => {}
                seen => {
                    let job = JobKey {
                        workload: id.clone(),
                        attempt: new.attempt,
                        rank: m.rank,
                    };
                    let at = self.node_at(&m.node).unwrap_or(usize::MAX);
                    let really = self.checks.ends.get(&(job.clone(), at));
                    if really != Some(seen) {
                        wrong = Some(format!("{job} is said to have ended as {seen:?}, in truth {really:?}"));
                    }
                }
            }
        }
        if new.reason.as_deref() == Some("PREEMPTED") && new.phase == Phase::Pending {
            self.checks.preempted += 1;
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    /// Living processes are those of members that haven't ended.
    fn check_living(&mut self) {
        let mut wrong = None;
        for (job, (at, _)) in &self.checks.living {
            if self.checks.abandoned.contains(job) {
                continue;
            }
            let name = &self.nodes[*at].name;
            let known = self.checks.truth.workload(&job.workload);
            if known.and_then(|w| member(w, job, name)).is_none_or(|m| m.state.ended()) {
                wrong = Some(format!("{job} lives on {name}, and the store has it as ended"));
                break;
            }
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    fn check_capacity(&mut self) {
        let mut used: BTreeMap<&NodeName, (u64, u64)> = BTreeMap::new();
        for w in self.checks.truth.active() {
            for m in w.members.iter().filter(|m| !m.state.ended()) {
                let entry = used.entry(&m.node).or_default();
                entry.0 += u64::from(w.spec.cpu.unwrap_or(DEFAULT_CPU).millis());
                entry.1 += w.spec.memory.map_or(0, api::Size::bytes);
            }
        }
        let mut wrong = None;
        for (name, (cpu, memory)) in used {
            let inventory = self.checks.truth.node(name).and_then(|n| n.inventory.as_ref());
            let fits =
                inventory.is_some_and(|i| cpu <= u64::from(i.cpu.millis()) && memory <= i.memory_total_bytes.bytes());
            if !fits {
                wrong = Some(format!("{name} is given too much: CPU {cpu}m, memory {memory}"));
            }
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }
}
