//! A gateway, an agent and an HTTP service to roll out.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};

use crate::{
    answering::Answering,
    cluster::{Cluster, wait_for},
};

/// Callers and rollouts share two cores: one such test at a time keeps them from being each other's noise.
static ONE: Mutex<()> = Mutex::new(());

/// The manifest of the service.
pub const FILE: &[&str] = &["--file", "api.yaml"];

/// A gateway, an agent and the service.
pub struct Stage {
    pub cluster: Cluster,
    pub answering: Answering,
    /// `None`: it runs beside others.
    one: Option<MutexGuard<'static, ()>>,
}

/// What a stage has beyond the usual.
#[derive(Default)]
pub struct Set<'a> {
    /// Flags of its gateway.
    pub gateway: &'a [&'a str],
    /// Flags of its agent.
    pub agent: &'a [&'a str],
    /// Lines of its replicas' `spec`.
    pub replicas: &'a str,
}

impl Stage {
    /// One whose only node runs processes.
    pub fn new() -> Self {
        Self::with(&Set::default())
    }

    /// The same, with more.
    pub fn with(set: &Set<'_>) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            one: Some(one),
            ..Self::beside(set)
        }
    }

    /// One beside others: what others do to its times must not matter.
    pub fn beside(set: &Set<'_>) -> Self {
        let mut cluster = Cluster::start_with(set.gateway);
        cluster.join("one", &[&["--engine", "native"], set.agent].concat());
        let answering = Answering::new();
        cluster.home.write("api.yaml", &answering.manifest(set.replicas));
        Self {
            cluster,
            answering,
            one: None,
        }
    }

    /// As [`Cluster::deploy`].
    #[track_caller]
    pub fn deploy(&self, sentence: &str, flags: &[&str]) -> String {
        self.cluster.deploy(sentence, flags)
    }

    /// As [`Cluster::deployment`].
    #[track_caller]
    pub fn status(&self, id: &str) -> Value {
        self.cluster.deployment(id)
    }

    /// As [`Cluster::until_deployed`].
    #[track_caller]
    pub fn until(&self, id: &str, phase: &str) -> Value {
        self.cluster.until_deployed(id, phase)
    }

    /// As [`Self::deploy`], and waits until it is complete.
    #[track_caller]
    pub fn done(&self, sentence: &str, flags: &[&str]) -> Value {
        let id = self.deploy(sentence, flags);
        self.until(&id, "complete")
    }

    /// The first deployment: three replicas of v1. Where they are reached.
    pub fn first(&self) -> SocketAddr {
        self.done("deploy api v1 with 3 replicas", FILE);
        self.address()
    }

    /// Where the service is reached.
    pub fn address(&self) -> SocketAddr {
        self.cluster.address_of("api", "http")
    }

    /// Ready replicas by version.
    pub fn ready(&self) -> Vec<(String, u64)> {
        self.cluster.ready("api")
    }

    /// `kill -9` of the gateway, and its next start.
    pub fn restart_gateway(&self) {
        self.cluster.kill_gateway();
        self.cluster.start_gateway();
        self.cluster.call("gateway.ping", &json!({}));
    }

    /// As [`Self::restart_gateway`]; before the start a record of the store is changed behind its back.
    pub fn restart_gateway_with(&self, key: &str, change: impl FnOnce(&mut Value)) {
        self.cluster.kill_gateway();
        change_record(&self.cluster.home.path("gateway"), key, change);
        self.cluster.start_gateway();
        self.cluster.call("gateway.ping", &json!({}));
    }

    /// Deletes all services and ends everything.
    pub fn end(self) {
        self.cluster.delete_services();
        self.cluster.end();
        drop(self.one);
    }
}

/// What is done with services.
impl Cluster {
    /// `deploy` with these words; the deployment's id.
    #[track_caller]
    pub fn deploy(&self, sentence: &str, flags: &[&str]) -> String {
        let done = self.home.words(&[&["deploy", sentence], flags].concat());
        done.ok().lines().next().unwrap().to_owned()
    }

    /// `deploy status`.
    #[track_caller]
    pub fn deployment(&self, id: &str) -> Value {
        self.home.run(&format!("deploy status {id} --json")).json()
    }

    /// Waits until a deployment is in this phase.
    #[track_caller]
    pub fn until_deployed(&self, id: &str, phase: &str) -> Value {
        wait_for(&format!("{id} to be {phase}"), || {
            let status = self.deployment(id);
            let now = status["phase"].as_str().unwrap();
            let over = ["complete", "failed", "rolled-back"].contains(&now);
            assert!(now == phase || !over, "{id} is to be {phase}, but: {status:#}");
            (now == phase).then_some(status)
        })
    }

    /// `service status`.
    #[track_caller]
    pub fn service(&self, name: &str) -> Value {
        self.home.run(&format!("service status {name} --json")).json()
    }

    /// Where a service is reached that speaks this.
    #[track_caller]
    pub fn address_of(&self, name: &str, scheme: &str) -> SocketAddr {
        let service = self.service(name);
        let address = service["address"].as_str().unwrap();
        let address = address.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        address.unwrap_or_else(|| panic!("{service:#}")).parse().unwrap()
    }

    /// A service's replicas, as it tells of them.
    #[track_caller]
    pub fn replicas(&self, name: &str) -> Vec<Value> {
        self.service(name)["checks"].as_array().unwrap().clone()
    }

    /// A service's ready replicas by version.
    #[track_caller]
    pub fn ready(&self, name: &str) -> Vec<(String, u64)> {
        let service = self.service(name);
        let revisions = service["revisions"].as_array().unwrap();
        let of = |r: &Value| (r["version"].as_str().unwrap().to_owned(), r["ready"].as_u64().unwrap());
        revisions.iter().map(of).filter(|(_, ready)| *ready > 0).collect()
    }

    /// Waits until a revision gets all requests.
    #[track_caller]
    pub fn until_switched(&self, name: &str, version: &str) {
        wait_for(&format!("{name} to be switched to {version}"), || {
            let service = self.service(name);
            let mut revisions = service["revisions"].as_array().unwrap().iter();
            let new = revisions.find(|r| r["version"] == version)?;
            (new["trafficPercent"] == 100.0).then_some(())
        });
    }

    /// Deletes all services, and waits until nothing runs any more: an agent that stops leaves its jobs running.
    pub fn delete_services(&self) {
        let services = self.home.run("service list --json").json();
        for service in services.as_array().unwrap() {
            let name = service["name"].as_str().unwrap();
            self.home.run(&format!("service delete {name} --yes")).ok();
        }
        wait_for("the replicas to end", || {
            let status = self.home.run("status --json").json();
            status["workloads"].as_array()?.is_empty().then_some(())
        });
    }
}

/// Changes a record of a gateway that doesn't run.
fn change_record(data: &Path, key: &str, change: impl FnOnce(&mut Value)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = store::Store::open(data.join("state.redb"), store::embedded::Options::default()).unwrap();
        let record = store.get(key).await.unwrap().unwrap();
        let mut value: Value = serde_json::from_slice(&record.value).unwrap();
        change(&mut value);
        let put = store::Txn::new().put(key, value.to_string().into_bytes());
        assert!(store.txn(put).await.unwrap().committed().is_some());
        store.close().await;
    });
}
