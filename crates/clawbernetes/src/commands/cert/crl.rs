//! `clawbernetes cert crl`

use std::process::ExitCode;

use api::op::{CertCrl, Empty};

use crate::{cli::App, failure::Outcome};

/// Print the signed list of revoked certificates
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes cert crl > fleet.crl\n  openssl crl -in fleet.crl -noout -text\n  \
    clawbernetes cert crl --json | jq .nextUpdate"
)]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let list = app.client()?.call::<CertCrl>(&Empty {}).await?;
        app.out.show(&list)?;
        Ok(ExitCode::SUCCESS)
    }
}
