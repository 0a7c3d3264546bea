//! `clawbernetes workload`

mod cancel;
mod exec;
mod explain;
mod list;
mod logs;
mod migrate;
mod status;
mod update;
mod usage;
mod wait;
pub(super) mod watch;

pub(super) use logs::{Args as LogsArgs, stream as stream_logs};

use crate::{cli::App, failure::Outcome};

/// What can be done with workloads.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Status(status::Args),
    Logs(Box<logs::Args>),
    Wait(wait::Args),
    Cancel(cancel::Args),
    Exec(exec::Args),
    Update(update::Args),
    Migrate(migrate::Args),
    Explain(explain::Args),
    Usage(usage::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::List(args) => app.block_on(args.run(app)),
            Self::Status(args) => app.block_on(args.run(app)),
            Self::Logs(args) => app.block_on(args.run(app)),
            Self::Wait(args) => app.block_on(args.run(app)),
            Self::Cancel(args) => app.block_on(args.run(app)),
            Self::Exec(args) => app.block_on(args.run(app)),
            Self::Update(args) => app.block_on(args.run(app)),
            Self::Migrate(args) => app.block_on(args.run(app)),
            Self::Explain(args) => app.block_on(args.run(app)),
            Self::Usage(args) => app.block_on(args.run(app)),
        }
    }
}
