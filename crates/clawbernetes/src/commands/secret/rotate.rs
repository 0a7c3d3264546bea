//! `clawbernetes secret rotate`

use std::process::ExitCode;

use api::{
    ApiError, Span,
    op::{KEEP_VERSIONS, SecretRotate, SecretRotateRequest},
    secret::check_secret_name,
};

use super::{life, source::Source, tell};
use crate::{cli::App, failure::Outcome, output::secret_at};

/// Make a new version of a secret; the one before stays readable for a while
///
/// Without --value, --file, - or --generate the value is asked for and isn't shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes secret rotate db-password\n  \
    clawbernetes secret rotate session-key --generate --ttl 1h\n  \
    clawbernetes secret rotate tls-key --file new.key --keep-versions 1")]
pub(crate) struct Args {
    /// Its name
    #[arg(add = crate::complete::secrets())]
    name: String,
    #[command(flatten)]
    source: Source,
    /// Let the gateway make a value: 32 random bytes as 43 letters, digits, '-' and '_'
    #[arg(long, conflicts_with_all = ["value", "file"])]
    generate: bool,
    /// How many old versions stay readable
    #[arg(long, value_name = "N", default_value_t = KEEP_VERSIONS)]
    keep_versions: u32,
    /// For how long the version that is replaced stays readable [default: until newer ones push it out]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<Span>,
    /// After how long the new version can't be read any more [default: as long as the one before was given]
    #[arg(long, value_name = "DURATION", value_parser = life)]
    expires: Option<Span>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        check_secret_name("name", &self.name)?;
        let value = if self.generate {
            if self.source.named(app)?.is_some() {
                return Err(
                    ApiError::invalid("--generate", "--generate makes a value, and - gives one: choose").into(),
                );
            }
            None
        } else {
            Some(self.source.read(app, &self.name)?)
        };
        let (client, settings) = app.session()?;
        let request = SecretRotateRequest {
            name: self.name,
            namespace: settings.named_namespace(),
            value,
            keep_versions: self.keep_versions,
            ttl: self.ttl,
            expires: self.expires,
        };
        let info = client.call::<SecretRotate>(&request).await?;
        tell(app, &info, &secret_at(&info, app.out.view().now))?;
        Ok(ExitCode::SUCCESS)
    }
}
