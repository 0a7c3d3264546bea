//! When a certificate is to be renewed.

use std::time::Duration;

use jiff::Timestamp;

use super::time::{earlier, later};

/// The part of its life, counted from its end, in which a certificate is renewed: a third, as is the custom of ACME
/// clients. It leaves a 90-day certificate 30 days of trying.
const WINDOW: u32 = 3;
/// The part of that window over which a fleet is spread. The rest is for trying again.
const SPREAD: f64 = 0.5;

/// When a certificate's renewal window begins: `before` its end, or its last third if that is `None`.
#[must_use]
pub fn renewal_window_start(not_before: Timestamp, not_after: Timestamp, before: Option<Duration>) -> Timestamp {
    let life = Duration::try_from(not_after.duration_since(not_before)).unwrap_or_default();
    earlier(not_after, before.unwrap_or(life / WINDOW)).max(not_before)
}

/// When one holder of many is to renew: in the first half of the window (the last third of the life), at the place that
/// `jitter` says, from 0 (at its beginning) to 1. What holders draw once at random, they don't all do at once.
#[must_use]
pub fn renewal_at(not_before: Timestamp, not_after: Timestamp, jitter: f64) -> Timestamp {
    let start = renewal_window_start(not_before, not_after, None);
    let window = Duration::try_from(not_after.duration_since(start)).unwrap_or_default();
    let jitter = if jitter.is_finite() {
        jitter.clamp(0.0, 1.0)
    } else {
        0.0
    };
    later(start, window.mul_f64(jitter * SPREAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_third_spread_over_its_first_half() {
        let day = |n: u64| later("2026-01-01T00:00:00Z".parse().unwrap(), Duration::from_secs(n * 86_400));
        assert_eq!(renewal_window_start(day(0), day(90), None), day(60));
        assert_eq!(
            renewal_window_start(day(0), day(90), Some(Duration::from_secs(86_400))),
            day(89)
        );
        assert_eq!(renewal_window_start(day(0), day(90), Some(Duration::MAX)), day(0));
        assert_eq!(renewal_at(day(0), day(90), 0.0), day(60));
        assert_eq!(renewal_at(day(0), day(90), 1.0), day(75));
        for odd in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(renewal_at(day(0), day(90), odd), day(60));
        }
        // A life that is none, as of a damaged record.
        assert_eq!(renewal_at(day(9), day(1), 0.5), day(9));
    }
}
