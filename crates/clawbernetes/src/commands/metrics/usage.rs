//! `clawbernetes metrics usage`

use std::process::ExitCode;

use api::op::{Empty, MetricsUsed};

use crate::{cli::App, failure::Outcome};

/// Show what metrics take on the gateway's disk, how far back they go, and what wasn't kept
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes metrics usage --json | jq .diskBytes")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let usage = app.client()?.call::<MetricsUsed>(&Empty {}).await?;
        app.out.show(&usage)?;
        Ok(ExitCode::SUCCESS)
    }
}
