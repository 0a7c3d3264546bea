//! Where services are reached: each has a port of the gateway, and of the nodes that carry services too, behind which a
//! proxy leads to ready replicas.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr, TcpListener},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{
    ApiError, NodeName, WorkloadId,
    deploy::{Service, ServiceProtocol},
    node::Reach,
    op::CarriedBy,
    wire::{ServiceCounts, Traffic},
};
use proxy::{Counts, Proxy, Route};

use super::{
    carriers::{Carriers, Link},
    way::Way,
};
use crate::view::{ServiceName, View};

/// Where services are reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where their ports listen. `None`: where the gateway does.
    pub listen: Option<IpAddr>,
    /// From which they get theirs.
    pub ports: RangeInclusive<u16>,
}

impl Default for Options {
    /// Below those that nodes give to replicas (from 20,000), and above what others are known by.
    fn default() -> Self {
        Self {
            listen: None,
            ports: 10_000..=10_999,
        }
    }
}

/// The proxy, the nodes that carry services, and what they were told.
pub struct Doors {
    proxy: Proxy,
    carriers: Mutex<Carriers>,
    listen: IpAddr,
    /// What callers are told as the host.
    host: String,
    ports: RangeInclusive<u16>,
    told: Mutex<HashMap<ServiceName, Told>>,
}

/// What is known of a service's door.
#[derive(Default)]
struct Told {
    way: Option<Way>,
    /// Why it couldn't be opened here. `None`: it is open, or there is none.
    failed: Option<String>,
    /// What the autoscaler decided last.
    scaling: Option<String>,
}

/// Its key at the proxy.
fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl Doors {
    /// Doors of a gateway that listens on `gateway`. Nodes that carried services before it began may still do so.
    #[must_use]
    pub fn new(options: &Options, gateway: SocketAddr, view: &View) -> Self {
        let listen = options.listen.unwrap_or(gateway.ip());
        let host = host(listen, &rustix::system::uname().nodename().to_string_lossy());
        let mut carriers = Carriers::default();
        let known = view.nodes().filter(|node| node.services.is_some());
        for node in known.filter(|node| node.reach == Reach::Online) {
            carriers.expect(node.name.clone());
        }
        Self {
            proxy: Proxy::new(proxy::Options::default()),
            carriers: Mutex::new(carriers),
            listen,
            host,
            ports: options.ports.clone(),
            told: Mutex::default(),
        }
    }

    fn told(&self) -> MutexGuard<'_, HashMap<ServiceName, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A port for a new service: one that no service has, and that is free now.
    ///
    /// # Errors
    /// `CONFLICT`: all are taken.
    pub fn free_port(&self, view: &View) -> Result<u16, ApiError> {
        let taken: HashSet<u16> = view
            .services()
            .filter_map(|s| s.port.as_ref().map(|p| p.port))
            .collect();
        self.ports
            .clone()
            .find(|port| !taken.contains(port) && TcpListener::bind((self.listen, *port)).is_ok())
            .ok_or_else(|| {
                let message = format!(
                    "all ports of services are taken: {} to {}",
                    self.ports.start(),
                    self.ports.end()
                );
                ApiError::conflict(message).hint("start the gateway with a larger range: --service-ports")
            })
    }

    fn carriers(&self) -> MutexGuard<'_, Carriers> {
        self.carriers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the proxy and the nodes what a service is now. When this has returned, nothing new goes to a replica that isn't
    /// in it, but from nodes that have yet to confirm it: see [`pending`](Self::pending).
    pub fn tell(&self, view: &View, name: &ServiceName) {
        let service = view.service(name);
        let key = key(&name.0, &name.1);
        let way = service.and_then(|service| Way::of(view, service, key.clone()));
        let mut told = self.told();
        let Some(way) = way else {
            if told.get(name).is_some_and(|t| t.way.is_some() || t.failed.is_some()) {
                self.carriers().tell(&key, None);
                tokio::spawn(self.proxy.remove(&key));
            }
            match service {
                Some(_) => {
                    let entry = told.entry(name.clone()).or_default();
                    (entry.way, entry.failed) = (None, None);
                }
                None => {
                    told.remove(name);
                }
            }
            return;
        };
        let entry = told.entry(name.clone()).or_default();
        let known = entry.way.as_ref() == Some(&way);
        if known && entry.failed.is_none() {
            return;
        }
        match self.proxy.set(&key, &Route::of(&way.here(), self.listen)) {
            Ok(_) => entry.failed = None,
            Err(error) => {
                if entry.failed.is_none() {
                    tracing::error!(%error, service = key, "a service's port can't be opened");
                }
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                entry.failed = Some(why);
            }
        }
        if !known {
            self.carriers().tell(&key, Some(&way));
            entry.way = Some(way);
        }
    }

    /// A node that carries services has begun a session: it is told all of them. It is waited for until the answer is
    /// dropped, and a little longer.
    #[must_use]
    pub fn carry(self: &Arc<Self>, node: NodeName, link: Link) -> Carrying {
        let told = self.told();
        let carrying = Carrying {
            doors: Arc::clone(self),
            session: link.number,
            node: node.clone(),
        };
        self.carriers()
            .begin(node, link, told.values().filter_map(|t| t.way.as_ref()));
        carrying
    }

    /// What a node says of the services that it carries; answers the number of the counts that are to be acknowledged.
    pub fn heard(&self, node: &NodeName, session: u64, traffic: Traffic) -> Option<u64> {
        self.carriers().heard(node, session, traffic)
    }

    /// Which nodes carry a service, and where.
    #[must_use]
    pub fn carried(&self, service: &Service) -> Vec<CarriedBy> {
        let carried = self.carriers().carried(&key(&service.namespace, &service.name));
        let shown = carried.into_iter().filter_map(|carried| {
            Some(CarriedBy {
                address: address(service, &host(carried.listen, carried.node.as_str()))?,
                node: carried.node,
                closed: carried.closed,
            })
        });
        shown.collect()
    }

    /// Requests and connections that a replica is busy with, as far as is known.
    #[must_use]
    pub fn in_flight(&self, service: &Service, replica: &WorkloadId) -> u64 {
        let key = key(&service.namespace, &service.name);
        self.proxy.in_flight(&key, replica.as_str()) as u64 + self.carriers().in_flight(&key, replica)
    }

    /// The same, and one for each node that may still send it more: 0 says that it may be stopped.
    #[must_use]
    pub fn pending(&self, service: &Service, replica: &WorkloadId) -> u64 {
        let key = key(&service.namespace, &service.name);
        self.proxy.in_flight(&key, replica.as_str()) as u64 + self.carriers().pending(&key, replica)
    }

    /// Requests and connections of a service that are under way, or wait for a replica.
    #[must_use]
    pub fn busy(&self, service: &Service) -> u64 {
        let key = key(&service.namespace, &service.name);
        let loads = self.proxy.loads();
        let mine = loads.iter().filter(|load| load.key == key);
        mine.map(|load| (load.waiting + load.in_flight) as u64).sum::<u64>() + self.carriers().busy(&key)
    }

    /// Where a service is reached. `None`: nowhere.
    #[must_use]
    pub fn address(&self, service: &Service) -> Option<String> {
        address(service, &self.host)
    }

    /// Why a service's port couldn't be opened. `None`: it is open, or there is none.
    #[must_use]
    pub fn failed(&self, name: &ServiceName) -> Option<String> {
        self.told().get(name).and_then(|t| t.failed.clone())
    }

    /// What the autoscaler decided last, and on what.
    #[must_use]
    pub fn scaling(&self, service: &Service) -> Option<String> {
        let name = (service.namespace.clone(), service.name.clone());
        self.told().get(&name).and_then(|t| t.scaling.clone())
    }

    /// Notes what the autoscaler decided.
    pub fn note_scaling(&self, name: &ServiceName, why: String) {
        self.told().entry(name.clone()).or_default().scaling = Some(why);
    }

    /// What was counted since the last call, here and at nodes.
    pub fn take_counts(&self) -> Vec<ServiceCounts> {
        let mut counts = self.carriers().take_counts();
        counts.extend(self.proxy.take_counts().iter().filter_map(Counts::told));
        counts
    }

    /// The services and revisions that there are, as their counts name them.
    #[must_use]
    pub fn groups(&self) -> HashSet<(String, u32)> {
        let told = self.told();
        let ways = told.values().filter_map(|t| t.way.as_ref());
        ways.flat_map(|way| way.revisions().map(|revision| (way.key.clone(), revision)))
            .collect()
    }
}

/// A node carries services for as long as this lives.
pub struct Carrying {
    doors: Arc<Doors>,
    node: NodeName,
    session: u64,
}

impl Drop for Carrying {
    fn drop(&mut self) {
        self.doors.carriers().end(&self.node, self.session);
    }
}

/// What callers are told as the host of one who listens there.
fn host(listen: IpAddr, name: &str) -> String {
    match listen {
        // Every address of the machine: its name is one that others may know.
        ip if ip.is_unspecified() => name.to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn address(service: &Service, host: &str) -> Option<String> {
    let port = service.port.as_ref()?;
    let scheme = match port.protocol {
        ServiceProtocol::Http => "http",
        ServiceProtocol::Tcp => "tcp",
    };
    Some(format!("{scheme}://{host}:{}", port.port))
}
