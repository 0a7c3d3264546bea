//! What a deployment is planned on, and whether that is still so when it is written.

use api::{
    DeploymentId,
    deploy::{Deployment, Service},
};
use rollout::plan::Footing;

use crate::view::{ServiceName, Versioned, View};

/// What is there of a service or batch job at one moment.
pub struct Before {
    /// The service. `None`: there is none.
    pub service: Option<Versioned<Service>>,
    /// The deployment that is under way. `None`: none.
    pub under_way: Option<Versioned<Deployment>>,
    /// The deployment that began last, whether or not it has ended. `None`: none of those on record has begun.
    pub begun: Option<DeploymentId>,
}

impl Before {
    /// What is there of this name.
    #[must_use]
    pub fn look(view: &View, name: &ServiceName) -> Self {
        let service = view.service(name).cloned();
        let under_way = service.as_ref().and_then(|s| s.deployment.as_ref());
        let under_way = under_way.and_then(|id| view.deployment(id)).cloned();
        let begun = view.deployments_of(name).filter(|d| d.started_at.is_some());
        let begun = begun.max_by_key(|d| (d.started_at, &d.id)).map(|d| d.id.clone());
        Self {
            service,
            under_way,
            begun,
        }
    }

    /// Whether the same words come to the same plan on both. What differs may be what a rollout does at every step: replicas
    /// and weights.
    #[must_use]
    pub fn same_footing(&self, other: &Self) -> bool {
        let footing = |before: &Self| before.service.as_ref().map(|s| Footing::of(s));
        footing(self) == footing(other)
    }
}
