//! Where a series is heading, told by a slope that single outliers can't move.

use jiff::Timestamp;

use super::Span;

/// Fewer points say nothing about a direction.
pub(super) const POINTS_MIN: usize = 6;

/// Points looked at: the slope takes the square of this many steps.
const POINTS_MAX: usize = 120;

/// Share of all pairs of points that must move in the direction of the slope. A saw-tooth (something fills a disk
/// and something else empties it) stays below; steady growth with noise is well above.
const AGREEMENT_MIN: f64 = 0.7;

/// A straight line through a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    /// Units per second: the median slope of all pairs of points (Theil-Sen).
    pub slope: f64,
    /// The line's value at the last point.
    pub value: f64,
    /// False where the points don't agree on a direction.
    pub steady: bool,
}

/// The line through `points` (time order). `None` for fewer than [`POINTS_MIN`] finite points, or points that cover
/// less than half of `over`.
pub(super) fn line(points: &[(Timestamp, f64)], over: Span) -> Option<Line> {
    let finite: Vec<(Timestamp, f64)> = points.iter().copied().filter(|(_, v)| v.is_finite()).collect();
    let (first, last) = (finite.first()?.0, finite.last()?.0);
    if finite.len() < POINTS_MIN || Span::between(first, last).times(2) < over {
        return None;
    }
    // Every nth point, counted from the last one, which is always there.
    let step = finite.len().div_ceil(POINTS_MAX);
    let mut kept: Vec<(f64, f64)> = finite
        .iter()
        .rev()
        .step_by(step)
        .map(|(at, value)| (-Span::between(*at, last).as_seconds(), *value))
        .collect();
    kept.reverse();
    let mut slopes = Vec::with_capacity(kept.len() * (kept.len() - 1) / 2);
    for (i, (x, y)) in kept.iter().enumerate() {
        slopes.extend(
            kept[i + 1..]
                .iter()
                .filter(|(later, _)| later > x)
                .map(|(later, value)| (value - y) / (later - x)),
        );
    }
    let slope = median(&mut slopes)?;
    let with_it = slopes.iter().filter(|s| **s * slope > 0.0).count();
    let mut at_last: Vec<f64> = kept.iter().map(|(x, y)| y - slope * x).collect();
    Some(Line {
        slope,
        value: median(&mut at_last)?,
        steady: with_it as f64 >= AGREEMENT_MIN * slopes.len() as f64,
    })
}

fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: impl IntoIterator<Item = f64>) -> Vec<(Timestamp, f64)> {
        let start: Timestamp = "2026-02-16T14:00:00Z".parse().unwrap();
        values
            .into_iter()
            .zip(0..)
            .map(|(value, minute)| (Span::minutes(minute).after(start), value))
            .collect()
    }

    #[test]
    fn a_steady_climb_with_outliers() {
        let values = (0..60).map(|i| if i % 17 == 3 { 9_000.0 } else { f64::from(i) * 60.0 });
        let line = line(&points(values), Span::hours(1)).unwrap();
        assert!((line.slope - 1.0).abs() < 0.01, "{line:?}");
        assert!((line.value - 59.0 * 60.0).abs() < 60.0, "{line:?}");
        assert!(line.steady);
    }

    #[test]
    fn a_saw_tooth_is_not_steady() {
        let values = (0..60).map(|i| f64::from(i % 20) * 5.0);
        assert!(!line(&points(values), Span::hours(1)).unwrap().steady);
    }

    #[test]
    fn many_points_are_thinned_and_the_last_one_stays() {
        let line = line(&points((0..5_000).map(f64::from)), Span::hours(1)).unwrap();
        assert!((line.value - 4_999.0).abs() < 1e-6, "{line:?}");
        assert!((line.slope - 1.0 / 60.0).abs() < 1e-9);
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(line(&[], Span::hours(1)), None);
        assert_eq!(line(&points([1.0, 2.0, 3.0, 4.0, 5.0]), Span::minutes(4)), None);
        // Ten minutes of an hour.
        assert_eq!(line(&points((0..10).map(f64::from)), Span::hours(1)), None);
        assert_eq!(line(&points([f64::NAN; 60]), Span::hours(1)), None);
    }
}
