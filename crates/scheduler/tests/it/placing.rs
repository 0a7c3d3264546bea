//! Where things go.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::{
    Engine, Flaw, Gpu, GpuLink, Link, Node, NodeState, Request, Taint, TaintEffect, Toleration, TolerationOperator,
};

use crate::world::{GIB, World, ask, at, node};

#[test]
fn packs_tightly_and_keeps_whole_nodes_free() {
    let mut world = World::new([node("a", 8, "H100"), node("b", 8, "H100"), node("c", 4, "H100")]);
    world.submit([at(1, ask("one", 1)), at(2, ask("two", 3)), at(3, ask("big", 8))]);
    assert_eq!(
        world.step(),
        "place one: c[0]\nplace two: c[1, 2, 3]\nplace big: a[0, 1, 2, 3, 4, 5, 6, 7]\n"
    );
}

#[test]
fn cpu_work_stays_off_gpu_nodes() {
    let mut world = World::new([node("a", 8, "H100"), node("z", 0, "")]);
    world.submit([Request {
        cpu_millicores: 4_000,
        ..ask("etl", 0)
    }]);
    assert_eq!(world.step(), "place etl: z[]\n");
}

#[test]
fn models_match_by_whole_words_and_memory_counts() {
    let mut small = node("b", 2, "NVIDIA A100-PCIE-40GB");
    for gpu in &mut small.gpus {
        gpu.memory_bytes = Some(40 * GIB);
    }
    let mut world = World::new([node("a", 2, "NVIDIA A10"), small, node("c", 8, "NVIDIA A100-SXM4-80GB")]);
    let a100 = |id: &str, gib: u64| Request {
        gpu_model: Some("A100".into()),
        gpu_memory_bytes: gib * GIB,
        ..ask(id, 1)
    };
    world.submit([at(1, a100("any", 0)), at(2, a100("large", 80))]);
    assert_eq!(world.step(), "place any: b[0]\nplace large: c[0]\n");
}

#[test]
fn respects_every_filter() {
    let labelled = |name: &str, pool: &str| Node {
        labels: BTreeMap::from([("pool".into(), pool.into())]),
        ..node(name, 1, "H100")
    };
    let mut world = World::new([
        Node {
            state: NodeState::Draining,
            ..labelled("a-draining", "x")
        },
        Node {
            taints: vec![Taint {
                key: "team".into(),
                value: "ml".into(),
                effect: TaintEffect::NoSchedule,
            }],
            ..labelled("b-tainted", "x")
        },
        labelled("c-other-pool", "y"),
        Node {
            back_off_until_ms: Some(5_000),
            ..labelled("d-failing", "x")
        },
        Node {
            engines: BTreeSet::from([Engine::Kubernetes]),
            ..labelled("e-kubernetes", "x")
        },
        labelled("f-excluded", "x"),
    ]);
    let picky = Request {
        node_selector: BTreeMap::from([("pool".into(), "x".into())]),
        excluded_nodes: BTreeSet::from(["f-excluded".into()]),
        image: "host".into(),
        ..ask("picky", 1)
    };
    world.submit([picky.clone()]);
    assert_eq!(
        world.step(),
        "keep d-failing for picky, starts by 5000\n1 wait for resources\n"
    );
    world.submit([Request {
        tolerations: vec![Toleration {
            key: "team".into(),
            operator: TolerationOperator::Exists,
            value: String::new(),
            effect: None,
        }],
        ..picky
    }]);
    assert_eq!(world.step(), "place picky: b-tainted[0]\n");
}

#[test]
fn unwelcome_nodes_come_last_and_images_first() {
    let mut shy = node("a", 1, "T4");
    shy.taints = vec![Taint {
        key: "spot".into(),
        value: String::new(),
        effect: TaintEffect::PreferNoSchedule,
    }];
    let mut cached = node("c", 1, "T4");
    cached.images = BTreeSet::from(["train:1".into()]);
    let mut hot = node("b", 1, "T4");
    hot.heat = Some(0.9);
    let mut world = World::new([shy, hot, cached, node("d", 1, "T4")]);
    let job = |n: i64| Request {
        image: "train:1".into(),
        ..at(n, ask(&n.to_string(), 1))
    };
    world.submit((1..=4).map(job));
    assert_eq!(
        world.step(),
        "place 1: c[0]\nplace 2: d[0]\nplace 3: b[0]\nplace 4: a[0]\n"
    );
}

#[test]
fn picks_linked_gpus_even_on_a_looser_node() {
    let pairs = |name: &str| Node {
        links: (0..4)
            .map(|i| GpuLink {
                a: i,
                b: i + 4,
                link: Link::NvLink(4),
            })
            .collect(),
        ..node(name, 8, "V100")
    };
    let mut world = World::new([pairs("a"), pairs("b")]);
    // On a, only unlinked GPUs are left: 0, 1, 2.
    world.hold(&ask("old", 5), "a", &[3, 4, 5, 6, 7]);
    world.submit([ask("pair", 2)]);
    assert_eq!(world.step(), "place pair: a[0, 1]\n", "tight enough to win");
    world.end(&"pair".into());
    world.hold(&ask("older", 5), "b", &[0, 1, 4, 5]);
    world.submit([ask("pair", 2)]);
    assert_eq!(world.step(), "place pair: b[2, 6]\n", "one more left over, but linked");
}

#[test]
fn gangs_start_on_distinct_nodes_of_one_model_or_not_at_all() {
    let mut world = World::new([node("a", 4, "A100"), node("b", 8, "H100"), node("c", 8, "H100")]);
    let gang = |id: &str, nodes: u32| Request { nodes, ..ask(id, 4) };
    world.submit([at(1, gang("two", 2)), at(2, gang("four", 4))]);
    assert_eq!(
        world.step(),
        "place two: b[0, 1, 2, 3] c[0, 1, 2, 3]\n1 fit no node even if empty\n"
    );
    world.submit([at(3, gang("three", 3))]);
    assert_eq!(
        world.step(),
        "place three: a[0, 1, 2, 3] b[4, 5, 6, 7] c[4, 5, 6, 7]\n1 fit no node even if empty\n"
    );
}

#[test]
fn unusable_and_held_gpus_are_left_alone() {
    let mut lent = node("a", 4, "H100");
    lent.gpus[1].unusable = Some("lent to west".into());
    let mut world = World::new([lent]);
    world.hold(&ask("old", 1), "a", &[2]);
    world.submit([ask("two", 2)]);
    assert_eq!(world.step(), "place two: a[0, 3]\n");
}

#[test]
fn gpu_numbers_are_the_nodes_own() {
    let mut odd = node("a", 0, "");
    odd.gpus = [7, 3, 5].map(|i| Gpu::new(i, "T4", None)).into();
    let mut world = World::new([odd]);
    world.hold(&ask("old", 1), "a", &[3]);
    world.submit([ask("two", 2)]);
    assert_eq!(world.step(), "place two: a[5, 7]\n");
}

#[test]
fn what_is_held_outlives_the_node_and_comes_back_with_it() {
    let mut world = World::new([node("a", 2, "T4")]);
    world.hold(&ask("old", 1), "a", &[0]);
    assert!(world.fleet.remove_node(&"a".into()));
    assert_eq!(world.fleet.node_count(), 0);
    world.submit([ask("new", 1)]);
    assert_eq!(world.step(), "1 fit no node even if empty\n");
    world.upsert(node("a", 2, "T4"));
    assert_eq!(world.step(), "place new: a[1]\n");
}

#[test]
fn labels_that_tell_nodes_apart_cost_no_kinds() {
    let nodes = (0..200).map(|i| Node {
        labels: BTreeMap::from([("host".into(), format!("h{i}"))]),
        ..node(&format!("n{i:03}"), 8, "H100")
    });
    let mut world = World::new(nodes);
    assert!(format!("{:?}", world.fleet).contains("kinds: 1,"));
    world.submit([Request {
        node_selector: BTreeMap::from([("host".into(), "h137".into())]),
        ..ask("there", 2)
    }]);
    assert_eq!(world.step(), "place there: n137[0, 1]\n");
    for i in 50..200 {
        world.fleet.remove_node(&format!("n{i:03}").as_str().into());
    }
    assert!(format!("{:?}", world.fleet).contains("kinds: 50,"));
    world.submit([Request {
        node_selector: BTreeMap::from([("host".into(), "h7".into())]),
        ..ask("here", 2)
    }]);
    assert_eq!(world.step(), "place here: n007[0, 1]\n");
}

#[test]
fn wide_labels_decide_as_narrow_ones_do() {
    let host = |i: usize| Node {
        labels: BTreeMap::from([("host".into(), format!("h{i}")), ("pool".into(), format!("p{}", i % 3))]),
        ..node(&format!("n{i:03}"), 1 + (i % 4) as u32, "H100")
    };
    // Grows until the label tells too many nodes apart, then shrinks again.
    let mut grown = World::new((0..90).map(host));
    for i in 40..90 {
        let name = format!("n{i:03}").as_str().into();
        grown.fleet.remove_node(&name);
        grown.nodes.remove(&name);
    }
    let mut small = World::new((0..40).rev().map(host));
    for world in [&mut grown, &mut small] {
        world.submit((0..30).map(|i| Request {
            node_selector: match i % 3 {
                0 => BTreeMap::from([("host".into(), format!("h{i}"))]),
                1 => BTreeMap::from([("pool".into(), "p1".into())]),
                _ => BTreeMap::new(),
            },
            ..at(i, ask(&format!("wl-{i}"), 1 + (i % 2) as u32))
        }));
    }
    let plan = grown.plan();
    assert_eq!(plan, small.plan());
    assert!(plan.placements.len() > 25, "{plan}");
    // And growing past the limit changes nothing either.
    for i in 40..90 {
        let mut away = host(i);
        away.state = NodeState::Cordoned;
        grown.upsert(away);
    }
    assert_eq!(plan.placements, grown.plan().placements);
}

#[test]
fn places_name_what_speaks_against_them() {
    let mut world = World::new([node("a", 4, "T4")]);
    world.submit([ask("two", 2)]);
    let plan = world.plan();
    let deductions: Vec<(Flaw, u32)> = plan.placements[0].members[0]
        .deductions
        .iter()
        .map(|d| (d.why, d.points))
        .collect();
    assert_eq!(
        deductions,
        [(Flaw::LeftOver, 20), (Flaw::Links, 12), (Flaw::NoImage, 6)]
    );
}
