//! Where clients come in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{self, Client};
use crate::line::Line;
use crate::route::Protocol;
use crate::tunnel;

/// Connections that the kernel keeps until they are accepted; it cuts this to its own limit.
const BACKLOG: u32 = 4_096;
/// After what silence the kernel asks whether a peer is still there; it asks a few times more before it gives up.
const SILENCE: Duration = Duration::from_mins(1);
/// A pause when connections can't be accepted (no more files): asking again at once would only burn.
const PAUSE: Duration = Duration::from_millis(50);

/// The address of a route can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// An open door: closed when dropped.
#[derive(Debug)]
pub struct Door {
    /// What was asked for; the port may be 0.
    pub asked: SocketAddr,
    /// What it got.
    pub address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Door {
    /// Whether a route that asks for this address has it.
    pub fn is_at(&self, listen: SocketAddr) -> bool {
        listen == self.asked || listen == self.address
    }

    /// Closes the door; when this ends, nothing listens any more.
    pub async fn close(mut self) {
        self.stop.cancel();
        // It only fails if the runtime ends, and then it is closed too.
        drop((&mut self.task).await);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Listens.
///
/// # Errors
/// The system's.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        // Connections inherit these.
        socket.set_nodelay(true)?;
        socket.set_keepalive(true)?;
        rustix::net::sockopt::set_tcp_keepidle(&socket, SILENCE)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| BindError { address, source })
}

/// Lets clients in.
///
/// # Errors
/// The system's.
pub fn open(line: &Arc<Line>, asked: SocketAddr, listener: TcpListener) -> Result<Door, BindError> {
    let address = listener
        .local_addr()
        .map_err(|source| BindError { address: asked, source })?;
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let (line, stop) = (Arc::clone(line), stop.clone());
        async move {
            stop.run_until_cancelled(accept(line, listener)).await;
        }
    });
    Ok(Door {
        asked,
        address,
        stop,
        task,
    })
}

async fn accept(line: Arc<Line>, listener: TcpListener) {
    loop {
        // Never closed.
        let Ok(permit) = Arc::clone(&line.permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let client = Arc::new(Client::new(peer, &line.connections, permit));
                tokio::spawn(serve(Arc::clone(&line), stream, client));
            }
            Err(error) => {
                tracing::warn!(route = line.key, %error, "can't accept a connection");
                drop(permit);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(line: Arc<Line>, stream: TcpStream, client: Arc<Client>) {
    match line.protocol() {
        Protocol::Http => client::serve(line, stream, client).await,
        Protocol::Tcp => tunnel::serve(line, stream, client).await,
    }
}
