//! XID errors: one finding a chain, named after its first cause.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::facts::{DAY_MS, Kernel, NodeFacts};
use crate::rule::{Rule, Section};
use crate::xid::{self, Fault};
use crate::xid_chain::{At, chains};
use crate::{Evidence, Finding, Remedy, Severity, Target, metric};

/// Different workloads whose own fault an error seems to be, from which the GPU is suspected instead.
const SUSPICIOUS_WORKLOADS: usize = 3;

pub(super) static RULES: &[Rule<NodeFacts>] = &[
    Rule {
        id: "gpu-lost",
        section: Section::Errors,
        title: "GPU doesn't answer on the bus",
        remedy: Remedy::RebootNode,
        advice: "Drain the node and reboot it, by power cycle if need be; check seating and power if it comes again.",
        needs: &[metric::GPU_UP],
        check: lost,
    },
    Rule {
        id: "gpu-xid",
        section: Section::Errors,
        title: "GPU error",
        remedy: Remedy::Watch,
        advice: "",
        needs: &["kernel log"],
        check: errors,
    },
    Rule {
        id: "gpu-suspect",
        section: Section::Errors,
        title: "programs of different workloads fail on this GPU",
        remedy: Remedy::ResetGpu,
        advice: "Each looks like the program's own fault, all together don't: drain the node, reset the GPU, test it.",
        needs: &["kernel log"],
        check: suspect,
    },
];

fn lost(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    // By the driver's word, or by the newest two samples: one may be a hiccup.
    let down = |g: u32| {
        let up = facts.series.of_gpu(metric::GPU_UP, g)?;
        Some(up.points.len() >= 2 && up.points.iter().rev().take(2).all(|p| p.1 == 0.0))
    };
    let said = |g: u32| facts.gpu(g).and_then(|g| g.lost);
    let is_lost = |g: u32| match (said(g), down(g)) {
        (None, None) => None,
        (a, b) => Some(a == Some(true) || b == Some(true)),
    };
    let known: Vec<(u32, bool)> = facts
        .gpu_indexes()
        .into_iter()
        .filter_map(|g| Some((g, is_lost(g)?)))
        .collect();
    if known.is_empty() {
        return None;
    }
    let finding = |gpu: u32| {
        let text = format!("the driver doesn't reach GPU {gpu} any more");
        let evidence = Evidence {
            value: Some(0.0),
            ..Evidence::event(metric::GPU_UP, facts.now_ms, text)
        };
        rule.finding(Severity::Critical, facts.gpu_target(gpu), 1.0, vec![evidence])
    };
    Some(known.into_iter().filter(|k| k.1).map(|k| finding(k.0)).collect())
}

/// An XID error with all that is known of it.
struct Seen<'a> {
    at_ms: i64,
    code: u32,
    text: &'a str,
    workload: Option<&'a str>,
}

/// By GPU; `None` holds those that can't be laid at any GPU's door.
fn by_gpu(facts: &NodeFacts) -> BTreeMap<Option<u32>, Vec<Seen<'_>>> {
    let mut all: BTreeMap<Option<u32>, Vec<Seen<'_>>> = BTreeMap::new();
    for e in &facts.kernel {
        if let Kernel::Xid {
            code,
            gpu,
            pci,
            workload,
            text,
        } = &e.event
        {
            let gpu = gpu.or_else(|| pci.as_deref().and_then(|p| facts.gpu_at(p)));
            all.entry(gpu).or_default().push(Seen {
                at_ms: e.at_ms,
                code: *code,
                text,
                workload: workload.as_deref(),
            });
        }
    }
    all
}

/// Chains of one GPU by first cause: the same cause again is one finding.
fn errors(facts: &NodeFacts, _: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let mut found = Vec::new();
    for (gpu, seen) in by_gpu(facts) {
        let target = gpu.map_or_else(|| facts.node_target(), |g| facts.gpu_target(g));
        let at: Vec<At> = seen
            .iter()
            .map(|s| At {
                at_ms: s.at_ms,
                code: s.code,
            })
            .collect();
        let mut causes: BTreeMap<u32, Vec<Vec<usize>>> = BTreeMap::new();
        for chain in chains(&at) {
            let all = std::iter::once(chain.first).chain(chain.followers).collect();
            causes.entry(at[chain.first].code).or_default().push(all);
        }
        for (code, incidents) in causes {
            let cleared = |i: &Vec<usize>| facts.cleared_since(gpu, seen[i[i.len() - 1]].at_ms);
            found.push(finding(
                code,
                &incidents,
                &seen,
                target.clone(),
                incidents.iter().all(cleared),
            ));
        }
    }
    Some(found)
}

fn finding(code: u32, incidents: &[Vec<usize>], seen: &[Seen<'_>], target: Target, cleared: bool) -> Finding {
    let cause = xid::lookup(code);
    let members: BTreeSet<u32> = incidents.iter().flatten().map(|i| seen[*i].code).collect();
    let asked = incidents
        .iter()
        .flatten()
        .filter(|i| seen[**i].code == 154)
        .filter_map(|i| xid::recovery_action(seen[*i].text))
        .max();
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
    // A reboot or reset ends what it can; a part to be replaced stays one.
    let severity = if cleared && remedy != Remedy::Replace {
        Severity::Info
    } else {
        worst
    };
    let mut evidence = Vec::new();
    let last = incidents.last().map(Vec::as_slice).unwrap_or_default();
    if let Some(first) = last.first() {
        let times = match incidents.len() {
            1 => String::new(),
            n => format!(" ({n} times in 24 h)"),
        };
        let text = format!("XID {code} ({}): {}{times}", cause.mnemonic, cause.meaning);
        evidence.push(Evidence {
            value: Some(f64::from(code)),
            ..Evidence::event("gpu.xid", seen[*first].at_ms, text)
                .over(DAY_MS)
                .by("kernel log; first cause by table and time")
        });
    }
    let mut followers: BTreeMap<u32, (i64, u32)> = BTreeMap::new();
    for i in last.iter().skip(1).filter(|i| seen[**i].code != code) {
        followers.entry(seen[*i].code).or_insert((seen[*i].at_ms, 0)).1 += 1;
    }
    for (follower, (at, count)) in followers {
        let x = xid::lookup(follower);
        let times = if count > 1 {
            format!(", {count} times")
        } else {
            String::new()
        };
        let text = format!("followed by XID {follower} ({}): {}{times}", x.mnemonic, x.meaning);
        evidence.push(Evidence {
            value: Some(f64::from(follower)),
            ..Evidence::event("gpu.xid", at, text)
        });
    }
    if cleared {
        evidence.push(Evidence::event(
            "gpu.reset",
            last.last().map_or(0, |i| seen[*i].at_ms),
            "before the last reboot or reset",
        ));
    }
    let confidence = match cause.fault {
        Fault::Unknown => 0.3,
        Fault::Note => 0.5,
        _ => 0.9,
    };
    Finding {
        id: format!("gpu-xid-{code}").into(),
        severity,
        target,
        title: Cow::Owned(format!("XID {code}: {}", cause.meaning)),
        evidence,
        remedy,
        advice: advice(cause.fault, remedy).into(),
        commands: Vec::new(),
        confidence,
    }
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

fn suspect(facts: &NodeFacts, rule: &Rule<NodeFacts>) -> Option<Vec<Finding>> {
    facts.kernel_known()?;
    let mut found = Vec::new();
    for (gpu, seen) in by_gpu(facts) {
        let Some(gpu) = gpu else { continue };
        let own =
            |s: &&Seen<'_>| xid::lookup(s.code).fault == Fault::Program && !facts.cleared_since(Some(gpu), s.at_ms);
        let failed: Vec<&Seen<'_>> = seen.iter().filter(own).collect();
        let workloads: BTreeSet<&str> = failed.iter().filter_map(|s| s.workload).collect();
        if workloads.len() < SUSPICIOUS_WORKLOADS {
            continue;
        }
        let names: Vec<&str> = workloads.iter().copied().take(5).collect();
        let text = format!(
            "{} workloads failed with errors of their own: {}",
            workloads.len(),
            names.join(", ")
        );
        let last = failed.last().map_or(facts.now_ms, |s| s.at_ms);
        let evidence = vec![
            Evidence::count("gpu.xid", workloads.len() as u64, text)
                .against(SUSPICIOUS_WORKLOADS as f64)
                .at(last)
                .over(DAY_MS),
        ];
        found.push(rule.finding(Severity::Warning, facts.gpu_target(gpu), 0.6, evidence));
    }
    Some(found)
}
