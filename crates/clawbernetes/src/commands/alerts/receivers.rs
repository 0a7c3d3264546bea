//! `clawbernetes alerts receivers`

use std::process::ExitCode;

use api::op::{AlertReceivers, Empty};

use crate::{cli::App, failure::Outcome};

/// List who is told of alerts, and whether that works
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes alerts receivers")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let receivers = app.client()?.call::<AlertReceivers>(&Empty {}).await?;
        app.out.show(&receivers)?;
        Ok(ExitCode::SUCCESS)
    }
}
