//! The guard: a small process beside the agent that keeps the fence for containers when the agent is dead.
//!
//! A container has no shim that could stop it, so the agent starts this process, which waits at the other end of a pipe.
//! When the pipe closes, the agent is gone: then the guard watches the lease that the agent left, and when that has run
//! out it stops the containers of this agent, each with its own grace. As long as its agent lives it does nothing.
//!
//! The folder of an agent's guard:
//!
//! | file | what it holds |
//! | --- | --- |
//! | `lease` | until when containers may run, the boot that this counts from, and the agent that said so |
//! | `turn` | locked by an agent while it takes the lease over, and by a guard from its last look at the lease until its signal is sent: so no guard's signal follows on another agent's lease |
//! | `guard` | locked by the guard, so that there is one |
//! | `stopped/<job>` | the guard has begun to stop this job; removed when the job is forgotten |

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use api::{
    Span,
    workload::{DEFAULT_GRACE, JobKey},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
};
use serde::{Deserialize, Serialize};
use tokio::{
    process::Command,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    config::{LABEL_GRACE, LABEL_JOB, LABEL_NODE, LABEL_ROLE, Role},
    daemon::Daemon,
};
use crate::engine::native::{proc, sys};

/// The hidden argument that makes the binary a guard.
pub(in crate::engine) const ARGUMENT: &str = "container-guard";

/// Between the death of a guard and the next one.
const RESPAWN_DELAY: Duration = Duration::from_secs(1);

/// How often a guard looks whether a new agent has taken over, at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often it looks at containers that it stops.
const STOP_EVERY: Duration = Duration::from_millis(200);

/// How long a signal may hold up an agent that takes over.
const SIGNAL_LIMIT: Duration = Duration::from_secs(5);

/// How often a second guard looks whether the first has gone.
const LOCK_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// What a guard has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::engine) struct Config {
    folder: PathBuf,
    socket: PathBuf,
    node: String,
    holder: String,
}

/// The files that agent and guard share.
#[derive(Debug, Clone)]
struct Files(PathBuf);

/// What the lease's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    /// When it runs out, in nanoseconds since the boot. `None`: there is none, or it is of an earlier boot.
    deadline_ns: Option<u64>,
    /// The agent that wrote it.
    holder: String,
}

impl Files {
    fn lease(&self) -> Option<Lease> {
        let text = fs::read_to_string(self.0.join("lease")).ok()?;
        let mut words = text.split_whitespace();
        let (deadline, boot, holder) = (words.next()?, words.next()?, words.next()?);
        let deadline_ns = deadline.parse().ok().filter(|_| boot == proc::boot_id());
        Some(Lease {
            deadline_ns,
            holder: holder.to_owned(),
        })
    }

    fn set_lease(&self, lease: &Lease) -> io::Result<()> {
        let Lease { deadline_ns, holder } = lease;
        let deadline = deadline_ns.map_or_else(|| "-".to_owned(), |deadline| deadline.to_string());
        let boot = proc::boot_id();
        let boot = if boot.is_empty() { "-" } else { &boot };
        let next = self.0.join("lease.next");
        fs::write(&next, format!("{deadline} {boot} {holder}\n"))?;
        fs::rename(next, self.0.join("lease"))
    }

    fn lock(&self, name: &str, how: FlockOperation) -> io::Result<File> {
        let path = self.0.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        flock(&file, how)?;
        Ok(file)
    }

    /// The lease of this agent; `None`: another has taken over, or the folder is gone.
    fn lease_of(&self, holder: &str) -> Option<Lease> {
        self.lease().filter(|lease| lease.holder == holder)
    }

    fn mark(&self, job: &JobKey) -> PathBuf {
        self.0.join("stopped").join(job.to_string())
    }
}

/// The agent's side.
#[derive(Debug)]
pub(super) struct Guard {
    files: Files,
    holder: String,
    task: JoinHandle<()>,
}

impl Guard {
    /// Takes the lease over from whoever had it, with its time, and starts a guard. From here on no signal of an earlier
    /// guard is sent. Waits up to some seconds for one that is being sent. Needs a tokio runtime.
    ///
    /// # Errors
    /// The folder can't be used.
    pub(super) fn begin(folder: &Path, program: PathBuf, socket: &Path, node: &str) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder.join("stopped"))?;
        let folder = folder.canonicalize()?;
        let files = Files(folder.clone());
        let holder = format!("{}-{}", std::process::id(), proc::boottime_ns());
        {
            let _turn = files.lock("turn", FlockOperation::LockExclusive)?;
            let deadline_ns = files.lease().and_then(|lease| lease.deadline_ns);
            files.set_lease(&Lease {
                deadline_ns,
                holder: holder.clone(),
            })?;
        }
        let argument = serde_json::to_string(&Config {
            folder,
            socket: std::path::absolute(socket)?,
            node: node.to_owned(),
            holder: holder.clone(),
        })?;
        let task = tokio::spawn(async move {
            loop {
                match keep(&program, &argument).await {
                    Ok(()) => tracing::error!("the guard of containers has ended; a new one is started"),
                    Err(error) => tracing::error!(%error, "the guard of containers can't be started"),
                }
                sleep(RESPAWN_DELAY).await;
            }
        });
        Ok(Self { files, holder, task })
    }

    /// Until when containers may run without another call, from now on. `None`: for ever.
    pub(super) fn set_lease(&self, left: Option<Duration>) -> io::Result<()> {
        let deadline_ns = left.map(|left| {
            let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            proc::boottime_ns().saturating_add(left)
        });
        self.files.set_lease(&Lease {
            deadline_ns,
            holder: self.holder.clone(),
        })
    }

    /// Whether a guard has begun to stop a job.
    pub(super) fn stopped(&self, job: &JobKey) -> bool {
        self.files.mark(job).exists()
    }

    /// Forgets that a guard stopped a job.
    pub(super) fn forget(&self, job: &JobKey) {
        // Mostly there is nothing.
        let _ = fs::remove_file(self.files.mark(job));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A guard from its start to its end, which comes only when somebody ends it: while this waits, the pipe is open.
async fn keep(program: &Path, argument: &str) -> io::Result<()> {
    let mut child = Command::new(program)
        .arg(ARGUMENT)
        .arg(argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()?;
    let alive = child.stdin.take();
    child.wait().await?;
    drop(alive);
    Ok(())
}

/// Is a guard until it isn't needed any more.
pub(in crate::engine) fn serve(config: &Config) -> io::Result<()> {
    sys::close_inherited();
    // Out of the reach of the terminal's signals to the agent.
    let _ = rustix::process::setsid();
    let files = Files(config.folder.clone());
    let _only = loop {
        match files.lock("guard", FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => break lock,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => {}
        }
        if agent_gone(Some(&LOCK_EVERY))? {
            if files.lease_of(&config.holder).is_none() {
                return Ok(());
            }
            std::thread::sleep(STOP_EVERY);
        }
    };
    agent_gone(None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(config, &files))
}

/// Waits until the agent has closed its end of the pipe, for which it has to die.
fn agent_gone(patience: Option<&Timespec>) -> io::Result<bool> {
    let agent = io::stdin();
    loop {
        let mut fds = [PollFd::new(&agent, PollFlags::IN)];
        match poll(&mut fds, patience) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
        }
    }
}

/// A container of the agent that runs.
struct Running {
    id: String,
    job: Option<JobKey>,
    grace: Span,
}

/// Stops what is left of a dead agent when its lease has run out, unless another agent comes first.
async fn watch(config: &Config, files: &Files) -> io::Result<()> {
    // When what was sent SIGTERM is to be killed, in nanoseconds since the boot.
    let mut kill_at: HashMap<String, u64> = HashMap::new();
    let mut daemon = None;
    loop {
        let running = running(&mut daemon, config).await;
        if running.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        loop {
            let Some(lease) = files.lease_of(&config.holder) else {
                return Ok(());
            };
            // Nobody ever said how long: as the agent would do.
            let Some(deadline_ns) = lease.deadline_ns else {
                return Ok(());
            };
            let left = Duration::from_nanos(deadline_ns.saturating_sub(proc::boottime_ns()));
            if left.is_zero() {
                break;
            }
            sleep(left.min(LOOK_EVERY)).await;
        }
        if let Some(daemon) = &daemon {
            for container in running.unwrap_or_default() {
                let due = kill_at.get(&container.id).copied();
                let signal = match due {
                    None => "SIGTERM",
                    Some(at) if at <= proc::boottime_ns() => "SIGKILL",
                    Some(_) => continue,
                };
                if !send(config, files, daemon, &container, signal).await? {
                    return Ok(());
                }
                let grace_ns = container.grace.millis().saturating_mul(1_000_000);
                kill_at
                    .entry(container.id)
                    .or_insert_with(|| proc::boottime_ns().saturating_add(grace_ns));
            }
        }
        sleep(STOP_EVERY).await;
    }
}

/// Sends a signal, unless an agent has taken over. False: one has.
async fn send(config: &Config, files: &Files, daemon: &Daemon, container: &Running, signal: &str) -> io::Result<bool> {
    // A new agent waits here, and what it waits for is short.
    let _turn = files.lock("turn", FlockOperation::LockExclusive)?;
    let lease = files.lease_of(&config.holder).and_then(|lease| lease.deadline_ns);
    if lease.is_none_or(|deadline| deadline > proc::boottime_ns()) {
        return Ok(false);
    }
    if let Some(job) = &container.job {
        // Before the signal: whoever finds the container stopped finds out why. On a full disk the end stays unexplained.
        if let Ok(mut mark) = File::create(files.mark(job)) {
            let _ = mark.write_all(b"\n");
        }
    }
    // Where the daemon doesn't answer it is asked again: SIGTERM twice does no harm.
    let _ = timeout(SIGNAL_LIMIT, daemon.kill(&container.id, signal)).await;
    Ok(true)
}

/// The agent's containers that run. `None`: the daemon doesn't say.
async fn running(daemon: &mut Option<Daemon>, config: &Config) -> Option<Vec<Running>> {
    if daemon.is_none() {
        *daemon = Daemon::connect(&config.socket).await.ok();
    }
    let Ok(containers) = daemon.as_ref()?.list(LABEL_NODE, &config.node).await else {
        *daemon = None;
        return None;
    };
    let states = ["running", "paused", "restarting"];
    let running = containers.into_iter().filter(|container| {
        container
            .state
            .as_ref()
            .is_some_and(|s| states.contains(&s.to_string().as_str()))
    });
    let running = running.filter_map(|container| {
        let labels = container.labels.unwrap_or_default();
        let label = |name: &str| labels.get(name);
        let main = label(LABEL_ROLE).and_then(|role| Role::read(role)) == Some(Role::Main);
        let grace = label(LABEL_GRACE).filter(|_| main).and_then(|text| text.parse().ok());
        Some(Running {
            id: container.id?,
            job: label(LABEL_JOB).and_then(|job| job.parse().ok()),
            grace: grace.map_or(DEFAULT_GRACE, Span),
        })
    });
    Some(running.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_its_holders_and_of_this_boot() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files(folder.path().to_owned());
        assert_eq!(files.lease(), None);
        let lease = |deadline_ns, holder: &str| Lease {
            deadline_ns,
            holder: holder.to_owned(),
        };
        for written in [lease(Some(42), "a"), lease(None, "a")] {
            files.set_lease(&written).unwrap();
            assert_eq!(files.lease_of("a"), Some(written));
            assert_eq!(files.lease_of("b"), None);
        }
        fs::write(folder.path().join("lease"), "42 another-boot a\n").unwrap();
        assert_eq!(files.lease_of("a"), Some(lease(None, "a")));
    }
}
