//! What holds in every world.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use scheduler::{
    Change, Context, Fleet, Node, NodeState, Plan, Priority, Queue, Request, RequestId, Usage, Wait, explain, schedule,
};

use crate::random;
use crate::world::{World, gpu_suits};

/// A world in which some work runs already: `first` was scheduled at 0,
/// `then` waits now.
fn world(nodes: Vec<Node>, first: Vec<Request>, then: Vec<Request>) -> World {
    let mut world = World::new(nodes);
    world.now_ms = 0;
    world.submit(first.into_iter().map(|r| Request {
        not_before_ms: None,
        ..r
    }));
    let plan = world.plan();
    for placement in &plan.placements {
        check_placement(&world, placement);
    }
    world.apply(&plan);
    world.check();
    world.now_ms = 2_000;
    world.submit(then);
    world
}

fn worlds() -> impl Strategy<Value = World> {
    (random::nodes(6), random::requests("r", 12), random::requests("q", 20))
        .prop_map(|(nodes, first, then)| world(nodes, first, then))
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "at {}", self.now_ms)?;
        for node in self.nodes.values() {
            writeln!(f, "{node:?}")?;
        }
        for held in self.held.values() {
            writeln!(f, "{held:?}")?;
        }
        for request in self.queue.requests() {
            writeln!(f, "{request:?}")?;
        }
        Ok(())
    }
}

/// All ranks, on distinct nodes, each with the GPUs that were asked for.
fn check_placement(world: &World, placement: &scheduler::Placement) {
    let request = world.queue.get(&placement.request).expect("it waited");
    let ranks: Vec<u32> = placement.members.iter().map(|m| m.rank).collect();
    assert_eq!(ranks, (0..request.nodes.max(1)).collect::<Vec<_>>());
    let nodes: BTreeSet<_> = placement.members.iter().map(|m| &m.node).collect();
    assert_eq!(nodes.len(), ranks.len(), "distinct nodes");
    for member in &placement.members {
        let node = &world.nodes[&member.node];
        assert!(world.suits(request, node), "{} on {}", request.id, node.name);
        assert_eq!(member.gpus.len(), request.gpus as usize);
        for index in &member.gpus {
            let gpu = node.gpus.iter().find(|g| g.index == *index);
            assert!(gpu.is_some_and(|gpu| gpu_suits(request, gpu)));
        }
    }
}

/// The same fleet, made anew in another order.
fn rebuilt(world: &World) -> Fleet {
    let mut fleet = Fleet::new();
    for held in world.held.values().rev() {
        fleet.bind(held.clone());
    }
    for node in world.nodes.values().rev() {
        fleet.upsert_node(node.clone());
    }
    fleet
}

fn plan_with(world: &World, fleet: &Fleet) -> Plan {
    schedule(fleet, &world.queue, &world.usage, world.now_ms, &world.limits)
}

proptest! {
    // One seed, so that a run tells of the code and not of its luck. Looking
    // further: change the seed, raise PROPTEST_CASES.
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn plans_are_sound_complete_and_settled(mut world in worlds()) {
        let plan = world.plan();
        prop_assert_eq!(&plan, &world.plan(), "deterministic");
        for placement in &plan.placements {
            check_placement(&world, placement);
        }
        let waiting: u64 = plan.waiting.values().sum();
        prop_assert_eq!(waiting as usize + plan.placements.len(), world.queue.len());
        world.apply(&plan);
        world.check();
        // Nobody waits who could start, as far as nothing is kept for others.
        if plan.reservations.is_empty() {
            for request in world.queue.requests() {
                let backs_off = request.not_before_ms.is_some_and(|at| at > world.now_ms);
                prop_assert!(backs_off || !world.places(request), "{} fits", request.id);
            }
        }
        // Carried out, there is nothing more to do.
        let again = world.plan();
        prop_assert!(again.is_idle(), "first:\n{}\nthen:\n{}", plan, again);
        // (What is kept for others may hide that there would be too little anyway.)
        let others = |plan: &Plan| {
            let mut waiting = plan.waiting.clone();
            let kept = waiting.remove(&Wait::Reserved).unwrap_or(0);
            *waiting.entry(Wait::Resources).or_default() += kept;
            waiting
        };
        prop_assert_eq!(others(&again), others(&plan));
    }

    #[test]
    fn kept_up_to_date_equals_built_anew(
        start in random::nodes(8),
        changed in random::nodes(8),
        gone in prop::collection::vec(0usize..8, 0..4),
        first in random::requests("r", 16),
        ended in prop::collection::vec(0usize..16, 0..8),
        then in random::requests("q", 20),
    ) {
        let mut world = world(start, first, then);
        for i in gone {
            let name = format!("n{i}").into();
            world.fleet.remove_node(&name);
            world.nodes.remove(&name);
        }
        for node in changed {
            world.upsert(node);
        }
        for i in ended {
            world.end(&format!("r{i}").into());
        }
        let anew = rebuilt(&world);
        let plan = world.plan();
        prop_assert_eq!(&plan, &plan_with(&world, &anew));
        for request in world.queue.requests() {
            let context = Context { queue: Some(&world.queue), usage: None, plan: Some(&plan) };
            prop_assert_eq!(
                explain(&world.fleet, request, &context, world.now_ms),
                explain(&anew, request, &context, world.now_ms)
            );
        }
        // And so does a queue that has seen other days.
        let mut queue = Queue::new();
        let mut requests: Vec<Request> = world.queue.requests().cloned().collect();
        requests.sort_by(|a, b| b.id.cmp(&a.id));
        for request in &requests {
            queue.upsert(Request { gpus: 7, priority: Priority::Low, ..request.clone() });
        }
        for request in requests {
            queue.upsert(request);
        }
        world.queue = queue;
        prop_assert_eq!(&plan, &world.plan());
    }

    #[test]
    fn only_high_evicts_only_low_and_no_more_than_needed(mut world in worlds()) {
        let plan = world.plan();
        for preemption in &plan.preemptions {
            let request = world.queue.get(&preemption.request).expect("it waits").clone();
            prop_assert_eq!(request.priority, Priority::High);
            for victim in &preemption.victims {
                let held: Vec<_> = world.held.values().filter(|a| a.key.request == victim.request).collect();
                prop_assert_eq!(held.len(), victim.allocations.len(), "as a whole");
                for allocation in held {
                    prop_assert_eq!(allocation.priority, Priority::Low);
                    prop_assert!(allocation.preemptible && allocation.evicting_for.is_none());
                }
            }
        }
        let victims: Vec<&RequestId> = plan.preemptions.iter().flat_map(|p| &p.victims).map(|v| &v.request).collect();
        let distinct: BTreeSet<_> = victims.iter().collect();
        prop_assert_eq!(victims.len(), distinct.len(), "nobody is evicted twice");
        // Alone with its victims, no smaller set would do.
        if let [preemption] = plan.preemptions.as_slice() {
            let request = world.queue.get(&preemption.request).expect("it waits").clone();
            for placement in &plan.placements {
                let placed = world.queue.remove(&placement.request).expect("it waited");
                for m in &placement.members {
                    world.bind(crate::world::allocation(&placed, m.rank, m.node.as_str(), &m.gpus, world.now_ms));
                }
            }
            for spared in &preemption.victims {
                let mut without = world_without(&world, preemption.victims.iter().map(|v| &v.request).filter(|v| **v != spared.request));
                without.now_ms = world.now_ms;
                prop_assert!(!without.places(&request), "{} need not go for {}", spared.request, request.id);
            }
            let all = world_without(&world, preemption.victims.iter().map(|v| &v.request));
            prop_assert!(all.places(&request));
            if request.nodes == 1 {
                let low: BTreeSet<RequestId> = world.held.values()
                    .filter(|a| a.priority == Priority::Low).map(|a| a.key.request.clone()).collect();
                let fewer = preemption.victims.len() - 1;
                for set in subsets(&low.into_iter().collect::<Vec<_>>(), fewer) {
                    prop_assert!(!world_without(&world, set.iter()).places(&request), "{set:?} would do");
                }
            }
        }
    }

    #[test]
    fn the_head_is_never_delayed(
        nodes in random::nodes(5),
        requests in random::requests("q", 24),
        ends in prop::collection::vec(0u8..4, 64),
    ) {
        // One owner and one priority, so that the order never changes.
        let mut world = World::new(nodes.into_iter().map(|n| Node { back_off_until_ms: None, ..n }));
        world.now_ms = 0;
        world.submit(requests.into_iter().map(|r| Request {
            owner: "ann".into(),
            priority: Priority::Normal,
            not_before_ms: None,
            ..r
        }));
        let mut promised: BTreeMap<RequestId, i64> = BTreeMap::new();
        for step in 0..80usize {
            let plan = world.plan();
            for placement in &plan.placements {
                if let Some(start) = promised.remove(&placement.request) {
                    prop_assert!(world.now_ms <= start, "{} was promised {}", placement.request, start);
                }
            }
            if let Some(head) = plan.reservations.first() {
                let before = promised.get(&head.request);
                if let Some(&before) = before {
                    prop_assert!(head.start_ms.is_some_and(|s| s <= before), "{} slipped from {} to {:?}", head.request, before, head.start_ms);
                }
                if let Some(start) = head.start_ms {
                    promised.insert(head.request.clone(), start);
                }
            }
            for (head, start) in &promised {
                prop_assert!(world.now_ms <= *start, "{head} still waits after {start}");
            }
            world.apply(&plan);
            world.check();
            // Time passes to the next end; some endless or early work ends, too.
            let next = world.held.values().filter_map(|a| a.expected_end_ms).min();
            let endless = world.held.values().find(|a| a.expected_end_ms.is_none()).map(|a| a.key.request.clone());
            let early = world.held.values().last().map(|a| a.key.request.clone());
            match (ends[step % ends.len()], next) {
                (0, _) if endless.is_some() => world.end(&endless.expect("just seen")),
                (1, _) if early.is_some() => world.end(&early.expect("just seen")),
                (_, Some(next)) => {
                    world.now_ms = next;
                    let over: Vec<RequestId> = world.held.values()
                        .filter(|a| a.expected_end_ms.is_some_and(|e| e <= next))
                        .map(|a| a.key.request.clone()).collect();
                    for request in over {
                        world.end(&request);
                    }
                }
                (_, None) => match endless {
                    Some(request) => world.end(&request),
                    None => break,
                },
            }
        }
    }

    #[test]
    fn preemption_comes_to_rest(
        nodes in random::nodes(5),
        requests in random::requests("q", 30),
        slow in prop::collection::vec(0u8..3, 64),
    ) {
        let mut world = World::new(nodes);
        world.now_ms = 0;
        let arrivals: Vec<Request> = requests.into_iter().map(|r| Request { not_before_ms: None, ..r }).collect();
        let all: BTreeMap<RequestId, Request> = arrivals.iter().map(|r| (r.id.clone(), r.clone())).collect();
        let mut arrivals = arrivals.into_iter();
        let mut evictions: BTreeMap<RequestId, usize> = BTreeMap::new();
        let mut quiet = 0;
        for step in 0..400usize {
            world.submit(arrivals.next());
            let plan = world.plan();
            for preemption in &plan.preemptions {
                *evictions.entry(preemption.request.clone()).or_default() += 1;
            }
            quiet = if plan.is_idle() { quiet + 1 } else { 0 };
            world.apply(&plan);
            world.check();
            world.now_ms += 100;
            // Victims take their time to go, and wait again afterwards.
            let leaving: Vec<_> = world.held.values().filter(|a| a.evicting_for.is_some()).map(|a| a.key.clone()).collect();
            for (i, key) in leaving.into_iter().enumerate() {
                if slow[(step + i) % slow.len()] == 0 {
                    world.release(&key);
                    if !world.held.keys().any(|k| k.request == key.request) {
                        world.submit([all[&key.request].clone()]);
                    }
                    quiet = 0;
                }
            }
        }
        prop_assert!(quiet > 100, "still busy");
        for (request, times) in evictions {
            prop_assert!(times == 1, "{request} evicted {times} times");
            prop_assert!(world.queue.get(&request).is_none(), "{request} evicted others and waits still");
        }
    }

    #[test]
    fn explanations_add_up_and_remedies_work(world in worlds()) {
        let requests: Vec<Request> = world.queue.requests().cloned().collect();
        for request in requests {
            let explanation = explain(&world.fleet, &request, &Context::default(), world.now_ms);
            let blocked: usize = explanation.blockers.iter().map(|b| b.nodes).sum();
            prop_assert_eq!(explanation.fitting + blocked, world.nodes.len());
            prop_assert!(explanation.blockers.iter().all(|b| b.total >= b.nodes));
            let fitting = world.nodes.values().filter(|n| world.fits(&request, n)).count();
            prop_assert_eq!(explanation.fitting, fitting);
            let now = Request { not_before_ms: None, ..request.clone() };
            let placed = !alone(&world, &world.fleet, &now).placements.is_empty();
            prop_assert_eq!(placed, explanation.fitting >= explanation.needed);
            if placed {
                prop_assert!(explanation.ever_fits);
                prop_assert!(explanation.remedies.is_empty());
            }
            for remedy in &explanation.remedies {
                let changed = remedy.0.iter().fold(now.clone(), |r, c| c.apply(&r));
                match remedy.0.as_slice() {
                    [Change::Undrain { node }] => {
                        let mut fleet = rebuilt(&world);
                        fleet.upsert_node(Node { state: NodeState::Ready, ..world.nodes[node].clone() });
                        prop_assert_eq!(alone(&world, &fleet, &now).placements.len(), 1, "{}", remedy);
                    }
                    [Change::Preempt { victims }] => {
                        let plan = alone(&world, &world.fleet, &changed);
                        prop_assert_eq!(plan.preemptions.len(), 1, "{}", remedy);
                        let named: Vec<_> = plan.preemptions[0].victims.iter().map(|v| v.request.clone()).collect();
                        prop_assert_eq!(&named, victims);
                    }
                    _ => prop_assert_eq!(alone(&world, &world.fleet, &changed).placements.len(), 1, "{}", remedy),
                }
            }
            // What can never run is what the scheduler calls so on ready nodes.
            let plan = alone(&world, &world.fleet, &now);
            if !explanation.ever_fits {
                prop_assert_eq!(plan.waiting.get(&Wait::Never), Some(&1));
            }
        }
    }
}

/// The plan if `request` were the only one waiting.
fn alone(world: &World, fleet: &Fleet, request: &Request) -> Plan {
    let mut queue = Queue::new();
    queue.upsert(request.clone());
    schedule(fleet, &queue, &Usage::new(), world.now_ms, &world.limits)
}

fn world_without<'a>(world: &World, gone: impl Iterator<Item = &'a RequestId>) -> World {
    let mut copy = World::new(world.nodes.values().cloned());
    copy.now_ms = world.now_ms;
    for held in world.held.values() {
        copy.bind(held.clone());
    }
    for request in gone {
        copy.end(request);
    }
    copy
}

fn subsets(of: &[RequestId], size: usize) -> Vec<Vec<RequestId>> {
    match (size, of) {
        (0, _) => vec![Vec::new()],
        (_, []) => Vec::new(),
        (_, [first, rest @ ..]) => {
            let mut sets = subsets(rest, size);
            sets.extend(subsets(rest, size - 1).into_iter().map(|mut set| {
                set.push(first.clone());
                set
            }));
            sets
        }
    }
}
