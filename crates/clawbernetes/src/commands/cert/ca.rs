//! `clawbernetes cert ca`

use std::process::ExitCode;

use api::op::{CertCa, Empty};

use crate::{cli::App, failure::Outcome, output::Format};

/// Print the authority's certificate: what others trust
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes cert ca > ca.crt\n  openssl verify -CAfile ca.crt -untrusted tls/api.chain.crt tls/api.crt\n  \
    clawbernetes cert ca --fingerprint"
)]
pub(crate) struct Args {
    /// Its SHA-256 alone, in hex: what join tokens carry
    #[arg(long)]
    fingerprint: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let authority = app.client()?.call::<CertCa>(&Empty {}).await?;
        if self.fingerprint && app.out.format == Format::Table {
            app.out.print(&format!("{}\n", authority.fingerprint))?;
        } else {
            app.out.show(&authority)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
