//! `clawbernetes cert list`

use std::process::ExitCode;

use api::{
    Span,
    op::{CertFilter, CertList},
};

use crate::{cli::App, failure::Outcome};

/// List certificates, with how each stands and until when it holds
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes cert list\n  clawbernetes cert list --expiring 30d -o name\n  \
    clawbernetes cert list --all"
)]
pub(crate) struct Args {
    /// Only those that end within this time
    #[arg(long, value_name = "DURATION")]
    expiring: Option<Span>,
    /// Those of nodes and of the gateway too, which renew themselves
    #[arg(long)]
    all: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let filter = CertFilter {
            expiring: self.expiring,
            all: self.all,
        };
        let certs = app.client()?.call::<CertList>(&filter).await?;
        app.out.show(&certs)?;
        Ok(ExitCode::SUCCESS)
    }
}
