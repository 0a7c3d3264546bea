//! `clawbernetes secret versions`

use std::process::ExitCode;

use api::{
    op::{SecretRef, SecretVersions},
    secret::check_secret_name,
};

use crate::{cli::App, failure::Outcome};

/// List a secret's versions, without their values
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes secret versions db-password")]
pub(crate) struct Args {
    /// Its name
    #[arg(add = crate::complete::secrets())]
    name: String,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        check_secret_name("name", &self.name)?;
        let (client, settings) = app.session()?;
        let request = SecretRef {
            name: self.name,
            namespace: settings.named_namespace(),
        };
        let versions = client.call::<SecretVersions>(&request).await?;
        app.out.show(&versions)?;
        Ok(ExitCode::SUCCESS)
    }
}
