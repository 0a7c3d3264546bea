//! A whole agent against a gateway made up in this process, over a real socket, with a real store and made-up
//! engines.

mod measure;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{
    Cpu, Size,
    node::{EngineInfo, EngineKind, GpuHealth, GpuInfo, GpuPair, GpuSample, Inventory, NodeSample, Vendor},
    secret::{SecretTarget, SecretUse, SecretValue},
    wire::{
        Assignment, Desired, ExecEvent, ExecRequest, FromNode, LogLine, Observation, PROTOCOL, PullProgress,
        SecretsAnswer, Seen, Stop, ToNode,
    },
    workload::{HealthCheck, JobKey, LogSource, Outcome, Probe, StopReason, Usage},
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

use super::*;
use crate::{
    agent::tests::assignment,
    engine::{BoxFuture, Exec, Found, JobStats, What},
    gpu::DriverError,
    sample::Reading,
    secret::Secrets,
    spool::Volume,
};

/// For whatever must happen at some time.
const LIMIT: Duration = Duration::from_secs(30);

// ---- The machine --------------------------------------------------------------------------------------------

struct Plain;

impl Machine for Plain {
    fn inventory(&self) -> Inventory {
        Inventory {
            hostname: "Box_1".to_owned(),
            cpu: Cpu::cores(2),
            cpu_model: None,
            memory_total_bytes: Size::gib(1),
            os: None,
            kernel: None,
            arch: "x86_64".to_owned(),
            boot_id: None,
            gpus: Vec::new(),
            links: Vec::new(),
            engines: Vec::new(),
            agent_version: "0".to_owned(),
            notes: Vec::new(),
        }
    }

    fn sample(&self) -> NodeSample {
        NodeSample::default()
    }

    fn readings(&self) -> Vec<Reading> {
        Vec::new()
    }
}

/// A driver of one GPU that hangs in `sample` until it is let go.
struct Hanging(Mutex<std::sync::mpsc::Receiver<()>>);

impl Driver for Hanging {
    fn vendor(&self) -> Vendor {
        Vendor::Nvidia
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, DriverError> {
        Ok(vec![GpuInfo {
            index: 0,
            uuid: "GPU-0".to_owned(),
            vendor: Vendor::Nvidia,
            model: "X".to_owned(),
            memory_total_bytes: None,
            pci_address: None,
            numa_node: None,
            power_limit_watts: None,
            driver_version: None,
        }])
    }

    fn links(&self) -> Vec<GpuPair> {
        Vec::new()
    }

    fn sample(&self) -> Vec<GpuSample> {
        self.0.lock().unwrap().recv().unwrap_err();
        Vec::new()
    }

    fn readings(&self, _: GpuIndex) -> Vec<Reading> {
        vec![crate::gpu::up(true)]
    }
}

// ---- The engine and the spool -------------------------------------------------------------------------------

#[derive(Default)]
struct Jobs {
    known: BTreeMap<JobKey, Option<Found>>,
    started: Vec<Arc<Assignment>>,
    /// The secrets of those that got any.
    secrets: HashMap<JobKey, Arc<Secrets>>,
    stopped: Vec<(JobKey, api::Span)>,
    remarks: Vec<(JobKey, String)>,
}

/// Carries nothing out; the test says what happens.
struct Puppet {
    kind: EngineKind,
    events: mpsc::UnboundedSender<EngineEvent>,
    jobs: Mutex<Jobs>,
    changed: Notify,
}

impl Puppet {
    fn jobs(&self) -> std::sync::MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap()
    }

    async fn until(&self, what: &str, done: impl Fn(&Jobs) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if done(&self.jobs()) {
                    return;
                }
                changed.await;
            }
        };
        timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("not: {what}"));
    }

    async fn until_started(&self, job: &str) {
        let key = key(job);
        self.until(&format!("start of {job}"), |jobs| jobs.known.contains_key(&key))
            .await;
    }

    fn say(&self, job: &str, what: What) {
        let key = key(job);
        let at = super::now().wall;
        let mut jobs = self.jobs();
        let found = jobs.known.entry(key.clone()).or_default().get_or_insert(Found {
            job: key.clone(),
            started_at: None,
            ended: None,
            wants_secrets: false,
        });
        match &what {
            What::Pulling(_) => {}
            What::Started { at } => found.started_at = Some(*at),
            What::Ended { outcome, usage, .. } => found.ended = Some((at, outcome.clone(), *usage)),
        }
        drop(jobs);
        drop(self.events.send(EngineEvent { job: key, what }));
    }

    fn starts(&self, job: &str) {
        self.say(job, What::Started { at: super::now().wall });
    }

    fn ends(&self, job: &str, code: i32) {
        self.say(
            job,
            What::Ended {
                at: super::now().wall,
                outcome: Outcome::Exited { code },
                usage: Usage::default(),
            },
        );
    }
}

impl Engine for Puppet {
    fn info(&self) -> EngineInfo {
        EngineInfo {
            kind: self.kind,
            version: None,
            limitations: Vec::new(),
        }
    }

    fn start(&self, job: Arc<Assignment>, secrets: Option<Arc<Secrets>>) {
        let mut jobs = self.jobs();
        if !jobs.known.contains_key(&job.job) {
            jobs.secrets.extend(secrets.map(|secrets| (job.job.clone(), secrets)));
            jobs.known.insert(job.job.clone(), None);
            jobs.started.push(job);
        }
        drop(jobs);
        self.changed.notify_waiters();
    }

    fn secrets(&self, _: &JobKey, _: Result<Arc<Secrets>, ApiError>) {}

    fn stop(&self, job: &JobKey, grace: api::Span) {
        self.jobs().stopped.push((job.clone(), grace));
        self.changed.notify_waiters();
    }

    fn remark(&self, job: &JobKey, text: &str) {
        self.jobs().remarks.push((job.clone(), text.to_owned()));
        self.changed.notify_waiters();
    }

    fn adopt(&self) -> BoxFuture<'_, (Vec<Found>, Vec<String>)> {
        let jobs = self.jobs();
        let found = jobs.known.iter().map(|(job, found)| {
            found.clone().unwrap_or(Found {
                job: job.clone(),
                started_at: None,
                ended: None,
                wants_secrets: false,
            })
        });
        let found = found.collect();
        Box::pin(async { (found, Vec::new()) })
    }

    fn forget(&self, job: &JobKey) -> BoxFuture<'_, ()> {
        let job = job.clone();
        Box::pin(async move {
            self.jobs().known.remove(&job);
            self.changed.notify_waiters();
        })
    }

    fn set_memory(&self, _: &JobKey, _: Option<Size>) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async { Ok(()) })
    }

    fn exec(&self, _: &JobKey, command: Vec<String>) -> BoxFuture<'_, Result<Exec, ApiError>> {
        Box::pin(async move {
            let (input, mut inputs) = mpsc::channel::<bytes::Bytes>(4);
            let (sender, events) = mpsc::channel(4);
            if command == ["false"] {
                sender.send(ExecEvent::Exited { code: 1 }).await.unwrap();
            } else {
                // Echoes until the end of input.
                tokio::spawn(async move {
                    while let Some(data) = inputs.recv().await
                        && !data.is_empty()
                    {
                        let output = ExecEvent::Output {
                            source: LogSource::Stdout,
                            data: data.to_vec(),
                        };
                        drop(sender.send(output).await);
                    }
                    drop(sender.send(ExecEvent::Exited { code: 0 }).await);
                });
            }
            Ok(Exec { input, events })
        })
    }

    fn owner(&self, cgroup: &str) -> BoxFuture<'_, Option<JobKey>> {
        let jobs = self.jobs();
        let found = jobs.known.keys().find(|job| cgroup.contains(&job.to_string())).cloned();
        Box::pin(async { found })
    }

    fn stats(&self, _: &JobKey) -> BoxFuture<'_, Option<JobStats>> {
        Box::pin(async { None })
    }
}

/// Output in memory.
#[derive(Default)]
struct Lines {
    /// What each job lost.
    lost: std::sync::atomic::AtomicU64,
    jobs: Mutex<HashMap<JobKey, Vec<LogLine>>>,
    fresh: Arc<Mutex<Vec<JobKey>>>,
    wake: Arc<Notify>,
}

impl Lines {
    fn write(&self, job: &str, text: &str) {
        let mut jobs = self.jobs.lock().unwrap();
        let lines = jobs.entry(key(job)).or_default();
        lines.push(LogLine {
            number: lines.len() as u64 + 1,
            at_ns: 0,
            source: LogSource::Stdout,
            text: text.to_owned(),
            partial: false,
        });
        self.fresh.lock().unwrap().push(key(job));
        self.wake.notify_one();
    }
}

impl Output for Lines {
    fn read(&self, job: &JobKey, from: u64, max_bytes: usize) -> io::Result<Vec<LogLine>> {
        let jobs = self.jobs.lock().unwrap();
        let lines = jobs.get(job).into_iter().flatten().filter(|line| line.number >= from);
        let mut left = max_bytes;
        let fits = |line: &&LogLine| {
            let fits = left > 0;
            left = left.saturating_sub(line.text.len());
            fits
        };
        Ok(lines.take_while(fits).cloned().collect())
    }

    fn last(&self, job: &JobKey) -> io::Result<u64> {
        Ok(self.jobs.lock().unwrap().get(job).map_or(0, |lines| lines.len() as u64))
    }

    fn volumes(&self) -> io::Result<HashMap<JobKey, Volume>> {
        let volume = |lines: &Vec<LogLine>| Volume {
            lines: lines.len() as u64,
            bytes: Some(lines.iter().map(|line| line.text.len() as u64).sum()),
            lost: self.lost.load(std::sync::atomic::Ordering::SeqCst),
        };
        let jobs = self.jobs.lock().unwrap();
        Ok(jobs.iter().map(|(job, lines)| (job.clone(), volume(lines))).collect())
    }

    fn trim(&self, _: &JobKey, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, job: &JobKey) -> io::Result<()> {
        self.jobs.lock().unwrap().remove(job);
        Ok(())
    }

    fn watch(&self) -> io::Result<Box<dyn Changes>> {
        Ok(Box::new(LineChanges(Arc::clone(&self.fresh), Arc::clone(&self.wake))))
    }
}

struct LineChanges(Arc<Mutex<Vec<JobKey>>>, Arc<Notify>);

impl Changes for LineChanges {
    fn changed(&mut self) -> BoxFuture<'_, io::Result<Vec<JobKey>>> {
        Box::pin(async {
            loop {
                let fresh = std::mem::take(&mut *self.0.lock().unwrap());
                if !fresh.is_empty() {
                    return Ok(fresh);
                }
                self.1.notified().await;
            }
        })
    }
}

// ---- The agent ----------------------------------------------------------------------------------------------

struct Bench {
    data: tempfile::TempDir,
    native: Arc<Puppet>,
    output: Arc<Lines>,
    events: mpsc::UnboundedSender<EngineEvent>,
}

struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
    held: Arc<Mutex<Vec<GpuIndex>>>,
    leases: Arc<Mutex<Vec<u64>>>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        timeout(LIMIT, self.task).await.unwrap().unwrap().unwrap();
    }
}

fn key(text: &str) -> JobKey {
    text.parse().unwrap()
}

fn puppet(events: &mpsc::UnboundedSender<EngineEvent>) -> Arc<Puppet> {
    Arc::new(Puppet {
        kind: EngineKind::Native,
        events: events.clone(),
        jobs: Mutex::default(),
        changed: Notify::new(),
    })
}

impl Bench {
    /// With the identity of a node that has joined this gateway.
    fn new(gateway: SocketAddr) -> Self {
        let bench = Self::unjoined();
        let identity = Identity {
            name: NodeName::new("n1"),
            credential: "secret".to_owned(),
            gateway: format!("ws://{gateway}"),
        };
        identity.save(bench.data.path()).unwrap();
        bench
    }

    fn unjoined() -> Self {
        let (events, _) = mpsc::unbounded_channel();
        Self {
            data: tempfile::tempdir().unwrap(),
            native: puppet(&events),
            output: Arc::default(),
            events,
        }
    }

    /// Options for an agent; the engines of an earlier one report to this one from now on.
    fn options(&mut self) -> AgentOptions {
        let (sender, events) = mpsc::unbounded_channel();
        let native = puppet(&sender);
        *native.jobs() = std::mem::take(&mut *self.native.jobs());
        self.native = native;
        self.events = sender;
        AgentOptions {
            gateway: None,
            join_token: None,
            authority: None,
            insecure: false,
            name: None,
            labels: BTreeMap::new(),
            data: self.data.path().to_owned(),
            machine: Arc::new(Plain),
            drivers: Vec::new(),
            notes: Vec::new(),
            engines: vec![Arc::clone(&self.native) as Arc<dyn Engine>],
            events,
            output: Arc::clone(&self.output) as Arc<dyn Output>,
            on_held: None,
            on_lease: None,
            fenced: None,
            sample_interval: Duration::from_secs(3600),
            kernel_log: None,
            metrics: None,
            services: None,
        }
    }

    fn start(&mut self) -> Running {
        let options = self.options();
        self.start_with(options)
    }

    fn start_with(&mut self, mut options: AgentOptions) -> Running {
        let shutdown = CancellationToken::new();
        let held = Arc::new(Mutex::new(Vec::new()));
        let leases = Arc::new(Mutex::new(Vec::new()));
        options.on_held = Some(Box::new({
            let held = Arc::clone(&held);
            move |gpus| *held.lock().unwrap() = gpus.to_vec()
        }));
        options.on_lease = Some(Arc::new({
            let leases = Arc::clone(&leases);
            move |until| leases.lock().unwrap().push(until)
        }));
        Running {
            task: tokio::spawn(run(options, shutdown.clone())),
            shutdown,
            held,
            leases,
        }
    }
}

// ---- The gateway --------------------------------------------------------------------------------------------

struct Gateway {
    listener: TcpListener,
}

/// The gateway's side of a session.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    generation: u64,
    jobs: Vec<JobKey>,
}

impl Gateway {
    async fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next session, up to the hello.
    async fn hello(&self) -> (Peer, FromNode) {
        let (stream, _) = timeout(LIMIT, self.listener.accept())
            .await
            .expect("no connection")
            .unwrap();
        #[expect(clippy::result_large_err, reason = "the signature that the library asks for")]
        let check = |request: &Request, answer: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.uri().path(), "/api/v1/node/session");
            assert_eq!(request.headers()["authorization"], "Bearer secret");
            Ok(answer)
        };
        let socket = accept_hdr_async(stream, check).await.unwrap();
        let mut peer = Peer {
            socket,
            generation: 0,
            jobs: Vec::new(),
        };
        let hello = peer.next().await;
        if let FromNode::Hello { jobs, .. } = &hello {
            peer.jobs.clone_from(jobs);
        }
        (peer, hello)
    }

    /// The next session, welcomed and told the whole set.
    async fn session(&self, put: Vec<Assignment>) -> Peer {
        let (mut peer, _) = self.hello().await;
        peer.welcome(api::Span::secs(300), false).await;
        peer.desired(None, put, &[]).await;
        peer
    }
}

impl Peer {
    async fn welcome(&mut self, fence: api::Span, alone: bool) {
        self.say(&ToNode::Welcome {
            protocol: PROTOCOL,
            at: super::now().wall,
            heartbeat: api::Span(50),
            fence,
            alone,
        })
        .await;
    }

    async fn say(&mut self, message: &ToNode) {
        let text = serde_json::to_string(message).unwrap();
        self.socket.send(Message::text(text)).await.unwrap();
    }

    async fn desired(&mut self, base: Option<u64>, put: Vec<Assignment>, forget: &[&str]) {
        self.generation += 1;
        let message = ToNode::Desired(Desired {
            generation: self.generation,
            base,
            piece: 0,
            more: false,
            put,
            forget: forget.iter().map(|job| key(job)).collect(),
        });
        self.say(&message).await;
    }

    async fn change(&mut self, put: Vec<Assignment>, forget: &[&str]) {
        self.desired(Some(self.generation), put, forget).await;
    }

    async fn next(&mut self) -> FromNode {
        loop {
            let message = timeout(LIMIT, self.socket.next()).await.expect("the agent is silent");
            match message.expect("the agent closed the session").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(_) => panic!("the agent closed the session"),
                _ => {}
            }
        }
    }

    /// The next message but heartbeats, which are acknowledged.
    async fn next_but_heartbeats(&mut self) -> FromNode {
        loop {
            match self.next().await {
                FromNode::Heartbeat { number, .. } => self.say(&ToNode::HeartbeatAck { number }).await,
                other => return other,
            }
        }
    }

    async fn observations(&mut self) -> Vec<Observation> {
        match self.next_but_heartbeats().await {
            FromNode::Observations { observations } => observations,
            other => panic!("instead of observations: {other:?}"),
        }
    }

    /// Acknowledges everything until the end of a job, and returns what was said.
    async fn until_end(&mut self, job: &str) -> Vec<FromNode> {
        let mut said = Vec::new();
        loop {
            let message = self.next_but_heartbeats().await;
            let mut ended = false;
            match &message {
                FromNode::Observations { observations } => {
                    ended = observations.iter().any(|o| o.job == key(job) && is_end(o));
                    let through = observations.last().unwrap().number;
                    self.say(&ToNode::ObservationsAck { through }).await;
                }
                FromNode::Logs { streams } => {
                    let last = |(job, lines): &(JobKey, Vec<LogLine>)| (job.clone(), lines.last().unwrap().number);
                    let through = streams.iter().map(last).collect();
                    self.say(&ToNode::LogsAck { through }).await;
                }
                _ => {}
            }
            said.push(message);
            if ended {
                return said;
            }
        }
    }

    /// Waits until the agent closes the session.
    async fn closed(mut self) {
        let end = async { while let Some(Ok(_)) = self.socket.next().await {} };
        timeout(LIMIT, end).await.expect("the session goes on");
    }
}

fn is_end(observation: &Observation) -> bool {
    matches!(observation.seen, Seen::Ended { .. })
}

fn end_of(said: &[FromNode], job: &str) -> Seen {
    let observations = said.iter().filter_map(|message| match message {
        FromNode::Observations { observations } => Some(observations),
        _ => None,
    });
    let end = observations.flatten().find(|o| o.job == key(job) && is_end(o));
    end.unwrap().seen.clone()
}

// ---- What must be so ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_job_goes_from_the_gateway_to_its_end_and_leaves_nothing() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let (mut peer, hello) = gateway.hello().await;
    let FromNode::Hello {
        protocol,
        name,
        inventory,
        jobs,
        ..
    } = hello
    else {
        panic!("{hello:?}")
    };
    assert_eq!((protocol, name.as_str(), jobs.len()), (PROTOCOL, "n1", 0));
    assert_eq!(inventory.engines[0].kind, EngineKind::Native);
    peer.welcome(api::Span::secs(300), false).await;
    peer.desired(None, vec![assignment("wl-a.1.0", &[3])], &[]).await;
    bench.native.until_started("wl-a.1.0").await;
    assert_eq!(*agent.held.lock().unwrap(), [3]);
    let env = bench.native.jobs().started[0].env.clone();
    assert!(env.iter().any(|v| v.name == "CLAWBERNETES_NODE" && v.value == "n1"));
    bench.native.say("wl-a.1.0", What::Pulling(PullProgress::default()));
    bench.native.starts("wl-a.1.0");
    bench.output.write("wl-a.1.0", "hello");
    bench.output.write("wl-a.1.0", "world");
    bench.native.ends("wl-a.1.0", 3);
    let said = peer.until_end("wl-a.1.0").await;
    let texts: Vec<&str> = said
        .iter()
        .filter_map(|message| match message {
            FromNode::Logs { streams } => Some(streams),
            _ => None,
        })
        .flatten()
        .flat_map(|(_, lines)| lines)
        .map(|line| line.text.as_str())
        .collect();
    assert_eq!(texts, ["hello", "world"], "all lines come before the end");
    let Seen::Ended {
        started_at,
        outcome,
        last_line,
        stop,
        ..
    } = end_of(&said, "wl-a.1.0")
    else {
        panic!()
    };
    assert_eq!((outcome, last_line, stop), (Outcome::Exited { code: 3 }, 2, None));
    assert!(started_at.is_some());
    assert!(said.iter().any(|message| matches!(message, FromNode::Pulling { .. })));
    peer.change(vec![], &["wl-a.1.0"]).await;
    bench.native.until("forgotten", |jobs| jobs.known.is_empty()).await;
    // A later life knows nothing of it: the next one, unless the agent was stopped in the middle of it.
    agent.stop().await;
    for life in 0.. {
        let again = bench.start();
        let mut peer = gateway.session(vec![]).await;
        if !peer.jobs.contains(&key("wl-a.1.0")) {
            again.stop().await;
            break;
        }
        assert!(life < 100, "it isn't forgotten");
        // While this one comes and goes, the other is forgotten.
        let job = format!("wl-b{life}.1.0");
        peer.change(vec![assignment(&job, &[])], &[]).await;
        bench.native.until_started(&job).await;
        bench.native.ends(&job, 0);
        peer.until_end(&job).await;
        again.stop().await;
    }
    assert!(bench.output.jobs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn secrets_are_asked_for_in_each_session_and_leave_no_trace() {
    const CANARY: &str = "canary-of-the-session-91d2";
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let mut job = assignment("wl-a.1.0", &[]);
    job.secrets = vec![SecretUse {
        secret: "token".to_owned(),
        key: None,
        to: SecretTarget::Env("TOKEN".to_owned()),
    }];
    let mut peer = gateway.session(vec![job.clone()]).await;
    let wanted = FromNode::SecretsWanted { job: key("wl-a.1.0") };
    assert_eq!(peer.next_but_heartbeats().await, wanted);
    drop(peer);
    let mut peer = gateway.session(vec![job.clone()]).await;
    assert_eq!(peer.next_but_heartbeats().await, wanted);
    assert!(bench.native.jobs().started.is_empty());
    let value = || SecretValue::from(CANARY.to_owned());
    peer.say(&ToNode::Secrets {
        job: key("wl-a.1.0"),
        answer: SecretsAnswer::Values {
            values: vec![value()],
            mask: vec![value()],
        },
    })
    .await;
    bench.native.until_started("wl-a.1.0").await;
    let secrets = bench.native.jobs().secrets.remove(&key("wl-a.1.0")).unwrap();
    assert_eq!(secrets.env(), [("TOKEN".to_owned(), value())]);
    assert_eq!(Arc::strong_count(&secrets), 1, "the agent has kept them");
    bench.native.starts("wl-a.1.0");
    bench.native.ends("wl-a.1.0", 0);
    peer.until_end("wl-a.1.0").await;
    agent.stop().await;
    for entry in std::fs::read_dir(bench.data.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()));
    }
}

#[tokio::test]
async fn observations_and_lines_are_sent_again_until_acknowledged() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let job = || vec![assignment("wl-a.1.0", &[])];
    let mut peer = gateway.session(job()).await;
    bench.native.until_started("wl-a.1.0").await;
    bench.native.starts("wl-a.1.0");
    let first = peer.observations().await;
    assert_eq!(first[0].number, 1);
    // The connection breaks before it is acknowledged; meanwhile the job ends.
    drop(peer);
    bench.output.write("wl-a.1.0", "last words");
    bench.native.ends("wl-a.1.0", 0);
    let mut peer = gateway.session(job()).await;
    let said = peer.until_end("wl-a.1.0").await;
    let observations: Vec<&Observation> = said
        .iter()
        .filter_map(|message| match message {
            FromNode::Observations { observations } => Some(observations),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(observations[0], &first[0]);
    assert_eq!(observations.len(), 2);
    assert_eq!(bench.native.jobs().started.len(), 1);
    drop(peer);
    // Also by another life of the agent; the last acknowledgement may not have arrived.
    agent.stop().await;
    let again = bench.start();
    let mut peer = gateway.session(job()).await;
    assert_eq!(peer.jobs, [key("wl-a.1.0")]);
    peer.change(vec![assignment("wl-b.1.0", &[])], &[]).await;
    bench.native.until_started("wl-b.1.0").await;
    bench.native.ends("wl-b.1.0", 0);
    let said = peer.until_end("wl-b.1.0").await;
    let FromNode::Observations { observations } = said.last().unwrap() else {
        panic!()
    };
    assert_eq!(observations.last().unwrap().number, 3, "numbers go on");
    again.stop().await;
}

#[tokio::test]
async fn what_ran_while_the_agent_was_away_is_found_again() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let jobs = || vec![assignment("wl-a.1.0", &[0]), assignment("wl-b.1.0", &[1])];
    let agent = bench.start();
    let mut peer = gateway.session(jobs()).await;
    for job in ["wl-a.1.0", "wl-b.1.0"] {
        bench.native.until_started(job).await;
        bench.native.starts(job);
        peer.observations().await;
        let through = if job == "wl-a.1.0" { 1 } else { 2 };
        peer.say(&ToNode::ObservationsAck { through }).await;
    }
    agent.stop().await;
    drop(peer);
    bench.native.ends("wl-a.1.0", 7);
    let agent = bench.start();
    let mut peer = gateway.session(jobs()).await;
    let said = peer.until_end("wl-a.1.0").await;
    let Seen::Ended { outcome, .. } = end_of(&said, "wl-a.1.0") else {
        panic!()
    };
    assert_eq!(outcome, Outcome::Exited { code: 7 });
    assert_eq!(*agent.held.lock().unwrap(), [1]);
    bench.native.ends("wl-b.1.0", 0);
    peer.until_end("wl-b.1.0").await;
    assert_eq!(bench.native.jobs().started.len(), 2, "nothing was started again");
    agent.stop().await;
}

#[tokio::test]
async fn a_change_that_does_not_fit_is_answered_with_resync() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let mut peer = gateway.session(vec![]).await;
    peer.desired(Some(77), vec![assignment("wl-a.1.0", &[])], &[]).await;
    assert_eq!(peer.next_but_heartbeats().await, FromNode::Resync);
    peer.desired(None, vec![assignment("wl-a.1.0", &[])], &[]).await;
    bench.native.until_started("wl-a.1.0").await;
    agent.stop().await;
}

#[tokio::test]
async fn garbage_ends_the_session_and_another_one_follows() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    for garbage in [
        Message::text("{"),
        Message::text(r#"{"type":"conquer"}"#),
        Message::binary(vec![0, 1, 2]),
    ] {
        let mut peer = gateway.session(vec![]).await;
        peer.socket.send(garbage).await.unwrap();
        peer.closed().await;
    }
    // Instead of a welcome, too.
    let (mut peer, _) = gateway.hello().await;
    peer.say(&ToNode::HeartbeatAck { number: 1 }).await;
    peer.closed().await;
    let mut peer = gateway.session(vec![assignment("wl-a.1.0", &[])]).await;
    bench.native.until_started("wl-a.1.0").await;
    bench.native.ends("wl-a.1.0", 0);
    peer.until_end("wl-a.1.0").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_refused_node_ends_and_a_busy_gateway_is_asked_again() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let (mut peer, _) = gateway.hello().await;
    let error = ApiError::conflict("another session is open");
    peer.say(&ToNode::Refused { error }).await;
    peer.closed().await;
    let (mut peer, _) = gateway.hello().await;
    let error = ApiError::new(ErrorCode::AuthFailed, "who are you?");
    peer.say(&ToNode::Refused { error: error.clone() }).await;
    let ended = timeout(LIMIT, agent.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(AgentError::Refused(refused)) if *refused == error));
}

#[tokio::test]
async fn a_refused_node_that_runs_something_goes_on_under_its_fence() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let (mut peer, _) = gateway.hello().await;
    peer.welcome(api::Span(900), false).await;
    peer.desired(None, vec![assignment("wl-a.1.0", &[0])], &[]).await;
    bench.native.until_started("wl-a.1.0").await;
    drop(peer);
    let (mut peer, _) = gateway.hello().await;
    let error = ApiError::new(ErrorCode::AuthFailed, "who are you?");
    peer.say(&ToNode::Refused { error: error.clone() }).await;
    peer.closed().await;
    // It is there to stop its job when the time has come, and goes only then.
    bench.native.until("stop", |jobs| !jobs.stopped.is_empty()).await;
    assert!(!agent.task.is_finished());
    bench.native.ends("wl-a.1.0", 0);
    let ended = timeout(LIMIT, agent.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(AgentError::Refused(refused)) if *refused == error));
}

#[tokio::test]
async fn another_protocol_is_refused_with_both_versions() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let (mut peer, _) = gateway.hello().await;
    peer.say(&ToNode::Welcome {
        protocol: PROTOCOL + 1,
        at: super::now().wall,
        heartbeat: api::Span::secs(1),
        fence: api::Span::secs(1),
        alone: false,
    })
    .await;
    let error = timeout(LIMIT, agent.task).await.unwrap().unwrap().unwrap_err();
    let versions = format!("protocol {}, this agent {PROTOCOL}", PROTOCOL + 1);
    assert!(error.to_string().contains(&versions), "{error}");
}

#[tokio::test]
async fn a_credential_that_is_refused_by_http_ends_the_agent() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let (stream, _) = gateway.listener.accept().await.unwrap();
    answer(
        stream,
        "401 Unauthorized",
        r#"{"error":{"code":"AUTH_FAILED","message":"revoked"}}"#,
    )
    .await;
    let error = timeout(LIMIT, agent.task).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.to_api().code, ErrorCode::AuthFailed);
}

/// Reads a request and answers it.
async fn answer(mut stream: TcpStream, status: &str, body: &str) -> String {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let read = stream.read(&mut piece).await.unwrap();
        request.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body_so_far)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if body_so_far.len() >= length {
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                return text;
            }
        }
    }
}

#[tokio::test]
async fn a_new_node_joins_once_and_keeps_its_name() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::unjoined();
    let mut options = bench.options();
    options.gateway = Some(format!("http://{}", gateway.address()));
    options.join_token = Some("join-me".to_owned());
    let agent = bench.start_with(options);
    let asked = |request: &str| -> serde_json::Value {
        assert!(request.starts_with("POST /api/v1/node/join HTTP/1.1\r\n"), "{request}");
        assert!(request.to_lowercase().contains("authorization: bearer join-me"));
        serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    // The first answer says nothing: whether it has joined isn't known.
    let (stream, _) = gateway.listener.accept().await.unwrap();
    let first = asked(&answer(stream, "502 Bad Gateway", "").await);
    let ended = timeout(LIMIT, agent.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(AgentError::Join { .. })));
    assert_eq!((&first["name"], &first["exact"]), (&"box-1".into(), &false.into()));
    assert_eq!(first["secret"].as_str().unwrap().len(), 64);

    let mut options = bench.options();
    options.gateway = Some(format!("http://{}", gateway.address()));
    options.join_token = Some("join-me".to_owned());
    let agent = bench.start_with(options);
    let (stream, _) = gateway.listener.accept().await.unwrap();
    let again = asked(&answer(stream, "200 OK", r#"{"name":"box-1","credential":"secret"}"#).await);
    for field in ["name", "exact", "secret"] {
        assert_eq!(again[field], first[field], "it asks for the same");
    }
    gateway.session(vec![]).await;
    agent.stop().await;
    let agent = bench.start();
    let (_, hello) = gateway.hello().await;
    assert!(matches!(hello, FromNode::Hello { name, .. } if name.as_str() == "box-1"));
    agent.stop().await;
}

#[tokio::test]
async fn a_node_that_cannot_join_says_why() {
    let mut bench = Bench::unjoined();
    let with = |bench: &mut Bench, gateway: Option<&str>, token: Option<&str>| {
        let mut options = bench.options();
        options.gateway = gateway.map(str::to_owned);
        options.join_token = token.map(str::to_owned);
        run(options, CancellationToken::new())
    };
    let error = with(&mut bench, Some("ws://10.0.0.1:9000"), Some("t"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_api().reason,
        Some(api::Reason::TlsRequired),
        "nothing was sent"
    );
    let error = with(&mut bench, Some("wss://x"), None).await.unwrap_err();
    assert!(error.to_api().hint.unwrap().contains("join-token"));
    let gateway = Gateway::new().await;
    let address = gateway.address().to_string();
    drop(gateway);
    let error = with(&mut bench, Some(&address), Some("t")).await.unwrap_err();
    assert_eq!(error.to_api().code, ErrorCode::ConnectionRefused);
    let gateway = Gateway::new().await;
    let address = gateway.address().to_string();
    let joining = tokio::spawn(with(&mut bench, Some(&address), Some("t")));
    let (stream, _) = gateway.listener.accept().await.unwrap();
    answer(
        stream,
        "401 X",
        r#"{"error":{"code":"AUTH_FAILED","message":"expired"}}"#,
    )
    .await;
    let error = joining.await.unwrap().unwrap_err();
    assert_eq!(error.to_api().code, ErrorCode::AuthFailed);
    assert!(error.to_string().contains("expired"));
}

#[tokio::test]
async fn heartbeats_go_on_while_a_driver_hangs() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let mut options = bench.options();
    let (let_go, hang) = std::sync::mpsc::channel();
    options.drivers = vec![Box::new(Hanging(Mutex::new(hang)))];
    let agent = bench.start_with(options);
    let (mut peer, hello) = gateway.hello().await;
    assert!(matches!(hello, FromNode::Hello { inventory, .. } if inventory.gpus.len() == 1));
    peer.welcome(api::Span::secs(300), false).await;
    for wanted in 1.. {
        let mut message = peer.next().await;
        // It is measured that the GPU doesn't answer.
        if let FromNode::Metrics { .. } = message {
            message = peer.next().await;
        }
        let FromNode::Heartbeat {
            number,
            sample,
            round_trip_ms,
            ..
        } = message
        else {
            panic!("{message:?}")
        };
        assert_eq!(number, wanted);
        assert!(matches!(sample.gpus[0].health, GpuHealth::Unknown { .. }));
        peer.say(&ToNode::HeartbeatAck { number }).await;
        if round_trip_ms.is_some() {
            break;
        }
    }
    let leased = async {
        while agent.leases.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, leased).await.expect("no lease");
    drop(let_go);
    agent.stop().await;
}

#[tokio::test]
async fn an_order_to_stop_reaches_the_engine_once() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let mut peer = gateway.session(vec![assignment("wl-a.1.0", &[])]).await;
    bench.native.until_started("wl-a.1.0").await;
    let stop = Some(Stop {
        reason: StopReason::Cancelled,
        grace: api::Span::secs(5),
    });
    for _ in 0..2 {
        peer.change(
            vec![Assignment {
                stop,
                ..assignment("wl-a.1.0", &[])
            }],
            &[],
        )
        .await;
    }
    bench.native.until("stop", |jobs| !jobs.stopped.is_empty()).await;
    bench.native.ends("wl-a.1.0", 0);
    let said = peer.until_end("wl-a.1.0").await;
    let Seen::Ended { stop, outcome, .. } = end_of(&said, "wl-a.1.0") else {
        panic!()
    };
    assert_eq!((stop, outcome.success()), (Some(StopReason::Cancelled), true));
    assert_eq!(bench.native.jobs().stopped, [(key("wl-a.1.0"), api::Span::secs(5))]);
    agent.stop().await;
}

#[tokio::test]
async fn without_its_engine_a_job_fails_to_start() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let mut job = assignment("wl-a.1.0", &[]);
    job.image = "alpine".to_owned();
    let mut peer = gateway.session(vec![job]).await;
    let said = peer.until_end("wl-a.1.0").await;
    let Seen::Ended { outcome, .. } = end_of(&said, "wl-a.1.0") else {
        panic!()
    };
    assert!(matches!(outcome, Outcome::StartFailed { message, .. } if message.contains("alpine")));
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_does_not_start_without_the_engine_of_what_ran() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let mut peer = gateway.session(vec![assignment("wl-a.1.0", &[])]).await;
    bench.native.until_started("wl-a.1.0").await;
    bench.native.starts("wl-a.1.0");
    peer.observations().await;
    agent.stop().await;
    let mut options = bench.options();
    options.engines.clear();
    let error = run(options, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, AgentError::EngineGone { jobs, .. } if jobs == ["wl-a.1.0"]));
}

#[tokio::test]
async fn commands_run_in_jobs() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let mut peer = gateway.session(vec![assignment("wl-a.1.0", &[])]).await;
    bench.native.until_started("wl-a.1.0").await;
    let start = |job: &str, command: &str| ExecRequest::Start {
        job: key(job),
        command: vec![command.to_owned()],
    };
    let asked = [
        (1, start("wl-a.1.0", "cat")),
        (2, start("wl-a.1.0", "false")),
        (3, start("wl-x.1.0", "cat")),
        (1, ExecRequest::Input { data: b"hi".to_vec() }),
        (1, ExecRequest::Input { data: Vec::new() }),
        (9, ExecRequest::Kill),
    ];
    for (id, request) in asked {
        peer.say(&ToNode::Exec { id, request }).await;
    }
    let mut by_id: BTreeMap<u64, Vec<ExecEvent>> = BTreeMap::new();
    while by_id
        .values()
        .flatten()
        .filter(|event| !matches!(event, ExecEvent::Output { .. }))
        .count()
        < 3
    {
        if let FromNode::Exec { id, event } = peer.next_but_heartbeats().await {
            by_id.entry(id).or_default().push(event);
        }
    }
    let echoed = ExecEvent::Output {
        source: LogSource::Stdout,
        data: b"hi".to_vec(),
    };
    assert_eq!(by_id[&1], [echoed, ExecEvent::Exited { code: 0 }]);
    assert_eq!(by_id[&2], [ExecEvent::Exited { code: 1 }]);
    assert!(matches!(by_id[&3][0], ExecEvent::Failed { .. }));
    agent.stop().await;
}

#[tokio::test]
async fn a_job_whose_health_check_fails_is_stopped() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let mut job = assignment("wl-a.1.0", &[]);
    job.health_check = Some(HealthCheck {
        probe: Probe::Command(vec!["false".to_owned()]),
        interval: api::Span(100),
        timeout: api::Span::secs(5),
        failures: 2,
    });
    let mut peer = gateway.session(vec![job]).await;
    bench.native.until_started("wl-a.1.0").await;
    bench.native.starts("wl-a.1.0");
    bench.native.until("stop", |jobs| !jobs.stopped.is_empty()).await;
    bench.native.ends("wl-a.1.0", 0);
    let said = peer.until_end("wl-a.1.0").await;
    let Seen::Ended { stop, .. } = end_of(&said, "wl-a.1.0") else {
        panic!()
    };
    assert_eq!(stop, Some(StopReason::Unhealthy));
    agent.stop().await;
}

#[tokio::test]
async fn silence_fences_the_node() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let (mut peer, _) = gateway.hello().await;
    peer.welcome(api::Span(900), false).await;
    peer.desired(None, vec![assignment("wl-a.1.0", &[0])], &[]).await;
    bench.native.until_started("wl-a.1.0").await;
    // Heartbeats arrive, and nobody answers.
    bench.native.until("stop", |jobs| !jobs.stopped.is_empty()).await;
    bench.native.ends("wl-a.1.0", 0);
    let Seen::Ended { stop, .. } = end_of(&peer.until_end("wl-a.1.0").await, "wl-a.1.0") else {
        panic!()
    };
    assert_eq!(stop, Some(StopReason::Fenced));
    agent.stop().await;
}

#[tokio::test]
async fn lost_lines_hold_nothing_up() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let mut peer = gateway.session(vec![assignment("wl-a.1.0", &[])]).await;
    bench.native.until_started("wl-a.1.0").await;
    // The agent will find a last line that it can't read afterwards.
    {
        let mut jobs = bench.output.jobs.lock().unwrap();
        let gone = LogLine {
            number: 0,
            at_ns: 0,
            source: LogSource::System,
            text: String::new(),
            partial: false,
        };
        jobs.insert(key("wl-a.1.0"), vec![gone; 4]);
    }
    bench.native.ends("wl-a.1.0", 0);
    peer.until_end("wl-a.1.0").await;
    peer.change(vec![], &["wl-a.1.0"]).await;
    bench.native.until("forgotten", |jobs| jobs.known.is_empty()).await;
    agent.stop().await;
}
