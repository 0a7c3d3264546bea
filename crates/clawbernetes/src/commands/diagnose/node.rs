//! `clawbernetes diagnose node`

use std::process::ExitCode;

use api::{
    Span,
    op::{DiagnoseNodeRequest, NodeDiagnose},
};

use crate::{cli::App, failure::Outcome};

/// Look closely at a node: heat, memory pressure, errors of the last day, trends
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes diagnose node gpu-7\n  \
    clawbernetes diagnose node gpu-7 --history 24h --verbose\n  \
    clawbernetes diagnose node gpu-7 --json | jq '.findings[] | {finding, severity, commands}'")]
pub(crate) struct Args {
    /// Its name, or the beginning of it
    #[arg(value_name = "NODE", add = crate::complete::nodes())]
    id: String,
    /// How far back samples are looked at, 1m to 7d; errors are those of the last day
    #[arg(long, value_name = "DURATION", default_value_t = Span::secs(3_600))]
    history: Span,
    /// With the figures of each metric, and what couldn't be checked
    #[arg(long, short)]
    verbose: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let request = DiagnoseNodeRequest {
            id: self.id,
            history: Some(self.history),
            verbose: self.verbose,
        };
        let found = app.client()?.call::<NodeDiagnose>(&request).await?;
        app.out.show(&found)?;
        Ok(ExitCode::SUCCESS)
    }
}
