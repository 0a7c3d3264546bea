//! Containers of an agent that is dead: stopped when its lease runs out, unless another agent comes first.

use std::{path::Path, process::Stdio, time::Duration};

use api::{Span, wire::Assignment};
use clawbernetes_node::session::now;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    fixture::{self, Fixture},
    life::{processes, script, until},
};

/// An agent in a process of its own.
struct Agent {
    child: Child,
    orders: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
    /// What it found at its start.
    found: Vec<String>,
}

impl Agent {
    async fn begin(fixture: &Fixture, folder: &Path, node: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_clawbernetes-test-agent"))
            .arg("containers")
            .args([folder, &fixture.socket()])
            .arg(node)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut agent = Self {
            child,
            orders,
            said,
            found: Vec::new(),
        };
        agent.found = agent.until("adopted").await;
        agent
    }

    /// What it says before it says this.
    async fn until(&mut self, word: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = tokio::time::timeout(Duration::from_secs(60), self.said.next_line()).await;
            let line = line
                .unwrap_or_else(|_| panic!("no '{word}' within a minute"))
                .unwrap()
                .unwrap_or_else(|| panic!("the agent ended before '{word}'"));
            if line.contains(word) {
                return lines;
            }
            lines.push(line);
        }
    }

    async fn order(&mut self, order: String) {
        self.orders.write_all((order + "\n").as_bytes()).await.unwrap();
    }

    async fn start(&mut self, job: &Assignment) {
        self.order(serde_json::to_string(job).unwrap()).await;
        self.until("Started").await;
    }

    /// Sets the lease; returns before when it doesn't run out, and when it has run out.
    async fn lease(&mut self, ms: u64) -> (u64, u64) {
        let before = now().mono_ms;
        self.order(ms.to_string()).await;
        self.until("leased").await;
        (before + ms, now().mono_ms + ms)
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// A job whose processes can be found by its name.
fn looping(name: &str, trap: &str) -> Assignment {
    script(name, &format!("{trap} while :; do sleep 0.05; done # {name}"))
}

fn running(job: &Assignment) -> bool {
    processes(&format!("done # {}", job.name)) > 0
}

async fn remove_all(fixture: &'static Fixture, node: &str) {
    let label = format!("io.clawbernetes.node={node}");
    tokio::task::spawn_blocking(move || fixture.remove_containers(&label))
        .await
        .unwrap();
}

fn guards(folder: &Path) -> usize {
    processes(&format!("container-guard {{\"folder\":\"{}", folder.display()))
}

#[tokio::test]
async fn containers_of_a_dead_agent_are_stopped_when_the_lease_runs_out() {
    let Some(fixture) = fixture::shared() else { return };
    let folder = fixture.folder("guard-dead");
    let node = "guard-dead";
    let polite = looping("guard-polite", "trap 'exit 3' TERM;");
    let mut deaf = looping("guard-deaf", "trap '' TERM;");
    deaf.grace = Span(300);
    let mut agent = Agent::begin(fixture, &folder, node).await;
    agent.start(&polite).await;
    agent.start(&deaf).await;
    until("the guard", || guards(&folder) == 1).await;
    // It has run out while the agent lives: that is the agent's own affair.
    agent.lease(0).await;
    let (not_before, _) = agent.lease(2_000).await;
    agent.kill().await;
    let mut early = false;
    until("the containers' end", || {
        early |= !(running(&polite) && running(&deaf)) && now().mono_ms < not_before;
        !running(&polite) && !running(&deaf)
    })
    .await;
    assert!(!early, "before the lease ran out");
    until("the guard's end", || guards(&folder) == 0).await;

    let agent = Agent::begin(fixture, &folder, node).await;
    let [a, b] = agent.found.as_slice() else {
        panic!("{:?}", agent.found)
    };
    assert!(
        a.contains("wl-guard-deaf") && a.contains("Signaled { signal: 9 }"),
        "{a}"
    );
    assert!(b.contains("wl-guard-polite") && b.contains("Exited { code: 3 }"), "{b}");
    assert!(a.ends_with("fenced: true") && b.ends_with("fenced: true"), "{a} {b}");
    agent.kill().await;
    remove_all(fixture, node).await;
}

#[tokio::test]
async fn a_restarted_agent_keeps_its_containers() {
    let Some(fixture) = fixture::shared() else { return };
    let folder = fixture.folder("guard-again");
    let node = "guard-again";
    let job = looping("guard-again", "");
    let mut agent = Agent::begin(fixture, &folder, node).await;
    agent.start(&job).await;
    let (_, first) = agent.lease(3_000).await;
    agent.kill().await;
    let mut agent = Agent::begin(fixture, &folder, node).await;
    assert_eq!(agent.found.len(), 1, "{:?}", agent.found);
    agent.lease(600_000).await;
    until("the first lease's end, and one guard", || {
        now().mono_ms > first && guards(&folder) == 1
    })
    .await;
    // Killed once more: its own guard is at work, and knows the new lease.
    agent.kill().await;
    let agent = Agent::begin(fixture, &folder, node).await;
    assert!(running(&job));
    assert!(
        agent.found[0].contains("ended: None") && agent.found[0].ends_with("fenced: false"),
        "{:?}",
        agent.found
    );

    // An end in good order with nothing left: the guard goes as well, however long the lease.
    remove_all(fixture, node).await;
    let Agent { mut child, orders, .. } = agent;
    drop(orders);
    assert!(child.wait().await.unwrap().success());
    until("the guard's end", || guards(&folder) == 0).await;
}
