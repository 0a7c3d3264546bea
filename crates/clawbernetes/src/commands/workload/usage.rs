//! `clawbernetes workload usage`

use std::process::ExitCode;

use api::{
    Span,
    op::{UsageRequest, WorkloadUsage},
};

use crate::{cli::App, failure::Outcome};

/// Sum up GPU-hours
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes workload usage\n  clawbernetes workload usage --by label:team --last 7d"
)]
pub(crate) struct Args {
    /// Sum by this: owner, node, or label:KEY
    #[arg(long, value_name = "BY", default_value = "owner", value_parser = by)]
    by: String,
    /// From when on
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    last: Span,
}

fn by(text: &str) -> Result<String, String> {
    match text {
        "owner" | "node" => Ok(text.to_owned()),
        "label" => Err("name the label: label:KEY, as in label:team".to_owned()),
        _ if text.strip_prefix("label:").is_some_and(|key| !key.is_empty()) => Ok(text.to_owned()),
        _ => Err("accepted: owner, node, label:KEY".to_owned()),
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let request = UsageRequest {
            by: Some(self.by),
            last: Some(self.last),
        };
        let rows = app.client()?.call::<WorkloadUsage>(&request).await?;
        app.out.show(&rows)?;
        Ok(ExitCode::SUCCESS)
    }
}
