//! Why a request waits: every blocker with its node count, what would free
//! room, and the smallest change that would place it; by the code that places.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::filter::{Ask, Depth, Fail, Sight, kind_fails, node_fails};
use crate::fleet::Entry;
use crate::pass::Pass;
use crate::place::{KindFit, Prepared};
use crate::plan::join;
use crate::remedy::{self, Remedy};
use crate::reserve::{Room, add, enough, free_by, keep, room};
use crate::{AllocationKey, Engine, Fleet, NodeName, NodeState, Plan, Queue, Request, RequestId, Usage};

/// What else an explanation may draw on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// `None` leaves out the place in the queue.
    pub queue: Option<&'a Queue>,
    /// `None` counts only what owners hold now.
    pub usage: Option<&'a Usage>,
    /// The latest plan, whose reservations count as blockers (that needs the
    /// queue too). `None` leaves them out.
    pub plan: Option<&'a Plan>,
}

/// Why a request waits, or that it needn't.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Of whom.
    pub request: RequestId,
    /// When it was made, milliseconds since the epoch.
    pub now_ms: i64,
    /// Nodes of the fleet.
    pub nodes: usize,
    /// Nodes that fit now.
    pub fitting: usize,
    /// Nodes that it needs.
    pub needed: usize,
    /// Why the others do not, greatest count first. The counts in `nodes`
    /// add up to the nodes that do not fit.
    pub blockers: Vec<BlockerCount>,
    /// `None` without a queue.
    pub queue: Option<QueuePlace>,
    /// Until when it backs off between attempts. `None`: it does not.
    pub back_off_until_ms: Option<i64>,
    /// Workloads that are being evicted for it.
    pub evicting: Vec<RequestId>,
    /// Held sets whose end would make room, soonest first; empty if it fits
    /// now, or if no end would.
    pub freed_by: Vec<Freeing>,
    /// When that is, at the latest, going by timeouts and if nobody ahead
    /// takes the room. `None` means that it can't be told.
    pub start_ms: Option<i64>,
    /// Changes each of which would place it now, smallest first.
    pub remedies: Vec<Remedy>,
    /// Whether today's nodes could run it if they were all empty and ready.
    pub ever_fits: bool,
}

/// A reason and how many nodes it keeps away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockerCount {
    /// The reason.
    pub blocker: Blocker,
    /// Nodes for which it is the most fundamental reason.
    pub nodes: usize,
    /// Nodes for which it is any reason.
    pub total: usize,
}

/// Why a node does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blocker {
    /// Another node was asked for by name.
    NotNamed {
        /// The one asked for.
        node: NodeName,
    },
    /// It takes no new work.
    State(NodeState),
    /// It does not offer the engine.
    Engine(Engine),
    /// It lacks a label.
    Label {
        /// Label key.
        key: String,
        /// Label value.
        value: String,
    },
    /// It has a taint that is not tolerated.
    Taint(String),
    /// It has no GPUs at all.
    NoGpus,
    /// It has no GPU of the model.
    Model(String),
    /// It has too few GPUs (of the model), even if all were free.
    GpuCount {
        /// Asked for.
        gpus: u32,
    },
    /// Too few of its GPUs have the memory.
    GpuMemory {
        /// Asked for.
        bytes: u64,
    },
    /// It has too little CPU, even if all were free.
    Cpu {
        /// Asked for.
        millicores: u64,
    },
    /// It has too little memory, even if all were free.
    Memory {
        /// Asked for.
        bytes: u64,
    },
    /// The request may not run there again.
    Excluded,
    /// Work keeps failing there.
    BackOff,
    /// Too few of its GPUs are usable: lent, held by others or broken.
    Unusable {
        /// Asked for.
        gpus: u32,
    },
    /// Too few of its GPUs are free.
    FreeGpus {
        /// Asked for.
        gpus: u32,
    },
    /// Too little of its CPU is free.
    FreeCpu {
        /// Asked for.
        millicores: u64,
    },
    /// Too little of its memory is free.
    FreeMemory {
        /// Asked for.
        bytes: u64,
    },
    /// It would fit, but what is free is kept for a request ahead.
    KeptFor(RequestId),
}

impl Blocker {
    fn of(fail: Fail<'_>, ask: &Ask) -> Self {
        match fail {
            Fail::NotNamed => Self::NotNamed {
                node: ask.filter.node.clone().unwrap_or_else(|| NodeName::from("")),
            },
            Fail::State(state) => Self::State(state),
            Fail::Engine => Self::Engine(ask.filter.engine.unwrap_or(Engine::Native)),
            Fail::Label(key, value) => Self::Label {
                key: key.to_owned(),
                value: value.to_owned(),
            },
            Fail::Taint(taint) => Self::Taint(taint.to_string()),
            Fail::NoGpus => Self::NoGpus,
            Fail::Model => Self::Model(ask.filter.gpu_model.clone().unwrap_or_default()),
            Fail::GpuCount => Self::GpuCount { gpus: ask.gpus },
            Fail::GpuMemory => Self::GpuMemory {
                bytes: ask.filter.gpu_memory_bytes,
            },
            Fail::Cpu => Self::Cpu { millicores: ask.cpu },
            Fail::Memory => Self::Memory { bytes: ask.memory },
            Fail::Excluded => Self::Excluded,
            Fail::BackOff => Self::BackOff,
            Fail::Unusable => Self::Unusable { gpus: ask.gpus },
            Fail::FreeGpus => Self::FreeGpus { gpus: ask.gpus },
            Fail::FreeCpu => Self::FreeCpu { millicores: ask.cpu },
            Fail::FreeMemory => Self::FreeMemory { bytes: ask.memory },
        }
    }

    /// The reason as said of `nodes` nodes: "8 have fewer than 4 free GPUs".
    #[must_use]
    pub fn describe(&self, nodes: usize) -> String {
        let one = nodes == 1;
        let (are, have) = if one { ("is", "has") } else { ("are", "have") };
        let them = if one { "does" } else { "do" };
        let what = match self {
            Self::NotNamed { node } => format!("{are} not {node}"),
            Self::State(state) => format!("{are} {state}"),
            Self::Engine(engine) => format!("{them} not offer {engine}"),
            Self::Label { key, value } => format!("{have} no label {key}={value}"),
            Self::Taint(taint) => format!("{have} the taint {taint}"),
            Self::NoGpus => format!("{have} no GPUs"),
            Self::Model(model) => format!("{are} not {model}"),
            Self::GpuCount { gpus } => format!("{have} fewer than {}", count(*gpus, "GPU")),
            Self::GpuMemory { bytes } => {
                format!("{have} too few GPUs with {}", size(*bytes))
            }
            Self::Cpu { millicores } => format!("{have} less than {}", cores(*millicores)),
            Self::Memory { bytes } => format!("{have} less than {} memory", size(*bytes)),
            Self::Excluded => format!("{are} excluded for this workload"),
            Self::BackOff => format!("{are} backing off after failures"),
            Self::Unusable { gpus } => {
                format!("{have} fewer than {}", count(*gpus, "usable GPU"))
            }
            Self::FreeGpus { gpus } => {
                format!("{have} fewer than {}", count(*gpus, "free GPU"))
            }
            Self::FreeCpu { millicores } => {
                format!("{have} less than {} free", cores(*millicores))
            }
            Self::FreeMemory { bytes } => {
                format!("{have} less than {} memory free", size(*bytes))
            }
            Self::KeptFor(request) => format!("{are} kept for {request}"),
        };
        format!("{nodes} {what}")
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueuePlace {
    /// From 1.
    pub position: usize,
    /// How many wait in all, this one included.
    pub of: usize,
}

/// Something whose end would help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freeing {
    /// What is held.
    pub allocation: AllocationKey,
    /// Where.
    pub node: NodeName,
    /// When it ends at the latest. `None` means unknown.
    pub end_ms: Option<i64>,
}

/// Explains a request, waiting or only thought of.
#[must_use]
pub fn explain(fleet: &Fleet, request: &Request, context: &Context<'_>, now_ms: i64) -> Explanation {
    let ask = Ask::of(request);
    let prepared = Prepared::new(fleet, &ask);
    let mut pass = Pass::new(fleet, now_ms);
    let kept = keep_reservations(&mut pass, request, context);
    let nodes = judge(&pass, &ask, request, &kept);
    let needed = ask.nodes as usize;
    let mut explanation = Explanation {
        request: request.id.clone(),
        now_ms,
        nodes: fleet.node_count(),
        fitting: nodes.iter().filter(|node| node.fits()).count(),
        needed,
        blockers: counted(&nodes, &ask, &kept),
        queue: context.queue.map(|queue| place_in(fleet, queue, request, context)),
        back_off_until_ms: request.not_before_ms.filter(|until| *until > now_ms),
        evicting: evicting(fleet, request),
        freed_by: Vec::new(),
        start_ms: None,
        remedies: Vec::new(),
        ever_fits: ever_fits(&pass, &prepared),
    };
    if explanation.fitting < needed {
        let bare = Pass::new(fleet, now_ms);
        if let Some(room) = room(&bare, &prepared) {
            explanation.start_ms = room.start_ms;
            explanation.freed_by = freed_by(&bare, &ask, &room);
        }
        explanation.remedies = remedy::find(&mut pass, request, &nodes);
    }
    explanation
}

/// One node and all reasons against it, most fundamental first.
pub(crate) struct Judged<'a> {
    pub(crate) node: u32,
    pub(crate) entry: &'a Entry,
    pub(crate) fails: Vec<Fail<'a>>,
    /// What is free is kept for this one of the kept.
    kept_for: Option<usize>,
}

impl Judged<'_> {
    pub(crate) fn fits(&self) -> bool {
        self.fails.is_empty() && self.kept_for.is_none()
    }

    /// Nothing but room kept for others is against it.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept_for.is_some()
    }
}

/// A reservation's request and nodes.
struct Kept {
    request: RequestId,
    nodes: Vec<u32>,
}

/// Puts the plan's reservations for others in place.
fn keep_reservations(pass: &mut Pass<'_>, request: &Request, context: &Context<'_>) -> Vec<Kept> {
    let mut kept = Vec::new();
    let (Some(plan), Some(queue)) = (context.plan, context.queue) else {
        return kept;
    };
    for reservation in plan.reservations.iter().filter(|r| r.request != request.id) {
        let Some(head) = queue.get(&reservation.request) else {
            continue;
        };
        let ask = Ask::of(head);
        let nodes = reservation.nodes.iter().filter_map(|name| {
            let node = *pass.fleet.by_name.get(name)?;
            let entry = pass.entry(node);
            entry.node.as_ref()?;
            Some((node, KindFit::of(pass.fleet, &ask.filter, entry.kind)?))
        });
        let room = Room {
            nodes: nodes.collect(),
            start_ms: reservation.start_ms,
        };
        keep(pass, &ask, &room);
        let own = pass.fleet.evicting.get(&reservation.request);
        for at in own.into_iter().flatten().filter_map(|key| pass.fleet.by_key.get(key)) {
            let held = &pass.fleet.held[*at as usize];
            if let Some(hold) = pass.holds.get_mut(&held.entry) {
                let claim = crate::pass::Claim {
                    gpus: held.mask,
                    cpu: held.allocation.cpu_millicores,
                    memory: held.allocation.memory_bytes,
                };
                add(&mut hold.then, &pass.fleet.entries[held.entry as usize], claim);
            }
        }
        kept.push(Kept {
            request: reservation.request.clone(),
            nodes: room.nodes.iter().map(|(node, _)| *node).collect(),
        });
    }
    kept
}

fn judge<'a>(pass: &Pass<'a>, ask: &'a Ask, request: &Request, kept: &[Kept]) -> Vec<Judged<'a>> {
    let fleet = pass.fleet;
    let end_ms = request.timeout_ms.map(|t| pass.now_ms.saturating_add(t));
    // What a kind fails, and which of its GPUs would do.
    let kinds: Vec<(Vec<Fail<'a>>, u64)> = fleet
        .kinds
        .iter()
        .map(|kind| {
            let mut fails = Vec::new();
            kind_fails(fleet, ask, kind, &mut |fail| fails.push(fail));
            (fails, ask.filter.suitable(kind))
        })
        .collect();
    fleet
        .known()
        .map(|(node, entry, _)| {
            let (of_kind, suitable) = &kinds[entry.kind as usize];
            let mut fails = of_kind.clone();
            let free = pass.free(node);
            let sight = Sight {
                suitable: *suitable,
                free,
                depth: Depth::Now,
                now_ms: pass.now_ms,
            };
            node_fails(fleet, ask, entry, &sight, &mut |fail| {
                fails.push(fail);
                false
            });
            fails.sort_unstable();
            fails.dedup();
            let allowed = |hold: &crate::pass::Hold| {
                let allowed = hold.allows(ask, free.gpus, end_ms);
                allowed.is_some_and(|mask| (free.gpus & suitable & mask).count_ones() >= ask.gpus)
            };
            let is_kept = fails.is_empty() && pass.holds.get(&node).is_some_and(|h| !allowed(h));
            let kept_for = is_kept
                .then(|| kept.iter().position(|kept| kept.nodes.contains(&node)))
                .flatten();
            Judged {
                node,
                entry,
                fails,
                kept_for,
            }
        })
        .collect()
}

fn counted(nodes: &[Judged<'_>], ask: &Ask, kept: &[Kept]) -> Vec<BlockerCount> {
    let mut counts: BTreeMap<Blocker, (usize, usize)> = BTreeMap::new();
    // Reasons are few and nodes many: count first, spell out afterwards.
    let mut by_fail: BTreeMap<Fail<'_>, (usize, usize)> = BTreeMap::new();
    for node in nodes {
        for (i, fail) in node.fails.iter().enumerate() {
            let count = by_fail.entry(*fail).or_default();
            count.0 += usize::from(i == 0);
            count.1 += 1;
        }
        if let Some(at) = node.kept_for {
            let blocker = Blocker::KeptFor(kept[at].request.clone());
            let count = counts.entry(blocker).or_default();
            count.0 += 1;
            count.1 += 1;
        }
    }
    for (fail, (first, any)) in by_fail {
        let count = counts.entry(Blocker::of(fail, ask)).or_default();
        count.0 += first;
        count.1 += any;
    }
    let mut blockers: Vec<BlockerCount> = counts
        .into_iter()
        .map(|(blocker, (nodes, total))| BlockerCount { blocker, nodes, total })
        .collect();
    blockers.sort_by_key(|b| (std::cmp::Reverse(b.nodes), std::cmp::Reverse(b.total)));
    blockers
}

fn evicting(fleet: &Fleet, request: &Request) -> Vec<RequestId> {
    let keys = fleet.evicting.get(&request.id).into_iter().flatten();
    let mut victims: Vec<RequestId> = keys.map(|key| key.request.clone()).collect();
    victims.dedup();
    victims
}

fn place_in(fleet: &Fleet, queue: &Queue, request: &Request, context: &Context<'_>) -> QueuePlace {
    let none = Usage::new();
    let usage = context.usage.unwrap_or(&none);
    let waits = queue.get(&request.id).is_some();
    QueuePlace {
        position: 1 + queue.ahead(request, |owner| usage.share(fleet, owner)),
        of: queue.len() + usize::from(!waits),
    }
}

fn ever_fits(pass: &Pass<'_>, prepared: &Prepared<'_>) -> bool {
    let needed = prepared.ask.nodes as usize;
    let fits = |(node, fit): &(u32, KindFit)| {
        let entry = pass.entry(*node);
        pass.node_fits(prepared.ask, entry, fit.suitable, entry.free(), Depth::Capacity)
    };
    let nodes = prepared.each(pass.fleet).filter(fits);
    nodes.take(needed).count() == needed
}

/// What has to end on the nodes of `room`, and no more.
fn freed_by(pass: &Pass<'_>, ask: &Ask, room: &Room) -> Vec<Freeing> {
    let mut freeing = Vec::new();
    for (node, fit) in &room.nodes {
        let entry = pass.entry(*node);
        let mut free = free_by(pass, *node, i64::MIN);
        free = if enough(ask, fit, free) { free } else { pass.free(*node) };
        let mut held: Vec<&crate::fleet::Held> = entry.held.iter().map(|&at| &pass.fleet.held[at as usize]).collect();
        held.sort_by(|a, b| {
            let key = |h: &crate::fleet::Held| {
                let end = h.allocation.expected_end_ms;
                (end.unwrap_or(i64::MAX), std::cmp::Reverse(h.mask.count_ones()))
            };
            key(a)
                .cmp(&key(b))
                .then_with(|| a.allocation.key.cmp(&b.allocation.key))
        });
        for held in held {
            if enough(ask, fit, free) {
                break;
            }
            let claim = crate::pass::Claim {
                gpus: held.mask,
                cpu: held.allocation.cpu_millicores,
                memory: held.allocation.memory_bytes,
            };
            let lacks_gpus = (free.gpus & fit.suitable).count_ones() < ask.gpus;
            let helps = lacks_gpus && claim.gpus & fit.suitable != 0
                || free.cpu < ask.cpu && claim.cpu > 0
                || free.memory < ask.memory && claim.memory > 0;
            if helps {
                add(&mut free, entry, claim);
                freeing.push(Freeing {
                    allocation: held.allocation.key.clone(),
                    node: entry.name.clone(),
                    end_ms: held.allocation.expected_end_ms,
                });
            }
        }
    }
    freeing.sort_by(|a, b| {
        let key = |f: &Freeing| f.end_ms.unwrap_or(i64::MAX);
        key(a).cmp(&key(b)).then_with(|| a.allocation.cmp(&b.allocation))
    });
    freeing
}

impl fmt::Display for Explanation {
    /// The first line says which nodes fit and why others do not; the rest
    /// follows, a line each, where there is something to say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = if self.nodes == 1 { "node" } else { "nodes" };
        write!(f, "{} of {} {nodes} fit", self.fitting, self.nodes)?;
        if self.needed > 1 {
            write!(f, ", {} needed", self.needed)?;
        }
        let first: Vec<String> = self
            .blockers
            .iter()
            .filter(|b| b.nodes > 0)
            .map(|b| b.blocker.describe(b.nodes))
            .collect();
        if !first.is_empty() {
            write!(f, ": {}", join(&first))?;
        }
        if let Some(place) = self.queue {
            write!(f, "\nplace in the queue: {} of {}", place.position, place.of)?;
        }
        if let Some(until) = self.back_off_until_ms {
            write!(f, "\nnot tried again for {}", duration(until - self.now_ms))?;
        }
        if !self.evicting.is_empty() {
            write!(f, "\nroom is being made: {} evicted", join(&self.evicting))?;
        }
        if !self.ever_fits {
            write!(f, "\ntoday's fleet can never run it, even if empty")?;
        }
        if !self.freed_by.is_empty() {
            let mut who: Vec<&RequestId> = self.freed_by.iter().map(|f| &f.allocation.request).collect();
            who.dedup();
            write!(f, "\nroom when {} ", join(&who))?;
            f.write_str(if who.len() == 1 { "ends" } else { "end" })?;
            match self.start_ms {
                Some(at) => write!(f, ", in {} at the latest", duration(at - self.now_ms))?,
                None => write!(f, "; no end is known")?,
            }
        }
        for remedy in &self.remedies {
            write!(f, "\nwould start now: {remedy}")?;
        }
        Ok(())
    }
}

pub(crate) fn count(n: u32, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes in the largest binary unit that divides them.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let exact = units
        .iter()
        .find(|(shift, _)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift));
    match exact {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

pub(crate) fn cores(millicores: u64) -> String {
    if millicores == 1000 {
        "1 core".to_owned()
    } else if millicores.is_multiple_of(1000) {
        format!("{} cores", millicores / 1000)
    } else {
        format!("{millicores}m CPU")
    }
}

fn duration(ms: i64) -> String {
    let seconds = ms.max(0).div_euclid(1000) + i64::from(ms > 0 && ms % 1000 != 0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        _ => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}
