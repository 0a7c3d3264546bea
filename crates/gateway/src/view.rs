//! The fleet in memory: every record of the store, typed and indexed, as of one revision.
//!
//! It is fed by the store's changes alone, in order, so that a restarted gateway, a follower and a simulation see
//! the same. Nothing else writes to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use api::{
    ApiError, DeploymentId, ErrorCode, GpuIndex, NodeName, WorkloadId,
    deploy::{Deployment, Service},
    node::Node,
    workload::{JobKey, Member, Phase, Workload},
};
use serde::de::DeserializeOwned;
use store::{Change, Record, Revision};
use vault::pki::{Certificate, Kind};

use crate::{
    keys,
    records::{Claim, JoinToken, Token},
};

/// A record and the revision at which it was last written: what a compare-and-swap needs.
#[derive(Debug)]
pub struct Versioned<T> {
    /// The record.
    pub value: Arc<T>,
    /// When it was last written.
    pub revision: Revision,
}

impl<T> Clone for Versioned<T> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            revision: self.revision,
        }
    }
}

impl<T> std::ops::Deref for Versioned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Where workloads are looked up.
#[derive(Debug, Clone, Copy)]
pub struct Within<'a> {
    /// The namespace of names.
    pub namespace: &'a str,
    /// The only namespace that is there for whoever looks. `None`: all are.
    pub only: Option<&'a str>,
}

/// What a change touched.
#[derive(Debug, Clone)]
pub enum Touched {
    /// A node; `None` when it was removed.
    Node(NodeName, Option<Versioned<Node>>),
    /// A workload, and the nodes that it is on or was on; `None` when it was removed.
    Workload(WorkloadId, Option<Versioned<Workload>>, Vec<NodeName>),
    /// A service; `None` when it was removed.
    Service(ServiceName, Option<Versioned<Service>>),
    /// A deployment, of this service.
    Deployment(DeploymentId, ServiceName),
    /// Something that no controller waits for.
    Other,
}

/// A service's namespace and name.
pub type ServiceName = (String, String);

/// The service or batch job that a deployment is of.
#[must_use]
pub fn name_of(deployment: &Deployment) -> ServiceName {
    (deployment.namespace.clone(), deployment.plan.workload.clone())
}

/// A stored record that this version can't read.
#[derive(Debug, thiserror::Error)]
#[error("record {key} can't be read")]
pub struct Unreadable {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    #[source]
    pub source: serde_json::Error,
}

/// The fleet as of one revision.
#[derive(Debug, Default)]
pub struct View {
    revision: Revision,
    nodes: BTreeMap<NodeName, Versioned<Node>>,
    workloads: BTreeMap<WorkloadId, Versioned<Workload>>,
    /// Workloads that haven't ended.
    active: BTreeSet<WorkloadId>,
    /// Workloads with a member that hasn't ended, by node.
    on_node: HashMap<NodeName, BTreeSet<WorkloadId>>,
    /// All workloads, ended ones too, by namespace and name.
    names: BTreeMap<(String, String), BTreeSet<WorkloadId>>,
    claims: BTreeMap<(NodeName, GpuIndex), Claim>,
    /// When a workload that reserves memory was last bound to a node.
    bound: BTreeMap<NodeName, Revision>,
    tokens: BTreeMap<String, Versioned<Token>>,
    joins: BTreeMap<String, Versioned<JoinToken>>,
    certs: BTreeMap<String, Versioned<Certificate>>,
    services: BTreeMap<ServiceName, Versioned<Service>>,
    /// The service that a workload is a replica of.
    replicas: HashMap<WorkloadId, ServiceName>,
    deployments: BTreeMap<DeploymentId, Versioned<Deployment>>,
    /// Deployments that haven't ended.
    open: BTreeSet<DeploymentId>,
    /// Deployments by service or batch job.
    of_service: BTreeMap<ServiceName, BTreeSet<DeploymentId>>,
}

fn read<T: DeserializeOwned>(record: &Record) -> Result<Versioned<T>, Unreadable> {
    serde_json::from_slice(&record.value)
        .map(|value| Versioned {
            value: Arc::new(value),
            revision: record.modified,
        })
        .map_err(|source| Unreadable {
            key: record.key.to_string(),
            source,
        })
}

/// A change whose record has been read: the expensive part, for which no view is needed.
#[derive(Debug)]
pub struct News(Read);

#[derive(Debug)]
enum Read {
    Workload(WorkloadId, Versioned<Workload>),
    Node(NodeName, Versioned<Node>),
    Claim((NodeName, GpuIndex), Claim),
    Token(String, Versioned<Token>),
    Join(String, Versioned<JoinToken>),
    Cert(String, Versioned<Certificate>),
    Bound(NodeName, Revision),
    Service(ServiceName, Versioned<Service>),
    Deployment(DeploymentId, Versioned<Deployment>),
    Deleted(store::Key),
    /// Of a kind that isn't in the view.
    Other,
}

impl News {
    /// Reads a change.
    ///
    /// # Errors
    /// The record isn't of this version.
    pub fn read(change: &Change) -> Result<Self, Unreadable> {
        let record = match change {
            Change::Put(record) => record,
            Change::Delete { key, .. } => return Ok(Self(Read::Deleted(key.clone()))),
        };
        let key: &str = &record.key;
        let news = if let Some(id) = key.strip_prefix(keys::WORKLOADS) {
            let mut new: Versioned<Workload> = read(record)?;
            // Reading leaves room for three more steps, which a long queue never takes.
            if let Some(workload) = Arc::get_mut(&mut new.value) {
                workload.timeline.shrink_to_fit();
            }
            Read::Workload(WorkloadId::new(id), new)
        } else if let Some(name) = key.strip_prefix(keys::NODES) {
            Read::Node(NodeName::new(name), read(record)?)
        } else if let Some(place) = keys::parse_claim(key) {
            let claim: Versioned<Claim> = read(record)?;
            Read::Claim(place, Arc::unwrap_or_clone(claim.value))
        } else if let Some(id) = key.strip_prefix(keys::TOKENS) {
            Read::Token(id.to_owned(), read(record)?)
        } else if let Some(id) = key.strip_prefix(keys::JOINS) {
            Read::Join(id.to_owned(), read(record)?)
        } else if let Some(serial) = key.strip_prefix(keys::CERTS) {
            Read::Cert(serial.to_owned(), read(record)?)
        } else if let Some(node) = key.strip_prefix(keys::BOUND) {
            Read::Bound(NodeName::new(node), record.modified)
        } else if key.starts_with(keys::SERVICES) {
            let service: Versioned<Service> = read(record)?;
            Read::Service((service.namespace.clone(), service.name.clone()), service)
        } else if let Some(id) = key.strip_prefix(keys::DEPLOYMENTS) {
            Read::Deployment(DeploymentId::new(id), read(record)?)
        } else {
            Read::Other
        };
        Ok(Self(news))
    }
}

/// Nodes where a workload still has something.
fn nodes_of(workload: &Workload) -> impl Iterator<Item = &NodeName> {
    workload.members.iter().filter(|m| !m.state.ended()).map(|m| &m.node)
}

impl View {
    /// The revision up to which every change is in.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Says that everything up to a revision has been applied.
    pub fn reached(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Takes a change in, and says what it touched.
    ///
    /// # Errors
    /// The record isn't of this version; the view is as before.
    pub fn apply(&mut self, change: &Change) -> Result<Touched, Unreadable> {
        Ok(self.take(News::read(change)?))
    }

    /// Takes in what was read of a change. Cheap: readers wait for it.
    pub fn take(&mut self, news: News) -> Touched {
        match news.0 {
            Read::Workload(id, workload) => return self.put_workload(id, workload),
            Read::Node(name, node) => {
                self.nodes.insert(name.clone(), node.clone());
                return Touched::Node(name, Some(node));
            }
            Read::Claim(place, claim) => {
                self.claims.insert(place, claim);
            }
            Read::Token(id, token) => {
                self.tokens.insert(id, token);
            }
            Read::Join(id, join) => {
                self.joins.insert(id, join);
            }
            Read::Cert(serial, cert) => {
                self.certs.insert(serial, cert);
            }
            Read::Bound(node, revision) => {
                self.bound.insert(node, revision);
            }
            Read::Service(name, service) => return self.put_service(name, service),
            Read::Deployment(id, deployment) => return self.put_deployment(id, deployment),
            Read::Deleted(key) => return self.delete(&key),
            Read::Other => {}
        }
        Touched::Other
    }

    fn put_workload(&mut self, id: WorkloadId, new: Versioned<Workload>) -> Touched {
        let old = self.workloads.insert(id.clone(), new.clone());
        let mut touched: Vec<NodeName> = Vec::new();
        if let Some(old) = &old {
            for node in nodes_of(old) {
                if let Some(set) = self.on_node.get_mut(node) {
                    set.remove(&id);
                }
                touched.push(node.clone());
            }
        } else {
            self.names
                .entry((new.namespace.clone(), new.name.clone()))
                .or_default()
                .insert(id.clone());
        }
        for node in nodes_of(&new) {
            self.on_node.entry(node.clone()).or_default().insert(id.clone());
            if !touched.contains(node) {
                touched.push(node.clone());
            }
        }
        if new.phase.ended() {
            self.active.remove(&id);
        } else {
            self.active.insert(id.clone());
        }
        Touched::Workload(id, Some(new), touched)
    }

    fn put_service(&mut self, name: ServiceName, new: Versioned<Service>) -> Touched {
        if let Some(old) = self.services.insert(name.clone(), new.clone()) {
            for replica in &old.members {
                self.replicas.remove(&replica.workload);
            }
        }
        for replica in &new.members {
            self.replicas.insert(replica.workload.clone(), name.clone());
        }
        Touched::Service(name, Some(new))
    }

    fn put_deployment(&mut self, id: DeploymentId, new: Versioned<Deployment>) -> Touched {
        let name = name_of(&new);
        self.of_service.entry(name.clone()).or_default().insert(id.clone());
        if new.phase.ended() {
            self.open.remove(&id);
        } else {
            self.open.insert(id.clone());
        }
        self.deployments.insert(id.clone(), new);
        Touched::Deployment(id, name)
    }

    fn delete(&mut self, key: &str) -> Touched {
        if let Some(id) = key.strip_prefix(keys::WORKLOADS) {
            let id = WorkloadId::new(id);
            let mut touched = Vec::new();
            if let Some(old) = self.workloads.remove(&id) {
                self.active.remove(&id);
                for node in nodes_of(&old) {
                    if let Some(set) = self.on_node.get_mut(node) {
                        set.remove(&id);
                    }
                    touched.push(node.clone());
                }
                let name = (old.namespace.clone(), old.name.clone());
                if let Some(ids) = self.names.get_mut(&name) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.names.remove(&name);
                    }
                }
            }
            return Touched::Workload(id, None, touched);
        }
        if let Some(name) = key.strip_prefix(keys::NODES) {
            let name = NodeName::new(name);
            self.nodes.remove(&name);
            return Touched::Node(name, None);
        }
        if let Some((namespace, name)) = key.strip_prefix(keys::SERVICES).and_then(|rest| rest.split_once('/')) {
            let name = (namespace.to_owned(), name.to_owned());
            if let Some(old) = self.services.remove(&name) {
                for replica in &old.members {
                    self.replicas.remove(&replica.workload);
                }
            }
            return Touched::Service(name, None);
        }
        if let Some(id) = key.strip_prefix(keys::DEPLOYMENTS) {
            let id = DeploymentId::new(id);
            self.open.remove(&id);
            if let Some(old) = self.deployments.remove(&id) {
                let name = name_of(&old);
                if let Some(ids) = self.of_service.get_mut(&name) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.of_service.remove(&name);
                    }
                }
                return Touched::Deployment(id, name);
            }
        }
        if let Some(claim) = keys::parse_claim(key) {
            self.claims.remove(&claim);
        } else if let Some(node) = key.strip_prefix(keys::BOUND) {
            self.bound.remove(&NodeName::new(node));
        } else if let Some(id) = key.strip_prefix(keys::TOKENS) {
            self.tokens.remove(id);
        } else if let Some(id) = key.strip_prefix(keys::JOINS) {
            self.joins.remove(id);
        } else if let Some(serial) = key.strip_prefix(keys::CERTS) {
            self.certs.remove(serial);
        }
        Touched::Other
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Versioned<Node>> {
        self.nodes.values()
    }

    /// The revision at which a workload that reserves memory was last bound to a node. `None`: none ever was.
    #[must_use]
    pub fn bound(&self, node: &NodeName) -> Option<Revision> {
        self.bound.get(node).copied()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Versioned<Node>> {
        self.nodes.get(name)
    }

    /// Every workload, by id.
    pub fn workloads(&self) -> impl Iterator<Item = &Versioned<Workload>> {
        self.workloads.values()
    }

    /// A workload.
    #[must_use]
    pub fn workload(&self, id: &WorkloadId) -> Option<&Versioned<Workload>> {
        self.workloads.get(id)
    }

    /// Workloads that haven't ended, by id.
    pub fn active(&self) -> impl Iterator<Item = &Versioned<Workload>> {
        self.active.iter().filter_map(|id| self.workloads.get(id))
    }

    /// Number of workloads, ended ones too.
    #[must_use]
    pub fn workload_count(&self) -> usize {
        self.workloads.len()
    }

    /// Workloads that have something on a node, by id.
    pub fn on_node(&self, node: &NodeName) -> impl Iterator<Item = &Versioned<Workload>> {
        self.on_node
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|id| self.workloads.get(id))
    }

    /// Members on a node that haven't ended.
    pub fn members_on<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a Versioned<Workload>, &'a Member)> {
        self.on_node(node).flat_map(move |w| {
            w.members
                .iter()
                .filter(move |m| m.node == *node && !m.state.ended())
                .map(move |m| (w, m))
        })
    }

    /// Whether a job is, or was, a node's.
    #[must_use]
    pub fn ran_on(&self, node: &NodeName, job: &JobKey) -> bool {
        let Some(w) = self.workload(&job.workload) else {
            return false;
        };
        let members = if w.attempt == job.attempt {
            Some(&w.members)
        } else {
            w.past.iter().find(|p| p.attempt == job.attempt).map(|p| &p.members)
        };
        members.is_some_and(|members| members.iter().any(|m| m.rank == job.rank && m.node == *node))
    }

    /// Whether any attempt of a workload is, or was, on a node.
    #[must_use]
    pub fn ever_on(&self, node: &NodeName, workload: &WorkloadId) -> bool {
        self.workload(workload).is_some_and(|w| {
            let past = w.past.iter().flat_map(|p| &p.members);
            w.members.iter().chain(past).any(|m| m.node == *node)
        })
    }

    /// Every GPU that has a holder.
    pub fn claims(&self) -> impl Iterator<Item = (&(NodeName, GpuIndex), &Claim)> {
        self.claims.iter()
    }

    /// A GPU's holder. `None`: it is free.
    #[must_use]
    pub fn holder(&self, node: &NodeName, gpu: GpuIndex) -> Option<&Claim> {
        self.claims.get(&(node.clone(), gpu))
    }

    /// Every token that wasn't revoked.
    pub fn tokens(&self) -> impl Iterator<Item = &Versioned<Token>> {
        self.tokens.values().filter(|token| token.revoked_at.is_none())
    }

    /// Tokens that were revoked, of which only the bearer is told.
    pub fn revoked_tokens(&self) -> impl Iterator<Item = &Versioned<Token>> {
        self.tokens.values().filter(|token| token.revoked_at.is_some())
    }

    /// A token, also one that was revoked.
    #[must_use]
    pub fn token(&self, id: &str) -> Option<&Versioned<Token>> {
        self.tokens.get(id)
    }

    /// Every certificate that was issued, by serial number.
    pub fn certs(&self) -> impl Iterator<Item = &Versioned<Certificate>> {
        self.certs.values()
    }

    /// A node's certificates, old ones too.
    pub fn certs_of_node(&self, node: &NodeName) -> impl Iterator<Item = &Versioned<Certificate>> {
        let node = node.clone();
        self.certs()
            .filter(move |cert| cert.kind == Kind::Node && cert.name.as_str() == node.as_str())
    }

    /// Every service, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Versioned<Service>> {
        self.services.values()
    }

    /// A service.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Versioned<Service>> {
        self.services.get(name)
    }

    /// The service that a workload is a replica of. `None`: it is no replica, or no longer.
    #[must_use]
    pub fn replica_of(&self, workload: &WorkloadId) -> Option<&ServiceName> {
        self.replicas.get(workload)
    }

    /// Every deployment, by id.
    pub fn deployments(&self) -> impl Iterator<Item = &Versioned<Deployment>> {
        self.deployments.values()
    }

    /// Deployments that haven't ended, by id.
    pub fn open_deployments(&self) -> impl Iterator<Item = &Versioned<Deployment>> {
        self.open.iter().filter_map(|id| self.deployments.get(id))
    }

    /// A deployment.
    #[must_use]
    pub fn deployment(&self, id: &DeploymentId) -> Option<&Versioned<Deployment>> {
        self.deployments.get(id)
    }

    /// The deployments of a service or batch job, in no order that means anything.
    pub fn deployments_of(&self, name: &ServiceName) -> impl Iterator<Item = &Versioned<Deployment>> {
        self.of_service
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|id| self.deployments.get(id))
    }

    /// A certificate, by its serial number.
    #[must_use]
    pub fn cert(&self, serial: &str) -> Option<&Versioned<Certificate>> {
        self.certs.get(serial)
    }

    /// A join token.
    #[must_use]
    pub fn join_token(&self, id: &str) -> Option<&Versioned<JoinToken>> {
        self.joins.get(id)
    }

    /// The workload that a person means: an id, a name, or the beginning of either where only one fits. Among
    /// workloads of one name the one that hasn't ended comes first, then the youngest.
    ///
    /// # Errors
    /// `NOT_FOUND`, also when several fit; the message says which.
    pub fn find_workload(&self, text: &str, within: Within<'_>) -> Result<&Versioned<Workload>, ApiError> {
        let Within { namespace, only } = within;
        let seen = |w: &&Versioned<Workload>| only.is_none_or(|only| w.namespace == only);
        if let Some(workload) = self.workloads.get(text).filter(seen) {
            return Ok(workload);
        }
        let named = |ids: &BTreeSet<WorkloadId>| {
            ids.iter()
                .filter_map(|id| self.workloads.get(id))
                .max_by_key(|w| (!w.phase.ended(), w.submitted_at, w.id.clone()))
        };
        if let Some(workload) = self.named(namespace, text) {
            return Ok(workload);
        }
        let by_id = self
            .workloads
            .range::<str, _>((std::ops::Bound::Included(text), std::ops::Bound::Unbounded));
        let ids = by_id
            .take_while(|(id, _)| !text.is_empty() && id.as_str().starts_with(text))
            .map(|(_, w)| w)
            .filter(seen);
        let names = self
            .names
            .range((namespace.to_owned(), text.to_owned())..)
            .take_while(|((ns, name), _)| !text.is_empty() && ns == namespace && name.starts_with(text))
            .filter_map(|(_, ids)| named(ids));
        let found: Vec<_> = ids.chain(names).take(6).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(
                ApiError::not_found(format!("there is no workload '{text}' in namespace '{namespace}'"))
                    .hint("clawbernetes workload list"),
            ),
            several => {
                let names: Vec<String> = several.iter().map(|w| format!("{} ({})", w.id, w.name)).collect();
                Err(
                    ApiError::not_found(format!("'{text}' fits several workloads: {}", names.join(", ")))
                        .hint("give more of the id"),
                )
            }
        }
    }

    /// The node that a person means: its name, or the beginning of it where only one fits.
    ///
    /// # Errors
    /// `NOT_FOUND`, also when several fit.
    pub fn find_node(&self, text: &str) -> Result<&Versioned<Node>, ApiError> {
        if let Some(node) = self.nodes.get(text) {
            return Ok(node);
        }
        let range = self
            .nodes
            .range::<str, _>((std::ops::Bound::Included(text), std::ops::Bound::Unbounded));
        let found: Vec<_> = range
            .take_while(|(name, _)| !text.is_empty() && name.as_str().starts_with(text))
            .map(|(_, n)| n)
            .take(6)
            .collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(ApiError::not_found(format!("there is no node '{text}'")).hint("clawbernetes node list")),
            several => {
                let names: Vec<&str> = several.iter().map(|n| n.name.as_str()).collect();
                Err(ApiError::not_found(format!(
                    "'{text}' fits several nodes: {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// The active workload of a name, if there is one.
    #[must_use]
    pub fn active_named(&self, namespace: &str, name: &str) -> Option<&Versioned<Workload>> {
        self.names
            .get(&(namespace.to_owned(), name.to_owned()))?
            .iter()
            .filter_map(|id| self.workloads.get(id))
            .find(|w| !w.phase.ended())
    }

    /// The workload of a name: the active one, else the youngest.
    #[must_use]
    pub fn named(&self, namespace: &str, name: &str) -> Option<&Versioned<Workload>> {
        self.names
            .get(&(namespace.to_owned(), name.to_owned()))?
            .iter()
            .filter_map(|id| self.workloads.get(id))
            .max_by_key(|w| (!w.phase.ended(), w.submitted_at, w.id.clone()))
    }

    /// What this view holds and a later one no longer does, as removals.
    pub fn missing_from(&self, later: &Self) -> Vec<Touched> {
        let nodes = self.nodes.keys().filter(|name| !later.nodes.contains_key(*name));
        let workloads = self
            .workloads
            .iter()
            .filter(|(id, _)| !later.workloads.contains_key(*id));
        let services = self.services.keys().filter(|name| !later.services.contains_key(*name));
        nodes
            .map(|name| Touched::Node(name.clone(), None))
            .chain(services.map(|name| Touched::Service(name.clone(), None)))
            .chain(workloads.map(|(id, w)| Touched::Workload(id.clone(), None, nodes_of(w).cloned().collect())))
            .collect()
    }

    /// Checks what must hold at every revision; the text says what doesn't.
    ///
    /// # Errors
    /// The first invariant that is broken.
    pub fn check(&self) -> Result<(), String> {
        for ((node, gpu), claim) in &self.claims {
            let Some(workload) = self.workloads.get(&claim.workload) else {
                return Err(format!(
                    "GPU {gpu} of {node} is held by {}, which doesn't exist",
                    claim.workload
                ));
            };
            let held = workload.attempt == claim.attempt
                && workload.members.iter().any(|m| {
                    m.rank == claim.rank
                        && m.node == *node
                        && !m.state.ended()
                        && m.gpus.iter().any(|g| g.index == *gpu)
                });
            if !held {
                return Err(format!(
                    "GPU {gpu} of {node} is leaked: {} no longer runs there",
                    claim.workload
                ));
            }
        }
        for workload in self.workloads.values() {
            for member in workload.members.iter().filter(|m| !m.state.ended()) {
                if workload.phase.ended() || workload.phase == Phase::Pending {
                    return Err(format!(
                        "{} is {} but still has rank {}",
                        workload.id, workload.phase, member.rank
                    ));
                }
                for gpu in &member.gpus {
                    let holder = self.claims.get(&(member.node.clone(), gpu.index));
                    if holder.is_none_or(|c| c.workload != workload.id || c.rank != member.rank) {
                        return Err(format!(
                            "{} uses GPU {} of {} without holding it",
                            workload.id, gpu.index, member.node
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// `NOT_FOUND` for something that was there a moment ago.
#[must_use]
pub fn gone(what: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("{what} was removed meanwhile"))
}
