//! `kill -9`, for real: a child process writes and says what was acknowledged, until it is killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use clawbernetes_store::embedded::Options;
use clawbernetes_store::{Order, Range, Store, StoreError, Txn};

/// Set for the child: the file to write to.
const CHILD: &str = "STORE_TEST_CHILD";
const TASKS: u64 = 8;

/// Not a test of its own: what the child runs, found by name in this same binary.
#[test]
fn child_writes_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::open(Path::new(&path), Options::default()).unwrap();
        println!("\nready");
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    let key = format!("/task/{task}");
                    loop {
                        // One more than what is there, with a second record that must agree.
                        let before = store.get(key.as_str()).await.unwrap();
                        let count: u64 = before
                            .map(|r| std::str::from_utf8(&r.value).unwrap().parse().unwrap())
                            .unwrap_or(0);
                        let next = (count + 1).to_string();
                        let txn = Txn::new()
                            .put(key.as_str(), next.clone())
                            .put(format!("/twin/{task}"), next)
                            .put(format!("/log/{task}/{count:06}"), vec![0; 900]);
                        let revision = store.txn(txn).await.unwrap().committed().unwrap();
                        let mut out = std::io::stdout().lock();
                        let line = format!("ack {task} {} {}\n", count + 1, revision.0);
                        // The parent may be gone: then so may we.
                        if out.write_all(line.as_bytes()).is_err() {
                            std::process::exit(0);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            // Never ends by itself, so a return is a failure to hand on.
            let () = task.await.unwrap();
        }
    });
}

/// Kills the child however the test ends.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut acknowledged = [0_u64; TASKS as usize];
    let mut newest = 0;
    for round in 0..8_usize {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_writes_until_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Reaped(child);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        while lines.next().unwrap().unwrap() != "ready" {}
        // Another process has it: we are told so.
        assert!(matches!(
            Store::open(&path, Options::default()),
            Err(StoreError::Locked { .. })
        ));
        let mut left = 20 + 37 * round;
        for line in lines {
            let line = line.unwrap();
            let mut words = line.split(' ');
            // A line cut short by the kill was not said.
            if let (Some("ack"), Some(task), Some(count), Some(revision)) =
                (words.next(), words.next(), words.next(), words.next())
                && let (Ok(task), Ok(count), Ok(revision)) =
                    (task.parse::<usize>(), count.parse::<u64>(), revision.parse::<u64>())
                && left > 0
            {
                acknowledged[task] = count;
                newest = newest.max(revision);
            }
            left = left.saturating_sub(1);
            if left == 0 {
                // SIGKILL; what is still in the pipe is of no interest.
                child.0.kill().unwrap();
                break;
            }
        }
        drop(child);
        let store = Store::open(&path, Options::default()).unwrap();
        assert!(store.status().revision.0 >= newest);
        for (task, &count) in acknowledged.iter().enumerate() {
            let record = store.get(format!("/task/{task}")).await.unwrap();
            let twin = store.get(format!("/twin/{task}")).await.unwrap();
            assert_eq!(record.as_ref().map(|r| r.value.clone()), twin.map(|r| r.value));
            let found: u64 = record.map_or(0, |r| std::str::from_utf8(&r.value).unwrap().parse().unwrap());
            assert!(found >= count, "task {task}: {count} acknowledged, {found} there");
            let log = store
                .range(Range::prefix(format!("/log/{task}/")), usize::MAX, Order::Ascending)
                .await
                .unwrap();
            assert_eq!(log.records.len() as u64, found);
        }
        store.close().await;
    }
}
