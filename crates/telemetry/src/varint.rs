//! Whole numbers in as few bytes as they need.

use crate::{logs::LogError, metrics::MetricError};

/// Stored bytes that don't decode; the text names what did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(&'static str);

impl From<Malformed> for LogError {
    fn from(Malformed(detail): Malformed) -> Self {
        Self::Corrupt { detail }
    }
}

impl From<Malformed> for MetricError {
    fn from(Malformed(detail): Malformed) -> Self {
        Self::Corrupt(detail)
    }
}

/// Seven bits a byte, low ones first.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Signed, small magnitudes short.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Length, then the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes one number off the front of `input`.
pub(crate) fn take(input: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(Malformed("number cut short"))?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("number too long"))
}

/// Takes one signed number off the front of `input`.
pub(crate) fn take_signed(input: &mut &[u8]) -> Result<i64, Malformed> {
    let raw = take(input)?;
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Takes `count` bytes off the front of `input`.
pub(crate) fn take_slice<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = input.split_at_checked(count).ok_or(Malformed("bytes cut short"))?;
    *input = rest;
    Ok(taken)
}

/// Takes what [`put_bytes`] wrote.
pub(crate) fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let count = usize::try_from(take(input)?).map_err(|_| Malformed("length too big"))?;
    take_slice(input, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, value);
            put_signed(&mut out, value as i64);
            put_bytes(&mut out, b"abc");
            let mut input = out.as_slice();
            assert_eq!(take(&mut input), Ok(value));
            assert_eq!(take_signed(&mut input), Ok(value as i64));
            assert_eq!(take_bytes(&mut input), Ok(&b"abc"[..]));
            assert!(input.is_empty());
            assert!(take(&mut input).is_err());
        }
    }
}
