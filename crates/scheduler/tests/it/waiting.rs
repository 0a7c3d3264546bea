//! Who goes first, who may go ahead, and who has to make room.

use std::collections::BTreeMap;

use scheduler::{AllocationKey, Node, Priority, Request, Wait};

use crate::world::{World, allocation, ask, at, for_ms, high, low, node};

#[test]
fn priority_then_share_then_age() {
    let mut world = World::new([node("a", 1, "T4")]);
    let of = |owner: &str, id: &str, priority, age| Request {
        owner: owner.into(),
        priority,
        submitted_at_ms: age,
        ..ask(id, 1)
    };
    world.usage.set("greedy", 10_000);
    world.submit([
        of("greedy", "old", Priority::Normal, 1),
        of("modest", "young", Priority::Normal, 9),
        of("modest", "younger", Priority::Normal, 10),
        of("greedy", "urgent", Priority::High, 11),
        of("modest", "idle", Priority::Low, 0),
    ]);
    let mut order = Vec::new();
    for _ in 0..5 {
        let plan = world.plan();
        world.apply(&plan);
        let placed = plan.placements[0].request.clone();
        world.end(&placed);
        order.push(placed.to_string());
    }
    assert_eq!(order, ["urgent", "young", "younger", "old", "idle"]);
}

#[test]
fn shares_grow_within_a_pass() {
    let mut world = World::new([node("a", 4, "T4")]);
    for n in 0..4 {
        for owner in ["ann", "bob"] {
            let late = if owner == "bob" { 100 } else { 0 };
            world.submit([Request {
                owner: owner.into(),
                ..at(late + n, ask(&format!("{owner}-{n}"), 1))
            }]);
        }
    }
    let plan = world.step();
    assert_eq!(
        plan,
        "place ann-0: a[0]\nplace bob-0: a[1]\nplace ann-1: a[2]\nplace bob-1: a[3]\n\
         keep a for ann-2, start unknown\n4 wait for resources\n"
    );
}

#[test]
fn small_work_goes_ahead_only_where_it_cannot_delay_the_head() {
    let mut world = World::new([node("a", 4, "T4"), node("b", 4, "T4")]);
    world.hold(&for_ms(10_000, ask("r1", 3)), "a", &[0, 1, 2]);
    world.hold(&ask("r2", 4), "b", &[0, 1, 2, 3]);
    world.submit([
        at(1, ask("head", 4)),
        at(2, ask("endless", 1)),
        at(3, for_ms(20_000, ask("long", 1))),
        at(4, for_ms(9_000, ask("short", 1))),
    ]);
    assert_eq!(
        world.step(),
        "place short: a[3]\nkeep a for head, starts by 11000\n\
         3 wait for resources\n"
    );
    world.now_ms = 11_000;
    world.end(&"r1".into());
    world.end(&"short".into());
    assert!(world.step().starts_with("place head: a[0, 1, 2, 3]\n"));
}

#[test]
fn endless_work_goes_ahead_on_what_the_head_does_not_need() {
    let mut world = World::new([node("a", 4, "T4")]);
    world.hold(&for_ms(10_000, ask("r1", 2)), "a", &[0, 1]);
    world.submit([
        at(1, ask("head", 3)),
        at(2, ask("endless", 1)),
        at(3, ask("another", 1)),
    ]);
    assert_eq!(
        world.step(),
        "place endless: a[2]\nkeep a for head, starts by 11000\n\
         1 wait for resources\n1 would delay the head of the queue\n"
    );
}

#[test]
fn nothing_is_lent_from_a_head_whose_start_is_unknown() {
    let mut world = World::new([node("a", 4, "T4")]);
    world.hold(&ask("r1", 2), "a", &[0, 1]);
    world.submit([at(1, ask("head", 3)), at(2, for_ms(1, ask("tiny", 1)))]);
    assert_eq!(
        world.step(),
        "keep a for head, start unknown\n1 wait for resources\n\
         1 would delay the head of the queue\n"
    );
}

#[test]
fn the_margin_counts_against_small_work() {
    let mut world = World::new([node("a", 2, "T4")]);
    world.limits.backfill_margin_ms = 5_000;
    world.hold(&for_ms(10_000, ask("r1", 1)), "a", &[0]);
    world.submit([at(1, ask("head", 2)), at(2, for_ms(6_000, ask("small", 1)))]);
    assert!(world.plan().placements.is_empty());
    world.submit([at(2, for_ms(5_000, ask("small", 1)))]);
    assert_eq!(world.plan().placements.len(), 1);
}

#[test]
fn a_request_that_never_fits_blocks_nobody() {
    let mut world = World::new([node("a", 4, "T4")]);
    world.submit([at(1, high(ask("never", 16))), at(2, ask("small", 4))]);
    assert_eq!(
        world.step(),
        "place small: a[0, 1, 2, 3]\n1 fit no node even if empty\n"
    );
}

#[test]
fn one_head_for_each_part_of_the_fleet() {
    let mut world = World::new([node("a", 2, "T4"), node("h", 2, "H100")]);
    world.hold(&ask("r1", 1), "a", &[0]);
    world.hold(&ask("r2", 1), "h", &[0]);
    let of = |model: &str, request: Request| Request {
        gpu_model: Some(model.into()),
        ..request
    };
    world.submit([
        at(1, of("T4", ask("t4-head", 2))),
        at(2, of("H100", ask("h100-head", 2))),
        at(3, of("H100", ask("h100-small", 1))),
    ]);
    let plan = world.plan();
    assert!(plan.placements.is_empty());
    assert_eq!(plan.reservations.len(), 2);
}

#[test]
fn retries_wait_for_their_time() {
    let mut world = World::new([node("a", 1, "T4")]);
    world.submit([Request {
        not_before_ms: Some(2_000),
        ..ask("again", 1)
    }]);
    assert_eq!(world.step(), "1 back off\n");
    world.now_ms = 2_000;
    assert_eq!(world.step(), "place again: a[0]\n");
}

#[test]
fn high_evicts_the_fewest_and_youngest_low() {
    let mut world = World::new([node("a", 4, "T4"), node("b", 4, "T4"), node("c", 4, "T4")]);
    world.hold(&low(ask("a1", 1)), "a", &[0]);
    world.hold(&low(ask("a2", 3)), "a", &[1, 2, 3]);
    world.now_ms += 10;
    world.hold(&low(ask("b1", 2)), "b", &[0, 1]);
    world.hold(&ask("b2", 2), "b", &[2, 3]);
    world.now_ms += 10;
    world.hold(&low(ask("c1", 2)), "c", &[0, 1]);
    world.hold(&low(ask("c2", 2)), "c", &[2, 3]);
    world.submit([at(1, high(ask("two", 2))), at(2, high(ask("four", 4)))]);
    assert_eq!(
        world.step(),
        "evict c1 for two on c\nevict a1, a2 for four on a\n\
         keep c for two, starts after evictions\nkeep a for four, starts after evictions\n\
         2 wait for evictions\n"
    );
    // While the victims get their grace, nothing more is evicted.
    assert_eq!(
        world.step(),
        "keep c for two, starts after evictions\nkeep a for four, starts after evictions\n\
         2 wait for evictions\n"
    );
}

#[test]
fn neither_normal_nor_protected_work_is_evicted() {
    let mut world = World::new([node("a", 3, "T4")]);
    world.hold(&ask("normal", 1), "a", &[0]);
    let mut young = crate::world::allocation(&low(ask("young", 1)), 0, "a", &[1], 1_000);
    young.min_run_until_ms = Some(5_000);
    let mut pet = crate::world::allocation(&low(ask("pet", 1)), 0, "a", &[2], 0);
    pet.preemptible = false;
    world.bind(young);
    world.bind(pet);
    world.submit([at(1, high(ask("urgent", 1))), at(2, ask("normal-2", 1))]);
    let plan = world.plan();
    assert!(plan.preemptions.is_empty());
    assert_eq!(plan.waiting[&Wait::Resources], 2);
    world.now_ms = 5_000;
    assert!(world.step().starts_with("evict young for urgent on a\n"));
}

#[test]
fn what_evictions_free_is_the_preemptors() {
    let mut world = World::new([node("a", 2, "T4")]);
    world.hold(&low(ask("v1", 1)), "a", &[0]);
    world.hold(&low(ask("v2", 1)), "a", &[1]);
    world.submit([at(5, high(ask("urgent", 2)))]);
    assert!(world.step().starts_with("evict v1, v2 for urgent on a\n"));
    // One victim is gone; somebody older and just as urgent comes along.
    world.end(&"v1".into());
    world.submit([at(1, high(ask("older", 1))), at(2, low(ask("v1", 1)))]);
    assert_eq!(
        world.step(),
        "keep a for urgent, starts after evictions\nkeep a for older, start unknown\n\
         2 wait for resources\n1 wait for evictions\n"
    );
    world.end(&"v2".into());
    let plan = world.step();
    assert!(plan.starts_with("place urgent: a[0, 1]\n"), "{plan}");
}

#[test]
fn a_gang_of_victims_goes_as_a_whole() {
    let mut world = World::new([node("a", 2, "T4"), node("b", 2, "T4")]);
    let gang = low(Request {
        nodes: 2,
        ..ask("gang", 2)
    });
    world.submit([gang]);
    world.step();
    world.submit([high(ask("urgent", 1))]);
    let plan = world.plan();
    let victim = &plan.preemptions[0].victims[0];
    assert_eq!(
        victim.allocations,
        [AllocationKey::new("gang", 0), AllocationKey::new("gang", 1)]
    );
    // The other half of what the gang frees is enough for a second one.
    world.submit([at(9, high(ask("second", 2)))]);
    let plan = world.plan();
    assert_eq!(plan.preemptions.len(), 1);
}

#[test]
fn high_gangs_make_room_on_as_many_nodes_as_they_need() {
    let mut world = World::new([node("a", 2, "T4"), node("b", 2, "T4"), node("c", 2, "T4")]);
    world.hold(&low(ask("va", 2)), "a", &[0, 1]);
    world.hold(&low(ask("vb", 2)), "b", &[0, 1]);
    world.submit([high(Request {
        nodes: 2,
        ..ask("gang", 2)
    })]);
    assert_eq!(
        world.step(),
        "evict va for gang on a, c\nkeep a, c for gang, starts after evictions\n\
         1 wait for evictions\n"
    );
    world.submit([ask("sneak", 1)]);
    assert!(world.plan().placements.is_empty(), "c is kept for the gang");
    world.end(&"va".into());
    assert!(world.step().starts_with("place gang: a[0, 1] c[0, 1]\n"));
}

#[test]
fn limits_cut_a_pass_short_and_say_so() {
    let mut world = World::new([node("a", 8, "T4")]);
    world.limits.placements = 2;
    world.submit((0..5).map(|n| at(n, ask(&n.to_string(), 1))));
    assert_eq!(
        world.step(),
        "place 0: a[0]\nplace 1: a[1]\n3 not looked at\ncut short: plan again\n"
    );
    world.step();
    assert_eq!(world.step(), "place 4: a[4]\n");
}

#[test]
fn a_large_fleet_decides_alike_however_it_came_about() {
    let host = |i: usize| Node {
        labels: BTreeMap::from([
            ("host".into(), format!("h{i}")),
            ("pool".into(), format!("p{}", i * 7 % 5)),
        ]),
        ..node(&format!("n{i:03}"), 8, "H100")
    };
    let hold = |world: &mut World, i: usize| {
        for half in 0..2u32 {
            let old = low(ask(&format!("old-{i}-{half}"), 4));
            let gpus: Vec<u32> = (4 * half..4 * half + 4).collect();
            let age = (i * 31 + half as usize * 17) % 97;
            let name = format!("n{i:03}");
            world.bind(allocation(&old, 0, &name, &gpus, age as i64));
        }
    };
    let mut up = World::new((0..400).map(host));
    (0..400).for_each(|i| hold(&mut up, i));
    let mut down = World::new([]);
    for i in (0..400).rev() {
        hold(&mut down, i);
        down.upsert(host(i));
    }
    for world in [&mut up, &mut down] {
        world.submit((0..40).map(|n| at(n, high(ask(&format!("wl-{n}"), 4 + 4 * (n % 2) as u32)))));
    }
    let plan = up.plan();
    assert_eq!(plan.preemptions.len(), 40);
    assert_eq!(plan, down.plan());
}
