//! Facts on their way to the gateway.
//!
//! They are kept in memory. What outlives the agent is the kernel's own log: the number of the last record that is
//! known to the gateway is on disk, and the next agent reads on from there.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use api::{
    GpuIndex, Timestamp,
    wire::{FACTS_MAX, Fact, FactKind},
};
use serde::{Deserialize, Serialize};

/// Most facts of one kind that wait. A device in a bad way must not push out what others say.
const OF_A_KIND: usize = 200;

/// The facts.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    waiting: VecDeque<Fact>,
    last: u64,
    in_flight: Option<u64>,
    dropped: u64,
}

impl Facts {
    /// Adds one.
    pub(crate) fn push(&mut self, sequence: Option<u64>, at: Timestamp, what: FactKind, line: String) {
        let kind = std::mem::discriminant(&what);
        let same = |fact: &Fact| std::mem::discriminant(&fact.what) == kind;
        if self.waiting.iter().filter(|fact| same(fact)).count() >= OF_A_KIND
            && let Some(oldest) = self.waiting.iter().position(same)
        {
            self.waiting.remove(oldest);
            if self.dropped == 0 {
                tracing::warn!("the kernel says more than the gateway takes: the oldest of a kind is dropped");
            }
            self.dropped += 1;
        }
        self.last += 1;
        self.waiting.push_back(Fact {
            number: self.last,
            sequence,
            at,
            what,
            line,
        });
    }

    /// A new session: all that isn't acknowledged goes out again.
    pub(crate) fn begin(&mut self) {
        self.in_flight = None;
    }

    /// The next message. Empty: there is nothing, or one is on its way.
    pub(crate) fn next(&mut self) -> Vec<Fact> {
        if self.in_flight.is_some() {
            return Vec::new();
        }
        let facts: Vec<Fact> = self.waiting.iter().take(FACTS_MAX).cloned().collect();
        self.in_flight = facts.last().map(|fact| fact.number);
        facts
    }

    /// The gateway has the facts up to this one. Gives the number of the kernel's last record among them.
    pub(crate) fn acked(&mut self, through: u64) -> Option<u64> {
        if self.in_flight.is_some_and(|last| last <= through) {
            self.in_flight = None;
        }
        let mut sequence = None;
        while self.waiting.front().is_some_and(|fact| fact.number <= through) {
            let fact = self.waiting.pop_front();
            sequence = fact.and_then(|fact| fact.sequence).max(sequence);
        }
        sequence
    }
}

/// Fills in which GPU is at a fact's address.
pub(crate) fn name_gpu(what: &mut FactKind, find: impl Fn(&str) -> Option<(GpuIndex, String)>) {
    if let FactKind::Xid { pci, gpu, uuid, .. } | FactKind::AmdGpu { pci, gpu, uuid, .. } = what
        && let Some((index, id)) = find(pci)
    {
        *gpu = Some(index);
        *uuid = Some(id);
    }
}

/// How far the gateway knows the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    boot_id: String,
    sequence: u64,
}

/// Where that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn at(data: &Path) -> Self {
        Self(data.join("kernel-log.json"))
    }

    /// The number of the last record of this boot that the gateway knows. `None`: it knows none.
    pub(crate) fn load(&self, boot_id: &str) -> Option<u64> {
        let mark: Mark = serde_json::from_slice(&fs::read(&self.0).ok()?).ok()?;
        (mark.boot_id == boot_id).then_some(mark.sequence)
    }

    /// Keeps it. One that is lost makes facts go out again, which the gateway knows by their numbers.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub(crate) fn save(&self, boot_id: &str, sequence: u64) -> io::Result<()> {
        let mark = Mark {
            boot_id: boot_id.to_owned(),
            sequence,
        };
        let next = self.0.with_extension("next");
        fs::write(&next, serde_json::to_vec(&mark)?)?;
        fs::rename(next, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(facts: &mut Facts, sequence: u64, what: FactKind) {
        facts.push(Some(sequence), Timestamp::UNIX_EPOCH, what, "x".to_owned());
    }

    fn numbers(facts: &[Fact]) -> Vec<u64> {
        facts.iter().map(|fact| fact.number).collect()
    }

    #[test]
    fn facts_go_out_until_they_are_acknowledged() {
        let mut facts = Facts::default();
        push(&mut facts, 10, FactKind::CpuThrottled);
        assert_eq!(numbers(&facts.next()), [1]);
        push(&mut facts, 12, FactKind::CpuThrottled);
        assert!(facts.next().is_empty(), "one message at a time");
        assert_eq!(facts.acked(1), Some(10));
        assert_eq!(numbers(&facts.next()), [2]);
        facts.begin();
        assert_eq!(numbers(&facts.next()), [2]);
        assert_eq!(facts.acked(2), Some(12));
        assert_eq!(facts.acked(2), None);
        assert!(facts.next().is_empty());
    }

    #[test]
    fn a_storm_of_one_kind_leaves_the_others() {
        let mut facts = Facts::default();
        push(&mut facts, 0, FactKind::Mce { corrected: false });
        for sequence in 1..1000 {
            let pci = "0000:01:00.0".to_owned();
            push(&mut facts, sequence, FactKind::PcieError { pci, corrected: true });
        }
        let sent = facts.next();
        assert_eq!(sent.len(), OF_A_KIND + 1);
        assert_eq!(sent[0].number, 1);
        assert_eq!(sent.last().unwrap().number, 1000);
        assert_eq!(facts.dropped, 799);
    }

    #[test]
    fn the_mark_holds_for_its_boot() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::at(folder.path());
        assert_eq!(place.load("a"), None);
        place.save("a", 7).unwrap();
        assert_eq!(place.load("a"), Some(7));
        assert_eq!(place.load("b"), None);
    }

    #[test]
    fn gpus_are_named_by_their_address() {
        let mut what = FactKind::Xid {
            xid: 79,
            pci: "0000:3b:00.0".to_owned(),
            gpu: None,
            uuid: None,
            pid: None,
        };
        name_gpu(&mut what, |pci| {
            (pci == "0000:3b:00.0").then(|| (2, "GPU-2".to_owned()))
        });
        let FactKind::Xid { gpu, uuid, .. } = what else {
            panic!()
        };
        assert_eq!((gpu, uuid.as_deref()), (Some(2), Some("GPU-2")));
    }
}
