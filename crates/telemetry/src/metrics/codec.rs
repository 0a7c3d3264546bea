//! Columns: the values or the times of one series in one file, as bytes.
//!
//! Long columns of values go through `pco`. It needs some twenty bytes for its tables, so short ones that are
//! decimal numbers (a percentage, milliwatts as watts) become differences instead; what never changes is one
//! number. All of it gives back the same bits.

use pco::ChunkConfig;
use pco::standalone::{simple_compress_into, simple_decompress_into};

use super::MetricError;
use crate::varint;

/// From here on a column goes through `pco`: below, differences are about as small and much cheaper.
const LONG: usize = 128;

/// Decimal places tried: NVML's finest are thousandths.
const PLACES: usize = 4;
const POWERS: [f64; PLACES + 1] = [1.0, 10.0, 100.0, 1000.0, 10_000.0];

/// Whole numbers up to here are exact as `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;

mod tag {
    pub(super) const SAME_BITS: u8 = 0;
    pub(super) const SAME_WHOLE: u8 = 1;
    pub(super) const PLAIN: u8 = 2;
    pub(super) const PCO: u8 = 3;
    /// Plus the number of decimal places.
    pub(super) const DECIMAL: u8 = 16;
    pub(super) const EVEN: u8 = 0;
    pub(super) const STEPS: u8 = 1;
}

/// `value * 10^places` if that is whole and leads back to the same bits.
fn whole(value: f64, places: usize) -> Option<i64> {
    let scaled = (value * POWERS[places]).round();
    let back = scaled.abs() < EXACT && ((scaled as i64) as f64 / POWERS[places]).to_bits() == value.to_bits();
    back.then_some(scaled as i64)
}

/// All values as whole numbers, with the places that takes.
fn decimals(values: &[f64]) -> Option<(usize, Vec<i64>)> {
    let mut places = 0;
    for &value in values {
        while whole(value, places).is_none() {
            places += 1;
            if places > PLACES {
                return None;
            }
        }
    }
    let numbers: Option<Vec<i64>> = values.iter().map(|&value| whole(value, places)).collect();
    Some((places, numbers?))
}

/// Appends the bytes of a column of at least one finite value.
pub(super) fn put_values(values: &[f64], out: &mut Vec<u8>) -> Result<(), MetricError> {
    let Some(&first) = values.first() else {
        return Err(MetricError::Corrupt("a column without values"));
    };
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        if let Some(number) = whole(first, 0) {
            out.push(tag::SAME_WHOLE);
            varint::put_signed(out, number);
        } else {
            out.push(tag::SAME_BITS);
            out.extend_from_slice(&first.to_le_bytes());
        }
        return Ok(());
    }
    let start = out.len();
    if values.len() < LONG
        && let Some((places, numbers)) = decimals(values)
    {
        out.push(tag::DECIMAL + places as u8);
        let mut before = 0;
        for number in numbers {
            varint::put_signed(out, number - before);
            before = number;
        }
        return Ok(());
    }
    out.push(tag::PCO);
    let config = ChunkConfig::default().with_compression_level(4).with_enable_8_bit(true);
    simple_compress_into(values, &config, &mut *out).map_err(|_| MetricError::Corrupt("a column pco refuses"))?;
    if out.len() - start > 1 + values.len() * 8 {
        out.truncate(start);
        out.push(tag::PLAIN);
        for value in values {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
    Ok(())
}

/// Reads a column of `count` values into `out`, replacing what it held.
pub(super) fn values(mut bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Result<(), MetricError> {
    out.clear();
    let input = &mut bytes;
    let kind = varint::take_slice(input, 1)?[0];
    match kind {
        tag::SAME_BITS => {
            let raw = varint::take_slice(input, 8)?;
            out.resize(count, f64_of(raw));
        }
        tag::SAME_WHOLE => out.resize(count, varint::take_signed(input)? as f64),
        tag::PLAIN => {
            let raw = varint::take_slice(input, count.saturating_mul(8))?;
            out.extend(raw.chunks_exact(8).map(f64_of));
        }
        tag::PCO => {
            out.resize(count, 0.0);
            let progress = simple_decompress_into(input, out.as_mut_slice());
            match progress {
                Ok(progress) if progress.n_processed == count => {}
                _ => return Err(MetricError::Corrupt("a column that pco cannot read")),
            }
        }
        _ => {
            let power = usize::from(kind)
                .checked_sub(usize::from(tag::DECIMAL))
                .and_then(|places| POWERS.get(places))
                .ok_or(MetricError::Corrupt("a column of an unknown kind"))?;
            let mut number = 0i64;
            out.reserve(count);
            for _ in 0..count {
                number = number.wrapping_add(varint::take_signed(input)?);
                out.push(number as f64 / power);
            }
        }
    }
    Ok(())
}

fn f64_of(raw: &[u8]) -> f64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(raw);
    f64::from_le_bytes(bytes)
}

/// Appends the bytes of a column of at least one time, ascending.
pub(super) fn put_times(times: &[i64], out: &mut Vec<u8>) -> Result<(), MetricError> {
    let Some(&first) = times.first() else {
        return Err(MetricError::Corrupt("a column without times"));
    };
    let step = times.get(1).map_or(0, |second| second - first);
    if times.windows(2).all(|pair| pair[1] - pair[0] == step) {
        out.push(tag::EVEN);
        varint::put_signed(out, first);
        varint::put_signed(out, step);
        return Ok(());
    }
    let start = out.len();
    out.push(tag::STEPS);
    varint::put_signed(out, first);
    let (mut before, mut step) = (first, 0);
    for &time in &times[1..] {
        varint::put_signed(out, (time - before) - step);
        (before, step) = (time, time - before);
    }
    if times.len() >= LONG {
        let mut packed = vec![tag::PCO];
        let config = ChunkConfig::default().with_compression_level(4);
        simple_compress_into(times, &config, &mut packed).map_err(|_| MetricError::Corrupt("times pco refuses"))?;
        if packed.len() < out.len() - start {
            out.truncate(start);
            out.extend_from_slice(&packed);
        }
    }
    Ok(())
}

/// Reads a column of `count` times into `out`, replacing what it held.
pub(super) fn times(mut bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<(), MetricError> {
    out.clear();
    let input = &mut bytes;
    match varint::take_slice(input, 1)?[0] {
        tag::EVEN => {
            let (first, step) = (varint::take_signed(input)?, varint::take_signed(input)?);
            out.extend((0..count as i64).map(|n| first.wrapping_add(step.wrapping_mul(n))));
        }
        tag::STEPS => {
            let mut time = varint::take_signed(input)?;
            let mut step = 0i64;
            out.reserve(count);
            out.push(time);
            for _ in 1..count {
                step = step.wrapping_add(varint::take_signed(input)?);
                time = time.wrapping_add(step);
                out.push(time);
            }
        }
        tag::PCO => {
            out.resize(count, 0);
            match simple_decompress_into(input, out.as_mut_slice()) {
                Ok(progress) if progress.n_processed == count => {}
                _ => return Err(MetricError::Corrupt("times that pco cannot read")),
            }
        }
        _ => return Err(MetricError::Corrupt("times of an unknown kind")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn survive(given: &[f64]) -> usize {
        let (mut bytes, mut got) = (Vec::new(), vec![7.0]);
        put_values(given, &mut bytes).unwrap();
        values(&bytes, given.len(), &mut got).unwrap();
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(given));
        bytes.len()
    }

    #[test]
    fn typical_columns_are_small() {
        assert!(survive(&[85_520_809_984.0; 360]) < 8);
        assert!(survive(&[-0.0; 3]) < 10);
        let watts: Vec<f64> = (0..40).map(|n| 600.0 + f64::from(n * 7919 % 1000) / 1000.0).collect();
        assert!(survive(&watts) < 40 * 3);
        let percent: Vec<f64> = (0..360).map(|n| f64::from(95 + n * 31 % 5)).collect();
        assert!(survive(&percent) < 360 * 5 / 8);
    }

    proptest! {
        #[test]
        fn values_survive(given in prop_oneof![
            prop::collection::vec(any::<f64>().prop_filter("finite", |v| v.is_finite()), 1..300),
            prop::collection::vec((-1000..1000i64).prop_map(|v| v as f64 / 100.0), 1..300),
            prop::collection::vec(prop_oneof![Just(0.0), Just(-0.0), Just(9e15), Just(-9e18)], 1..20),
        ]) {
            survive(&given);
        }

        #[test]
        fn times_survive(first in -1i64 << 50..1 << 50, steps in prop::collection::vec(1..100_000i64, 0..300)) {
            let mut given = vec![first];
            for step in steps {
                given.push(given[given.len() - 1] + step);
            }
            let (mut bytes, mut got) = (Vec::new(), Vec::new());
            put_times(&given, &mut bytes).unwrap();
            times(&bytes, given.len(), &mut got).unwrap();
            prop_assert_eq!(got, given);
        }

        #[test]
        fn damage_is_an_error_or_other_numbers(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 1..400usize) {
            let _ = values(&bytes, count, &mut Vec::new());
            let _ = times(&bytes, count, &mut Vec::new());
        }
    }
}
