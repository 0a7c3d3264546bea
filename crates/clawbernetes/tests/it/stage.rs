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
}

impl Stage {
    /// One whose only node runs processes.
    pub fn new() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            one: Some(one),
            ..Self::beside(&Set::default())
        }
    }

    /// One beside others: what others do to its times must not matter.
    pub fn beside(set: &Set<'_>) -> Self {
        let mut cluster = Cluster::start_with(set.gateway);
        cluster.join("one", &[&["--engine", "native"], set.agent].concat());
        let answering = Answering::new();
        let mut env = String::new();
        for (name, value) in answering.env() {
            env.push_str(&format!("    {name}: {value:?}\n"));
        }
        let command = serde_json::to_string(&Answering::command()).unwrap();
        let manifest = format!(
            "apiVersion: clawbernetes/v1\nkind: Workload\nmetadata: {{name: api}}\nspec:\n  image: host\n  \
             command: {command}\n  env:\n{env}  networking: {{ports: [{{name: http, port: 8080}}]}}\n  metricsPort: 8080\n  \
             readinessCheck: {{http: /ready, interval: 200ms, timeout: 2s, failures: 3}}\n"
        );
        cluster.home.write("api.yaml", &manifest);
        Self {
            cluster,
            answering,
            one: None,
        }
    }

    /// `deploy` with these words; the deployment's id.
    #[track_caller]
    pub fn deploy(&self, sentence: &str, flags: &[&str]) -> String {
        let done = self.cluster.home.words(&[&["deploy", sentence], flags].concat());
        done.ok().lines().next().unwrap().to_owned()
    }

    /// `deploy status`.
    pub fn status(&self, id: &str) -> Value {
        self.cluster.home.run(&format!("deploy status {id} --json")).json()
    }

    /// Waits until a deployment is in this phase.
    #[track_caller]
    pub fn until(&self, id: &str, phase: &str) -> Value {
        wait_for(&format!("{id} to be {phase}"), || {
            let status = self.status(id);
            let now = status["phase"].as_str().unwrap();
            let over = ["complete", "failed", "rolled-back"].contains(&now);
            assert!(now == phase || !over, "{id} is to be {phase}, but: {status:#}");
            (now == phase).then_some(status)
        })
    }

    /// As [`Self::deploy`], and waits until it is complete.
    #[track_caller]
    pub fn done(&self, sentence: &str, flags: &[&str]) -> Value {
        let id = self.deploy(sentence, flags);
        self.until(&id, "complete")
    }

    /// The first deployment: three replicas of v1.
    pub fn first(&self) -> SocketAddr {
        self.done("deploy api v1 with 3 replicas", FILE);
        self.address("api")
    }

    /// `service status`.
    pub fn service(&self, name: &str) -> Value {
        self.cluster.home.run(&format!("service status {name} --json")).json()
    }

    /// Where a service is reached.
    pub fn address(&self, name: &str) -> SocketAddr {
        let service = self.service(name);
        let address = service["address"].as_str().unwrap();
        address.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Ready replicas by version.
    pub fn ready(&self) -> Vec<(String, u64)> {
        self.ready_of("api")
    }

    /// Ready replicas of a service by version.
    pub fn ready_of(&self, name: &str) -> Vec<(String, u64)> {
        let service = self.service(name);
        let revisions = service["revisions"].as_array().unwrap();
        let of = |r: &Value| (r["version"].as_str().unwrap().to_owned(), r["ready"].as_u64().unwrap());
        revisions.iter().map(of).filter(|(_, ready)| *ready > 0).collect()
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
        let services = self.cluster.home.run("service list --json").json();
        for service in services.as_array().unwrap() {
            let name = service["name"].as_str().unwrap();
            // Its controller may be taking a step just then.
            wait_for(&format!("{name} to be deleted"), || {
                let done = self.cluster.home.run(&format!("service delete {name} --yes"));
                if done.code != 0 {
                    done.failed(8, "at the same time");
                }
                (done.code == 0).then_some(())
            });
        }
        // An agent that stops leaves its jobs running.
        wait_for("the replicas to end", || {
            let nodes = self.cluster.home.run("status --json").json();
            nodes["workloads"].as_array()?.is_empty().then_some(())
        });
        self.cluster.end();
        drop(self.one);
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
