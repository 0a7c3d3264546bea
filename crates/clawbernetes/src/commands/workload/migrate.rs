//! `clawbernetes workload migrate`

use std::process::ExitCode;

use api::op::{MigrateRequest, WorkloadMigrate};

use crate::{cli::App, failure::Outcome, output::Format};

/// Stop a workload with its grace period, and start it on another node
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes workload migrate gpt-finetune\n  clawbernetes workload migrate gpt-finetune --target gpu-3"
)]
pub(crate) struct Args {
    /// Its id, its name, or the beginning of either
    #[arg(value_name = "WORKLOAD", add = crate::complete::workloads())]
    id: String,
    /// Where to [default: any node but the one that it is on]
    #[arg(long, value_name = "NODE", add = crate::complete::nodes())]
    target: Option<String>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let request = MigrateRequest {
            id: self.id,
            namespace: settings.named_namespace(),
            target: self.target.clone(),
        };
        let workload = client.call::<WorkloadMigrate>(&request).await?;
        if app.out.format == Format::Table {
            let to = self.target.unwrap_or_else(|| "another node".to_owned());
            app.out
                .done(&format!("{} ({}) is moving to {to}", workload.id, workload.name))?;
        } else {
            app.out.show(&workload)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
