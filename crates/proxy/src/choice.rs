//! Which endpoint is next. Pure: no clock, no socket; whoever calls holds the route's guard.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::counts::Meter;
use crate::endpoint::{Lease, Target};
use crate::route::{Endpoint, Group};

/// The groups of a route, whose turn it is, and the endpoints that have left but still have something in flight.
#[derive(Debug, Default)]
pub struct Choice {
    slots: Vec<Slot>,
    leaving: Vec<Arc<Target>>,
    /// Counters of all groups that are or were there.
    meters: Vec<Arc<Meter>>,
    /// Until when the last ejected endpoint is passed over: after that none is, and none needs to be asked.
    ejected_until: u64,
}

#[derive(Debug)]
struct Slot {
    weight: u32,
    /// How far the group is behind (or ahead of) its share; smooth weighted round robin.
    credit: i64,
    targets: Vec<Arc<Target>>,
    /// Where the search for the least busy begins, so that equals take turns.
    next: usize,
    meter: Arc<Meter>,
}

/// What came of a search.
#[derive(Debug)]
pub enum Pick {
    /// A place at an endpoint.
    Lease(Lease),
    /// No group with a weight has an endpoint.
    Nobody,
    /// All were tried.
    Tried,
}

impl Choice {
    /// Puts new groups in the place of the old ones. Endpoints (by id and address) and counters (by name) that stay are the
    /// same; shares begin anew only if names or weights changed.
    pub fn set(&mut self, groups: &[Group]) {
        let mut known: HashMap<Endpoint, Arc<Target>> = HashMap::new();
        for target in self.targets() {
            known.insert(target.endpoint.clone(), Arc::clone(target));
        }
        let same = self.slots.len() == groups.len()
            && self
                .slots
                .iter()
                .zip(groups)
                .all(|(slot, group)| slot.weight == group.weight && slot.meter.name.as_ref() == Some(&group.name));
        let old = std::mem::take(&mut self.slots);
        let credits: Vec<i64> = old.iter().map(|slot| if same { slot.credit } else { 0 }).collect();
        let mut staying: HashSet<*const Target> = HashSet::new();
        for (index, group) in groups.iter().enumerate() {
            let targets: Vec<_> = group
                .endpoints
                .iter()
                .map(|endpoint| {
                    let made = || Arc::new(Target::new(endpoint.clone()));
                    Arc::clone(known.entry(endpoint.clone()).or_insert_with(made))
                })
                .collect();
            for target in &targets {
                target.reopen();
            }
            staying.extend(targets.iter().map(Arc::as_ptr));
            let slot = Slot {
                weight: group.weight,
                credit: credits.get(index).copied().unwrap_or(0),
                targets,
                next: 0,
                meter: self.meter(&group.name),
            };
            self.slots.push(slot);
        }
        self.leaving.clear();
        for target in known.into_values() {
            if !staying.contains(&Arc::as_ptr(&target)) {
                target.close();
                if target.in_flight() > 0 {
                    self.leaving.push(target);
                }
            }
        }
    }

    /// Finds an endpoint and takes a place at it.
    ///
    /// A first search (nothing tried) takes the next group's turn. A further one stays with the group of `stay` while it
    /// has an endpoint that wasn't tried, then takes the group with the most weight; it is nobody's turn. Endpoints that
    /// couldn't be reached lately are passed over unless there is no other.
    pub fn pick(&mut self, now: u64, tried: &[Arc<Target>], stay: Option<&Arc<Meter>>) -> Pick {
        let ejecting = self.ejected_until > now;
        let found = match self.search(now, ejecting, tried, stay) {
            None if ejecting => self.search(now, false, tried, stay),
            found => found,
        };
        match found {
            Some(lease) => Pick::Lease(lease),
            None if tried.is_empty() => Pick::Nobody,
            None if self
                .slots
                .iter()
                .any(|slot| slot.weight > 0 && !slot.targets.is_empty()) =>
            {
                Pick::Tried
            }
            None => Pick::Nobody,
        }
    }

    fn search(&mut self, now: u64, ejecting: bool, tried: &[Arc<Target>], stay: Option<&Arc<Meter>>) -> Option<Lease> {
        let usable = |target: &Arc<Target>| {
            let passed_over = ejecting && target.is_ejected(now);
            !passed_over && !tried.iter().any(|other| Arc::ptr_eq(other, target))
        };
        let serves = |slot: &Slot| slot.weight > 0 && slot.targets.iter().any(usable);
        let chosen = if tried.is_empty() {
            let mut total = 0;
            let mut chosen: Option<usize> = None;
            for index in 0..self.slots.len() {
                if !serves(&self.slots[index]) {
                    continue;
                }
                let slot = &mut self.slots[index];
                slot.credit += i64::from(slot.weight);
                total += i64::from(slot.weight);
                let credit = slot.credit;
                if chosen.is_none_or(|best| credit > self.slots[best].credit) {
                    chosen = Some(index);
                }
            }
            let chosen = chosen?;
            self.slots[chosen].credit -= total;
            chosen
        } else {
            let staying = self
                .slots
                .iter()
                .position(|slot| serves(slot) && stay.is_some_and(|meter| Arc::ptr_eq(meter, &slot.meter)));
            let heaviest = || {
                let serving = self.slots.iter().enumerate().filter(|(_, slot)| serves(slot));
                serving.max_by_key(|(_, slot)| slot.weight).map(|(index, _)| index)
            };
            staying.or_else(heaviest)?
        };
        let slot = &mut self.slots[chosen];
        let count = slot.targets.len();
        let mut best: Option<(usize, usize)> = None;
        for step in 0..count {
            let at = (slot.next + step) % count;
            let target = &slot.targets[at];
            if !usable(target) {
                continue;
            }
            let busy = target.in_flight();
            if best.is_none_or(|(least, _)| busy < least) {
                best = Some((busy, at));
            }
            if busy == 0 {
                break;
            }
        }
        let (_, at) = best?;
        slot.next = (at + 1) % count;
        Some(Lease::take(&slot.targets[at], &slot.meter))
    }

    /// Notes until when an endpoint is passed over.
    pub fn eject(&mut self, until: u64) {
        self.ejected_until = self.ejected_until.max(until);
    }

    /// All endpoints, those that left but are still busy included; one of two groups comes once.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        let mut seen: Vec<&Arc<Target>> = self.slots.iter().flat_map(|slot| &slot.targets).collect();
        seen.extend(&self.leaving);
        seen.sort_by_key(|target| Arc::as_ptr(target));
        seen.dedup_by(|a, b| Arc::ptr_eq(a, b));
        seen.into_iter()
    }

    /// Counters of all groups; those of groups that are gone and that nobody counts on any more leave the list.
    pub fn meters(&mut self) -> Vec<Arc<Meter>> {
        let all = self.meters.clone();
        let slots = &self.slots;
        // Two: this list's and `all`'s. What is counted before that is seen by the caller.
        self.meters
            .retain(|meter| Arc::strong_count(meter) > 2 || slots.iter().any(|slot| Arc::ptr_eq(&slot.meter, meter)));
        all
    }

    /// Forgets endpoints that left and have nothing in flight.
    pub fn prune(&mut self) {
        self.leaving.retain(|target| target.in_flight() > 0);
    }

    fn meter(&mut self, name: &str) -> Arc<Meter> {
        match self.meters.iter().find(|meter| meter.name.as_deref() == Some(name)) {
            Some(meter) => Arc::clone(meter),
            None => {
                let meter = Arc::new(Meter::new(Some(name.to_owned())));
                self.meters.push(Arc::clone(&meter));
                meter
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use proptest::prelude::*;

    fn group(name: &str, weight: u32, endpoints: usize) -> Group {
        let endpoint = |n: usize| Endpoint {
            id: format!("{name}-{n}"),
            address: ([127, 0, 0, 1], 1_000 + n as u16).into(),
        };
        Group {
            name: name.to_owned(),
            weight,
            endpoints: (0..endpoints).map(endpoint).collect(),
        }
    }

    fn choice(groups: &[Group]) -> Choice {
        let mut choice = Choice::default();
        choice.set(groups);
        choice
    }

    fn lease(choice: &mut Choice) -> Lease {
        match choice.pick(0, &[], None) {
            Pick::Lease(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    fn name(lease: &Lease) -> String {
        lease.meter.name.clone().unwrap()
    }

    proptest! {
        #[test]
        fn shares_are_exact_over_any_run(weights in prop::collection::vec(0_u32..20, 1..6), skip in 0_usize..200) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let groups: Vec<_> = weights.iter().enumerate().map(|(n, &w)| group(&n.to_string(), w, 2)).collect();
            let mut choice = choice(&groups);
            for _ in 0..skip {
                lease(&mut choice);
            }
            let mut got = vec![0; weights.len()];
            for _ in 0..total {
                got[name(&lease(&mut choice)).parse::<usize>().unwrap()] += 1;
            }
            prop_assert_eq!(got, weights);
        }

        #[test]
        fn places_are_what_is_held(steps in prop::collection::vec((any::<bool>(), 0_usize..50), 1..200)) {
            let mut choice = choice(&[group("a", 3, 3), group("b", 1, 1)]);
            let mut held = Vec::new();
            for (take, which) in steps {
                if take || held.is_empty() {
                    held.push(lease(&mut choice));
                } else {
                    held.swap_remove(which % held.len());
                }
                for target in choice.targets() {
                    let count = held.iter().filter(|lease| Arc::ptr_eq(&lease.target, target)).count();
                    prop_assert_eq!(target.in_flight(), count);
                }
            }
        }
    }

    #[test]
    fn a_tenth_is_every_tenth() {
        let mut choice = choice(&[group("new", 10, 1), group("old", 90, 1)]);
        for _ in 0..20 {
            let new = (0..10).filter(|_| name(&lease(&mut choice)) == "new").count();
            assert_eq!(new, 1);
        }
    }

    #[test]
    fn the_least_busy_is_taken_and_equals_take_turns() {
        let mut choice = choice(&[group("a", 1, 3)]);
        let first = lease(&mut choice);
        let second = lease(&mut choice);
        let third = lease(&mut choice);
        let ids: Vec<_> = [&first, &second, &third].map(|l| l.target.endpoint.id.clone()).into();
        assert_eq!(ids, ["a-0", "a-1", "a-2"]);
        drop(second);
        assert_eq!(lease(&mut choice).target.endpoint.id, "a-1");
        drop((first, third));
        let turns: Vec<_> = (0..3).map(|_| lease(&mut choice).target.endpoint.id.clone()).collect();
        assert_eq!(turns, ["a-2", "a-0", "a-1"]);
    }

    #[test]
    fn groups_without_endpoints_pass_their_share_on() {
        let mut choice = choice(&[group("new", 50, 0), group("old", 50, 1), group("off", 0, 1)]);
        assert!((0..10).all(|_| name(&lease(&mut choice)) == "old"));
        choice.set(&[group("new", 100, 0), group("off", 0, 1)]);
        assert!(matches!(choice.pick(0, &[], None), Pick::Nobody));
    }

    #[test]
    fn what_failed_is_tried_elsewhere_its_own_group_first() {
        let mut choice = choice(&[group("new", 1, 2), group("old", 3, 1)]);
        let mut tried = Vec::new();
        let mut order = Vec::new();
        let first = loop {
            let lease = lease(&mut choice);
            if name(&lease) == "new" {
                break lease;
            }
        };
        let stay = Arc::clone(&first.meter);
        tried.push(Arc::clone(&first.target));
        drop(first);
        while let Pick::Lease(lease) = choice.pick(0, &tried, Some(&stay)) {
            order.push(name(&lease));
            tried.push(Arc::clone(&lease.target));
        }
        assert_eq!(order, ["new", "old"]);
        assert!(matches!(choice.pick(0, &tried, Some(&stay)), Pick::Tried));
    }

    #[test]
    fn ejected_endpoints_are_passed_over_unless_all_are() {
        let mut choice = choice(&[group("new", 50, 1), group("old", 50, 1)]);
        let options = Options::default();
        let now = clock();
        let eject = |choice: &mut Choice, id: &str| {
            let target = choice
                .targets()
                .find(|target| target.endpoint.id == id)
                .cloned()
                .unwrap();
            choice.eject(target.failed(&options));
        };
        let names = |choice: &mut Choice, now| -> Vec<String> {
            let pick = |_| match choice.pick(now, &[], None) {
                Pick::Lease(lease) => name(&lease),
                other => panic!("{other:?}"),
            };
            (0..4).map(pick).collect()
        };
        eject(&mut choice, "new-0");
        assert_eq!(names(&mut choice, now), ["old"; 4]);
        eject(&mut choice, "old-0");
        assert_eq!(names(&mut choice, now).iter().filter(|name| *name == "new").count(), 2);
        let later = now + 60_000_000_000;
        assert_eq!(
            names(&mut choice, later).iter().filter(|name| *name == "new").count(),
            2
        );
    }

    fn clock() -> u64 {
        crate::clock::now()
    }

    #[test]
    fn who_left_is_known_until_it_is_done() {
        let mut choice = choice(&[group("a", 1, 2)]);
        let held = lease(&mut choice);
        choice.set(&[group("b", 1, 1)]);
        let ids = |choice: &Choice| -> Vec<String> {
            let mut ids: Vec<_> = choice.targets().map(|target| target.endpoint.id.clone()).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&choice), ["a-0", "b-0"]);
        // It comes back as who it was.
        choice.set(&[group("a", 1, 1)]);
        let count = choice.targets().map(|target| target.in_flight()).sum::<usize>();
        assert_eq!((ids(&choice), count), (vec!["a-0".to_owned()], 1));
        choice.set(&[]);
        drop(held);
        choice.prune();
        assert!(ids(&choice).is_empty());
    }

    #[test]
    fn counters_of_groups_that_left_stay_until_nobody_counts() {
        let mut choice = choice(&[group("a", 1, 1)]);
        let held = lease(&mut choice);
        choice.set(&[]);
        assert_eq!(choice.meters().len(), 1);
        assert_eq!(choice.meters().len(), 1);
        drop(held);
        // The last time for what was counted since, then no more.
        assert_eq!(choice.meters().len(), 1);
        assert_eq!(choice.meters().len(), 0);
    }
}
