//! Logins by an identity provider.

use api::{
    ApiError,
    auth::{Identity, TokenInfo},
    op::{Empty, NewToken, OidcExchange, OidcExchangeRequest, OidcIssuer, Operation, TokenRequest},
};

use super::{App, face::Stranger, tokens};
use crate::{
    audit,
    draft::Draft,
    hub::now,
    oidc::{Denied, Login, Provider},
};

/// Most characters of a provider's id of somebody in the audit log.
const SUBJECT_MAX: usize = 128;

/// `auth.oidc`
pub async fn issuer(stranger: Stranger, _: Empty) -> Result<OidcIssuer, ApiError> {
    provider(&stranger.app)?.issuer().await
}

/// `auth.oidc.exchange`
pub async fn exchange(stranger: Stranger, request: OidcExchangeRequest) -> Result<NewToken, ApiError> {
    let Stranger { app, from } = stranger;
    let provider = provider(&app)?;
    app.access.login(from)?;
    let login = provider.login(&request.id_token, now()).await;
    let subject = match &login {
        Ok(login) => Some(login.subject.clone()),
        Err(denied) => denied.subject.clone(),
    };
    let made = match login {
        Ok(login) => make(&app, provider, login).await,
        Err(Denied { error, .. }) => Err(*error),
    };
    let identity = made.as_ref().ok().map(|made| identity(&made.info));
    let mut entry = audit::entry(OidcExchange::NAME, identity.as_ref(), from);
    // Names may be the same for two people; this isn't.
    entry.target = subject.map(|subject| {
        let subject: String = subject.chars().filter(|c| !c.is_control()).take(SUBJECT_MAX).collect();
        format!("subject/{subject}")
    });
    if let Err(error) = &made {
        tracing::warn!(%from, code = %error.code, "a login was refused: {}", error.message);
    }
    app.audited(entry.ended(made.as_ref().err()), true).await?;
    made
}

/// The token of a login.
async fn make(app: &App, provider: &Provider, login: Login) -> Result<NewToken, ApiError> {
    let request = TokenRequest {
        name: login.name,
        role: login.role,
        scopes: Vec::new(),
        namespace: None,
        expires: None,
    };
    let (token, record) = tokens::mint(&request, Some(login.ends), &provider.made_by())?;
    app.hub
        .decide(|_| {
            let mut draft = Draft::new();
            draft.put_token(None, &record);
            Ok(Some(draft))
        })
        .await?;
    Ok(NewToken {
        token: app.trust.with_fingerprint(token),
        info: record.info,
    })
}

fn provider(app: &App) -> Result<&Provider, ApiError> {
    app.oidc.as_ref().ok_or_else(|| {
        ApiError::not_found("no identity provider is configured: no issuer")
            .hint("ask an admin for a token, or start the gateway with --oidc-issuer")
    })
}

fn identity(info: &TokenInfo) -> Identity {
    Identity {
        name: info.name.clone(),
        role: info.role,
        scopes: info.scopes.clone(),
        namespace: info.namespace.clone(),
        token_id: info.id.clone(),
        expires_at: info.expires_at,
    }
}
