//! Endpoints that can't be reached, or that break off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use proxy::{Options, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{
    Client, Service, before, before_with, counts_of, dead_address, endpoint, get, group, http, listen_again, nothing,
    own_listener, soon, streamed, text, until,
};

fn impatient() -> Options {
    Options {
        endpoint_wait: Duration::from_millis(50),
        ..Options::default()
    }
}

#[tokio::test]
async fn who_cant_be_reached_is_passed_over() {
    let (good, other) = (Service::named("good").await, Service::named("other").await);
    let proxy = Proxy::new(Options::default());
    let dead = endpoint("dead", dead_address().await);
    let route = http([
        group("new", 50, [dead, good.endpoint()]),
        group("old", 50, [other.endpoint()]),
    ]);
    let address = proxy.set("web", &route).unwrap();
    let mut client = Client::connect(address).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().0, 200);
    }
    assert_eq!((good.seen(), other.seen()), (10, 10), "another of its own group first");
    let counts = proxy.take_counts();
    let new = counts_of(&counts, "new").unwrap();
    assert_eq!(
        (
            new.requests,
            new.errors,
            counts_of(&counts, "old").unwrap().connect_failures
        ),
        (10, 0, 0)
    );
    assert!(new.connect_failures >= 1, "each failure is counted");
}

#[tokio::test]
async fn a_group_that_cant_be_reached_passes_its_share_on() {
    let other = Service::named("other").await;
    let proxy = Proxy::new(Options::default());
    let dead = endpoint("dead", dead_address().await);
    let route = http([group("new", 50, [dead]), group("old", 50, [other.endpoint()])]);
    let address = proxy.set("web", &route).unwrap();
    for _ in 0..10 {
        assert_eq!(get(address).await.1, "other");
    }
    let counts = proxy.take_counts();
    assert_eq!(counts_of(&counts, "old").unwrap().requests, 10);
    assert!(counts_of(&counts, "new").unwrap().connect_failures >= 1);
}

#[tokio::test]
async fn where_nobody_can_be_reached_it_is_said() {
    let proxy = Proxy::new(impatient());
    let dead = endpoint("dead", dead_address().await);
    let address = proxy.set("web", &http([group("v1", 1, [dead])])).unwrap();
    let (status, body) = get(address).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(
        body.starts_with(r#"{"error":{"code":"UNREACHABLE","message":""#),
        "{body}"
    );
    let counts = counts_of(&proxy.take_counts(), "v1").unwrap();
    assert_eq!((counts.requests, counts.errors), (1, 1));
    assert_eq!(counts.latency.iter().sum::<u64>(), 0, "there was no answer");
}

#[tokio::test]
async fn a_replica_that_starts_again_is_waited_for() {
    let address = own_listener(9).await.local_addr().unwrap();
    let proxy = Proxy::new(Options::default());
    let door = proxy
        .set("web", &http([group("v1", 1, [endpoint("a", address)])]))
        .unwrap();
    let asking = tokio::spawn(get(door));
    until("a failure", || proxy.loads()[0].waiting == 1).await;
    let service = Service::start_on("a", listen_again(address), |_| async { Response::new(text("back")) });
    assert_eq!(asking.await.unwrap(), (StatusCode::OK, "back".to_owned()));
    assert_eq!(service.seen(), 1);
}

#[tokio::test]
async fn without_endpoints_requests_wait_for_one() {
    let service = Service::named("a").await;
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("web", &http([group("v1", 1, [])])).unwrap();
    let asking: Vec<_> = (0..5).map(|_| tokio::spawn(get(address))).collect();
    until("five who wait", || proxy.loads()[0].waiting == 5).await;
    assert_eq!(proxy.loads()[0].in_flight, 0);
    proxy.set("web", &http([group("v1", 1, [service.endpoint()])])).unwrap();
    for answer in asking {
        assert_eq!(answer.await.unwrap(), (StatusCode::OK, "a".to_owned()));
    }
    assert_eq!(proxy.loads()[0].waiting, 0);
}

#[tokio::test]
async fn who_waits_in_vain_is_told_to_come_back() {
    let proxy = Proxy::new(impatient());
    let address = proxy.set("web", &http([])).unwrap();
    let mut client = Client::connect(address).await;
    let response = client.send(client.request("GET", "/", nothing())).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.headers()["content-type"], "application/json");
    let counts = proxy.take_counts();
    assert_eq!((counts.len(), counts[0].group.as_deref()), (1, None));
    assert_eq!((counts[0].requests, counts[0].errors), (1, 1));
}

#[tokio::test]
async fn only_so_many_wait() {
    let service = Service::named("a").await;
    let options = Options {
        waiting_max: 2,
        ..Options::default()
    };
    let proxy = Proxy::new(options);
    let address = proxy.set("web", &http([])).unwrap();
    let asking: Vec<_> = (0..2).map(|_| tokio::spawn(get(address))).collect();
    until("two who wait", || proxy.loads()[0].waiting == 2).await;
    assert_eq!(get(address).await.0, StatusCode::SERVICE_UNAVAILABLE);
    proxy.set("web", &http([group("v1", 1, [service.endpoint()])])).unwrap();
    for answer in asking {
        assert_eq!(answer.await.unwrap().0, StatusCode::OK);
    }
}

/// A service by hand: answers the first request of each connection, and closes it when the second one comes.
async fn closes_on_the_second() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let connections = Arc::clone(&connections);
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    let mut buffer = [0; 4_096];
                    // Heads and small bodies come in one piece each.
                    let mut got = Vec::new();
                    while !got.ends_with(b"\r\n\r\n") && !got.ends_with(b"end") {
                        let count = stream.read(&mut buffer).await.unwrap();
                        got.extend_from_slice(&buffer[..count]);
                    }
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                        .await
                        .unwrap();
                    drop(stream.read(&mut buffer).await);
                });
            }
        }
    });
    (address, connections)
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_no_request() {
    let (service, connections) = closes_on_the_second().await;
    let proxy = Proxy::new(Options::default());
    let address = proxy
        .set("web", &http([group("v1", 1, [endpoint("a", service)])]))
        .unwrap();
    let mut client = Client::connect(address).await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.unwrap(), (StatusCode::OK, "ok".to_owned()));
    }
    // Each request after the first met a connection that closed under it, and was repeated on a new one.
    assert_eq!(connections.load(SeqCst), 5);
    let counts = counts_of(&proxy.take_counts(), "v1").unwrap();
    assert_eq!((counts.requests, counts.errors), (5, 0));
}

#[tokio::test]
async fn requests_that_go_again_take_nobodys_turn() {
    let proxy = Proxy::new(Options::default());
    let ((a, _), (b, _)) = (closes_on_the_second().await, closes_on_the_second().await);
    let groups = [group("a", 1, [endpoint("a", a)]), group("b", 1, [endpoint("b", b)])];
    let address = proxy.set("web", &http(groups)).unwrap();
    let mut client = Client::connect(address).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().0, 200);
    }
    let counts = proxy.take_counts();
    let requests = |name| counts_of(&counts, name).unwrap().requests;
    assert_eq!((requests("a"), requests("b")), (10, 10));
}

#[tokio::test]
async fn what_may_have_been_done_isnt_done_twice() {
    let (service, connections) = closes_on_the_second().await;
    let proxy = Proxy::new(Options::default());
    let address = proxy
        .set("web", &http([group("v1", 1, [endpoint("a", service)])]))
        .unwrap();
    let mut client = Client::connect(address).await;
    let post = |client: &Client| client.request("POST", "/", text("end"));
    assert_eq!(client.whole(post(&client)).await.unwrap().0, 200);
    let (status, body) = client.whole(post(&client)).await.unwrap();
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(body.starts_with(br#"{"error":{"code":"NO_ANSWER""#));
    assert_eq!(connections.load(SeqCst), 1);
    let counts = counts_of(&proxy.take_counts(), "v1").unwrap();
    assert_eq!((counts.requests, counts.errors), (2, 1));
}

#[tokio::test]
async fn kept_connections_that_ended_are_seen_before_they_are_used() {
    let service = Service::start_on("a", own_listener(10).await, |_| async { Response::new(text("first")) });
    let (proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    client.get("/").await.unwrap();
    let bound = service.address;
    service.cut().await;
    let again = Service::start_on("a", listen_again(bound), |_| async { Response::new(text("again")) });
    // A POST is never repeated: that it comes through shows that the dead connection wasn't used.
    let request = client.request("POST", "/", text("x"));
    let (status, body) = soon("the answer", client.whole(request)).await.unwrap();
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"again"[..]));
    assert_eq!((again.seen(), proxy.in_flight("web", "a")), (1, 0));
}

/// Takes connections, reads the head of a request, and says nothing: as what forwards a port to a process that has gone.
async fn says_nothing() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
        }
    });
    address
}

/// Takes connections, and resets them at once.
async fn hangs_up() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_zero_linger().unwrap();
        }
    });
    address
}

#[tokio::test]
async fn who_hangs_up_is_passed_over() {
    let good = Service::named("good").await;
    let proxy = Proxy::new(Options::default());
    let gone = endpoint("gone", hangs_up().await);
    let route = http([group("v1", 1, [gone, good.endpoint()])]);
    let address = proxy.set("web", &route).unwrap();
    for _ in 0..100 {
        assert_eq!(get(address).await, (StatusCode::OK, "good".to_owned()));
    }
}

#[tokio::test]
async fn who_closes_without_a_word_is_passed_over_by_what_may_be_repeated() {
    let silent = || async { endpoint("silent", says_nothing().await) };
    let good = Service::named("good").await;
    let proxy = Proxy::new(Options::default());
    let route = http([group("v1", 1, [silent().await, good.endpoint()])]);
    let address = proxy.set("web", &route).unwrap();
    for _ in 0..10 {
        assert_eq!(get(address).await, (StatusCode::OK, "good".to_owned()));
    }
    let counts = counts_of(&proxy.take_counts(), "v1").unwrap();
    assert_eq!((counts.requests, counts.errors, good.seen()), (10, 0, 10));
    // Nobody else answers for a revision, and what isn't to be repeated isn't.
    let route = http([group("v1", 0, [good.endpoint()]), group("v2", 1, [silent().await])]);
    proxy.set("web", &route).unwrap();
    assert_eq!(get(address).await.0, StatusCode::BAD_GATEWAY);
    let route = http([group("v1", 1, [good.endpoint()]), group("v2", 1, [silent().await])]);
    proxy.set("web", &route).unwrap();
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(get(address).await.0);
    }
    assert_eq!(
        answers.iter().filter(|status| **status == StatusCode::OK).count(),
        5,
        "{answers:?}"
    );
    let mut client = Client::connect(address).await;
    let mut posted = Vec::new();
    for _ in 0..4 {
        let request = client.request("POST", "/", text("x"));
        posted.push(client.whole(request).await.unwrap().0);
    }
    assert_eq!(
        posted.iter().filter(|status| **status == StatusCode::OK).count(),
        2,
        "{posted:?}"
    );
    assert_eq!(proxy.in_flight("web", "silent"), 0);
}

#[tokio::test]
async fn an_answer_that_is_none_is_said_to_be_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in [
            "nonsense\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4_096];
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let proxy = Proxy::new(Options::default());
    let address = proxy
        .set("web", &http([group("v1", 1, [endpoint("a", service)])]))
        .unwrap();
    for _ in 0..3 {
        assert_eq!(get(address).await.0, StatusCode::BAD_GATEWAY);
    }
    assert_eq!(counts_of(&proxy.take_counts(), "v1").unwrap().errors, 3);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off() {
    let service = Service::start("a", |_| async {
        let first = futures_util::stream::once(async { Ok(Frame::data("half".into())) });
        let never = futures_util::stream::pending();
        Response::new(streamed(futures_util::StreamExt::chain(first, never)))
    })
    .await;
    let (proxy, address) = before(&service);
    let mut client = Client::connect(address).await;
    let mut response = client.send(client.request("GET", "/", nothing())).await.unwrap();
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    service.cut().await;
    soon("the break", response.frame()).await.unwrap().unwrap_err();
    let counts = counts_of(&proxy.take_counts(), "v1").unwrap();
    assert_eq!(
        (counts.requests, counts.errors, counts.aborted, counts.bytes_out),
        (1, 1, 0, 4)
    );
    assert_eq!(proxy.in_flight("web", "a"), 0);
}

#[tokio::test]
async fn an_answer_that_doesnt_begin_is_given_up() {
    let service = Service::start("a", |_| std::future::pending()).await;
    let options = Options {
        answer_timeout: Duration::from_millis(50),
        ..Options::default()
    };
    let (proxy, address) = before_with(&service, options);
    let (status, body) = get(address).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(body.contains("TIMED_OUT"));
    assert_eq!(counts_of(&proxy.take_counts(), "v1").unwrap().errors, 1);
    assert_eq!(proxy.in_flight("web", "a"), 0);
}
