//! `clawbernetes workload wait`

use std::process::ExitCode;

use api::{
    ApiError, ErrorCode, Span,
    op::{WorkloadGet, WorkloadRef},
};

use super::watch::{interruptible, own_status, report_end, until_ended};
use crate::{cli::App, failure::Outcome};

/// Wait for workloads to end; exits with the workload's own code, 125 if it never started
///
/// With several workloads, exits with the first code that isn't 0.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes workload wait gpt-finetune && echo trained\n  clawbernetes workload wait wl-7k2 --timeout 2h"
)]
pub(crate) struct Args {
    /// Their ids, names, or the beginnings of either
    #[arg(value_name = "WORKLOAD", required = true, add = crate::complete::workloads())]
    ids: Vec<String>,
    /// Give up after this long (exit status 7); the workloads run on
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let ids = self.ids.join(" ");
        let all = async {
            let mut ended = Vec::with_capacity(self.ids.len());
            let mut status = ExitCode::SUCCESS;
            let mut failed = false;
            // All names are looked up first: a wrong one is told now, not after hours.
            let mut found = Vec::with_capacity(self.ids.len());
            for id in &self.ids {
                found.push(client.call::<WorkloadGet>(&settings.workload(id)).await?.workload.id);
            }
            for id in found {
                let request = WorkloadRef {
                    id: id.to_string(),
                    namespace: None,
                };
                let detail = until_ended(&client, &request).await?;
                let own = report_end(app, &detail.workload)?;
                if !failed && own_status(&detail.workload) != 0 {
                    status = own;
                    failed = true;
                }
                ended.push(detail);
            }
            if app.out.for_programs() {
                match ended.as_slice() {
                    [one] => app.out.data(one)?,
                    several => app.out.data(several)?,
                }
            }
            Ok(status)
        };
        let limited = async {
            match self.timeout {
                None => all.await,
                Some(limit) => match tokio::time::timeout(limit.duration(), all).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(
                        ApiError::new(ErrorCode::TimedOut, format!("{ids} hasn't ended within {limit}"))
                            .hint(format!("it runs on; see it with: clawbernetes workload status {ids}"))
                            .into(),
                    ),
                },
            }
        };
        interruptible(app, &ids, limited).await
    }
}
