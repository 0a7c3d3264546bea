//! The daemon's API with a deadline on every call.

use std::{
    collections::HashMap,
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary},
    query_parameters::{
        CreateContainerOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
        ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
        WaitContainerOptionsBuilder,
    },
};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

/// For calls that the daemon answers from its memory, or with a few system calls.
const CALL: Duration = Duration::from_secs(30);

/// For making and starting a container: a cold disk and GPU hooks take their time.
const START: Duration = Duration::from_secs(120);

/// For calls that stay open as long as a container runs; they are begun anew when it passes.
const OPEN: Duration = Duration::from_secs(24 * 3600);

/// Longest wait between tries while the daemon doesn't answer.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// A connection to Docker or Podman. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    quick: Docker,
    /// For calls whose answer goes on for a long time.
    open: Docker,
}

/// How an answer that isn't what was hoped for is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no such thing.
    Missing,
    /// It is there already, or its state doesn't allow this.
    Conflict,
    /// The daemon understood and refuses.
    Refused,
    /// The daemon tried and failed.
    Failed,
    /// The daemon is away, or doesn't answer in time.
    Away,
}

/// Sorts an error.
pub(super) fn kind(error: &Error) -> Kind {
    match error {
        Error::DockerResponseServerError { status_code, .. } => match status_code {
            404 => Kind::Missing,
            409 => Kind::Conflict,
            400..500 => Kind::Refused,
            _ => Kind::Failed,
        },
        _ => Kind::Away,
    }
}

/// What the daemon said, without the library's frame around it.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        Error::RequestTimeoutError => "no answer in time".to_owned(),
        Error::HyperLegacyError { err } => match std::error::Error::source(err) {
            Some(source) => format!("{err}: {source}"),
            None => err.to_string(),
        },
        other => other.to_string(),
    }
}

/// Grows from try to try.
#[derive(Debug)]
pub(super) struct BackOff(Duration);

impl BackOff {
    pub(super) fn new() -> Self {
        Self(Duration::from_millis(50))
    }

    pub(super) async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(BACK_OFF_MAX);
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(limit, call).await.unwrap_or(Err(Error::RequestTimeoutError))
}

/// Where a daemon may listen: `DOCKER_HOST`, Docker's socket, the user's Podman's, the system's Podman's.
pub(super) fn sockets() -> Vec<PathBuf> {
    let from_env = std::env::var("DOCKER_HOST")
        .ok()
        .and_then(|host| host.strip_prefix("unix://").map(PathBuf::from));
    if let Some(path) = from_env {
        return vec![path];
    }
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("podman/podman.sock"));
    let mut paths = vec![PathBuf::from("/var/run/docker.sock")];
    paths.extend(user);
    paths.push(PathBuf::from("/run/podman/podman.sock"));
    paths
}

/// Whether the process behind a socket may lift resource limits (`CAP_SYS_RESOURCE`). Not where it can't be seen.
pub(super) fn lifts_limits(socket: &Path) -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let capabilities = || {
        let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
        let pid = rustix::net::sockopt::socket_peercred(&stream)
            .ok()?
            .pid
            .as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(effective.trim(), 16).ok()
    };
    capabilities().is_some_and(|set| set & (1 << CAP_SYS_RESOURCE) != 0)
}

impl Daemon {
    /// Connects and agrees on a version of the API.
    pub(super) async fn connect(socket: &Path) -> Result<Self, Error> {
        let path = socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&path, CALL.as_secs(), API_DEFAULT_VERSION)?;
        let quick = within(CALL, docker.negotiate_version()).await?;
        let open = quick.clone().with_timeout(OPEN);
        Ok(Self { quick, open })
    }

    /// For calls that this type doesn't have: with the short deadline on the head of the answer.
    pub(super) fn api(&self) -> &Docker {
        &self.quick
    }

    /// For calls whose answer may go on, or begin late.
    pub(super) fn open(&self) -> &Docker {
        &self.open
    }

    /// A call with the deadline of calls that are answered from memory.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        within(CALL, call).await
    }

    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), Error> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let docker = self.quick.clone().with_timeout(START);
        within(START, docker.create_container(Some(options), body)).await?;
        Ok(())
    }

    pub(super) async fn start(&self, name: &str) -> Result<(), Error> {
        let docker = self.quick.clone().with_timeout(START);
        within(START, docker.start_container(name, None::<StartContainerOptions>)).await
    }

    pub(super) async fn inspect(&self, name: &str) -> Result<ContainerInspectResponse, Error> {
        let call = self.quick.inspect_container(name, None::<InspectContainerOptions>);
        within(CALL, call).await
    }

    /// Asks until the daemon answers. `None`: there is no such container.
    pub(super) async fn inspect_surely(&self, name: &str) -> Option<ContainerInspectResponse> {
        let mut back_off = BackOff::new();
        loop {
            match self.inspect(name).await {
                Ok(inspect) => return Some(inspect),
                Err(error) if kind(&error) == Kind::Missing => return None,
                Err(error) => tracing::debug!(container = name, %error, "the container can't be looked at"),
            }
            back_off.wait().await;
        }
    }

    /// Waits until a container doesn't run any more, through restarts of the daemon. `None`: it is gone.
    pub(super) async fn exited(&self, name: &str) -> Option<ContainerInspectResponse> {
        let mut back_off = BackOff::new();
        loop {
            let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
            let began = Instant::now();
            let waited = self.open.wait_container(name, Some(options)).next().await;
            match waited {
                // Not zero is an error to this library.
                Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => {}
                Some(Err(error)) => tracing::debug!(container = name, %error, "waiting for the end was interrupted"),
                None => {}
            }
            let inspect = self.inspect_surely(name).await?;
            let state = inspect.state.as_ref();
            let runs = state.is_some_and(|state| {
                state.running == Some(true) || state.paused == Some(true) || state.restarting == Some(true)
            });
            if !runs {
                return Some(inspect);
            }
            if began.elapsed() > BACK_OFF_MAX {
                back_off = BackOff::new();
            }
            back_off.wait().await;
        }
    }

    /// Sends a signal. A container that doesn't run is no error.
    pub(super) async fn kill(&self, name: &str, signal: &str) -> Result<(), Error> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        match within(CALL, self.quick.kill_container(name, Some(options))).await {
            Err(error) if matches!(kind(&error), Kind::Missing | Kind::Conflict) => Ok(()),
            other => other,
        }
    }

    /// Removes a container with its nameless volumes, running or not. One that isn't there is no error.
    pub(super) async fn remove(&self, name: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let docker = self.quick.clone().with_timeout(START);
        match within(START, docker.remove_container(name, Some(options))).await {
            // A conflict: its removal is already under way.
            Err(error) if matches!(kind(&error), Kind::Missing | Kind::Conflict) => Ok(()),
            other => other,
        }
    }

    /// The containers with a label, running or not.
    pub(super) async fn list(&self, label: &str, value: &str) -> Result<Vec<ContainerSummary>, Error> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        within(CALL, self.quick.list_containers(Some(options))).await
    }

    /// Whether the daemon saw the kernel kill something in the container for want of memory since `since_s`; waits
    /// up to `patience` for word of it. Seconds since 1970.
    pub(super) async fn saw_oom(&self, name: &str, since_s: i64, patience: Duration) -> bool {
        let filters = HashMap::from([
            ("container".to_owned(), vec![name.to_owned()]),
            ("event".to_owned(), vec!["oom".to_owned()]),
        ]);
        let options = EventsOptionsBuilder::new()
            .since(&since_s.to_string())
            .filters(&filters)
            .build();
        let mut events = Box::pin(self.open.events(Some(options)));
        matches!(timeout(patience, events.next()).await, Ok(Some(Ok(_))))
    }
}
