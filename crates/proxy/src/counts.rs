//! What was served, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::latency::{BUCKETS, bucket_of};

/// What a group of a route did since the counts were last taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// The route.
    pub key: String,
    /// The group. `None`: what came to no group, because the request was refused or there was no endpoint.
    pub group: Option<String>,
    /// HTTP requests whose answer began, or to which there was none.
    pub requests: u64,
    /// TCP connections that were passed on, or that couldn't be.
    pub connections: u64,
    /// Of both, those that failed: status 5xx, no answer, an answer that broke off, no connection to an endpoint. Each
    /// counts once.
    pub errors: u64,
    /// Requests whose client went away before it had the whole answer. No errors; those that left before the answer began
    /// are among `requests` too.
    pub aborted: u64,
    /// Endpoints that couldn't be connected to. The request then went elsewhere, so that this needn't be anybody's error.
    pub connect_failures: u64,
    /// Bytes of requests' bodies, and what TCP clients and clients of upgraded connections sent.
    pub bytes_in: u64,
    /// Bytes of answers' bodies, and what endpoints sent on such connections.
    pub bytes_out: u64,
    /// How many answers began how long after their request had come, by [bucket](crate::bucket_bound). Waiting for an
    /// endpoint is part of it. Requests without an answer have no sample, nor have connections.
    pub latency: Vec<u64>,
}

/// What goes on at a route now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The route.
    pub key: String,
    /// Requests (and TCP connections) that wait because there is no endpoint that can be reached.
    pub waiting: usize,
    /// Requests at endpoints, TCP connections and upgraded connections, those at endpoints that left included.
    pub in_flight: usize,
    /// Clients' connections, idle ones too.
    pub connections: usize,
}

/// The counters of a group.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The group's name; `None`: no group.
    pub name: Option<String>,
    pub requests: AtomicU64,
    pub connections: AtomicU64,
    pub errors: AtomicU64,
    pub aborted: AtomicU64,
    pub connect_failures: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

impl Meter {
    pub fn new(name: Option<String>) -> Self {
        Meter {
            name,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            latency: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    pub fn latency(&self, nanos: u64) {
        add(&self.latency[bucket_of(nanos)], 1);
    }

    /// What was counted since the last call; `None`: nothing.
    pub fn take(&self, key: &str) -> Option<Counts> {
        let take = |counter: &AtomicU64| counter.swap(0, Relaxed);
        let counts = Counts {
            key: key.to_owned(),
            group: self.name.clone(),
            requests: take(&self.requests),
            connections: take(&self.connections),
            errors: take(&self.errors),
            aborted: take(&self.aborted),
            connect_failures: take(&self.connect_failures),
            bytes_in: take(&self.bytes_in),
            bytes_out: take(&self.bytes_out),
            latency: self.latency.iter().map(take).collect(),
        };
        let numbers = [
            counts.requests,
            counts.connections,
            counts.errors,
            counts.aborted,
            counts.connect_failures,
            counts.bytes_in,
            counts.bytes_out,
        ];
        let any = numbers.iter().chain(&counts.latency).any(|&count| count > 0);
        any.then_some(counts)
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}
