//! The face of the crate.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::counts::{Counts, Load};
use crate::line::Line;
use crate::listen::{self, BindError, Door};
use crate::options::Options;
use crate::route::Route;

/// Routes at work. Cheap to clone; all clones are the same proxy, which ends with the last of them.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    options: Arc<Options>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<String, Open>,
    /// Removed, but not done, or not yet counted.
    closed: Vec<Arc<Line>>,
}

struct Open {
    line: Arc<Line>,
    door: Door,
}

impl Proxy {
    /// A proxy without routes.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let pause = (options.pool_timeout / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let inner = Arc::new(Inner {
            options: Arc::new(options),
            state: Mutex::default(),
        });
        tokio::spawn(sweep(Arc::downgrade(&inner), pause));
        Proxy { inner }
    }

    /// Makes a route, or changes it in one step; answers where it listens.
    ///
    /// Requests that begin after this go by the new route alone, and those that wait for an endpoint look again. What is
    /// in flight goes on, at endpoints that left too: see [`drained`](Self::drained). Endpoints that stay (by id and
    /// address) keep their connections. A new listen address is bound before the old one is closed, so that a failure
    /// changes nothing; clients of the old one stay until they leave. With another protocol, HTTP clients are told to
    /// leave after the answer that they wait for.
    ///
    /// # Errors
    /// The address can't be listened on.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn set(&self, key: &str, route: &Route) -> Result<SocketAddr, BindError> {
        let mut state = self.inner.state();
        if let Some(open) = state.open.get_mut(key) {
            if !open.door.is_at(route.listen) {
                let listener = listen::bind(route.listen)?;
                open.door = listen::open(&open.line, route.listen, listener)?;
            }
            open.line.set(route);
            return Ok(open.door.address);
        }
        let listener = listen::bind(route.listen)?;
        let line = Arc::new(Line::new(key, route, &self.inner.options));
        let door = listen::open(&line, route.listen, listener)?;
        let address = door.address;
        state.open.insert(key.to_owned(), Open { line, door });
        Ok(address)
    }

    /// Removes a route, at once. When what is answered ends, nothing listens at its address any more. What is in flight goes
    /// on; clients' connections end after the answer that they wait for. Harmless if there is no such route.
    pub fn remove(&self, key: &str) -> impl Future<Output = ()> + Send + use<> {
        let mut state = self.inner.state();
        let removed = state.open.remove(key);
        if let Some(open) = &removed {
            open.line.close();
            state.closed.push(Arc::clone(&open.line));
        }
        drop(state);
        async move {
            if let Some(open) = removed {
                open.door.close().await;
            }
        }
    }

    /// Requests, TCP connections and upgraded connections that are at an endpoint: exactly, and also when it (or the route)
    /// has been taken away. 0: none, or no such endpoint.
    ///
    /// An endpoint is chosen and counted in one step. So after a [`set`](Self::set) without it this only falls, and at 0
    /// nothing will come any more: it may be shut down without harm.
    #[must_use]
    pub fn in_flight(&self, key: &str, endpoint: &str) -> usize {
        let lines = self.inner.lines(key);
        let targets = lines.iter().flat_map(|line| line.targets(endpoint));
        targets.map(|target| target.in_flight()).sum()
    }

    /// Ends when nothing is in flight at an endpoint, at once if there is no such one. That stays so only if it has left the
    /// route. Clients that never end (WebSockets, TCP) hold it up for ever: whoever waits sets a deadline.
    pub async fn drained(&self, key: &str, endpoint: &str) {
        let lines = self.inner.lines(key);
        for target in lines.iter().flat_map(|line| line.targets(endpoint)) {
            target.drained().await;
        }
    }

    /// What each group of each route did since the last call, groups and routes that are gone included. What did nothing is
    /// left out.
    pub fn take_counts(&self) -> Vec<Counts> {
        let mut counts = Vec::new();
        let mut state = self.inner.state();
        for open in state.open.values() {
            open.line.take_counts(&mut counts);
        }
        state.closed.retain(|line| {
            // Asked first: what ends meanwhile is counted below, or the next time.
            let busy = Arc::strong_count(line) > 1 || line.load().in_flight > 0;
            line.take_counts(&mut counts);
            busy
        });
        counts
    }

    /// What goes on at each route now, in no order.
    #[must_use]
    pub fn loads(&self) -> Vec<Load> {
        self.inner.state().open.values().map(|open| open.line.load()).collect()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("loads", &self.loads())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The routes that have, or had, a key.
    fn lines(&self, key: &str) -> Vec<Arc<Line>> {
        let state = self.state();
        let open = state.open.get(key).map(|open| &open.line);
        let closed = state.closed.iter().filter(|line| line.key == key);
        open.into_iter().chain(closed).cloned().collect()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for open in self.state().open.values() {
            open.line.close();
        }
    }
}

/// Drops idle connections in time, for as long as there is a proxy.
async fn sweep(proxy: Weak<Inner>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let lines: Vec<Arc<Line>> = match proxy.upgrade() {
            None => return,
            Some(inner) => inner.state().open.values().map(|open| Arc::clone(&open.line)).collect(),
        };
        for line in lines {
            line.sweep();
        }
    }
}
