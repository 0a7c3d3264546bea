//! `clawbernetes node undrain`

use std::process::ExitCode;

use api::op::{NodeRef, NodeUndrain};

use crate::{cli::App, failure::Outcome};

/// Let a drained node take work again
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes node undrain gpu-7")]
pub(crate) struct Args {
    /// Its name, or the beginning of it
    #[arg(value_name = "NODE", add = crate::complete::nodes())]
    id: String,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let node = app.client()?.call::<NodeUndrain>(&NodeRef { id: self.id }).await?;
        if app.out.for_programs() {
            app.out.show(&node)?;
        } else {
            app.out.print(&format!("{} takes work again\n", node.view.name))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
