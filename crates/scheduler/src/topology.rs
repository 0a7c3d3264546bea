//! Which of a node's free GPUs belong together.
//!
//! A topology is shared by every node with the same GPUs in the same places,
//! and remembers the best set for each (free GPUs, count) that was ever asked.

use std::sync::{Arc, Mutex, PoisonError};

use crate::bits::ones;
use crate::hash::FastMap;
use crate::{Gpu, GpuLink, Link};

/// Sets are searched exhaustively up to this many combinations (any half of
/// 16 GPUs is 12,870); above, they are grown greedily.
const EXHAUSTIVE: u64 = 13_000;
/// Remembered answers a topology; forgotten all at once when full.
const REMEMBERED: usize = 65_536;
/// Pair cost that stands for two GPUs of different models.
const MIXED: u8 = 200;

/// The GPUs of a node and how well each pair is linked.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Pair costs, row by row; 0 is the best link.
    cost: Vec<u8>,
    gpus: u32,
    /// Every pair costs the same: any set is as good as any other.
    uniform: bool,
    best: Mutex<FastMap<(u64, u32), GpuSet>>,
}

/// GPUs of one node, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GpuSet {
    pub(crate) mask: u64,
    /// Cost of the worst link inside, 0 for the best.
    pub(crate) worst: u8,
}

impl Topology {
    /// Of `gpus` sorted by index; at most 64.
    pub(crate) fn new(gpus: &[Gpu], links: &[GpuLink]) -> Self {
        let n = gpus.len();
        let mut cost = vec![0; n * n];
        for a in 0..n {
            for b in 0..n {
                if a != b {
                    cost[a * n + b] = pair_cost(derived_link(&gpus[a], &gpus[b]));
                }
            }
        }
        let position = |index| gpus.binary_search_by_key(&index, |gpu| gpu.index).ok();
        for link in links {
            if let (Some(a), Some(b)) = (position(link.a), position(link.b))
                && a != b
            {
                cost[a * n + b] = pair_cost(link.link);
                cost[b * n + a] = pair_cost(link.link);
            }
        }
        for a in 0..n {
            for b in 0..n {
                if gpus[a].model != gpus[b].model {
                    cost[a * n + b] = MIXED;
                }
            }
        }
        let uniform = n < 2 || (0..n * n).filter(|i| i / n != i % n).all(|i| cost[i] == cost[1]);
        Self {
            cost,
            gpus: u32::try_from(n).unwrap_or(0),
            uniform,
            best: Mutex::default(),
        }
    }

    /// What makes two topologies the same.
    pub(crate) fn signature(&self) -> &[u8] {
        &self.cost
    }

    /// The best `count` GPUs out of `free`: the one whose worst link is best,
    /// then the best links in sum, then the least well linked to the free
    /// GPUs left over (so that good islands stay whole), then the lowest.
    /// `None` if `free` has fewer.
    pub(crate) fn best(&self, free: u64, count: u32) -> Option<GpuSet> {
        if free.count_ones() < count {
            return None;
        }
        if count == 0 {
            return Some(GpuSet { mask: 0, worst: 0 });
        }
        if self.uniform {
            let mask = ones(free).take(count as usize).fold(0, |m, i| m | 1 << i);
            let worst = if count > 1 { self.cost[1] } else { 0 };
            return Some(GpuSet { mask, worst });
        }
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&set) = best.get(&(free, count)) {
            return Some(set);
        }
        let set = self.search(free, count);
        if best.len() >= REMEMBERED {
            best.clear();
        }
        best.insert((free, count), set);
        Some(set)
    }

    fn pair(&self, a: u32, b: u32) -> u32 {
        u32::from(self.cost[(a * self.gpus + b) as usize])
    }

    fn search(&self, free: u64, count: u32) -> GpuSet {
        let positions: Vec<u32> = ones(free).collect();
        let found = if combinations(positions.len() as u64, u64::from(count)) <= EXHAUSTIVE {
            self.exhaustive(&positions, free, count)
        } else {
            self.greedy(&positions, free, count)
        };
        let worst = self.grade(found, free).0;
        GpuSet {
            mask: found,
            worst: u8::try_from(worst).unwrap_or(u8::MAX),
        }
    }

    /// Worst link, sum of links, and how much good linkage to the rest of
    /// `free` it would break: less is better in each.
    fn grade(&self, mask: u64, free: u64) -> (u32, u32, u32) {
        let (mut worst, mut sum, mut broken) = (0, 0, 0);
        for a in ones(mask) {
            for b in ones(mask & !((2u64 << a).wrapping_sub(1))) {
                let cost = self.pair(a, b);
                worst = worst.max(cost);
                sum += cost;
            }
            for b in ones(free & !mask) {
                broken += u32::from(u8::MAX) - self.pair(a, b);
            }
        }
        (worst, sum, broken)
    }

    fn exhaustive(&self, positions: &[u32], free: u64, count: u32) -> u64 {
        let (n, k) = (positions.len(), count as usize);
        let mut pick: Vec<usize> = (0..k).collect();
        let mut best: Option<((u32, u32, u32), u64)> = None;
        loop {
            let mask = pick.iter().fold(0, |m, &i| m | 1u64 << positions[i]);
            let grade = (self.grade(mask, free), mask);
            if best.is_none_or(|best| grade < best) {
                best = Some(grade);
            }
            // The next combination in lexical order.
            let Some(at) = (0..k).rev().find(|&i| pick[i] < n - k + i) else {
                return best.map_or(0, |(_, mask)| mask);
            };
            pick[at] += 1;
            for i in at + 1..k {
                pick[i] = pick[i - 1] + 1;
            }
        }
    }

    fn greedy(&self, positions: &[u32], free: u64, count: u32) -> u64 {
        let grown = positions.iter().map(|&first| {
            let mut mask = 1u64 << first;
            for _ in 1..count {
                let next = ones(free & !mask)
                    .min_by_key(|&b| {
                        let costs = ones(mask).map(|a| self.pair(a, b));
                        let (worst, sum) = costs.fold((0, 0), |(worst, sum), c| (c.max(worst), sum + c));
                        (worst, sum, b)
                    })
                    .unwrap_or(first);
                mask |= 1 << next;
            }
            (self.grade(mask, free), mask)
        });
        grown.min().map_or(0, |(_, mask)| mask)
    }
}

/// One topology for each distinct signature.
#[derive(Debug, Default)]
pub(crate) struct Topologies {
    known: std::collections::HashMap<Vec<u8>, Arc<Topology>>,
}

impl Topologies {
    pub(crate) fn intern(&mut self, gpus: &[Gpu], links: &[GpuLink]) -> Arc<Topology> {
        let topology = Topology::new(gpus, links);
        let known = self.known.entry(topology.signature().to_vec());
        Arc::clone(known.or_insert_with(|| Arc::new(topology)))
    }
}

fn derived_link(a: &Gpu, b: &Gpu) -> Link {
    if a.switch.is_some() && a.switch == b.switch && a.numa == b.numa {
        Link::SameSwitch
    } else if a.numa.is_some() && a.numa == b.numa {
        Link::SameNuma
    } else {
        Link::System
    }
}

fn pair_cost(link: Link) -> u8 {
    match link {
        // Four lanes and more are a full mesh (A100 has 12, H100 18).
        Link::NvLink(lanes) => u8::try_from(4u32.saturating_sub(lanes)).unwrap_or(4),
        Link::SameSwitch => 16,
        Link::SameNuma => 32,
        Link::System => 64,
    }
}

fn combinations(n: u64, k: u64) -> u64 {
    let k = k.min(n - k);
    (0..k).fold(1u64, |c, i| c.saturating_mul(n - i) / (i + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(n: u32) -> Vec<Gpu> {
        let place = |i| Gpu {
            numa: Some(i / 4),
            switch: Some(i / 2),
            ..Gpu::new(i, "T4", None)
        };
        (0..n).map(place).collect()
    }

    #[test]
    fn keeps_to_one_switch_and_one_socket() {
        let topology = Topology::new(&gpus(8), &[]);
        assert_eq!(topology.best(0xff, 2).map(|s| s.mask), Some(0b11));
        // 0 is alone on its switch: it goes first, and the pair goes together.
        assert_eq!(topology.best(0b1111_1101, 1).map(|s| s.mask), Some(1));
        assert_eq!(topology.best(0b1111_1101, 2).map(|s| s.mask), Some(0b1100));
        assert_eq!(topology.best(0b1111_0111, 4).map(|s| s.mask), Some(0xf0));
        assert_eq!(topology.best(0b1, 2), None);
    }

    #[test]
    fn prefers_nvlink_pairs_over_places() {
        let link = |a, b| GpuLink {
            a,
            b,
            link: Link::NvLink(2),
        };
        let topology = Topology::new(&gpus(4), &[link(0, 3), link(1, 2)]);
        assert_eq!(topology.best(0xf, 2).map(|s| s.mask), Some(0b0110));
        assert_eq!(topology.best(0b1101, 2).map(|s| s.mask), Some(0b1001));
    }

    #[test]
    fn one_model_before_one_switch() {
        let mut mixed = gpus(4);
        mixed[1].model = "A2".to_owned();
        let topology = Topology::new(&mixed, &[]);
        assert_eq!(topology.best(0xf, 2).map(|s| s.mask), Some(0b1100));
        assert_eq!(topology.best(0b0111, 2).map(|s| s.mask), Some(0b0101));
    }

    #[test]
    fn uniform_takes_the_lowest() {
        let all: Vec<Gpu> = (0..8).map(|i| Gpu::new(i, "H100", None)).collect();
        let topology = Topology::new(&all, &[]);
        assert_eq!(topology.best(0b1111_0010, 3).map(|s| s.mask), Some(0b0011_0010));
    }

    #[test]
    fn greedy_finds_the_islands_of_a_large_node() {
        let place = |i| Gpu {
            numa: Some(i / 8),
            ..Gpu::new(i, "T4", None)
        };
        let topology = Topology::new(&(0..32).map(place).collect::<Vec<_>>(), &[]);
        assert_eq!(topology.best(0xffff_fffe, 8).map(|s| s.mask), Some(0xff00));
    }
}
