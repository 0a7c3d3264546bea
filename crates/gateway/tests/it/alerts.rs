//! Alerts from what is seen to what receivers hear, over real sockets.

use std::sync::{Arc, Mutex};

use api::Span;
use gateway::{AlertsFile, Gateway, Options, StartError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::fixture::{Fixture, until};

/// A rule that fires as soon as a node has joined, for as long as it has no session.
const RULE: &str = "
off: [queue-stuck]
rules:
  - name: node-joining
    severity: warning
    by: [node]
    condition: {kind: state, state: node.status, in: [joining]}
    summary: node {node} has not come yet
    labels: {team: infra}
";

/// A message that came.
#[derive(Debug, Clone)]
struct Message {
    path: String,
    key: String,
    body: Value,
}

/// Takes messages, and answers each with one status.
struct StandIn {
    address: std::net::SocketAddr,
    came: Arc<Mutex<Vec<Message>>>,
}

impl StandIn {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let came: Arc<Mutex<Vec<Message>>> = Arc::default();
        let kept = Arc::clone(&came);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(take(socket, status, Arc::clone(&kept)));
            }
        });
        Self { address, came }
    }

    fn to(&self, path: &str) -> Vec<Message> {
        let came = self.came.lock().unwrap();
        came.iter().filter(|message| message.path == path).cloned().collect()
    }
}

/// Requests of one connection, one after the other.
async fn take(mut socket: TcpStream, status: u16, kept: Arc<Mutex<Vec<Message>>>) {
    let mut bytes = Vec::new();
    loop {
        let head = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(end) = head {
            let text = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let header = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                line.unwrap_or_default().to_owned()
            };
            let length: usize = header("content-length").parse().unwrap();
            if bytes.len() >= end + 4 + length {
                let message = Message {
                    path: text.split(' ').nth(1).unwrap().to_owned(),
                    key: header("idempotency-key"),
                    body: serde_json::from_slice(&bytes[end + 4..end + 4 + length]).unwrap(),
                };
                kept.lock().unwrap().push(message);
                bytes.drain(..end + 4 + length);
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
        }
        if !matches!(socket.read_buf(&mut bytes).await, Ok(n) if n > 0) {
            return;
        }
    }
}

fn options(receivers: &str) -> Options {
    let file = AlertsFile::parse(&format!("{RULE}{receivers}"), |_| None).unwrap();
    Options {
        alerts: file,
        alert_interval: Span(50),
        ..Options::default()
    }
}

/// Receivers that are told at once, each node apart.
fn receivers(stand_in: &StandIn) -> String {
    let at_once = "matchers: [team=infra], groupBy: [rule, node], groupWait: 0s, groupInterval: 0s";
    format!(
        "receivers:\n  - {{name: hook, format: webhook, url: 'http://{0}/hook/s3cret', {at_once}}}\n  - {{name: chat, \
         format: slack, url: 'http://{0}/chat/s3cret', {at_once}}}\n",
        stand_in.address
    )
}

async fn join(fixture: &Fixture, name: &str) {
    let node = json!({"name": name, "exact": true});
    assert_eq!(fixture.admin("node.join", &node).await.status, 200);
}

async fn messages(stand_in: &StandIn, path: &str, count: usize) -> Vec<Message> {
    until(&format!("{count} messages to {path}"), async || {
        let came = stand_in.to(path);
        (came.len() >= count).then_some(came)
    })
    .await
}

async fn listed(fixture: &Fixture, filter: Value) -> Vec<Value> {
    let answer = fixture.admin("alert.list", &filter).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.as_array().unwrap().clone()
}

async fn firing(fixture: &Fixture, count: usize) -> Vec<Value> {
    until(&format!("{count} firing alerts"), async || {
        let alerts = listed(fixture, json!({})).await;
        (alerts.len() == count).then_some(alerts)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_is_told_and_is_resolved() {
    let stand_in = StandIn::start(200).await;
    let fixture = Fixture::with(options(&receivers(&stand_in))).await;
    join(&fixture, "gpu-7").await;
    let alert = firing(&fixture, 1).await.remove(0);
    assert_eq!(alert["rule"], "node-joining");
    assert_eq!(alert["severity"], "warning");
    assert_eq!(alert["labels"]["node"], "gpu-7");
    assert_eq!(alert["evidence"][0]["state"], "joining");
    let status = fixture.admin("fleet.status", &json!({})).await;
    assert_eq!(status.body["alerts"], json!(["warning: node gpu-7 has not come yet"]));

    let told = messages(&stand_in, "/hook/s3cret", 1).await.remove(0);
    assert_eq!(told.body["status"], "firing");
    assert_eq!(told.body["alerts"][0]["labels"]["node"], "gpu-7");
    assert_eq!(told.body["alerts"][0]["fingerprint"], alert["id"]);
    assert!(!told.key.is_empty());
    let said = messages(&stand_in, "/chat/s3cret", 1).await.remove(0);
    assert!(
        said.body.to_string().contains("node gpu-7 has not come yet"),
        "{said:?}"
    );

    assert_eq!(fixture.admin("node.remove", &json!({"id": "gpu-7"})).await.status, 200);
    firing(&fixture, 0).await;
    let over = messages(&stand_in, "/hook/s3cret", 2).await.remove(1);
    assert_eq!(over.body["status"], "resolved");
    assert_ne!(over.key, told.key);
    // This machine may have alerts of its own.
    let past = listed(&fixture, json!({"all": true})).await;
    let ours = past.iter().find(|alert| alert["rule"] == "node-joining");
    let ours = ours.unwrap_or_else(|| panic!("{past:#?}"));
    assert_eq!(
        (&ours["status"], &ours["resolution"]),
        (&json!("resolved"), &json!("targetGone"))
    );
    let events = fixture.admin("event.list", &json!({"kind": "alert"})).await;
    let reasons: Vec<&str> = events
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["Firing", "Resolved"]);

    let rules = fixture.admin("alert.rules", &json!({})).await.body;
    let rule = |name: &str| {
        rules
            .as_array()
            .unwrap()
            .iter()
            .find(|rule| rule["name"] == name)
            .cloned()
    };
    assert_eq!(rule("node-joining").unwrap()["own"], true);
    assert_eq!(rule("node-down").unwrap()["own"], false);
    assert!(rule("queue-stuck").is_none() && rule("node-down").unwrap()["evaluatedAt"].is_string());
    let receivers = fixture.admin("alert.receivers", &json!({})).await.body;
    assert_eq!(receivers.as_array().unwrap().len(), 2);
    assert!(!receivers.to_string().contains("s3cret"), "{receivers}");
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_queue_is_told_with_why_workloads_wait() {
    let file = "
rules:
  - name: queue-stuck
    severity: warning
    by: []
    context: [reasons]
    condition: {kind: threshold, metric: queue.wait, op: \">=\", bound: 0}
    summary: \"it waits: {reasons}\"
";
    let options = Options {
        alerts: AlertsFile::parse(file, |_| None).unwrap(),
        alert_interval: Span(50),
        ..Options::default()
    };
    let fixture = Fixture::with(options).await;
    join(&fixture, "gpu-7").await;
    let job = |name: &str| json!({"name": name, "spec": {"image": "host", "command": ["true"], "gpus": {"count": 4}}});
    let asked = json!({"workloads": [job("one"), job("two")]});
    assert_eq!(fixture.admin("workload.submit", &asked).await.status, 200);
    let told = until("the reason", async || {
        let alerts = listed(&fixture, json!({"rule": "queue-stuck"})).await;
        let summary = alerts.first()?["summary"].as_str()?.to_owned();
        summary.contains("(2 of 2)").then_some(summary)
    })
    .await;
    assert!(told.starts_with("it waits: 1 node "), "{told}");
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing_and_tells_nobody_twice() {
    let stand_in = StandIn::start(200).await;
    let options = options(&receivers(&stand_in));
    let fixture = Fixture::with(options.clone()).await;
    join(&fixture, "one").await;
    messages(&stand_in, "/hook/s3cret", 1).await;
    messages(&stand_in, "/chat/s3cret", 1).await;
    let before = firing(&fixture, 1).await.remove(0);

    let fixture = fixture.restart_with(options).await;
    let after = firing(&fixture, 1).await.remove(0);
    assert_eq!((&after["id"], &after["startsAt"]), (&before["id"], &before["startsAt"]));
    // What is sent after the restart is news only.
    join(&fixture, "two").await;
    let told = messages(&stand_in, "/hook/s3cret", 2).await;
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].body["alerts"][0]["labels"]["node"], "two");
    let all = listed(&fixture, json!({"node": "one"})).await;
    assert_eq!(all.len(), 1);
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_holds_back_and_hides_nothing() {
    let stand_in = StandIn::start(200).await;
    let fixture = Fixture::with(options(&receivers(&stand_in))).await;
    let wish = json!({"matchers": ["node=one", "team=~infra|web"], "duration": "1h", "comment": "new rack"});
    let header = "idempotency-key: k1\r\n";
    let token = fixture.gateway.admin_token.clone();
    let ask = || fixture.post("alert.silence", token.as_deref(), &wish, header);
    let (made, twin) = tokio::join!(ask(), ask());
    assert_eq!(
        made.body["id"], twin.body["id"],
        "also when both come at once: {twin:?}"
    );
    assert_eq!((made.status, &made.body["active"]), (200, &json!(true)), "{made:?}");
    let again = ask().await;
    assert_eq!(again.body["id"], made.body["id"]);
    assert_eq!(made.body["createdBy"], "user:admin");

    join(&fixture, "one").await;
    firing(&fixture, 1).await;
    join(&fixture, "two").await;
    let told = messages(&stand_in, "/hook/s3cret", 1).await;
    assert_eq!(told[0].body["alerts"][0]["labels"]["node"], "two", "only it is told");
    let alerts = firing(&fixture, 2).await;
    let one = alerts.iter().find(|alert| alert["labels"]["node"] == "one").unwrap();
    assert_eq!(one["silencedBy"], json!([made.body["id"]]));
    let status = fixture.admin("fleet.status", &json!({})).await;
    assert_eq!(status.body["alerts"].as_array().unwrap().len(), 1);

    let fixture = fixture.restart_with(options(&receivers(&stand_in))).await;
    let silences = fixture.admin("alert.silence.list", &json!({})).await.body;
    assert_eq!(
        (&silences[0]["id"], &silences[0]["alerts"]),
        (&made.body["id"], &json!(1))
    );
    let id = made.body["id"].as_str().unwrap();
    let ended = fixture.admin("alert.silence.end", &json!({"id": &id[..8]})).await;
    assert_eq!(ended.body["active"], false, "{ended:?}");
    let told = messages(&stand_in, "/hook/s3cret", 2).await;
    assert_eq!(told[1].body["alerts"][0]["labels"]["node"], "one");
    assert_eq!(
        fixture.admin("alert.silence.end", &json!({"id": id})).await.code(),
        "CONFLICT"
    );

    for (bad, code) in [
        (json!({"matchers": ["node=~.*"], "duration": "1h"}), "INVALID_ARGUMENT"),
        (json!({"matchers": ["node"], "duration": "1h"}), "INVALID_ARGUMENT"),
        (json!({"matchers": [], "duration": "1h"}), "INVALID_ARGUMENT"),
        (json!({"matchers": ["node=a"], "duration": "0s"}), "INVALID_ARGUMENT"),
        (json!({"alert": "zz", "duration": "1h"}), "NOT_FOUND"),
        (
            json!({"alert": "zz", "matchers": ["node=a"], "duration": "1h"}),
            "INVALID_ARGUMENT",
        ),
    ] {
        assert_eq!(fixture.admin("alert.silence", &bad).await.code(), code, "{bad}");
    }
    // One alert alone, by the beginning of its id.
    let id = alerts[0]["id"].as_str().unwrap();
    let made = fixture
        .admin("alert.silence", &json!({"alert": &id[..6], "duration": "1h"}))
        .await;
    let matchers = made.body["matchers"].to_string();
    assert!(
        matchers.contains("rule=node-joining") && matchers.contains("node="),
        "{matchers}"
    );
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_is_named_without_its_secret() {
    let stand_in = StandIn::start(503).await;
    let fixture = Fixture::with(options(&receivers(&stand_in))).await;
    join(&fixture, "one").await;
    let failing = until("the failure to be told", async || {
        let receivers = fixture.admin("alert.receivers", &json!({})).await.body;
        let failing = receivers[0]["failing"].is_string() && receivers[1]["failing"].is_string();
        failing.then_some(receivers)
    })
    .await;
    assert!(failing[0]["failing"].as_str().unwrap().contains("503"), "{failing}");
    assert!(!failing.to_string().contains("s3cret"), "{failing}");
    assert_eq!(failing[0]["deliveredAt"], Value::Null);
    assert_eq!(firing(&fixture, 1).await[0]["notifiedAt"], Value::Null);
    fixture.gateway.stop().await;

    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let receivers = format!(
        "receivers: [{{name: hook, format: webhook, url: 'https://user:s3cret@{gone}/s3cret', groupWait: 0s}}]"
    );
    let fixture = Fixture::with(options(&receivers)).await;
    join(&fixture, "one").await;
    let failing = until("the failure to be told", async || {
        let receivers = fixture.admin("alert.receivers", &json!({})).await.body;
        receivers[0]["failing"].is_string().then_some(receivers)
    })
    .await;
    assert!(!failing.to_string().contains("s3cret"), "{failing}");
    assert_eq!(failing[0]["host"], format!("https://{gone}"));
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_make_no_sense_are_refused_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    let file = AlertsFile::parse("off: [node-dwon]", |_| None).unwrap();
    let started = Gateway::start(Options {
        listen: ([127, 0, 0, 1], 0).into(),
        data: data.path().to_owned(),
        alerts: file,
        ..Options::default()
    })
    .await;
    let Err(StartError::Alerts(why)) = started else {
        panic!("it starts")
    };
    assert!(why.contains("node-dwon"), "{why}");
}

/// A real Alertmanager, on ports of its own. `None`: it isn't installed.
struct Alertmanager {
    child: std::process::Child,
    port: u16,
    _data: tempfile::TempDir,
}

impl Alertmanager {
    async fn start() -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("alertmanager.yml");
        std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = std::process::Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", data.path().display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stderr(std::process::Stdio::null())
            .spawn()
            .ok()?;
        let started = Self {
            child,
            port,
            _data: data,
        };
        until("Alertmanager to be ready", async || started.get("/-/ready").await).await;
        Some(started)
    }

    /// The body of a good answer.
    async fn get(&self, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let head = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
        socket.write_all(head.as_bytes()).await.ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    }

    async fn alerts(&self) -> Vec<Value> {
        let body = self.get("/api/v2/alerts").await.expect("Alertmanager answers");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_alertmanager_takes_alerts_and_their_end() {
    let Some(alertmanager) = Alertmanager::start().await else {
        eprintln!("skipped: prometheus-alertmanager isn't installed");
        return;
    };
    let receivers = format!(
        "receivers: [{{name: am, format: alertmanager, url: 'http://127.0.0.1:{}/', repeat: 10s}}]",
        alertmanager.port
    );
    let fixture = Fixture::with(options(&receivers)).await;
    join(&fixture, "gpu-7").await;
    let alert = until("the alert to be there", async || {
        alertmanager.alerts().await.into_iter().next()
    })
    .await;
    assert_eq!(alert["labels"]["alertname"], "node-joining");
    assert_eq!(alert["labels"]["node"], "gpu-7");
    assert_eq!(alert["labels"]["severity"], "warning");
    assert_eq!(alert["annotations"]["summary"], "node gpu-7 has not come yet");
    until("it to be active", async || {
        let alerts = alertmanager.alerts().await;
        (alerts.first()?["status"]["state"] == "active").then_some(())
    })
    .await;
    assert_eq!(fixture.admin("node.remove", &json!({"id": "gpu-7"})).await.status, 200);
    // It lists what isn't over.
    until("its end", async || alertmanager.alerts().await.is_empty().then_some(())).await;
    fixture.gateway.stop().await;
}
