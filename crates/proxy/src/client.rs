//! A client's HTTP connection: its deadlines, and how it is told to end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::Version;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::clock;
use crate::headers::Origin;
use crate::line::Line;
use crate::options::Options;

/// How long a connection that was quiet for too long may take to end well (HTTP/2 says goodbye first).
const PARTING: Duration = Duration::from_secs(1);

/// What the connection, its requests and its route share.
pub struct Client {
    pub origin: Origin,
    closing: AtomicBool,
    waker: AtomicWaker,
    /// Requests that are being answered.
    active: AtomicUsize,
    /// Since when there is none.
    quiet_since: AtomicU64,
    /// When the first byte of the next request came; 0: not yet. (What came in one piece with the request before it isn't
    /// seen; then the limit is the longer one of a quiet connection.)
    head_since: AtomicU64,
    /// It is HTTP/2, where bytes may come without a request: they begin none.
    frames: AtomicBool,
    connections: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
}

impl Client {
    /// A connection: one of `connections` until it is dropped.
    pub fn new(peer: SocketAddr, connections: &Arc<AtomicUsize>, permit: OwnedSemaphorePermit) -> Self {
        connections.fetch_add(1, Relaxed);
        let now = clock::now();
        Client {
            origin: Origin::new(peer.ip()),
            closing: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            active: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(now),
            // A connection that never says anything is as slow as one that never ends what it says.
            head_since: AtomicU64::new(now),
            frames: AtomicBool::new(false),
            connections: Arc::clone(connections),
            _permit: permit,
        }
    }

    /// Tells the connection to end when what it is answering is answered.
    pub fn close(&self) {
        // Its time to part begins now, if it is quiet; if not, when it becomes so.
        self.quiet_since.store(clock::now(), Relaxed);
        self.closing.store(true, Release);
        self.waker.wake();
    }

    /// A request has come.
    pub fn begin(self: &Arc<Self>, version: Version) -> Serving {
        if version == Version::HTTP_2 {
            self.frames.store(true, Relaxed);
        }
        self.head_since.store(0, Relaxed);
        self.active.fetch_add(1, Relaxed);
        Serving(Arc::clone(self))
    }

    fn read(&self) {
        let quiet = self.active.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0;
        if quiet && !self.frames.load(Relaxed) {
            self.head_since.store(clock::now(), Relaxed);
        }
    }

    /// When the connection has been quiet for too long; `None`: it is busy. `parting`: how long it has to end.
    fn due(&self, options: &Options, parting: Option<Duration>) -> Option<u64> {
        if self.active.load(Relaxed) > 0 {
            return None;
        }
        let quiet = self.quiet_since.load(Relaxed);
        let (since, limit) = match (parting, self.head_since.load(Relaxed)) {
            (Some(parting), _) => (quiet, parting),
            (None, 0) => (quiet, options.idle_timeout),
            (None, begun) => (begun, options.header_timeout),
        };
        Some(since.saturating_add(clock::nanos(limit)))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

/// A request that is being answered.
pub struct Serving(Arc<Client>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.quiet_since.store(clock::now(), Relaxed);
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// Serves an HTTP connection until it ends.
pub async fn serve(line: Arc<Line>, stream: TcpStream, client: Arc<Client>) {
    let _entry = line.enter(&client);
    let io = TokioIo::new(Wire {
        stream,
        client: Arc::clone(&client),
        stall: line.options.stall_timeout,
        timer: None,
    });
    let service = {
        let (line, client) = (Arc::clone(&line), Arc::clone(&client));
        service_fn(move |request| {
            let (line, client) = (Arc::clone(&line), Arc::clone(&client));
            async move { Ok::<_, Infallible>(crate::http::serve(line, client, request).await) }
        })
    };
    let mut connection = pin!(line.server.serve_connection_with_upgrades(io, service));
    let mut timer = pin!(tokio::time::sleep(line.options.header_timeout));
    let mut armed = clock::now().saturating_add(clock::nanos(line.options.header_timeout));
    // How long it may take to end, once it was told to.
    let mut parting: Option<Duration> = None;
    let mut begun = false;
    poll_fn(|cx| {
        if !begun {
            // The task's waker is always the same.
            client.waker.register(cx.waker());
            begun = true;
        }
        loop {
            if parting.is_none() && client.closing.load(Acquire) {
                // What it has yet to write is bounded as any answer is.
                parting = Some(line.options.stall_timeout);
                connection.as_mut().graceful_shutdown();
            }
            // How it ended is nobody's matter any more: requests have been told.
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let due = client.due(&line.options, parting);
            if let Some(due) = due.filter(|due| *due < armed) {
                arm(timer.as_mut(), &mut armed, due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = clock::now();
            match due {
                None => arm(timer.as_mut(), &mut armed, now.saturating_add(clock::nanos(PARTING))),
                Some(due) if due > now => arm(timer.as_mut(), &mut armed, due),
                Some(_) if parting.is_some() => return Poll::Ready(()),
                Some(_) => {
                    parting = Some(PARTING);
                    client.quiet_since.store(now, Relaxed);
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    })
    .await;
}

fn arm(timer: Pin<&mut Sleep>, armed: &mut u64, due: u64) {
    let pause = Duration::from_nanos(due.saturating_sub(clock::now()));
    timer.reset(Instant::now() + pause);
    *armed = due;
}

/// How connections are served, the same for all.
pub fn server(options: &Options) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    // Deadlines are the connection's own: one timer for its life, none a request.
    server
        .http1()
        .header_read_timeout(None)
        .max_buf_size(options.header_bytes_max.max(8 * 1024));
    server
        .http2()
        .max_header_list_size(u32::try_from(options.header_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(HTTP2_STREAMS);
    server
}

/// Requests that a client may have at once on one HTTP/2 connection; hyper's own default, so that memory is bounded.
const HTTP2_STREAMS: u32 = 200;

/// The client's socket: notes when a request begins, and ends when the client takes nothing for too long.
struct Wire {
    stream: TcpStream,
    client: Arc<Client>,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    fn written<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            if self.timer.is_some() {
                self.timer = None;
            }
            return polled;
        }
        let stall = self.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.client.read();
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, polled)
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
