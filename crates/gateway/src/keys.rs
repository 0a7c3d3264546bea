//! How the gateway's records are named in the store.

use api::{DeploymentId, GpuIndex, NodeName, WorkloadId};

/// Every service: [`api::deploy::Service`].
pub const SERVICES: &str = "/service/";
/// Every deployment: [`api::deploy::Deployment`].
pub const DEPLOYMENTS: &str = "/deploy/";
/// What each service's autoscaler has seen: [`rollout::autoscale::History`].
pub const SCALING: &str = "/scaling/";
/// Every node: [`api::node::Node`].
pub const NODES: &str = "/node/";
/// Every workload: [`api::workload::Workload`].
pub const WORKLOADS: &str = "/workload/";
/// The id behind the name of every workload that hasn't ended.
pub const NAMES: &str = "/name/";
/// The service that has each port of services.
pub const SERVICE_PORTS: &str = "/service-port/";
/// The holder of every GPU that has one: [`crate::records::Claim`].
pub const CLAIMS: &str = "/claim/";
/// The workload that was last bound to a node, of those that reserve memory: says whether one was bound since.
pub const BOUND: &str = "/bound/";
/// Every token: [`crate::records::Token`].
pub const TOKENS: &str = "/token/";
/// Every join token: [`crate::records::JoinToken`].
pub const JOINS: &str = "/join/";
/// Answers to creating calls, by identity and idempotency key.
pub const ANSWERS: &str = "/answer/";
/// Every rule's alerts: [`diagnosis::alert::Alerts`].
pub const ALERTS: &str = "/alert/state/";
/// What receivers of alerts were told: [`diagnosis::alert::Ledger`].
pub const ALERT_LEDGER: &str = "/alert/told";
/// Every silence: [`diagnosis::alert::Silence`].
pub const SILENCES: &str = "/alert/silence/";
/// Every event, by time: [`api::event::Event`].
pub const EVENTS: &str = "/event/";

/// Which master key opens the vault: [`vault::secret::Lock`].
pub const VAULT_LOCK: &str = "/vault/lock";
/// The certificate authority, its key sealed: [`crate::trust::AuthorityRecord`].
pub const VAULT_AUTHORITY: &str = "/vault/authority";
/// Every secret without its values: [`vault::secret::Secret`].
pub const SECRETS: &str = "/secret/meta/";
/// Every version's sealed value: [`vault::secret::Sealed`].
pub const SECRET_VALUES: &str = "/secret/value/";
/// Every certificate that was issued: [`vault::pki::Certificate`].
pub const CERTS: &str = "/cert/";
/// The audit log, by number: see [`crate::audit`].
pub const AUDIT: &str = "/audit/";
/// Where the kept part of the audit log begins.
pub const AUDIT_BASE: &str = "/audit-base";

/// Key of a service.
pub fn service(namespace: &str, name: &str) -> String {
    format!("{SERVICES}{namespace}/{name}")
}

/// Key of the claim on a port of services.
pub fn service_port(port: u16) -> String {
    format!("{SERVICE_PORTS}{port}")
}

/// Key of a deployment.
pub fn deployment(id: &DeploymentId) -> String {
    format!("{DEPLOYMENTS}{id}")
}

/// Key of what a service's autoscaler has seen.
pub fn scaling(namespace: &str, name: &str) -> String {
    format!("{SCALING}{namespace}/{name}")
}

/// Key of a secret.
pub fn secret(namespace: &str, name: &str) -> String {
    format!("{SECRETS}{namespace}/{name}")
}

/// Key of a version's sealed value.
pub fn secret_value(namespace: &str, name: &str, version: u32) -> String {
    format!("{SECRET_VALUES}{namespace}/{name}/{version:010}")
}

/// Key of a certificate.
pub fn cert(serial: &str) -> String {
    format!("{CERTS}{serial}")
}

/// Key of a record of the audit log.
pub fn audit(sequence: u64) -> String {
    format!("{AUDIT}{sequence:020}")
}

/// Key of a node.
pub fn node(name: &NodeName) -> String {
    format!("{NODES}{name}")
}

/// Key of a workload.
pub fn workload(id: &WorkloadId) -> String {
    format!("{WORKLOADS}{id}")
}

/// Key that makes a name unique among the workloads of a namespace that haven't ended.
pub fn name(namespace: &str, name: &str) -> String {
    format!("{NAMES}{namespace}/{name}")
}

/// Key of a GPU's claim: while it exists, the GPU has a holder.
pub fn claim(node: &NodeName, gpu: GpuIndex) -> String {
    format!("{CLAIMS}{node}/{gpu:04}")
}

/// Key that changes with every workload that is bound to a node and reserves memory.
pub fn bound(node: &NodeName) -> String {
    format!("{BOUND}{node}")
}

/// Key of a token.
pub fn token(id: &str) -> String {
    format!("{TOKENS}{id}")
}

/// Key of a join token.
pub fn join(id: &str) -> String {
    format!("{JOINS}{id}")
}

/// Key of a creating call's answer.
pub fn answer(identity: &str, key: &str) -> String {
    format!("{ANSWERS}{identity}/{key}")
}

/// The node and GPU that a claim's key names. `None`: it isn't a claim's key.
pub fn parse_claim(key: &str) -> Option<(NodeName, GpuIndex)> {
    let (node, gpu) = key.strip_prefix(CLAIMS)?.rsplit_once('/')?;
    Some((NodeName::new(node), gpu.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_back() {
        let node = NodeName::new("rack1.gpu-7");
        assert_eq!(parse_claim(&claim(&node, 3)), Some((node, 3)));
        assert_eq!(parse_claim("/node/x"), None);
    }
}
