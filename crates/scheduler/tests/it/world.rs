//! Small builders, a world that carries plans out, and a second opinion on
//! what fits that shares no code with the scheduler.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::{
    Allocation, AllocationKey, Engine, Fleet, Gpu, Limits, Node, NodeName, NodeState, Plan, Priority, Queue, Request,
    RequestId, TaintEffect, Usage, model_matches, schedule,
};

pub(crate) const GIB: u64 = 1 << 30;

/// A ready node with `gpus` GPUs of `model`, 8 cores and 64 GiB a GPU, and
/// at least 16 cores and 128 GiB.
pub(crate) fn node(name: &str, gpus: u32, model: &str) -> Node {
    Node {
        cpu_millicores: 8_000 * u64::from(gpus.max(2)),
        memory_bytes: 64 * GIB * u64::from(gpus.max(2)),
        gpus: (0..gpus).map(|i| Gpu::new(i, model, Some(80 * GIB))).collect(),
        engines: BTreeSet::from([Engine::Docker, Engine::Native]),
        ..Node::new(name)
    }
}

/// A request for `gpus` GPUs, submitted at 0.
pub(crate) fn ask(id: &str, gpus: u32) -> Request {
    Request {
        gpus,
        ..Request::new(id, "ann")
    }
}

/// Everything there is, beside the scheduler's own index of it.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) queue: Queue,
    pub(crate) usage: Usage,
    pub(crate) limits: Limits,
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    pub(crate) held: BTreeMap<AllocationKey, Allocation>,
    pub(crate) now_ms: i64,
}

impl World {
    pub(crate) fn new(nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut world = Self {
            fleet: Fleet::new(),
            queue: Queue::new(),
            usage: Usage::new(),
            limits: Limits {
                backfill_margin_ms: 0,
                ..Limits::default()
            },
            nodes: BTreeMap::new(),
            held: BTreeMap::new(),
            now_ms: 1_000,
        };
        for node in nodes {
            world.upsert(node);
        }
        world
    }

    pub(crate) fn upsert(&mut self, node: Node) {
        self.nodes.insert(node.name.clone(), node.clone());
        self.fleet.upsert_node(node);
    }

    pub(crate) fn submit(&mut self, requests: impl IntoIterator<Item = Request>) {
        for request in requests {
            self.queue.upsert(request);
        }
    }

    pub(crate) fn bind(&mut self, allocation: Allocation) {
        self.held.insert(allocation.key.clone(), allocation.clone());
        self.fleet.bind(allocation);
    }

    /// Holds what a request asks on one node, from now.
    pub(crate) fn hold(&mut self, request: &Request, node: &str, gpus: &[u32]) {
        self.bind(allocation(request, 0, node, gpus, self.now_ms));
    }

    pub(crate) fn release(&mut self, key: &AllocationKey) {
        self.held.remove(key);
        self.fleet.release(key);
    }

    /// Ends a whole workload.
    pub(crate) fn end(&mut self, request: &RequestId) {
        let keys: Vec<AllocationKey> = self
            .held
            .keys()
            .filter(|key| key.request == *request)
            .cloned()
            .collect();
        for key in keys {
            self.release(&key);
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        schedule(&self.fleet, &self.queue, &self.usage, self.now_ms, &self.limits)
    }

    /// Carries a plan out.
    pub(crate) fn apply(&mut self, plan: &Plan) {
        for placement in &plan.placements {
            let request = self.queue.remove(&placement.request).expect("it waited");
            for member in &placement.members {
                self.bind(allocation(
                    &request,
                    member.rank,
                    member.node.as_str(),
                    &member.gpus,
                    self.now_ms,
                ));
            }
        }
        for preemption in &plan.preemptions {
            assert!(self.queue.set_preempting(&preemption.request, true));
            for key in preemption.victims.iter().flat_map(|v| &v.allocations) {
                let mut allocation = self.held[key].clone();
                allocation.evicting_for = Some(preemption.request.clone());
                self.bind(allocation);
            }
        }
    }

    /// Plans and carries out; the plan as text.
    pub(crate) fn step(&mut self) -> String {
        let plan = self.plan();
        self.apply(&plan);
        plan.to_string()
    }

    /// GPUs, CPU and memory that a node has left.
    pub(crate) fn left(&self, node: &Node) -> (BTreeSet<u32>, u64, u64) {
        let held: Vec<&Allocation> = self.held.values().filter(|a| a.node == node.name).collect();
        let gpus = node
            .gpus
            .iter()
            .filter(|gpu| gpu.unusable.is_none())
            .map(|gpu| gpu.index)
            .filter(|index| !held.iter().any(|a| a.gpus.contains(index)))
            .collect();
        let cpu: u64 = held.iter().map(|a| a.cpu_millicores).sum();
        let memory: u64 = held.iter().map(|a| a.memory_bytes).sum();
        (
            gpus,
            node.cpu_millicores.saturating_sub(cpu),
            node.memory_bytes.saturating_sub(memory),
        )
    }

    /// The second opinion: whether one member fits on a node.
    pub(crate) fn fits(&self, request: &Request, node: &Node) -> bool {
        let (gpus, cpu, memory) = self.left(node);
        self.suits(request, node)
            && node
                .gpus
                .iter()
                .filter(|gpu| gpus.contains(&gpu.index) && gpu_suits(request, gpu))
                .count()
                >= request.gpus as usize
            && cpu >= request.cpu_millicores
            && memory >= request.memory_bytes
    }

    /// Whether a node may be used at all, leaving aside what it has left.
    pub(crate) fn suits(&self, request: &Request, node: &Node) -> bool {
        let engine = if request.image == "host" {
            request.engine.or(Some(Engine::Native))
        } else {
            request.engine
        };
        node.state == NodeState::Ready
            && node.back_off_until_ms.is_none_or(|at| at <= self.now_ms)
            && engine.is_none_or(|engine| node.engines.contains(&engine))
            && request.node.as_ref().is_none_or(|name| *name == node.name)
            && !request.excluded_nodes.contains(&node.name)
            && request
                .node_selector
                .iter()
                .all(|(key, value)| node.labels.get(key) == Some(value))
            && node
                .taints
                .iter()
                .filter(|taint| taint.effect == TaintEffect::NoSchedule)
                .all(|taint| request.tolerations.iter().any(|t| t.covers(taint)))
    }

    /// Whether the whole gang fits now.
    pub(crate) fn places(&self, request: &Request) -> bool {
        let nodes = self.nodes.values();
        nodes.filter(|node| self.fits(request, node)).count() >= request.nodes.max(1) as usize
    }

    /// No GPU has two holders, nothing is held beyond what a node has.
    pub(crate) fn check(&self) {
        for node in self.nodes.values() {
            let mut seen = BTreeSet::new();
            let held = self.held.values().filter(|a| a.node == node.name);
            let (mut cpu, mut memory) = (0, 0);
            for allocation in held {
                for gpu in &allocation.gpus {
                    assert!(seen.insert(*gpu), "{} GPU {gpu} held twice", node.name);
                    assert!(node.gpus.iter().any(|g| g.index == *gpu));
                }
                cpu += allocation.cpu_millicores;
                memory += allocation.memory_bytes;
            }
            assert!(cpu <= node.cpu_millicores, "{} CPU", node.name);
            assert!(memory <= node.memory_bytes, "{} memory", node.name);
        }
    }
}

pub(crate) fn gpu_suits(request: &Request, gpu: &Gpu) -> bool {
    gpu.unusable.is_none()
        && request
            .gpu_model
            .as_ref()
            .is_none_or(|model| model_matches(model, &gpu.model))
        && (request.gpu_memory_bytes == 0 || gpu.memory_bytes.is_some_and(|bytes| bytes >= request.gpu_memory_bytes))
}

pub(crate) fn allocation(request: &Request, rank: u32, node: &str, gpus: &[u32], now_ms: i64) -> Allocation {
    Allocation {
        key: AllocationKey::new(request.id.clone(), rank),
        node: node.into(),
        gpus: gpus.to_vec(),
        cpu_millicores: request.cpu_millicores,
        memory_bytes: request.memory_bytes,
        owner: request.owner.clone(),
        priority: request.priority,
        started_at_ms: now_ms,
        min_run_until_ms: None,
        expected_end_ms: request.timeout_ms.map(|t| now_ms + t),
        preemptible: true,
        evicting_for: None,
    }
}

pub(crate) fn low(request: Request) -> Request {
    Request {
        priority: Priority::Low,
        ..request
    }
}

pub(crate) fn high(request: Request) -> Request {
    Request {
        priority: Priority::High,
        ..request
    }
}

pub(crate) fn for_ms(timeout_ms: i64, request: Request) -> Request {
    Request {
        timeout_ms: Some(timeout_ms),
        ..request
    }
}

pub(crate) fn at(submitted_at_ms: i64, request: Request) -> Request {
    Request {
        submitted_at_ms,
        ..request
    }
}
