//! `clawbernetes node list`

use std::process::ExitCode;

use api::op::{NodeFilter, NodeList};

use crate::{cli::App, failure::Outcome, output::Format};

/// List the nodes with their GPUs
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes node list --available --gpu-type H100\n  \
    clawbernetes node list --json | jq '.[] | select(.status != \"healthy\")'")]
pub(crate) struct Args {
    /// Only nodes with free GPUs
    #[arg(long)]
    available: bool,
    /// Only nodes with GPUs of this model, matched by whole words (A100, H100)
    #[arg(long, value_name = "TYPE")]
    gpu_type: Option<String>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let filter = NodeFilter {
            available: self.available,
            gpu_type: self.gpu_type,
        };
        let filtered = filter != NodeFilter::default();
        let nodes = app.client()?.call::<NodeList>(&filter).await?;
        if nodes.is_empty() && filtered && app.out.format == Format::Table {
            app.out
                .done("No node has such GPUs. All nodes: clawbernetes node list")?;
        } else {
            app.out.show(&nodes)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
