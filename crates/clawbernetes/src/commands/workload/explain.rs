//! `clawbernetes workload explain`

use std::process::ExitCode;

use api::op::WorkloadExplain;

use crate::{cli::App, failure::Outcome};

/// Explain why a workload is where it is, or why it isn't placed
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes workload explain gpt-finetune")]
pub(crate) struct Args {
    /// Its id, its name, or the beginning of either
    #[arg(value_name = "WORKLOAD", add = crate::complete::workloads())]
    id: String,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let explanation = client.call::<WorkloadExplain>(&settings.workload(&self.id)).await?;
        app.out.show(&explanation)?;
        Ok(ExitCode::SUCCESS)
    }
}
