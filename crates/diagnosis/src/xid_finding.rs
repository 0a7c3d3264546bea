//! XID errors of one GPU as findings: one a first cause, with what followed it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::node::{Kernel, KernelEvent};
use crate::xid::{self, Fault};
use crate::xid_chain::{At, chains};
use crate::{Evidence, Finding, Remedy, Severity, Target};

/// An XID error with all that is known of it.
pub(crate) struct Seen<'a> {
    pub(crate) at_ms: i64,
    pub(crate) code: u32,
    pub(crate) gpu: Option<u32>,
    pub(crate) pci: Option<&'a str>,
    pub(crate) text: &'a str,
    pub(crate) workload: Option<&'a str>,
}

impl<'a> Seen<'a> {
    /// `None`: the event is of another kind.
    pub(crate) fn of(event: &'a KernelEvent) -> Option<Self> {
        match &event.event {
            Kernel::Xid {
                code,
                gpu,
                pci,
                workload,
                text,
            } => Some(Self {
                at_ms: event.at_ms,
                code: *code,
                gpu: *gpu,
                pci: pci.as_deref(),
                text,
                workload: workload.as_deref(),
            }),
            _ => None,
        }
    }
}

/// What an error still means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// A reboot or a reset has ended it.
    Cleared,
    /// The GPU has been working since, without further ones.
    WorkedSince,
    /// All that it says.
    Now,
}

/// An error and what followed it, as positions in what was seen.
type Incident = Vec<usize>;

/// Chains of one GPU's errors, which must be sorted by time. The same cause again is one finding.
pub(crate) fn findings(seen: &[Seen<'_>], target: &Target, standing: impl Fn(i64) -> Standing) -> Vec<Finding> {
    let at: Vec<At> = seen
        .iter()
        .map(|s| At {
            at_ms: s.at_ms,
            code: s.code,
        })
        .collect();
    // The driver's own all-clear counts as a reset.
    let all_clear = seen
        .iter()
        .filter(|s| s.code == 154 && xid::is_all_clear(s.text))
        .map(|s| s.at_ms)
        .max();
    let mut causes: BTreeMap<u32, Vec<Incident>> = BTreeMap::new();
    for chain in chains(&at) {
        let all = std::iter::once(chain.first).chain(chain.followers).collect();
        causes.entry(at[chain.first].code).or_default().push(all);
    }
    let standing = |i: &Incident| {
        let last = i.iter().map(|i| seen[*i].at_ms).max().unwrap_or(i64::MIN);
        if all_clear.is_some_and(|clear| clear >= last) {
            Standing::Cleared
        } else {
            standing(last)
        }
    };
    let told = causes.into_iter().filter_map(|(code, incidents)| {
        // What is over says nothing beside what isn't.
        let now = incidents.iter().map(&standing).max()?;
        let count = incidents.len();
        let left: Vec<Incident> = incidents.into_iter().filter(|i| standing(i) == now).collect();
        Some(finding(code, &left, count, seen, target.clone(), now))
    });
    told.collect()
}

fn finding(
    code: u32,
    incidents: &[Incident],
    count: usize,
    seen: &[Seen<'_>],
    target: Target,
    standing: Standing,
) -> Finding {
    let cause = xid::lookup(code);
    let members: BTreeSet<u32> = incidents.iter().flatten().map(|i| seen[*i].code).collect();
    let words = incidents
        .iter()
        .flatten()
        .filter(|i| seen[**i].code == 154)
        .map(|i| seen[*i].text);
    let asked = words.filter_map(xid::recovery_action).max();
    // What goes furthest of all that the chain calls for, the driver's own word among it.
    let remedy = members
        .iter()
        .map(|c| xid::lookup(*c).remedy)
        .chain(asked)
        .max()
        .unwrap_or(cause.remedy);
    let told = members.iter().map(|c| xid::lookup(*c).severity);
    // A GPU that has to be reset takes no work until then.
    let worst = told
        .chain((asked >= Some(Remedy::ResetGpu)).then_some(Severity::Critical))
        .max()
        .unwrap_or(cause.severity);
    let severity = match standing {
        // A part to be replaced stays one.
        _ if remedy == Remedy::Replace => worst,
        Standing::Now => worst,
        Standing::WorkedSince if worst == Severity::Critical => Severity::Warning,
        Standing::WorkedSince | Standing::Cleared => Severity::Info,
    };
    Finding {
        id: format!("gpu-xid-{code}").into(),
        severity,
        target,
        title: Cow::Owned(format!("XID {code}: {}", cause.meaning)),
        evidence: evidence(code, incidents, count, seen, standing),
        remedy,
        advice: advice(cause.fault, remedy).into(),
        commands: Vec::new(),
        confidence: match cause.fault {
            Fault::Unknown => 0.3,
            Fault::Note => 0.5,
            _ => 0.9,
        },
    }
}

/// The last incident, in full.
fn evidence(code: u32, incidents: &[Incident], count: usize, seen: &[Seen<'_>], standing: Standing) -> Vec<Evidence> {
    let xid_at = |code: u32, at_ms: i64, text: String| Evidence {
        value: Some(f64::from(code)),
        ..Evidence::event("gpu.xid", at_ms, text)
    };
    let last = incidents.last().map(Vec::as_slice).unwrap_or_default();
    let mut all = Vec::new();
    if let Some(first) = last.first() {
        let cause = xid::lookup(code);
        let times = if count > 1 {
            format!(" ({count} times in 24 h)")
        } else {
            String::new()
        };
        let text = format!("XID {code} ({}): {}{times}", cause.mnemonic, cause.meaning);
        all.push(xid_at(code, seen[*first].at_ms, text).by("kernel log; first cause by table and time"));
    }
    let mut followers: BTreeMap<u32, (i64, u32)> = BTreeMap::new();
    for i in last.iter().skip(1).filter(|i| seen[**i].code != code) {
        followers.entry(seen[*i].code).or_insert((seen[*i].at_ms, 0)).1 += 1;
    }
    for (follower, (at, times)) in followers {
        let x = xid::lookup(follower);
        let times = if times > 1 {
            format!(", {times} times")
        } else {
            String::new()
        };
        all.push(xid_at(
            follower,
            at,
            format!("followed by XID {follower} ({}): {}{times}", x.mnemonic, x.meaning),
        ));
    }
    let end = last.last().map_or(0, |i| seen[*i].at_ms);
    match standing {
        Standing::Now => {}
        Standing::WorkedSince => all.push(Evidence::event(
            "gpu.utilization",
            end,
            "it has been at work since, without further errors",
        )),
        Standing::Cleared => all.push(Evidence::event("gpu.reset", end, "before the last reboot or reset")),
    }
    all
}

/// What to do, in words.
fn advice(fault: Fault, remedy: Remedy) -> &'static str {
    match (fault, remedy) {
        (_, Remedy::Replace) => "Drain the node and have the GPU replaced.",
        (_, Remedy::RebootNode) => {
            "Drain the node and reboot it; if it comes again, check seating and power, then replace the GPU."
        }
        (_, Remedy::ResetGpu) => {
            "Drain the node and reset the GPU (nvidia-smi --gpu-reset -i N), then undrain it; if it comes again, have it replaced."
        }
        (_, Remedy::CheckCabling) => {
            "Check the NVLink bridge or cable and the GPU at its other end; reset both GPUs when they are free."
        }
        (_, Remedy::CheckPower) => "Check the GPU's power cables and the power supplies.",
        (_, Remedy::UpdateDriver) => "Look for a newer driver if it comes again.",
        (Fault::Program, _) => "The program's own fault, as a rule: read its log, run it under compute-sanitizer.",
        (_, Remedy::RestartWorkload) => "Start the workload again.",
        (Fault::Unknown, _) => "Look the number up in NVIDIA's XID catalogue.",
        _ => "Nothing has to be done unless it grows.",
    }
}
