//! `clawbernetes node start`

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use api::{ApiError, ErrorCode, NodeName, Size, Span};
use node::{
    gpu::simulated::{Scenario, SimulatedGpus},
    start::{Engines, NodeError, NodeOptions},
};

use super::pair;
use crate::{cli::App, failure::Outcome, serving};

/// Run the agent of this machine: finds its GPUs, runs what the gateway wants, reports what it sees
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clawbernetes node start --gateway wss://gateway:9000 --join \"$(clawbernetes auth join-token)\"\n  \
    clawbernetes node start --simulate-gpus 8xH100 --name sim-1 --data ./sim-1 --join TOKEN\n\n\
    A node that joined once starts again from its data folder without a token.\n\
    When the agent ends its workloads run on, and the next start finds them again.")]
pub(crate) struct Args {
    /// The join token: lets this machine in the first time
    #[arg(long, value_name = "TOKEN", env = "CLAWBERNETES_JOIN_TOKEN", hide_env_values = true)]
    join: Option<String>,
    /// The node's name [default: the host's name]
    #[arg(long)]
    name: Option<NodeName>,
    /// What runs workloads: auto, docker or native
    #[arg(long, default_value_t = Engines::Auto)]
    engine: Engines,
    /// A label that the node gives itself
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// The folder to keep everything in [default: $XDG_DATA_HOME/clawbernetes/node]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Made-up GPUs instead of real ones, for learning and tests: 8xH100, 2xL4,4xA100-40GB
    #[arg(long, value_name = "GPUS")]
    simulate_gpus: Option<SimulatedGpus>,
    /// What happens to made-up GPUs over time: a YAML or JSON file
    #[arg(long, value_name = "FILE", requires = "simulate_gpus")]
    simulate_scenario: Option<PathBuf>,
    /// Docker's or Podman's socket [default: DOCKER_HOST, or where it usually is]
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<PathBuf>,
    /// The most disk that output may take while it waits for the gateway
    #[arg(long, value_name = "SIZE", default_value = "1Gi")]
    spool_max: Size,
    /// How often machine, GPUs and workloads are measured; at least 1s
    #[arg(long, value_name = "TIME", default_value_t = Span::secs(10), value_parser = sample_interval)]
    sample_interval: Span,
    /// Answer /metrics in Prometheus' format at this address; without it the agent listens nowhere
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Carry services too: listen at their ports at this address, and pass requests on to replicas wherever they run
    ///
    /// Each service is then reached at this node as it is at the gateway, and also while the gateway is down. The ports
    /// speak what the service speaks, without a token. 127.0.0.1 is for what runs on this node, 0.0.0.0 for everybody.
    #[arg(long, value_name = "IP")]
    service_listen: Option<IpAddr>,
}

/// A time between two measurements.
pub(crate) fn sample_interval(text: &str) -> Result<Span, String> {
    let span: Span = text
        .parse()
        .map_err(|error: api::quantity::QuantityError| error.to_string())?;
    if span < Span::secs(1) {
        return Err("at least 1s".to_owned());
    }
    Ok(span)
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Outcome {
        serving::trace("info");
        let data = self.data.map_or_else(|| serving::data_dir("node"), Ok)?;
        let known = data.join("identity.json").exists();
        // The default address is for a first join: afterwards the node remembers its gateway.
        let gateway = match (&app.globals.gateway, known) {
            (None, true) => None,
            _ => Some(app.settings()?.endpoint.to_string()),
        };
        let scenario = match &self.simulate_scenario {
            Some(path) => read_scenario(path)?,
            None => Scenario::default(),
        };
        let options = NodeOptions {
            gateway,
            join_token: self.join,
            authority: app.globals.ca.clone(),
            insecure: app.globals.insecure,
            name: self.name,
            engines: self.engine,
            labels: self.labels.into_iter().collect::<BTreeMap<_, _>>(),
            simulate: self.simulate_gpus,
            scenario,
            docker_socket: self.docker_socket,
            spool_bytes: self.spool_max.bytes(),
            sample_interval: self.sample_interval.duration(),
            metrics_listen: self.metrics_listen,
            services: self.service_listen,
            ..NodeOptions::new(data)
        };
        serving::run(|stop| async move {
            node::start::run(options, stop)
                .await
                .map_err(|error| node_error(&error))?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn read_scenario(path: &PathBuf) -> Result<Scenario, ApiError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        ApiError::invalid("simulate-scenario", format!("{} can't be read", path.display())).cause(error.to_string())
    })?;
    text.parse()
        .map_err(|error| ApiError::invalid("simulate-scenario", format!("{}: {error}", path.display())))
}

/// An agent's error as it leaves the system.
pub(crate) fn node_error(error: &NodeError) -> ApiError {
    match error {
        NodeError::Agent(error) => error.to_api(),
        NodeError::NoDocker(_) => serving::chain(ErrorCode::InvalidArgument, error)
            .hint("start Docker, name its socket with --docker-socket, or leave --engine out"),
        NodeError::Listen { .. } => {
            serving::chain(ErrorCode::InvalidArgument, error).hint("choose another --metrics-listen")
        }
        NodeError::Scenario(message) => ApiError::invalid("simulate-scenario", message.clone()),
        NodeError::Part { .. } => serving::chain(ErrorCode::Internal, error),
    }
}
