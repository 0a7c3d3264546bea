//! `clawbernetes deploy status`

use std::{io, process::ExitCode};

use api::op::DeployGet;

use super::watch::{Wanted, follow};
use crate::{cli::App, failure::Outcome};

/// Show how a deployment stands: phase, replicas, health, what was measured, errors, time left
///
/// With --watch it is followed to its end, live on a terminal and as lines elsewhere (-o jsonl: all of it at each change),
/// and the exit status is 0 where it is complete, 1 where it failed or was rolled back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes deploy status model-server --watch\n  \
    clawbernetes deploy status dep-7k2 --json | jq -r .phase\n  \
    clawbernetes deploy status dep-7k2 -w -o jsonl | jq -c .revisions")]
pub(crate) struct Args {
    /// Its id, the beginning of it, or its service's name (the latest one)
    #[arg(value_name = "DEPLOYMENT", add = crate::complete::deployments())]
    id: String,
    /// Go on with it until it has ended
    #[arg(long, short = 'w')]
    watch: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let status = client.call::<DeployGet>(&settings.deployment(&self.id)).await?;
        if self.watch {
            return follow(app, &client, &status, Wanted::Done, io::stdout()).await;
        }
        app.out.show(&status)?;
        Ok(ExitCode::SUCCESS)
    }
}
