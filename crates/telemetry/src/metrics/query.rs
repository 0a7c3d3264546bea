//! Reading: the head and the files as they are at one moment.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::aggregate::{Aggregated, Fold, Grid, Keep, Rolled, Row, windows_of};
use super::head::Frozen;
use super::plan::{Kind, ROLLUP_MS, rollup};
use super::segment::Segment;
use super::store::Shared;
use super::{Aggregate, Labels, Matcher, MetricError, Resolution, Series, Windows};

/// Series from which on two threads pay for themselves.
const PARALLEL_SERIES: usize = 512;
/// Threads of one query at most: the others serve.
const THREADS_MAX: usize = 4;
/// Series that [`each_windows`] reads at a time.
const SERIES_A_PART: usize = 8_192;
/// Above this much time, roll-ups answer where they can.
const LONG_MS: i64 = 24 * 3_600_000;

/// What a query reads; later changes don't touch it.
pub(super) struct View {
    /// Ascending.
    pub(super) series: Vec<u32>,
    pub(super) labels: Vec<Labels>,
    pub(super) frozen: Option<Arc<Frozen>>,
    pub(super) segments: Arc<Vec<Arc<Segment>>>,
    /// What the head has of the series: end of each one's part in `times` and `values`.
    pub(super) head_ends: Vec<usize>,
    pub(super) head_times: Vec<i64>,
    pub(super) head_values: Vec<f64>,
    /// Oldest raw sample that there may be; `i64::MAX` when there is none.
    pub(super) raw_from_ms: i64,
}

/// Which raw files a scan takes.
#[derive(Clone, Copy, PartialEq)]
enum Take {
    All,
    /// Those that roll-ups don't cover.
    NotRolled,
}

pub(super) fn check_range(from_ms: i64, to_ms: i64) -> Result<(), MetricError> {
    if from_ms > to_ms {
        return Err(MetricError::InvalidRange { from_ms, to_ms });
    }
    Ok(())
}

pub(super) fn select(
    shared: &Shared,
    matchers: &[Matcher],
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<Series>, MetricError> {
    check_range(from_ms, to_ms)?;
    let view = shared.view(matchers, from_ms, to_ms);
    let mut folds: Vec<Keep> = view.series.iter().map(|_| Keep::default()).collect();
    // Each sample is a point.
    let limit = shared.options.query_points_max;
    let spent = Budget::new(limit, MetricError::TooManyPoints { limit });
    view.scan(&mut folds, (from_ms, to_ms), Take::All, &spent)?;
    Ok(answer(view.labels, folds.into_iter().map(|fold| fold.points)))
}

/// Series that have points, by labels.
fn answer(labels: Vec<Labels>, points: impl Iterator<Item = Vec<(i64, f64)>>) -> Vec<Series> {
    let with = labels.into_iter().zip(points).filter(|(_, points)| !points.is_empty());
    let mut series: Vec<Series> = with.map(|(labels, points)| Series { labels, points }).collect();
    series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
    series
}

pub(super) fn windows(
    shared: &Shared,
    matchers: &[Matcher],
    (from_ms, to_ms): (i64, i64),
    step_ms: i64,
    aggregate: Aggregate,
) -> Result<Windows, MetricError> {
    check_range(from_ms, to_ms)?;
    if step_ms <= 0 {
        return Err(MetricError::InvalidStep { step_ms });
    }
    let last_ms = to_ms.saturating_sub(1);
    let view = shared.view(matchers, from_ms, last_ms);
    let grid = Grid { from_ms, step_ms };
    let limit = shared.options.query_samples_max;
    let spent = Budget::new(limit, MetricError::TooManySamples { limit });
    // Windows of one series at most, so that the answer's size is known before it is computed.
    let limit = shared.options.query_points_max;
    let covered_ms = last_ms
        .min(view.newest_ms())
        .saturating_sub(from_ms.max(view.oldest_ms()))
        .max(0);
    let points = (covered_ms / step_ms + 1)
        .unsigned_abs()
        .saturating_mul(view.series.len() as u64);
    if points > limit {
        return Err(MetricError::TooManyPoints { limit });
    }
    let even = step_ms % ROLLUP_MS == 0 && from_ms % ROLLUP_MS == 0;
    let older = view.rolled_before_raw(from_ms);
    if older && !aggregate.from_rollups() {
        return Err(MetricError::NeedsRaw {
            aggregate,
            raw_from_ms: view.raw_from_ms,
        });
    }
    if aggregate.from_rollups() && (older || (even && to_ms.saturating_sub(from_ms) > LONG_MS)) {
        let rows = view.rows(from_ms, last_ms, &spent)?;
        let points: Result<Vec<_>, _> = rows.into_iter().map(|rows| windows_of(rows, grid, aggregate)).collect();
        return Ok(Windows {
            resolution: Resolution::Rollup,
            series: answer(view.labels, points?.into_iter()),
        });
    }
    let mut folds: Vec<Aggregated> = view.series.iter().map(|_| Aggregated::new(grid, aggregate)).collect();
    view.scan(&mut folds, (from_ms, last_ms), Take::All, &spent)?;
    Ok(Windows {
        resolution: Resolution::Raw,
        series: answer(view.labels, folds.into_iter().map(Aggregated::finish)),
    })
}

pub(super) fn each_windows<K>(
    shared: &Shared,
    metrics: &[(&str, Aggregate)],
    (from_ms, to_ms): (i64, i64),
    step_ms: i64,
    key: impl Fn(&str, &mut dyn Iterator<Item = (&str, &str)>) -> Option<K>,
    mut each: impl FnMut(K, Vec<(i64, f64)>),
) -> Result<(), MetricError> {
    check_range(from_ms, to_ms)?;
    if step_ms <= 0 {
        return Err(MetricError::InvalidStep { step_ms });
    }
    let (grid, last_ms) = (Grid { from_ms, step_ms }, to_ms.saturating_sub(1));
    let mut all: Vec<(u32, Aggregate)> = Vec::new();
    {
        let index = shared.index();
        for (name, aggregate) in metrics {
            let series = index.select(&[Matcher::name(name)]);
            all.extend(series.into_iter().map(|one| (one, *aggregate)));
        }
    }
    all.sort_unstable_by_key(|(one, _)| *one);
    all.dedup_by_key(|(one, _)| *one);
    for part in all.chunks(SERIES_A_PART) {
        let (mut series, mut keys, mut folds) = (Vec::new(), Vec::new(), Vec::new());
        let index = shared.index();
        for &(one, aggregate) in part {
            let Some((name, mut labels)) = index.parts(one) else {
                continue;
            };
            if let Some(key) = key(name, &mut labels) {
                series.push(one);
                keys.push(key);
                folds.push(Aggregated::new(grid, aggregate));
            }
        }
        let view = shared.view_of(index, series, from_ms, last_ms);
        let limit = shared.options.query_samples_max;
        let spent = Budget::new(limit, MetricError::TooManySamples { limit });
        view.scan(&mut folds, (from_ms, last_ms), Take::All, &spent)?;
        for (key, fold) in keys.into_iter().zip(folds) {
            let points = fold.finish();
            if !points.is_empty() {
                each(key, points);
            }
        }
    }
    Ok(())
}

/// What a query may read, shared by its threads.
struct Budget {
    left: AtomicU64,
    error: MetricError,
}

impl Budget {
    fn new(limit: u64, error: MetricError) -> Self {
        Self {
            left: AtomicU64::new(limit),
            error,
        }
    }

    fn spend(&self, samples: usize) -> Result<(), MetricError> {
        let less = |left: u64| left.checked_sub(samples as u64);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.error.clone()),
        }
    }
}

impl View {
    fn newest_ms(&self) -> i64 {
        let files = self
            .segments
            .iter()
            .map(|segment| segment.meta.max_ms.saturating_add(ROLLUP_MS));
        let frozen = self.frozen.iter().filter_map(|frozen| frozen.newest_ms());
        let head = self.head_times.iter().copied();
        files.chain(frozen).chain(head).max().unwrap_or(i64::MIN)
    }

    fn oldest_ms(&self) -> i64 {
        let files = self.segments.iter().map(|segment| segment.meta.min_ms);
        files
            .min()
            .map_or(self.raw_from_ms, |oldest| oldest.min(self.raw_from_ms))
    }

    /// Whether a range from `from_ms` on has parts that only roll-ups know.
    fn rolled_before_raw(&self, from_ms: i64) -> bool {
        let rolled = self.segments.iter().filter(|segment| segment.meta.kind == Kind::Rollup);
        let known = |segment: &Arc<Segment>| {
            segment.meta.min_ms.saturating_add(ROLLUP_MS) <= self.raw_from_ms
                && segment.meta.max_ms.saturating_add(ROLLUP_MS) > from_ms
        };
        from_ms < self.raw_from_ms && rolled.into_iter().any(known)
    }

    /// Folds each series' raw samples in the range, both ends included.
    fn scan<F: Fold>(&self, folds: &mut [F], range: (i64, i64), take: Take, spent: &Budget) -> Result<(), MetricError> {
        let mut files: Vec<&Segment> = self.segments.iter().map(Arc::as_ref).collect();
        files.retain(|file| {
            file.meta.kind == Kind::Raw && overlaps(file, range) && (take == Take::All || !file.meta.merged)
        });
        files.sort_unstable_by_key(|file| (file.meta.window_ms, file.meta.order));
        parallel(&self.series, folds, |first, series, folds| {
            let mut values = Vec::new();
            for file in &files {
                file.scan(series, range, |at, chunk| {
                    spent.spend(chunk.times.len())?;
                    chunk.values(0, &mut values)?;
                    push(&mut folds[at], range, chunk.times, &values);
                    Ok(())
                })?;
            }
            let mut times = Vec::new();
            for (offset, (&one, fold)) in series.iter().zip(folds).enumerate() {
                if let Some(frozen) = &self.frozen {
                    times.clear();
                    values.clear();
                    frozen.gather(one, range.0, range.1, &mut times, &mut values);
                    spent.spend(times.len())?;
                    fold.push(&times, &values);
                }
                let at = first + offset;
                let start = at.checked_sub(1).map_or(0, |before| self.head_ends[before]);
                let part = start..self.head_ends[at];
                spent.spend(part.len())?;
                fold.push(&self.head_times[part.clone()], &self.head_values[part]);
            }
            Ok(())
        })
    }

    /// Each series' roll-up rows in the range, and rows made of what isn't rolled up yet; in no order.
    fn rows(&self, from_ms: i64, to_ms: i64, spent: &Budget) -> Result<Vec<Vec<Row>>, MetricError> {
        let range = (from_ms, to_ms);
        let mut files: Vec<&Segment> = self.segments.iter().map(Arc::as_ref).collect();
        files.retain(|file| file.meta.kind == Kind::Rollup && overlaps(file, range));
        // Where two have the same row, the later file's counts.
        files.sort_unstable_by_key(|file| std::cmp::Reverse(file.meta.order));
        let mut rows: Vec<Vec<Row>> = self.series.iter().map(|_| Vec::new()).collect();
        parallel(&self.series, &mut rows, |_, series, rows| {
            let mut columns: [Vec<f64>; 4] = Default::default();
            for file in &files {
                file.scan(series, range, |at, chunk| {
                    spent.spend(chunk.times.len())?;
                    for (column, values) in columns.iter_mut().enumerate() {
                        chunk.values(column, values)?;
                    }
                    for (n, &at_ms) in chunk.times.iter().enumerate() {
                        if (from_ms..=to_ms).contains(&at_ms) {
                            rows[at].push(Row {
                                at_ms,
                                min: columns[rollup::MIN][n],
                                max: columns[rollup::MAX][n],
                                sum: columns[rollup::SUM][n],
                                count: columns[rollup::COUNT][n],
                            });
                        }
                    }
                    Ok(())
                })?;
            }
            for rows in rows {
                // Stable: the latest file's row comes first of its time.
                rows.sort_by_key(|row| row.at_ms);
                rows.dedup_by_key(|row| row.at_ms);
            }
            Ok(())
        })?;
        let mut fresh: Vec<Rolled> = self.series.iter().map(|_| Rolled::default()).collect();
        self.scan(&mut fresh, range, Take::NotRolled, spent)?;
        for (rows, fresh) in rows.iter_mut().zip(fresh) {
            // A row that began before the range still lies in its first window.
            let clipped = fresh.rows.into_iter().map(|row| Row {
                at_ms: row.at_ms.max(from_ms),
                ..row
            });
            rows.extend(clipped);
        }
        Ok(rows)
    }
}

fn overlaps(file: &Segment, (from_ms, to_ms): (i64, i64)) -> bool {
    file.meta.min_ms <= to_ms && file.meta.max_ms >= from_ms
}

/// The part of a chunk that lies in the range.
fn push<F: Fold>(fold: &mut F, (from_ms, to_ms): (i64, i64), times: &[i64], values: &[f64]) {
    let start = times.partition_point(|&time| time < from_ms);
    let end = times.partition_point(|&time| time <= to_ms);
    fold.push(&times[start..end], &values[start..end]);
}

/// Runs `work` on parts of the series side by side: the place of a part's first, the part, and its folds.
fn parallel<T: Send>(
    series: &[u32],
    folds: &mut [T],
    work: impl Fn(usize, &[u32], &mut [T]) -> Result<(), MetricError> + Sync,
) -> Result<(), MetricError> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    if series.len() < PARALLEL_SERIES || threads == 1 {
        return work(0, series, folds);
    }
    let part = series.len().div_ceil(threads);
    thread::scope(|scope| {
        let parts = series.chunks(part).zip(folds.chunks_mut(part)).enumerate();
        let work = &work;
        let running: Vec<_> = parts
            .map(|(n, (series, folds))| scope.spawn(move || work(n * part, series, folds)))
            .collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
