//! The accept loop: one slow or silent connection never holds up another.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{channel, places::Places};

/// A connection must have sent its request's header by then.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Requests under way have this long to finish at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How connections are taken.
#[derive(Clone)]
pub struct Door {
    /// TLS, for whoever begins with it.
    pub tls: TlsAcceptor,
    /// Whether callers from elsewhere may speak in the clear.
    pub insecure: bool,
    /// Connections at once.
    pub connections: usize,
}

/// Serves until told to stop.
pub async fn listen(listener: TcpListener, router: Router, door: Door, stop: CancellationToken) {
    let connections = door.connections;
    let places = Places::new(connections);
    // HTTP/1.1 alone: telling versions apart would wait for ever for a connection's first bytes.
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE);
    loop {
        let (stream, from) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    back_off(&error).await;
                    continue;
                }
            },
        };
        let Some(place) = places.enter() else {
            tracing::warn!(%from, connections, "a connection was refused: too many are open");
            continue;
        };
        // Small frames are answers that somebody waits for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let (router, builder, tls, stop) = (router.clone(), builder.clone(), door.tls.clone(), stop.clone());
        let plain = door.insecure || channel::may_be_plain(from);
        tokio::spawn(async move {
            let opened = tokio::select! {
                opened = channel::open(stream, &tls, plain, HEADER_DEADLINE) => opened,
                () = stop.cancelled() => return,
            };
            let (stream, channel) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::debug!(%from, %error, "a connection came to nothing");
                    return;
                }
            };
            let own = place.clone();
            let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
                request.extensions_mut().insert(ConnectInfo::<SocketAddr>(from));
                request.extensions_mut().insert(channel.clone());
                // What outlives the connection's own task (a WebSocket) keeps its place.
                request.extensions_mut().insert(own.clone());
                router.clone().oneshot(request)
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%from, %error, "a connection broke");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(SHUTDOWN_GRACE, places.until_empty())
        .await
        .is_err()
    {
        tracing::info!("connections were still open at the end");
    }
}

/// Out of file descriptors, mostly: others must close theirs first.
async fn back_off(error: &io::Error) {
    tracing::warn!(%error, "a connection couldn't be accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
