//! Who may do what: every operation of the table, by every kind of caller, in its own namespace, in another's and in
//! none.

use std::collections::BTreeSet;

use api::{
    auth::{Role, Scope},
    op::{Described, EXEC_PATH, EXEC_SCOPE, Effect, NODE_SESSION_PATH, OPERATIONS, Reach},
};
use gateway::{Limits, Options};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use vault::pki::{Algorithm, Csr};

use crate::fixture::{Fixture, frame};

/// Where everything is that calls are aimed at.
const SPACE: &str = "team-a";
/// Where it isn't.
const ELSEWHERE: &str = "team-b";
/// What nobody outside of the namespace may ever see.
/// `canary-value`, as values travel.
const VALUE: &str = "Y2FuYXJ5LXZhbHVl";
const DESCRIPTION: &str = "canary-description-2ab0";
const COMMAND: &str = "canary-command-91dd";

/// Things to call operations on. Used up ones are made anew.
struct World<'a> {
    fixture: &'a Fixture,
    made: u32,
    workload: String,
    workload_id: String,
    token: String,
    silence: String,
    service: String,
    deployment: String,
    cert: String,
    csr: String,
}

impl<'a> World<'a> {
    async fn new(fixture: &'a Fixture) -> Self {
        let mut world = Self {
            fixture,
            made: 0,
            workload: String::new(),
            workload_id: String::new(),
            token: String::new(),
            silence: String::new(),
            service: String::new(),
            deployment: String::new(),
            cert: String::new(),
            csr: Csr::new(Algorithm::EcdsaP256).unwrap().request_pem,
        };
        for used in [
            "workload.cancel",
            "auth.token.revoke",
            "alert.silence.end",
            "cert.revoke",
            "secret.delete",
            "node.remove",
            "deploy.rollback",
        ] {
            world.renew(used).await;
        }
        world
    }

    fn next(&mut self, stem: &str) -> String {
        self.made += 1;
        format!("{stem}-{}", self.made)
    }

    async fn made(&self, operation: &str, request: Value) -> Value {
        let answer = self.fixture.admin(operation, &request).await;
        assert_eq!(answer.status, 200, "{operation}: {answer:?}");
        answer.body
    }

    /// Makes anew what a call of this operation has used up.
    async fn renew(&mut self, operation: &str) {
        match operation {
            "workload.cancel" => {
                self.workload = self.next("job");
                let made = self.made("workload.submit", submission(&self.workload)).await;
                self.workload_id = made[0]["id"].as_str().unwrap().to_owned();
            }
            "auth.token.revoke" => {
                let made = self
                    .made("auth.token.create", json!({"name": "spare", "role": "viewer"}))
                    .await;
                self.token = made["id"].as_str().unwrap().to_owned();
            }
            "alert.silence.end" => {
                let made = self.made("alert.silence", silence()).await;
                self.silence = made["id"].as_str().unwrap().to_owned();
            }
            "cert.rotate" | "cert.revoke" => {
                self.cert = self.next("service");
                self.made("cert.issue", json!({"name": self.cert, "sans": ["a.example"]}))
                    .await;
            }
            "secret.delete" => {
                for _ in 0..2 {
                    let secret = json!({"name": "db", "namespace": SPACE, "value": VALUE, "description": DESCRIPTION});
                    self.made("secret.set", secret).await;
                }
            }
            // Each of them changes what the next would be about.
            "deploy.apply" | "deploy.promote" | "deploy.rollback" | "deploy.pause" | "deploy.resume"
            | "deploy.retry" | "service.delete" => {
                self.service = self.next("api");
                let made = self.made("deploy.apply", deployment(&self.service)).await;
                self.deployment = made["id"].as_str().unwrap().to_owned();
            }
            "node.remove" => {
                self.made("node.join", json!({"name": "n1", "exact": true})).await;
            }
            _ => {}
        }
    }

    /// A call that makes sense, aimed at things of [`SPACE`] and of the fleet.
    fn sample(&mut self, operation: &str) -> Value {
        let workload = json!({"id": self.workload, "namespace": SPACE});
        let with = |mut request: Value, more: Value| {
            request
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            request
        };
        let secret = json!({"name": "db", "namespace": SPACE});
        match operation {
            "gateway.ping" | "fleet.health" | "auth.whoami" | "auth.token.list" | "vault.status" | "vault.rekey"
            | "cert.ca" | "cert.crl" | "audit.verify" | "metrics.list" | "metrics.usage" | "alert.rules"
            | "alert.receivers" | "fleet.status" | "cert.list" | "audit.list" | "node.list" | "workload.usage"
            | "alert.list" | "alert.silence.list" | "event.list" | "event.watch" | "auth.oidc" => json!({}),
            "auth.oidc.exchange" => json!({"idToken": "e30.e30.e30"}),
            "auth.token.create" => json!({"name": "made", "role": "viewer", "expires": "1h"}),
            "auth.token.revoke" => json!({"id": self.token}),
            "auth.join-token" => json!({"expires": "1h", "uses": 1}),
            "secret.set" => with(secret, json!({"value": VALUE})),
            "secret.rotate" => with(secret, json!({"value": VALUE, "keepVersions": 2})),
            "secret.get" | "secret.versions" => secret,
            "secret.delete" => with(secret, json!({"allVersions": true})),
            "secret.list" | "workload.list" => json!({"namespace": SPACE}),
            "cert.issue" => json!({"name": self.next("issued"), "sans": ["b.example"]}),
            "cert.rotate" => json!({"name": self.cert, "force": true}),
            "cert.revoke" => json!({"name": self.cert}),
            "node.join" => json!({"name": self.next("joined"), "exact": true}),
            "node.certify" => json!({"request": self.csr}),
            "node.get" | "node.diagnose" | "node.drain" | "node.undrain" => json!({"id": "n1"}),
            "node.label" => json!({"id": "n1", "set": {"rack": "r1"}}),
            "node.taint" => json!({"id": "n1", "remove": ["none"]}),
            "node.remove" => json!({"id": "n1", "force": true}),
            "workload.submit" => submission(&self.next("more")),
            "workload.cancel" => json!({"ids": [self.workload], "namespace": SPACE}),
            "workload.update" => with(workload, json!({"priority": "low"})),
            "workload.migrate" | "workload.get" | "workload.explain" | "workload.diagnose" | "workload.logs"
            | "workload.watch" => workload,
            "metrics.query" => json!({"name": "gpu.temperature", "workload": self.workload, "namespace": SPACE}),
            "alert.silence" => silence(),
            "alert.silence.end" => json!({"id": self.silence}),
            "deploy.plan" => deployment("web")["request"].clone(),
            "deploy.apply" => deployment(&self.next("api")),
            "deploy.list" | "service.list" => json!({"namespace": SPACE}),
            "deploy.get" | "deploy.watch" | "deploy.promote" | "deploy.rollback" | "deploy.pause" | "deploy.resume"
            | "deploy.retry" => json!({"id": self.deployment, "namespace": SPACE}),
            "service.get" | "service.delete" => json!({"name": self.service, "namespace": SPACE}),
            other => panic!("{other} is new: say here how it is called, so that it is tried with every role"),
        }
    }

    /// The same call, with the workload or deployment by its id alone: ids fit in every namespace.
    fn by_id(&self, request: &Value) -> Option<Value> {
        let mut by_id = request.clone();
        let fields = by_id.as_object_mut()?;
        if fields.get("id").is_some_and(|id| *id == self.deployment) {
            fields.remove("namespace")?;
            return Some(by_id);
        }
        for (key, value) in [
            ("id", json!(self.workload_id)),
            ("workload", json!(self.workload_id)),
            ("ids", json!([self.workload_id])),
        ] {
            if fields
                .get(key)
                .is_some_and(|named| *named == self.workload || named[0] == self.workload)
            {
                fields.insert(key.to_owned(), value);
                fields.remove("namespace");
                return Some(by_id);
            }
        }
        None
    }

    /// What an answer tells of [`SPACE`] that the request didn't.
    fn told<'b>(&'b self, request: &Value, answer: &str) -> Option<&'b str> {
        let request = request.to_string();
        let known = [VALUE, DESCRIPTION, COMMAND, &self.workload_id];
        known
            .into_iter()
            .find(|word| answer.contains(word) && !request.contains(word))
    }
}

fn submission(name: &str) -> Value {
    // Nothing here has a GPU: it waits.
    let spec = json!({"image": "host", "command": ["echo", COMMAND], "gpus": {"count": 1}, "timeout": "1m"});
    json!({"workloads": [{"name": name, "namespace": SPACE, "spec": spec}]})
}

fn deployment(name: &str) -> Value {
    let template = json!({"image": "host", "command": ["echo", COMMAND], "gpus": {"count": 1}});
    let intent = format!("deploy {name} with 1 replica");
    json!({"request": {"intent": intent, "namespace": SPACE, "template": template}})
}

fn silence() -> Value {
    json!({"matchers": ["rule=none"], "duration": "1h", "comment": "a test"})
}

/// Somebody who calls.
#[derive(Debug)]
struct Caller {
    role: Option<Role>,
    scopes: Vec<Scope>,
    namespace: Option<&'static str>,
    token: Option<String>,
}

impl Caller {
    fn may(&self, scope: Scope) -> bool {
        self.role.is_some_and(|role| role.allows(scope)) || self.scopes.contains(&scope)
    }
}

async fn callers(fixture: &Fixture) -> Vec<Caller> {
    let mut kinds = vec![(Role::Viewer, vec![]), (Role::Operator, vec![])];
    kinds.extend(Scope::GIVEN.map(|(_, scope)| (Role::Custom, vec![scope])));
    let mut callers = Vec::new();
    for (role, scopes) in kinds {
        for namespace in [None, Some(SPACE), Some(ELSEWHERE)] {
            let wish = json!({"name": "caller", "role": role, "scopes": scopes, "namespace": namespace});
            let made = fixture.admin("auth.token.create", &wish).await;
            callers.push(Caller {
                role: Some(role),
                scopes: scopes.clone(),
                namespace,
                token: Some(
                    made.body["token"]
                        .as_str()
                        .unwrap_or_else(|| panic!("{made:?}"))
                        .to_owned(),
                ),
            });
        }
    }
    let join = fixture.admin("auth.join-token", &json!({"expires": "1h"})).await;
    let join = join.body["token"].as_str().unwrap().to_owned();
    let node = json!({"name": "caller", "exact": true});
    let node = fixture.post("node.join", Some(&join), &node, "").await;
    let node = node.body["credential"].as_str().unwrap().to_owned();
    let admin = fixture.gateway.admin_token.clone();
    for (role, token) in [
        (Some(Role::Admin), admin),
        (Some(Role::Node), Some(node)),
        (Some(Role::Joiner), Some(join)),
        (None, None),
        (None, Some(format!("cbt_0123456789ab_{}", "0".repeat(64)))),
    ] {
        callers.push(Caller {
            role,
            scopes: Vec::new(),
            namespace: None,
            token,
        });
    }
    callers
}

/// An answer as it is written; of a stream its first line, or nothing where it may say nothing for ever.
async fn ask(fixture: &Fixture, op: &Described, token: Option<&str>, request: &Value) -> (u16, String) {
    let (path, body) = (op.path(), request.to_string());
    let token = token.map_or_else(String::new, |t| format!("authorization: Bearer {t}\r\n"));
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{token}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut socket = TcpStream::connect(fixture.gateway.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if op.streaming
                && let Some((head, lines)) = text.split_once("\r\n\r\n")
                && head.starts_with("HTTP/1.1 200")
                && (op.name == "event.watch" || lines.contains("}\n"))
            {
                return text;
            }
            if socket.read_buf(&mut answer).await.unwrap() == 0 {
                return text;
            }
        }
    };
    let text = tokio::time::timeout(std::time::Duration::from_secs(30), exchange)
        .await
        .unwrap_or_else(|_| panic!("no answer to {}", op.name));
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    (status.unwrap_or_else(|| panic!("no answer: {text}")), body)
}

async fn start() -> Fixture {
    let limits = Limits {
        failure_burst: 1e9,
        ..Limits::default()
    };
    Fixture::with(Options {
        limits,
        ..Options::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_for_those_it_is_for() {
    let fixture = start().await;
    let callers = callers(&fixture).await;
    let mut world = World::new(&fixture).await;
    let mut telling = BTreeSet::new();
    for op in OPERATIONS {
        for caller in &callers {
            let request = world.sample(op.name);
            for request in std::iter::once(request.clone()).chain(world.by_id(&request)) {
                let (status, answer) = ask(&fixture, op, caller.token.as_deref(), &request).await;
                let context = || format!("{} with {request} by {caller:?}: {status} {answer}", op.name);
                let refused = matches!(status, 401 | 403)
                    || answer.contains("\"code\":\"AUTH_FAILED\"")
                    || answer.contains("\"code\":\"PERMISSION_DENIED\"");
                let told = world.told(&request, &answer);
                match caller {
                    // No identity provider is configured here.
                    _ if op.scope == Scope::NoToken => assert!(status == 404 && told.is_none(), "{}", context()),
                    Caller { role: None, .. } => assert!(status == 401 && told.is_none(), "{}", context()),
                    _ if !caller.may(op.scope) => {
                        assert!(status == 403 && refused && told.is_none(), "{}", context());
                    }
                    Caller { namespace: Some(_), .. } if op.reach == Reach::Fleet => {
                        assert!(status == 403 && answer.contains("fleet-wide"), "{}", context());
                        assert!(told.is_none(), "{}", context());
                    }
                    Caller {
                        namespace: Some(ELSEWHERE),
                        ..
                    } if op.reach == Reach::Namespace => {
                        // Named, it is another's; looked for, it isn't there.
                        assert!(!refused || answer.contains("other-namespace"), "{}", context());
                        let missing = answer.contains("NOT_FOUND");
                        assert!(refused || missing || op.effect == Effect::Reads, "{}", context());
                        assert!(told.is_none(), "tells {told:?}: {}", context());
                    }
                    _ => {
                        assert!(!refused, "{}", context());
                        assert!(
                            !answer.contains("INVALID_ARGUMENT"),
                            "the sample is wrong: {}",
                            context()
                        );
                        if told.is_some() {
                            telling.insert(op.name);
                        }
                    }
                }
                if status == 200 && op.effect != Effect::Reads && !answer.contains("\"error\"") {
                    world.renew(op.name).await;
                }
            }
        }
    }
    // The same words are found where they may be read.
    for told in [
        "secret.get",
        "secret.list",
        "workload.get",
        "workload.list",
        "fleet.status",
        "event.list",
        "workload.watch",
        "deploy.get",
        "deploy.watch",
    ] {
        assert!(
            telling.contains(told),
            "{told} tells nothing that could be found: {telling:?}"
        );
    }
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_commands_are_for_those_they_are_for() {
    let fixture = start().await;
    let world = World::new(&fixture).await;
    for caller in &callers(&fixture).await {
        let token = caller.token.as_deref().unwrap_or("");
        for (path, scope) in [(EXEC_PATH, EXEC_SCOPE), (NODE_SESSION_PATH, Scope::NodeSession)] {
            let (status, mut socket) = fixture.websocket(path, token).await;
            let expected = match caller.role {
                None => 401,
                Some(_) if caller.may(scope) => 101,
                Some(_) => 403,
            };
            assert_eq!(status, expected, "{path} by {caller:?}");
            if status == 101 && path == EXEC_PATH {
                let start = json!({"id": world.workload_id, "command": ["true"]});
                socket.write_all(&frame(&start.to_string())).await.unwrap();
                let mut said = Vec::new();
                let reading = socket.read_to_end(&mut said);
                let _ = tokio::time::timeout(std::time::Duration::from_secs(30), reading)
                    .await
                    .expect("an end");
                let said = String::from_utf8_lossy(&said);
                let found = said.contains("CONFLICT");
                assert_eq!(found, caller.namespace != Some(ELSEWHERE), "{caller:?}: {said}");
                assert!(found || said.contains("NOT_FOUND"), "{caller:?}: {said}");
            }
        }
    }
    fixture.gateway.stop().await;
}

/// Reads a stream until a word has come, or there is nothing more at present.
async fn comes(socket: &mut TcpStream, seen: &mut String, word: &str) -> bool {
    let reading = async {
        while !seen.contains(word) {
            let mut bytes = Vec::new();
            if socket.read_buf(&mut bytes).await.unwrap() == 0 {
                panic!("the stream ended: {seen}");
            }
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    tokio::time::timeout(std::time::Duration::from_millis(500), reading)
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_events_is_of_ones_own_namespace() {
    let fixture = start().await;
    let mut streams = Vec::new();
    for namespace in [SPACE, ELSEWHERE] {
        let wish = json!({"name": "watcher", "role": "viewer", "namespace": namespace});
        let token = fixture.admin("auth.token.create", &wish).await;
        let mut socket = TcpStream::connect(fixture.gateway.address).await.unwrap();
        let head = format!(
            "GET {} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\n\r\n",
            api::op::path("event.watch"),
            token.body["token"].as_str().unwrap()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        streams.push((namespace, socket, String::new()));
    }
    let submit = async |namespace: &str, name: &str| {
        let spec = json!({"image": "host", "command": ["true"], "gpus": {"count": 1}, "timeout": "1m"});
        let wish = json!({"workloads": [{"name": name, "namespace": namespace, "spec": spec}]});
        let made = fixture.admin("workload.submit", &wish).await;
        made.body[0]["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{made:?}"))
            .to_owned()
    };
    // What was said before somebody began to listen needn't come: it is said again until it does.
    let mut round = 0;
    let mut silent = vec![true; streams.len()];
    let mut ids: Vec<Vec<String>> = vec![Vec::new(); streams.len()];
    while silent.contains(&true) {
        round += 1;
        assert!(round < 60, "the events don't come");
        for ((namespace, ..), ids) in streams.iter().zip(&mut ids) {
            ids.push(submit(namespace, &format!("w-{round}")).await);
        }
        for (((_, socket, seen), ids), silent) in streams.iter_mut().zip(&ids).zip(&mut silent) {
            *silent = *silent && !comes(socket, seen, ids.last().unwrap()).await;
        }
    }
    // Both have listened for a while; what comes last comes after all that the other did.
    for (at, (namespace, socket, seen)) in streams.iter_mut().enumerate() {
        let others = ids.iter().enumerate().filter(|(of, _)| *of != at);
        let mut others = others.flat_map(|(_, ids)| ids);
        let last = submit(namespace, "last").await;
        let mut waited = 0;
        while !comes(socket, seen, &last).await {
            waited += 1;
            assert!(waited < 60, "{last} doesn't come: {seen}");
        }
        assert!(
            !others.any(|id| seen.contains(id)),
            "{namespace} sees another's: {seen}"
        );
    }
    fixture.gateway.stop().await;
}
