//! `clawbernetes service list`

use std::process::ExitCode;

use api::op::{ServiceFilter, ServiceList};

use crate::{cli::App, failure::Outcome};

/// List services with their version, replicas and address
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes service list\n  clawbernetes service list -n prod\n  \
    clawbernetes service list -A --json | jq -r '.[] | select(.ready < .replicas) | .name'"
)]
pub(crate) struct Args {
    /// Those of all namespaces, even where one is named by the context
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let namespace = if self.all_namespaces {
            None
        } else {
            settings.named_namespace()
        };
        let services = client.call::<ServiceList>(&ServiceFilter { namespace }).await?;
        app.out.show(&services)?;
        Ok(ExitCode::SUCCESS)
    }
}
