//! Where a reader stands: the next number of every stream that it has read.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::varint;

/// A place in a workload's logs to go on from, across restarts of reader and store.
///
/// Opaque; `Display` and `FromStr` turn it into a string and back (a few bytes for each stream read, so
/// about 10 KB after a gang of a thousand ranks). The default stands before the first line. A stream that a
/// cursor has not met starts at its beginning, so nothing that arrives late is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// (attempt, rank) to where the reader stands in the stream.
    pub(super) next: BTreeMap<(u32, u32), Place>,
    /// The places are still being moved back, to find so many more matches for a tail.
    pub(super) seek: Option<u64>,
}

/// Where a reader stands in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Next number that may be shown.
    pub(super) next: u64,
    /// So many numbers from there on were searched already and don't match; they may still be context.
    pub(super) searched: u64,
    /// Set when the number before `next` was shown: so many from `next` on are shown with it.
    pub(super) shown: Option<u64>,
}

impl Place {
    /// Before a number.
    pub(super) fn at(next: u64) -> Self {
        Self {
            next,
            searched: 0,
            shown: None,
        }
    }

    /// First number that was not searched.
    pub(super) fn scan(self) -> u64 {
        self.next.saturating_add(self.searched)
    }
}

/// The string is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a log cursor")]
pub struct CursorError;

/// Names the encoding, so that another can follow.
const PREFIX: &str = "c1";
/// The same for a cursor that says more than a number for each stream.
const PREFIX_SEARCH: &str = "c2";

impl Cursor {
    /// The place in a stream; one that was not met is at its beginning.
    pub(super) fn of(&self, attempt: u32, rank: u32) -> Place {
        self.next.get(&(attempt, rank)).copied().unwrap_or(Place::at(1))
    }

    /// Moves on in a stream.
    pub(super) fn set(&mut self, attempt: u32, rank: u32, place: Place) {
        if place != self.of(attempt, rank) {
            self.next.insert((attempt, rank), place);
        }
    }

    fn is_plain(&self) -> bool {
        self.seek.is_none() && self.next.values().all(|place| *place == Place::at(place.next))
    }
}

/// 0 for none.
fn put_option(out: &mut Vec<u8>, value: Option<u64>) {
    varint::put(out, value.map_or(0, |value| value.saturating_add(1)));
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(self.next.len() * 5);
        let plain = self.is_plain();
        if !plain {
            put_option(&mut bytes, self.seek);
        }
        for (&(attempt, rank), place) in &self.next {
            varint::put(&mut bytes, u64::from(attempt));
            varint::put(&mut bytes, u64::from(rank));
            varint::put(&mut bytes, place.next);
            if !plain {
                varint::put(&mut bytes, place.searched);
                put_option(&mut bytes, place.shown);
            }
        }
        f.write_str(if plain { PREFIX } else { PREFIX_SEARCH })?;
        for byte in bytes {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (plain, hex) = match (text.strip_prefix(PREFIX), text.strip_prefix(PREFIX_SEARCH)) {
            (Some(hex), _) => (true, hex.as_bytes()),
            (_, Some(hex)) => (false, hex.as_bytes()),
            _ => return Err(CursorError),
        };
        if hex.len() % 2 != 0 {
            return Err(CursorError);
        }
        let digit = |c: u8| (c as char).to_digit(16).ok_or(CursorError);
        let bytes = hex
            .chunks_exact(2)
            .map(|pair| Ok((digit(pair[0])? * 16 + digit(pair[1])?) as u8))
            .collect::<Result<Vec<u8>, CursorError>>()?;
        let mut input = bytes.as_slice();
        let number = |input: &mut &[u8]| varint::take(input).map_err(|_| CursorError);
        let mut next = BTreeMap::new();
        let seek = if plain {
            None
        } else {
            number(&mut input)?.checked_sub(1)
        };
        while !input.is_empty() {
            let attempt = u32::try_from(number(&mut input)?).map_err(|_| CursorError)?;
            let rank = u32::try_from(number(&mut input)?).map_err(|_| CursorError)?;
            let mut place = Place::at(number(&mut input)?);
            if !plain {
                place.searched = number(&mut input)?;
                place.shown = number(&mut input)?.checked_sub(1);
            }
            next.insert((attempt, rank), place);
        }
        Ok(Self { next, seek })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_string() {
        let mut cursor = Cursor {
            next: BTreeMap::from([
                ((1, 0), Place::at(1)),
                ((1, 7), Place::at(u64::MAX)),
                ((u32::MAX, 300), Place::at(70_000)),
            ]),
            seek: None,
        };
        assert!(cursor.to_string().starts_with("c1"));
        assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        let place = Place {
            next: 9,
            searched: 2,
            shown: Some(0),
        };
        cursor.next.insert((2, 0), place);
        assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        cursor.seek = Some(0);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!("c1".parse(), Ok(Cursor::default()));
        for bad in ["", "c2", "c3", "c1a", "c1zz", "c1+1", "c1ff", "c10101", "c200010101"] {
            assert_eq!(bad.parse::<Cursor>(), Err(CursorError), "{bad}");
        }
    }
}
