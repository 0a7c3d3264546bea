//! TCP: bytes, weights, half-closed connections, draining.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use proxy::{Endpoint, Options, Protocol, Proxy, Route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{counts_of, dead_address, endpoint, group, route, soon, until};

/// Says its name, then echoes until the client has ended, then says `bye`.
struct Echo {
    id: String,
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start(id: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<AtomicUsize>::default();
        let task = tokio::spawn({
            let (seen, name) = (Arc::clone(&seen), format!("{id:>4}"));
            async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    seen.fetch_add(1, SeqCst);
                    let name = name.clone();
                    tokio::spawn(async move {
                        let talk = async {
                            stream.write_all(name.as_bytes()).await?;
                            let (mut read, mut write) = stream.split();
                            tokio::io::copy(&mut read, &mut write).await?;
                            write.write_all(b"bye").await
                        };
                        // The client may break off.
                        drop(talk.await);
                    });
                }
            }
        });
        Echo {
            id: id.to_owned(),
            address,
            seen,
            task,
        }
    }

    fn endpoint(&self) -> Endpoint {
        endpoint(&self.id, self.address)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tcp(groups: impl IntoIterator<Item = proxy::Group>) -> Route {
    route(Protocol::Tcp, groups)
}

async fn greeted(address: SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut name = [0; 4];
    soon("the greeting", stream.read_exact(&mut name)).await.unwrap();
    (stream, String::from_utf8_lossy(&name).trim().to_owned())
}

#[tokio::test]
async fn bytes_pass_and_each_side_ends_for_itself() {
    let service = Echo::start("a").await;
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("db", &tcp([group("v1", 1, [service.endpoint()])])).unwrap();
    let (stream, name) = greeted(address).await;
    assert_eq!(name, "a");
    let payload = vec![5; 3_000_000];
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn({
        let payload = payload.clone();
        async move {
            write.write_all(&payload).await.unwrap();
            // Only this direction ends: the rest of the echo, and what is said after the end, still come.
            write.shutdown().await.unwrap();
            write
        }
    });
    let mut got = Vec::new();
    soon("the echo", read.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got.len(), payload.len() + 3);
    assert!(got.ends_with(b"bye"));
    drop(sending.await.unwrap());
    until("the end", || proxy.in_flight("db", "a") == 0).await;
    let counts = counts_of(&proxy.take_counts(), "v1").unwrap();
    assert_eq!((counts.connections, counts.errors, counts.requests), (1, 0, 0));
    assert_eq!((counts.bytes_in, counts.bytes_out), (3_000_000, 3_000_007));
}

#[tokio::test]
async fn connections_go_by_weight() {
    let (old, new) = (Echo::start("old").await, Echo::start("new").await);
    let proxy = Proxy::new(Options::default());
    let groups = [group("old", 90, [old.endpoint()]), group("new", 10, [new.endpoint()])];
    let address = proxy.set("db", &tcp(groups)).unwrap();
    for _ in 0..100 {
        greeted(address).await;
    }
    assert_eq!((old.seen.load(SeqCst), new.seen.load(SeqCst)), (90, 10));
}

#[tokio::test]
async fn draining_waits_for_connections() {
    let (old, new) = (Echo::start("old").await, Echo::start("new").await);
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("db", &tcp([group("v1", 1, [old.endpoint()])])).unwrap();
    let (mut stream, _) = greeted(address).await;
    proxy.set("db", &tcp([group("v2", 1, [new.endpoint()])])).unwrap();
    assert_eq!(greeted(address).await.1, "new");
    assert_eq!(proxy.in_flight("db", "old"), 1);
    stream.write_all(b"still").await.unwrap();
    let mut got = [0; 5];
    soon("the echo", stream.read_exact(&mut got)).await.unwrap();
    drop(stream);
    soon("draining", proxy.drained("db", "old")).await;
    assert_eq!(old.seen.load(SeqCst), 1);
}

#[tokio::test]
async fn failed_connects_go_elsewhere() {
    let service = Echo::start("a").await;
    let proxy = Proxy::new(Options::default());
    let dead = endpoint("dead", dead_address().await);
    let address = proxy
        .set("db", &tcp([group("v1", 1, [dead, service.endpoint()])]))
        .unwrap();
    for _ in 0..4 {
        assert_eq!(greeted(address).await.1, "a");
    }
    let counts = counts_of(&proxy.take_counts(), "v1").unwrap();
    assert_eq!((counts.connections, counts.errors), (4, 0));
    assert!(counts.connect_failures > 0);
}

#[tokio::test]
async fn where_nobody_is_the_connection_is_reset() {
    let options = Options {
        endpoint_wait: Duration::from_millis(50),
        ..Options::default()
    };
    let proxy = Proxy::new(options);
    let address = proxy.set("db", &tcp([])).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let error = soon("the end", stream.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let counts = proxy.take_counts();
    assert_eq!(
        (counts[0].group.as_deref(), counts[0].connections, counts[0].errors),
        (None, 1, 1)
    );
}

#[tokio::test]
async fn connections_wait_for_an_endpoint() {
    let service = Echo::start("a").await;
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("db", &tcp([])).unwrap();
    let waiting = tokio::spawn(greeted(address));
    until("somebody who waits", || proxy.loads()[0].waiting == 1).await;
    proxy.set("db", &tcp([group("v1", 1, [service.endpoint()])])).unwrap();
    assert_eq!(waiting.await.unwrap().1, "a");
}
