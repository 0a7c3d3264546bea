//! What people do: they submit, cancel, move, drain, remove, and let in again.

use api::{
    Cpu, NodeName, Size, Span, WorkloadId,
    node::Reach,
    op::Submission,
    workload::{GpuRequest, Phase, Port, Priority, RestartPolicy, StopOrder, StopReason, WorkloadSpec},
};
use gateway::{
    decide::{nodes, submit, update},
    draft::Draft,
    lifecycle,
};

use crate::{
    gateway::Then,
    world::{Event, NODES, World},
};

/// Something that a person asks the gateway for.
#[derive(Debug, Clone)]
pub(crate) enum UserOp {
    /// Lets all machines of a new fleet in.
    JoinAll,
    /// Lets a machine in again.
    Join(usize, String),
    Submit(Box<Submission>, u64, String),
    Cancel(WorkloadId, Option<Span>),
    Migrate(WorkloadId, Option<NodeName>),
    /// Gives it another memory limit.
    Resize(WorkloadId, Size),
    Drain(NodeName, bool, Option<Span>),
    Undrain(NodeName),
    Remove(NodeName, bool),
    /// The second half of it.
    RemoveDrained(NodeName, bool),
    /// Whatever comes to mind.
    Any,
    /// Another memory limit for whatever is placed.
    AnyResize,
}

/// What is going to be done in this world.
#[derive(Debug, Default)]
pub(crate) struct Script {
    submitted: u64,
    /// When things have been put right.
    pub(crate) healed_ms: u64,
}

impl World {
    pub(crate) fn begin_script(&mut self) {
        let end = self.config.faults_ms;
        self.schedule(0, Event::GatewayStarts);
        self.schedule(1, Event::User(UserOp::JoinAll));
        for at in 0..NODES {
            let due = self.random.range(1_000, 3_000);
            self.schedule(due, Event::AgentStarts(at));
        }
        for _ in 0..self.config.workloads {
            let due = self.random.range(1_000, end * 8 / 10);
            let op = self.submission();
            self.schedule(due, Event::User(op));
        }
        for _ in 0..self.random.range(5, 30) {
            let due = self.random.range(5_000, end);
            self.schedule(due, Event::User(UserOp::Any));
        }
        for _ in 0..self.random.range(0, 40) {
            let due = self.random.range(2_500, end);
            self.schedule(due, Event::User(UserOp::AnyResize));
        }
        for _ in 0..self.random.range(5, 50) {
            let due = self.random.range(2_500, end);
            self.schedule(due, Event::Accident);
        }
        self.schedule(end, Event::Heal);
    }

    fn submission(&mut self) -> UserOp {
        self.script.submitted += 1;
        let name = format!("w{}", self.script.submitted);
        let random = &mut self.random;
        let gang = random.chance(150);
        let low = random.range(100, 5_000);
        let run = match random.below(4) {
            0 => low,
            1 => low * 20,
            _ => low * 5,
        };
        let code = random.pick(&[0, 0, 0, 0, 1, 3]);
        let word = if random.chance(300) { "flaky" } else { "run" };
        let restart = match random.below(12) {
            0 => RestartPolicy::Always,
            1 if word == "flaky" => RestartPolicy::OnFailure,
            _ => RestartPolicy::Never,
        };
        let dynamic_ports = random.chance(300);
        let ports = (0..if dynamic_ports { random.range(1, 4) as u16 } else { 0 }).map(|port| Port {
            name: String::new(),
            port: 8_000 + port,
            protocol: "TCP".to_owned(),
        });
        let ports = ports.collect();
        let spec = WorkloadSpec {
            image: "host".to_owned(),
            command: vec![word.to_owned(), run.to_string(), code.to_string()],
            gpus: GpuRequest {
                count: random.pick(&[0, 1, 1, 1, 2, 2, 4, 8]),
                ..GpuRequest::default()
            },
            cpu: random
                .chance(500)
                .then(|| Cpu(random.pick(&[500, 1_000, 3_000, 4_000]))),
            memory: random.chance(500).then(|| Size::gib(random.pick(&[1, 4, 10, 16]))),
            priority: random.pick(&[Priority::Low, Priority::Low, Priority::Normal, Priority::High]),
            nodes: if gang { random.range(2, 5) as u32 } else { 1 },
            node: (!gang && random.chance(40)).then(|| NodeName::new(format!("n{:02}", random.below(NODES as u64)))),
            timeout: random.chance(200).then(|| Span(random.range(500, 60_000))),
            retries: random.pick(&[0, 0, 1, 3]),
            retry_delay: random.chance(900).then(|| Span(random.range(0, 5_000))),
            restart,
            max_wait: random.chance(80).then(|| Span::secs(random.range(5, 200))),
            grace: random
                .chance(700)
                .then(|| Span(random.pick(&[0, 500, 5_000, 30_000, 120_000]))),
            ports,
            dynamic_ports,
            ..WorkloadSpec::default()
        };
        let submission = Submission {
            name: Some(name),
            spec,
            ..Submission::default()
        };
        let owner = random.pick(&["ada", "grace", "alan"]).to_owned();
        let number = random.next();
        UserOp::Submit(Box::new(submission), number, owner)
    }

    pub(crate) fn user(&mut self, op: UserOp) {
        if self.gateway.running.is_none() {
            // The call fails, and is made again.
            if !matches!(op, UserOp::Any | UserOp::AnyResize) {
                let due = self.now + 1_000;
                self.schedule(due, Event::User(op));
            }
            return;
        }
        let op = match op {
            UserOp::Any => match self.whim() {
                Some(op) => op,
                None => return,
            },
            UserOp::AnyResize => match self.resize() {
                Some(op) => op,
                None => return,
            },
            op => op,
        };
        self.trace(|| format!("user: {op:?}"));
        self.decide_user(op, 0);
    }

    fn whim(&mut self) -> Option<UserOp> {
        let running = self.gateway.running.as_ref()?;
        let active: Vec<WorkloadId> = running.view.active().map(|w| w.id.clone()).collect();
        let nodes: Vec<NodeName> = running.view.nodes().map(|n| n.name.clone()).collect();
        let drained: Vec<NodeName> = running
            .view
            .nodes()
            .filter(|n| n.drain.is_some())
            .map(|n| n.name.clone())
            .collect();
        let random = &mut self.random;
        let any = |all: &[WorkloadId], at: u64| (!all.is_empty()).then(|| all[at as usize % all.len()].clone());
        let node = |all: &[NodeName], at: u64| (!all.is_empty()).then(|| all[at as usize % all.len()].clone());
        let at = random.next() >> 8;
        match random.below(10) {
            0..=2 => {
                let grace = random.chance(300).then(|| Span(random.range(0, 3_000)));
                Some(UserOp::Cancel(any(&active, at)?, grace))
            }
            3 | 4 => {
                let target = random.chance(500).then(|| node(&nodes, at >> 8)).flatten();
                Some(UserOp::Migrate(any(&active, at)?, target))
            }
            5 | 6 => {
                let timeout = random.chance(500).then(|| Span(random.range(0, 30_000)));
                Some(UserOp::Drain(node(&nodes, at)?, random.chance(400), timeout))
            }
            7 => Some(UserOp::Undrain(node(&drained, at)?)),
            8 => Some(UserOp::Remove(node(&nodes, at)?, random.chance(500))),
            _ => {
                let gone = (0..NODES).filter(|at| self.nodes[*at].refused).collect::<Vec<_>>();
                let at = *gone.get(at as usize % gone.len().max(1))?;
                Some(self.join_again(at))
            }
        }
    }

    fn resize(&mut self) -> Option<UserOp> {
        let running = self.gateway.running.as_ref()?;
        let placed = running.view.active().filter(|w| w.phase.placed());
        let placed: Vec<WorkloadId> = placed.map(|w| w.id.clone()).collect();
        let id = placed
            .get(self.random.below(placed.len().max(1) as u64) as usize)?
            .clone();
        Some(UserOp::Resize(id, Size::gib(self.random.pick(&[1, 8, 12, 24, 48]))))
    }

    /// A machine that was removed is to be let in again, under its old name. Like a real one it asks with the same
    /// credential until that works.
    fn join_again(&mut self, at: usize) -> UserOp {
        let made = format!("n{at}-{}", self.next_id);
        self.next_id += 1;
        UserOp::Join(at, self.nodes[at].joining.get_or_insert(made).clone())
    }

    pub(crate) fn decide_user(&mut self, op: UserOp, tries: u32) {
        let now = self.gateway_now();
        let Some(running) = &self.gateway.running else { return };
        let view = &running.view;
        let by = "user:sim";
        let mut joined = None;
        let draft = match &op {
            UserOp::Any | UserOp::AnyResize => None,
            UserOp::Resize(id, memory) => view.workload(id).and_then(|before| {
                let change = update::Change {
                    memory: Some(*memory),
                    ..update::Change::default()
                };
                // A refusal is an answer as well.
                update::update(view, before, change, by, now).ok().flatten()
            }),
            UserOp::JoinAll => {
                let mut draft = Draft::new();
                for node in &self.nodes {
                    let (record, _) = nodes::joined(&node.name, node.credential.clone(), by, now);
                    draft.put_node(None, &record);
                }
                Some(draft)
            }
            UserOp::Join(at, credential) => {
                let name = &self.nodes[*at].name;
                if let Some(known) = view.node(name) {
                    // It was let in after all, and its agent has only to try again.
                    if known.credential_hash == *credential {
                        joined = Some((*at, known.credential_hash.clone()));
                    }
                    None
                } else {
                    let (record, _) = nodes::joined(name, credential.clone(), by, now);
                    let mut draft = Draft::new();
                    draft.put_node(None, &record);
                    joined = Some((*at, credential.clone()));
                    Some(draft)
                }
            }
            UserOp::Submit(submission, random, owner) => {
                match submit::workload((**submission).clone(), *random, owner, now) {
                    Ok(workload) => {
                        let mut draft = Draft::new();
                        let events = lifecycle::submitted(&workload);
                        draft.create_workload(&workload, events);
                        Some(draft)
                    }
                    Err(error) => return self.fail(format!("a submission was refused: {error}")),
                }
            }
            UserOp::Cancel(id, grace) => view.workload(id).and_then(|before| {
                (!before.phase.ended())
                    .then(|| lifecycle::cancel(before, *grace, by, now))
                    .flatten()
                    .map(|step| {
                        let mut draft = Draft::new();
                        draft.step(before, step);
                        draft
                    })
            }),
            UserOp::Migrate(id, target) => {
                let before = view.workload(id);
                let fits = |name: &NodeName| {
                    view.node(name)
                        .is_some_and(|n| n.reach == Reach::Online && n.drain.is_none())
                        && before.is_some_and(|b| b.members.iter().all(|m| m.node != *name))
                };
                let target = target.clone().filter(fits);
                before.filter(|b| b.spec.node.is_none()).and_then(|before| {
                    let order = StopOrder {
                        reason: StopReason::Migrated,
                        grace: before.spec.grace(),
                        by: by.to_owned(),
                        at: now,
                        in_favour_of: None,
                        message: None,
                    };
                    let mut step = lifecycle::order_stop(before, order)?;
                    step.workload.target = target;
                    let mut draft = Draft::new();
                    draft.step(before, step);
                    Some(draft)
                })
            }
            UserOp::Drain(name, force, timeout) => view
                .node(name)
                .map(|node| nodes::drain(node, *force, *timeout, by, now)),
            UserOp::Undrain(name) => view.node(name).and_then(|node| nodes::undrain(node, by, now)),
            UserOp::Remove(name, force) => view.node(name).and_then(|node| {
                nodes::may_remove(view, node, *force).ok()?;
                Some(nodes::drain(node, false, None, by, now))
            }),
            UserOp::RemoveDrained(name, force) => view
                .node(name)
                .and_then(|node| nodes::remove(view, node, *force, by, now).ok()),
        };
        if let Some((at, credential)) = joined {
            self.nodes[at].credential = credential;
            self.nodes[at].refused = false;
            let due = self.now + self.random.range(500, 3_000);
            self.schedule(due, Event::AgentStarts(at));
        }
        if let Some(draft) = draft {
            self.commit(draft, Then::User(op, tries));
        }
    }

    /// Things are put right as people see them, and the world ends when all is done.
    pub(crate) fn settled(&mut self) {
        let waited = self.now - self.script.healed_ms;
        if let Some(left) = self.unsettled() {
            if waited > 4_000_000 {
                return self.fail(format!("it doesn't come to rest: {left}"));
            }
        } else {
            self.done = true;
            return;
        }
        let refused: Vec<usize> = (0..NODES).filter(|at| self.nodes[*at].refused).collect();
        for at in refused {
            let op = self.join_again(at);
            self.user(op);
        }
        let truth = &self.checks.truth;
        let drained = truth.nodes().filter(|n| n.drain.is_some());
        let mut ops: Vec<UserOp> = drained.map(|n| UserOp::Undrain(n.name.clone())).collect();
        let now = self.gateway_now();
        if let Some(running) = &self.gateway.running {
            let forever = truth.active().filter(|w| {
                let never = w.phase == Phase::Pending
                    && waited > 60_000
                    && running.planner.explain(w, now).fits_empty_fleet == Some(false);
                w.stop.is_none() && (w.spec.restart == RestartPolicy::Always || never)
            });
            ops.extend(forever.map(|w| UserOp::Cancel(w.id.clone(), None)));
        }
        for op in ops {
            self.user(op);
        }
        self.schedule(self.now + 5_000, Event::Settled);
    }

    /// What isn't at rest. `None`: everything is.
    fn unsettled(&self) -> Option<String> {
        let Some(running) = &self.gateway.running else {
            return Some("the gateway is down".to_owned());
        };
        let truth = &self.checks.truth;
        if running.view.revision() != truth.revision() {
            return Some("the gateway is behind".to_owned());
        }
        if let Some(node) = truth.nodes().find(|n| n.reach != Reach::Online) {
            return Some(format!("{} is {:?}", node.name, node.reach));
        }
        if truth.nodes().count() < NODES {
            return Some("machines are missing".to_owned());
        }
        if let Some(w) = truth.active().next() {
            let why = running.planner.explain(w, self.gateway_now());
            return Some(format!(
                "{} is {}, stop {:?}, members {:?}: {} {:?}",
                w.id, w.phase, w.stop, w.members, why.summary, why.blockers
            ));
        }
        if let Some((gpu, claim)) = truth.claims().next() {
            return Some(format!("GPU {gpu:?} is still held by {claim:?}"));
        }
        let connected = self.connected();
        for (at, node) in self.nodes.iter().enumerate() {
            let name = &node.name;
            let Some(run) = node.agent.as_ref().filter(|_| connected.contains(&at)) else {
                return Some(format!("{name} has no session"));
            };
            if let Some(o) = run.agent.unacknowledged().next() {
                return Some(format!("{name} has yet to report {o:?}"));
            }
            if let Some(job) = run.agent.known().first() {
                return Some(format!("{name} still knows {job}"));
            }
            if let Some(job) = run.agent.jobs().next() {
                return Some(format!("{name} still has a record of {}", job.0));
            }
            if let Some(job) = node.engine.processes.keys().chain(node.engine.lines.keys()).next() {
                return Some(format!("the engine of {name} still has {job}"));
            }
            if let Some(key) = node.disk.keys().find(|key| !key.starts_with("meta/")) {
                return Some(format!("the agent of {name} has left {key} on its disk"));
            }
        }
        None
    }
}
