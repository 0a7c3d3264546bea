//! `clawbernetes auth token list`

use std::process::ExitCode;

use api::op::{Empty, TokenList};

use crate::{cli::App, failure::Outcome};

/// List the tokens, without the tokens themselves
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes auth token list")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let tokens = app.client()?.call::<TokenList>(&Empty {}).await?;
        app.out.show(&tokens)?;
        Ok(ExitCode::SUCCESS)
    }
}
