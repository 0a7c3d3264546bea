//! Whether a share lies above or below a bound, told from counts that are looked at again and again.
//!
//! The counts are judged every few seconds, for as long as a deployment lasts. A test made for one look would, looked at
//! so often, sooner or later find whatever it looks for. This one holds for any number of looks, and for stopping at
//! whatever look one likes: a mixture sequential probability ratio test (H. Robbins, "Statistical methods related to the
//! law of the iterated logarithm", 1970; as confidence sequences: S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon,
//! "Time-uniform, nonparametric, nonasymptotic confidence sequences", 2021).
//!
//! For `k` failures among `n` requests, a bound `p` and an odds ratio `r`, the likelihood of the share whose odds are `r`
//! times those of `p`, relative to that of `p` itself, is
//!
//! ```text
//! L(r) = r^k / (1 + (r - 1) p)^n
//! ```
//!
//! With ratios above 1 its expectation never grows as long as the true share is at most `p`; with ratios below 1, as long
//! as it is at least `p`. The same holds of their weighted mean `M`, so by Ville's inequality the probability that `M` ever
//! reaches `1/α` is at most `α`: a claim made then is wrong in at most `α` of all deployments, however often one looks.
//!
//! This takes requests as independent. Where they fail in bursts it errs more often, which is what the least number of
//! requests is for.

/// The side of a bound on which a share may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Above,
    Below,
}

impl Side {
    pub const fn other(self) -> Self {
        match self {
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }

    /// Odds ratios and their weights, which sum to 1.
    ///
    /// Above: from a tenth more to a hundredfold, evenly. Below: most on "never fails", since that is what a good revision
    /// does, so that few requests are enough; the rest for those that fail now and then. The ratios nearest to 1 leave
    /// shares between 0.95 and 1.05 times the bound untold, however many requests there are.
    const fn ratios(self) -> &'static [(f64, f64)] {
        const ABOVE: [(f64, f64); 8] = [
            (1.1, 0.125),
            (1.5, 0.125),
            (2.0, 0.125),
            (3.0, 0.125),
            (5.0, 0.125),
            (10.0, 0.125),
            (30.0, 0.125),
            (100.0, 0.125),
        ];
        const BELOW: [(f64, f64); 6] = [
            (0.0, 0.4),
            (0.1, 0.2),
            (0.25, 0.15),
            (0.5, 0.15),
            (0.75, 0.07),
            (0.9, 0.03),
        ];
        match self {
            Self::Above => &ABOVE,
            Self::Below => &BELOW,
        }
    }
}

/// `k` failures among `n` requests; not whole where a number of requests is only imagined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Counts {
    pub failed: f64,
    pub of: f64,
}

impl Counts {
    pub fn new(failed: u64, of: u64) -> Self {
        Self {
            failed: failed as f64,
            of: of as f64,
        }
    }

    /// The observed share; `NaN` of none.
    pub fn share(self) -> f64 {
        self.failed / self.of
    }

    /// The logarithm of `M` for a bound in (0, 1).
    fn evidence(self, side: Side, bound: f64) -> f64 {
        let logarithm = |(ratio, weight): &(f64, f64)| {
            let gained = if self.failed > 0.0 {
                self.failed * ratio.ln()
            } else {
                0.0
            };
            weight.ln() + gained - self.of * ((ratio - 1.0) * bound).ln_1p()
        };
        let logarithms = side.ratios().iter().map(logarithm);
        let most = logarithms.clone().fold(f64::NEG_INFINITY, f64::max);
        if most.is_infinite() {
            return most;
        }
        most + logarithms.map(|one| (one - most).exp()).sum::<f64>().ln()
    }

    /// Whether the share is shown to lie on that side of the bound, an error of `alpha` allowed.
    pub fn show(self, side: Side, bound: f64, alpha: f64) -> bool {
        if !(bound > 0.0 && bound < 1.0) || self.of <= 0.0 {
            return false;
        }
        self.evidence(side, bound) >= -alpha.ln()
    }

    /// The share that is shown to be exceeded (of `Above`), or not to be reached (of `Below`): the end of the confidence
    /// sequence.
    pub fn limit(self, side: Side, alpha: f64) -> f64 {
        // What is shown of a bound is shown of all bounds further out, so halving finds the last one.
        let (mut near, mut far) = match side {
            Side::Above => (1.0, 0.0),
            Side::Below => (0.0, 1.0),
        };
        for _ in 0..40 {
            let middle = (near + far) / 2.0;
            if self.show(side, middle, alpha) {
                far = middle;
            } else {
                near = middle;
            }
        }
        far
    }

    /// How many requests it takes in all to show it, if they go on failing as they did (of none: if none fails). `None`:
    /// it never will, or not within 10^9.
    pub fn needed(self, side: Side, bound: f64, alpha: f64) -> Option<u64> {
        let share = if self.of > 0.0 { self.share() } else { 0.0 };
        let shown = |of: u64| {
            let of = of as f64;
            Self { failed: share * of, of }.show(side, bound, alpha)
        };
        let (mut few, mut enough) = (0, 1_000_000_000);
        let right = match side {
            Side::Above => share > bound,
            Side::Below => share < bound,
        };
        if !right || !shown(enough) {
            return None;
        }
        while enough - few > 1 {
            let middle = few + (enough - few) / 2;
            if shown(middle) {
                enough = middle;
            } else {
                few = middle;
            }
        }
        Some(enough)
    }
}

/// Whether the first share is shown to be larger than the second by more than `margin`, an error of `alpha` allowed: what the
/// one exceeds isn't reached by the other. Each end has half of the error, so that both together hold at every look.
pub(super) fn larger(one: Counts, other: Counts, margin: f64, alpha: f64) -> bool {
    let one_exceeds = || one.limit(Side::Above, alpha / 2.0);
    let other_stays_below = || other.limit(Side::Below, alpha / 2.0);
    one.of > 0.0 && other.of > 0.0 && one_exceeds() > other_stays_below() + margin
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64.
    struct Random(u64);

    impl Random {
        fn share(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// In how many of `runs` it is shown at any of the looks after up to `requests`, and after how many requests in the
    /// median run.
    fn looked(side: Side, rate: f64, bound: f64, alpha: f64, runs: u64, requests: u64) -> (u64, Option<u64>) {
        let mut shown: Vec<u64> = (0..runs)
            .filter_map(|run| {
                let mut random = Random(run + 1);
                let mut failed = 0;
                (1..=requests).find(|n| {
                    let fails = random.share() < rate;
                    failed += u64::from(fails);
                    // A success never makes it look worse, so looking after failures is looking after every request.
                    let look = match side {
                        Side::Above => fails,
                        Side::Below => n % 10 == 0,
                    };
                    look && Counts::new(failed, *n).show(side, bound, alpha)
                })
            })
            .collect();
        shown.sort_unstable();
        (shown.len() as u64, shown.get(runs as usize / 2).copied())
    }

    #[test]
    fn weights_sum_to_one() {
        for side in [Side::Above, Side::Below] {
            let sum: f64 = side.ratios().iter().map(|(_, weight)| weight).sum();
            assert!((sum - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn looking_after_every_request_errs_in_no_more_runs_than_allowed() {
        // At the bound itself, where it errs most.
        for (side, alpha) in [(Side::Above, 0.01), (Side::Below, 0.05)] {
            for bound in [0.01, 0.1] {
                let (wrong, _) = looked(side, bound, bound, alpha, 800, 1500);
                assert!(wrong as f64 <= 800.0 * alpha, "{wrong} of 800 wrong, {side:?} {bound}");
            }
        }
        let (wrong, _) = looked(Side::Above, 0.005, 0.01, 0.01, 1000, 2000);
        assert!(wrong <= 2, "{wrong} of 1000");
    }

    #[test]
    fn what_is_so_is_found() {
        // side, true rate, bound, alpha, requests -> at least so many of 300 runs, the median within so many requests
        for (side, rate, bound, alpha, requests, found, median) in [
            (Side::Above, 0.03, 0.01, 0.01, 2000, 295, 600),
            (Side::Above, 0.10, 0.01, 0.01, 1000, 300, 100),
            (Side::Above, 0.50, 0.01, 0.01, 100, 300, 10),
            (Side::Below, 0.0, 0.005, 0.05, 1000, 300, 700),
            (Side::Below, 0.001, 0.01, 0.05, 3000, 290, 700),
        ] {
            let (shown, middle) = looked(side, rate, bound, alpha, 300, requests);
            assert!(shown >= found, "{shown} of 300: {side:?} {rate} {bound}");
            assert!(
                middle.is_some_and(|n| n <= median),
                "{middle:?}: {side:?} {rate} {bound}"
            );
        }
    }

    #[test]
    fn few_requests_show_nothing() {
        assert!(!Counts::new(1, 10).show(Side::Above, 0.01, 0.01));
        assert!(!Counts::new(2, 10).show(Side::Above, 0.01, 0.01));
        assert!(!Counts::new(0, 10).show(Side::Below, 0.005, 0.05));
        assert!(!Counts::new(0, 0).show(Side::Below, 0.005, 0.05));
        assert!(!Counts::new(0, 0).show(Side::Above, 0.005, 0.05));
        assert!(!Counts::new(0, 1_000_000).show(Side::Below, 0.0, 0.05));
        assert!(!Counts::new(9, 9).show(Side::Above, 1.0, 0.05));
        assert!(!Counts::new(9, 9).show(Side::Above, f64::NAN, 0.05));
    }

    #[test]
    fn so_many_are_needed() {
        // Documented: a little more than 3.4 requests per reciprocal of the bound, where none fails.
        for (bound, needed) in [(0.005, 688), (0.01, 343), (0.001, 3443), (0.05, 68)] {
            let found = Counts::new(0, 0).needed(Side::Below, bound, 0.05).unwrap();
            assert_eq!(found, needed, "{bound}");
            assert!(Counts::new(0, found).show(Side::Below, bound, 0.05));
            assert!(!Counts::new(0, found - 1).show(Side::Below, bound, 0.05));
        }
        assert_eq!(Counts::new(5, 100).needed(Side::Below, 0.05, 0.05), None);
        assert_eq!(Counts::new(1, 1000).needed(Side::Above, 0.01, 0.01), None);
        let half = Counts::new(25, 10_000).needed(Side::Below, 0.005, 0.05).unwrap();
        assert!((5_000..8_000).contains(&half), "{half}");
    }

    #[test]
    fn limits_enclose_what_is_seen_and_close_in_on_it() {
        let mut width = 1.0;
        for n in [20, 100, 1000, 100_000] {
            let counts = Counts::new(n / 10, n);
            let (low, high) = (counts.limit(Side::Above, 0.05), counts.limit(Side::Below, 0.05));
            assert!(low < 0.1 && 0.1 < high, "{low} {high}");
            assert!(high - low < width, "{low} {high}");
            width = high - low;
        }
        assert!(width < 0.03, "{width}");
        assert_eq!(Counts::new(0, 0).limit(Side::Above, 0.05), 0.0);
        assert_eq!(Counts::new(0, 0).limit(Side::Below, 0.05), 1.0);
    }

    #[test]
    fn of_two_shares_the_larger_is_told() {
        assert!(larger(Counts::new(100, 1000), Counts::new(50, 9000), 0.0, 0.01));
        assert!(!larger(Counts::new(50, 500), Counts::new(900, 9000), 0.0, 0.01));
        assert!(!larger(Counts::new(2, 10), Counts::new(0, 10), 0.0, 0.01));
        assert!(!larger(Counts::new(2, 10), Counts::new(0, 0), 0.0, 0.01));
        // Two alike, looked at after every tenth request.
        let mut wrong = 0;
        for run in 0..200 {
            let mut random = Random(1 + run);
            let (mut one, mut other) = (0, 0);
            wrong += u64::from((1..=1000u64).any(|n| {
                one += u64::from(random.share() < 0.05);
                other += u64::from(random.share() < 0.05);
                n % 10 == 0 && larger(Counts::new(one, n), Counts::new(other, n), 0.0, 0.05)
            }));
        }
        assert!(wrong <= 10, "{wrong} of 200");
    }
}
