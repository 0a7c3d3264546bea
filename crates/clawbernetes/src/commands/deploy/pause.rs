//! `clawbernetes deploy pause`

use api::op::{DeployPause, PauseRequest};

use super::{named, tell};
use crate::{cli::App, failure::Outcome};

/// Hold a deployment where it is, until `deploy resume`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes deploy pause model-server --reason \"looking at the latency\"\n  \
    clawbernetes deploy resume model-server"
)]
pub(crate) struct Args {
    /// Its id, the beginning of it, or its service's name
    #[arg(value_name = "DEPLOYMENT", add = crate::complete::deployments())]
    id: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let request = PauseRequest {
            id: self.id,
            namespace: settings.named_namespace(),
            reason: self.reason,
        };
        let status = client.call::<DeployPause>(&request).await?;
        let sentence = format!(
            "{} is held; let it go on with: clawbernetes deploy resume {}",
            named(&status),
            status.summary.id
        );
        tell(app, &client, &status, &sentence, None).await
    }
}
