//! A connection to the gateway: plain on this machine, TLS elsewhere; and what it stands on.

use std::{io, sync::Arc};

use api::{ApiError, ErrorCode, Reason};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use vault::tls::{self, Trouble};

use super::Address;

/// A connection.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    /// Nothing listens there, or the network is in the way.
    #[error("can't connect to {at}")]
    Connect {
        /// Where.
        at: String,
        #[source]
        source: io::Error,
    },
    /// The gateway isn't who it should be, or it doesn't want this node's certificate.
    #[error("no TLS with {at}")]
    Tls {
        at: String,
        trouble: Option<Trouble>,
        #[source]
        source: io::Error,
    },
    /// The host's name can't stand in a certificate.
    #[error("{0} is no name that a certificate could be for")]
    Name(String),
}

/// Connects. `config`: how TLS is spoken where the address asks for it.
pub(super) async fn connect(
    gateway: &Address,
    config: Option<&Arc<rustls::ClientConfig>>,
) -> Result<Stream, ChannelError> {
    let at = || gateway.to_string();
    let failed = |source| ChannelError::Connect { at: at(), source };
    let stream = TcpStream::connect(gateway.authority()).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let Some(config) = config.filter(|_| gateway.tls()) else {
        return Ok(Either::Left(stream));
    };
    let name =
        ServerName::try_from(gateway.host().to_owned()).map_err(|_| ChannelError::Name(gateway.host().to_owned()))?;
    let connected = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
    let stream = connected.map_err(|source| ChannelError::Tls {
        at: at(),
        trouble: tls::trouble_of(&source),
        source,
    })?;
    Ok(Either::Right(stream))
}

impl ChannelError {
    /// Whether nothing listens there.
    pub(super) fn refused(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// As it leaves the system.
    pub(super) fn to_api(&self) -> ApiError {
        let cause = std::error::Error::source(self).map(ToString::to_string);
        let told = |code, message: String| ApiError {
            cause: cause.clone(),
            ..ApiError::new(code, message)
        };
        match self {
            Self::Connect { at, .. } => told(
                ErrorCode::ConnectionRefused,
                format!("the gateway at {at} can't be reached"),
            )
            .hint("start it with: clawbernetes gateway serve"),
            Self::Name(host) => ApiError::invalid("gateway", format!("{host} is no host's name")),
            Self::Tls { at, trouble, .. } => ApiError {
                cause,
                ..ApiError::no_tls(at, trouble.and_then(|trouble| Reason::named(trouble.name())))
            },
        }
    }
}
