//! `clawbernetes alerts silences`

use std::process::ExitCode;

use api::op::{AlertSilenceList, SilenceFilter};

use crate::{cli::App, failure::Outcome};

/// List silences, and how many alerts each holds back
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes alerts silences\n  clawbernetes alerts silences --all")]
pub(crate) struct Args {
    /// Those too that ended within the last day
    #[arg(long, short = 'a')]
    all: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let filter = SilenceFilter { all: self.all };
        let silences = app.client()?.call::<AlertSilenceList>(&filter).await?;
        app.out.show(&silences)?;
        Ok(ExitCode::SUCCESS)
    }
}
