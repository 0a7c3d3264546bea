//! The gateway's shell, without its sockets and threads: decisions go to the store, the store's changes come back
//! into the view, and both take time, at any point of which the gateway may be killed.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use api::{
    ApiError, NodeName, Span, Timestamp, WorkloadId,
    node::{GpuHealth, Inventory},
    wire::{FromNode, LogLine, Observation, PROTOCOL, ToNode},
    workload::JobKey,
};
use gateway::{
    decide::{
        assign::Told,
        nodes::{self, Patience},
        observed,
        plan::{self, Planner},
        sweep::{self, Retention},
    },
    draft::Draft,
    view::{Touched, View, gone},
};
use store::{
    Order, Range, Revision, Txn, TxnOutcome,
    embedded::{Db, FaultyDisk, Options, Reader},
};

use crate::{
    clock::Clock,
    users::UserOp,
    world::{Event, World},
};

/// Tries of a decision that keeps being overtaken, as in the hub.
const TRIES: u32 = 32;

/// Longest piece of a desired set: so short that most sets have several.
const PIECE_BYTES: usize = 1_000;

/// What is to be done when a commit has come to something.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    Planner,
    Tick,
    Begin(u64, u32),
    Observe(u64, Rc<Vec<Observation>>, WorkloadId),
    Changed(u64, Option<Box<Inventory>>, BTreeMap<u32, GpuHealth>),
    User(UserOp, u32),
    Nothing,
}

/// What a commit has come to.
#[derive(Debug)]
pub(crate) enum Came {
    Done,
    Overtaken,
    /// The disk wouldn't have it.
    Failed,
}

/// A commit's outcome, and what is to be done then.
pub(crate) type Result3 = (Then, Came);

/// What waits in a session to be put on disk.
#[derive(Debug)]
enum Work {
    Logs(Vec<(JobKey, Vec<LogLine>)>),
    Observations(Vec<Observation>),
    Changed(Option<Box<Inventory>>, BTreeMap<u32, GpuHealth>),
}

/// A node's session.
struct Session {
    node: NodeName,
    /// The machine of its hello, until the session has begun.
    hello: Option<(Inventory, BTreeMap<String, String>)>,
    begun: bool,
    told: Told,
    push: bool,
    work: VecDeque<Work>,
    /// Commits that the work in hand waits for.
    waits: usize,
    /// What is acknowledged when they are done.
    through: Option<u64>,
}

struct Node {
    /// The last sign of life, on the gateway's monotonic clock.
    seen: u64,
    session: Option<u64>,
}

/// A living gateway.
pub(crate) struct Running {
    db: Db,
    reader: Reader,
    pub(crate) view: View,
    pub(crate) planner: Planner,
    news: Vec<Touched>,
    planner_waits: usize,
    planner_awake: u32,
    /// When it is to be woken.
    planner_wake: Option<u64>,
    live: BTreeMap<NodeName, Node>,
    sessions: BTreeMap<u64, Session>,
    queue: Vec<(Txn, Then)>,
    flushing: bool,
    tick_waits: usize,
    swept: Option<Timestamp>,
}

/// The gateway and its disk.
pub(crate) struct Gateway {
    pub(crate) disk: FaultyDisk,
    /// Counts gateways.
    pub(crate) life: u64,
    pub(crate) clock: Clock,
    pub(crate) running: Option<Running>,
    /// It listens, but has yet to read its state.
    pub(crate) starting: bool,
    /// Commits take long before this time.
    pub(crate) slow_until: u64,
    /// The disk is full before this time.
    pub(crate) full_until: u64,
    /// It dies right after its next commit, before anybody learns of it.
    pub(crate) dies_at_commit: bool,
    /// Lines of logs that are kept, by job.
    pub(crate) logs: BTreeMap<JobKey, u64>,
}

impl Gateway {
    pub(crate) fn new(ahead_ms: i64) -> Self {
        Self {
            disk: FaultyDisk::new(),
            life: 0,
            clock: Clock::new(0, 0, ahead_ms),
            running: None,
            starting: false,
            slow_until: 0,
            full_until: 0,
            dies_at_commit: false,
            logs: BTreeMap::new(),
        }
    }
}

/// Everything after `view`'s revision, into the view.
fn catch_up(reader: &Reader, view: &mut View) -> Result<Vec<Touched>, String> {
    let mut all = Vec::new();
    loop {
        let from = view.revision();
        let (changes, to) = reader.changes(&Range::all(), from).map_err(|e| e.to_string())?;
        for change in &changes {
            all.push(view.apply(change).map_err(|e| e.to_string())?);
        }
        view.reached(to);
        if to == from {
            return Ok(all);
        }
    }
}

/// The store as a view, as a gateway reads it that starts.
fn read_all(reader: &Reader) -> Result<(View, Vec<Touched>), String> {
    let mut view = View::default();
    let page = reader
        .range(&Range::all(), usize::MAX, Order::Ascending)
        .map_err(|e| e.to_string())?;
    let mut touched = Vec::new();
    for record in page.records {
        if record.key.starts_with(gateway::keys::EVENTS) {
            continue;
        }
        touched.push(view.apply(&store::Change::Put(record)).map_err(|e| e.to_string())?);
    }
    view.reached(page.revision);
    Ok((view, touched))
}

impl World {
    pub(crate) fn gateway_now(&self) -> Timestamp {
        self.gateway.clock.wall(self.now)
    }

    fn patience(&self) -> Patience {
        Patience {
            unreachable: Span(self.config.unreachable_ms),
            lost: Span(self.config.lost_ms),
        }
    }

    // ---- Life and death -------------------------------------------------------------------------------------

    pub(crate) fn gateway_starts(&mut self) {
        if self.gateway.running.is_some() {
            return;
        }
        let opened = Db::open(
            self.gateway.disk.clone(),
            Options {
                cache_bytes: 4 << 20,
                ..Options::default()
            },
            Duration::from_millis(self.now),
        );
        let db = match opened {
            Ok(db) => db,
            Err(error) => return self.fail(format!("the store can't be opened: {error}")),
        };
        let reader = db.reader();
        let (view, news) = match read_all(&reader) {
            Ok(read) => read,
            Err(error) => return self.fail(format!("the store can't be read: {error}")),
        };
        self.gateway.starting = false;
        self.gateway.life += 1;
        let life = self.gateway.life;
        self.trace(|| format!("gateway: life {life} begins at revision {}", view.revision()));
        self.check_start(&view);
        self.gateway.running = Some(Running {
            db,
            reader,
            view,
            planner: Planner::new(Span(self.config.min_run_ms)),
            news,
            planner_waits: 0,
            planner_awake: 0,
            planner_wake: None,
            live: BTreeMap::new(),
            sessions: BTreeMap::new(),
            queue: Vec::new(),
            flushing: false,
            tick_waits: 0,
            swept: None,
        });
        self.schedule(self.now + 1_000, Event::Tick(life));
        self.schedule(self.now, Event::Planner(life));
    }

    pub(crate) fn gateway_dies(&mut self) {
        let Some(running) = self.gateway.running.take() else {
            return;
        };
        self.trace(|| "gateway: dies".to_owned());
        // Nothing that isn't synced outlives it; nor does the tidying-up of a database that is closed in order.
        self.gateway.disk.lose_power_after(0);
        drop(running);
        let seed = self.random.next();
        self.gateway.disk.restore_power(seed);
        self.gateway.dies_at_commit = false;
        self.gateway.life += 1;
        let open: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.gateway_open)
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            self.close_gateway_end(id);
        }
        let down = self.random.delay(50, 5_000, 90_000);
        let starting = self.random.range(10, 1_500);
        self.gateway.starting = false;
        self.schedule(self.now + down + starting, Event::GatewayStarts);
    }

    fn running(&mut self, life: u64) -> Option<&mut Running> {
        let current = self.gateway.life == life;
        self.gateway.running.as_mut().filter(|_| current)
    }

    // ---- Commits --------------------------------------------------------------------------------------------

    pub(crate) fn commit(&mut self, draft: Draft, then: Then) {
        let slow = self.now < self.gateway.slow_until;
        let wait = if slow {
            self.random.range(100, 3_000)
        } else if self.faulty() {
            self.random.delay(0, 10, 500)
        } else {
            1
        };
        let life = self.gateway.life;
        let due = self.now + wait;
        let Some(running) = &mut self.gateway.running else {
            return;
        };
        running.queue.push((draft.finish(), then));
        if !running.flushing {
            running.flushing = true;
            self.schedule(due, Event::Flush(life));
        }
    }

    pub(crate) fn flush(&mut self, life: u64) {
        let now = Duration::from_millis(self.now);
        let full = self.now < self.gateway.full_until;
        let disk = self.gateway.disk.clone();
        let Some(running) = self.running(life) else { return };
        running.flushing = false;
        let (batch, thens): (Vec<Txn>, Vec<Then>) = std::mem::take(&mut running.queue).into_iter().unzip();
        disk.set_quota_bytes(full.then_some(0));
        let came: Vec<Came> = running
            .db
            .apply(&batch, now)
            .into_iter()
            .map(|answer| match answer {
                Ok(TxnOutcome::Committed(_)) => Came::Done,
                Ok(TxnOutcome::Conflict { .. }) => Came::Overtaken,
                Err(_) => Came::Failed,
            })
            .collect();
        disk.set_quota_bytes(None);
        let reader = running.reader.clone();
        let failed = came.iter().filter(|c| matches!(c, Came::Failed)).count();
        let overtaken = came.iter().filter(|c| matches!(c, Came::Overtaken)).count();
        if failed > 0 && !full {
            return self.fail("the store failed though its disk is well".to_owned());
        }
        self.trace(|| {
            format!(
                "store: {} transactions, {overtaken} overtaken, {failed} failed",
                batch.len()
            )
        });
        self.checks.commits += batch.len() as u64;
        self.checks.conflicts += overtaken as u64;
        self.check_commit(&reader);
        if self.gateway.dies_at_commit {
            self.trace(|| "gateway: killed between commit and send".to_owned());
            return self.gateway_dies();
        }
        let wait = if self.faulty() { self.random.delay(0, 3, 300) } else { 0 };
        let results = thens.into_iter().zip(came).collect();
        self.schedule(self.now + wait, Event::Applied(life, results));
    }

    pub(crate) fn applied(&mut self, life: u64, results: Vec<Result3>) {
        let lag = if self.faulty() { self.random.delay(0, 2, 500) } else { 0 };
        let Some(running) = self.running(life) else { return };
        let touched = match catch_up(&running.reader, &mut running.view) {
            Ok(touched) => touched,
            Err(error) => return self.fail(format!("the view lost track: {error}")),
        };
        let mut wake = Vec::new();
        for one in &touched {
            if let Touched::Workload(_, _, nodes) = one {
                for (id, session) in &mut running.sessions {
                    if session.begun && !session.push && nodes.contains(&session.node) {
                        session.push = true;
                        wake.push(*id);
                    }
                }
            }
        }
        if !touched.is_empty() {
            running.news.extend(touched);
        }
        for id in wake {
            self.schedule(self.now + lag, Event::Push(life, id));
        }
        self.schedule(self.now + lag, Event::Planner(life));
        for (then, came) in results {
            self.then(life, then, came);
        }
    }

    fn then(&mut self, life: u64, then: Then, came: Came) {
        if self.gateway.life != life {
            return;
        }
        match (then, came) {
            (Then::Nothing, _) => {}
            (Then::Planner, came) => {
                let Some(running) = self.running(life) else { return };
                running.planner_waits -= 1;
                let failed = matches!(came, Came::Failed);
                self.schedule(self.now + if failed { 200 } else { 0 }, Event::Planner(life));
            }
            (Then::Tick, _) => {
                let Some(running) = self.running(life) else { return };
                running.tick_waits -= 1;
                if running.tick_waits == 0 {
                    self.schedule(self.now + 1_000, Event::Tick(life));
                }
            }
            (Then::Begin(id, _), Came::Done) => {
                let lag = if self.faulty() {
                    self.random.delay(0, 2, 2_500)
                } else {
                    0
                };
                self.schedule(self.now + lag, Event::BeginDone(life, id));
            }
            (Then::Begin(id, tries), Came::Overtaken) if tries < TRIES => self.begin(id, tries + 1),
            (Then::Begin(id, _), _) => self.refuse(id, ApiError::internal("the store failed")),
            (Then::Observe(id, ..) | Then::Changed(id, ..), Came::Done) => self.work_done(id),
            (Then::Observe(id, all, workload), Came::Overtaken) => self.observe(id, all, workload),
            (Then::Changed(id, inventory, health), Came::Overtaken) => self.change(id, inventory, health),
            (Then::Changed(id, ..), Came::Failed) => self.work_done(id),
            (then @ Then::Observe(..), Came::Failed) => {
                self.schedule(self.now + 500, Event::Retry(life, Box::new(then)));
            }
            (Then::User(op, tries), Came::Overtaken) if tries < TRIES => self.decide_user(op, tries + 1),
            (Then::User(UserOp::Remove(name, force), _), Came::Done) => {
                self.decide_user(UserOp::RemoveDrained(name, force), 0);
            }
            (Then::User(UserOp::RemoveDrained(name, _), _), Came::Done) => self.drop_node(&name),
            (Then::User(..), _) => {}
        }
    }

    pub(crate) fn retry(&mut self, life: u64, then: Then) {
        if self.gateway.life == life
            && let Then::Observe(id, all, workload) = then
        {
            self.observe(id, all, workload);
        }
    }

    // ---- Controllers ----------------------------------------------------------------------------------------

    pub(crate) fn planner(&mut self, life: u64) {
        let at = self.gateway_now();
        let Some(running) = self.running(life) else { return };
        if running.planner_waits > 0 {
            return;
        }
        let due = |planner: &Planner| planner.next_wake().is_some_and(|wake| wake <= at);
        if running.news.is_empty() && !due(&running.planner) {
            return self.planner_sleeps(life);
        }
        let by_clock = running.news.is_empty();
        for touched in std::mem::take(&mut running.news) {
            running.planner.apply(&touched, at);
        }
        let mut drafts = Vec::new();
        if !running.planner.idle() {
            let plan = running.planner.pass(at);
            if !plan.is_idle() {
                drafts = plan::carry_out(&running.view, &plan, at);
            }
        }
        running.planner_waits = drafts.len();
        running.planner_awake = if by_clock && drafts.is_empty() && due(&running.planner) {
            running.planner_awake + 1
        } else {
            0
        };
        let awake = running.planner_awake;
        let idle = drafts.is_empty();
        for draft in drafts {
            self.commit(draft, Then::Planner);
        }
        if awake > 3 {
            return self.fail("the scheduling controller spins: it is woken for nothing again and again".to_owned());
        }
        if idle {
            self.planner_sleeps(life);
        }
    }

    /// The controller sleeps until it is time for something.
    fn planner_sleeps(&mut self, life: u64) {
        let (at, now) = (self.gateway_now(), self.now);
        let Some(running) = self.running(life) else { return };
        let Some(wake) = running.planner.next_wake() else {
            return;
        };
        let due = now + api::time::between(at, wake).millis();
        if running.planner_wake != Some(due) || due <= now {
            running.planner_wake = Some(due);
            self.schedule(due, Event::Planner(life));
        }
    }

    pub(crate) fn tick(&mut self, life: u64) {
        let at = self.gateway_now();
        let now = self.now;
        let patience = self.patience();
        let retention = Retention {
            age: Span::secs(1_000_000),
            count: self.config.keep,
        };
        let Some(running) = self.running(life) else { return };
        let silence: BTreeMap<NodeName, Span> = running
            .view
            .nodes()
            .map(|node| {
                let live = running.live.entry(node.name.clone()).or_insert(Node {
                    seen: now,
                    session: None,
                });
                (node.name.clone(), Span(now - live.seen))
            })
            .collect();
        let drafts = sweep::due(
            &running.view,
            |node| silence.get(node).copied().unwrap_or_default(),
            patience,
            at,
        );
        let mut old = Vec::new();
        if running
            .swept
            .is_none_or(|swept| api::time::between(swept, at) >= Span::secs(60))
        {
            running.swept = Some(at);
            old = sweep::forgotten(&running.view, retention, at);
        }
        running.tick_waits = drafts.len();
        let idle = drafts.is_empty();
        for draft in drafts {
            self.commit(draft, Then::Tick);
        }
        for (_, draft) in old {
            self.commit(draft, Then::Nothing);
        }
        if idle {
            self.schedule(self.now + 1_000, Event::Tick(life));
        }
    }

    // ---- Sessions -------------------------------------------------------------------------------------------

    /// Whether the gateway knows a node by its credential.
    pub(crate) fn admits(&self, name: &NodeName, credential: &str) -> bool {
        let running = self.gateway.running.as_ref();
        running
            .and_then(|r| r.view.node(name))
            .is_some_and(|node| node.credential_hash == credential)
    }

    pub(crate) fn at_gateway(&mut self, id: u64, frame: FromNode) {
        if !self.arrives_up(id) {
            return;
        }
        let now = self.now;
        let at = self.gateway_now();
        let Some(running) = &mut self.gateway.running else {
            return;
        };
        let Some(session) = running.sessions.get_mut(&id) else {
            if let FromNode::Hello {
                protocol: PROTOCOL,
                name,
                inventory,
                labels,
                ..
            } = frame
            {
                let live = running.live.entry(name.clone());
                live.and_modify(|live| live.seen = now).or_insert(Node {
                    seen: now,
                    session: None,
                });
                running.sessions.insert(
                    id,
                    Session {
                        node: name,
                        hello: Some((*inventory, labels)),
                        begun: false,
                        told: Told::in_pieces(PIECE_BYTES),
                        push: false,
                        work: VecDeque::new(),
                        waits: 0,
                        through: None,
                    },
                );
                self.begin(id, 0);
            }
            return;
        };
        if !session.begun {
            return self.fail("a frame before the welcome".to_owned());
        }
        let node = session.node.clone();
        if let Some(live) = running.live.get_mut(&node) {
            live.seen = now;
        }
        match frame {
            FromNode::Hello { .. } => return self.fail("a second hello".to_owned()),
            FromNode::Heartbeat { number, sample, .. } => {
                let health: BTreeMap<_, _> = sample.gpus.iter().map(|g| (g.index, g.health.clone())).collect();
                let known = running.view.node(&node);
                if known.is_some_and(|known| nodes::changed(known, None, &health, at).is_some()) {
                    session.work.push_back(Work::Changed(None, health));
                }
                self.send_down(id, ToNode::HeartbeatAck { number });
            }
            FromNode::Changed { inventory } => {
                session.work.push_back(Work::Changed(Some(inventory), BTreeMap::new()));
            }
            FromNode::Observations { observations } => session.work.push_back(Work::Observations(observations)),
            FromNode::Logs { streams } => session.work.push_back(Work::Logs(streams)),
            FromNode::Resync => {
                session.told.resync();
                self.push_soon(id);
            }
            FromNode::SecretsWanted { job } => return self.fail(format!("{job} uses no secrets")),
            FromNode::Pulling { .. }
            | FromNode::Exec { .. }
            | FromNode::Metrics { .. }
            | FromNode::Facts { .. }
            | FromNode::Traffic(_) => {}
        }
        self.work(id);
    }

    fn push_soon(&mut self, id: u64) {
        let life = self.gateway.life;
        if let Some(session) = self.gateway.running.as_mut().and_then(|r| r.sessions.get_mut(&id)) {
            session.push = true;
            self.schedule(self.now, Event::Push(life, id));
        }
    }

    fn begin(&mut self, id: u64, tries: u32) {
        let at = self.gateway_now();
        let Some(running) = &self.gateway.running else { return };
        let Some(session) = running.sessions.get(&id) else {
            return;
        };
        let Some((inventory, labels)) = session.hello.clone() else {
            return;
        };
        match running.view.node(&session.node) {
            Some(known) => {
                let came = nodes::Came {
                    inventory,
                    labels,
                    // All of them are on one machine, and carry no services.
                    address: std::net::Ipv4Addr::LOCALHOST.into(),
                    services: None,
                };
                let draft = nodes::online(known, came, at);
                self.commit(draft, Then::Begin(id, tries));
            }
            None => {
                let error = gone(session.node.as_str());
                self.refuse(id, error);
            }
        }
    }

    fn refuse(&mut self, id: u64, error: ApiError) {
        self.send_down(id, ToNode::Refused { error });
        self.end_session(id);
    }

    /// The session is over on the gateway's side.
    fn end_session(&mut self, id: u64) {
        if let Some(running) = &mut self.gateway.running
            && let Some(session) = running.sessions.remove(&id)
            && let Some(live) = running.live.get_mut(&session.node)
            && live.session == Some(id)
        {
            live.session = None;
        }
        self.close_gateway_end(id);
    }

    pub(crate) fn gateway_sees_end(&mut self, id: u64) {
        if self.connections.get(&id).is_some_and(|c| c.gateway_open) {
            self.end_session(id);
        }
    }

    /// The node is known to be online: the session is the node's from here on.
    pub(crate) fn begin_done(&mut self, life: u64, id: u64) {
        let now = self.now;
        let at = self.gateway_now();
        let fence = self.patience().fence();
        let heartbeat = Span(self.config.heartbeat_ms);
        let Some(running) = self.running(life) else { return };
        let Some(session) = running.sessions.get_mut(&id) else {
            return;
        };
        session.begun = true;
        let node = session.node.clone();
        let live = running.live.entry(node).or_insert(Node {
            seen: now,
            session: None,
        });
        live.seen = now;
        let older = live.session.replace(id);
        if let Some(older) = older {
            self.end_session(older);
        }
        let welcome = ToNode::Welcome {
            protocol: PROTOCOL,
            at,
            heartbeat,
            fence,
            alone: true,
        };
        self.send_down(id, welcome);
        self.push_soon(id);
    }

    pub(crate) fn push(&mut self, life: u64, id: u64) {
        let Some(running) = self.running(life) else { return };
        let Some(session) = running.sessions.get_mut(&id) else {
            return;
        };
        session.push = false;
        for piece in session.told.next(&running.view, &session.node) {
            self.send_down(id, ToNode::Desired(piece));
        }
    }

    /// Takes up the next piece of work, if the one before is done.
    fn work(&mut self, id: u64) {
        loop {
            let Some(session) = self.gateway.running.as_mut().and_then(|r| r.sessions.get_mut(&id)) else {
                return;
            };
            if session.waits > 0 {
                return;
            }
            if let Some(through) = session.through.take() {
                self.send_down(id, ToNode::ObservationsAck { through });
                continue;
            }
            match session.work.pop_front() {
                None => return,
                Some(Work::Logs(streams)) => self.keep_logs(id, streams),
                Some(Work::Changed(inventory, health)) => {
                    session.waits = 1;
                    self.change(id, inventory, health);
                }
                Some(Work::Observations(all)) => {
                    session.through = Some(all.iter().map(|o| o.number).max().unwrap_or(0));
                    let ids: Vec<WorkloadId> = observed::by_workload(&all).into_keys().collect();
                    session.waits = ids.len();
                    let all = Rc::new(all);
                    for workload in ids {
                        self.observe(id, Rc::clone(&all), workload);
                    }
                    return;
                }
            }
        }
    }

    fn work_done(&mut self, id: u64) {
        if let Some(session) = self.gateway.running.as_mut().and_then(|r| r.sessions.get_mut(&id)) {
            session.waits = session.waits.saturating_sub(1);
            if session.waits == 0 {
                self.work(id);
            }
        }
    }

    fn observe(&mut self, id: u64, all: Rc<Vec<Observation>>, workload: WorkloadId) {
        let at = self.gateway_now();
        let Some(running) = &self.gateway.running else { return };
        let Some(session) = running.sessions.get(&id) else {
            return;
        };
        let draft = {
            let by_workload = observed::by_workload(&all);
            by_workload
                .get(&workload)
                .and_then(|seen| observed::observed(&running.view, &session.node, &workload, seen, at))
        };
        match draft {
            Some(draft) => self.commit(draft, Then::Observe(id, all, workload)),
            None => self.work_done(id),
        }
    }

    fn change(&mut self, id: u64, inventory: Option<Box<Inventory>>, health: BTreeMap<u32, GpuHealth>) {
        let at = self.gateway_now();
        let Some(running) = &self.gateway.running else { return };
        let Some(session) = running.sessions.get(&id) else {
            return;
        };
        let draft = running
            .view
            .node(&session.node)
            .and_then(|known| nodes::changed(known, inventory.as_deref().cloned(), &health, at));
        match draft {
            Some(draft) => self.commit(draft, Then::Changed(id, inventory, health)),
            None => self.work_done(id),
        }
    }

    fn keep_logs(&mut self, id: u64, streams: Vec<(JobKey, Vec<LogLine>)>) {
        let Some(running) = &self.gateway.running else { return };
        let Some(session) = running.sessions.get(&id) else {
            return;
        };
        let mut through = Vec::new();
        let mut hole = None;
        for (job, lines) in streams {
            let last = lines.last().map_or(0, |l| l.number);
            if !running.view.ran_on(&session.node, &job) {
                through.push((job, last));
                continue;
            }
            let have = self.gateway.logs.entry(job.clone()).or_default();
            for line in lines {
                if line.number == *have + 1 {
                    *have += 1;
                } else if line.number > *have {
                    hole = Some(format!("lines of {job} are missing: {} after {have}", line.number));
                }
            }
            through.push((job, *have));
        }
        if let Some(hole) = hole {
            self.fail(hole);
        }
        self.send_down(id, ToNode::LogsAck { through });
    }

    /// A removed node's session ends.
    pub(crate) fn drop_node(&mut self, name: &NodeName) {
        let live = self.gateway.running.as_mut().and_then(|r| r.live.remove(name));
        if let Some(id) = live.and_then(|l| l.session) {
            self.end_session(id);
        }
    }

    /// Revision of the gateway's view, for the report.
    pub(crate) fn revision(&self) -> Revision {
        self.gateway
            .running
            .as_ref()
            .map_or(Revision::ZERO, |r| r.view.revision())
    }
}
