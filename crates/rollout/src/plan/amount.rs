//! Changes of numbers, and shares of replicas.

use api::deploy::CanaryStep;

use crate::intent::Amount;

/// What binary fractions may add to a product: 0.1 × 30 is 3.0000000000000004, and means 3.
const DUST: f64 = 1e-9;

/// Why an amount makes no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A change of something that has no number yet.
    NothingToChange,
    /// A factor that isn't above 0 and finite.
    Factor,
}

/// The number after a change; `now` is the number before. Products are rounded up to a whole multiple of `grain`; what
/// would fall below 0 is 0.
pub(super) fn applied(now: Option<u64>, amount: Amount<u64>, grain: u64) -> Result<u64, Wrong> {
    let base = || now.ok_or(Wrong::NothingToChange);
    match amount {
        Amount::To(n) => Ok(n),
        Amount::More(n) => Ok(base()?.saturating_add(n)),
        Amount::Fewer(n) => Ok(base()?.saturating_sub(n)),
        Amount::Times(factor) if factor.is_finite() && factor > 0.0 => {
            let grains = (base()? as f64 * factor / grain as f64 - DUST).ceil().max(0.0);
            Ok((grains as u64).saturating_mul(grain))
        }
        Amount::Times(_) => {
            base()?;
            Err(Wrong::Factor)
        }
    }
}

/// The same change of a plain number.
pub(super) fn map<T>(amount: Amount<T>, number: impl Fn(T) -> u64) -> Amount<u64> {
    match amount {
        Amount::To(n) => Amount::To(number(n)),
        Amount::More(n) => Amount::More(number(n)),
        Amount::Fewer(n) => Amount::Fewer(number(n)),
        Amount::Times(factor) => Amount::Times(factor),
    }
}

/// `percent` of `n`, rounded up.
pub(super) fn share_up(percent: f64, n: u32) -> u32 {
    (percent * f64::from(n) / 100.0 - DUST).ceil().max(0.0) as u32
}

/// `percent` of `n`, rounded down.
pub(super) fn share_down(percent: f64, n: u32) -> u32 {
    (percent * f64::from(n) / 100.0 + DUST).floor().max(0.0) as u32
}

/// Replicas of the new revision in a canary step: the share rounded up, at least 1, and one fewer than all, so that the
/// old revision keeps serving. Of a single replica it is 1, which then exists beside the old one.
#[must_use]
pub fn canary_replicas(percentage: f64, replicas: u32) -> u32 {
    share_up(percentage, replicas).min(replicas.saturating_sub(1)).max(1)
}

/// A canary's step of a service with so many replicas.
#[must_use]
pub fn canary_step(percentage: f64, replicas: u32) -> CanaryStep {
    let canary = canary_replicas(percentage, replicas);
    CanaryStep {
        percentage,
        replicas: canary,
        effective_percentage: effective_percentage(canary, replicas),
    }
}

/// The part of all replicas that `canary` of `replicas` are, in percent. A single replica's canary exists beside it: half.
pub(super) fn effective_percentage(canary: u32, replicas: u32) -> f64 {
    100.0 * f64::from(canary) / f64::from(replicas.max(canary + 1))
}

/// A number as people write it: at most two decimals.
pub(super) fn number(value: f64) -> String {
    ((value * 100.0).round() / 100.0).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_of_numbers() {
        assert_eq!(applied(None, Amount::To(3), 1), Ok(3));
        assert_eq!(applied(Some(4), Amount::More(3), 1), Ok(7));
        assert_eq!(applied(Some(4), Amount::Fewer(3), 1), Ok(1));
        assert_eq!(applied(Some(4), Amount::Fewer(9), 1), Ok(0));
        assert_eq!(applied(Some(3), Amount::Times(0.5), 1), Ok(2));
        assert_eq!(applied(Some(30), Amount::Times(0.1), 1), Ok(3));
        assert_eq!(applied(Some(3), Amount::Times(1.5), 1), Ok(5));
        assert_eq!(applied(Some(3), Amount::Times(1.5), 4), Ok(8));
        assert_eq!(applied(None, Amount::Times(2.0), 1), Err(Wrong::NothingToChange));
        assert_eq!(applied(None, Amount::More(2), 1), Err(Wrong::NothingToChange));
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(applied(Some(3), Amount::Times(factor), 1), Err(Wrong::Factor));
        }
        assert_eq!(applied(Some(u64::MAX), Amount::More(1), 1), Ok(u64::MAX));
    }

    #[test]
    fn shares_of_replicas() {
        // percent, replicas, canary, effective percentage
        for (percent, of, replicas, effective) in [
            (10.0, 4, 1, 25.0),
            (10.0, 10, 1, 10.0),
            (10.0, 11, 2, 200.0 / 11.0),
            (10.0, 30, 3, 10.0),
            (5.0, 100, 5, 5.0),
            (50.0, 2, 1, 50.0),
            (99.0, 2, 1, 50.0),
            (99.0, 10, 9, 90.0),
            (1.0, 1, 1, 50.0),
            (33.3, 3, 1, 100.0 / 3.0),
        ] {
            let canary = canary_replicas(percent, of);
            assert_eq!(canary, replicas, "{percent} % of {of}");
            assert!(
                (effective_percentage(canary, of) - effective).abs() < 1e-9,
                "{percent} % of {of}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn a_canary_is_some_and_never_all(thousandths in 1u32..100_000, replicas in 1u32..=200) {
            let percent = f64::from(thousandths) / 1000.0;
            let canary = canary_replicas(percent, replicas);
            prop_assert!(canary >= 1);
            prop_assert!(replicas == 1 || canary < replicas);
            // Exact in whole numbers: rounded up, and by less than one.
            let (part, whole) = (u64::from(thousandths) * u64::from(replicas), 100_000u64);
            let exact = part.div_ceil(whole).max(1).min(u64::from(replicas.max(2) - 1));
            prop_assert_eq!(u64::from(canary), exact);
            prop_assert_eq!(u64::from(share_down(percent, replicas)), part / whole);
        }

        #[test]
        fn more_of_a_share_is_never_fewer_replicas(a in 1u32..99, b in 1u32..99, replicas in 1u32..=200) {
            let (low, high) = (f64::from(a.min(b)), f64::from(a.max(b)));
            prop_assert!(canary_replicas(low, replicas) <= canary_replicas(high, replicas));
        }
    }
}
