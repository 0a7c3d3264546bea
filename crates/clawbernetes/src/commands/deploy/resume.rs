//! `clawbernetes deploy resume`

use api::op::DeployResume;

use super::{named, stands, tell, watch::Wanted};
use crate::{cli::App, failure::Outcome};

/// Let a held deployment go on
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes deploy resume model-server\n  clawbernetes deploy resume dep-7k2 --watch"
)]
pub(crate) struct Args {
    /// Its id, the beginning of it, or its service's name
    #[arg(value_name = "DEPLOYMENT", add = crate::complete::deployments())]
    id: String,
    /// Follow it to its end
    #[arg(long, short = 'w')]
    watch: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let status = client.call::<DeployResume>(&settings.deployment(&self.id)).await?;
        let sentence = format!("{} goes on; {}", named(&status), stands(&status));
        tell(app, &client, &status, &sentence, self.watch.then_some(Wanted::Done)).await
    }
}
