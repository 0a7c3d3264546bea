//! `clawbernetes metrics list`

use std::process::ExitCode;

use api::op::{Empty, MetricsList};

use crate::{cli::App, failure::Outcome};

/// List the metrics that there are, with unit and number of series
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes metrics list\n  clawbernetes metrics list -o name")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let metrics = app.client()?.call::<MetricsList>(&Empty {}).await?;
        app.out.show(&metrics)?;
        Ok(ExitCode::SUCCESS)
    }
}
