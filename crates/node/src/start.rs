//! A node agent put together: drivers, engines, spool and session, as this machine has them.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use api::{NodeName, node::EngineKind};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{
        Engine,
        docker::{self, DockerEngine},
        native::{Config, NativeEngine},
    },
    gpu::{
        Driver, probe,
        simulated::{Clock, Scenario, Simulated, SimulatedGpus},
    },
    host::Host,
    session::{self, AgentError, AgentOptions},
    spool::{Limits, Spool},
};

/// Which engines a node offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engines {
    /// What is there: Docker or Podman if one answers, and native processes.
    #[default]
    Auto,
    /// Docker or Podman, and nothing else.
    Docker,
    /// Native processes, and nothing else.
    Native,
}

impl FromStr for Engines {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "docker" | "podman" => Ok(Self::Docker),
            "native" => Ok(Self::Native),
            other => Err(format!(
                "'{other}' is no engine of this version (accepted: auto, docker, native)"
            )),
        }
    }
}

impl fmt::Display for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Docker => "docker",
            Self::Native => "native",
        })
    }
}

/// How often everything is measured, unless somebody says otherwise.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

/// How a node agent runs.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The gateway's address. `None`: as at the time of joining.
    pub gateway: Option<String>,
    /// Lets a node in that has no identity yet.
    pub join_token: Option<String>,
    /// A file with the authority that the gateway's certificate is of, for a join token that says nothing of it.
    pub authority: Option<PathBuf>,
    /// Speak unencrypted with a gateway elsewhere.
    pub insecure: bool,
    /// The name that a new node insists on. `None`: the host's name, or one like it if that is taken.
    pub name: Option<NodeName>,
    /// Which engines it offers.
    pub engines: Engines,
    /// Labels that the node gives itself.
    pub labels: BTreeMap<String, String>,
    /// Where it keeps everything.
    pub data: PathBuf,
    /// Made-up GPUs instead of real ones. `None`: the real ones.
    pub simulate: Option<SimulatedGpus>,
    /// What happens to made-up GPUs over time.
    pub scenario: Scenario,
    /// Docker's socket. `None`: where it usually is.
    pub docker_socket: Option<PathBuf>,
    /// Most bytes of output that wait for the gateway.
    pub spool_bytes: u64,
    /// How often everything is measured.
    pub sample_interval: Duration,
    /// Where to answer `/metrics` in Prometheus' format. `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Where to carry services: to listen at their ports, and lead requests to replicas wherever those run. `None`: nowhere.
    pub services: Option<IpAddr>,
}

impl NodeOptions {
    /// An agent that keeps everything in this folder.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            gateway: None,
            join_token: None,
            authority: None,
            insecure: false,
            name: None,
            engines: Engines::Auto,
            labels: BTreeMap::new(),
            data: data.into(),
            simulate: None,
            scenario: Scenario::default(),
            docker_socket: None,
            spool_bytes: Limits::default().total_bytes,
            sample_interval: SAMPLE_INTERVAL,
            metrics_listen: None,
            services: None,
        }
    }
}

/// Why a node agent can't start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A part of it can't be made.
    #[error("{what} can't be set up")]
    Part {
        /// Which part.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Docker was asked for and isn't there.
    #[error("there is no Docker engine for this node")]
    NoDocker(#[source] docker::ConnectError),
    /// The address for `/metrics` can't be had.
    #[error("/metrics can't be answered at {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The scenario of the made-up GPUs names one that isn't there.
    #[error("the scenario doesn't fit the simulated GPUs: {0}")]
    Scenario(String),
    /// The session.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// The kernel's log, where it may be read.
const KERNEL_LOG: &str = "/dev/kmsg";

/// How long Docker may take to answer at the start.
const DOCKER_PATIENCE: Duration = Duration::from_secs(10);

/// Runs a node agent until `shutdown`, or until its gateway refuses it for good.
///
/// After `shutdown` its jobs run on. A refusal ends it only when nothing runs any more: until then it asks again now and
/// then, and its jobs are stopped when their time without a gateway is over.
///
/// The binary must have called [`crate::engine::native::helper_main`] first thing in its `main`.
///
/// # Errors
/// It couldn't start, or was refused.
pub async fn run(options: NodeOptions, shutdown: CancellationToken) -> Result<(), NodeError> {
    let part = |what| move |source| NodeError::Part { what, source };
    let host = Host::default();
    let hostname = host.inventory().hostname;
    let NodeOptions {
        gateway,
        join_token,
        name,
        data,
        authority,
        ..
    } = options;
    let wish = session::Wish {
        gateway: gateway.as_deref(),
        join_token: join_token.as_deref(),
        authority: authority.as_deref(),
        insecure: options.insecure,
        name: name.clone(),
        hostname: &hostname,
    };
    let identity = session::identify(&data, &wish).await?;
    let at: session::Address = identity.gateway.parse().map_err(AgentError::from)?;
    let metrics = match options.metrics_listen {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|source| NodeError::Listen { address, source })?;
            tracing::info!(address = %listener.local_addr().unwrap_or(address), "answering /metrics");
            Some(listener)
        }
        None => None,
    };
    let mut probe_options = probe::Options::from_env();
    let mut on_held: Option<session::OnHeld> = None;
    if let Some(gpus) = &options.simulate {
        let simulated = Simulated::new(identity.name.clone(), gpus, options.scenario, Clock::running())
            .map_err(|e| NodeError::Scenario(e.to_string()))?;
        let simulated = Arc::new(simulated);
        probe_options.simulated = Some(Arc::clone(&simulated));
        on_held = Some(Box::new(move |held| simulated.set_held(held)));
    }
    let detected = tokio::task::spawn_blocking(move || probe::detect(probe_options)).await;
    let (drivers, mut notes) = detected.map_err(|e| part("the GPU drivers")(io::Error::other(e)))?;

    let (sender, events) = mpsc::unbounded_channel();
    let limits = Limits {
        total_bytes: options.spool_bytes,
        ..Limits::default()
    };
    let spool = Arc::new(Spool::open(data.join("spool"), limits).map_err(part("the spool"))?);
    let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
    let mut containers = None;
    if options.engines != Engines::Native {
        let docker_options = docker::Options {
            socket: options.docker_socket,
            publish_at: at.bind(),
            ..docker::Options::new(identity.name.clone())
        };
        let sinks = Arc::clone(&spool);
        let connecting = DockerEngine::connect(docker_options, sinks, sender.clone());
        match tokio::time::timeout(DOCKER_PATIENCE, connecting).await {
            Ok(Ok(engine)) => {
                let engine = Arc::new(engine);
                engine
                    .guard(&data.join("containers"), None)
                    .map_err(part("the guard of containers"))?;
                engines.push(Arc::clone(&engine) as Arc<dyn Engine>);
                containers = Some(engine);
            }
            Ok(Err(error)) if options.engines == Engines::Docker => return Err(NodeError::NoDocker(error)),
            Ok(Err(error)) => notes.push(format!("no containers: {error}")),
            Err(_) if options.engines == Engines::Docker => {
                return Err(part("the Docker engine")(io::ErrorKind::TimedOut.into()));
            }
            Err(_) => notes.push("no containers: Docker doesn't answer".to_owned()),
        }
    }
    let mut native = None;
    if options.engines != Engines::Docker {
        let engine = NativeEngine::open(&Config::new(data.join("native")), &spool, sender.clone())
            .map_err(part("the native engine"))?;
        let engine = Arc::new(engine);
        engines.push(Arc::clone(&engine) as Arc<dyn Engine>);
        native = Some(engine);
    }
    drop(sender);
    tracing::info!(
        node = %identity.name,
        engines = ?engines.iter().map(|e| e.info().kind).collect::<Vec<EngineKind>>(),
        "starting"
    );
    let fenced: session::Fenced = {
        let (native, containers) = (native.clone(), containers.clone());
        Arc::new(move |job| {
            native.as_ref().is_some_and(|engine| engine.fenced(job))
                || containers.as_ref().is_some_and(|engine| engine.fenced(job))
        })
    };
    let ending = native.clone();
    let on_lease: session::OnLease = Arc::new(move |until_ms| {
        let left = Duration::from_millis(until_ms.saturating_sub(session::now().mono_ms));
        let written = [
            native.as_ref().map(|engine| engine.set_lease(Some(left))),
            containers.as_ref().map(|engine| engine.set_lease(Some(left))),
        ];
        for error in written.into_iter().flatten().filter_map(Result::err) {
            tracing::warn!(%error, "the lease of running jobs couldn't be renewed");
        }
    });
    let agent = AgentOptions {
        gateway,
        join_token,
        authority,
        insecure: options.insecure,
        name,
        labels: options.labels,
        data,
        machine: Arc::new(host),
        drivers,
        notes,
        engines,
        events,
        output: spool,
        on_held,
        sample_interval: options.sample_interval,
        kernel_log: Some(PathBuf::from(KERNEL_LOG)),
        metrics,
        services: options.services,
        on_lease: Some(on_lease),
        fenced: Some(fenced),
    };
    let ended = session::run(agent, shutdown).await;
    if let Some(native) = ending {
        native.let_go();
    }
    Ok(ended?)
}
