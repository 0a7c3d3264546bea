//! `clawbernetes audit`

mod list;
mod verify;

use crate::{cli::App, failure::Outcome};

/// What can be done with the audit log.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Verify(verify::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::List(args) => app.block_on(args.run(app)),
            Self::Verify(args) => app.block_on(args.run(app)),
        }
    }
}
