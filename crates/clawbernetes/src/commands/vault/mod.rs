//! `clawbernetes vault`

mod rekey;
mod status;

use crate::{cli::App, failure::Outcome};

/// What can be done with what seals the secrets.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Status(status::Args),
    Rekey(rekey::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::Status(args) => app.block_on(args.run(app)),
            Self::Rekey(args) => app.block_on(args.run(app)),
        }
    }
}
