//! `clawbernetes secret set`

use std::process::ExitCode;

use api::{
    Span,
    op::{SecretSet, SecretSetRequest},
    secret::check_secret_name,
};

use super::{life, source::Source, tell};
use crate::{cli::App, failure::Outcome, output::secret_at};

/// Keep a value as a secret's newest version; makes the secret where there is none
///
/// Without --value, --file or - the value is asked for and isn't shown. A file's last line end is part of the value.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes secret set wandb-key\n  clawbernetes secret set tls-key --file tls.key --expires 90d\n  \
    pass show db | tr -d '\\n' | clawbernetes secret set db-password - -n prod --description \"the app's own user\""
)]
pub(crate) struct Args {
    /// Its name: lower-case letters, digits, '-' and '.', as in DNS
    #[arg(add = crate::complete::secrets())]
    name: String,
    #[command(flatten)]
    source: Source,
    /// What it is for [default: as before]
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// After how long this version can't be read any more [default: never]
    #[arg(long, value_name = "DURATION", value_parser = life)]
    expires: Option<Span>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        check_secret_name("name", &self.name)?;
        let value = self.source.read(app, &self.name)?;
        let (client, settings) = app.session()?;
        let request = SecretSetRequest {
            name: self.name,
            namespace: settings.named_namespace(),
            value,
            description: self.description,
            expires: self.expires,
        };
        let info = client.call::<SecretSet>(&request).await?;
        tell(app, &info, &secret_at(&info, app.out.view().now))?;
        Ok(ExitCode::SUCCESS)
    }
}
