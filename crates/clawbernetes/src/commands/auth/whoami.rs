//! `clawbernetes auth whoami`

use std::process::ExitCode;

use api::op::{Empty, WhoAmI};

use crate::{cli::App, failure::Outcome};

/// Show who the gateway takes you for
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes auth whoami --json")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let identity = app.client()?.call::<WhoAmI>(&Empty {}).await?;
        app.out.show(&identity)?;
        Ok(ExitCode::SUCCESS)
    }
}
