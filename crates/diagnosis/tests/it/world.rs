//! Machines at work, made from a seed.

use diagnosis::{GpuFacts, Kernel, KernelEvent, NodeFacts, Series, SeriesSet, metric};

pub(crate) const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
/// 2026-11-21, about noon.
pub(crate) const NOW: i64 = 1_795_262_400_000;
/// Between samples of the window.
pub(crate) const STEP: i64 = 30_000;

/// A small generator of numbers (SplitMix64): the same seed, the same numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal, by the sum of twelve.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// Samples of the last hour.
pub(crate) fn hour(value: impl FnMut(f64) -> f64) -> Vec<(i64, f64)> {
    span(HOUR, STEP, NOW, value)
}

/// Samples up to a time; the function has the minutes since the first.
pub(crate) fn span(length: i64, step: i64, end: i64, mut value: impl FnMut(f64) -> f64) -> Vec<(i64, f64)> {
    (0..=length / step)
        .map(|i| (end - length + i * step, value((i * step) as f64 / MINUTE as f64)))
        .collect()
}

/// A node with its series as a list that can be changed.
pub(crate) struct World {
    pub(crate) facts: NodeFacts,
    series: Vec<Series>,
    history: Vec<Series>,
    random: Random,
}

impl World {
    /// Eight GPUs at full load, at their power limit, far from hot; nothing is wrong.
    pub(crate) fn busy(seed: u64) -> Self {
        let gpus = (0..8)
            .map(|index| GpuFacts {
                index,
                pci: Some(format!("0000:{:02x}:00.0", 0x10 + index)),
                model: Some("NVIDIA H100 80GB HBM3".into()),
                slowdown_celsius: Some(87.0),
                shutdown_celsius: Some(92.0),
                lost: Some(false),
                pcie_generation: Some(5),
                pcie_generation_max: Some(5),
                pcie_width: Some(16),
                pcie_width_max: Some(16),
                nvlinks_active: Some(18),
                nvlinks_total: Some(18),
                workload: Some("wl-train".into()),
                ..GpuFacts::default()
            })
            .collect();
        let facts = NodeFacts {
            name: "gpu-1".into(),
            now_ms: NOW,
            window_ms: HOUR,
            kernel_watched: true,
            gpus,
            booted_ms: Some(NOW - 30 * 24 * HOUR),
            ..NodeFacts::default()
        };
        let mut it = Self {
            facts,
            series: Vec::new(),
            history: Vec::new(),
            random: Random(seed),
        };
        for gpu in 0..8 {
            for (name, level, noise) in [
                (metric::GPU_UTILIZATION, 97.0, 1.0),
                (metric::GPU_TEMPERATURE, 66.0, 1.2),
                (metric::GPU_POWER, 690.0, 8.0),
                (metric::GPU_POWER_LIMIT, 700.0, 0.0),
                (metric::GPU_CLOCK_SM, 1750.0, 20.0),
                (metric::GPU_MEMORY_USED, 70.0 * GIB, 0.05 * GIB),
                (metric::GPU_MEMORY_TOTAL, 80.0 * GIB, 0.0),
                (metric::GPU_MEMORY_BANDWIDTH, 45.0, 3.0),
                (metric::GPU_THROTTLE, 4.0, 0.0),
                (metric::GPU_ECC_CORRECTED, 12.0, 0.0),
                (metric::GPU_ECC_UNCORRECTED, 0.0, 0.0),
                (metric::GPU_REMAP_PENDING, 0.0, 0.0),
                (metric::GPU_REMAP_FAILED, 0.0, 0.0),
                (metric::GPU_NVLINK_ERRORS, 3.0, 0.0),
                (metric::GPU_PCIE_REPLAYS, 7.0, 0.0),
            ] {
                it.gauge(name, Some(gpu), level, noise);
            }
        }
        for (name, level, noise) in [
            (metric::CPU_USAGE, 45.0, 4.0),
            (metric::MEMORY_USAGE, 300.0 * GIB, 2.0 * GIB),
            (metric::MEMORY_TOTAL, 1024.0 * GIB, 0.0),
            (metric::SWAP_USED, 0.0, 0.0),
            (metric::SWAP_IN, 0.0, 0.0),
            (metric::SWAP_OUT, 0.0, 0.0),
            (metric::PRESSURE_MEMORY, 0.0, 0.0),
            (metric::PRESSURE_MEMORY_FULL, 0.0, 0.0),
            (metric::PRESSURE_IO, 2.0, 0.5),
            (metric::DISK_THROUGHPUT, 4e8, 5e7),
            (metric::NETWORK_THROUGHPUT, 2e9, 2e8),
            (metric::CLOCK_OFFSET, 3.0, 2.0),
        ] {
            it.gauge(name, None, level, noise);
        }
        it.device(metric::DISK_USED, "/data", |_| 1100.0 * GIB);
        it.device(metric::DISK_TOTAL, "/data", |_| 2000.0 * GIB);
        it.device(metric::NETWORK_ERRORS, "eth0", |_| 42.0);
        it
    }

    /// The same at uneven work: every level wanders about its middle, over hours, now as in the past.
    pub(crate) fn wandering(seed: u64) -> Self {
        let mut it = Self::busy(seed);
        for gpu in 0..8 {
            it.wander(metric::GPU_UTILIZATION, Some(gpu), 85.0, 8.0, 100.0);
            it.wander(metric::GPU_TEMPERATURE, Some(gpu), 70.0, 3.0, 83.0);
            it.wander(metric::GPU_POWER, Some(gpu), 560.0, 60.0, 700.0);
            it.wander(metric::GPU_CLOCK_SM, Some(gpu), 1700.0, 60.0, 1980.0);
            it.wander(metric::GPU_MEMORY_USED, Some(gpu), 60.0 * GIB, 5.0 * GIB, 80.0 * GIB);
        }
        it.wander(metric::CPU_USAGE, None, 50.0, 15.0, 100.0);
        it.wander(metric::MEMORY_USAGE, None, 620.0 * GIB, 80.0 * GIB, 980.0 * GIB);
        it.wander(metric::PRESSURE_IO, None, 8.0, 5.0, 100.0);
        it.wander(metric::NETWORK_THROUGHPUT, None, 2e9, 8e8, 1e10);
        it.wander(metric::CLOCK_OFFSET, None, 5.0, 20.0, 200.0);
        it
    }

    /// A level that forgets where it was after about an hour (an autoregressive process of first order).
    fn wander(&mut self, name: &'static str, gpu: Option<u32>, middle: f64, spread: f64, highest: f64) {
        let mut away = self.random.normal();
        let mut next = |step: i64| {
            let keep = (-step as f64 / HOUR as f64).exp();
            away = away * keep + self.random.normal() * (1.0 - keep * keep).sqrt();
            (middle + spread * away).clamp(0.0, highest)
        };
        let past = span(24 * HOUR, 5 * MINUTE, NOW - HOUR - STEP, |_| next(5 * MINUTE));
        let now = hour(|_| next(STEP));
        self.series.retain(|s| !(s.metric == name && s.gpu == gpu));
        self.history.retain(|s| !(s.metric == name && s.gpu == gpu));
        self.series.push(Series {
            gpu,
            ..Series::new(name, now)
        });
        self.history.push(Series {
            gpu,
            ..Series::new(name, past)
        });
    }

    /// A metric that stays about a level, now and in the past.
    fn gauge(&mut self, name: &'static str, gpu: Option<u32>, level: f64, noise: f64) {
        let random = &mut self.random;
        let now = hour(|_| level + noise * random.normal());
        let past = span(24 * HOUR, 5 * MINUTE, NOW - HOUR - STEP, |_| {
            level + noise * random.normal()
        });
        self.series.push(Series {
            gpu,
            ..Series::new(name, now)
        });
        self.history.push(Series {
            gpu,
            ..Series::new(name, past)
        });
    }

    /// Another course of a metric in the last hour, with a little noise; the function has minutes.
    pub(crate) fn set(mut self, name: &'static str, gpu: Option<u32>, value: impl FnMut(f64) -> f64) -> Self {
        self.series
            .retain(|s| !(s.metric == name && s.gpu == gpu && s.device.is_none()));
        self.series.push(Series {
            gpu,
            ..Series::new(name, hour(value))
        });
        self
    }

    /// Another past of a metric; the function has minutes since a day before the hour.
    pub(crate) fn past(mut self, name: &'static str, value: impl FnMut(f64) -> f64) -> Self {
        self.history.retain(|s| s.metric != name);
        self.history
            .push(Series::new(name, span(24 * HOUR, 5 * MINUTE, NOW - HOUR - STEP, value)));
        self
    }

    /// The same for every GPU.
    pub(crate) fn set_all(mut self, name: &'static str, value: impl Fn(f64) -> f64) -> Self {
        for gpu in 0..8 {
            self = self.set(name, Some(gpu), &value);
        }
        self
    }

    fn device(&mut self, name: &'static str, device: &str, value: impl FnMut(f64) -> f64) {
        self.series
            .retain(|s| !(s.metric == name && s.device.as_deref() == Some(device)));
        self.series.push(Series::new(name, hour(value)).device(device));
    }

    /// Another course of a device's metric.
    pub(crate) fn set_device(mut self, name: &'static str, device: &str, value: impl FnMut(f64) -> f64) -> Self {
        self.device(name, device, value);
        self
    }

    /// Leaves out a metric, of all.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.series.retain(|s| s.metric != name);
        self.history.retain(|s| s.metric != name);
        self
    }

    pub(crate) fn without_history(mut self) -> Self {
        self.history.clear();
        self
    }

    /// Keeps the newest minutes only.
    pub(crate) fn newest(mut self, minutes: i64) -> Self {
        for s in &mut self.series {
            s.points.retain(|p| p.0 >= NOW - minutes * MINUTE);
        }
        self
    }

    pub(crate) fn kernel(mut self, minutes_ago: f64, event: Kernel) -> Self {
        let at_ms = NOW - (minutes_ago * MINUTE as f64) as i64;
        self.facts.kernel.push(KernelEvent { at_ms, event });
        self
    }

    /// An XID error of GPU 3, by its address.
    pub(crate) fn xid(self, minutes_ago: f64, code: u32) -> Self {
        self.xid_text(minutes_ago, code, "")
    }

    pub(crate) fn xid_text(self, minutes_ago: f64, code: u32, text: &str) -> Self {
        let event = Kernel::Xid {
            code,
            gpu: None,
            pci: Some("PCI:0000:13:00".into()),
            workload: Some("wl-train".into()),
            text: text.into(),
        };
        self.kernel(minutes_ago, event)
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut NodeFacts)) -> Self {
        change(&mut self.facts);
        self
    }

    pub(crate) fn facts(mut self) -> NodeFacts {
        self.facts.series = SeriesSet::from(self.series);
        self.facts.history = SeriesSet::from(self.history);
        self.facts
    }
}
