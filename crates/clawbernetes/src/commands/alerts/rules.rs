//! `clawbernetes alerts rules`

use std::process::ExitCode;

use api::op::{AlertRules, Empty};

use crate::{cli::App, failure::Outcome};

/// List what is looked for, and what it sees
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes alerts rules\n  \
    clawbernetes alerts rules --json | jq '.[] | select(.name == \"gpu-thermal\").condition'\n\n\
    Rules of your own, and who is told: clawbernetes gateway serve --alerts FILE (docs/reference/alerts.yaml).")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let rules = app.client()?.call::<AlertRules>(&Empty {}).await?;
        app.out.show(&rules)?;
        Ok(ExitCode::SUCCESS)
    }
}
