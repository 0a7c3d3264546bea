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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Signal {
    /// Share of requests that failed, 0 to 1: status 5xx, or no answer at all.
    ErrorRate,
    /// A quantile of the time to answer, in seconds.
    Latency {
        /// In percent, above 0 and below 100.
        percentile: f64ord,
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
        /// PromQL; `$revision`, `$service` and `$namespace` stand for the judged revision.
        promql: String,
    },
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
