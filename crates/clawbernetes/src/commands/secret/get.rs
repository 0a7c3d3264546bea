//! `clawbernetes secret get`

use std::process::ExitCode;

use api::{
    op::{SecretGet, SecretGetRequest},
    secret::check_secret_name,
};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{
    cli::App,
    failure::Outcome,
    output::{Format, SecretShown},
};

/// Show a secret's value; who does is written to the audit log
///
/// The value is printed as it is, byte by byte; on a terminal a line end follows where it has none. In JSON and YAML a
/// value that isn't text is base64, and `encoding` says so.
#[derive(Debug, clap::Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:\n  clawbernetes secret get db-password\n  clawbernetes secret get tls-key > tls.key\n  \
    clawbernetes secret get db-password --version 2 --output json"
)]
pub(crate) struct Args {
    /// Its name
    #[arg(add = crate::complete::secrets())]
    name: String,
    /// Which version [default: the latest that can be read]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// Print the value alone, or what is known of it too [default: value]
    // In the place of the flag of all commands, of which it keeps the id: the value is the table form of a secret.
    #[arg(id = "output", long = "output", short = 'o', value_name = "FORM", value_parser = form())]
    form: Option<Format>,
}

fn form() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["value", "json", "yaml"]).map(|name| match name.as_str() {
        "json" => Format::Json,
        "yaml" => Format::Yaml,
        _ => Format::Table,
    })
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        check_secret_name("name", &self.name)?;
        let (client, settings) = app.session()?;
        let request = SecretGetRequest {
            name: self.name,
            namespace: settings.named_namespace(),
            version: self.version,
        };
        let content = client.call::<SecretGet>(&request).await?;
        match self.form.unwrap_or(app.out.format) {
            Format::Table => app.out.raw(content.value.expose())?,
            _ => app.out.show(&SecretShown::from(&content))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
