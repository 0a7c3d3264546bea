//! `clawbernetes audit verify`

use std::process::ExitCode;

use api::op::{AuditVerify, Empty};

use crate::{cli::App, failure::Outcome};

/// Check that no record of the audit log was changed, removed, added or moved; exits with 1 where one was
///
/// Keep the head elsewhere: a log that was cut off or written anew as a whole has another one, or a lower last record.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes audit verify\n  clawbernetes audit verify --json | jq -r .head >> /mnt/elsewhere/heads"
)]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let verdict = app.client()?.call::<AuditVerify>(&Empty {}).await?;
        app.out.show(&verdict)?;
        Ok(if verdict.intact {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
