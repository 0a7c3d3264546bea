//! `clawbernetes auth join-token`

use std::process::ExitCode;

use api::{
    Span,
    op::{JoinTokenCreate, JoinTokenRequest},
};

use crate::{cli::App, failure::Outcome};

/// Make a token with which nodes can join; prints the token alone
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes node start --gateway ws://gpu-head:9000 --join \"$(clawbernetes auth join-token)\"\n  \
    clawbernetes auth join-token --expires 15m --uses 1"
)]
pub(crate) struct Args {
    /// How long it works
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    expires: Span,
    /// How many nodes may join with it [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let request = JoinTokenRequest {
            expires: self.expires,
            uses: self.uses,
        };
        let token = app.client()?.call::<JoinTokenCreate>(&request).await?;
        app.out.show(&token)?;
        Ok(ExitCode::SUCCESS)
    }
}
