//! Operations on services.

use api::{
    ApiError,
    deploy::Service,
    op::{ServiceDeleteRequest, ServiceFilter, ServiceRef, ServiceView},
};

use super::face::Call;
use crate::{
    auth, deploy,
    draft::Draft,
    hub::now,
    lifecycle,
    view::{Versioned, View},
};

fn find<'a>(call: &Call, view: &'a View, name: &str, given: Option<&str>) -> Result<&'a Versioned<Service>, ApiError> {
    deploy::service(view, name, auth::namespace(&call.identity, given)?)
}

/// `service.list`
pub async fn list(call: Call, filter: ServiceFilter) -> Result<Vec<ServiceView>, ApiError> {
    let only = auth::only(&call.identity, filter.namespace.as_deref())?;
    let view = call.app.hub.view();
    let seen = view.services().filter(|s| only.is_none_or(|only| s.namespace == only));
    Ok(seen.map(|s| deploy::service_view(&view, &call.app.doors, s)).collect())
}

/// `service.get`
pub async fn get(call: Call, request: ServiceRef) -> Result<ServiceView, ApiError> {
    let view = call.app.hub.view();
    let service = find(&call, &view, &request.name, request.namespace.as_deref())?;
    Ok(deploy::service_view(&view, &call.app.doors, service))
}

/// `service.delete`
pub async fn delete(call: Call, request: ServiceDeleteRequest) -> Result<ServiceView, ApiError> {
    let (by, at) = (call.actor(), now());
    let mut last = None;
    call.app
        .hub
        .decide(|view| {
            let service = find(&call, view, &request.name, request.namespace.as_deref())?;
            if let Some(deployment) = &service.deployment
                && !request.force
            {
                let message = format!("{deployment} is under way for '{}'", request.name);
                return Err(ApiError::conflict(message).hint("wait for it, or delete the service with --force"));
            }
            last = Some(deploy::service_view(view, &call.app.doors, service));
            let mut draft = Draft::new();
            draft.delete_service(service);
            for member in &service.members {
                if let Some(workload) = view.workload(&member.workload)
                    && let Some(step) = lifecycle::cancel(workload, None, &by, at)
                {
                    draft.step(workload, step);
                }
            }
            Ok(Some(draft))
        })
        .await?;
    last.ok_or_else(|| ApiError::internal("no service was deleted"))
}
