//! Where a reader stands: the next number of every stream that it has read.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::varint;

/// A place in a workload's logs to go on from, across restarts of reader and store.
///
/// Opaque; `Display` and `FromStr` turn it into a string and back (a few bytes for each stream read, so
/// about 10 KB after a gang of a thousand ranks). The default stands before the first line. A stream that a
/// cursor has not met starts at its beginning, so nothing that arrives late is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// (attempt, rank) to the next number wanted.
    pub(super) next: BTreeMap<(u32, u32), u64>,
}

/// The string is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a log cursor")]
pub struct CursorError;

/// Names the encoding, so that another can follow.
const PREFIX: &str = "c1";

impl Cursor {
    pub(super) fn of(&self, attempt: u32, rank: u32) -> u64 {
        self.next.get(&(attempt, rank)).copied().unwrap_or(1)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(self.next.len() * 5);
        for (&(attempt, rank), &next) in &self.next {
            varint::put(&mut bytes, u64::from(attempt));
            varint::put(&mut bytes, u64::from(rank));
            varint::put(&mut bytes, next);
        }
        f.write_str(PREFIX)?;
        for byte in bytes {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let hex = text.strip_prefix(PREFIX).ok_or(CursorError)?.as_bytes();
        if hex.len() % 2 != 0 {
            return Err(CursorError);
        }
        let digit = |c: u8| (c as char).to_digit(16).ok_or(CursorError);
        let bytes = hex
            .chunks_exact(2)
            .map(|pair| Ok((digit(pair[0])? * 16 + digit(pair[1])?) as u8))
            .collect::<Result<Vec<u8>, CursorError>>()?;
        let mut input = bytes.as_slice();
        let mut next = BTreeMap::new();
        while !input.is_empty() {
            let mut number = || varint::take(&mut input).map_err(|_| CursorError);
            let attempt = u32::try_from(number()?).map_err(|_| CursorError)?;
            let rank = u32::try_from(number()?).map_err(|_| CursorError)?;
            next.insert((attempt, rank), number()?);
        }
        Ok(Self { next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_string() {
        let cursor = Cursor {
            next: BTreeMap::from([((1, 0), 1), ((1, 7), u64::MAX), ((u32::MAX, 300), 70_000)]),
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!("c1".parse(), Ok(Cursor::default()));
        for bad in ["", "c2", "c1a", "c1zz", "c1+1", "c1ff", "c10101"] {
            assert_eq!(bad.parse::<Cursor>(), Err(CursorError), "{bad}");
        }
    }
}
