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
        trouble: inner(&source).and_then(tls::trouble),
        source,
    })?;
    Ok(Either::Right(stream))
}

fn inner(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
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
            Self::Tls { at, trouble: None, .. } => told(
                ErrorCode::AuthFailed,
                format!("there is no TLS with the gateway at {at}"),
            )
            .hint("is it a Clawbernetes gateway, and is the address right?"),
            Self::Tls {
                at,
                trouble: Some(trouble),
                ..
            } => {
                let error = |what: &str| {
                    told(
                        ErrorCode::AuthFailed,
                        format!("the certificate of the gateway at {at} {what}"),
                    )
                };
                match trouble {
                    Trouble::Missing => error("is missing").because(Reason::CertificateMissing),
                    Trouble::Malformed => error("can't be read").because(Reason::CertificateMalformed),
                    Trouble::Expired => error("has expired").because(Reason::CertificateExpired),
                    Trouble::NotYetValid => {
                        error("isn't valid yet: do the clocks agree?").because(Reason::CertificateNotYetValid)
                    }
                    Trouble::Revoked => error("was revoked").because(Reason::CertificateRevoked),
                    Trouble::Foreign => error("is another authority's: it isn't the gateway that the token is of")
                        .because(Reason::CertificateForeign)
                        .hint("get a new token from the gateway itself: clawbernetes auth join-token"),
                    Trouble::WrongName => error("is for other names")
                        .because(Reason::CertificateWrongName)
                        .hint("call it by one of them, or start it with --tls-name NAME"),
                    Trouble::WrongUse => error("is for something else").because(Reason::CertificateWrongUse),
                }
            }
        }
    }
}
