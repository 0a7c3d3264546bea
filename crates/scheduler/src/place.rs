//! Where a request goes: the best node, or the best nodes for a gang.
//!
//! Nodes cost points; the cheapest wins, and among equals the first by name.
//! GPUs left over cost most, so that work packs tightly and whole nodes stay
//! free for big jobs.

use std::rc::Rc;

use crate::bits::{Bits, ones};
use crate::filter::{Ask, Depth, Filter, filter_fails};
use crate::fleet::{Fleet, index};
use crate::hash::FastMap;
use crate::pass::{Claim, Pass};
use crate::plan::{Deduction, Flaw};

/// A node that would rather have nobody.
const UNWELCOME: u32 = 1000;
/// One GPU left over on the node.
const LEFT_OVER: u32 = 10;
/// The worst link inside the set crosses sockets. A little more than one GPU
/// left over: a well linked set is worth a slightly looser fit.
const ACROSS_SOCKETS: u32 = 12;
/// Different GPU models inside the set.
const MIXED_MODELS: u32 = 30;
/// The image has to be pulled. Less than one GPU left over: pulling happens
/// once, fragments stay.
const NO_IMAGE: u32 = 6;
/// The node is hot.
const HOT: u32 = 15;
/// Nodes looked at whose costs can only differ by how the free GPUs are linked.
const SAMPLE: u32 = 8;

/// A request's ask, made ready for one pass.
pub(crate) struct Prepared<'a> {
    pub(crate) ask: &'a Ask,
    candidates: Rc<Candidates>,
    /// Nodes that no longer fit in this pass, by kind: what is free only shrinks.
    unfit: FastMap<u32, Bits>,
}

/// Where a filter lets one go, leaving amounts aside; the same for a whole pass.
pub(crate) enum Candidates {
    /// Whole kinds.
    Kinds(Vec<KindFit>),
    /// Few nodes, known by name or by a label that tells nodes apart.
    Nodes(Vec<(u32, KindFit)>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct KindFit {
    pub(crate) kind: u32,
    /// GPUs that may be used.
    pub(crate) suitable: u64,
    pub(crate) unwelcome: u32,
}

/// A node and the GPUs chosen on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) node: u32,
    pub(crate) gpus: u64,
    cost: u32,
    /// What the cost is made of, in the order of `Flaw::ALL`.
    points: [u32; Flaw::ALL.len()],
}

impl Choice {
    pub(crate) fn deductions(&self) -> Vec<Deduction> {
        let all = Flaw::ALL.iter().zip(self.points);
        all.filter(|(_, points)| *points > 0)
            .map(|(&why, points)| Deduction { why, points })
            .collect()
    }
}

/// Why nothing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// Not enough nodes have room.
    NoRoom,
    /// There is room, but it is kept for somebody else.
    Held,
}

/// What decides within equal asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taste<'a> {
    pub(crate) image: &'a str,
    /// When the work is gone at the latest, margin included.
    pub(crate) end_ms: Option<i64>,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(fleet: &Fleet, ask: &'a Ask) -> Self {
        Self::among(Rc::new(Candidates::of(fleet, &ask.filter)), ask)
    }

    /// With what its filter is known to let through.
    pub(crate) fn among(candidates: Rc<Candidates>, ask: &'a Ask) -> Self {
        Self {
            ask,
            candidates,
            unfit: FastMap::default(),
        }
    }

    /// The same, without what was found out about nodes in this pass.
    pub(crate) fn afresh(&self) -> Self {
        Self::among(Rc::clone(&self.candidates), self.ask)
    }

    /// Takes the best nodes for one request, all or none.
    pub(crate) fn place(&mut self, pass: &mut Pass<'_>, taste: Taste<'_>) -> Result<Vec<Choice>, NotFound> {
        if self.ask.nodes == 1 {
            let choice = self.find(pass, taste, &[], None)?;
            pass.take(choice.node, self.claim(choice.gpus));
            return Ok(vec![choice]);
        }
        if self.upper_bound(pass, None) < u64::from(self.ask.nodes) {
            return Err(NotFound::NoRoom);
        }
        // A gang of one model, if any model has room for all of it.
        let mut models = self.models(pass.fleet);
        if models.len() > 1 {
            let first = self.find(pass, taste, &[], None)?;
            let preferred = model(pass.fleet, first.node, first.gpus);
            models.sort_by_key(|model| *model != preferred);
            for model in models {
                if self.upper_bound(pass, Some(model)) >= u64::from(self.ask.nodes)
                    && let Ok(gang) = self.gang(pass, taste, Some(model))
                {
                    return Ok(gang);
                }
            }
        }
        self.gang(pass, taste, None)
    }

    pub(crate) fn claim(&self, gpus: u64) -> Claim {
        Claim {
            gpus,
            cpu: self.ask.cpu,
            memory: self.ask.memory,
        }
    }

    /// Whether a node would do if nothing were held there.
    pub(crate) fn fits_empty(&self, pass: &Pass<'_>, node: u32, fit: &KindFit) -> bool {
        let entry = pass.entry(node);
        pass.node_fits(self.ask, entry, fit.suitable, entry.free(), Depth::Empty)
    }

    fn gang(&mut self, pass: &mut Pass<'_>, taste: Taste<'_>, model: Option<&str>) -> Result<Vec<Choice>, NotFound> {
        let mut gang: Vec<Choice> = Vec::with_capacity(self.ask.nodes as usize);
        let mut chosen = Vec::with_capacity(self.ask.nodes as usize);
        while gang.len() < self.ask.nodes as usize {
            match self.find(pass, taste, &chosen, model) {
                Ok(choice) => {
                    pass.take(choice.node, self.claim(choice.gpus));
                    chosen.push(choice.node);
                    gang.push(choice);
                }
                Err(reason) => {
                    for choice in gang {
                        pass.give_back(choice.node, self.claim(choice.gpus));
                    }
                    return Err(reason);
                }
            }
        }
        gang.sort_by(|a, b| pass.entry(a.node).name.cmp(&pass.entry(b.node).name));
        Ok(gang)
    }

    /// Models among the suitable GPUs, sorted.
    fn models<'f>(&self, fleet: &'f Fleet) -> Vec<&'f str> {
        if self.ask.gpus == 0 || matches!(*self.candidates, Candidates::Nodes(_)) {
            return Vec::new();
        }
        let mut models: Vec<&str> = self.kinds().filter_map(|fit| fit.model(fleet)).collect();
        models.sort_unstable();
        models.dedup();
        models
    }

    /// No more nodes than this have enough free GPUs.
    fn upper_bound(&self, pass: &Pass<'_>, model: Option<&str>) -> u64 {
        if let Candidates::Nodes(nodes) = &*self.candidates {
            return nodes.len() as u64;
        }
        self.kinds()
            .filter(|fit| model.is_none() || fit.model(pass.fleet) == model)
            .flat_map(|fit| {
                let gpus = pass.fleet.kinds[fit.kind as usize].gpus();
                (self.ask.gpus..=gpus).map(move |count| pass.bucket(fit.kind, count).len())
            })
            .map(u64::from)
            .sum()
    }

    /// The kinds with enough suitable GPUs; those of the candidate nodes, if
    /// candidates are single nodes.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = &KindFit> {
        let (kinds, nodes) = match &*self.candidates {
            Candidates::Kinds(kinds) => (&kinds[..], &[][..]),
            Candidates::Nodes(nodes) => (&[][..], &nodes[..]),
        };
        kinds
            .iter()
            .chain(nodes.iter().map(|(_, fit)| fit))
            .filter(|fit| fit.has(self.ask.gpus))
    }

    /// Candidates that are single nodes; `None` if they are whole kinds.
    pub(crate) fn nodes(&self) -> Option<impl Iterator<Item = (u32, KindFit)>> {
        match &*self.candidates {
            Candidates::Kinds(_) => None,
            Candidates::Nodes(nodes) => Some(nodes.iter().copied().filter(|(_, fit)| fit.has(self.ask.gpus))),
        }
    }

    /// Every candidate node, ready or not, in no particular order.
    pub(crate) fn each<'s>(&'s self, fleet: &'s Fleet) -> impl Iterator<Item = (u32, KindFit)> + 's {
        let whole = match &*self.candidates {
            Candidates::Kinds(kinds) => &kinds[..],
            Candidates::Nodes(_) => &[],
        };
        let of_kinds = whole.iter().filter(|fit| fit.has(self.ask.gpus)).flat_map(|fit| {
            let slots = &fleet.kinds[fit.kind as usize].slots;
            slots.iter().map(|node| (*node, *fit))
        });
        self.nodes().into_iter().flatten().chain(of_kinds)
    }

    /// The best node outside `chosen`.
    fn find(
        &mut self,
        pass: &Pass<'_>,
        taste: Taste<'_>,
        chosen: &[u32],
        model: Option<&str>,
    ) -> Result<Choice, NotFound> {
        let mut search = Search {
            pass,
            ask: self.ask,
            taste,
            chosen,
            best: None,
            held: false,
        };
        match &*self.candidates {
            Candidates::Nodes(nodes) => {
                for (node, fit) in nodes.iter().filter(|(_, fit)| fit.has(self.ask.gpus)) {
                    search.consider(*node, fit);
                }
            }
            Candidates::Kinds(kinds) => search.kinds(kinds, &mut self.unfit, model),
        }
        let held = search.held;
        search.best.ok_or(if held { NotFound::Held } else { NotFound::NoRoom })
    }
}

impl Candidates {
    pub(crate) fn of(fleet: &Fleet, filter: &Filter) -> Self {
        if let Some(name) = &filter.node {
            let node = fleet.by_name.get(name).copied();
            return Self::nodes(fleet, filter, node.into_iter());
        }
        let narrowest = filter
            .selector
            .iter()
            .filter(|(key, _)| fleet.is_wide(key))
            .map(|(key, value)| fleet.labels.get(key).and_then(|values| values.get(value)))
            .min_by_key(|nodes| nodes.map_or(0, |nodes| nodes.len()));
        if let Some(nodes) = narrowest {
            let nodes = nodes.into_iter().flat_map(|nodes| nodes.values().copied());
            return Self::nodes(fleet, filter, nodes);
        }
        let kinds = (0..fleet.kinds.len()).map(index);
        let mut kinds: Vec<KindFit> = kinds.filter_map(|kind| KindFit::of(fleet, filter, kind)).collect();
        // Numbers of kinds tell how the fleet came about; names do not.
        kinds.sort_by_key(|fit| {
            let first = fleet.kinds[fit.kind as usize].slots.first();
            first.map(|&node| &fleet.entries[node as usize].name)
        });
        Self::Kinds(kinds)
    }

    fn nodes(fleet: &Fleet, filter: &Filter, nodes: impl Iterator<Item = u32>) -> Self {
        let fit = |node: u32| {
            let entry = &fleet.entries[node as usize];
            entry.node.as_ref()?;
            Some((node, KindFit::of(fleet, filter, entry.kind)?))
        };
        Self::Nodes(nodes.filter_map(fit).collect())
    }
}

impl KindFit {
    /// `None` if the kind fails or has no nodes.
    pub(crate) fn of(fleet: &Fleet, filter: &Filter, number: u32) -> Option<Self> {
        let kind = &fleet.kinds[number as usize];
        if kind.slots.is_empty() || filter_fails(fleet, filter, kind, &mut |_| true) {
            return None;
        }
        Some(Self {
            kind: number,
            suitable: filter.suitable(kind),
            unwelcome: filter.unwelcome(kind),
        })
    }

    fn has(&self, gpus: u32) -> bool {
        self.suitable.count_ones() >= gpus
    }

    fn model<'f>(&self, fleet: &'f Fleet) -> Option<&'f str> {
        let gpus = &fleet.kinds[self.kind as usize].key.gpus;
        let first = gpus.get(self.suitable.trailing_zeros() as usize)?;
        Some(&first.0)
    }
}

fn model(fleet: &Fleet, node: u32, gpus: u64) -> &str {
    let kind = fleet.entries[node as usize].kind;
    let gpu = fleet.kinds[kind as usize].key.gpus.get(gpus.trailing_zeros() as usize);
    gpu.map_or("", |gpu| &gpu.0)
}

/// One search for one node.
struct Search<'s> {
    pass: &'s Pass<'s>,
    ask: &'s Ask,
    taste: Taste<'s>,
    chosen: &'s [u32],
    best: Option<Choice>,
    held: bool,
}

/// What became of a node that was looked at.
enum Looked {
    /// It fits; no other node of equal standing can beat its links.
    Ideal,
    Fits,
    /// Taken already or kept for somebody; others may have it later.
    Passed,
    /// It does not fit, and will not in this pass.
    Unfit,
}

impl Search<'_> {
    fn worse(&self, cost: u32) -> bool {
        self.best.is_some_and(|best| cost > best.cost)
    }

    /// Kinds from the tightest fit to the loosest, until nothing can beat
    /// what was found.
    fn kinds(&mut self, kinds: &[KindFit], unfit: &mut FastMap<u32, Bits>, model: Option<&str>) {
        let fleet = self.pass.fleet;
        let largest = kinds.iter().map(|fit| fleet.kinds[fit.kind as usize].gpus()).max();
        let Some(most) = largest.and_then(|gpus| gpus.checked_sub(self.ask.gpus)) else {
            return;
        };
        for left_over in 0..=most {
            if self.worse(left_over * LEFT_OVER) {
                return;
            }
            for fit in kinds {
                let kind = &fleet.kinds[fit.kind as usize];
                let count = self.ask.gpus + left_over;
                let cost = left_over * LEFT_OVER + fit.unwelcome * UNWELCOME;
                if count > kind.gpus()
                    || !fit.has(self.ask.gpus)
                    || self.worse(cost)
                    || (model.is_some() && fit.model(fleet) != model)
                {
                    continue;
                }
                let bucket = self.pass.bucket(fit.kind, count);
                if bucket.is_empty() {
                    continue;
                }
                let image = kind.images.get(self.taste.image);
                let cpu = kind.cpu.with(self.ask.cpu);
                let memory = kind.memory.with(self.ask.memory);
                let roomy = |i: usize| {
                    cpu.map_or(u64::MAX, |nodes| nodes.word(i)) & memory.map_or(u64::MAX, |nodes| nodes.word(i))
                };
                for (extra, with_image, hot) in [
                    (0, true, false),
                    (NO_IMAGE, false, false),
                    (HOT, true, true),
                    (HOT + NO_IMAGE, false, true),
                ] {
                    if with_image && image.is_none() || hot && kind.hot.is_empty() {
                        continue;
                    }
                    if !self.worse(cost + extra) {
                        let group = |i: usize| {
                            let images = image.map_or(0, |image| image.word(i));
                            let images = if with_image { images } else { !images };
                            let hots = kind.hot.word(i);
                            bucket.word(i) & roomy(i) & images & if hot { hots } else { !hots }
                        };
                        self.group(fit, bucket.words(), group, unfit);
                    }
                }
            }
        }
    }

    /// Nodes of one kind that differ in nothing but their free GPUs' links.
    fn group(&mut self, fit: &KindFit, words: usize, members: impl Fn(usize) -> u64, unfit: &mut FastMap<u32, Bits>) {
        let kind = &self.pass.fleet.kinds[fit.kind as usize];
        let mut seen = 0;
        for i in 0..words {
            let mut word = members(i);
            if word != 0
                && let Some(unfit) = unfit.get(&fit.kind)
            {
                word &= !unfit.word(i);
            }
            for bit in ones(word) {
                let slot = index(i) * 64 + bit;
                match self.consider(kind.slots[slot as usize], fit) {
                    Looked::Ideal => return,
                    Looked::Fits => {
                        seen += 1;
                        if seen == SAMPLE {
                            return;
                        }
                    }
                    Looked::Passed => {}
                    Looked::Unfit => unfit.entry(fit.kind).or_default().set(slot, true),
                }
            }
        }
    }

    fn consider(&mut self, node: u32, fit: &KindFit) -> Looked {
        let pass = self.pass;
        let entry = pass.entry(node);
        let free = pass.free(node);
        if !pass.node_fits(self.ask, entry, fit.suitable, free, Depth::Now) {
            // A node chosen for this gang looks unfit, but only until the
            // gang is undone.
            return if self.chosen.contains(&node) {
                Looked::Passed
            } else {
                Looked::Unfit
            };
        }
        if self.chosen.contains(&node) {
            return Looked::Passed;
        }
        let mut usable = free.gpus & fit.suitable;
        if let Some(hold) = pass.holds.get(&node) {
            match hold.allows(self.ask, free.gpus, self.taste.end_ms) {
                Some(allowed) if (usable & allowed).count_ones() >= self.ask.gpus => {
                    usable &= allowed;
                }
                _ => {
                    self.held = true;
                    return Looked::Passed;
                }
            }
        }
        let kind = &pass.fleet.kinds[fit.kind as usize];
        let Some(set) = kind.topology.best(usable, self.ask.gpus) else {
            return Looked::Unfit;
        };
        let links = link_cost(set.worst);
        let has_image = kind
            .images
            .get(self.taste.image)
            .is_some_and(|nodes| nodes.contains(entry.slot));
        let hot = kind.hot.contains(entry.slot);
        let points = [
            (free.gpus.count_ones() - self.ask.gpus) * LEFT_OVER,
            links,
            if has_image { 0 } else { NO_IMAGE },
            if hot { HOT } else { 0 },
            fit.unwelcome * UNWELCOME,
        ];
        let cost = points.iter().sum();
        let better = self
            .best
            .is_none_or(|best| cost < best.cost || cost == best.cost && entry.name < pass.entry(best.node).name);
        if better {
            self.best = Some(Choice {
                node,
                gpus: set.mask,
                cost,
                points,
            });
        }
        if links == 0 { Looked::Ideal } else { Looked::Fits }
    }
}

fn link_cost(worst: u8) -> u32 {
    match worst {
        0..=4 => 0,
        5..=16 => ACROSS_SOCKETS / 4,
        17..=32 => ACROSS_SOCKETS / 2,
        33..=64 => ACROSS_SOCKETS,
        65.. => MIXED_MODELS,
    }
}
