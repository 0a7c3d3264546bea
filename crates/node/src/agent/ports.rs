//! Real ports for jobs whose declared ones are names.
//!
//! Whoever drives the agent looks for free ports ([`Effect::FindPorts`]) and answers with [`Agent::ports`]. What is picked
//! is on disk before the job begins, and its own until the gateway has let the agent forget the job: whoever was told of
//! a job's ports and hasn't heard of its end must not reach another one there.

use std::collections::BTreeSet;

use api::{
    ErrorCode,
    workload::{JobKey, Outcome, Usage},
};

use super::{Agent, Effect, Effects, Left, Now, job::Job, record::put_job};

/// Whether ports must be picked before a job can begin.
pub(super) fn lacks_ports(job: &Job) -> bool {
    let assignment = &job.record.assignment;
    assignment.dynamic_ports && assignment.host_ports.len() != assignment.ports.len()
}

impl Agent {
    /// The answer to [`Effect::FindPorts`]: as many free ports as were asked for, or `None`: there aren't so many. One that
    /// nobody waits for is dropped; ports that another job was given meanwhile are asked for again.
    pub fn ports(&mut self, key: &JobKey, found: Option<Vec<u16>>, now: Now) -> Effects {
        let mut out = Effects::default();
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.live() && job.finding_ports) else {
            return out;
        };
        job.finding_ports = false;
        let wanted = job.record.assignment.ports.len();
        match found {
            Some(found) => {
                let taken = self.taken_ports();
                let different: BTreeSet<u16> = found.iter().copied().collect();
                if found.len() == wanted
                    && different.len() == wanted
                    && different.is_disjoint(&taken)
                    && let Some(job) = self.jobs.get_mut(key)
                {
                    std::sync::Arc::make_mut(&mut job.record.assignment).host_ports = found;
                    out.persist.push(put_job(&job.record));
                }
            }
            None => {
                let outcome = Outcome::StartFailed {
                    code: ErrorCode::Conflict,
                    message: format!("the node has no {wanted} free ports for it"),
                    retryable: true,
                };
                self.end(key, now.wall, outcome, Usage::default(), Left::default(), &mut out);
            }
        }
        self.start_waiting(&mut out);
        out
    }

    /// Has ports found for a job, unless that is under way.
    pub(super) fn find_ports(&mut self, key: &JobKey, out: &mut Effects) {
        let taken = self.taken_ports();
        let Some(job) = self.jobs.get_mut(key).filter(|job| !job.finding_ports) else {
            return;
        };
        job.finding_ports = true;
        out.then.push(Effect::FindPorts {
            job: key.clone(),
            count: job.record.assignment.ports.len(),
            taken,
        });
    }

    /// The ports of all jobs that have a record: picked ones, and those that jobs will listen on by their own choice.
    fn taken_ports(&self) -> BTreeSet<u16> {
        let of = |job: &Job| {
            let assignment = &job.record.assignment;
            let declared = (!assignment.dynamic_ports).then(|| assignment.ports.iter().map(|port| port.port));
            let gang = assignment.gang.as_ref().and_then(|gang| gang.distributed.as_ref());
            let picked = assignment.host_ports.iter().copied();
            let others = assignment.metrics_port.into_iter().chain(gang.map(|d| d.master_port));
            picked
                .chain(declared.into_iter().flatten())
                .chain(others)
                .collect::<Vec<_>>()
        };
        self.jobs.values().flat_map(of).collect()
    }
}
