//! How a connection speaks: plain or TLS, told by its first byte, and who is at its other end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;
use vault::pki::Peer;

/// What begins a TLS connection: the record type of a handshake (RFC 8446, section 5.1). No HTTP method begins with it.
const HANDSHAKE: u8 = 0x16;

/// How a connection speaks.
#[derive(Debug, Clone)]
pub enum Channel {
    /// In the clear.
    Plain,
    /// In the clear, where that isn't taken: whatever is asked is refused.
    Refused,
    /// TLS. With the peer's certificate, which the fleet's authority issued. `None`: it showed none.
    Tls(Option<Arc<Peer>>),
}

/// A connection, whichever way it speaks.
pub type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// It said nothing, or was too slow to shake hands.
    #[error("nothing came in time")]
    Silent,
    /// It broke, or the handshake failed.
    #[error(transparent)]
    Broken(#[from] io::Error),
    /// The peer's certificate can't be read.
    #[error("the peer's certificate can't be read")]
    Peer(#[from] vault::pki::Error),
}

/// Finds out how a connection speaks. `plain`: whether it may speak in the clear.
///
/// # Errors
/// [`ChannelError`].
pub async fn open(
    stream: TcpStream,
    tls: &TlsAcceptor,
    plain: bool,
    patience: Duration,
) -> Result<(Stream, Channel), ChannelError> {
    let opened = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(ChannelError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        if first != [HANDSHAKE] {
            let channel = if plain { Channel::Plain } else { Channel::Refused };
            return Ok((Either::Left(stream), channel));
        }
        let stream = tls.accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = shown.map(Peer::read).transpose()?.map(Arc::new);
        Ok((Either::Right(stream), Channel::Tls(peer)))
    };
    tokio::time::timeout(patience, opened)
        .await
        .map_err(|_| ChannelError::Silent)?
}

/// Whether somebody at this address may speak in the clear: on this machine, nobody else listens.
#[must_use]
pub fn may_be_plain(from: SocketAddr) -> bool {
    from.ip().to_canonical().is_loopback()
}
