//! Replicas that follow a load, from end to end: processors that are really busy, requests that really wait, GPUs that are
//! simulated. How calm it is over minutes is shown where time can be made: in `rollout`'s own tests.

use serde_json::json;

use crate::{
    answering::{Callers, Manners},
    cluster::wait_for,
    stage::{FILE, Set, Stage},
};

/// What the autoscaler said of a service last. `None`: nothing since the gateway's start.
fn said(stage: &Stage, service: &str) -> Option<String> {
    stage.cluster.service(service)["scaling"].as_str().map(str::to_owned)
}

/// Waits until a service has so many ready replicas, and wants no other number.
#[track_caller]
fn scaled(stage: &Stage, service: &str, version: &str, replicas: u64) {
    wait_for(&format!("{replicas} replicas of {service}"), || {
        let wanted = stage.cluster.service(service)["replicas"] == replicas;
        (wanted && stage.cluster.ready(service) == [(version.to_owned(), replicas)]).then_some(())
    });
}

/// Changes of a service's number of replicas: who made them, and what they say.
fn changes(stage: &Stage, service: &str) -> Vec<String> {
    let events = stage.cluster.home.run("events --json").json();
    let of = events.as_array().unwrap().iter();
    let of = of.filter(|e| e["reason"] == "Scaled" && e["subject"] == service && e["actor"] == "autoscaler");
    of.map(|e| e["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn replicas_follow_processors_waiting_requests_and_gpus_whatever_becomes_of_the_gateway() {
    let stage = Stage::beside(&Set {
        agent: &["--sample-interval", "1s", "--simulate-gpus", "2xH100"],
        ..Set::default()
    });
    // Each by its own version: manners are by version.
    let sentences = [
        "deploy crunch v1, 100m cpus, between 1 and 3 replicas, autoscale on cpu 50%",
        "deploy desk v2, between 1 and 3 replicas, autoscale on queue 2",
        "deploy train v3, 1 GPU, between 1 and 2 replicas, autoscale on gpu 60%",
    ];
    let ids = sentences.map(|sentence| stage.deploy(sentence, FILE));
    ids.iter().for_each(|id| drop(stage.until(id, "complete")));

    // A rollout decides how many replicas of what there are, however busy they get meanwhile.
    let busy = Manners {
        burn_percent: 20,
        ..Manners::default()
    };
    let rollout = stage.deploy("update crunch to v4, canary 50%, promote by hand", &[]);
    stage.until(&rollout, "canary");
    stage.answering.set("v1", busy);
    stage.answering.set("v4", busy);
    let late = Manners {
        delay_ms: 1_000,
        ..Manners::default()
    };
    stage.answering.set("v2", late);
    let callers = Callers::start(stage.cluster.address_of("desk", "http"), 8, 100);
    scaled(&stage, "desk", "v2", 3);
    scaled(&stage, "train", "v3", 2);
    wait_for("its processors to be measured far above what is aimed at", || {
        let asked = json!({"name": "workload.cpu", "step": "1s"});
        let answer = stage.cluster.try_call("metrics.query", &asked)?;
        let series = answer["series"].as_array()?.iter();
        let most = series.filter_map(|one| one["avg"].as_f64()).fold(0.0, f64::max);
        (most > 0.06).then_some(())
    });
    assert_eq!(said(&stage, "crunch"), said_while_deciding());
    assert_eq!(stage.cluster.service("crunch")["replicas"], 1);
    assert_eq!(changes(&stage, "crunch"), Vec::<String>::new());
    let tally = callers.stop();
    assert_eq!(tally.bad(), 0, "{tally:?}");
    let back = ["deploy", "rollback", &rollout, "--reason", "seen enough", "--yes"];
    stage.cluster.home.words(&back).ok();
    stage.until(&rollout, "rolled-back");

    // A gateway that has just begun decides at once: on what was measured before it, where processors are still busy, and
    // with what was called for before it, where it sees nobody wait any more.
    stage.restart_gateway();
    let said = wait_for("a decision of the new gateway", || said(&stage, "desk"));
    assert!(said.contains("requests under way per replica is 0 of 2"), "{said}");
    assert!(said.contains("3 were called for within"), "{said}");
    scaled(&stage, "crunch", "v1", 3);
    scaled(&stage, "desk", "v2", 3);
    for (service, load) in [
        ("crunch", "CPU use is"),
        ("desk", "requests under way per replica is"),
        ("train", "GPU use is"),
    ] {
        let changes = changes(&stage, service);
        let told = !changes.is_empty() && changes.iter().all(|one| one.contains(load));
        assert!(told, "{service}: {changes:?}");
    }

    // Five minutes pass on record, in the last moment of which one would have been enough: what was called for is
    // remembered over a restart, and so is that nothing more was.
    stage.restart_gateway_with("/scaling/default/desk", |history| {
        assert_eq!(history["left"], 3, "{history:#}");
        assert!(history["called"][0]["replicas"].as_u64() >= Some(3), "{history:#}");
        history["called"] = json!([{"at": jiff::Timestamp::now().to_string(), "replicas": 1}]);
        history["changed"] = json!([]);
    });
    // At most halved at once.
    scaled(&stage, "desk", "v2", 2);
    let changes = changes(&stage, "desk");
    assert!(
        changes.iter().any(|one| one.contains("from 3 to 2 replicas")),
        "{changes:?}"
    );
    // A GPU that is held is busy, and processors were a moment ago.
    scaled(&stage, "train", "v3", 2);
    scaled(&stage, "crunch", "v1", 3);
    stage.end();
}

fn said_while_deciding() -> Option<String> {
    Some("a deployment is under way: it decides how many replicas there are".to_owned())
}
