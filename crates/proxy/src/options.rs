//! What can be set of a proxy.

use std::time::Duration;

/// Limits and deadlines, the same for all routes of a proxy. The defaults suit services on one network.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a connection to an endpoint may take. 2 s: one lost SYN is sent again after 1 s.
    pub connect_timeout: Duration,
    /// How long a request (or a TCP connection) waits for an endpoint while there is none that can be reached. 5 s: a
    /// replica that restarts in place is often back, and most clients wait longer.
    pub endpoint_wait: Duration,
    /// How many wait so at once on a route; more are refused at once. 1,000: what waits holds a connection each.
    pub waiting_max: usize,
    /// How long an endpoint may take to begin its answer. 10 minutes: models think; it only frees what is stuck.
    pub answer_timeout: Duration,
    /// How long the head of a request may take from its first byte (the first one: from the connection on). 30 s.
    pub header_timeout: Duration,
    /// The most bytes of a request's head, at least 8 KiB. 64 KiB: the largest cookies and tokens fit well.
    pub header_bytes_max: usize,
    /// How long a client's connection may be without a request. 75 s: longer than common clients keep theirs (60 s), so
    /// that they close first and no request meets a closing connection.
    pub idle_timeout: Duration,
    /// How long an HTTP client may take nothing of its answer, or (over HTTP/1.1) send nothing of its request's body.
    /// 60 s, as nginx's `send_timeout` and `client_body_timeout`.
    pub stall_timeout: Duration,
    /// The most connections of a route; more wait in the kernel's queue. 10,000: some 20 KB of memory each.
    pub connections_max: usize,
    /// The most idle connections kept to an endpoint. 1,024.
    pub pool_max: usize,
    /// How long they are kept. 4 s: shorter than the 5 s after which uvicorn and Node.js close theirs, so that ours is
    /// closed first and no request meets a closing connection.
    pub pool_timeout: Duration,
    /// How long an endpoint that can't be reached is passed over, the first time; it doubles with each time after. 0.5 s.
    pub eject_min: Duration,
    /// The longest that an endpoint is passed over. 30 s.
    pub eject_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            connect_timeout: Duration::from_secs(2),
            endpoint_wait: Duration::from_secs(5),
            waiting_max: 1_000,
            answer_timeout: Duration::from_mins(10),
            header_timeout: Duration::from_secs(30),
            header_bytes_max: 64 * 1024,
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_mins(1),
            connections_max: 10_000,
            pool_max: 1_024,
            pool_timeout: Duration::from_secs(4),
            eject_min: Duration::from_millis(500),
            eject_max: Duration::from_secs(30),
        }
    }
}
