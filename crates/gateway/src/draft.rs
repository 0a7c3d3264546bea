//! A transaction in the making: typed records in, compare-and-swap out, with the events that tell of it.

use api::{
    GpuIndex, NodeName, Timestamp, WorkloadId,
    deploy::{Deployment, Service},
    event::{Event, Severity},
    node::Node,
    workload::Workload,
};
use serde::Serialize;
use store::{LeaseId, Revision, Txn};
use vault::pki::Certificate;

use crate::{
    keys,
    lifecycle::Step,
    records::{Claim, JoinToken, Token},
    view::Versioned,
};

/// A transaction in the making.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    txn: Txn,
    events: u32,
}

/// Records are plain data with string keys: writing them as JSON can't fail.
pub(crate) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

impl Draft {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The transaction.
    pub fn finish(self) -> Txn {
        self.txn
    }

    fn with(&mut self, change: impl FnOnce(Txn) -> Txn) {
        self.txn = change(std::mem::take(&mut self.txn));
    }

    /// A node as it should be. `seen`: its revision when this was decided; `None`: it didn't exist.
    pub fn put_node(&mut self, seen: Option<Revision>, node: &Node) {
        let key = keys::node(&node.name);
        self.with(|txn| match seen {
            Some(revision) => txn.unchanged(&key, revision),
            None => txn.absent(&key),
        });
        self.with(|txn| txn.put(key.clone(), json(node)));
    }

    /// Holds only if a node hasn't changed since it was seen.
    pub fn node_unchanged(&mut self, node: &Versioned<Node>) {
        self.with(|txn| txn.unchanged(keys::node(&node.name), node.revision));
    }

    /// Removes a node.
    pub fn delete_node(&mut self, node: &Versioned<Node>) {
        let key = keys::node(&node.name);
        self.with(|txn| txn.unchanged(&key, node.revision).delete(key.clone()));
        self.with(|txn| txn.delete(keys::bound(&node.name)));
    }

    /// Notes that a workload that reserves memory is bound to a node.
    pub fn bound(&mut self, node: &NodeName, workload: &WorkloadId) {
        self.with(|txn| txn.put(keys::bound(node), workload.as_str().to_owned()));
    }

    /// Holds only if no workload that reserves memory was bound to a node since. `seen`: [`View::bound`].
    ///
    /// [`View::bound`]: crate::view::View::bound
    pub fn no_bind_since(&mut self, node: &NodeName, seen: Option<Revision>) {
        let key = keys::bound(node);
        self.with(|txn| match seen {
            Some(revision) => txn.unchanged(key, revision),
            None => txn.absent(key),
        });
    }

    /// A new workload, whose name must be free.
    pub fn create_workload(&mut self, workload: &Workload, events: Vec<Event>) {
        let key = keys::workload(&workload.id);
        let name = keys::name(&workload.namespace, &workload.name);
        self.with(|txn| {
            txn.absent(&key)
                .absent(&name)
                .put(key.clone(), json(workload))
                .put(name.clone(), workload.id.as_str().to_owned())
        });
        for event in events {
            self.event(Revision::ZERO, event);
        }
    }

    /// A workload's next step, with the GPUs that it takes and gives back.
    pub fn step(&mut self, before: &Versioned<Workload>, step: Step) {
        let Step {
            workload,
            events,
            claimed,
            released,
        } = step;
        let key = keys::workload(&workload.id);
        self.with(|txn| txn.unchanged(&key, before.revision).put(key.clone(), json(&workload)));
        if workload.phase.ended() && !before.phase.ended() {
            self.with(|txn| txn.delete(keys::name(&workload.namespace, &workload.name)));
        }
        for (node, gpu, rank) in claimed {
            let claim = Claim {
                workload: workload.id.clone(),
                attempt: workload.attempt,
                rank,
            };
            self.claim(&node, gpu, &claim);
        }
        for (node, gpu) in released {
            self.with(|txn| txn.delete(keys::claim(&node, gpu)));
        }
        for event in events {
            self.event(before.revision, event);
        }
    }

    fn claim(&mut self, node: &NodeName, gpu: GpuIndex, claim: &Claim) {
        let key = keys::claim(node, gpu);
        self.with(|txn| txn.absent(&key).put(key.clone(), json(claim)));
    }

    /// Holds only if a workload hasn't changed since it was seen.
    pub fn workload_unchanged(&mut self, workload: &Versioned<Workload>) {
        self.with(|txn| txn.unchanged(keys::workload(&workload.id), workload.revision));
    }

    /// Removes an ended workload's record.
    pub fn delete_workload(&mut self, workload: &Versioned<Workload>) {
        let key = keys::workload(&workload.id);
        self.with(|txn| txn.unchanged(&key, workload.revision).delete(key.clone()));
    }

    /// A service as it should be. `seen`: as it was when this was decided; `None`: it didn't exist, and takes its name among
    /// workloads too. A port that it didn't have is its own from now on.
    pub fn put_service(&mut self, seen: Option<&Versioned<Service>>, service: &Service) {
        let key = keys::service(&service.namespace, &service.name);
        self.with(|txn| match seen {
            Some(seen) => txn.unchanged(&key, seen.revision),
            None => {
                let name = keys::name(&service.namespace, &service.name);
                txn.absent(&key).absent(&name).put(name.clone(), "service".to_owned())
            }
        });
        if let Some(port) = &service.port
            && seen.is_none_or(|seen| seen.port.is_none())
        {
            let (port, owner) = (keys::service_port(port.port), key.clone());
            self.with(|txn| txn.absent(&port).put(port.clone(), owner));
        }
        self.with(|txn| txn.put(key.clone(), json(service)));
    }

    /// Removes a service, and lets go of its name and its port.
    pub fn delete_service(&mut self, service: &Versioned<Service>) {
        let key = keys::service(&service.namespace, &service.name);
        self.with(|txn| {
            txn.unchanged(&key, service.revision)
                .delete(key.clone())
                .delete(keys::name(&service.namespace, &service.name))
                .delete(keys::scaling(&service.namespace, &service.name))
        });
        if let Some(port) = &service.port {
            self.with(|txn| txn.delete(keys::service_port(port.port)));
        }
    }

    /// Holds only if a service hasn't changed since it was seen.
    pub fn service_unchanged(&mut self, service: &Versioned<Service>) {
        let key = keys::service(&service.namespace, &service.name);
        self.with(|txn| txn.unchanged(key, service.revision));
    }

    /// A deployment as it should be. `seen`: its revision when this was decided; `None`: it didn't exist.
    pub fn put_deployment(&mut self, seen: Option<Revision>, deployment: &Deployment) {
        let key = keys::deployment(&deployment.id);
        self.with(|txn| match seen {
            Some(revision) => txn.unchanged(&key, revision),
            None => txn.absent(&key),
        });
        self.with(|txn| txn.put(key.clone(), json(deployment)));
    }

    /// Holds only if a deployment hasn't changed since it was seen.
    pub fn deployment_unchanged(&mut self, deployment: &Versioned<Deployment>) {
        self.with(|txn| txn.unchanged(keys::deployment(&deployment.id), deployment.revision));
    }

    /// Forgets a deployment.
    pub fn delete_deployment(&mut self, deployment: &Versioned<Deployment>) {
        let key = keys::deployment(&deployment.id);
        self.with(|txn| txn.unchanged(&key, deployment.revision).delete(key.clone()));
    }

    /// A token as it should be. `seen`: its revision when this was decided; `None`: it didn't exist.
    pub fn put_token(&mut self, seen: Option<Revision>, token: &Token) {
        let key = keys::token(&token.info.id);
        self.with(|txn| match seen {
            Some(revision) => txn.unchanged(&key, revision),
            None => txn.absent(&key),
        });
        self.with(|txn| txn.put(key.clone(), json(token)));
    }

    /// Removes a token.
    pub fn delete_token(&mut self, token: &Versioned<Token>) {
        let key = keys::token(&token.info.id);
        self.with(|txn| txn.unchanged(&key, token.revision).delete(key.clone()));
    }

    /// A certificate's record as it should be. `seen`: its revision when this was decided; `None`: it didn't exist.
    pub fn put_cert(&mut self, seen: Option<Revision>, cert: &Certificate) {
        let key = keys::cert(&cert.serial);
        self.with(|txn| match seen {
            Some(revision) => txn.unchanged(&key, revision),
            None => txn.absent(&key),
        });
        self.with(|txn| txn.put(key.clone(), json(cert)));
    }

    /// Forgets a certificate.
    pub fn delete_cert(&mut self, cert: &Versioned<Certificate>) {
        let key = keys::cert(&cert.serial);
        self.with(|txn| txn.unchanged(&key, cert.revision).delete(key.clone()));
    }

    /// A new join token, which goes with its lease.
    pub fn create_join_token(&mut self, token: &JoinToken) {
        let key = keys::join(&token.id);
        self.with(|txn| {
            txn.absent(&key)
                .put_leased(key.clone(), json(token), LeaseId(token.lease))
        });
    }

    /// One use less of a join token. One without uses stays until it expires: whoever used it may ask again.
    pub fn use_join_token(&mut self, token: &Versioned<JoinToken>) {
        let key = keys::join(&token.id);
        self.with(|txn| txn.unchanged(&key, token.revision));
        if let Some(uses) = token.uses_left {
            let left = JoinToken {
                uses_left: Some(uses.saturating_sub(1)),
                ..JoinToken::clone(token)
            };
            self.with(|txn| txn.put_leased(key.clone(), json(&left), LeaseId(left.lease)));
        }
    }

    /// A record that only one controller writes.
    pub fn keep<T: Serialize>(&mut self, key: &str, value: &T) {
        self.with(|txn| txn.put(key.to_owned(), json(value)));
    }

    /// A record that must not be there yet.
    pub fn create<T: Serialize>(&mut self, key: &str, value: &T) {
        self.with(|txn| txn.absent(key.to_owned()).put(key.to_owned(), json(value)));
    }

    /// Removes a record that only one controller writes.
    pub fn forget(&mut self, key: &str) {
        self.with(|txn| txn.delete(key.to_owned()));
    }

    /// The answer to a creating call, kept with a lease; the transaction fails if there is one already.
    pub fn answer<T: Serialize>(&mut self, identity: &str, key: &str, answer: &T, lease: LeaseId) {
        let key = keys::answer(identity, key);
        self.with(|txn| txn.absent(&key).put_leased(key.clone(), json(answer), lease));
    }

    /// Something that happened. `about`: the revision that the decision stood on, which makes the key unique.
    pub fn event(&mut self, about: Revision, event: Event) {
        let key = format!(
            "{}{:016}-{}-{}-{}",
            keys::EVENTS,
            event.at.as_microsecond().max(0),
            about.0,
            event.subject,
            self.events
        );
        self.events += 1;
        self.with(|txn| txn.put(key, json(&event)));
    }
}

/// An event about a node.
#[must_use]
pub fn node_event(
    node: &NodeName,
    reason: &str,
    message: impl Into<String>,
    actor: &str,
    severity: Severity,
    at: Timestamp,
) -> Event {
    Event {
        id: String::new(),
        at,
        kind: "node".to_owned(),
        subject: node.to_string(),
        namespace: None,
        node: Some(node.to_string()),
        reason: reason.to_owned(),
        message: message.into(),
        actor: actor.to_owned(),
        severity,
        fact: None,
    }
}
