//! The fleet: nodes and what is held on them, kept up to date one change at a
//! time and indexed for placing.
//!
//! Two fleets given the same nodes and allocations, in any order and by any
//! detours, decide alike.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::kind::{Kind, KindKey, Levels};
use crate::pass::Claim;
use crate::request::weight;
use crate::topology::Topologies;
use crate::{Allocation, AllocationKey, Node, NodeName, NodeState, Owner, Priority, RequestId};

/// A label key with more values than this is no part of a node's kind:
/// selectors that name it walk the few nodes of the value instead.
const WIDE: usize = 64;
/// From this heat on a node counts as hot.
const HOT: f32 = 0.85;

/// Nodes and held sets, indexed.
///
/// Nodes and allocations may come in any order: an allocation on a node that
/// is not (yet, or any more) known counts for its owner, and on the node as
/// soon as it appears.
#[derive(Default)]
pub struct Fleet {
    pub(crate) by_name: HashMap<NodeName, u32>,
    pub(crate) entries: Vec<Entry>,
    vacant: Vec<u32>,
    pub(crate) kinds: Vec<Kind>,
    kind_ids: HashMap<Arc<KindKey>, u32>,
    vacant_kinds: Vec<u32>,
    topologies: Topologies,
    pub(crate) held: Vec<Held>,
    vacant_held: Vec<u32>,
    pub(crate) by_key: BTreeMap<AllocationKey, u32>,
    /// Places in `held` of the members of each workload.
    pub(crate) workloads: Vec<Vec<u32>>,
    workload_ids: HashMap<RequestId, u32>,
    vacant_workloads: Vec<u32>,
    /// What may be preempted, leaving time aside, the youngest first.
    pub(crate) youngest: BTreeMap<(Reverse<i64>, AllocationKey), u32>,
    holdings: HashMap<Owner, u64>,
    /// What is being evicted, by the request that it makes room for.
    pub(crate) evicting: BTreeMap<RequestId, BTreeSet<AllocationKey>>,
    /// Nodes in order of name, by label value, by label key.
    pub(crate) labels: HashMap<String, HashMap<String, BTreeMap<NodeName, u32>>>,
    node_count: usize,
}

/// A node's place in the fleet, which outlives the node as long as something
/// is held there.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: NodeName,
    /// With GPUs sorted by index. `None`: not known, yet held upon.
    pub(crate) node: Option<Box<Node>>,
    pub(crate) kind: u32,
    pub(crate) slot: u32,
    pub(crate) ready: bool,
    pub(crate) back_off_until_ms: Option<i64>,
    /// Usable GPUs, by position.
    pub(crate) usable: u64,
    /// GPUs held by any allocation.
    pub(crate) gpus_held: u64,
    /// GPUs held by allocations that may be preempted, leaving time aside.
    pub(crate) gpus_low: u64,
    pub(crate) victims: u32,
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) cpu_held: u64,
    pub(crate) memory_held: u64,
    /// In no particular order.
    pub(crate) held: Vec<u32>,
    /// What has a known end, soonest first; without what is being evicted.
    pub(crate) ends: Vec<Ending>,
    /// Bucket numbers where it is indexed.
    buckets: Option<(u32, u32)>,
    /// Levels of CPU and memory that it is indexed at.
    levels: (u8, u8),
}

/// An allocation in its place.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) allocation: Allocation,
    pub(crate) entry: u32,
    pub(crate) workload: u32,
    /// Its GPUs by position on the node as it is now.
    pub(crate) mask: u64,
}

/// A known end of something held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) end_ms: i64,
    pub(crate) at: u32,
    pub(crate) claim: Claim,
}

/// What a node has free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Free {
    pub(crate) gpus: u64,
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
}

impl Entry {
    fn vacant(name: NodeName) -> Self {
        Self {
            name,
            node: None,
            kind: 0,
            slot: 0,
            ready: false,
            back_off_until_ms: None,
            usable: 0,
            gpus_held: 0,
            gpus_low: 0,
            victims: 0,
            cpu: 0,
            memory: 0,
            cpu_held: 0,
            memory_held: 0,
            held: Vec::new(),
            ends: Vec::new(),
            buckets: None,
            levels: (0, 0),
        }
    }

    pub(crate) fn free(&self) -> Free {
        Free {
            gpus: self.usable & !self.gpus_held,
            cpu: self.cpu.saturating_sub(self.cpu_held),
            memory: self.memory.saturating_sub(self.memory_held),
        }
    }

    /// GPU indices of `mask`, ascending.
    pub(crate) fn indices(&self, mask: u64) -> Vec<u32> {
        let gpus = self.node.as_ref().map_or(&[][..], |node| &node.gpus);
        crate::bits::ones(mask)
            .filter_map(|position| gpus.get(position as usize).map(|gpu| gpu.index))
            .collect()
    }

    fn add_end(&mut self, at: u32, held: &Held) {
        let allocation = &held.allocation;
        let Some(end_ms) = allocation.expected_end_ms else {
            return;
        };
        if allocation.evicting_for.is_some() || self.node.is_none() {
            return;
        }
        let place = self.ends.partition_point(|other| other.end_ms < end_ms);
        let claim = Claim {
            gpus: held.mask,
            cpu: allocation.cpu_millicores,
            memory: allocation.memory_bytes,
        };
        self.ends.insert(place, Ending { end_ms, at, claim });
    }

    fn mask(&self, indices: &[u32]) -> u64 {
        let Some(node) = &self.node else { return 0 };
        indices
            .iter()
            .filter_map(|index| node.gpus.binary_search_by_key(index, |gpu| gpu.index).ok())
            .fold(0, |mask, position| mask | 1 << position)
    }
}

/// Whether it could ever be a victim, leaving time aside.
pub(crate) fn is_low(allocation: &Allocation) -> bool {
    allocation.priority == Priority::Low && allocation.preemptible && allocation.evicting_for.is_none()
}

impl Fleet {
    /// An empty fleet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, or replaces what was known of the node of that name.
    /// What is held there stays held.
    pub fn upsert_node(&mut self, mut node: Node) {
        node.gpus.sort_by_key(|gpu| gpu.index);
        node.gpus.dedup_by_key(|gpu| gpu.index);
        node.gpus.truncate(64);
        node.taints.sort();
        node.taints.dedup();
        let id = self.entry(&node.name);
        if self.entries[id as usize].node.as_deref() == Some(&node) {
            return;
        }
        let before = self.entries[id as usize].node.take();
        let same_labels = before.as_ref().is_some_and(|old| old.labels == node.labels);
        let same_kind = same_labels
            && before.as_ref().is_some_and(|old| {
                old.engines == node.engines
                    && old.taints == node.taints
                    && old.links == node.links
                    && old.gpus.len() == node.gpus.len()
                    && old.gpus.iter().zip(&node.gpus).all(|(a, b)| {
                        (a.index, &a.model, a.memory_bytes, a.numa, a.switch)
                            == (b.index, &b.model, b.memory_bytes, b.numa, b.switch)
                    })
            });
        match &before {
            None => self.node_count += 1,
            Some(old) if !same_kind => self.leave_kind(id, old),
            Some(old) => self.drop_marks(id, old),
        }
        let entry = &mut self.entries[id as usize];
        entry.ready = node.state == NodeState::Ready;
        entry.back_off_until_ms = node.back_off_until_ms;
        entry.usable = node
            .gpus
            .iter()
            .enumerate()
            .filter(|(_, gpu)| gpu.unusable.is_none())
            .fold(0, |mask, (position, _)| mask | 1 << position);
        entry.cpu = node.cpu_millicores;
        entry.memory = node.memory_bytes;
        entry.node = Some(Box::new(node));
        if !same_labels {
            self.relabel(id, before.as_deref());
        }
        if same_kind {
            self.add_marks(id);
        } else {
            self.enter_kind(id);
        }
        self.recount(id);
    }

    /// Forgets a node. What is held there stays held, for its owner's share
    /// and should the node come back, until released. Returns whether the
    /// node was known.
    pub fn remove_node(&mut self, name: &NodeName) -> bool {
        let Some(&id) = self.by_name.get(name) else {
            return false;
        };
        let Some(before) = self.entries[id as usize].node.take() else {
            return false;
        };
        self.node_count -= 1;
        self.leave_kind(id, &before);
        self.relabel(id, Some(&before));
        let held = std::mem::take(&mut self.entries[id as usize].held);
        for &at in &held {
            self.held[at as usize].mask = 0;
        }
        let entry = &mut self.entries[id as usize];
        *entry = Entry {
            held,
            cpu_held: entry.cpu_held,
            memory_held: entry.memory_held,
            victims: entry.victims,
            ..Entry::vacant(name.clone())
        };
        self.vacate(id);
        true
    }

    /// Records that something is held; replaces what was recorded under the
    /// same key, so that marking an eviction is binding again.
    pub fn bind(&mut self, allocation: Allocation) {
        self.release(&allocation.key);
        let id = self.entry(&allocation.node);
        let gpus = allocation.gpus.len() as u64;
        *self.holdings.entry(allocation.owner.clone()).or_default() += weight(gpus, allocation.cpu_millicores);
        if let Some(request) = &allocation.evicting_for {
            let keys = self.evicting.entry(request.clone()).or_default();
            keys.insert(allocation.key.clone());
        }
        let entry = &mut self.entries[id as usize];
        entry.cpu_held = entry.cpu_held.saturating_add(allocation.cpu_millicores);
        entry.memory_held = entry.memory_held.saturating_add(allocation.memory_bytes);
        entry.victims += u32::from(is_low(&allocation));
        let key = allocation.key.clone();
        let youngest = (Reverse(allocation.started_at_ms), key.clone());
        let low = is_low(&allocation);
        let mask = entry.mask(&allocation.gpus);
        entry.gpus_held |= mask;
        if is_low(&allocation) {
            entry.gpus_low |= mask;
        }
        let workload = match self.workload_ids.get(&key.request) {
            Some(&workload) => workload,
            None => {
                let workload = self.vacant_workloads.pop().unwrap_or_else(|| {
                    self.workloads.push(Vec::new());
                    index(self.workloads.len() - 1)
                });
                self.workload_ids.insert(key.request.clone(), workload);
                workload
            }
        };
        let held = Held {
            allocation,
            entry: id,
            workload,
            mask,
        };
        let at = match self.vacant_held.pop() {
            Some(at) => {
                self.held[at as usize] = held;
                at
            }
            None => {
                self.held.push(held);
                index(self.held.len() - 1)
            }
        };
        let entry = &mut self.entries[id as usize];
        entry.held.push(at);
        entry.add_end(at, &self.held[at as usize]);
        self.workloads[workload as usize].push(at);
        if low {
            self.youngest.insert(youngest, at);
        }
        self.by_key.insert(key, at);
        self.reindex(id);
    }

    /// Frees what `key` holds, and returns it; `None` if it held nothing.
    pub fn release(&mut self, key: &AllocationKey) -> Option<Allocation> {
        let at = self.by_key.remove(key)?;
        self.vacant_held.push(at);
        let held = &mut self.held[at as usize];
        let (id, mask, workload) = (held.entry, held.mask, held.workload);
        let allocation = held.allocation.clone();
        let members = &mut self.workloads[workload as usize];
        members.retain(|&member| member != at);
        if members.is_empty() {
            self.workload_ids.remove(&key.request);
            self.vacant_workloads.push(workload);
        }
        if is_low(&allocation) {
            let youngest = (Reverse(allocation.started_at_ms), key.clone());
            self.youngest.remove(&youngest);
        }
        let gpus = allocation.gpus.len() as u64;
        if let Some(total) = self.holdings.get_mut(&allocation.owner) {
            *total = total.saturating_sub(weight(gpus, allocation.cpu_millicores));
            if *total == 0 {
                self.holdings.remove(&allocation.owner);
            }
        }
        if let Some(request) = &allocation.evicting_for
            && let Some(keys) = self.evicting.get_mut(request)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.evicting.remove(request);
            }
        }
        let entry = &mut self.entries[id as usize];
        if let Some(place) = entry.held.iter().position(|&other| other == at) {
            entry.held.swap_remove(place);
        }
        entry.ends.retain(|end| end.at != at);
        entry.cpu_held = entry.cpu_held.saturating_sub(allocation.cpu_millicores);
        entry.memory_held = entry.memory_held.saturating_sub(allocation.memory_bytes);
        entry.victims -= u32::from(is_low(&allocation));
        if mask != 0 {
            self.remask(id);
        }
        self.reindex(id);
        self.vacate(id);
        Some(allocation)
    }

    /// How many nodes are known, in whatever state.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.node_count
    }

    /// The node of that name, its GPUs sorted by index.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        let id = self.by_name.get(name)?;
        self.entries[*id as usize].node.as_deref()
    }

    /// What `key` holds.
    #[must_use]
    pub fn allocation(&self, key: &AllocationKey) -> Option<&Allocation> {
        let at = self.by_key.get(key)?;
        Some(&self.held[*at as usize].allocation)
    }

    /// Everything held, in order of key.
    pub fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.by_key.values().map(|&at| &self.held[at as usize].allocation)
    }

    /// Indices of GPUs on a node that are usable and held by nobody.
    #[must_use]
    pub fn free_gpus(&self, name: &NodeName) -> Vec<u32> {
        self.by_name.get(name).map_or_else(Vec::new, |&id| {
            let entry = &self.entries[id as usize];
            entry.indices(entry.free().gpus)
        })
    }

    /// What an owner holds now, in thousandths of a GPU.
    #[must_use]
    pub fn holdings(&self, owner: &Owner) -> u64 {
        self.holdings.get(owner).copied().unwrap_or(0)
    }

    /// Known nodes, in no particular order.
    pub(crate) fn known(&self) -> impl Iterator<Item = (u32, &Entry, &Node)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(id, entry)| Some((index(id), entry, entry.node.as_deref()?)))
    }

    pub(crate) fn is_wide(&self, label: &str) -> bool {
        self.labels.get(label).is_some_and(|v| v.len() > WIDE)
    }

    fn entry(&mut self, name: &NodeName) -> u32 {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let entry = Entry::vacant(name.clone());
        let id = match self.vacant.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                index(self.entries.len() - 1)
            }
        };
        self.by_name.insert(name.clone(), id);
        id
    }

    /// Drops the entry if nothing is known there or held there.
    fn vacate(&mut self, id: u32) {
        let entry = &self.entries[id as usize];
        if entry.node.is_none() && entry.held.is_empty() {
            self.by_name.remove(&entry.name);
            self.vacant.push(id);
        }
    }

    /// Recomputes the masks of everything held on a node, after its GPUs changed.
    fn recount(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        entry.ends.clear();
        for &at in &entry.held.clone() {
            let held = &mut self.held[at as usize];
            held.mask = entry.mask(&held.allocation.gpus);
            entry.add_end(at, held);
        }
        self.remask(id);
        self.reindex(id);
    }

    fn remask(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        (entry.gpus_held, entry.gpus_low) = (0, 0);
        for &at in &entry.held {
            let held = &self.held[at as usize];
            entry.gpus_held |= held.mask;
            if is_low(&held.allocation) {
                entry.gpus_low |= held.mask;
            }
        }
    }

    /// Puts a node into the buckets that its free GPUs name.
    fn reindex(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        if entry.node.is_none() {
            return;
        }
        let free = entry.free();
        let levels = if entry.ready {
            (Levels::reached(free.cpu), Levels::reached(free.memory))
        } else {
            (0, 0)
        };
        let free = free.gpus;
        let want = entry.ready.then(|| {
            let reclaimable = (free | entry.gpus_low) & entry.usable;
            (free.count_ones(), reclaimable.count_ones())
        });
        let kind = &mut self.kinds[entry.kind as usize];
        kind.victims.set(entry.slot, entry.ready && entry.victims > 0);
        if entry.levels != levels {
            kind.cpu.change(entry.slot, entry.levels.0, levels.0);
            kind.memory.change(entry.slot, entry.levels.1, levels.1);
            entry.levels = levels;
        }
        if entry.buckets == want {
            return;
        }
        if let Some((free, reclaimable)) = entry.buckets {
            kind.free[free as usize].set(entry.slot, false);
            kind.reclaimable[reclaimable as usize].set(entry.slot, false);
        }
        if let Some((free, reclaimable)) = want {
            kind.free[free as usize].set(entry.slot, true);
            kind.reclaimable[reclaimable as usize].set(entry.slot, true);
        }
        entry.buckets = want;
    }

    fn kind_key(&self, node: &Node, links: &[u8]) -> KindKey {
        KindKey {
            engines: node.engines.clone(),
            labels: node
                .labels
                .iter()
                .filter(|(key, _)| !self.is_wide(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            taints: node.taints.clone(),
            gpus: node
                .gpus
                .iter()
                .map(|gpu| (gpu.model.clone(), gpu.memory_bytes))
                .collect(),
            links: links.to_vec(),
        }
    }

    fn enter_kind(&mut self, id: u32) {
        let Some(node) = self.entries[id as usize].node.as_deref() else {
            return;
        };
        let topology = self.topologies.intern(&node.gpus, &node.links);
        let key = self.kind_key(node, topology.signature());
        let kind_id = match self.kind_ids.get(&key) {
            Some(&kind) => kind,
            None => {
                let key = Arc::new(key);
                let kind = Kind::new(Arc::clone(&key), topology);
                let at = match self.vacant_kinds.pop() {
                    Some(at) => {
                        self.kinds[at as usize] = kind;
                        at
                    }
                    None => {
                        self.kinds.push(kind);
                        index(self.kinds.len() - 1)
                    }
                };
                self.kind_ids.insert(key, at);
                at
            }
        };
        let kind = &mut self.kinds[kind_id as usize];
        let name = &self.entries[id as usize].name;
        let slot = kind
            .slots
            .partition_point(|&other| self.entries[other as usize].name < *name);
        kind.open(index(slot), id);
        for &later in &kind.slots[slot + 1..] {
            self.entries[later as usize].slot += 1;
        }
        let entry = &mut self.entries[id as usize];
        (entry.kind, entry.slot) = (kind_id, index(slot));
        (entry.buckets, entry.levels) = (None, (0, 0));
        self.add_marks(id);
    }

    fn leave_kind(&mut self, id: u32, before: &Node) {
        self.drop_marks(id, before);
        let entry = &mut self.entries[id as usize];
        let (kind_id, slot) = (entry.kind, entry.slot);
        (entry.buckets, entry.levels) = (None, (0, 0));
        let kind = &mut self.kinds[kind_id as usize];
        kind.close(slot);
        for &later in &kind.slots[slot as usize..] {
            self.entries[later as usize].slot -= 1;
        }
        if kind.slots.is_empty() {
            self.kind_ids.remove(&kind.key);
            self.vacant_kinds.push(kind_id);
        }
    }

    fn add_marks(&mut self, id: u32) {
        let entry = &self.entries[id as usize];
        let (slot, kind) = (entry.slot, &mut self.kinds[entry.kind as usize]);
        let Some(node) = &entry.node else { return };
        kind.hot.set(slot, node.heat.is_some_and(|heat| heat >= HOT));
        for image in &node.images {
            match kind.images.get_mut(image) {
                Some(nodes) => nodes.set(slot, true),
                None => kind.images.entry(image.clone()).or_default().set(slot, true),
            }
        }
    }

    fn drop_marks(&mut self, id: u32, before: &Node) {
        let entry = &self.entries[id as usize];
        let (slot, kind) = (entry.slot, &mut self.kinds[entry.kind as usize]);
        for image in &before.images {
            if let Some(nodes) = kind.images.get_mut(image) {
                nodes.set(slot, false);
                if nodes.is_empty() {
                    kind.images.remove(image);
                }
            }
        }
    }

    /// Moves a node from its labels of before to those it has now. A label
    /// key that thereby crosses `WIDE` changes the kind of all its nodes.
    fn relabel(&mut self, id: u32, before: Option<&Node>) {
        let entry = &self.entries[id as usize];
        let name = entry.name.clone();
        let after = entry.node.as_ref().map(|node| node.labels.clone());
        let after = after.unwrap_or_default();
        let mut crossed = Vec::new();
        for (key, value) in before.map(|node| &node.labels).into_iter().flatten() {
            if after.get(key) == Some(value) {
                continue;
            }
            let was = self.is_wide(key);
            if let Some(values) = self.labels.get_mut(key) {
                if let Some(nodes) = values.get_mut(value) {
                    nodes.remove(&name);
                    if nodes.is_empty() {
                        values.remove(value);
                    }
                }
                if values.is_empty() {
                    self.labels.remove(key);
                }
            }
            if was != self.is_wide(key) {
                crossed.push(key.clone());
            }
        }
        for (key, value) in &after {
            let was = self.is_wide(key);
            let values = self.labels.entry(key.clone()).or_default();
            let nodes = values.entry(value.clone()).or_default();
            nodes.insert(name.clone(), id);
            if was != self.is_wide(key) {
                crossed.push(key.clone());
            }
        }
        for key in crossed {
            let nodes: Vec<u32> = self
                .labels
                .get(&key)
                .into_iter()
                .flat_map(HashMap::values)
                .flat_map(|nodes| nodes.values().copied())
                .filter(|&other| other != id)
                .collect();
            for other in nodes {
                let Some(node) = self.entries[other as usize].node.take() else {
                    continue;
                };
                self.leave_kind(other, &node);
                self.entries[other as usize].node = Some(node);
                self.enter_kind(other);
                self.reindex(other);
            }
        }
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("nodes", &self.node_count)
            .field("kinds", &self.kind_ids.len())
            .field("allocations", &self.by_key.len())
            .finish_non_exhaustive()
    }
}

/// Slabs stay far below 2^32 places.
pub(crate) fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
