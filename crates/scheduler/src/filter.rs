//! Whether a node suits a request, and every reason why not.
//!
//! The one filter: placing asks it for the first failure only, explaining
//! collects all of them.

use std::collections::BTreeSet;

use crate::fleet::{Entry, Fleet, Free};
use crate::kind::Kind;
use crate::request::HOST_IMAGE;
use crate::{Engine, NodeName, NodeState, Request, Taint, TaintEffect, Toleration, model_matches};

/// What a request asks of each node: all that decides where it fits. Requests
/// with equal asks fit or fail together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    pub(crate) filter: Filter,
    pub(crate) nodes: u32,
    pub(crate) gpus: u32,
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) excluded: BTreeSet<NodeName>,
}

/// The part of an ask that knows no amounts: which nodes, which GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    pub(crate) gpu_model: Option<String>,
    pub(crate) gpu_memory_bytes: u64,
    pub(crate) selector: Vec<(String, String)>,
    pub(crate) node: Option<NodeName>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) engine: Option<Engine>,
}

impl Ask {
    pub(crate) fn of(request: &Request) -> Self {
        let mut tolerations = request.tolerations.clone();
        tolerations.sort();
        tolerations.dedup();
        let host = (request.image == HOST_IMAGE).then_some(Engine::Native);
        let needs_gpus = request.gpus > 0;
        Self {
            filter: Filter {
                // Without GPUs the filters on GPUs say nothing.
                gpu_model: request.gpu_model.clone().filter(|_| needs_gpus),
                gpu_memory_bytes: if needs_gpus { request.gpu_memory_bytes } else { 0 },
                selector: request.node_selector.clone().into_iter().collect(),
                node: request.node.clone(),
                tolerations,
                engine: request.engine.or(host),
            },
            nodes: request.nodes.max(1),
            gpus: request.gpus,
            cpu: request.cpu_millicores,
            memory: request.memory_bytes,
            excluded: request.excluded_nodes.clone(),
        }
    }

    /// Whether what has no room for `self` has none for `other` either, given
    /// equal filters.
    pub(crate) fn is_part_of(&self, other: &Self) -> bool {
        self.nodes <= other.nodes
            && self.gpus <= other.gpus
            && self.cpu <= other.cpu
            && self.memory <= other.memory
            && self.excluded.is_subset(&other.excluded)
    }
}

impl Filter {
    fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|t| t.covers(taint))
    }

    /// Untolerated taints that would rather have nobody.
    pub(crate) fn unwelcome(&self, kind: &Kind) -> u32 {
        let taints = kind.key.taints.iter();
        let unwelcome = taints.filter(|taint| taint.effect == TaintEffect::PreferNoSchedule && !self.tolerates(taint));
        crate::fleet::index(unwelcome.count())
    }

    /// Which GPUs of a kind it may use.
    pub(crate) fn suitable(&self, kind: &Kind) -> u64 {
        self.mask(kind, true)
    }

    fn mask(&self, kind: &Kind, with_memory: bool) -> u64 {
        if self.gpu_model.is_none() && self.gpu_memory_bytes == 0 {
            return low_mask(kind.gpus());
        }
        let mut last: Option<(&str, bool)> = None;
        let mut mask = 0;
        for (position, (model, memory)) in kind.key.gpus.iter().enumerate() {
            let named = match (last, &self.gpu_model) {
                (_, None) => true,
                (Some((same, named)), _) if same == model => named,
                (_, Some(asked)) => model_matches(asked, model),
            };
            last = Some((model, named));
            let large = !with_memory
                || self.gpu_memory_bytes == 0
                || memory.is_some_and(|bytes| bytes >= self.gpu_memory_bytes);
            mask |= u64::from(named && large) << position;
        }
        mask
    }
}

pub(crate) fn low_mask(gpus: u32) -> u64 {
    if gpus >= 64 { u64::MAX } else { (1 << gpus) - 1 }
}

/// One reason why one node fails, most fundamental first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fail<'a> {
    NotNamed,
    State(NodeState),
    Engine,
    Label(&'a str, &'a str),
    Taint(&'a Taint),
    NoGpus,
    Model,
    GpuCount,
    GpuMemory,
    Cpu,
    Memory,
    Excluded,
    BackOff,
    Unusable,
    FreeGpus,
    FreeCpu,
    FreeMemory,
}

/// Whether to go on after a failure.
pub(crate) type Stop = bool;

/// Tells `report` each reason that a whole kind fails, amounts aside; stops
/// when it says so. Selectors with wide keys are left to [`node_fails`].
pub(crate) fn filter_fails<'a>(
    fleet: &Fleet,
    filter: &'a Filter,
    kind: &'a Kind,
    report: &mut impl FnMut(Fail<'a>) -> Stop,
) -> bool {
    let mut failed = false;
    let mut fail = |reason| {
        failed = true;
        report(reason)
    };
    if let Some(engine) = filter.engine
        && !kind.key.engines.contains(&engine)
        && fail(Fail::Engine)
    {
        return true;
    }
    for (key, value) in &filter.selector {
        let labels = &kind.key.labels;
        let has = labels
            .binary_search_by(|(k, _)| k.as_str().cmp(key))
            .is_ok_and(|at| labels[at].1 == *value);
        if !has && !fleet.is_wide(key) && fail(Fail::Label(key, value)) {
            return true;
        }
    }
    for taint in &kind.key.taints {
        if taint.effect == TaintEffect::NoSchedule && !filter.tolerates(taint) && fail(Fail::Taint(taint)) {
            return true;
        }
    }
    failed
}

/// Tells `report` each reason that a whole kind fails; for explaining. A kind
/// passes if it passes [`filter_fails`] and has enough suitable GPUs.
pub(crate) fn kind_fails<'a>(fleet: &Fleet, ask: &'a Ask, kind: &'a Kind, report: &mut impl FnMut(Fail<'a>)) {
    let filter = &ask.filter;
    filter_fails(fleet, filter, kind, &mut |fail| {
        report(fail);
        false
    });
    if filter.suitable(kind).count_ones() >= ask.gpus {
        return;
    }
    let named = filter.mask(kind, false).count_ones();
    report(if kind.gpus() == 0 {
        Fail::NoGpus
    } else if named == 0 {
        Fail::Model
    } else if named < ask.gpus {
        Fail::GpuCount
    } else {
        Fail::GpuMemory
    });
}

/// How much of a node is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// As if nothing were held, all GPUs usable and the node ready: for ever.
    Capacity,
    /// As if nothing were held.
    Empty,
    /// As it is.
    Now,
}

/// How a node is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    /// GPUs of its kind that may be used.
    pub(crate) suitable: u64,
    /// What it has left.
    pub(crate) free: Free,
    pub(crate) depth: Depth,
    pub(crate) now_ms: i64,
}

/// Tells `report` each reason that a node fails beyond what its kind fails;
/// stops when it says so.
pub(crate) fn node_fails<'a>(
    fleet: &Fleet,
    ask: &'a Ask,
    entry: &Entry,
    sight: &Sight,
    report: &mut impl FnMut(Fail<'a>) -> Stop,
) -> bool {
    let Sight {
        suitable,
        free,
        depth,
        now_ms,
    } = *sight;
    let mut failed = false;
    let mut fail = |reason| {
        failed = true;
        report(reason)
    };
    let Some(node) = entry.node.as_deref() else {
        return true;
    };
    if ask.filter.node.as_ref().is_some_and(|name| *name != entry.name) && fail(Fail::NotNamed) {
        return true;
    }
    if depth != Depth::Capacity && !entry.ready && fail(Fail::State(node.state)) {
        return true;
    }
    for (key, value) in &ask.filter.selector {
        if fleet.is_wide(key) && node.labels.get(key) != Some(value) && fail(Fail::Label(key, value)) {
            return true;
        }
    }
    if ask.cpu > entry.cpu && fail(Fail::Cpu) || ask.memory > entry.memory && fail(Fail::Memory) {
        return true;
    }
    if !ask.excluded.is_empty() && ask.excluded.contains(&entry.name) && fail(Fail::Excluded) {
        return true;
    }
    if depth == Depth::Capacity {
        return failed;
    }
    let enough = (suitable & entry.usable).count_ones() >= ask.gpus;
    if !enough && suitable.count_ones() >= ask.gpus && fail(Fail::Unusable) {
        return true;
    }
    if depth == Depth::Empty {
        return failed;
    }
    if entry.back_off_until_ms.is_some_and(|until| until > now_ms) && fail(Fail::BackOff) {
        return true;
    }
    if enough && (suitable & free.gpus).count_ones() < ask.gpus && fail(Fail::FreeGpus) {
        return true;
    }
    if ask.cpu > free.cpu && ask.cpu <= entry.cpu && fail(Fail::FreeCpu) {
        return true;
    }
    if ask.memory > free.memory && ask.memory <= entry.memory && fail(Fail::FreeMemory) {
        return true;
    }
    failed
}
