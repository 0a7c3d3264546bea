//! `clawbernetes auth login`

use std::process::ExitCode;

use api::op::{Empty, WhoAmI};

use vault::tls::Trust;

use crate::{
    cli::App,
    client::Client,
    config::{Config, FIRST_CONTEXT, Source, fingerprint},
    failure::Outcome,
    terminal,
};

/// Keep a token in the current context, after trying it at the gateway
///
/// The token comes from --token, from the terminal (it isn't shown), or from standard input.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes auth login\n  clawbernetes auth login --gateway wss://gpu-head:9000\n  \
    pass show clawbernetes | clawbernetes auth login"
)]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let settings = app.settings()?;
        let token = match &app.globals.token {
            Some(token) => token.trim().to_owned(),
            None => terminal::secret(&format!("Token for {}", settings.endpoint))?,
        };
        let trust = match (&settings.trust, fingerprint(&token)) {
            // The token that is just being given says more than the one of before.
            (Trust::Fingerprint(_) | Trust::System, Some(fingerprint)) => Trust::Fingerprint(fingerprint.to_owned()),
            (trust, _) => trust.clone(),
        };
        let client = Client::new(settings.endpoint.clone(), Some(token.clone()), trust.clone());
        let identity = client.call::<WhoAmI>(&Empty {}).await?;
        let path = Config::path()?;
        let mut config = Config::load(&path)?;
        let name = settings.context.clone().unwrap_or_else(|| FIRST_CONTEXT.to_owned());
        let context = config.contexts.entry(name.clone()).or_default();
        context.token = Some(token);
        context.authority = match trust {
            Trust::Root(root) => Some(vault::pki::encode_certificates([&root])),
            Trust::Fingerprint(_) => client.authority(),
            Trust::System => None,
        };
        // A token belongs to its gateway: kept apart, it would be shown to another one later.
        if !matches!(settings.gateway.source, Source::Context(_)) {
            context.gateway = Some(settings.gateway.value.clone());
        }
        config.current_context.get_or_insert_with(|| name.clone());
        config.save(&path)?;
        app.out.note(&format!(
            "logged in to {} as {} ({}); kept in context {name}",
            settings.endpoint, identity.name, identity.role
        ));
        if app.out.for_programs() {
            app.out.data(&identity)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
