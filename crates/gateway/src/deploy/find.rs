//! Which deployment or service a person means.

use api::{
    ApiError,
    deploy::{Deployment, Phase, Plan},
    nearest,
};

use crate::view::{Versioned, View, Within};

/// The deployment that a person means: an id, the beginning of one, or the name of a service or batch job, of which the
/// one under way comes first, then the youngest: one that waits for its time doesn't hide what was done since.
///
/// # Errors
/// `NOT_FOUND`, also when several fit; the message says which.
pub fn deployment<'a>(view: &'a View, text: &str, within: Within<'_>) -> Result<&'a Versioned<Deployment>, ApiError> {
    let seen = |d: &&Versioned<Deployment>| within.only.is_none_or(|only| d.namespace == only);
    let name = (within.namespace.to_owned(), text.to_owned());
    let of_service = view
        .deployments_of(&name)
        .max_by_key(|d| (d.started_at.is_some() && !d.phase.ended(), d.created_at, d.id.clone()));
    if let Some(found) = of_service.filter(seen) {
        return Ok(found);
    }
    let fits = |d: &&Versioned<Deployment>| !text.is_empty() && d.id.as_str().starts_with(text);
    let found: Vec<_> = view.deployments().filter(seen).filter(fits).take(6).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let what = if view.service(&name).is_some() {
                format!("the service '{text}' has no deployment on record")
            } else {
                format!(
                    "there is no deployment or service '{text}' in namespace '{}'",
                    within.namespace
                )
            };
            let hint = match near(view, text, within.namespace) {
                Some(near) => format!("did you mean {near}? clawbernetes deploy list --all"),
                None => "clawbernetes deploy list --all".to_owned(),
            };
            Err(ApiError::not_found(what).hint(hint))
        }
        several => {
            if let Some(exact) = several.iter().find(|d| d.id.as_str() == text) {
                return Ok(exact);
            }
            let ids: Vec<&str> = several.iter().map(|d| d.id.as_str()).collect();
            let message = format!("'{text}' fits several deployments: {}", ids.join(", "));
            Err(ApiError::not_found(message).hint("give more of the id"))
        }
    }
}

/// Where the deployment stands that a plan waits for. `None`: it waits for none, or there is no such deployment.
#[must_use]
pub fn awaited(view: &View, plan: &Plan) -> Option<Phase> {
    let after = plan.schedule.as_ref()?.after.as_ref()?;
    view.deployment(after).map(|d| d.phase)
}

/// A service, by its name.
///
/// # Errors
/// `NOT_FOUND`, with the nearest name.
pub fn service<'a>(
    view: &'a View,
    name: &str,
    namespace: &str,
) -> Result<&'a Versioned<api::deploy::Service>, ApiError> {
    view.service(&(namespace.to_owned(), name.to_owned())).ok_or_else(|| {
        let message = format!("there is no service '{name}' in namespace '{namespace}'");
        ApiError::not_found(message).hint(match near(view, name, namespace) {
            Some(near) => format!("did you mean {near}? clawbernetes service list"),
            None => "clawbernetes service list".to_owned(),
        })
    })
}

fn near<'a>(view: &'a View, text: &str, namespace: &str) -> Option<&'a str> {
    let names = view
        .services()
        .filter(|s| s.namespace == namespace)
        .map(|s| s.value.name.as_str());
    nearest(text, names)
}
