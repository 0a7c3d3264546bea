//! `clawbernetes service status`

use std::process::ExitCode;

use api::op::{ServiceGet, ServiceRef};

use crate::{cli::App, failure::Outcome};

/// Show a service: its version, address, revisions, and every replica with its health
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes service status model-server\n  \
    curl \"$(clawbernetes service status model-server --json | jq -r .address)\"")]
pub(crate) struct Args {
    /// Its name
    #[arg(value_name = "SERVICE", add = crate::complete::services())]
    name: String,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let request = ServiceRef {
            name: self.name,
            namespace: settings.named_namespace(),
        };
        let service = client.call::<ServiceGet>(&request).await?;
        app.out.show(&service)?;
        Ok(ExitCode::SUCCESS)
    }
}
