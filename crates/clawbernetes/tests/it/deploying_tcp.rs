//! A service that speaks something else than HTTP: balanced by connection.

use crate::{
    cluster::{Cluster, wait_for},
    echoing::{self, Passers, Talk},
};

#[test]
fn connections_stay_where_they_began_until_they_end_and_new_ones_go_to_the_new_revision() {
    let mut cluster = Cluster::start();
    cluster.join("one", &["--engine", "native"]);
    let command = serde_json::to_string(&echoing::command()).unwrap();
    let manifest = format!(
        "apiVersion: clawbernetes/v1\nkind: Workload\nmetadata: {{name: echo}}\nspec:\n  image: host\n  \
         command: {command}\n  env: {{{}: \"1\"}}\n  \
         networking: {{ports: [{{name: tcp, port: 7000, protocol: TCP}}]}}\n  \
         readinessCheck: {{tcp: 7000, interval: 200ms, failures: 3}}\n",
        echoing::ECHOES
    );
    cluster.home.write("echo.yaml", &manifest);
    let id = cluster.deploy("deploy echo v1 with 2 replicas", &["--file", "echo.yaml"]);
    cluster.until_deployed(&id, "complete");
    assert_eq!(cluster.service("echo")["protocol"], "tcp");
    let shown = cluster.home.run("service status echo");
    assert!(shown.ok().contains("tcp://"), "{shown:?}");

    let address = cluster.address_of("echo", "tcp");
    let mut old: Vec<Talk> = (0..8).map(|_| Talk::begin(address).unwrap()).collect();
    let mut all_say = |word: &str, version: &str| {
        for talk in &mut old {
            assert_eq!(talk.say(word).as_deref(), Ok(version), "{word}");
        }
    };
    all_say("before", "v1");
    let passers = Passers::start(address);
    let id = cluster.deploy(
        "blue-green deploy echo v2, promote after 1s, keep the old one for 1s",
        &[],
    );
    cluster.until_switched("echo", "v2");
    for _ in 0..20 {
        let answer = Talk::begin(address).unwrap().say("new");
        assert_eq!(answer.as_deref(), Ok("v2"));
    }
    all_say("switched", "v1");
    // Nothing is left at the old set but these; it retires, and waits for them.
    wait_for("the old set to wait for its connections", || {
        let service = cluster.service("echo");
        let mut replicas = service["checks"].as_array().unwrap().iter();
        let retires = replicas.all(|replica| replica["revision"] == 2 || replica["retiring"] == true);
        (retires && service["requestsUnderWay"]["1"] == 8).then_some(())
    });
    all_say("retiring", "v1");
    drop(old);
    cluster.until_deployed(&id, "complete");
    assert_eq!(cluster.ready("echo"), [("v2".to_owned(), 2)]);
    let heard = passers.stop();
    let versions: Vec<_> = heard.keys().cloned().collect();
    assert_eq!(versions, ["v1", "v2"].map(|v| Ok(v.to_owned())), "{heard:?}");
    cluster.delete_services();
    cluster.end();
}
