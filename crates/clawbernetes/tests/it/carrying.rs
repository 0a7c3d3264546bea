//! Services that agents carry too: reached at nodes, by their own proxies, with and without the gateway.

use std::net::SocketAddr;

use crate::{
    answering::{Callers, Manners},
    cluster::wait_for,
    stage::{Set, Stage},
};

/// An address of this machine at which only the agent listens.
const AGENTS: &str = "127.0.0.2";

/// Waits until the agent carries the service; where.
fn carried(stage: &Stage) -> SocketAddr {
    wait_for("the agent to carry the service", || {
        let service = stage.cluster.home.run("service status api --json").json();
        let carried = &service["carriedBy"][0];
        assert_eq!(carried["closed"], serde_json::Value::Null, "{service:#}");
        let address = carried["address"].as_str()?.strip_prefix("http://")?;
        Some(address.parse().unwrap())
    })
}

/// Waits for so many more good answers.
fn more(callers: &Callers, many: u64) {
    let before = callers.tally();
    wait_for("more answers", || {
        let good = |tally: &crate::answering::Tally| tally.good.values().sum::<u64>();
        (good(&callers.tally()) >= good(&before) + many).then_some(())
    });
}

#[test]
fn a_service_is_reached_at_a_node_while_the_gateway_is_down_and_updated_there_without_a_failed_request() {
    let stage = Stage::with(&Set {
        agent: &["--service-listen", AGENTS],
        ..Set::default()
    });
    let gateways = stage.first();
    let agents = carried(&stage);
    assert_eq!(
        (agents.ip().to_string(), agents.port()),
        (AGENTS.to_owned(), gateways.port())
    );
    let callers = Callers::start(agents, 8, 100);
    more(&callers, 100);

    stage.cluster.kill_gateway();
    more(&callers, 500);
    assert_eq!(callers.tally().bad(), 0, "{:?}", callers.tally());
    // An agent that starts while there is no gateway carries what it carried.
    callers.stop();
    stage.cluster.kill_agent(0);
    stage.cluster.start_agent(0);
    wait_for("the agent to carry the service again", || {
        std::net::TcpStream::connect(agents).ok().map(drop)
    });
    let callers = Callers::start(agents, 8, 100);
    more(&callers, 100);
    stage.cluster.start_gateway();
    more(&callers, 100);

    let id = stage.deploy("update api to v2", &[]);
    stage.until(&id, "complete");
    more(&callers, 100);
    let tally = callers.stop();
    assert_eq!(tally.bad(), 0, "{tally:?}");
    assert!(
        tally.good.contains_key("v1") && tally.good.contains_key("v2"),
        "{tally:?}"
    );
    assert_eq!(carried(&stage), agents);
    stage.end();
}

#[test]
fn what_is_counted_at_a_node_decides_on_a_canary() {
    let stage = Stage::with(&Set {
        agent: &["--service-listen", AGENTS],
        ..Set::default()
    });
    stage.first();
    // Nobody calls the gateway: what is known of the canary, the agent counted.
    let callers = Callers::start(carried(&stage), 8, 100);
    let sentence = "update api to v2, canary 20%, promote after 3s if error_rate < 5%, rollback if errors > 10%";
    let id = stage.deploy(sentence, &[]);
    let status = stage.until(&id, "complete");
    let verdicts = status["verdicts"].as_array().unwrap();
    let passed = verdicts
        .iter()
        .any(|v| v["outcome"] == "pass" && v["evidence"]["subject"]["count"].as_u64() > Some(0));
    assert!(passed, "{status:#}");
    assert_eq!(callers.tally().bad(), 0, "{:?}", callers.tally());
    stage.answering.set(
        "v3",
        Manners {
            errors_percent: 50,
            ..Manners::default()
        },
    );
    let id = stage.deploy(&sentence.replace("v2", "v3"), &[]);
    stage.until(&id, "rolled-back");
    let tally = callers.stop();
    assert_eq!(tally.broken.len(), 0, "{tally:?}");
    stage.end();
}
