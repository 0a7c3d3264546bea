//! Random worlds.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use scheduler::{
    Engine, Gpu, GpuLink, Link, Node, NodeState, Priority, Request, Taint, TaintEffect, Toleration, TolerationOperator,
};

use crate::world::GIB;

const MODELS: [&str; 3] = ["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "Tesla T4"];

fn gpus() -> impl Strategy<Value = (Vec<Gpu>, Vec<GpuLink>)> {
    (
        select(vec![0u32, 1, 2, 4, 4, 8]),
        select(&MODELS[..]),
        prop::bool::weighted(0.1),
        0u32..3,
        prop::collection::vec(prop::bool::weighted(0.08), 8),
    )
        .prop_map(|(n, model, mixed, layout, broken)| {
            let gpu = |i: u32| Gpu {
                unusable: broken[i as usize].then(|| "lent".to_owned()),
                numa: (layout > 0).then_some(i / 4),
                switch: (layout > 1).then_some(i / 2),
                ..Gpu::new(
                    i,
                    if mixed && i % 2 == 1 { MODELS[2] } else { model },
                    Some(if model == MODELS[2] { 16 } else { 80 } * GIB),
                )
            };
            let link = |i: u32| GpuLink {
                a: i,
                b: (i + 3) % 8,
                link: Link::NvLink(2),
            };
            let links = if layout == 2 {
                (0..4).map(link).collect()
            } else {
                Vec::new()
            };
            ((0..n).map(gpu).collect(), links)
        })
}

pub(crate) fn node(name: String) -> impl Strategy<Value = Node> {
    let taint = (
        select(vec!["team", "spot"]),
        select(vec![TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule]),
    )
        .prop_map(|(key, effect)| Taint {
            key: key.into(),
            value: "x".into(),
            effect,
        });
    (
        gpus(),
        prop::collection::vec(taint, 0..2),
        prop::option::weighted(0.15, select(vec![NodeState::Draining, NodeState::Unreachable])),
        subsequence(vec![Engine::Docker, Engine::Native], 1..=2),
        (1u64..9, 1u64..9),
        subsequence(vec!["pool", "zone"], 0..=2),
        select(vec![None, Some(0.2f32), Some(0.95)]),
        prop::option::weighted(0.1, 0i64..20_000),
        subsequence(vec!["i1", "i2"], 0..=2),
    )
        .prop_map(
            move |((gpus, links), taints, state, engines, (cpu, memory), labels, heat, back_off, images)| Node {
                gpus,
                links,
                taints,
                state: state.unwrap_or(NodeState::Ready),
                engines: engines.into_iter().collect(),
                cpu_millicores: cpu * 8_000,
                memory_bytes: memory * 64 * GIB,
                labels: labels.into_iter().map(|l| (l.to_owned(), "x".to_owned())).collect(),
                heat,
                back_off_until_ms: back_off,
                images: images.into_iter().map(str::to_owned).collect(),
                ..Node::new(name.as_str())
            },
        )
}

pub(crate) fn nodes(most: usize) -> impl Strategy<Value = Vec<Node>> {
    (1..=most).prop_flat_map(|n| (0..n).map(|i| node(format!("n{i}"))).collect::<Vec<_>>())
}

/// A request of any kind; one in four is a gang, half have timeouts.
pub(crate) fn request(id: String) -> impl Strategy<Value = Request> {
    (
        (
            select(vec!["ann", "bob", "cid"]),
            select(vec![Priority::Low, Priority::Low, Priority::Normal, Priority::High]),
            0i64..1_000,
            select(vec![1u32, 1, 1, 2, 3]),
            select(vec![0u32, 1, 1, 2, 3, 4, 8, 9]),
        ),
        (
            prop::option::weighted(0.3, select(vec!["H100", "A100", "T4", "A10"])),
            select(vec![0u64, 0, 0, 40, 80]),
            0u64..20,
            0u64..100,
        ),
        (
            prop::option::weighted(0.15, select(vec!["pool", "zone"])),
            prop::option::weighted(0.05, 0usize..8),
            prop::option::weighted(0.1, 0usize..8),
            prop::option::weighted(0.3, select(vec!["team", "spot", ""])),
        ),
        (
            prop::option::of(1i64..30),
            select(vec!["i1", "i2", "i3", "host"]),
            prop::option::weighted(0.05, 0i64..20_000),
        ),
    )
        .prop_map(
            move |(
                (owner, priority, age, nodes, gpus),
                (model, gpu_memory, cpu, memory),
                (label, node, excluded, tolerated),
                (timeout, image, not_before),
            )| Request {
                priority,
                submitted_at_ms: age,
                nodes,
                gpus,
                gpu_model: model.map(str::to_owned),
                gpu_memory_bytes: gpu_memory * GIB,
                cpu_millicores: cpu * 1_000,
                memory_bytes: memory * 2 * GIB,
                node_selector: label
                    .map(|l| (l.to_owned(), "x".to_owned()))
                    .into_iter()
                    .collect::<BTreeMap<_, _>>(),
                node: node.map(|i| format!("n{i}").into()),
                excluded_nodes: excluded
                    .map(|i| format!("n{i}").into())
                    .into_iter()
                    .collect::<BTreeSet<_>>(),
                tolerations: tolerated
                    .map(|key| Toleration {
                        key: key.to_owned(),
                        operator: TolerationOperator::Exists,
                        value: String::new(),
                        effect: None,
                    })
                    .into_iter()
                    .collect(),
                timeout_ms: timeout.map(|t| t * 1_000),
                image: image.to_owned(),
                not_before_ms: not_before,
                ..Request::new(id.as_str(), owner)
            },
        )
}

pub(crate) fn requests(prefix: &'static str, most: usize) -> impl Strategy<Value = Vec<Request>> {
    (0..=most).prop_flat_map(move |n| (0..n).map(|i| request(format!("{prefix}{i}"))).collect::<Vec<_>>())
}
