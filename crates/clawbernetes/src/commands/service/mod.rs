//! `clawbernetes service`

mod delete;
mod list;
mod status;

use crate::{cli::App, failure::Outcome};

/// What can be done with services.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Status(status::Args),
    Delete(delete::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::List(args) => app.block_on(args.run(app)),
            Self::Status(args) => app.block_on(args.run(app)),
            Self::Delete(args) => app.block_on(args.run(app)),
        }
    }
}
