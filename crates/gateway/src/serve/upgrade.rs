//! What comes before a WebSocket: the caller is let in, and the connection may stay.

use std::{net::SocketAddr, sync::Arc};

use api::{
    ApiError, ErrorCode,
    auth::{Identity, Scope},
    op::Reach,
};
use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, ws::WebSocketUpgrade},
    http::Extensions,
};
use vault::pki::Peer;

use super::{
    App,
    access::{Caller, Need},
    channel::Channel,
    places::{Place, Stay, Stays},
};

/// A caller that was let in, with a connection that is about to become a WebSocket.
pub struct Entered {
    /// Who it is.
    pub identity: Identity,
    /// Where it calls from.
    pub from: SocketAddr,
    /// The certificate that it showed. `None`: it showed none, or doesn't speak TLS.
    pub peer: Option<Arc<Peer>>,
    /// The connection.
    pub upgrade: WebSocketUpgrade,
    /// To be held as long as the WebSocket is open.
    pub stay: Stay,
}

/// Where a request came from.
///
/// # Errors
/// It didn't come through [`super::listen()`].
pub fn origin(extensions: &Extensions) -> Result<(SocketAddr, Place), ApiError> {
    let from = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let place = extensions.get::<Place>().cloned();
    from.zip(place)
        .ok_or_else(|| ApiError::internal("the call came from nowhere"))
}

/// Lets a caller in to an action. `what` is asked for is named where it isn't asked for by WebSocket.
///
/// # Errors
/// Those of [`super::Access::admit`], `INVALID_ARGUMENT` for what is no WebSocket, `QUOTA_EXCEEDED` where too many are open.
pub async fn enter(
    app: &App,
    request: Request,
    action: &str,
    scope: Scope,
    why: Stays,
    what: &str,
) -> Result<Entered, ApiError> {
    let (mut parts, _) = request.into_parts();
    let (from, place) = origin(&parts.extensions)?;
    let caller = Caller::of(&parts.headers, &parts.extensions)?;
    let need = Need::new(scope, Reach::Namespace);
    let identity = app.admitted(action, &caller, need).await?;
    let peer = match caller.channel {
        Channel::Tls(peer) => peer.clone(),
        Channel::Plain | Channel::Refused => None,
    };
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|error| {
            ApiError::new(ErrorCode::InvalidArgument, format!("{what} a WebSocket")).cause(error.to_string())
        })?;
    Ok(Entered {
        identity,
        from,
        peer,
        upgrade,
        stay: place.stay(why)?,
    })
}
