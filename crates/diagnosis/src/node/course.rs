//! Something that fills up, and when it is full.

use crate::stats::{self, Line};
use crate::{Evidence, Series, Severity, metric, words};

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
    /// Whether the past has seen the like, and it came down again by itself.
    pub(crate) usual: bool,
}

impl Filling {
    /// What it stands on.
    pub(crate) fn evidence(&self, name: &'static str, series: &Series) -> Evidence {
        let amount = |n: f64| words::value(n.round(), metric::unit(name));
        Evidence::value(
            name,
            self.level,
            format!(
                "{} of {}, growing by {} an hour: full in {}",
                amount(self.level),
                amount(self.limit),
                amount(self.line.per_second * 3600.0),
                words::duration(self.full_in_ms),
            ),
        )
        .against(self.limit)
        .over(series.span_ms())
        .by(stats::TREND_METHOD)
    }
}

/// How soon something that fills up matters. What is usual is no more than worth knowing, and near the limit one step
/// less than it would be.
pub(crate) fn urgency(filling: &Filling) -> Option<Severity> {
    const HOUR: i64 = 3_600_000;
    let severity = match filling.full_in_ms {
        ms if ms <= HOUR => Severity::Critical,
        ms if ms <= 6 * HOUR => Severity::Warning,
        ms if ms <= 24 * HOUR => Severity::Info,
        _ => return None,
    };
    match severity {
        Severity::Critical if filling.usual && filling.level >= 0.9 * filling.limit => Some(Severity::Warning),
        _ if filling.usual => Some(Severity::Info),
        _ => Some(severity),
    }
}

/// Whether a level rises toward its limit: steadily, by 2 % of the limit at least since the window began, in its
/// last third as well (a level that was reached and stays is no leak), from above half of the limit, and so fast that
/// the limit lies within [`REACH`] times the time seen. `past` is what was before.
pub(crate) fn filling(series: &Series, limit: f64, past: Option<&Series>) -> Option<Filling> {
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
    let full_in_ms = (line.seconds_to(limit)? * 1000.0) as i64;
    (full_in_ms <= span * REACH).then_some(Filling {
        usual: past.is_some_and(|p| is_usual(p, level, grown, span, limit)),
        line,
        level,
        limit,
        full_in_ms,
    })
}

/// Whether the past has been as high, or has risen and fallen as much within as long a time, without ever running out.
fn is_usual(past: &Series, level: f64, grown: f64, span_ms: i64, limit: f64) -> bool {
    let Some((_, highest)) = past.max() else { return false };
    let (mut rise, mut fall, mut from) = (0.0f64, 0.0f64, 0);
    for (to, now) in past.points.iter().enumerate() {
        while now.0 - past.points[from].0 > span_ms {
            from += 1;
        }
        for before in &past.points[from..to] {
            rise = rise.max(now.1 - before.1);
            fall = fall.max(before.1 - now.1);
        }
    }
    highest < 0.95 * limit && (highest >= level || rise.min(fall) >= 0.8 * grown)
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
        let leak = filling(&series(|i| 50.0 + 0.25 * i), 100.0, None).unwrap();
        assert!((leak.full_in_ms - 81 * 30_000).abs() < 30_000, "{leak:?}");
        assert_eq!(urgency(&leak), Some(Severity::Critical), "full in 41 min");
        let higher = series(|i| 60.0 + 30.0 * (i / 120.0));
        let again = filling(&series(|i| 50.0 + 0.25 * i), 100.0, Some(&higher)).unwrap();
        assert_eq!(urgency(&again), Some(Severity::Info), "it has been at 90 before");
        let leaking = series(|i| 20.0 + 0.25 * i);
        let on = filling(&series(|i| 50.0 + 0.25 * i), 100.0, Some(&leaking)).unwrap();
        assert_eq!(
            urgency(&on),
            Some(Severity::Critical),
            "it has always risen, and never fallen"
        );
        let swinging = series(|i| 40.0 + 20.0 * (i / 12.0).sin());
        let up = filling(&series(|i| 50.0 + 0.25 * i), 100.0, Some(&swinging)).unwrap();
        assert_eq!(
            urgency(&up),
            Some(Severity::Info),
            "it rises and falls as much at all times"
        );
        assert_eq!(
            filling(&series(|i| 50.0 + i.min(60.0) * 0.5), 100.0, None),
            None,
            "flat since half the window"
        );
        assert_eq!(filling(&series(|_| 97.0), 100.0, None), None, "high and stable");
        assert_eq!(
            filling(&series(|i| 60.0 + 20.0 * (i % 10.0) / 10.0), 100.0, None),
            None,
            "a sawtooth"
        );
        assert_eq!(filling(&series(|i| 10.0 + 0.1 * i), 100.0, None), None, "far from full");
    }
}
