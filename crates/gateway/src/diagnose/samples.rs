//! Samples as the diagnosis wants them: the one place where the catalogue's series become the diagnosis' own.
//!
//! Names and units are the same on both sides (a test holds them to it); labels become numbers of GPUs and names of
//! devices.

use std::collections::HashMap;

use api::{
    ApiError,
    metric::{self, Aggregate, Kind, Unit, label},
};
use diagnosis::{Series, SeriesSet, metric as wanted};
use telemetry::metrics::{Aggregate as Kept, Labels, Matcher, MetricError, MetricStore};

use crate::metrics::store_failed;

/// Metrics of GPUs that are judged.
pub(super) const OF_GPUS: &[&str] = &[
    wanted::GPU_UP,
    wanted::GPU_UTILIZATION,
    wanted::GPU_MEMORY_USED,
    wanted::GPU_MEMORY_TOTAL,
    wanted::GPU_MEMORY_BANDWIDTH,
    wanted::GPU_TEMPERATURE,
    wanted::GPU_TEMPERATURE_SLOWDOWN,
    wanted::GPU_TEMPERATURE_SHUTDOWN,
    wanted::GPU_POWER,
    wanted::GPU_POWER_LIMIT,
    wanted::GPU_CLOCK_SM,
    wanted::GPU_CLOCK_MEMORY,
    wanted::GPU_FAN,
    wanted::GPU_PCIE_RX,
    wanted::GPU_PCIE_TX,
    wanted::GPU_PCIE_REPLAYS,
    wanted::GPU_PCIE_GENERATION,
    wanted::GPU_PCIE_WIDTH,
    wanted::GPU_NVLINK_RX,
    wanted::GPU_NVLINK_TX,
    wanted::GPU_NVLINK_ERRORS,
    wanted::GPU_ECC_CORRECTED,
    wanted::GPU_ECC_UNCORRECTED,
    wanted::GPU_REMAP_UNCORRECTED,
    wanted::GPU_REMAP_PENDING,
    wanted::GPU_REMAP_FAILED,
    wanted::GPU_THROTTLE,
];

/// Metrics of machines that are judged.
pub(super) const OF_NODES: &[&str] = &[
    wanted::CLOCK_OFFSET,
    wanted::CPU_USAGE,
    wanted::CPU_LOAD1,
    wanted::MEMORY_USAGE,
    wanted::MEMORY_TOTAL,
    wanted::SWAP_USED,
    wanted::SWAP_IN,
    wanted::SWAP_OUT,
    wanted::PRESSURE_CPU,
    wanted::PRESSURE_MEMORY,
    wanted::PRESSURE_MEMORY_FULL,
    wanted::PRESSURE_IO,
    wanted::DISK_USED,
    wanted::DISK_TOTAL,
    wanted::DISK_INODES_USED,
    wanted::DISK_INODES_TOTAL,
    wanted::DISK_THROUGHPUT,
    wanted::NETWORK_THROUGHPUT,
    wanted::NETWORK_ERRORS,
];

/// A part of time, and how finely it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from_ms: i64,
    /// Not included.
    pub(super) to_ms: i64,
    /// Time between two points.
    pub(super) step_ms: i64,
}

impl Stretch {
    /// The time up to `to_ms`, in at most 360 steps of 10 s at least: as fine as nodes measure by default.
    pub(super) fn before(to_ms: i64, length_ms: i64) -> Self {
        let step_ms = (length_ms / 360).div_euclid(10_000).max(1) * 10_000;
        Self {
            from_ms: to_ms - length_ms,
            to_ms: to_ms + 1,
            step_ms,
        }
    }

    /// The time before, five minutes a step, on whole ones: so that kept five-minute values answer where samples are
    /// gone.
    pub(super) fn past(self, length_ms: i64) -> Self {
        const STEP_MS: i64 = 300_000;
        let to_ms = self.from_ms.div_euclid(STEP_MS) * STEP_MS;
        Self {
            from_ms: (to_ms - length_ms).div_euclid(STEP_MS) * STEP_MS,
            to_ms,
            step_ms: STEP_MS,
        }
    }
}

/// What becomes of several samples of a step: of sets of bits and of counters the newest, since neither can be averaged.
fn kept(name: &str) -> Kept {
    let Some(metric) = metric::find(name) else {
        return Kept::Avg;
    };
    match (metric.kind, metric.unit, metric.aggregate) {
        (Kind::Counter, _, _) | (_, Unit::Bits, _) => Kept::Last,
        (_, _, Aggregate::Min) => Kept::Min,
        (_, _, Aggregate::Max) => Kept::Max,
        _ => Kept::Avg,
    }
}

/// Times in milliseconds since the epoch, ascending, and values.
pub(super) type Points = Vec<(i64, f64)>;

/// The points of a metric's series that match. A point stands at the beginning of its step, and never in the future.
pub(super) fn read(
    store: &MetricStore,
    name: &str,
    more: &[Matcher],
    stretch: Stretch,
) -> Result<Vec<(Labels, Points)>, ApiError> {
    let matchers: Vec<Matcher> = [Matcher::name(name)].into_iter().chain(more.iter().cloned()).collect();
    let ask = |aggregate| store.windows(&matchers, stretch.from_ms, stretch.to_ms, stretch.step_ms, aggregate);
    let found = match ask(kept(name)) {
        // Of a time of which only five-minute values are left.
        Err(MetricError::NeedsRaw { .. }) => ask(Kept::Max),
        found => found,
    };
    let found = found.map_err(|e| store_failed(&e))?;
    Ok(found.series.into_iter().map(|s| (s.labels, s.points)).collect())
}

/// A series of the catalogue as the diagnosis'.
pub(super) fn series(name: &'static str, labels: &Labels, points: Points) -> Series {
    let device = labels.get(label::MOUNT).or_else(|| labels.get(label::DEVICE));
    Series {
        metric: name.into(),
        gpu: labels.get(label::GPU).and_then(|g| g.parse().ok()),
        device: device.map(str::to_owned),
        points,
    }
}

/// All series of a node, or of a past of it. A GPU that was replaced has two series at one index: they become one.
pub(super) fn set(mut all: Vec<Series>) -> SeriesSet {
    all.sort_by(|a, b| (&a.metric, a.gpu, &a.device).cmp(&(&b.metric, b.gpu, &b.device)));
    let mut one: Vec<Series> = Vec::with_capacity(all.len());
    for series in all {
        match one.last_mut() {
            Some(last) if last.metric == series.metric && last.gpu == series.gpu && last.device == series.device => {
                last.points.extend(series.points);
            }
            _ => one.push(series),
        }
    }
    SeriesSet::from(one)
}

/// All that is judged of one node.
pub(super) fn of_node(store: &MetricStore, node: &str, stretch: Stretch) -> Result<SeriesSet, ApiError> {
    let mut all = Vec::new();
    let matcher = [Matcher::eq(label::NODE, node)];
    for name in OF_GPUS.iter().chain(OF_NODES) {
        let found = read(store, name, &matcher, stretch)?;
        all.extend(found.into_iter().map(|(labels, points)| series(name, &labels, points)));
    }
    Ok(set(all))
}

/// Series of these metrics of these nodes, in their order: read in one pass, for a fleet has hundreds of thousands.
pub(super) fn of_all<'a>(
    store: &MetricStore,
    nodes: impl Iterator<Item = &'a str>,
    names: impl Iterator<Item = &'static str>,
    stretch: Stretch,
) -> Result<Vec<Vec<Series>>, ApiError> {
    let places: HashMap<&str, usize> = nodes.zip(0..).collect();
    let metrics: Vec<(&'static str, Kept)> = names.map(|name| (name, kept(name))).collect();
    let known: HashMap<&str, &'static str> = metrics.iter().map(|(name, _)| (*name, *name)).collect();
    let mut all: Vec<Vec<Series>> = places.iter().map(|_| Vec::new()).collect();
    let key = |name: &str, labels: &mut dyn Iterator<Item = (&str, &str)>| {
        let (mut place, mut gpu, mut device, mut mount) = (None, None, None, None);
        for (label, value) in labels {
            match label {
                label::NODE => place = places.get(value).copied(),
                label::GPU => gpu = value.parse().ok(),
                label::DEVICE => device = Some(value.to_owned()),
                label::MOUNT => mount = Some(value.to_owned()),
                _ => {}
            }
        }
        let series = Series {
            metric: (*known.get(name)?).into(),
            gpu,
            device: mount.or(device),
            points: Vec::new(),
        };
        Some((place?, series))
    };
    let range = (stretch.from_ms, stretch.to_ms);
    let each = |(place, series): (usize, Series), points: Points| {
        if let Some(of_node) = all.get_mut(place) {
            of_node.push(Series { points, ..series });
        }
    };
    let read = store.each_windows(&metrics, range, stretch.step_ms, key, each);
    read.map_err(|e| store_failed(&e))?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_and_diagnosis_mean_the_same() {
        for name in OF_GPUS.iter().chain(OF_NODES) {
            let ours = metric::find(name).unwrap_or_else(|| panic!("{name} isn't in the catalogue"));
            let theirs = super::super::answer::unit(wanted::unit(name));
            let same = ours.unit.name() == theirs || matches!(ours.unit, Unit::Bool | Unit::Bits);
            assert!(same, "{name}: {} and {theirs}", ours.unit);
        }
    }

    #[test]
    fn steps_are_as_fine_as_samples_and_no_finer() {
        let hour = Stretch::before(3_600_000, 3_600_000);
        assert_eq!((hour.from_ms, hour.step_ms), (0, 10_000));
        assert_eq!(Stretch::before(0, 60_000).step_ms, 10_000);
        assert_eq!(Stretch::before(0, 86_400_000).step_ms, 240_000);
        let past = Stretch::before(10_000_000, 3_600_000).past(86_400_000);
        assert_eq!(past.to_ms % 300_000, 0);
        assert!(past.to_ms <= 6_400_000);
    }
}
