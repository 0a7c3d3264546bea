//! Where services are reached: each has a port of the gateway, behind which the proxy leads to ready replicas.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{
    ApiError, WorkloadId,
    deploy::{Service, ServiceProtocol},
    workload::{MemberState, Workload},
};
use proxy::{Counts, Endpoint, Group, Protocol, Proxy, Route};

use super::seen;
use crate::{
    live::Nodes,
    view::{ServiceName, View},
};

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

/// The proxy, and what it was told.
pub struct Doors {
    proxy: Proxy,
    live: Arc<Nodes>,
    listen: IpAddr,
    /// What callers are told as the host.
    host: String,
    ports: RangeInclusive<u16>,
    told: Mutex<HashMap<ServiceName, Told>>,
}

/// What is known of a service's door.
#[derive(Default)]
struct Told {
    route: Option<Route>,
    /// Why it couldn't be opened. `None`: it is open, or there is none.
    failed: Option<String>,
    /// What the autoscaler decided last.
    scaling: Option<String>,
}

/// Its key at the proxy.
fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl Doors {
    /// Doors of a gateway that listens on `gateway`.
    #[must_use]
    pub fn new(options: &Options, gateway: SocketAddr, live: Arc<Nodes>) -> Self {
        let listen = options.listen.unwrap_or(gateway.ip());
        let host = if listen.is_unspecified() {
            // Every address of the machine: its name is one that others may know.
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            match listen {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            }
        };
        Self {
            proxy: Proxy::new(proxy::Options::default()),
            live,
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

    /// Tells the proxy what a service is now. When this has returned, nothing new goes to a replica that isn't in it.
    pub fn tell(&self, view: &View, name: &ServiceName) {
        let service = view.service(name);
        let route = service.and_then(|service| self.route(view, service));
        let key = key(&name.0, &name.1);
        let mut told = self.told();
        let Some(route) = route else {
            if told.get(name).is_some_and(|t| t.route.is_some()) {
                let proxy = self.proxy.clone();
                tokio::spawn(async move { proxy.remove(&key).await });
            }
            match service {
                Some(_) => told.entry(name.clone()).or_default().route = None,
                None => {
                    told.remove(name);
                }
            }
            return;
        };
        let entry = told.entry(name.clone()).or_default();
        if entry.route.as_ref() == Some(&route) {
            return;
        }
        match self.proxy.set(&key, &route) {
            Ok(_) => {
                entry.route = Some(route);
                entry.failed = None;
            }
            Err(error) => {
                if entry.failed.is_none() {
                    tracing::error!(%error, service = key, "a service's port can't be opened");
                }
                entry.route = None;
                entry.failed = Some(error.to_string());
            }
        }
    }

    fn route(&self, view: &View, service: &Service) -> Option<Route> {
        let port = service.port.as_ref()?;
        let mut groups: BTreeMap<u32, Vec<Endpoint>> = BTreeMap::new();
        for member in &service.members {
            let endpoints = groups.entry(member.revision).or_default();
            if member.retiring.is_some() || !seen::ready(view, &member.workload) {
                continue;
            }
            let Some(workload) = view.workload(&member.workload) else {
                continue;
            };
            if let Some(address) = self.endpoint(service, workload) {
                endpoints.push(Endpoint {
                    id: member.workload.to_string(),
                    address,
                });
            }
        }
        let groups = groups.into_iter().map(|(revision, endpoints)| Group {
            name: revision.to_string(),
            weight: service.weights.get(&revision).copied().unwrap_or(0),
            endpoints,
        });
        Some(Route {
            listen: SocketAddr::new(self.listen, port.port),
            protocol: match port.protocol {
                ServiceProtocol::Http => Protocol::Http,
                ServiceProtocol::Tcp => Protocol::Tcp,
            },
            groups: groups.collect(),
        })
    }

    /// Where a replica listens, as the gateway reaches it. `None`: it doesn't run, or its node isn't connected.
    #[must_use]
    pub fn endpoint(&self, service: &Service, workload: &Workload) -> Option<SocketAddr> {
        service.port.as_ref()?;
        let member = workload.members.first()?;
        let MemberState::Running { endpoints, .. } = &member.state else {
            return None;
        };
        // The first that its own revision declares: revisions may declare different ones.
        let endpoint = endpoints.first()?;
        let ip = match self.live.address(&member.node)? {
            // Replicas of this machine listen on 127.0.0.1, whichever way their agent came.
            ip if ip.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        Some(SocketAddr::new(ip, endpoint.host_port))
    }

    /// Requests and connections that a replica is busy with.
    #[must_use]
    pub fn in_flight(&self, service: &Service, replica: &WorkloadId) -> u64 {
        let key = key(&service.namespace, &service.name);
        self.proxy.in_flight(&key, replica.as_str()) as u64
    }

    /// Requests and connections of a service that are under way, or wait for a replica.
    #[must_use]
    pub fn busy(&self, service: &Service) -> u64 {
        let key = key(&service.namespace, &service.name);
        let loads = self.proxy.loads();
        let mine = loads.iter().filter(|load| load.key == key);
        mine.map(|load| (load.waiting + load.in_flight) as u64).sum()
    }

    /// Where a service is reached. `None`: nowhere.
    #[must_use]
    pub fn address(&self, service: &Service) -> Option<String> {
        let port = service.port.as_ref()?;
        let scheme = match port.protocol {
            ServiceProtocol::Http => "http",
            ServiceProtocol::Tcp => "tcp",
        };
        Some(format!("{scheme}://{}:{}", self.host, port.port))
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

    /// What was counted since the last call.
    pub fn take_counts(&self) -> Vec<Counts> {
        self.proxy.take_counts()
    }

    /// The routes and groups that there are, as their counts name them.
    #[must_use]
    pub fn groups(&self) -> HashSet<(String, String)> {
        let told = self.told();
        let routes = told.iter().filter_map(|(name, t)| Some((name, t.route.as_ref()?)));
        routes
            .flat_map(|(name, route)| {
                let key = key(&name.0, &name.1);
                route.groups.iter().map(move |g| (key.clone(), g.name.clone()))
            })
            .collect()
    }
}
