//! What carries jobs out on a simulated machine: processes with a will of their own.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    ErrorCode, Span, Timestamp,
    wire::{Assignment, PullProgress},
    workload::{JobKey, Outcome, Usage},
};
use node::engine::{EngineEvent, Found, What};

use crate::{
    random::Random,
    world::{Event, World},
};

/// A job that the engine has accepted.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// No two processes of the world share it.
    pub(crate) id: u64,
    pub(crate) gpus: Vec<u32>,
    /// Ports that its node picked.
    pub(crate) ports: Vec<u16>,
    /// It uses its GPUs at this moment.
    pub(crate) alive: bool,
    pub(crate) started_at: Option<Timestamp>,
    /// The world's time of its start.
    pub(crate) started: u64,
    pub(crate) ended: Option<(Timestamp, Outcome)>,
    /// What ends it, and when, unless something else comes first.
    end: u64,
    outcome: Outcome,
    /// The world's time of SIGKILL. `None`: nobody asked.
    kill: Option<u64>,
    /// How long it goes on after SIGTERM. `None`: for ever.
    yields_ms: Option<u64>,
    grace: Span,
    on_term: Outcome,
    lines: u64,
}

/// The engine of a machine; it lives on when the agent dies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Engine {
    pub(crate) processes: BTreeMap<JobKey, Process>,
    /// Lines of output by job.
    pub(crate) lines: BTreeMap<JobKey, u64>,
    /// From this monotonic time on jobs are stopped, each with its own grace. `None`: nobody said.
    pub(crate) lease: Option<u64>,
    /// Jobs that were stopped because of it.
    pub(crate) fenced: BTreeSet<JobKey>,
    /// Remembers its jobs when the machine was booted anew.
    pub(crate) remembers: bool,
    /// The last event's time, so that none overtakes another.
    pub(crate) last_event: u64,
}

/// How a job of a workload behaves: its command says `run MS CODE`.
fn behaviour(job: &Assignment, random: &mut Random) -> (u64, Outcome) {
    let number = |at: usize| job.command.get(at).and_then(|word| word.parse::<u64>().ok());
    let run = number(1).unwrap_or(1_000);
    let code = number(2).unwrap_or(0) as i32;
    // A gang's members don't end at once.
    let run = run + random.below(500);
    // `flaky`: a code that only the first attempt has.
    let flaky = job.command.first().is_some_and(|word| word == "flaky");
    let code = if flaky && job.job.attempt > 1 { 0 } else { code };
    (run, Outcome::Exited { code })
}

impl World {
    pub(crate) fn engine_start(&mut self, at: usize, job: &Assignment) {
        let key = job.job.clone();
        if self.nodes[at].engine.processes.contains_key(&key) {
            return;
        }
        let missing = job.dynamic_ports && job.host_ports.len() != job.ports.len();
        let others = self.nodes[at].engine.processes.iter();
        let mut alive = others.filter(|(_, process)| process.ended.is_none());
        let shared = alive.find(|(_, process)| process.ports.iter().any(|port| job.host_ports.contains(port)));
        if let Some(other) = shared.map(|(other, _)| other.clone()) {
            return self.fail(format!("{key} and {other} on one port of n{at}"));
        }
        if missing {
            return self.fail(format!("{key} begins without its ports"));
        }
        let faults = self.faulty();
        let random = &mut self.random;
        let (run, outcome) = behaviour(job, random);
        let begin = self.now
            + if faults {
                random.delay(5, 300, 40_000)
            } else {
                random.range(5, 50)
            };
        let start_fails = faults && random.chance(15);
        let process = Process {
            id: self.next_id,
            gpus: job.gpus.iter().map(|g| g.index).collect(),
            ports: job.host_ports.clone(),
            alive: false,
            started_at: None,
            started: 0,
            ended: None,
            end: run,
            outcome,
            kill: None,
            yields_ms: (!random.chance(250)).then(|| random.range(1, 4_000)),
            grace: job.grace,
            on_term: match random.below(6) {
                0 => Outcome::Exited { code: 0 },
                1 => Outcome::Exited { code: 143 },
                _ => Outcome::Signaled { signal: 15 },
            },
            lines: random.below(4),
        };
        self.next_id += 1;
        let id = process.id;
        self.trace(|| format!("engine n{at}: accepts {key}, process {id}"));
        self.nodes[at].engine.processes.insert(key.clone(), process);
        if self.random.chance(300) {
            self.engine_says(at, &key, What::Pulling(PullProgress::default()));
        }
        self.schedule(begin, Event::Begin(at, key, id, start_fails));
    }

    /// A process begins, unless it was stopped before.
    pub(crate) fn engine_begin(&mut self, at: usize, key: JobKey, id: u64, fails: bool) {
        let now = self.now;
        let clock = self.nodes[at].clock;
        let lease = self.nodes[at].engine.lease;
        let Some(process) = self.nodes[at].engine.processes.get_mut(&key) else {
            return;
        };
        if process.id != id || process.ended.is_some() {
            return;
        }
        if fails || lease.is_some_and(|until| until <= clock.mono(now)) {
            let outcome = Outcome::StartFailed {
                code: ErrorCode::Internal,
                message: "the engine couldn't".to_owned(),
                retryable: true,
            };
            return self.engine_ended(at, &key, outcome);
        }
        process.alive = true;
        process.started = now;
        process.started_at = Some(clock.wall(now));
        process.end += now;
        let started = What::Started { at: clock.wall(now) };
        let gpus = process.gpus.clone();
        let end = process.end;
        self.nodes[at].engine.lines.insert(key.clone(), 1);
        self.trace(|| format!("engine n{at}: {key} begins on GPUs {gpus:?}"));
        self.begins(at, &key, id, &gpus);
        self.engine_says(at, &key, started);
        self.schedule(end, Event::Exit(at, key, id));
    }

    /// A process may end now: by itself, by SIGTERM or by SIGKILL.
    pub(crate) fn engine_exit(&mut self, at: usize, key: &JobKey, id: u64) {
        let now = self.now;
        let Some(process) = self.nodes[at].engine.processes.get(key) else {
            return;
        };
        if process.id != id || !process.alive {
            return;
        }
        let outcome = if process.end <= now {
            process.outcome.clone()
        } else if process.kill.is_some_and(|kill| kill <= now) {
            Outcome::Signaled { signal: 9 }
        } else {
            return;
        };
        self.engine_ended(at, key, outcome);
    }

    fn engine_ended(&mut self, at: usize, key: &JobKey, outcome: Outcome) {
        let wall = self.nodes[at].clock.wall(self.now);
        let Some(process) = self.nodes[at].engine.processes.get_mut(key) else {
            return;
        };
        let was_alive = std::mem::replace(&mut process.alive, false);
        process.ended = Some((wall, outcome.clone()));
        let id = process.id;
        let (gpus, lines) = (process.gpus.clone(), process.lines);
        if was_alive {
            *self.nodes[at].engine.lines.entry(key.clone()).or_default() += lines;
            self.ends(at, key, id, &gpus);
        }
        self.trace(|| format!("engine n{at}: {key} ends: {outcome:?}"));
        self.happened(at, key, &outcome);
        let what = What::Ended {
            at: wall,
            outcome,
            usage: Usage::default(),
        };
        self.engine_says(at, key, what);
    }

    pub(crate) fn engine_stop(&mut self, at: usize, key: &JobKey, grace: Span) {
        let now = self.now;
        let kill = now + grace.millis() + self.random.delay(1, 100, 900);
        let Some(process) = self.nodes[at].engine.processes.get_mut(key) else {
            return;
        };
        if process.ended.is_some() {
            return;
        }
        if !process.alive {
            let outcome = Outcome::StartFailed {
                code: ErrorCode::Conflict,
                message: "it was stopped before it started".to_owned(),
                retryable: true,
            };
            return self.engine_ended(at, key, outcome);
        }
        let first = process.kill.is_none();
        if process.kill.is_none_or(|before| kill < before) {
            process.kill = Some(kill);
        }
        if first
            && let Some(after) = process.yields_ms
            && now + after < process.end
        {
            process.end = now + after;
            process.outcome = process.on_term.clone();
        }
        let id = process.id;
        let due = process.end.min(process.kill.unwrap_or(kill));
        self.schedule(due, Event::Exit(at, key.clone(), id));
    }

    /// The agent passes the lease on.
    pub(crate) fn engine_lease(&mut self, at: usize, stop: u64) {
        let node = &mut self.nodes[at];
        node.engine.lease = Some(stop);
        let due = node.clock.when(stop);
        self.schedule(due, Event::Lease(at));
    }

    /// A lease may have run out.
    pub(crate) fn engine_lease_due(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.engine.lease.is_none_or(|until| until > node.clock.mono(self.now)) {
            return;
        }
        let left: Vec<(JobKey, Span)> = node
            .engine
            .processes
            .iter()
            .filter(|(_, p)| p.ended.is_none() && p.kill.is_none())
            .map(|(key, p)| (key.clone(), p.grace))
            .collect();
        for (key, grace) in left {
            self.trace(|| format!("engine n{at}: the lease of {key} is over"));
            self.nodes[at].engine.fenced.insert(key.clone());
            self.engine_stop(at, &key, grace);
        }
    }

    /// What an agent that starts finds.
    pub(crate) fn engine_adopt(&self, at: usize) -> Vec<Found> {
        let all = self.nodes[at].engine.processes.iter();
        all.map(|(job, p)| Found {
            job: job.clone(),
            started_at: p.started_at,
            ended: p.ended.clone().map(|(at, outcome)| (at, outcome, Usage::default())),
            wants_secrets: false,
        })
        .collect()
    }

    pub(crate) fn engine_forget(&mut self, at: usize, key: &JobKey) {
        let engine = &mut self.nodes[at].engine;
        if engine.processes.get(key).is_none_or(|p| p.ended.is_some()) {
            engine.processes.remove(key);
            engine.lines.remove(key);
            engine.fenced.remove(key);
        }
    }

    /// The machine went down: no process is left.
    pub(crate) fn engine_dies(&mut self, at: usize) {
        let keys: Vec<JobKey> = self.nodes[at].engine.processes.keys().cloned().collect();
        for key in keys {
            let Some(process) = self.nodes[at].engine.processes.get_mut(&key) else {
                continue;
            };
            let was_alive = std::mem::replace(&mut process.alive, false);
            let (id, gpus) = (process.id, process.gpus.clone());
            if process.ended.is_none() {
                let why = "the machine was started anew".to_owned();
                let wall = self.nodes[at].clock.wall(self.now);
                if let Some(process) = self.nodes[at].engine.processes.get_mut(&key) {
                    process.ended = Some((wall, Outcome::Unknown { why }));
                }
                if !self.nodes[at].engine.remembers {
                    self.nodes[at].engine.processes.remove(&key);
                }
            }
            if was_alive {
                self.ends(at, &key, id, &gpus);
            }
        }
        self.nodes[at].engine.lease = None;
    }

    fn engine_says(&mut self, at: usize, key: &JobKey, what: What) {
        let Some(life) = self.agent_life(at) else { return };
        let delay = if self.faulty() {
            self.random.delay(0, 20, 3_000)
        } else {
            self.random.range(0, 5)
        };
        let engine = &mut self.nodes[at].engine;
        engine.last_event = engine.last_event.max(self.now + delay);
        let event = EngineEvent { job: key.clone(), what };
        let due = engine.last_event;
        self.schedule(due, Event::Engine(at, life, Box::new(event)));
    }
}
