//! The agent at work: its decisions ([`crate::agent`]) brought together with disk, engines, drivers and gateway.
//!
//! One task owns the [`Agent`](crate::agent::Agent) and everything that hangs on it; all else (the connection, the engines' events, reading
//! of output, samples, health checks) runs beside it and sends it messages. Decisions of many messages share one
//! commit, and what is decided while a commit is on its way makes the next one. Nothing but that task's own work
//! holds it up: it waits for no disk, no driver and no peer.
//!
//! When the agent ends, what it runs goes on; the next agent finds it again.

mod address;
mod certificate;
mod channel;
mod clock;
mod doors;
mod exec;
mod expose;
mod health;
mod http;
mod identity;
mod link;
mod measure;
mod output;
mod papers;
mod ports;
mod probe;
mod shell;
mod ship;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use api::{ApiError, ErrorCode, GpuIndex, NodeName, workload::JobKey};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::LoadError,
    engine::{Engine, EngineEvent},
    gpu::Driver,
};

pub use address::{Address, AddressError};
pub use clock::now;
pub use identity::Identity;
pub use output::{Changes, Output};
pub use probe::Machine;

/// Is told the GPUs that jobs hold.
pub type OnHeld = Box<dyn Fn(&[GpuIndex]) + Send + Sync>;

/// Is told a monotonic time in milliseconds.
pub type OnLease = Arc<dyn Fn(u64) + Send + Sync>;

/// Says whether a job was stopped because its lease ran out.
pub type Fenced = Arc<dyn Fn(&JobKey) -> bool + Send + Sync>;

/// What an agent needs to run.
pub struct AgentOptions {
    /// The gateway's address. `None`: as at the time of joining.
    pub gateway: Option<String>,
    /// Lets a node in that has no identity yet. Not looked at where there is one.
    pub join_token: Option<String>,
    /// The name that a new node insists on. `None`: the host's name, or one like it if that is taken.
    pub name: Option<NodeName>,
    /// A file with the authority that the gateway's certificate is of, for a node whose join token says nothing of it.
    pub authority: Option<PathBuf>,
    /// Speak unencrypted with a gateway elsewhere: the node's credential, and what workloads write, can be read on the
    /// way.
    pub insecure: bool,
    /// Labels from the command line.
    pub labels: BTreeMap<String, String>,
    /// Folder for identity and records (`identity.json`, `agent.redb`); made where it is missing.
    pub data: PathBuf,
    /// The machine.
    pub machine: Arc<dyn Machine>,
    /// Its GPUs.
    pub drivers: Vec<Box<dyn Driver>>,
    /// What was looked for and not found, in words; becomes part of the inventory.
    pub notes: Vec<String>,
    /// The engines, preferred first; at most one of each kind. Their `adopt` hasn't been called.
    pub engines: Vec<Arc<dyn Engine>>,
    /// What all engines report.
    pub events: mpsc::UnboundedReceiver<EngineEvent>,
    /// What workloads wrote.
    pub output: Arc<dyn Output>,
    /// Called with the GPUs that jobs hold, whenever that changes: simulated GPUs look busy by it. Must not block.
    pub on_held: Option<OnHeld>,
    /// Called with the monotonic time ([`now`], milliseconds) from which jobs must be stopped, each with its own grace,
    /// unless another call follows: for engines that can do so when the agent is dead. Called about once a heartbeat;
    /// may block for a millisecond.
    pub on_lease: Option<OnLease>,
    /// How often everything is measured.
    pub sample_interval: Duration,
    /// The kernel's log. `None`: it isn't read.
    pub kernel_log: Option<PathBuf>,
    /// Where to answer `/metrics`. `None`: nowhere.
    pub metrics: Option<TcpListener>,
    /// Where to listen for requests of services, and lead them to replicas wherever those run. `None`: nowhere.
    pub services: Option<IpAddr>,
    /// Whether an engine itself stopped an ended job because the time of the last `on_lease` had come.
    pub fenced: Option<Fenced>,
}

/// Why an agent couldn't start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The gateway's address isn't one.
    #[error("the gateway's address is wrong")]
    Address(#[from] AddressError),
    /// A file or folder of the agent can't be used.
    #[error("{} can't be used", path.display())]
    Data {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It would speak unencrypted with a gateway elsewhere.
    #[error("{0} would be called unencrypted: this node's credential could be read on the way")]
    Unencrypted(String),
    /// It has never joined, and has no token or no address to join with.
    #[error("this node hasn't joined a gateway: it needs {0}")]
    NotJoined(&'static str),
    /// The gateway didn't let it join.
    #[error("{gateway} doesn't let this node join: {error}")]
    Join {
        /// Which gateway.
        gateway: String,
        /// What it said.
        error: Box<ApiError>,
    },
    /// The gateway will never have it.
    #[error("the gateway refused this node: {0}")]
    Refused(Box<ApiError>),
    /// The agent's records can't be opened.
    #[error("the agent's records can't be used")]
    Store(#[from] store::StoreError),
    /// The agent's records can't be read.
    #[error("the agent's records can't be used")]
    Load(#[from] LoadError),
    /// Jobs ran in an engine that isn't there any more: whether they still run can't be known.
    #[error("{} jobs run by the {engine} engine, which isn't available: start it, then this agent", jobs.len())]
    EngineGone {
        /// Which engine.
        engine: &'static str,
        /// The jobs.
        jobs: Vec<String>,
    },
}

impl AgentError {
    /// As it leaves the system.
    #[must_use]
    pub fn to_api(&self) -> ApiError {
        let cause = std::error::Error::source(self).map(ToString::to_string);
        let new = |code| ApiError {
            cause: cause.clone(),
            ..ApiError::new(code, self.to_string())
        };
        match self {
            Self::Address(error) => ApiError::invalid("gateway", error.to_string()),
            Self::NotJoined(_) => new(ErrorCode::InvalidArgument)
                .hint("get a token with: clawbernetes auth join-token; then: clawbernetes node start --gateway URL --join TOKEN"),
            Self::Join { error, .. } => ApiError {
                message: self.to_string(),
                ..ApiError::clone(error)
            },
            Self::Unencrypted(_) => ApiError::invalid("gateway", self.to_string())
                .because(api::Reason::TlsRequired)
                .hint("call it by wss://, or say --insecure"),
            Self::Refused(error) => ApiError::clone(error),
            Self::Store(store::StoreError::StorageFull { .. }) => new(ErrorCode::StorageFull),
            Self::EngineGone { .. } => new(ErrorCode::Conflict),
            Self::Data { .. } | Self::Store(_) | Self::Load(_) => new(ErrorCode::Internal),
        }
    }
}

/// Runs an agent until `shutdown`, or until its gateway refuses it for good.
///
/// After `shutdown` its jobs run on. A refusal ends it only when nothing runs any more: until then it asks again now and
/// then, and its jobs are stopped when their time without a gateway is over.
///
/// # Errors
/// It couldn't start, or was refused.
pub async fn run(options: AgentOptions, shutdown: CancellationToken) -> Result<(), AgentError> {
    shell::run(options, shutdown).await
}

/// As whom, and with which gateway, a node wants to work.
#[derive(Debug, Clone, Default)]
pub struct Wish<'a> {
    /// The gateway's address. `None`: as at the time of joining.
    pub gateway: Option<&'a str>,
    /// Lets it in if it has no identity yet.
    pub join_token: Option<&'a str>,
    /// See [`AgentOptions::authority`].
    pub authority: Option<&'a std::path::Path>,
    /// See [`AgentOptions::insecure`].
    pub insecure: bool,
    /// The name that it insists on. `None`: the host's, or one like it.
    pub name: Option<NodeName>,
    /// The host's name.
    pub hostname: &'a str,
}

/// The node's identity: from its data folder, or by joining, after which it is there. For whoever must know the name
/// before [`run`], which finds it again.
///
/// # Errors
/// It has none and couldn't join.
pub async fn identify(data: &std::path::Path, wish: &Wish<'_>) -> Result<Identity, AgentError> {
    let failed = |source| AgentError::Data {
        path: data.to_owned(),
        source,
    };
    std::fs::create_dir_all(data).map_err(failed)?;
    shell::who(data, wish).await.map(|(identity, _)| identity)
}
