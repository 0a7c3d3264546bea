//! How long answers took: a histogram of fixed buckets.

use std::time::Duration;

/// The first bucket ends at 2^6 µs, the last bounded one at 2^30 µs (18 minutes).
const FIRST_BITS: u32 = 6;
const LAST_BITS: u32 = 30;
/// Each doubling is cut into 4 equal parts, so that a bucket is at most a quarter wide of where it begins.
const PARTS_BITS: u32 = 2;
const PARTS: usize = 1 << PARTS_BITS;

/// Buckets of a latency histogram.
///
/// The first is 0 to 64 µs; then each doubling up to 2^30 µs (18 minutes) is cut into four equal buckets (64, 80, 96, 112,
/// 128, 160, … µs); the last holds what took longer.
pub const BUCKETS: usize = 2 + PARTS * (LAST_BITS - FIRST_BITS) as usize;

/// Where a bucket ends (it is below this). `None`: the last one, and whatever is no bucket.
#[must_use]
pub fn bucket_bound(bucket: usize) -> Option<Duration> {
    (bucket + 1 < BUCKETS).then(|| Duration::from_micros(end_micros(bucket)))
}

fn end_micros(bucket: usize) -> u64 {
    match bucket {
        0 => 1 << FIRST_BITS,
        n => {
            let (doubling, part) = ((n - 1) / PARTS, (n - 1) % PARTS);
            ((PARTS + part + 1) as u64) << (doubling + FIRST_BITS as usize - PARTS_BITS as usize)
        }
    }
}

/// The bucket of a latency.
pub(crate) fn bucket_of(nanos: u64) -> usize {
    let micros = nanos / 1_000;
    if micros < 1 << FIRST_BITS {
        return 0;
    }
    let bits = micros.ilog2();
    if bits >= LAST_BITS {
        return BUCKETS - 1;
    }
    let part = (micros >> (bits - PARTS_BITS)) as usize % PARTS;
    1 + (bits - FIRST_BITS) as usize * PARTS + part
}

/// An estimate of the latency below which a share `q` (0 to 1) of the samples lies. `None`: there are no samples.
///
/// The bucket is the right one; within it samples are taken to be spread evenly, so the estimate is off by a quarter at
/// most. Samples of the last bucket count as where it begins.
#[must_use]
pub fn quantile(buckets: &[u64], q: f64) -> Option<Duration> {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = (q.clamp(0.0, 1.0) * total as f64).max(1.0);
    let mut below = 0;
    let mut begin = 0.0;
    for (bucket, &count) in buckets.iter().enumerate() {
        let end = bucket_bound(bucket).map_or(begin, |bound| bound.as_secs_f64());
        if count > 0 && (below + count) as f64 >= rank {
            let share = (rank - below as f64) / count as f64;
            return Some(Duration::from_secs_f64(begin + (end - begin) * share));
        }
        below += count;
        begin = end;
    }
    // Only rounding gets here: the rank is the last sample's.
    Some(Duration::from_secs_f64(begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_meet() {
        for bucket in 0..BUCKETS - 1 {
            let end = end_micros(bucket);
            assert_eq!(bucket_of((end - 1) * 1_000), bucket);
            assert_eq!(bucket_of(end * 1_000), bucket + 1);
        }
        assert_eq!(bucket_bound(BUCKETS - 2), Some(Duration::from_micros(1 << 30)));
        assert_eq!(bucket_bound(BUCKETS - 1), None);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn of_nothing_there_is_no_quantile() {
        assert_eq!(quantile(&[0; BUCKETS], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    proptest! {
        #[test]
        fn the_estimate_is_in_the_samples_bucket(
            mut samples in prop::collection::vec(0_u64..2_000_000_000_000, 1..300),
            q in 0.0_f64..=1.0,
        ) {
            let mut buckets = [0; BUCKETS];
            for &sample in &samples {
                buckets[bucket_of(sample)] += 1;
            }
            samples.sort_unstable();
            let rank = ((q * samples.len() as f64).ceil() as usize).clamp(1, samples.len());
            let bucket = bucket_of(samples[rank - 1]);
            let estimate = quantile(&buckets, q).unwrap();
            let begin = if bucket == 0 { 0 } else { end_micros(bucket - 1) };
            let end = bucket_bound(bucket).unwrap_or(Duration::from_micros(begin));
            let slack = Duration::from_nanos(10);
            prop_assert!(estimate + slack >= Duration::from_micros(begin), "{estimate:?} is below {begin} us");
            prop_assert!(estimate <= end + slack, "{estimate:?} is above {end:?}");
        }

        #[test]
        fn quantiles_rise(buckets in prop::collection::vec(0_u64..50, BUCKETS), a in 0.0_f64..=1.0, b in 0.0_f64..=1.0) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(quantile(&buckets, low) <= quantile(&buckets, high));
        }
    }
}
