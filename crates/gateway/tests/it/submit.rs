//! New workloads, and what is left of them after a restart.

use serde_json::{Value, json};

use crate::fixture::Fixture;

fn job(name: &str) -> Value {
    json!({"name": name, "spec": {"image": "host", "command": ["true"], "timeout": "1m"}})
}

fn submission(names: &[&str]) -> Value {
    json!({"workloads": names.iter().map(|n| job(n)).collect::<Vec<_>>()})
}

async fn count(fixture: &Fixture) -> usize {
    fixture
        .admin("workload.list", &json!({}))
        .await
        .body
        .as_array()
        .unwrap()
        .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_workloads_are_submitted_all_or_none() {
    let fixture = Fixture::start().await;
    assert_eq!(
        fixture.admin("workload.submit", &submission(&["a", "b"])).await.status,
        200
    );
    let clash = fixture.admin("workload.submit", &submission(&["c", "a"])).await;
    assert_eq!((clash.status, clash.code()), (409, "ALREADY_EXISTS"));
    let twice = fixture.admin("workload.submit", &submission(&["d", "d"])).await;
    assert_eq!(twice.code(), "ALREADY_EXISTS");
    let mut bad = submission(&["e"]);
    bad["workloads"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "F", "spec": {"image": "host", "command": ["true"]}}));
    let bad = fixture.admin("workload.submit", &bad).await;
    assert_eq!(bad.body["error"]["field"], "metadata.name");
    assert_eq!(count(&fixture).await, 2);
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_with_the_same_key_makes_nothing_new() {
    let fixture = Fixture::start().await;
    let token = fixture.gateway.admin_token.clone().unwrap();
    let call = |key: &'static str| {
        let (fixture, token) = (&fixture, &token);
        async move {
            let header = format!("idempotency-key: {key}\r\n");
            let body = json!({"workloads": [{"spec": {"image": "host", "command": ["true"], "timeout": "1m"}}]});
            let answer = fixture.post("workload.submit", Some(token), &body, &header).await;
            (answer.status, answer.body[0]["id"].clone())
        }
    };
    let (first, again, other) = tokio::join!(call("k1"), call("k1"), call("k2"));
    assert_eq!(first.0, 200);
    assert_eq!(first, again, "also when both come at once");
    assert_ne!(first.1, other.1);
    assert_eq!(count(&fixture).await, 2);
    let fixture = fixture.restart().await;
    let header = "idempotency-key: k1\r\n";
    let body = submission(&["x"]);
    let answer = fixture.post("workload.submit", Some(&token), &body, header).await;
    assert_eq!(answer.body[0]["id"], first.1, "also after a restart");
    let bad = fixture
        .post("workload.submit", Some(&token), &body, "idempotency-key: a/b\r\n")
        .await;
    assert_eq!(bad.code(), "INVALID_ARGUMENT");
    let named = "idempotency-key: k3\r\n";
    let made = fixture.post("workload.submit", Some(&token), &body, named).await;
    let again = fixture.post("workload.submit", Some(&token), &body, named).await;
    assert_eq!(made.status, 200);
    assert_eq!(
        made.body[0]["id"], again.body[0]["id"],
        "also where its name stands in the way"
    );
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing() {
    let fixture = Fixture::start().await;
    let token = fixture.gateway.admin_token.clone().unwrap();
    fixture.admin("workload.submit", &submission(&["a", "b", "c"])).await;
    fixture.admin("workload.cancel", &json!({"ids": ["b"]})).await;
    let before = fixture.admin("workload.list", &json!({})).await.body;
    let events = fixture.admin("event.list", &json!({})).await.body;
    let fixture = fixture.restart().await;
    assert_eq!(fixture.gateway.admin_token, Some(token));
    assert_eq!(fixture.admin("workload.list", &json!({})).await.body, before);
    assert_eq!(fixture.admin("event.list", &json!({})).await.body, events);
    // The name of the cancelled one is free, that of a waiting one isn't.
    assert_eq!(fixture.admin("workload.submit", &submission(&["b"])).await.status, 200);
    assert_eq!(fixture.admin("workload.submit", &submission(&["a"])).await.status, 409);
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nodes_everything_waits_and_says_why() {
    let fixture = Fixture::start().await;
    let mut ask = submission(&["a"]);
    ask["noQueue"] = json!(true);
    let refused = fixture.admin("workload.submit", &ask).await;
    assert_eq!((refused.status, refused.code()), (503, "NO_GPUS_AVAILABLE"));
    assert_eq!(count(&fixture).await, 0);
    let mut ask = submission(&["a"]);
    ask["dryRun"] = json!(true);
    let preview = fixture.admin("workload.submit", &ask).await;
    assert_eq!(preview.body[0]["preview"]["placement"], json!([]));
    assert_eq!(count(&fixture).await, 0);
    fixture.admin("workload.submit", &submission(&["a"])).await;
    let told = fixture.admin("workload.get", &json!({"id": "a"})).await;
    assert_eq!(told.body["explanation"]["summary"], "0 of 0 nodes fit");
    assert_eq!(told.body["explanation"]["queuePosition"], 1);
    // The list says so as soon as the scheduler has looked at it.
    let looked_at = async {
        loop {
            let list = fixture.admin("workload.list", &json!({})).await;
            match list.body[0]["reason"].as_str() {
                Some(reason) => return reason.to_owned(),
                None => continue,
            }
        }
    };
    let reason = tokio::time::timeout(std::time::Duration::from_secs(30), looked_at).await;
    assert_eq!(reason.as_deref(), Ok("NO_GPUS_AVAILABLE"));
    fixture.gateway.stop().await;
}
