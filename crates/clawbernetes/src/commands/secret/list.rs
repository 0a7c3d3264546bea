//! `clawbernetes secret list`

use std::process::ExitCode;

use api::op::{SecretFilter, SecretList};

use crate::{cli::App, failure::Outcome};

/// List secrets, without their values
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes secret list\n  clawbernetes secret list -n prod\n  \
    clawbernetes secret list -A --json | jq -r '.[] | select(.expiresAt) | .name'"
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
        let secrets = client.call::<SecretList>(&SecretFilter { namespace }).await?;
        app.out.show(&secrets)?;
        Ok(ExitCode::SUCCESS)
    }
}
