//! `clawbernetes alerts`

mod list;
mod receivers;
mod rules;
mod silence;
mod silences;
mod unsilence;

use crate::{cli::App, failure::Outcome};

/// What can be done with alerts.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Silence(silence::Args),
    Silences(silences::Args),
    Unsilence(unsilence::Args),
    Rules(rules::Args),
    Receivers(receivers::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::List(args) => app.block_on(args.run(app)),
            Self::Silence(args) => app.block_on(args.run(app)),
            Self::Silences(args) => app.block_on(args.run(app)),
            Self::Unsilence(args) => app.block_on(args.run(app)),
            Self::Rules(args) => app.block_on(args.run(app)),
            Self::Receivers(args) => app.block_on(args.run(app)),
        }
    }
}
