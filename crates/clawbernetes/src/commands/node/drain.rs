//! `clawbernetes node drain`

use std::process::ExitCode;

use api::{
    Span,
    op::{DrainRequest, NodeDrain, NodeGet, NodeRef},
};

use crate::{cli::App, failure::Outcome, terminal};

/// Keep new work off a node, and empty it
///
/// What runs there may finish, unless --force stops it now or --timeout stops it later; it starts elsewhere where it
/// may.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes node drain gpu-7\n  clawbernetes node drain gpu-7 --timeout 2h\n  \
    clawbernetes node drain gpu-7 --force --yes"
)]
pub(crate) struct Args {
    /// Its name, or the beginning of it
    #[arg(value_name = "NODE", add = crate::complete::nodes())]
    id: String,
    /// Stop what runs there now, with its grace period
    #[arg(long)]
    force: bool,
    /// Stop what still runs there after this long
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// Don't ask
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let client = app.client()?;
        if self.force && !self.yes && terminal::interactive() {
            let node = client.call::<NodeGet>(&NodeRef { id: self.id.clone() }).await?;
            let question = match node.workloads.len() {
                0 => format!("Drain {}? Nothing runs there.", node.view.name),
                1 => format!("Drain {} and stop the workload that runs there?", node.view.name),
                count => format!(
                    "Drain {} and stop the {count} workloads that run there?",
                    node.view.name
                ),
            };
            terminal::confirm(&question, false, "--yes")?;
        }
        let request = DrainRequest {
            id: self.id,
            force: self.force,
            timeout: self.timeout,
        };
        let node = client.call::<NodeDrain>(&request).await?;
        if app.out.for_programs() {
            app.out.show(&node)?;
            return Ok(ExitCode::SUCCESS);
        }
        let name = &node.view.name;
        app.out.print(&match node.workloads.len() {
            0 => format!("{name} is drained: nothing runs there\n"),
            1 => format!("{name} is draining: 1 workload still runs there\n"),
            count => format!("{name} is draining: {count} workloads still run there\n"),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
