//! Replicas of a service on one node, by a whole agent: ports of their own, and readiness that comes and goes.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use api::{
    NodeName, Span, Timestamp,
    wire::{Assignment, Desired, FromNode, PROTOCOL, Seen, ToNode},
    workload::{Endpoint, HealthCheck, JobKey, Outcome, Port, Probe},
};
use bollard::query_parameters::InspectContainerOptions;
use clawbernetes_node::{
    engine::{
        Engine, EngineEvent, What,
        docker::{DockerEngine, Options},
        native::NativeEngine,
    },
    host::Host,
    session::{AgentError, AgentOptions, Identity, run},
    spool::{Limits, Spool},
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use testkit::docker::Fixture;

use super::{
    docker::life::{gate, script, secrets_of},
    native::{Folder, assignment, config},
};

/// For whatever must happen at some time.
const LIMIT: Duration = Duration::from_secs(60);

/// An agent that runs.
struct Running {
    task: JoinHandle<Result<(), AgentError>>,
    shutdown: CancellationToken,
}

impl Running {
    fn start(
        folder: &Path,
        engine: Arc<dyn Engine>,
        spool: Arc<Spool>,
        events: mpsc::UnboundedReceiver<EngineEvent>,
    ) -> Self {
        let options = AgentOptions {
            gateway: None,
            join_token: None,
            authority: None,
            insecure: false,
            name: None,
            labels: BTreeMap::new(),
            data: folder.join("agent"),
            machine: Arc::new(Host::default()),
            drivers: Vec::new(),
            notes: Vec::new(),
            engines: vec![engine],
            events,
            output: spool,
            on_held: None,
            on_lease: None,
            fenced: None,
            sample_interval: Duration::from_secs(3600),
            kernel_log: None,
            metrics: None,
            services: None,
        };
        let shutdown = CancellationToken::new();
        Self {
            task: tokio::spawn(run(options, shutdown.clone())),
            shutdown,
        }
    }

    fn native(folder: &Path) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let spool = spool(folder);
        let engine = Arc::new(NativeEngine::open(&config(folder), &spool, sender).unwrap());
        Self::start(folder, engine, spool, events)
    }

    /// Ends the agent; its jobs run on.
    async fn stop(self) {
        self.shutdown.cancel();
        timeout(LIMIT, self.task).await.unwrap().unwrap().unwrap();
    }
}

fn spool(folder: &Path) -> Arc<Spool> {
    Arc::new(Spool::open(folder.join("spool"), Limits::default()).unwrap())
}

/// The gateway's side of a session.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    generation: u64,
    /// Number of the last observation: one whose acknowledgement was lost comes again.
    through: u64,
    /// What was seen of each job and not asked for yet.
    seen: HashMap<JobKey, VecDeque<Seen>>,
}

impl Peer {
    async fn meet(gateway: &TcpListener, put: Vec<Assignment>, through: u64) -> Self {
        let (stream, _) = timeout(LIMIT, gateway.accept()).await.expect("no connection").unwrap();
        let mut peer = Self {
            socket: accept_async(stream).await.unwrap(),
            generation: 0,
            through,
            seen: HashMap::new(),
        };
        assert!(matches!(peer.next().await, FromNode::Hello { .. }));
        peer.say(&ToNode::Welcome {
            protocol: PROTOCOL,
            at: Timestamp::now(),
            heartbeat: Span(200),
            fence: Span::secs(300),
            alone: false,
        })
        .await;
        peer.wants(put).await;
        peer
    }

    async fn wants(&mut self, put: Vec<Assignment>) {
        self.generation += 1;
        let desired = Desired {
            generation: self.generation,
            base: None,
            piece: 0,
            more: false,
            put,
            forget: Vec::new(),
        };
        self.say(&ToNode::Desired(desired)).await;
    }

    async fn say(&mut self, message: &ToNode) {
        let text = serde_json::to_string(message).unwrap();
        self.socket.send(Message::text(text)).await.unwrap();
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

    /// The next of what is seen of a job that fits; what doesn't is dropped.
    async fn until<T>(&mut self, job: &JobKey, fits: impl Fn(&Seen) -> Option<T>) -> T {
        let waiting = async {
            loop {
                while let Some(seen) = self.seen.entry(job.clone()).or_default().pop_front() {
                    if let Some(found) = fits(&seen) {
                        return found;
                    }
                }
                match self.next().await {
                    FromNode::Heartbeat { number, .. } => self.say(&ToNode::HeartbeatAck { number }).await,
                    FromNode::Observations { observations } => {
                        let through = observations.last().unwrap().number;
                        self.say(&ToNode::ObservationsAck { through }).await;
                        let known = std::mem::replace(&mut self.through, through);
                        for observation in observations.into_iter().filter(|o| o.number > known) {
                            let seen = self.seen.entry(observation.job).or_default();
                            seen.push_back(observation.seen);
                        }
                    }
                    FromNode::Logs { streams } => {
                        let through = streams
                            .iter()
                            .map(|(job, lines)| (job.clone(), lines.last().unwrap().number))
                            .collect();
                        self.say(&ToNode::LogsAck { through }).await;
                    }
                    _ => {}
                }
            }
        };
        timeout(LIMIT, waiting).await.expect("it isn't seen")
    }

    async fn started(&mut self, job: &JobKey) -> Vec<Endpoint> {
        self.until(job, |seen| match seen {
            Seen::Started { endpoints, .. } => Some(endpoints.clone()),
            Seen::Ended { outcome, .. } => panic!("{job} ended: {outcome:?}"),
            _ => None,
        })
        .await
    }

    /// Waits until a job is said to be ready, or not; gives the reason.
    async fn ready(&mut self, job: &JobKey, wanted: bool) -> Option<String> {
        self.until(job, |seen| match seen {
            Seen::Readiness { ready, why } => (*ready == wanted).then(|| why.clone()),
            Seen::Ended { outcome, .. } => panic!("{job} ended: {outcome:?}"),
            _ => None,
        })
        .await
    }
}

/// A gateway's listener, and the identity of a node that has joined it.
async fn gateway(folder: &Path) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let identity = Identity {
        name: NodeName::new("n1"),
        credential: "secret".to_owned(),
        gateway: format!("ws://{}", listener.local_addr().unwrap()),
    };
    let data = folder.join("agent");
    std::fs::create_dir_all(&data).unwrap();
    identity.save(&data).unwrap();
    listener
}

/// A service of one port, which is called 8000, and of which `/ready` says whether it can serve.
fn service(job: Assignment) -> Assignment {
    let check = |probe| HealthCheck {
        probe,
        interval: Span(100),
        timeout: Span::secs(5),
        failures: 2,
    };
    Assignment {
        ports: vec![Port {
            name: "http".to_owned(),
            port: 8000,
            protocol: "TCP".to_owned(),
        }],
        dynamic_ports: true,
        health_check: Some(check(Probe::Tcp(8000))),
        readiness: Some(check(Probe::Http("/ready".to_owned()))),
        ..job
    }
}

/// A folder that a replica serves: its name, and whether it is ready.
fn site(folder: &Path, name: &str) -> std::path::PathBuf {
    let site = folder.join(format!("site-{name}"));
    std::fs::create_dir_all(&site).unwrap();
    std::fs::write(site.join("name"), name).unwrap();
    site
}

async fn get(endpoint: &Endpoint, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", endpoint.host_port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Two replicas side by side, of which one can serve, then can't, then can again.
async fn serve(peer: &mut Peer, folder: &Path, [a, b]: [&JobKey; 2]) -> Vec<Endpoint> {
    let ready = |name: &str| folder.join(format!("site-{name}")).join("ready");
    let mut endpoints = Vec::new();
    for (job, name) in [(a, "a"), (b, "b")] {
        let [endpoint] = &peer.started(job).await[..] else {
            panic!("one port is declared")
        };
        assert_eq!((endpoint.name.as_str(), endpoint.port), ("http", 8000));
        endpoints.push(endpoint.clone());
        std::fs::write(ready(name), "").unwrap();
        assert_eq!(peer.ready(job, true).await, None);
        let answer = get(endpoint, "/name").await;
        assert!(answer.ends_with(name), "{answer}");
    }
    assert_ne!(endpoints[0].host_port, endpoints[1].host_port);
    std::fs::remove_file(ready("a")).unwrap();
    let why = peer.ready(a, false).await.unwrap();
    assert!(why.starts_with("it answered 404"), "{why}");
    std::fs::write(ready("a"), "").unwrap();
    peer.ready(a, true).await;
    endpoints
}

fn ended(seen: &Seen) -> Option<()> {
    matches!(seen, Seen::Ended { .. }).then_some(())
}

#[tokio::test]
async fn native_replicas_have_ports_and_readiness_of_their_own_also_over_a_restart_of_the_agent() {
    let folder = Folder::new();
    let path = folder.path();
    let gateway = gateway(path).await;
    let jobs = ["a", "b"].map(|name| {
        let site = site(path, name);
        let command = [
            env!("CARGO_BIN_EXE_clawbernetes-test-agent"),
            "serve",
            site.to_str().unwrap(),
        ];
        service(assignment(name, &command))
    });
    let keys = [&jobs[0].job, &jobs[1].job];
    let agent = Running::native(path);
    let mut peer = Peer::meet(&gateway, jobs.to_vec(), 0).await;
    let endpoints = serve(&mut peer, path, keys).await;
    agent.stop().await;
    let through = peer.through;

    // While nobody looks, one isn't ready any more. The next agent finds it out, and where both are.
    std::fs::remove_file(path.join("site-b/ready")).unwrap();
    let agent = Running::native(path);
    let mut third = service(assignment(
        "c",
        &[
            env!("CARGO_BIN_EXE_clawbernetes-test-agent"),
            "serve",
            site(path, "c").to_str().unwrap(),
        ],
    ));
    third.health_check = None;
    let all: Vec<Assignment> = jobs.iter().cloned().chain([third.clone()]).collect();
    let mut peer = Peer::meet(&gateway, all, through).await;
    peer.ready(keys[1], false).await;
    let new = peer.started(&third.job).await;
    assert!(endpoints.iter().all(|old| old.host_port != new[0].host_port));
    for (endpoint, name) in endpoints.iter().zip(["a", "b"]) {
        assert!(get(endpoint, "/name").await.ends_with(name));
    }
    let news = peer.seen.remove(keys[0]).unwrap_or_default();
    assert!(news.is_empty(), "nothing has happened to the other: {news:?}");
    peer.wants(Vec::new()).await;
    for job in [keys[0], keys[1], &third.job] {
        peer.until(job, ended).await;
    }
    agent.stop().await;
}

async fn containers(
    fixture: &Fixture,
    node: &str,
    spool: &Arc<Spool>,
    sender: mpsc::UnboundedSender<EngineEvent>,
) -> DockerEngine {
    let options = Options {
        socket: Some(fixture.socket()),
        cgroup: format!("/{}/jobs", fixture.name),
        secrets: secrets_of(fixture, node),
        publish_at: [127, 0, 0, 1].into(),
        ..Options::new(NodeName::new(node))
    };
    let sinks = Arc::clone(spool) as _;
    DockerEngine::connect(options, sinks, sender).await.unwrap()
}

#[tokio::test]
async fn a_container_whose_port_was_taken_in_between_fails_in_a_way_that_another_try_may_mend() {
    let Some(fixture) = testkit::docker::shared() else {
        return;
    };
    let folder = Folder::new();
    let (sender, mut events) = mpsc::unbounded_channel();
    let engine = containers(fixture, "port-taken", &spool(folder.path()), sender).await;
    let thief = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut job = service(script("port-taken", "sleep 60"));
    job.host_ports = vec![thief.local_addr().unwrap().port()];
    engine.start(Arc::new(job.clone()), None);
    let outcome = loop {
        let event = timeout(LIMIT, events.recv()).await.expect("nothing happens").unwrap();
        if let What::Ended { outcome, .. } = event.what {
            break outcome;
        }
    };
    let Outcome::StartFailed { retryable, message, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(retryable && message.contains("address already in use"), "{message}");
    engine.forget(&job.job).await;
}

#[tokio::test]
async fn containers_of_one_service_run_side_by_side_on_published_ports() {
    let Some(fixture) = testkit::docker::shared() else {
        return;
    };
    let folder = Folder::new();
    let path = folder.path();
    let gateway = gateway(path).await;
    let jobs = ["a", "b"].map(|name| {
        let mut job = service(script(
            &format!("replica-{name}"),
            "exec busybox httpd -f -p $HOST:$PORT -h /gate",
        ));
        job.volumes = vec![gate(&site(path, name))];
        job
    });
    let keys = [&jobs[0].job, &jobs[1].job];
    let (sender, events) = mpsc::unbounded_channel();
    let spool = spool(path);
    let engine = containers(fixture, "replicas", &spool, sender).await;
    let agent = Running::start(path, Arc::new(engine), spool, events);
    let mut peer = Peer::meet(&gateway, jobs.to_vec(), 0).await;
    let endpoints = serve(&mut peer, path, keys).await;
    let docker = fixture.docker().negotiate_version().await.unwrap();
    for (job, endpoint) in keys.iter().zip(&endpoints) {
        let name = format!("clawbernetes-{job}");
        let inspect = docker
            .inspect_container(&name, None::<InspectContainerOptions>)
            .await
            .unwrap();
        let bound = inspect.host_config.unwrap().port_bindings.unwrap();
        let bound = bound["8000/tcp"].as_ref().unwrap();
        assert_eq!(bound[0].host_ip.as_deref(), Some("127.0.0.1"));
        assert_eq!(bound[0].host_port, Some(endpoint.host_port.to_string()));
    }
    peer.wants(Vec::new()).await;
    for job in keys {
        peer.until(job, ended).await;
    }
    agent.stop().await;
}
