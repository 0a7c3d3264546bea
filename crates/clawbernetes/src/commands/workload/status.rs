//! `clawbernetes workload status`

use std::process::ExitCode;

use api::op::WorkloadGet;

use crate::{cli::App, failure::Outcome};

/// Show a workload: what was asked, where it is, every step so far, and why it waits
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes workload status gpt-finetune\n  clawbernetes workload status wl-7k2 --json | jq .phase"
)]
pub(crate) struct Args {
    /// Its id, its name, or the beginning of either
    #[arg(value_name = "WORKLOAD", add = crate::complete::workloads())]
    id: String,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let detail = client.call::<WorkloadGet>(&settings.workload(&self.id)).await?;
        app.out.show(&detail)?;
        Ok(ExitCode::SUCCESS)
    }
}
