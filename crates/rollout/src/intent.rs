//! What a sentence asks for, as far as the sentence itself says: a grammar of clauses in any order. A word that is no
//! part of it is refused, with the nearest that is; nothing is guessed.
//!
//! A sentence is cut into tokens, the tokens are read as clauses, and the clauses are put together into one
//! [`Intent`] or found to contradict each other.

mod amount;
mod clause;
mod condition;
mod draft;
mod grammar;
mod guide;
mod misread;
mod moment;
mod promotion;
mod reading;
mod resource;
mod setting;
mod strategy;
mod token;
mod value;
mod verb;
mod vocabulary;
mod words;
mod write;

pub use guide::GUIDE;
pub use misread::Misread;
pub use reading::{Reading, read, read_about};
pub use write::condition as written_condition;

use api::{
    Cpu, DeploymentId, Size, Span, Timestamp,
    deploy::{Condition, Load, Strategy},
    workload::{EnvVar, Priority},
};
use serde::{Deserialize, Serialize};

/// What a sentence asks for. `None` and empty mean that the sentence says nothing about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// What is to be done.
    pub verb: Verb,
    /// The service or batch job.
    pub target: String,
    /// What the new revision is called: `v2.1`.
    pub version: Option<String>,
    /// What the revision that is replaced is said to be called: "from v1 to v2". To be checked against what is there.
    pub from_version: Option<String>,
    /// The image.
    pub image: Option<String>,
    /// Its command, split into words.
    pub command: Vec<String>,
    /// How many replicas.
    pub replicas: Option<Amount<u32>>,
    /// Never fewer replicas.
    pub min_replicas: Option<u32>,
    /// Never more replicas.
    pub max_replicas: Option<u32>,
    /// What the number of replicas follows, and the load of a replica that is aimed at.
    pub follow: Option<(Load, f64)>,
    /// GPUs of each replica.
    pub gpus: Option<Amount<u32>>,
    /// Model of the GPUs.
    pub gpu_model: Option<String>,
    /// Least memory of each GPU.
    pub gpu_memory: Option<Size>,
    /// Memory of each replica.
    pub memory: Option<Amount<Size>>,
    /// CPU of each replica.
    pub cpu: Option<Amount<Cpu>>,
    /// Place in the queue.
    pub priority: Option<Priority>,
    /// "timeout 48h".
    pub timeout: Option<Span>,
    /// Environment that is set.
    pub env: Vec<EnvVar>,
    /// The port that replicas listen on.
    pub port: Option<u16>,
    /// The namespace.
    pub namespace: Option<String>,
    /// How the new revision takes the old one's place.
    pub strategy: Option<Strategy>,
    /// Percentages of a canary, ascending: "canary 10% then 50%".
    pub canary_steps: Vec<f64>,
    /// Part of the replicas that is replaced at once: "20% at a time", "one at a time".
    pub batch: Option<Batch>,
    /// Rest between batches: "waiting 1m between".
    pub pause_between: Option<Span>,
    /// It goes on by itself after this time.
    pub promote_after: Option<Span>,
    /// It goes on by itself if these hold.
    pub promote_if: Vec<Condition>,
    /// It waits for a person before it goes on.
    pub promote_by_hand: bool,
    /// The revision before comes back if one of these holds.
    pub rollback_if: Vec<Condition>,
    /// How long a blue-green deployment keeps the old set.
    pub keep_old_for: Option<Span>,
    /// How careful it is to be.
    pub care: Option<Care>,
    /// When it begins.
    pub when: Option<When>,
    /// "job", "batch": runs once, to its end.
    pub batch_job: bool,
    /// Which revision is gone back to. `None`: the last good one.
    pub back_to: Option<String>,
    /// Why, in the sentence's own words: "because errors went up".
    pub reason: Option<String>,
}

impl Intent {
    /// One that says nothing but what is to be done with what.
    #[must_use]
    pub fn new(verb: Verb, target: impl Into<String>) -> Self {
        Self {
            verb,
            target: target.into(),
            version: None,
            from_version: None,
            image: None,
            command: Vec::new(),
            replicas: None,
            min_replicas: None,
            max_replicas: None,
            follow: None,
            gpus: None,
            gpu_model: None,
            gpu_memory: None,
            memory: None,
            cpu: None,
            priority: None,
            timeout: None,
            env: Vec::new(),
            port: None,
            namespace: None,
            strategy: None,
            canary_steps: Vec::new(),
            batch: None,
            pause_between: None,
            promote_after: None,
            promote_if: Vec::new(),
            promote_by_hand: false,
            rollback_if: Vec::new(),
            keep_old_for: None,
            care: None,
            when: None,
            batch_job: false,
            back_to: None,
            reason: None,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Make it, or give it another revision.
    Deploy,
    /// Give what is there another revision, or other resources.
    Update,
    /// Change the number of replicas or its bounds.
    Scale,
    /// Go back to an earlier revision.
    Rollback,
    /// Give up the deployment under way, and go back.
    Abort,
    /// Start the replicas anew, as they are.
    Restart,
}

/// A number, or a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Amount<T> {
    /// So many.
    To(T),
    /// So many more.
    More(T),
    /// So many fewer.
    Fewer(T),
    /// Times this: 2 for "double", 0.5 for "halve".
    Times(f64),
}

/// How many replicas are replaced at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batch {
    /// So many.
    Count(u32),
    /// This part, in percent.
    Percent(f64),
    /// So many in the place of those that they replace: so many fewer are ready meanwhile, and none exists beyond those asked
    /// for.
    Fewer(u32),
    /// The same, in percent.
    FewerPercent(f64),
}

/// Everyday words for how careful it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Care {
    /// "safely", "carefully": a canary with conditions.
    Safely,
    /// "slowly", "gradually": one at a time, with rests.
    Slowly,
    /// "urgent", "quickly": as many at once as can be done without losing a healthy replica.
    Quickly,
    /// "emergency": as `Quickly`, at high priority.
    Emergency,
}

/// When it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// At this moment, said in this zone.
    At {
        /// The moment.
        time: Timestamp,
        /// The zone's name, as `Europe/Berlin` or `UTC`.
        zone: String,
    },
    /// When this deployment is complete.
    After(DeploymentId),
}
