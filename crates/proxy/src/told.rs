//! Routes as nodes are told them, and counts as they tell them.

use std::net::{IpAddr, SocketAddr};

use api::{
    deploy::ServiceProtocol,
    wire::{ServiceCounts, ServiceRoute},
};

use crate::{
    counts::Counts,
    latency::BUCKETS,
    route::{Endpoint, Group, Protocol, Route},
};

impl Route {
    /// A service that is carried at an address of this machine.
    #[must_use]
    pub fn of(told: &ServiceRoute, listen: IpAddr) -> Self {
        let groups = told.groups.iter().map(|group| Group {
            name: group.revision.to_string(),
            weight: group.weight,
            endpoints: group
                .endpoints
                .iter()
                .map(|endpoint| Endpoint {
                    id: endpoint.workload.to_string(),
                    address: endpoint.address,
                })
                .collect(),
        });
        Self {
            listen: SocketAddr::new(listen, told.port),
            protocol: match told.protocol {
                ServiceProtocol::Http => Protocol::Http,
                ServiceProtocol::Tcp => Protocol::Tcp,
            },
            groups: groups.collect(),
        }
    }
}

impl Counts {
    /// What a revision of a service did. `None`: it is of no revision, or there were neither requests nor connections.
    #[must_use]
    pub fn told(&self) -> Option<ServiceCounts> {
        let revision = self.group.as_ref()?.parse().ok()?;
        let requests = self.requests + self.connections;
        let buckets = self.latency.iter().zip(0..).filter(|(hits, _)| **hits > 0);
        let counts = ServiceCounts {
            service: self.key.clone(),
            revision,
            requests,
            errors: self.errors,
            latency: buckets.map(|(hits, bucket)| (bucket, *hits)).collect(),
        };
        (requests > 0 || self.errors > 0 || !counts.latency.is_empty()).then_some(counts)
    }
}

/// A histogram of counts that were told, as [`quantile`](crate::quantile) wants it. What falls into no bucket is left out.
#[must_use]
pub fn histogram(told: &[(u16, u64)]) -> Vec<u64> {
    let mut buckets = vec![0; BUCKETS];
    for (bucket, hits) in told {
        if let Some(sum) = buckets.get_mut(usize::from(*bucket)) {
            *sum += hits;
        }
    }
    buckets
}
