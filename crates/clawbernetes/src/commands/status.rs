//! `clawbernetes status`

use std::process::ExitCode;

use api::op::{FleetStatus, StatusRequest};

use crate::{cli::App, failure::Outcome, output::Format};

/// Show the fleet: nodes, GPUs, and the workloads that haven't ended
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes status\n  clawbernetes status --json | jq .cluster.availableGPUs")]
pub(crate) struct Args {
    /// Every node and workload in the table, not only the 40 that need a look most; with --json they are all there
    #[arg(long)]
    all: bool,
}

/// Rows of each table: what a person still reads.
const ROWS: u32 = 40;

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let rows = (app.out.format == Format::Table && !self.all).then_some(ROWS);
        let request = StatusRequest { rows };
        let fleet = app.client()?.call::<FleetStatus>(&request).await?;
        app.out.show(&fleet)?;
        Ok(ExitCode::SUCCESS)
    }
}
