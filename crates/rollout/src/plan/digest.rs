//! What an applied plan is told by.

use api::{
    DeploymentId,
    deploy::{Plan, Service, Standing},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Facts;

/// The part of a service's state on which a plan stands: its revisions with their standing, its stable one, its number of
/// replicas and the deployment under way. On the same footing the same words come to the same plan.
///
/// Replicas and weights aren't in it: they change with every step of a rollout, and no plan depends on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Footing {
    revisions: Vec<(u32, Standing)>,
    stable: Option<u32>,
    replicas: u32,
    deployment: Option<DeploymentId>,
}

impl Footing {
    /// That of a service.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        Self {
            revisions: service.revisions.iter().map(|r| (r.number, r.standing)).collect(),
            stable: service.stable,
            replicas: service.replicas,
            deployment: service.deployment.clone(),
        }
    }
}

/// Sets the plan's digest: SHA-256, in hexadecimal, of the plan's JSON and of its [`Footing`].
///
/// Left out: the digest itself, and what measurements and the fleet say (placement, warnings, what is missing), since that
/// changes from one second to the next without changing what will be done. The JSON is canonical: fields in the order of
/// their declaration, maps sorted, no white space.
pub fn seal(plan: &mut Plan, facts: &Facts<'_>) {
    let stripped = Plan {
        placement: Vec::new(),
        warnings: Vec::new(),
        missing: Vec::new(),
        digest: String::new(),
        ..plan.clone()
    };
    let footing = facts.service.map(Footing::of);
    let mut hash = Sha256::new();
    // Only a map without text keys, or a failing serializer, has no JSON form; a plan has neither.
    if let Ok(json) = serde_json::to_vec(&(stripped, footing)) {
        hash.update(json);
    }
    plan.digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
}
