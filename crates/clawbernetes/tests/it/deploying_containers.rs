//! Services of containers, on a real Docker daemon, from a real registry.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{answering::Callers, cluster::wait_for, docker::DockerFleet, world::free_port};

/// What replicas run.
const SERVES: &str = r#"CMD ["/bin/sh", "-c", "exec busybox httpd -f -p $HOST:$PORT -h /www"]"#;

/// What answers every request with an error.
const FAILS: &str = "#!/bin/sh\nprintf 'Status: 500 Internal Server Error\\r\\n\\r\\nVERSION'\n";

impl DockerFleet {
    /// Puts a version of a service into the registry, and gives its name without the tag.
    fn publish(&self, name: &str, version: &str, fails: bool) -> String {
        let script = FAILS.replace("VERSION", version);
        let page = if fails {
            ("www/cgi-bin/index.cgi", script.as_str())
        } else {
            ("www/index.html", version)
        };
        let image = format!("{name}:{version}");
        let files = [page, ("www/ready", "")];
        let whole = self.containers.fixture.publish(&image, &files, &[SERVES]);
        whole.strip_suffix(&format!(":{version}")).unwrap().to_owned()
    }

    /// Writes the manifest of a service `api` of this image.
    fn manifest(&self, image: &str) {
        let manifest = format!(
            "apiVersion: clawbernetes/v1\nkind: Workload\nmetadata: {{name: api}}\nspec:\n  image: {image}\n  \
             networking: {{ports: [{{name: http, port: 8080}}]}}\n  constraints: {{retryDelay: 200ms, grace: 2s}}\n  \
             readinessCheck: {{http: /ready, interval: 200ms, timeout: 2s, failures: 3}}\n"
        );
        self.cluster.home.write("api.yaml", &manifest);
    }
}

#[test]
fn containers_are_rolled_out_and_taken_back_without_a_failed_request() {
    let Some(fleet) = DockerFleet::start("docker-deploy") else {
        return;
    };
    let image = fleet.publish("rolled", "v1", false);
    fleet.publish("rolled", "v2", false);
    fleet.publish("rolled", "v3", true);
    fleet.manifest(&image);
    let cluster = &fleet.cluster;
    let id = cluster.deploy("deploy api v1 with 3 replicas", &["--file", "api.yaml"]);
    cluster.until_deployed(&id, "complete");
    let replicas = cluster.replicas("api");
    let places: BTreeSet<&str> = replicas.iter().map(|r| r["address"].as_str().unwrap()).collect();
    assert_eq!(places.len(), 3, "each has a port of its own: {replicas:#?}");

    let callers = Callers::start(cluster.address_of("api", "http"), 4, 50);
    let answers_of = |version: &str| {
        wait_for(&format!("answers of {version}"), || {
            callers.tally().good.contains_key(version).then_some(())
        });
    };
    answers_of("v1");
    let id = cluster.deploy("update api to v2", &[]);
    cluster.until_deployed(&id, "complete");
    assert_eq!(cluster.ready("api"), [("v2".to_owned(), 3)]);
    answers_of("v2");
    let tally = callers.tally();
    assert_eq!(tally.bad(), 0, "{tally:?}");

    let id = cluster.deploy("update api to v3, canary 34%, rollback if errors > 20%", &[]);
    let status = cluster.until_deployed(&id, "rolled-back");
    let mut verdicts = status["verdicts"].as_array().unwrap().iter();
    assert!(verdicts.any(|v| v["outcome"] == "fail"), "{status:#}");
    assert_eq!(cluster.ready("api"), [("v2".to_owned(), 3)]);
    let tally = callers.tally();
    assert_eq!(tally.failed.keys().collect::<Vec<_>>(), ["v3"], "{tally:?}");
    assert_eq!(tally.broken.len(), 0, "{tally:?}");

    // One that is killed is started again; the others serve.
    let replicas = cluster.replicas("api");
    let one = replicas[0]["workload"].as_str().unwrap();
    let label = format!("io.clawbernetes.workload={one}");
    fleet.containers.fixture.kill_containers(&label);
    wait_for("the crashed one to be back", || {
        let replicas = cluster.replicas("api");
        let now = replicas.iter().find(|r| r["workload"] == one).unwrap();
        (now["restarts"] == 1 && now["ready"] == true).then_some(())
    });
    let tally = callers.stop();
    assert_eq!(tally.broken.len(), 0, "{tally:?}");
    cluster.delete_services();
    fleet.end();
}

/// What a deployment says of its failure.
fn failure(status: &Value) -> (&str, String) {
    let error = &status["error"];
    let text = format!("{}\n{}", error["message"], error["cause"]);
    assert!(error["hint"].is_string(), "{status:#}");
    (error["code"].as_str().unwrap(), text)
}

#[test]
fn images_that_cant_be_had_are_told_at_once_and_no_caller_notices() {
    let Some(fleet) = DockerFleet::start("docker-deploy-absent") else {
        return;
    };
    let image = fleet.publish("there", "v1", false);
    fleet.manifest(&image);
    let cluster = &fleet.cluster;
    let id = cluster.deploy("deploy api v1 with 2 replicas", &["--file", "api.yaml"]);
    cluster.until_deployed(&id, "complete");
    let callers = Callers::start(cluster.address_of("api", "http"), 2, 50);

    let registry = &fleet.containers.fixture.registry;
    let nowhere = format!("127.0.0.1:{}", free_port());
    for image in [format!("{registry}/nothere:1"), format!("{nowhere}/there:v1")] {
        let id = cluster.deploy(&format!("update api, image {image}"), &[]);
        let status = cluster.until_deployed(&id, "rolled-back");
        let (code, text) = failure(&status);
        assert_eq!(code, "IMAGE_NOT_FOUND", "{status:#}");
        assert!(text.contains("can't be started") && text.contains(&image), "{text}");
        let shown = cluster.home.run(&format!("deploy status {id}"));
        assert!(shown.ok().contains("error[IMAGE_NOT_FOUND]"), "{shown:?}");
        assert_eq!(cluster.ready("api"), [("v1".to_owned(), 2)]);
    }
    let tally = callers.stop();
    assert_eq!(tally.bad(), 0, "{tally:?}");
    assert_eq!(tally.good.keys().collect::<Vec<_>>(), ["v1"]);
    cluster.delete_services();
    fleet.end();
}

#[test]
fn a_first_deployment_whose_image_comes_late_is_tried_again() {
    let Some(fleet) = DockerFleet::start("docker-deploy-late") else {
        return;
    };
    let cluster = &fleet.cluster;
    fleet.manifest(&format!("{}/late", fleet.containers.fixture.registry));
    let id = cluster.deploy("deploy api v1 with 2 replicas", &["--file", "api.yaml"]);
    let status = cluster.until_deployed(&id, "failed");
    let (code, text) = failure(&status);
    assert_eq!(code, "IMAGE_NOT_FOUND", "{status:#}");
    assert!(text.contains("late:v1"), "{text}");
    fleet.publish("late", "v1", false);
    let again = cluster.home.run(&format!("deploy retry {id} --json")).json();
    cluster.until_deployed(again["id"].as_str().unwrap(), "complete");
    assert_eq!(cluster.ready("api"), [("v1".to_owned(), 2)]);
    cluster.delete_services();
    fleet.end();
}
