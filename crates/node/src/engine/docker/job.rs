//! One job from its order to its end: a task that sees to image, container, hooks, output, stop and outcome.
//!
//! All that it needs to know stands in the container's labels and configuration, so a task of a later life of the
//! agent goes on wherever an earlier one was killed.

use std::{
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::{
    ApiError, ErrorCode, Span, Timestamp,
    wire::Assignment,
    workload::{DEFAULT_GRACE, JobKey, Outcome, Usage, VolumeSource},
};
use bollard::{
    errors::Error,
    models::{ContainerCreateBody, ContainerInspectResponse, HostConfig},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Shared,
    config::{self, Given, LABEL_GRACE, LABEL_JOB, LABEL_NODE, LABEL_POST_STOP, LABEL_PRE_START, LABEL_SECRETS, Role},
    daemon::{BackOff, Kind, kind, words},
    end::{self, Stands, stands},
    files,
    log::{Masking, Output, Reader, Remarks},
};
use crate::{engine::What, mask::Mask, secret::Secrets};

/// How long a daemon that is away holds up the making of a container.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tries to make a container where the daemon answers, and fails.
const FAILURES: u32 = 3;

/// Word of an OOM kill may come after that of the end, by this much.
const OOM_PATIENCE: Duration = Duration::from_millis(300);

/// Between two SIGKILLs to a container that doesn't end.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// A hook after the command may take this long, or as long as the grace where that is longer.
const POST_STOP_MIN: Duration = Duration::from_secs(10);

/// A job that this engine knows.
pub(super) struct Job {
    pub(super) key: JobKey,
    /// When SIGKILL is due. `None`: it isn't to be stopped.
    stop: watch::Sender<Option<Instant>>,
    /// SIGKILL was sent because of a stop.
    killed: AtomicBool,
    /// Nothing of it runs any more.
    ended: watch::Sender<bool>,
    /// The most that was seen of each.
    usage: Mutex<Usage>,
    /// What the node has to say in its log, with its next line.
    remarks: Remarks,
    /// `None`: that isn't known yet.
    masking: watch::Sender<Option<Masking>>,
    /// Until it has begun.
    secrets: Mutex<Option<Arc<Secrets>>>,
}

/// Where a job's task begins.
pub(super) enum Origin {
    /// With an order.
    New(Arc<Assignment>),
    /// With the container that an earlier life of the agent made.
    Found(Box<ContainerInspectResponse>),
}

/// The end of a job.
pub(super) struct Ending {
    pub(super) at: Timestamp,
    pub(super) outcome: Outcome,
    pub(super) usage: Usage,
}

impl Job {
    pub(super) fn new(key: JobKey) -> Self {
        Self {
            key,
            stop: watch::Sender::new(None),
            killed: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            usage: Mutex::default(),
            remarks: Remarks::default(),
            masking: watch::Sender::new(Some(Masking::Nothing)),
            secrets: Mutex::default(),
        }
    }

    /// It was found, and nobody has kept its secrets.
    pub(super) fn want_secrets(&self) {
        self.masking.send_replace(None);
    }

    /// Whether it waits for its secrets.
    pub(super) fn wants_secrets(&self) -> bool {
        self.masking.borrow().is_none()
    }

    /// Tells it its secrets, or why it can't have them.
    pub(super) fn tell(self: &Arc<Self>, answer: Result<Arc<Secrets>, ApiError>) {
        self.masking.send_replace(None);
        *self.given() = answer.as_ref().ok().cloned();
        let job = Arc::clone(self);
        // For a value of a MiB it takes a fifth of a second.
        tokio::task::spawn_blocking(move || {
            let masking = match answer {
                Ok(secrets) => match Mask::new(secrets.mask()) {
                    Ok(None) => Masking::Nothing,
                    Ok(Some(mask)) => Masking::Hide(Arc::new(mask)),
                    Err(error) => Masking::Unknown(error.to_string()),
                },
                Err(error) => Masking::Unknown(error.message),
            };
            job.masking.send_replace(Some(masking));
        });
    }

    fn given(&self) -> MutexGuard<'_, Option<Arc<Secrets>>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An outcome without what must not be readable.
    fn hide(&self, outcome: Outcome) -> Outcome {
        match &*self.masking.borrow() {
            Some(Masking::Hide(mask)) => mask.hide_in(outcome),
            _ => outcome,
        }
    }

    /// Orders it to stop; a later order may only shorten the grace.
    pub(super) fn stop(&self, grace: Span) {
        let due = Instant::now() + grace.duration().min(Duration::from_secs(365 * 86_400));
        self.stop
            .send_modify(|stop| *stop = Some(stop.map_or(due, |old| old.min(due))));
    }

    fn stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    async fn stopped(&self) {
        let _ = self.stop.subscribe().wait_for(Option::is_some).await;
    }

    pub(super) fn ended(&self) -> bool {
        *self.ended.borrow()
    }

    pub(super) async fn until_ended(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub(super) fn set_ended(&self) {
        self.ended.send_replace(true);
    }

    /// What waits to be said in its log.
    pub(super) fn remarks(&self) -> MutexGuard<'_, Vec<String>> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was measured; what is less than before is older.
    pub(super) fn measured(&self, usage: Usage) -> Usage {
        let mut most = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        most.cpu_ms = most.cpu_ms.max(usage.cpu_ms);
        most.memory_peak_bytes = most.memory_peak_bytes.max(usage.memory_peak_bytes);
        *most
    }

    /// Carries it from its origin to its end, which is the last thing that is said of it.
    pub(super) async fn carry_out(self: Arc<Self>, shared: Arc<Shared>, origin: Origin) {
        let mut output = Output::new(self.key.clone(), Arc::clone(&shared.sinks)).with(Arc::clone(&self.remarks));
        let ending = match self.live(&shared, origin, &mut output).await {
            Ok(ending) => ending,
            Err(outcome) => {
                // What never started must not be started by a later life of the agent.
                for role in [Role::PreStart, Role::Main] {
                    let name = role.container(&self.key);
                    let mut back_off = BackOff::new();
                    while let Err(error) = shared.daemon.remove(&name).await {
                        tracing::debug!(container = name, %error, "the container can't be removed");
                        back_off.wait().await;
                    }
                }
                if let Some(cgroups) = &shared.cgroups {
                    cgroups.remove(&self.key);
                }
                let told = self.given().is_some();
                if told {
                    let _ = self.masking.subscribe().wait_for(Option::is_some).await;
                }
                Ending {
                    at: Timestamp::now(),
                    outcome: self.hide(outcome),
                    usage: Usage::default(),
                }
            }
        };
        drop(output);
        self.given().take();
        self.masking.send_replace(Some(Masking::Nothing));
        shared.files.remove(&self.key);
        self.set_ended();
        shared.say(
            &self.key,
            What::Ended {
                at: ending.at,
                outcome: ending.outcome,
                usage: ending.usage,
            },
        );
    }

    async fn live(&self, shared: &Shared, origin: Origin, output: &mut Output) -> Result<Ending, Outcome> {
        let (inspect, ordered) = match origin {
            Origin::New(assignment) => (self.make(shared, &assignment).await?, true),
            Origin::Found(inspect) => (*inspect, false),
        };
        let body = recover(&inspect);
        let fresh = stands(&inspect) == Stands::Created;
        if fresh {
            if !ordered {
                self.receive_again(shared).await?;
            }
            self.give_files(shared, &inspect).await?;
            self.begin(shared, &body, output).await?;
        }
        self.given().take();
        // Of a job that was found running, its finder has told.
        let untold = fresh || ordered;
        let name = Role::Main.container(&self.key);
        let reader = Reader::new(&shared.daemon, &name, output, self.masking.subscribe());
        let ended = match stands(&inspect) {
            Stands::Ended => {
                self.announce(shared, &name, untold).await;
                reader.finish().await;
                Some(inspect)
            }
            _ => {
                let running = async {
                    tokio::select! {
                        ((), ended) = async {
                            tokio::join!(self.announce(shared, &name, untold), shared.daemon.exited(&name))
                        } => ended,
                        () = self.stopper(shared, &name) => pending().await,
                    }
                };
                reader.until(running).await
            }
        };
        let Some(ended) = ended else {
            return Ok(Ending {
                at: Timestamp::now(),
                outcome: Outcome::Unknown {
                    why: "its container was removed by somebody else".to_owned(),
                },
                usage: self.measured(Usage::default()),
            });
        };
        let mut ending = self.ending(shared, &name, &ended).await;
        if let Some(at) = self.post_stop(shared, &body, output).await {
            ending.at = ending.at.max(at);
        }
        Ok(ending)
    }

    /// The end of a container that has ended.
    pub(super) async fn ending(&self, shared: &Shared, name: &str, ended: &ContainerInspectResponse) -> Ending {
        let usage = self.measured(shared.usage(&self.key));
        let code = end::exit_code(ended);
        let oom = match code {
            None | Some(0) => false,
            // What killed it was the stop, whatever happened to it before.
            Some(137) if self.killed.load(Ordering::Relaxed) => false,
            Some(_) if end::oom_killed(ended) => true,
            Some(code) => match (shared.oom_kills(&self.key), end::started_at(ended)) {
                (Some(kills), _) => kills > 0,
                // Word of it can come too late for Docker to note it with the container.
                (None, Some(at)) if code == 137 && end::memory_limit(ended).is_some() => {
                    shared.daemon.saw_oom(name, at.as_second(), OOM_PATIENCE).await
                }
                _ => false,
            },
        };
        Ending {
            at: end::finished_at(ended).unwrap_or_else(Timestamp::now),
            outcome: end::outcome(ended, oom, usage.memory_peak_bytes),
            usage,
        }
    }

    /// Waits for the secrets of a container that an earlier life of the agent made and didn't start: its files must be
    /// there, and its variables stay as they are.
    async fn receive_again(&self, shared: &Shared) -> Result<(), Outcome> {
        let mut masking = self.masking.subscribe();
        tokio::select! {
            () = self.stopped() => return Err(stopped_early()),
            _ = masking.wait_for(Option::is_some) => {}
        }
        if let Some(Masking::Unknown(why)) = &*masking.borrow() {
            return Err(Outcome::StartFailed {
                code: ErrorCode::Conflict,
                message: why.clone(),
                retryable: true,
            });
        }
        self.put_files(shared)
    }

    /// Writes the files that it gets of secrets, before its container is made or begun.
    fn put_files(&self, shared: &Shared) -> Result<(), Outcome> {
        let Some(secrets) = self.given().clone() else {
            return Ok(());
        };
        let Some((first, _)) = secrets.files().first() else {
            return Ok(());
        };
        shared
            .files
            .put(&self.key, secrets.files())
            .map_err(|error| Outcome::StartFailed {
                code: if error.kind() == std::io::ErrorKind::StorageFull {
                    ErrorCode::StorageFull
                } else {
                    ErrorCode::Internal
                },
                message: format!("the secret at '{first}' can't be placed: {error}"),
                retryable: true,
            })
    }

    /// Gives those files to the user that the container's command runs as.
    async fn give_files(&self, shared: &Shared, inspect: &ContainerInspectResponse) -> Result<(), Outcome> {
        let Some(secrets) = self.given().clone() else {
            return Ok(());
        };
        let Some((first, _)) = secrets.files().first() else {
            return Ok(());
        };
        let user = inspect.config.as_ref().and_then(|config| config.user.clone());
        let user = user.unwrap_or_default();
        let refuse = |why: String| Outcome::StartFailed {
            code: ErrorCode::InvalidArgument,
            message: format!("the secret at '{first}' can't be given to the image's user '{user}': {why}"),
            retryable: false,
        };
        let name = Role::Main.container(&self.key);
        let number = files::number_of(&shared.daemon, &name, &user).await.map_err(refuse)?;
        let given = shared.files.give(&self.key, secrets.files().len(), number);
        given.map_err(|error| refuse(error.to_string()))
    }

    /// Fetches the image and makes the container; one of that name that is there already is taken as it is.
    async fn make(&self, shared: &Shared, job: &Assignment) -> Result<ContainerInspectResponse, Outcome> {
        let name = Role::Main.container(&self.key);
        check_folders(job)?;
        self.put_files(shared)?;
        let secrets = self.given().clone().unwrap_or_default();
        let files: Vec<_> = (0..)
            .zip(secrets.files())
            .map(|(number, (at, _))| (shared.files.path(&self.key, number), at.clone()))
            .collect();
        let given = Given {
            env: secrets.env(),
            files: &files,
        };
        let since = Instant::now();
        let mut back_off = BackOff::new();
        let mut failures = 0;
        loop {
            let report = |progress| shared.say(&self.key, What::Pulling(progress));
            tokio::select! {
                () = self.stopped() => return Err(stopped_early()),
                image = shared.pulls.ensure(&shared.daemon, &job.image, report) => image?,
            }
            let body = config::main_container(job, &shared.around(&self.key), given);
            let error = match shared.daemon.create(&name, body).await {
                Ok(()) => None,
                Err(error) if kind(&error) == Kind::Conflict => None,
                Err(error) => Some(error),
            };
            match error {
                None => match shared.daemon.inspect_surely(&name).await {
                    Some(inspect) if is_ours(&inspect, &self.key, &shared.around.node) => return Ok(inspect),
                    Some(_) => {
                        return Err(Outcome::StartFailed {
                            code: ErrorCode::AlreadyExists,
                            message: format!("a container named {name} is there already and isn't ours"),
                            retryable: true,
                        });
                    }
                    // Removed in between.
                    None => {}
                },
                // The daemon failed, is away, or its image was removed in between.
                Some(error) => {
                    tracing::debug!(container = name, %error, "the container can't be made");
                    failures += u32::from(kind(&error) != Kind::Away);
                    if kind(&error) == Kind::Refused || failures >= FAILURES || since.elapsed() > PATIENCE {
                        return Err(cannot_start(&error));
                    }
                }
            }
            tokio::select! {
                () = self.stopped() => return Err(stopped_early()),
                () = back_off.wait() => {}
            }
        }
    }

    /// Runs the hook before the command, then starts the container.
    async fn begin(&self, shared: &Shared, body: &ContainerCreateBody, output: &mut Output) -> Result<(), Outcome> {
        if let Some(command) = hook(body, LABEL_PRE_START) {
            let words = command.join(" ");
            let name = Role::PreStart.container(&self.key);
            let made = config::hook_container(body, &self.key, Role::PreStart, command);
            let ended = self.run_hook(shared, &name, made, output, None).await?;
            if self.stopping() {
                return Err(stopped_early());
            }
            let outcome = end::outcome(&ended, end::oom_killed(&ended), None);
            if !outcome.success() {
                return Err(hook_failed(&words, &outcome));
            }
        }
        if self.stopping() {
            return Err(stopped_early());
        }
        self.start(shared, &Role::Main.container(&self.key)).await
    }

    async fn start(&self, shared: &Shared, name: &str) -> Result<(), Outcome> {
        let since = Instant::now();
        let mut back_off = BackOff::new();
        loop {
            let Err(error) = shared.daemon.start(name).await else {
                return Ok(());
            };
            // The daemon may have started it all the same.
            match shared.daemon.inspect_surely(name).await {
                Some(inspect) if stands(&inspect) != Stands::Created => return Ok(()),
                Some(_) if kind(&error) == Kind::Away && since.elapsed() < PATIENCE => back_off.wait().await,
                _ => return Err(cannot_start(&error)),
            }
        }
    }

    /// Says that it runs, or ran, unless that was told.
    async fn announce(&self, shared: &Shared, name: &str, untold: bool) {
        if untold
            && let Some(inspect) = shared.daemon.inspect_surely(name).await
            && let Some(at) = end::started_at(&inspect)
        {
            shared.say(&self.key, What::Started { at });
        }
    }

    /// Sends the signals of a stop as they become due. Never returns.
    async fn stopper(&self, shared: &Shared, name: &str) {
        let mut orders = self.stop.subscribe();
        let mut told = false;
        loop {
            let due = *orders.borrow_and_update();
            let next = match due {
                None => None,
                Some(due) if due <= Instant::now() => {
                    self.killed.store(true, Ordering::Relaxed);
                    let again = match shared.daemon.kill(name, "SIGKILL").await {
                        Ok(()) => KILL_AGAIN,
                        Err(error) => {
                            let killed = shared.kill_below(&self.key);
                            tracing::warn!(job = %self.key, %error, killed, "the container engine doesn't kill a job that is due");
                            Duration::from_millis(500)
                        }
                    };
                    Some(Instant::now() + again)
                }
                Some(due) if told => Some(due),
                Some(due) => {
                    told = shared.daemon.kill(name, "SIGTERM").await.is_ok();
                    Some(if told {
                        due
                    } else {
                        due.min(Instant::now() + Duration::from_millis(200))
                    })
                }
            };
            let changed = orders.changed();
            match next {
                None => {
                    let _ = changed.await;
                }
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    _ = changed => {}
                },
            }
        }
    }

    /// Runs the hook after the command, where there is one. Returns when it ended.
    async fn post_stop(&self, shared: &Shared, body: &ContainerCreateBody, output: &mut Output) -> Option<Timestamp> {
        let command = hook(body, LABEL_POST_STOP)?;
        let name = Role::PostStop.container(&self.key);
        let made = config::hook_container(body, &self.key, Role::PostStop, command);
        let limit = grace(body).max(POST_STOP_MIN);
        match self.run_hook(shared, &name, made, output, Some(limit)).await {
            Ok(ended) => {
                let outcome = end::outcome(&ended, end::oom_killed(&ended), None);
                if !outcome.success() {
                    tracing::info!(job = %self.key, ?outcome, "the hook after the command failed");
                }
                end::finished_at(&ended)
            }
            Err(outcome) => {
                let outcome = self.hide(outcome);
                tracing::warn!(job = %self.key, ?outcome, "the hook after the command couldn't run");
                None
            }
        }
    }

    /// Runs a hook's container to its end, or goes on with the one that an earlier life of the agent began.
    /// `limit`: it is killed after so long; `None`: it ends with the job's stop.
    async fn run_hook(
        &self,
        shared: &Shared,
        name: &str,
        body: ContainerCreateBody,
        output: &mut Output,
        limit: Option<Duration>,
    ) -> Result<ContainerInspectResponse, Outcome> {
        let mut inspect = shared.daemon.inspect_surely(name).await;
        if inspect.is_none() {
            match shared.daemon.create(name, body).await {
                Err(error) if kind(&error) != Kind::Conflict => return Err(cannot_start(&error)),
                _ => inspect = shared.daemon.inspect_surely(name).await,
            }
        }
        let gone = || Outcome::Unknown {
            why: "the container of its hook was removed by somebody else".to_owned(),
        };
        let inspect = inspect.ok_or_else(gone)?;
        if stands(&inspect) == Stands::Created {
            self.start(shared, name).await?;
        }
        let stop = async {
            match limit {
                None => self.stopper(shared, name).await,
                Some(limit) => loop {
                    sleep(limit).await;
                    let _ = shared.daemon.kill(name, "SIGKILL").await;
                },
            }
        };
        let running = async {
            tokio::select! {
                ended = shared.daemon.exited(name) => ended,
                () = stop => pending().await,
            }
        };
        let reader = Reader::new(&shared.daemon, name, output, self.masking.subscribe());
        reader.until(running).await.ok_or_else(gone)
    }
}

/// Refuses folders of the node that aren't there: Docker would refuse them later, Podman would make them.
fn check_folders(job: &Assignment) -> Result<(), Outcome> {
    for volume in &job.volumes {
        if let VolumeSource::HostPath { source, .. } = &volume.source
            && let Err(error) = std::fs::metadata(source)
            && error.kind() == std::io::ErrorKind::NotFound
        {
            return Err(Outcome::StartFailed {
                code: ErrorCode::InvalidArgument,
                message: format!("{source}, to be mounted at {}, isn't on this node", volume.mount_path),
                retryable: false,
            });
        }
    }
    Ok(())
}

/// What a container was made with, as far as its hooks need it: only what this engine sets, since daemons add to it
/// what they don't take back.
fn recover(inspect: &ContainerInspectResponse) -> ContainerCreateBody {
    let config = inspect.config.clone().unwrap_or_default();
    let made = inspect.host_config.clone().unwrap_or_default();
    ContainerCreateBody {
        image: config.image,
        env: config.env,
        labels: config.labels,
        host_config: Some(HostConfig {
            memory: made.memory,
            memory_swap: made.memory_swap,
            nano_cpus: made.nano_cpus,
            mounts: made.mounts,
            device_requests: made.device_requests,
            devices: made.devices,
            shm_size: made.shm_size,
            network_mode: made.network_mode,
            cgroup_parent: made.cgroup_parent,
            init: made.init,
            restart_policy: made.restart_policy,
            log_config: made.log_config,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Whether a container is the one of this job on this node.
pub(super) fn is_ours(inspect: &ContainerInspectResponse, job: &JobKey, node: &str) -> bool {
    let labels = inspect.config.as_ref().and_then(|config| config.labels.as_ref());
    labels.is_some_and(|labels| {
        labels.get(LABEL_JOB).is_some_and(|key| *key == job.to_string())
            && labels.get(LABEL_NODE).is_some_and(|name| name == node)
    })
}

/// Whether a container's job uses secrets.
pub(super) fn uses_secrets(inspect: &ContainerInspectResponse) -> bool {
    let labels = inspect.config.as_ref().and_then(|config| config.labels.as_ref());
    labels.is_some_and(|labels| labels.contains_key(LABEL_SECRETS))
}

/// Whether there is a hook to run after the command.
pub(super) fn has_post_stop(inspect: &ContainerInspectResponse) -> bool {
    hook(&recover(inspect), LABEL_POST_STOP).is_some()
}

fn hook(body: &ContainerCreateBody, label: &str) -> Option<Vec<String>> {
    let text = body.labels.as_ref()?.get(label)?;
    let command: Vec<String> = serde_json::from_str(text).ok()?;
    (!command.is_empty()).then_some(command)
}

/// The grace that a container's job was begun with.
pub(super) fn grace_of(inspect: &ContainerInspectResponse) -> Span {
    Span(u64::try_from(grace(&recover(inspect)).as_millis()).unwrap_or(u64::MAX))
}

fn grace(body: &ContainerCreateBody) -> Duration {
    let text = body.labels.as_ref().and_then(|labels| labels.get(LABEL_GRACE));
    text.and_then(|text| text.parse().ok())
        .map_or(DEFAULT_GRACE, Span)
        .duration()
}

fn stopped_early() -> Outcome {
    Outcome::StartFailed {
        code: ErrorCode::Conflict,
        message: "stopped before it started".to_owned(),
        retryable: false,
    }
}

fn hook_failed(command: &str, outcome: &Outcome) -> Outcome {
    let how = match outcome.exit_code() {
        Some(_) if matches!(outcome, Outcome::OomKilled { .. }) => "it was killed at the memory limit".to_owned(),
        Some(code) => format!("exit code {code}"),
        None => "nobody saw how".to_owned(),
    };
    Outcome::StartFailed {
        code: ErrorCode::InvalidArgument,
        message: format!("the preStart hook '{command}' failed: {how}"),
        retryable: false,
    }
}

/// A container that can't be made or started.
fn cannot_start(error: &Error) -> Outcome {
    let words = words(error);
    let lower = words.to_lowercase();
    let (code, message, retryable) = if ["executable file", "exec format error", "exec: \""]
        .iter()
        .any(|sign| lower.contains(sign))
        || kind(error) == Kind::Refused
    {
        (ErrorCode::InvalidArgument, words, false)
    } else if lower.contains("no space left") {
        (ErrorCode::StorageFull, words, true)
    } else {
        let message = format!("the container couldn't be started: {words}");
        (ErrorCode::Internal, message, true)
    };
    Outcome::StartFailed {
        code,
        message,
        retryable,
    }
}
