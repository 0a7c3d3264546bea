//! Native jobs: real processes.

use std::{path::PathBuf, sync::Arc};

use api::{
    Span,
    wire::{Assignment, LogLine},
    workload::{JobKey, LogSource, Outcome},
};
use clawbernetes_node::{
    engine::{
        Engine, EngineEvent, What,
        native::{Config, NativeEngine},
    },
    spool::{Limits, Spool},
};
use tokio::sync::mpsc;

struct Rig {
    folder: Option<tempfile::TempDir>,
    engine: NativeEngine,
    spool: Spool,
    events: mpsc::UnboundedReceiver<EngineEvent>,
}

fn key(name: &str) -> JobKey {
    format!("wl-{name}.1.0").parse().unwrap()
}

fn assignment(name: &str, command: &[&str]) -> Assignment {
    Assignment {
        job: key(name),
        name: name.to_owned(),
        namespace: "default".to_owned(),
        image: "host".to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        env: Vec::new(),
        volumes: Vec::new(),
        gpus: Vec::new(),
        cpu: None,
        memory: None,
        timeout: None,
        grace: Span::secs(10),
        checkpointing: None,
        gang: None,
        health_check: None,
        hooks: None,
        stop: None,
    }
}

fn shell(name: &str, script: &str) -> Assignment {
    assignment(name, &["sh", "-c", script])
}

fn config(folder: &std::path::Path) -> Config {
    Config {
        helper: Some(PathBuf::from(env!("CARGO_BIN_EXE_clawbernetes-test-agent"))),
        ..Config::new(folder.join("data"))
    }
}

impl Rig {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(folder: tempfile::TempDir) -> Self {
        let spool = Spool::open(folder.path().join("spool"), Limits::default()).unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        let engine = NativeEngine::open(&config(folder.path()), &spool, sender).unwrap();
        Self {
            folder: Some(folder),
            engine,
            spool,
            events,
        }
    }

    fn start(&self, job: Assignment) -> JobKey {
        let key = job.job.clone();
        self.engine.start(Arc::new(job));
        key
    }

    async fn event(&mut self) -> EngineEvent {
        self.events.recv().await.unwrap()
    }

    /// The outcome of the next job to end.
    async fn ended(&mut self) -> Outcome {
        loop {
            if let What::Ended { outcome, .. } = self.event().await.what {
                return outcome;
            }
        }
    }

    async fn run(&mut self, job: Assignment) -> (Outcome, Vec<LogLine>) {
        let key = self.start(job);
        let outcome = self.ended().await;
        (outcome, self.spool.read(&key, 1, usize::MAX).unwrap())
    }
}

fn texts(lines: &[LogLine], source: LogSource) -> Vec<&str> {
    lines
        .iter()
        .filter(|l| l.source == source)
        .map(|l| l.text.as_str())
        .collect()
}

#[tokio::test]
async fn a_job_starts_speaks_and_ends() {
    let mut rig = Rig::new();
    let job = rig.start(shell("a", "echo one; echo two >&2; printf three; exit 3"));
    let event = rig.event().await;
    assert_eq!(event.job, job);
    assert!(matches!(event.what, What::Started { .. }), "{event:?}");
    assert_eq!(rig.ended().await, Outcome::Exited { code: 3 });
    let lines = rig.spool.read(&job, 1, usize::MAX).unwrap();
    assert_eq!(texts(&lines, LogSource::Stdout), ["one", "three"]);
    assert_eq!(texts(&lines, LogSource::Stderr), ["two"]);
    assert!(lines.iter().all(|line| line.partial == (line.text == "three")));
    rig.engine.forget(&job).await;
}
