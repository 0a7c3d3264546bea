//! Runs jobs as processes of the node itself: the image `host`.
//!
//! Beside the agent stands one small *spawner* process, which forks a *shim* for each job. The shim starts the
//! job's command in its own process group (and cgroup, where there is one to be had), keeps its output in the
//! spool, and writes down in the run folder that it started and how it ended. Shims depend on nothing of the agent:
//! it may be killed and started again, and finds its jobs in the run folder with their true ends.
//!
//! - `record`: the run folder's files
//! - `spawner`, `shim`: the two helping processes
//! - `cgroup`, `volumes`, `environment`: a job's surroundings
//! - `supervise`, `adopt`: the agent's side
//! - `delivery`, `files`: secrets on their way to the shim, and as files
//! - `exec`: commands that people run inside a job
//! - `lease`: stops jobs of an agent that is cut off or dead

mod adopt;
mod cgroup;
mod delivery;
mod environment;
mod exec;
mod files;
mod lease;
mod lines;
pub(super) mod proc;
mod record;
mod shim;
mod spawner;
mod supervise;
pub(super) mod sys;
mod volumes;

use std::{
    collections::HashMap,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{
    ApiError, Cpu, Size, Span, Timestamp,
    node::{EngineInfo, EngineKind},
    wire::Assignment,
    workload::{JobKey, Outcome, Usage},
};
use rustix::process::Signal;
use tokio::sync::mpsc;

use self::{
    cgroup::{Cgroup, Tree},
    lease::Lease,
    proc::Proc,
    record::{Records, StopOrder},
};
use super::{BoxFuture, Engine, EngineEvent, Exec, Found, JobStats, docker::guard};
use crate::{secret::Secrets, spool::Spool};

/// To be called first thing in `main`, before any thread is made: if this process was started to be an agent's helper (a
/// spawner of native jobs, or the guard of containers), it is that until it isn't needed any more, and the exit code is
/// what `main` should return.
#[must_use]
pub fn helper_main() -> Option<ExitCode> {
    fn config<T: serde::de::DeserializeOwned>(text: Option<std::ffi::OsString>) -> io::Result<T> {
        let text = text.and_then(|text| text.into_string().ok());
        let text = text.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        serde_json::from_str(&text).map_err(io::Error::from)
    }
    let mut arguments = std::env::args_os().skip(1);
    let argument = arguments.next()?;
    let served = if argument == spawner::ARGUMENT {
        config(arguments.next()).and_then(|config| spawner::serve(&config))
    } else if argument == guard::ARGUMENT {
        config(arguments.next()).and_then(|config| guard::serve(&config))
    } else {
        return None;
    };
    Some(match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// What a native engine needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it keeps its jobs' records, working folders and lease. One engine a folder.
    pub data: PathBuf,
    /// The binary that calls [`helper_main`]. `None`: this one.
    pub helper: Option<PathBuf>,
    /// Where cgroups are mounted.
    pub cgroups: PathBuf,
}

impl Config {
    /// The usual configuration with its files in this folder.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            helper: None,
            cgroups: PathBuf::from("/sys/fs/cgroup"),
        }
    }
}

/// Runs jobs as processes of the node. Dropping it leaves the jobs running.
#[derive(Debug)]
pub struct NativeEngine {
    shared: Arc<Shared>,
    launches: mpsc::UnboundedSender<JobKey>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    records: Records,
    work: PathBuf,
    lease: Lease,
    boot: String,
    tree: Option<Tree>,
    limitations: Vec<String>,
    table: Mutex<HashMap<JobKey, Job>>,
    events: mpsc::UnboundedSender<EngineEvent>,
}

/// What the engine knows of a job.
#[derive(Debug, Default)]
struct Job {
    /// `None`: an ended job of an earlier life without a readable spec.
    assignment: Option<Arc<Assignment>>,
    /// Tells this launch from others of the same name: news of an earlier one's shim may come late.
    launch: u64,
    /// How many steps of its state file are known.
    seen: usize,
    shim: Option<Proc>,
    main: Option<Proc>,
    started_at: Option<Timestamp>,
    kill_at_ns: Option<u64>,
    ended: Option<(Timestamp, Outcome, Usage)>,
    fenced: bool,
    /// Until its shim has them.
    secrets: Option<Arc<Secrets>>,
    /// It was accepted in an earlier life, and can't begin without secrets.
    wants_secrets: bool,
    execs: exec::Execs,
}

impl NativeEngine {
    /// Makes the engine with its files and its spawner. Events go to `events`. Needs a tokio runtime.
    ///
    /// # Errors
    /// Its folders can't be made, or the spawner can't be started.
    pub fn open(config: &Config, spool: &Spool, events: mpsc::UnboundedSender<EngineEvent>) -> io::Result<Self> {
        std::fs::create_dir_all(&config.data)?;
        let data = config.data.canonicalize()?;
        let records = Records::open(data.join("run"))?;
        let lease = Lease::at(data.join("lease"));
        let work = data.join("work");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&work)?;
        let (tree, mut limitations) = Tree::find(&config.cgroups, &instance(&data));
        if !rustix::process::geteuid().is_root() {
            limitations.push("volumes only under their own path: the agent isn't root".to_owned());
        }
        let helper = spawner::Config {
            run: records.folder().to_owned(),
            lease: data.join("lease"),
            spool: spool.folder().canonicalize()?,
            limits: spool.limits(),
        };
        let shared = Arc::new(Shared {
            records,
            work,
            lease,
            boot: proc::boot_id(),
            tree,
            limitations,
            table: Mutex::default(),
            events,
        });
        let program = config.helper.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let (launches, queue) = mpsc::unbounded_channel();
        let tasks = supervise::begin(&shared, program, &helper, queue, launches.downgrade())?;
        Ok(Self {
            shared,
            launches,
            tasks,
        })
    }

    /// Until when jobs may run without another call, from now on. When it runs out, each job is stopped with its own
    /// grace by its own shim, also when the agent is dead. `None`: for ever.
    ///
    /// # Errors
    /// The lease can't be written; the former one still counts.
    pub fn set_lease(&self, left: Option<Duration>) -> io::Result<()> {
        let before = self.shared.lease.read();
        let deadline = left.map(|left| {
            let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            proc::boottime_ns().saturating_add(left)
        });
        self.shared.lease.write(deadline)?;
        // Shims look again when the lease that they know runs out: only one that is sooner must be told.
        if deadline.is_some_and(|new| before.is_none_or(|old| new < old)) {
            for job in self.shared.lock().values().filter(|job| job.ended.is_none()) {
                job.nudge();
            }
        }
        Ok(())
    }

    /// Whether a job was stopped because the lease ran out. False while it runs, and for jobs that aren't known.
    #[must_use]
    pub fn fenced(&self, job: &JobKey) -> bool {
        self.shared.lock().get(job).is_some_and(|job| job.fenced)
    }
}

impl NativeEngine {
    /// Removes what the engine made for its jobs on the machine, as far as none is left. For the end of an agent: what
    /// still runs beside it may hold the engine longer than the process lives.
    pub fn let_go(&self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(tree) = &self.shared.tree {
            tree.remove();
        }
    }
}

impl Drop for NativeEngine {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<JobKey, Job>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn workdir(&self, job: &JobKey) -> PathBuf {
        // No dot of the key may look like an extension.
        self.work.join(format!("{job}.d"))
    }
}

impl Job {
    /// Has the shim read its orders again.
    fn nudge(&self) {
        if let Some(shim) = self.shim {
            // Gone: then there is nobody to tell.
            let _ = shim.signal(Signal::USR1);
        }
    }
}

/// Tells this agent's cgroups from another's on the same machine.
fn instance(data: &Path) -> String {
    let hash = data
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

impl Engine for NativeEngine {
    fn info(&self) -> EngineInfo {
        EngineInfo {
            kind: EngineKind::Native,
            version: None,
            limitations: self.shared.limitations.clone(),
        }
    }

    fn start(&self, job: Arc<Assignment>, secrets: Option<Arc<Secrets>>) {
        let key = job.job.clone();
        let mut table = self.shared.lock();
        if table.contains_key(&key) {
            return;
        }
        let known = Job {
            assignment: Some(job),
            secrets,
            ..Job::default()
        };
        table.insert(key.clone(), known);
        // The receiver lives as long as the engine.
        let _ = self.launches.send(key);
    }

    fn owner(&self, cgroup: &str) -> BoxFuture<'_, Option<JobKey>> {
        // Each job has a group that is named by it.
        let mut named = cgroup.split('/').filter_map(|part| part.parse::<JobKey>().ok());
        let known = named.find(|job| self.shared.lock().contains_key(job));
        Box::pin(std::future::ready(known))
    }

    fn secrets(&self, job: &JobKey, answer: Result<Arc<Secrets>, ApiError>) {
        let refused = {
            let mut table = self.shared.lock();
            let Some(known) = table.get_mut(job).filter(|known| known.wants_secrets) else {
                return;
            };
            known.wants_secrets = false;
            match answer {
                Ok(secrets) => {
                    known.secrets = Some(secrets);
                    let _ = self.launches.send(job.clone());
                    return;
                }
                Err(error) => error,
            }
        };
        supervise::refuse(&self.shared, job, refused);
    }

    fn stop(&self, job: &JobKey, grace: Span) {
        let mut table = self.shared.lock();
        let Some(known) = table.get_mut(job).filter(|job| job.ended.is_none()) else {
            return;
        };
        let kill_at_ns = proc::boottime_ns().saturating_add(grace.millis().saturating_mul(1_000_000));
        if known.kill_at_ns.is_some_and(|at| at <= kill_at_ns) {
            return;
        }
        match self.shared.records.write_stop(job, StopOrder { kill_at_ns }) {
            Ok(()) => {
                known.kill_at_ns = Some(kill_at_ns);
                // A shim that isn't known yet is told when it is.
                known.nudge();
                if std::mem::take(&mut known.wants_secrets) {
                    // Its shim sees the order first, and needs none.
                    let _ = self.launches.send(job.clone());
                }
            }
            Err(error) => {
                tracing::error!(%job, %error, "the order to stop can't be written; the shim is told to kill");
                if let Some(main) = known.main {
                    let _ = main.signal(if grace.is_zero() { Signal::KILL } else { Signal::TERM });
                }
            }
        }
    }

    fn remark(&self, job: &JobKey, text: &str) {
        let table = self.shared.lock();
        let Some(known) = table.get(job).filter(|job| job.ended.is_none()) else {
            return;
        };
        match self.shared.records.write_remark(job, text) {
            Ok(()) => known.nudge(),
            Err(error) => tracing::warn!(%job, text, %error, "a remark can't be added to a job's log"),
        }
    }

    fn adopt(&self) -> BoxFuture<'_, (Vec<Found>, Vec<String>)> {
        Box::pin(async move {
            let adopted = adopt::adopt(&self.shared).await;
            for job in adopted.relaunch {
                // The receiver lives as long as the engine.
                let _ = self.launches.send(job);
            }
            (adopted.found, adopted.leftovers)
        })
    }

    fn forget(&self, job: &JobKey) -> BoxFuture<'_, ()> {
        let ended = self.shared.lock().get(job).is_some_and(|job| job.ended.is_some());
        let workdir = self.shared.workdir(job);
        if ended {
            self.shared.records.remove(job);
            self.shared.lock().remove(job);
        }
        Box::pin(async move {
            if ended {
                let _ = tokio::task::spawn_blocking(move || {
                    let _ = std::fs::remove_dir_all(workdir.with_extension("volumes"));
                    std::fs::remove_dir_all(workdir)
                })
                .await;
            }
        })
    }

    fn set_memory(&self, job: &JobKey, limit: Option<Size>) -> BoxFuture<'_, Result<(), ApiError>> {
        let running = self.shared.running(job);
        let cgroup = running.as_ref().ok().and_then(|(_, cpu)| self.shared.cgroup(job, *cpu));
        Box::pin(async move {
            running?;
            cgroup
                .ok_or_else(|| ApiError::conflict(self.shared.limitations.join("; ")))?
                .set_memory(limit)
                .map_err(|error| ApiError::internal("the memory limit can't be changed").cause(error.to_string()))
        })
    }

    fn exec(&self, job: &JobKey, command: Vec<String>) -> BoxFuture<'_, Result<Exec, ApiError>> {
        let running = self.shared.running(job).map(|(main, _)| main);
        let job = job.clone();
        Box::pin(async move {
            let main = running?;
            let spec = self.shared.records.spec(&job).map_err(|error| {
                ApiError::internal(format!("the record of {job} can't be read")).cause(error.to_string())
            })?;
            let table = self.shared.lock();
            match table.get(&job).filter(|known| known.ended.is_none()) {
                Some(known) => known.execs.begin(&spec, main, &command),
                None => Err(not_running(&job)),
            }
        })
    }

    fn stats(&self, job: &JobKey) -> BoxFuture<'_, Option<JobStats>> {
        let running = self.shared.running(job).ok();
        let cgroup = running.and_then(|(_, cpu)| self.shared.cgroup(job, cpu));
        let shim = self.shared.lock().get(job).and_then(|known| known.shim);
        Box::pin(async move {
            running?;
            tokio::task::spawn_blocking(move || stats(shim, cgroup.as_ref()))
                .await
                .ok()
        })
    }
}

/// From the cgroup where there is one, else from the job's processes.
fn stats(shim: Option<Proc>, cgroup: Option<&Cgroup>) -> JobStats {
    let (mut cpu_ticks, mut pages) = (0, 0);
    let mut io_bytes = None;
    let shim = shim.filter(|shim| Proc::of(shim.pid) == Some(*shim));
    for pid in shim.map(|shim| proc::descendants(shim.pid)).unwrap_or_default() {
        if let Some(stat) = proc::Stat::of(pid) {
            cpu_ticks += stat.cpu_ticks;
            pages += stat.resident_pages;
        }
        if let Some(bytes) = proc::io_bytes(pid) {
            *io_bytes.get_or_insert(0) += bytes;
        }
    }
    let resident_bytes = pages * rustix::param::page_size() as u64;
    let cpu_ms = cpu_ticks * 1000 / rustix::param::clock_ticks_per_second().max(1);
    JobStats {
        cpu_ms: Some(cgroup.and_then(Cgroup::cpu_ms).unwrap_or(cpu_ms)),
        memory_bytes: Some(Size(cgroup.and_then(Cgroup::memory_bytes).unwrap_or(resident_bytes))),
        memory_peak_bytes: cgroup.and_then(Cgroup::memory_peak_bytes).map(Size),
        io_bytes: cgroup.and_then(Cgroup::io_bytes).or(io_bytes).map(Size),
    }
}

fn not_running(job: &JobKey) -> ApiError {
    ApiError::conflict(format!("{job} doesn't run on this node"))
}

impl Shared {
    /// A running job's own process and CPU limit.
    fn running(&self, job: &JobKey) -> Result<(Proc, Option<Cpu>), ApiError> {
        let table = self.lock();
        let known = table.get(job).filter(|known| known.ended.is_none());
        let cpu = known.and_then(|known| known.assignment.as_ref()?.cpu);
        let main = known.and_then(|known| known.main).ok_or_else(|| not_running(job))?;
        Ok((main, cpu))
    }

    /// A job's cgroup. `None`: none can be had here.
    fn cgroup(&self, job: &JobKey, cpu: Option<Cpu>) -> Option<Cgroup> {
        self.tree.as_ref().map(|tree| tree.job(&job.to_string(), cpu))
    }
}
