//! `clawbernetes node remove`

use std::process::ExitCode;

use api::op::{NodeGet, NodeRef, NodeRemove, RemoveRequest};

use crate::{cli::App, failure::Outcome, terminal};

/// Remove a node from the fleet; its credential stops working
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes node drain gpu-7 && clawbernetes node remove gpu-7\n  \
    clawbernetes node remove gpu-7 --force"
)]
pub(crate) struct Args {
    /// Its name, or the beginning of it
    #[arg(value_name = "NODE", add = crate::complete::nodes())]
    id: String,
    /// Even though workloads run there: they are lost. Doesn't ask
    #[arg(long)]
    force: bool,
    /// Don't ask
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let client = app.client()?;
        let node = client.call::<NodeGet>(&NodeRef { id: self.id.clone() }).await?;
        let question = format!("Remove {} from the fleet?", node.view.name);
        terminal::confirm(&question, self.yes || self.force, "--yes")?;
        let request = RemoveRequest {
            id: node.view.id.to_string(),
            force: self.force,
        };
        let node = client.call::<NodeRemove>(&request).await?;
        if app.out.for_programs() {
            app.out.show(&node)?;
        } else {
            app.out.print(&format!("{} is removed\n", node.view.name))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
