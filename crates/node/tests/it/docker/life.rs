//! A life of the agent: an engine that can be killed, over a sink that outlives it.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{
    NodeName, Span, Timestamp, WorkloadId,
    wire::Assignment,
    workload::{JobKey, LogSource, Outcome, Usage, Volume, VolumeSource},
};
use clawbernetes_node::{
    engine::{
        Engine as _, EngineEvent, Found, What,
        docker::{DockerEngine, Options},
    },
    secret::Secrets,
    spool::{Sink, Sinks},
};
use tokio::sync::mpsc;

use testkit::docker::{Fixture, IMAGE};

/// A kept line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) source: LogSource,
    pub(super) at_ns: i64,
    pub(super) text: String,
    pub(super) partial: bool,
}

/// Output in memory, for all lives of the agent.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<JobKey, Arc<Mutex<Vec<Kept>>>>>);

impl Memory {
    fn stream(&self, job: &JobKey) -> Arc<Mutex<Vec<Kept>>> {
        Arc::clone(self.0.lock().unwrap().entry(job.clone()).or_default())
    }

    pub(super) fn lines(&self, job: &JobKey) -> Vec<Kept> {
        self.stream(job).lock().unwrap().clone()
    }

    pub(super) fn texts(&self, job: &JobKey, source: LogSource) -> Vec<String> {
        let lines = self.lines(job).into_iter();
        lines
            .filter(|line| line.source == source)
            .map(|line| line.text)
            .collect()
    }

    pub(super) fn stdout(&self, job: &JobKey) -> Vec<String> {
        self.texts(job, LogSource::Stdout)
    }
}

struct MemorySink(Arc<Mutex<Vec<Kept>>>);

impl Sink for MemorySink {
    fn last(&self) -> Option<(u64, i64)> {
        let lines = self.0.lock().unwrap();
        lines.last().map(|line| (lines.len() as u64, line.at_ns))
    }

    fn append(&mut self, source: LogSource, at_ns: i64, text: &[u8], partial: bool) -> io::Result<u64> {
        let mut lines = self.0.lock().unwrap();
        lines.push(Kept {
            source,
            at_ns,
            text: String::from_utf8_lossy(text).into_owned(),
            partial,
        });
        Ok(lines.len() as u64)
    }
}

impl Sinks for Memory {
    fn open(&self, job: &JobKey) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(MemorySink(self.stream(job))))
    }
}

/// An engine on a runtime of its own. Dropping it is a kill: tasks stop where they stand.
pub(super) struct Life {
    pub(super) engine: Arc<DockerEngine>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<EngineEvent>>,
    /// Events of other jobs than the one that was asked for.
    others: Mutex<Vec<EngineEvent>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Life {
    pub(super) async fn begin(fixture: &Fixture, node: &str, memory: &Arc<Memory>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        let options = Options {
            socket: Some(fixture.socket()),
            cgroup: format!("/{}/jobs", fixture.name),
            secrets: secrets_of(fixture, node),
            ..Options::new(NodeName::new(node))
        };
        let sinks: Arc<dyn Sinks> = Arc::clone(memory) as _;
        let connect = runtime.spawn(DockerEngine::connect(options, sinks, sender));
        Self {
            engine: Arc::new(connect.await.unwrap().unwrap()),
            events: tokio::sync::Mutex::new(events),
            others: Mutex::default(),
            runtime: Some(runtime),
        }
    }

    /// Runs a verb on the engine's runtime, so that what it spawns dies with it.
    async fn on<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.as_ref().unwrap().spawn(task).await.unwrap()
    }

    pub(super) async fn adopt(&self) -> (Vec<Found>, Vec<String>) {
        let engine = Arc::clone(&self.engine);
        self.on(async move { engine.adopt().await }).await
    }

    pub(super) async fn start(&self, job: &Assignment) {
        self.start_with(job, None).await;
    }

    pub(super) async fn start_with(&self, job: &Assignment, secrets: Option<Arc<Secrets>>) {
        let (engine, job) = (Arc::clone(&self.engine), Arc::new(job.clone()));
        self.on(async move { engine.start(job, secrets) }).await;
    }

    /// The next thing that happens to a job.
    pub(super) async fn next(&self, job: &JobKey) -> What {
        let mut events = self.events.lock().await;
        loop {
            let waiting = {
                let mut others = self.others.lock().unwrap();
                let position = others.iter().position(|event| event.job == *job);
                position.map(|position| others.remove(position))
            };
            let event = match waiting {
                Some(event) => event,
                None => tokio::time::timeout(Duration::from_secs(60), events.recv())
                    .await
                    .unwrap_or_else(|_| panic!("nothing happened to {job} for a minute"))
                    .unwrap(),
            };
            if event.job == *job {
                return event.what;
            }
            self.others.lock().unwrap().push(event);
        }
    }

    /// Waits for the job's start.
    pub(super) async fn started(&self, job: &JobKey) -> Timestamp {
        loop {
            match self.next(job).await {
                What::Started { at } => return at,
                What::Pulling(_) => {}
                What::Ended { outcome, .. } => panic!("{job} didn't start: {outcome:?}"),
            }
        }
    }

    /// Waits for the job's end.
    pub(super) async fn ended(&self, job: &JobKey) -> (Timestamp, Outcome, Usage) {
        loop {
            if let What::Ended { at, outcome, usage } = self.next(job).await {
                return (at, outcome, usage);
            }
        }
    }

    /// Runs a job to its end.
    pub(super) async fn run(&self, job: &Assignment) -> Outcome {
        self.start(job).await;
        self.ended(&job.job).await.1
    }
}

/// Where a node's secrets lie: in memory that the daemon sees, whose own `/run` is another.
pub(crate) fn secrets_of(fixture: &Fixture, node: &str) -> PathBuf {
    Path::new("/dev/shm").join(&fixture.name).join(node)
}

/// A job of a shell script.
pub(crate) fn script(workload: &str, text: &str) -> Assignment {
    let words = ["/bin/sh", "-c", text];
    Assignment {
        job: JobKey {
            workload: WorkloadId::new(format!("wl-{workload}")),
            attempt: 1,
            rank: 0,
        },
        name: workload.to_owned(),
        namespace: "default".to_owned(),
        image: IMAGE.to_owned(),
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        env: Vec::new(),
        secrets: Vec::new(),
        volumes: Vec::new(),
        gpus: Vec::new(),
        cpu: None,
        memory: None,
        timeout: None,
        grace: Span::secs(10),
        checkpointing: None,
        gang: None,
        ports: Vec::new(),
        dynamic_ports: false,
        host_ports: Vec::new(),
        health_check: None,
        readiness: None,
        hooks: None,
        metrics_port: None,
        stop: None,
    }
}

/// Waits until a condition holds.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(60), wait).await.is_ok(),
        "waited a minute for {what}"
    );
}

/// A folder of the node, mounted at `/gate`.
pub(crate) fn gate(folder: &Path) -> Volume {
    Volume {
        name: String::new(),
        mount_path: "/gate".to_owned(),
        source: VolumeSource::HostPath {
            source: folder.to_string_lossy().into_owned(),
            read_only: true,
        },
    }
}

/// Processes of this machine whose command line holds a text.
pub(super) fn processes(text: &str) -> usize {
    let folders = std::fs::read_dir("/proc").unwrap().flatten();
    folders
        .filter_map(|folder| std::fs::read(folder.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(text))
        .count()
}
