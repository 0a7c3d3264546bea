//! The scheduler's picture of the fleet, kept up to date one change at a time, and its plans as transactions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use api::{
    Cpu, ErrorCode, NodeName, Size, Span, Timestamp, WorkloadId,
    node::{EngineKind, GpuLink as ApiLink, Node, Reach, TaintEffect},
    op::{Blocker, Explanation, ProposedMember},
    time,
    workload::{
        GpuOnNode, HOST_IMAGE, HeldGpu, Member, MemberState, Outcome, Phase, Priority, StopOrder, StopReason,
        TolerationOperator, Workload, WorkloadSpec,
    },
};
use scheduler::{
    Allocation, AllocationKey, Context, Fleet, Limits, NodeState, Placement, Plan, Queue, Request, RequestId, Usage,
};

use crate::{
    draft::Draft,
    lifecycle,
    view::{Touched, View},
};

/// CPU reserved for a member that names none: a node is shared by ten such a core, and no more.
pub const DEFAULT_CPU: Cpu = Cpu(100);

/// Time in which past use loses half of its weight in the fair share.
const USAGE_HALF_LIFE: Span = Span::secs(24 * 3600);

/// First time for which a node is left alone after a failed start; doubles with each further one.
const NODE_BACK_OFF: Span = Span::secs(2);

/// Longest time for which a node is left alone.
const NODE_BACK_OFF_MAX: Span = Span::secs(300);

/// How often the weights of past use are worked out.
const WEIGH_EVERY: Span = Span::secs(60);

/// Failed starts on a node since the last one that worked.
#[derive(Debug)]
struct Failures {
    count: u32,
    until: Timestamp,
    /// The one image that couldn't be fetched, where nothing else has failed: that may be the image's fault, or its
    /// registry's.
    image: Option<String>,
}

/// The scheduler's picture.
#[derive(Debug)]
pub struct Planner {
    fleet: Fleet,
    queue: Queue,
    usage: Usage,
    /// Past use by owner, in thousandths of a GPU-hour, as of a moment.
    spent: HashMap<String, (f64, Timestamp)>,
    /// The last attempt of each workload that is already in `spent` and `failures`.
    counted: HashMap<WorkloadId, u32>,
    /// Nodes on which starts have failed, and when they may be tried again.
    failures: HashMap<NodeName, Failures>,
    /// When the weights of past use were last worked out.
    weighed: Timestamp,
    /// What each workload holds in `fleet`.
    held: HashMap<WorkloadId, Vec<AllocationKey>>,
    /// Waiting workloads that others were, or are being, preempted for.
    favoured: HashSet<RequestId>,
    /// When workloads that are not to be placed yet may be, and nodes that are left alone no longer are.
    wakes: BTreeSet<Timestamp>,
    /// A running workload isn't preempted before it has run this long.
    min_run: Span,
    limits: Limits,
    last: Plan,
}

impl Planner {
    /// An empty picture.
    #[must_use]
    pub fn new(min_run: Span) -> Self {
        Self {
            fleet: Fleet::new(),
            queue: Queue::new(),
            usage: Usage::new(),
            spent: HashMap::new(),
            counted: HashMap::new(),
            failures: HashMap::new(),
            weighed: Timestamp::MIN,
            held: HashMap::new(),
            favoured: HashSet::new(),
            wakes: BTreeSet::new(),
            min_run,
            limits: Limits {
                placements: 512,
                ..Limits::default()
            },
            last: Plan::default(),
        }
    }

    /// Takes in what changed. `view` is the fleet at or after the change.
    pub fn apply(&mut self, touched: &Touched, now: Timestamp) {
        match touched {
            Touched::Node(name, Some(node)) => {
                let back_off_until_ms = self.failures.get(name).map(|f| f.until.as_millisecond());
                self.fleet.upsert_node(scheduler::Node {
                    back_off_until_ms,
                    ..scheduler_node(node)
                });
            }
            Touched::Node(name, None) => {
                self.failures.remove(name);
                self.fleet.remove_node(&name.as_str().into());
            }
            Touched::Workload(id, workload, _) => self.apply_workload(id, workload.as_deref(), now),
            Touched::Service(..) | Touched::Deployment(..) | Touched::Other => {}
        }
    }

    fn apply_workload(&mut self, id: &WorkloadId, workload: Option<&Workload>, now: Timestamp) {
        let request_id = RequestId::from(id.as_str());
        for key in self.held.remove(id).unwrap_or_default() {
            self.fleet.release(&key);
        }
        let Some(w) = workload else {
            self.queue.remove(&request_id);
            self.favoured.remove(&request_id);
            self.counted.remove(id);
            return;
        };
        if w.phase == Phase::Pending {
            let preempting = self.favoured.contains(&request_id);
            self.queue.upsert(Request {
                preempting,
                ..request(w)
            });
            if let Some(at) = w.not_before {
                self.wakes.insert(at);
            }
        } else {
            self.queue.remove(&request_id);
            self.favoured.remove(&request_id);
        }
        let mut keys = Vec::new();
        for member in w.members.iter().filter(|m| !m.state.ended()) {
            let allocation = self.allocation(w, member);
            keys.push(allocation.key.clone());
            self.fleet.bind(allocation);
        }
        if !keys.is_empty() {
            self.held.insert(id.clone(), keys);
        }
        if let Some(favoured) = w.stop.as_ref().and_then(|s| s.in_favour_of.as_ref()) {
            let favoured = RequestId::from(favoured.as_str());
            if self.queue.set_preempting(&favoured, true) {
                self.favoured.insert(favoured);
            }
        }
        self.count(w, now);
    }

    fn allocation(&self, w: &Workload, member: &Member) -> Allocation {
        let started = match &member.state {
            MemberState::Running { started_at, .. } => *started_at,
            _ => w.timeline.last().map_or(w.submitted_at, |t| t.at),
        };
        let spec = &w.spec;
        let preempted_for = w.stop.as_ref().filter(|s| s.reason == StopReason::Preempted);
        Allocation {
            key: AllocationKey::new(w.id.as_str(), member.rank),
            node: member.node.as_str().into(),
            gpus: member.gpus.iter().map(|g| g.index).collect(),
            cpu_millicores: reserved_cpu(spec),
            memory_bytes: spec.memory.map_or(0, Size::bytes),
            owner: w.owner.as_str().into(),
            priority: priority(spec.priority),
            started_at_ms: started.as_millisecond(),
            min_run_until_ms: Some(time::after(started, self.min_run).as_millisecond()),
            expected_end_ms: spec
                .timeout
                .map(|t| time::after(time::after(started, t), spec.grace()).as_millisecond()),
            preemptible: w.stop.is_none(),
            evicting_for: preempted_for
                .and_then(|s| s.in_favour_of.as_ref())
                .map(|id| id.as_str().into()),
        }
    }

    /// Counts an attempt that is over: to its owner's past use, and for or against its nodes.
    fn count(&mut self, w: &Workload, now: Timestamp) {
        let over = !w.members.is_empty() && w.members.iter().all(|m| m.state.ended());
        if !over || self.counted.insert(w.id.clone(), w.attempt) == Some(w.attempt) {
            return;
        }
        for member in &w.members {
            let MemberState::Ended { at, outcome, stop, .. } = &member.state else {
                continue;
            };
            let used = decayed((gpu_hours(member) * 1000.0, *at), now);
            if used > 0.0 {
                let entry = self.spent.entry(w.owner.clone()).or_insert((0.0, now));
                *entry = (decayed(*entry, now) + used, now);
                self.usage.set(w.owner.as_str(), entry.0 as u64);
            }
            match outcome {
                // Stopped before it started: that isn't the node's fault.
                Outcome::StartFailed {
                    retryable: true, code, ..
                } if stop.is_none() => {
                    let image = (*code == ErrorCode::ImageNotFound).then_some(w.spec.image.as_str());
                    self.start_failed(&member.node, image, *at);
                }
                Outcome::StartFailed { .. } | Outcome::Unknown { .. } => {}
                _ => self.start_worked(&member.node),
            }
        }
    }

    /// A node on which starts keep failing is left alone for a while, longer each time: it would swallow the queue. Not so
    /// where all of them were of one `image` that couldn't be fetched: whoever asks for it mustn't keep others from the node.
    fn start_failed(&mut self, node: &NodeName, image: Option<&str>, at: Timestamp) {
        let failures = self.failures.entry(node.clone()).or_insert_with(|| Failures {
            count: 0,
            until: at,
            image: image.map(str::to_owned),
        });
        if image.is_some() && failures.image.as_deref() == image {
            return;
        }
        failures.image = None;
        failures.count += 1;
        let wait = NODE_BACK_OFF.millis() << (failures.count - 1).min(16);
        failures.until = time::after(at, Span(wait.min(NODE_BACK_OFF_MAX.millis())));
        let until = failures.until;
        self.back_off(node, Some(until));
        self.wakes.insert(until);
    }

    fn start_worked(&mut self, node: &NodeName) {
        if self.failures.remove(node).is_some() {
            self.back_off(node, None);
        }
    }

    fn back_off(&mut self, node: &NodeName, until: Option<Timestamp>) {
        if let Some(known) = self.fleet.node(&node.as_str().into()) {
            let back_off_until_ms = until.map(|t| t.as_millisecond());
            let node = scheduler::Node {
                back_off_until_ms,
                ..known.clone()
            };
            self.fleet.upsert_node(node);
        }
    }

    /// When a pass could find something new although nothing changed. `None`: never.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        // Where nothing waits, what was to be woken has gone since.
        self.wakes.first().copied().filter(|_| !self.queue.is_empty())
    }

    /// Whether anything waits.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// One pass: what to place and whom to push aside.
    pub fn pass(&mut self, now: Timestamp) -> Plan {
        self.wakes = self.wakes.split_off(&now);
        self.wakes.remove(&now);
        if time::between(self.weighed, now) >= WEIGH_EVERY {
            self.weighed = now;
            for (owner, spent) in &self.spent {
                self.usage.set(owner.as_str(), decayed(*spent, now) as u64);
            }
        }
        let plan = scheduler::schedule(
            &self.fleet,
            &self.queue,
            &self.usage,
            now.as_millisecond(),
            &self.limits,
        );
        self.last = Plan {
            placements: Vec::new(),
            ..plan.clone()
        };
        plan
    }

    /// Why a workload waits, or where it would go.
    #[must_use]
    pub fn explain(&self, w: &Workload, now: Timestamp) -> Explanation {
        let request = request(w);
        let queued = w.phase == Phase::Pending && self.queue.get(&request.id).is_some();
        let context = Context {
            queue: queued.then_some(&self.queue),
            usage: Some(&self.usage),
            plan: Some(&self.last),
        };
        let told = scheduler::explain(&self.fleet, &request, &context, now.as_millisecond());
        let mut out = Explanation {
            summary: told.to_string().lines().next().unwrap_or_default().to_owned(),
            blockers: told
                .blockers
                .iter()
                .map(|b| Blocker {
                    reason: b.blocker.describe(b.total),
                    nodes: b.total as u32,
                })
                .collect(),
            queue_position: told.queue.map(|q| q.position as u32),
            waiting_for: told
                .freed_by
                .iter()
                .map(|f| WorkloadId::new(f.allocation.request.as_str()))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            estimate: told.start_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
            // The image decides the engine: another one is no way out.
            suggestions: told
                .remedies
                .iter()
                .filter(|r| !r.0.iter().any(|c| matches!(c, scheduler::Change::AnyEngine { .. })))
                .map(ToString::to_string)
                .collect(),
            fits_empty_fleet: Some(told.ever_fits),
            ..Explanation::default()
        };
        if let Some(at) = w.not_before
            && at > now
        {
            out.summary = format!("waits for its next attempt until {at}; {}", out.summary);
        }
        out
    }

    /// Where workloads that don't exist yet would go now, each as if the ones before it were already placed.
    #[must_use]
    pub fn preview(&self, workloads: &[Workload], now: Timestamp) -> Vec<Explanation> {
        let mut queue = Queue::new();
        for w in workloads {
            queue.upsert(request(w));
        }
        let plan = scheduler::schedule(
            &self.fleet,
            &queue,
            &self.usage,
            now.as_millisecond(),
            &Limits::default(),
        );
        workloads
            .iter()
            .map(|w| {
                let mut out = self.explain(w, now);
                let id = RequestId::from(w.id.as_str());
                if let Some(placement) = plan.placements.iter().find(|p| p.request == id) {
                    out.placement = placement.members.iter().map(proposed).collect();
                    let nodes: BTreeSet<_> = out.placement.iter().map(|m| m.node.to_string()).collect();
                    out.because = vec![format!(
                        "{} of {} nodes fit; tightest packing, best GPU links, whole nodes kept free",
                        self.explain_count(w, now),
                        self.fleet.node_count()
                    )];
                    out.summary = format!(
                        "would start now on {}",
                        nodes.into_iter().collect::<Vec<_>>().join(", ")
                    );
                }
                if let Some(preemption) = plan.preemptions.iter().find(|p| p.request == id) {
                    out.preempts = preemption
                        .victims
                        .iter()
                        .map(|v| WorkloadId::new(v.request.as_str()))
                        .collect();
                }
                out
            })
            .collect()
    }

    fn explain_count(&self, w: &Workload, now: Timestamp) -> usize {
        scheduler::explain(&self.fleet, &request(w), &Context::default(), now.as_millisecond()).fitting
    }
}

fn proposed(member: &scheduler::Member) -> ProposedMember {
    let node = NodeName::new(member.node.as_str());
    let gpus = member
        .gpus
        .iter()
        .map(|index| GpuOnNode {
            node: node.clone(),
            index: *index,
        })
        .collect();
    ProposedMember {
        rank: member.rank,
        node,
        gpus,
    }
}

/// GPU-hours that an ended member held.
#[must_use]
pub fn gpu_hours(member: &Member) -> f64 {
    match &member.state {
        MemberState::Ended {
            started_at: Some(started),
            at,
            ..
        } => time::between(*started, *at).millis() as f64 / 3_600_000.0 * member.gpus.len() as f64,
        _ => 0.0,
    }
}

fn decayed((amount, at): (f64, Timestamp), now: Timestamp) -> f64 {
    amount * 0.5f64.powf(time::between(at, now).millis() as f64 / USAGE_HALF_LIFE.millis() as f64)
}

fn reserved_cpu(spec: &WorkloadSpec) -> u64 {
    u64::from(spec.cpu.unwrap_or(DEFAULT_CPU).millis())
}

fn priority(priority: Priority) -> scheduler::Priority {
    match priority {
        Priority::Low => scheduler::Priority::Low,
        Priority::Normal => scheduler::Priority::Normal,
        Priority::High => scheduler::Priority::High,
    }
}

fn request(w: &Workload) -> Request {
    let spec = &w.spec;
    let native = spec.image == HOST_IMAGE;
    Request {
        priority: priority(spec.priority),
        namespace: w.namespace.clone(),
        submitted_at_ms: w.submitted_at.as_millisecond(),
        not_before_ms: w.not_before.map(|t| t.as_millisecond()),
        nodes: spec.node_count(),
        gpus: spec.gpus.count,
        gpu_model: spec.gpus.model.clone(),
        gpu_memory_bytes: spec.gpus.memory.map_or(0, Size::bytes),
        cpu_millicores: reserved_cpu(spec),
        memory_bytes: spec.memory.map_or(0, Size::bytes),
        node_selector: spec.node_selector.clone(),
        node: w.target.as_ref().or(spec.node.as_ref()).map(|n| n.as_str().into()),
        excluded_nodes: w.avoid.iter().map(|n| n.as_str().into()).collect(),
        tolerations: spec
            .tolerations
            .iter()
            .map(|t| scheduler::Toleration {
                key: t.key.clone().unwrap_or_default(),
                operator: match t.operator {
                    TolerationOperator::Equal => scheduler::TolerationOperator::Equal,
                    TolerationOperator::Exists => scheduler::TolerationOperator::Exists,
                },
                value: t.value.clone(),
                effect: t.effect.map(taint_effect),
            })
            .collect(),
        image: spec.image.clone(),
        engine: Some(if native {
            scheduler::Engine::Native
        } else {
            scheduler::Engine::Docker
        }),
        timeout_ms: spec.timeout.and_then(|t| i64::try_from(t.millis()).ok()),
        ..Request::new(w.id.as_str(), w.owner.as_str())
    }
}

fn taint_effect(effect: TaintEffect) -> scheduler::TaintEffect {
    match effect {
        TaintEffect::NoSchedule => scheduler::TaintEffect::NoSchedule,
        TaintEffect::PreferNoSchedule => scheduler::TaintEffect::PreferNoSchedule,
    }
}

fn scheduler_node(node: &Node) -> scheduler::Node {
    let state = match node.reach {
        Reach::Joining => NodeState::Joining,
        Reach::Unreachable => NodeState::Unreachable,
        Reach::Lost => NodeState::Lost,
        Reach::Online if node.drain.is_some() => NodeState::Draining,
        Reach::Online => NodeState::Ready,
    };
    let mut out = scheduler::Node {
        labels: node.labels.clone(),
        taints: node
            .taints
            .iter()
            .map(|t| scheduler::Taint {
                key: t.key.clone(),
                value: t.value.clone(),
                effect: taint_effect(t.effect),
            })
            .collect(),
        state,
        engines: BTreeSet::new(),
        ..scheduler::Node::new(node.name.as_str())
    };
    let Some(inventory) = &node.inventory else {
        return out;
    };
    out.cpu_millicores = u64::from(inventory.cpu.millis());
    out.memory_bytes = inventory.memory_total_bytes.bytes();
    out.engines = inventory
        .engines
        .iter()
        .map(|e| match e.kind {
            EngineKind::Docker => scheduler::Engine::Docker,
            EngineKind::Native => scheduler::Engine::Native,
            EngineKind::Kubernetes => scheduler::Engine::Kubernetes,
        })
        .collect();
    out.gpus = inventory
        .gpus
        .iter()
        .map(|gpu| {
            let health = node.gpu_health.get(&gpu.index);
            scheduler::Gpu {
                unusable: health
                    .filter(|h| !h.usable())
                    .map(|h| h.reason().unwrap_or("it can't be used").to_owned()),
                numa: gpu.numa_node,
                ..scheduler::Gpu::new(gpu.index, gpu.model.clone(), gpu.memory_total_bytes.map(Size::bytes))
            }
        })
        .collect();
    out.links = inventory
        .links
        .iter()
        .map(|pair| scheduler::GpuLink {
            a: pair.a,
            b: pair.b,
            link: match pair.link {
                ApiLink::NvLink { lanes } => scheduler::Link::NvLink(lanes),
                ApiLink::Xgmi { .. } => scheduler::Link::NvLink(1),
                ApiLink::SameSwitch => scheduler::Link::SameSwitch,
                ApiLink::SameNuma => scheduler::Link::SameNuma,
                ApiLink::System => scheduler::Link::System,
            },
        })
        .collect();
    out
}

/// The transactions of a plan: one for each placement, one for each victim.
#[must_use]
pub fn carry_out(view: &View, plan: &Plan, now: Timestamp) -> Vec<Draft> {
    let placements = plan.placements.iter().filter_map(|p| bind(view, p, now));
    placements.chain(preempt(view, plan, now)).collect()
}

/// The transaction that binds a placement, on the condition that the workload, its nodes and its GPUs are as the
/// plan saw them. `None`: it has been overtaken.
#[must_use]
pub fn bind(view: &View, placement: &Placement, now: Timestamp) -> Option<Draft> {
    let before = view.workload(&WorkloadId::new(placement.request.as_str()))?;
    let mut draft = Draft::new();
    let mut members = Vec::with_capacity(placement.members.len());
    let mut nodes = BTreeMap::new();
    for member in &placement.members {
        let node = view.node(&NodeName::new(member.node.as_str()))?;
        if node.reach != Reach::Online || node.drain.is_some() {
            return None;
        }
        let inventory = node.inventory.as_ref()?;
        let gpus: Option<Vec<HeldGpu>> = member
            .gpus
            .iter()
            .map(|index| {
                let gpu = inventory.gpus.iter().find(|g| g.index == *index)?;
                view.holder(&node.name, *index).is_none().then(|| HeldGpu {
                    index: *index,
                    uuid: gpu.uuid.clone(),
                })
            })
            .collect();
        members.push(Member {
            rank: member.rank,
            node: node.name.clone(),
            gpus: gpus?,
            state: MemberState::Assigned,
        });
        nodes.insert(node.name.clone(), node);
    }
    for node in nodes.values() {
        draft.node_unchanged(node);
        if before.spec.memory.is_some() {
            draft.bound(&node.name, &before.id);
        }
    }
    let step = lifecycle::bind(before, members, now)?;
    draft.step(before, step);
    Some(draft)
}

/// The transactions that begin a preemption: an order to stop for each victim.
#[must_use]
pub fn preempt(view: &View, plan: &Plan, now: Timestamp) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for preemption in &plan.preemptions {
        for victim in &preemption.victims {
            let Some(before) = view.workload(&WorkloadId::new(victim.request.as_str())) else {
                continue;
            };
            let order = StopOrder {
                reason: StopReason::Preempted,
                grace: before.spec.grace(),
                by: "scheduler".to_owned(),
                at: now,
                in_favour_of: Some(WorkloadId::new(preemption.request.as_str())),
                message: None,
            };
            if let Some(step) = lifecycle::order_stop(before, order) {
                let mut draft = Draft::new();
                draft.step(before, step);
                drafts.push(draft);
            }
        }
    }
    drafts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::{
        node::{EngineInfo, Inventory},
        op::Submission,
        workload::Usage as Used,
    };
    use store::Revision;

    use super::*;
    use crate::{
        decide::{nodes::joined, submit},
        view::Versioned,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn versioned<T>(value: T) -> Versioned<T> {
        Versioned {
            value: Arc::new(value),
            revision: Revision(1),
        }
    }

    fn online(name: &str) -> Touched {
        let (mut node, _) = joined(&NodeName::new(name), String::new(), "test", at(0));
        node.reach = Reach::Online;
        node.inventory = Some(Inventory {
            hostname: name.to_owned(),
            cpu: Cpu::cores(4),
            cpu_model: None,
            memory_total_bytes: Size::gib(8),
            os: None,
            kernel: None,
            arch: "x86_64".to_owned(),
            boot_id: None,
            gpus: Vec::new(),
            links: Vec::new(),
            engines: vec![EngineInfo {
                kind: EngineKind::Native,
                version: None,
                limitations: Vec::new(),
            }],
            agent_version: "test".to_owned(),
            notes: Vec::new(),
        });
        Touched::Node(node.name.clone(), Some(versioned(node)))
    }

    fn waiting() -> Workload {
        let spec = WorkloadSpec {
            image: HOST_IMAGE.to_owned(),
            command: vec!["true".to_owned()],
            ..Default::default()
        };
        submit::workload(
            Submission {
                spec,
                ..Submission::default()
            },
            1,
            "ada",
            at(0),
        )
        .unwrap()
    }

    fn touched(w: &Workload) -> Touched {
        Touched::Workload(w.id.clone(), Some(versioned(w.clone())), Vec::new())
    }

    /// Ends an attempt on the node `a`.
    fn end(w: &mut Workload, attempt: u32, outcome: &Outcome, at: Timestamp) {
        w.attempt = attempt;
        let state = MemberState::Ended {
            started_at: None,
            at,
            outcome: outcome.clone(),
            stop: None,
            usage: Used::default(),
        };
        w.members = vec![Member {
            rank: 0,
            node: NodeName::new("a"),
            gpus: Vec::new(),
            state,
        }];
    }

    #[test]
    fn one_image_that_cant_be_fetched_keeps_nobody_else_from_a_node_and_two_do() {
        let mut planner = Planner::new(Span::secs(60));
        planner.apply(&online("a"), at(0));
        let outcome = Outcome::StartFailed {
            code: ErrorCode::ImageNotFound,
            message: "connection refused".to_owned(),
            retryable: true,
        };
        let mut w = waiting();
        for attempt in 1..=5 {
            end(&mut w, attempt, &outcome, at(10));
            planner.apply(&touched(&w), at(10));
            assert_eq!(planner.pass(at(10)).placements.len(), 1, "failure {attempt}");
        }
        let mut spec = (*w.spec).clone();
        spec.image = "another".to_owned();
        w.spec = Arc::new(spec);
        end(&mut w, 6, &outcome, at(10));
        planner.apply(&touched(&w), at(10));
        assert!(planner.explain(&waiting(), at(11)).summary.contains("backing off"));
    }

    #[test]
    fn a_node_that_keeps_failing_is_left_alone_for_a_while() {
        let mut planner = Planner::new(Span::secs(60));
        planner.apply(&online("a"), at(0));
        let mut w = waiting();
        planner.apply(&touched(&w), at(0));
        assert_eq!(planner.pass(at(0)).placements.len(), 1);

        let outcome = Outcome::StartFailed {
            code: ErrorCode::Internal,
            message: "the disk is broken".to_owned(),
            retryable: true,
        };
        for (attempt, (failed, still, again)) in [(10, 11, 12), (20, 23, 24)].into_iter().enumerate() {
            end(&mut w, attempt as u32 + 1, &outcome, at(failed));
            planner.apply(&touched(&w), at(failed));
            assert_eq!(planner.pass(at(still)).placements.len(), 0, "failure {}", w.attempt);
            assert!(planner.explain(&w, at(still)).summary.contains("backing off"));
            assert_eq!(planner.next_wake(), Some(at(again)));
            assert_eq!(planner.pass(at(again)).placements.len(), 1, "failure {}", w.attempt);
        }
    }
}
