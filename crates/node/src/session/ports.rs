//! Finds ports of this machine that nothing listens on.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    ops::RangeInclusive,
};

/// Where ports are looked for, first choice first: away from what the kernel gives to outgoing connections by default
/// (from 32768 on), and from what people choose by hand.
const RANGES: [RangeInclusive<u16>; 3] = [20_000..=32_767, 10_000..=19_999, 61_000..=65_535];

/// With fewer than so many ports a range is passed over.
const ENOUGH: usize = 1_000;

/// The ports that the kernel gives to outgoing connections: one of those may be gone at any moment.
const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Ports that somebody keeps for something else.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Goes round and round, so that a port that has become free isn't given away again soon: somebody may still send to
/// it what was meant for its last owner.
#[derive(Debug)]
pub(super) struct Finder {
    ports: Vec<u16>,
    next: usize,
}

impl Finder {
    /// As the machine is set up. `seed`: where it begins, so that agents of one machine rarely try the same.
    pub(super) fn new(seed: u64) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::of(&read(OUTGOING), &read(RESERVED), seed)
    }

    fn of(outgoing: &str, reserved: &str, seed: u64) -> Self {
        let mut bounds = outgoing.split_whitespace().map(str::parse::<u16>);
        let outgoing = match (bounds.next(), bounds.next()) {
            (Some(Ok(low)), Some(Ok(high))) => Some(low..=high),
            _ => None,
        };
        let reserved: Vec<RangeInclusive<u16>> = reserved.trim().split(',').filter_map(range).collect();
        let free = |avoid: bool| {
            let outgoing = outgoing.as_ref().filter(|_| avoid);
            let fits = |port: &u16| !outgoing.into_iter().chain(&reserved).any(|range| range.contains(port));
            let mut ranges = RANGES.map(|range| range.filter(fits).collect::<Vec<u16>>()).into_iter();
            ranges.find(|ports| ports.len() >= ENOUGH)
        };
        // Where the kernel gives away everything, there is nothing to avoid.
        let ports = free(true).or_else(|| free(false));
        let ports = ports.unwrap_or_else(|| RANGES[0].clone().collect());
        let next = usize::try_from(seed % ports.len() as u64).unwrap_or(0);
        Self { ports, next }
    }

    /// As many ports that nothing listens on, none of them in `taken`. `None`: there aren't so many.
    pub(super) fn find(&mut self, count: usize, taken: &BTreeSet<u16>) -> Option<Vec<u16>> {
        self.find_with(count, taken, free)
    }

    fn find_with(&mut self, count: usize, taken: &BTreeSet<u16>, free: impl Fn(u16) -> bool) -> Option<Vec<u16>> {
        let mut found = Vec::with_capacity(count);
        for _ in 0..self.ports.len() {
            if found.len() == count {
                break;
            }
            let port = self.ports[self.next];
            self.next = (self.next + 1) % self.ports.len();
            if !taken.contains(&port) && free(port) {
                found.push(port);
            }
        }
        (found.len() == count).then_some(found)
    }
}

/// `8080` or `9000-9010`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    Some(low.trim().parse().ok()?..=high.trim().parse().ok()?)
}

/// Whether nothing listens on a port at any address of this machine.
fn free(port: u16) -> bool {
    let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let taken = |kind| matches!(kind, ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
    // A machine without IPv6 answers otherwise.
    all.iter().all(|address| {
        let tcp = TcpListener::bind((*address, port)).map(drop);
        let udp = UdpSocket::bind((*address, port)).map(drop);
        [tcp, udp]
            .iter()
            .all(|bound| !bound.as_ref().is_err_and(|error| taken(error.kind())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_kept_apart_from_the_kernels_and_the_reserved() {
        let usual = Finder::of("32768\t60999\n", "20000,20010-20019\n", 0);
        assert_eq!((usual.ports[0], usual.ports.len()), (20_001, 12_768 - 11));
        let wide = Finder::of("15000 65000", "\n", 0);
        assert_eq!((wide.ports.first(), wide.ports.last()), (Some(&10_000), Some(&14_999)));
        for all in ["1024 65535", "", "nonsense"] {
            assert_eq!(Finder::of(all, "", 0).ports.len(), 12_768, "{all}");
        }
    }

    #[test]
    fn none_is_found_twice_before_all_were() {
        let mut finder = Finder {
            ports: (1..=10).collect(),
            next: 7,
        };
        let taken = BTreeSet::from([9]);
        assert_eq!(finder.find_with(3, &taken, |port| port != 1), Some(vec![8, 10, 2]));
        assert_eq!(
            finder.find_with(7, &BTreeSet::new(), |_| true),
            Some(vec![3, 4, 5, 6, 7, 8, 9])
        );
        assert_eq!(finder.find_with(10, &taken, |_| true), None);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            assert!(!free(listener.local_addr().unwrap().port()), "{address}");
            let socket = UdpSocket::bind(address).unwrap();
            assert!(!free(socket.local_addr().unwrap().port()), "{address}, UDP");
        }
        let mut finder = Finder::new(1);
        let found = finder.find(3, &BTreeSet::new()).unwrap();
        let held: Vec<TcpListener> = found
            .iter()
            .filter_map(|port| TcpListener::bind(("127.0.0.1", *port)).ok())
            .collect();
        assert!(held.iter().all(|listener| !free(listener.local_addr().unwrap().port())));
    }
}
