//! What a caller says of a route.

use std::net::SocketAddr;

/// How an address is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 (from its first byte: "prior knowledge") in the clear; each request goes its own way.
    Http,
    /// Bytes; each connection goes its own way.
    Tcp,
}

/// An address and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where clients connect. Port 0: one that the kernel chooses, kept for as long as the route asks for port 0.
    pub listen: SocketAddr,
    /// How it is served.
    pub protocol: Protocol,
    /// Among which requests (or connections) are divided by weight.
    pub groups: Vec<Group>,
}

/// Endpoints that are the same: a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name in [`Counts`](crate::Counts). Groups of one name are counted as one.
    pub name: String,
    /// Its share: this out of the sum of all weights of groups that have endpoints. 0: none, ever.
    ///
    /// Shares are exact, not likely: of any 100 requests in a row, weights of 10 and 90 get 10 and 90.
    pub weight: u32,
    /// The replicas that are ready.
    pub endpoints: Vec<Endpoint>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Its name for [`Proxy::in_flight`](crate::Proxy::in_flight).
    pub id: String,
    /// Where it answers.
    pub address: SocketAddr,
}
