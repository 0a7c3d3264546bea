//! An endpoint as the proxy keeps it: what it is doing, whether it can be reached, and its idle connections.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock;
use crate::counts::Meter;
use crate::options::Options;
use crate::route::Endpoint;
use crate::upstream::{Link, Shared};

/// An endpoint. It outlives its place in the route for as long as something is in flight to it.
pub struct Target {
    pub endpoint: Endpoint,
    /// Raised only under the guard of the route's choice, and so never after the endpoint has left.
    in_flight: AtomicUsize,
    /// How many wait for `in_flight` to be 0.
    watchers: AtomicUsize,
    idle: Notify,
    /// Failures to connect, one after the other.
    failures: AtomicU32,
    /// Until when it is passed over, by [`clock::now`]; 0: it isn't.
    ejected_until: AtomicU64,
    pool: Mutex<Pool>,
    /// The one HTTP/2 connection; its guard is held while connecting, so that there is one.
    pub shared: tokio::sync::Mutex<Option<Shared>>,
}

/// Connections that wait for a request; the last one in is the first one out, so that those too many grow old.
#[derive(Default)]
struct Pool {
    #[expect(clippy::vec_box, reason = "they come and go with each request, and are large")]
    links: Vec<Box<Link>>,
    /// The endpoint has left its route.
    closed: bool,
}

impl Target {
    pub fn new(endpoint: Endpoint) -> Self {
        Target {
            endpoint,
            in_flight: AtomicUsize::new(0),
            watchers: AtomicUsize::new(0),
            idle: Notify::new(),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            pool: Mutex::default(),
            shared: tokio::sync::Mutex::new(None),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    /// Ends when nothing is in flight.
    pub async fn drained(&self) {
        // Counted before the look, so that whoever leaves last either sees this watcher or is seen by it.
        self.watchers.fetch_add(1, SeqCst);
        let _watching = Watching(self);
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }

    pub fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until.load(Relaxed) > now
    }

    /// Notes that it couldn't be connected to; answers until when it is passed over.
    pub fn failed(&self, options: &Options) -> u64 {
        let failures = self.failures.fetch_add(1, Relaxed).min(16);
        let pause = options.eject_min.saturating_mul(1 << failures).min(options.eject_max);
        let until = clock::now().saturating_add(clock::nanos(pause));
        self.ejected_until.store(until, Relaxed);
        until
    }

    /// Notes that it was connected to.
    pub fn reached(&self) {
        self.failures.store(0, Relaxed);
        self.ejected_until.store(0, Relaxed);
    }

    /// An idle connection that is still open.
    pub fn checkout(&self) -> Option<Box<Link>> {
        loop {
            let mut link = self.pool().links.pop()?;
            // Outside of the guard: it may be a system call.
            if link.is_usable() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection that has finished its exchange.
    pub fn checkin(&self, link: Box<Link>, pool_max: usize) {
        let mut pool = self.pool();
        if !pool.closed && pool.links.len() < pool_max {
            pool.links.push(link);
        }
    }

    /// Drops idle connections that are older than asked, or closed.
    pub fn sweep(&self, now: u64, idle_max: u64) {
        let old = std::mem::take(&mut self.pool().links);
        if old.is_empty() {
            return;
        }
        let kept: Vec<_> = old
            .into_iter()
            .filter_map(|mut link| (now.saturating_sub(link.idle_since) < idle_max && link.is_usable()).then_some(link))
            .collect();
        let mut pool = self.pool();
        if !pool.closed {
            // What came meanwhile is younger.
            let younger = std::mem::replace(&mut pool.links, kept);
            pool.links.extend(younger);
        }
    }

    /// The endpoint left its route: no idle connection stays, and none comes back.
    pub fn close(&self) {
        let links = {
            let mut pool = self.pool();
            pool.closed = true;
            std::mem::take(&mut pool.links)
        };
        drop(links);
        // Whoever holds the guard has a request in flight; the connection then ends with the last of them, and this.
        if let Ok(mut shared) = self.shared.try_lock() {
            *shared = None;
        }
    }

    /// The endpoint is back in its route.
    pub fn reopen(&self) {
        self.pool().closed = false;
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("endpoint", &self.endpoint)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

struct Watching<'a>(&'a Target);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, SeqCst);
    }
}

/// A place at an endpoint: in flight until it is dropped.
#[derive(Debug)]
pub struct Lease {
    pub target: Arc<Target>,
    pub meter: Arc<Meter>,
}

impl Lease {
    /// Takes a place. Only under the guard of the route's choice.
    pub fn take(target: &Arc<Target>, meter: &Arc<Meter>) -> Self {
        target.in_flight.fetch_add(1, SeqCst);
        Lease {
            target: Arc::clone(target),
            meter: Arc::clone(meter),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let before = self.target.in_flight.fetch_sub(1, SeqCst);
        if before == 1 && self.target.watchers.load(SeqCst) > 0 {
            self.target.idle.notify_waiters();
        }
    }
}
