//! What a node should run: the whole set, worked out from the view, and what of it a session has yet to say.

use std::collections::BTreeMap;

use api::{
    NodeName,
    wire::{Assignment, Gang, Stop, ToNode},
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
#[derive(Debug, Default)]
pub struct Told {
    generation: u64,
    /// `None`: nothing that can be built on.
    set: Option<BTreeMap<JobKey, Assignment>>,
}

impl Told {
    /// What has to be said now: all of it at first and after [`Told::resync`], else what has changed. `None`: nothing.
    pub fn next(&mut self, view: &View, node: &NodeName) -> Option<ToNode> {
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
            return None;
        }
        self.generation += 1;
        self.set = Some(wanted);
        Some(ToNode::Desired {
            generation: self.generation,
            base,
            put,
            forget,
        })
    }

    /// The node doesn't have what it was told: all of it will be said again.
    pub fn resync(&mut self) {
        self.set = None;
    }
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
        volumes: spec.volumes.clone(),
        gpus: member.gpus.clone(),
        cpu: spec.cpu,
        memory: spec.memory,
        timeout: spec.timeout,
        grace: spec.grace(),
        checkpointing: spec.checkpointing.clone(),
        gang,
        health_check: spec.health_check.clone(),
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
