//! Who gets how much.

use std::collections::HashMap;

use proxy::{Options, Protocol, Proxy};

use crate::support::{Client, Service, endpoint, get, group, http, route, soon, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenth_is_exactly_a_tenth() {
    let (old, new) = (Service::named("old").await, Service::named("new").await);
    let proxy = Proxy::new(Options::default());
    let groups = [group("old", 90, [old.endpoint()]), group("new", 10, [new.endpoint()])];
    let address = proxy.set("web", &http(groups)).unwrap();
    // Over eight connections at once, and in one row.
    let clients = (0..8).map(|_| async move {
        let mut client = Client::connect(address).await;
        for _ in 0..125 {
            assert_eq!(client.get("/").await.unwrap().0, 200);
        }
    });
    soon("1,000 requests", futures_util::future::join_all(clients)).await;
    assert_eq!((old.seen(), new.seen()), (900, 100));
}

#[tokio::test]
async fn replicas_of_a_group_share_evenly() {
    let replicas = [
        Service::named("a").await,
        Service::named("b").await,
        Service::named("c").await,
    ];
    let proxy = Proxy::new(Options::default());
    let groups = [group("v1", 1, replicas.iter().map(Service::endpoint))];
    let address = proxy.set("web", &http(groups)).unwrap();
    let mut client = Client::connect(address).await;
    for _ in 0..30 {
        client.get("/").await.unwrap();
    }
    assert_eq!(replicas.each_ref().map(Service::seen), [10, 10, 10]);
}

#[tokio::test]
async fn routes_dont_know_one_another() {
    let (a, b) = (Service::named("a").await, Service::named("b").await);
    let proxy = Proxy::new(Options::default());
    let to_a = proxy.set("a", &http([group("v1", 1, [a.endpoint()])])).unwrap();
    let to_b = proxy.set("b", &http([group("v1", 1, [b.endpoint()])])).unwrap();
    assert_eq!((get(to_a).await.1, get(to_b).await.1), ("a".into(), "b".into()));
    let keys: HashMap<_, _> = proxy.take_counts().into_iter().map(|c| (c.key, c.requests)).collect();
    assert_eq!(keys, HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 1)]));
}

#[tokio::test]
async fn an_address_in_use_changes_nothing() {
    let (a, b) = (Service::named("a").await, Service::named("b").await);
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("a", &http([group("v1", 1, [a.endpoint()])])).unwrap();
    let mut taken = http([group("v1", 1, [b.endpoint()])]);
    taken.listen = address;
    let error = proxy.set("b", &taken).unwrap_err();
    assert_eq!(error.address, address);
    let other = proxy.set("b", &http([group("v1", 1, [a.endpoint()])])).unwrap();
    proxy.set("b", &taken).unwrap_err();
    assert_eq!((get(address).await.1, get(other).await.1), ("a".into(), "a".into()));
}

#[tokio::test]
async fn a_route_moves_to_another_address() {
    let service = Service::named("a").await;
    let proxy = Proxy::new(Options::default());
    let mut route = http([group("v1", 1, [service.endpoint()])]);
    let first = proxy.set("web", &route).unwrap();
    let mut client = Client::connect(first).await;
    client.get("/").await.unwrap();
    // Asked as before, or by what it got: it stays.
    assert_eq!(proxy.set("web", &route).unwrap(), first);
    route.listen = first;
    assert_eq!(proxy.set("web", &route).unwrap(), first);
    route.listen = ([127, 0, 0, 2], 0).into();
    let second = proxy.set("web", &route).unwrap();
    assert_ne!(second, first);
    assert_eq!(get(second).await.1, "a");
    assert_eq!(client.get("/").await.unwrap().1, "a", "who was connected stays so");
}

#[tokio::test]
async fn a_removed_route_listens_no_more() {
    let service = Service::named("a").await;
    let proxy = Proxy::new(Options::default());
    let route = http([group("v1", 1, [service.endpoint()])]);
    let address = proxy.set("web", &route).unwrap();
    let mut client = Client::connect(address).await;
    client.get("/").await.unwrap();
    proxy.remove("web").await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    // The idle connection ends.
    soon("the end of the connection", async {
        while client.get("/").await.is_ok() {}
    })
    .await;
    let mut again = route;
    again.listen = address;
    assert_eq!(proxy.set("web", &again).unwrap(), address);
    assert_eq!(get(address).await.1, "a");
    proxy.remove("nothing").await;
}

#[tokio::test]
async fn the_last_clone_takes_its_routes_along() {
    let service = Service::named("a").await;
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("web", &http([group("v1", 1, [service.endpoint()])])).unwrap();
    let clone = proxy.clone();
    drop(proxy);
    assert_eq!(get(address).await.1, "a");
    drop(clone);
    soon("the end of the listener", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_with_a_new_address_is_another_one() {
    let (a, b) = (Service::named("a").await, Service::named("b").await);
    let proxy = Proxy::new(Options::default());
    let address = proxy
        .set("web", &http([group("v1", 1, [endpoint("one", a.address)])]))
        .unwrap();
    assert_eq!(get(address).await.1, "a");
    proxy
        .set("web", &http([group("v1", 1, [endpoint("one", b.address)])]))
        .unwrap();
    assert_eq!(get(address).await.1, "b");
}

#[tokio::test]
async fn a_route_changes_its_protocol() {
    let service = Service::start("a", |request| async move {
        let proxied = request.headers().contains_key("x-forwarded-for");
        hyper::Response::new(text(if proxied { "http" } else { "tcp" }))
    })
    .await;
    let proxy = Proxy::new(Options::default());
    let groups = [group("v1", 1, [service.endpoint()])];
    let address = proxy.set("web", &http(groups.clone())).unwrap();
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/").await.unwrap().1, "http");
    assert_eq!(proxy.set("web", &route(Protocol::Tcp, groups)).unwrap(), address);
    assert_eq!(get(address).await.1, "tcp");
    soon("the end of the old connection", async {
        while client.get("/").await.is_ok() {}
    })
    .await;
}
