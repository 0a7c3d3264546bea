//! Replicas that give way to what is more important, and come back.

use crate::{
    answering::Answering,
    cluster::{Cluster, wait_for},
};

#[test]
fn replicas_that_were_preempted_wait_and_come_back_and_their_deployment_waits_for_them() {
    let mut cluster = Cluster::start_with(&["--min-run", "1s"]);
    cluster.join("one", &["--engine", "native", "--simulate-gpus", "2xH100"]);
    let answering = Answering::new();
    let manifest = answering.manifest("  gpus: 1\n  scheduling: {priority: low}\n");
    cluster.home.write("api.yaml", &manifest);
    // It is watched for a minute: long enough.
    let sentence = "deploy api v1 with 2 replicas, rollback if errors > 50%";
    let id = cluster.deploy(sentence, &["--file", "api.yaml"]);
    cluster.until_deployed(&id, "promoting");
    let ready = || {
        wait_for("both replicas", || {
            (cluster.ready("api") == [("v1".to_owned(), 2)]).then_some(())
        })
    };
    // As often as a replica may be started again that doesn't come up.
    for _ in 0..3 {
        let words = [
            "--image",
            "host",
            "--gpus",
            "2",
            "--priority",
            "high",
            "--timeout",
            "10m",
        ];
        let job = cluster.run(&[&words[..], &["--", "sleep", "1000"]].concat());
        let why = format!("preempted in favour of {job}");
        wait_for("both replicas to wait", || {
            let status = cluster.deployment(&id);
            assert_eq!(status["phase"], "promoting", "{status:#}");
            let mut replicas = status["checks"].as_array().unwrap().iter();
            let waits = replicas.all(|r| r["phase"] == "pending" && r["ready"] == false && r["why"] == *why);
            waits.then_some(())
        });
        let shown = cluster.home.run(&format!("deploy status {id}"));
        assert!(shown.ok().contains(&why), "{shown:?}");
        cluster.wait_phase(&job, "running");
        cluster.home.run(&format!("workload cancel {job}")).ok();
        ready();
    }
    cluster.home.run(&format!("deploy promote {id} --force")).ok();
    cluster.until_deployed(&id, "complete");
    cluster.delete_services();
    cluster.end();
}
