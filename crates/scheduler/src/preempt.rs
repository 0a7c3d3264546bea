//! Making room for a `high` request by evicting `low` ones: as few as
//! possible, and among those the ones that lose least work.

use std::collections::BTreeSet;

use crate::bits::ones;
use crate::fleet::{Free, Held, is_low};
use crate::hash::FastMap;
use crate::pass::{Claim, Pass};
use crate::place::{KindFit, Prepared};
use crate::reserve::{add, enough};
use crate::{AllocationKey, RequestId};

/// Combinations of victims tried on one node before settling for a good one.
const COMBINATIONS: u32 = 2_000;
/// Nodes where room could be made by several evictions that are compared, at most.
const NODES: usize = 128;
/// Workloads that are tried as the only victim, at most.
const SINGLES: usize = 1_024;

/// Where room is being made, and who else has to go for it.
#[derive(Debug)]
pub(crate) struct Making {
    /// Node, and the request's claim on what is free there already.
    pub(crate) nodes: Vec<(u32, Claim)>,
    /// Workloads not yet being evicted; empty if the evictions under way do.
    /// By number in the fleet, in order of name.
    pub(crate) victims: Vec<u32>,
}

/// A workload that may be evicted, as one node sees it.
#[derive(Clone, Copy)]
struct Loser<'a> {
    request: &'a RequestId,
    workload: u32,
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
) -> Option<Making> {
    let needed = prepared.ask.nodes as usize;
    let sites = best_sites(pass, prepared, own, may_evict)?;
    let mut victims: Vec<(i64, &'a RequestId, u32)> = sites
        .iter()
        .flat_map(|site| site.losers.iter().map(|l| (l.ran_ms, l.request, l.workload)))
        .collect();
    victims.sort_unstable_by(|a, b| b.cmp(a));
    victims.dedup();
    let keys = |victims: &[(i64, &RequestId, u32)]| {
        let members = victims
            .iter()
            .flat_map(|(.., number)| &pass.fleet.workloads[*number as usize])
            .map(|&at| pass.fleet.held[at as usize].allocation.key.clone());
        members.chain(own.into_iter().flatten().cloned()).collect()
    };
    // A victim that is a gang makes room on several nodes, so that another
    // may not be needed: the oldest is spared first.
    if needed > 1 {
        for victim in victims.clone() {
            let without: Vec<_> = victims.iter().copied().filter(|v| *v != victim).collect();
            if best_sites(pass, prepared, Some(&keys(&without)), false).is_some() {
                victims = without;
            }
        }
    }
    // Chosen as it will be once the evictions are under way.
    let all: BTreeSet<AllocationKey> = keys(&victims);
    let sites = best_sites(pass, prepared, Some(&all), false)?;
    let nodes = sites
        .iter()
        .map(|site| {
            let freed = freed(pass, site.node, Some(&all));
            (site.node, rest(pass, prepared, site, freed))
        })
        .collect();
    victims.sort_unstable_by_key(|(_, request, _)| *request);
    Some(Making {
        nodes,
        victims: victims.into_iter().map(|(.., number)| number).collect(),
    })
}

/// The cheapest nodes where room can be made, as many as are needed.
fn best_sites<'a>(
    pass: &Pass<'a>,
    prepared: &Prepared<'_>,
    own: Option<&BTreeSet<AllocationKey>>,
    may_evict: bool,
) -> Option<Vec<Site<'a>>> {
    let needed = prepared.ask.nodes as usize;
    let mut sites: Vec<Site<'a>> = Vec::new();
    if needed == 1 && own.is_none() && may_evict {
        sites.extend(single(pass, prepared));
    }
    if sites.is_empty() {
        let mut most = usize::MAX;
        places(pass, prepared, own, |node, fit| {
            if let Some(site) = site(pass, prepared, own, node, fit, may_evict, most) {
                if needed == 1 {
                    most = most.min(site.losers.len());
                }
                sites.push(site);
            }
            // Nothing is better than the first node where evictions already do.
            let done = needed == 1 && sites.last().is_some_and(|s| s.own && s.losers.is_empty());
            done || sites.len() >= NODES.max(4 * needed)
        });
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
    Some(sites)
}

/// The age of a workload, if it may be evicted as a whole.
pub(crate) fn ran_ms(pass: &Pass<'_>, workload: u32) -> Option<i64> {
    let mut ran = None;
    for &at in &pass.fleet.workloads[workload as usize] {
        let allocation = &pass.fleet.held[at as usize].allocation;
        let protected = allocation.min_run_until_ms.is_some_and(|until| until > pass.now_ms);
        if !is_low(allocation) || protected || pass.leaving.contains(&at) {
            return None;
        }
        let age = pass.now_ms.saturating_sub(allocation.started_at_ms);
        ran = ran.max(Some(age.max(0)));
    }
    ran
}

/// The youngest workload that is enough alone.
fn single<'a>(pass: &Pass<'a>, prepared: &Prepared<'_>) -> Option<Site<'a>> {
    let mut fits: FastMap<u32, KindFit> = FastMap::default();
    let mut nodes: FastMap<u32, KindFit> = FastMap::default();
    match prepared.nodes() {
        Some(single) => nodes.extend(single),
        None => fits.extend(prepared.kinds().map(|fit| (fit.kind, *fit))),
    }
    for &at in pass.fleet.youngest.values().take(SINGLES) {
        let held = &pass.fleet.held[at as usize];
        let entry = pass.entry(held.entry);
        let Some(fit) = fits.get(&entry.kind).or_else(|| nodes.get(&held.entry)) else {
            continue;
        };
        let mut free = pass.free(held.entry);
        add(&mut free, entry, claim_of(held));
        let may_do = enough(prepared.ask, fit, free) || pass.fleet.workloads[held.workload as usize].len() > 1;
        if may_do && let Some(site) = site(pass, prepared, None, held.entry, *fit, true, 1) {
            return Some(site);
        }
    }
    None
}

fn claim_of(held: &Held) -> Claim {
    Claim {
        gpus: held.mask,
        cpu: held.allocation.cpu_millicores,
        memory: held.allocation.memory_bytes,
    }
}

/// Tells `each` the nodes where room might be made, each once and in an order
/// that depends on names only within a kind, until it has enough.
fn places(
    pass: &Pass<'_>,
    prepared: &Prepared<'_>,
    own: Option<&BTreeSet<AllocationKey>>,
    mut each: impl FnMut(u32, KindFit) -> bool,
) {
    if let Some(nodes) = prepared.nodes() {
        for (node, fit) in nodes {
            if each(node, fit) {
                return;
            }
        }
        return;
    }
    let ask = prepared.ask;
    let mut own_nodes: Vec<u32> = own
        .into_iter()
        .flatten()
        .filter_map(|key| pass.fleet.by_key.get(key))
        .map(|&at| pass.fleet.held[at as usize].entry)
        .filter(|&node| pass.entry(node).node.is_some())
        .collect();
    // Where evictions are under way for it, first.
    own_nodes.sort_by(|a, b| pass.entry(*a).name.cmp(&pass.entry(*b).name));
    own_nodes.dedup();
    for &node in &own_nodes {
        let kind = pass.entry(node).kind;
        if let Some(fit) = prepared.kinds().find(|fit| fit.kind == kind)
            && each(node, *fit)
        {
            return;
        }
    }
    for fit in prepared.kinds() {
        let kind = &pass.fleet.kinds[fit.kind as usize];
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
                if !own_nodes.contains(&node) && each(node, *fit) {
                    return;
                }
            }
        }
    }
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
    let resting = entry.back_off_until_ms.is_some_and(|until| until > pass.now_ms);
    if resting || pass.holds.contains_key(&node) || !prepared.fits_empty(pass, node, &fit) {
        return None;
    }
    let under_way = freed(pass, node, own);
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
        let claim = claim_of(held);
        if let Some(known) = losers.iter_mut().find(|l| l.workload == held.workload) {
            known.claim.gpus |= claim.gpus;
            known.claim.cpu += claim.cpu;
            known.claim.memory += claim.memory;
        } else if let Some(ran_ms) = ran_ms(pass, held.workload) {
            losers.push(Loser {
                request,
                workload: held.workload,
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
fn fewest<'a>(losers: &[Loser<'a>], most: usize, sufficient: impl Fn(&[Loser<'a>]) -> bool) -> Option<Vec<Loser<'a>>> {
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

/// What a node gets back from the evictions of `own`.
fn freed(pass: &Pass<'_>, node: u32, own: Option<&BTreeSet<AllocationKey>>) -> Claim {
    let mut claim = Claim::default();
    let Some(own) = own.filter(|own| !own.is_empty()) else {
        return claim;
    };
    for &at in &pass.entry(node).held {
        let held = &pass.fleet.held[at as usize];
        if own.contains(&held.allocation.key) {
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
