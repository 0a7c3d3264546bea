//! The task that owns the agent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use api::{
    ApiError, ErrorCode, GpuIndex, NodeName, Span, Timestamp,
    node::{EngineKind, GpuHealth, Inventory, NodeSample},
    wire::{Assignment, FactKind, FromNode, Observation, PROTOCOL, Seen, ToNode, Traffic},
    workload::{HOST_IMAGE, JobKey, Outcome, Usage},
};
use store::{Limits, Range, Store, StoreError, Txn, TxnOutcome, embedded};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Address, AgentError, AgentOptions, Fenced, Identity, OnHeld, OnLease, Output, Wish, clock, doors,
    exec::Execs,
    expose,
    health::{self, Checks, Target},
    identity,
    link::{self, FRAMES, FromLink, Up},
    measure::{self, Measured, Measuring},
    ports::Finder,
    probe::Probe,
    ship::{self, Ship},
};
use crate::{
    agent::{Agent, Effect, Effects, JobView, Left, Write, environment, recorded},
    engine::{BoxFuture, Engine, EngineEvent, Found, What, published},
    sample::{
        SERIES,
        kernel::{
            Parser,
            log::{self, KernelLog},
            queue::Place,
        },
    },
    secret::Secrets,
};

/// Messages of the gateway that may wait.
const LINK_QUEUE: usize = 64;

/// Messages handled before what they led to goes to the disk.
const BATCH: usize = 512;

/// Observations in one frame, at most.
const FRAME_OBSERVATIONS: usize = 1024;

/// How often the machine is looked at anew.
const INVENTORY_EVERY: Duration = Duration::from_secs(60);

/// After a failed commit.
const RETRY: Duration = Duration::from_millis(500);

/// How long an agent waits at its start for another one that has its records.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks whether it has let go.
const LOCK_AGAIN: Duration = Duration::from_millis(50);

/// Shortest time between two measurements.
const MEASURE_MIN: Duration = Duration::from_millis(10);

/// Longest sleep: a clock that went on while the machine slept must be noticed.
const SLEEP_MAX_MS: u64 = 1_000;

/// A commit that takes longer isn't waited for by orders to stop.
const COMMIT_PATIENCE_MS: u64 = 5_000;

/// Heartbeats without an answer after which the session counts as dead, at least [`DEAD_MIN_MS`].
const DEAD_HEARTBEATS: u64 = 4;
const DEAD_MIN_MS: u64 = 5_000;

/// What comes from the tasks beside.
enum Input {
    /// What engines report, with what is left of each that ended.
    Events(Vec<(EngineEvent, Left)>),
    /// Nothing is left of a job.
    Forgotten(JobKey),
    /// A job's check has failed too often.
    Unhealthy(JobKey),
    /// What a job's readiness check comes to: whether it is ready, and why not.
    Readiness(JobKey, bool, Option<String>),
    /// Free ports for a job, if there are so many.
    Ports(JobKey, Option<Vec<u16>>),
    /// These jobs have new lines.
    Changed(Vec<JobKey>),
    /// Lines for the next frame.
    Lines(ship::Read),
    /// It is time for a heartbeat of this session.
    Pulse(u64, Box<NodeSample>),
    /// The machine was looked at.
    Inventory(Box<Inventory>),
    /// It is time to measure.
    MeasureDue,
    /// Everything was measured.
    Measured(Box<Measured>),
    /// The kernel's log said something: the record's number, when, what, the line.
    Fact(u64, Timestamp, FactKind, String),
    /// What goes on at the services that are carried.
    Traffic(Traffic),
}

/// A session with the gateway.
struct Session {
    id: u64,
    up: Up,
    execs: Execs,
    /// Number of the last heartbeat.
    heartbeats: u64,
    /// Number and monotonic time of the oldest one that isn't acknowledged.
    unanswered: BTreeMap<u64, Instant>,
    round_trip_ms: Option<f64>,
    /// Number of the last observation of the frame that isn't acknowledged.
    observations: Option<u64>,
    pulse: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.up.close.cancel();
        self.pulse.abort();
    }
}

/// A commit on its way to the disk, and what is to be done after it.
struct Commit {
    written: BoxFuture<'static, Result<TxnOutcome, StoreError>>,
    effects: Effects,
    /// Observations up to this number will be on disk.
    through: u64,
    since_ms: u64,
    /// Its orders to stop were carried out without it.
    hurried: bool,
}

struct Shell {
    agent: Agent,
    name: NodeName,
    labels: BTreeMap<String, String>,
    /// Where jobs whose ports the node picks are to listen.
    bind: IpAddr,
    ports: Finder,
    store: Store,
    engines: Vec<Arc<dyn Engine>>,
    output: Arc<dyn Output>,
    probe: Arc<Probe>,
    inventory: Inventory,
    on_held: Option<OnHeld>,
    on_lease: Option<OnLease>,
    held: Vec<GpuIndex>,
    /// Decided, not on its way to the disk.
    decided: Effects,
    commit: Option<Commit>,
    /// Don't try to commit before this.
    retry_ms: u64,
    /// Observations up to this number are on disk.
    durable: u64,
    session: Option<Session>,
    sessions: u64,
    /// The gateway has said that it won't have this node, and hasn't taken that back.
    refused: Option<ApiError>,
    ship: Ship,
    measuring: Measuring,
    checks: HashMap<JobKey, AbortHandle>,
    /// Where services are carried, and who is told of it. `None`: none are.
    doors: Option<(IpAddr, mpsc::UnboundedSender<doors::Told>)>,
    to_self: mpsc::UnboundedSender<Input>,
    /// All that runs beside; ends with the agent.
    tasks: JoinSet<()>,
}

pub(super) async fn run(options: AgentOptions, shutdown: CancellationToken) -> Result<(), AgentError> {
    let mut inputs = None;
    let (link_sender, link) = mpsc::channel(LINK_QUEUE);
    let started = async {
        let data = |source| AgentError::Data {
            path: options.data.clone(),
            source,
        };
        std::fs::create_dir_all(&options.data).map_err(data)?;
        let mut probe = Probe::new(options.machine, options.drivers, options.notes).map_err(data)?;
        let engines = options.engines.iter().map(|engine| engine.info()).collect();
        let mut inventory = probe.inventory(engines).await;
        let wish = Wish {
            gateway: options.gateway.as_deref(),
            join_token: options.join_token.as_deref(),
            authority: options.authority.as_deref(),
            insecure: options.insecure,
            name: options.name,
            hostname: &inventory.hostname,
        };
        let (identity, gateway) = who(&options.data, &wish).await?;
        let settings = embedded::Options {
            limits: Limits {
                key_bytes: 1 << 10,
                value_bytes: api::wire::FRAME_MAX_BYTES,
                txn_bytes: 8 * api::wire::FRAME_MAX_BYTES,
                txn_parts: 1 << 20,
            },
            cache_bytes: 4 << 20,
            history_changes: 1,
            history_bytes: 1 << 10,
            ..embedded::Options::default()
        };
        let store = open(options.data.join("agent.redb"), settings).await?;
        let page = store.range(Range::all(), usize::MAX, store::Order::Ascending).await?;
        let records: Vec<(String, Vec<u8>)> = page
            .records
            .into_iter()
            .map(|record| (record.key.as_str().to_owned(), record.value.to_vec()))
            .collect();
        check_engines(&records, &options.engines)?;
        let mut found: Vec<Found> = Vec::new();
        for engine in &options.engines {
            let (jobs, leftovers) = engine.adopt().await;
            for leftover in &leftovers {
                tracing::warn!(
                    engine = engine.info().kind.name(),
                    leftover,
                    "something is left on this node"
                );
            }
            inventory.notes.extend(leftovers.iter().cloned());
            probe.note(leftovers);
            found.extend(jobs);
        }
        let output = Arc::clone(&options.output);
        let fenced = options.fenced.clone();
        let (agent, first) =
            blocking(move || Agent::new(records, found, |job| left(&output, fenced.as_ref(), job), clock::now()))
                .await?;
        let (to_self, own) = mpsc::unbounded_channel();
        let kernel_log = options.kernel_log.and_then(|path| match KernelLog::open(&path) {
            Ok(log) => Some(log),
            Err(error) => {
                let note =
                    format!("the kernel's log can't be read ({error}): what it says of GPUs and memory is unknown");
                tracing::info!(path = %path.display(), "{note}");
                inventory.notes.push(note.clone());
                probe.note([note]);
                None
            }
        });
        let measuring = Measuring::new(
            options.sample_interval,
            Place::at(&options.data),
            &inventory,
            Arc::clone(&options.output),
        );
        inputs = Some(own);
        let mut shell = Shell {
            agent,
            name: identity.name.clone(),
            labels: options.labels,
            bind: gateway.bind(),
            ports: Finder::new(RandomState::new().build_hasher().finish()),
            store,
            engines: options.engines,
            output: options.output,
            probe: Arc::new(probe),
            inventory,
            on_held: options.on_held,
            on_lease: options.on_lease,
            held: Vec::new(),
            decided: first,
            commit: None,
            retry_ms: 0,
            durable: 0,
            session: None,
            sessions: 0,
            refused: None,
            ship: Ship::default(),
            measuring,
            checks: HashMap::new(),
            doors: None,
            to_self,
            tasks: JoinSet::new(),
        };
        if let Some(listen) = options.services {
            shell.carry(listen, options.data.clone());
        }
        shell.begin(options.events, options.fenced).map_err(data)?;
        shell.begin_measuring(options.sample_interval, kernel_log);
        if let Some(listener) = options.metrics {
            let latest = shell.measuring.latest();
            shell.tasks.spawn(expose::serve(listener, shell.name.clone(), latest));
        }
        shell
            .tasks
            .spawn(link::keep(gateway, identity, options.data, link_sender));
        Ok::<_, AgentError>(shell)
    };
    let mut shell: Shell = tokio::select! {
        started = started => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    // Made together with the shell.
    let Some(inputs) = inputs else { return Ok(()) };
    let ended = shell.serve(inputs, link, shutdown).await;
    shell.end().await;
    ended
}

/// The node's identity, which it joins for if it has none, and its gateway.
pub(super) async fn who(data: &std::path::Path, wish: &Wish<'_>) -> Result<(Identity, Address), AgentError> {
    let given: Option<Address> = wish.gateway.map(str::parse).transpose()?;
    let checked = |address: Address| {
        if address.tls() || address.loopback() || wish.insecure {
            Ok(address)
        } else {
            Err(AgentError::Unencrypted(address.to_string()))
        }
    };
    if let Some(mut identity) = Identity::load(data)? {
        let address = match given {
            Some(address) => address,
            None => identity.gateway.parse()?,
        };
        let address = checked(address)?;
        if address.to_string() != identity.gateway {
            identity.gateway = address.to_string();
            identity.save(data)?;
        }
        return Ok((identity, address));
    }
    let address = checked(given.ok_or(AgentError::NotJoined("the gateway's address"))?)?;
    let joining = identity::Joining {
        gateway: &address,
        token: wish.join_token.ok_or(AgentError::NotJoined("a join token"))?,
        exact: wish.name.is_some(),
        name: wish.name.clone().unwrap_or_else(|| name_of(wish.hostname)),
        secret: identity::joining_secret(data)?,
        authority: wish.authority,
    };
    let (identity, certificate) = identity::join(joining).await?;
    // The certificate first: who has an identity never joins again.
    if let Some(certificate) = certificate {
        certificate.save(data)?;
    }
    identity.save(data)?;
    tracing::info!(node = %identity.name, gateway = %address, "joined");
    Ok((identity, address))
}

/// A node's name made of a host's.
fn name_of(hostname: &str) -> NodeName {
    let fitting = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name: String = hostname.to_lowercase().chars().map(fitting).take(63).collect();
    let name = name.trim_matches(['-', '.']);
    NodeName::new(if name.is_empty() { "node" } else { name })
}

/// Runs something that waits for the disk on a thread where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Opens the agent's records. What an agent was about to become when it was killed (a copy of it, on its way to a
/// command in a job's control group) still holds them for a moment.
async fn open(file: PathBuf, settings: embedded::Options) -> Result<Store, StoreError> {
    let since = Instant::now();
    loop {
        let (file, settings) = (file.clone(), settings.clone());
        match blocking(move || Store::open(file, settings)).await {
            Err(StoreError::Locked { .. }) if since.elapsed() < LOCK_PATIENCE => sleep(LOCK_AGAIN).await,
            opened => return opened,
        }
    }
}

/// What an ended job left.
fn left(output: &Arc<dyn Output>, fenced: Option<&Fenced>, job: &JobKey) -> Left {
    let last_line = output.last(job).unwrap_or_else(|error| {
        tracing::error!(%job, %error, "a workload's output can't be read");
        0
    });
    Left {
        last_line,
        fenced: fenced.is_some_and(|fenced| fenced(job)),
    }
}

fn kind_of(image: &str) -> fn(EngineKind) -> bool {
    if image == HOST_IMAGE {
        |kind| kind == EngineKind::Native
    } else {
        |kind| kind != EngineKind::Native
    }
}

/// The engine that runs an image. `None`: there is none.
fn engine_for<'a>(engines: &'a [Arc<dyn Engine>], image: &str) -> Option<&'a Arc<dyn Engine>> {
    let fits = kind_of(image);
    engines.iter().find(|engine| fits(engine.info().kind))
}

/// Jobs that an engine had must have that engine: without it, whether they live can't be known.
fn check_engines(records: &[(String, Vec<u8>)], engines: &[Arc<dyn Engine>]) -> Result<(), AgentError> {
    let recorded = recorded(records)?;
    let mut gone = recorded
        .iter()
        .filter(|job| job.begun && engine_for(engines, &job.image).is_none());
    let Some(first) = gone.next() else { return Ok(()) };
    let native = first.image == HOST_IMAGE;
    let rest = gone.filter(|job| (job.image == HOST_IMAGE) == native);
    Err(AgentError::EngineGone {
        engine: if native { "native" } else { "container" },
        jobs: std::iter::once(first)
            .chain(rest)
            .map(|job| job.job.to_string())
            .collect(),
    })
}

impl Shell {
    /// Starts what runs beside.
    fn begin(
        &mut self,
        mut events: mpsc::UnboundedReceiver<EngineEvent>,
        fenced: Option<Fenced>,
    ) -> std::io::Result<()> {
        let mut changes = self.output.watch()?;
        let to_self = self.to_self.clone();
        self.tasks.spawn(async move {
            loop {
                match changes.changed().await {
                    Ok(jobs) => drop(to_self.send(Input::Changed(jobs))),
                    Err(error) => {
                        tracing::error!(%error, "new output isn't noticed");
                        sleep(RETRY).await;
                    }
                }
            }
        });
        let to_self = self.to_self.clone();
        let output = Arc::clone(&self.output);
        self.tasks.spawn(async move {
            loop {
                let mut batch = Vec::new();
                if events.recv_many(&mut batch, BATCH).await == 0 {
                    return;
                }
                let ends = batch.iter().any(|event| matches!(event.what, What::Ended { .. }));
                let (output, fenced) = (Arc::clone(&output), fenced.clone());
                let with_left = move |event: EngineEvent| {
                    let left = match event.what {
                        What::Ended { .. } => left(&output, fenced.as_ref(), &event.job),
                        What::Pulling(_) | What::Started { .. } => Left::default(),
                    };
                    (event, left)
                };
                let all = move || batch.into_iter().map(with_left).collect();
                let events = if ends { blocking(all).await } else { all() };
                drop(to_self.send(Input::Events(events)));
            }
        });
        let to_self = self.to_self.clone();
        let probe = Arc::clone(&self.probe);
        let engines = self.engines.clone();
        self.tasks.spawn(async move {
            loop {
                sleep(INVENTORY_EVERY).await;
                let inventory = look(&probe, &engines).await;
                drop(to_self.send(Input::Inventory(Box::new(inventory))));
            }
        });
        let running: Vec<JobKey> = self
            .agent
            .jobs()
            .filter(|(_, job)| job.running())
            .map(|(key, _)| key.clone())
            .collect();
        for job in running {
            self.check_health(&job);
        }
        Ok(())
    }

    /// Starts to carry services.
    fn carry(&mut self, listen: IpAddr, data: PathBuf) {
        let (tell, told) = mpsc::unbounded_channel();
        self.doors = Some((listen, tell));
        let to_self = self.to_self.clone();
        let run = RandomState::new().build_hasher().finish();
        let say = move |traffic| drop(to_self.send(Input::Traffic(traffic)));
        self.tasks.spawn(doors::carry(listen, data, run, told, say));
    }

    /// Tells those who carry services, if anybody does.
    fn tell_doors(&self, told: doors::Told) {
        if let Some((_, doors)) = &self.doors {
            drop(doors.send(told));
        }
    }

    /// Starts the clock of measurements and the reading of the kernel's log.
    fn begin_measuring(&mut self, every: Duration, kernel_log: Option<KernelLog>) {
        let to_self = self.to_self.clone();
        self.tasks.spawn(async move {
            let mut times = tokio::time::interval(every.max(MEASURE_MIN));
            times.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                times.tick().await;
                drop(to_self.send(Input::MeasureDue));
            }
        });
        let Some(mut kernel_log) = kernel_log else { return };
        let to_self = self.to_self.clone();
        let known = self.measuring.known();
        let engines = self.engines.clone();
        self.tasks.spawn(async move {
            let mut parser = Parser::default();
            loop {
                let record = match kernel_log.next().await {
                    Ok(record) => record,
                    Err(error) => {
                        tracing::warn!(%error, "the kernel's log can't be read any more");
                        return;
                    }
                };
                // Known ones are parsed too: they may be the first half of one that isn't.
                if let Some(mut what) = parser.parse(&record.text)
                    && known.is_none_or(|known| record.sequence > known)
                {
                    let at = log::wall(record.at_us);
                    measure::name_job(&mut what, &engines).await;
                    drop(to_self.send(Input::Fact(record.sequence, at, what, record.text)));
                }
            }
        });
    }

    /// Has everything measured, unless that is still under way.
    fn measure(&mut self) {
        if self.measuring.looking {
            return;
        }
        self.measuring.looking = true;
        let running = self.agent.jobs().filter(|(_, job)| job.running());
        let jobs = running.map(|(key, job)| measure::Job {
            key: key.clone(),
            engine: engine_for(&self.engines, &job.assignment.image).map(Arc::clone),
            memory: job.assignment.memory,
            metrics_port: job
                .assignment
                .metrics_port
                .map(|port| health::real(&job.assignment.endpoints(), port)),
        });
        let volumes = self.measuring.volumes.clone();
        let look = measure::look(clock::now(), Arc::clone(&self.probe), volumes, jobs.collect());
        let to_self = self.to_self.clone();
        self.tasks
            .spawn(async move { drop(to_self.send(Input::Measured(Box::new(look.await)))) });
    }

    /// Tells workloads that report too much of their own.
    fn over(&self, jobs: Vec<JobKey>) {
        for job in jobs {
            let text = format!(
                "more than {SERIES} series of metrics of its own: further ones are dropped (names and labels should be few)"
            );
            tracing::warn!(%job, text);
            if let Some(engine) = self.engine_of(&job) {
                engine.remark(&job, &text);
            }
        }
    }

    /// Sends what was measured, and what the kernel's log said.
    fn send_measurements(&mut self) {
        let Some(session) = &self.session else { return };
        if session.up.frames.capacity() < FRAMES / 2 {
            return;
        }
        let facts = self.measuring.facts.next();
        if !facts.is_empty() {
            self.say(FromNode::Facts { facts });
        }
        if let Some(batch) = self.measuring.recorder.next() {
            self.say(FromNode::Metrics { batch });
        }
    }

    async fn serve(
        &mut self,
        mut inputs: mpsc::UnboundedReceiver<Input>,
        mut link: mpsc::Receiver<FromLink>,
        shutdown: CancellationToken,
    ) -> Result<(), AgentError> {
        loop {
            self.settle();
            let nap = Duration::from_millis(self.nap_ms());
            let committing = async {
                match &mut self.commit {
                    Some(commit) => (&mut commit.written).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                written = committing => self.committed(written),
                Some(input) = inputs.recv() => {
                    self.input(input);
                    for _ in 0..BATCH {
                        let Ok(input) = inputs.try_recv() else { break };
                        self.input(input);
                    }
                }
                message = link.recv() => {
                    // The link's task ends only with this one.
                    let Some(message) = message else { return Ok(()) };
                    self.link(message);
                    for _ in 0..LINK_QUEUE {
                        let Ok(message) = link.try_recv() else { break };
                        self.link(message);
                    }
                }
                () = sleep(nap) => {}
            }
            let now = clock::now();
            if self.agent.next_deadline().is_some_and(|due| due <= now.mono_ms) {
                let effects = self.agent.tick(now);
                self.decided.append(effects);
            }
            self.hurry(now.mono_ms);
            // What runs is this agent's until it has ended: it is fenced by the clock like that of any node whose
            // gateway doesn't hear it, and whoever mends the matter before then has lost nothing.
            if !self.agent.running()
                && let Some(error) = self.refused.take()
            {
                return Err(AgentError::Refused(Box::new(error)));
            }
        }
    }

    /// Lets go of everything; what is decided is written down if the disk lets it.
    async fn end(mut self) {
        self.session = None;
        self.tasks.abort_all();
        if let Some(commit) = self.commit.take()
            && let Ok(Err(error)) = timeout(Duration::from_secs(5), commit.written).await
        {
            tracing::warn!(%error, "the last records weren't written");
        }
        drop(timeout(Duration::from_secs(5), self.store.close()).await);
    }

    /// How long nothing will happen by itself.
    fn nap_ms(&self) -> u64 {
        let now = clock::now().mono_ms;
        let retry = (!self.decided.is_empty() && self.commit.is_none()).then_some(self.retry_ms);
        let due = [self.agent.next_deadline(), retry].into_iter().flatten().min();
        due.map_or(SLEEP_MAX_MS, |due| due.saturating_sub(now).clamp(1, SLEEP_MAX_MS))
    }

    /// Carries out what may be carried out, and sends what may be sent.
    fn settle(&mut self) {
        if self.commit.is_none() && !self.decided.is_empty() && self.retry_ms <= clock::now().mono_ms {
            let effects = std::mem::take(&mut self.decided);
            let through = self.agent.unacknowledged().last().map_or(0, |last| last.number);
            if effects.persist.is_empty() {
                self.carry_out(effects.then, through);
            } else {
                let txn = transaction(&effects.persist);
                let store = self.store.clone();
                self.commit = Some(Commit {
                    written: Box::pin(async move { store.txn(txn).await }),
                    effects,
                    through,
                    since_ms: clock::now().mono_ms,
                    hurried: false,
                });
            }
        }
        let held: BTreeSet<GpuIndex> = self.agent.held().iter().map(|(gpu, _)| gpu.index).collect();
        if !held.iter().eq(&self.held) {
            self.held = held.into_iter().collect();
            if let Some(on_held) = &self.on_held {
                on_held(&self.held);
            }
        }
        self.send_lines();
        self.send_observations();
        self.send_measurements();
    }

    fn committed(&mut self, written: Result<TxnOutcome, StoreError>) {
        let Some(commit) = self.commit.take() else { return };
        match written {
            Ok(_) => self.carry_out(commit.effects.then, commit.through),
            Err(error) => {
                tracing::error!(%error, "the agent's records can't be written; trying again");
                self.stop_now(&commit.effects.then);
                let later = std::mem::replace(&mut self.decided, commit.effects);
                self.decided.append(later);
                self.retry_ms = clock::now().mono_ms + millis(RETRY);
            }
        }
    }

    /// A disk that hangs must not keep anything running.
    fn hurry(&mut self, now_ms: u64) {
        let Some(commit) = &mut self.commit else { return };
        if !commit.hurried && commit.since_ms + COMMIT_PATIENCE_MS <= now_ms {
            commit.hurried = true;
            let mut stops: Vec<Effect> = commit.effects.then.clone();
            stops.extend(self.decided.then.iter().cloned());
            self.stop_now(&stops);
        } else if commit.hurried {
            self.stop_now(&self.decided.then);
        }
    }

    fn stop_now(&self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Stop { job, grace } = effect {
                self.stop(job, *grace);
            }
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>, through: u64) {
        self.durable = self.durable.max(through);
        for effect in effects {
            match effect {
                Effect::Start(job, secrets) => self.start(&job, secrets),
                // Here and now: what is found must still be free when the job begins.
                Effect::FindPorts { job, count, taken } => {
                    let found = self.ports.find(count, &taken);
                    drop(self.to_self.send(Input::Ports(job, found)));
                }
                Effect::AskSecrets(job) => self.say(FromNode::SecretsWanted { job }),
                Effect::Secrets { job, answer } => match self.engine_of(&job) {
                    Some(engine) => engine.secrets(&job, answer),
                    // Without a record, whose it is isn't known; an engine that doesn't know it does nothing.
                    None => self
                        .engines
                        .iter()
                        .for_each(|engine| engine.secrets(&job, answer.clone())),
                },
                Effect::Stop { job, grace } => {
                    self.end_check(&job);
                    self.stop(&job, grace);
                }
                Effect::Forget(job) => self.forget(job),
                Effect::SetMemory { job, limit } => {
                    if let Some(engine) = self.engine_of(&job) {
                        self.tasks.spawn(async move {
                            if let Err(error) = engine.set_memory(&job, limit).await {
                                tracing::warn!(%job, %error, "the memory limit couldn't be changed");
                            }
                        });
                    }
                }
                // Sent when everything before it is sent, see `send_observations`.
                Effect::SendObservations => {}
                Effect::Resync => self.say(FromNode::Resync),
                // Not beside: it must be in force before the next start, and leases mustn't overtake each other.
                Effect::Lease { stop_ms } => {
                    self.tell_doors(doors::Told::Lease(stop_ms));
                    if let Some(on_lease) = &self.on_lease {
                        on_lease(stop_ms);
                    }
                }
            }
        }
        while self.tasks.try_join_next().is_some() {}
    }

    fn start(&self, job: &Arc<Assignment>, secrets: Option<Arc<Secrets>>) {
        if let Some(engine) = engine_for(&self.engines, &job.image) {
            let env = environment(job, &self.name, self.bind);
            let job = Assignment {
                env,
                ..Assignment::clone(job)
            };
            engine.start(Arc::new(job), secrets);
            return;
        }
        let message = if job.image == HOST_IMAGE {
            "this node has no native engine, which the image 'host' needs".to_owned()
        } else {
            format!("this node has no container engine for the image '{}'", job.image)
        };
        let what = What::Ended {
            at: Timestamp::now(),
            outcome: Outcome::StartFailed {
                code: ErrorCode::InvalidArgument,
                message,
                retryable: false,
            },
            usage: Usage::default(),
        };
        let event = EngineEvent {
            job: job.job.clone(),
            what,
        };
        drop(self.to_self.send(Input::Events(vec![(event, Left::default())])));
    }

    /// The engine that has a job. `None`: it isn't known.
    fn engine_of(&self, job: &JobKey) -> Option<Arc<dyn Engine>> {
        let image = &self.agent.job(job)?.assignment.image;
        engine_for(&self.engines, image).map(Arc::clone)
    }

    fn stop(&self, job: &JobKey, grace: Span) {
        match self.engine_of(job) {
            Some(engine) => engine.stop(job, grace),
            // Without a record, whose it is isn't known; an engine that doesn't know it does nothing.
            None => self.engines.iter().for_each(|engine| engine.stop(job, grace)),
        }
    }

    fn forget(&mut self, job: JobKey) {
        self.ship.forget(&job);
        self.measuring.forget(&job);
        let engines = self
            .engine_of(&job)
            .map_or_else(|| self.engines.clone(), |engine| vec![engine]);
        let output = Arc::clone(&self.output);
        let to_self = self.to_self.clone();
        self.tasks.spawn(async move {
            for engine in engines {
                engine.forget(&job).await;
            }
            let removed = {
                let job = job.clone();
                blocking(move || output.remove(&job)).await
            };
            if let Err(error) = removed {
                tracing::error!(%job, %error, "a workload's output can't be removed");
            }
            drop(to_self.send(Input::Forgotten(job)));
        });
    }

    fn input(&mut self, input: Input) {
        let now = clock::now();
        match input {
            Input::Events(events) => {
                for (event, left) in events {
                    self.event(event, left);
                }
            }
            Input::Forgotten(job) => {
                let effects = self.agent.forgotten(&job);
                self.decided.append(effects);
            }
            Input::Unhealthy(job) => {
                self.checks.remove(&job);
                if self.agent.job(&job).is_some_and(|job| job.running()) {
                    tracing::warn!(%job, "stopped: its health check failed too often");
                    let effects = self.agent.unhealthy(&job, now);
                    self.decided.append(effects);
                }
            }
            Input::Readiness(job, ready, why) => {
                // Its check may have ended while this was on its way.
                if self.checks.contains_key(&job) {
                    let effects = self.agent.readiness(&job, ready, why, now);
                    self.decided.append(effects);
                }
            }
            Input::Ports(job, found) => {
                let effects = self.agent.ports(&job, found, now);
                self.decided.append(effects);
            }
            Input::Changed(jobs) => self.ship.changed(jobs),
            Input::Lines(read) => self.lines(read),
            Input::Pulse(session, sample) => self.heartbeat(session, sample),
            Input::MeasureDue => self.measure(),
            Input::Measured(measured) => {
                let over = self.measuring.take(*measured);
                self.over(over);
            }
            Input::Traffic(traffic) => self.say(FromNode::Traffic(traffic)),
            Input::Fact(sequence, at, what, line) => self.measuring.fact(sequence, at, what, line),
            Input::Inventory(inventory) => {
                if *inventory != self.inventory {
                    self.inventory = *inventory;
                    self.measuring.inventory(&self.inventory);
                    let inventory = Box::new(self.inventory.clone());
                    self.say(FromNode::Changed { inventory });
                }
            }
        }
    }

    fn event(&mut self, event: EngineEvent, left: Left) {
        let job = event.job.clone();
        let (started, ended) = match &event.what {
            What::Pulling(progress) => {
                let progress = *progress;
                // Progress is for the eye: it never fills the queue.
                if let Some(session) = &self.session
                    && session.up.frames.capacity() > FRAMES / 2
                {
                    let job = job.clone();
                    self.say(FromNode::Pulling { job, progress });
                }
                (false, false)
            }
            What::Started { .. } => (true, false),
            What::Ended { .. } => (false, true),
        };
        let effects = self.agent.engine_event(event, left, clock::now());
        self.decided.append(effects);
        if started {
            self.check_health(&job);
        }
        if ended {
            self.end_check(&job);
            self.ship.changed([job]);
        }
    }

    fn check_health(&mut self, job: &JobKey) {
        let Some(view) = self.agent.job(job).filter(|view| view.running()) else {
            return;
        };
        let assignment = view.assignment;
        if assignment.health_check.is_none() && assignment.readiness.is_none() {
            return;
        }
        let now_ms = clock::now().mono_ms;
        let checks = Checks {
            job: job.clone(),
            liveness: assignment.health_check.clone(),
            readiness: assignment.readiness.clone(),
            target: Target {
                engine: self.engine_of(job),
                endpoints: assignment.endpoints(),
                published: published(assignment),
            },
            ready: view.ready,
            was_ready: view.was_ready,
            ran: Duration::from_millis(view.started_ms.map_or(0, |started| now_ms.saturating_sub(started))),
        };
        let to_self = self.to_self.clone();
        let key = job.clone();
        let task = self.tasks.spawn(async move {
            let changed = |ready, why| drop(to_self.send(Input::Readiness(key.clone(), ready, why)));
            health::watch(checks, changed).await;
            drop(to_self.send(Input::Unhealthy(key)));
        });
        if let Some(old) = self.checks.insert(job.clone(), task) {
            old.abort();
        }
    }

    fn end_check(&mut self, job: &JobKey) {
        if let Some(task) = self.checks.remove(job) {
            task.abort();
        }
    }

    // ---- The gateway ----------------------------------------------------------------------------------------

    fn link(&mut self, message: FromLink) {
        match message {
            FromLink::Hello(answer) => drop(answer.send(FromNode::Hello {
                protocol: PROTOCOL,
                name: self.name.clone(),
                inventory: Box::new(self.inventory.clone()),
                labels: self.labels.clone(),
                jobs: self.agent.known(),
                services: self.doors.as_ref().map(|(listen, _)| *listen),
            })),
            FromLink::Up(up) => self.up(*up),
            FromLink::Down => {
                self.session = None;
                self.tell_doors(doors::Told::Down);
                self.agent.disconnected();
            }
            FromLink::Refused(at) => {
                let effects = self.agent.connection_refused(at);
                self.decided.append(effects);
            }
            FromLink::Never(error) => {
                if self.agent.running() {
                    tracing::error!(
                        %error,
                        "the gateway refuses this node; what runs is stopped when its time without a gateway is over"
                    );
                }
                self.refused = Some(error);
            }
            FromLink::Message(message) => self.message(message),
        }
    }

    fn up(&mut self, up: Up) {
        self.refused = None;
        self.sessions += 1;
        let id = self.sessions;
        let effects = self.agent.connected(up.fence, up.alone, up.hello_ms);
        self.decided.append(effects);
        let with_lines = |(key, job): (&JobKey, JobView<'_>)| {
            let more = job.last_line.is_none_or(|last| last > job.lines_acked);
            more.then(|| key.clone())
        };
        self.ship.begin(self.agent.jobs().filter_map(with_lines));
        self.measuring.begin();
        let pulse = self.tasks.spawn(pulse(
            id,
            up.heartbeat.duration().max(Duration::from_millis(10)),
            Arc::clone(&self.probe),
            self.engines.clone(),
            self.to_self.clone(),
        ));
        self.session = Some(Session {
            id,
            execs: Execs::new(up.exec_frames.clone()),
            up,
            heartbeats: 0,
            unanswered: BTreeMap::new(),
            round_trip_ms: None,
            observations: None,
            pulse,
        });
        self.tell_doors(doors::Told::Up);
    }

    fn message(&mut self, message: ToNode) {
        let now = clock::now();
        let Some(session) = &mut self.session else { return };
        let effects = match message {
            ToNode::Welcome { .. } => {
                tracing::warn!("the gateway welcomes twice; closing the session");
                session.up.close.cancel();
                return;
            }
            ToNode::Refused { error } => {
                tracing::warn!(%error, "the gateway ends the session");
                session.up.close.cancel();
                return;
            }
            ToNode::HeartbeatAck { number } => {
                if let Some(sent) = session.unanswered.remove(&number) {
                    session.round_trip_ms = Some(sent.elapsed().as_secs_f64() * 1000.0);
                    session.unanswered = session.unanswered.split_off(&number);
                }
                self.agent.heartbeat_acked(number)
            }
            ToNode::Desired(said) => self.agent.desired(said, now),
            ToNode::Secrets { job, answer } => self.agent.secrets(&job, answer, now),
            ToNode::ObservationsAck { through } => {
                if session.observations.is_some_and(|last| last <= through) {
                    session.observations = None;
                }
                self.agent.observations_acked(through, now)
            }
            ToNode::LogsAck { through } => {
                self.ship.acked();
                let effects = self.agent.logs_acked(&through, now);
                self.decided.append(effects);
                self.settle_lost();
                let output = Arc::clone(&self.output);
                self.tasks.spawn_blocking(move || {
                    for (job, number) in through {
                        if let Err(error) = output.trim(&job, number) {
                            tracing::warn!(%job, %error, "a workload's output can't be trimmed");
                        }
                    }
                });
                return;
            }
            ToNode::MetricsAck { through } => {
                self.measuring.recorder.acked(through);
                return;
            }
            ToNode::FactsAck { through } => {
                if let Some(keep) = self.measuring.facts_acked(through) {
                    self.tasks.spawn_blocking(keep);
                }
                return;
            }
            ToNode::Routes(routes) => {
                self.tell_doors(doors::Told::Routes(routes));
                return;
            }
            ToNode::TrafficAck { through } => {
                self.tell_doors(doors::Told::Acked(through));
                return;
            }
            ToNode::Exec { id, request } => {
                let agent = &self.agent;
                let engines = &self.engines;
                session.execs.handle(id, request, |job| {
                    let view = agent.job(job).filter(|view| view.last_line.is_none())?;
                    engine_for(engines, &view.assignment.image).map(Arc::clone)
                });
                return;
            }
        };
        self.decided.append(effects);
    }

    /// Says something in the session, if there is one.
    fn say(&self, frame: FromNode) {
        if let Some(session) = &self.session
            && session.up.frames.try_send(frame).is_err()
        {
            tracing::warn!("the gateway doesn't read what it is sent; closing the session");
            session.up.close.cancel();
        }
    }

    fn heartbeat(&mut self, id: u64, sample: Box<NodeSample>) {
        let Some(session) = self.session.as_mut().filter(|session| session.id == id) else {
            return;
        };
        let dead_ms = (session.up.heartbeat.millis() * DEAD_HEARTBEATS).max(DEAD_MIN_MS);
        if let Some((_, sent)) = session.unanswered.first_key_value()
            && sent.elapsed() > Duration::from_millis(dead_ms)
        {
            tracing::warn!("the gateway doesn't answer; closing the session");
            session.up.close.cancel();
            return;
        }
        session.heartbeats += 1;
        let number = session.heartbeats;
        session.unanswered.insert(number, Instant::now());
        let now = clock::now();
        let frame = FromNode::Heartbeat {
            number,
            at: now.wall,
            round_trip_ms: session.round_trip_ms,
            sample,
        };
        self.agent.heartbeat_sent(number, now.mono_ms);
        self.say(frame);
    }

    /// Sends the observations that are on disk, up to the first end whose job's lines haven't been sent.
    fn send_observations(&mut self) {
        let Some(session) = self.session.as_ref().filter(|s| s.observations.is_none()) else {
            return;
        };
        if session.up.frames.capacity() == 0 {
            return;
        }
        let durable = self.agent.unacknowledged().take_while(|o| o.number <= self.durable);
        let observations: Vec<Observation> = durable
            .take_while(|observation| !self.awaits_lines(observation))
            .take(FRAME_OBSERVATIONS)
            .cloned()
            .collect();
        let Some(last) = observations.last().map(|last| last.number) else {
            return;
        };
        self.say(FromNode::Observations { observations });
        if let Some(session) = &mut self.session {
            session.observations = Some(last);
        }
    }

    /// Whether this is the end of a job with lines that haven't been sent.
    fn awaits_lines(&self, observation: &Observation) -> bool {
        let Seen::Ended { last_line, .. } = observation.seen else {
            return false;
        };
        let job = self.agent.job(&observation.job);
        job.is_some_and(|job| self.ship.sent(&observation.job, job.lines_acked) < last_line)
    }

    /// Has the next frame of lines read.
    fn send_lines(&mut self) {
        let Some(session) = &self.session else { return };
        let id = session.id;
        if session.up.frames.capacity() < FRAMES / 2 {
            return;
        }
        let waiting = self.agent.unacknowledged().take(FRAME_OBSERVATIONS);
        let first: Vec<JobKey> = if self.ship.idle() {
            waiting
                .filter(|o| self.awaits_lines(o))
                .map(|o| o.job.clone())
                .collect()
        } else {
            Vec::new()
        };
        let agent = &self.agent;
        let Some(wanted) = self.ship.next(first, |job| Some(agent.job(job)?.lines_acked)) else {
            return;
        };
        // What one writes while this is read isn't seen by it: only of those that have ended, nothing more can come.
        let over = |job: &JobKey| agent.job(job).is_some_and(|view| view.last_line.is_some());
        let ended: BTreeSet<JobKey> = wanted
            .iter()
            .map(|(job, _)| job)
            .filter(|job| over(job))
            .cloned()
            .collect();
        let output = Arc::clone(&self.output);
        let to_self = self.to_self.clone();
        self.tasks.spawn_blocking(move || {
            let mut read = ship::read(&output, id, wanted);
            read.dry.retain(|job| ended.contains(job));
            drop(to_self.send(Input::Lines(read)));
        });
    }

    /// Where all lines that weren't lost are acknowledged, the lost ones are as good as acknowledged.
    fn settle_lost(&mut self) {
        let agent = &self.agent;
        let settled = self.ship.settled(|job| Some(agent.job(job)?.lines_acked));
        if !settled.is_empty() {
            let effects = self.agent.logs_acked(&settled, clock::now());
            self.decided.append(effects);
        }
    }

    fn lines(&mut self, read: ship::Read) {
        if self.session.as_ref().is_none_or(|session| session.id != read.session) {
            return;
        }
        let mut over = Vec::new();
        for (job, lines) in &read.streams {
            if self.measuring.own.lines(job, lines) {
                over.push(job.clone());
            }
        }
        self.over(over);
        let more = self.ship.read(&read);
        // An ended job without further lines has no further lines: what is missing was lost on this node.
        for job in &read.dry {
            let Some(view) = self.agent.job(job) else { continue };
            let Some(last) = view.last_line else { continue };
            let sent = self.ship.sent(job, view.lines_acked);
            if sent < last {
                tracing::warn!(%job, sent, last, "the last lines of a workload are lost");
                self.ship.lost(job, sent, last);
            }
        }
        self.settle_lost();
        if more {
            self.say(FromNode::Logs { streams: read.streams });
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// One transaction of many writes: the last one to a key counts.
fn transaction(writes: &[Write]) -> Txn {
    let last: BTreeMap<&str, &Write> = writes.iter().map(|write| (write.key(), write)).collect();
    last.into_values().fold(Txn::new(), |txn, write| match write {
        Write::Put { key, value } => txn.put(key, value.clone()),
        Write::Delete { key } => txn.delete(key),
    })
}

async fn look(probe: &Probe, engines: &[Arc<dyn Engine>]) -> Inventory {
    probe
        .inventory(engines.iter().map(|engine| engine.info()).collect())
        .await
}

/// Takes a sample for each heartbeat of a session, and looks at the machine when the health of a GPU changes.
async fn pulse(
    session: u64,
    every: Duration,
    probe: Arc<Probe>,
    engines: Vec<Arc<dyn Engine>>,
    to_self: mpsc::UnboundedSender<Input>,
) {
    let mut times = tokio::time::interval(every);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<BTreeMap<GpuIndex, GpuHealth>> = None;
    loop {
        times.tick().await;
        let sample = probe.sample().await;
        let health: BTreeMap<_, _> = sample.gpus.iter().map(|gpu| (gpu.index, gpu.health.clone())).collect();
        drop(to_self.send(Input::Pulse(session, Box::new(sample))));
        if before.as_ref().is_some_and(|before| *before != health) {
            let inventory = look(&probe, &engines).await;
            drop(to_self.send(Input::Inventory(Box::new(inventory))));
        }
        before = Some(health);
    }
}
