//! Samples over time.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::stats;

/// Samples of one metric of one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// One of [`crate::metric`].
    pub metric: Cow<'static, str>,
    /// Index of the GPU. `None`: it isn't about a GPU.
    #[serde(default)]
    pub gpu: Option<u32>,
    /// Disk, mount, interface or kind of counter. `None`: there is one only.
    #[serde(default)]
    pub device: Option<String>,
    /// Milliseconds since the epoch and value.
    pub points: Vec<(i64, f64)>,
}

impl Series {
    /// Samples that are about the whole node or workload.
    #[must_use]
    pub fn new(metric: &'static str, points: Vec<(i64, f64)>) -> Self {
        Self {
            metric: Cow::Borrowed(metric),
            gpu: None,
            device: None,
            points,
        }
    }

    /// The same, of a GPU.
    #[must_use]
    pub fn gpu(mut self, index: u32) -> Self {
        self.gpu = Some(index);
        self
    }

    /// The same, of a device.
    #[must_use]
    pub fn device(mut self, name: impl Into<String>) -> Self {
        self.device = Some(name.into());
        self
    }

    /// All values, oldest first.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        self.points.iter().map(|p| p.1).collect()
    }

    /// The newest sample.
    #[must_use]
    pub fn last(&self) -> Option<(i64, f64)> {
        self.points.last().copied()
    }

    /// Samples from a time on.
    #[must_use]
    pub fn since(&self, from_ms: i64) -> &[(i64, f64)] {
        &self.points[self.points.partition_point(|p| p.0 < from_ms)..]
    }

    /// Samples before a time.
    #[must_use]
    pub fn before(&self, to_ms: i64) -> &[(i64, f64)] {
        &self.points[..self.points.partition_point(|p| p.0 < to_ms)]
    }

    /// The middle value. `None` without samples.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        stats::median(&self.values())
    }

    /// The greatest sample.
    #[must_use]
    pub fn max(&self) -> Option<(i64, f64)> {
        self.points.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a })
    }

    /// Share of samples for which something holds, 0–1. `None` without samples.
    #[must_use]
    pub fn share(&self, holds: impl Fn(f64) -> bool) -> Option<f64> {
        if self.points.is_empty() {
            return None;
        }
        Some(self.points.iter().filter(|p| holds(p.1)).count() as f64 / self.points.len() as f64)
    }

    /// Time between first and last sample.
    #[must_use]
    pub fn span_ms(&self) -> i64 {
        match (self.points.first(), self.points.last()) {
            (Some(a), Some(b)) => b.0 - a.0,
            _ => 0,
        }
    }

    /// By how much a counter has grown. A fall is a restart of the counter and counts as nothing: what was counted
    /// between the restart and the next sample is lost rather than invented. `None` with fewer than two samples.
    #[must_use]
    pub fn increase(&self) -> Option<f64> {
        increase(&self.points)
    }
}

/// As [`Series::increase`], of part of the samples.
#[must_use]
pub fn increase(points: &[(i64, f64)]) -> Option<f64> {
    if points.len() < 2 {
        return None;
    }
    Some(points.windows(2).map(|w| (w[1].1 - w[0].1).max(0.0)).sum())
}

/// Series by metric, GPU and device; each sorted by time and without values that are no numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Series>", into = "Vec<Series>")]
pub struct SeriesSet(Vec<Series>);

impl From<Vec<Series>> for SeriesSet {
    fn from(mut all: Vec<Series>) -> Self {
        for series in &mut all {
            series.points.retain(|p| p.1.is_finite());
            if !series.points.is_sorted_by(|a, b| a.0 < b.0) {
                series.points.sort_by_key(|p| p.0);
                series.points.dedup_by_key(|p| p.0);
            }
        }
        all.retain(|s| !s.points.is_empty());
        all.sort_by(|a, b| (&a.metric, a.gpu, &a.device).cmp(&(&b.metric, b.gpu, &b.device)));
        Self(all)
    }
}

impl From<SeriesSet> for Vec<Series> {
    fn from(set: SeriesSet) -> Self {
        set.0
    }
}

impl SeriesSet {
    /// All, in order of metric, GPU and device.
    pub fn iter(&self) -> impl Iterator<Item = &Series> {
        self.0.iter()
    }

    /// All of a metric: they stand side by side.
    fn of(&self, metric: &str) -> &[Series] {
        let rest = &self.0[self.0.partition_point(|s| &*s.metric < metric)..];
        &rest[..rest.partition_point(|s| &*s.metric == metric)]
    }

    /// All of a metric.
    pub fn all<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = &'a Series> {
        self.of(metric).iter()
    }

    /// The one of a metric that is not about a GPU or device.
    #[must_use]
    pub fn get(&self, metric: &str) -> Option<&Series> {
        self.of(metric).iter().find(|s| s.gpu.is_none() && s.device.is_none())
    }

    /// The one of a metric and GPU.
    #[must_use]
    pub fn of_gpu(&self, metric: &str, gpu: u32) -> Option<&Series> {
        self.of(metric).iter().find(|s| s.gpu == Some(gpu))
    }

    /// The one of a metric and device.
    #[must_use]
    pub fn of_device(&self, metric: &str, device: Option<&str>) -> Option<&Series> {
        self.of(metric).iter().find(|s| s.device.as_deref() == device)
    }

    /// GPUs that anything is known about.
    #[must_use]
    pub fn gpus(&self) -> BTreeSet<u32> {
        self.0.iter().filter_map(|s| s.gpu).collect()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same, of samples in `[from_ms, to_ms]` only.
    #[must_use]
    pub fn between(&self, from_ms: i64, to_ms: i64) -> Self {
        let cut = |s: &Series| {
            let end = s.points.partition_point(|p| p.0 <= to_ms);
            let from = s.points.partition_point(|p| p.0 < from_ms).min(end);
            Series {
                metric: s.metric.clone(),
                gpu: s.gpu,
                device: s.device.clone(),
                points: s.points[from..end].to_vec(),
            }
        };
        Self(self.0.iter().map(cut).filter(|s| !s.points.is_empty()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_sorted_and_holds_numbers_only() {
        let set = SeriesSet::from(vec![
            Series::new("b", vec![(2, 1.0), (1, f64::NAN), (0, 3.0)]),
            Series::new("a", vec![(0, f64::INFINITY)]),
            Series::new("a", vec![(0, 1.0)]).gpu(1),
        ]);
        assert_eq!(set.iter().map(|s| &*s.metric).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(set.get("b").unwrap().points, [(0, 3.0), (2, 1.0)]);
        assert!(set.get("a").is_none(), "the only value was no number");
    }

    #[test]
    fn a_counter_that_falls_has_restarted() {
        let series = |v: &[f64]| Series::new("c", v.iter().enumerate().map(|(i, v)| (i as i64, *v)).collect());
        assert_eq!(series(&[10.0, 12.0, 3.0, 4.0]).increase(), Some(3.0));
        assert_eq!(series(&[10.0]).increase(), None);
    }

    #[test]
    fn a_set_is_read_back_from_json() {
        let set = SeriesSet::from(vec![Series::new("a", vec![(1, 2.0)]).gpu(3)]);
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<SeriesSet>(&text).unwrap(), set);
    }
}
