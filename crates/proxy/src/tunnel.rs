//! Bytes both ways, counted: TCP connections, and HTTP connections that were upgraded.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::counts::add;
use crate::endpoint::Lease;
use crate::line::{Line, Search};
use crate::upstream;

/// A buffer each way: more costs memory for each connection, less costs calls.
const BUFFER: usize = 16 * 1024;

/// Serves a TCP connection: finds an endpoint, then passes bytes until both sides are done.
///
/// What it says while an endpoint is searched stays in the kernel. If none is found the connection is reset, so that the
/// client doesn't take it for a service that has nothing to say.
pub async fn serve(line: Arc<Line>, mut stream: TcpStream, _client: Arc<Client>) {
    let mut search = Search::default();
    loop {
        match line.lease(&mut search).await {
            Ok(lease) => match upstream::connect(&lease.target, line.options.connect_timeout).await {
                Ok(endpoint) => {
                    lease.target.reached();
                    add(&lease.meter.connections, 1);
                    pass(&mut stream, endpoint, &lease).await;
                    return;
                }
                Err(error) => line.unreachable(&mut search, lease, &error),
            },
            Err(_) => {
                let meter = search.group.as_ref().unwrap_or(&line.own);
                add(&meter.connections, 1);
                add(&meter.errors, 1);
                // Either way it is closed.
                drop(stream.set_zero_linger());
                return;
            }
        }
    }
}

/// Passes bytes between the two sides of an upgrade until both are done. The client counts as connected for as long.
pub async fn upgraded(inner: OnUpgrade, outer: OnUpgrade, lease: Lease, _client: Arc<Client>) {
    if let (Ok(outer), Ok(inner)) = (outer.await, inner.await) {
        pass(TokioIo::new(outer), TokioIo::new(inner), &lease).await;
    }
}

async fn pass<A, B>(client: A, endpoint: B, lease: &Lease)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let meter = &*lease.meter;
    let mut client = Counted {
        io: client,
        read: &meter.bytes_in,
    };
    let mut endpoint = Counted {
        io: endpoint,
        read: &meter.bytes_out,
    };
    // A side that breaks off ends both; whose fault it is can't be told from here.
    drop(copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER).await);
}

/// Counts what is read.
struct Counted<'a, T> {
    io: T,
    read: &'a AtomicU64,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<'_, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        if count > 0 {
            add(self.read, count as u64);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
