//! Changes of a workload that goes on.

use api::{
    ApiError, ErrorCode, Size, Span, Timestamp,
    workload::{Priority, Workload},
};

use crate::{
    draft::Draft,
    lifecycle,
    view::{Versioned, View},
};

/// What is to be changed. What is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// New memory limit.
    pub memory: Option<Size>,
    /// New timeout; zero: none.
    pub timeout: Option<Span>,
    /// New priority.
    pub priority: Option<Priority>,
}

/// Changes a workload. `None`: it is so already.
///
/// A placed workload may grow only into memory that its nodes have free. What is free is decided on the view, while
/// another workload may be on its way to the same node; so the two must not both be committed. Growth fails if any workload
/// with memory was bound to one of the nodes since the view ([`Draft::no_bind_since`]), and it touches the nodes, on
/// whose being untouched every bind depends.
///
/// # Errors
/// `CONFLICT` where it has ended, `NO_GPUS_AVAILABLE` where a node hasn't the memory.
pub fn update(
    view: &View,
    before: &Versioned<Workload>,
    change: Change,
    by: &str,
    now: Timestamp,
) -> Result<Option<Draft>, ApiError> {
    if before.phase.ended() {
        return Err(ApiError::conflict(format!(
            "{} has ended: it is {}",
            before.name, before.phase
        )));
    }
    let mut spec = (*before.spec).clone();
    let mut draft = Draft::new();
    if let Some(memory) = change.memory {
        grow(view, before, memory, &mut draft)?;
        spec.memory = Some(memory);
    }
    if let Some(timeout) = change.timeout {
        spec.timeout = (!timeout.is_zero()).then_some(timeout);
    }
    if let Some(priority) = change.priority {
        spec.priority = priority;
    }
    if spec == *before.spec {
        return Ok(None);
    }
    draft.step(before, lifecycle::respecify(before, spec, by, now));
    Ok(Some(draft))
}

fn grow(view: &View, w: &Versioned<Workload>, memory: Size, draft: &mut Draft) -> Result<(), ApiError> {
    let more = memory.bytes().saturating_sub(w.spec.memory.map_or(0, Size::bytes));
    if more == 0 {
        return Ok(());
    }
    let mut nodes: Vec<_> = w.members.iter().filter(|m| !m.state.ended()).map(|m| &m.node).collect();
    nodes.sort();
    for members in nodes.chunk_by(|a, b| a == b) {
        let Some(node) = view.node(members[0]) else { continue };
        let total = node.inventory.as_ref().map_or(0, |i| i.memory_total_bytes.bytes());
        let reserved: u64 = view
            .members_on(&node.name)
            .filter_map(|(w, _)| w.spec.memory)
            .map(Size::bytes)
            .sum();
        let free = total.saturating_sub(reserved);
        let asked = more.saturating_mul(members.len() as u64);
        if asked > free {
            return Err(ApiError::new(
                ErrorCode::NoGpusAvailable,
                format!(
                    "{} has {} of memory free, {} more are asked for",
                    node.name,
                    Size(free),
                    Size(asked)
                ),
            )
            .hint(format!(
                "move it to a larger node: clawbernetes workload migrate {}",
                w.id
            )));
        }
        draft.no_bind_since(&node.name, view.bound(&node.name));
        draft.put_node(Some(node.revision), node);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::{
        Cpu, NodeName, WorkloadId,
        node::{EngineInfo, EngineKind, Inventory, Reach},
        op::Submission,
        workload::{HOST_IMAGE, WorkloadSpec},
    };
    use store::{Change as Stored, Order, Range, Store, embedded::Options};

    use super::*;
    use crate::decide::{
        nodes::joined,
        plan::{self, Planner},
        submit,
    };

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// A real store, for what two transactions do to each other.
    struct Fleet {
        store: Store,
        _folder: tempfile::TempDir,
    }

    impl Fleet {
        /// A node of 8 GiB where `a` runs with 4 GiB, and `b`, which waits with 4 GiB.
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path().join("state"), Options::default()).unwrap();
            let fleet = Self { store, _folder: folder };
            let (mut node, _) = joined(&NodeName::new("n"), String::new(), "test", NOW);
            node.reach = Reach::Online;
            node.inventory = Some(Inventory {
                hostname: "n".to_owned(),
                cpu: Cpu::cores(4),
                cpu_model: None,
                memory_total_bytes: Size::gib(8),
                os: None,
                kernel: None,
                arch: "x86_64".to_owned(),
                boot_id: None,
                gpus: Vec::new(),
                links: Vec::new(),
                engines: vec![EngineInfo {
                    kind: EngineKind::Native,
                    version: None,
                    limitations: Vec::new(),
                }],
                agent_version: "test".to_owned(),
                notes: Vec::new(),
            });
            let mut draft = Draft::new();
            draft.put_node(None, &node);
            assert!(fleet.commit(draft).await);
            for (number, name) in [(1, "a"), (2, "b")] {
                let submission = Submission {
                    name: Some(name.to_owned()),
                    spec: WorkloadSpec {
                        image: HOST_IMAGE.to_owned(),
                        command: vec!["true".to_owned()],
                        memory: Some(Size::gib(4)),
                        ..WorkloadSpec::default()
                    },
                    ..Submission::default()
                };
                let workload = submit::workload(submission, number, "ada", NOW).unwrap();
                let mut draft = Draft::new();
                draft.create_workload(&workload, Vec::new());
                assert!(fleet.commit(draft).await);
                if name == "a" {
                    assert!(fleet.commit(fleet.bind().await).await);
                }
            }
            fleet
        }

        async fn commit(&self, draft: Draft) -> bool {
            self.store.txn(draft.finish()).await.unwrap().committed().is_some()
        }

        async fn look(&self) -> (View, Planner) {
            let (mut view, mut planner) = (View::default(), Planner::new(Span::secs(60)));
            let page = self
                .store
                .range(Range::all(), usize::MAX, Order::Ascending)
                .await
                .unwrap();
            for record in page.records {
                planner.apply(&view.apply(&Stored::Put(record)).unwrap(), NOW);
            }
            view.reached(page.revision);
            (view, planner)
        }

        /// The placement of what waits.
        async fn bind(&self) -> Draft {
            let (view, mut planner) = self.look().await;
            let placements = planner.pass(NOW).placements;
            plan::bind(&view, &placements[0], NOW).unwrap()
        }

        /// All the node's memory for `a`.
        async fn grow(&self) -> Result<Draft, ApiError> {
            let (view, _) = self.look().await;
            let a = view.workload(&WorkloadId::from_random(1)).unwrap();
            let change = Change {
                memory: Some(Size::gib(8)),
                ..Change::default()
            };
            Ok(update(&view, a, change, "ada", NOW)?.unwrap())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn growth_and_a_placement_that_crosses_it_arent_both_committed() {
        let fleet = Fleet::new().await;
        let (grow, bind) = (fleet.grow().await.unwrap(), fleet.bind().await);
        assert!(fleet.commit(grow).await);
        assert!(!fleet.commit(bind).await, "the memory is gone");

        let fleet = Fleet::new().await;
        let (grow, bind) = (fleet.grow().await.unwrap(), fleet.bind().await);
        assert!(fleet.commit(bind).await);
        assert!(!fleet.commit(grow).await, "the memory is gone");
        assert_eq!(fleet.grow().await.unwrap_err().code, ErrorCode::NoGpusAvailable);
    }
}
