//! The smallest change that would place a request now.
//!
//! Candidates come from what the nodes fail; each is tried by placing the
//! changed request, and only what places is told.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::explain::{Judged, cores, count, size};
use crate::filter::{Ask, Fail};
use crate::pass::Pass;
use crate::place::{Prepared, Taste};
use crate::plan::join;
use crate::preempt::make_room;
use crate::request::HOST_IMAGE;
use crate::{Engine, NodeName, NodeState, Priority, Request, RequestId, TaintEffect, Toleration, TolerationOperator};

/// Remedies told at most.
const TOLD: usize = 5;
/// Sets of reasons tried at most.
const TRIED: usize = 24;

/// Changes that together would place a request now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Remedy(pub Vec<Change>);

/// One change, of the request or of the fleet. In order of how much it gives up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Change {
    /// Ask for less memory.
    Memory {
        /// Bytes asked.
        from: u64,
        /// Bytes that would fit.
        to: u64,
    },
    /// Ask for less CPU.
    Cpu {
        /// Thousandths of a core asked.
        from: u64,
        /// Thousandths of a core that would fit.
        to: u64,
    },
    /// Be content with smaller GPUs.
    GpuMemory {
        /// Bytes asked.
        from: u64,
        /// Bytes that would fit.
        to: u64,
    },
    /// Ask for fewer GPUs a node.
    Gpus {
        /// Asked.
        from: u32,
        /// Would fit.
        to: u32,
    },
    /// Take any GPU model.
    AnyGpuModel {
        /// The filter to drop.
        model: String,
    },
    /// Drop a node label.
    AnyLabel {
        /// Label key.
        key: String,
        /// Label value.
        value: String,
    },
    /// Put up with a taint.
    Tolerate {
        /// Taint key.
        key: String,
        /// Taint value, perhaps empty.
        value: String,
    },
    /// Take any node.
    AnyNode {
        /// The one asked for.
        node: NodeName,
    },
    /// Take any engine.
    AnyEngine {
        /// The one asked for.
        engine: Engine,
    },
    /// Ask for fewer nodes.
    Nodes {
        /// Asked.
        from: u32,
        /// Would fit.
        to: u32,
    },
    /// Raise the priority to `high`, at others' expense.
    Preempt {
        /// Workloads that would be evicted.
        victims: Vec<RequestId>,
    },
    /// Let a node take new work again.
    Undrain {
        /// The node.
        node: NodeName,
    },
}

impl Change {
    /// The request with the change made. Unchanged for [`Change::Undrain`],
    /// which changes the fleet.
    #[must_use]
    pub fn apply(&self, request: &Request) -> Request {
        let mut changed = request.clone();
        match self {
            Self::Memory { to, .. } => changed.memory_bytes = *to,
            Self::Cpu { to, .. } => changed.cpu_millicores = *to,
            Self::GpuMemory { to, .. } => changed.gpu_memory_bytes = *to,
            Self::Gpus { to, .. } => changed.gpus = *to,
            Self::AnyGpuModel { .. } => changed.gpu_model = None,
            Self::AnyLabel { key, .. } => {
                changed.node_selector.remove(key);
            }
            Self::Tolerate { key, value } => changed.tolerations.push(Toleration {
                key: key.clone(),
                operator: TolerationOperator::Equal,
                value: value.clone(),
                effect: Some(TaintEffect::NoSchedule),
            }),
            Self::AnyNode { .. } => changed.node = None,
            Self::AnyEngine { .. } => changed.engine = None,
            Self::Nodes { to, .. } => changed.nodes = *to,
            Self::Preempt { .. } => changed.priority = Priority::High,
            Self::Undrain { .. } => {}
        }
        changed
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { from, to } => {
                write!(f, "memory {} instead of {}", size(*to), size(*from))
            }
            Self::Cpu { from, to } => {
                write!(f, "{} instead of {}", cores(*to), cores(*from))
            }
            Self::GpuMemory { to: 0, .. } => f.write_str("drop --gpu-memory"),
            Self::GpuMemory { from, to } => {
                write!(f, "GPU memory {} instead of {}", size(*to), size(*from))
            }
            Self::Gpus { from, to } => {
                write!(f, "ask for {} instead of {from}", count(*to, "GPU"))
            }
            Self::AnyGpuModel { model } => write!(f, "drop --gpu-type {model}"),
            Self::AnyLabel { key, value } => write!(f, "drop --label {key}={value}"),
            Self::Tolerate { key, value } if value.is_empty() => {
                write!(f, "tolerate taint {key}")
            }
            Self::Tolerate { key, value } => write!(f, "tolerate taint {key}={value}"),
            Self::AnyNode { node } => write!(f, "drop --node {node}"),
            Self::AnyEngine { engine } => write!(f, "take any engine instead of {engine}"),
            Self::Nodes { from, to } => {
                write!(f, "ask for {} instead of {from}", count(*to, "node"))
            }
            Self::Preempt { victims } => {
                write!(f, "--priority high would evict {}", join(victims))
            }
            Self::Undrain { node } => write!(f, "undrain node {node}"),
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes: Vec<String> = self.0.iter().map(Change::to_string).collect();
        f.write_str(&changes.join(" and "))
    }
}

/// What places the request, smallest first. Several changes together are
/// told only where no single one does.
pub(crate) fn find(pass: &mut Pass<'_>, request: &Request, nodes: &[Judged<'_>]) -> Vec<Remedy> {
    let needed = request.nodes.max(1) as usize;
    // Nodes by what would have to change for them.
    let mut groups: BTreeMap<Vec<Lever<'_>>, Vec<&Judged<'_>>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| !node.fits() && !node.is_kept()) {
        let levers: Option<Vec<Lever<'_>>> = node.fails.iter().map(|fail| Lever::of(*fail)).collect();
        if let Some(mut levers) = levers {
            levers.sort_unstable();
            levers.dedup();
            groups.entry(levers).or_default().push(node);
        }
    }
    let fitting = nodes.iter().filter(|node| node.fits()).count();
    let mut sets: Vec<Vec<Lever<'_>>> = groups.keys().cloned().collect();
    sets.sort_by_key(Vec::len);
    sets.truncate(TRIED);
    let mut remedies: Vec<Remedy> = Vec::new();
    for levers in &sets {
        if levers.len() > 1 && !remedies.is_empty() {
            break;
        }
        if let [Lever::Undrain] = levers.as_slice() {
            let drained = groups.get(levers).into_iter().flatten();
            if fitting + 1 >= needed
                && let Some(node) = drained.map(|node| &node.entry.name).min()
            {
                remedies.push(Remedy(vec![Change::Undrain { node: node.clone() }]));
            }
            continue;
        }
        // Nodes that would do with these changes, or with fewer.
        let within: Vec<&Judged<'_>> = groups
            .iter()
            .filter(|(set, _)| set.iter().all(|lever| levers.contains(lever)))
            .flat_map(|(_, nodes)| nodes.iter().copied())
            .collect();
        if let Some(changes) = changes(pass, request, levers, &within, needed, fitting) {
            let changed = changes.iter().fold(request.clone(), |r, c| c.apply(&r));
            if places(pass, &changed) {
                remedies.push(Remedy(changes));
            }
        }
    }
    if fitting > 0 && fitting < needed {
        let change = Change::Nodes {
            from: request.nodes,
            to: u32::try_from(fitting).unwrap_or(u32::MAX),
        };
        if places(pass, &change.apply(request)) {
            remedies.push(Remedy(vec![change]));
        }
    }
    if request.priority != Priority::High {
        let ask = Ask::of(request);
        let prepared = Prepared::new(pass.fleet, &ask);
        let own = pass.fleet.evicting.get(&request.id);
        if let Some(making) = make_room(pass, &prepared, own, true)
            && !making.victims.is_empty()
        {
            let named = |&victim: &u32| {
                let member = pass.fleet.workloads[victim as usize].first()?;
                let held = &pass.fleet.held[*member as usize];
                Some(held.allocation.key.request.clone())
            };
            let victims = making.victims.iter().filter_map(named).collect();
            remedies.push(Remedy(vec![Change::Preempt { victims }]));
        }
    }
    remedies.sort_by(|a, b| (a.0.len(), &a.0).cmp(&(b.0.len(), &b.0)));
    remedies.dedup();
    remedies.truncate(TOLD);
    remedies
}

/// What could be changed about a failure. Failures that only time or repair
/// can change have no lever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lever<'a> {
    Memory,
    Cpu,
    GpuMemory,
    Gpus,
    Model,
    Label(&'a str),
    Taint(&'a str, &'a str),
    Node,
    Engine,
    Undrain,
}

impl<'a> Lever<'a> {
    fn of(fail: Fail<'a>) -> Option<Self> {
        Some(match fail {
            Fail::Memory | Fail::FreeMemory => Self::Memory,
            Fail::Cpu | Fail::FreeCpu => Self::Cpu,
            Fail::GpuMemory => Self::GpuMemory,
            Fail::GpuCount | Fail::FreeGpus | Fail::Unusable => Self::Gpus,
            Fail::Model => Self::Model,
            Fail::Label(key, _) => Self::Label(key),
            Fail::Taint(taint) => Self::Taint(&taint.key, &taint.value),
            Fail::NotNamed => Self::Node,
            Fail::Engine => Self::Engine,
            Fail::State(NodeState::Draining | NodeState::Cordoned) => Self::Undrain,
            Fail::State(_) | Fail::NoGpus | Fail::Excluded | Fail::BackOff => return None,
        })
    }
}

/// Spells out how far each lever has to go so that enough of `within` would
/// do. `None` if it can't.
fn changes(
    pass: &Pass<'_>,
    request: &Request,
    levers: &[Lever<'_>],
    within: &[&Judged<'_>],
    needed: usize,
    fitting: usize,
) -> Option<Vec<Change>> {
    let short = needed.checked_sub(fitting)?;
    // The amount that `short` more nodes have, at least.
    let amount = |of: &dyn Fn(&Judged<'_>) -> u64| {
        let mut amounts: Vec<u64> = within.iter().map(|node| of(node)).collect();
        amounts.sort_unstable_by(|a, b| b.cmp(a));
        amounts.get(short.checked_sub(1)?).copied()
    };
    // What GPUs would do once the other levers are pulled.
    let mut loose = request.clone();
    for lever in levers {
        match lever {
            Lever::Model => loose.gpu_model = None,
            Lever::GpuMemory => loose.gpu_memory_bytes = 0,
            _ => {}
        }
    }
    let ask = Ask::of(&loose);
    let suitable = |node: &Judged<'_>| {
        ask.filter.suitable(&pass.fleet.kinds[node.entry.kind as usize]) & pass.free(node.node).gpus
    };
    let mut changes = Vec::with_capacity(levers.len());
    for lever in levers {
        changes.push(match *lever {
            Lever::Memory => Change::Memory {
                from: request.memory_bytes,
                to: rounded(amount(&|node| pass.free(node.node).memory)?).filter(|to| *to < request.memory_bytes)?,
            },
            Lever::Cpu => {
                let free = amount(&|node| pass.free(node.node).cpu)?;
                let whole = free / 1000 * 1000;
                let to = if whole > 0 { whole } else { free };
                if to == 0 || to >= request.cpu_millicores {
                    return None;
                }
                Change::Cpu {
                    from: request.cpu_millicores,
                    to,
                }
            }
            Lever::GpuMemory => {
                let gpus = request.gpus as usize;
                let memory = amount(&|node| {
                    let kind = &pass.fleet.kinds[node.entry.kind as usize];
                    let mut sizes: Vec<u64> = crate::bits::ones(suitable(node))
                        .map(|gpu| kind.key.gpus[gpu as usize].1.unwrap_or(0))
                        .collect();
                    sizes.sort_unstable_by(|a, b| b.cmp(a));
                    sizes.get(gpus.saturating_sub(1)).copied().unwrap_or(0)
                })?;
                Change::GpuMemory {
                    from: request.gpu_memory_bytes,
                    to: rounded(memory).unwrap_or(0),
                }
            }
            Lever::Gpus => {
                let free = amount(&|node| u64::from(suitable(node).count_ones()))?;
                let to = u32::try_from(free).ok()?;
                if to == 0 || to >= request.gpus {
                    return None;
                }
                Change::Gpus { from: request.gpus, to }
            }
            Lever::Model => Change::AnyGpuModel {
                model: request.gpu_model.clone()?,
            },
            Lever::Label(key) => Change::AnyLabel {
                key: key.to_owned(),
                value: request.node_selector.get(key)?.clone(),
            },
            Lever::Taint(key, value) => Change::Tolerate {
                key: key.to_owned(),
                value: value.to_owned(),
            },
            Lever::Node => Change::AnyNode {
                node: request.node.clone()?,
            },
            Lever::Engine if request.image == HOST_IMAGE => return None,
            Lever::Engine => Change::AnyEngine {
                engine: request.engine?,
            },
            Lever::Undrain => return None,
        });
    }
    Some(changes)
}

/// Down to a whole Gi, or Mi; `None` below that.
fn rounded(bytes: u64) -> Option<u64> {
    [30, 20]
        .iter()
        .map(|shift| bytes >> shift << shift)
        .find(|rounded| *rounded > 0)
}

fn places(pass: &mut Pass<'_>, request: &Request) -> bool {
    let ask = Ask::of(request);
    let mut prepared = Prepared::new(pass.fleet, &ask);
    let taste = Taste {
        image: &request.image,
        end_ms: request.timeout_ms.map(|t| pass.now_ms.saturating_add(t)),
    };
    match prepared.place(pass, taste) {
        Ok(gang) => {
            for choice in gang {
                pass.give_back(choice.node, prepared.claim(choice.gpus));
            }
            true
        }
        Err(_) => false,
    }
}
