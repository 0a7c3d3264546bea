//! `clawbernetes diagnose workload`

use std::process::ExitCode;

use api::op::{DiagnoseWorkloadRequest, WorkloadDiagnose};

use crate::{cli::App, failure::Outcome};

/// Look closely at a workload: what it uses, its errors, its speed, and what holds it up
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes diagnose workload gpt-finetune --recommendations\n  \
    clawbernetes diagnose workload gpt-finetune --compare wl-7k2\n  \
    clawbernetes diagnose workload gpt-finetune --json | jq .bottleneck.class\n\n\
    A running workload's last attempt is looked at, up to a day back; an ended one's up to its end."
)]
pub(crate) struct Args {
    /// Its id, its name, or the beginning of either
    #[arg(value_name = "WORKLOAD", add = crate::complete::workloads())]
    id: String,
    /// Another run, to be put beside it
    #[arg(long, value_name = "WORKLOAD", add = crate::complete::workloads())]
    compare: Option<String>,
    /// With what to do, each with the command that does it
    #[arg(long)]
    recommendations: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let request = DiagnoseWorkloadRequest {
            id: self.id,
            namespace: settings.named_namespace(),
            compare: self.compare,
            recommendations: self.recommendations,
        };
        let found = client.call::<WorkloadDiagnose>(&request).await?;
        app.out.show(&found)?;
        Ok(ExitCode::SUCCESS)
    }
}
