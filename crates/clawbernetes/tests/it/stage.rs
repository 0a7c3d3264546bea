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
        Self::with(&[])
    }

    /// The same; its agent has these flags.
    pub fn with(flags: &[&str]) -> Self {
        let one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut cluster = Cluster::start();
        cluster.join("one", &[&["--engine", "native"], flags].concat());
        let answering = Answering::new();
        let mut env = String::new();
        for (name, value) in answering.env() {
            env.push_str(&format!("    {name}: {value:?}\n"));
        }
        let command = serde_json::to_string(&Answering::command()).unwrap();
        let manifest = format!(
            "apiVersion: clawbernetes/v1\nkind: Workload\nmetadata: {{name: api}}\nspec:\n  image: host\n  \
             command: {command}\n  env:\n{env}  networking: {{ports: [{{name: http, port: 8080}}]}}\n  \
             readinessCheck: {{http: /ready, interval: 200ms, timeout: 2s, failures: 3}}\n"
        );
        cluster.home.write("api.yaml", &manifest);
        Self {
            cluster,
            answering,
            _one: one,
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

    /// The first deployment: three replicas of v1.
    pub fn first(&self) -> SocketAddr {
        let id = self.deploy("deploy api v1 with 3 replicas", &["--file", "api.yaml"]);
        self.until(&id, "complete");
        self.address()
    }

    /// Where the service is reached.
    pub fn address(&self) -> SocketAddr {
        let service = self.cluster.home.run("service status api --json").json();
        let address = service["address"].as_str().unwrap();
        address.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Ready replicas by version.
    pub fn ready(&self) -> Vec<(String, u64)> {
        let service = self.cluster.home.run("service status api --json").json();
        let revisions = service["revisions"].as_array().unwrap();
        let of = |r: &Value| (r["version"].as_str().unwrap().to_owned(), r["ready"].as_u64().unwrap());
        revisions.iter().map(of).filter(|(_, ready)| *ready > 0).collect()
    }

    /// Deletes the service and ends everything.
    pub fn end(self) {
        self.cluster.home.run("service delete api --yes").ok();
        // An agent that stops leaves its jobs running.
        wait_for("the replicas to end", || {
            let nodes = self.cluster.home.run("status --json").json();
            nodes["workloads"].as_array()?.is_empty().then_some(())
        });
        self.cluster.end();
    }
}
