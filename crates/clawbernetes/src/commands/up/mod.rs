//! `clawbernetes up`

mod demo;
pub(crate) mod train;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use api::{
    ApiError, ErrorCode, NodeName, Span,
    node::NodeStatus,
    op::{FleetStatus, NodeFilter, NodeList, StatusRequest},
};
use gateway::{Gateway, Options};
use node::{
    gpu::simulated::SimulatedGpus,
    start::{Engines, NodeOptions},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vault::tls::Trust;

use super::{
    gateway::serve,
    node::start::{node_error, sample_interval},
};
use crate::{
    cli::App,
    client::{Client, Endpoint},
    failure::Outcome,
    serving,
};

/// Run a whole fleet on this machine: gateway and agent in one process
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes up\n  clawbernetes up --demo\n  \
    clawbernetes up --simulate 3x8xH100      three nodes with eight made-up GPUs each\n\n\
    Ctrl-C ends it; workloads that still run are found again by the next start.")]
pub(crate) struct Args {
    /// Submit a sample training job, and show it through to its end
    #[arg(long)]
    demo: bool,
    /// Made-up nodes with made-up GPUs: NODESxGPUSxMODEL, such as 3x8xH100
    #[arg(long, value_name = "NODES")]
    simulate: Option<Simulate>,
    /// The address to listen on; port 0 takes any free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// The folder to keep everything in [default: $XDG_DATA_HOME/clawbernetes/up]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What runs workloads: auto, docker or native
    #[arg(long, default_value_t = Engines::Auto)]
    engine: Engines,
    /// How often machine, GPUs and workloads are measured; at least 1s
    #[arg(long, value_name = "TIME", default_value_t = Span::secs(10), value_parser = sample_interval)]
    sample_interval: Span,
}

/// Made-up nodes.
#[derive(Debug, Clone)]
struct Simulate {
    nodes: u32,
    gpus: SimulatedGpus,
}

impl FromStr for Simulate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("'{text}' isn't NODESxGPUSxMODEL (accepted: 3x8xH100, 2x4xA100-40GB)");
        let (nodes, gpus) = text.split_once('x').ok_or_else(refuse)?;
        let nodes = nodes.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(refuse)?;
        let gpus = gpus.parse().map_err(|error| format!("{}: {error}", refuse()))?;
        Ok(Self { nodes, gpus })
    }
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Outcome {
        if !self.listen.ip().is_loopback() {
            return Err(ApiError::invalid("listen", "up listens on this machine alone")
                .hint("for others: clawbernetes gateway serve and clawbernetes node start")
                .into());
        }
        serving::trace("warn");
        let data = self.data.clone().map_or_else(|| serving::data_dir("up"), Ok)?;
        serving::run(|stop| self.serve(app, data, stop))
    }

    async fn serve(self, app: &App, data: PathBuf, stop: CancellationToken) -> Result<ExitCode, ApiError> {
        let options = Options {
            listen: self.listen,
            data: data.join("gateway"),
            ..Options::default()
        };
        let gateway = serve::start(options).await?;
        let Some(token) = gateway.admin_token.clone() else {
            gateway.stop().await;
            let message = "the admin token of this folder's gateway was revoked";
            return Err(ApiError::new(ErrorCode::AuthFailed, message).hint(format!(
                "make another one: clawbernetes gateway serve --reset-admin-token --data {}; then end it",
                data.join("gateway").display()
            )));
        };
        let url = format!("ws://localhost:{}", gateway.address.port());
        app.out.note(&format!("gateway  {url}  (data in {})", data.display()));
        let agents_stop = stop.child_token();
        let mut agents = self.start_agents(&gateway, &token, &data, &agents_stop);
        let client = Client::new(Endpoint::parse(&url)?, Some(token), Trust::System);
        let wanted = agents.len();
        let used = async {
            wait_for_nodes(app, &client, wanted).await?;
            if self.demo {
                demo::run(app, &client).await?;
            }
            let fleet = client.call::<FleetStatus>(&StatusRequest::default()).await?;
            app.out
                .show(&fleet)
                .map_err(|_| ApiError::internal("the output can't be written"))?;
            app.out.note(&format!(
                "\nup on {url}, until Ctrl-C. In another terminal, for example:"
            ));
            app.out.note("  clawbernetes status");
            app.out
                .note("  clawbernetes run --image host --gpus 0 --timeout 1m --follow --command \"echo hello\"");
            std::future::pending::<Result<(), ApiError>>().await
        };
        let ended = tokio::select! {
            ended = used => ended,
            Some(agent) = agents.join_next() => match agent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error),
                Err(error) => Err(ApiError::internal("the agent broke off").cause(error.to_string())),
            },
            () = stop.cancelled() => Ok(()),
        };
        agents_stop.cancel();
        while agents.join_next().await.is_some() {}
        gateway.stop().await;
        ended.map(|()| ExitCode::SUCCESS)
    }

    fn start_agents(
        &self,
        gateway: &Gateway,
        token: &str,
        data: &Path,
        stop: &CancellationToken,
    ) -> JoinSet<Result<(), ApiError>> {
        let mut agents = JoinSet::new();
        let nodes: Vec<(Option<NodeName>, Option<SimulatedGpus>, PathBuf)> = match &self.simulate {
            None => vec![(None, None, data.join("node"))],
            Some(simulate) => (1..=simulate.nodes)
                .map(|i| {
                    let name = format!("sim-{i}");
                    (Some(NodeName::new(&name)), Some(simulate.gpus.clone()), data.join(name))
                })
                .collect(),
        };
        for (name, simulate, data) in nodes {
            let options = NodeOptions {
                gateway: Some(format!("ws://{}", gateway.address)),
                // An admin's token lets nodes in too, and this one never leaves the process.
                join_token: Some(token.to_owned()),
                name,
                engines: self.engine,
                simulate,
                sample_interval: self.sample_interval.duration(),
                ..NodeOptions::new(data)
            };
            let stop = stop.clone();
            agents.spawn(async move {
                node::start::run(options, stop)
                    .await
                    .map_err(|error| node_error(&error))
            });
        }
        agents
    }
}

/// Waits until as many nodes are online, and says what they are.
async fn wait_for_nodes(app: &App, client: &Client, wanted: usize) -> Result<(), ApiError> {
    loop {
        let nodes = client.call::<NodeList>(&NodeFilter::default()).await?;
        let online = nodes.iter().filter(|n| {
            !matches!(
                n.status,
                NodeStatus::Joining | NodeStatus::Unknown | NodeStatus::Unreachable
            )
        });
        if online.clone().count() >= wanted {
            for node in online {
                let gpus = node.gpus.len();
                let made_up = if node.gpus.iter().any(|g| g.simulated) {
                    " (simulated)"
                } else {
                    ""
                };
                let engine = node.engine.map_or("-", api::node::EngineKind::name);
                app.out.note(&format!(
                    "node     {}  {gpus} GPUs{made_up}, engine {engine}",
                    node.name
                ));
            }
            return Ok(());
        }
        // Nothing tells of a node's first session but the list itself; this is a start, once.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
