//! Deployments for later, from end to end: after another one, at a time, and at one that was missed.

use serde_json::{Value, json};

use crate::{
    cluster::wait_for,
    stage::{FILE, Set, Stage},
};

fn moment(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

fn one_of(version: &str) -> Vec<(String, u64)> {
    vec![(version.to_owned(), 1)]
}

#[test]
fn what_waits_for_another_begins_when_that_is_complete_and_only_then() {
    let stage = Stage::beside(&Set::default());
    stage.done("deploy api v1 with 1 replica", FILE);
    stage.done("deploy web v1 with 1 replica", FILE);

    let first = stage.deploy("update api to v2, canary 50%, promote by hand", &[]);
    stage.until(&first, "canary");
    let then = stage.deploy(&format!("update web to v2 after {first}"), &[]);
    let waiting = stage.until(&then, "pending");
    assert!(waiting["message"].as_str().unwrap().contains(&first), "{waiting:#}");
    // What is said of replicas meanwhile stays said.
    stage.done("scale web to 2 replicas", &[]);
    stage.restart_gateway();
    assert_eq!(stage.status(&then)["phase"], "pending");
    stage.cluster.home.run(&format!("deploy promote {first}")).ok();
    let done = stage.until(&first, "complete");
    let begun = stage.until(&then, "complete");
    assert!(moment(&begun["startedAt"]) >= moment(&done["finishedAt"]), "{begun:#}");
    assert_eq!(stage.cluster.ready("web"), [("v2".to_owned(), 2)]);
    assert_eq!(begun["replicas"], 2, "{begun:#}");

    // One that isn't brought to its end brings nothing after it.
    let first = stage.deploy("update api to v3, canary 50%, promote by hand", &[]);
    let then = stage.deploy(&format!("update web to v3 after {first}"), &[]);
    stage.until(&then, "pending");
    stage.until(&first, "canary");
    stage.cluster.home.words(&["deploy", "rollback", &first, "--yes"]).ok();
    stage.until(&first, "rolled-back");
    let never = stage.until(&then, "failed");
    assert!(
        never["error"]["message"].as_str().unwrap().contains(&first),
        "{never:#}"
    );
    assert_eq!(never["startedAt"], Value::Null, "{never:#}");
    assert_eq!(stage.cluster.ready("web"), [("v2".to_owned(), 2)]);
    stage.end();
}

#[test]
fn a_time_is_kept_by_a_gateway_that_was_away_and_a_missed_one_is_told() {
    let stage = Stage::beside(&Set::default());
    stage.done("deploy api v1 with 1 replica", FILE);

    // By one that is there.
    let id = stage.deploy("update api to v2 in 3 seconds", &[]);
    let waiting = stage.status(&id);
    let at = moment(&waiting["plan"]["schedule"]["at"]);
    let done = stage.until(&id, "complete");
    assert!(moment(&done["startedAt"]) >= at, "{done:#}");

    // By one that was away for a moment.
    let id = stage.deploy("update api to v3 in 2 seconds", &[]);
    let at = moment(&stage.status(&id)["plan"]["schedule"]["at"]);
    stage.cluster.kill_gateway();
    wait_for("the time to pass", || (jiff::Timestamp::now() > at).then_some(()));
    stage.cluster.start_gateway();
    stage.cluster.call("gateway.ping", &json!({}));
    stage.until(&id, "complete");
    assert_eq!(stage.ready(), one_of("v3"));

    // By one that was away for an hour: then it isn't what was meant any more.
    let id = stage.deploy("update api to v4 in 30 minutes", &[]);
    stage.until(&id, "pending");
    stage.restart_gateway_with(&format!("/deploy/{id}"), |deployment| {
        let at = &mut deployment["plan"]["schedule"]["at"];
        *at = json!((moment(at) - jiff::SignedDuration::from_hours(1)).to_string());
    });
    let missed = stage.until(&id, "failed");
    let error = missed["error"]["message"].as_str().unwrap();
    assert!(error.contains("missed its time"), "{missed:#}");
    assert_eq!(missed["startedAt"], Value::Null, "{missed:#}");
    assert_eq!(stage.ready(), one_of("v3"));
    let events = stage.cluster.home.run("events --json").json();
    let told = |e: &Value| {
        e["message"]
            .as_str()
            .is_some_and(|text| text.contains("missed its time"))
    };
    assert!(events.as_array().unwrap().iter().any(told), "{events:#}");
    let history = stage
        .cluster
        .home
        .run("deploy history api --include-failed --json")
        .json();
    assert!(
        history.as_array().unwrap().iter().any(|d| d["id"] == *id),
        "{history:#}"
    );
    stage.end();
}
