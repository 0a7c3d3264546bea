//! A route at work: its choice under one guard, who waits for an endpoint, and who is connected.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::answer::Failure;
use crate::choice::{Choice, Pick};
use crate::client::{self, Client};
use crate::clock;
use crate::counts::{Counts, Load, Meter, add};
use crate::endpoint::{Lease, Target};
use crate::options::Options;
use crate::route::{Protocol, Route};

/// The first pause before endpoints that all refused are asked again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest such pause.
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// A route at work.
pub struct Line {
    pub key: String,
    pub options: Arc<Options>,
    pub server: auto::Builder<TokioExecutor>,
    state: Mutex<State>,
    /// Whoever waits for an endpoint looks again.
    changed: Notify,
    waiting: AtomicUsize,
    /// Counts what comes to no group.
    pub own: Arc<Meter>,
    pub permits: Arc<Semaphore>,
    pub connections: Arc<AtomicUsize>,
    clients: Mutex<HashMap<u64, Arc<Client>>>,
    next_client: AtomicU64,
    closed: AtomicBool,
}

struct State {
    protocol: Protocol,
    choice: Choice,
}

/// A request's search for an endpoint.
#[derive(Debug, Default)]
pub struct Search {
    /// Endpoints that couldn't be connected to.
    tried: Vec<Arc<Target>>,
    /// The group of the last of them.
    pub group: Option<Arc<Meter>>,
    failure: Option<Failure>,
    deadline: Option<Instant>,
}

impl Line {
    pub fn new(key: &str, route: &Route, options: &Arc<Options>) -> Self {
        let mut choice = Choice::default();
        choice.set(&route.groups);
        let state = State {
            protocol: route.protocol,
            choice,
        };
        Line {
            key: key.to_owned(),
            options: Arc::clone(options),
            server: client::server(options),
            state: Mutex::new(state),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            own: Arc::new(Meter::new(None)),
            permits: Arc::new(Semaphore::new(options.connections_max.min(Semaphore::MAX_PERMITS))),
            connections: Arc::default(),
            clients: Mutex::default(),
            next_client: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Changes the route in one step: who searches after this finds only what is in it.
    pub fn set(&self, route: &Route) {
        let other_protocol = {
            let mut state = self.state();
            state.choice.set(&route.groups);
            std::mem::replace(&mut state.protocol, route.protocol) != route.protocol
        };
        self.changed.notify_waiters();
        if other_protocol {
            self.close_clients();
        }
    }

    /// Takes all endpoints out, for good, and tells clients to end when they have their answers.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.state().choice.set(&[]);
        self.changed.notify_waiters();
        self.close_clients();
    }

    pub fn protocol(&self) -> Protocol {
        self.state().protocol
    }

    /// A place at an endpoint; waits for one while there is none.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn lease(&self, search: &mut Search) -> Result<Lease, Failure> {
        match self.pick(search) {
            Pick::Lease(lease) => Ok(lease),
            // Boxed: it is rare, and needs not be room in every request.
            Pick::Nobody | Pick::Tried => Box::pin(self.wait(search)).await,
        }
    }

    async fn wait(&self, search: &mut Search) -> Result<Lease, Failure> {
        let _place = self.queue()?;
        let patience = self.options.endpoint_wait;
        let deadline = *search.deadline.get_or_insert_with(|| Instant::now() + patience);
        let mut pause = FIRST_PAUSE;
        loop {
            // Heard from now on, so that no change falls between the look and the wait.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let now = Instant::now();
            let until = match self.pick(search) {
                Pick::Lease(lease) => return Ok(lease),
                Pick::Nobody => deadline,
                Pick::Tried => {
                    // Perhaps one is just starting again.
                    search.tried.clear();
                    let until = now + pause;
                    pause = (pause * 2).min(LAST_PAUSE);
                    until.min(deadline)
                }
            };
            if now >= deadline || self.closed.load(Relaxed) {
                return Err(search.failure.unwrap_or(Failure::NoEndpoint));
            }
            // Either way the next look tells.
            drop(tokio::time::timeout_at(until, changed).await);
        }
    }

    fn pick(&self, search: &Search) -> Pick {
        let mut state = self.state();
        // The time matters only to who is passed over.
        let now = if state.choice.is_ejecting() {
            clock::now()
        } else {
            u64::MAX
        };
        state.choice.pick(now, &search.tried, search.group.as_ref())
    }

    /// Notes that a search's endpoint couldn't be connected to.
    pub fn unreachable(&self, search: &mut Search, lease: Lease, error: &std::io::Error) {
        tracing::debug!(route = self.key, endpoint = lease.target.endpoint.id, %error, "can't connect");
        add(&lease.meter.connect_failures, 1);
        let until = lease.target.failed(&self.options);
        self.state().choice.eject(until);
        search.failure = Some(match error.kind() {
            std::io::ErrorKind::TimedOut => Failure::ConnectTimeout,
            _ => Failure::Unreachable,
        });
        search.tried.push(Arc::clone(&lease.target));
        search.group = Some(Arc::clone(&lease.meter));
    }

    /// Another endpoint of a group, in the place of one that closed a new connection without a word. `None`: it has no other.
    pub fn another(&self, search: &mut Search, silent: &Lease) -> Option<Lease> {
        tracing::debug!(
            route = self.key,
            endpoint = silent.target.endpoint.id,
            "a new connection was closed without a word"
        );
        search.tried.push(Arc::clone(&silent.target));
        search.group = Some(Arc::clone(&silent.meter));
        match self.pick(search) {
            // What one revision can't answer another mustn't answer for it.
            Pick::Lease(other) if Arc::ptr_eq(&other.meter, &silent.meter) => Some(other),
            Pick::Lease(_) | Pick::Nobody | Pick::Tried => None,
        }
    }

    fn queue(&self) -> Result<Waiting<'_>, Failure> {
        let place = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Relaxed) >= self.options.waiting_max {
            return Err(Failure::Crowded);
        }
        Ok(place)
    }

    /// Notes a client's connection until the answer is dropped.
    pub fn enter(&self, client: &Arc<Client>) -> Entry<'_> {
        let number = self.next_client.fetch_add(1, Relaxed);
        self.clients().insert(number, Arc::clone(client));
        if self.closed.load(Relaxed) {
            client.close();
        }
        Entry { line: self, number }
    }

    fn close_clients(&self) {
        for client in self.clients().values() {
            client.close();
        }
    }

    /// Endpoints of this id, those that left but are still busy included.
    pub fn targets(&self, id: &str) -> Vec<Arc<Target>> {
        let state = self.state();
        let named = state.choice.targets().filter(|target| target.endpoint.id == id);
        named.cloned().collect()
    }

    /// What was counted since the last call.
    pub fn take_counts(&self, into: &mut Vec<Counts>) {
        let meters = {
            let mut state = self.state();
            state.choice.prune();
            state.choice.meters()
        };
        into.extend(
            meters
                .iter()
                .chain([&self.own])
                .filter_map(|meter| meter.take(&self.key)),
        );
    }

    pub fn load(&self) -> Load {
        Load {
            key: self.key.clone(),
            waiting: self.waiting.load(Relaxed),
            in_flight: self.state().choice.targets().map(|target| target.in_flight()).sum(),
            connections: self.connections.load(Relaxed),
        }
    }

    /// Drops idle connections to endpoints that are too old, or closed.
    pub fn sweep(&self) {
        let targets: Vec<_> = self.state().choice.targets().cloned().collect();
        let idle_max = clock::nanos(self.options.pool_timeout);
        for target in targets {
            target.sweep(clock::now(), idle_max);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}

/// A place among those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A client's place in the list of connections.
pub struct Entry<'a> {
    line: &'a Line,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.line.clients().remove(&self.number);
    }
}
