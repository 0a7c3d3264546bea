//! Making room for a `high` request by evicting `low` ones: as few as
//! possible, and among those the ones that lose least work.

use std::collections::BTreeSet;

use crate::bits::ones;
use crate::fleet::{Free, is_low};
use crate::pass::{Claim, Pass};
use crate::place::{Candidates, KindFit, Prepared};
use crate::reserve::{add, enough};
use crate::{AllocationKey, RequestId};

/// Combinations of victims tried on one node before settling for a good one.
const COMBINATIONS: u32 = 2_000;
/// Nodes where room could be made that are compared, at most.
const NODES: usize = 512;

/// Where room is being made, and who else has to go for it.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    /// Node, and the request's claim on what is free there already.
    pub(crate) nodes: Vec<(u32, Claim)>,
    /// Workloads not yet being evicted; empty if the evictions under way do.
    pub(crate) victims: Vec<&'a RequestId>,
}

/// A workload that may be evicted, as one node sees it.
#[derive(Clone, Copy)]
struct Loser<'a> {
    request: &'a RequestId,
    ran_ms: i64,
    claim: Claim,
}

/// One node where room can be made.
struct Site<'a> {
    node: u32,
    fit: KindFit,
    own: bool,
    lost_ms: i64,
    losers: Vec<Loser<'a>>,
}

/// Finds room for a request that fits nowhere, counting what is being evicted
/// for it (`own`) as free already. New victims only if `may_evict`.
pub(crate) fn make_room<'a>(
    pass: &Pass<'a>,
    prepared: &Prepared<'_>,
    own: Option<&BTreeSet<AllocationKey>>,
    may_evict: bool,
) -> Option<Making<'a>> {
    let needed = prepared.ask.nodes as usize;
    let mut sites: Vec<Site<'a>> = Vec::new();
    for (node, fit) in places(pass, prepared, own) {
        let most = match sites.len() {
            0 => usize::MAX,
            _ if needed > 1 => usize::MAX,
            _ => sites.iter().map(|s| s.losers.len()).min().unwrap_or(0),
        };
        sites.extend(site(pass, prepared, own, node, fit, may_evict, most));
        if sites.len() >= NODES.max(4 * needed) {
            break;
        }
    }
    if sites.len() < needed {
        return None;
    }
    sites.sort_by(|a, b| {
        let key = |s: &Site<'a>| (s.losers.len(), !s.own, s.lost_ms);
        key(a)
            .cmp(&key(b))
            .then_with(|| pass.entry(a.node).name.cmp(&pass.entry(b.node).name))
    });
    sites.truncate(needed);
    let victims = prune(pass, prepared, own, &sites);
    let nodes = sites
        .iter()
        .map(|site| {
            let freed = freed(pass, site.node, own, &victims);
            (site.node, rest(pass, prepared, site, freed))
        })
        .collect();
    Some(Making { nodes, victims })
}

/// The age of a workload, if it may be evicted as a whole.
pub(crate) fn ran_ms(pass: &Pass<'_>, request: &RequestId) -> Option<i64> {
    let mut ran = None;
    for at in members(pass, request) {
        let allocation = &pass.fleet.held[at as usize].allocation;
        let protected = allocation
            .min_run_until_ms
            .is_some_and(|until| until > pass.now_ms);
        if !is_low(allocation) || protected || pass.leaving.contains(&at) {
            return None;
        }
        let age = pass.now_ms.saturating_sub(allocation.started_at_ms);
        ran = ran.max(Some(age.max(0)));
    }
    ran
}

/// Places in the fleet of everything a workload holds, in order of rank.
pub(crate) fn members<'p>(
    pass: &'p Pass<'_>,
    request: &RequestId,
) -> impl Iterator<Item = u32> + use<'p> {
    let key = |rank| AllocationKey {
        request: request.clone(),
        rank,
    };
    pass.fleet
        .by_key
        .range(key(0)..=key(u32::MAX))
        .map(|(_, &at)| at)
}

/// Nodes where room might be made, each once, in a fixed order.
fn places(
    pass: &Pass<'_>,
    prepared: &Prepared<'_>,
    own: Option<&BTreeSet<AllocationKey>>,
) -> Vec<(u32, KindFit)> {
    let ask = prepared.ask;
    let mut places: Vec<(u32, KindFit)> = Vec::new();
    let own_nodes: BTreeSet<u32> = own
        .into_iter()
        .flatten()
        .filter_map(|key| pass.fleet.by_key.get(key))
        .map(|&at| pass.fleet.held[at as usize].entry)
        .collect();
    match &prepared.candidates {
        Candidates::Nodes(nodes) => places.extend(nodes),
        Candidates::Kinds(kinds) => {
            for fit in kinds {
                let kind = &pass.fleet.kinds[fit.kind as usize];
                if own_nodes.iter().any(|&n| pass.entry(n).kind == fit.kind) {
                    let own = own_nodes
                        .iter()
                        .filter(|&&n| pass.entry(n).kind == fit.kind);
                    places.extend(own.map(|&node| (node, *fit)));
                }
                for i in 0..kind.slots.len().div_ceil(64) {
                    let mut word = 0;
                    for count in ask.gpus..=kind.gpus() {
                        word |= kind.reclaimable[count as usize].word(i) & kind.victims.word(i);
                        if ask.nodes > 1 {
                            word |= pass.bucket(fit.kind, count).word(i);
                        }
                    }
                    for bit in ones(word) {
                        let node = kind.slots[i * 64 + bit as usize];
                        if !own_nodes.contains(&node) {
                            places.push((node, *fit));
                        }
                    }
                }
            }
        }
    }
    places
}

/// What room on one node costs; `None` if it can't be made, or only by more
/// than `most` evictions.
fn site<'a>(
    pass: &Pass<'a>,
    prepared: &Prepared<'_>,
    own: Option<&BTreeSet<AllocationKey>>,
    node: u32,
    fit: KindFit,
    may_evict: bool,
    most: usize,
) -> Option<Site<'a>> {
    let ask = prepared.ask;
    let entry = pass.entry(node);
    let resting = entry
        .back_off_until_ms
        .is_some_and(|until| until > pass.now_ms);
    if resting || pass.holds.contains_key(&node) || !prepared.fits_empty(pass, node, &fit) {
        return None;
    }
    let under_way = freed(pass, node, own, &[]);
    let mut base = pass.free(node);
    add(&mut base, entry, under_way);
    let site = |losers: Vec<Loser<'a>>| Site {
        node,
        fit,
        own: under_way != Claim::default(),
        lost_ms: losers.iter().map(|l| l.ran_ms).sum(),
        losers,
    };
    if enough(ask, &fit, base) {
        return Some(site(Vec::new()));
    }
    if !may_evict || most == 0 {
        return None;
    }
    let mut losers: Vec<Loser<'a>> = Vec::new();
    for &at in &entry.held {
        let held = &pass.fleet.held[at as usize];
        if !is_low(&held.allocation) {
            continue;
        }
        let request = &held.allocation.key.request;
        let claim = Claim {
            gpus: held.mask,
            cpu: held.allocation.cpu_millicores,
            memory: held.allocation.memory_bytes,
        };
        if let Some(known) = losers.iter_mut().find(|l| l.request == request) {
            known.claim.gpus |= claim.gpus;
            known.claim.cpu += claim.cpu;
            known.claim.memory += claim.memory;
        } else if let Some(ran_ms) = ran_ms(pass, request) {
            losers.push(Loser {
                request,
                ran_ms,
                claim,
            });
        }
    }
    // The youngest first, so that of equal sets the youngest is found first.
    losers.sort_by(|a, b| (a.ran_ms, a.request).cmp(&(b.ran_ms, b.request)));
    fewest(&losers, most, |chosen| {
        let mut free = base;
        for loser in chosen {
            add(&mut free, entry, loser.claim);
        }
        enough(ask, &fit, free)
    })
    .map(site)
}

/// The smallest sufficient set, and of those the one that lost least time.
fn fewest<'a>(
    losers: &[Loser<'a>],
    most: usize,
    sufficient: impl Fn(&[Loser<'a>]) -> bool,
) -> Option<Vec<Loser<'a>>> {
    if !sufficient(losers) {
        return None;
    }
    let mut tried = 0;
    for size in 1..=most.min(losers.len()) {
        let mut best: Option<(i64, Vec<Loser<'a>>)> = None;
        let mut pick: Vec<usize> = (0..size).collect();
        loop {
            tried += 1;
            if tried > COMBINATIONS {
                return best
                    .map(|(_, set)| set)
                    .or_else(|| Some(thinned(losers, &sufficient)))
                    .filter(|set| set.len() <= most);
            }
            let set: Vec<Loser<'a>> = pick.iter().map(|&i| losers[i]).collect();
            let lost = set.iter().map(|l| l.ran_ms).sum();
            if best.as_ref().is_none_or(|(least, _)| lost < *least) && sufficient(&set) {
                best = Some((lost, set));
            }
            let n = losers.len();
            let Some(at) = (0..size).rev().find(|&i| pick[i] < n - size + i) else {
                break;
            };
            pick[at] += 1;
            for i in at + 1..size {
                pick[i] = pick[i - 1] + 1;
            }
        }
        if let Some((_, set)) = best {
            return Some(set);
        }
    }
    None
}

/// A sufficient set from which nothing can be left out: small ones and old
/// ones are spared first.
fn thinned<'a>(losers: &[Loser<'a>], sufficient: &impl Fn(&[Loser<'a>]) -> bool) -> Vec<Loser<'a>> {
    let mut set = losers.to_vec();
    set.sort_by_key(|l| (l.claim.gpus.count_ones(), l.claim.memory, -l.ran_ms));
    let mut at = 0;
    while at < set.len() {
        let spared = set.remove(at);
        if !sufficient(&set) {
            set.insert(at, spared);
            at += 1;
        }
    }
    set
}

/// The victims of all sites together, without those that nobody needs since
/// another site's victim, a gang, makes room here as well.
fn prune<'a>(
    pass: &Pass<'a>,
    prepared: &Prepared<'_>,
    own: Option<&BTreeSet<AllocationKey>>,
    sites: &[Site<'a>],
) -> Vec<&'a RequestId> {
    let mut victims: Vec<(i64, &'a RequestId)> = sites
        .iter()
        .flat_map(|site| site.losers.iter().map(|l| (l.ran_ms, l.request)))
        .collect();
    victims.sort_unstable_by(|a, b| b.cmp(a));
    victims.dedup();
    let mut kept: Vec<&'a RequestId> = victims.iter().map(|(_, request)| *request).collect();
    if sites.len() > 1 {
        for (_, victim) in victims {
            let without: Vec<&RequestId> = kept.iter().copied().filter(|v| *v != victim).collect();
            let suffices = sites.iter().all(|site| {
                let mut free = pass.free(site.node);
                let freed = freed(pass, site.node, own, &without);
                add(&mut free, pass.entry(site.node), freed);
                enough(prepared.ask, &site.fit, free)
            });
            if suffices {
                kept = without;
            }
        }
    }
    kept.sort_unstable();
    kept
}

/// What a node gets back from evictions: those under way for the request, and
/// those of `victims`.
fn freed(
    pass: &Pass<'_>,
    node: u32,
    own: Option<&BTreeSet<AllocationKey>>,
    victims: &[&RequestId],
) -> Claim {
    let mut claim = Claim::default();
    for &at in &pass.entry(node).held {
        let held = &pass.fleet.held[at as usize];
        let key = &held.allocation.key;
        if own.is_some_and(|own| own.contains(key)) || victims.contains(&&key.request) {
            claim.gpus |= held.mask;
            claim.cpu += held.allocation.cpu_millicores;
            claim.memory += held.allocation.memory_bytes;
        }
    }
    claim
}

/// What the request needs of a node beyond what evictions give back: the
/// lowest free GPUs, so that planning again claims the same.
fn rest(pass: &Pass<'_>, prepared: &Prepared<'_>, site: &Site<'_>, freed: Claim) -> Claim {
    let ask = prepared.ask;
    let free: Free = pass.free(site.node);
    let coming = freed.gpus & pass.entry(site.node).usable & site.fit.suitable;
    let missing = ask.gpus.saturating_sub(coming.count_ones());
    Claim {
        gpus: ones(free.gpus & site.fit.suitable)
            .take(missing as usize)
            .fold(0, |mask, i| mask | 1 << i),
        cpu: ask.cpu.saturating_sub(freed.cpu).min(free.cpu),
        memory: ask.memory.saturating_sub(freed.memory).min(free.memory),
    }
}
