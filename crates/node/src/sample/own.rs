//! Numbers that workloads report themselves: lines on standard output, or an endpoint that Prometheus could read.
//!
//! A line is `::metric name=value [name2=value2 …] [unit=…]`. It stays in the log. Of each series the last number of
//! each interval is kept, with the time of its line. A workload has at most [`SERIES`] series; further ones are
//! dropped and counted, and it is told once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::{
    metric::{Kind, label},
    wire::{LogLine, SeriesKey},
    workload::{JobKey, LogSource},
};

use super::{
    prometheus::Sample,
    recorder::{Labels, own_series},
};

/// Most series of its own that a member of a workload may have.
pub(crate) const SERIES: usize = 100;

/// Most numbers that wait for the next tick, of all workloads.
const WAITING: usize = 100_000;

/// What a line begins with.
const MARK: &str = "::metric ";

/// A number with its time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) series: SeriesKey,
    /// Milliseconds since 1970.
    pub(crate) at_ms: i64,
    pub(crate) value: f64,
}

#[derive(Debug, Default)]
struct Job {
    /// Lines up to this one have been read.
    through: u64,
    series: BTreeSet<SeriesKey>,
    /// Numbers that were dropped because of the cap.
    dropped: u64,
}

/// Collects the numbers.
#[derive(Debug)]
pub(crate) struct Own {
    jobs: HashMap<JobKey, Job>,
    interval_ms: i64,
    /// By interval and series, the last of each.
    waiting: BTreeMap<(i64, SeriesKey), Point>,
    /// There was no room for some.
    full: bool,
}

impl Own {
    pub(crate) fn new(interval_ms: u64) -> Self {
        Self {
            jobs: HashMap::new(),
            interval_ms: i64::try_from(interval_ms).unwrap_or(i64::MAX).max(1),
            waiting: BTreeMap::new(),
            full: false,
        }
    }

    /// Reads a job's lines; those that were read before are passed over. Says whether its cap was passed for the first
    /// time.
    pub(crate) fn lines(&mut self, job: &JobKey, lines: &[LogLine]) -> bool {
        let first = |line: &&LogLine| line.source == LogSource::Stdout && line.text.starts_with(MARK);
        let Some(last) = lines.last() else { return false };
        if !lines.iter().any(|line| first(&line)) {
            if let Some(known) = self.jobs.get_mut(job) {
                known.through = known.through.max(last.number);
            }
            return false;
        }
        let through = self.jobs.entry(job.clone()).or_default().through;
        let mut over = false;
        for line in lines.iter().filter(first).filter(|line| line.number > through) {
            let (values, unit) = parse(&line.text);
            for (name, value) in values {
                let series = own_series(name, [], &labels(job), unit, Kind::Gauge);
                over |= self.add(job, series, line.at_ns / 1_000_000, value);
            }
        }
        if let Some(known) = self.jobs.get_mut(job) {
            known.through = known.through.max(last.number);
        }
        over
    }

    /// Takes what a job's endpoint said. Says whether its cap was passed for the first time.
    pub(crate) fn scraped(&mut self, job: &JobKey, at_ms: i64, samples: &[Sample]) -> bool {
        let mut over = false;
        for sample in samples {
            let pairs = sample
                .labels
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            let series = own_series(&sample.name, pairs, &labels(job), None, sample.kind);
            over |= self.add(job, series, at_ms, sample.value);
        }
        over
    }

    /// How many numbers of a job were dropped because of the cap.
    #[cfg(test)]
    fn dropped(&self, job: &JobKey) -> u64 {
        self.jobs.get(job).map_or(0, |job| job.dropped)
    }

    /// Forgets a job that has gone; numbers that wait stay.
    pub(crate) fn forget(&mut self, job: &JobKey) {
        if let Some(job) = self.jobs.remove(job)
            && job.dropped > 0
        {
            tracing::info!(
                dropped = job.dropped,
                "numbers of a workload's own were dropped at the cap"
            );
        }
    }

    /// All that waits.
    pub(crate) fn take(&mut self) -> Vec<Point> {
        self.full = false;
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    fn add(&mut self, job: &JobKey, series: Option<SeriesKey>, at_ms: i64, value: f64) -> bool {
        let Some(series) = series.filter(|_| value.is_finite()) else {
            return false;
        };
        let known = self.jobs.entry(job.clone()).or_default();
        if !known.series.contains(&series) {
            if known.series.len() >= SERIES {
                known.dropped += 1;
                return known.dropped == 1;
            }
            known.series.insert(series.clone());
        }
        let place = (at_ms.div_euclid(self.interval_ms), series.clone());
        if self.waiting.len() >= WAITING && !self.waiting.contains_key(&place) {
            if !self.full {
                tracing::warn!("workloads report more numbers of their own than can wait; some are dropped");
            }
            self.full = true;
            return false;
        }
        self.waiting.insert(place, Point { series, at_ms, value });
        false
    }
}

/// The labels of all of a job's series.
pub(crate) fn labels(job: &JobKey) -> Labels {
    vec![
        (label::WORKLOAD, job.workload.to_string()),
        (label::ATTEMPT, job.attempt.to_string()),
        (label::RANK, job.rank.to_string()),
    ]
}

/// Names with their numbers, and the unit. Words that are neither are passed over.
fn parse(line: &str) -> (Vec<(&str, f64)>, Option<&str>) {
    let mut values = Vec::new();
    let mut unit = None;
    let words = line.strip_prefix(MARK).unwrap_or_default().split_whitespace();
    for (name, text) in words.filter_map(|word| word.split_once('=')) {
        if name == "unit" && text.parse::<f64>().is_err() {
            unit = Some(text).filter(|unit| !unit.is_empty());
        } else if let Ok(value) = text.parse::<f64>() {
            values.push((name, value));
        }
    }
    (values, unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobKey {
        "wl-a.2.1".parse().unwrap()
    }

    fn line(number: u64, seconds: i64, text: &str) -> LogLine {
        LogLine {
            number,
            at_ns: seconds * 1_000_000_000,
            source: LogSource::Stdout,
            text: text.to_owned(),
            partial: false,
        }
    }

    fn said(own: &mut Own) -> Vec<(String, i64, f64)> {
        let named = |point: Point| (point.series.metric, point.at_ms / 1000, point.value);
        own.take().into_iter().map(named).collect()
    }

    #[test]
    fn lines_are_read_once_and_the_last_of_an_interval_counts() {
        let mut own = Own::new(10_000);
        let lines = [
            line(1, 1, "epoch 1"),
            line(2, 2, "::metric loss=0.9 accuracy=0.1"),
            line(3, 8, "::metric loss=0.7"),
            line(
                4,
                12,
                "::metric loss=0.6 tokens_per_s=12e3 unit=tokens/s bad =3 x=y nan=NaN 1st=4",
            ),
            line(5, 13, " ::metric loss=0.1"),
        ];
        assert!(!own.lines(&job(), &lines));
        own.lines(&job(), &lines);
        let own_points = own.take();
        let tokens = own_points
            .iter()
            .find(|p| p.series.metric == "custom.tokens_per_s")
            .unwrap();
        assert_eq!(tokens.series.unit.as_deref(), Some("tokens/s"));
        assert_eq!(tokens.series.labels["attempt"], "2");
        assert_eq!(tokens.series.labels["rank"], "1");
        let mut points: Vec<_> = own_points
            .into_iter()
            .map(|p| (p.series.metric, p.at_ms / 1000, p.value))
            .collect();
        points.sort_by(|a, b| a.partial_cmp(b).unwrap());
        assert_eq!(
            points,
            [
                ("custom.accuracy".to_owned(), 2, 0.1),
                ("custom.loss".to_owned(), 8, 0.7),
                ("custom.loss".to_owned(), 12, 0.6),
                ("custom.tokens_per_s".to_owned(), 12, 12_000.0),
            ]
        );
        own.lines(&job(), &lines);
        assert_eq!(
            said(&mut own),
            [],
            "a session that sends lines again doesn't make numbers again"
        );
    }

    #[test]
    fn standard_error_and_strangers_say_nothing() {
        let mut own = Own::new(10_000);
        let error = LogLine {
            source: LogSource::Stderr,
            ..line(1, 1, "::metric loss=1")
        };
        own.lines(&job(), &[error]);
        assert!(own.take().is_empty());
        assert!(own.jobs.is_empty(), "a job without numbers costs nothing");
    }

    #[test]
    fn series_are_capped_and_it_is_said_once() {
        let mut own = Own::new(10_000);
        let explosion: Vec<LogLine> = (0..300)
            .map(|i| line(i + 1, 1, &format!("::metric user_{i}=1")))
            .collect();
        assert!(own.lines(&job(), &explosion));
        assert_eq!(own.take().len(), SERIES);
        assert_eq!(own.dropped(&job()), 200);
        assert!(!own.lines(&job(), &[line(301, 2, "::metric more=1")]));
        assert!(!own.lines(&job(), &[line(302, 2, "::metric user_0=2")]));
        assert_eq!(said(&mut own), [("custom.user_0".to_owned(), 2, 2.0)]);
        assert_eq!(own.dropped(&job()), 201);
    }
}
