//! Room kept for a request that can't start yet: which nodes, and from when.
//!
//! Choosing depends on nothing that a job started ahead of the head may
//! change, so that planning again chooses the same nodes and the same time.

use crate::filter::Ask;
use crate::fleet::{Entry, Free};
use crate::pass::{Claim, Hold, Pass};
use crate::place::{KindFit, Prepared};

/// Nodes and the latest start that known ends allow.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// In order of name.
    pub(crate) nodes: Vec<(u32, KindFit)>,
    /// `None`: something needed has no known end.
    pub(crate) start_ms: Option<i64>,
}

/// Whether enough ready nodes would do if they were empty.
pub(crate) fn ever_fits(pass: &Pass<'_>, prepared: &Prepared<'_>) -> bool {
    let fits = |(node, fit): &(u32, KindFit)| prepared.fits_empty(pass, *node, fit);
    let needed = prepared.ask.nodes as usize;
    let nodes = prepared.each(pass.fleet).filter(fits);
    nodes.take(needed).count() == needed
}

/// Where a blocked request is to start, and when. `None` if today's fleet
/// could not run it even if empty.
pub(crate) fn room(pass: &Pass<'_>, prepared: &Prepared<'_>) -> Option<Room> {
    let ask = prepared.ask;
    let needed = ask.nodes as usize;
    let mut known: Vec<(i64, u32, KindFit)> = Vec::new();
    // No node later than this can matter.
    let mut horizon = i64::MAX;
    for (node, fit) in prepared.each(pass.fleet) {
        if pass.holds.contains_key(&node) {
            continue;
        }
        if let Some(at) = earliest(pass, ask, node, &fit, horizon)
            && prepared.fits_empty(pass, node, &fit)
        {
            known.push((at, node, fit));
            if needed == 1 {
                horizon = at;
            }
        }
    }
    let by_name = |a: (u32, KindFit), b: (u32, KindFit)| {
        let name = |node: u32| &pass.entry(node).name;
        (a.1.unwelcome, name(a.0)).cmp(&(b.1.unwelcome, name(b.0)))
    };
    let mut nodes: Vec<(u32, KindFit)>;
    let start_ms;
    if known.len() >= needed {
        known.select_nth_unstable_by_key(needed - 1, |(at, ..)| *at);
        let start = known[needed - 1].0;
        let in_time = known.into_iter().filter(|(at, ..)| *at <= start);
        nodes = in_time.map(|(_, node, fit)| (node, fit)).collect();
        nodes.select_nth_unstable_by(needed - 1, |a, b| by_name(*a, *b));
        start_ms = Some(start);
    } else {
        let mut ranked: Vec<((u32, u64, u64), u32, KindFit)> = prepared
            .each(pass.fleet)
            .filter(|(node, fit)| !pass.holds.contains_key(node) && prepared.fits_empty(pass, *node, fit))
            .map(|(node, fit)| (missing(pass, ask, node, &fit), node, fit))
            .collect();
        if ranked.len() < needed {
            return None;
        }
        ranked.select_nth_unstable_by(needed - 1, |a, b| {
            a.0.cmp(&b.0).then_with(|| by_name((a.1, a.2), (b.1, b.2)))
        });
        nodes = ranked.into_iter().map(|(_, node, fit)| (node, fit)).collect();
        start_ms = None;
    }
    nodes.truncate(needed);
    nodes.sort_by(|a, b| pass.entry(a.0).name.cmp(&pass.entry(b.0).name));
    Some(Room { nodes, start_ms })
}

/// Keeps the room: what later requests of this pass may take there is limited.
pub(crate) fn keep(pass: &mut Pass<'_>, ask: &Ask, room: &Room) {
    for (node, fit) in &room.nodes {
        let hold = Hold {
            suitable: fit.suitable,
            gpus: ask.gpus,
            cpu: ask.cpu,
            memory: ask.memory,
            start_ms: room.start_ms,
            then: free_by(pass, *node, room.start_ms.unwrap_or(i64::MAX)),
        };
        pass.holds.insert(*node, hold);
    }
}

/// When a node has room, going by known ends; `None` if never, or not before
/// `horizon` is over.
fn earliest(pass: &Pass<'_>, ask: &Ask, node: u32, fit: &KindFit, horizon: i64) -> Option<i64> {
    let entry = pass.entry(node);
    if !entry.ready {
        return None;
    }
    let from = entry.back_off_until_ms.unwrap_or(i64::MIN).max(pass.now_ms);
    let mut free = pass.free(node);
    if enough(ask, fit, free) {
        return (from <= horizon).then_some(from);
    }
    // Most nodes are told apart by their soonest end alone.
    let too_late = entry.ends.first().is_none_or(|end| end.end_ms > horizon);
    if too_late && !pass.started.contains_key(&node) {
        return None;
    }
    let mut at = None;
    ends(pass, node, |end_ms, claim| {
        let end_ms = end_ms.max(from);
        if end_ms > horizon {
            return false;
        }
        add(&mut free, entry, claim);
        if enough(ask, fit, free) {
            at = Some(end_ms);
        }
        at.is_none()
    });
    at
}

/// What a node has free at a time, if nothing more is placed there.
pub(crate) fn free_by(pass: &Pass<'_>, node: u32, time_ms: i64) -> Free {
    let mut free = pass.free(node);
    ends(pass, node, |end_ms, claim| {
        if end_ms <= time_ms.max(pass.now_ms) {
            add(&mut free, pass.entry(node), claim);
        }
        true
    });
    free
}

/// GPUs, memory and CPU that a node lacks once all that has a known end has ended.
fn missing(pass: &Pass<'_>, ask: &Ask, node: u32, fit: &KindFit) -> (u32, u64, u64) {
    let free = free_by(pass, node, i64::MAX);
    (
        ask.gpus.saturating_sub((free.gpus & fit.suitable).count_ones()),
        ask.memory.saturating_sub(free.memory),
        ask.cpu.saturating_sub(free.cpu),
    )
}

pub(crate) fn enough(ask: &Ask, fit: &KindFit, free: Free) -> bool {
    (free.gpus & fit.suitable).count_ones() >= ask.gpus && free.cpu >= ask.cpu && free.memory >= ask.memory
}

pub(crate) fn add(free: &mut Free, entry: &Entry, claim: Claim) {
    free.gpus |= claim.gpus & entry.usable;
    free.cpu = free.cpu.saturating_add(claim.cpu).min(entry.cpu);
    free.memory = free.memory.saturating_add(claim.memory).min(entry.memory);
}

/// Tells `each` what ends on a node, soonest first, until it has enough.
fn ends(pass: &Pass<'_>, node: u32, mut each: impl FnMut(i64, Claim) -> bool) {
    let entry = pass.entry(node);
    let held = entry
        .ends
        .iter()
        .filter(|end| !pass.leaving.contains(&end.at))
        .map(|end| (end.end_ms, end.claim));
    let Some(started) = pass.started.get(&node) else {
        for (end, claim) in held {
            if !each(end, claim) {
                return;
            }
        }
        return;
    };
    let started = started
        .iter()
        .filter_map(|started| Some((started.end_ms?, started.claim)));
    let mut all: Vec<(i64, Claim)> = held.chain(started).collect();
    all.sort_by_key(|(end, _)| *end);
    for (end, claim) in all {
        if !each(end, claim) {
            return;
        }
    }
}
