//! What the node agent decides: a state machine without sockets, files and clocks.
//!
//! Each input (an order of the gateway, an event of an engine, the time) changes the state and returns [`Effects`]:
//! records to be written, and then things to be done. The records must be on disk before any of the rest is done;
//! whoever drives the agent may put the effects of several inputs together ([`Effects::append`]).
//!
//! What it promises, whatever the order of inputs and wherever it is killed:
//! - A job is accepted once, started once and ends once; its end is final and reported until acknowledged.
//! - A job isn't started while another one that hasn't ended holds one of its GPUs.
//! - Observations are numbered from 1 without holes and are on disk before they are sent.
//! - Orders to stop are never taken back, and a grace is never lengthened.
//! - When the gateway forgets a job, nothing of it stays: it is stopped if it lives, and removed with its output
//!   as soon as the gateway has acknowledged that.
//! - A job that uses secrets isn't started without their values, which no record holds; they are asked for when it could
//!   start, and again in each new session. What an engine waits for, it is told, or that it never will be.
//! - No port is picked for two jobs, and a job keeps its ports for as long as anything is known of it.
//! - Of a job's readiness the gateway learns the latest, at most once a second.
//! - Without a word from the gateway everything stops in time; `fence.rs` says when.

mod environment;
mod fence;
mod job;
mod outbox;
mod pieces;
mod ports;
mod readiness;
mod record;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::{
    ApiError, ErrorCode, Size, Span, Timestamp, time,
    wire::{Assignment, Desired, Observation, SecretsAnswer, Seen, Stop},
    workload::{HeldGpu, JobKey, Outcome, StopReason, Usage},
};

use crate::{
    engine::{EngineEvent, Found, What},
    secret::Secrets,
};

pub use environment::environment;
use fence::Fence;
use job::{Job, Stray};
use outbox::Outbox;
use pieces::{Pieces, Taken};
use record::{EndRecord, JobRecord, Loaded, Mono, StopRecord, delete_job, put_job};
pub use record::{LoadError, Recorded, Write, recorded};

/// How often acknowledged log lines are written down, at most, in milliseconds.
const LINES_SAVED_MS: u64 = 10_000;

/// How long a gateway has to answer a request for the whole set before it is asked again, in milliseconds.
const RESYNC_MS: u64 = 5_000;

/// After this long an engine's question for secrets that the gateway couldn't answer is asked again, in milliseconds.
const ASK_AGAIN_MS: u64 = 10_000;

/// The time, by both of the node's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that is never set and goes on while the machine sleeps: for decisions.
    pub mono_ms: u64,
    /// Which boot of the machine that clock counts from; 0: the machine doesn't say.
    pub boot: u64,
    /// The wall clock: for what is reported.
    pub wall: Timestamp,
}

/// What an input has led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "an agent's decisions are nothing until they are carried out"]
pub struct Effects {
    /// To be on disk, all at once, before anything in `then` is done. A later write to a key replaces an earlier one.
    pub persist: Vec<Write>,
    /// To be done, in order.
    pub then: Vec<Effect>,
}

impl Effects {
    /// Adds the effects of a later input.
    pub fn append(&mut self, later: Self) {
        self.persist.extend(later.persist);
        self.then.extend(later.then);
    }

    /// Whether there is nothing to write and nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.persist.is_empty() && self.then.is_empty()
    }

    fn send_observations(&mut self) {
        if !self.then.contains(&Effect::SendObservations) {
            self.then.push(Effect::SendObservations);
        }
    }
}

/// Something to be done. All of them may be done twice without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Begin this job: `Engine::start`, with [`environment`], and with its secrets if it uses any.
    Start(Arc<Assignment>, Option<Arc<Secrets>>),
    /// Look for free ports of this machine, and tell [`Agent::ports`].
    FindPorts {
        /// For which job.
        job: JobKey,
        /// How many.
        count: usize,
        /// None of these.
        taken: BTreeSet<u16>,
    },
    /// Ask the gateway for a job's secrets; without a session it means nothing.
    AskSecrets(JobKey),
    /// `Engine::secrets`.
    Secrets {
        /// Which.
        job: JobKey,
        /// They, or why it can't have them.
        answer: Result<Arc<Secrets>, ApiError>,
    },
    /// `Engine::stop`.
    Stop {
        /// Which.
        job: JobKey,
        /// Between SIGTERM and SIGKILL.
        grace: Span,
    },
    /// `Engine::forget` and removal of its output; then tell [`Agent::forgotten`].
    Forget(JobKey),
    /// `Engine::set_memory`.
    SetMemory {
        /// Which.
        job: JobKey,
        /// The new limit. `None`: none.
        limit: Option<Size>,
    },
    /// There are [`Agent::unacknowledged`] observations; without a session it means nothing.
    SendObservations,
    /// Ask the gateway for the whole desired set.
    Resync,
    /// From this monotonic time on jobs must be stopped, each with its own grace, unless another lease follows: for
    /// engines that can do so without the agent. In force before anything later is done.
    Lease {
        /// The time.
        stop_ms: u64,
    },
}

/// What is known of an end besides the engine's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// The number of the job's last line of output, 0 for none.
    pub last_line: u64,
    /// The engine itself stopped it because its [`Effect::Lease`] ran out.
    pub fenced: bool,
}

/// A job as the agent sees it.
#[derive(Debug, Clone, Copy)]
pub struct JobView<'a> {
    /// What was asked for.
    pub assignment: &'a Arc<Assignment>,
    /// An engine has it.
    pub handed: bool,
    /// Since when its process runs. `None`: it hasn't started.
    pub started_at: Option<Timestamp>,
    /// Why it was told to stop. `None`: it may run.
    pub stop: Option<StopReason>,
    /// It ended; the number of its last line of output, 0 for none. `None`: it hasn't ended.
    pub last_line: Option<u64>,
    /// Number of the last line that the gateway has.
    pub lines_acked: u64,
    /// Monotonic time of its start, in milliseconds. `None`: it hasn't started, or has ended.
    pub started_ms: Option<u64>,
    /// The last that was said of its readiness is that it is ready.
    pub ready: bool,
    /// It was said to be ready before, or is.
    pub was_ready: bool,
}

impl JobView<'_> {
    /// Its process runs, and nobody told it to stop.
    #[must_use]
    pub fn running(&self) -> bool {
        self.started_at.is_some() && self.stop.is_none() && self.last_line.is_none()
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Agent {
    jobs: BTreeMap<JobKey, Job>,
    /// Jobs of this agent's mark that it has no record of.
    strays: BTreeMap<JobKey, Stray>,
    /// Jobs that haven't ended.
    live: BTreeSet<JobKey>,
    /// Jobs that no engine has yet, in the order of their arrival.
    waiting: Vec<JobKey>,
    /// GPUs of jobs that an engine has and that haven't ended.
    held: Vec<(HeldGpu, JobKey)>,
    outbox: Outbox,
    fence: Fence,
    /// Monotonic time at which a job has run too long.
    timeouts: BTreeSet<(u64, JobKey)>,
    /// Jobs of whose readiness there is something to tell.
    untold: BTreeSet<JobKey>,
    /// Jobs whose acknowledged lines aren't written down.
    lines_unsaved: BTreeSet<JobKey>,
    /// When they are to be written down.
    lines_save_ms: Option<u64>,
    /// The desired set that the agent has, in this session.
    generation: Option<u64>,
    /// What has come of the next one.
    pieces: Pieces,
    connected: bool,
    /// When the whole set was last asked for, in this session.
    resync_ms: Option<u64>,
    /// The last [`Effect::Lease`].
    leased_ms: Option<u64>,
    /// When what engines wait for is to be asked again.
    ask_ms: Option<u64>,
}

impl Agent {
    /// The agent as its records and its engines say. `left` is asked for jobs that have ended.
    ///
    /// The returned effects are the first to be carried out. Call it once all engines have adopted their jobs.
    ///
    /// # Errors
    /// A record can't be read.
    pub fn new(
        records: impl IntoIterator<Item = (String, Vec<u8>)>,
        found: impl IntoIterator<Item = Found>,
        left: impl Fn(&JobKey) -> Left,
        now: Now,
    ) -> Result<(Self, Effects), LoadError> {
        let loaded = Loaded::read(records)?;
        let mut agent = Self {
            jobs: BTreeMap::new(),
            strays: BTreeMap::new(),
            live: BTreeSet::new(),
            waiting: Vec::new(),
            held: Vec::new(),
            outbox: Outbox::new(loaded.observations.into_values(), loaded.acked),
            fence: Fence::new(loaded.fence, now),
            timeouts: BTreeSet::new(),
            untold: BTreeSet::new(),
            lines_unsaved: BTreeSet::new(),
            lines_save_ms: None,
            generation: None,
            pieces: Pieces::default(),
            connected: false,
            resync_ms: None,
            leased_ms: None,
            ask_ms: None,
        };
        let mut out = Effects::default();
        let mut found: BTreeMap<JobKey, Found> = found.into_iter().map(|f| (f.job.clone(), f)).collect();
        for (key, record) in loaded.jobs {
            agent.jobs.insert(key.clone(), Job::new(record));
            agent.recover(&key, found.remove(&key), &left, now, &mut out);
        }
        for (key, found) in found {
            let ended = found.ended.map(|(at, outcome, usage)| (at, outcome, usage, left(&key)));
            agent.strays.insert(
                key,
                Stray {
                    started_at: found.started_at,
                    ended,
                    stopped: false,
                    wants_secrets: found.wants_secrets,
                },
            );
        }
        agent.check_fence(now, &mut out);
        agent.lease(&mut out);
        agent.start_waiting(&mut out);
        if !agent.outbox.is_empty() {
            out.send_observations();
        }
        Ok((agent, out))
    }

    /// Brings one recorded job together with what its engine found.
    fn recover(
        &mut self,
        key: &JobKey,
        found: Option<Found>,
        left: impl Fn(&JobKey) -> Left,
        now: Now,
        out: &mut Effects,
    ) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        if !job.live() {
            return;
        }
        self.live.insert(key.clone());
        match found {
            Some(Found {
                started_at,
                ended: Some((at, outcome, usage)),
                ..
            }) => {
                if job.record.started_at.is_none() {
                    job.record.started_at = started_at;
                }
                self.end(key, at, outcome, usage, left(key), out);
            }
            Some(Found {
                started_at,
                wants_secrets,
                ..
            }) => {
                hand(key, job, &mut self.held);
                job.wants_secrets = wants_secrets;
                if let Some(stop) = job.record.stop {
                    let grace = time::between(now.wall, stop.kill_at).min(stop.grace);
                    job.kill_ms = Some(now.mono_ms.saturating_add(grace.millis()));
                    out.then.push(Effect::Stop {
                        job: key.clone(),
                        grace,
                    });
                }
                if let Some(at) = job.record.started_at {
                    // The wall clock may have been set since; of another boot there is nothing better.
                    let ran = time::between(at, now.wall);
                    let by_wall = now.mono_ms.saturating_sub(ran.millis());
                    let started_ms = job.record.started_mono.and_then(|started| started.in_boot_of(now));
                    self.set_timeout(key, started_ms.unwrap_or(by_wall));
                } else if let Some(at) = started_at {
                    self.started(key, at, now, out);
                }
            }
            None if job.record.started_at.is_some() => {
                let why = "the engine has lost it: it ran when the agent was last here, and nothing is left of it";
                let outcome = Outcome::Unknown { why: why.to_owned() };
                self.end(key, now.wall, outcome, Usage::default(), left(key), out);
            }
            None if job.record.stop.is_some() => self.end_unstarted(key, now, out),
            None => {
                // Whoever else listens on them by now: others are picked.
                Arc::make_mut(&mut job.record.assignment).host_ports.clear();
                self.waiting.push(key.clone());
            }
        }
    }

    // ---- What the gateway says ------------------------------------------------------------------------------

    /// A session has begun. `hello_ms`: monotonic time at which its first message was sent.
    pub fn connected(&mut self, fence: Span, alone: bool, hello_ms: u64) -> Effects {
        let mut out = Effects::default();
        self.connected = true;
        self.generation = None;
        self.pieces = Pieces::default();
        self.resync_ms = None;
        self.fence.connected(fence, alone, hello_ms, &mut out);
        self.lease(&mut out);
        self.ask_ms = None;
        for job in self.jobs.values_mut() {
            job.asked = false;
        }
        self.ask_for_engines(&mut out);
        self.start_waiting(&mut out);
        if !self.outbox.is_empty() {
            out.send_observations();
        }
        out
    }

    /// The session has ended. What it still says is ignored.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.generation = None;
        self.pieces = Pieces::default();
        self.resync_ms = None;
        self.fence.disconnected();
    }

    /// Nothing listens at the gateway's address. Only for an answer that says so, not for silence.
    pub fn connection_refused(&mut self, now: Now) -> Effects {
        let mut out = Effects::default();
        self.fence.refused(now.mono_ms, &mut out);
        self.lease(&mut out);
        out
    }

    /// A heartbeat of this session goes out at this monotonic time.
    pub fn heartbeat_sent(&mut self, number: u64, mono_ms: u64) {
        self.fence.sent(number, mono_ms);
    }

    /// A heartbeat of this session has arrived.
    pub fn heartbeat_acked(&mut self, number: u64) -> Effects {
        let mut out = Effects::default();
        self.fence.acked(number, &mut out);
        self.lease(&mut out);
        out
    }

    /// What the node should run, or a piece of it: nothing is done before all pieces are there. Late and doubled messages
    /// change nothing; a change to a set that the agent doesn't have, and a piece whose predecessor is missing, are
    /// answered with [`Effect::Resync`].
    pub fn desired(&mut self, said: Desired, now: Now) -> Effects {
        let mut out = Effects::default();
        if !self.connected || self.generation.is_some_and(|have| said.generation <= have) {
            return out;
        }
        if said.base.is_some() && said.base != self.generation {
            self.resync(now, &mut out);
            return out;
        }
        match self.pieces.take(said) {
            Taken::Waiting => {}
            Taken::Gap => self.resync(now, &mut out),
            Taken::Whole(said) => self.take_over(said, now, &mut out),
        }
        out
    }

    fn resync(&mut self, now: Now, out: &mut Effects) {
        if self
            .resync_ms
            .is_none_or(|asked| asked.saturating_add(RESYNC_MS) <= now.mono_ms)
        {
            self.resync_ms = Some(now.mono_ms);
            out.then.push(Effect::Resync);
        }
    }

    fn take_over(&mut self, said: Desired, now: Now, out: &mut Effects) {
        let Desired {
            generation,
            base,
            put,
            forget,
            ..
        } = said;
        self.generation = Some(generation);
        self.resync_ms = None;
        if base.is_none() {
            let wanted: BTreeSet<&JobKey> = put.iter().map(|a| &a.job).collect();
            let all = self.jobs.keys().chain(self.strays.keys());
            let unwanted: Vec<JobKey> = all.filter(|key| !wanted.contains(key)).cloned().collect();
            for key in unwanted {
                self.forget(&key, now, out);
            }
        } else {
            for key in &forget {
                self.forget(key, now, out);
            }
        }
        for assignment in put {
            self.put(assignment, now, out);
        }
        self.lease(out);
        self.start_waiting(out);
    }

    /// Observations up to this number are on the gateway's disk.
    pub fn observations_acked(&mut self, through: u64, now: Now) -> Effects {
        let mut out = Effects::default();
        self.outbox.ack(through, &mut out);
        self.tell_all_readiness(now, &mut out);
        out
    }

    /// Log lines up to these numbers are on the gateway's disk, or will never be there because the node has lost them.
    pub fn logs_acked(&mut self, through: &[(JobKey, u64)], now: Now) -> Effects {
        let mut out = Effects::default();
        for (key, number) in through {
            let Some(job) = self.jobs.get_mut(key) else { continue };
            if *number <= job.record.lines_acked {
                continue;
            }
            job.record.lines_acked = *number;
            self.lines_unsaved.insert(key.clone());
            if self.lines_save_ms.is_none() {
                self.lines_save_ms = Some(now.mono_ms.saturating_add(LINES_SAVED_MS));
            }
            self.forget_if_done(key, &mut out);
        }
        out
    }

    /// The answer to [`Effect::AskSecrets`] of this session. One that nobody waits for is dropped.
    pub fn secrets(&mut self, key: &JobKey, answer: SecretsAnswer, now: Now) -> Effects {
        let mut out = Effects::default();
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.live() && job.asked) else {
            return out;
        };
        job.asked = false;
        let uses = &job.record.assignment.secrets;
        let answer = match answer {
            SecretsAnswer::Values { values, mask } => Secrets::resolve(uses, values, mask).map(Arc::new),
            SecretsAnswer::Refused { error } => Err(error),
        };
        if job.handed {
            if answer.as_ref().is_err_and(|error| passing(error.code)) {
                self.ask_ms.get_or_insert(now.mono_ms.saturating_add(ASK_AGAIN_MS));
            } else if std::mem::take(&mut job.wants_secrets) {
                out.then.push(Effect::Secrets {
                    job: key.clone(),
                    answer,
                });
            }
            return out;
        }
        match answer {
            Ok(secrets) => {
                if self.startable(key) {
                    self.waiting.retain(|waiting| waiting != key);
                    self.start(key, Some(secrets), &mut out);
                } else {
                    // By the time that it can start they may be others.
                    self.start_waiting(&mut out);
                }
            }
            Err(ApiError { code, message, .. }) => {
                let outcome = Outcome::StartFailed {
                    code,
                    message,
                    retryable: passing(code),
                };
                self.end(key, now.wall, outcome, Usage::default(), Left::default(), &mut out);
            }
        }
        out
    }

    // ---- What the node itself sees --------------------------------------------------------------------------

    /// Something happened to a job. `left` is only looked at for an end.
    pub fn engine_event(&mut self, event: EngineEvent, left: Left, now: Now) -> Effects {
        let mut out = Effects::default();
        let EngineEvent { job: key, what } = event;
        if let Some(stray) = self.strays.get_mut(&key) {
            match what {
                What::Pulling(_) => {}
                What::Started { at } => stray.started_at = Some(at),
                What::Ended { at, outcome, usage } => {
                    let unwanted = stray.stopped;
                    stray.ended.get_or_insert((at, outcome, usage, left));
                    if unwanted {
                        out.then.push(Effect::Forget(key));
                    }
                    self.start_waiting(&mut out);
                }
            }
            return out;
        }
        let Some(job) = self.jobs.get_mut(&key).filter(|job| job.live()) else {
            return out;
        };
        match what {
            What::Pulling(_) if job.record.pulling || job.record.started_at.is_some() => {}
            What::Pulling(_) => {
                job.record.pulling = true;
                out.persist.push(put_job(&job.record));
                self.outbox.push(key, Seen::Pulling, &mut out);
            }
            What::Started { .. } if job.record.started_at.is_some() => {}
            What::Started { at } => self.started(&key, at, now, &mut out),
            What::Ended { at, outcome, usage } => {
                self.end(&key, at, outcome, usage, left, &mut out);
                self.start_waiting(&mut out);
            }
        }
        out
    }

    /// A job's health check has failed too often.
    pub fn unhealthy(&mut self, key: &JobKey, now: Now) -> Effects {
        let mut out = Effects::default();
        if let Some(job) = self.jobs.get(key) {
            let grace = job.record.assignment.grace;
            self.stop(key, StopReason::Unhealthy, grace, now, &mut out);
        }
        out
    }

    /// [`Effect::Forget`] has been carried out.
    pub fn forgotten(&mut self, key: &JobKey) -> Effects {
        let mut out = Effects::default();
        if self.strays.get(key).is_some_and(|stray| stray.ended.is_some()) {
            self.strays.remove(key);
        }
        if self.jobs.get(key).is_some_and(|job| job.forgetting) {
            self.jobs.remove(key);
            self.lines_unsaved.remove(key);
            out.persist.push(delete_job(key));
        }
        out
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) -> Effects {
        let mut out = Effects::default();
        while let Some((due, key)) = self.timeouts.first().cloned()
            && due <= now.mono_ms
        {
            self.timeouts.pop_first();
            if let Some(job) = self.jobs.get_mut(&key) {
                job.timeout_ms = None;
                let grace = job.record.assignment.grace;
                self.stop(&key, StopReason::Timeout, grace, now, &mut out);
            }
        }
        self.check_fence(now, &mut out);
        if self.ask_ms.is_some_and(|due| due <= now.mono_ms) {
            self.ask_ms = None;
            self.ask_for_engines(&mut out);
        }
        if self.readiness_due_ms().is_some_and(|due| due <= now.mono_ms) {
            self.tell_all_readiness(now, &mut out);
        }
        if self.lines_save_ms.is_some_and(|due| due <= now.mono_ms) {
            self.lines_save_ms = None;
            for key in std::mem::take(&mut self.lines_unsaved) {
                if let Some(job) = self.jobs.get(&key) {
                    out.persist.push(put_job(&job.record));
                }
            }
        }
        out
    }

    /// Monotonic time of the next [`Agent::tick`] that will do something, unless something else happens first.
    /// `None`: nothing waits for time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let fence = self.grace_max().and_then(|grace| self.fence.begins_ms(grace));
        let timeout = self.timeouts.first().map(|(due, _)| *due);
        [fence, timeout, self.lines_save_ms, self.ask_ms, self.readiness_due_ms()]
            .into_iter()
            .flatten()
            .min()
    }

    // ---- What it knows --------------------------------------------------------------------------------------

    /// The jobs that it knows and hasn't been told to forget, for the first message of a session.
    #[must_use]
    pub fn known(&self) -> Vec<JobKey> {
        let jobs = self.jobs.iter().filter(|(_, job)| !job.forget).map(|(key, _)| key);
        jobs.chain(self.strays.keys()).cloned().collect()
    }

    /// Observations that aren't acknowledged, in order.
    pub fn unacknowledged(&self) -> impl Iterator<Item = &Observation> + '_ {
        self.outbox.waiting()
    }

    /// One job. `None`: it isn't known.
    #[must_use]
    pub fn job(&self, key: &JobKey) -> Option<JobView<'_>> {
        self.jobs.get(key).map(Job::view)
    }

    /// All jobs that have a record, ended ones included.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobKey, JobView<'_>)> + '_ {
        self.jobs.iter().map(|(key, job)| (key, job.view()))
    }

    /// The GPUs held by jobs that an engine has and that haven't ended, with their holders.
    #[must_use]
    pub fn held(&self) -> &[(HeldGpu, JobKey)] {
        &self.held
    }

    /// Whether anything runs that an engine has, with or without a record.
    #[must_use]
    pub fn running(&self) -> bool {
        let handed = |key| self.jobs.get(key).is_some_and(|job| job.handed);
        self.live.iter().any(handed) || self.strays.values().any(|stray| stray.ended.is_none())
    }

    // ---- How it is done -------------------------------------------------------------------------------------

    fn put(&mut self, assignment: Assignment, now: Now, out: &mut Effects) {
        let key = assignment.job.clone();
        let stop = assignment.stop;
        if let Some(job) = self.jobs.get_mut(&key) {
            if job.forgetting {
                return;
            }
            job.forget = false;
            job.wanted = true;
            if job.live() {
                self.update(&key, &assignment, out);
            }
        } else {
            let record = JobRecord {
                assignment: Arc::new(Assignment {
                    stop: None,
                    host_ports: Vec::new(),
                    ..assignment
                }),
                pulling: false,
                started_at: None,
                started_mono: None,
                readiness: None,
                stop: None,
                ended: None,
                lines_acked: 0,
            };
            out.persist.push(put_job(&record));
            let mut job = Job::new(record);
            job.wanted = true;
            self.jobs.insert(key.clone(), job);
            self.live.insert(key.clone());
            match self.strays.remove(&key) {
                Some(stray) => self.take_in(&key, stray, now, out),
                None => self.waiting.push(key.clone()),
            }
        }
        if let Some(Stop { reason, grace }) = stop {
            self.stop(&key, reason, grace, now, out);
        }
    }

    /// A job that was found without a record turns out to be wanted.
    fn take_in(&mut self, key: &JobKey, stray: Stray, now: Now, out: &mut Effects) {
        if let Some(job) = self.jobs.get_mut(key) {
            hand(key, job, &mut self.held);
            job.wants_secrets = stray.wants_secrets && stray.ended.is_none();
            ask(key, job, out);
        }
        if let Some(at) = stray.started_at {
            self.started(key, at, now, out);
        }
        if let Some((at, outcome, usage, left)) = stray.ended {
            self.end(key, at, outcome, usage, left, out);
        }
    }

    /// Takes over what may change about a job that is known: memory, timeout and grace.
    fn update(&mut self, key: &JobKey, new: &Assignment, out: &mut Effects) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let old = &job.record.assignment;
        let memory = old.memory != new.memory;
        let timeout = old.timeout != new.timeout;
        if !memory && !timeout && old.grace == new.grace {
            return;
        }
        let assignment = Arc::make_mut(&mut job.record.assignment);
        assignment.memory = new.memory;
        assignment.timeout = new.timeout;
        assignment.grace = new.grace;
        out.persist.push(put_job(&job.record));
        if memory && job.handed {
            out.then.push(Effect::SetMemory {
                job: key.clone(),
                limit: new.memory,
            });
        }
        if timeout && let Some(started_ms) = job.started_ms {
            self.set_timeout(key, started_ms);
        }
    }

    fn forget(&mut self, key: &JobKey, now: Now, out: &mut Effects) {
        if let Some(stray) = self.strays.get_mut(key) {
            if stray.ended.is_some() {
                out.then.push(Effect::Forget(key.clone()));
            } else if !stray.stopped {
                out.then.push(Effect::Stop {
                    job: key.clone(),
                    grace: Span(0),
                });
                if std::mem::take(&mut stray.wants_secrets) {
                    out.then.push(never(key, "nobody wants it any more"));
                }
            }
            stray.stopped = true;
        } else if let Some(job) = self.jobs.get_mut(key) {
            job.forget = true;
            self.stop(key, StopReason::NotWanted, Span(0), now, out);
            self.give_up_secrets(key, "nobody wants it any more", out);
            self.forget_if_done(key, out);
        }
    }

    fn forget_if_done(&mut self, key: &JobKey, out: &mut Effects) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let done = job
            .record
            .ended
            .is_some_and(|end| end.last_line <= job.record.lines_acked);
        if job.forget && done && !job.forgetting {
            job.forgetting = true;
            out.then.push(Effect::Forget(key.clone()));
        }
    }

    /// Orders a job to stop: keeps the first reason and the shortest grace.
    fn stop(&mut self, key: &JobKey, reason: StopReason, grace: Span, now: Now, out: &mut Effects) {
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.live()) else {
            return;
        };
        let kill_ms = now.mono_ms.saturating_add(grace.millis());
        if job.kill_ms.is_some_and(|before| before <= kill_ms) {
            return;
        }
        job.kill_ms = Some(kill_ms);
        let first = job.record.stop;
        job.record.stop = Some(StopRecord {
            reason: first.map_or(reason, |stop| stop.reason),
            at: first.map_or(now.wall, |stop| stop.at),
            kill_at: time::after(now.wall, grace),
            grace,
        });
        if !job.handed {
            self.end_unstarted(key, now, out);
            return;
        }
        out.persist.push(put_job(&job.record));
        out.then.push(Effect::Stop {
            job: key.clone(),
            grace,
        });
    }

    fn started(&mut self, key: &JobKey, at: Timestamp, now: Now, out: &mut Effects) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.record.started_at = Some(at);
        job.record.started_mono = Some(Mono::of(now));
        out.persist.push(put_job(&job.record));
        let endpoints = job.record.assignment.endpoints();
        self.outbox.push(key.clone(), Seen::Started { at, endpoints }, out);
        self.set_timeout(key, now.mono_ms);
    }

    /// Counts a job's timeout from a monotonic time.
    fn set_timeout(&mut self, key: &JobKey, started_ms: u64) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.started_ms = Some(started_ms);
        if let Some(old) = job.timeout_ms.take() {
            self.timeouts.remove(&(old, key.clone()));
        }
        if let Some(timeout) = job.record.assignment.timeout {
            let due = started_ms.saturating_add(timeout.millis());
            job.timeout_ms = Some(due);
            self.timeouts.insert((due, key.clone()));
        }
    }

    /// Ends a job that no engine has ever had.
    fn end_unstarted(&mut self, key: &JobKey, now: Now, out: &mut Effects) {
        let outcome = Outcome::StartFailed {
            code: ErrorCode::Conflict,
            message: "it was stopped before it started".to_owned(),
            retryable: true,
        };
        self.end(key, now.wall, outcome, Usage::default(), Left::default(), out);
    }

    fn end(&mut self, key: &JobKey, at: Timestamp, outcome: Outcome, usage: Usage, left: Left, out: &mut Effects) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        if let Some(due) = job.timeout_ms.take() {
            self.timeouts.remove(&(due, key.clone()));
        }
        self.live.remove(key);
        self.waiting.retain(|waiting| waiting != key);
        job.untold = None;
        self.untold.remove(key);
        self.held.retain(|(_, holder)| holder != key);
        job.record.ended = Some(EndRecord {
            last_line: left.last_line,
        });
        // An order that crossed with an exit had no part in it.
        let by_itself = |stop: &StopRecord| at < stop.at && matches!(outcome, Outcome::Exited { .. });
        let ordered = job.record.stop.filter(|stop| !by_itself(stop)).map(|stop| stop.reason);
        let stop = ordered.or(left.fenced.then_some(StopReason::Fenced));
        out.persist.push(put_job(&job.record));
        self.lines_unsaved.remove(key);
        let seen = Seen::Ended {
            started_at: job.record.started_at,
            at,
            outcome,
            stop,
            usage,
            last_line: left.last_line,
        };
        self.outbox.push(key.clone(), seen, out);
        self.forget_if_done(key, out);
    }

    /// Hands over every waiting job whose GPUs nobody holds, and that has what else it needs.
    fn start_waiting(&mut self, out: &mut Effects) {
        if self.waiting.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.waiting) {
            let startable = self.startable(&key);
            let Some(job) = self.jobs.get_mut(&key) else { continue };
            if startable && ports::lacks_ports(job) {
                self.find_ports(&key, out);
                self.waiting.push(key);
                continue;
            }
            let needs = !job.record.assignment.secrets.is_empty();
            if startable && !needs {
                self.start(&key, None, out);
                continue;
            }
            if startable && self.connected && !job.asked {
                job.asked = true;
                out.then.push(Effect::AskSecrets(key.clone()));
            }
            self.waiting.push(key);
        }
    }

    /// Whether nothing but secrets could keep a waiting job from its start.
    fn startable(&self, key: &JobKey) -> bool {
        let Some(job) = self.jobs.get(key) else { return false };
        // What a stray holds isn't known: as long as one lives, any GPU may be its.
        let stray = || self.strays.values().any(|stray| stray.ended.is_none());
        let gpus = &job.record.assignment.gpus;
        let same = |a: &HeldGpu, b: &HeldGpu| a.index == b.index || a.uuid == b.uuid;
        let held = gpus.iter().any(|gpu| self.held.iter().any(|(held, _)| same(gpu, held)));
        !held && job.wanted && (gpus.is_empty() || !stray())
    }

    fn start(&mut self, key: &JobKey, secrets: Option<Arc<Secrets>>, out: &mut Effects) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        hand(key, job, &mut self.held);
        out.then
            .push(Effect::Start(Arc::clone(&job.record.assignment), secrets));
    }

    /// Asks for what engines wait for.
    fn ask_for_engines(&mut self, out: &mut Effects) {
        if !self.connected {
            return;
        }
        for key in &self.live {
            if let Some(job) = self.jobs.get_mut(key) {
                ask(key, job, out);
            }
        }
    }

    /// Tells a job's engine that what it waits for won't come.
    fn give_up_secrets(&mut self, key: &JobKey, why: &str, out: &mut Effects) {
        if let Some(job) = self.jobs.get_mut(key)
            && std::mem::take(&mut job.wants_secrets)
        {
            out.then.push(never(key, why));
        }
    }

    /// The longest grace of what would have to be stopped. `None`: nothing would.
    fn grace_max(&self) -> Option<Span> {
        let jobs = self
            .live
            .iter()
            .filter_map(|key| self.jobs.get(key))
            .map(|job| job.record.assignment.grace);
        let strays = self
            .strays
            .values()
            .filter(|s| s.ended.is_none() && !s.stopped)
            .map(|_| Span(0));
        jobs.chain(strays).max()
    }

    /// Says when stopping must begin, if that has changed.
    fn lease(&mut self, out: &mut Effects) {
        let stop_ms = self.fence.begins_ms(self.grace_max().unwrap_or_default());
        if let Some(stop_ms) = stop_ms.filter(|stop_ms| Some(*stop_ms) != self.leased_ms) {
            self.leased_ms = Some(stop_ms);
            out.then.push(Effect::Lease { stop_ms });
        }
    }

    fn check_fence(&mut self, now: Now, out: &mut Effects) {
        let due = self.grace_max().and_then(|grace| self.fence.begins_ms(grace));
        if due.is_none_or(|due| due > now.mono_ms) {
            return;
        }
        let most = self.fence.fire(now.mono_ms);
        let live: Vec<(JobKey, Span)> = self
            .live
            .iter()
            .filter_map(|key| Some((key.clone(), self.jobs.get(key)?.record.assignment.grace)))
            .collect();
        for (key, grace) in live {
            self.stop(&key, StopReason::Fenced, grace.min(most), now, out);
            self.give_up_secrets(&key, CUT_OFF, out);
        }
        for (key, stray) in &mut self.strays {
            if stray.ended.is_none() && !stray.stopped {
                stray.stopped = true;
                out.then.push(Effect::Stop {
                    job: key.clone(),
                    grace: Span(0),
                });
                if std::mem::take(&mut stray.wants_secrets) {
                    out.then.push(never(key, CUT_OFF));
                }
            }
        }
    }
}

/// Why what nobody can be asked for won't come.
const CUT_OFF: &str = "the node was without a gateway for too long";

/// Whether another try may help.
fn passing(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::TimedOut | ErrorCode::StorageFull | ErrorCode::Internal)
}

/// Asks for the secrets that a job's engine waits for.
fn ask(key: &JobKey, job: &mut Job, out: &mut Effects) {
    if job.wants_secrets && !job.asked {
        job.asked = true;
        out.then.push(Effect::AskSecrets(key.clone()));
    }
}

fn never(job: &JobKey, why: &str) -> Effect {
    Effect::Secrets {
        job: job.clone(),
        answer: Err(ApiError::conflict(format!("its secrets can't be had: {why}"))),
    }
}

/// Notes that an engine has a job, and with it its GPUs.
fn hand(key: &JobKey, job: &mut Job, held: &mut Vec<(HeldGpu, JobKey)>) {
    job.handed = true;
    held.extend(job.record.assignment.gpus.iter().map(|gpu| (gpu.clone(), key.clone())));
}
