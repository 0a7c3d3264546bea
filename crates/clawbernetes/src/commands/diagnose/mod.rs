//! `clawbernetes diagnose`

mod node;
mod workload;

use crate::{cli::App, failure::Outcome};

/// What can be looked at closely.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Node(node::Args),
    Workload(workload::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::Node(args) => app.block_on(args.run(app)),
            Self::Workload(args) => app.block_on(args.run(app)),
        }
    }
}
