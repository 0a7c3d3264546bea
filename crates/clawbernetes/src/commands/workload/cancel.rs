//! `clawbernetes workload cancel`

use std::process::ExitCode;

use api::{
    Span,
    op::{CancelRequest, WorkloadCancel},
};

use crate::{cli::App, failure::Outcome};

/// Cancel workloads: waiting ones at once, running ones with their grace period
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes workload cancel gpt-finetune\n  clawbernetes workload cancel wl-7k2 wl-9qd --grace 0s\n  \
    clawbernetes workload cancel $(clawbernetes workload list --pending --mine -o name)"
)]
pub(crate) struct Args {
    /// Their ids, names, or the beginnings of either
    #[arg(value_name = "WORKLOAD", required = true, add = crate::complete::workloads())]
    ids: Vec<String>,
    /// Time between SIGTERM and SIGKILL [default: the workload's own]
    #[arg(long, value_name = "DURATION")]
    grace: Option<Span>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let request = CancelRequest {
            ids: self.ids,
            namespace: settings.named_namespace(),
            grace: self.grace,
        };
        let workloads = client.call::<WorkloadCancel>(&request).await?;
        if app.out.format != crate::output::Format::Table {
            app.out.show(&workloads)?;
            return Ok(ExitCode::SUCCESS);
        }
        for workload in &workloads {
            let state = if workload.phase.ended() { "is" } else { "is being" };
            app.out
                .done(&format!("{} ({}) {state} cancelled", workload.id, workload.name))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
