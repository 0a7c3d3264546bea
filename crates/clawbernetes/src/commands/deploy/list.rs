//! `clawbernetes deploy list`

use std::process::ExitCode;

use api::op::{DeployFilter, DeployList};

use crate::{cli::App, failure::Outcome, output::Format};

/// List deployments, newest first: those under way, or all of them
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes deploy list\n  clawbernetes deploy list --all --limit 20\n  \
    clawbernetes deploy list --all -A --json | jq -r '.[] | select(.phase == \"rolled-back\") | .id'"
)]
pub(crate) struct Args {
    /// Those that have ended too
    #[arg(long, short = 'a')]
    all: bool,
    /// At most this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Those of all namespaces, even where one is named by the context
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let filter = DeployFilter {
            namespace: if self.all_namespaces {
                None
            } else {
                settings.named_namespace()
            },
            workload: None,
            running: !self.all,
            successful: false,
            limit: self.limit,
        };
        let deployments = client.call::<DeployList>(&filter).await?;
        if deployments.is_empty() && !self.all && app.out.format == Format::Table {
            app.out
                .done("No deployment is under way. Those that have ended: clawbernetes deploy list --all")?;
        } else {
            app.out.show(&deployments)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
