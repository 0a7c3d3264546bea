//! Order, gaps and rubbish in the facts.

use diagnosis::{NodeFacts, Series, SeriesSet, Severity, Status, diagnose_node, metric};

use crate::world::{NOW, Random, World};

/// The same facts in another order.
fn shuffled(facts: &NodeFacts, seed: u64) -> NodeFacts {
    let mut random = Random(seed);
    let mut it = facts.clone();
    let mut series: Vec<Series> = facts.series.clone().into();
    series.sort_by_cached_key(|_| random.next());
    for s in &mut series {
        s.points.sort_by_cached_key(|_| random.next());
    }
    it.series = SeriesSet::from(series);
    it.kernel.sort_by_cached_key(|_| random.next());
    it.gpus.sort_by_cached_key(|_| random.next());
    it
}

#[test]
fn the_order_of_facts_makes_no_difference() {
    let facts = World::busy(1)
        .xid(9.0, 48)
        .xid(8.9, 63)
        .xid(8.8, 45)
        .set(metric::GPU_THROTTLE, Some(1), |_| 64.0)
        .facts();
    let first = diagnose_node(&facts, true);
    for seed in 0..5 {
        assert_eq!(diagnose_node(&shuffled(&facts, seed), true), first);
    }
}

#[test]
fn what_is_no_number_is_left_out() {
    let mut series: Vec<Series> = World::busy(3).facts().series.into();
    for s in &mut series {
        for (i, p) in s.points.iter_mut().enumerate() {
            if i % 3 == 0 {
                p.1 = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][i % 9 / 3];
            }
        }
    }
    let facts = NodeFacts {
        series: SeriesSet::from(series),
        ..World::busy(3).facts()
    };
    let d = diagnose_node(&facts, true);
    assert_eq!(d.status, Status::Healthy, "{:?}", d.findings);
    let json = serde_json::to_string(&d).unwrap();
    assert_eq!(
        serde_json::from_str::<diagnosis::NodeDiagnosis>(&json)
            .unwrap()
            .findings,
        d.findings
    );
}

#[test]
fn without_data_nothing_is_known_and_nothing_is_found() {
    let facts = NodeFacts {
        name: "gpu-1".into(),
        now_ms: NOW,
        window_ms: 3_600_000,
        ..NodeFacts::default()
    };
    let d = diagnose_node(&facts, true);
    assert_eq!(d.status, Status::Unknown);
    assert_eq!(d.findings, []);
    assert_eq!(
        [d.thermal.status, d.memory.status, d.errors.status, d.trends.status],
        [Status::Unknown; 4],
        "no part is healthy by default"
    );
    assert_eq!(
        d.unchecked.len(),
        diagnosis::node_rules().count(),
        "every rule says what it lacked"
    );
}

#[test]
fn any_one_metric_may_be_missing() {
    let all: Vec<Series> = World::busy(4).facts().series.into();
    let names: std::collections::BTreeSet<String> = all.iter().map(|s| s.metric.to_string()).collect();
    for name in names {
        let d = diagnose_node(&World::busy(4).without(&name).facts(), false);
        let worst = d.findings.iter().map(|f| f.severity).max();
        assert!(worst < Some(Severity::Warning), "without {name}: {:?}", d.findings);
    }
}

#[test]
fn gpus_that_are_there_and_not_measured_are_unknown() {
    let world = World::busy(5)
        .without(metric::GPU_TEMPERATURE)
        .without(metric::GPU_UTILIZATION)
        .without(metric::GPU_THROTTLE);
    assert_eq!(diagnose_node(&world.facts(), false).status, Status::Unknown);
}

#[test]
fn facts_are_read_back_from_json() {
    let facts = World::busy(6).xid(9.0, 48).facts();
    let text = serde_json::to_string(&facts).unwrap();
    let back: NodeFacts = serde_json::from_str(&text).unwrap();
    // Floats survive: serde_json prints the shortest text that reads back the same.
    assert_eq!(
        diagnose_node(&back, false).findings,
        diagnose_node(&facts, false).findings
    );
}
