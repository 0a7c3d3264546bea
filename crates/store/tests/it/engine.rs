//! The engine on its thread: concurrency, leases by the clock, files.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use clawbernetes_store::embedded::{Disk, Embedded, FaultyDisk, MemoryDisk, Options};
use clawbernetes_store::{Change, Order, Range, Revision, Store, StoreError, Txn, TxnOutcome};
use redb::StorageBackend;

fn in_memory() -> Store {
    Store::new(Embedded::open(MemoryDisk::new(), Options::default()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_increments_by_compare_and_swap_lose_none() {
    const TASKS: u64 = 16;
    const EACH: u64 = 25;
    let store = in_memory();
    let _ = store.txn(Txn::new().put("/counter", "0")).await.unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut won = Vec::new();
                while (won.len() as u64) < EACH {
                    let record = store.get("/counter").await.unwrap().unwrap();
                    let count: u64 = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
                    let txn = Txn::new()
                        .unchanged("/counter", record.modified)
                        .put("/counter", (count + 1).to_string());
                    if let TxnOutcome::Committed(revision) = store.txn(txn).await.unwrap() {
                        // What is acknowledged can be read at once.
                        let now = store.get("/counter").await.unwrap().unwrap();
                        assert!(now.modified >= revision);
                        won.push((count + 1, revision));
                    }
                }
                won
            })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        won.extend(task.await.unwrap());
    }
    won.sort_unstable();
    // Each value was written once, and in the order of the revisions.
    let values: Vec<u64> = won.iter().map(|(value, _)| *value).collect();
    assert_eq!(values, (1..=TASKS * EACH).collect::<Vec<_>>());
    assert!(won.windows(2).all(|pair| pair[0].1 < pair[1].1));
    let record = store.get("/counter").await.unwrap().unwrap();
    assert_eq!(record.version, TASKS * EACH + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_share_commits() {
    let disk = FaultyDisk::new();
    let store = Store::new(Embedded::open(disk.clone(), Options::default()).unwrap());
    let before = disk.operations().1;
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.txn(Txn::new().put(format!("/{n}"), "v")).await })
        })
        .collect();
    let mut revisions = Vec::new();
    for task in tasks {
        revisions.push(task.await.unwrap().unwrap().committed().unwrap().0);
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=200).collect::<Vec<_>>());
    assert!(disk.operations().1 - before <= 2 * 200 + 10);
    let page = store.range(Range::all(), 150, Order::Ascending).await.unwrap();
    assert!(page.more && page.records.len() == 150 && page.revision == Revision(200));
    let rest = Range::all().after(&page.records[149].key);
    let page = store.range(rest, usize::MAX, Order::Ascending).await.unwrap();
    assert!(!page.more && page.records.len() == 50);
    // Long listings are read elsewhere, with the same result.
    for n in 0..10 {
        let txn = (0..100).fold(Txn::new(), |txn, m| txn.put(format!("/long/{n}/{m:03}"), "v"));
        let _ = store.txn(txn).await.unwrap();
    }
    let page = store
        .range(Range::prefix("/long/"), 999, Order::Descending)
        .await
        .unwrap();
    assert!(page.more && page.records.len() == 999);
    assert_eq!(page.records[0].key, "/long/9/099");
}

/// A disk whose syncs wait until they are let go.
#[derive(Clone, Debug, Default)]
struct HeldDisk {
    inner: FaultyDisk,
    hold: Arc<(Mutex<Hold>, Condvar)>,
}

#[derive(Debug, Default)]
struct Hold {
    held: bool,
    waiting: usize,
}

impl HeldDisk {
    fn hold(&self, held: bool) {
        self.hold.0.lock().unwrap().held = held;
        self.hold.1.notify_all();
    }

    fn wait_for_a_sync(&self) {
        let hold = self.hold.0.lock().unwrap();
        drop(self.hold.1.wait_while(hold, |hold| hold.waiting == 0).unwrap());
    }
}

impl Disk for HeldDisk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.clone()))
    }
}

impl StorageBackend for HeldDisk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut hold = self.hold.0.lock().unwrap();
        hold.waiting += 1;
        self.hold.1.notify_all();
        hold = self.hold.1.wait_while(hold, |hold| hold.held).unwrap();
        hold.waiting -= 1;
        self.inner.sync_data()
    }
}

#[tokio::test]
async fn what_queues_up_during_a_commit_shares_the_next_and_readers_do_not_wait() {
    let disk = HeldDisk::default();
    let store = Store::new(Embedded::open(disk.clone(), Options::default()).unwrap());
    let put = |key: String, value: &'static str| {
        let store = store.clone();
        async move { store.txn(Txn::new().put(key, value)).await.unwrap() }
    };
    for n in 0..50 {
        let _ = put(format!("/{n}"), "old").await;
    }
    let before = disk.inner.operations().1;
    let _ = put("/first".into(), "old").await;
    let one = disk.inner.operations().1 - before;

    disk.hold(true);
    let first = tokio::spawn(put("/first".into(), "new"));
    tokio::task::yield_now().await;
    disk.wait_for_a_sync();
    let before = disk.inner.operations().1;
    // On this one thread, every task runs up to its wait for the answer before we go on.
    let more: Vec<_> = (0..50).map(|n| tokio::spawn(put(format!("/{n}"), "new"))).collect();
    tokio::task::yield_now().await;
    // The writer stands in a sync: readers see the state before it.
    let record = store.get("/first").await.unwrap().unwrap();
    assert_eq!(record.value, "old");
    let page = store.range(Range::all(), 99, Order::Ascending).await.unwrap();
    assert_eq!((page.records.len(), page.revision), (51, Revision(51)));
    assert!(more.iter().all(|task| !task.is_finished()) && !first.is_finished());

    disk.hold(false);
    assert_eq!(first.await.unwrap(), TxnOutcome::Committed(Revision(52)));
    for (n, task) in more.into_iter().enumerate() {
        let revision = Revision(53 + n as u64);
        assert_eq!(task.await.unwrap(), TxnOutcome::Committed(revision));
    }
    assert_eq!(disk.inner.operations().1 - before, 2 * one);
}

#[tokio::test]
async fn a_lease_ends_by_itself_unless_kept_alive() {
    let store = in_memory();
    let dying = store.grant(Duration::from_millis(30)).await.unwrap();
    let living = store.grant(Duration::from_secs(3600)).await.unwrap();
    let txn = Txn::new()
        .put_leased("/dying/1", "v", dying)
        .put_leased("/dying/2", "v", dying)
        .put_leased("/living", "v", living);
    let put = store.txn(txn).await.unwrap().committed().unwrap();
    store.keep_alive(living).await.unwrap();
    let mut watch = store.watch(Range::all(), put).await.unwrap();
    let batch = watch.next().await.unwrap();
    let gone: Vec<&str> = batch.changes.iter().map(|c| c.key().as_str()).collect();
    assert_eq!(gone, ["/dying/1", "/dying/2"]);
    assert!(
        batch
            .changes
            .iter()
            .all(|c| c.revision() == put.next() && matches!(c, Change::Delete { .. }))
    );
    assert!(matches!(
        store.keep_alive(dying).await,
        Err(StoreError::NoSuchLease { .. })
    ));
    assert!(store.get("/living").await.unwrap().is_some());
    assert_eq!(store.revoke(living).await.unwrap(), put.next().next());
    assert_eq!(store.status().leases, 0);
}

#[tokio::test]
async fn a_file_is_private_locked_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made/for/it");
    drop(Store::open(made.join("store"), Options::default()).unwrap());
    let path = made.join("other");
    // What a crash in the middle of making it left behind is no obstacle.
    std::fs::write(path.with_extension("new"), vec![0; 5000]).unwrap();
    let store = Store::open(&path, Options::default()).unwrap();
    assert!(!path.with_extension("new").exists());
    let _ = store.txn(Txn::new().put("/a", "1")).await.unwrap();
    let mode = |path: &std::path::Path| {
        let metadata = std::fs::metadata(path).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert!(matches!(
        Store::open(&path, Options::default()),
        Err(StoreError::Locked { .. })
    ));
    assert!(store.status().disk_bytes > 0);
    drop(store);
    let store = Store::open(&path, Options::default()).unwrap();
    assert_eq!(store.get("/a").await.unwrap().unwrap().value, "1");
    assert_eq!(store.status().revision, Revision(1));
    store.close().await;
    // Closed is free, though handles remain.
    let again = Store::open(&path, Options::default()).unwrap();
    assert_eq!(again.status().revision, Revision(1));
}

#[test]
fn works_without_a_runtime() {
    // Only wakers are needed, not a particular executor.
    let store = in_memory();
    let mut future = Box::pin(store.txn(Txn::new().put("/a", "1")));
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    let outcome = loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(outcome) => break outcome,
            std::task::Poll::Pending => std::thread::yield_now(),
        }
    };
    assert_eq!(outcome.unwrap(), TxnOutcome::Committed(Revision(1)));
}
