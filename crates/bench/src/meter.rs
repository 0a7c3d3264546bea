//! What a simulated agent measures: every metric of nodes and GPUs that a real one has, moving as such numbers do.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    Timestamp,
    metric::{CATALOGUE, Kind, Scope, Unit, label},
    wire::{MetricBatch, SeriesKey, Tick},
};

/// A machine's numbers.
pub struct Meter {
    /// Sent once, with the first batch.
    define: Vec<Arc<SeriesKey>>,
    values: Vec<(Unit, Kind, f64)>,
    tick: u64,
    seed: u64,
    /// Ticks of the past that are still to be told.
    past: u64,
}

/// Time between two ticks.
const EVERY_MS: i64 = 10_000;
/// Ticks of a batch that tells of the past: few, so that what is under way takes no memory worth a word.
const PAST_TICKS: u64 = 12;

impl Meter {
    /// Of a machine with so many GPUs.
    pub fn new(gpus: u32) -> Self {
        let mut define = Vec::new();
        let mut values = Vec::new();
        for metric in CATALOGUE {
            let count = match metric.scope {
                Scope::Gpu => gpus,
                Scope::Node if !matches!(metric.name, "node.up" | "clock.offset") => 1,
                _ => 0,
            };
            for index in 0..count {
                let mut labels = BTreeMap::new();
                if metric.scope == Scope::Gpu {
                    labels.insert(label::GPU.to_owned(), index.to_string());
                    labels.insert(label::MODEL.to_owned(), "NVIDIA H100 80GB HBM3".to_owned());
                }
                define.push(Arc::new(SeriesKey {
                    metric: metric.name.to_owned(),
                    labels,
                    unit: None,
                    kind: None,
                }));
                let start = if metric.unit == Unit::Bytes { 64e9 } else { 50.0 };
                values.push((metric.unit, metric.kind, start));
            }
        }
        Self {
            define,
            values,
            tick: 0,
            seed: 0x9E37_79B9_7F4A_7C15,
            past: 0,
        }
    }

    /// The same with so many ticks that the gateway hasn't heard of yet.
    pub fn with_past(self, ticks: u64) -> Self {
        Self { past: ticks, ..self }
    }

    /// Series that it has.
    pub fn series(&self) -> usize {
        self.values.len()
    }

    /// Whether all of the past has been told.
    pub fn is_up_to_date(&self) -> bool {
        self.past == 0
    }

    /// The next batch: some of the past while there is any, then the present.
    pub fn measure(&mut self) -> MetricBatch {
        let now = Timestamp::now().as_millisecond();
        let anew = self.tick == 0;
        let count = self.past.clamp(1, PAST_TICKS);
        let mut ticks = Vec::new();
        for _ in 0..count {
            let at_ms = now - i64::try_from(self.past).unwrap_or(0) * EVERY_MS;
            self.past = self.past.saturating_sub(1);
            ticks.push(self.tick(at_ms));
        }
        MetricBatch {
            anew,
            define: std::mem::take(&mut self.define),
            ticks,
            dropped: 0,
        }
    }

    fn tick(&mut self, at_ms: i64) -> Tick {
        self.tick += 1;
        let mut values = Vec::with_capacity(self.values.len());
        for (unit, kind, value) in &mut self.values {
            // xorshift64: what moves must only not be constant.
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            let step = (self.seed % 5) as f64 - 2.0;
            *value = match (kind, unit) {
                (Kind::Counter, _) => *value + f64::from(u8::from(step > 1.0)),
                (_, Unit::Bytes | Unit::BytesPerSecond) => (*value + step * 1_048_576.0).max(0.0),
                (_, Unit::Bits | Unit::Bool) => 0.0,
                _ => (*value + step).clamp(0.0, 100.0),
            };
            values.push(Some(*value));
        }
        Tick {
            number: self.tick,
            at_ms,
            values,
        }
    }
}
