//! `clawbernetes gateway`

mod ping;
pub(crate) mod serve;

use crate::{cli::App, failure::Outcome};

/// What can be done with a gateway.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Serve(Box<serve::Args>),
    Ping(ping::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::Serve(args) => args.run(app),
            Self::Ping(args) => app.block_on(args.run(app)),
        }
    }
}
