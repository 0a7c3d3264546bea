//! The agent's side: launches jobs, and learns from the run folder what has become of them.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use api::{
    ApiError, ErrorCode, Timestamp,
    workload::{HOST_IMAGE, JobKey, Outcome, Usage},
};
use rustix::fs::inotify::WatchFlags;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest},
    net::UnixStream,
    process::{Child, Command},
    sync::mpsc,
    task::JoinHandle,
};

use super::{
    Job, Shared, adopt, delivery, environment,
    record::{Records, Spec, Step},
    spawner,
};
use crate::{
    engine::{EngineEvent, What},
    spool::folder::{Changed, FolderWatch},
};

/// Between the death of a spawner and the next one.
const RESPAWN_DELAY: Duration = Duration::from_millis(200);

/// Starts the spawner and the tasks that watch.
pub(super) fn begin(
    shared: &Arc<Shared>,
    program: PathBuf,
    helper: &spawner::Config,
    queue: mpsc::UnboundedReceiver<JobKey>,
    again: mpsc::WeakUnboundedSender<JobKey>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let mut watch = FolderWatch::new(shared.records.folder(), WatchFlags::MODIFY | WatchFlags::MOVED_TO)?;
    let argument = serde_json::to_string(helper)?;
    let first = Spawner::begin(&program, &argument)?;
    let launching = Arc::clone(shared);
    let watching = Arc::clone(shared);
    Ok(vec![
        tokio::spawn(async move { launch(&launching, &program, &argument, first, queue, again).await }),
        tokio::spawn(async move {
            if let Err(error) = follow(&watching, &mut watch).await {
                tracing::error!(%error, "the run folder can't be watched any more");
            }
        }),
    ])
}

/// The spawner, seen from the agent.
struct Spawner {
    child: Child,
    socket: BufReader<UnixStream>,
}

impl Spawner {
    fn begin(program: &PathBuf, argument: &str) -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new(program)
            .arg(spawner::ARGUMENT)
            .arg(argument)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()?;
        Ok(Self {
            child,
            socket: BufReader::new(UnixStream::from_std(ours)?),
        })
    }
}

impl Spawner {
    /// Sends a job on its way to a shim, with its secrets if it uses any: the shim alone reads them.
    async fn hand(&mut self, job: &JobKey, number: u64, secrets: Option<delivery::Pipe>) -> io::Result<()> {
        let socket = self.socket.get_mut();
        let reader = secrets.as_ref().map(|pipe| &pipe.reader);
        let rest = socket
            .async_io(Interest::WRITABLE, || spawner::send(&*socket, job, number, reader))
            .await?;
        socket.write_all(&rest).await?;
        if let Some(pipe) = secrets {
            pipe.fill();
        }
        Ok(())
    }
}

/// Hands jobs to the spawner, and hears from it which shims have ended.
async fn launch(
    shared: &Arc<Shared>,
    program: &PathBuf,
    argument: &str,
    mut spawner: Spawner,
    mut queue: mpsc::UnboundedReceiver<JobKey>,
    again: mpsc::WeakUnboundedSender<JobKey>,
) {
    let mut line = String::new();
    let mut number = 0;
    loop {
        let lost = tokio::select! {
            job = queue.recv() => {
                let Some(job) = job else { return };
                match prepare(shared, &job) {
                    Ok(false) => continue,
                    Ok(true) => {
                        number += 1;
                        let secrets = shared.lock().get_mut(&job).and_then(|known| {
                            known.launch = number;
                            known.secrets.clone()
                        });
                        match secrets.map(|secrets| delivery::Pipe::new(&secrets)).transpose() {
                            Ok(pipe) => spawner.hand(&job, number, pipe).await.is_err(),
                            Err(error) => {
                                let message = format!("no pipe can be had for its secrets: {error}");
                                finish(shared, &job, start_failed(ErrorCode::Internal, message, true));
                                continue;
                            }
                        }
                    }
                    Err(outcome) => {
                        finish(shared, &job, outcome);
                        continue;
                    }
                }
            }
            count = spawner.socket.read_line(&mut line) => {
                let said = std::mem::take(&mut line);
                if let Some((job, rest)) = said.trim_end().split_once(' ')
                    && let Some((number, how)) = rest.split_once(' ')
                    && let Ok(job) = job.parse()
                    && shared.lock().get(&job).is_some_and(|known| number.parse() == Ok(known.launch))
                {
                    adopt::shim_gone(shared, &job, &format!("ended with {how}"));
                }
                !matches!(count, Ok(1..))
            }
        };
        if lost {
            let _ = spawner.child.wait().await;
            tracing::error!("the spawner has died; a new one is started");
            // One that can't live must not keep the machine busy.
            tokio::time::sleep(RESPAWN_DELAY).await;
            spawner = match Spawner::begin(program, argument) {
                Ok(spawner) => spawner,
                Err(error) => {
                    tracing::error!(%error, "no spawner can be started: no native job can start any more");
                    return;
                }
            };
            orphans(shared, &again);
        }
    }
}

/// Sees to the jobs of a spawner that has died: watches the shims that live, launches again what has none (a job
/// that is launched twice runs once).
fn orphans(shared: &Arc<Shared>, again: &mpsc::WeakUnboundedSender<JobKey>) {
    let jobs: Vec<(JobKey, bool)> = {
        let table = shared.lock();
        let alive = table.iter().filter(|(_, known)| known.ended.is_none());
        alive.map(|(job, known)| (job.clone(), known.shim.is_some())).collect()
    };
    for (job, claimed) in jobs {
        if claimed {
            adopt::shim_gone(shared, &job, "died");
        } else if let Some(again) = again.upgrade() {
            let _ = again.send(job);
        }
    }
}

/// Writes the job's spec. False: there is nothing to launch.
fn prepare(shared: &Shared, key: &JobKey) -> Result<bool, Outcome> {
    let Some(job) = shared.lock().get(key).and_then(|known| known.assignment.clone()) else {
        return Ok(false);
    };
    let refuse = |message: String| start_failed(ErrorCode::InvalidArgument, message, false);
    if job.image != HOST_IMAGE {
        return Err(refuse(format!(
            "the native engine runs only the image '{HOST_IMAGE}'; '{}' needs a node with Docker or Podman",
            job.image
        )));
    }
    if job.command.is_empty() {
        return Err(refuse(format!(
            "the native engine needs a command: the image '{HOST_IMAGE}' has none of its own"
        )));
    }
    let workdir = shared.workdir(key);
    let spec = Spec {
        boot: shared.boot.clone(),
        env: environment::of(&job, &workdir, |name| std::env::var(name).ok()),
        cgroup: shared.tree.as_ref().map(|tree| tree.job(&key.to_string(), job.cpu)),
        job: (*job).clone(),
        workdir,
    };
    shared
        .records
        .write_spec(&spec)
        .map(|()| true)
        .map_err(|error| Outcome::StartFailed {
            code: if error.kind() == io::ErrorKind::StorageFull {
                ErrorCode::StorageFull
            } else {
                ErrorCode::Internal
            },
            message: format!("the job can't be recorded: {error}"),
            retryable: true,
        })
}

fn start_failed(code: ErrorCode, message: String, retryable: bool) -> Outcome {
    Outcome::StartFailed {
        code,
        message,
        retryable,
    }
}

/// Ends a job that has no shim, or none any more.
pub(super) fn finish(shared: &Shared, job: &JobKey, outcome: Outcome) {
    let step = Step::Ended {
        at: Timestamp::now(),
        outcome,
        usage: Usage::default(),
        fenced: false,
    };
    if let Err(error) = shared.records.close(job, &step) {
        tracing::warn!(%job, %error, "its end can't be recorded");
    }
    take(shared, job, [step]);
}

/// Ends a job that has no shim and can't have its secrets, unless it has a shim after all: that of an earlier launch.
pub(super) fn refuse(shared: &Arc<Shared>, job: &JobKey, error: ApiError) {
    let step = Step::Ended {
        at: Timestamp::now(),
        outcome: start_failed(error.code, error.message, false),
        usage: Usage::default(),
        fenced: false,
    };
    match shared.records.claim(job, &step) {
        Ok(Some(_)) => take(shared, job, [step]),
        Ok(None) => adopt::shim_gone(shared, job, "died"),
        Err(error) => {
            tracing::warn!(%job, %error, "its end can't be recorded");
            take(shared, job, [step]);
        }
    }
}

/// Reads the run folder's news.
async fn follow(shared: &Shared, watch: &mut FolderWatch) -> io::Result<()> {
    loop {
        let mut changed: Vec<JobKey> = match watch.changed().await? {
            Changed::Everything => shared.lock().keys().cloned().collect(),
            Changed::Files(files) => files.iter().filter_map(|name| Records::state_of(name)).collect(),
        };
        changed.sort();
        changed.dedup();
        for job in changed {
            news(shared, &job);
        }
    }
}

/// Takes what is new in a job's state.
pub(super) fn news(shared: &Shared, job: &JobKey) {
    match shared.records.steps(job) {
        Ok(steps) => {
            let mut table = shared.lock();
            if let Some(known) = table.get_mut(job) {
                let seen = known.seen.min(steps.len());
                known.seen = steps.len();
                for step in steps.into_iter().skip(seen) {
                    apply(shared, job, known, step);
                }
            }
        }
        Err(error) => tracing::error!(%job, %error, "the job's state can't be read"),
    }
}

fn take(shared: &Shared, job: &JobKey, steps: impl IntoIterator<Item = Step>) {
    if let Some(known) = shared.lock().get_mut(job) {
        for step in steps {
            apply(shared, job, known, step);
        }
    }
}

fn apply(shared: &Shared, job: &JobKey, known: &mut Job, step: Step) {
    if known.ended.is_some() {
        return;
    }
    let what = match step {
        Step::Shim(shim) => {
            known.shim = Some(shim);
            known.secrets = None;
            known.wants_secrets = false;
            if known.kill_at_ns.is_some() {
                known.nudge();
            }
            return;
        }
        Step::Started { at, main } => {
            known.main = Some(main);
            known.started_at = Some(at);
            What::Started { at }
        }
        Step::Ended {
            at,
            outcome,
            usage,
            fenced,
        } => {
            known.fenced = fenced;
            known.secrets = None;
            known.ended = Some((at, outcome.clone(), usage));
            let what = What::Ended { at, outcome, usage };
            if known.execs.any() {
                // Commands that people run in it belong to it: it has ended when they have.
                let (execs, events, job) = (known.execs.clone(), shared.events.clone(), job.clone());
                tokio::spawn(async move {
                    execs.kill().await;
                    let _ = events.send(EngineEvent { job, what });
                });
                return;
            }
            what
        }
    };
    let event = EngineEvent { job: job.clone(), what };
    // Nobody listens any more: the agent ends.
    let _ = shared.events.send(event);
}
