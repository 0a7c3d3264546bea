//! Replicas on one node: ports of their own, and readiness, through the whole product.

use serde_json::{Value, json};

use crate::cluster::{Cluster, wait_for};

/// Submits a replica that says which ports are its own, and is ready where a file is; its id.
fn submit(cluster: &Cluster, name: &str) -> String {
    let ready = cluster.home.path(&format!("ready-{name}"));
    let manifest = json!({
        "apiVersion": "clawbernetes/v1",
        "kind": "Workload",
        "metadata": {"name": name},
        "spec": {
            "image": "host",
            "command": ["sh", "-c", "echo $PORT $PORT_HTTP $HOST; exec sleep 1000"],
            "constraints": {"timeout": "10m", "grace": "1s"},
            "networking": {"dynamicPorts": true, "ports": [{"name": "http", "port": 8000}]},
            "readinessCheck": {"command": ["test", "-e", ready], "interval": "200ms", "failures": 2},
        }
    });
    let file = cluster.home.write(&format!("{name}.json"), &manifest.to_string());
    cluster.run(&["--file", file.to_str().unwrap()])
}

fn state(cluster: &Cluster, id: &str) -> Option<Value> {
    let detail = cluster.try_call("workload.get", &json!({ "id": id }))?;
    Some(detail["members"][0]["state"].clone())
}

fn wait_ready(cluster: &Cluster, id: &str, wanted: bool) -> Value {
    wait_for(&format!("{id} to be ready: {wanted}"), || {
        state(cluster, id).filter(|state| state["ready"] == wanted)
    })
}

#[test]
fn replicas_share_a_node_and_say_when_they_are_ready_whoever_was_away() {
    let mut cluster = Cluster::start();
    cluster.join("one", &["--engine", "native"]);
    let [a, b] = ["a", "b"].map(|name| submit(&cluster, name));
    let ports = [&a, &b].map(|id| {
        let state = wait_ready(&cluster, id, false);
        let endpoint = &state["endpoints"][0];
        assert_eq!(
            (&endpoint["name"], &endpoint["port"]),
            (&json!("http"), &json!(8000)),
            "{state:#}"
        );
        let port = endpoint["hostPort"].as_u64().unwrap();
        wait_for("its first line", || {
            let logs = cluster.home.run(&format!("workload logs {id}"));
            (logs.ok() == format!("{port} {port} 127.0.0.1")).then_some(())
        });
        port
    });
    assert_ne!(ports[0], ports[1]);
    let shown = |text: &str| {
        wait_for(&format!("'{text}' to be shown"), || {
            let done = cluster.home.run(&format!("workload status {a}"));
            done.ok().contains(text).then_some(())
        });
    };
    shown("running, not ready: the command exited with 1");
    shown(&format!("http 8000 at {}", ports[0]));
    let ready = cluster.home.path("ready-a");
    std::fs::write(&ready, "").unwrap();
    wait_ready(&cluster, &a, true);
    shown("running, ready");

    cluster.kill_gateway();
    std::fs::remove_file(&ready).unwrap();
    cluster.start_gateway();
    let state = wait_ready(&cluster, &a, false);
    assert_eq!(state["notReady"], "the command exited with 1");

    cluster.kill_agent(0);
    std::fs::write(&ready, "").unwrap();
    cluster.start_agent(0);
    let state = wait_ready(&cluster, &a, true);
    assert_eq!(
        state["endpoints"][0]["hostPort"], ports[0],
        "the same attempt: {state:#}"
    );
    for id in [&a, &b] {
        cluster.home.run(&format!("workload cancel {id}")).ok();
        cluster.wait_phase(id, "cancelled");
    }
    cluster.end();
}
