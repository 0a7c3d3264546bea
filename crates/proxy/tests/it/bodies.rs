//! Bodies: streamed both ways, large ones in bounded memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Response, StatusCode};
use proxy::Options;
use tokio::sync::mpsc;

use crate::support::{
    AnyBody, Client, Service, before, before_with, http2_client, length, nothing, soon, streamed, text, until,
};

const PIECE: usize = 16 * 1024;
const PIECES: usize = 8 * 1024;

/// 128 MiB, counted as it is taken.
fn large(taken: &Arc<AtomicUsize>) -> AnyBody {
    let taken = Arc::clone(taken);
    let piece = Bytes::from(vec![7; PIECE]);
    let pieces = stream::iter(0..PIECES).map(move |_| {
        taken.fetch_add(PIECE, SeqCst);
        Ok(Frame::data(piece.clone()))
    });
    streamed(pieces)
}

/// Answers the length of what it got, or with `/down` much.
async fn meter(made: &Arc<AtomicUsize>) -> Service {
    let made = Arc::clone(made);
    Service::start("meter", move |request| {
        let made = Arc::clone(&made);
        async move {
            match request.uri().path() {
                "/down" => Response::new(large(&made)),
                _ => Response::new(text(length(request.into_body()).await.to_string())),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways() {
    let made = Arc::default();
    let service = meter(&made).await;
    let (proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    let sent = Arc::default();
    let request = client.request("POST", "/up", large(&sent));
    let (_, answer) = soon("the upload", client.whole(request)).await.unwrap();
    assert_eq!(answer, (PIECE * PIECES).to_string());
    let response = client.send(client.request("GET", "/down", nothing())).await.unwrap();
    assert_eq!(soon("the download", length(response.into_body())).await, PIECE * PIECES);
    let counts = &proxy.take_counts()[0];
    assert_eq!(counts.bytes_in as usize, PIECE * PIECES);
    assert_eq!(counts.bytes_out as usize, PIECE * PIECES + answer.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_by_http2() {
    let made = Arc::default();
    let service = meter(&made).await;
    let (_proxy, address) = before(&service);
    let mut client = http2_client(address).await;
    let request = |path: &str, body| {
        let uri = format!("http://{address}{path}");
        hyper::Request::builder().method("POST").uri(uri).body(body).unwrap()
    };
    let response = client
        .send_request(request("/up", large(&Arc::default())))
        .await
        .unwrap();
    let answer = soon("the upload", response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(answer, (PIECE * PIECES).to_string());
    let response = client.send_request(request("/down", nothing())).await.unwrap();
    assert_eq!(soon("the download", length(response.into_body())).await, PIECE * PIECES);
}

/// Waits until a counter stands still.
async fn settled(counter: &AtomicUsize) -> usize {
    let mut last = 0;
    let mut still = 0;
    while still < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let now = counter.load(SeqCst);
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
    }
    last
}

/// What sockets' buffers and the proxy may hold of 128 MiB. Sockets of the loopback hold some 6 MiB each.
const HELD: usize = 48 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn what_isnt_taken_isnt_made() {
    let made = Arc::default();
    let service = meter(&made).await;
    let (proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    let response = client.send(client.request("GET", "/down", nothing())).await.unwrap();
    let held = soon("standstill", settled(&made)).await;
    assert!(held < HELD, "{held} bytes were made ahead");
    // The client leaves: so does the proxy.
    drop((response, client));
    until("the end of the exchange", || proxy.in_flight("web", "meter") == 0).await;
    assert_eq!(proxy.take_counts()[0].aborted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_isnt_taken_by_the_service_isnt_sent() {
    let service = Service::start("stuck", |request| async move {
        let _kept = request;
        std::future::pending().await
    })
    .await;
    let (_proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    let sent = Arc::default();
    let request = client.request("POST", "/", large(&sent));
    let asking = tokio::spawn(async move { client.whole(request).await });
    let held = soon("standstill", settled(&sent)).await;
    assert!(held < HELD, "{held} bytes were sent ahead");
    asking.abort();
}

#[tokio::test]
async fn answers_come_piece_by_piece() {
    let (events, source) = mpsc::unbounded_channel::<&'static str>();
    let source = Arc::new(std::sync::Mutex::new(Some(source)));
    let service = Service::start("events", move |_| {
        let source = source.lock().unwrap().take().unwrap();
        let pieces = stream::unfold(source, |mut source| async {
            let event = source.recv().await?;
            Some((Ok(Frame::data(Bytes::from(event))), source))
        });
        let response = Response::builder().header("content-type", "text/event-stream");
        let response = response.body(streamed(pieces)).unwrap();
        async move { response }
    })
    .await;
    let (_proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    let mut response = client.send(client.request("GET", "/", nothing())).await.unwrap();
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        // The next one isn't made before this one has arrived.
        events.send(event).unwrap();
        let frame = soon("an event", response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
    drop(events);
    assert!(response.frame().await.is_none());
}

#[tokio::test]
async fn both_directions_go_on_at_once() {
    // Answers each piece as it comes, and so before the request has ended.
    let service = Service::start("echo", |request| async move {
        Response::new(BodyExt::boxed(request.into_body()))
    })
    .await;
    let (_proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    let (pieces, source) = mpsc::unbounded_channel::<Bytes>();
    let body = stream::unfold(source, |mut source| async {
        let piece = source.recv().await?;
        Some((Ok(Frame::data(piece)), source))
    });
    let request = client.request("POST", "/", streamed(body));
    pieces.send("first".into()).unwrap();
    let mut response = soon("the head", client.send(request)).await.unwrap();
    let mut next = async || {
        soon("a piece", response.frame())
            .await
            .map(|frame| frame.unwrap().into_data().unwrap())
    };
    assert_eq!(next().await.unwrap(), "first");
    pieces.send("second".into()).unwrap();
    assert_eq!(next().await.unwrap(), "second");
    drop(pieces);
    assert!(next().await.is_none());
    assert_eq!(client.get("/").await.unwrap().0, 200);
}

#[tokio::test]
async fn an_early_answer_comes_through() {
    let service = Service::start("strict", |_request| async {
        let mut response = Response::new(text("too large"));
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        response
    })
    .await;
    let (_proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    let (pieces, source) = mpsc::unbounded_channel::<Bytes>();
    let body = stream::unfold(source, |mut source| async {
        let piece = source.recv().await?;
        Some((Ok(Frame::data(piece)), source))
    });
    pieces.send("begin".into()).unwrap();
    let request = client.request("POST", "/", streamed(body));
    let (status, body) = soon("the answer", client.whole(request)).await.unwrap();
    assert_eq!((status, &body[..]), (StatusCode::PAYLOAD_TOO_LARGE, &b"too large"[..]));
    drop(pieces);
}

#[tokio::test]
async fn trailers_pass() {
    let service = Service::start("trailers", |request| async move {
        let got = request.into_body().collect().await.unwrap();
        let mut trailers = HeaderMap::new();
        let sum = got
            .trailers()
            .map_or(HeaderValue::from_static("none"), |trailers| trailers["x-sum"].clone());
        trailers.insert("x-sum", sum);
        let frames = [Ok(Frame::data(got.to_bytes())), Ok(Frame::trailers(trailers))];
        let body = streamed(stream::iter(frames));
        Response::builder().header("trailer", "x-sum").body(body).unwrap()
    })
    .await;
    let (_proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    let frames = [Ok(Frame::data("body".into())), Ok(Frame::trailers(trailers))];
    let mut request = client.request("POST", "/", streamed(stream::iter(frames)));
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    request.headers_mut().insert("trailer", "x-sum".parse().unwrap());
    let response = client.send(request).await.unwrap();
    let got = response.into_body().collect().await.unwrap();
    assert_eq!(got.trailers().unwrap()["x-sum"], "42");
    assert_eq!(got.to_bytes(), "body");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let (gone, mut left) = mpsc::unbounded_channel::<()>();
    let service = Service::start("slow", move |_| {
        let guard = gone.clone();
        async move {
            // Dropped with this future.
            let _guard = scope(guard);
            std::future::pending().await
        }
    })
    .await;
    let (proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    let request = client.request("GET", "/", nothing());
    let asking = tokio::spawn(async move { client.whole(request).await });
    until("the request", || service.seen() == 1).await;
    asking.abort();
    soon("the end of the service's work", left.recv()).await.unwrap();
    until("the count", || proxy.in_flight("web", "slow") == 0).await;
    let counts = &proxy.take_counts()[0];
    assert_eq!(counts.group.as_deref(), Some("v1"));
    assert_eq!((counts.requests, counts.aborted, counts.errors), (1, 1, 0));
}

/// Says so when it is dropped.
fn scope(sender: mpsc::UnboundedSender<()>) -> impl Drop {
    struct Scope(mpsc::UnboundedSender<()>);
    impl Drop for Scope {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }
    Scope(sender)
}

#[tokio::test]
async fn a_client_that_breaks_off_is_no_error() {
    let service = Service::start("reader", |request| async move {
        drop(request.into_body().collect().await);
        Response::new(text("read"))
    })
    .await;
    let (proxy, address) = before_with(&service, Options::default());
    let mut client = Client::connect(address).await;
    let body = stream::iter([Ok(Frame::data(Bytes::from("begin")))]).chain(stream::pending());
    let request = client.request("POST", "/", streamed(body));
    let asking = tokio::spawn(async move { client.whole(request).await });
    until("the request", || service.seen() == 1).await;
    asking.abort();
    let mut all = Vec::new();
    until("the count", || {
        all.extend(proxy.take_counts());
        all.iter().map(|counts| counts.aborted).sum::<u64>() == 1
    })
    .await;
    assert_eq!(all.iter().map(|counts| counts.errors).sum::<u64>(), 0);
}
