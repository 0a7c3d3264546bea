//! Connections to endpoints.
//!
//! An HTTP/1 connection is driven by the very task that has an exchange on it: hyper's connection future is polled beside
//! the answer's, so that an exchange costs no task of its own and no wake-up across threads. Idle, it is driven by nobody,
//! and looked at when it is taken and by a sweep. HTTP/2 connections are shared, and have a task each.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::body::RequestBody;
use crate::clock;
use crate::endpoint::Target;

/// A failure of an exchange, with the request if it wasn't sent.
pub type Unanswered = TrySendError<Request<RequestBody>>;

/// The sending side of a shared HTTP/2 connection.
pub type Shared = http2::SendRequest<RequestBody>;

type Connection = http1::Connection<TokioIo<Wire>, RequestBody>;

/// An HTTP/1 connection, for one exchange at a time.
pub struct Link {
    sender: http1::SendRequest<RequestBody>,
    connection: Connection,
    /// The connection has ended: it mustn't be polled again.
    ended: bool,
    /// Whether anything was read since this was last put to false.
    heard: Arc<AtomicBool>,
    /// Since when it has been idle, by [`clock::now`].
    pub idle_since: u64,
}

impl Link {
    /// Shakes hands (which says nothing on the wire).
    pub async fn new(stream: TcpStream) -> hyper::Result<Self> {
        let heard = Arc::new(AtomicBool::new(false));
        let wire = Wire {
            stream,
            heard: Arc::clone(&heard),
        };
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(wire)).await?;
        Ok(Link {
            sender,
            connection,
            ended: false,
            heard,
            idle_since: 0,
        })
    }

    /// Lets the connection go on as far as it can. `true`: it has ended.
    pub fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.ended {
            self.ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
        self.ended
    }

    /// Whether it is open, and waits for a request.
    pub fn is_usable(&mut self) -> bool {
        !self.drive(&mut Context::from_waker(Waker::noop())) && self.sender.is_ready()
    }

    /// Whether the endpoint has sent anything since the last request was.
    pub fn heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    /// Sends a request; ends when the answer's head is there. Its body comes while the link is [driven](Self::drive).
    ///
    /// # Errors
    /// Hyper's, with the request if nothing of it was sent.
    pub async fn exchange(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, Unanswered> {
        self.heard.store(false, Relaxed);
        let mut answer = pin!(self.sender.try_send_request(request));
        let (connection, ended) = (&mut self.connection, &mut self.ended);
        std::future::poll_fn(|cx| {
            if !*ended {
                *ended = Pin::new(&mut *connection).poll(cx).is_ready();
            }
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Puts it back to its endpoint's idle ones, if its exchange is over and it can have another.
    pub fn recycle(mut self: Box<Self>, target: &Target, pool_max: usize) {
        if self.is_usable() {
            self.idle_since = clock::now();
            target.checkin(self, pool_max);
        }
    }

    /// Lets it go on by itself until its exchange is over; then it closes.
    pub fn detach(self: Box<Self>) {
        if !self.ended {
            let connection = self.connection;
            drop(self.sender);
            tokio::spawn(async move {
                // The exchange's own body tells of a failure.
                drop(connection.await);
            });
        }
    }
}

/// Sends a request that may upgrade its connection, on one of its own.
///
/// # Errors
/// Hyper's.
pub async fn upgradable(stream: TcpStream, request: Request<RequestBody>) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // The answer, or the upgrade, tells of a failure.
        drop(connection.with_upgrades().await);
    });
    sender.send_request(request).await
}

/// Connects within `timeout`.
///
/// # Errors
/// The system's; [`io::ErrorKind::TimedOut`] after the time.
pub async fn connect(target: &Target, timeout: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(target.address()))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The endpoint's HTTP/2 connection; makes it if there is none.
///
/// # Errors
/// What went wrong while connecting.
pub async fn shared(target: &Target, timeout: Duration) -> io::Result<Shared> {
    let mut place = target.shared.lock().await;
    if let Some(sender) = place.as_ref().filter(|sender| !sender.is_closed()) {
        return Ok(sender.clone());
    }
    let stream = connect(target, timeout).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(async move {
        // Each stream tells of a failure by itself.
        drop(connection.await);
    });
    *place = Some(sender.clone());
    Ok(sender)
}

/// A connection that notes whether anything was read from it.
struct Wire {
    stream: TcpStream,
    heard: Arc<AtomicBool>,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.store(true, Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
