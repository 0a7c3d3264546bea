//! Requests and answers about metrics.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Span, Timestamp,
    metric::{Aggregate, Kind, Scope},
};

/// Which numbers are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricsRequest {
    /// The metric: `gpu.temperature`, or a workload's own, `custom.loss`.
    pub name: String,
    /// Only of this node: its name or the beginning of it.
    pub node: Option<String>,
    /// Only of this workload: id, name, or the beginning of either. Of a metric of GPUs or nodes, what its own GPUs
    /// and its nodes showed while it had them.
    pub workload: Option<String>,
    /// The namespace of the workload's name.
    pub namespace: Option<String>,
    /// Only of the GPU with this index.
    pub gpu: Option<u32>,
    /// From when. `null`: an hour before `to`.
    pub from: Option<Timestamp>,
    /// Until when. `null`: now.
    pub to: Option<Timestamp>,
    /// Time between points. `null`: one that gives about 120 points.
    pub step: Option<Span>,
    /// What becomes of the values between two points, and of all together. `null`: what the metric is best told by.
    pub aggregate: Option<Aggregate>,
    /// Most series in the answer: those with the largest values (smallest for `min`). `null`: all.
    pub limit: Option<u32>,
}

/// Numbers over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsAnswer {
    /// The metric.
    pub metric: String,
    /// Unit of all values; empty where a workload didn't name one.
    pub unit: String,
    /// Beginning of the range.
    pub from: Timestamp,
    /// End of the range.
    pub to: Timestamp,
    /// Time between points.
    pub step: Span,
    /// What each point was made from: samples as they were taken, or kept five-minute values where those are gone.
    pub resolution: Resolution,
    /// All series of the answer and those left out, as one.
    pub aggregate: Aggregated,
    /// By labels.
    pub series: Vec<MetricSeries>,
    /// Series that `limit` left out.
    pub left_out: u32,
    /// What must be known to read it right; usually empty.
    pub notes: Vec<String>,
}

/// What points are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Resolution {
    /// Samples as they were taken.
    Raw,
    /// Minimum, mean, maximum and count of each five minutes.
    #[serde(rename = "5m")]
    FiveMinutes,
}

/// Many values as one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Aggregated {
    /// How.
    pub function: Aggregate,
    /// The one value. `null`: nothing was measured.
    pub value: Option<f64>,
}

/// One series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricSeries {
    /// What tells it from others: node, gpu, workload, …
    pub labels: BTreeMap<String, String>,
    /// The aggregate over the range.
    pub value: Option<f64>,
    /// Smallest sample.
    pub min: Option<f64>,
    /// Mean of the samples.
    pub avg: Option<f64>,
    /// Largest sample.
    pub max: Option<f64>,
    /// Latest sample.
    pub last: Option<f64>,
    /// Time and value, oldest first. Steps without a sample have no point.
    pub points: Vec<(Timestamp, f64)>,
}

/// A metric that there is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricInfo {
    /// Its name.
    pub name: String,
    /// Its name at `/metrics`, for Prometheus.
    pub prometheus: String,
    /// Unit of its values; empty where a workload didn't name one.
    pub unit: String,
    /// How it moves.
    pub kind: Kind,
    /// What it is about.
    pub scope: Scope,
    /// Series that are kept of it now.
    pub series: u32,
    /// What it tells.
    pub help: String,
}

/// What is kept of metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsUsage {
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Most bytes that it may take. `null`: no bound.
    pub max_bytes: Option<u64>,
    /// Series.
    pub series: u64,
    /// The oldest sample. `null`: there is none.
    pub oldest: Option<Timestamp>,
    /// Samples that weren't kept since the gateway's start, by reason.
    pub dropped: BTreeMap<String, u64>,
}
