//! `/metrics` of the agent itself, for who scrapes each machine: only where it is asked for.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use api::{NodeName, exposition, exposition::Exposition, metric::label};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::sleep,
};

use super::measure::Latest;

/// Connections at once; a scraper needs one.
const CONNECTIONS: usize = 16;

/// How long a caller may take to ask, and stay without asking.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers until it is dropped.
pub(super) async fn serve(listener: TcpListener, node: NodeName, latest: watch::Receiver<Latest>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log_accept(&error);
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (node, latest) = (node.clone(), latest.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let answer = answer(&request, &node, &latest.borrow());
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            drop(server.serve_connection(TokioIo::new(stream), answer).await);
            drop(place);
        });
    }
}

fn log_accept(error: &io::Error) {
    tracing::warn!(%error, "a caller of /metrics couldn't be let in");
}

fn answer(request: &Request<Incoming>, node: &NodeName, latest: &Latest) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: &str| {
        let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "only /metrics is here\n");
    }
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    let mut response = plain(StatusCode::OK, &text(node, latest));
    let kind = header::HeaderValue::from_static(exposition::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(node: &NodeName, latest: &Latest) -> String {
    let mut text = Exposition::default();
    for (key, value) in latest.iter() {
        let own = key.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let labels = std::iter::once((label::NODE, node.as_str())).chain(own);
        text.series(&key.metric, key.unit.as_deref(), key.kind, labels, *value);
    }
    text.finish()
}
