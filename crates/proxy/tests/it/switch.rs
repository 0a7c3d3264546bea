//! Routes that change under load: nothing fails, nothing is sent to who has left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use http_body_util::BodyExt;
use hyper::Response;
use proxy::{Endpoint, Options, Proxy};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::{Client, Service, get, group, http, nothing, soon, text, until};

/// Clients that ask as fast as they can, and must never see anything but 200.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(address: SocketAddr, count: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..count {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            clients.spawn(async move {
                let mut client = Client::connect(address).await;
                while !stop.load(SeqCst) {
                    let body = vec![b'x'; 2_000];
                    let request = match number % 2 {
                        0 => client.request("GET", "/", nothing()),
                        _ => client.request("POST", "/", text(body)),
                    };
                    let (status, _) = client.whole(request).await.unwrap();
                    assert_eq!(status, 200);
                    done.fetch_add(1, SeqCst);
                }
            });
        }
        Load { stop, done, clients }
    }

    async fn stop(mut self) -> usize {
        self.stop.store(true, SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        self.done.load(SeqCst)
    }
}

/// A service that takes its request's body and a moment.
async fn worker(id: &str) -> Service {
    let name = id.to_owned();
    Service::start(id, move |request| {
        let name = name.clone();
        async move {
            request.into_body().collect().await.unwrap();
            tokio::task::yield_now().await;
            Response::new(text(name))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_through_replicas_fails_nothing() {
    let proxy = Proxy::new(Options::default());
    let mut live = [worker("r0").await, worker("r1").await];
    let endpoints = |live: &[Service]| -> Vec<Endpoint> { live.iter().map(Service::endpoint).collect() };
    let address = proxy.set("web", &http([group("v", 1, endpoints(&live))])).unwrap();
    let load = Load::start(address, 8);
    let mut seen = 0;
    for round in 2..202 {
        // As a rollout does: the new one in, the old one out, drained, and only then ended.
        let fresh = worker(&format!("r{round}")).await;
        let old = std::mem::replace(&mut live[round % 2], fresh);
        proxy.set("web", &http([group("v", 1, endpoints(&live))])).unwrap();
        soon("draining", proxy.drained("web", &old.id)).await;
        assert_eq!(proxy.in_flight("web", &old.id), 0);
        let before = old.seen();
        // Some more traffic, so that a straggler would show.
        let done = load.done.load(SeqCst);
        until("more traffic", || load.done.load(SeqCst) > done + 8).await;
        assert_eq!(old.seen(), before, "nothing comes after the end of draining");
        seen += before;
        old.cut().await;
    }
    let done = load.stop().await;
    seen += live.iter().map(Service::seen).sum::<usize>();
    assert_eq!(seen, done, "each request was answered once, by one replica");
    assert!(done > 2_000, "only {done} requests");
    let counts = proxy.take_counts();
    assert_eq!(counts.len(), 1);
    assert_eq!(counts[0].requests as usize, done);
    assert_eq!(
        (counts[0].errors, counts[0].aborted, counts[0].connect_failures),
        (0, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blue_and_green_switch_in_one_step() {
    let proxy = Proxy::new(Options::default());
    let (blue, green) = (worker("blue").await, worker("green").await);
    let weights = |first: u32| {
        http([
            group("blue", first, [blue.endpoint()]),
            group("green", 100 - first, [green.endpoint()]),
        ])
    };
    let address = proxy.set("web", &weights(100)).unwrap();
    let load = Load::start(address, 6);
    let mut probe = Client::connect(address).await;
    for round in 0..300 {
        let (first, name) = if round % 2 == 0 { (0, "green") } else { (100, "blue") };
        proxy.set("web", &weights(first)).unwrap();
        // What begins after the switch is at the new one, at once.
        assert_eq!(probe.get("/").await.unwrap().1, name);
    }
    let done = load.stop().await;
    assert_eq!(blue.seen() + green.seen(), done + 300);
}

/// A service whose answers wait until they are let go.
async fn held(id: &str) -> (Service, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let service = Service::start(id, {
        let gate = Arc::clone(&gate);
        move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Response::new(text("late"))
            }
        }
    })
    .await;
    (service, gate)
}

#[tokio::test]
async fn what_is_in_flight_is_counted_until_it_is_done() {
    let (service, gate) = held("slow").await;
    let other = Service::named("other").await;
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("web", &http([group("v", 1, [service.endpoint()])])).unwrap();
    let asking: Vec<_> = (0..3).map(|_| tokio::spawn(get(address))).collect();
    until("three requests", || service.seen() == 3).await;
    assert_eq!(proxy.in_flight("web", "slow"), 3);
    proxy.set("web", &http([group("v", 1, [other.endpoint()])])).unwrap();
    assert_eq!(proxy.in_flight("web", "slow"), 3);
    assert_eq!(proxy.loads()[0].in_flight, 3);
    assert_eq!(get(address).await.1, "other");
    let drained = tokio::spawn({
        let proxy = proxy.clone();
        async move { proxy.drained("web", "slow").await }
    });
    gate.add_permits(2);
    until("two answers", || proxy.in_flight("web", "slow") == 1).await;
    assert!(!drained.is_finished());
    gate.add_permits(1);
    soon("draining", drained).await.unwrap();
    for answer in asking {
        assert_eq!(answer.await.unwrap().1, "late");
    }
    assert_eq!(service.seen(), 3);
    proxy.drained("web", "nobody").await;
    assert_eq!(proxy.in_flight("nothing", "slow"), 0);
}

#[tokio::test]
async fn a_removed_route_answers_what_it_has() {
    let (service, gate) = held("slow").await;
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("web", &http([group("v", 1, [service.endpoint()])])).unwrap();
    let asking = tokio::spawn(get(address));
    until("a request", || service.seen() == 1).await;
    proxy.remove("web").await;
    assert_eq!(proxy.in_flight("web", "slow"), 1);
    gate.add_permits(1);
    assert_eq!(asking.await.unwrap(), (hyper::StatusCode::OK, "late".to_owned()));
    soon("draining", proxy.drained("web", "slow")).await;
    let counts = proxy.take_counts();
    assert_eq!((counts.len(), counts[0].requests), (1, 1));
}

#[tokio::test]
async fn idle_connections_to_who_left_are_closed() {
    let (service, other) = (Service::named("a").await, Service::named("b").await);
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("web", &http([group("v", 1, [service.endpoint()])])).unwrap();
    let mut client = Client::connect(address).await;
    client.get("/").await.unwrap();
    client.get("/").await.unwrap();
    assert_eq!(service.opened(), 1, "connections are used again");
    proxy.set("web", &http([group("v", 1, [other.endpoint()])])).unwrap();
    proxy.set("web", &http([group("v", 1, [service.endpoint()])])).unwrap();
    client.get("/").await.unwrap();
    assert_eq!(service.opened(), 2, "but not those from before it left");
}

#[tokio::test]
async fn who_leaves_while_it_is_busy_keeps_no_idle_connection() {
    let (service, gate) = held("a").await;
    let proxy = Proxy::new(Options::default());
    let route = http([group("v", 1, [service.endpoint()])]);
    let address = proxy.set("web", &route).unwrap();
    let asking = [tokio::spawn(get(address)), tokio::spawn(get(address))];
    until("two requests", || service.seen() == 2).await;
    gate.add_permits(1);
    until("one answer", || proxy.in_flight("web", "a") == 1).await;
    proxy.set("web", &http([])).unwrap();
    proxy.set("web", &route).unwrap();
    assert_eq!(proxy.in_flight("web", "a"), 1, "it came back as who it was");
    let third = tokio::spawn(get(address));
    until("the third request", || service.seen() == 3).await;
    assert_eq!(service.opened(), 3);
    gate.add_permits(2);
    for answer in asking.into_iter().chain([third]) {
        assert_eq!(answer.await.unwrap().1, "late");
    }
}
