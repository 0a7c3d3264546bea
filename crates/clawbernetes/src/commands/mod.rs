//! The commands: one file each, its path spelling the command.

mod alerts;
mod audit;
mod auth;
mod cert;
mod completions;
mod context;
mod deploy;
mod diagnose;
mod events;
mod gateway;
mod health;
mod man;
mod metrics;
mod node;
mod run;
mod secret;
mod service;
mod status;
mod top;
mod up;
mod vault;
mod workload;

use crate::{cli::App, failure::Outcome};

/// What can be done.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Up(up::Args),
    Status(status::Args),
    Health(health::Args),
    /// What is wrong with a node or a workload, on what evidence, and what helps
    #[command(subcommand)]
    Diagnose(diagnose::Command),
    Top(top::Args),
    Run(Box<run::Args>),
    /// Workloads: see, wait for, stop, move and explain them
    #[command(subcommand, visible_alias = "wl")]
    Workload(workload::Command),
    Logs(Box<workload::LogsArgs>),
    Deploy(Box<deploy::Args>),
    /// Services: what deployments have made, and where it is reached
    #[command(subcommand)]
    Service(service::Command),
    /// Nodes: see them, empty them, mark them
    #[command(subcommand)]
    Node(node::Command),
    Events(events::Args),
    /// Alerts: see what fires, hold back what is known
    #[command(subcommand)]
    Alerts(alerts::Command),
    Metrics(metrics::Args),
    /// Secrets: keep them, give them to workloads, change them
    #[command(subcommand)]
    Secret(secret::Command),
    /// Certificates of the fleet's own authority
    #[command(subcommand)]
    Cert(cert::Command),
    /// Who did what, and what was refused
    #[command(subcommand)]
    Audit(audit::Command),
    /// What seals the secrets
    #[command(subcommand)]
    Vault(vault::Command),
    /// The gateway: the fleet's control plane
    #[command(subcommand)]
    Gateway(gateway::Command),
    /// Identities and tokens
    #[command(subcommand)]
    Auth(auth::Command),
    /// Named gateways, with token and namespace
    #[command(subcommand)]
    Context(context::Command),
    #[command(visible_alias = "completion")]
    Completions(completions::Args),
    Man(man::Args),
    #[command(hide = true)]
    DemoTrain(up::train::Args),
}

impl Command {
    /// Does it.
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::Up(args) => args.run(app),
            Self::DemoTrain(args) => args.run(app),
            Self::Status(args) => app.block_on(args.run(app)),
            Self::Health(args) => app.block_on(args.run(app)),
            Self::Diagnose(command) => command.run(app),
            Self::Top(args) => args.run(app),
            Self::Run(args) => app.block_on(args.run(app)),
            Self::Workload(command) => command.run(app),
            Self::Logs(args) => app.block_on(args.run(app)),
            Self::Deploy(args) => app.block_on(args.run(app)),
            Self::Service(command) => command.run(app),
            Self::Node(command) => command.run(app),
            Self::Events(args) => app.block_on(args.run(app)),
            Self::Alerts(command) => command.run(app),
            Self::Metrics(args) => app.block_on(args.run(app)),
            Self::Secret(command) => command.run(app),
            Self::Cert(command) => command.run(app),
            Self::Audit(command) => command.run(app),
            Self::Vault(command) => command.run(app),
            Self::Gateway(command) => command.run(app),
            Self::Auth(command) => command.run(app),
            Self::Context(command) => command.run(app),
            Self::Completions(args) => args.run(app),
            Self::Man(args) => args.run(app),
        }
    }
}
