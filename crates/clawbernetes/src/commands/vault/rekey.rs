//! `clawbernetes vault rekey`

use std::process::ExitCode;

use api::op::{Empty, VaultGet, VaultRekey};

use crate::{cli::App, failure::Outcome, terminal};

/// Seal all keys under a new master key; the values themselves aren't touched
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes vault rekey --yes")]
pub(crate) struct Args {
    /// Don't ask
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let client = app.client()?;
        if !self.yes {
            let now = client.call::<VaultGet>(&Empty {}).await?;
            let question = format!(
                "Seal {} keys under a new master key in place of {}? Copies of the old one open nothing that is sealed \
                 from then on.",
                now.sealed + now.sealed_by_old,
                now.key
            );
            terminal::confirm(&question, false, "--yes")?;
        }
        let status = client.call::<VaultRekey>(&Empty {}).await?;
        app.out.show(&status)?;
        Ok(ExitCode::SUCCESS)
    }
}
