//! `clawbernetes context`

mod list;
mod set;
mod use_;

use crate::{cli::App, failure::Outcome};

/// What can be done with contexts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Use(use_::Args),
    Set(set::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::List(args) => args.run(app),
            Self::Use(args) => args.run(app),
            Self::Set(args) => args.run(app),
        }
    }
}
