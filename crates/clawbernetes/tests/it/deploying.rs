//! Services rolled out by real processes: a gateway, agents, replicas that answer HTTP, and callers that never rest.

use crate::{
    answering::{Callers, Manners},
    cluster::wait_for,
    stage::Stage,
};

#[test]
fn a_service_answers_and_is_updated_without_a_failed_request() {
    let stage = Stage::new();
    let address = stage.first();
    let callers = Callers::start(address, 8, 200);
    wait_for("answers of v1", || {
        callers.tally().good.contains_key("v1").then_some(())
    });
    let id = stage.deploy("update api to v2", &[]);
    let status = stage.until(&id, "complete");
    assert_eq!(status["strategy"], "rolling");
    assert_eq!(stage.ready(), [("v2".to_owned(), 3)]);
    // Only v2 answers now.
    let before = callers.tally().good;
    wait_for("more answers of v2", || {
        (callers.tally().good.get("v2")? > &(before.get("v2")? + 200)).then_some(())
    });
    let tally = callers.stop();
    assert_eq!(tally.bad(), 0, "{tally:?}");
    assert_eq!(
        tally.good["v1"], before["v1"],
        "v1 answered after the update was complete"
    );

    let history = stage.cluster.home.run("deploy history api --json").json();
    let versions: Vec<&str> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["v2", "v1"]);
    stage.end();
}

#[test]
fn a_good_canary_is_promoted_and_a_bad_one_is_taken_back() {
    let stage = Stage::new();
    let address = stage.first();
    let callers = Callers::start(address, 8, 100);
    let sentence = "update api to v2, canary 20%, promote after 5s if error_rate < 5%, rollback if errors > 10%";
    let id = stage.deploy(sentence, &[]);
    stage.until(&id, "canary");
    let status = stage.until(&id, "complete");
    let passed = status["verdicts"].as_array().unwrap().iter().any(|v| {
        v["outcome"] == "pass"
            && v["evidence"]["purpose"] == "promote"
            && v["evidence"]["subject"]["count"].as_u64() > Some(0)
    });
    assert!(passed, "{status:#}");
    assert_eq!(stage.ready(), [("v2".to_owned(), 3)]);
    assert_eq!(callers.tally().bad(), 0, "{:?}", callers.tally());

    stage.answering.set(
        "v3",
        Manners {
            errors_percent: 50,
            ..Manners::default()
        },
    );
    let id = stage.deploy(&sentence.replace("v2", "v3"), &[]);
    let status = stage.until(&id, "rolled-back");
    let failed = status["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .any(|v| v["outcome"] == "fail");
    assert!(failed, "{status:#}");
    assert_eq!(stage.ready(), [("v2".to_owned(), 3)]);
    let tally = callers.stop();
    assert_eq!(tally.broken.len(), 0, "{tally:?}");
    assert_eq!(tally.failed.keys().collect::<Vec<_>>(), ["v3"], "{tally:?}");
    // What failed isn't tried again by mistake.
    let again = stage.cluster.home.words(&["deploy", &sentence.replace("v2", "v3")]);
    again.failed(8, "--force");
    stage.end();
}

#[test]
fn a_canary_that_nobody_calls_waits_for_a_person() {
    let stage = Stage::new();
    stage.first();
    let sentence = "update api to v2, canary 50%, promote after 1s if error_rate < 5%";
    let id = stage.deploy(sentence, &["--timeout", "15s"]);
    let status = stage.until(&id, "paused");
    assert!(status["waitsFor"].is_string(), "{status:#}");
    let verdicts = status["verdicts"].as_array().unwrap();
    assert!(verdicts.iter().all(|v| v["outcome"] == "insufficient"), "{status:#}");
    stage
        .cluster
        .home
        .run(&format!("deploy promote {id}"))
        .failed(8, "--force");
    stage.cluster.home.run(&format!("deploy promote {id} --force")).ok();
    stage.until(&id, "complete");
    assert_eq!(stage.ready(), [("v2".to_owned(), 3)]);
    stage.end();
}

#[test]
fn blue_green_switches_and_goes_back_without_a_failed_request() {
    let stage = Stage::new();
    let address = stage.first();
    let callers = Callers::start(address, 16, 2_000);
    let so_far = |many: u64| wait_for("more answers", || (callers.tally().all() >= many).then_some(()));
    so_far(20_000);
    let id = stage.deploy("blue-green deploy api v2, keep the old one for 30m", &[]);
    stage.cluster.until_switched("api", "v2");
    so_far(60_000);
    assert!(callers.tally().good.contains_key("v2"), "{:?}", callers.tally());
    stage
        .cluster
        .home
        .words(&["deploy", "rollback", &id, "--reason", "it looks odd", "--yes"])
        .ok();
    let status = stage.until(&id, "rolled-back");
    assert!(
        status["message"].as_str().unwrap().contains("it looks odd"),
        "{status:#}"
    );
    assert_eq!(stage.ready(), [("v1".to_owned(), 3)]);
    so_far(100_000);
    let tally = callers.stop();
    assert_eq!(tally.bad(), 0, "{tally:?}");
    stage.end();
}

#[test]
fn an_image_that_isnt_there_is_never_noticed_by_callers() {
    let stage = Stage::new();
    let address = stage.first();
    let callers = Callers::start(address, 4, 100);
    stage.answering.set(
        "v2",
        Manners {
            sick: true,
            ..Manners::default()
        },
    );
    // A health check that can never pass.
    let id = stage.deploy("update api to v2", &["--timeout", "10s"]);
    stage.until(&id, "rolled-back");
    assert_eq!(stage.ready(), [("v1".to_owned(), 3)]);
    // What can't be started at all.
    let missing = stage
        .cluster
        .home
        .words(&["deploy", "update api, image registry.example/none:1", "--dry-run"]);
    assert!(missing.ok().contains("missing"), "{missing:?}");
    let tally = callers.stop();
    assert_eq!(tally.bad(), 0, "{tally:?}");
    assert_eq!(tally.good.keys().collect::<Vec<_>>(), ["v1"]);
    stage.end();
}

#[test]
fn replicas_follow_the_requests_within_their_bounds() {
    let stage = Stage::new();
    let address = stage.first();
    let callers = Callers::start(address, 4, 50);
    let id = stage.deploy(
        "scale api between 2 and 5 replicas, autoscale on 10 requests per second",
        &[],
    );
    stage.until(&id, "complete");
    wait_for("as many replicas as the bounds allow", || {
        (stage.ready() == [("v1".to_owned(), 5)]).then_some(())
    });
    let service = stage.cluster.home.run("service status api --json").json();
    assert!(service["scaling"].is_string(), "{service:#}");
    let events = stage.cluster.home.run("events --json").json();
    let scaled = events.as_array().unwrap().iter().find(|e| e["reason"] == "Scaled");
    assert_eq!(scaled.unwrap()["actor"], "autoscaler");
    let tally = callers.stop();
    assert_eq!(tally.bad(), 0, "{tally:?}");
    stage.end();
}

#[test]
fn a_service_is_reached_whatever_starts_again() {
    let stage = Stage::new();
    let address = stage.first();
    let callers = Callers::start(address, 4, 100);
    let answered = || {
        let well = callers.tally().well();
        wait_for("more answers", || (callers.tally().well() > well + 100).then_some(()));
    };
    answered();
    // Nothing is under way: nobody but the node's return tells the new gateway where its replicas are.
    stage.cluster.kill_gateway();
    stage.cluster.start_gateway();
    answered();
    // An agent that is away takes nothing with it, not even while its service changes.
    let bad = callers.tally().bad();
    stage.cluster.kill_agent(0);
    let id = stage.deploy("scale api to 4 replicas", &[]);
    answered();
    stage.cluster.start_agent(0);
    stage.until(&id, "complete");
    answered();
    assert_eq!(stage.ready(), [("v1".to_owned(), 4)]);
    let tally = callers.stop();
    assert_eq!(tally.bad(), bad, "{tally:?}");
    stage.end();
}
