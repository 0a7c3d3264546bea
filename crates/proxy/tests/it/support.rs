//! Services, clients and routes for tests.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::HOST;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use proxy::{Counts, Endpoint, Group, Options, Protocol, Proxy, Route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

pub type AnyBody = BoxBody<Bytes, hyper::Error>;
type Answer = Pin<Box<dyn Future<Output = Response<AnyBody>> + Send>>;

/// Nothing may hang: a test ends with a name instead.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} doesn't end"),
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    soon(what, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub fn text(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

pub fn nothing() -> AnyBody {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body that comes in frames.
pub fn streamed(frames: impl Stream<Item = hyper::Result<Frame<Bytes>>> + Send + Sync + 'static) -> AnyBody {
    BodyExt::boxed(StreamBody::new(frames))
}

/// A service with one replica: an HTTP server (HTTP/1.1 and HTTP/2) that can be cut off.
pub struct Service {
    pub id: String,
    pub address: SocketAddr,
    seen: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Service {
    /// One that answers its id.
    pub async fn named(id: &str) -> Self {
        let name = id.to_owned();
        Self::start(id, move |_| {
            let name = name.clone();
            async move { Response::new(text(name)) }
        })
        .await
    }

    pub async fn start<F, A>(id: &str, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(id, listener, answer)
    }

    pub fn start_on<F, A>(id: &str, listener: TcpListener, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let (seen, opened, stop) = (
            Arc::<AtomicUsize>::default(),
            Arc::<AtomicUsize>::default(),
            Arc::new(Notify::new()),
        );
        let answer: Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync> =
            Arc::new(move |request| Box::pin(answer(request)));
        let task = tokio::spawn({
            let (seen, opened, stop) = (Arc::clone(&seen), Arc::clone(&opened), Arc::clone(&stop));
            async move {
                let mut connections = JoinSet::new();
                loop {
                    let stream = tokio::select! {
                        accepted = listener.accept() => accepted.unwrap().0,
                        () = stop.notified() => break,
                    };
                    opened.fetch_add(1, SeqCst);
                    let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            seen.fetch_add(1, SeqCst);
                            let answer = answer(request);
                            async move { Ok::<_, Infallible>(answer.await) }
                        });
                        let server = auto::Builder::new(TokioExecutor::new());
                        let served = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
                        // Clients may go away.
                        drop(served.await);
                    });
                }
                // Listener first: whoever connects now is refused.
                drop(listener);
                connections.shutdown().await;
            }
        });
        Service {
            id: id.to_owned(),
            address,
            seen,
            opened,
            stop,
            task,
        }
    }

    /// Requests that came.
    pub fn seen(&self) -> usize {
        self.seen.load(SeqCst)
    }

    /// Connections that came.
    pub fn opened(&self) -> usize {
        self.opened.load(SeqCst)
    }

    pub fn endpoint(&self) -> Endpoint {
        endpoint(&self.id, self.address)
    }

    /// Ends it at once, whatever it is doing.
    pub async fn cut(self) {
        self.stop.notify_one();
        self.task.await.unwrap();
    }
}

pub fn endpoint(id: &str, address: SocketAddr) -> Endpoint {
    Endpoint {
        id: id.to_owned(),
        address,
    }
}

pub fn group(name: &str, weight: u32, endpoints: impl IntoIterator<Item = Endpoint>) -> Group {
    Group {
        name: name.to_owned(),
        weight,
        endpoints: endpoints.into_iter().collect(),
    }
}

pub fn route(protocol: Protocol, groups: impl IntoIterator<Item = Group>) -> Route {
    Route {
        listen: ([127, 0, 0, 1], 0).into(),
        protocol,
        groups: groups.into_iter().collect(),
    }
}

pub fn http(groups: impl IntoIterator<Item = Group>) -> Route {
    route(Protocol::Http, groups)
}

/// A proxy with one route, `web`, to one service.
pub fn before(service: &Service) -> (Proxy, SocketAddr) {
    before_with(service, Options::default())
}

pub fn before_with(service: &Service, options: Options) -> (Proxy, SocketAddr) {
    let proxy = Proxy::new(options);
    let address = proxy.set("web", &http([group("v1", 1, [service.endpoint()])])).unwrap();
    (proxy, address)
}

/// A listener at 127.0.0.`host`, at which no other test chooses ports: it can be closed and opened again.
pub async fn own_listener(host: u8) -> TcpListener {
    TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), 0)).await.unwrap()
}

/// The same address again, after its listener was closed.
pub fn listen_again(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(8).unwrap()
}

/// An address at which nothing listens.
pub async fn dead_address() -> SocketAddr {
    own_listener(8).await.local_addr().unwrap()
}

/// A client with one HTTP/1.1 connection.
pub struct Client {
    sender: http1::SendRequest<AnyBody>,
    address: SocketAddr,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Client { sender, address }
    }

    pub fn request(&self, method: &str, path: &str, body: AnyBody) -> Request<AnyBody> {
        let request = Request::builder().method(method).uri(path);
        request.header(HOST, self.address.to_string()).body(body).unwrap()
    }

    /// Sends; what comes may have a body yet to come.
    pub async fn send(&mut self, request: Request<AnyBody>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    /// Sends, and takes the whole answer.
    pub async fn whole(&mut self, request: Request<AnyBody>) -> hyper::Result<(StatusCode, Bytes)> {
        let response = self.send(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    pub async fn get(&mut self, path: &str) -> hyper::Result<(StatusCode, String)> {
        let (status, body) = self.whole(self.request("GET", path, nothing())).await?;
        Ok((status, String::from_utf8(body.into()).unwrap()))
    }
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr) -> (StatusCode, String) {
    soon("an answer", async {
        Client::connect(address).await.get("/").await.unwrap()
    })
    .await
}

/// A client with one HTTP/2 connection.
pub async fn http2_client(address: SocketAddr) -> http2::SendRequest<AnyBody> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}

/// Sends bytes as they are, and reads until the other side closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset ends an answer too.
    drop(soon("an answer", stream.read_to_end(&mut answer)).await);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Takes a body to its end; answers how many bytes it had.
pub async fn length(mut body: impl Body<Data = Bytes, Error = hyper::Error> + Unpin) -> usize {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    length
}

/// The counts of a group, added to what was taken before.
pub fn counts_of(all: &[Counts], group: &str) -> Option<Counts> {
    let mut own = all
        .iter()
        .filter(|counts| counts.group.as_deref() == Some(group))
        .cloned();
    let mut sum = own.next()?;
    for more in own {
        sum.requests += more.requests;
        sum.connections += more.connections;
        sum.errors += more.errors;
        sum.aborted += more.aborted;
        sum.connect_failures += more.connect_failures;
        sum.bytes_in += more.bytes_in;
        sum.bytes_out += more.bytes_out;
        for (bucket, count) in sum.latency.iter_mut().zip(more.latency) {
            *bucket += count;
        }
    }
    Some(sum)
}
