//! Counts are what happened.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::{Response, StatusCode};
use proxy::{BUCKETS, Options, Proxy, quantile};

use crate::support::{Client, Service, before, counts_of, group, http, nothing, soon, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_add_up_to_what_the_services_saw() {
    let (bytes_in, bytes_out, failed) = (
        Arc::<AtomicU64>::default(),
        Arc::<AtomicU64>::default(),
        Arc::<AtomicU64>::default(),
    );
    let make = |id: &'static str| {
        let (bytes_in, bytes_out, failed) = (Arc::clone(&bytes_in), Arc::clone(&bytes_out), Arc::clone(&failed));
        Service::start(id, move |request| {
            let (bytes_in, bytes_out, failed) = (Arc::clone(&bytes_in), Arc::clone(&bytes_out), Arc::clone(&failed));
            async move {
                let fail = request.uri().path() == "/fail";
                let body = request.into_body().collect().await.unwrap().to_bytes();
                bytes_in.fetch_add(body.len() as u64, SeqCst);
                let answer = "answer".repeat(body.len() % 7);
                bytes_out.fetch_add(answer.len() as u64, SeqCst);
                let mut response = Response::new(text(answer));
                if fail {
                    failed.fetch_add(1, SeqCst);
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                response
            }
        })
    };
    let (a, b) = (make("a").await, make("b").await);
    let proxy = Proxy::new(Options::default());
    let groups = [group("a", 3, [a.endpoint()]), group("b", 1, [b.endpoint()])];
    let address = proxy.set("web", &http(groups)).unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let clients = (0..6_usize).map(|number| {
        let (proxy, taken) = (proxy.clone(), Arc::clone(&taken));
        async move {
            let mut client = Client::connect(address).await;
            for step in 0..100 {
                let path = if (number + step) % 10 == 0 { "/fail" } else { "/" };
                let request = client.request("POST", path, text(vec![b'x'; number * 31 + step]));
                client.whole(request).await.unwrap();
                // Somebody takes them all the while.
                if step % 9 == 0 {
                    taken.lock().unwrap().extend(proxy.take_counts());
                }
            }
        }
    });
    soon("600 requests", futures_util::future::join_all(clients)).await;
    let mut all = taken.lock().unwrap().clone();
    all.extend(proxy.take_counts());
    assert!(all.iter().all(|counts| counts.key == "web"));
    let (of_a, of_b) = (counts_of(&all, "a").unwrap(), counts_of(&all, "b").unwrap());
    assert_eq!((of_a.requests as usize, of_b.requests as usize), (a.seen(), b.seen()));
    assert_eq!((of_a.requests, of_b.requests), (450, 150));
    assert_eq!(of_a.errors + of_b.errors, failed.load(SeqCst));
    assert_eq!(of_a.bytes_in + of_b.bytes_in, bytes_in.load(SeqCst));
    assert_eq!(of_a.bytes_out + of_b.bytes_out, bytes_out.load(SeqCst));
    for counts in [&of_a, &of_b] {
        assert_eq!(counts.latency.len(), BUCKETS);
        assert_eq!(counts.latency.iter().sum::<u64>(), counts.requests);
        assert!(quantile(&counts.latency, 0.5) <= quantile(&counts.latency, 0.99));
        assert_eq!(counts.aborted + counts.connect_failures + counts.connections, 0);
    }
    assert!(
        proxy.take_counts().is_empty(),
        "nothing is counted twice, and nothing isn't told"
    );
}

#[tokio::test]
async fn groups_that_left_are_counted_to_their_end() {
    let (a, b) = (Service::named("a").await, Service::named("b").await);
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("web", &http([group("a", 1, [a.endpoint()])])).unwrap();
    let mut client = Client::connect(address).await;
    client.get("/").await.unwrap();
    proxy.set("web", &http([group("b", 1, [b.endpoint()])])).unwrap();
    client.get("/").await.unwrap();
    let counts = proxy.take_counts();
    assert_eq!(counts_of(&counts, "a").unwrap().requests, 1);
    assert_eq!(counts_of(&counts, "b").unwrap().requests, 1);
    client.get("/").await.unwrap();
    proxy.remove("web").await;
    assert_eq!(counts_of(&proxy.take_counts(), "b").unwrap().requests, 1);
    assert!(proxy.take_counts().is_empty());
    assert!(proxy.loads().is_empty());
}

#[tokio::test]
async fn who_is_connected_is_told() {
    let service = Service::named("a").await;
    let (proxy, address) = before(&service);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(address).await;
        client.whole(client.request("GET", "/", nothing())).await.unwrap();
        clients.push(client);
    }
    assert_eq!(proxy.loads()[0].connections, 3);
    drop(clients);
    crate::support::until("nobody", || proxy.loads()[0].connections == 0).await;
}
