//! Samples become the points of windows, and the rows of roll-ups.

use super::plan::ROLLUP_MS;
use super::{Aggregate, MetricError};

/// Takes one series' samples in ascending order, piece by piece.
pub(super) trait Fold: Send {
    fn push(&mut self, times: &[i64], values: &[f64]);
}

/// Keeps every sample.
#[derive(Default)]
pub(super) struct Keep {
    pub(super) points: Vec<(i64, f64)>,
}

impl Fold for Keep {
    fn push(&mut self, times: &[i64], values: &[f64]) {
        self.points.extend(times.iter().copied().zip(values.iter().copied()));
    }
}

/// Windows of `step_ms`, the first from `from_ms` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) from_ms: i64,
    pub(super) step_ms: i64,
}

impl Grid {
    /// Start of the window of a time that isn't before `from_ms`.
    fn start_of(&self, at_ms: i64) -> i64 {
        at_ms - (at_ms - self.from_ms).rem_euclid(self.step_ms)
    }

    fn end_of(&self, start_ms: i64) -> i64 {
        start_ms.saturating_add(self.step_ms)
    }
}

/// What five minutes, or any other span, come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    pub(super) at_ms: i64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) sum: f64,
    pub(super) count: f64,
}

impl Row {
    pub(super) fn empty(at_ms: i64) -> Self {
        Self {
            at_ms,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: 0.0,
            count: 0.0,
        }
    }

    fn take(&mut self, values: &[f64]) {
        for &value in values {
            self.min = self.min.min(value);
            self.max = self.max.max(value);
            self.sum += value;
        }
        self.count += values.len() as f64;
    }

    pub(super) fn add(&mut self, row: &Self) {
        self.min = self.min.min(row.min);
        self.max = self.max.max(row.max);
        self.sum += row.sum;
        self.count += row.count;
    }

    /// `None` for what a row doesn't tell.
    fn value(&self, aggregate: Aggregate) -> Option<f64> {
        match aggregate {
            Aggregate::Avg => Some(self.sum / self.count),
            Aggregate::Max => Some(self.max),
            Aggregate::Min => Some(self.min),
            Aggregate::Sum => Some(self.sum),
            Aggregate::Count => Some(self.count),
            Aggregate::P95 | Aggregate::P99 | Aggregate::Last => None,
        }
    }
}

/// One point a window.
pub(super) struct Aggregated {
    grid: Grid,
    aggregate: Aggregate,
    /// The window being filled; its time is the window's start.
    row: Row,
    last: f64,
    /// Its samples, for percentiles.
    values: Vec<f64>,
    points: Vec<(i64, f64)>,
}

impl Aggregated {
    pub(super) fn new(grid: Grid, aggregate: Aggregate) -> Self {
        Self {
            grid,
            aggregate,
            row: Row::empty(i64::MIN),
            last: 0.0,
            values: Vec::new(),
            points: Vec::new(),
        }
    }

    fn end_window(&mut self) {
        if self.row.count == 0.0 {
            return;
        }
        let value = match self.aggregate {
            Aggregate::P95 => percentile(&mut self.values, 0.95),
            Aggregate::P99 => percentile(&mut self.values, 0.99),
            Aggregate::Last => self.last,
            other => self.row.value(other).unwrap_or(f64::NAN),
        };
        self.values.clear();
        self.points.push((self.row.at_ms, value));
    }

    pub(super) fn finish(mut self) -> Vec<(i64, f64)> {
        self.end_window();
        self.points
    }
}

impl Fold for Aggregated {
    fn push(&mut self, mut times: &[i64], mut values: &[f64]) {
        while let Some(&first) = times.first() {
            let start = self.grid.start_of(first);
            if self.row.at_ms != start || self.row.count == 0.0 {
                self.end_window();
                self.row = Row::empty(start);
            }
            let end = self.grid.end_of(start);
            let inside = match times.last() {
                Some(&last) if last < end => times.len(),
                _ => times.partition_point(|&time| time < end),
            };
            let (now, later) = values.split_at(inside);
            match self.aggregate {
                Aggregate::P95 | Aggregate::P99 => {
                    self.values.extend_from_slice(now);
                    self.row.count += now.len() as f64;
                }
                Aggregate::Avg | Aggregate::Sum | Aggregate::Count => {
                    self.row.sum += now.iter().sum::<f64>();
                    self.row.count += now.len() as f64;
                }
                Aggregate::Max | Aggregate::Min => self.row.take(now),
                Aggregate::Last => {
                    self.last = now.last().copied().unwrap_or(self.last);
                    self.row.count += now.len() as f64;
                }
            }
            (times, values) = (&times[inside..], later);
        }
    }
}

/// Linear between the two nearest ranks, as Prometheus' `quantile_over_time`.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    let rank = share * (values.len() - 1) as f64;
    let (low, part) = (rank.floor() as usize, rank.fract());
    let (_, &mut at, above) = values.select_nth_unstable_by(low, f64::total_cmp);
    let next = above.iter().copied().min_by(f64::total_cmp).unwrap_or(at);
    at * (1.0 - part) + next * part
}

/// Rows of five minutes.
#[derive(Default)]
pub(super) struct Rolled {
    pub(super) rows: Vec<Row>,
}

impl Fold for Rolled {
    fn push(&mut self, mut times: &[i64], mut values: &[f64]) {
        while let Some(&first) = times.first() {
            let start = first - first.rem_euclid(ROLLUP_MS);
            let inside = times.partition_point(|&time| time < start + ROLLUP_MS);
            let (now, later) = values.split_at(inside);
            match self.rows.last_mut() {
                Some(row) if row.at_ms == start => row.take(now),
                _ => {
                    let mut row = Row::empty(start);
                    row.take(now);
                    self.rows.push(row);
                }
            }
            (times, values) = (&times[inside..], later);
        }
    }
}

/// The windows of rows in any order, no two parts of which tell of the same sample.
pub(super) fn windows_of(mut rows: Vec<Row>, grid: Grid, aggregate: Aggregate) -> Result<Vec<(i64, f64)>, MetricError> {
    rows.sort_unstable_by_key(|row| row.at_ms);
    let mut windows: Vec<Row> = Vec::new();
    for row in &rows {
        let start = grid.start_of(row.at_ms);
        match windows.last_mut() {
            Some(window) if window.at_ms == start => window.add(row),
            _ => windows.push(Row { at_ms: start, ..*row }),
        }
    }
    let point = |row: &Row| Some((row.at_ms, row.value(aggregate)?));
    let points: Option<Vec<_>> = windows.iter().map(point).collect();
    points.ok_or(MetricError::NeedsRaw {
        aggregate,
        raw_from_ms: i64::MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(aggregate: Aggregate) -> Vec<(i64, f64)> {
        let grid = Grid {
            from_ms: 5,
            step_ms: 10,
        };
        let mut fold = Aggregated::new(grid, aggregate);
        fold.push(&[5, 6, 14], &[1.0, 5.0, 3.0]);
        fold.push(&[15, 40], &[7.0, -1.0]);
        fold.push(&[41], &[-3.0]);
        fold.finish()
    }

    #[test]
    fn windows_fold() {
        assert_eq!(folded(Aggregate::Avg), [(5, 3.0), (15, 7.0), (35, -2.0)]);
        assert_eq!(folded(Aggregate::Max), [(5, 5.0), (15, 7.0), (35, -1.0)]);
        assert_eq!(folded(Aggregate::Min), [(5, 1.0), (15, 7.0), (35, -3.0)]);
        assert_eq!(folded(Aggregate::Sum), [(5, 9.0), (15, 7.0), (35, -4.0)]);
        assert_eq!(folded(Aggregate::Count), [(5, 3.0), (15, 1.0), (35, 2.0)]);
        assert_eq!(folded(Aggregate::Last), [(5, 3.0), (15, 7.0), (35, -3.0)]);
        let near = |got: f64, wanted: f64| (got - wanted).abs() < 1e-9;
        assert!(near(folded(Aggregate::P95)[0].1, 4.8) && near(folded(Aggregate::P99)[2].1, -1.02));
    }
}
