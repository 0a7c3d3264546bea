//! Metrics through the whole product: measured by an agent, kept by the gateway, asked for on the command line.

use serde_json::{Value, json};

use crate::cluster::{Cluster, wait_for};

const SIMULATED: &[&str] = &[
    "--simulate-gpus",
    "2xH100",
    "--sample-interval",
    "1s",
    "--engine",
    "native",
];

/// Waits until a question has an answer with this many series.
#[track_caller]
fn wait_series(cluster: &Cluster, request: &Value, count: usize) -> Value {
    wait_for(&format!("{request} to have {count} series"), || {
        let answer = cluster.try_call("metrics.query", request)?;
        (answer["series"].as_array().unwrap().len() == count).then_some(answer)
    })
}

#[test]
fn what_is_measured_is_found_by_node_and_gpu_and_survives_a_restart() {
    let mut cluster = Cluster::start();
    cluster.join("a", SIMULATED);
    cluster.join("b", SIMULATED);
    let answer = wait_series(&cluster, &json!({ "name": "gpu.temperature" }), 4);
    assert_eq!(
        (&answer["unit"], &answer["aggregate"]["function"]),
        (&json!("celsius"), &json!("max"))
    );
    let hottest = answer["series"].as_array().unwrap().iter();
    let hottest = hottest.filter_map(|s| s["max"].as_f64()).fold(f64::MIN, f64::max);
    assert_eq!(answer["aggregate"]["value"].as_f64(), Some(hottest), "{answer:#}");

    let one = wait_series(
        &cluster,
        &json!({ "name": "gpu.temperature", "node": "b", "gpu": 1 }),
        1,
    );
    assert_eq!(
        (&one["series"][0]["labels"]["node"], &one["series"][0]["labels"]["gpu"]),
        (&json!("b"), &json!("1"))
    );
    // Machines are measured too, and the gateway measures the fleet.
    wait_series(&cluster, &json!({ "name": "cpu.usage" }), 2);
    wait_series(&cluster, &json!({ "name": "fleet.gpus" }), 1);
    // Its word on nodes and GPUs: one of all that may be holds.
    for (request, words) in [
        (json!({ "name": "node.status", "node": "a" }), 7),
        (json!({ "name": "gpu.health", "node": "b", "gpu": 1 }), 4),
    ] {
        wait_for(&format!("{request} to be good"), || {
            let answer = wait_series(&cluster, &request, words);
            let series = answer["series"].as_array().unwrap();
            let holds: Vec<&Value> = series.iter().filter(|s| s["last"] == 1.0).collect();
            assert!(
                series.iter().all(|s| s["last"] == 0.0 || s["last"] == 1.0),
                "{answer:#}"
            );
            assert_eq!(holds.len(), 1, "{answer:#}");
            (holds[0]["labels"]["state"] == "healthy" || holds[0]["labels"]["state"] == "ok").then_some(())
        });
    }

    // What was synced is there after the gateway was killed, and new samples follow on it.
    let before = wait_series(
        &cluster,
        &json!({ "name": "memory.total", "node": "a", "step": "1s" }),
        1,
    );
    let seen = before["series"][0]["points"].as_array().unwrap().len();
    wait_for("a second of samples to be on disk", || {
        let now = cluster.try_call(
            "metrics.query",
            &json!({ "name": "memory.total", "node": "a", "step": "1s" }),
        )?;
        (now["series"][0]["points"].as_array()?.len() > seen + 2).then_some(())
    });
    cluster.kill_gateway();
    cluster.start_gateway();
    wait_for("more samples than before", || {
        let now = cluster.try_call(
            "metrics.query",
            &json!({ "name": "memory.total", "node": "a", "step": "1s" }),
        )?;
        (now["series"][0]["points"].as_array()?.len() > seen + 2).then_some(())
    });

    let table = cluster.home.run("metrics gpu.temperature --last 5m");
    assert!(table.ok().contains("NODE  GPU  MIN"), "{table:?}");
    let named = cluster.home.run("metrics gpu.temprature");
    assert!(
        named
            .failed(2, "INVALID_ARGUMENT")
            .contains("did you mean 'gpu.temperature'"),
        "{named:?}"
    );
    cluster
        .home
        .run("metrics gpu.temperature --node nowhere")
        .failed(3, "NOT_FOUND");
    cluster
        .home
        .run("metrics cpu.usage --gpu 1")
        .failed(2, "INVALID_ARGUMENT");
    // Before anything was kept: an answer without series, and a word on it.
    let past = cluster
        .home
        .run("metrics cpu.usage --since 2020-01-01T00:00:00Z --until 2020-01-02T00:00:00Z --json");
    let past = past.json();
    assert_eq!(
        (&past["series"], &past["aggregate"]["value"]),
        (&json!([]), &Value::Null)
    );
    assert!(
        past["notes"][0].as_str().unwrap().contains("nothing was measured"),
        "{past:#}"
    );
    cluster.end();
}

#[test]
fn xid_errors_and_bad_ends_are_counted() {
    let mut cluster = Cluster::start();
    let scenario = cluster
        .home
        .write("xid.yaml", "steps: [{at: 1s, gpu: 0, event: xid, code: 94}]");
    let scenario = ["--simulate-scenario", scenario.to_str().unwrap()];
    cluster.join_as("a", &[SIMULATED, &scenario].concat(), "degraded");
    let counted = |request: &Value, count: f64| {
        wait_for(&format!("{request} to be {count}"), || {
            let answer = cluster.try_call("metrics.query", request)?;
            let series = answer["series"].as_array().unwrap();
            (series.len() == 1 && series[0]["last"] == count).then(|| series[0]["labels"].clone())
        })
    };
    let labels = counted(&json!({ "name": "gpu.xids", "node": "a", "gpu": 0 }), 1.0);
    assert_eq!(labels["xid"], "94", "{labels:#}");
    let spec = json!({ "image": "host", "command": ["false"], "retries": 1, "retryDelay": "0s", "timeout": "5m" });
    let id = cluster.submit("crash", &json!({ "name": "crash", "spec": spec }));
    cluster.wait_phase(&id, "failed");
    let labels = counted(&json!({ "name": "workload.crashes", "workload": id }), 1.0);
    assert_eq!(labels["namespace"], "default", "{labels:#}");
    cluster
        .home
        .run("metrics queue.wait --workload x")
        .failed(3, "NOT_FOUND");
    cluster.end();
}

#[test]
fn a_workload_has_its_own_numbers_and_those_of_its_gpus() {
    let mut cluster = Cluster::start();
    cluster.join("a", SIMULATED);
    let script = "n=0; while :; do n=$((n+1)); echo \"::metric loss=0.$n tokens=$n unit=tok\"; sleep 1; done";
    let words = [
        "--image",
        "host",
        "--gpus",
        "1",
        "--name",
        "train",
        "--timeout",
        "5m",
        "--",
        "sh",
        "-c",
        script,
    ];
    let id = cluster.run(&words);
    wait_series(&cluster, &json!({ "name": "custom.loss", "workload": "train" }), 1);
    // Once it is known, its own name is enough.
    let loss = wait_series(&cluster, &json!({ "name": "loss" }), 1);
    assert_eq!(
        (&loss["metric"], &loss["unit"]),
        (&json!("custom.loss"), &json!("tok")),
        "{loss:#}"
    );
    assert_eq!(loss["series"][0]["labels"]["workload"], json!(id));
    // Of two GPUs it has one.
    let gpus = wait_series(&cluster, &json!({ "name": "gpu.utilization", "workload": "train" }), 1);
    let detail = cluster.status("train");
    let held = detail["members"][0]["gpus"][0]["index"].to_string();
    assert_eq!(
        gpus["series"][0]["labels"]["gpu"].as_str(),
        Some(held.as_str()),
        "{gpus:#}"
    );
    cluster.home.run("workload cancel train").ok();
    cluster.wait_phase(&id, "cancelled");
    // Afterwards, too.
    wait_series(&cluster, &json!({ "name": "gpu.utilization", "workload": "train" }), 1);
    let listed = cluster.home.run("metrics list -o name");
    assert!(listed.ok().lines().any(|name| name == "custom.loss"), "{listed:?}");
    cluster.end();
}
