//! As much of an HTTP client as an agent needs: one request on a connection of its own.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::channel::ChannelError;

/// Longest answer that is read.
const BODY_MAX_BYTES: usize = 1 << 20;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the request to {authority} failed")]
    Request {
        authority: String,
        #[source]
        source: hyper::Error,
    },
    #[error("the answer of {authority} couldn't be read: {why}")]
    Body { authority: String, why: String },
}

/// Sends a request to `authority` (host and port) of this machine, unencrypted, and reads the whole answer. Ends when the
/// other side does: the caller sets the time limit.
pub(super) async fn send(authority: &str, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), HttpError> {
    let stream = TcpStream::connect(authority).await;
    let stream = stream.map_err(|source| ChannelError::Connect {
        at: authority.to_owned(),
        source,
    })?;
    over(authority, stream, request).await
}

/// Sends a request over a connection to `authority`, and reads the whole answer. Ends when the other side does.
pub(super) async fn over(
    authority: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), HttpError> {
    let at = || authority.to_owned();
    let failed = |source| HttpError::Request {
        authority: at(),
        source,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY_MAX_BYTES).collect().await;
        let body = body.map_err(|error| HttpError::Body {
            authority: at(),
            why: error.to_string(),
        })?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer,
            // Its end shows in the exchange, too.
            _ = &mut connection, if open => open = false,
        }
    }
}
