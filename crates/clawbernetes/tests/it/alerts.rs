//! Alerts on the command line, from a node that dies to one that is back.

use crate::{
    cluster::{Cluster, wait_for},
    world::{Fleet, Home},
};

/// The built-in rule, without its patience.
const RULES: &str = "
rules:
  - name: node-down
    severity: critical
    by: [node]
    condition: {kind: state, state: node.status, in: [unreachable]}
    summary: node {node} is unreachable
    commands: [\"clawbernetes node info {node}\"]
";

#[test]
fn a_node_dies_is_told_of_silenced_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alerts.yaml");
    std::fs::write(&file, RULES).unwrap();
    let mut cluster = Cluster::start_with(&["--alerts", file.to_str().unwrap(), "--alert-interval", "200ms"]);
    cluster.join("gpu-7", &["--engine", "native", "--simulate-gpus", "2xH100"]);
    let home = &cluster.home;
    assert_eq!(home.run("alerts list").ok(), "No alerts.");
    assert!(home.run("alerts receivers").ok().contains("--alerts FILE"));
    let rules = home.run("alerts rules").ok().to_owned();
    for part in ["node-down", "file", "gpu-thermal", "built in", "Evaluated"] {
        assert!(rules.contains(part), "{part}: {rules}");
    }

    cluster.kill_agent(0);
    let alert = wait_for("the alert", || {
        let alerts = home.run("alerts list --node gpu-7 --rule node-down --json").json();
        alerts.as_array().unwrap().first().cloned()
    });
    assert_eq!(alert["status"], "firing");
    let id = alert["id"].as_str().unwrap();
    let table = home.run("alerts list").ok().to_owned();
    for part in [
        id,
        "critical",
        "node gpu-7 is unreachable",
        "Next: clawbernetes node info gpu-7",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    cluster.kill_gateway();
    cluster.start_gateway();
    let kept = wait_for("the gateway", || {
        let answer = cluster.try_call("alert.list", &serde_json::json!({}))?;
        answer.as_array().unwrap().first().cloned()
    });
    assert_eq!(
        (&kept["id"], &kept["startsAt"]),
        (&alert["id"], &alert["startsAt"]),
        "after kill -9"
    );

    let told = "critical: node gpu-7 is unreachable";
    assert_eq!(home.run("status --json").json()["alerts"], serde_json::json!([told]));
    assert!(home.run("status").ok().contains(told));

    let made = home
        .words(&[
            "alerts",
            "silence",
            &id[..8],
            "--for",
            "1h",
            "--comment",
            "new fans",
            "--json",
        ])
        .json();
    assert_eq!(made["comment"], "new fans");
    let silence = made["id"].as_str().unwrap();
    assert!(home.run("alerts list").ok().contains(&format!("silenced by {silence}")));
    assert_eq!(home.run("status --json").json()["alerts"], serde_json::json!([]));
    let silences = home.run("alerts silences").ok().to_owned();
    assert!(
        silences.contains("node=gpu-7") && silences.contains("new fans"),
        "{silences}"
    );
    assert!(home.run(&format!("alerts unsilence {silence}")).ok().contains("ended"));
    assert_eq!(home.run("alerts silences --json").json(), serde_json::json!([]));
    assert_eq!(home.run("alerts silences --all -o name").ok(), silence);

    cluster.start_agent(0);
    wait_for("its end", || {
        (home.run("alerts list --json").json() == serde_json::json!([])).then_some(())
    });
    let all = home.run("alerts list --all").ok().to_owned();
    assert!(all.contains("resolved"), "{all}");
    let events = home.run("events --kind alert --json").json();
    let reasons: Vec<&str> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["Firing", "Resolved"]);
    cluster.end();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let fleet = Fleet::start();
    let home = fleet.home();
    home.run("alerts silence zz --for 1h").failed(3, "NOT_FOUND");
    home.run("alerts silence zz node=a --for 1h")
        .failed(2, "'zz' is no matcher");
    home.run("alerts silence node=~.* --for 1h")
        .failed(2, "INVALID_ARGUMENT");
    home.run("alerts silence node=a --for never").failed(2, "never");
    home.run("alerts unsilence sil-1").failed(3, "NOT_FOUND");
    home.run("alerts list --node nowhere").failed(3, "NOT_FOUND");
    home.run("alerts silence node=a --for 1h").ok();
    assert_eq!(home.run("alerts silences --json").json()[0]["matchers"][0], "node=a");
}

#[test]
fn a_rules_file_with_a_slip_stops_the_gateway_and_says_where() {
    let home = Home::new();
    home.write("alerts.yaml", "off: []\nreceivers:\n  - name: ops\n    fromat: slack\n");
    let serve = |file: &str| {
        let (file, data) = (
            home.path(file).display().to_string(),
            home.path("data").display().to_string(),
        );
        let words = [
            "gateway",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data",
            &data,
            "--alerts",
            &file,
        ];
        home.words(&words)
    };
    let said = serve("alerts.yaml").failed(2, "fromat").to_owned();
    assert!(said.contains("alerts.yaml") && said.contains("format"), "{said}");
    serve("none.yaml").failed(2, "none.yaml");
    home.write("alerts.yaml", "off: [node-dwon]\n");
    serve("alerts.yaml").failed(2, "node-dwon");
}
