//! The other end: where samples are posted to.

use std::{fs, io, path::PathBuf, time::Duration};

use axum::http::{Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest that one request may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a refusal is read.
const REFUSAL_MAX: usize = 4 << 10;

/// Where samples go.
#[derive(Debug, Clone)]
pub struct Target {
    uri: Uri,
    /// Host and port.
    address: (String, u16),
    token_file: Option<PathBuf>,
}

/// Why an address can't be one to write to.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// It isn't a URL with a host.
    #[error("'{0}' is no URL such as http://prometheus:9090/api/v1/write")]
    Url(String),
    /// It needs what isn't there.
    #[error("remote write goes over http, not {0}: this version has no TLS")]
    Scheme(String),
}

impl Target {
    /// A receiver's URL, and the file with the bearer token that it wants; read anew for each connection.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn new(url: &str, token_file: Option<PathBuf>) -> Result<Self, TargetError> {
        let no_url = || TargetError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| no_url())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => return Err(TargetError::Scheme(other.to_owned())),
            None => return Err(no_url()),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(no_url)?;
        // Name and password in a URL would end up in logs.
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(no_url());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            address: (host, uri.port_u16().unwrap_or(80)),
            uri,
            token_file,
        })
    }

    pub(super) fn url(&self) -> String {
        self.uri.to_string()
    }
}

/// What became of a request.
pub(super) enum Outcome {
    Taken,
    /// For good: the same again would be refused again.
    Refused(String),
    /// Not now.
    Later {
        /// How long to wait at least.
        wait: Duration,
        why: String,
    },
}

/// A receiver, and the connection to it.
pub(super) struct Receiver {
    target: Target,
    connection: Option<Connection>,
}

struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    token: Option<String>,
}

impl Receiver {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            connection: None,
        }
    }

    /// Posts a body.
    pub(super) async fn send(&mut self, body: &[u8]) -> Outcome {
        let later = |why: String| Outcome::Later {
            wait: Duration::ZERO,
            why,
        };
        match tokio::time::timeout(PATIENCE, self.exchange(body)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(why)) => {
                self.connection = None;
                later(why)
            }
            Err(_) => {
                self.connection = None;
                later("no answer in time".to_owned())
            }
        }
    }

    async fn exchange(&mut self, body: &[u8]) -> Result<Outcome, String> {
        // One that the other end has closed in the meantime shows here.
        let alive = match &mut self.connection {
            Some(connection) => connection.sender.ready().await.is_ok(),
            None => false,
        };
        if !alive {
            self.connection = Some(self.connect().await?);
        }
        let Some(connection) = &mut self.connection else {
            return Err("there is no connection".to_owned());
        };
        let uri = &self.target.uri;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_ENCODING, "snappy")
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, concat!("clawbernetes/", env!("CARGO_PKG_VERSION")))
            .header("x-prometheus-remote-write-version", "0.1.0");
        if let Some(token) = &connection.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body)))
            .map_err(|error| error.to_string())?;
        let answer = connection
            .sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        Ok(told(answer).await)
    }

    async fn connect(&self) -> Result<Connection, String> {
        let token = self.target.token_file.as_ref().map(fs::read_to_string).transpose();
        let token = token.map_err(|error: io::Error| format!("its token can't be read: {error}"))?;
        let (host, port) = &self.target.address;
        let refused = |error: io::Error| format!("{host}:{port}: {error}");
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        // Ends with the connection; what went wrong is told by the request.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Connection {
            sender,
            token: token.map(|token| token.trim().to_owned()),
        })
    }
}

/// What an answer means.
async fn told(answer: Response<Incoming>) -> Outcome {
    let status = answer.status();
    let wait = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let wait = Duration::from_secs(wait.and_then(|value| value.parse().ok()).unwrap_or(0));
    // Read to its end, so that the connection serves again.
    let text = Limited::new(answer.into_body(), REFUSAL_MAX).collect().await;
    let text = text.map_or_else(|_| Bytes::new(), |text| text.to_bytes());
    let text = String::from_utf8_lossy(&text);
    let why = format!("{status}: {}", text.trim());
    match status {
        _ if status.is_success() => Outcome::Taken,
        // A token that isn't valid now may be put right; samples must not be lost over it.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Outcome::Later { wait, why }
        }
        _ if status.is_client_error() => Outcome::Refused(why),
        _ => Outcome::Later { wait, why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let target = Target::new("http://[::1]:9090/api/v1/write?x=1", None).unwrap();
        assert_eq!(target.address, ("::1".to_owned(), 9090));
        assert_eq!(Target::new("http://prometheus/w", None).unwrap().address.1, 80);
        for bad in ["", "prometheus:9090", "/api", "http://u:p@host/", "http:///w"] {
            assert!(
                matches!(
                    Target::new(bad, None),
                    Err(TargetError::Url(_) | TargetError::Scheme(_))
                ),
                "{bad}"
            );
        }
        assert_eq!(
            Target::new("https://x/", None).unwrap_err(),
            TargetError::Scheme("https".to_owned())
        );
    }
}
