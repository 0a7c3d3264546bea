//! Words that the grammar can't read, and a language model that says them anew: one on this machine that answers what it is
//! told to.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::cluster::Cluster;

const KEY: &str = "sk-canary-4f1c9a";

/// A server that speaks OpenAI's wire format.
struct Model {
    address: std::net::SocketAddr,
    says: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Model {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let model = Self {
            address: listener.local_addr().unwrap(),
            says: Arc::default(),
            asked: Arc::default(),
        };
        let (says, asked) = (Arc::clone(&model.says), Arc::clone(&model.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_request(&mut stream);
                asked.lock().unwrap().push(request);
                let answer = json!({
                    "id": "x", "object": "chat.completion", "model": "stand-in",
                    "choices": [{"index": 0, "finish_reason": "stop",
                                 "message": {"role": "assistant", "content": *says.lock().unwrap()}}],
                })
                .to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    answer.len()
                );
                let _ = stream.write_all((head + &answer).as_bytes());
            }
        });
        model
    }

    fn says(&self, sentence: &str) {
        *self.says.lock().unwrap() = sentence.to_owned();
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn read_request(stream: &mut std::net::TcpStream) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).unwrap();
        text.extend_from_slice(&piece[..read]);
        let all = String::from_utf8_lossy(&text);
        let Some((head, body)) = all.split_once("\r\n\r\n") else {
            assert!(read > 0, "half a request: {all}");
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().unwrap())
        });
        if read == 0 || body.len() >= length.unwrap_or(0) {
            return all.into_owned();
        }
    }
}

#[test]
fn what_a_model_reads_is_shown_first_and_only_the_grammar_acts() {
    let model = Model::start();
    let url = format!("http://{}/v1", model.address);
    let flags = ["--llm", "openai", "--llm-url", &url, "--llm-key-secret", "model-key"];
    let mut cluster = Cluster::start_with(&flags);
    cluster.join("one", &["--engine", "native"]);
    let home = &cluster.home;
    home.words(&["secret", "set", "model-key", "--value", KEY]).ok();
    home.words(&[
        "deploy",
        "deploy api with 1 replica",
        "--image",
        "registry.example/api:1",
        "--dry-run",
    ])
    .ok();
    assert_eq!(model.asked().len(), 0, "the grammar reads this by itself");

    let words = "kindly make three of those api thingies happen";
    model.says("deploy api with 3 replicas, command \"sleep 1000\"");
    let shown = home
        .words(&["deploy", words, "--image", "host", "--dry-run", "--json"])
        .json();
    assert_eq!((&shown["workload"], &shown["replicas"]), (&json!("api"), &json!(3)));
    let asked = model.asked();
    assert!(
        asked[0].contains(words) && asked[0].contains(&format!("Bearer {KEY}")),
        "{}",
        asked[0]
    );

    // Never applied unseen.
    let unasked = home.words(&["deploy", words, "--image", "host"]);
    assert_ne!(unasked.code, 0, "{unasked:?}");
    assert_eq!(home.run("service list --json").json(), json!([]));
    let id = home
        .words(&["deploy", words, "--image", "host", "--yes"])
        .ok()
        .to_owned();
    let status = home.run(&format!("deploy status {id} --json")).json();
    assert!(status["readBy"].is_string(), "{status:#}");

    // What isn't a sentence of the grammar does nothing.
    for hostile in [
        "rm -rf /",
        "service delete api --yes",
        "scale api to 0 replicas",
        "deploy api with 3 replicas\nscale api to 9 replicas",
        "CANNOT: it isn't about a deployment",
        "",
    ] {
        model.says(hostile);
        let refused = home.words(&["deploy", "do the thing with the api stuff", "--yes"]);
        assert_eq!(refused.code, 2, "{hostile:?}: {refused:?}");
        assert!(!refused.err.contains(KEY), "{refused:?}");
    }
    let services: Value = home.run("service list --json").json();
    assert_eq!(services[0]["replicas"], 3, "{services:#}");
    let log = std::fs::read_to_string(home.path("gateway.log")).unwrap();
    assert!(!log.contains(KEY), "the key is in the gateway's log");

    home.run("service delete api --force --yes").ok();
    crate::cluster::wait_for("the replicas to end", || {
        let status = home.run("status --json").json();
        status["workloads"].as_array()?.is_empty().then_some(())
    });
    cluster.end();
}
