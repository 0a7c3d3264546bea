//! `clawbernetes node info`

use std::process::ExitCode;

use api::op::{NodeGet, NodeRef};

use crate::{cli::App, failure::Outcome};

/// Show a node: hardware, GPUs and their links, utilization, workloads, connectivity, conditions
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes node info gpu-7\n  clawbernetes node info gpu-7 --json | jq .conditions"
)]
pub(crate) struct Args {
    /// Its name, or the beginning of it
    #[arg(value_name = "NODE", add = crate::complete::nodes())]
    id: String,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let node = app.client()?.call::<NodeGet>(&NodeRef { id: self.id }).await?;
        app.out.show(&node)?;
        Ok(ExitCode::SUCCESS)
    }
}
