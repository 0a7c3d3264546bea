//! Nodes alike: the index that makes a decision cheap.
//!
//! Nodes with the same engines, labels, taints and GPUs are one kind. A
//! request is checked once against a kind instead of once against each node,
//! and inside a kind nodes are found by how many GPUs they have free.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::bits::Bits;
use crate::topology::Topology;
use crate::{Engine, Taint};

/// What the nodes of a kind have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KindKey {
    pub(crate) engines: BTreeSet<Engine>,
    /// Sorted by key; without the keys that tell nearly every node apart.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) taints: Vec<Taint>,
    /// Model and memory, by position.
    pub(crate) gpus: Vec<(String, Option<u64>)>,
    /// The topology's signature.
    pub(crate) links: Vec<u8>,
}

/// A kind and its nodes.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) key: Arc<KindKey>,
    pub(crate) topology: Arc<Topology>,
    /// Nodes in order of name; a node's place here is its slot.
    pub(crate) slots: Vec<u32>,
    /// Ready nodes by the number of free GPUs.
    pub(crate) free: Vec<Bits>,
    /// Ready nodes by the number of GPUs free or held by preemptible work.
    pub(crate) reclaimable: Vec<Bits>,
    /// Ready nodes with preemptible work.
    pub(crate) victims: Bits,
    /// Ready nodes by free CPU and memory, roughly.
    pub(crate) cpu: Levels,
    pub(crate) memory: Levels,
    pub(crate) hot: Bits,
    pub(crate) images: HashMap<String, Bits>,
}

impl Kind {
    pub(crate) fn new(key: Arc<KindKey>, topology: Arc<Topology>) -> Self {
        let buckets = vec![Bits::default(); key.gpus.len() + 1];
        Self {
            key,
            topology,
            slots: Vec::new(),
            free: buckets.clone(),
            reclaimable: buckets,
            victims: Bits::default(),
            cpu: Levels::default(),
            memory: Levels::default(),
            hot: Bits::default(),
            images: HashMap::new(),
        }
    }

    /// GPUs of each of its nodes.
    pub(crate) fn gpus(&self) -> u32 {
        u32::try_from(self.key.gpus.len()).unwrap_or(0)
    }

    /// Makes `slot` free for `node`; later nodes move up by one.
    pub(crate) fn open(&mut self, slot: u32, node: u32) {
        self.slots.insert(slot as usize, node);
        self.each_set(|bits| bits.open(slot));
    }

    /// Drops `slot`; later nodes move down by one.
    pub(crate) fn close(&mut self, slot: u32) {
        self.slots.remove(slot as usize);
        self.each_set(|bits| bits.close(slot));
        self.images.retain(|_, nodes| !nodes.is_empty());
    }

    fn each_set(&mut self, mut change: impl FnMut(&mut Bits)) {
        self.free.iter_mut().for_each(&mut change);
        self.reclaimable.iter_mut().for_each(&mut change);
        change(&mut self.victims);
        self.cpu.at_least.iter_mut().for_each(&mut change);
        self.memory.at_least.iter_mut().for_each(&mut change);
        change(&mut self.hot);
        self.images.values_mut().for_each(&mut change);
    }
}

/// Nodes by the size of something, to the power of two below it: most nodes
/// that have too little are left out 64 at a time.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    /// Nodes with at least two to the power of the place.
    at_least: Vec<Bits>,
}

impl Levels {
    /// How many levels an amount reaches.
    pub(crate) fn reached(amount: u64) -> u8 {
        u8::try_from(u64::BITS - amount.leading_zeros()).unwrap_or(0)
    }

    /// Moves a node from the levels that it reached to those that it reaches.
    pub(crate) fn change(&mut self, slot: u32, before: u8, after: u8) {
        if self.at_least.len() < usize::from(after) {
            self.at_least.resize(usize::from(after), Bits::default());
        }
        for level in before.min(after)..before.max(after) {
            self.at_least[usize::from(level)].set(slot, level < after);
        }
    }

    /// Nodes that may have an amount; `None` means all.
    pub(crate) fn with(&self, amount: u64) -> Option<&Bits> {
        static NONE: Bits = Bits::EMPTY;
        let level = usize::from(Self::reached(amount)).checked_sub(1)?;
        Some(self.at_least.get(level).unwrap_or(&NONE))
    }
}
