//! `clawbernetes workload update`

use std::process::ExitCode;

use api::{
    Size, Span,
    op::{UpdateRequest, WorkloadUpdate},
};

use crate::{cli::App, commands::run::PriorityName, failure::Outcome, output::Format};

/// Change a workload's memory, timeout or priority
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("change").required(true).multiple(true).args(["memory", "timeout", "priority"]),
    after_help = "Examples:\n  clawbernetes workload update gpt-finetune --timeout 72h\n  \
        clawbernetes workload update gpt-finetune --memory 128Gi --priority high"
)]
pub(crate) struct Args {
    /// Its id, its name, or the beginning of either
    #[arg(value_name = "WORKLOAD", add = crate::complete::workloads())]
    id: String,
    /// New memory limit; of a running workload it changes in place where its node has the room
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// New timeout, counted from the start of the attempt; 0 means none
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// New priority
    #[arg(long, value_enum, value_name = "LEVEL")]
    priority: Option<PriorityName>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let request = UpdateRequest {
            id: self.id,
            namespace: settings.named_namespace(),
            memory: self.memory,
            timeout: self.timeout,
            priority: self.priority.map(Into::into),
        };
        let workload = client.call::<WorkloadUpdate>(&request).await?;
        if app.out.format == Format::Table {
            app.out
                .done(&format!("{} ({}) is updated", workload.id, workload.name))?;
        } else {
            app.out.show(&workload)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
