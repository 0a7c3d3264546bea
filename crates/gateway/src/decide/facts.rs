//! What nodes' kernel logs say, as events.

use std::collections::BTreeMap;

use api::{
    Timestamp,
    event::{Event, Severity},
    node::{FactsSeen, Node},
    wire::{AmdTrouble, Fact, FactKind},
};

use crate::{
    draft::{Draft, node_event},
    view::Versioned,
};

/// Events that one message's facts of one kind may make: a port that flaps a thousand times a minute is told of once
/// for each message, with the count.
const EACH_MAX: usize = 5;

/// The events that facts make, and that they were seen; none for facts that were seen before.
///
/// A node sends a fact again until it is acknowledged, and again after its restart; the kernel's own numbers tell
/// which are known. Facts without one are new each time.
#[must_use]
pub fn keep(node: &Versioned<Node>, facts: &[Fact], now: Timestamp) -> Option<Draft> {
    let boot = node.inventory.as_ref().and_then(|i| i.boot_id.clone());
    let seen = node
        .facts_seen
        .as_ref()
        .filter(|seen| seen.boot == boot)
        .map(|seen| seen.sequence);
    let is_new = |fact: &&Fact| match (fact.sequence, seen) {
        (Some(sequence), Some(seen)) => sequence > seen,
        _ => true,
    };
    let new: Vec<&Fact> = facts.iter().filter(is_new).collect();
    if new.is_empty() {
        return None;
    }
    let mut draft = Draft::new();
    let mut written = Node::clone(node);
    if let Some(sequence) = new.iter().filter_map(|f| f.sequence).max() {
        written.facts_seen = Some(FactsSeen { boot, sequence });
    }
    draft.put_node(Some(node.revision), &written);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for fact in &new {
        let (reason, _) = told(&fact.what);
        let count = counts.entry(reason).or_default();
        *count += 1;
        if *count <= EACH_MAX {
            draft.event(node.revision, event(node, fact, now));
        }
    }
    for (reason, count) in counts.into_iter().filter(|(_, count)| *count > EACH_MAX) {
        let message = format!("and {} more of this within moments", count - EACH_MAX);
        let actor = format!("node:{}", node.name);
        draft.event(
            node.revision,
            node_event(&node.name, &reason, message, &actor, Severity::Warning, now),
        );
    }
    Some(draft)
}

fn event(node: &Node, fact: &Fact, now: Timestamp) -> Event {
    let (reason, severity) = told(&fact.what);
    let gpu = match &fact.what {
        FactKind::Xid { gpu, .. } | FactKind::AmdGpu { gpu, .. } => *gpu,
        _ => None,
    };
    let message = match gpu {
        Some(index) => format!("GPU {index}: {}", fact.line),
        None => fact.line.clone(),
    };
    let actor = format!("node:{}", node.name);
    // A clock that is ahead doesn't bring events from the future.
    let mut event = node_event(&node.name, &reason, message, &actor, severity, fact.at.min(now));
    event.fact = Some(fact.what.clone());
    event
}

/// The event's one word, and how much it matters.
fn told(what: &FactKind) -> (String, Severity) {
    let word = |word: &str, severity| (word.to_owned(), severity);
    match what {
        FactKind::Xid { xid, .. } => (format!("Xid{xid}"), Severity::Error),
        FactKind::AmdGpu { trouble, .. } => match trouble {
            AmdTrouble::Timeout => word("GpuTimeout", Severity::Error),
            AmdTrouble::Reset => word("GpuReset", Severity::Warning),
            AmdTrouble::Lost => word("GpuLost", Severity::Error),
            AmdTrouble::Uncorrectable => word("GpuMemoryError", Severity::Error),
            AmdTrouble::PageFault => word("GpuPageFault", Severity::Warning),
        },
        FactKind::NvSwitch { sxid, fatal, .. } => {
            let severity = if *fatal { Severity::Error } else { Severity::Warning };
            (format!("SXid{sxid}"), severity)
        }
        FactKind::OomKill { .. } => word("OomKill", Severity::Warning),
        FactKind::LinkDown { .. } => word("LinkDown", Severity::Warning),
        FactKind::LinkUp { .. } => word("LinkUp", Severity::Info),
        FactKind::NicError { .. } => word("NetworkError", Severity::Warning),
        FactKind::DiskError { .. } => word("DiskError", Severity::Error),
        FactKind::FilesystemError { .. } => word("FilesystemError", Severity::Error),
        FactKind::Mce { corrected } => corrected_or_not("MachineCheck", *corrected),
        FactKind::PcieError { corrected, .. } => corrected_or_not("PcieError", *corrected),
        FactKind::CpuThrottled => word("CpuThrottled", Severity::Warning),
        FactKind::HungTask { .. } => word("HungTask", Severity::Warning),
    }
}

fn corrected_or_not(word: &str, corrected: bool) -> (String, Severity) {
    let severity = if corrected { Severity::Warning } else { Severity::Error };
    (word.to_owned(), severity)
}

#[cfg(test)]
mod tests {
    use api::NodeName;
    use store::{Op, Revision};

    use super::*;
    use crate::decide::nodes::joined;

    fn node() -> Versioned<Node> {
        let (node, _) = joined(&NodeName::new("a"), String::new(), "user:ada", Timestamp::UNIX_EPOCH);
        Versioned {
            value: std::sync::Arc::new(node),
            revision: Revision(1),
        }
    }

    fn fact(sequence: Option<u64>) -> Fact {
        Fact {
            number: 1,
            sequence,
            at: Timestamp::UNIX_EPOCH,
            what: FactKind::Xid {
                xid: 79,
                pci: "0000:3b:00.0".to_owned(),
                gpu: Some(2),
                uuid: None,
                pid: None,
            },
            line: "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.".to_owned(),
        }
    }

    fn events(draft: Draft) -> usize {
        let is_event = |op: &&Op| matches!(op, Op::Put { key, .. } if key.starts_with(crate::keys::EVENTS));
        draft.finish().ops.iter().filter(is_event).count()
    }

    #[test]
    fn a_fact_is_told_once() {
        let mut node = node();
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(events(keep(&node, &[fact(Some(7))], now).unwrap()), 1);
        let boot = None;
        std::sync::Arc::get_mut(&mut node.value).unwrap().facts_seen = Some(FactsSeen { boot, sequence: 7 });
        assert!(keep(&node, &[fact(Some(7))], now).is_none());
        assert_eq!(events(keep(&node, &[fact(Some(7)), fact(Some(8))], now).unwrap()), 1);
        // The machine was booted: the kernel counts anew.
        let boot = Some("other".to_owned());
        std::sync::Arc::get_mut(&mut node.value).unwrap().facts_seen = Some(FactsSeen { boot, sequence: 7 });
        assert_eq!(events(keep(&node, &[fact(Some(3))], now).unwrap()), 1);
    }

    #[test]
    fn a_flood_is_told_with_its_count() {
        let facts: Vec<Fact> = (0..400).map(|n| fact(Some(n))).collect();
        assert_eq!(
            events(keep(&node(), &facts, Timestamp::UNIX_EPOCH).unwrap()),
            EACH_MAX + 1
        );
    }

    #[test]
    fn an_event_names_the_gpu_and_keeps_the_fact() {
        let event = event(&node(), &fact(None), Timestamp::UNIX_EPOCH);
        assert_eq!(event.reason, "Xid79");
        assert!(event.message.starts_with("GPU 2: NVRM: Xid"));
        assert!(matches!(event.fact, Some(FactKind::Xid { xid: 79, .. })));
    }
}
