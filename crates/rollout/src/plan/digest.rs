//! What an applied plan is told by.

use api::deploy::{Plan, Standing};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Facts;

/// The part of a service's state on which a plan stands.
#[derive(Serialize)]
struct State<'a> {
    revisions: Vec<(u32, Standing)>,
    stable: Option<u32>,
    replicas: u32,
    deployment: Option<&'a str>,
}

/// Sets the plan's digest: SHA-256, in hexadecimal, of the plan's JSON and of the service's revisions with their standing,
/// its stable one, its number of replicas and the deployment under way.
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
    let state = facts.service.map(|service| State {
        revisions: service.revisions.iter().map(|r| (r.number, r.standing)).collect(),
        stable: service.stable,
        replicas: service.replicas,
        deployment: facts
            .under_way
            .map(|deployment| deployment.id.as_str())
            .or(service.deployment.as_ref().map(api::DeploymentId::as_str)),
    });
    let mut hash = Sha256::new();
    // Only a map without text keys, or a failing serializer, has no JSON form; a plan has neither.
    if let Ok(json) = serde_json::to_vec(&(stripped, state)) {
        hash.update(json);
    }
    plan.digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
}
