//! The agent's shell, without its sockets and threads: records go to the disk before anything is done, both take
//! time, and the agent may be killed between any two effects.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    ErrorCode, NodeName, Size,
    node::{EngineInfo, EngineKind, GpuInfo, GpuSample, Inventory, NodeSample, Vendor},
    wire::{FromNode, LogLine, Observation, PROTOCOL, Seen, ToNode},
    workload::{JobKey, LogSource},
};
use node::{
    agent::{Agent, Effect, Effects, Left, Now, Write},
    engine::{EngineEvent, What},
};

use crate::world::{Event, Machine, World};

/// The session's time limits, as in the agent's shell.
const PATIENCE_MS: u64 = 10_000;
const BACK_OFF_MIN_MS: u64 = 100;
const BACK_OFF_MAX_MS: u64 = 5_000;
const COMMIT_PATIENCE_MS: u64 = 5_000;
const DEAD_HEARTBEATS: u64 = 4;
const DEAD_MIN_MS: u64 = 5_000;

/// A living agent.
pub(crate) struct AgentRun {
    pub(crate) agent: Agent,
    decided: Effects,
    commit: Option<Commit>,
    commits: u64,
    /// Observations up to this number are on disk.
    durable: u64,
    /// A connection whose hello was sent at this monotonic time, and that has yet to be welcomed.
    hello: Option<(u64, u64)>,
    pub(crate) session: Option<Session>,
    back_off_ms: u64,
    deadline: Option<u64>,
    /// It is killed when it has carried out so many more effects.
    pub(crate) dies_after: Option<u32>,
}

struct Commit {
    effects: Effects,
    through: u64,
    number: u64,
    hurried: bool,
}

/// A session, on the agent's side.
pub(crate) struct Session {
    pub(crate) connection: u64,
    heartbeat_ms: u64,
    heartbeats: u64,
    unanswered: BTreeMap<u64, u64>,
    observations: Option<u64>,
    /// A frame of lines is under way.
    lines: bool,
    sent: BTreeMap<JobKey, u64>,
}

impl Machine {
    pub(crate) fn now(&self, now: u64) -> Now {
        Now {
            mono_ms: self.clock.mono(now),
            boot: self.boots,
            wall: self.clock.wall(now),
        }
    }

    fn inventory(&self) -> Inventory {
        let gpu = |index| GpuInfo {
            index,
            uuid: format!("GPU-{}-{index}", self.name),
            vendor: Vendor::Simulated,
            model: "Simulated H100 80GB".to_owned(),
            memory_total_bytes: Some(Size::gib(80)),
            pci_address: None,
            numa_node: Some(index / 4),
            power_limit_watts: None,
            driver_version: None,
        };
        Inventory {
            hostname: self.name.to_string(),
            cpu: api::Cpu::cores(self.cores),
            cpu_model: None,
            memory_total_bytes: Size::gib(self.memory_gib),
            os: None,
            kernel: None,
            arch: "x86_64".to_owned(),
            boot_id: Some(format!("{}-{}", self.name, self.boots)),
            gpus: (0..self.gpus).map(gpu).collect(),
            links: Vec::new(),
            engines: vec![EngineInfo {
                kind: EngineKind::Native,
                version: None,
                limitations: Vec::new(),
            }],
            agent_version: "0".to_owned(),
            notes: Vec::new(),
        }
    }

    fn sample(&self) -> NodeSample {
        NodeSample {
            gpus: (0..self.gpus)
                .map(|index| GpuSample {
                    index,
                    health: self.health.get(&index).cloned().unwrap_or_default(),
                    ..GpuSample::default()
                })
                .collect(),
            ..NodeSample::default()
        }
    }
}

fn write(disk: &mut BTreeMap<String, Vec<u8>>, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put { key, value } => {
                disk.insert(key.clone(), value.clone());
            }
            Write::Delete { key } => {
                disk.remove(key);
            }
        }
    }
}

impl World {
    // ---- Life and death -------------------------------------------------------------------------------------

    pub(crate) fn agent_life(&self, at: usize) -> Option<u64> {
        let node = &self.nodes[at];
        node.agent.as_ref().map(|_| node.lives)
    }

    fn alive(&mut self, at: usize, life: u64) -> Option<&mut AgentRun> {
        let node = &mut self.nodes[at];
        let current = node.lives == life;
        node.agent.as_mut().filter(|_| current)
    }

    pub(crate) fn agent_starts(&mut self, at: usize) {
        let node = &self.nodes[at];
        if !node.up || node.agent.is_some() || node.refused {
            return;
        }
        let found = self.engine_adopt(at);
        let node = &mut self.nodes[at];
        node.lives += 1;
        let life = node.lives;
        let lines = &node.engine.lines;
        let fenced = &node.engine.fenced;
        let left = |job: &JobKey| Left {
            last_line: lines.get(job).copied().unwrap_or(0),
            fenced: fenced.contains(job),
        };
        let now = node.now(self.now);
        let (agent, first) = match Agent::new(node.disk.clone(), found, left, now) {
            Ok(made) => made,
            Err(error) => return self.fail(format!("n{at}'s records can't be read: {error}")),
        };
        node.agent = Some(AgentRun {
            agent,
            decided: first,
            commit: None,
            commits: 0,
            durable: 0,
            hello: None,
            session: None,
            back_off_ms: BACK_OFF_MIN_MS,
            deadline: None,
            dies_after: None,
        });
        self.trace(|| format!("agent n{at}: life {life} begins"));
        self.settle(at);
        self.schedule(self.now, Event::Connect(at, life));
    }

    pub(crate) fn agent_dies(&mut self, at: usize) {
        let half = self.random.chance(500);
        let node = &mut self.nodes[at];
        let Some(agent) = node.agent.take() else { return };
        node.lives += 1;
        if let Some(commit) = agent.commit.filter(|_| half) {
            write(&mut node.disk, &commit.effects.persist);
        }
        self.trace(|| format!("agent n{at}: dies"));
        let connections = [agent.session.map(|s| s.connection), agent.hello.map(|(id, _)| id)];
        for id in connections.into_iter().flatten() {
            self.close_node_end(id);
        }
    }

    pub(crate) fn machine_dies(&mut self, at: usize) {
        self.agent_dies(at);
        self.engine_dies(at);
        self.nodes[at].up = false;
        self.trace(|| format!("machine n{at}: goes down"));
    }

    pub(crate) fn machine_up(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        if !node.up {
            node.up = true;
            node.boots += 1;
            node.clock.reboot(now);
            node.health.clear();
            self.trace(|| format!("machine n{at}: is up again"));
        }
        self.schedule(now, Event::AgentStarts(at));
    }

    // ---- Deciding and doing ---------------------------------------------------------------------------------

    fn decided(&mut self, at: usize, effects: Effects) {
        if let Some(run) = &mut self.nodes[at].agent {
            run.decided.append(effects);
        }
        self.settle(at);
    }

    fn settle(&mut self, at: usize) {
        let wait = if self.now < self.nodes[at].slow_until {
            self.random.range(500, 9_000)
        } else if self.faulty() {
            self.random.delay(0, 8, 400)
        } else {
            1
        };
        let (now, life) = (self.now, self.nodes[at].lives);
        let Some(run) = &mut self.nodes[at].agent else { return };
        if run.commit.is_none() && !run.decided.is_empty() {
            let effects = std::mem::take(&mut run.decided);
            let through = run.agent.unacknowledged().last().map_or(0, |last| last.number);
            if effects.persist.is_empty() {
                self.carry_out(at, effects.then, through);
            } else {
                run.commits += 1;
                let number = run.commits;
                run.commit = Some(Commit {
                    effects,
                    through,
                    number,
                    hurried: false,
                });
                self.schedule(now + wait, Event::Committed(at, life, number));
                if wait > COMMIT_PATIENCE_MS {
                    self.schedule(now + COMMIT_PATIENCE_MS, Event::Hurry(at, life, number));
                }
            }
        }
        if self.nodes[at].lives != life {
            return;
        }
        self.send_lines(at);
        self.send_observations(at);
        self.set_deadline(at);
    }

    fn set_deadline(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let (clock, life) = (node.clock, node.lives);
        let Some(run) = &mut node.agent else { return };
        let Some(due) = run.agent.next_deadline() else {
            run.deadline = None;
            return;
        };
        if run.deadline != Some(due) {
            run.deadline = Some(due);
            self.schedule(clock.when(due), Event::Deadline(at, life));
        }
    }

    pub(crate) fn deadline(&mut self, at: usize, life: u64) {
        let now = self.nodes[at].now(self.now);
        let Some(run) = self.alive(at, life) else { return };
        if run.agent.next_deadline().is_none_or(|due| due > now.mono_ms) {
            return;
        }
        run.deadline = None;
        let effects = run.agent.tick(now);
        if effects.is_empty() && run.agent.next_deadline().is_some_and(|due| due <= now.mono_ms) {
            return self.fail(format!("the agent of n{at} spins"));
        }
        self.decided(at, effects);
    }

    pub(crate) fn committed(&mut self, at: usize, life: u64, number: u64) {
        let node = &mut self.nodes[at];
        if node.lives != life {
            return;
        }
        let Some(run) = &mut node.agent else { return };
        if let Some(0) = run.dies_after {
            return self.agent_killed(at);
        }
        let Some(commit) = run.commit.take_if(|c| c.number == number) else {
            return;
        };
        write(&mut node.disk, &commit.effects.persist);
        self.carry_out(at, commit.effects.then, commit.through);
        if self.nodes[at].lives == life {
            self.settle(at);
        }
    }

    /// Orders to stop don't wait for a disk that hangs.
    pub(crate) fn hurry(&mut self, at: usize, life: u64, number: u64) {
        let Some(run) = self.alive(at, life) else { return };
        let Some(commit) = run.commit.as_mut().filter(|c| c.number == number) else {
            return;
        };
        commit.hurried = true;
        let all = commit.effects.then.iter().chain(&run.decided.then);
        let stops: Vec<_> = all
            .filter_map(|effect| match effect {
                Effect::Stop { job, grace } => Some((job.clone(), *grace)),
                _ => None,
            })
            .collect();
        for (job, grace) in stops {
            self.engine_stop(at, &job, grace);
        }
        self.schedule(self.now + 1_000, Event::Hurry(at, life, number));
    }

    fn agent_killed(&mut self, at: usize) {
        let long = self.random.chance(300);
        let most = if long { 2 * self.config.lost_ms } else { 5_000 };
        let down = self.random.range(100, most);
        if self.random.chance(300) {
            self.machine_dies(at);
            self.schedule(self.now + down, Event::MachineUp(at));
        } else {
            self.agent_dies(at);
            self.schedule(self.now + down, Event::AgentStarts(at));
        }
    }

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>, through: u64) {
        let life = self.nodes[at].lives;
        if let Some(run) = &mut self.nodes[at].agent {
            run.durable = run.durable.max(through);
        }
        for effect in effects {
            let start = matches!(effect, Effect::Start(..));
            // A job that is accepted and not begun is where a death matters most.
            if start && self.faulty() && self.random.chance(10) {
                return self.agent_killed(at);
            }
            let Some(run) = self.alive(at, life) else { return };
            match &mut run.dies_after {
                Some(0) => return self.agent_killed(at),
                Some(left) => *left -= 1,
                None => {}
            }
            match effect {
                Effect::Start(job, _) => self.engine_start(at, &job),
                Effect::FindPorts { job, count, taken } => {
                    let ports = self.free_ports(count, &taken);
                    let wait = if self.faulty() { self.random.delay(0, 3, 50) } else { 0 };
                    self.schedule(self.now + wait, Event::Ports(at, life, job, ports));
                }
                Effect::AskSecrets(job) => self.say(at, FromNode::SecretsWanted { job }),
                Effect::Stop { job, grace } => self.engine_stop(at, &job, grace),
                Effect::Forget(job) => {
                    let wait = if self.faulty() { self.random.delay(0, 5, 800) } else { 0 };
                    self.schedule(self.now + wait, Event::Forgotten(at, life, job));
                }
                Effect::Resync => self.say(at, FromNode::Resync),
                Effect::Lease { stop_ms } => self.engine_lease(at, stop_ms),
                Effect::SetMemory { .. } | Effect::SendObservations | Effect::Secrets { .. } => {}
            }
        }
    }

    /// Nothing but a machine's own jobs listens there. From a small range, so that they meet.
    fn free_ports(&mut self, count: usize, taken: &BTreeSet<u16>) -> Option<Vec<u16>> {
        let first = 20_000 + u16::try_from(self.random.below(64)).unwrap_or(0);
        let ports: Vec<u16> = (first..).filter(|port| !taken.contains(port)).take(count).collect();
        // Rarely there is none.
        (ports.len() == count && !(self.faulty() && self.random.chance(5))).then_some(ports)
    }

    pub(crate) fn ports(&mut self, at: usize, life: u64, job: &JobKey, found: Option<Vec<u16>>) {
        let now = self.nodes[at].now(self.now);
        if let Some(run) = self.alive(at, life) {
            let effects = run.agent.ports(job, found, now);
            self.decided(at, effects);
        }
    }

    pub(crate) fn forgotten(&mut self, at: usize, life: u64, job: &JobKey) {
        if self.alive(at, life).is_none() {
            return;
        }
        self.engine_forget(at, job);
        if let Some(run) = self.alive(at, life) {
            let effects = run.agent.forgotten(job);
            self.decided(at, effects);
        }
    }

    pub(crate) fn engine_event(&mut self, at: usize, life: u64, event: EngineEvent) {
        let node = &self.nodes[at];
        let left = match event.what {
            What::Ended { .. } => Left {
                last_line: node.engine.lines.get(&event.job).copied().unwrap_or(0),
                fenced: node.engine.fenced.contains(&event.job),
            },
            What::Pulling(_) | What::Started { .. } => Left::default(),
        };
        let now = node.now(self.now);
        let Some(run) = self.alive(at, life) else { return };
        let effects = run.agent.engine_event(event, left, now);
        self.decided(at, effects);
    }

    // ---- The gateway ----------------------------------------------------------------------------------------

    fn try_again(&mut self, at: usize) {
        let life = self.nodes[at].lives;
        let random = self.random.range(500, 1_000);
        let Some(run) = &mut self.nodes[at].agent else { return };
        let wait = run.back_off_ms * random / 1_000;
        run.back_off_ms = (run.back_off_ms * 2).min(BACK_OFF_MAX_MS);
        self.schedule(self.now + wait, Event::Connect(at, life));
    }

    pub(crate) fn connect(&mut self, at: usize, life: u64) {
        let cut_off = self.nodes[at].cut_off_until;
        let now = self.now;
        let faults = self.faulty();
        let rtt = if faults {
            self.random.delay(0, 20, 2_000)
        } else {
            self.random.range(0, 3)
        };
        let listening = self.gateway.running.is_some() || self.gateway.starting;
        let Some(run) = self.alive(at, life) else { return };
        if run.session.is_some() || run.hello.is_some() {
            return;
        }
        if cut_off > now {
            self.schedule(now + PATIENCE_MS, Event::Answer(at, life, false));
        } else {
            // Whether somebody listens is seen when the call arrives; the answer takes as long again.
            self.schedule(now + rtt, Event::Answer(at, life, !listening));
        }
    }

    pub(crate) fn answer(&mut self, at: usize, life: u64, refused: bool) {
        let now = self.now;
        let node = &self.nodes[at];
        let (clock_now, cut_off) = (node.now(now), node.cut_off_until > now);
        let admitted = self.admits(&node.name, &node.credential);
        let gateway = self.gateway.running.is_some();
        let inventory = node.inventory();
        let name: NodeName = node.name.clone();
        let Some(run) = self.alive(at, life) else { return };
        if refused {
            let effects = run.agent.connection_refused(clock_now);
            self.decided(at, effects);
            return self.try_again(at);
        }
        if cut_off || !gateway {
            return self.try_again(at);
        }
        if !admitted {
            return self.never(at);
        }
        let hello = FromNode::Hello {
            protocol: PROTOCOL,
            name,
            inventory: Box::new(inventory),
            labels: BTreeMap::new(),
            jobs: run.agent.known(),
            services: None,
        };
        let id = self.open_connection(at, life);
        if let Some(run) = self.alive(at, life) {
            run.hello = Some((id, clock_now.mono_ms));
        }
        self.send_up(id, hello);
        self.schedule(now + PATIENCE_MS, Event::Impatient(at, life, id));
    }

    /// The gateway doesn't know this node: its agent ends, and what it runs goes on.
    fn never(&mut self, at: usize) {
        self.trace(|| format!("agent n{at}: is refused for good"));
        self.agent_dies(at);
        self.nodes[at].refused = true;
    }

    /// A hello has waited long enough for its welcome.
    pub(crate) fn impatient(&mut self, at: usize, life: u64, id: u64) {
        let Some(run) = self.alive(at, life) else { return };
        if run.hello.take_if(|(hello, _)| *hello == id).is_some() {
            self.close_node_end(id);
            self.try_again(at);
        }
    }

    pub(crate) fn node_sees_end(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id).filter(|c| c.node_open) else {
            return;
        };
        let (at, life) = (connection.node, connection.life);
        self.close_node_end(id);
        self.session_over(at, life, id);
    }

    fn session_over(&mut self, at: usize, life: u64, id: u64) {
        let Some(run) = self.alive(at, life) else { return };
        if run.hello.take_if(|(hello, _)| *hello == id).is_some() {
            self.try_again(at);
        } else if run.session.take_if(|s| s.connection == id).is_some() {
            run.agent.disconnected();
            self.settle(at);
            self.try_again(at);
        }
    }

    /// The agent ends its session.
    fn hang_up(&mut self, at: usize) {
        let life = self.nodes[at].lives;
        let Some(id) = self
            .alive(at, life)
            .and_then(|run| run.session.as_ref())
            .map(|s| s.connection)
        else {
            return;
        };
        self.close_node_end(id);
        self.session_over(at, life, id);
    }

    pub(crate) fn at_node(&mut self, id: u64, message: ToNode) {
        if !self.arrives_down(id) {
            return;
        }
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let (at, life) = (connection.node, connection.life);
        let now = self.nodes[at].now(self.now);
        let Some(run) = self.alive(at, life) else { return };
        if let Some((_, hello_ms)) = run.hello.take_if(|(hello, _)| *hello == id) {
            match message {
                ToNode::Welcome {
                    heartbeat,
                    fence,
                    alone,
                    ..
                } => {
                    run.back_off_ms = BACK_OFF_MIN_MS;
                    let effects = run.agent.connected(fence, alone, hello_ms);
                    run.session = Some(Session {
                        connection: id,
                        heartbeat_ms: heartbeat.millis(),
                        heartbeats: 0,
                        unanswered: BTreeMap::new(),
                        observations: None,
                        lines: false,
                        sent: BTreeMap::new(),
                    });
                    self.nodes[at].joining = None;
                    self.decided(at, effects);
                    self.schedule(self.now, Event::Pulse(at, life, id));
                }
                ToNode::Refused { error } => {
                    self.close_node_end(id);
                    match error.code {
                        ErrorCode::AuthFailed | ErrorCode::PermissionDenied | ErrorCode::InvalidArgument => {
                            self.never(at);
                        }
                        _ => self.try_again(at),
                    }
                }
                _ => self.fail("something else than a welcome".to_owned()),
            }
            return;
        }
        let Some(session) = run.session.as_mut().filter(|s| s.connection == id) else {
            return;
        };
        let effects = match message {
            ToNode::HeartbeatAck { number } => {
                if session.unanswered.remove(&number).is_some() {
                    session.unanswered = session.unanswered.split_off(&number);
                }
                run.agent.heartbeat_acked(number)
            }
            ToNode::Desired(said) => run.agent.desired(said, now),
            ToNode::ObservationsAck { through } => {
                if session.observations.is_some_and(|last| last <= through) {
                    session.observations = None;
                }
                run.agent.observations_acked(through, now)
            }
            ToNode::LogsAck { through } => {
                session.lines = false;
                run.agent.logs_acked(&through, now)
            }
            ToNode::Welcome { .. } | ToNode::Refused { .. } => return self.hang_up(at),
            ToNode::Secrets { job, .. } => return self.fail(format!("{job} uses no secrets")),
            ToNode::Exec { .. }
            | ToNode::MetricsAck { .. }
            | ToNode::FactsAck { .. }
            | ToNode::Routes(_)
            | ToNode::TrafficAck { .. } => return,
        };
        self.decided(at, effects);
    }

    fn say(&mut self, at: usize, frame: FromNode) {
        let session = self.nodes[at].agent.as_ref().and_then(|run| run.session.as_ref());
        if let Some(id) = session.map(|s| s.connection) {
            self.send_up(id, frame);
        }
    }

    pub(crate) fn pulse(&mut self, at: usize, life: u64, id: u64) {
        let node = &mut self.nodes[at];
        if node.lives != life {
            return;
        }
        let now = node.now(self.now);
        let sample = node.sample();
        let clock = node.clock;
        let Some(run) = &mut node.agent else { return };
        let Some(session) = run.session.as_mut().filter(|s| s.connection == id) else {
            return;
        };
        let dead_ms = (session.heartbeat_ms * DEAD_HEARTBEATS).max(DEAD_MIN_MS);
        if session
            .unanswered
            .first_key_value()
            .is_some_and(|(_, sent)| now.mono_ms - sent > dead_ms)
        {
            return self.hang_up(at);
        }
        session.heartbeats += 1;
        let number = session.heartbeats;
        session.unanswered.insert(number, now.mono_ms);
        let next = clock.when(now.mono_ms + session.heartbeat_ms);
        run.agent.heartbeat_sent(number, now.mono_ms);
        let frame = FromNode::Heartbeat {
            number,
            at: now.wall,
            round_trip_ms: None,
            sample: Box::new(sample),
        };
        self.say(at, frame);
        self.schedule(next, Event::Pulse(at, life, id));
    }

    fn send_observations(&mut self, at: usize) {
        let Some(run) = &mut self.nodes[at].agent else { return };
        let Some(session) = run.session.as_mut().filter(|s| s.observations.is_none()) else {
            return;
        };
        let awaits_lines = |o: &Observation| {
            let Seen::Ended { last_line, .. } = o.seen else {
                return false;
            };
            let acked = run.agent.job(&o.job).map(|job| job.lines_acked);
            let sent = session.sent.get(&o.job).copied().unwrap_or(0);
            acked.is_some_and(|acked| acked.max(sent) < last_line)
        };
        let observations: Vec<Observation> = run
            .agent
            .unacknowledged()
            .take_while(|o| o.number <= run.durable && !awaits_lines(o))
            .cloned()
            .collect();
        let Some(last) = observations.last().map(|o| o.number) else {
            return;
        };
        session.observations = Some(last);
        self.say(at, FromNode::Observations { observations });
    }

    fn send_lines(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(run) = &mut node.agent else { return };
        let Some(session) = run.session.as_mut().filter(|s| !s.lines) else {
            return;
        };
        let mut streams = Vec::new();
        let mut gone = Vec::new();
        for (key, job) in run.agent.jobs() {
            let last = node.engine.lines.get(key).copied().unwrap_or(0);
            // Lines that were removed before the record was.
            if let Some(end) = job
                .last_line
                .filter(|end| job.lines_acked >= last && job.lines_acked < *end)
            {
                gone.push((key.clone(), end));
            }
            if last <= job.lines_acked {
                continue;
            }
            let lines = (job.lines_acked + 1..=last).map(|number| LogLine {
                number,
                at_ns: 0,
                source: LogSource::Stdout,
                text: String::new(),
                partial: false,
            });
            session.sent.insert(key.clone(), last);
            streams.push((key.clone(), lines.collect()));
        }
        if !streams.is_empty() {
            session.lines = true;
            self.say(at, FromNode::Logs { streams });
        }
        if !gone.is_empty() {
            let now = self.nodes[at].now(self.now);
            if let Some(run) = &mut self.nodes[at].agent {
                let effects = run.agent.logs_acked(&gone, now);
                self.decided(at, effects);
            }
        }
    }
}
