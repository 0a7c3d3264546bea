//! Something that fills up, and when it is full.

use crate::stats::{self, Line};
use crate::{Evidence, Series, words};

/// A forecast reaches this many times as far as what was seen.
const REACH: i64 = 10;

/// A level that rises toward its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Filling {
    pub(crate) line: Line,
    pub(crate) level: f64,
    pub(crate) limit: f64,
    /// Until it is full, if it goes on like that.
    pub(crate) full_in_ms: i64,
}

impl Filling {
    /// What it stands on.
    pub(crate) fn evidence(&self, metric: &'static str, series: &Series) -> Evidence {
        Evidence::value(
            metric,
            self.level,
            format!(
                "{} of {}, growing by {} an hour: full in {}",
                words::bytes(self.level),
                words::bytes(self.limit),
                words::bytes(self.line.per_second * 3600.0),
                words::duration(self.full_in_ms),
            ),
        )
        .against(self.limit)
        .over(series.span_ms())
        .by("Theil-Sen slope, Mann-Kendall test")
    }
}

/// Whether a level rises toward its limit: steadily, by 2 % of the limit at least since the window began, in its
/// last third as well (a level that was reached and stays is no leak), from above half of the limit, and so fast that
/// the limit lies within [`REACH`] times the time seen.
pub(crate) fn filling(series: &Series, limit: f64) -> Option<Filling> {
    let line = stats::line(&series.points)?;
    let (end, level) = series.last()?;
    let span = series.span_ms();
    let grown = line.per_second * span as f64 / 1000.0;
    if !line.is_steady() || grown < 0.02 * limit || level < 0.5 * limit {
        return None;
    }
    let recent = stats::line(series.since(end - span / 3))?;
    if recent.per_second < 0.3 * line.per_second {
        return None;
    }
    // The faster of the two lines: a leak that speeds up is full sooner.
    let seconds = line.seconds_to(limit)?.min(recent.seconds_to(limit)?);
    let full_in_ms = (seconds * 1000.0) as i64;
    (full_in_ms <= span * REACH).then_some(Filling {
        line,
        level,
        limit,
        full_in_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(f: impl Fn(f64) -> f64) -> Series {
        Series::new(
            "x",
            (0..120).map(|i| (i64::from(i) * 30_000, f(f64::from(i)))).collect(),
        )
    }

    #[test]
    fn a_leak_is_told_from_a_level_that_was_reached() {
        // 50 plus 0.25 every 30 s: 79.75 at the end, 100 after 81 more steps of 30 s.
        let leak = filling(&series(|i| 50.0 + 0.25 * i), 100.0).unwrap();
        assert!((leak.full_in_ms - 81 * 30_000).abs() < 30_000, "{leak:?}");
        assert_eq!(
            filling(&series(|i| 50.0 + i.min(60.0) * 0.5), 100.0),
            None,
            "flat since half the window"
        );
        assert_eq!(filling(&series(|_| 97.0), 100.0), None, "high and stable");
        assert_eq!(
            filling(&series(|i| 60.0 + 20.0 * (i % 10.0) / 10.0), 100.0),
            None,
            "a sawtooth"
        );
        assert_eq!(filling(&series(|i| 10.0 + 0.1 * i), 100.0), None, "far from full");
    }
}
