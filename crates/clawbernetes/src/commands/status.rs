//! `clawbernetes status`

use std::process::ExitCode;

use api::op::{Empty, FleetStatus};

use crate::{cli::App, failure::Outcome};

/// Show the fleet: nodes, GPUs, and the workloads that haven't ended
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes status\n  clawbernetes status --json | jq .cluster.availableGPUs")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let fleet = app.client()?.call::<FleetStatus>(&Empty {}).await?;
        app.out.show(&fleet)?;
        Ok(ExitCode::SUCCESS)
    }
}
