//! Clients that are slow, still, or too many.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use proxy::{Options, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Client, Service, before_with, group, http, http2_client, nothing, raw, soon, streamed, text, until,
};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_head_that_doesnt_end_ends_the_connection() {
    let service = Service::named("a").await;
    let options = Options {
        header_timeout: SHORT,
        idle_timeout: LONG,
        ..Options::default()
    };
    let (proxy, address) = before_with(&service, options);
    // Nothing at all; the beginning of a head; the beginning of HTTP/2's.
    for bytes in ["", "GET / HTTP/1.1\r\nhost: x\r\nx-slow: ", "PRI * HTTP/2"] {
        raw(address, bytes.as_bytes()).await;
    }
    // A whole one, then the beginning of the next.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1_024];
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n\r\na") {
        length += soon("the answer", stream.read(&mut answer[length..])).await.unwrap();
    }
    stream.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
    assert_eq!(soon("the end", stream.read(&mut answer)).await.unwrap_or(0), 0);
    until("nobody", || proxy.loads()[0].connections == 0).await;
    assert_eq!(service.seen(), 1);
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let service = Service::named("a").await;
    let options = Options {
        idle_timeout: SHORT,
        header_timeout: LONG,
        ..Options::default()
    };
    let (proxy, address) = before_with(&service, options);
    let answer = raw(address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"));
    // HTTP/2 says goodbye.
    let mut client = http2_client(address).await;
    let request = hyper::Request::get(format!("http://{address}/"))
        .body(nothing())
        .unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    until("the end of the connection", || client.is_closed()).await;
    until("nobody", || proxy.loads()[0].connections == 0).await;
}

#[tokio::test]
async fn a_long_answer_is_no_idle_time() {
    let service = Service::start("slow", |_| async {
        tokio::time::sleep(SHORT * 4).await;
        Response::new(text("late"))
    })
    .await;
    let options = Options {
        idle_timeout: SHORT,
        header_timeout: SHORT,
        stall_timeout: SHORT,
        ..Options::default()
    };
    let (_proxy, address) = before_with(&service, options);
    assert_eq!(crate::support::get(address).await, (StatusCode::OK, "late".to_owned()));
}

#[tokio::test]
async fn a_client_that_stops_sending_is_told_so() {
    let service = Service::start("reader", |request| async move {
        drop(request.into_body().collect().await);
        Response::new(text("read"))
    })
    .await;
    let options = Options {
        stall_timeout: SHORT,
        ..Options::default()
    };
    let (proxy, address) = before_with(&service, options);
    let mut client = Client::connect(address).await;
    let body = stream::iter([Ok(Frame::data(Bytes::from("begin")))]).chain(stream::pending());
    let request = client.request("POST", "/", streamed(body));
    let (status, _) = soon("the answer", client.whole(request)).await.unwrap();
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    let counts = &proxy.take_counts()[0];
    assert_eq!((counts.requests, counts.aborted, counts.errors), (1, 1, 0));
    assert_eq!(proxy.in_flight("web", "reader"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_is_left() {
    let service = Service::start("much", |_| async {
        let piece = Bytes::from(vec![1; 64 * 1024]);
        let body = stream::repeat_with(move || Ok(Frame::data(piece.clone())));
        Response::new(streamed(body))
    })
    .await;
    let options = Options {
        stall_timeout: SHORT,
        ..Options::default()
    };
    let (proxy, address) = before_with(&service, options);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until("the request", || service.seen() == 1).await;
    until("the end of the exchange", || proxy.in_flight("web", "much") == 0).await;
    until("nobody", || proxy.loads()[0].connections == 0).await;
    assert_eq!(proxy.take_counts()[0].aborted, 1);
}

#[tokio::test]
async fn too_many_connections_wait_outside() {
    let service = Service::named("a").await;
    let options = Options {
        connections_max: 2,
        ..Options::default()
    };
    let (proxy, address) = before_with(&service, options);
    let mut clients = [Client::connect(address).await, Client::connect(address).await];
    for client in &mut clients {
        client.get("/").await.unwrap();
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    third
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    // The two inside are served as before.
    for client in &mut clients {
        assert_eq!(client.get("/").await.unwrap().0, 200);
    }
    assert_eq!((proxy.loads()[0].connections, service.seen()), (2, 4));
    let [first, _second] = clients;
    drop(first);
    let mut answer = String::new();
    soon("the third's answer", third.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn kept_connections_to_services_are_closed_in_time() {
    let service = Service::named("a").await;
    let proxy = Proxy::new(Options {
        pool_timeout: SHORT,
        ..Options::default()
    });
    let address = proxy.set("web", &http([group("v1", 1, [service.endpoint()])])).unwrap();
    let mut client = Client::connect(address).await;
    client.get("/").await.unwrap();
    tokio::time::sleep(SHORT * 3).await;
    client.get("/").await.unwrap();
    assert_eq!(service.opened(), 2);
}
