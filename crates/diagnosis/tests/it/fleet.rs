//! From nodes to the fleet.

use diagnosis::{FleetFacts, Health, NodeHealth, NodeState, Points, Status, check_node, diagnose_node, health, metric};

use crate::world::World;

fn looked_at(name: &str, world: World) -> NodeHealth {
    let facts = world.with(|f| f.name = name.into()).facts();
    assert_eq!(check_node(&facts).1, diagnose_node(&facts, false).findings);
    NodeHealth::new(NodeState::Ready, &facts)
}

fn fleet(nodes: Vec<NodeHealth>) -> Health {
    health(&FleetFacts {
        nodes,
        ..FleetFacts::default()
    })
}

#[test]
fn sound_nodes_make_a_sound_fleet() {
    let h = fleet((0..3).map(|i| looked_at(&format!("n{i}"), World::busy(i))).collect());
    assert_eq!(
        (h.score, h.status, h.nodes.healthy),
        (Some(Points(1_000_000)), Status::Healthy, 3)
    );
    let percent = |s: diagnosis::Share| s.percent.unwrap().round();
    assert!((95.0..=99.0).contains(&percent(h.utilization.gpu)));
    assert_eq!(percent(h.utilization.gpu_memory), 88.0);
    assert!(h.deductions.is_empty() && h.diagnosis.is_empty(), "{:?}", h.diagnosis);
}

#[test]
fn what_is_found_on_a_node_costs_points_and_says_why() {
    let hot = World::busy(7).set(metric::GPU_THROTTLE, Some(2), |_| 64.0);
    let h = fleet(vec![looked_at("a", World::busy(1)), looked_at("b", hot)]);
    let [d] = h.deductions.as_slice() else {
        panic!("{:?}", h.deductions)
    };
    assert_eq!(
        (&*d.reason, d.points),
        ("gpu-thermal-throttle", Points(62_500)),
        "half the fleet, an eighth of the node"
    );
    assert_eq!(h.score, Some(Points(937_500)));
    assert_eq!(h.status, Status::Degraded);
    assert_eq!(h.diagnosis[0].commands[0], "clawbernetes workload migrate wl-train");
    assert!(d.evidence[0].text.contains("too hot"), "{:?}", d.evidence);
}
