//! What a node should run: the whole set, worked out from the view, and what of it a session has yet to say.

use std::collections::BTreeMap;

use api::{
    NodeName,
    wire::{Assignment, DESIRED_PIECE_BYTES, Desired, Gang, Stop},
    workload::{EnvVar, JobKey, Member, Workload},
};

use crate::view::View;

/// Everything that a node should run now, by job.
#[must_use]
pub fn desired(view: &View, node: &NodeName) -> BTreeMap<JobKey, Assignment> {
    view.members_on(node)
        .map(|(workload, member)| {
            let assignment = assignment(view, workload, member);
            (assignment.job.clone(), assignment)
        })
        .collect()
}

/// What a session has told its node to run.
#[derive(Debug)]
pub struct Told {
    generation: u64,
    /// `None`: nothing that can be built on.
    set: Option<BTreeMap<JobKey, Assignment>>,
    piece_bytes: usize,
}

impl Default for Told {
    fn default() -> Self {
        Self::in_pieces(DESIRED_PIECE_BYTES)
    }
}

impl Told {
    /// Nothing yet; it will be said in pieces of at most this many bytes of JSON, unless a single job is longer.
    #[must_use]
    pub fn in_pieces(piece_bytes: usize) -> Self {
        Self {
            generation: 0,
            set: None,
            piece_bytes,
        }
    }

    /// What has to be said now: all of it at first and after [`Told::resync`], else what has changed. Empty: nothing.
    /// The pieces are to be sent in order.
    #[must_use]
    pub fn next(&mut self, view: &View, node: &NodeName) -> Vec<Desired> {
        let wanted = desired(view, node);
        let (put, forget): (Vec<Assignment>, Vec<JobKey>) = match &self.set {
            None => (wanted.values().cloned().collect(), Vec::new()),
            Some(told) => {
                let changed = wanted.iter().filter(|(job, a)| told.get(*job) != Some(*a));
                let gone = told.keys().filter(|job| !wanted.contains_key(*job));
                (changed.map(|(_, a)| a.clone()).collect(), gone.cloned().collect())
            }
        };
        let base = self.set.is_some().then_some(self.generation);
        if base.is_some() && put.is_empty() && forget.is_empty() {
            return Vec::new();
        }
        self.generation += 1;
        self.set = Some(wanted);
        pieces(self.piece_bytes, self.generation, base, put, forget)
    }

    /// The node doesn't have what it was told: all of it will be said again.
    pub fn resync(&mut self) {
        self.set = None;
    }
}

/// Cuts a set, or a change, into pieces of at most `limit` bytes; a job that is longer gets one for itself.
fn pieces(limit: usize, generation: u64, base: Option<u64>, put: Vec<Assignment>, forget: Vec<JobKey>) -> Vec<Desired> {
    let empty = |piece| Desired {
        generation,
        base,
        piece,
        more: true,
        put: Vec::new(),
        forget: Vec::new(),
    };
    // Room for the frame around the jobs, with the longest numbers.
    let frame = length(&empty(u32::MAX)) + 64;
    let (mut done, mut open, mut bytes) = (Vec::new(), empty(0), frame);
    let mut room_for = |open: &mut Desired, item: usize| {
        // A comma comes with each.
        if bytes + item + 1 > limit && bytes > frame {
            let next = empty(open.piece.saturating_add(1));
            done.push(std::mem::replace(open, next));
            bytes = frame;
        }
        bytes += item + 1;
    };
    for job in forget {
        room_for(&mut open, length(&job));
        open.forget.push(job);
    }
    for assignment in put {
        room_for(&mut open, length(&assignment));
        open.put.push(assignment);
    }
    open.more = false;
    done.push(open);
    done
}

/// Bytes of something as JSON.
fn length(of: &impl serde::Serialize) -> usize {
    // Plain data with string keys: it can be written.
    serde_json::to_vec(of).map_or(0, |json| json.len())
}

fn assignment(view: &View, w: &Workload, member: &Member) -> Assignment {
    let spec = &w.spec;
    let mut env = spec.env.clone();
    for (name, value) in [
        ("CLAWBERNETES_WORKLOAD_ID", w.id.as_str()),
        ("CLAWBERNETES_WORKLOAD_NAME", &w.name),
        ("CLAWBERNETES_NAMESPACE", &w.namespace),
    ] {
        // What the workload says itself counts.
        if !spec.env.iter().any(|var| var.name == name) {
            env.push(EnvVar {
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
    }
    let gang = (w.members.len() > 1 || spec.distributed.is_some()).then(|| Gang {
        world_size: spec
            .distributed
            .as_ref()
            .and_then(|d| d.world_size)
            .unwrap_or(w.members.len() as u32),
        master_address: w.members.first().map(|m| address(view, &m.node)).unwrap_or_default(),
        distributed: spec.distributed.clone(),
    });
    Assignment {
        job: JobKey {
            workload: w.id.clone(),
            attempt: w.attempt,
            rank: member.rank,
        },
        name: w.name.clone(),
        namespace: w.namespace.clone(),
        image: spec.image.clone(),
        command: spec.command.clone(),
        env,
        secrets: spec.secrets.clone(),
        volumes: spec.volumes.clone(),
        gpus: member.gpus.clone(),
        cpu: spec.cpu,
        memory: spec.memory,
        timeout: spec.timeout,
        grace: spec.grace(),
        checkpointing: spec.checkpointing.clone(),
        gang,
        ports: spec.ports.clone(),
        dynamic_ports: spec.dynamic_ports,
        host_ports: Vec::new(),
        health_check: spec.health_check.clone(),
        readiness: spec.readiness.clone(),
        hooks: spec.hooks.clone(),
        metrics_port: spec.metrics_port,
        stop: w.stop.as_ref().map(|s| Stop {
            reason: s.reason,
            grace: s.grace,
        }),
    }
}

/// Where other members reach a node: its `address` label if it has one, else its host name.
fn address(view: &View, node: &NodeName) -> String {
    view.node(node)
        .and_then(|n| {
            n.labels
                .get("address")
                .cloned()
                .or_else(|| n.inventory.as_ref().map(|i| i.hostname.clone()))
        })
        .unwrap_or_else(|| node.to_string())
}

#[cfg(test)]
mod tests {
    use api::{Span, wire::ToNode};

    use super::*;

    fn assignment(number: usize, padding: usize) -> Assignment {
        Assignment {
            job: format!("wl-{number}.1.0").parse().unwrap(),
            name: "x".repeat(padding),
            namespace: "default".to_owned(),
            image: "host".to_owned(),
            command: Vec::new(),
            env: Vec::new(),
            secrets: Vec::new(),
            volumes: Vec::new(),
            gpus: Vec::new(),
            cpu: None,
            memory: None,
            timeout: None,
            grace: Span::secs(10),
            checkpointing: None,
            gang: None,
            ports: Vec::new(),
            dynamic_ports: false,
            host_ports: Vec::new(),
            health_check: None,
            readiness: None,
            hooks: None,
            metrics_port: None,
            stop: None,
        }
    }

    #[test]
    fn pieces_are_short_and_nothing_is_left_out() {
        for (jobs, gone, limit) in [
            (0, 0, 1_000),
            (1, 0, 1_000),
            (40, 60, 1_000),
            (40, 60, 2_500),
            (7, 900, 4_000),
            (40, 60, 1 << 20),
        ] {
            // Some are longer than a piece.
            let put: Vec<Assignment> = (0..jobs).map(|n| assignment(n, n * 977 % 3_000)).collect();
            let forget: Vec<JobKey> = (0..gone).map(|n| format!("wl-gone{n}.1.0").parse().unwrap()).collect();
            let pieces = pieces(limit, u64::MAX, Some(u64::MAX - 1), put.clone(), forget.clone());
            for (at, piece) in pieces.iter().enumerate() {
                assert_eq!((piece.piece as usize, piece.more), (at, at + 1 < pieces.len()));
                assert_eq!((piece.generation, piece.base), (u64::MAX, Some(u64::MAX - 1)));
                let bytes = serde_json::to_vec(&ToNode::Desired(piece.clone())).unwrap().len();
                assert!(
                    bytes <= limit || piece.put.len() + piece.forget.len() == 1,
                    "{bytes} bytes of {limit}"
                );
            }
            assert!(limit < 1 << 20 || pieces.len() == 1, "{} pieces", pieces.len());
            let said: Vec<Assignment> = pieces.iter().flat_map(|p| p.put.clone()).collect();
            let forgot: Vec<JobKey> = pieces.iter().flat_map(|p| p.forget.clone()).collect();
            assert_eq!((said, forgot), (put, forget));
        }
    }
}
