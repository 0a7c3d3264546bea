//! What the agent keeps on disk, and how it is written there.
//!
//! | key | value |
//! | --- | --- |
//! | `job/<job>` | a [`JobRecord`] |
//! | `obs/<number>` | an [`Observation`] that isn't acknowledged; the number has 20 digits |
//! | `meta/acked` | number of the last acknowledged observation |
//! | `meta/fence` | a [`FenceRecord`] |

use std::{collections::BTreeMap, sync::Arc};

use api::{
    Span, Timestamp,
    wire::{Assignment, Observation},
    workload::{JobKey, StopReason},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Now;

/// A change of the agent's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces a record.
    Put {
        /// Its key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes a record, if it is there.
    Delete {
        /// Its key.
        key: String,
    },
}

impl Write {
    /// The key that it changes.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Records that can't be read: the data folder was written by another version, or is damaged.
#[derive(Debug, thiserror::Error)]
#[error("the agent's record {key:?} can't be read")]
pub struct LoadError {
    /// Which.
    pub key: String,
    /// Why.
    #[source]
    pub source: serde_json::Error,
}

/// A job as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobRecord {
    /// What was asked for; without orders to stop, with the ports that were picked.
    pub(super) assignment: Arc<Assignment>,
    /// `Pulling` was observed.
    #[serde(default)]
    pub(super) pulling: bool,
    /// Since when its process runs. `None`: it hasn't started.
    #[serde(default)]
    pub(super) started_at: Option<Timestamp>,
    /// When the agent learned of its start, by the clock that is never set. `None`: it hasn't.
    #[serde(default)]
    pub(super) started_mono: Option<Mono>,
    /// What was said of its readiness. `None`: nothing.
    #[serde(default)]
    pub(super) readiness: Option<ReadinessRecord>,
    /// The order to stop it. `None`: it may run.
    #[serde(default)]
    pub(super) stop: Option<StopRecord>,
    /// Its end has been observed. `None`: it hasn't ended.
    #[serde(default)]
    pub(super) ended: Option<EndRecord>,
    /// Number of the last line that the gateway has; written lazily, so it may be too small.
    #[serde(default)]
    pub(super) lines_acked: u64,
}

/// A time of the monotonic clock, which means something in its own boot of the machine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mono {
    boot: u64,
    ms: u64,
}

impl Mono {
    pub(super) fn of(now: Now) -> Self {
        Self {
            boot: now.boot,
            ms: now.mono_ms,
        }
    }

    /// The time on the clock as it counts now. `None`: it is of another boot, or of nobody knows which.
    pub(super) fn in_boot_of(self, now: Now) -> Option<u64> {
        (self.boot == now.boot && self.boot != 0 && self.ms <= now.mono_ms).then_some(self.ms)
    }
}

/// What was said last of a job's readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadinessRecord {
    pub(super) ready: bool,
    /// Why not. `None`: it is.
    #[serde(default)]
    pub(super) why: Option<String>,
    /// It was ready before, or is.
    pub(super) was_ready: bool,
    /// The observation's number.
    pub(super) number: u64,
}

/// An order to stop, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StopRecord {
    /// Why: the first order's reason.
    pub(super) reason: StopReason,
    /// When the first order came.
    pub(super) at: Timestamp,
    /// When its time is up, by the shortest grace so far.
    pub(super) kill_at: Timestamp,
    /// The shortest grace so far.
    pub(super) grace: Span,
}

/// An end, as it is kept; all that the gateway is told of it is in the observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndRecord {
    /// Number of the last line of its output, 0 for none.
    pub(super) last_line: u64,
}

/// What the fence's clock must remember over a restart of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FenceRecord {
    /// As the gateway said last.
    pub(super) fence: Span,
    /// As the gateway said last.
    pub(super) alone: bool,
    /// Monotonic time of the last sign of life that was acknowledged; written now and then.
    pub(super) alive_ms: u64,
    /// The boot that it counts from; 0: unknown.
    #[serde(default)]
    pub(super) boot: u64,
}

/// All records, read.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) jobs: BTreeMap<JobKey, JobRecord>,
    pub(super) observations: BTreeMap<u64, Observation>,
    pub(super) acked: u64,
    pub(super) fence: Option<FenceRecord>,
}

const JOB: &str = "job/";
const OBSERVATION: &str = "obs/";
const ACKED: &str = "meta/acked";
const FENCE: &str = "meta/fence";

impl Loaded {
    pub(super) fn read(records: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, LoadError> {
        let mut loaded = Self::default();
        for (key, value) in records {
            if key.starts_with(JOB) {
                let record: JobRecord = parse(&key, &value)?;
                loaded.jobs.insert(record.assignment.job.clone(), record);
            } else if key.starts_with(OBSERVATION) {
                let observation: Observation = parse(&key, &value)?;
                loaded.observations.insert(observation.number, observation);
            } else if key == ACKED {
                loaded.acked = parse(&key, &value)?;
            } else if key == FENCE {
                loaded.fence = Some(parse(&key, &value)?);
            }
        }
        Ok(loaded)
    }
}

/// A job that hadn't ended when its record was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Which.
    pub job: JobKey,
    /// What it runs in.
    pub image: String,
    /// Its engine is known to have had it in hand.
    pub begun: bool,
}

/// The jobs that haven't ended, by an agent's records.
///
/// # Errors
/// A record can't be read.
pub fn recorded(records: &[(String, Vec<u8>)]) -> Result<Vec<Recorded>, LoadError> {
    let jobs = Loaded::read(records.iter().cloned())?.jobs.into_values();
    let live = jobs.filter(|record| record.ended.is_none());
    Ok(live
        .map(|record| Recorded {
            job: record.assignment.job.clone(),
            image: record.assignment.image.clone(),
            begun: record.pulling || record.started_at.is_some(),
        })
        .collect())
}

fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(value).map_err(|source| LoadError {
        key: key.to_owned(),
        source,
    })
}

fn put(key: String, value: &impl Serialize) -> Write {
    // These types hold no maps with keys other than text and no fallible serializers.
    let value = serde_json::to_vec(value).unwrap_or_else(|error| unreachable!("a record can't be written: {error}"));
    Write::Put { key, value }
}

pub(super) fn put_job(record: &JobRecord) -> Write {
    put(format!("{JOB}{}", record.assignment.job), record)
}

pub(super) fn delete_job(job: &JobKey) -> Write {
    Write::Delete {
        key: format!("{JOB}{job}"),
    }
}

pub(super) fn put_observation(observation: &Observation) -> Write {
    put(format!("{OBSERVATION}{:020}", observation.number), observation)
}

pub(super) fn delete_observation(number: u64) -> Write {
    Write::Delete {
        key: format!("{OBSERVATION}{number:020}"),
    }
}

pub(super) fn put_acked(through: u64) -> Write {
    put(ACKED.to_owned(), &through)
}

pub(super) fn put_fence(fence: &FenceRecord) -> Write {
    put(FENCE.to_owned(), fence)
}
