//! `clawbernetes deploy retry`

use api::op::{DeployRetry, RetryRequest};

use super::{begun, named, stands, watch::Wanted};
use crate::{cli::App, failure::Outcome};

/// Try a deployment that failed or was rolled back once more
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes deploy retry dep-7k2 --reason \"the registry is back\"\n  \
    clawbernetes deploy retry model-server --watch"
)]
pub(crate) struct Args {
    /// Its id, the beginning of it, or its service's name (the latest one)
    #[arg(value_name = "DEPLOYMENT", add = crate::complete::deployments())]
    id: String,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Follow it to its end
    #[arg(long, short = 'w')]
    watch: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let request = RetryRequest {
            id: self.id,
            namespace: settings.named_namespace(),
            reason: self.reason,
        };
        let status = client.call::<DeployRetry>(&request).await?;
        app.out
            .note(&format!("{} is tried once more; {}", named(&status), stands(&status)));
        begun(app, &client, &status, self.watch.then_some(Wanted::Done)).await
    }
}
