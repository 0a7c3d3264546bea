//! A gateway, an agent and an HTTP service to roll out.

use std::{net::SocketAddr, sync::Mutex};

use serde_json::Value;

use crate::{
    answering::Answering,
    cluster::{Cluster, wait_for},
};

/// Callers and rollouts share two cores: one such test at a time keeps them from being each other's noise.
static ONE: Mutex<()> = Mutex::new(());

/// A gateway, an agent and the service.
pub struct Stage {
    pub cluster: Cluster,
    pub answering: Answering,
    _one: std::sync::MutexGuard<'static, ()>,
}

impl Stage {
    /// One whose only node runs processes.
    pub fn new() -> Self {
        Self::with(&[], "")
    }

    /// The same; its agent has these flags, and its replicas' `spec` these lines as well.
    pub fn with(flags: &[&str], more: &str) -> Self {
        let one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut cluster = Cluster::start();
        cluster.join("one", &[&["--engine", "native"], flags].concat());
        let answering = Answering::new();
        cluster.home.write("api.yaml", &answering.manifest(more));
        Self {
            cluster,
            answering,
            _one: one,
        }
    }

    /// As [`Cluster::deploy`].
    #[track_caller]
    pub fn deploy(&self, sentence: &str, flags: &[&str]) -> String {
        self.cluster.deploy(sentence, flags)
    }

    /// As [`Cluster::until_deployed`].
    #[track_caller]
    pub fn until(&self, id: &str, phase: &str) -> Value {
        self.cluster.until_deployed(id, phase)
    }

    /// The first deployment: three replicas of v1.
    pub fn first(&self) -> SocketAddr {
        let id = self.deploy("deploy api v1 with 3 replicas", &["--file", "api.yaml"]);
        self.until(&id, "complete");
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

    /// Deletes the service and ends everything.
    pub fn end(self) {
        self.cluster.delete_service("api");
        self.cluster.end();
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

    /// Deletes a service, and waits until nothing runs any more: an agent that stops leaves its jobs running.
    pub fn delete_service(&self, name: &str) {
        self.home.run(&format!("service delete {name} --yes")).ok();
        wait_for("the replicas to end", || {
            let status = self.home.run("status --json").json();
            status["workloads"].as_array()?.is_empty().then_some(())
        });
    }
}
