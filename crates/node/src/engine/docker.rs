//! Jobs as containers of Docker or Podman, by their API.
//!
//! - A job is a container named `clawbernetes-<job>`, with labels that say whose it is. It isn't removed at its end
//!   but when the job is forgotten, so an agent that was killed finds it again, with its exit code and its log.
//! - Hooks run in containers of their own beside it (`…-pre`, `…-post`): the same image, environment, folders,
//!   limits and GPUs. Folders in memory aren't shared with them. Their output is the job's. The hook after the
//!   command ends at the job's grace (at least 10 s).
//! - An empty folder on disk is a nameless volume; its size limit isn't enforced (that of one in memory is).
//! - Containers use the node's network: the ports that a workload listens on are the node's, gang members reach each
//!   other by the nodes' addresses, just as with the native engine. Only where the node picks ports has a container a
//!   network of its own, out of which the declared ports are published.
//! - A daemon that is away ends no job: every wait goes on when it is back. A job whose SIGKILL is due meanwhile is
//!   killed by its cgroup, where there is one ([`Options::cgroup`]); its end is reported when the daemon is back.
//! - Secrets as variables stand in the container's configuration, and so in Docker's own files; as files they are in
//!   memory. After a restart of the agent the output of a job that uses any isn't read before they are known again.
//! - With [`DockerEngine::guard`], a process beside the agent stops containers whose lease runs out when the agent is dead.

mod config;
mod daemon;
mod end;
mod exec;
mod files;
pub(super) mod guard;
mod job;
mod lines;
mod log;
mod pull;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use api::{
    ApiError, ErrorCode, NodeName, Size, Span,
    node::{EngineInfo, EngineKind},
    wire::Assignment,
    workload::{JobKey, Usage},
};
use bollard::{
    models::{ContainerSummary, ContainerUpdateBody, SystemInfo, SystemInfoCgroupDriverEnum, SystemVersion},
    query_parameters::StatsOptionsBuilder,
};
use futures_util::{StreamExt, stream};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

pub use config::GpuAccess;

use self::{
    config::{LABEL_JOB, LABEL_NODE, LABEL_ROLE, Role, Surroundings},
    daemon::{BackOff, Daemon, Kind, kind, words},
    end::{Stands, stands},
    files::Files,
    guard::Guard,
    job::{Job, Origin},
    log::{Masking, Output, Reader},
    pull::Pulls,
    usage::Cgroups,
};
use super::{BoxFuture, Engine, EngineEvent, Exec, Found, JobStats, What};
use crate::{secret::Secrets, spool::Sinks};

/// Containers of an earlier life that are looked at side by side.
const ADOPT_AT_ONCE: usize = 8;

/// How long a daemon that doesn't answer holds up adoption.
const ADOPT_PATIENCE: Duration = Duration::from_secs(60);

/// Forgetting goes on in the background after this long.
const FORGET_PATIENCE: Duration = Duration::from_secs(30);

/// How a [`DockerEngine`] finds its daemon and makes containers.
#[derive(Debug, Clone)]
pub struct Options {
    /// The daemon's socket. `None`: `DOCKER_HOST`, Docker's own, Podman's of the user, Podman's of the system; the
    /// first that answers.
    pub socket: Option<PathBuf>,
    /// The node's name: containers of other names are left alone.
    pub node: NodeName,
    /// How containers are given NVIDIA GPUs. `None`: as the daemon seems to be set up.
    pub gpus: Option<GpuAccess>,
    /// Device files of the GPUs that are given by file (AMD), by uuid.
    pub device_files: BTreeMap<String, Vec<String>>,
    /// Network mode of containers.
    pub network: String,
    /// Network mode of containers whose ports are picked by the node.
    pub publish_network: String,
    /// At which address of the node picked ports are published.
    pub publish_at: IpAddr,
    /// Where secrets that jobs get as files lie. Must be in memory (tmpfs); as root the agent sees to that.
    pub secrets: PathBuf,
    /// The cgroup above those of jobs. Used only where the daemon makes cgroups itself and the agent is root.
    pub cgroup: String,
}

impl Options {
    /// The usual: the first daemon that answers, the node's network.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self {
            socket: None,
            secrets: files::usual(&node),
            node,
            gpus: None,
            device_files: BTreeMap::new(),
            network: "host".to_owned(),
            publish_network: "bridge".to_owned(),
            publish_at: Ipv4Addr::UNSPECIFIED.into(),
            cgroup: "/clawbernetes".to_owned(),
        }
    }
}

/// Why there is no Docker engine here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens where Docker or Podman would.
    #[error("neither Docker nor Podman is here (looked at {})", .looked_at.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Absent {
        /// The sockets that don't exist.
        looked_at: Vec<PathBuf>,
    },
    /// There is a socket, but no daemon that can be talked to.
    #[error("the container engine at {} doesn't answer: {why}", .socket.display())]
    Silent {
        /// Its socket.
        socket: PathBuf,
        /// What happened.
        why: String,
    },
}

/// Carries jobs out as containers. See the module.
pub struct DockerEngine {
    shared: Arc<Shared>,
}

/// What the tasks of all jobs share.
struct Shared {
    daemon: Daemon,
    socket: PathBuf,
    guard: OnceLock<Guard>,
    around: Surroundings,
    info: EngineInfo,
    cgroups: Option<Cgroups>,
    sinks: Arc<dyn Sinks>,
    events: mpsc::UnboundedSender<EngineEvent>,
    pulls: Pulls,
    files: Files,
    jobs: Mutex<HashMap<JobKey, Arc<Job>>>,
}

impl Shared {
    fn say(&self, job: &JobKey, what: What) {
        // Nobody listens: the agent ends.
        let _ = self.events.send(EngineEvent { job: job.clone(), what });
    }

    fn job(&self, key: &JobKey) -> Option<Arc<Job>> {
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// Makes the engine know a job. `None`: it does already.
    fn learn(&self, key: &JobKey) -> Option<Arc<Job>> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.contains_key(key) {
            return None;
        }
        let job = Arc::new(Job::new(key.clone()));
        jobs.insert(key.clone(), Arc::clone(&job));
        Some(job)
    }

    fn around(&self, job: &JobKey) -> Surroundings {
        Surroundings {
            cgroup_parent: self.cgroups.as_ref().map(|cgroups| cgroups.of(job)),
            ..self.around.clone()
        }
    }

    fn usage(&self, job: &JobKey) -> Usage {
        self.cgroups
            .as_ref()
            .map(|cgroups| cgroups.usage(job))
            .unwrap_or_default()
    }

    /// Kills a job's processes without the daemon, where that is possible. Returns how many were found.
    fn kill_below(&self, job: &JobKey) -> usize {
        self.cgroups.as_ref().map_or(0, |cgroups| cgroups.kill(job))
    }

    fn oom_kills(&self, job: &JobKey) -> Option<u64> {
        self.cgroups.as_ref()?.oom_kills(job)
    }

    /// Removes all that is kept of a job, however long the daemon takes to come back.
    async fn erase(&self, key: &JobKey) {
        for role in [Role::PreStart, Role::PostStop, Role::Main] {
            let name = role.container(key);
            let mut back_off = BackOff::new();
            while let Err(error) = self.daemon.remove(&name).await {
                tracing::debug!(container = name, %error, "the container can't be removed");
                back_off.wait().await;
            }
        }
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove(key);
        }
        self.files.remove(key);
        if let Some(guard) = self.guard.get() {
            guard.forget(key);
        }
    }

    /// The job of one of this node's containers.
    async fn owner(&self, container: &str) -> Option<JobKey> {
        let inspect = self.daemon.inspect(container).await.ok()?;
        let labels = inspect.config?.labels?;
        let ours = labels.get(LABEL_NODE) == Some(&self.around.node);
        labels.get(LABEL_JOB).filter(|_| ours)?.parse().ok()
    }

    fn fenced(&self, job: &JobKey) -> bool {
        self.guard.get().is_some_and(|guard| guard.stopped(job))
    }

    /// Takes over a job's container that an earlier life of the agent made.
    async fn take_over(self: Arc<Self>, container: ContainerSummary) -> Result<Option<Found>, String> {
        let id = container.id.unwrap_or_default();
        let name = container.names.and_then(|names| names.into_iter().next());
        let name = name.map_or_else(|| id.clone(), |name| name.trim_start_matches('/').to_owned());
        let labels = container.labels.unwrap_or_default();
        let key: JobKey = labels
            .get(LABEL_JOB)
            .ok_or_else(|| format!("container {name} has this node's mark but no label {LABEL_JOB}"))?
            .parse()
            .map_err(|why| format!("container {name} can't be read: {why}"))?;
        let role = labels.get(LABEL_ROLE).and_then(|role| Role::read(role));
        match role {
            None => return Err(format!("container {name} has no role that this agent knows")),
            // Seen to by the job's own task.
            Some(Role::PreStart | Role::PostStop) => return Ok(None),
            Some(Role::Main) => {}
        }
        let inspect = match timeout(ADOPT_PATIENCE, self.daemon.inspect_surely(&id)).await {
            Ok(Some(inspect)) => inspect,
            Ok(None) => return Ok(None),
            Err(_) => return Err(format!("the container engine doesn't say how container {name} is")),
        };
        let started_at = end::started_at(&inspect);
        let stands = stands(&inspect);
        let Some(job) = self.learn(&key) else { return Ok(None) };
        let wants_secrets = job::uses_secrets(&inspect);
        if wants_secrets {
            job.want_secrets();
        } else if stands == Stands::Ended && !job::has_post_stop(&inspect) {
            let mut output = Output::new(key.clone(), Arc::clone(&self.sinks));
            let nothing = watch::Sender::new(Some(Masking::Nothing));
            Reader::new(&self.daemon, &id, &mut output, nothing.subscribe())
                .finish()
                .await;
            let ending = job.ending(&self, &id, &inspect).await;
            job.set_ended();
            return Ok(Some(Found {
                job: key,
                started_at,
                ended: Some((ending.at, ending.outcome, ending.usage)),
                wants_secrets: false,
            }));
        }
        if self.fenced(&key) {
            // What the guard has begun isn't taken back.
            job.stop(job::grace_of(&inspect));
        }
        tokio::spawn(job.carry_out(Arc::clone(&self), Origin::Found(Box::new(inspect))));
        Ok(Some(Found {
            job: key,
            started_at: started_at.filter(|_| stands != Stands::Created),
            ended: None,
            wants_secrets,
        }))
    }

    async fn adopt(self: Arc<Self>) -> (Vec<Found>, Vec<String>) {
        let mut back_off = BackOff::new();
        let listed = timeout(ADOPT_PATIENCE, async {
            loop {
                match self.daemon.list(LABEL_NODE, &self.around.node).await {
                    Ok(containers) => return containers,
                    Err(error) => tracing::warn!(%error, "the container engine doesn't list its containers"),
                }
                back_off.wait().await;
            }
        });
        let Ok(containers) = listed.await else {
            let why = "the container engine doesn't list its containers: what ran before isn't known";
            return (Vec::new(), vec![why.to_owned()]);
        };
        let (mut found, mut errors) = (Vec::new(), left_over(&containers));
        let results: Vec<_> = stream::iter(containers)
            .map(|container| Arc::clone(&self).take_over(container))
            .buffer_unordered(ADOPT_AT_ONCE)
            .collect()
            .await;
        for result in results {
            match result {
                Ok(job) => found.extend(job),
                Err(error) => errors.push(error),
            }
        }
        found.sort_by(|a, b| a.job.cmp(&b.job));
        let alive: BTreeSet<JobKey> = found
            .iter()
            .filter(|job| job.ended.is_none())
            .map(|job| job.job.clone())
            .collect();
        self.files.keep(&alive);
        (found, errors)
    }

    async fn set_memory(&self, key: &JobKey, limit: Option<Size>) -> Result<(), ApiError> {
        self.running(key)?;
        let bytes = |size: Size| i64::try_from(size.bytes()).unwrap_or(i64::MAX);
        let (memory, memory_swap) = match (limit, self.around.memory_total) {
            (Some(limit), _) => (bytes(limit), bytes(limit)),
            // Docker takes no limit away; the machine's memory is one that isn't felt.
            (None, Some(total)) => (bytes(total), bytes(total)),
            (None, None) => {
                return Err(ApiError::conflict(
                    "the container engine doesn't say how much memory the machine has",
                ));
            }
        };
        let update = ContainerUpdateBody {
            memory: Some(memory),
            memory_swap: Some(memory_swap),
            ..Default::default()
        };
        let name = Role::Main.container(key);
        let call = self.daemon.api().update_container(&name, update);
        self.daemon.call(call).await.map_err(|error| {
            let code = match kind(&error) {
                Kind::Refused => ErrorCode::InvalidArgument,
                Kind::Away => ErrorCode::TimedOut,
                // Missing: Podman before 4.6 can't do it through this API.
                Kind::Missing | Kind::Conflict | Kind::Failed => ErrorCode::Conflict,
            };
            ApiError::new(code, "the memory limit can't be changed").cause(words(&error))
        })
    }

    /// A job that is known and hasn't ended.
    fn running(&self, key: &JobKey) -> Result<Arc<Job>, ApiError> {
        let job = self
            .job(key)
            .ok_or_else(|| ApiError::not_found(format!("job {key} isn't on this node")))?;
        if job.ended() {
            return Err(ApiError::conflict(format!("job {key} has ended")));
        }
        Ok(job)
    }

    async fn stats(&self, key: &JobKey) -> Option<JobStats> {
        let job = self.running(key).ok()?;
        let name = Role::Main.container(key);
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut answers = Box::pin(self.daemon.api().stats(&name, Some(options)));
        let stats = timeout(Duration::from_secs(10), answers.next()).await.ok()??.ok()?;
        let memory = stats.memory_stats.unwrap_or_default();
        // A container that doesn't run has no numbers.
        let usage = memory.usage?;
        let details = memory.stats.unwrap_or_default();
        // Pages of files that the kernel takes back as soon as they are wanted.
        let reclaimable = ["total_inactive_file", "inactive_file"]
            .iter()
            .find_map(|name| details.get(*name));
        let used = Size(usage.saturating_sub(reclaimable.copied().unwrap_or(0)));
        let nanoseconds = stats
            .cpu_stats
            .and_then(|cpu| cpu.cpu_usage)
            .and_then(|cpu| cpu.total_usage);
        job.measured(self.usage(key));
        let seen = job.measured(Usage {
            cpu_ms: nanoseconds.map(|nanoseconds| nanoseconds / 1_000_000),
            memory_peak_bytes: Some(Size(memory.max_usage.unwrap_or(usage))),
        });
        Some(JobStats {
            cpu_ms: seen.cpu_ms,
            memory_bytes: Some(used),
            memory_peak_bytes: seen.memory_peak_bytes,
            io_bytes: stats.blkio_stats.and_then(|io| io_bytes(&io)),
        })
    }
}

/// Read from and written to disks. `None`: the daemon has no such count (cgroup version 1 without `blkio`).
fn io_bytes(io: &bollard::models::ContainerBlkioStats) -> Option<Size> {
    let entries = io.io_service_bytes_recursive.as_ref()?;
    let moves = |op: &str| op.eq_ignore_ascii_case("read") || op.eq_ignore_ascii_case("write");
    let moved = entries.iter().filter(|entry| entry.op.as_deref().is_some_and(moves));
    (!entries.is_empty()).then(|| Size(moved.filter_map(|entry| entry.value).sum()))
}

/// Hooks' containers whose job's own container is gone.
fn left_over(containers: &[ContainerSummary]) -> Vec<String> {
    let labels = |container: &ContainerSummary| {
        let labels = container.labels.as_ref()?;
        Some((labels.get(LABEL_JOB)?.clone(), Role::read(labels.get(LABEL_ROLE)?)?))
    };
    let all: Vec<(String, Role)> = containers.iter().filter_map(labels).collect();
    let alone = all
        .iter()
        .filter(|(job, role)| *role != Role::Main && !all.iter().any(|(key, role)| key == job && *role == Role::Main));
    alone
        .map(|(job, role)| {
            format!(
                "the {} container of job {job} is there, but not the job's own",
                role.name()
            )
        })
        .collect()
}

impl DockerEngine {
    /// Connects to the daemon. Nothing is made or changed; [`Engine::adopt`] comes next.
    ///
    /// # Errors
    /// There is no daemon, or none of those there answers.
    pub async fn connect(
        options: Options,
        sinks: Arc<dyn Sinks>,
        events: mpsc::UnboundedSender<EngineEvent>,
    ) -> Result<Self, ConnectError> {
        let sockets = options
            .socket
            .clone()
            .map_or_else(daemon::sockets, |socket| vec![socket]);
        let mut silent = None;
        for socket in &sockets {
            if !socket.exists() {
                continue;
            }
            match ask(socket).await {
                Ok((daemon, version, info)) => {
                    let lock_memory = daemon::lifts_limits(socket);
                    let daemon = (daemon, socket.clone(), lock_memory);
                    let shared = Arc::new(shared(options, daemon, &version, &info, sinks, events));
                    return Ok(Self { shared });
                }
                Err(error) => {
                    silent.get_or_insert(ConnectError::Silent {
                        socket: socket.clone(),
                        why: words(&error),
                    });
                }
            }
        }
        Err(silent.unwrap_or(ConnectError::Absent { looked_at: sockets }))
    }

    /// Takes the containers' lease over from an earlier agent, with what is left of it, and starts the process that keeps
    /// the fence when this agent is dead. To be called before [`Engine::adopt`]: what is adopted afterwards is safe from
    /// earlier agents' guards. A second call does nothing.
    ///
    /// `folder` is the guard's own, one for all lives of an agent. `helper` is a binary that calls
    /// [`helper_main`](super::native::helper_main); `None`: this one. Waits for the disk, and up to some seconds for a
    /// guard that is just stopping something; needs a tokio runtime.
    ///
    /// # Errors
    /// The folder can't be used.
    pub fn guard(&self, folder: &Path, helper: Option<PathBuf>) -> io::Result<()> {
        if self.shared.guard.get().is_none() {
            let helper = helper.unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
            let guard = Guard::begin(folder, helper, &self.shared.socket, &self.shared.around.node)?;
            let _ = self.shared.guard.set(guard);
        }
        Ok(())
    }

    /// Until when containers may run without another call, from now on. When it runs out and the agent is dead, the guard
    /// stops each with its own grace. `None`: for ever. Without a guard it does nothing.
    ///
    /// # Errors
    /// The lease can't be written; the former one still counts.
    pub fn set_lease(&self, left: Option<Duration>) -> io::Result<()> {
        match self.shared.guard.get() {
            Some(guard) => guard.set_lease(left),
            None => Ok(()),
        }
    }

    /// Whether a guard stopped a job because the lease had run out. False for jobs that aren't known.
    #[must_use]
    pub fn fenced(&self, job: &JobKey) -> bool {
        self.shared.fenced(job)
    }
}

async fn ask(socket: &std::path::Path) -> Result<(Daemon, SystemVersion, SystemInfo), bollard::errors::Error> {
    let daemon = Daemon::connect(socket).await?;
    let version = daemon.call(daemon.api().version()).await?;
    let info = daemon.call(daemon.api().info()).await?;
    Ok((daemon, version, info))
}

fn shared(
    options: Options,
    (daemon, socket, lock_memory): (Daemon, PathBuf, bool),
    version: &SystemVersion,
    info: &SystemInfo,
    sinks: Arc<dyn Sinks>,
    events: mpsc::UnboundedSender<EngineEvent>,
) -> Shared {
    let podman = is_podman(version);
    let gpus = options.gpus.unwrap_or_else(|| gpu_access(info, podman));
    let cgroupfs = info.cgroup_driver == Some(SystemInfoCgroupDriverEnum::CGROUPFS);
    let root = rustix::process::geteuid().is_root();
    let remapped = info
        .security_options
        .iter()
        .flatten()
        .any(|option| option == "name=userns");
    Shared {
        daemon,
        socket,
        guard: OnceLock::new(),
        around: Surroundings {
            node: options.node.to_string(),
            gpus,
            device_files: options.device_files,
            network: options.network,
            publish_network: options.publish_network,
            publish_at: options.publish_at,
            // `local` exists only in Docker, and older ones lose lines of it when files are changed.
            log_driver: if podman { "k8s-file" } else { "json-file" },
            lock_memory,
            memory_total: info.mem_total.and_then(|total| u64::try_from(total).ok()).map(Size),
            cgroup_parent: None,
        },
        info: engine_info(version, info, podman),
        cgroups: (cgroupfs && root).then(|| Cgroups::new(&options.cgroup)),
        sinks,
        events,
        pulls: Pulls::default(),
        files: Files::new(options.secrets, remapped),
        jobs: Mutex::default(),
    }
}

fn is_podman(version: &SystemVersion) -> bool {
    let components = version.components.iter().flatten();
    components
        .into_iter()
        .any(|component| component.name.contains("Podman"))
}

/// Whether the daemon has device descriptions of NVIDIA's GPUs.
fn has_cdi(info: &SystemInfo) -> bool {
    let discovered = info.discovered_devices.iter().flatten();
    discovered
        .into_iter()
        .any(|device| device.id.as_deref().is_some_and(|id| id.starts_with("nvidia.com/gpu")))
        || info.cdi_spec_dirs.iter().flatten().any(|dir| {
            let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
            files
                .into_iter()
                .any(|file| file.file_name().to_string_lossy().contains("nvidia"))
        })
}

fn gpu_access(info: &SystemInfo, podman: bool) -> GpuAccess {
    match (podman, has_cdi(info)) {
        (true, _) => GpuAccess::CdiDevice,
        (false, true) => GpuAccess::Cdi,
        (false, false) => GpuAccess::Nvidia,
    }
}

fn engine_info(version: &SystemVersion, info: &SystemInfo, podman: bool) -> EngineInfo {
    let nvidia = info
        .runtimes
        .as_ref()
        .is_some_and(|runtimes| runtimes.contains_key("nvidia"));
    let rules = [
        (
            info.memory_limit == Some(false),
            "no memory limits: the kernel's memory cgroup isn't available",
        ),
        (
            info.swap_limit == Some(false),
            "memory limits don't hold for swap: the kernel doesn't count swap",
        ),
        (
            info.cpu_cfs_quota == Some(false),
            "no CPU limits: the kernel's CPU quota isn't available",
        ),
        (
            !nvidia && !podman && !has_cdi(info),
            "no NVIDIA GPUs in containers: neither the nvidia runtime nor a CDI description of them is set up",
        ),
    ];
    EngineInfo {
        kind: EngineKind::Docker,
        version: version.version.as_ref().map(|number| match podman {
            true => format!("Podman {number}"),
            false => number.clone(),
        }),
        limitations: rules
            .into_iter()
            .filter(|(holds, _)| *holds)
            .map(|(_, words)| words.to_owned())
            .collect(),
    }
}

impl Engine for DockerEngine {
    fn info(&self) -> EngineInfo {
        self.shared.info.clone()
    }

    fn secrets(&self, job: &JobKey, answer: Result<Arc<Secrets>, ApiError>) {
        if let Some(job) = self.shared.job(job).filter(|job| job.wants_secrets()) {
            job.tell(answer);
        }
    }

    fn start(&self, assignment: Arc<Assignment>, secrets: Option<Arc<Secrets>>) {
        if let Some(job) = self.shared.learn(&assignment.job) {
            if let Some(stop) = assignment.stop {
                job.stop(stop.grace);
            }
            if let Some(secrets) = secrets {
                job.tell(Ok(secrets));
            }
            tokio::spawn(job.carry_out(Arc::clone(&self.shared), Origin::New(assignment)));
        }
    }

    fn stop(&self, job: &JobKey, grace: Span) {
        if let Some(job) = self.shared.job(job) {
            job.stop(grace);
        }
    }

    fn remark(&self, job: &JobKey, text: &str) {
        if let Ok(job) = self.shared.running(job) {
            job.remarks().push(text.to_owned());
        }
    }

    fn adopt(&self) -> BoxFuture<'_, (Vec<Found>, Vec<String>)> {
        Box::pin(Arc::clone(&self.shared).adopt())
    }

    fn forget(&self, key: &JobKey) -> BoxFuture<'_, ()> {
        let key = key.clone();
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let erased = tokio::spawn(async move {
                if let Some(job) = shared.job(&key) {
                    if !job.ended() {
                        job.stop(Span(0));
                        job.until_ended().await;
                    }
                    shared.erase(&key).await;
                    let mut jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
                    jobs.remove(&key);
                } else {
                    shared.erase(&key).await;
                }
            });
            if timeout(FORGET_PATIENCE, erased).await.is_err() {
                tracing::warn!("a job's container isn't removed yet; this goes on in the background");
            }
        })
    }

    fn set_memory(&self, job: &JobKey, limit: Option<Size>) -> BoxFuture<'_, Result<(), ApiError>> {
        let job = job.clone();
        Box::pin(async move { self.shared.set_memory(&job, limit).await })
    }

    fn exec(&self, job: &JobKey, command: Vec<String>) -> BoxFuture<'_, Result<Exec, ApiError>> {
        let job = job.clone();
        Box::pin(async move {
            if command.is_empty() {
                return Err(ApiError::invalid("command", "a command must be given"));
            }
            self.shared.running(&job)?;
            exec::start(&self.shared.daemon, &Role::Main.container(&job), command).await
        })
    }

    fn owner(&self, cgroup: &str) -> BoxFuture<'_, Option<JobKey>> {
        let mut named = cgroup.split('/').filter_map(|part| part.parse::<JobKey>().ok());
        let known = named.find(|job| self.shared.job(job).is_some());
        let container = container_of(cgroup).map(str::to_owned);
        Box::pin(async move {
            match (known, container) {
                (Some(known), _) => Some(known),
                (None, container) => self.shared.owner(&container?).await,
            }
        })
    }

    fn stats(&self, job: &JobKey) -> BoxFuture<'_, Option<JobStats>> {
        let job = job.clone();
        Box::pin(async move { self.shared.stats(&job).await })
    }
}

/// The container whose control group it is. Docker and Podman name the group by the container's id, on its own or in a
/// unit of systemd: `/docker/ID`, `/system.slice/docker-ID.scope`, `…/libpod-ID.scope/container`.
fn container_of(cgroup: &str) -> Option<&str> {
    const ID: usize = 64;
    cgroup
        .split(['/', '-', '.'])
        .find(|part| part.len() == ID && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

#[cfg(test)]
mod tests {
    use bollard::models::{DeviceInfo, Runtime, SystemVersionComponents};

    use super::*;

    #[test]
    fn limitations_are_named() {
        let version = SystemVersion {
            version: Some("20.10.24".to_owned()),
            ..Default::default()
        };
        let bare = SystemInfo {
            memory_limit: Some(true),
            swap_limit: Some(false),
            cpu_cfs_quota: Some(true),
            ..Default::default()
        };
        let info = engine_info(&version, &bare, false);
        assert_eq!(
            (info.kind, info.version.as_deref()),
            (EngineKind::Docker, Some("20.10.24"))
        );
        assert_eq!(info.limitations.len(), 2, "{:?}", info.limitations);
        assert!(info.limitations[0].contains("swap") && info.limitations[1].contains("NVIDIA"));

        let nvidia = SystemInfo {
            runtimes: Some(HashMap::from([("nvidia".to_owned(), Runtime::default())])),
            ..Default::default()
        };
        assert_eq!(engine_info(&version, &nvidia, false).limitations, [""; 0]);
        assert_eq!(gpu_access(&nvidia, false), GpuAccess::Nvidia);
        let cdi = SystemInfo {
            discovered_devices: Some(vec![DeviceInfo {
                id: Some("nvidia.com/gpu=0".to_owned()),
                ..Default::default()
            }]),
            ..Default::default()
        };
        assert_eq!(gpu_access(&cdi, false), GpuAccess::Cdi);
        assert_eq!(gpu_access(&nvidia, true), GpuAccess::CdiDevice);
    }

    #[test]
    fn control_groups_name_their_container() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/docker/{id}"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container"),
            format!("/machine.slice/libpod-{id}.scope"),
            format!("/clawbernetes/wl-a.1.0/{id}"),
        ] {
            assert_eq!(container_of(&path), Some(id.as_str()), "{path}");
        }
        for path in [
            "/",
            "/system.slice/sshd.service",
            "/clawbernetes/wl-a.1.0",
            "/docker/0123",
        ] {
            assert_eq!(container_of(path), None, "{path}");
        }
    }

    #[test]
    fn hooks_without_their_job_are_named() {
        let container = |job: &str, role: Role| ContainerSummary {
            labels: Some(HashMap::from([
                (LABEL_JOB.to_owned(), job.to_owned()),
                (LABEL_ROLE.to_owned(), role.name().to_owned()),
            ])),
            ..Default::default()
        };
        let all = [
            container("wl-a.1.0", Role::PreStart),
            container("wl-a.1.0", Role::Main),
            container("wl-b.1.0", Role::PostStop),
        ];
        let words = left_over(&all);
        assert_eq!(words.len(), 1);
        assert!(words[0].contains("wl-b.1.0"), "{words:?}");
    }

    /// Time runs ahead whenever nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_never_answers_is_given_up() {
        struct NoSinks;
        impl Sinks for NoSinks {
            fn open(&self, _: &JobKey) -> std::io::Result<Box<dyn crate::spool::Sink>> {
                Err(std::io::ErrorKind::Unsupported.into())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let connect = |socket: &std::path::Path| {
            let options = Options {
                socket: Some(socket.to_owned()),
                ..Options::new(NodeName::new("n"))
            };
            DockerEngine::connect(options, Arc::new(NoSinks), mpsc::unbounded_channel().0)
        };
        let absent = connect(&socket).await.err().unwrap();
        assert!(matches!(&absent, ConnectError::Absent { looked_at } if looked_at == std::slice::from_ref(&socket)));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let silent = connect(&socket).await.err().unwrap();
        assert!(
            silent.to_string().ends_with("doesn't answer: no answer in time"),
            "{silent}"
        );
    }

    #[test]
    fn podman_is_told_from_docker() {
        let podman = SystemVersion {
            components: Some(vec![SystemVersionComponents {
                name: "Podman Engine".to_owned(),
                version: "4.3.1".to_owned(),
                ..Default::default()
            }]),
            ..Default::default()
        };
        assert!(is_podman(&podman));
        assert!(!is_podman(&SystemVersion::default()));
    }
}
