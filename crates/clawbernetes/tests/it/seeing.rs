//! Health and diagnoses, from simulated GPUs to the table.

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, wait_for},
    world::Fleet,
};

/// Findings about a GPU: the machine that the test runs on may have troubles of its own.
fn of_gpus(findings: &Value) -> Vec<(&str, &Value)> {
    let all = findings.as_array().unwrap().iter();
    all.filter(|f| f["target"]["kind"] == "gpu")
        .map(|f| (f["finding"].as_str().unwrap(), f))
        .collect()
}

#[test]
fn a_gpu_that_is_too_hot_is_found_and_a_cool_one_is_not() {
    let mut cluster = Cluster::start();
    let scenario = cluster.home.write(
        "hot.yaml",
        "steps: [{at: 0s, gpu: 1, event: thermal-throttle, celsius: 93}]",
    );
    let simulated = [
        "--engine",
        "native",
        "--sample-interval",
        "1s",
        "--simulate-gpus",
        "2xH100",
    ];
    let scenario = ["--simulate-scenario", scenario.to_str().unwrap()];
    cluster.join_as("hot", &[&simulated[..], &scenario].concat(), "degraded");
    cluster.join("cool", &simulated);
    let node = wait_for("the heat to be measured", || {
        let node = cluster.home.run("diagnose node hot --history 10m --json").json();
        let found = of_gpus(&node["findings"])
            .iter()
            .any(|(id, _)| *id == "gpu-thermal-throttle");
        (found && node["thermal"]["gpus"][0]["celsius"].is_number()).then_some(node)
    });
    assert_eq!((&node["node"], &node["window"]), (&json!("hot"), &json!("10m")));
    assert_eq!(
        (&node["status"], &node["thermal"]["status"]),
        (&json!("critical"), &json!("critical"))
    );
    assert_eq!(node["raw"], Value::Null);
    let found = of_gpus(&node["findings"]);
    for (id, finding) in &found {
        assert_eq!(
            finding["target"],
            json!({"kind": "gpu", "node": "hot", "gpu": 1}),
            "{id}"
        );
        assert!(!finding["evidence"].as_array().unwrap().is_empty(), "{id}");
    }
    let heat = node["thermal"]["gpus"].as_array().unwrap();
    assert_eq!(heat[1]["celsiusMax"], 93.0);
    assert!(heat[0]["celsiusMax"].as_f64().unwrap() < 80.0, "{heat:?}");
    assert_eq!(
        heat[0]["fanPercent"],
        Value::Null,
        "simulated H100 have no fans, and a zero isn't made up"
    );

    let health = wait_for("both nodes to be measured", || {
        let health = cluster.home.run("health --json").json();
        let gpu = &health["utilization"]["gpu"];
        (gpu["nodes"] == 2).then_some(health)
    });
    let cost = health["deductions"].as_array().unwrap();
    let heat = cost.iter().find(|d| d["reason"] == "gpu-thermal-throttle").unwrap();
    assert_eq!(heat["points"], 25.0, "one GPU of two of one node of two");
    assert!(health["score"].as_f64().unwrap() <= 75.0, "{health:#}");
    assert_eq!(
        (&health["nodes"]["total"], &health["nodes"]["critical"]),
        (&json!(2), &json!(1))
    );
    for (id, finding) in of_gpus(&health["diagnosis"]) {
        assert_eq!(finding["target"]["node"], "hot", "{id}");
    }
    // What the node's own diagnosis finds is in the fleet's.
    let cool = cluster.home.run("diagnose node cool --json").json();
    assert!(of_gpus(&cool["findings"]).is_empty(), "{cool:#}");

    let table = cluster.home.run("health");
    let table = table.ok();
    for word in [
        "Score",
        "WHAT IT COSTS",
        "gpu-thermal-throttle",
        "hot GPU 1",
        "try: clawbernetes ",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let table = cluster.home.run("diagnose node hot --verbose");
    let table = table.ok();
    for word in [
        "critical",
        "HEAT",
        "MEMORY",
        "ERRORS",
        "TRENDS",
        "FIGURES",
        "gpu.temperature",
        "93°C",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }

    let words = [
        "--image",
        "host",
        "--gpus",
        "1",
        "--node",
        "cool",
        "--timeout",
        "5m",
        "--name",
        "train",
    ];
    let script = ["--", "sh", "-c", "echo CUDA out of memory; sleep 300"];
    cluster.run(&[&words[..], &script].concat());
    cluster.wait_phase("train", "running");
    let found = wait_for("the workload to be measured", || {
        let found = cluster
            .home
            .run("diagnose workload train --recommendations --json")
            .json();
        let measured = found["resources"]["gpus"][0]["memoryTotalBytes"].is_number();
        (measured && found["errorPatterns"][0].is_object()).then_some(found)
    });
    assert_eq!(found["errorPatterns"][0]["pattern"], "cuda-oom");
    let gpu = &found["resources"]["gpus"][0];
    assert_eq!(
        (&gpu["node"], &found["resources"]["gpusAsked"]),
        (&json!("cool"), &json!(1))
    );
    assert_eq!(found["comparison"], Value::Null);
    assert!(found["recommendations"].is_array());
    let table = cluster.home.run("diagnose workload train --compare train");
    let table = table.ok();
    for word in ["RESOURCES", "ERRORS", "cuda-oom", "PERFORMANCE", "BOTTLENECK", "BESIDE"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    cluster
        .home
        .run("diagnose workload train --compare nothing")
        .failed(3, "NOT_FOUND");
    cluster.home.run("workload cancel train").ok();
    cluster.wait_phase("train", "cancelled");
    cluster.end();
}

#[test]
fn nothing_is_said_of_what_is_not_there() {
    let fleet = Fleet::start();
    let home = fleet.home();
    home.run("diagnose node nope").failed(3, "NOT_FOUND");
    home.run("diagnose workload nope").failed(3, "NOT_FOUND");
    home.run("diagnose node nope --history soon").failed(2, "90s");
    home.run("diagnose node nope --history 1s")
        .failed(2, "INVALID_ARGUMENT");
    let health = home.run("health --json").json();
    assert_eq!((&health["score"], &health["status"]), (&Value::Null, &json!("unknown")));
    assert_eq!(health["utilization"]["gpu"]["percent"], Value::Null);
    assert!(home.run("health").ok().contains("No nodes yet"));
}
