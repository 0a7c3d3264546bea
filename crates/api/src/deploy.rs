//! Deployments: services of replicas, their revisions, and the ways from one revision to the next.
//!
//! A *service* is what lives on: a name, its revisions, its replicas, its address. A *deployment* is one change of it,
//! from a sentence to its end. A [`Plan`] is what a deployment will do, in numbers; it is shown, and then applied as it
//! was shown.

use std::{collections::BTreeMap, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    DeploymentId, NodeName, Size, Span, Timestamp, WorkloadId,
    workload::{Priority, WorkloadSpec},
};

/// What a deployment does to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Makes a service or a batch job, or gives a service another revision.
    Deploy,
    /// Gives a service that is there another revision.
    Update,
    /// Changes how many replicas there are, or the bounds between which that is decided.
    Scale,
    /// Goes back to an earlier revision.
    Rollback,
}

impl Action {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Update => "update",
            Self::Scale => "scale",
            Self::Rollback => "rollback",
        }
    }
}

/// How one revision takes another's place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// A part of the replicas and requests first, the rest when it has proven itself.
    Canary,
    /// A whole second set, then one switch.
    BlueGreen,
    /// A few at a time.
    #[default]
    Rolling,
    /// All of the old are stopped, then the new are started.
    Immediate,
}

impl Strategy {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::BlueGreen => "blue-green",
            Self::Rolling => "rolling",
            Self::Immediate => "immediate",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a measured value is compared with a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Comparison {
    /// `>`
    #[serde(rename = ">")]
    Above,
    /// `>=`
    #[serde(rename = ">=")]
    AtLeast,
    /// `<`
    #[serde(rename = "<")]
    Below,
    /// `<=`
    #[serde(rename = "<=")]
    AtMost,
}

impl Comparison {
    /// As it is written.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
        }
    }

    /// Whether `value` compares so with `threshold`. `NaN` never does.
    #[must_use]
    pub fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Above => value > threshold,
            Self::AtLeast => value >= threshold,
            Self::Below => value < threshold,
            Self::AtMost => value <= threshold,
        }
    }
}

/// What a condition looks at, of one revision over a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Signal {
    /// Share of requests that failed, 0 to 1: status 5xx, or no answer at all.
    ErrorRate,
    /// A quantile of the time to answer, in seconds.
    Latency {
        /// In percent, above 0 and below 100.
        percentile: f64,
    },
    /// Requests per second.
    RequestRate,
    /// Whether its replicas are ready and stay so: 1 or 0.
    Healthy,
    /// Starts anew of its replicas in the window.
    Restarts,
    /// A metric of the catalogue, or one that the workload reports itself: the mean over its replicas.
    Metric {
        /// As `metrics` names it.
        name: String,
    },
    /// What a query at the configured Prometheus answers.
    Query {
        /// PromQL; `$revision`, `$service` and `$namespace` stand for the judged revision. Without `$revision` it is about all
        /// revisions together.
        promql: String,
    },
}

impl Signal {
    /// Whether it is measured on requests, and so needs a port through which they come.
    #[must_use]
    pub const fn of_requests(&self) -> bool {
        matches!(self, Self::ErrorRate | Self::Latency { .. } | Self::RequestRate)
    }

    /// Whether it says something else of each revision: everything but a query that doesn't name `$revision`.
    #[must_use]
    pub fn of_one_revision(&self) -> bool {
        !matches!(self, Self::Query { promql } if !promql.contains("$revision"))
    }
}

/// As a person would say it: `error rate`, `p95 latency`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ErrorRate => f.write_str("error rate"),
            Self::Latency { percentile } => write!(f, "p{} latency", rounded(*percentile)),
            Self::RequestRate => f.write_str("request rate"),
            Self::Healthy => f.write_str("health"),
            Self::Restarts => f.write_str("restarts"),
            Self::Metric { name } => f.write_str(name),
            Self::Query { promql } => write!(f, "query '{promql}'"),
        }
    }
}

/// Without what binary fractions add: 7, not 7.000000000000001.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A bound on a signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is looked at.
    pub metric: Signal,
    /// How it is compared.
    pub operator: Comparison,
    /// The bound, in the signal's unit: 0.01 for 1 % of requests, seconds for latency.
    pub threshold: f64,
    /// How much of the past is looked at. `None`: as long as the step under way has lasted, at most an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Span>,
}

impl Condition {
    /// A value of its signal with its unit: `1.5 %`, `200 ms`, `3`.
    #[must_use]
    pub fn value(&self, value: f64) -> String {
        match self.metric {
            Signal::ErrorRate => format!("{} %", rounded(value * 100.0)),
            Signal::Latency { .. } if value.abs() < 1.0 => format!("{} ms", rounded(value * 1000.0)),
            Signal::Latency { .. } => format!("{} s", rounded(value)),
            Signal::RequestRate => format!("{} requests/s", rounded(value)),
            Signal::Healthy | Signal::Restarts | Signal::Metric { .. } | Signal::Query { .. } => {
                rounded(value).to_string()
            }
        }
    }
}

/// As a person would say it: `error rate > 1 % over 5m`, `healthy`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.metric == Signal::Healthy {
            let healthy = self.operator.holds(1.0, self.threshold);
            f.write_str(if healthy { "healthy" } else { "unhealthy" })?;
        } else {
            let (sign, bound) = (self.operator.sign(), self.value(self.threshold));
            write!(f, "{} {sign} {bound}", self.metric)?;
        }
        match self.window {
            Some(window) => write!(f, " over {window}"),
            None => Ok(()),
        }
    }
}

/// The steps of a canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Part of the requests of the first step, in percent.
    pub percentage: f64,
    /// Replicas of the new revision in the first step, at least 1.
    pub effective_replicas: u32,
    /// The steps before all is given over, with growing percentages.
    pub steps: Vec<CanaryStep>,
    /// Whether it goes on by itself once the analysis passes; otherwise it waits for `deploy promote`.
    pub auto_promote: bool,
    /// How long each step lasts at least before it can be promoted. `None`: until the analysis passes.
    pub promote_after: Option<Span>,
    /// All of these must pass for it to go on by itself.
    pub promote_conditions: Vec<Condition>,
    /// One of these breached brings the old revision back. The same as the plan's.
    pub rollback_conditions: Vec<Condition>,
}

/// One step of a canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStep {
    /// Part of the requests, in percent, above 0 and below 100.
    pub percentage: f64,
    /// Replicas of the new revision, at least 1.
    pub replicas: u32,
    /// The part of all replicas that this is, in percent: what requests see where nothing is proxied.
    pub effective_percentage: f64,
}

/// A whole second set and one switch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreen {
    /// How long the new set must have been ready as a whole before the switch.
    pub check_for: Span,
    /// Whether it switches by itself; otherwise it waits for `deploy promote`.
    pub auto_switch: bool,
    /// How long the old set is kept after the switch, so that going back is instant.
    pub keep_old_for: Span,
}

/// A few at a time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rolling {
    /// So many fewer than asked for may be ready meanwhile.
    pub max_unavailable: u32,
    /// So many more than asked for may exist meanwhile. Not 0 together with `max_unavailable`.
    pub max_surge: u32,
    /// Rest between batches.
    pub pause_between: Span,
}

/// When a deployment begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// The moment. `None`: `after` says.
    pub at: Option<Timestamp>,
    /// The zone in which the moment was said.
    pub timezone: Option<String>,
    /// The deployment that must be complete first.
    pub after: Option<DeploymentId>,
}

/// What replicas ask for, in short.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// GPUs of each replica.
    pub gpus: u32,
    /// Their model. `None`: any.
    pub gpu_type: Option<String>,
    /// Memory of each replica. `None`: no limit.
    pub memory: Option<Size>,
    /// CPU of each replica. `None`: no limit.
    pub cpu: Option<crate::Cpu>,
}

/// What replicas are marked with, as a manifest gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Marks {
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Marks {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// What an autoscaler follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Load {
    /// CPU used, of what a replica asks for (of one core where it asks for none), in percent.
    Cpu,
    /// Utilization of its GPUs, in percent.
    Gpu,
    /// Requests per second and replica.
    RequestRate,
    /// Requests under way or waiting, per replica.
    Queue,
}

/// As a person would say it.
impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "CPU use",
            Self::Gpu => "GPU use",
            Self::RequestRate => "requests per second and replica",
            Self::Queue => "requests under way per replica",
        })
    }
}

/// Bounds between which the number of replicas follows the load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Autoscale {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// What is followed. `None`: only the bounds are kept.
    pub load: Option<Load>,
    /// The load of a replica that is aimed at, in the unit of `load`.
    pub target: f64,
}

/// Something that a plan changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What: `image`, `memory`, `replicas`, ….
    pub field: String,
    /// As it is. `None`: there is none yet.
    pub from: Option<String>,
    /// As it will be.
    pub to: String,
}

/// Where a replica would go now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedReplica {
    /// The node. `None`: it would wait.
    pub node: Option<NodeName>,
    /// Why it would wait.
    pub why: Option<String>,
}

/// What a plan stands on. It begins on nothing else, however long it waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Basis {
    /// The revision of which it is a change: the one that was on its way, otherwise the stable one. `None`: there was none.
    pub revision: Option<u32>,
    /// Where its number of replicas comes from.
    pub replicas: Numbers,
    /// Where its bounds of that come from.
    pub bounds: Numbers,
}

/// Where a plan's numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Numbers {
    /// The sentence says them.
    Said,
    /// The sentence says by how much they change: they stand on this number.
    ChangeOf(u32),
    /// They are the service's, and stay what the service has when it begins.
    Kept,
}

/// What a deployment will do, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What is done.
    pub action: Action,
    /// The service's or batch job's name.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether it is a batch job: runs once, to its end.
    pub batch: bool,
    /// As it is called. `None`: it has no name but its revision's number.
    pub version: Option<String>,
    /// The image. Empty: it isn't known (see `missing`).
    pub image: String,
    /// How many replicas there will be.
    pub replicas: u32,
    /// What each asks for.
    pub resources: Resources,
    /// Place in the queue.
    pub priority: Priority,
    /// Of the deployment, for a service: it must be done by then. Of the job itself, for a batch job; `None`: no limit.
    pub timeout: Option<Span>,
    /// How the new revision takes the old one's place.
    pub strategy: Strategy,
    /// Of a canary.
    pub canary: Option<Canary>,
    /// Of a blue-green deployment.
    pub blue_green: Option<BlueGreen>,
    /// Of a rolling one; also how a canary goes on when it is promoted, and how a service goes back.
    pub rolling: Rolling,
    /// One of these breached brings the old revision back; watched as long as the deployment lasts.
    pub rollback_conditions: Vec<Condition>,
    /// Bounds of the number of replicas. `None`: it is fixed.
    pub autoscale: Option<Autoscale>,
    /// When it begins. `None`: at once.
    pub schedule: Option<Schedule>,
    /// What each replica runs.
    pub spec: Arc<WorkloadSpec>,
    /// What each replica is marked with.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
    /// The earlier revision that is gone back to. `None`: a new one is made, or none changes.
    pub to_revision: Option<u32>,
    /// What it stands on. `None`: a batch job's, which stands on nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// What changes.
    pub changes: Vec<Change>,
    /// What will happen, a sentence each.
    pub steps: Vec<String>,
    /// Where the replicas of the new revision would go now.
    pub placement: Vec<PlannedReplica>,
    /// What is odd or dangerous about it.
    pub warnings: Vec<String>,
    /// What must be there and isn't: an image, GPUs, a secret. Not empty: it can't be applied.
    pub missing: Vec<String>,
    /// Stands for this plan on the present state: applying names it, and is refused where the plan would be another by
    /// then.
    pub digest: String,
}

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It waits for its time, or for another.
    Pending,
    /// Replicas are replaced, added or taken away, forward or back.
    Rolling,
    /// A part of the requests goes to the new revision, and is judged.
    Canary,
    /// The new revision was found good and takes over.
    Promoting,
    /// It waits for a person.
    Paused,
    /// Done.
    Complete,
    /// It ended without what was asked for, and nothing could be put back, or there was nothing to go back to.
    Failed,
    /// The revision before is back.
    RolledBack,
}

impl Phase {
    /// Whether nothing can follow.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::RolledBack)
    }

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Rolling => "rolling",
            Self::Canary => "canary",
            Self::Promoting => "promoting",
            Self::Paused => "paused",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What an analysis says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The condition holds, as far as the samples can tell.
    Pass,
    /// It is breached.
    Fail,
    /// There are too few samples to tell. Never promotes, never rolls back.
    Insufficient,
    /// The samples couldn't be had, or make no sense. Never promotes, never rolls back.
    Error,
}

/// Whether a condition is for going on or for going back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Going on needs it.
    Promote,
    /// Where it holds, the old revision comes back.
    Rollback,
}

/// What one revision showed over a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Requests, or samples of a metric, that it stands on.
    pub count: u64,
    /// Of them, those that failed; of a latency, those that took longer than the condition's bound, where they were
    /// counted. `None`: failure means nothing here.
    pub failed: Option<u64>,
    /// The value. `None`: there is none.
    pub value: Option<f64>,
}

/// All that a verdict stands on: judging it again gives the same verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The condition.
    pub condition: Condition,
    /// What it is for.
    pub purpose: Purpose,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// What was asked, of what.
    pub query: String,
    /// The new revision.
    pub subject: Sample,
    /// The stable one over the same window. `None`: there is none, or it has no share of the work.
    pub baseline: Option<Sample>,
    /// Why the samples couldn't be had.
    pub error: Option<String>,
}

/// What was found when a condition was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// When.
    pub at: Timestamp,
    /// What was found. For a [`Purpose::Rollback`] condition, `Fail` means that it is breached.
    pub outcome: Outcome,
    /// The sentence, with its numbers.
    pub message: String,
    /// How it was judged.
    pub method: String,
    /// What it stands on.
    pub evidence: Evidence,
}

/// Whether a revision has proven itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Not yet.
    New,
    /// It was rolled out whole.
    Good,
    /// It was rolled back, or couldn't be rolled out.
    Bad,
}

/// One of a service's revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// From 1.
    pub number: u32,
    /// As it is called. `None`: it has no name but its number.
    pub version: Option<String>,
    /// What a replica of it runs.
    pub spec: Arc<WorkloadSpec>,
    /// What a replica of it is marked with.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// The deployment that made it.
    pub deployment: DeploymentId,
    /// Whether it has proven itself.
    pub standing: Standing,
}

/// One of a service's replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// The workload that it is.
    pub workload: WorkloadId,
    /// Of which revision.
    pub revision: u32,
    /// Since when it is asked for.
    pub since: Timestamp,
    /// Since when it gets no new requests, because it is to end. `None`: it is wanted.
    pub retiring: Option<Timestamp>,
    /// When it was told to end. `None`: not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Timestamp>,
}

/// How often replicas of a revision ended by themselves of late, and the rest before the next one is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Setback {
    /// So many ended, without the revision having been whole and well for a while in between.
    pub failures: u32,
    /// No other is started before.
    pub until: Timestamp,
}

/// How a service is reached: a port of the gateway, which leads to the first port that each replica declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// The port of the gateway.
    pub port: u16,
    /// What is spoken there.
    pub protocol: ServiceProtocol,
}

/// What is spoken at a service's port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceProtocol {
    /// HTTP/1.1 and HTTP/2: balanced, counted and weighted by request.
    #[default]
    Http,
    /// Anything else over TCP: by connection.
    Tcp,
}

impl ServiceProtocol {
    /// What replicas speak at their first port: TCP where its name says so (`tcp`, `tcp-…`), else HTTP.
    #[must_use]
    pub fn of(spec: &WorkloadSpec) -> Self {
        let named = |name: &str| name == "tcp" || name.starts_with("tcp-");
        match spec.ports.first() {
            Some(port) if named(&port.name) => Self::Tcp,
            _ => Self::Http,
        }
    }
}

/// A service as the gateway keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its name; unique in its namespace, among workloads too.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Who made it.
    pub owner: String,
    /// When.
    pub created_at: Timestamp,
    /// Its revisions, oldest first; the oldest that nothing needs are dropped past [`REVISIONS_MAX`].
    pub revisions: Vec<Revision>,
    /// The revision that is known to be good: the way back. `None`: none yet.
    pub stable: Option<u32>,
    /// How many replicas are wanted.
    pub replicas: u32,
    /// Its replicas, those that retire included.
    pub members: Vec<Replica>,
    /// Which share of the requests each revision gets; the shares are relative.
    pub weights: BTreeMap<u32, u32>,
    /// How it is reached. `None`: its replicas declare no port.
    pub port: Option<ServicePort>,
    /// The deployment under way. `None`: none.
    pub deployment: Option<DeploymentId>,
    /// Bounds of the number of replicas. `None`: it is fixed.
    pub autoscale: Option<Autoscale>,
    /// By revision: replicas that ended by themselves, and when others may be started in their place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub setbacks: BTreeMap<u32, Setback>,
}

/// Which way a deployment goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "to")]
pub enum Course {
    /// To what was asked for.
    Forward,
    /// Back to the revision before.
    Back {
        /// Why.
        why: String,
        /// Who or what decided so.
        by: String,
        /// Whether replicas are stopped without waiting for their requests.
        immediate: bool,
    },
}

/// Why a deployment waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Who or what holds it.
    pub by: String,
    /// Why.
    pub why: String,
    /// Since when.
    pub at: Timestamp,
}

/// A person's word that a deployment may go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Promotion {
    /// Whose.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Up to this part of the requests, in percent. `None`: all the way.
    pub percentage: Option<f64>,
    /// Although an analysis fails or can't tell.
    pub force: bool,
}

/// Something that happened in a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// Where it stood then.
    pub phase: Phase,
    /// The sentence.
    pub message: String,
    /// Who or what did it.
    pub actor: String,
}

/// A deployment as the gateway keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// Its namespace.
    pub namespace: String,
    /// What was asked for, as it was said.
    pub intent: String,
    /// The model that read it. `None`: the grammar did.
    pub read_by: Option<String>,
    /// What it does.
    pub plan: Arc<Plan>,
    /// Who asked for it.
    pub by: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it began. `None`: it waits for its time.
    pub started_at: Option<Timestamp>,
    /// When it ended. `None`: not yet.
    pub finished_at: Option<Timestamp>,
    /// Where it stands.
    pub phase: Phase,
    /// What it is about just now, or how it ended.
    pub message: Option<String>,
    /// What went wrong.
    pub error: Option<crate::ApiError>,
    /// The revision that it brings in. `None`: none, or not begun.
    pub revision: Option<u32>,
    /// The revision that was stable when it began: the way back. `None`: there was none.
    pub from: Option<u32>,
    /// Replicas that were wanted when it began.
    pub replicas_before: u32,
    /// Which way it goes.
    pub course: Course,
    /// The step under way, from 0, in the strategy's count.
    pub step: u32,
    /// Since when everything that the step needs is there. `None`: not yet.
    pub step_since: Option<Timestamp>,
    /// When the last batch was whole: the rest between batches counts from here.
    pub moved_at: Option<Timestamp>,
    /// Replicas of the new revision that were ready then.
    #[serde(default)]
    pub moved: u32,
    /// The canary's steps as they are now: the plan's, and those that a person put in. Empty: it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary_steps: Vec<CanaryStep>,
    /// By when it must be done: the plan's time and the waits that the plan itself asks for. Going back has a time of its
    /// own. Time on hold doesn't count. `None`: not begun, or no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Whether replicas are stopped on the way forward without waiting for their requests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immediate: bool,
    /// Why it waits for a person. `None`: it doesn't.
    pub hold: Option<Hold>,
    /// A person's word that it may go on, until it is acted upon.
    pub promotion: Option<Promotion>,
    /// Who promoted a canary all the way by force: what can't be told doesn't hold it any more; what is breached still brings
    /// the old revision back. `None`: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouched: Option<String>,
    /// The latest verdict of each condition, and those that decided something, oldest first; at most [`VERDICTS_MAX`].
    pub verdicts: Vec<Verdict>,
    /// What happened, oldest first; at most [`MOMENTS_MAX`].
    pub timeline: Vec<Moment>,
    /// The batch job that it submitted. `None`: a service's, or not begun.
    pub job: Option<WorkloadId>,
}

/// Verdicts kept with a deployment.
pub const VERDICTS_MAX: usize = 40;

/// Moments kept with a deployment.
pub const MOMENTS_MAX: usize = 100;

/// Revisions kept with a service.
pub const REVISIONS_MAX: usize = 20;

impl Service {
    /// One of its revisions.
    #[must_use]
    pub fn revision(&self, number: u32) -> Option<&Revision> {
        self.revisions.iter().find(|revision| revision.number == number)
    }

    /// The revision known to be good.
    #[must_use]
    pub fn stable(&self) -> Option<&Revision> {
        self.stable.and_then(|number| self.revision(number))
    }
}
