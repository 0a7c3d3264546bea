//! Identities.

use api::{
    ApiError, ErrorCode, Timestamp,
    auth::{Identity, Role, TokenInfo},
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
pub fn mint(name: &str, role: Role, expires_at: Option<Timestamp>, by: &str) -> Result<(String, Token), ApiError> {
    let id = auth::new_id()?;
    let (token, hash) = auth::mint(Kind::Token, &id)?;
    let info = TokenInfo {
        id,
        name: name.to_owned(),
        role,
        created_at: now(),
        created_by: by.to_owned(),
        expires_at,
    };
    Ok((token, Token { info, hash }))
}

/// `auth.token.create`
pub async fn create(call: Call, request: TokenRequest) -> Result<NewToken, ApiError> {
    check_name(&request.name).map_err(|e| ApiError::invalid("name", format!("'{}' is no name: {e}", request.name)))?;
    if !matches!(request.role, Role::Viewer | Role::Operator | Role::Admin) {
        return Err(ApiError::invalid(
            "role",
            "a token is for a viewer, an operator or an admin",
        ));
    }
    if request.expires.is_some_and(|e| e.is_zero()) {
        return Err(ApiError::invalid(
            "expires",
            "a token that expires at once is of no use",
        ));
    }
    let expires_at = request.expires.map(|e| time::after(now(), e));
    let (token, record) = mint(&request.name, request.role, expires_at, &call.actor())?;
    let info = record.info.clone();
    call.app
        .hub
        .decide(|_| {
            let mut draft = Draft::new();
            draft.put_token(None, &record);
            Ok(Some(draft))
        })
        .await?;
    Ok(NewToken { token, info })
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
            let found: Vec<_> = match view.token(&request.id) {
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
            draft.delete_token(token);
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
        token,
        expires_at,
        uses: request.uses,
    })
}
