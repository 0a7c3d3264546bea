//! `clawbernetes health`

use std::process::ExitCode;

use api::op::{Empty, FleetHealthGet};

use crate::{cli::App, failure::Outcome, output::HealthShown};

/// Tell how the fleet does: a score, what keeps it from 100, and what was found
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes health\n  clawbernetes health --json | jq .score\n  \
    clawbernetes health --json | jq -r '.diagnosis[] | \"\\(.severity) \\(.finding)\"'\n\n\
    It looks at the last 15 minutes of samples and at the errors of the last day; diagnose node looks further.\n\
    Bad health is a result, not a failure: the exit code is 0."
)]
pub(crate) struct Args {
    /// Every deduction and finding in the table, not only the worst; with --json they are all there
    #[arg(long)]
    all: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let health = app.client()?.call::<FleetHealthGet>(&Empty {}).await?;
        app.out.show(&HealthShown { health, all: self.all })?;
        Ok(ExitCode::SUCCESS)
    }
}
