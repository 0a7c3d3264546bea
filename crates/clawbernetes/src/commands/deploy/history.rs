//! `clawbernetes deploy history`

use std::process::ExitCode;

use api::{
    ApiError,
    op::{DeployFilter, DeployList},
};

use crate::{
    cli::App,
    failure::Outcome,
    output::{Format, History},
};

/// Show a service's past: each deployment's version, strategy, duration, outcome, and who asked for it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes deploy history model-server --limit 5\n  \
    clawbernetes deploy history model-server --include-failed\n  \
    clawbernetes deploy history model-server --json | jq -r '.[].version'")]
pub(crate) struct Args {
    /// The service's or batch job's name
    #[arg(value_name = "NAME", add = crate::complete::services())]
    name: String,
    /// At most this many, the newest
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Those that failed or were rolled back too
    #[arg(long)]
    include_failed: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let filter = DeployFilter {
            namespace: settings.named_namespace(),
            workload: Some(self.name.clone()),
            running: false,
            successful: !self.include_failed,
            limit: Some(self.limit),
        };
        let deployments = client.call::<DeployList>(&filter).await?;
        if deployments.is_empty() {
            let failed = DeployFilter {
                successful: false,
                limit: Some(1),
                ..filter
            };
            if self.include_failed || client.call::<DeployList>(&failed).await?.is_empty() {
                let message = format!("there are no deployments of '{}'", self.name);
                return Err(ApiError::not_found(message)
                    .hint("see the services with: clawbernetes service list")
                    .into());
            }
            app.out.note(&format!(
                "none succeeded so far; see the others with: clawbernetes deploy history {} --include-failed",
                self.name
            ));
        }
        if !deployments.is_empty() || app.out.format != Format::Table {
            app.out.show(&History(deployments))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
