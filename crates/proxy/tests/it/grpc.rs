//! gRPC: HTTP/2 to the service, trailers, streams.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Request, Response, StatusCode, Version};
use proxy::{Options, Proxy};
use tokio::sync::mpsc;

use crate::support::{
    AnyBody, Service, before, counts_of, dead_address, endpoint, group, http, http2_client, listen_again, own_listener,
    soon, streamed, text,
};

/// Answers what it gets, then `grpc-status` in trailers; only by HTTP/2, and only for who takes trailers.
async fn echo(id: &str) -> Service {
    Service::start(id, |request: Request<Incoming>| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(request.headers()["te"], "trailers");
        let authority = request.uri().authority().unwrap().to_string();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("x-authority", authority.parse().unwrap());
        let data = request.into_body().into_data_stream();
        let frames = futures_util::StreamExt::map(data, |data| data.map(Frame::data));
        let frames = futures_util::StreamExt::chain(frames, stream::iter([Ok(Frame::trailers(trailers))]));
        let response = Response::builder().header("content-type", "application/grpc");
        response.body(streamed(frames)).unwrap()
    })
    .await
}

fn call(address: std::net::SocketAddr, body: AnyBody) -> Request<AnyBody> {
    Request::builder()
        .method("POST")
        .uri(format!("http://{address}/test.Echo/Call"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn calls_keep_their_trailers_and_share_a_connection() {
    let service = echo("a").await;
    let (proxy, address) = before(&service);
    let client = http2_client(address).await;
    let calls = (0..20).map(|number| {
        let mut client = client.clone();
        async move {
            let message = format!("message {number}");
            let response = client.send_request(call(address, text(message.clone()))).await.unwrap();
            assert_eq!(response.headers()["content-type"], "application/grpc");
            let got = response.into_body().collect().await.unwrap();
            let trailers = got.trailers().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
            assert_eq!(trailers["x-authority"], address.to_string());
            assert_eq!(got.to_bytes(), message);
        }
    });
    soon("the calls", futures_util::future::join_all(calls)).await;
    assert_eq!((service.seen(), service.opened()), (20, 1));
    assert_eq!(counts_of(&proxy.take_counts(), "v1").unwrap().requests, 20);
    assert_eq!(proxy.in_flight("web", "a"), 0);
}

#[tokio::test]
async fn streams_go_both_ways_at_once() {
    let service = echo("a").await;
    let (_proxy, address) = before(&service);
    let mut client = http2_client(address).await;
    let (pieces, source) = mpsc::unbounded_channel::<Bytes>();
    let body = stream::unfold(source, |mut source| async {
        let piece = source.recv().await?;
        Some((Ok(Frame::data(piece)), source))
    });
    let mut response = client.send_request(call(address, streamed(body))).await.unwrap();
    for piece in ["one", "two", "three"] {
        pieces.send(piece.into()).unwrap();
        let frame = soon("a message", response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    drop(pieces);
    let last = soon("the end", response.frame()).await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn streams_outlive_their_endpoints_place() {
    let (service, other) = (echo("a").await, echo("b").await);
    let (proxy, address) = before(&service);
    let mut client = http2_client(address).await;
    let (pieces, source) = mpsc::unbounded_channel::<Bytes>();
    let body = stream::unfold(source, |mut source| async {
        let piece = source.recv().await?;
        Some((Ok(Frame::data(piece)), source))
    });
    let mut response = client.send_request(call(address, streamed(body))).await.unwrap();
    let mut next = async || soon("a message", response.frame()).await.unwrap().unwrap();
    pieces.send("before".into()).unwrap();
    assert_eq!(next().await.into_data().unwrap(), "before");
    proxy.set("web", &http([group("v2", 1, [other.endpoint()])])).unwrap();
    client
        .send_request(call(address, text("new")))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    assert_eq!((other.seen(), proxy.in_flight("web", "a")), (1, 1));
    for piece in ["after", "and on"] {
        pieces.send(piece.into()).unwrap();
        assert_eq!(next().await.into_data().unwrap(), piece);
    }
    drop(pieces);
    assert_eq!(next().await.into_trailers().unwrap()["grpc-status"], "0");
    soon("draining", proxy.drained("web", "a")).await;
    assert_eq!(counts_of(&proxy.take_counts(), "v1").unwrap().errors, 0);
}

#[tokio::test]
async fn calls_go_elsewhere_too() {
    let service = echo("a").await;
    let proxy = Proxy::new(Options::default());
    let dead = endpoint("dead", dead_address().await);
    let address = proxy
        .set("web", &http([group("v1", 1, [dead, service.endpoint()])]))
        .unwrap();
    let mut client = http2_client(address).await;
    for _ in 0..5 {
        let response = client.send_request(call(address, text("x"))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(service.seen(), 5);
}

#[tokio::test]
async fn a_connection_that_ended_is_made_anew() {
    let service = Service::start_on("a", own_listener(11).await, |_| async { Response::new(text("first")) });
    let (_proxy, address) = before(&service);
    let mut client = http2_client(address).await;
    client
        .send_request(call(address, text("x")))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    let bound = service.address;
    service.cut().await;
    let again = Service::start_on("a", listen_again(bound), |_| async { Response::new(text("again")) });
    let response = client.send_request(call(address, text("x"))).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "again");
    assert_eq!(again.seen(), 1);
}

#[tokio::test]
async fn whoever_left_has_no_connection() {
    let (service, other) = (echo("a").await, echo("b").await);
    let proxy = Proxy::new(Options::default());
    let to = |service: &Service| http([group("v1", 1, [service.endpoint()])]);
    let address = proxy.set("web", &to(&service)).unwrap();
    let mut client = http2_client(address).await;
    for (route, opened) in [(&service, 1), (&service, 1), (&other, 1), (&service, 2)] {
        proxy.set("web", &to(route)).unwrap();
        let response = client.send_request(call(address, text("x"))).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(route.opened(), opened);
    }
}
