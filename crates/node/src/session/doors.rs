//! Services that this node carries: it listens at their ports, and leads requests to replicas wherever those run.
//!
//! What is carried is the gateway's word. It stays in force while the gateway is away, and is kept on disk for an agent
//! that starts meanwhile; but no longer than what runs here would run on: after that others may have the replicas' ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use api::{
    WorkloadId,
    wire::{Counted, Routes, ServiceCounts, ServiceLoad, ServiceRoute, Traffic},
};
use proxy::{Proxy, Route};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::clock;

/// How often is said what goes on, and is tried again what failed.
const EVERY: Duration = Duration::from_secs(1);
/// The same while a replica that was left still has requests: somebody waits to stop it.
const LEAVING: Duration = Duration::from_millis(100);
/// What was last carried, in the agent's folder.
const FILE: &str = "services.json";

/// What the agent tells of its gateway.
#[derive(Debug)]
pub(super) enum Told {
    /// A session begins.
    Up,
    /// It has ended.
    Down,
    /// Services to carry.
    Routes(Routes),
    /// Counts up to this number are counted.
    Acked(u64),
    /// The monotonic time, in milliseconds, until which the gateway's word holds.
    Lease(u64),
}

/// Carries services until the sender of `told` is dropped. `say` is called with what the gateway is to know; only while
/// there is a session.
pub(super) async fn carry(
    listen: IpAddr,
    data: PathBuf,
    run: u64,
    mut told: mpsc::UnboundedReceiver<Told>,
    say: impl Fn(Traffic),
) {
    let file = data.join(FILE);
    let mut doors = Doors::new(listen, run);
    match load(&file) {
        Ok(routes) => doors.replace(routes),
        Err(error) => tracing::warn!(%error, file = %file.display(), "which services were carried can't be read"),
    }
    let mut next = Instant::now() + EVERY;
    loop {
        let first = tokio::select! {
            told = told.recv() => match told {
                Some(told) => Some(told),
                None => return,
            },
            () = sleep_until(next) => None,
        };
        let mut news = first.is_none();
        let rest = std::iter::from_fn(|| told.try_recv().ok());
        for one in first.into_iter().chain(rest) {
            news |= doors.told(one);
        }
        if !news {
            continue;
        }
        doors.look(clock::now().mono_ms);
        if let Some(traffic) = doors.news() {
            say(traffic);
        }
        if std::mem::take(&mut doors.unsaved) {
            save(file.clone(), doors.table.values().cloned().collect()).await;
        }
        next = Instant::now() + if doors.leaving.is_empty() { EVERY } else { LEAVING };
    }
}

fn load(file: &Path) -> io::Result<Vec<ServiceRoute>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Writes what is carried; an agent that finds it torn or missing waits for the gateway.
async fn save(file: PathBuf, routes: Vec<ServiceRoute>) {
    let write = move || {
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&routes)?)?;
        std::fs::rename(&new, &file)
    };
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "which services are carried can't be written"),
        Err(error) => tracing::error!(%error, "which services are carried can't be written"),
    }
}

/// The proxy, and what it was told.
struct Doors {
    listen: IpAddr,
    proxy: Proxy,
    table: BTreeMap<String, ServiceRoute>,
    /// Services whose port isn't open, and why.
    closed: BTreeMap<String, String>,
    /// Replicas that services no longer lead to, and that may still have requests.
    leaving: BTreeSet<(String, WorkloadId)>,
    /// Of the session under way. `None`: there is none.
    generation: Option<u64>,
    /// Until when the table holds. `None`: for ever, as far as is known.
    lease_ms: Option<u64>,
    /// The lease is over: nothing is carried until somebody says something.
    over: bool,
    /// The table isn't on disk.
    unsaved: bool,
    tally: Tally,
    /// What was said last in this session, without its counts.
    said: Option<Traffic>,
}

impl Doors {
    fn new(listen: IpAddr, run: u64) -> Self {
        Self {
            listen,
            proxy: Proxy::new(proxy::Options::default()),
            table: BTreeMap::new(),
            closed: BTreeMap::new(),
            leaving: BTreeSet::new(),
            generation: None,
            lease_ms: None,
            over: false,
            unsaved: false,
            tally: Tally::new(run),
            said: None,
        }
    }

    /// Takes what the agent tells; whether that is to be looked at soon.
    fn told(&mut self, told: Told) -> bool {
        match told {
            Told::Up => {
                self.generation = Some(0);
                self.said = None;
                self.tally.begin();
                true
            }
            Told::Down => {
                self.generation = None;
                false
            }
            Told::Acked(number) => {
                self.tally.acked(number);
                false
            }
            Told::Lease(until_ms) => {
                self.lease_ms = Some(until_ms);
                std::mem::take(&mut self.over) && {
                    let table = std::mem::take(&mut self.table);
                    table.into_values().for_each(|route| self.put(route));
                    true
                }
            }
            Told::Routes(routes) => {
                if routes.whole {
                    self.replace(routes.put);
                } else {
                    routes.put.into_iter().for_each(|route| self.put(route));
                    routes.remove.iter().for_each(|service| self.remove(service));
                }
                if let Some(generation) = &mut self.generation {
                    *generation = routes.generation;
                }
                self.unsaved = true;
                true
            }
        }
    }

    fn replace(&mut self, routes: Vec<ServiceRoute>) {
        let stay: BTreeSet<&String> = routes.iter().map(|route| &route.service).collect();
        let go: Vec<String> = self.table.keys().filter(|key| !stay.contains(key)).cloned().collect();
        go.iter().for_each(|service| self.remove(service));
        routes.into_iter().for_each(|route| self.put(route));
    }

    fn put(&mut self, route: ServiceRoute) {
        let key = route.service.clone();
        if self.table.get(&key) != Some(&route) {
            self.leave(&key, Some(&route));
            self.table.insert(key.clone(), route);
            self.open(&key);
        }
    }

    fn remove(&mut self, service: &str) {
        self.leave(service, None);
        self.table.remove(service);
        self.shut(service);
    }

    fn shut(&mut self, service: &str) {
        self.closed.remove(service);
        tokio::spawn(self.proxy.remove(service));
    }

    /// Notes the replicas that the service leads to now, and not any more by this route.
    fn leave(&mut self, service: &str, route: Option<&ServiceRoute>) {
        let replicas = |route: &ServiceRoute| -> BTreeSet<WorkloadId> {
            let endpoints = route.groups.iter().flat_map(|group| &group.endpoints);
            endpoints.map(|endpoint| endpoint.workload.clone()).collect()
        };
        let old = self.table.get(service).map(replicas).unwrap_or_default();
        let new = route.map(replicas).unwrap_or_default();
        let gone = old
            .difference(&new)
            .map(|replica| (service.to_owned(), replica.clone()));
        self.leaving.extend(gone);
    }

    fn open(&mut self, service: &str) {
        let Some(route) = self.table.get(service).filter(|_| !self.over) else {
            return;
        };
        match self.proxy.set(service, &Route::of(route, self.listen)) {
            Ok(address) => {
                if self.closed.remove(service).is_some() {
                    tracing::info!(service, %address, "the service is carried");
                }
            }
            Err(error) => {
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                if self.closed.insert(service.to_owned(), why).is_none() {
                    tracing::warn!(service, %error, "the service can't be carried yet");
                }
            }
        }
    }

    /// Tries what failed again, counts, and gives up what may be wrong by now.
    fn look(&mut self, now_ms: u64) {
        if !self.over && self.lease_ms.is_some_and(|until| until <= now_ms) {
            tracing::warn!("the gateway was away for too long: no services are carried until it is back");
            self.over = true;
            let all: Vec<String> = self.table.keys().cloned().collect();
            all.iter().for_each(|service| self.shut(service));
        }
        let closed: Vec<String> = self.closed.keys().cloned().collect();
        closed.iter().for_each(|service| self.open(service));
        let proxy = &self.proxy;
        self.leaving
            .retain(|(service, replica)| proxy.in_flight(service, replica.as_str()) > 0);
        for counts in self.proxy.take_counts().iter().filter_map(proxy::Counts::told) {
            self.tally.add(counts);
        }
    }

    /// What is to be said to the gateway. `None`: nothing, or nobody listens.
    fn news(&mut self) -> Option<Traffic> {
        let traffic = Traffic {
            generation: self.generation?,
            loads: self.loads(),
            closed: self.closed.clone().into_iter().collect(),
            counted: None,
        };
        let counted = self.tally.next();
        if counted.is_none() && self.said.as_ref() == Some(&traffic) {
            return None;
        }
        self.said = Some(traffic.clone());
        Some(Traffic { counted, ..traffic })
    }

    fn loads(&self) -> Vec<ServiceLoad> {
        let mut loads = BTreeMap::new();
        let all = self.proxy.loads();
        for load in all.into_iter().filter(|load| load.waiting + load.in_flight > 0) {
            loads.insert(load.key, load.waiting as u64);
        }
        // Of a service that is gone the last requests may still be under way.
        for (service, _) in &self.leaving {
            loads.entry(service.clone()).or_default();
        }
        let load = |(service, waiting): (String, u64)| {
            let routed = self.table.get(&service).into_iter().flat_map(|route| &route.groups);
            let routed = routed.flat_map(|group| &group.endpoints).map(|e| &e.workload);
            let left = self.leaving.iter().filter(|(of, _)| *of == service).map(|(_, w)| w);
            let replicas: BTreeSet<&WorkloadId> = routed.chain(left).collect();
            let busy = replicas.into_iter().filter_map(|replica| {
                let requests = self.proxy.in_flight(&service, replica.as_str()) as u64;
                (requests > 0).then(|| (replica.clone(), requests))
            });
            ServiceLoad {
                in_flight: busy.collect(),
                service,
                waiting,
            }
        };
        loads.into_iter().map(load).collect()
    }
}

/// Counts on their way to the gateway: each is counted there once, however often sessions break.
struct Tally {
    run: u64,
    number: u64,
    /// Not yet on their way.
    gathered: BTreeMap<(String, u32), ServiceCounts>,
    /// On their way, and whether they were said in this session.
    sent: Option<(Counted, bool)>,
}

impl Tally {
    fn new(run: u64) -> Self {
        Self {
            run,
            number: 0,
            gathered: BTreeMap::new(),
            sent: None,
        }
    }

    fn add(&mut self, counts: ServiceCounts) {
        let key = (counts.service.clone(), counts.revision);
        let Some(sum) = self.gathered.get_mut(&key) else {
            self.gathered.insert(key, counts);
            return;
        };
        sum.requests += counts.requests;
        sum.errors += counts.errors;
        let mut latency: BTreeMap<u16, u64> = sum.latency.drain(..).collect();
        for (bucket, hits) in counts.latency {
            *latency.entry(bucket).or_default() += hits;
        }
        sum.latency = latency.into_iter().collect();
    }

    /// A session begins: what wasn't acknowledged is said again.
    fn begin(&mut self) {
        if let Some((_, said)) = &mut self.sent {
            *said = false;
        }
    }

    fn acked(&mut self, number: u64) {
        if self.sent.as_ref().is_some_and(|(counted, _)| counted.number <= number) {
            self.sent = None;
        }
    }

    /// What is to be said now.
    fn next(&mut self) -> Option<Counted> {
        if self.sent.is_none() && !self.gathered.is_empty() {
            self.number += 1;
            let counted = Counted {
                run: self.run,
                number: self.number,
                counts: std::mem::take(&mut self.gathered).into_values().collect(),
            };
            self.sent = Some((counted, false));
        }
        let (counted, said) = self.sent.as_mut().filter(|(_, said)| !said)?;
        *said = true;
        Some(counted.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(requests: u64, bucket: u16) -> ServiceCounts {
        ServiceCounts {
            service: "default/api".to_owned(),
            revision: 1,
            requests,
            errors: 1,
            latency: vec![(bucket, requests)],
        }
    }

    #[test]
    fn counts_are_said_until_they_are_acknowledged_and_never_changed_on_their_way() {
        let mut tally = Tally::new(7);
        assert_eq!(tally.next(), None);
        tally.add(counts(2, 3));
        tally.add(counts(5, 4));
        let first = tally.next().unwrap();
        assert_eq!((first.run, first.number), (7, 1));
        assert_eq!(
            first.counts,
            [ServiceCounts {
                requests: 7,
                errors: 2,
                latency: vec![(3, 2), (4, 5)],
                ..counts(0, 0)
            }]
        );
        // What comes meanwhile waits.
        tally.add(counts(1, 3));
        assert_eq!(tally.next(), None);
        tally.begin();
        assert_eq!(tally.next(), Some(first));
        tally.acked(0);
        tally.begin();
        assert_eq!(tally.next().unwrap().number, 1);
        tally.acked(1);
        let second = tally.next().unwrap();
        assert_eq!((second.number, second.counts), (2, vec![counts(1, 3)]));
    }

    fn route(workloads: &[&str]) -> ServiceRoute {
        use api::wire::{RouteEndpoint, RouteGroup};
        let endpoint = |id: &&str| RouteEndpoint {
            workload: WorkloadId::new(*id),
            address: "127.0.0.1:1".parse().unwrap(),
        };
        ServiceRoute {
            service: "default/api".to_owned(),
            port: 0,
            protocol: api::deploy::ServiceProtocol::Http,
            groups: vec![RouteGroup {
                revision: 1,
                weight: 100,
                endpoints: workloads.iter().map(endpoint).collect(),
            }],
        }
    }

    fn put(generation: u64, whole: bool, put: Vec<ServiceRoute>) -> Told {
        Told::Routes(Routes {
            generation,
            whole,
            put,
            remove: Vec::new(),
        })
    }

    fn open(doors: &Doors) -> usize {
        doors.proxy.loads().len()
    }

    #[tokio::test]
    async fn what_is_carried_outlives_a_session_but_not_the_lease() {
        let mut doors = Doors::new("127.0.0.1".parse().unwrap(), 1);
        assert!(doors.told(Told::Up));
        assert!(doors.told(put(1, true, vec![route(&["wl-a"])])));
        doors.told(Told::Lease(1_000));
        doors.look(10);
        assert_eq!((open(&doors), doors.news().unwrap().generation), (1, 1));
        assert_eq!(doors.news(), None, "it was said");
        doors.told(Told::Down);
        doors.look(999);
        assert_eq!((open(&doors), doors.news()), (1, None));
        doors.look(1_000);
        tokio::task::yield_now().await;
        assert_eq!((open(&doors), doors.table.len()), (0, 1));
        // The gateway was merely away: it says so by the lease, before it says anything of services.
        assert!(doors.told(Told::Lease(5_000)));
        doors.look(1_001);
        assert_eq!(open(&doors), 1);
        doors.told(Told::Up);
        assert_eq!(
            doors.news().unwrap().generation,
            0,
            "of this session nothing is in force"
        );
        doors.told(put(1, true, Vec::new()));
        tokio::task::yield_now().await;
        assert_eq!((open(&doors), doors.news().unwrap().generation), (0, 1));
    }

    #[tokio::test]
    async fn what_was_carried_is_read_again_and_what_is_torn_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        assert_eq!(load(&file).unwrap(), []);
        save(file.clone(), vec![route(&["wl-a", "wl-b"])]).await;
        assert_eq!(load(&file).unwrap(), [route(&["wl-a", "wl-b"])]);
        std::fs::write(&file, "[{").unwrap();
        assert!(load(&file).is_err());
    }
}
