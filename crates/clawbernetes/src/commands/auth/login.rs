//! `clawbernetes auth login`

use std::process::ExitCode;

use api::{
    ApiError, ErrorCode,
    op::{Empty, OidcExchange, OidcExchangeRequest, OidcGet, WhoAmI},
};

use vault::tls::Trust;

use super::device;
use crate::{
    cli::App,
    client::Client,
    config::{Config, FIRST_CONTEXT, Settings, Source, fingerprint},
    failure::Outcome,
    terminal,
};

/// Log in: keep a token in the current context, after trying it at the gateway
///
/// On a terminal, people log in at the identity provider, if the gateway has one. Else the token comes from --token, from
/// the terminal (it isn't shown), or from standard input.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes auth login\n  clawbernetes auth login --oidc --gateway wss://gpu-head:9000\n  \
    pass show clawbernetes | clawbernetes auth login"
)]
pub(crate) struct Args {
    /// Log in at the gateway's identity provider, also where there is no terminal
    #[arg(long)]
    oidc: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let settings = app.settings()?;
        let token = match &app.globals.token {
            Some(_) if self.oidc => {
                let message = "a token is given: there is nothing to log in for";
                return Err(ApiError::invalid("oidc", message)
                    .hint("leave one of --oidc and --token out")
                    .into());
            }
            Some(token) => token.trim().to_owned(),
            None => match self.provided(app, &settings).await? {
                Some(token) => token,
                None => terminal::secret(&format!("Token for {}", settings.endpoint))?,
            },
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

    /// A token for whoever logs in at the identity provider. `None`: there is none, or nobody to log in.
    async fn provided(&self, app: &App, settings: &Settings) -> Result<Option<String>, ApiError> {
        if !self.oidc && !terminal::interactive() {
            return Ok(None);
        }
        let client = Client::new(settings.endpoint.clone(), None, settings.trust.clone());
        let issuer = match client.call::<OidcGet>(&Empty {}).await {
            Ok(issuer) => issuer,
            // No provider, or a gateway of before there were any.
            Err(error) if error.code == ErrorCode::NotFound && !self.oidc => return Ok(None),
            Err(error) => return Err(error),
        };
        let id_token = device::id_token(app, &issuer).await?;
        let made = client.call::<OidcExchange>(&OidcExchangeRequest { id_token }).await?;
        Ok(Some(made.token))
    }
}
