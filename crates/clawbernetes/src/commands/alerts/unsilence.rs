//! `clawbernetes alerts unsilence`

use std::process::ExitCode;

use api::op::{AlertSilenceEnd, SilenceRef};

use crate::{cli::App, failure::Outcome};

/// End a silence before its time
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes alerts unsilence sil-3f0c9a")]
pub(crate) struct Args {
    /// Its id, or the beginning of it where only one fits
    #[arg(add = crate::complete::silences())]
    id: String,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let silence = app
            .client()?
            .call::<AlertSilenceEnd>(&SilenceRef { id: self.id })
            .await?;
        app.out.show(&silence)?;
        Ok(ExitCode::SUCCESS)
    }
}
