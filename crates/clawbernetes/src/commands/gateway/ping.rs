//! `clawbernetes gateway ping`

use std::{process::ExitCode, time::Instant};

use api::op::{Empty, GatewayPing};

use crate::{cli::App, failure::Outcome, output::Reported};

/// Show whether the gateway answers: round trip, version, leader, store
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes gateway ping\n  clawbernetes gateway ping --gateway ws://gpu-head:9000"
)]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let client = app.client()?;
        let begun = Instant::now();
        let ping = client.call::<GatewayPing>(&Empty {}).await?;
        app.out.show(&Reported {
            gateway: client.endpoint().to_string(),
            round_trip_ms: begun.elapsed().as_secs_f64() * 1000.0,
            ping,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
