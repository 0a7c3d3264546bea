//! Connections that become something else.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use proxy::{Options, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};

use crate::support::{Client, Service, before, group, http, nothing, soon, text, until};

/// Becomes an echo where asked to, else says no.
async fn echo(id: &str) -> Service {
    Service::start(id, |mut request: Request<Incoming>| async move {
        if request.uri().path() == "/no" {
            let mut response = Response::new(text("no"));
            *response.status_mut() = StatusCode::FORBIDDEN;
            return response;
        }
        assert_eq!(request.headers()["upgrade"], "echo/1");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let io = TokioIo::new(upgrade.await.unwrap());
            let (mut read, mut write) = tokio::io::split(io);
            // The client may leave in the middle.
            drop(copy(&mut read, &mut write).await);
            drop(write.shutdown().await);
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let response = response.header("connection", "upgrade").header("upgrade", "echo/1");
        response.body(nothing()).unwrap()
    })
    .await
}

fn ask(client: &Client, path: &str) -> Request<crate::support::AnyBody> {
    let mut request = client.request("GET", path, nothing());
    request.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "echo/1".parse().unwrap());
    request
}

async fn upgraded(address: std::net::SocketAddr) -> TokioIo<Upgraded> {
    let mut client = Client::connect(address).await;
    let response = client.send(ask(&client, "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "echo/1");
    TokioIo::new(hyper::upgrade::on(response).await.unwrap())
}

#[tokio::test]
async fn bytes_pass_both_ways_and_are_counted() {
    let service = echo("a").await;
    let (proxy, address) = before(&service);
    let mut io = upgraded(address).await;
    for round in 0..10 {
        let message = format!("message {round}").repeat(100);
        io.write_all(message.as_bytes()).await.unwrap();
        let mut got = vec![0; message.len()];
        soon("the echo", io.read_exact(&mut got)).await.unwrap();
        assert_eq!(got, message.as_bytes());
    }
    assert_eq!((proxy.in_flight("web", "a"), proxy.loads()[0].connections), (1, 1));
    // One direction ends, then the other.
    io.shutdown().await.unwrap();
    assert_eq!(soon("the end", io.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    until("the end of the tunnel", || proxy.in_flight("web", "a") == 0).await;
    drop(io);
    until("nobody", || proxy.loads()[0].connections == 0).await;
    let counts = &proxy.take_counts()[0];
    assert_eq!(
        (counts.requests, counts.errors, counts.bytes_in, counts.bytes_out),
        (1, 0, 9_000, 9_000)
    );
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer() {
    let service = echo("a").await;
    let (proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    for _ in 0..2 {
        let response = client.send(ask(&client, "/no")).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
    }
    assert_eq!(proxy.in_flight("web", "a"), 0);
}

#[tokio::test]
async fn tunnels_outlive_their_endpoints_place_and_hold_up_draining() {
    let (service, other) = (echo("a").await, echo("b").await);
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("web", &http([group("v1", 1, [service.endpoint()])])).unwrap();
    let mut io = upgraded(address).await;
    proxy.set("web", &http([group("v1", 1, [other.endpoint()])])).unwrap();
    proxy.remove("web").await;
    io.write_all(b"still here").await.unwrap();
    let mut got = [0; 10];
    soon("the echo", io.read_exact(&mut got)).await.unwrap();
    // Its bytes are counted as they come, and it is known for as long as it lives.
    assert_eq!(proxy.take_counts()[0].bytes_out, 10);
    assert!(proxy.take_counts().is_empty());
    assert_eq!(proxy.in_flight("web", "a"), 1);
    drop(io);
    soon("draining", proxy.drained("web", "a")).await;
}
