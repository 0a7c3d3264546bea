//! What rollouts are judged by, from end to end: a real Prometheus behind the gateway, numbers that replicas tell
//! themselves, and how long their answers take.

use serde_json::{Value, json};

use crate::{
    answering::{Callers, Manners},
    cluster::wait_for,
    prometheus::{Prometheus, installed},
    stage::{FILE, Set, Stage},
    world::{Home, free_port},
};

/// Replicas are looked at as often as can be.
const OFTEN: &[&str] = &["--sample-interval", "1s"];

/// The verdicts on record, of one outcome.
fn verdicts<'a>(status: &'a Value, outcome: &str) -> Vec<&'a Value> {
    let all = status["verdicts"].as_array().unwrap().iter();
    all.filter(|verdict| verdict["outcome"] == outcome).collect()
}

/// Waits until a deployment's verdict on its one condition is this.
#[track_caller]
fn judged(stage: &Stage, id: &str, outcome: &str) -> Value {
    wait_for(&format!("{id} to be judged {outcome}"), || {
        let status = stage.status(id);
        let (all, so) = (status["verdicts"].as_array()?, verdicts(&status, outcome));
        (!all.is_empty() && all.len() == so.len()).then_some(status)
    })
}

/// Judges what is on record again, by the status alone: no gateway is near.
#[track_caller]
fn replayed(status: &Value) {
    let home = Home::new();
    home.write("status.json", &status.to_string());
    let again = home.run("deploy replay --file status.json -o name");
    let told: Vec<&str> = again.ok().lines().collect();
    let recorded = status["verdicts"].as_array().unwrap().len();
    assert!(recorded > 0, "{status:#}");
    assert_eq!(told, vec!["same"; recorded], "{status:#}");
}

fn deep(depth: u64) -> Manners {
    Manners {
        depth,
        ..Manners::default()
    }
}

/// Prometheus reads at the gateway what agents read of replicas, and the gateway asks Prometheus.
#[test]
fn a_real_prometheus_decides_and_its_end_promotes_nothing() {
    if !installed() {
        return;
    }
    let port = free_port();
    let stage = Stage::beside(&Set {
        gateway: &["--prometheus-url", &format!("http://127.0.0.1:{port}")],
        agent: OFTEN,
        ..Set::default()
    });
    let home = &stage.cluster.home;
    home.write("prometheus/token", &stage.cluster.token());
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n\
         - job_name: clawbernetes\n  \
           authorization: {{credentials_file: token}}\n  \
           static_configs: [{{targets: ['{}']}}]\n",
        stage.cluster.address()
    );
    let prometheus = Prometheus::start(home, port, &config);
    stage.answering.set("v1", deep(3));
    stage.done("deploy api v1 with 2 replicas", FILE);
    let callers = Callers::start(stage.cluster.address_of("api", "http"), 2, 20);
    let depth = |version: &str| format!("max(clawbernetes_custom_queue_depth{{version='{version}'}})");
    wait_for("Prometheus to know the replicas' numbers", || {
        (prometheus.values(&depth("v1")) == ["3"]).then_some(())
    });

    // A good one. The second condition is about its own requests: Prometheus tells revisions apart.
    stage.answering.set("v2", deep(5));
    let requests = "sum(clawbernetes_service_requests_total{service='$service',revision='$revision'})";
    let id = stage.deploy(
        &format!(
            "update api to v2, canary 50%, promote after 1s if query \"{}\" < 10 and query \"{requests}\" > 0",
            depth("v2")
        ),
        &[],
    );
    let status = stage.until(&id, "complete");
    let passed = verdicts(&status, "pass");
    assert_eq!(passed.len(), 2, "{status:#}");
    assert_eq!(passed[0]["evidence"]["subject"]["value"], 5.0, "{status:#}");
    // What names no revision can't be compared with another.
    assert_eq!(passed[0]["evidence"]["baseline"], Value::Null, "{status:#}");
    assert!(passed[1]["evidence"]["baseline"].is_object(), "{status:#}");
    replayed(&status);

    // A bad one.
    stage.answering.set("v3", deep(50));
    let id = stage.deploy(
        &format!(
            "update api to v3, canary 50%, promote by hand, rollback if query \"{}\" > 20",
            depth("v3")
        ),
        &[],
    );
    let status = stage.until(&id, "rolled-back");
    let failed = verdicts(&status, "fail");
    assert_eq!(failed[0]["evidence"]["subject"]["value"], 50.0, "{status:#}");
    assert_eq!(stage.ready(), [("v2".to_owned(), 2)]);
    replayed(&status);

    // One that isn't good yet, when Prometheus goes; what it becomes then is told by nobody.
    stage.answering.set("v4", deep(50));
    let sentence = format!(
        "update api to v4, canary 50%, promote after 1s if query \"{}\" < 10",
        depth("v4")
    );
    let id = stage.deploy(&sentence, &["--timeout", "15s"]);
    judged(&stage, &id, "fail");
    let (folder, port) = prometheus.kill();
    stage.answering.set("v4", deep(5));
    let status = stage.until(&id, "paused");
    let error = &judged(&stage, &id, "error")["verdicts"][0];
    assert!(
        error["evidence"]["error"].as_str().unwrap().contains("gave no answer"),
        "{error:#}"
    );
    let timeline = status["timeline"].as_array().unwrap();
    assert!(
        timeline.iter().all(|moment| moment["phase"] != "promoting"),
        "{status:#}"
    );
    assert!(status["waitsFor"].is_string(), "{status:#}");
    assert!(stage.ready().contains(&("v2".to_owned(), 2)), "{:?}", stage.ready());
    home.run(&format!("deploy promote {id}")).failed(8, "--force");
    replayed(&stage.status(&id));

    // It is back: so is what it tells.
    let prometheus = Prometheus::again(&folder, port);
    home.run(&format!("deploy resume {id}")).ok();
    let status = stage.until(&id, "complete");
    assert_eq!(verdicts(&status, "pass").len(), 1, "{status:#}");
    replayed(&status);
    let tally = callers.stop();
    assert_eq!(tally.bad(), 0, "{tally:?}");
    drop(prometheus);
    stage.end();
}

/// Numbers of the replicas' own endpoint, read by their agent.
#[test]
fn what_replicas_tell_is_compared_with_what_the_stable_ones_tell() {
    let stage = Stage::beside(&Set {
        agent: OFTEN,
        ..Set::default()
    });
    stage.answering.set("v1", deep(30));
    stage.done("deploy api v1 with 2 replicas", FILE);
    let before = |status: &Value| status["evidence"]["baseline"]["value"].as_f64();

    // Beyond the bound, but no worse than what is there: nothing is held against it, and nothing speaks for it.
    stage.answering.set("v2", deep(31));
    let id = stage.deploy(
        "update api to v2, canary 50%, promote by hand, rollback if queue_depth > 20",
        &[],
    );
    let fault = wait_for("a verdict on enough samples", || {
        let status = stage.status(&id);
        let verdict = status["verdicts"][0].clone();
        (verdict["evidence"]["subject"]["count"].as_u64()? >= 5 && before(&verdict).is_some()).then_some(verdict)
    });
    assert_eq!(fault["outcome"], "insufficient", "{fault:#}");
    assert_eq!(
        (&fault["evidence"]["subject"]["value"], before(&fault)),
        (&json!(31.0), Some(30.0)),
        "{fault:#}"
    );
    assert!(fault["message"].as_str().unwrap().contains("no fault of"), "{fault:#}");
    // Now it is worse.
    stage.answering.set("v2", deep(300));
    let status = stage.until(&id, "rolled-back");
    let failed = verdicts(&status, "fail")[0];
    assert_eq!(before(failed), Some(30.0), "{status:#}");
    assert_eq!(stage.ready(), [("v1".to_owned(), 2)]);
    replayed(&status);

    // A bad stable one keeps no good one from going on.
    stage.answering.set("v3", deep(4));
    let id = stage.deploy(
        "update api to v3, canary 50%, promote after 1s if queue_depth < 20",
        &[],
    );
    let status = stage.until(&id, "complete");
    let passed = verdicts(&status, "pass")[0];
    assert_eq!(passed["evidence"]["subject"]["value"], 4.0, "{status:#}");
    assert_eq!(before(passed), Some(30.0), "{status:#}");
    replayed(&status);
    stage.end();
}

#[test]
fn slow_answers_bring_the_old_revision_back_and_quick_ones_go_on() {
    let stage = Stage::new();
    stage.done("deploy api v1 with 2 replicas", FILE);
    let callers = Callers::start(stage.cluster.address_of("api", "http"), 8, 100);
    let slow = Manners {
        delay_ms: 600,
        ..Manners::default()
    };
    stage.answering.set("v2", slow);
    let id = stage.deploy(
        "update api to v2, canary 50%, promote after 1s if p99 latency < 200ms, rollback if p99 latency > 200ms",
        &[],
    );
    let status = stage.until(&id, "rolled-back");
    let failed = verdicts(&status, "fail");
    let breach = failed.iter().find(|one| one["evidence"]["purpose"] == "rollback");
    let evidence = &breach.unwrap()["evidence"];
    assert!(evidence["subject"]["value"].as_f64() > Some(0.5), "{status:#}");
    assert!(evidence["subject"]["failed"].as_u64() >= Some(20), "{status:#}");
    assert!(evidence["baseline"]["value"].as_f64() < Some(0.5), "{status:#}");
    assert_eq!(stage.ready(), [("v1".to_owned(), 2)]);
    replayed(&status);

    let id = stage.deploy(
        "update api to v3, canary 50%, promote after 1s if p99 latency < 500ms",
        &[],
    );
    let status = stage.until(&id, "complete");
    let passed = verdicts(&status, "pass")[0];
    assert!(
        passed["evidence"]["subject"]["count"].as_u64() > Some(300),
        "{status:#}"
    );
    replayed(&status);
    let tally = callers.stop();
    assert_eq!(tally.bad(), 0, "{tally:?}");
    stage.end();
}
