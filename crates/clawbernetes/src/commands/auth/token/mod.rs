//! `clawbernetes auth token`

mod create;
mod list;
mod revoke;

use crate::{cli::App, failure::Outcome};

/// What can be done with tokens.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Create(create::Args),
    List(list::Args),
    Revoke(revoke::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::Create(args) => app.block_on(args.run(app)),
            Self::List(args) => app.block_on(args.run(app)),
            Self::Revoke(args) => app.block_on(args.run(app)),
        }
    }
}
