//! Statistics that a few wild samples don't upset.

/// What [`line()`] does, in words.
pub const TREND_METHOD: &str = "Theil-Sen slope, Mann-Kendall test corrected for autocorrelation";

/// Samples below which nothing is said about what is usual.
pub const SAMPLES_MIN: usize = 8;

/// MAD of normally distributed values times this is their standard deviation.
const MAD_TO_SIGMA: f64 = 1.4826;

/// Points that a slope is taken from at most; more are thinned by medians of blocks (the slope is quadratic).
const SLOPE_POINTS_MAX: usize = 64;

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut v: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    v.sort_by(f64::total_cmp);
    v
}

/// The middle value. `None` without numbers.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut v: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let half = v.len() / 2;
    if v.is_empty() {
        return None;
    }
    // Selection rather than sorting: slopes are thousands.
    let odd = v.len() % 2 == 1;
    let (below, upper, _) = v.select_nth_unstable_by(half, f64::total_cmp);
    let upper = *upper;
    if odd {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(f64::midpoint(lower, upper))
}

/// The value that a share of all (0–1) is at or below, by linear interpolation. `None` without numbers.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let v = sorted(values);
    let last = v.len().checked_sub(1)?;
    let at = share.clamp(0.0, 1.0) * last as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    Some(v[below] + (v[above] - v[below]) * (at - below as f64))
}

/// The average. `None` without numbers.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    let v: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    (!v.is_empty()).then(|| v.iter().sum::<f64>() / v.len() as f64)
}

/// Standard deviation, estimated from the median absolute deviation.
#[must_use]
pub fn robust_sigma(values: &[f64]) -> Option<f64> {
    let m = median(values)?;
    let off: Vec<f64> = values.iter().map(|v| (v - m).abs()).collect();
    Some(median(&off)? * MAD_TO_SIGMA)
}

/// How many standard deviations a value lies from the usual, by median and MAD. The deviation is taken as
/// `sigma_min` at least, so that a constant past doesn't make every change a wonder. `None` with fewer than
/// [`SAMPLES_MIN`] usual values.
#[must_use]
pub fn robust_z(value: f64, usual: &[f64], sigma_min: f64) -> Option<f64> {
    if usual.iter().filter(|v| v.is_finite()).count() < SAMPLES_MIN || !value.is_finite() {
        return None;
    }
    let sigma = robust_sigma(usual)?.max(sigma_min);
    (sigma > 0.0).then_some((value - median(usual)?) / sigma)
}

/// A straight line through samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Change a second (Theil–Sen: the median of the slopes between all pairs).
    pub per_second: f64,
    /// Value of the line at the newest sample.
    pub now: f64,
    /// Kendall's tau, -1 to 1: how steadily the values rise or fall.
    pub tau: f64,
    /// Probability of so steady a course by chance (Mann–Kendall, two-sided, corrected for autocorrelation of first
    /// order of what the line leaves over).
    pub p: f64,
}

impl Line {
    /// Whether it rises (or falls) so steadily that chance is out: tau of 0.5 or more, p below 0.01.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        self.tau.abs() >= 0.5 && self.p < 0.01
    }

    /// Seconds until the line reaches a limit above. `None` if it never does.
    #[must_use]
    pub fn seconds_to(&self, limit: f64) -> Option<f64> {
        (self.per_second > 0.0).then(|| ((limit - self.now) / self.per_second).max(0.0))
    }
}

/// Medians of equal runs of points, `blocks` at most: fewer points, the same course.
#[must_use]
pub fn thin(points: &[(i64, f64)], blocks: usize) -> Vec<(i64, f64)> {
    let size = points.len().div_ceil(blocks.max(1)).max(1);
    points
        .chunks(size)
        .filter_map(|c| {
            let values: Vec<f64> = c.iter().map(|p| p.1).collect();
            Some((c[c.len() / 2].0, median(&values)?))
        })
        .collect()
}

/// The Theil–Sen line. `None` with fewer than [`SAMPLES_MIN`] samples or if they are all at one time.
#[must_use]
pub fn line(points: &[(i64, f64)]) -> Option<Line> {
    if points.len() < SAMPLES_MIN {
        return None;
    }
    let points = thin(points, SLOPE_POINTS_MAX);
    let n = points.len();
    let mut slopes = Vec::with_capacity(n * (n - 1) / 2);
    let mut score = 0i64;
    for (i, a) in points.iter().enumerate() {
        for b in &points[i + 1..] {
            if b.0 > a.0 {
                slopes.push((b.1 - a.1) / ((b.0 - a.0) as f64 / 1000.0));
                score += i64::from(b.1 > a.1) - i64::from(b.1 < a.1);
            }
        }
    }
    let per_second = median(&slopes)?;
    let end = points[n - 1].0;
    let levels: Vec<f64> = points
        .iter()
        .map(|p| p.1 + per_second * ((end - p.0) as f64 / 1000.0))
        .collect();
    let count = n as f64;
    let variance = count * (count - 1.0) * (2.0 * count + 5.0) / 18.0;
    // Neighbours that lie on the same side of the line are no independent witnesses: fewer count.
    let alike = autocorrelation(&levels).clamp(0.0, 0.95);
    let inflated = variance * (1.0 + alike) / (1.0 - alike);
    let z = (score.abs() as f64 - 1.0).max(0.0) / inflated.sqrt();
    Some(Line {
        per_second,
        now: median(&levels)?,
        tau: score as f64 / (count * (count - 1.0) / 2.0),
        p: two_sided(z),
    })
}

/// How much each value is like the one before it, -1 to 1. Of values that are all the same 0.
fn autocorrelation(values: &[f64]) -> f64 {
    let Some(mean) = mean(values) else { return 0.0 };
    let total: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let shared: f64 = values.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum();
    // Rounding makes something of nothing.
    if total <= 1e-12 * mean.powi(2) * values.len() as f64 {
        0.0
    } else {
        shared / total
    }
}

/// Probability that a standard normal variable is at least `z` away from zero.
#[must_use]
pub fn two_sided(z: f64) -> f64 {
    erfc(z.abs() / std::f64::consts::SQRT_2).clamp(0.0, 1.0)
}

/// Complementary error function, relative error below 1.2e-7 (Chebyshev fit of Numerical Recipes, section 6.2).
fn erfc(x: f64) -> f64 {
    const C: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x);
    let sum = C.iter().rev().fold(0.0, |sum, c| sum * t + c);
    t * (-x * x + sum).exp()
}

/// Whether two samples differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Probability of such a difference by chance (Mann–Whitney U, two-sided, normal with correction for ties).
    pub p: f64,
    /// Rank-biserial correlation, -1 to 1: 1 if every value of the first is above every one of the second.
    pub effect: f64,
}

/// The Mann–Whitney U test. `None` with fewer than [`SAMPLES_MIN`] values on a side: too few for a verdict.
#[must_use]
pub fn mann_whitney(a: &[f64], b: &[f64]) -> Option<Comparison> {
    let (a, b) = (sorted(a), sorted(b));
    if a.len() < SAMPLES_MIN || b.len() < SAMPLES_MIN {
        return None;
    }
    let mut all: Vec<(f64, bool)> = a
        .iter()
        .map(|v| (*v, true))
        .chain(b.iter().map(|v| (*v, false)))
        .collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut ranks_a, mut ties, mut i) = (0.0, 0.0, 0);
    while i < all.len() {
        let end = i + all[i..].iter().take_while(|v| v.0 == all[i].0).count();
        let tied = (end - i) as f64;
        let rank = (i + 1 + end) as f64 / 2.0;
        ranks_a += rank * all[i..end].iter().filter(|v| v.1).count() as f64;
        ties += tied.powi(3) - tied;
        i = end;
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let total = n + m;
    let u = ranks_a - n * (n + 1.0) / 2.0;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    let p = if variance > 0.0 {
        two_sided(((u - n * m / 2.0).abs() - 0.5).max(0.0) / variance.sqrt())
    } else {
        1.0
    };
    Some(Comparison {
        p,
        effect: 2.0 * u / (n * m) - 1.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median(&[3.0, f64::NAN, 1.0]), Some(2.0));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[5.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[5.0, 1.0, 4.0, 2.0]), Some(3.0));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.95), Some(4.8));
    }

    #[test]
    fn a_wild_sample_moves_neither_the_usual_nor_the_slope() {
        let mut usual: Vec<f64> = (0..20).map(|i| 50.0 + f64::from(i % 3)).collect();
        usual[7] = 1e9;
        assert!(robust_z(70.0, &usual, 0.1).unwrap() > 5.0);
        let mut points: Vec<(i64, f64)> = (0..50).map(|i| (i * 1000, 2.0 * i as f64)).collect();
        points[20].1 = -1e9;
        let line = line(&points).unwrap();
        assert!((line.per_second - 2.0).abs() < 0.01 && line.is_steady(), "{line:?}");
        assert!((line.seconds_to(198.0).unwrap() - 50.0).abs() < 0.5);
    }

    #[test]
    fn a_level_that_wanders_is_no_trend() {
        // A wave whose half shows in the window rises from end to end; a line with noise does, too.
        let wave: Vec<(i64, f64)> = (0..60).map(|i| (i * 1000, (i as f64 / 12.0 - 2.5).sin())).collect();
        assert!(!line(&wave).unwrap().is_steady());
        let noisy: Vec<(i64, f64)> = (0..60)
            .map(|i| (i * 1000, i as f64 + 5.0 * (i as f64 * 7.3).sin()))
            .collect();
        assert!(line(&noisy).unwrap().is_steady());
    }

    #[test]
    fn too_few_samples_say_nothing() {
        assert_eq!(robust_z(9.0, &[1.0; 7], 1.0), None);
        assert_eq!(line(&[(0, 1.0); 7]), None);
        assert_eq!(mann_whitney(&[1.0; 7], &[2.0; 30]), None);
    }

    #[test]
    fn the_normal_tail_is_right() {
        assert!((two_sided(1.959_964) - 0.05).abs() < 1e-6);
        assert!((two_sided(0.0) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn mann_whitney_agrees_with_tables() {
        // n = m = 10, all of one above all of the other: U = 100, z = 3.7418 with continuity, p = 0.000183.
        let low: Vec<f64> = (0..10).map(f64::from).collect();
        let high: Vec<f64> = (20..30).map(f64::from).collect();
        let apart = mann_whitney(&high, &low).unwrap();
        assert!((apart.p - 0.000_183).abs() < 2e-6, "{apart:?}");
        assert_eq!(apart.effect, 1.0);
        let same = mann_whitney(&low, &low).unwrap();
        assert!(same.p > 0.9 && same.effect == 0.0);
        assert_eq!(mann_whitney(&[1.0; 9], &[1.0; 9]).unwrap().p, 1.0, "all tied");
    }
}
