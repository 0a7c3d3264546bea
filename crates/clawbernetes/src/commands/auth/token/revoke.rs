//! `clawbernetes auth token revoke`

use std::process::ExitCode;

use api::op::{TokenRef, TokenRevoke};

use crate::{cli::App, failure::Outcome, terminal};

/// End a token's life at once
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes auth token revoke alice --yes")]
pub(crate) struct Args {
    /// Its id, or the identity that it stands for where only one token does
    #[arg(add = crate::complete::tokens())]
    id: String,
    /// Don't ask
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let client = app.client()?;
        let question = format!("Revoke the token {}? Whoever uses it is locked out at once.", self.id);
        terminal::confirm(&question, self.yes, "--yes")?;
        let info = client.call::<TokenRevoke>(&TokenRef { id: self.id }).await?;
        app.out.show(&info)?;
        Ok(ExitCode::SUCCESS)
    }
}
