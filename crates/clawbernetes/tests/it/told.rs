//! What receivers of alerts hear through `kill -9` of the gateway: each beginning and each end at least once, and each
//! always under the same key.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

use crate::cluster::{Cluster, wait_for};

const ROUNDS: usize = 8;

/// Fires for as long as a node that was let in hasn't come.
const RULE: &str = "
rules:
  - name: node-joining
    severity: warning
    by: [node]
    condition: {kind: state, state: node.status, in: [joining]}
    summary: node {node} has not come yet
receivers:
  - name: hook
    format: webhook
    url: 'http://ADDRESS/hook'
    matchers: [rule=node-joining]
    groupBy: [rule, node]
    groupWait: 0s
    groupInterval: 0s
";

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    node: String,
    status: String,
    key: String,
}

#[derive(Default)]
struct Shared {
    came: Mutex<Vec<Message>>,
    /// Messages are taken, and whoever sent them waits in vain for an answer.
    silent: AtomicBool,
    ended: AtomicBool,
}

/// Takes messages until it is dropped.
struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let of_task = Arc::clone(&shared);
        let task = thread::spawn(move || {
            for socket in listener.incoming() {
                if of_task.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&of_task);
                thread::spawn(move || drop(take(socket.unwrap(), &shared)));
            }
        });
        Self {
            address,
            shared,
            task: Some(task),
        }
    }

    fn silent(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::SeqCst);
    }

    fn came(&self, node: &str, status: &str) -> Vec<Message> {
        let came = self.shared.came.lock().unwrap();
        let wanted = |message: &&Message| message.node == node && message.status == status;
        came.iter().filter(wanted).cloned().collect()
    }

    #[track_caller]
    fn wait(&self, node: &str, status: &str) {
        wait_for(&format!("the word that {node} is {status}"), || {
            (!self.came(node, status).is_empty()).then_some(())
        });
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // It waits for a connection.
        drop(TcpStream::connect(self.address));
        drop(self.task.take().map(JoinHandle::join));
    }
}

/// Requests of one connection, one after the other, until the other side is gone.
fn take(mut socket: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        if let Some((message, length)) = read(&bytes) {
            bytes.drain(..length);
            let silent = shared.silent.load(Ordering::SeqCst);
            shared.came.lock().unwrap().push(message);
            if !silent {
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            }
            continue;
        }
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk)? {
            0 => return Ok(()),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

/// A whole request at the beginning of these bytes, and its length.
fn read(bytes: &[u8]) -> Option<(Message, usize)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_default().to_owned()
    };
    let whole = end + header("content-length").parse::<usize>().unwrap();
    let body: Value = serde_json::from_slice(bytes.get(end..whole)?).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!(body["alerts"].as_array().unwrap().len(), 1, "{body:#}");
    let message = Message {
        node: text(&body["alerts"][0]["labels"]["node"]),
        status: text(&body["status"]),
        key: header("idempotency-key"),
    };
    Some((message, whole))
}

/// Has something happen and kills the gateway: either a moment later, whatever it is doing then, or when its message has
/// come and isn't answered.
fn kill_amid(cluster: &Cluster, receiver: &Receiver, (node, status): (&str, &str), moment: Option<Duration>) {
    let operation = if status == "firing" { "node.join" } else { "node.remove" };
    let request = match status {
        "firing" => json!({"name": node, "exact": true}),
        _ => json!({"id": node}),
    };
    receiver.silent(moment.is_none());
    cluster.call(operation, &request);
    match moment {
        Some(moment) => thread::sleep(moment),
        None => receiver.wait(node, status),
    }
    cluster.kill_gateway();
    receiver.silent(false);
    cluster.start_gateway();
    receiver.wait(node, status);
    if moment.is_none() {
        wait_for(&format!("{node} to be told again as {status}"), || {
            (receiver.came(node, status).len() > 1).then_some(())
        });
    }
}

#[test]
fn killed_at_any_moment_each_state_is_told_and_no_episode_twice() {
    let receiver = Receiver::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alerts.yaml");
    std::fs::write(&file, RULE.replace("ADDRESS", &receiver.address.to_string())).unwrap();
    let cluster = Cluster::start_with(&["--alerts", file.to_str().unwrap(), "--alert-interval", "50ms"]);
    let nodes: Vec<String> = (0..ROUNDS).map(|n| format!("n{n}")).collect();
    for (round, node) in nodes.iter().enumerate() {
        // From before the first evaluation to well after the message: another moment each round.
        let moment = |turn: usize| (round % 4 != turn).then(|| Duration::from_millis(round as u64 * 23 % 160));
        kill_amid(&cluster, &receiver, (node, "firing"), moment(1));
        kill_amid(&cluster, &receiver, (node, "resolved"), moment(3));
    }
    wait_for("the last alert to be over", || {
        let firing = cluster.try_call("alert.list", &json!({"rule": "node-joining"}))?;
        (firing == json!([])).then_some(())
    });

    let all = receiver.shared.came.lock().unwrap().clone();
    let mut keys = Vec::new();
    for node in &nodes {
        let of_node: Vec<&Message> = all.iter().filter(|message| message.node == *node).collect();
        let over = of_node.iter().position(|message| message.status == "resolved").unwrap();
        let (firing, resolved) = of_node.split_at(over);
        assert!(!firing.is_empty(), "{node} was never told as firing: {of_node:?}");
        for (part, status) in [(firing, "firing"), (resolved, "resolved")] {
            // One episode: whatever comes again is the same, by which a receiver knows it.
            assert!(
                part.iter().all(|m| m.status == status && m.key == part[0].key),
                "{node}: {of_node:?}"
            );
            keys.push(part[0].key.clone());
        }
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 2 * ROUNDS, "no two messages have the same key: {all:?}");

    // What was told is what happened.
    let events = cluster.call("event.list", &json!({"kind": "alert", "limit": 1_000}));
    let events = events.as_array().unwrap();
    for node in &nodes {
        let words = format!("node {node} has not come yet");
        let of_node = events
            .iter()
            .filter(|e| e["message"].as_str().unwrap().ends_with(&words));
        let mut reasons: Vec<&str> = of_node.map(|e| e["reason"].as_str().unwrap()).collect();
        reasons.sort_unstable();
        assert_eq!(reasons, ["Firing", "Resolved"], "{node}: {events:#?}");
    }
    cluster.end();
}
