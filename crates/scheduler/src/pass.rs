//! The state of one pass: the fleet as it is, overlaid with what the pass has
//! given away so far. Only what the pass touches is copied.

use crate::bits::{Bits, ones};
use crate::filter::{Ask, Depth, Sight, node_fails};
use crate::fleet::{Entry, Fleet, Free};
use crate::hash::{FastMap, FastSet};

pub(crate) struct Pass<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) now_ms: i64,
    free: FastMap<u32, Free>,
    buckets: FastMap<(u32, u32), Bits>,
    /// What was placed in this pass, by node.
    pub(crate) started: FastMap<u32, Vec<Started>>,
    /// What the reservations keep, by node.
    pub(crate) holds: FastMap<u32, Hold>,
    /// Allocations that this pass evicts.
    pub(crate) leaving: FastSet<u32>,
}

/// A set of a node's resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) gpus: u64,
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
}

/// Something placed in this pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub(crate) claim: Claim,
    /// `None` means that no end can be counted on.
    pub(crate) end_ms: Option<i64>,
}

/// Room kept on one node for a reservation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    /// Which GPUs would do, how many are needed.
    pub(crate) suitable: u64,
    pub(crate) gpus: u32,
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) start_ms: Option<i64>,
    /// What will be free by then, going by known ends only.
    pub(crate) then: Free,
}

impl Hold {
    /// Which GPUs a request may take on this node without delaying the one
    /// that the room is kept for; `None` if it may not run here at all.
    /// `end_ms` is when it is gone at the latest.
    pub(crate) fn allows(&self, ask: &Ask, free: u64, end_ms: Option<i64>) -> Option<u64> {
        if let (Some(start), Some(end)) = (self.start_ms, end_ms)
            && end <= start
        {
            return Some(u64::MAX);
        }
        let spares = |need: u64, then: u64, asked: u64| need == 0 || asked == 0 || then.saturating_sub(asked) >= need;
        if !spares(self.cpu, self.then.cpu, ask.cpu) || !spares(self.memory, self.then.memory, ask.memory) {
            return None;
        }
        let contested = self.then.gpus & self.suitable;
        let spare = contested.count_ones().saturating_sub(self.gpus);
        let spared = ones(contested & free)
            .take(spare as usize)
            .fold(0, |mask, i| mask | 1 << i);
        Some(if spare >= ask.gpus {
            u64::MAX
        } else {
            !contested | spared
        })
    }
}

impl<'a> Pass<'a> {
    pub(crate) fn new(fleet: &'a Fleet, now_ms: i64) -> Self {
        Self {
            fleet,
            now_ms,
            free: FastMap::default(),
            buckets: FastMap::default(),
            started: FastMap::default(),
            holds: FastMap::default(),
            leaving: FastSet::default(),
        }
    }

    pub(crate) fn entry(&self, id: u32) -> &'a Entry {
        &self.fleet.entries[id as usize]
    }

    /// What a node has left.
    pub(crate) fn free(&self, id: u32) -> Free {
        match self.free.get(&id) {
            Some(free) => *free,
            None => self.entry(id).free(),
        }
    }

    /// Whether a node fits whose kind has the `suitable` GPUs.
    pub(crate) fn node_fits(&self, ask: &Ask, entry: &Entry, suitable: u64, free: Free, depth: Depth) -> bool {
        let sight = Sight {
            suitable,
            free,
            depth,
            now_ms: self.now_ms,
        };
        !node_fails(self.fleet, ask, entry, &sight, &mut |_| true)
    }

    /// The ready nodes of a kind with `count` GPUs left.
    pub(crate) fn bucket(&self, kind: u32, count: u32) -> &Bits {
        match self.buckets.get(&(kind, count)) {
            Some(bits) => bits,
            None => &self.fleet.kinds[kind as usize].free[count as usize],
        }
    }

    pub(crate) fn take(&mut self, id: u32, claim: Claim) {
        let mut free = self.free(id);
        let before = free.gpus.count_ones();
        free.gpus &= !claim.gpus;
        free.cpu = free.cpu.saturating_sub(claim.cpu);
        free.memory = free.memory.saturating_sub(claim.memory);
        self.put(id, before, free);
    }

    /// Undoes a `take` of the same claim.
    pub(crate) fn give_back(&mut self, id: u32, claim: Claim) {
        let mut free = self.free(id);
        let before = free.gpus.count_ones();
        free.gpus |= claim.gpus;
        free.cpu += claim.cpu;
        free.memory += claim.memory;
        self.put(id, before, free);
    }

    /// Makes a `take` final: something runs there, until `end_ms` if known.
    pub(crate) fn start(&mut self, id: u32, claim: Claim, end_ms: Option<i64>) {
        self.started.entry(id).or_default().push(Started { claim, end_ms });
        if let Some(hold) = self.holds.get_mut(&id) {
            let gone = matches!((hold.start_ms, end_ms), (Some(start), Some(end)) if end <= start);
            if !gone {
                hold.then.gpus &= !claim.gpus;
                hold.then.cpu = hold.then.cpu.saturating_sub(claim.cpu);
                hold.then.memory = hold.then.memory.saturating_sub(claim.memory);
            }
        }
    }

    fn put(&mut self, id: u32, before: u32, free: Free) {
        self.free.insert(id, free);
        let after = free.gpus.count_ones();
        let entry = self.entry(id);
        if after == before || !entry.ready {
            return;
        }
        let kind = &self.fleet.kinds[entry.kind as usize];
        for (count, on) in [(before, false), (after, true)] {
            self.buckets
                .entry((entry.kind, count))
                .or_insert_with(|| kind.free[count as usize].clone())
                .set(entry.slot, on);
        }
    }
}
