//! Replicas that break while others serve.

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    answering::{Callers, processes_of},
    cluster::wait_for,
    stage::{Set, Stage},
};

#[test]
fn a_replica_that_hangs_or_crashes_is_started_again_and_no_request_fails() {
    let more = "  healthCheck: {http: /live, interval: 200ms, timeout: 2s, failures: 2}\n  \
                constraints: {retryDelay: 200ms}\n";
    let stage = Stage::with(&Set {
        replicas: more,
        ..Set::default()
    });
    let callers = Callers::start(stage.first(), 4, 100);
    let all = stage.cluster.replicas("api");
    let id = all[0]["workload"].as_str().unwrap();
    let back = |restarts: u64| {
        wait_for(&format!("{id} to be back after {restarts} restarts"), || {
            let replicas = stage.cluster.replicas("api");
            let one = replicas.iter().find(|replica| replica["workload"] == id).unwrap();
            (one["restarts"] == restarts && one["ready"] == true).then_some(())
        });
    };
    stage.answering.break_one(id, 1);
    back(1);
    let crash = processes_of(id);
    assert_eq!(crash.len(), 1, "{crash:?}");
    kill_process(Pid::from_raw(crash[0]).unwrap(), Signal::KILL).unwrap();
    back(2);
    let detail = stage.cluster.status(id);
    let why: Vec<&str> = detail["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|step| step["phase"] == "pending")
        .filter_map(|step| step["reason"].as_str())
        .collect();
    assert_eq!(why, ["UNHEALTHY", "SIGNALED"], "{detail:#}");
    assert_eq!(stage.ready(), [("v1".to_owned(), 3)]);
    let tally = callers.stop();
    assert_eq!(tally.bad(), 0, "{tally:?}");
    assert!(tally.all() > 0);
    stage.end();
}
