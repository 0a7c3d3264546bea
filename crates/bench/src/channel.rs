//! Connections of simulated agents and callers: plain, or TLS with a node's own certificate.

use std::sync::Arc;

use anyhow::Context as _;
use api::op::NodeCert;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use vault::{
    pki::{self, PrivateKey},
    tls::{self, Own, Trust},
};

/// A connection.
pub type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Connects. `tls`: how TLS is spoken; `None`: it isn't.
pub async fn connect(authority: &str, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Stream> {
    match tls {
        None => Ok(Either::Left(plain(authority).await?)),
        Some(config) => Ok(Either::Right(shake_hands(authority, config).await?)),
    }
}

/// Connects by TLS.
pub async fn shake_hands(authority: &str, config: &Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
    let (host, _) = authority.rsplit_once(':').context("an address without a port")?;
    let name = ServerName::try_from(host.to_owned())?;
    let connector = TlsConnector::from(Arc::clone(config));
    connector
        .connect(name, plain(authority).await?)
        .await
        .context("no handshake")
}

async fn plain(authority: &str) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(authority)
        .await
        .context("the gateway can't be reached")?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// A node's certificate with its key, and the authority that it trusts.
pub struct Papers {
    root: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
}

impl Papers {
    /// What a gateway gave for a key.
    pub fn new(given: &NodeCert, key: PrivateKey) -> anyhow::Result<Self> {
        let root = pki::certificates(&given.authority)?.into_iter().next();
        Ok(Self {
            root: root.context("no authority")?,
            chain: pki::certificates(&given.chain)?,
            key,
        })
    }

    /// How TLS is spoken with them. `own`: show the certificate too.
    pub fn config(&self, own: bool) -> anyhow::Result<ClientConfig> {
        let own = own.then(|| Own {
            chain: self.chain.clone(),
            key: &self.key,
        });
        Ok(tls::client_config(&Trust::Root(self.root.clone()), own)?)
    }
}
