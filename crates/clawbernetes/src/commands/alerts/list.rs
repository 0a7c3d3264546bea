//! `clawbernetes alerts list`

use std::process::ExitCode;

use api::op::{AlertFilter, AlertList};

use crate::{cli::App, failure::Outcome};

/// List the alerts that fire, the worst first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes alerts list\n  clawbernetes alerts list --all --node gpu-7\n  \
    clawbernetes alerts list --json | jq -r '.[] | .summary, .commands[]'"
)]
pub(crate) struct Args {
    /// Pending ones too, and those resolved within the last day
    #[arg(long, short = 'a')]
    all: bool,
    /// Only those about this node, or something on it
    #[arg(long, value_name = "NODE", add = crate::complete::nodes())]
    node: Option<String>,
    /// Only those of this rule
    #[arg(long, value_name = "RULE", add = crate::complete::alert_rules())]
    rule: Option<String>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let filter = AlertFilter {
            all: self.all,
            node: self.node,
            rule: self.rule,
        };
        let alerts = app.client()?.call::<AlertList>(&filter).await?;
        app.out.show(&alerts)?;
        Ok(ExitCode::SUCCESS)
    }
}
