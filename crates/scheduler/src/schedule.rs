//! One pass over the queue.
//!
//! First those that room is already being made for, then everybody in order.
//! The first that is blocked but could run one day is the head: room is kept
//! for it, and whoever comes later starts only where that can't delay it.
//! Starting somebody ahead changes the owners' shares and so perhaps the
//! head; then the walk begins again with what is left, until nothing changes.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::bits::Bits;
use crate::filter::Ask;
use crate::hash::FastSet;
use crate::pass::{Claim, Pass};
use crate::place::{Candidates, Choice, NotFound, Prepared, Taste};
use crate::plan::{Member, Placement, Plan, Preemption, Reservation, Victim, Wait};
use crate::preempt::{Making, make_room, ran_ms};
use crate::queue::{Mark, Order, Queued};
use crate::reserve::{ever_fits, keep, room};
use crate::{Allocation, Fleet, NodeName, Owner, Priority, Queue, RequestId, Usage};

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
    let mut order = Order::new(queue, |owner| usage.share(fleet, owner));
    let mut run = Run {
        queue,
        limits,
        pass: Pass::new(fleet, now_ms),
        filters: repeat(queue.filters.bound()),
        prepared: repeat(queue.asks.bound()),
        walk: Walk {
            now_ms,
            decided: Bits::default(),
            settled: vec![None; queue.asks.bound()],
            held: vec![false; queue.classes.bound()],
            waiting: [0; Wait::ALL.len()],
        },
        reserved_kinds: FastSet::default(),
        hopeless_for_now: false,
        making: Vec::new(),
        victims: 0,
        plan: Plan::default(),
    };
    run.fronts(&mut order);
    while run.round(&mut order) {
        order.restart();
    }
    run.finish()
}

fn repeat<T: Default>(count: usize) -> Vec<T> {
    std::iter::repeat_with(T::default).take(count).collect()
}

struct Run<'a> {
    queue: &'a Queue,
    limits: &'a Limits,
    pass: Pass<'a>,
    /// What is known of each filter, by number.
    filters: Vec<FilterState<'a>>,
    /// Asks made ready, by number.
    prepared: Vec<Option<Box<Prepared<'a>>>>,
    walk: Walk,
    /// Kinds of node that a reservation may use. There is one head for each
    /// part of the fleet that has nothing to do with the others.
    reserved_kinds: FastSet<u32>,
    /// Something seemed hopeless perhaps only because of room kept for somebody.
    hopeless_for_now: bool,
    /// Room that evictions make.
    making: Vec<Reservation>,
    victims: usize,
    plan: Plan,
}

/// What the walk over the queue has to know of each request, and what it counts.
struct Walk {
    now_ms: i64,
    /// Placed, or room is being made.
    decided: Bits,
    /// Asks that wait, all of them, for the rest of the round.
    settled: Vec<Option<Wait>>,
    /// Classes that fit, but only on room kept for somebody.
    held: Vec<bool>,
    waiting: [u64; Wait::ALL.len()],
}

impl Walk {
    /// Whether a request needs no thought; if so, it is counted.
    fn passes_over(&mut self, mark: &Mark) -> bool {
        let wait = if self.decided.contains(mark.number) {
            return true;
        } else if mark.not_before_ms > self.now_ms {
            Wait::BackOff
        } else if let Some(wait) = self.settled[mark.ask as usize] {
            wait
        } else if self.held[mark.class as usize] {
            Wait::Reserved
        } else {
            return false;
        };
        self.count(wait);
        true
    }

    fn count(&mut self, wait: Wait) {
        self.waiting[wait as usize] += 1;
    }
}

/// What was found out in this pass about asks that share a filter. What is
/// free only shrinks, so that no finding is ever taken back.
#[derive(Default)]
struct FilterState<'a> {
    candidates: Option<Rc<Candidates>>,
    /// The least of those that have no room.
    blocked: Vec<&'a Ask>,
    /// The least of those that no evictions help.
    hopeless: Vec<&'a Ask>,
    /// The least of those that could never run.
    never: Vec<&'a Ask>,
    /// The greatest of those that could run one day.
    fits: Vec<&'a Ask>,
}

fn any_part_of(known: &[&Ask], ask: &Ask) -> bool {
    known.iter().any(|known| known.is_part_of(ask))
}

fn add_least<'a>(known: &mut Vec<&'a Ask>, ask: &'a Ask) {
    known.retain(|known| !ask.is_part_of(known));
    known.push(ask);
}

impl<'a> Run<'a> {
    /// Those that victims were or are being evicted for.
    fn fronts(&mut self, order: &mut Order<'a>) {
        let evicting = self.pass.fleet.evicting.keys();
        let mut fronts: Vec<&'a Queued> = evicting
            .chain(&self.queue.preempting)
            .filter_map(|id| self.queue.queued(id))
            .filter(|queued| queued.mark.not_before_ms <= self.pass.now_ms)
            .collect();
        let first_come = |a: &Queued, b: &Queued| {
            let key = |q: &Queued| (Reverse(q.request.priority), q.request.submitted_at_ms);
            key(a).cmp(&key(b)).then_with(|| a.request.id.cmp(&b.request.id))
        };
        fronts.sort_by(|a, b| first_come(a, b));
        fronts.dedup_by(|a, b| a.request.id == b.request.id);
        // First everybody gets back what was claimed when the evictions were
        // decided, those with the least choice before others.
        let waits = |queued: &Queued| self.pass.fleet.evicting.get(&queued.request.id);
        let mut makers: Vec<&'a Queued> = fronts.clone();
        makers.retain(|queued| waits(queued).is_some());
        makers.sort_by_key(|queued| waits(queued).map_or(0, BTreeSet::len));
        let mut claimed: Vec<(&'a Queued, Making)> = Vec::new();
        for queued in makers {
            if let Some(making) = self.find_room(queued, false) {
                for (node, claim) in &making.nodes {
                    self.pass.take(*node, *claim);
                }
                claimed.push((queued, making));
            }
        }
        // Then they start where they can: first those whose victims are gone.
        let has_claim = |queued: &Queued| {
            let number = queued.mark.number;
            claimed.iter().position(|(q, _)| q.mark.number == number)
        };
        let mut turns: Vec<(&'a Queued, Option<usize>)> =
            fronts.iter().map(|queued| (*queued, has_claim(queued))).collect();
        turns.sort_by_key(|(_, claim)| claim.is_some());
        // What is found out while claims come and go may not hold afterwards.
        self.hopeless_for_now |= !turns.is_empty();
        let mut claims: Vec<Option<Making>> = claimed.into_iter().map(|(_, m)| Some(m)).collect();
        for (queued, claim) in turns {
            if self.is_cut() {
                return;
            }
            let claim = claim.and_then(|at| claims[at].take());
            for (node, claim) in claim.iter().flat_map(|making| &making.nodes) {
                self.pass.give_back(*node, *claim);
            }
            if self.place_afresh(queued) {
                order.charge(queued);
                continue;
            }
            let may_evict = queued.request.priority == Priority::High && self.victims < self.limits.victims;
            let making = match claim {
                Some(making) => Some(making),
                None if self.could_ever_fit(queued) => self.find_room(queued, may_evict),
                None => None,
            };
            if let Some(making) = making {
                self.make_room(queued, making);
                order.charge(queued);
            }
        }
    }

    /// One walk over the queue. Returns whether another is needed.
    fn round(&mut self, order: &mut Order<'a>) -> bool {
        self.walk.settled.fill(None);
        self.walk.held.fill(false);
        self.walk.waiting.fill(0);
        if self.hopeless_for_now {
            self.filters.iter_mut().for_each(|f| f.hopeless.clear());
            self.hopeless_for_now = false;
        }
        self.reserved_kinds.clear();
        self.pass.holds.clear();
        self.plan.reservations.clear();
        let mut ahead_of_head = false;
        while !self.is_cut()
            && let Some(queued) = order.next(|mark| self.walk.passes_over(mark))
        {
            if self.decide(queued) {
                ahead_of_head |= !self.plan.reservations.is_empty();
                order.charge(queued);
            }
        }
        ahead_of_head && !self.plan.truncated
    }

    fn finish(self) -> Plan {
        let mut plan = self.plan;
        let making = self.making.len() as u64;
        for wait in Wait::ALL {
            let count = self.walk.waiting[wait as usize] + if wait == Wait::Preempting { making } else { 0 };
            if count > 0 {
                plan.waiting.insert(wait, count);
            }
        }
        plan.reservations.splice(0..0, self.making);
        let decided = plan.placements.len() as u64 + plan.waiting.values().sum::<u64>();
        let skipped = (self.queue.len() as u64).saturating_sub(decided);
        if skipped > 0 {
            *plan.waiting.entry(Wait::Limit).or_default() += skipped;
        }
        plan.decisions = decided;
        plan
    }

    fn is_cut(&mut self) -> bool {
        let cut = self.plan.placements.len() >= self.limits.placements
            && (self.walk.decided.len() as usize) < self.queue.len();
        self.plan.truncated |= cut;
        cut
    }

    /// Decides one request; whether it got something: a place, or room being
    /// made for it.
    fn decide(&mut self, queued: &'a Queued) -> bool {
        let held = match self.place(queued) {
            Ok(()) => return true,
            Err(reason) => reason == NotFound::Held,
        };
        if held && self.could_ever_fit(queued) {
            self.walk.held[queued.mark.class as usize] = true;
            self.walk.count(Wait::Reserved);
            return false;
        }
        let wait = if !self.could_ever_fit(queued) {
            Wait::Never
        } else {
            if queued.request.priority == Priority::High {
                if self.victims >= self.limits.victims {
                    self.plan.truncated = true;
                    self.walk.count(Wait::Limit);
                    return false;
                }
                if let Some(making) = self.find_room(queued, true) {
                    self.make_room(queued, making);
                    return true;
                }
            }
            self.reserve(queued);
            Wait::Resources
        };
        self.walk.count(wait);
        self.walk.settled[queued.mark.ask as usize] = Some(wait);
        false
    }

    /// The ask, made ready, and what is known of its filter.
    fn prepare(&mut self, queued: &'a Queued) -> Option<Ready<'_, 'a>> {
        let ask = self.queue.asks.get(queued.mark.ask)?;
        let filter = &mut self.filters[queued.filter as usize];
        let fleet = self.pass.fleet;
        let prepared = self.prepared[queued.mark.ask as usize].get_or_insert_with(|| {
            let candidates = filter
                .candidates
                .get_or_insert_with(|| Rc::new(Candidates::of(fleet, &ask.filter)));
            Box::new(Prepared::among(Rc::clone(candidates), ask))
        });
        Some(Ready {
            ask,
            filter,
            prepared,
            pass: &mut self.pass,
        })
    }

    fn place(&mut self, queued: &'a Queued) -> Result<(), NotFound> {
        let ask = self.queue.asks.get(queued.mark.ask);
        let blocked = &self.filters[queued.filter as usize].blocked;
        if ask.is_none_or(|ask| any_part_of(blocked, ask)) {
            return Err(NotFound::NoRoom);
        }
        let taste = self.taste(queued);
        let Some(ready) = self.prepare(queued) else {
            return Err(NotFound::NoRoom);
        };
        match ready.prepared.place(ready.pass, taste) {
            Ok(gang) => {
                self.start(queued, &gang);
                Ok(())
            }
            Err(reason) => {
                if reason == NotFound::NoRoom {
                    add_least(&mut ready.filter.blocked, ready.ask);
                }
                Err(reason)
            }
        }
    }

    /// Places a request while claims come and go: nothing that was found out
    /// before counts, and nothing is remembered.
    fn place_afresh(&mut self, queued: &'a Queued) -> bool {
        let taste = self.taste(queued);
        let Some(ready) = self.prepare(queued) else {
            return false;
        };
        match ready.prepared.afresh().place(ready.pass, taste) {
            Ok(gang) => {
                self.start(queued, &gang);
                true
            }
            Err(_) => false,
        }
    }

    fn taste(&self, queued: &'a Queued) -> Taste<'a> {
        let margin_ms = self.limits.backfill_margin_ms;
        Taste {
            image: &queued.request.image,
            end_ms: self.end_ms(queued).map(|end| end.saturating_add(margin_ms)),
        }
    }

    fn end_ms(&self, queued: &Queued) -> Option<i64> {
        let timeout_ms = queued.request.timeout_ms?;
        Some(self.pass.now_ms.saturating_add(timeout_ms))
    }

    /// Records what was taken for a request.
    fn start(&mut self, queued: &'a Queued, gang: &[Choice]) {
        let end_ms = self.end_ms(queued);
        for choice in gang {
            let claim = Claim {
                gpus: choice.gpus,
                cpu: queued.request.cpu_millicores,
                memory: queued.request.memory_bytes,
            };
            self.pass.start(choice.node, claim, end_ms);
        }
        let placement = placement(&self.pass, queued, gang);
        self.plan.placements.push(placement);
        self.walk.decided.set(queued.mark.number, true);
    }

    fn could_ever_fit(&mut self, queued: &'a Queued) -> bool {
        let Some(ask) = self.queue.asks.get(queued.mark.ask) else {
            return false;
        };
        let known = &self.filters[queued.filter as usize];
        if known.fits.iter().any(|fits| ask.is_part_of(fits)) {
            return true;
        }
        if any_part_of(&known.never, ask) {
            return false;
        }
        let Some(ready) = self.prepare(queued) else {
            return false;
        };
        let fits = ever_fits(ready.pass, ready.prepared);
        if fits {
            ready.filter.fits.retain(|known| !known.is_part_of(ask));
            ready.filter.fits.push(ask);
        } else {
            add_least(&mut ready.filter.never, ask);
        }
        fits
    }

    /// Where room is being made already, or may be made.
    fn find_room(&mut self, queued: &'a Queued, may_evict: bool) -> Option<Making> {
        let own = self.pass.fleet.evicting.get(&queued.request.id);
        let ready = self.prepare(queued)?;
        if own.is_none() && any_part_of(&ready.filter.hopeless, ready.ask) {
            return None;
        }
        let making = make_room(ready.pass, ready.prepared, own, may_evict);
        if making.is_none() && may_evict && own.is_none() {
            add_least(&mut ready.filter.hopeless, ready.ask);
            self.hopeless_for_now |= !self.pass.holds.is_empty();
        }
        making
    }

    /// Takes what is free there, and has the victims evicted.
    fn make_room(&mut self, queued: &'a Queued, making: Making) {
        let request = &queued.request.id;
        let Making { nodes, victims } = making;
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
                victims: victims.iter().map(|v| victim(&self.pass, *v)).collect(),
            });
        }
        for victim in victims {
            let members = &self.pass.fleet.workloads[victim as usize];
            self.pass.leaving.extend(members);
        }
        for (node, claim) in nodes {
            self.pass.take(node, claim);
        }
        self.walk.decided.set(queued.mark.number, true);
    }

    /// Keeps room for a blocked request, unless some is kept for another that
    /// may want the same nodes.
    fn reserve(&mut self, queued: &'a Queued) {
        if self.prepare(queued).is_none() {
            return;
        }
        let Some(prepared) = &self.prepared[queued.mark.ask as usize] else {
            return;
        };
        let reserved = &self.reserved_kinds;
        if prepared.kinds().any(|fit| reserved.contains(&fit.kind)) {
            return;
        }
        let Some(room) = room(&self.pass, prepared) else {
            return;
        };
        keep(&mut self.pass, prepared.ask, &room);
        self.reserved_kinds.extend(prepared.kinds().map(|fit| fit.kind));
        let name = |(node, _): &(u32, _)| self.pass.entry(*node).name.clone();
        self.plan.reservations.push(Reservation {
            request: queued.request.id.clone(),
            nodes: room.nodes.iter().map(name).collect(),
            start_ms: room.start_ms,
            evicting: false,
        });
    }
}

struct Ready<'r, 'a> {
    ask: &'a Ask,
    filter: &'r mut FilterState<'a>,
    prepared: &'r mut Prepared<'a>,
    pass: &'r mut Pass<'a>,
}

fn victim(pass: &Pass<'_>, workload: u32) -> Victim {
    let members = &pass.fleet.workloads[workload as usize];
    let mut held: Vec<&Allocation> = members
        .iter()
        .map(|&at| &pass.fleet.held[at as usize].allocation)
        .collect();
    held.sort_by_key(|held| held.key.rank);
    let first = held.first();
    Victim {
        request: first.map_or_else(|| RequestId::from(""), |held| held.key.request.clone()),
        owner: first.map_or_else(|| Owner::from(""), |held| held.owner.clone()),
        ran_ms: ran_ms(pass, workload).unwrap_or(0),
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
            deductions: choice.deductions(),
        }
    });
    Placement {
        request: queued.request.id.clone(),
        members: members.collect(),
        cpu_millicores: queued.request.cpu_millicores,
        memory_bytes: queued.request.memory_bytes,
    }
}
