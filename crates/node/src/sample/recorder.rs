//! Ticks: made of what was read, numbered, kept until the gateway has them.
//!
//! The backlog is bounded, in ticks and in values; the oldest go first, and are counted. One batch is on its way at a
//! time. A session's dictionary grows with the series that it has sent, and begins anew when most of it is dead.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use api::{
    metric::{self, Kind},
    wire::{LABELS_MAX, MetricBatch, NAME_MAX_BYTES, SERIES_MAX, SeriesKey, TICKS_MAX, Tick, VALUES_MAX},
};

use super::{Point, Reading, Value, rates::Rates, rounded};

/// How long ticks are kept for a gateway that is away.
const BACKLOG_MS: u64 = 60 * 60 * 1000;

/// Most values that are kept: an hour of 2,500 series every 10 s, and 16 MB.
const BACKLOG_VALUES: usize = 1_000_000;

/// Values in one batch, about: small enough that a backlog doesn't hold up anything else.
const BATCH_VALUES: usize = VALUES_MAX / 10;

/// A dictionary of fewer series isn't worth a new one.
const DICTIONARY_MIN: usize = 256;

/// What all of a source's readings have in common.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// A machine, a GPU or a workload, and what was read of it.
pub(crate) type Source = (Labels, Vec<Reading>);

/// What was read at one time.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    pub(crate) sources: Vec<Source>,
}

/// A tick as it is kept.
#[derive(Debug)]
struct Kept {
    number: u64,
    at_ms: i64,
    /// Monotonic, of the recording.
    mono_ms: u64,
    values: Vec<(Arc<SeriesKey>, f64)>,
}

/// Makes ticks and keeps them.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Most values that are kept.
    room: usize,
    rates: Rates,
    /// All series that something refers to, each once.
    known: HashSet<Arc<SeriesKey>>,
    ticks: VecDeque<Kept>,
    /// Values in all ticks.
    values: usize,
    /// Number of the last tick.
    last: u64,
    dropped: u64,
    /// Series of the last recording that there was no room for.
    refused: usize,
    dictionary: HashMap<Arc<SeriesKey>, usize>,
    anew: bool,
    /// Number of the last tick on its way. `None`: nothing is.
    in_flight: Option<u64>,
    /// The last recording, for whoever asks here.
    latest: Vec<(Arc<SeriesKey>, f64)>,
    /// The last of each of workloads' own numbers.
    own: HashMap<Arc<SeriesKey>, f64>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            room: BACKLOG_VALUES,
            rates: Rates::default(),
            known: HashSet::new(),
            ticks: VecDeque::new(),
            values: 0,
            last: 0,
            dropped: 0,
            refused: 0,
            dictionary: HashMap::new(),
            anew: false,
            in_flight: None,
            latest: Vec::new(),
            own: HashMap::new(),
        }
    }
}

impl Recorder {
    /// Records what was read: a tick of its own, and one for each time of workloads' own numbers.
    pub(crate) fn record(&mut self, mono_ms: u64, at_ms: i64, raw: Raw, own: Vec<Point>) {
        let mut values: Vec<(Arc<SeriesKey>, f64)> = Vec::new();
        for (labels, readings) in raw.sources {
            for reading in readings {
                let key = self.key(reading_key(&labels, &reading));
                let value = match reading.value {
                    Value::Now(value) => Some(value),
                    Value::Total(total) => self.rates.rate(&key, mono_ms, total),
                };
                if let Some(value) = value.filter(|value| value.is_finite()) {
                    values.push((key, rounded(value)));
                }
            }
        }
        let mut earlier: BTreeMap<i64, Vec<(Arc<SeriesKey>, f64)>> = BTreeMap::new();
        for point in own {
            let key = self.key(point.series);
            self.own.insert(Arc::clone(&key), point.value);
            // A clock that was set back since the line was written must not make points of the future.
            let of = if point.at_ms >= at_ms {
                &mut values
            } else {
                earlier.entry(point.at_ms).or_default()
            };
            of.push((key, point.value));
        }
        // A workload that says a name twice in a moment, or one that a scrape found too: the last counts.
        let mut seen = HashSet::new();
        values.reverse();
        values.retain(|(key, _)| seen.insert(Arc::clone(key)));
        values.reverse();
        let refused = values.len().saturating_sub(SERIES_MAX);
        if refused > 0 && self.refused == 0 {
            tracing::warn!(
                refused,
                most = SERIES_MAX,
                "more is measured than can be sent: the rest is left out"
            );
        }
        self.refused = refused;
        values.truncate(SERIES_MAX);
        let said = self.own.iter().filter(|(key, _)| !seen.contains(*key));
        self.latest = values
            .iter()
            .cloned()
            .chain(said.map(|(key, value)| (Arc::clone(key), *value)))
            .collect();
        for (at_ms, values) in earlier {
            self.keep(mono_ms, at_ms, values);
        }
        self.keep(mono_ms, at_ms, values);
        self.rates.forget_before(mono_ms.saturating_sub(BACKLOG_MS));
        self.trim(mono_ms);
    }

    /// A workload has gone: what its own numbers were isn't news any more.
    pub(crate) fn forget(&mut self, labels: &Labels) {
        let of = |key: &SeriesKey| labels.iter().all(|(name, value)| key.labels.get(*name) == Some(value));
        self.own.retain(|key, _| !of(key));
    }

    /// What was measured last, and the last of workloads' own numbers.
    pub(crate) fn latest(&self) -> &[(Arc<SeriesKey>, f64)] {
        &self.latest
    }

    /// A new session: it knows no series, and all that isn't acknowledged goes out again.
    pub(crate) fn begin(&mut self) {
        self.dictionary.clear();
        self.anew = false;
        self.in_flight = None;
    }

    /// The next batch. `None`: there is nothing, or one is on its way.
    pub(crate) fn next(&mut self) -> Option<MetricBatch> {
        if self.in_flight.is_some() || self.ticks.is_empty() {
            return None;
        }
        let mut batch = MetricBatch {
            dropped: self.dropped,
            ..MetricBatch::default()
        };
        let live = self.ticks.back().map_or(0, |tick| tick.values.len());
        if self.dictionary.len() > DICTIONARY_MIN.max(2 * live) {
            self.dictionary.clear();
            self.anew = true;
        }
        let mut total = 0;
        for tick in self.ticks.iter().take(TICKS_MAX) {
            let fresh = tick.values.iter().filter(|(key, _)| !self.dictionary.contains_key(key));
            if self.dictionary.len() + fresh.count() > SERIES_MAX {
                if !batch.ticks.is_empty() {
                    break;
                }
                self.dictionary.clear();
                self.anew = true;
            }
            let mut values = Vec::new();
            for (key, value) in &tick.values {
                let next = self.dictionary.len();
                let position = *self.dictionary.entry(Arc::clone(key)).or_insert_with(|| {
                    batch.define.push(Arc::clone(key));
                    next
                });
                if values.len() <= position {
                    values.resize(position + 1, None);
                }
                values[position] = Some(*value);
            }
            total += values.len();
            batch.ticks.push(Tick {
                number: tick.number,
                at_ms: tick.at_ms,
                values,
            });
            if total >= BATCH_VALUES {
                break;
            }
        }
        batch.anew = std::mem::take(&mut self.anew);
        self.in_flight = batch.ticks.last().map(|tick| tick.number);
        Some(batch)
    }

    /// The gateway has the ticks up to this one.
    pub(crate) fn acked(&mut self, through: u64) {
        if self.in_flight.is_some_and(|last| last <= through) {
            self.in_flight = None;
        }
        while self.ticks.front().is_some_and(|tick| tick.number <= through) {
            self.drop_oldest();
        }
    }

    fn key(&mut self, key: SeriesKey) -> Arc<SeriesKey> {
        if let Some(known) = self.known.get(&key) {
            return Arc::clone(known);
        }
        let key = Arc::new(key);
        self.known.insert(Arc::clone(&key));
        key
    }

    fn keep(&mut self, mono_ms: u64, at_ms: i64, values: Vec<(Arc<SeriesKey>, f64)>) {
        if values.is_empty() {
            return;
        }
        self.last += 1;
        self.values += values.len();
        self.ticks.push_back(Kept {
            number: self.last,
            at_ms,
            mono_ms,
            values,
        });
    }

    fn trim(&mut self, mono_ms: u64) {
        let oldest = mono_ms.saturating_sub(BACKLOG_MS);
        let before = self.dropped;
        while self.values > self.room || self.ticks.front().is_some_and(|tick| tick.mono_ms < oldest) {
            self.dropped += 1;
            self.drop_oldest();
        }
        if before == 0 && self.dropped > 0 {
            tracing::warn!("the gateway has been away for so long that the oldest measurements are dropped");
        }
        // What nothing but this set refers to is dead.
        if self.known.len() > DICTIONARY_MIN.max(2 * self.latest.len()) {
            self.known.retain(|key| Arc::strong_count(key) > 1);
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(tick) = self.ticks.pop_front() {
            self.values -= tick.values.len();
        }
    }
}

fn reading_key(labels: &[(&'static str, String)], reading: &Reading) -> SeriesKey {
    debug_assert!(metric::find(reading.metric).is_some(), "{}", reading.metric);
    let own = reading.labels.iter().map(|(name, value)| (*name, value.as_ref()));
    let all = labels.iter().map(|(name, value)| (*name, value.as_str())).chain(own);
    SeriesKey {
        metric: reading.metric.to_owned(),
        labels: all
            .map(|(name, value)| (name.to_owned(), cut(value).to_owned()))
            .collect(),
        unit: None,
        kind: None,
    }
}

/// As much of a text as a label may have.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(NAME_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The series of a workload's own number. `None`: the name can't be one, or the labels are too many or too long.
/// Labels that Clawbernetes itself gives are dropped.
pub(super) fn own_series<'a>(
    name: &str,
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    job: &[(&'static str, String)],
    unit: Option<&str>,
    kind: Kind,
) -> Option<SeriesKey> {
    let metric = metric::own_name(name)?;
    let mut all: BTreeMap<String, String> = labels
        .into_iter()
        .filter(|(name, _)| !metric::label::RESERVED.contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    all.extend(job.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let fits = |text: &str| text.len() <= NAME_MAX_BYTES;
    let fitting = all.len() <= LABELS_MAX
        && all
            .iter()
            .all(|(name, value)| !name.is_empty() && fits(name) && fits(value))
        && unit.is_none_or(fits);
    fitting.then(|| SeriesKey {
        metric,
        labels: all,
        unit: unit.map(str::to_owned),
        kind: (kind != Kind::Gauge).then_some(kind),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(readings: Vec<Reading>) -> Raw {
        Raw {
            sources: vec![(vec![("gpu", "0".to_owned())], readings)],
        }
    }

    fn tick(recorder: &mut Recorder, seconds: u64, readings: Vec<Reading>) {
        recorder.record(
            seconds * 1000,
            1_000_000 + seconds as i64 * 1000,
            raw(readings),
            Vec::new(),
        );
    }

    #[test]
    fn series_are_named_once_and_rates_follow() {
        let mut recorder = Recorder::default();
        tick(
            &mut recorder,
            0,
            vec![
                Reading::now("gpu.power", 402.617_f32),
                Reading::total("disk.throughput", 1000).with("device", "vda"),
                Reading::now("gpu.fan", f64::NAN),
            ],
        );
        let batch = recorder.next().unwrap();
        assert_eq!(batch.check(0), Ok(1));
        assert_eq!(batch.define[0].metric, "gpu.power");
        assert_eq!(batch.define[0].labels["gpu"], "0");
        assert_eq!(batch.ticks[0].values, [Some(402.62)]);
        assert_eq!(recorder.next(), None, "one at a time");
        tick(
            &mut recorder,
            10,
            vec![Reading::total("disk.throughput", 6000).with("device", "vda")],
        );
        recorder.acked(batch.ticks[0].number);
        let second = recorder.next().unwrap();
        assert_eq!(second.define.len(), 1);
        assert_eq!(second.define[0].labels["device"], "vda");
        assert_eq!(second.ticks[0].values, [None, Some(500.0)]);
        assert_eq!(second.ticks[0].at_ms, 1_010_000);

        // The connection is lost: the next session knows nothing.
        recorder.begin();
        let again = recorder.next().unwrap();
        assert_eq!(again.define.len(), 1);
        assert_eq!(again.ticks[0].number, second.ticks[0].number);
        assert_eq!(again.ticks[0].values, [Some(500.0)]);
        recorder.acked(again.ticks[0].number);
        assert_eq!(recorder.next(), None);
        assert_eq!(recorder.values, 0);
    }

    #[test]
    fn the_oldest_ticks_go_first_and_are_counted() {
        let mut recorder = Recorder::default();
        for seconds in (0..=3700).step_by(10) {
            tick(&mut recorder, seconds, vec![Reading::now("gpu.power", 1.0)]);
        }
        let batch = recorder.next().unwrap();
        assert_eq!(batch.dropped, 10, "3700 s less an hour");
        assert_eq!(batch.ticks[0].number, 11);
        assert_eq!(batch.ticks.len(), TICKS_MAX);
        assert_eq!(batch.check(0), Ok(1));
        recorder.acked(batch.ticks.last().unwrap().number);
        assert_eq!(recorder.next().unwrap().ticks.len(), 1);
    }

    #[test]
    fn values_are_bounded_too() {
        let mut recorder = Recorder {
            room: 3 * SERIES_MAX,
            ..Recorder::default()
        };
        let many = |n: u64| -> Vec<Reading> {
            (0..n)
                .map(|i| Reading::now("disk.used", 1.0).with("mount", i.to_string()))
                .collect()
        };
        for second in 0..5 {
            tick(&mut recorder, second, many(SERIES_MAX as u64 + 5));
        }
        assert_eq!(recorder.ticks.len(), 3);
        assert_eq!(recorder.dropped, 2);
        assert_eq!(recorder.refused, 5);
        let mut known = 0;
        while let Some(batch) = recorder.next() {
            known = batch.check(known).unwrap();
            recorder.acked(batch.ticks.last().unwrap().number);
        }
        assert!(recorder.ticks.is_empty());
    }

    #[test]
    fn a_dictionary_of_the_dead_begins_anew() {
        let mut recorder = Recorder::default();
        let mut known = 0;
        for second in 0..50_u64 {
            let job = |i: u64| Reading::now("disk.used", 1.0).with("mount", format!("{second}-{i}"));
            tick(&mut recorder, second, (0..100).map(job).collect());
            let batch = recorder.next().unwrap();
            known = batch.check(known).unwrap();
            assert!(known <= 400, "{known}");
            recorder.acked(batch.ticks[0].number);
        }
        assert!(recorder.known.len() <= 400, "{}", recorder.known.len());
    }

    #[test]
    fn own_numbers_keep_their_time() {
        let mut recorder = Recorder::default();
        let point = |at_ms, value| Point {
            series: own_series(
                "loss",
                [("workload", "mine"), ("step", "a")],
                &[("workload", "wl-1".to_owned())],
                None,
                Kind::Gauge,
            )
            .unwrap(),
            at_ms,
            value,
        };
        let own = vec![point(4_000, 0.5), point(9_000, 0.25), point(12_000, 0.125)];
        recorder.record(10_000, 10_000, raw(vec![Reading::now("gpu.power", 1.0)]), own);
        let batch = recorder.next().unwrap();
        assert_eq!(batch.check(0), Ok(2));
        let times: Vec<i64> = batch.ticks.iter().map(|tick| tick.at_ms).collect();
        assert_eq!(times, [4_000, 9_000, 10_000]);
        assert_eq!(batch.define[0].metric, "custom.loss");
        assert_eq!(
            batch.define[0].labels["workload"], "wl-1",
            "nobody speaks for another workload"
        );
        assert_eq!(batch.ticks[2].values, [Some(0.125), Some(1.0)]);
        // Who asks here gets the last of them until the workload has gone.
        recorder.record(20_000, 20_000, raw(vec![]), vec![point(15_000, 0.0625)]);
        assert_eq!(
            recorder.latest().iter().map(|(_, value)| *value).collect::<Vec<_>>(),
            [0.0625]
        );
        recorder.forget(&vec![("workload", "wl-2".to_owned())]);
        recorder.record(30_000, 30_000, raw(vec![]), vec![]);
        assert_eq!(recorder.latest().len(), 1);
        recorder.forget(&vec![("workload", "wl-1".to_owned())]);
        recorder.record(40_000, 40_000, raw(vec![]), vec![]);
        assert_eq!(recorder.latest(), []);
    }
}
