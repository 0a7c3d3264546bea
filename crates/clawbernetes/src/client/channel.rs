//! A connection to the gateway: plain on this machine, TLS elsewhere.

use std::sync::{Arc, OnceLock};

use api::{ApiError, Reason};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use vault::{
    pki,
    tls::{self, Trust},
};

use super::Endpoint;

/// A connection.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// How connections are opened.
pub(super) struct Channel {
    trust: Trust,
    /// Made for the first connection that needs it.
    config: OnceLock<Arc<ClientConfig>>,
    /// The root that was found by its fingerprint.
    root: OnceLock<String>,
}

impl Channel {
    pub(super) fn new(trust: Trust) -> Self {
        Self {
            trust,
            config: OnceLock::new(),
            root: OnceLock::new(),
        }
    }

    /// See [`super::Client::authority`].
    pub(super) fn root(&self) -> Option<String> {
        self.root.get().cloned()
    }

    /// Shakes hands where the address asks for it.
    pub(super) async fn open(&self, endpoint: &Endpoint, socket: TcpStream) -> Result<Stream, ApiError> {
        if !endpoint.tls {
            return Ok(Either::Left(socket));
        }
        let name = ServerName::try_from(endpoint.host.clone())
            .map_err(|_| ApiError::invalid("gateway", format!("'{}' is no host's name", endpoint.host)))?;
        let shaken = TlsConnector::from(self.config()?).connect(name, socket).await;
        let stream = shaken.map_err(|error| {
            let reason = tls::trouble_of(&error).and_then(|trouble| Reason::named(trouble.name()));
            ApiError {
                cause: Some(error.to_string()),
                ..ApiError::no_tls(&endpoint.to_string(), reason)
            }
        })?;
        if let Trust::Fingerprint(wanted) = &self.trust {
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            if let Some(root) = tls::root_of(shown, wanted) {
                self.root.get_or_init(|| pki::encode_certificates([&root]));
            }
        }
        Ok(Either::Right(stream))
    }

    fn config(&self) -> Result<Arc<ClientConfig>, ApiError> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let config = tls::client_config(&self.trust, None).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            ApiError {
                cause,
                ..ApiError::internal(error.to_string())
            }
        })?;
        Ok(Arc::clone(self.config.get_or_init(|| Arc::new(config))))
    }
}
