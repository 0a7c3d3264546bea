//! `clawbernetes gateway`

mod ping;

use crate::{cli::App, failure::Outcome};

/// What can be done with a gateway.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Ping(ping::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::Ping(args) => app.block_on(args.run(app)),
        }
    }
}
