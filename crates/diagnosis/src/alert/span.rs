//! A length of time as people write it: `90s`, `15m`, `1h30m`, `7d`.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Largest first: the order in which they are written and accepted. Prometheus reads the same ones.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A length of time, in whole milliseconds; never negative. Written as text, in serialised form too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no duration (accepted: 90s 15m 24h 7d 1h30m 250ms 0)")]
pub struct SpanError {
    /// What was given.
    pub text: String,
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// `n` milliseconds.
    #[must_use]
    pub const fn millis(n: u64) -> Self {
        Self(n)
    }

    /// `n` seconds.
    #[must_use]
    pub const fn seconds(n: u64) -> Self {
        Self(n * 1_000)
    }

    /// `n` minutes.
    #[must_use]
    pub const fn minutes(n: u64) -> Self {
        Self(n * 60_000)
    }

    /// `n` hours.
    #[must_use]
    pub const fn hours(n: u64) -> Self {
        Self(n * 3_600_000)
    }

    /// `n` days of 24 hours.
    #[must_use]
    pub const fn days(n: u64) -> Self {
        Self(n * 86_400_000)
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// In seconds.
    #[must_use]
    pub const fn as_seconds(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// From `earlier` to `later`; zero where the order is the other way round (a clock that was set back).
    #[must_use]
    pub fn between(earlier: Timestamp, later: Timestamp) -> Self {
        Self(u64::try_from(later.as_millisecond().saturating_sub(earlier.as_millisecond())).unwrap_or(0))
    }

    /// This long after `time`; saturates at the end of time.
    #[must_use]
    pub fn after(self, time: Timestamp) -> Timestamp {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        time.checked_add(SignedDuration::from_millis(millis))
            .unwrap_or(Timestamp::MAX)
    }

    /// `n` times as long, saturating.
    #[must_use]
    pub const fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }

    /// For a sentence: its two largest units (`1h30m`, `2d4h`), rounded down.
    #[must_use]
    pub fn rough(self) -> String {
        let Some(largest) = UNITS.iter().position(|(_, size)| self.0 >= *size) else {
            return "0s".to_owned();
        };
        let smallest = (largest + 1).min(if largest <= 3 { 3 } else { 4 });
        Self(self.0 / UNITS[smallest].1 * UNITS[smallest].1).to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut text = String::new();
        for (unit, size) in UNITS {
            if rest >= size {
                text.push_str(&format!("{}{unit}", rest / size));
                rest %= size;
            }
        }
        f.pad(if text.is_empty() { "0s" } else { &text })
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let refuse = || SpanError { text: text.to_owned() };
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        let mut total = 0u64;
        let mut smallest = u64::MAX;
        if rest.is_empty() {
            return Err(refuse());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, next) = after.split_at(letters);
            let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?;
            if *size >= smallest {
                return Err(refuse());
            }
            smallest = *size;
            let number: u64 = number.parse().map_err(|_| refuse())?;
            total = number
                .checked_mul(*size)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(refuse)?;
            rest = next;
        }
        Ok(Self(total))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (text, millis) in [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("250ms", 250),
            ("0", 0),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.as_millis(), millis, "{text}");
            assert_eq!(span.to_string().parse(), Ok(span), "{text}");
        }
        assert_eq!("90s".parse::<Span>().unwrap().to_string(), "1m30s");
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "5",
            "m",
            "5x",
            "5m1h",
            "5m5m",
            "-5m",
            "1.5h",
            "99999999999999999999d",
            "300000000000000d",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sentences_get_two_units() {
        assert_eq!(Span::millis(93_784_005).rough(), "1d2h");
        assert_eq!(Span::millis(3_725_900).rough(), "1h2m");
        assert_eq!(Span::millis(61_900).rough(), "1m1s");
        assert_eq!(Span::millis(5_900).rough(), "5s");
        assert_eq!(Span::millis(40).rough(), "40ms");
        assert_eq!(Span::ZERO.rough(), "0s");
    }

    #[test]
    fn a_clock_set_back_gives_no_time() {
        let time: Timestamp = "2026-02-16T14:00:00Z".parse().unwrap();
        assert_eq!(Span::between(time, Span::minutes(2).after(time)), Span::minutes(2));
        assert_eq!(Span::between(Span::minutes(2).after(time), time), Span::ZERO);
    }
}
