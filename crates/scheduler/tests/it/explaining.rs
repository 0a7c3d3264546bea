//! Explanations as people read them.

use std::collections::BTreeMap;

use scheduler::{Context, Node, NodeState, Request, Taint, TaintEffect, explain};

use crate::world::{GIB, World, ask, at, for_ms, high, low, node};

fn text(world: &World, request: &Request) -> String {
    let plan = world.plan();
    let context = Context {
        queue: Some(&world.queue),
        usage: Some(&world.usage),
        plan: Some(&plan),
    };
    explain(&world.fleet, request, &context, world.now_ms).to_string()
}

#[test]
fn names_every_blocker_with_its_count() {
    let names: Vec<String> = (0..12).map(|i| format!("n{i:02}")).collect();
    let nodes = names.iter().enumerate().map(|(i, name)| {
        let model = if i < 8 {
            "NVIDIA H100 80GB HBM3"
        } else {
            "NVIDIA A100-SXM4-80GB"
        };
        node(name, 8, model)
    });
    let mut world = World::new(nodes);
    for name in &names[..8] {
        world.hold(&for_ms(60_000, low(ask(name, 5))), name, &[0, 1, 2, 3, 4]);
    }
    let request = Request {
        gpu_model: Some("H100".into()),
        ..at(7, ask("wl-1", 4))
    };
    world.submit([request.clone()]);
    assert_eq!(
        text(&world, &request),
        "0 of 12 nodes fit: 8 have fewer than 4 free GPUs, 4 are not H100\n\
         place in the queue: 1 of 1\n\
         room when n00 ends, in 60s at the latest\n\
         would start now: ask for 3 GPUs instead of 4\n\
         would start now: drop --gpu-type H100\n\
         would start now: --priority high would evict n00"
    );
}

#[test]
fn says_what_can_never_run() {
    let world = World::new([node("a", 8, "H100"), node("b", 4, "H100"), node("c", 0, "")]);
    assert_eq!(
        text(&world, &ask("wl-1", 16)),
        "0 of 3 nodes fit: 2 have fewer than 16 GPUs, 1 has no GPUs\n\
         place in the queue: 1 of 1\n\
         today's fleet can never run it, even if empty\n\
         would start now: ask for 8 GPUs instead of 16"
    );
}

#[test]
fn finds_the_smallest_change_of_each_kind() {
    let mut tainted = node("a", 2, "T4");
    tainted.taints = vec![Taint {
        key: "team".into(),
        value: "ml".into(),
        effect: TaintEffect::NoSchedule,
    }];
    let mut world = World::new([
        tainted,
        Node {
            state: NodeState::Draining,
            ..node("b", 2, "T4")
        },
        Node {
            labels: BTreeMap::from([("pool".into(), "x".into())]),
            memory_bytes: 50 * GIB,
            ..node("c", 2, "T4")
        },
    ]);
    world.hold(
        &Request {
            memory_bytes: 2 * GIB + 5,
            ..ask("old", 0)
        },
        "c",
        &[],
    );
    let request = Request {
        memory_bytes: 64 * GIB,
        ..ask("wl-1", 1)
    };
    assert_eq!(
        text(&world, &request),
        "0 of 3 nodes fit: 1 is draining, 1 has the taint team=ml:NoSchedule, \
         1 has less than 64Gi memory\n\
         place in the queue: 1 of 1\n\
         would start now: memory 47Gi instead of 64Gi\n\
         would start now: tolerate taint team=ml\n\
         would start now: undrain node b"
    );
}

#[test]
fn combines_changes_only_where_none_is_enough() {
    let world = World::new([node("a", 2, "A100")]);
    let request = Request {
        gpu_model: Some("H100".into()),
        memory_bytes: 200 * GIB,
        node_selector: BTreeMap::from([("pool".into(), "x".into())]),
        ..ask("wl-1", 1)
    };
    assert_eq!(
        text(&world, &request),
        "0 of 1 node fit: 1 has no label pool=x\n\
         place in the queue: 1 of 1\n\
         today's fleet can never run it, even if empty\n\
         would start now: memory 128Gi instead of 200Gi and drop --gpu-type H100 \
         and drop --label pool=x"
    );
}

#[test]
fn room_kept_for_the_head_is_a_blocker_too() {
    let mut world = World::new([node("a", 4, "T4")]);
    world.hold(&ask("r1", 2), "a", &[0, 1]);
    let small = at(2, ask("small", 1));
    world.submit([at(1, ask("head", 3)), small.clone()]);
    assert_eq!(
        text(&world, &small),
        "0 of 1 node fit: 1 is kept for head\nplace in the queue: 2 of 2"
    );
}

#[test]
fn gangs_say_how_many_nodes_they_need() {
    let mut world = World::new([node("a", 4, "T4"), node("b", 4, "T4"), node("c", 4, "T4")]);
    world.hold(&ask("r1", 2), "a", &[0, 1]);
    let gang = Request {
        nodes: 3,
        ..ask("gang", 4)
    };
    world.submit([gang.clone()]);
    assert_eq!(
        text(&world, &gang),
        "2 of 3 nodes fit, 3 needed: 1 has fewer than 4 free GPUs\n\
         place in the queue: 1 of 1\n\
         room when r1 ends; no end is known\n\
         would start now: ask for 2 GPUs instead of 4\n\
         would start now: ask for 2 nodes instead of 3"
    );
}

#[test]
fn evictions_under_way_and_back_off_are_told() {
    let mut world = World::new([node("a", 1, "T4")]);
    world.hold(&low(ask("old", 1)), "a", &[0]);
    world.submit([high(ask("urgent", 1))]);
    world.step();
    let urgent = Request {
        not_before_ms: Some(6_000),
        ..high(ask("urgent", 1))
    };
    let text = text(&world, &urgent);
    assert!(
        text.contains("\nnot tried again for 5s\nroom is being made: old evicted\n"),
        "{text}"
    );
}

#[test]
fn explanations_and_plans_are_json() {
    let mut world = World::new([node("a", 1, "T4")]);
    world.submit([ask("wl-1", 2)]);
    let context = Context::default();
    let explanation = explain(&world.fleet, &ask("wl-1", 2), &context, 0);
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["blockers"][0]["blocker"]["gpu-count"]["gpus"], 2);
    assert_eq!(json["remedies"][0][0]["gpus"]["to"], 1);
    let json = serde_json::to_value(world.plan()).unwrap();
    assert_eq!(json["waiting"]["never"], 1);
}
