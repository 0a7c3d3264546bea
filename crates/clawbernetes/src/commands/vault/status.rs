//! `clawbernetes vault status`

use std::process::ExitCode;

use api::op::{Empty, VaultGet};

use crate::{cli::App, failure::Outcome};

/// Show which master key seals the secrets, and where it comes from; never the key
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes vault status")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let status = app.client()?.call::<VaultGet>(&Empty {}).await?;
        app.out.show(&status)?;
        Ok(ExitCode::SUCCESS)
    }
}
