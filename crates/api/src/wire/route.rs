//! Services that a node's agent carries: where their requests go, and what came of them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{WorkloadId, deploy::ServiceProtocol};

/// Where the requests of a service go. The node listens at the service's port, and spreads what comes over the replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRoute {
    /// Which service: `namespace/name`.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// What is spoken there.
    pub protocol: ServiceProtocol,
    /// Its revisions.
    pub groups: Vec<RouteGroup>,
}

/// A revision's share of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteGroup {
    /// Its number.
    pub revision: u32,
    /// Its share: this out of the sum of all weights of revisions that have replicas here. 0: none.
    pub weight: u32,
    /// The replicas that are ready.
    pub endpoints: Vec<RouteEndpoint>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteEndpoint {
    /// Its workload.
    pub workload: WorkloadId,
    /// Where it listens, as the node that is told reaches it.
    pub address: SocketAddr,
}

/// Services that a node is to carry, or a change of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Routes {
    /// Grows with every message of the session, from 1.
    pub generation: u64,
    /// These are all: what isn't among them is carried no longer.
    pub whole: bool,
    /// New or changed ones.
    pub put: Vec<ServiceRoute>,
    /// Those that are carried no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// What a node does for the services that it carries. Said when something of it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// [`Routes`] of this session up to this generation are in force: nothing new goes where they don't lead. 0: none yet.
    pub generation: u64,
    /// What goes on now, of services where something does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<ServiceLoad>,
    /// Services whose port can't be listened at, and why. They are tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<(String, String)>,
    /// What was counted since the last counts that were acknowledged. `None`: nothing, or it was said in this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
}

/// What goes on at a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceLoad {
    /// Which service.
    pub service: String,
    /// Requests and connections that wait for a replica.
    pub waiting: u64,
    /// Requests and connections at replicas, those that the service no longer leads to included.
    pub in_flight: Vec<(WorkloadId, u64)>,
}

/// Counts, numbered: said again in each session until they are acknowledged, and counted once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// A random number of the agent's run: `number` begins anew with each.
    pub run: u64,
    /// Position in the run's own sequence, from 1.
    pub number: u64,
    /// By service and revision.
    pub counts: Vec<ServiceCounts>,
}

/// What a revision did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceCounts {
    /// Of which service.
    pub service: String,
    /// Which revision.
    pub revision: u32,
    /// Requests that were answered, or should have been, and TCP connections.
    pub requests: u64,
    /// Of them, those that failed.
    pub errors: u64,
    /// Answers by the time until they began: the proxy's buckets, and how many fell into each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latency: Vec<(u16, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_services_stays_as_it_is_written() {
        let routes = Routes {
            generation: 3,
            whole: true,
            put: vec![ServiceRoute {
                service: "default/api".to_owned(),
                port: 10_000,
                protocol: ServiceProtocol::Http,
                groups: vec![RouteGroup {
                    revision: 2,
                    weight: 100,
                    endpoints: vec![RouteEndpoint {
                        workload: WorkloadId::new("wl-a"),
                        address: "10.0.0.7:20001".parse().unwrap(),
                    }],
                }],
            }],
            remove: Vec::new(),
        };
        let text = r#"{"generation":3,"whole":true,"put":[{"service":"default/api","port":10000,"protocol":"http","groups":[{"revision":2,"weight":100,"endpoints":[{"workload":"wl-a","address":"10.0.0.7:20001"}]}]}]}"#;
        assert_eq!(serde_json::to_string(&routes).unwrap(), text);
        assert_eq!(serde_json::from_str::<Routes>(text).unwrap(), routes);
        let traffic = Traffic {
            generation: 3,
            loads: vec![ServiceLoad {
                service: "default/api".to_owned(),
                waiting: 1,
                in_flight: vec![(WorkloadId::new("wl-a"), 2)],
            }],
            closed: Vec::new(),
            counted: Some(Counted {
                run: 7,
                number: 1,
                counts: vec![ServiceCounts {
                    service: "default/api".to_owned(),
                    revision: 2,
                    requests: 10,
                    errors: 1,
                    latency: vec![(4, 9)],
                }],
            }),
        };
        let text = r#"{"generation":3,"loads":[{"service":"default/api","waiting":1,"inFlight":[["wl-a",2]]}],"counted":{"run":7,"number":1,"counts":[{"service":"default/api","revision":2,"requests":10,"errors":1,"latency":[[4,9]]}]}}"#;
        assert_eq!(serde_json::to_string(&traffic).unwrap(), text);
        assert_eq!(serde_json::from_str::<Traffic>(text).unwrap(), traffic);
    }
}
