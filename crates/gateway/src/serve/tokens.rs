//! Identities.

use api::{
    ApiError, ErrorCode, Timestamp,
    auth::{Identity, Role, Scope, TokenInfo},
    id::check_name,
    op::{Empty, JoinTokenRequest, NewJoinToken, NewToken, TokenRef, TokenRequest},
    time,
};

use super::face::Call;
use crate::{
    auth::{self, Kind},
    draft::Draft,
    hub::{now, store_error},
    records::{JoinToken, Token},
};

/// Longest life of a join token: it lets machines in, so it shouldn't lie around.
const JOIN_TOKEN_MAX: api::Span = api::Span::secs(7 * 86_400);

/// `auth.whoami`
pub async fn whoami(call: Call, _: Empty) -> Result<Identity, ApiError> {
    Ok(call.identity)
}

/// A token's record, made for somebody.
pub fn mint(request: &TokenRequest, expires_at: Option<Timestamp>, by: &str) -> Result<(String, Token), ApiError> {
    let id = auth::new_id()?;
    let (token, hash) = auth::mint(Kind::Token, &id)?;
    let info = TokenInfo {
        id,
        name: request.name.clone(),
        role: request.role,
        scopes: request.scopes.clone(),
        namespace: request.namespace.clone(),
        created_at: now(),
        created_by: by.to_owned(),
        expires_at,
    };
    let record = Token {
        info,
        hash,
        revoked_at: None,
    };
    Ok((token, record))
}

/// `auth.token.create`
pub async fn create(call: Call, request: TokenRequest) -> Result<NewToken, ApiError> {
    check_name(&request.name).map_err(|e| ApiError::invalid("name", format!("'{}' is no name: {e}", request.name)))?;
    check_powers(&request)?;
    if request.expires.is_some_and(|e| e.is_zero()) {
        return Err(ApiError::invalid(
            "expires",
            "a token that expires at once is of no use",
        ));
    }
    let expires_at = request.expires.map(|e| time::after(now(), e));
    let (token, record) = mint(&request, expires_at, &call.actor())?;
    let info = record.info.clone();
    call.app
        .hub
        .decide(|_| {
            let mut draft = Draft::new();
            draft.put_token(None, &record);
            Ok(Some(draft))
        })
        .await?;
    Ok(NewToken {
        token: call.app.trust.with_fingerprint(token),
        info,
    })
}

/// Checks what a new token is to allow.
fn check_powers(request: &TokenRequest) -> Result<(), ApiError> {
    match request.role {
        Role::Viewer | Role::Operator | Role::Admin if !request.scopes.is_empty() => {
            let message = format!("a {} has scopes of its own: name scopes or a role", request.role);
            return Err(ApiError::invalid("scopes", message));
        }
        Role::Viewer | Role::Operator | Role::Admin => {}
        Role::Custom if request.scopes.is_empty() => {
            return Err(ApiError::invalid("scopes", "a token without scopes is of no use"));
        }
        Role::Custom => {
            let given = |scope: &Scope| Scope::GIVEN.iter().any(|(_, known)| known == scope);
            if !request.scopes.iter().all(given) {
                let names = Scope::GIVEN.map(|(name, _)| name).join(", ");
                return Err(ApiError::invalid("scopes", format!("the scopes of tokens are {names}")));
            }
        }
        Role::Node | Role::Joiner => {
            let message = "a token is for a viewer, an operator or an admin, or for scopes one by one";
            return Err(ApiError::invalid("role", message));
        }
    }
    if let Some(namespace) = &request.namespace {
        check_name(namespace)
            .map_err(|e| ApiError::invalid("namespace", format!("'{namespace}' is no namespace: {e}")))?;
        if request.role == Role::Admin {
            return Err(ApiError::invalid(
                "namespace",
                "an admin's token is for the fleet, and not for one namespace",
            )
            .hint("--role operator, or --scope"));
        }
    }
    Ok(())
}

/// `auth.token.list`
pub async fn list(call: Call, _: Empty) -> Result<Vec<TokenInfo>, ApiError> {
    Ok(call.app.hub.view().tokens().map(|t| t.info.clone()).collect())
}

/// `auth.token.revoke`
pub async fn revoke(call: Call, request: TokenRef) -> Result<TokenInfo, ApiError> {
    let mut revoked = None;
    call.app
        .hub
        .decide(|view| {
            let found: Vec<_> = match view.token(&request.id).filter(|t| t.revoked_at.is_none()) {
                Some(token) => vec![token],
                None => view.tokens().filter(|t| t.info.name == request.id).collect(),
            };
            let [token] = found.as_slice() else {
                let message = match found.len() {
                    0 => format!("there is no token '{}'", request.id),
                    n => format!("{n} tokens stand for '{}': name one by its id", request.id),
                };
                return Err(ApiError::not_found(message).hint("clawbernetes auth token list"));
            };
            let admins = view
                .tokens()
                .filter(|t| t.info.role == Role::Admin && t.info.expires_at.is_none())
                .count();
            if token.info.role == Role::Admin && token.info.expires_at.is_none() && admins == 1 {
                return Err(ApiError::conflict(
                    "this is the last admin token that doesn't expire: nobody could get in any more",
                )
                .hint("make another one first: clawbernetes auth token create --role admin"));
            }
            revoked = Some(token.info.clone());
            let mut draft = Draft::new();
            let record = Token {
                revoked_at: Some(now()),
                ..Token::clone(token)
            };
            draft.put_token(Some(token.revision), &record);
            Ok(Some(draft))
        })
        .await?;
    revoked.ok_or_else(|| ApiError::internal("no token was revoked"))
}

/// `auth.join-token`
pub async fn join_token(call: Call, request: JoinTokenRequest) -> Result<NewJoinToken, ApiError> {
    if request.expires.is_zero() || request.expires > JOIN_TOKEN_MAX {
        return Err(ApiError::invalid(
            "expires",
            format!("a join token lives longer than 0s and at most {JOIN_TOKEN_MAX}"),
        ));
    }
    if request.uses == Some(0) {
        return Err(ApiError::invalid("uses", "a join token without uses is of no use"));
    }
    let id = auth::new_id()?;
    let (token, hash) = auth::mint(Kind::Join, &id)?;
    let expires_at = time::after(now(), request.expires);
    let hub = &call.app.hub;
    let lease = hub
        .store()
        .grant(request.expires.duration())
        .await
        .map_err(|e| store_error(&e))?
        .0;
    let record = JoinToken {
        id,
        hash,
        created_by: call.actor(),
        expires_at,
        uses_left: request.uses,
        lease,
    };
    hub.decide(|_| {
        let mut draft = Draft::new();
        draft.create_join_token(&record);
        Ok(Some(draft))
    })
    .await
    .map_err(|e| {
        if e.code == ErrorCode::Conflict {
            ApiError::internal("the token's id was taken")
        } else {
            e
        }
    })?;
    Ok(NewJoinToken {
        token: call.app.trust.with_fingerprint(token),
        expires_at,
        uses: request.uses,
    })
}
