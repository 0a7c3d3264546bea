//! The world: its time, what is going to happen, and everything in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use api::{
    GpuIndex, NodeName,
    node::GpuHealth,
    wire::{FromNode, ToNode},
    workload::JobKey,
};
use node::engine::EngineEvent;

use crate::{
    check::Checks,
    clock::Clock,
    engine::Engine,
    gateway::{Gateway, Result3},
    machine::AgentRun,
    net::Connection,
    random::Random,
    users::{Script, UserOp},
};

/// Machines in a fleet.
pub(crate) const NODES: usize = 50;

/// What is going to happen. `usize` is a machine; a `life` is that of an agent or of a gateway, and what was meant
/// for an earlier one doesn't happen.
#[derive(Debug)]
pub(crate) enum Event {
    // The gateway.
    GatewayStarts,
    Flush(u64),
    Applied(u64, Vec<Result3>),
    Tick(u64),
    Planner(u64),
    Push(u64, u64),
    BeginDone(u64, u64),
    Retry(u64, Box<crate::gateway::Then>),
    // The network.
    ToGateway(u64, Box<FromNode>),
    ToNode(u64, Box<ToNode>),
    GatewaySeesEnd(u64),
    NodeSeesEnd(u64),
    // Machines.
    AgentStarts(usize),
    Connect(usize, u64),
    Answer(usize, u64, bool),
    Impatient(usize, u64, u64),
    Committed(usize, u64, u64),
    Hurry(usize, u64, u64),
    Deadline(usize, u64),
    Pulse(usize, u64, u64),
    Engine(usize, u64, Box<EngineEvent>),
    Forgotten(usize, u64, JobKey),
    /// Ports were looked for.
    Ports(usize, u64, JobKey, Option<Vec<u16>>),
    Begin(usize, JobKey, u64, bool),
    Exit(usize, JobKey, u64),
    Lease(usize),
    MachineUp(usize),
    // People and accidents.
    User(UserOp),
    Accident,
    Heal,
    Settled,
}

/// A machine.
pub(crate) struct Machine {
    pub(crate) name: NodeName,
    pub(crate) clock: Clock,
    pub(crate) gpus: u32,
    pub(crate) cores: u32,
    pub(crate) memory_gib: u64,
    /// Counts boots.
    pub(crate) boots: u64,
    /// What it shows the gateway to be let in. `None`: its operator has yet to let it join.
    pub(crate) credential: String,
    pub(crate) up: bool,
    /// The agent's records.
    pub(crate) disk: BTreeMap<String, Vec<u8>>,
    pub(crate) engine: Engine,
    pub(crate) agent: Option<AgentRun>,
    /// Counts agents.
    pub(crate) lives: u64,
    /// The gateway will never have it.
    pub(crate) refused: bool,
    /// The credential that it has made to be let in again, until it works.
    pub(crate) joining: Option<String>,
    /// Nothing reaches it or leaves it before this time.
    pub(crate) cut_off_until: u64,
    /// Its disk is slow before this time.
    pub(crate) slow_until: u64,
    pub(crate) health: BTreeMap<GpuIndex, GpuHealth>,
}

/// How a fleet is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) heartbeat_ms: u64,
    pub(crate) unreachable_ms: u64,
    pub(crate) lost_ms: u64,
    pub(crate) min_run_ms: u64,
    /// Ended workloads that are kept.
    pub(crate) keep: usize,
    /// When accidents end.
    pub(crate) faults_ms: u64,
    pub(crate) workloads: u64,
    /// Frames are written as JSON and read again.
    pub(crate) as_json: bool,
}

/// All there is.
pub(crate) struct World {
    pub(crate) now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub(crate) random: Random,
    pub(crate) config: Config,
    pub(crate) gateway: Gateway,
    pub(crate) nodes: Vec<Machine>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) next_id: u64,
    pub(crate) checks: Checks,
    pub(crate) script: Script,
    pub(crate) healed: bool,
    pub(crate) done: bool,
    pub(crate) failure: Option<String>,
    pub(crate) events: u64,
    /// A digest of all that happened, to show that a seed says it all.
    pub(crate) digest: u64,
    tell: Option<Box<dyn FnMut(String)>>,
}

impl World {
    pub(crate) fn new(seed: u64, tell: Option<Box<dyn FnMut(String)>>) -> Self {
        let mut random = Random::new(seed);
        let lost_ms = random.pick(&[60_000, 60_000, 90_000, 150_000]);
        let config = Config {
            heartbeat_ms: random.pick(&[5_000, 10_000]),
            unreachable_ms: random.pick(&[20_000, 30_000]),
            lost_ms,
            min_run_ms: random.pick(&[2_000, 10_000, 30_000]),
            keep: random.pick(&[8, 1_000, 1_000]),
            faults_ms: lost_ms + random.range(60_000, 200_000),
            workloads: random.range(20, 60),
            as_json: seed.is_multiple_of(8),
        };
        // Some fleets have room for all, in others most have to wait.
        let scarce = random.chance(600);
        let nodes = (0..NODES)
            .map(|at| {
                let gpus = if scarce && at % 6 != 0 {
                    random.pick(&[0, 0, 1])
                } else {
                    random.pick(&[1, 2, 4, 4, 8])
                };
                let ahead = if random.chance(300) {
                    random.around(3_600_000)
                } else {
                    random.around(200)
                };
                Machine {
                    name: NodeName::new(format!("n{at:02}")),
                    clock: Clock::new(random.range(20_000, 2_000_000), random.around(5_000), ahead),
                    gpus,
                    cores: random.pick(&[4, 8, 32]),
                    memory_gib: random.pick(&[16, 64]),
                    boots: 1,
                    credential: format!("n{at}-1"),
                    up: true,
                    disk: BTreeMap::new(),
                    engine: Engine {
                        remembers: random.chance(500),
                        ..Engine::default()
                    },
                    agent: None,
                    lives: 0,
                    refused: false,
                    joining: None,
                    cut_off_until: 0,
                    slow_until: 0,
                    health: BTreeMap::new(),
                }
            })
            .collect();
        Self {
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            gateway: Gateway::new(random.around(5_000)),
            random,
            config,
            nodes,
            connections: BTreeMap::new(),
            next_id: 1,
            checks: Checks::default(),
            script: Script::default(),
            healed: false,
            done: false,
            failure: None,
            events: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            tell,
        }
    }

    /// Lets the world run to its end.
    pub(crate) fn run(&mut self) {
        self.begin_script();
        while self.failure.is_none() && !self.done {
            let Some(((at, sequence), event)) = self.queue.pop_first() else {
                return self.fail("nothing is going to happen any more".to_owned());
            };
            self.now = at;
            self.events += 1;
            self.mix(at);
            self.mix(sequence);
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::GatewayStarts => self.gateway_starts(),
            Event::Flush(life) => self.flush(life),
            Event::Applied(life, results) => self.applied(life, results),
            Event::Tick(life) => self.tick(life),
            Event::Planner(life) => self.planner(life),
            Event::Push(life, connection) => self.push(life, connection),
            Event::BeginDone(life, connection) => self.begin_done(life, connection),
            Event::Retry(life, then) => self.retry(life, *then),
            Event::ToGateway(connection, frame) => self.at_gateway(connection, *frame),
            Event::ToNode(connection, message) => self.at_node(connection, *message),
            Event::GatewaySeesEnd(connection) => self.gateway_sees_end(connection),
            Event::NodeSeesEnd(connection) => self.node_sees_end(connection),
            Event::AgentStarts(at) => self.agent_starts(at),
            Event::Connect(at, life) => self.connect(at, life),
            Event::Answer(at, life, refused) => self.answer(at, life, refused),
            Event::Impatient(at, life, connection) => self.impatient(at, life, connection),
            Event::Committed(at, life, number) => self.committed(at, life, number),
            Event::Hurry(at, life, number) => self.hurry(at, life, number),
            Event::Deadline(at, life) => self.deadline(at, life),
            Event::Pulse(at, life, connection) => self.pulse(at, life, connection),
            Event::Engine(at, life, event) => self.engine_event(at, life, *event),
            Event::Forgotten(at, life, job) => self.forgotten(at, life, &job),
            Event::Ports(at, life, job, ports) => self.ports(at, life, &job, ports),
            Event::Begin(at, job, id, fails) => self.engine_begin(at, job, id, fails),
            Event::Exit(at, job, id) => self.engine_exit(at, &job, id),
            Event::Lease(at) => self.engine_lease_due(at),
            Event::MachineUp(at) => self.machine_up(at),
            Event::User(op) => self.user(op),
            Event::Accident => self.accident(),
            Event::Heal => self.heal(),
            Event::Settled => self.settled(),
        }
    }

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    /// Whether accidents happen.
    pub(crate) fn faulty(&self) -> bool {
        !self.healed
    }

    pub(crate) fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            self.trace(|| format!("FAILED: {why}"));
            self.failure = Some(format!("at {:.3} s: {why}", self.now as f64 / 1000.0));
        }
    }

    pub(crate) fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(tell) = &mut self.tell {
            let mut text = String::new();
            let _ = write!(text, "{:9.3} {}", self.now as f64 / 1000.0, line());
            tell(text);
        }
    }

    pub(crate) fn mix(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3);
    }

    pub(crate) fn node_at(&self, name: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|n| n.name == *name)
    }

    /// Machines with an agent that has a session.
    pub(crate) fn connected(&self) -> BTreeSet<usize> {
        let up = |n: &Machine| n.agent.as_ref().is_some_and(|a| a.session.is_some());
        (0..self.nodes.len()).filter(|at| up(&self.nodes[*at])).collect()
    }
}
