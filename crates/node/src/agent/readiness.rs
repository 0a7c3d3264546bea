//! What jobs' readiness checks come to, told to the gateway.
//!
//! Only changes are told, and only the latest: where one comes before the last has been acknowledged, or too soon after
//! it, it waits, and what it waited with is what then holds. So the gateway has the truth in the end, and a check that
//! goes to and fro while nobody listens leaves one observation, not thousands.

use api::{wire::Seen, workload::JobKey};

use super::{
    Agent, Effects, Now,
    record::{ReadinessRecord, put_job},
};

/// Shortest time between two changes of a job's readiness that are told, in milliseconds.
const CHANGE_MS: u64 = 1_000;

/// The same where only the reason has changed; also the time from the start to the first reason.
const REASON_MS: u64 = 5_000;

/// What the check came to last, where the gateway hasn't been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Untold {
    ready: bool,
    why: Option<String>,
    /// Monotonic time at which it is to be told. `None`: once the last one is acknowledged.
    due_ms: Option<u64>,
}

impl Agent {
    /// A job's readiness check has come to this. `why`: why it isn't ready. Ignored for jobs that don't run or have no
    /// such check.
    pub fn readiness(&mut self, key: &JobKey, ready: bool, why: Option<String>, now: Now) -> Effects {
        let mut out = Effects::default();
        if let Some(job) = self.jobs.get_mut(key)
            && job.live()
            && job.record.started_at.is_some()
            && job.record.assignment.readiness.is_some()
        {
            job.untold = Some(Untold {
                ready,
                why: why.filter(|_| !ready),
                due_ms: None,
            });
            self.untold.insert(key.clone());
            self.tell_readiness(key, now, &mut out);
        }
        out
    }

    /// Tells of what can be told now.
    pub(super) fn tell_all_readiness(&mut self, now: Now, out: &mut Effects) {
        let all: Vec<JobKey> = self.untold.iter().cloned().collect();
        for key in all {
            self.tell_readiness(&key, now, out);
        }
    }

    /// When something about readiness is to be told. `None`: nothing waits for time.
    pub(super) fn readiness_due_ms(&self) -> Option<u64> {
        let untold = self.untold.iter().filter_map(|key| self.jobs.get(key)?.untold.as_ref());
        untold.filter_map(|untold| untold.due_ms).min()
    }

    fn tell_readiness(&mut self, key: &JobKey, now: Now, out: &mut Effects) {
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.live()) else {
            self.untold.remove(key);
            return;
        };
        let Some(untold) = job.untold.as_mut() else {
            self.untold.remove(key);
            return;
        };
        let told = job.record.readiness.as_ref();
        // Nothing said means: not ready, nobody knows why.
        let (was_ready, was_why) = told.map_or((false, None), |told| (told.ready, told.why.as_ref()));
        if was_ready == untold.ready && was_why == untold.why.as_ref() {
            job.untold = None;
            self.untold.remove(key);
            return;
        }
        if told.is_some_and(|told| self.outbox.holds(told.number)) {
            untold.due_ms = None;
            return;
        }
        let gap = if was_ready == untold.ready {
            REASON_MS
        } else {
            CHANGE_MS
        };
        let since = match (job.told_ms, told) {
            (Some(told_ms), _) => Some(told_ms),
            // An earlier life of the agent told it, long enough ago.
            (None, Some(_)) => None,
            (None, None) if was_ready == untold.ready => job.started_ms,
            (None, None) => None,
        };
        if let Some(due) = since
            .map(|since| since.saturating_add(gap))
            .filter(|due| *due > now.mono_ms)
        {
            untold.due_ms = Some(due);
            return;
        }
        let Some(Untold { ready, why, .. }) = job.untold.take() else {
            return;
        };
        self.untold.remove(key);
        let was_ready = told.is_some_and(|told| told.was_ready);
        let number = self.outbox.push(
            key.clone(),
            Seen::Readiness {
                ready,
                why: why.clone(),
            },
            out,
        );
        job.told_ms = Some(now.mono_ms);
        job.record.readiness = Some(ReadinessRecord {
            ready,
            why,
            was_ready: was_ready || ready,
            number,
        });
        out.persist.push(put_job(&job.record));
    }
}
