//! What no well-behaved caller sends: refused with a code, and nothing is harmed.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use crate::cluster::{Answer, Cluster, post, wait_for};

/// Calls with this token.
#[track_caller]
fn call(cluster: &Cluster, token: &str, operation: &str, request: &Value) -> Answer {
    post(cluster.address(), operation, token, &[], request.to_string().as_bytes()).unwrap()
}

#[test]
fn only_tokens_that_work_work() {
    let cluster = Cluster::start();
    let empty = json!({});
    for token in [
        "",
        "nonsense",
        "cbt_admin_0000",
        "cbn_native_0000",
        "cbj__",
        &"x".repeat(4000),
    ] {
        call(&cluster, token, "fleet.status", &empty).refused(401, "AUTH_FAILED");
    }
    let mut forged = cluster.token();
    let last = if forged.ends_with('0') { '1' } else { '0' };
    forged.pop();
    forged.push(last);
    call(&cluster, &forged, "fleet.status", &empty).refused(401, "AUTH_FAILED");

    let made = |words: &str| cluster.home.run(words).ok().to_owned();
    let viewer = made("auth token create eve --role viewer --expires 1h");
    assert_eq!(call(&cluster, &viewer, "fleet.status", &empty).status, 200);
    call(&cluster, &viewer, "auth.token.list", &empty).refused(403, "PERMISSION_DENIED");
    call(&cluster, &viewer, "auth.join-token", &json!({ "expires": "1h" })).refused(403, "PERMISSION_DENIED");
    cluster.home.run("auth token revoke eve --yes").ok();
    call(&cluster, &viewer, "fleet.status", &empty).refused(401, "AUTH_FAILED");

    let brief = made("auth token create brief --role admin --expires 1s");
    wait_for("the token to expire", || {
        let answer = call(&cluster, &brief, "fleet.status", &empty);
        (answer.status != 200).then(|| answer.refused(401, "AUTH_FAILED"))
    });

    let join = made("auth join-token --expires 1h --uses 1");
    let named = |name: &str| json!({ "name": name, "exact": true });
    call(&cluster, &join, "fleet.status", &empty).refused(403, "PERMISSION_DENIED");
    assert_eq!(call(&cluster, &join, "node.join", &named("first")).status, 200);
    call(&cluster, &join, "node.join", &named("second")).refused(401, "AUTH_FAILED");
    let join = made("auth join-token --expires 1s");
    wait_for("the join token to expire", || {
        let answer = call(&cluster, &join, "node.join", &json!({ "name": "late", "exact": false }));
        (answer.status != 200).then(|| answer.refused(401, "AUTH_FAILED"))
    });
    // An agent with such a token ends, and says why.
    let done = cluster
        .home
        .run(&format!("node start --name late-too --data late-too --join {join}"));
    done.failed(4, "AUTH_FAILED");
    cluster.end();
}

#[test]
fn requests_that_make_no_sense_change_nothing() {
    let cluster = Cluster::start();
    let (address, token) = (cluster.address(), cluster.token());
    let send = |operation: &str, body: &[u8]| post(address, operation, &token, &[], body).unwrap();

    let said = send("workload.submit", &vec![b' '; 5 << 20]).refused(400, "INVALID_ARGUMENT");
    assert!(said.contains("4Mi"), "{said}");
    for body in [&b"{"[..], b"[]", b"\xff\xfe", b"{\"workloads\":3}", b"nul"] {
        send("workload.submit", body).refused(400, "INVALID_ARGUMENT");
    }
    let said = send("workload.submit", br#"{"workloads":[],"dryrun":true}"#).refused(400, "INVALID_ARGUMENT");
    assert!(said.contains("dryrun"), "{said}");
    let spec = |spec: Value| json!({ "workloads": [{ "spec": spec }] }).to_string();
    for wrong in [
        json!({ "image": "host", "command": ["true"], "gpuss": { "count": 1 } }),
        json!({ "image": "host", "command": ["true"], "gpus": { "count": 1, "modell": "H100" } }),
        json!({ "image": "host", "command": ["true"], "gpus": { "count": -1 } }),
        json!({ "image": "", "command": ["true"] }),
        json!({ "image": "host", "command": ["true"], "memory": "lots" }),
    ] {
        send("workload.submit", spec(wrong).as_bytes()).refused(400, "INVALID_ARGUMENT");
    }
    send("workload.fly", b"{}").refused(404, "NOT_FOUND");
    let key = [("idempotency-key", "a/b")];
    post(address, "workload.submit", &token, &key, b"{}")
        .unwrap()
        .refused(400, "INVALID_ARGUMENT");

    // Not even HTTP.
    for garbage in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET\r\n\r\n", &[0; 4096]] {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.write_all(garbage).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            answer.escape_ascii()
        );
    }

    let home = &cluster.home;
    home.write(
        "typo.yaml",
        "apiVersion: clawbernetes/v1\nkind: Workload\nspec:\n  image: host\n  gpuz: 1\n",
    );
    let done = home.run("run --file typo.yaml");
    let told = done.failed(2, "INVALID_ARGUMENT");
    assert!(told.contains("typo.yaml:5") && told.contains("'gpus'"), "{told}");
    assert_eq!(home.run("workload list --json").json(), json!([]));
    cluster.end();
}

#[test]
fn silent_connections_hold_nobody_up() {
    let cluster = Cluster::start();
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(cluster.address()).unwrap())
        .collect();
    // Half of them have begun to speak.
    for socket in idle.iter().step_by(2) {
        let mut socket = socket;
        socket.write_all(b"POST /api/v1/fleet/sta").unwrap();
    }
    assert_eq!(cluster.home.run("status --json").json()["cluster"]["totalNodes"], 0);
    cluster.home.run("gateway ping").ok();
    drop(idle);
    cluster.end();
}

/// Something that speaks as a node.
struct Impostor {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    credential: String,
}

impl Impostor {
    fn new(cluster: &Cluster, name: &str) -> Self {
        let joined = call(
            cluster,
            &cluster.token(),
            "node.join",
            &json!({ "name": name, "exact": true }),
        )
        .json();
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            address: cluster.address(),
            credential: joined["credential"].as_str().unwrap().to_owned(),
        }
    }

    /// Says all of this in one session; what the gateway said until it ended the session.
    fn say(&self, messages: &[Message]) -> Vec<Value> {
        self.runtime.block_on(async {
            let socket = tokio::net::TcpStream::connect(self.address).await.unwrap();
            let url = format!("ws://{}{}", self.address, api::op::NODE_SESSION_PATH);
            let mut request = url.into_client_request().unwrap();
            let bearer = format!("Bearer {}", self.credential).parse().unwrap();
            request.headers_mut().insert("authorization", bearer);
            let (mut socket, _) = client_async(request, socket).await.unwrap();
            for message in messages {
                // The gateway may have ended it by now.
                let _ = socket.send(message.clone()).await;
            }
            let mut told = Vec::new();
            let listening = async {
                while let Some(Ok(message)) = socket.next().await {
                    if let Message::Text(text) = message {
                        told.push(serde_json::from_str(&text).unwrap());
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(60), listening)
                .await
                .expect("the gateway ends a session that makes no sense");
            told
        })
    }

    /// The status with which the gateway refuses a session with this credential.
    fn refused(&self, credential: &str) -> u16 {
        self.runtime.block_on(async {
            let socket = tokio::net::TcpStream::connect(self.address).await.unwrap();
            let mut request = format!("ws://{}{}", self.address, api::op::NODE_SESSION_PATH)
                .into_client_request()
                .unwrap();
            let bearer = format!("Bearer {credential}").parse().unwrap();
            request.headers_mut().insert("authorization", bearer);
            match client_async(request, socket).await {
                Err(Error::Http(answer)) => answer.status().as_u16(),
                other => panic!("let in: {other:?}"),
            }
        })
    }
}

fn hello(name: &str, changes: &Value) -> Message {
    let mut hello = json!({ "type": "hello", "protocol": api::wire::PROTOCOL, "name": name, "labels": {}, "jobs": [], "inventory": {
        "hostname": "h", "cpu": 4, "memoryTotalBytes": 1 << 30, "arch": "x86_64", "agentVersion": "0",
        "cpuModel": null, "os": null, "kernel": null, "bootId": null,
        "gpus": [], "links": [], "engines": [{ "kind": "native", "version": null, "limitations": [] }], "notes": [],
    }});
    for (key, value) in changes.as_object().unwrap() {
        hello[key] = value.clone();
    }
    Message::text(hello.to_string())
}

#[test]
fn sessions_that_make_no_sense_end_and_harm_nobody() {
    let mut cluster = Cluster::start();
    cluster.join("honest", &["--engine", "native", "--simulate-gpus", "2xH100"]);
    let since = cluster.call("node.get", &json!({ "id": "honest" }))["connectivity"]["since"].clone();
    let folder = cluster.home.path("go");
    let script = format!(
        "echo begun; while [ ! -e {} ]; do sleep 0.05; done; echo done",
        folder.display()
    );
    let words = [
        "--image",
        "host",
        "--gpus",
        "1",
        "--timeout",
        "5m",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let id = cluster.run(&words);
    cluster.wait_phase(&id, "running");

    let impostor = Impostor::new(&cluster, "impostor");
    let none = json!({});
    let refused = |messages: &[Message], code: &str| {
        let told = impostor.say(messages);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["type"], "refused", "{told:?}");
        assert_eq!(told[0]["error"]["code"], code, "{told:?}");
    };
    refused(&[hello("honest", &none)], "PERMISSION_DENIED");
    refused(&[hello("impostor", &json!({ "protocol": 99 }))], "INVALID_ARGUMENT");
    refused(&[Message::text("{")], "INVALID_ARGUMENT");
    refused(&[Message::binary(vec![0xff; 1000])], "INVALID_ARGUMENT");
    refused(&[Message::text(r#"{"type":"resync"}"#)], "INVALID_ARGUMENT");
    refused(&[Message::text(" ".repeat((16 << 20) + 1))], "INVALID_ARGUMENT");

    // Welcome at first.
    let begins = |last: Message| {
        let told = impostor.say(&[hello("impostor", &none), last]);
        assert!(
            told.iter()
                .all(|told| told["type"] == "welcome" || told["type"] == "desired"),
            "{told:?}"
        );
    };
    begins(Message::text("no JSON"));
    begins(Message::binary(vec![0xff; 1000]));
    begins(Message::text(r#"{"type":"fly"}"#));
    begins(Message::text(
        r#"{"type":"observations","observations":[{"number":-1}]}"#,
    ));
    begins(hello("impostor", &none));

    // What it says of another's job isn't believed.
    let job = json!({ "workload": id, "attempt": 1, "rank": 0 });
    let ended = json!({ "type": "observations", "observations": [{ "number": 1, "job": job, "seen": {
        "what": "ended", "startedAt": null, "at": "2026-01-01T00:00:00Z", "outcome": { "kind": "exited", "code": 9 },
        "stop": null, "usage": { "cpuMs": null, "memoryPeakBytes": null }, "lastLine": 1,
    }}]});
    let line = json!({ "type": "logs", "streams": [[job, [{ "n": 1, "t": 0, "s": "stdout", "m": "forged" }]]] });
    let told = impostor.say(&[
        hello("impostor", &none),
        Message::text(line.to_string()),
        Message::text(ended.to_string()),
        // Taken in order: both are done with when the session ends.
        Message::Close(None),
    ]);
    assert!(told.iter().all(|told| told["type"] != "refused"), "{told:?}");

    let own = &impostor.credential;
    assert_eq!(impostor.refused("cbn_honest_0000"), 401);
    assert_eq!(impostor.refused(&own.replace("impostor", "honest")), 401);
    assert_eq!(impostor.refused(&cluster.token()), 403, "an admin is no node");
    cluster.home.run("node remove impostor --yes").ok();
    assert_eq!(impostor.refused(own), 401);

    let detail = cluster.call("node.get", &json!({ "id": "honest" }));
    assert_eq!(
        detail["connectivity"]["since"], since,
        "its session went on: {detail:#}"
    );
    assert_eq!(cluster.status(&id)["phase"], "running");
    std::fs::write(folder, "").unwrap();
    cluster.wait_phase(&id, "succeeded");
    assert_eq!(cluster.logs(&id), "begun\ndone");
    cluster.end();
}
