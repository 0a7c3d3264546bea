//! Where a service's requests go, and what of it who carries the service can reach.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use api::{
    NodeName, WorkloadId,
    deploy::{Service, ServiceProtocol},
    node::Reach,
    wire::{RouteEndpoint, RouteGroup, ServiceRoute},
    workload::{MemberState, Workload},
};

use super::seen;
use crate::view::View;

/// A service's port, and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// `namespace/name`.
    pub key: String,
    port: u16,
    protocol: ServiceProtocol,
    /// By revision: its weight and its replicas that are ready.
    groups: BTreeMap<u32, (u32, Vec<Spot>)>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spot {
    workload: WorkloadId,
    node: NodeName,
    /// As the gateway reaches it.
    address: SocketAddr,
}

/// Who carries a service, beside the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Carrier<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// Where it calls from.
    pub address: IpAddr,
}

impl Way {
    /// As it is now. `None`: the service has no port.
    #[must_use]
    pub fn of(view: &View, service: &Service, key: String) -> Option<Self> {
        let port = service.port.as_ref()?;
        let mut groups: BTreeMap<u32, (u32, Vec<Spot>)> = BTreeMap::new();
        for member in &service.members {
            let weight = service.weights.get(&member.revision).copied().unwrap_or(0);
            let (_, spots) = groups.entry(member.revision).or_insert((weight, Vec::new()));
            if member.retiring.is_some() || !seen::ready(view, &member.workload) {
                continue;
            }
            if let Some(workload) = view.workload(&member.workload)
                && let Some((node, address)) = spot(view, service, workload)
            {
                spots.push(Spot {
                    workload: member.workload.clone(),
                    node: node.clone(),
                    address,
                });
            }
        }
        Some(Self {
            key,
            port: port.port,
            protocol: port.protocol,
            groups,
        })
    }

    /// A service of one revision with these replicas: workload, node, address.
    #[cfg(test)]
    pub fn made(key: &str, replicas: &[(&str, &str, &str)]) -> Self {
        let spots = replicas.iter().map(|(workload, node, address)| Spot {
            workload: WorkloadId::new(*workload),
            node: NodeName::new(*node),
            address: address.parse().unwrap(),
        });
        Self {
            key: key.to_owned(),
            port: 10_000,
            protocol: ServiceProtocol::Http,
            groups: BTreeMap::from([(1, (100, spots.collect()))]),
        }
    }

    /// For the gateway's own proxy.
    #[must_use]
    pub fn here(&self) -> ServiceRoute {
        self.route(|spot| Some(spot.address))
    }

    /// For a node. Replicas that only their own machine reaches are left out, unless it is that machine.
    #[must_use]
    pub fn at(&self, carrier: Carrier<'_>) -> ServiceRoute {
        let here = carrier.address.is_loopback();
        self.route(|spot| match spot.address.ip() {
            _ if spot.node == *carrier.node => Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), spot.address.port())),
            ip => (here || !ip.is_loopback()).then_some(spot.address),
        })
    }

    /// The revisions that have replicas, ready or not.
    pub fn revisions(&self) -> impl Iterator<Item = u32> {
        self.groups.keys().copied()
    }

    fn route(&self, reach: impl Fn(&Spot) -> Option<SocketAddr>) -> ServiceRoute {
        let endpoint = |spot: &Spot| {
            Some(RouteEndpoint {
                workload: spot.workload.clone(),
                address: reach(spot)?,
            })
        };
        let group = |(revision, (weight, spots)): (&u32, &(u32, Vec<Spot>))| RouteGroup {
            revision: *revision,
            weight: *weight,
            endpoints: spots.iter().filter_map(endpoint).collect(),
        };
        ServiceRoute {
            service: self.key.clone(),
            port: self.port,
            protocol: self.protocol,
            groups: self.groups.iter().map(group).collect(),
        }
    }
}

/// A replica's node, and where it listens as the gateway reaches it. `None`: it doesn't run, or nothing is heard of its
/// node.
#[must_use]
pub fn spot<'a>(view: &View, service: &Service, workload: &'a Workload) -> Option<(&'a NodeName, SocketAddr)> {
    service.port.as_ref()?;
    let member = workload.members.first()?;
    let MemberState::Running { endpoints, .. } = &member.state else {
        return None;
    };
    // The first that its own revision declares: revisions may declare different ones.
    let endpoint = endpoints.first()?;
    // An agent that is away for a moment takes nothing with it: what runs is reached where it was.
    let node = view.node(&member.node).filter(|node| node.reach == Reach::Online)?;
    let ip = match node.address? {
        // Replicas of this machine listen on 127.0.0.1, whichever way their agent came.
        ip if ip.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    Some((&member.node, SocketAddr::new(ip, endpoint.host_port)))
}
