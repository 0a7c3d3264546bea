//! Functions of a window of samples: `rate`, `…_over_time` and their like.

use super::{
    PromqlError,
    aggregate::quantile,
    eval::{Eval, Ranges},
    value::Row,
};

/// A step's window.
pub(super) struct Window<'a> {
    /// Samples, times ascending; at least one.
    points: &'a [(i64, f64)],
    /// Where the window ends, included; it starts `range_ms` before, not included.
    end_ms: i64,
    range_ms: i64,
    /// The function's own number, where it has one: a quantile, or seconds ahead.
    parameter: f64,
}

/// What a window comes to. `None`: it has too few samples.
pub(super) type Function = fn(&Window<'_>) -> Option<f64>;

pub(super) const COUNT: Function = |w| Some(w.points.len() as f64);

/// The function of this name.
pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "rate" => |w| extrapolated(w, true).map(|increase| increase / (w.range_ms as f64 / 1000.0)),
        "increase" => |w| extrapolated(w, true),
        "delta" => |w| extrapolated(w, false),
        "irate" => |w| {
            let ((before, old), (at, new)) = last_two(w)?;
            let gained = if new < old { new } else { new - old };
            Some(gained / ((at - before) as f64 / 1000.0))
        },
        "idelta" => |w| {
            let ((_, old), (_, new)) = last_two(w)?;
            Some(new - old)
        },
        "deriv" => |w| line(w, w.points.first()?.0).map(|(slope, _)| slope),
        "predict_linear" => |w| line(w, w.end_ms).map(|(slope, now)| slope * w.parameter + now),
        "changes" => |w| Some(pairs(w).filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())).count() as f64),
        "resets" => |w| Some(pairs(w).filter(|(a, b)| b < a).count() as f64),
        "avg_over_time" => |w| Some(mean(w)),
        "sum_over_time" => |w| Some(values(w).sum()),
        "min_over_time" => |w| values(w).reduce(|a, b| if b < a || a.is_nan() { b } else { a }),
        "max_over_time" => |w| values(w).reduce(|a, b| if b > a || a.is_nan() { b } else { a }),
        "count_over_time" | "absent_over_time" => COUNT,
        "last_over_time" => |w| w.points.last().map(|(_, value)| *value),
        "present_over_time" => |_| Some(1.0),
        "quantile_over_time" => |w| Some(quantile(w.parameter, values(w).collect())),
        "stdvar_over_time" => |w| Some(variance(w)),
        "stddev_over_time" => |w| Some(variance(w).sqrt()),
        _ => return None,
    })
}

/// A row of each series: what its window comes to at each step. `parameter`: a number a step.
pub(super) fn rows(
    eval: &Eval<'_>,
    ranges: Ranges,
    function: Function,
    parameter: Option<&[f64]>,
) -> Result<Vec<Row>, PromqlError> {
    let Ranges {
        series,
        ends_ms,
        range_ms,
    } = ranges;
    let mut rows = Vec::with_capacity(series.len());
    for (labels, points) in series {
        eval.in_time()?;
        // Ends only ever grow, so that both edges of the window do, too.
        let (mut from, mut to) = (0, 0);
        let values = ends_ms.iter().enumerate().map(|(step, &end_ms)| {
            let edge = |mut at: usize, until: i64| {
                while points.get(at).is_some_and(|point| point.0 <= until) {
                    at += 1;
                }
                at
            };
            from = edge(from, end_ms.saturating_sub(range_ms));
            to = edge(to.max(from), end_ms);
            let window = Window {
                points: points.get(from..to).filter(|points| !points.is_empty())?,
                end_ms,
                range_ms,
                parameter: parameter.and_then(|p| p.get(step)).copied().unwrap_or(f64::NAN),
            };
            function(&window)
        });
        let values: Vec<Option<f64>> = values.collect();
        if values.iter().any(Option::is_some) {
            rows.push(Row { labels, values });
        }
    }
    Ok(rows)
}

fn values<'a>(w: &'a Window<'_>) -> impl Iterator<Item = f64> + 'a {
    w.points.iter().map(|(_, value)| *value)
}

fn pairs<'a>(w: &'a Window<'_>) -> impl Iterator<Item = (f64, f64)> + 'a {
    w.points.windows(2).map(|pair| (pair[0].1, pair[1].1))
}

fn last_two(w: &Window<'_>) -> Option<((i64, f64), (i64, f64))> {
    match w.points {
        [.., before, last] => Some((*before, *last)),
        _ => None,
    }
}

fn mean(w: &Window<'_>) -> f64 {
    values(w).sum::<f64>() / w.points.len() as f64
}

fn variance(w: &Window<'_>) -> f64 {
    let mean = mean(w);
    values(w).map(|v| (v - mean).powi(2)).sum::<f64>() / w.points.len() as f64
}

/// How much a series rose within the window: from its first sample to its last, and on to the window's edges in
/// proportion.
///
/// An edge that is farther from its sample than samples are from each other (and a tenth) is where the series began or
/// ended: half such a distance is added there. A counter isn't thought to have been below zero, and where it fell it
/// began anew from zero.
fn extrapolated(w: &Window<'_>, counter: bool) -> Option<f64> {
    let [(first_ms, first), .., (last_ms, last)] = w.points else {
        return None;
    };
    let mut rose = last - first;
    if counter {
        rose += pairs(w).filter(|(a, b)| b < a).map(|(a, _)| a).sum::<f64>();
    }
    let sampled = (last_ms - first_ms) as f64;
    let distance = sampled / (w.points.len() - 1) as f64;
    let edge = |far: f64| if far >= distance * 1.1 { distance / 2.0 } else { far };
    let mut before = edge((first_ms - (w.end_ms - w.range_ms)) as f64);
    if counter && rose > 0.0 && *first >= 0.0 {
        before = before.min(sampled * first / rose);
    }
    let after = edge((w.end_ms - last_ms) as f64);
    Some(rose * (sampled + before + after) / sampled)
}

/// The straight line through a window with the least squares: its slope a second, and its value at `at_ms`.
fn line(w: &Window<'_>, at_ms: i64) -> Option<(f64, f64)> {
    if w.points.len() < 2 {
        return None;
    }
    let count = w.points.len() as f64;
    let seconds = |ms: i64| (ms - at_ms) as f64 / 1000.0;
    let mean_t = w.points.iter().map(|(ms, _)| seconds(*ms)).sum::<f64>() / count;
    let mean_v = mean(w);
    let (mut both, mut square) = (0.0, 0.0);
    for (ms, value) in w.points {
        let off = seconds(*ms) - mean_t;
        both += off * (value - mean_v);
        square += off * off;
    }
    let slope = both / square;
    Some((slope, mean_v - slope * mean_t))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, points: &[(i64, f64)], end_ms: i64, range_ms: i64) -> Option<f64> {
        let window = Window {
            points,
            end_ms,
            range_ms,
            parameter: 60.0,
        };
        find(name).unwrap()(&window)
    }

    #[test]
    fn counters_that_begin_anew() {
        let points = [(10_000, 100.0), (20_000, 110.0), (30_000, 5.0), (40_000, 15.0)];
        // 25 in 30 s, and 10 s more at the start, none at the end.
        let increase = of("increase", &points, 40_000, 40_000).unwrap();
        assert!((increase - 25.0 * 4.0 / 3.0).abs() < 1e-9, "{increase}");
        assert_eq!(of("rate", &points, 40_000, 40_000), Some(increase / 40.0));
        assert_eq!(of("irate", &points, 40_000, 40_000), Some(1.0));
        assert_eq!(of("resets", &points, 40_000, 40_000), Some(1.0));
        assert_eq!(of("rate", &points[..1], 40_000, 40_000), None);
    }

    #[test]
    fn edges_that_are_far_away() {
        let points = [(100_000, 50.0), (110_000, 60.0), (120_000, 70.0)];
        // Began 10 s / 2 before the first sample, as far as one can tell, and ended 5 s after the last.
        assert_eq!(of("increase", &points, 200_000, 200_000), Some(30.0));
        // Never below zero: 1 at the first sample, 0.5 s before it was none.
        let young = [(100_000, 1.0), (110_000, 21.0)];
        assert_eq!(of("increase", &young, 110_000, 110_000), Some(21.0));
        assert_eq!(of("delta", &young, 110_000, 110_000), Some(30.0));
    }

    #[test]
    fn lines() {
        let points = [(0, 1.0), (10_000, 3.0), (20_000, 5.0)];
        assert_eq!(of("deriv", &points, 20_000, 20_000), Some(0.2));
        let ahead = of("predict_linear", &points, 20_000, 20_000).unwrap();
        assert!((ahead - 17.0).abs() < 1e-9, "{ahead}");
    }
}
