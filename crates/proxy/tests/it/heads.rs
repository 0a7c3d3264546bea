//! Heads of messages: what passes, what is changed, what is refused.

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, Version};
use proxy::Options;

use crate::support::{Client, Service, before, before_with, http2_client, length, nothing, raw, text};

/// Answers the head that it got, and how long the body was.
async fn mirror() -> Service {
    Service::start("mirror", |request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        let mut lines = vec![format!("{} {} {:?}", parts.method, parts.uri, parts.version)];
        let mut headers: Vec<_> = parts.headers.iter().collect();
        headers.sort_by_key(|(name, _)| name.as_str());
        lines.extend(
            headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())),
        );
        lines.push(format!("body: {}", length(body).await));
        Response::new(text(lines.join("\n")))
    })
    .await
}

#[tokio::test]
async fn what_the_service_sees() {
    let service = mirror().await;
    let (_proxy, address) = before(&service);
    let answer = raw(
        address,
        b"POST http://shop.test/a/b?c=d HTTP/1.1\r\nHost: other\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nX-End: 2\r\n\
          X-Forwarded-For: 9.9.9.9\r\nContent-Length: 3\r\n\r\nabc",
    )
    .await;
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let want = "POST /a/b?c=d HTTP/1.1\ncontent-length: 3\nhost: shop.test\nx-end: 2\nx-forwarded-for: 9.9.9.9, 127.0.0.1\n\
                x-forwarded-host: shop.test\nx-forwarded-proto: http\nbody: 3";
    assert_eq!(body, want);
    assert!(
        answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn http2_becomes_http1() {
    let service = mirror().await;
    let (_proxy, address) = before(&service);
    let mut client = http2_client(address).await;
    let request = Request::builder()
        .uri("http://shop.test/x?y")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(nothing())
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    let want = "GET /x?y HTTP/1.1\ncookie: a=1; b=2\nhost: shop.test\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: shop.test\n\
                x-forwarded-proto: http\nbody: 0";
    assert_eq!(body, want);
}

#[tokio::test]
async fn http_1_0_is_served() {
    let service = mirror().await;
    let (_proxy, address) = before(&service);
    let answer = raw(address, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    assert!(answer.contains("GET / HTTP/1.1"), "{answer}");
}

#[tokio::test]
async fn answers_lose_what_concerned_the_services_connection() {
    let service = Service::start("a", |_| async {
        let response = Response::builder()
            .status(StatusCode::CREATED)
            .header("connection", "close, x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=1")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2");
        response.body(text("made")).unwrap()
    })
    .await;
    let (_proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    for _ in 0..2 {
        let response = client.send(client.request("GET", "/", nothing())).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let mut names: Vec<_> = response
            .headers()
            .iter()
            .map(|(name, _)| name.as_str().to_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["content-length", "date", "set-cookie", "set-cookie"]);
        assert_eq!(length(response.into_body()).await, 4);
    }
    assert_eq!(
        service.opened(),
        2,
        "the service's connection ended, the client's didn't"
    );
}

#[tokio::test]
async fn a_head_alone_keeps_its_length() {
    let service = Service::start("a", |_| async {
        Response::builder()
            .header("content-length", "12345")
            .body(nothing())
            .unwrap()
    })
    .await;
    let (_proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    for _ in 0..3 {
        let response = client.send(client.request("HEAD", "/", nothing())).await.unwrap();
        assert_eq!(response.headers()["content-length"], "12345");
        assert_eq!(length(response.into_body()).await, 0);
    }
    assert_eq!(service.opened(), 1);
}

#[tokio::test]
async fn who_asks_before_sending_is_told_to_go_on() {
    let service = mirror().await;
    let (_proxy, address) = before(&service);
    let head =
        b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab";
    let answer = raw(address, head).await;
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("body: 2") && !answer.contains("expect"), "{answer}");
}

/// One request, refused; the connection then ends and the service saw nothing.
async fn refused(request: &str, status: u16) {
    let service = mirror().await;
    let (_proxy, address) = before(&service);
    let answer = raw(address, request.as_bytes()).await;
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{request:?}: {answer:?}"
    );
    assert_eq!(service.seen(), 0, "{request:?}");
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let post = |lines: &str| format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n");
    for lines in [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: 3, 4\r\n",
        "content-length: +3\r\n",
        "content-length: -1\r\n",
        "content-length: 0x3\r\n",
        "content-length : 3\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "host: y\r\n",
        " folded: 1\r\n",
        "x: a\r\n folded\r\n",
        "x: a\0b\r\n",
        "x y: 1\r\n",
        ": 1\r\n",
        "x\r\n",
    ] {
        refused(&post(lines), 400).await;
    }
    refused("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400).await;
    refused("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", 400).await;
    refused("nonsense\r\n\r\n", 400).await;
    refused("GET / HTTP/9.9\r\n\r\n", 400).await;
    refused("GET /a b HTTP/1.1\r\nhost: x\r\n\r\n", 400).await;
    refused(
        "CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\nconnection: close\r\n\r\n",
        405,
    )
    .await;
}

#[tokio::test]
async fn a_length_beside_chunks_goes_no_further_and_ends_the_connection() {
    // RFC 9112, section 6.3: the chunks count, the length must go, and so must the connection.
    for order in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        let service = mirror().await;
        let (_proxy, address) = before(&service);
        let smuggled = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{order}\r\n2\r\nab\r\n0\r\n\r\n{smuggled}");
        let answer = raw(address, request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
        assert!(
            answer.contains("transfer-encoding: chunked\n") && !answer.contains("content-length: 4"),
            "{answer}"
        );
        assert!(answer.contains("body: 2") && !answer.contains("smuggled"), "{answer}");
        assert_eq!(service.seen(), 1);
    }
}

#[tokio::test]
async fn broken_chunks_are_no_request() {
    let service = mirror().await;
    let (proxy, address) = before(&service);
    for chunk in [
        "zz\r\nab\r\n0\r\n\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nab",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
        let answer = raw(address, request.as_bytes()).await;
        assert!(!answer.contains("200 OK"), "{chunk:?}: {answer}");
    }
    crate::support::until("the end", || proxy.in_flight("web", "mirror") == 0).await;
    let errors: u64 = proxy.take_counts().iter().map(|counts| counts.errors).sum();
    assert_eq!(errors, 0, "it was no error of the service");
}

#[tokio::test]
async fn heads_have_limits() {
    let service = mirror().await;
    let options = Options {
        header_bytes_max: 16 * 1024,
        ..Options::default()
    };
    let (_proxy, address) = before_with(&service, options);
    let with = |header: &str| format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n");
    let fits = format!("x: {}\r\n", "a".repeat(8 * 1024));
    assert!(raw(address, with(&fits).as_bytes()).await.starts_with("HTTP/1.1 200"));
    let large = format!("x: {}\r\n", "a".repeat(40 * 1024));
    assert!(raw(address, with(&large).as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = "x: a\r\n".repeat(101);
    assert!(raw(address, with(&many).as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert_eq!(service.seen(), 1);
}

#[tokio::test]
async fn requests_in_one_piece_are_answered_in_turn() {
    let service = mirror().await;
    let (_proxy, address) = before(&service);
    let ask = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    let request = ask("/1", "") + &ask("/2", "") + &ask("/3", "connection: close\r\n");
    let answer = raw(address, request.as_bytes()).await;
    let order: Vec<_> = answer
        .match_indices("GET /")
        .map(|(at, _)| &answer[at + 5..at + 6])
        .collect();
    assert_eq!(order, ["1", "2", "3"]);
}
