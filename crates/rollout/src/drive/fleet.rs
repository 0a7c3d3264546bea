//! A service's replicas, and the one place where any is started, retired or stopped.
//!
//! A replica *exists* until its workload has ended, *lives* until it retires, is *ready* while it may be sent requests, and
//! is *settled* when it has been so for [`MIN_READY`](super::MIN_READY).

use std::{cmp::Reverse, collections::HashMap};

use api::{
    ErrorCode, Timestamp,
    deploy::{Replica, Service, Setback, Standing},
    time::{after, between},
};

use super::{DRAIN, DRAIN_LEAST, MIN_READY, SETBACK, SETBACK_MOST, SeenReplica, State, Step, Stop, rewind};

/// How many replicas there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// So many exist at most; what exists beyond isn't touched for it.
    pub(super) cap: u32,
    /// A ready replica that is one too many goes when so many others are settled.
    pub(super) whole: u32,
    /// A ready replica goes to make room for another when so many others are settled.
    pub(super) floor: u32,
    /// Of this revision those that aren't ready are kept as long as their room isn't needed: they may come back.
    pub(super) patient: Option<u32>,
}

/// A replica that ended without having been told to.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    pub(super) revision: u32,
    pub(super) why: String,
    pub(super) code: Option<ErrorCode>,
    pub(super) hopeless: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Fleet {
    pub(super) now: Timestamp,
    pub(super) service: Service,
    /// Beside `service.members`.
    states: Vec<(State, u64)>,
    /// Members that ended by themselves; they are members no more.
    pub(super) lost: Vec<Loss>,
    step: Step,
}

impl Fleet {
    pub(super) fn new(service: &Service, replicas: &[SeenReplica], now: Timestamp) -> Self {
        let mut fleet = Self {
            now,
            service: service.clone(),
            states: Vec::new(),
            lost: Vec::new(),
            step: Step::default(),
        };
        rewind::service(&mut fleet.service, now);
        let replicas: HashMap<_, _> = replicas.iter().map(|replica| (&replica.workload, replica)).collect();
        for member in std::mem::take(&mut fleet.service.members) {
            let state = replicas.get(&member.workload);
            let state = state.map(|replica| (replica.state.clone(), replica.in_flight));
            match state.unwrap_or((
                State::Ended {
                    why: "it is there no more".to_owned(),
                    code: None,
                    hopeless: false,
                },
                0,
            )) {
                (State::Ended { why, code, hopeless }, _) if member.retiring.is_none() => fleet.lost.push(Loss {
                    revision: member.revision,
                    why,
                    code,
                    hopeless,
                }),
                (State::Ended { .. }, _) => {}
                state => {
                    fleet.service.members.push(member);
                    fleet.states.push(state);
                }
            }
        }
        fleet.forgive();
        fleet.set_back();
        fleet
    }

    /// Remembers losses. A node that is lost says nothing about what ran there.
    fn set_back(&mut self) {
        for loss in &self.lost {
            if loss.code == Some(ErrorCode::NodeUnreachable) {
                continue;
            }
            let failures = self.service.setbacks.get(&loss.revision).map_or(0, |was| was.failures) + 1;
            let rest = SETBACK.millis().saturating_mul(1 << (failures - 1).min(16));
            let until = after(self.now, api::Span(rest.min(SETBACK_MOST.millis())));
            self.service.setbacks.insert(loss.revision, Setback { failures, until });
        }
    }

    /// Forgets setbacks of revisions whose replicas have all been ready for [`SETBACK_MOST`]. Those that retire count: what a
    /// step decides changes nothing about it.
    fn forgive(&mut self) {
        let mut looks = Vec::new();
        let (members, states, now) = (&self.service.members, &self.states, self.now);
        self.service.setbacks.retain(|revision, setback| {
            let mut due = after(setback.until, SETBACK_MOST);
            for (_, (state, _)) in members
                .iter()
                .zip(states)
                .filter(|(member, _)| member.revision == *revision)
            {
                match state {
                    State::Ready { since } => due = due.max(after(*since, SETBACK_MOST)),
                    _ => return true,
                }
            }
            looks.push(due);
            due > now
        });
        for due in looks {
            self.look(due);
        }
    }

    /// Something is due at `time`.
    pub(super) fn look(&mut self, time: Timestamp) {
        if time > self.now {
            self.step.look_again = Some(self.step.look_again.map_or(time, |other| other.min(time)));
        }
    }

    fn living_members(&self) -> impl Iterator<Item = (usize, &Replica, &State)> {
        let members = self.service.members.iter().zip(&self.states).enumerate();
        members
            .filter(|(_, (member, _))| member.retiring.is_none())
            .map(|(i, (member, (state, _)))| (i, member, state))
    }

    /// Living replicas of a revision.
    pub(super) fn of(&self, revision: u32) -> impl Iterator<Item = (&Replica, &State)> {
        self.living_members()
            .filter(move |(_, member, _)| member.revision == revision)
            .map(|(_, member, state)| (member, state))
    }

    /// How many of a revision live.
    pub(super) fn living(&self, revision: u32) -> u32 {
        count(self.of(revision))
    }

    /// How many exist.
    pub(super) fn existing(&self) -> u32 {
        u32::try_from(self.service.members.len()).unwrap_or(u32::MAX)
    }

    /// How many live that are of other revisions.
    pub(super) fn living_others(&self, revision: Option<u32>) -> u32 {
        count(
            self.living_members()
                .filter(|(_, member, _)| Some(member.revision) != revision),
        )
    }

    /// Whether any of another revision exists.
    pub(super) fn others_exist(&self, revision: Option<u32>) -> bool {
        let mut members = self.service.members.iter();
        members.any(|member| Some(member.revision) != revision)
    }

    /// Whether any retires that hasn't been told to end.
    pub(super) fn drains(&self) -> bool {
        let mut members = self.service.members.iter();
        members.any(|member| member.retiring.is_some() && member.stopped.is_none())
    }

    /// How many of a revision are settled.
    pub(super) fn settled(&self, revision: u32) -> u32 {
        count(self.of(revision).filter(|(_, state)| self.is_settled(state)))
    }

    /// How many of a revision are ready.
    pub(super) fn ready(&self, revision: u32) -> u32 {
        count(
            self.of(revision)
                .filter(|(_, state)| matches!(state, State::Ready { .. })),
        )
    }

    /// How many of a revision wait for a place.
    fn waiting(&self, revision: u32) -> u32 {
        count(
            self.of(revision)
                .filter(|(_, state)| matches!(state, State::Waiting { .. })),
        )
    }

    /// The revisions of living replicas, ascending.
    pub(super) fn revisions(&self) -> Vec<u32> {
        let mut revisions: Vec<u32> = self.living_members().map(|(_, member, _)| member.revision).collect();
        revisions.sort_unstable();
        revisions.dedup();
        revisions
    }

    fn is_settled(&self, state: &State) -> bool {
        matches!(state, State::Ready { since } if between(*since, self.now) >= MIN_READY)
    }

    /// Settled replicas of any revision but the `i`th member.
    fn settled_but(&self, i: usize) -> u32 {
        count(
            self.living_members()
                .filter(|(j, _, state)| *j != i && self.is_settled(state)),
        )
    }

    /// When the next living replica settles.
    fn look_at_settling(&mut self) {
        let due: Vec<Timestamp> = self
            .living_members()
            .filter_map(|(_, _, state)| match state {
                State::Ready { since } if !self.is_settled(state) => Some(after(*since, MIN_READY)),
                _ => None,
            })
            .collect();
        for due in due {
            self.look(due);
        }
    }

    fn is_bad(&self, revision: u32) -> bool {
        let revision = self.service.revision(revision);
        revision.is_some_and(|revision| revision.standing == Standing::Bad)
    }

    /// Starts what is wanted and isn't there, in this order, and takes away what is there and isn't wanted, within bounds.
    pub(super) fn balance(&mut self, want: &[(u32, u32)], bounds: Bounds) {
        let wanted = |revision: u32| want.iter().find(|(of, _)| *of == revision).map_or(0, |(_, n)| *n);
        // Those that aren't ready serve nobody: they go at once, unless they may come back in time to be of use.
        for i in self.surplus(wanted) {
            let revision = self.service.members[i].revision;
            let ready = matches!(self.states[i].0, State::Ready { .. });
            if !ready && bounds.patient != Some(revision) && self.living(revision) > wanted(revision) {
                self.retire(i);
            }
        }
        let mut missing = 0;
        for &(revision, n) in want {
            let started = |of: Option<u32>| {
                let starts = self
                    .step
                    .start
                    .iter()
                    .filter(|(revision, _)| of.is_none_or(|of| *revision == of));
                starts.map(|(_, n)| n).sum::<u32>()
            };
            let living = self.living(revision) + started(Some(revision));
            missing += self.waiting(revision);
            if living >= n {
                continue;
            }
            if let Some(setback) = self
                .service
                .setbacks
                .get(&revision)
                .filter(|setback| setback.until > self.now)
            {
                self.look(setback.until);
                continue;
            }
            let room = bounds.cap.saturating_sub(self.existing().saturating_add(started(None)));
            let go = (n - living).min(room);
            if go > 0 {
                self.step.start.push((revision, go));
            }
            missing += n - living - go;
        }
        // What is one too many, and what must go to make room for another.
        let retiring = self.existing() - count(self.living_members());
        let mut room = missing.saturating_sub(retiring);
        for i in self.surplus(wanted) {
            let revision = self.service.members[i].revision;
            if self.living(revision) <= wanted(revision) {
                continue;
            }
            let ready = matches!(self.states[i].0, State::Ready { .. });
            let others = self.settled_but(i);
            if others >= bounds.whole || (room > 0 && (!ready || others >= bounds.floor)) {
                self.retire(i);
                room = room.saturating_sub(1);
            }
        }
        self.look_at_settling();
    }

    /// Starts nothing of what it was going to.
    pub(super) fn start_none(&mut self) {
        self.step.start.clear();
    }

    /// Retires all that aren't of a revision, ready or not.
    pub(super) fn clear(&mut self, but: Option<u32>) {
        for i in self.surplus(|revision| if Some(revision) == but { u32::MAX } else { 0 }) {
            self.retire(i);
        }
    }

    /// Living replicas of revisions of which there are too many, those first whose loss costs least: not ready, then of a
    /// revision that failed, then of one that isn't known to be good, then the youngest.
    fn surplus(&self, wanted: impl Fn(u32) -> u32) -> Vec<usize> {
        let mut surplus: Vec<_> = self
            .living_members()
            .filter(|(_, member, _)| self.living(member.revision) > wanted(member.revision))
            .map(|(i, member, state)| {
                let worth = match state {
                    State::Failing { .. } | State::Ended { .. } => 0,
                    State::Waiting { .. } => 1,
                    State::Unready { .. } => 2,
                    State::Starting => 3,
                    State::Ready { .. } if !self.is_settled(state) => 4,
                    State::Ready { .. } => 5,
                };
                let good = !self.is_bad(member.revision);
                let stable = self.service.stable == Some(member.revision);
                (
                    worth,
                    good,
                    stable,
                    Reverse(member.since),
                    Reverse(member.workload.clone()),
                    i,
                )
            })
            .collect();
        surplus.sort();
        surplus.into_iter().map(|(.., i)| i).collect()
    }

    fn retire(&mut self, i: usize) {
        let member = &mut self.service.members[i];
        member.retiring = Some(self.now);
        self.step.retire.push(member.workload.clone());
    }

    /// Stops replicas that retire and have answered their requests, or had time enough to.
    pub(super) fn drain(&mut self, immediate: bool) {
        let mut due = Vec::new();
        for (member, (state, in_flight)) in self.service.members.iter_mut().zip(&self.states) {
            let (Some(retiring), None) = (member.retiring, member.stopped) else {
                continue;
            };
            let rest = match (immediate, state) {
                (true, _) => api::Span(0),
                (false, State::Waiting { .. } | State::Starting | State::Failing { .. } | State::Ended { .. }) => {
                    api::Span(0)
                }
                (false, State::Ready { .. } | State::Unready { .. }) if *in_flight == 0 => DRAIN_LEAST,
                (false, State::Ready { .. } | State::Unready { .. }) => DRAIN,
            };
            if between(retiring, self.now) >= rest {
                member.stopped = Some(self.now);
                self.step.stop.push(Stop {
                    workload: member.workload.clone(),
                    immediate,
                });
            } else {
                due.push(after(retiring, rest));
            }
        }
        for due in due {
            self.look(due);
        }
    }

    /// What is to be done; the service where it isn't as it `was`, or where replicas are to become its members.
    pub(super) fn finish(self, was: &Service) -> Step {
        let mut step = self.step;
        if self.service != *was || !step.start.is_empty() {
            step.service = Some(self.service);
        }
        step
    }
}

fn count<T>(of: impl Iterator<Item = T>) -> u32 {
    u32::try_from(of.count()).unwrap_or(u32::MAX)
}
