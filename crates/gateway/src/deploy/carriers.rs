//! Agents that carry services beside the gateway: what each was told, and what it says.
//!
//! A replica may be stopped once nobody sends it requests. Of an agent that is known when it has said that the routes
//! without the replica are in force ([`Traffic::generation`]) and that nothing of it is under way. One that is away is
//! waited for as long as it may only have lost its connection ([`AWAY`]).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{
    NodeName, WorkloadId,
    wire::{Routes, ServiceCounts, ServiceRoute, ToNode, Traffic},
};
use tokio::sync::{Notify, mpsc};

use super::way::{self, Way};

/// For so long an agent without a session is taken to pass requests on. As long as a node may be silent before it is
/// unreachable, and as a replica is given at most to answer what it has.
const AWAY: Duration = Duration::from_secs(30);

/// The session of an agent that carries services.
#[derive(Debug)]
pub struct Link {
    /// Counts sessions of this gateway's life.
    pub number: u64,
    /// Where the node calls from.
    pub address: IpAddr,
    /// Where it listens.
    pub listen: IpAddr,
    /// Messages to the node.
    pub send: mpsc::Sender<ToNode>,
    /// Ends the session.
    pub end: Arc<Notify>,
}

/// How a service is carried by a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Which node.
    pub node: NodeName,
    /// Where it listens, without the port.
    pub listen: IpAddr,
    /// Why it can't listen there. `None`: it does.
    pub closed: Option<String>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Carriers {
    nodes: BTreeMap<NodeName, Node>,
    /// Counts that nobody took yet.
    counted: Vec<ServiceCounts>,
}

#[derive(Debug)]
struct Node {
    link: Result<Link, Instant>,
    /// Number of the last message.
    generation: u64,
    /// What it was told of each service, and by which message; `None`: that it is no more.
    told: HashMap<String, (u64, Option<ServiceRoute>)>,
    said: Traffic,
    /// Run and number of the last counts.
    counted: Option<(u64, u64)>,
}

impl Node {
    fn away(since: Instant) -> Self {
        Self {
            link: Err(since),
            generation: 0,
            told: HashMap::new(),
            said: Traffic::default(),
            counted: None,
        }
    }

    /// Says something to it; one that doesn't read begins anew.
    fn say(&mut self, routes: Routes) {
        let Ok(link) = &self.link else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = link.send.try_send(ToNode::Routes(routes)) {
            link.end.notify_one();
        }
    }

    fn tell(&mut self, name: &NodeName, key: &str, way: Option<&Way>) {
        let Ok(link) = &self.link else { return };
        let address = link.address;
        let route = way.map(|way| way.at(way::Carrier { node: name, address }));
        if self.told.get(key).map(|(_, told)| told.as_ref()) == Some(route.as_ref())
            || (route.is_none() && !self.told.contains_key(key))
        {
            return;
        }
        self.generation += 1;
        self.told.insert(key.to_owned(), (self.generation, route.clone()));
        self.say(Routes {
            generation: self.generation,
            whole: false,
            remove: if route.is_none() {
                vec![key.to_owned()]
            } else {
                Vec::new()
            },
            put: route.into_iter().collect(),
        });
    }

    /// Requests of a replica that are under way here. `unsure`: how many it counts as that this node may send it more.
    fn in_flight(&self, key: &str, replica: &WorkloadId, unsure: u64) -> u64 {
        let load = self.said.loads.iter().find(|load| load.service == key);
        let of = |load: &api::wire::ServiceLoad| load.in_flight.iter().find(|(w, _)| w == replica).map(|(_, n)| *n);
        let known = load.and_then(of).unwrap_or(0);
        let leads = |route: &ServiceRoute| {
            let mut endpoints = route.groups.iter().flat_map(|g| &g.endpoints);
            endpoints.any(|e| e.workload == *replica)
        };
        let sure = match (&self.link, self.told.get(key)) {
            (Err(since), _) if since.elapsed() >= AWAY => return 0,
            (Err(_), _) => false,
            // Of a service that it was never told, it knows nothing.
            (Ok(_), None) => true,
            (Ok(_), Some((at, route))) => self.said.generation >= *at || route.as_ref().is_some_and(leads),
        };
        if sure { known } else { known.max(unsure) }
    }
}

impl Carriers {
    /// A node that carried services when this gateway began: it may still do so.
    pub fn expect(&mut self, node: NodeName) {
        self.nodes.entry(node).or_insert_with(|| Node::away(Instant::now()));
    }

    /// A session begins: the node is told everything.
    pub fn begin<'a>(&mut self, name: NodeName, link: Link, ways: impl Iterator<Item = &'a Way>) {
        let carrier = way::Carrier {
            node: &name,
            address: link.address,
        };
        let put: Vec<ServiceRoute> = ways.map(|way| way.at(carrier)).collect();
        let node = self.nodes.entry(name).or_insert_with(|| Node::away(Instant::now()));
        node.link = Ok(link);
        node.generation = 1;
        node.told = put.iter().map(|r| (r.service.clone(), (1, Some(r.clone())))).collect();
        node.said = Traffic::default();
        node.say(Routes {
            generation: 1,
            whole: true,
            put,
            remove: Vec::new(),
        });
    }

    /// A session ends.
    pub fn end(&mut self, name: &NodeName, session: u64) {
        if let Some(node) = self.nodes.get_mut(name)
            && node.link.as_ref().is_ok_and(|link| link.number == session)
        {
            node.link = Err(Instant::now());
        }
        let gone = |node: &Node| node.link.as_ref().is_err_and(|since| since.elapsed() >= AWAY);
        self.nodes.retain(|_, node| !gone(node));
    }

    /// Tells everybody what a service is now. `None`: it is no more.
    pub fn tell(&mut self, key: &str, way: Option<&Way>) {
        for (name, node) in &mut self.nodes {
            node.tell(name, key, way);
        }
    }

    /// A node says what it does; answers what is to be acknowledged.
    pub fn heard(&mut self, name: &NodeName, session: u64, mut traffic: Traffic) -> Option<u64> {
        let node = self.nodes.get_mut(name)?;
        if node.link.as_ref().is_ok_and(|link| link.number != session) {
            return None;
        }
        let counted = traffic.counted.take();
        let confirmed = traffic.generation;
        // What it was told that is no more is forgotten when it has been heard.
        node.told.retain(|_, (at, route)| route.is_some() || *at > confirmed);
        node.said = traffic;
        let counted = counted?;
        let new = node
            .counted
            .is_none_or(|(run, number)| run != counted.run || number < counted.number);
        if new {
            node.counted = Some((counted.run, counted.number));
            self.counted.extend(counted.counts);
        }
        Some(counted.number)
    }

    /// What was counted since the last call.
    pub fn take_counts(&mut self) -> Vec<ServiceCounts> {
        std::mem::take(&mut self.counted)
    }

    /// Requests of a replica that are under way at nodes, as they say.
    #[must_use]
    pub fn in_flight(&self, key: &str, replica: &WorkloadId) -> u64 {
        self.nodes.values().map(|node| node.in_flight(key, replica, 0)).sum()
    }

    /// The same, and one for each node that may still send it more.
    #[must_use]
    pub fn pending(&self, key: &str, replica: &WorkloadId) -> u64 {
        self.nodes.values().map(|node| node.in_flight(key, replica, 1)).sum()
    }

    /// Requests and connections of a service that are under way at nodes, or wait there.
    #[must_use]
    pub fn busy(&self, key: &str) -> u64 {
        let loads = self.nodes.values().flat_map(|node| &node.said.loads);
        let loads = loads.filter(|load| load.service == key);
        loads
            .map(|load| load.waiting + load.in_flight.iter().map(|(_, n)| n).sum::<u64>())
            .sum()
    }

    /// Which nodes carry a service now.
    #[must_use]
    pub fn carried(&self, key: &str) -> Vec<Carried> {
        let carries = |(name, node): (&NodeName, &Node)| {
            let (at, route) = node.told.get(key)?;
            let link = node.link.as_ref().ok()?;
            let closed = node.said.closed.iter().find(|(service, _)| service == key);
            (route.is_some() && *at <= node.said.generation).then(|| Carried {
                node: name.clone(),
                listen: link.listen,
                closed: closed.map(|(_, why)| why.clone()),
            })
        };
        self.nodes.iter().filter_map(carries).collect()
    }
}

#[cfg(test)]
mod tests {
    use api::wire::{Counted, RouteEndpoint, RouteGroup, ServiceLoad};

    use super::*;

    const KEY: &str = "default/api";

    struct Desk {
        carriers: Carriers,
        heard: mpsc::Receiver<ToNode>,
        end: Arc<Notify>,
    }

    fn name() -> NodeName {
        NodeName::new("one")
    }

    fn link(session: u64, room: usize) -> (Link, mpsc::Receiver<ToNode>, Arc<Notify>) {
        let (send, heard) = mpsc::channel(room);
        let end = Arc::new(Notify::new());
        let link = Link {
            number: session,
            address: [10, 0, 0, 1].into(),
            listen: [127, 0, 0, 1].into(),
            send,
            end: Arc::clone(&end),
        };
        (link, heard, end)
    }

    /// One node, told of a service with these replicas.
    fn desk(room: usize, replicas: &[(&str, &str, &str)]) -> Desk {
        let mut carriers = Carriers::default();
        let (link, heard, end) = link(1, room);
        carriers.begin(name(), link, std::iter::once(&way(replicas)));
        Desk { carriers, heard, end }
    }

    fn way(replicas: &[(&str, &str, &str)]) -> Way {
        Way::made(KEY, replicas)
    }

    impl Desk {
        fn routes(&mut self) -> Routes {
            match self.heard.try_recv().unwrap() {
                ToNode::Routes(routes) => routes,
                other => panic!("{other:?}"),
            }
        }

        fn says(&mut self, generation: u64, in_flight: &[(&str, u64)]) {
            let in_flight = in_flight.iter().map(|(id, n)| (WorkloadId::new(*id), *n)).collect();
            let load = ServiceLoad {
                service: KEY.to_owned(),
                waiting: 0,
                in_flight,
            };
            let traffic = Traffic {
                generation,
                loads: vec![load],
                ..Traffic::default()
            };
            assert_eq!(self.carriers.heard(&name(), 1, traffic), None);
        }

        fn pending(&self, replica: &str) -> u64 {
            self.carriers.pending(KEY, &WorkloadId::new(replica))
        }
    }

    #[test]
    fn a_replica_is_pending_until_the_node_has_said_that_nothing_leads_to_it_and_nothing_is_under_way() {
        let mut desk = desk(9, &[("wl-a", "one", "10.0.0.1:1"), ("wl-b", "two", "10.0.0.2:2")]);
        let first = desk.routes();
        assert!(first.whole && first.generation == 1);
        desk.says(1, &[("wl-a", 3)]);
        assert_eq!((desk.pending("wl-a"), desk.pending("wl-b")), (3, 0));
        desk.carriers.tell(KEY, Some(&way(&[("wl-a", "one", "10.0.0.1:1")])));
        assert_eq!(desk.routes().generation, 2);
        assert_eq!(desk.pending("wl-b"), 1, "the node may still send it requests");
        assert_eq!(
            desk.carriers.in_flight(KEY, &WorkloadId::new("wl-b")),
            0,
            "none is known of"
        );
        desk.says(2, &[("wl-b", 2)]);
        assert_eq!(desk.pending("wl-b"), 2);
        desk.says(2, &[]);
        assert_eq!(desk.pending("wl-b"), 0);
        desk.carriers.tell(KEY, None);
        let last = desk.routes();
        assert_eq!((last.put.len(), last.remove), (0, vec![KEY.to_owned()]));
        assert_eq!(desk.pending("wl-a"), 1);
        desk.says(3, &[]);
        assert_eq!(desk.pending("wl-a"), 0);
    }

    #[test]
    fn a_node_that_went_away_is_waited_for() {
        let mut desk = desk(9, &[("wl-a", "one", "10.0.0.1:1")]);
        desk.says(1, &[]);
        desk.carriers.end(&name(), 2);
        assert_eq!(desk.pending("wl-a"), 0, "another session's end");
        desk.carriers.end(&name(), 1);
        assert_eq!(desk.pending("wl-a"), 1);
        assert!(desk.carriers.carried(KEY).is_empty());
        // So is one of which this gateway only knows that it was there.
        let mut young = Carriers::default();
        young.expect(name());
        assert_eq!(young.pending(KEY, &WorkloadId::new("wl-a")), 1);
        let (link, _heard, _) = link(7, 9);
        young.begin(name(), link, std::iter::empty());
        assert_eq!(
            young.pending(KEY, &WorkloadId::new("wl-a")),
            0,
            "it was told everything that there is"
        );
    }

    #[test]
    fn what_is_told_is_what_the_node_reaches_and_only_when_it_changes() {
        let replicas = [
            ("wl-own", "one", "10.0.0.1:1"),
            ("wl-other", "two", "10.0.0.2:2"),
            ("wl-gateways", "three", "127.0.0.1:3"),
        ];
        let mut desk = desk(9, &replicas);
        let endpoint = |workload: &str, address: &str| RouteEndpoint {
            workload: WorkloadId::new(workload),
            address: address.parse().unwrap(),
        };
        let told = desk.routes().put;
        assert_eq!(
            told[0].groups,
            [RouteGroup {
                revision: 1,
                weight: 100,
                endpoints: vec![endpoint("wl-own", "127.0.0.1:1"), endpoint("wl-other", "10.0.0.2:2")],
            }]
        );
        desk.carriers.tell(KEY, Some(&way(&replicas)));
        desk.carriers.tell("default/none", None);
        assert!(desk.heard.try_recv().is_err());
    }

    #[test]
    fn counts_are_taken_once() {
        let mut desk = desk(9, &[]);
        let counts = |number| Traffic {
            counted: Some(Counted {
                run: 5,
                number,
                counts: vec![ServiceCounts {
                    service: KEY.to_owned(),
                    revision: 1,
                    requests: number,
                    errors: 0,
                    latency: Vec::new(),
                }],
            }),
            ..Traffic::default()
        };
        assert_eq!(desk.carriers.heard(&name(), 1, counts(1)), Some(1));
        // The acknowledgement was lost with the session.
        assert_eq!(desk.carriers.heard(&name(), 1, counts(1)), Some(1));
        assert_eq!(desk.carriers.heard(&name(), 1, counts(2)), Some(2));
        let taken: Vec<u64> = desk.carriers.take_counts().iter().map(|c| c.requests).collect();
        assert_eq!(taken, [1, 2]);
        assert!(desk.carriers.take_counts().is_empty());
    }

    #[tokio::test]
    async fn a_node_that_doesnt_read_begins_anew() {
        let mut desk = desk(1, &[]);
        desk.carriers.tell(KEY, Some(&way(&[("wl-a", "one", "10.0.0.1:1")])));
        desk.end.notified().await;
    }
}
