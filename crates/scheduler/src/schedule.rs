//! One pass over the queue.
//!
//! First those that room is already being made for, then everybody in order.
//! The first that is blocked but could run one day is the head: room is kept
//! for it, and whoever comes later starts only where that can't delay it.
//! Starting somebody ahead changes the owners' shares and so perhaps the
//! head; then the walk begins again with what is left, until nothing changes.

use std::collections::{HashMap, HashSet};

use crate::hash::FastSet;
use crate::pass::Pass;
use crate::place::{Candidates, Choice, NotFound, Prepared, Taste};
use crate::plan::{Member, Placement, Plan, Preemption, Reservation, Victim, Wait};
use crate::preempt::{Making, make_room, members, ran_ms};
use crate::queue::{Order, Queued};
use crate::reserve::{ever_fits, keep, room};
use crate::{Fleet, NodeName, Owner, Priority, Queue, RequestId, Usage};

/// Bounds of one pass. A pass cut short says so; carry it out and plan again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most placements.
    pub placements: usize,
    /// No more evictions once this many workloads are to be evicted.
    pub victims: usize,
    /// Added to a small job's own end, in milliseconds, when judging whether
    /// it is gone before the head of the queue may start: pulling an image
    /// and stopping take time.
    pub backfill_margin_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            placements: usize::MAX,
            victims: usize::MAX,
            backfill_margin_ms: 30_000,
        }
    }
}

/// Decides who starts where, who has to go and who waits.
///
/// Pure: equal inputs give equal plans. Carrying a plan out and planning
/// again at the same time finds nothing more to do.
#[must_use]
pub fn schedule(fleet: &Fleet, queue: &Queue, usage: &Usage, now_ms: i64, limits: &Limits) -> Plan {
    let share = |owner: &Owner| usage.share(fleet, owner);
    let mut order = Order::new(queue, &share);
    let mut run = Run {
        queue,
        limits,
        pass: Pass::new(fleet, now_ms),
        asks: std::iter::repeat_with(AskState::default)
            .take(queue.asks.bound())
            .collect(),
        held_classes: FastSet::default(),
        hopeless_for_now: Vec::new(),
        reserved_kinds: FastSet::default(),
        decided: HashSet::new(),
        done: HashMap::new(),
        making: Vec::new(),
        victims: 0,
        plan: Plan::default(),
    };
    run.fronts(&mut order);
    while run.round(&mut order) {
        order.restart();
    }
    let Run {
        mut plan, making, ..
    } = run;
    plan.reservations.splice(0..0, making);
    let waiting: u64 = plan.waiting.values().sum();
    plan.decisions = plan.placements.len() as u64 + waiting;
    let skipped = (queue.len() as u64).saturating_sub(plan.decisions);
    if plan.truncated && skipped > 0 {
        plan.waiting.insert(Wait::Limit, skipped);
    }
    plan
}

/// Priority, owner and class: requests that are walked in one row.
type Row<'a> = (Priority, &'a Owner, u32);

struct Run<'a> {
    queue: &'a Queue,
    limits: &'a Limits,
    pass: Pass<'a>,
    asks: Vec<AskState<'a>>,
    /// Classes that fit, but only on room kept for somebody.
    held_classes: FastSet<u32>,
    /// Asks that are hopeless perhaps only because of room kept for somebody.
    hopeless_for_now: Vec<u32>,
    /// Kinds of node that a reservation may use. There is one head for each
    /// part of the fleet that has nothing to do with the others.
    reserved_kinds: FastSet<u32>,
    /// Placed, or room is being made.
    decided: HashSet<&'a RequestId>,
    done: HashMap<Row<'a>, u64>,
    /// Room that evictions make.
    making: Vec<Reservation>,
    victims: usize,
    plan: Plan,
}

#[derive(Default)]
struct AskState<'a> {
    prepared: Option<Prepared<'a>>,
    /// Nowhere has room; nothing in this pass will change that.
    blocked: bool,
    /// No evictions would make room.
    hopeless: bool,
    ever_fits: Option<bool>,
}

enum Outcome {
    Placed,
    MakingRoom,
    /// This one waits; the next of its class may not have to.
    Waits(Wait),
    /// The whole class waits.
    ClassWaits(Wait),
}

impl<'a> Run<'a> {
    /// Those that victims were or are being evicted for.
    fn fronts(&mut self, order: &mut Order<'a>) {
        let evicting = self.pass.fleet.evicting.keys();
        let mut fronts: Vec<&'a Queued> = evicting
            .chain(&self.queue.preempting)
            .filter_map(|id| self.queue.queued(id))
            .collect();
        fronts.sort_by(|a, b| {
            let key = |q: &Queued| {
                (
                    std::cmp::Reverse(q.request.priority),
                    q.request.submitted_at_ms,
                )
            };
            key(a)
                .cmp(&key(b))
                .then_with(|| a.request.id.cmp(&b.request.id))
        });
        fronts.dedup_by(|a, b| a.request.id == b.request.id);
        for queued in fronts {
            if self.is_cut() {
                return;
            }
            let outcome = self.decide_front(queued);
            if matches!(outcome, Some(Outcome::Placed | Outcome::MakingRoom)) {
                order.charge(queued);
            }
        }
    }

    /// One walk over the queue. Returns whether another is needed.
    fn round(&mut self, order: &mut Order<'a>) -> bool {
        self.held_classes.clear();
        for ask in self.hopeless_for_now.drain(..) {
            self.asks[ask as usize].hopeless = false;
        }
        self.reserved_kinds.clear();
        self.pass.holds.clear();
        self.plan.reservations.clear();
        self.plan.waiting.clear();
        if !self.making.is_empty() {
            let making = self.making.len() as u64;
            self.plan.waiting.insert(Wait::Preempting, making);
        }
        let mut ahead_of_head = false;
        let mut done = self.done.clone();
        while !self.is_cut()
            && let Some(queued) = order.next()
        {
            let row = row(queued);
            if !done.is_empty() && self.decided.contains(&queued.request.id) {
                if let Some(left) = done.get_mut(&row) {
                    *left -= 1;
                }
                order.advance();
                continue;
            }
            match self.decide(queued) {
                Outcome::Placed => {
                    ahead_of_head |= !self.plan.reservations.is_empty();
                    order.charge(queued);
                    order.advance();
                }
                Outcome::MakingRoom => {
                    ahead_of_head |= !self.plan.reservations.is_empty();
                    *self.plan.waiting.entry(Wait::Preempting).or_default() += 1;
                    order.charge(queued);
                    order.advance();
                }
                Outcome::Waits(wait) => {
                    *self.plan.waiting.entry(wait).or_default() += 1;
                    order.advance();
                }
                Outcome::ClassWaits(wait) => {
                    let decided = done.get(&row).copied().unwrap_or(0);
                    let behind = order.skip_class() - decided;
                    *self.plan.waiting.entry(wait).or_default() += 1 + behind;
                }
            }
        }
        ahead_of_head && !self.plan.truncated
    }

    fn is_cut(&mut self) -> bool {
        let cut = self.plan.placements.len() >= self.limits.placements
            && self.decided.len() < self.queue.len();
        self.plan.truncated |= cut;
        cut
    }

    fn decide(&mut self, queued: &'a Queued) -> Outcome {
        if self.is_backing_off(queued) {
            return Outcome::Waits(Wait::BackOff);
        }
        if !self.asks[queued.ask as usize].blocked {
            if self.held_classes.contains(&queued.class) {
                return Outcome::ClassWaits(Wait::Reserved);
            }
            match self.place(queued) {
                Ok(()) => return Outcome::Placed,
                Err(NotFound::Held) => {
                    self.held_classes.insert(queued.class);
                    return Outcome::ClassWaits(Wait::Reserved);
                }
                Err(NotFound::NoRoom) => {}
            }
        }
        if !self.could_ever_fit(queued) {
            return Outcome::ClassWaits(Wait::Never);
        }
        if queued.request.priority == Priority::High && !self.asks[queued.ask as usize].hopeless {
            if self.victims >= self.limits.victims {
                self.plan.truncated = true;
                return Outcome::Waits(Wait::Limit);
            }
            if self.make_room(queued, true) {
                return Outcome::MakingRoom;
            }
            self.asks[queued.ask as usize].hopeless = true;
            if !self.pass.holds.is_empty() {
                self.hopeless_for_now.push(queued.ask);
            }
        }
        self.reserve(queued);
        Outcome::ClassWaits(Wait::Resources)
    }

    /// `None` leaves it to its turn.
    fn decide_front(&mut self, queued: &'a Queued) -> Option<Outcome> {
        if self.is_backing_off(queued) {
            return None;
        }
        if !self.asks[queued.ask as usize].blocked && self.place(queued).is_ok() {
            return Some(Outcome::Placed);
        }
        let may_evict =
            queued.request.priority == Priority::High && self.victims < self.limits.victims;
        if self.could_ever_fit(queued) && self.make_room(queued, may_evict) {
            return Some(Outcome::MakingRoom);
        }
        None
    }

    fn is_backing_off(&self, queued: &Queued) -> bool {
        let until = queued.request.not_before_ms;
        until.is_some_and(|until| until > self.pass.now_ms)
    }

    fn place(&mut self, queued: &'a Queued) -> Result<(), NotFound> {
        let request = &queued.request;
        let now_ms = self.pass.now_ms;
        let end_ms = request.timeout_ms.map(|t| now_ms.saturating_add(t));
        let margin_ms = self.limits.backfill_margin_ms;
        let taste = Taste {
            image: &request.image,
            end_ms: end_ms.map(|end| end.saturating_add(margin_ms)),
        };
        let Some((state, pass)) = self.state(queued) else {
            return Err(NotFound::NoRoom);
        };
        let Some(prepared) = &mut state.prepared else {
            return Err(NotFound::NoRoom);
        };
        let gang = match prepared.place(pass, taste) {
            Ok(gang) => gang,
            Err(reason) => {
                state.blocked = reason == NotFound::NoRoom;
                return Err(reason);
            }
        };
        for choice in &gang {
            pass.start(choice.node, prepared.claim(choice.gpus), end_ms);
        }
        self.plan
            .placements
            .push(placement(&self.pass, queued, &gang));
        self.settle(queued);
        Ok(())
    }

    fn state(&mut self, queued: &'a Queued) -> Option<(&mut AskState<'a>, &mut Pass<'a>)> {
        let state = &mut self.asks[queued.ask as usize];
        if state.prepared.is_none() {
            let ask = self.queue.asks.get(queued.ask)?;
            state.prepared = Some(Prepared::new(self.pass.fleet, ask));
        }
        Some((state, &mut self.pass))
    }

    fn settle(&mut self, queued: &'a Queued) {
        self.decided.insert(&queued.request.id);
        *self.done.entry(row(queued)).or_default() += 1;
    }

    fn could_ever_fit(&mut self, queued: &'a Queued) -> bool {
        let Some((state, pass)) = self.state(queued) else {
            return false;
        };
        let Some(prepared) = &state.prepared else {
            return false;
        };
        *state
            .ever_fits
            .get_or_insert_with(|| ever_fits(pass, prepared))
    }

    fn make_room(&mut self, queued: &'a Queued, may_evict: bool) -> bool {
        let request = &queued.request.id;
        let own = self.pass.fleet.evicting.get(request);
        let Some(prepared) = &self.asks[queued.ask as usize].prepared else {
            return false;
        };
        let Some(Making { nodes, victims }) = make_room(&self.pass, prepared, own, may_evict)
        else {
            return false;
        };
        let mut names: Vec<NodeName> = nodes
            .iter()
            .map(|(node, _)| self.pass.entry(*node).name.clone())
            .collect();
        names.sort_unstable();
        self.making.push(Reservation {
            request: request.clone(),
            nodes: names.clone(),
            start_ms: None,
            evicting: true,
        });
        if !victims.is_empty() {
            self.victims += victims.len();
            self.plan.preemptions.push(Preemption {
                request: request.clone(),
                nodes: names,
                victims: victims.iter().map(|v| victim(&self.pass, v)).collect(),
            });
        }
        for victim in victims {
            let gone: Vec<u32> = members(&self.pass, victim).collect();
            self.pass.leaving.extend(gone);
        }
        for (node, claim) in nodes {
            self.pass.take(node, claim);
        }
        self.settle(queued);
        true
    }

    fn reserve(&mut self, queued: &'a Queued) {
        let Some(prepared) = &self.asks[queued.ask as usize].prepared else {
            return;
        };
        let kinds: Vec<u32> = match &prepared.candidates {
            Candidates::Kinds(kinds) => kinds.iter().map(|fit| fit.kind).collect(),
            Candidates::Nodes(nodes) => nodes.iter().map(|(_, fit)| fit.kind).collect(),
        };
        if kinds.iter().any(|kind| self.reserved_kinds.contains(kind)) {
            return;
        }
        let Some(room) = room(&self.pass, prepared) else {
            return;
        };
        keep(&mut self.pass, prepared.ask, &room);
        self.reserved_kinds.extend(kinds);
        let name = |(node, _): &(u32, _)| self.pass.entry(*node).name.clone();
        self.plan.reservations.push(Reservation {
            request: queued.request.id.clone(),
            nodes: room.nodes.iter().map(name).collect(),
            start_ms: room.start_ms,
            evicting: false,
        });
    }
}

fn row(queued: &Queued) -> Row<'_> {
    let request = &queued.request;
    (request.priority, &request.owner, queued.class)
}

fn victim(pass: &Pass<'_>, request: &RequestId) -> Victim {
    let held: Vec<&crate::Allocation> = members(pass, request)
        .map(|at| &pass.fleet.held[at as usize].allocation)
        .collect();
    Victim {
        request: request.clone(),
        owner: held
            .first()
            .map_or_else(|| Owner::from(""), |held| held.owner.clone()),
        ran_ms: ran_ms(pass, request).unwrap_or(0),
        allocations: held.iter().map(|held| held.key.clone()).collect(),
    }
}

fn placement(pass: &Pass<'_>, queued: &Queued, gang: &[Choice]) -> Placement {
    let members = gang.iter().zip(0..).map(|(choice, rank)| {
        let entry = pass.entry(choice.node);
        Member {
            rank,
            node: entry.name.clone(),
            gpus: entry.indices(choice.gpus),
        }
    });
    Placement {
        request: queued.request.id.clone(),
        members: members.collect(),
        cpu_millicores: queued.request.cpu_millicores,
        memory_bytes: queued.request.memory_bytes,
    }
}
