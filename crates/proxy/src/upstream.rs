//! Connections to endpoints.
//!
//! An HTTP/1 connection is driven by the very task that has an exchange on it: hyper's connection future is polled beside
//! the answer's, so that an exchange costs no task of its own and no wake-up across threads. Idle, it is driven by nobody,
//! and looked at when it is taken and by a sweep. HTTP/2 connections are shared, and have a task each.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

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
    /// `None`: it has ended. (Only when it is dropped does it give back a request that it didn't send.)
    connection: Option<Connection>,
    /// Whether anything was read since this was last put to false.
    heard: Arc<AtomicBool>,
    relay: Arc<Relay>,
    /// Of the relay.
    waker: Waker,
    /// One for all exchanges: it is set anew when it has fired, and so hardly ever.
    timer: Pin<Box<Sleep>>,
    /// Since when it has been idle, by [`clock::now`].
    pub idle_since: u64,
}

/// Why an exchange came to nothing.
pub enum Broken {
    /// The answer didn't begin in time.
    Timeout,
    /// Hyper's reason, with the request if it wasn't sent.
    Failed(Box<Unanswered>),
}

impl Link {
    /// Shakes hands (which says nothing on the wire). `patience`: about how long answers may take to begin.
    ///
    /// # Errors
    /// Hyper's.
    pub async fn new(stream: TcpStream, patience: Duration) -> hyper::Result<Self> {
        let heard = Arc::new(AtomicBool::new(false));
        let wire = Wire {
            stream,
            heard: Arc::clone(&heard),
        };
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(wire)).await?;
        let relay = Arc::<Relay>::default();
        Ok(Link {
            sender,
            connection: Some(connection),
            heard,
            waker: Waker::from(Arc::clone(&relay)),
            relay,
            timer: Box::pin(tokio::time::sleep(patience)),
            idle_since: 0,
        })
    }

    /// Takes a step of the exchange: `look`s at what is there already, lets the connection go on as far as it can, and looks
    /// at what came of it. Whenever the step is pending, `cx` is woken for the next.
    pub fn step<T>(&mut self, cx: &mut Context<'_>, mut look: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.relay.outer.register(cx.waker());
        let inner = &mut Context::from_waker(&self.waker);
        for _ in 0..STEPS {
            self.relay.begin();
            let seen = look(inner);
            if seen.is_ready() {
                self.relay.end();
                return seen;
            }
            drive(&mut self.connection, inner);
            if self.relay.end() {
                return Poll::Pending;
            }
        }
        // Others want their turn too.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether it waits for a request; lets it go on for that.
    pub fn is_usable(&mut self) -> bool {
        drive(&mut self.connection, &mut Context::from_waker(&self.waker));
        self.is_ready()
    }

    fn is_ready(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Whether the endpoint has sent anything since the last request was.
    pub fn heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    /// Sends a request; ends when the answer's head is there. Its body comes by further [steps](Self::step). A connection
    /// that was closed while it was idle gives the request back.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, Broken> {
        self.heard.store(false, Relaxed);
        let started = Instant::now();
        let mut answer = pin!(self.sender.try_send_request(request));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = self.step(cx, |cx| answer.as_mut().poll(cx)) {
                return Poll::Ready(answer.map_err(|error| Broken::Failed(Box::new(error))));
            }
            while self.timer.as_mut().poll(cx).is_ready() {
                if started.elapsed() >= timeout {
                    return Poll::Ready(Err(Broken::Timeout));
                }
                self.timer.as_mut().reset(started + timeout);
            }
            Poll::Pending
        })
        .await
    }

    /// Puts it back to its endpoint's idle ones, if its exchange is over and it can have another.
    pub fn recycle(mut self: Box<Self>, target: &Target, pool_max: usize) {
        // Nobody is to be woken for it while it is idle.
        self.relay.outer.take();
        // What ended the answer has mostly made it ready too.
        if self.is_ready() || self.is_usable() {
            self.idle_since = clock::now();
            target.checkin(self, pool_max);
        }
    }

    /// Lets it go on by itself until its exchange is over; then it closes.
    pub fn detach(self: Box<Self>) {
        if let Some(connection) = self.connection {
            drop(self.sender);
            tokio::spawn(async move {
                // The exchange's own body tells of a failure.
                drop(connection.await);
            });
        }
    }
}

/// Lets a connection go on as far as it can.
fn drive(connection: &mut Option<Connection>, cx: &mut Context<'_>) {
    if let Some(going) = connection
        && Pin::new(going).poll(cx).is_ready()
    {
        *connection = None;
    }
}

/// How often a step is repeated at once because its parts woke one another.
const STEPS: usize = 4;

/// Wakes whoever drives a link. The link's parts (connection, answer, body) wake one another all the time, but they are
/// driven together: a wake-up in the middle of a step only repeats the step, and the task isn't scheduled once more.
#[derive(Default)]
struct Relay {
    outer: AtomicWaker,
    /// [`RESTING`], [`STEPPING`] or [`WOKEN`].
    state: AtomicU8,
}

/// No step is being taken: whoever wakes wakes the task.
const RESTING: u8 = 0;
/// A step is being taken.
const STEPPING: u8 = 1;
/// Somebody woke since it began.
const WOKEN: u8 = 2;

impl Relay {
    /// A step begins: it will see whatever anybody has woken for until now.
    fn begin(&self) {
        self.state.swap(STEPPING, AcqRel);
    }

    /// The step is over; whether nobody woke since it began.
    fn end(&self) -> bool {
        self.state.swap(RESTING, AcqRel) == STEPPING
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Either the step sees this, or this sees that the step is over.
        let stepping = self
            .state
            .fetch_update(AcqRel, Acquire, |state| (state != RESTING).then_some(WOKEN));
        if stepping.is_err() {
            self.outer.wake();
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
