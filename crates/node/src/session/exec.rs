//! Commands that the gateway asked to run in jobs. They live no longer than the session that asked.

use std::{collections::HashMap, sync::Arc};

use api::{
    ApiError,
    wire::{ExecEvent, ExecRequest, FromNode},
    workload::JobKey,
};
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use crate::engine::Engine;

/// Pieces of input that may wait for a command.
const INPUT_QUEUE: usize = 64;

/// The commands of one session. Dropping it kills them.
pub(super) struct Execs {
    running: HashMap<u64, (mpsc::Sender<Bytes>, AbortHandle)>,
    tasks: JoinSet<u64>,
    frames: mpsc::Sender<FromNode>,
}

impl Execs {
    pub(super) fn new(frames: mpsc::Sender<FromNode>) -> Self {
        Self {
            running: HashMap::new(),
            tasks: JoinSet::new(),
            frames,
        }
    }

    /// Does what was asked. `engine` finds the engine of a job.
    pub(super) fn handle(
        &mut self,
        id: u64,
        request: ExecRequest,
        engine: impl FnOnce(&JobKey) -> Option<Arc<dyn Engine>>,
    ) {
        while let Some(done) = self.tasks.try_join_next() {
            if let Ok(id) = done {
                self.running.remove(&id);
            }
        }
        match request {
            ExecRequest::Start { job, command } => {
                let (input, queue) = mpsc::channel(INPUT_QUEUE);
                let engine = engine(&job);
                let task = self
                    .tasks
                    .spawn(run(id, job, command, engine, queue, self.frames.clone()));
                if let Some((_, old)) = self.running.insert(id, (input, task)) {
                    old.abort();
                }
            }
            ExecRequest::Input { data } => {
                let Some((input, task)) = self.running.get(&id) else {
                    return;
                };
                if let Err(mpsc::error::TrySendError::Full(_)) = input.try_send(Bytes::from(data)) {
                    // Its caller sends faster than it reads; waiting here would hold up the whole node.
                    task.abort();
                    self.running.remove(&id);
                    let error = ApiError::conflict("the command doesn't read its input as fast as it comes");
                    let failed = ExecEvent::Failed { error };
                    let frames = self.frames.clone();
                    self.tasks.spawn(async move {
                        drop(frames.send(FromNode::Exec { id, event: failed }).await);
                        id
                    });
                }
            }
            ExecRequest::Kill => {
                if let Some((_, task)) = self.running.remove(&id) {
                    task.abort();
                }
            }
        }
    }
}

/// Runs one command, and returns its number at its end. Dropping it kills the command.
async fn run(
    id: u64,
    job: JobKey,
    command: Vec<String>,
    engine: Option<Arc<dyn Engine>>,
    mut queue: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<FromNode>,
) -> u64 {
    let started = match engine {
        Some(engine) => engine.exec(&job, command).await,
        None => Err(ApiError::not_found(format!("{job} doesn't run on this node"))),
    };
    let mut exec = match started {
        Ok(exec) => exec,
        Err(error) => {
            let event = ExecEvent::Failed { error };
            drop(frames.send(FromNode::Exec { id, event }).await);
            return id;
        }
    };
    let input = exec.input;
    let feed = async {
        while let Some(data) = queue.recv().await {
            if input.send(data).await.is_err() {
                break;
            }
        }
        // The command reads no more, or its caller is gone and this future with it.
        std::future::pending::<()>().await;
    };
    let report = async {
        while let Some(event) = exec.events.recv().await {
            let last = !matches!(event, ExecEvent::Output { .. });
            if frames.send(FromNode::Exec { id, event }).await.is_err() || last {
                return;
            }
        }
        let error = ApiError::internal("the engine lost the command");
        let event = ExecEvent::Failed { error };
        drop(frames.send(FromNode::Exec { id, event }).await);
    };
    tokio::select! {
        () = feed => {}
        () = report => {}
    }
    id
}
