//! Values for people.

use serde::{Deserialize, Serialize};

use super::Span;

/// How a metric's values are written in sentences. Values themselves are never converted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    /// A bare number.
    #[default]
    None,
    /// `91%`.
    Percent,
    /// `1.5 GiB`.
    Bytes,
    /// `1.5 GiB/s`.
    BytesPerSecond,
    /// `91 °C`.
    Celsius,
    /// `2m5s`.
    Seconds,
    /// `53 ms`; from ten seconds on `2m5s`.
    Milliseconds,
    /// `700 W`.
    Watts,
}

impl Unit {
    /// A value for people.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        let number = number(value);
        match self {
            Self::None => number,
            Self::Percent => format!("{number}%"),
            Self::Bytes => bytes(value),
            Self::BytesPerSecond => format!("{}/s", bytes(value)),
            Self::Celsius => format!("{number} °C"),
            Self::Seconds if (0.0..1e12).contains(&value) => Span::millis((value * 1_000.0) as u64).rough(),
            Self::Seconds => format!("{number} s"),
            // A wait rather than an offset.
            Self::Milliseconds if (10_000.0..1e15).contains(&value) => Span::millis(value as u64).rough(),
            Self::Milliseconds => format!("{number} ms"),
            Self::Watts => format!("{number} W"),
        }
    }
}

/// At most two decimals, none that are zero.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn bytes(value: f64) -> String {
    let mut value = value;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value.abs() < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{} {unit}", number((value * 10.0).round() / 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_for_people() {
        for (unit, value, wanted) in [
            (Unit::None, 3.0, "3"),
            (Unit::None, -0.001, "0"),
            (Unit::Percent, 91.456, "91.46%"),
            (Unit::Bytes, 1023.0, "1023 B"),
            (Unit::Bytes, 64.0 * 1024.0 * 1024.0 * 1024.0, "64 GiB"),
            (Unit::BytesPerSecond, 1536.0, "1.5 KiB/s"),
            (Unit::Celsius, 90.0, "90 °C"),
            (Unit::Seconds, 5_430.0, "1h30m"),
            (Unit::Seconds, -3.0, "-3 s"),
            (Unit::Milliseconds, 53.2, "53.2 ms"),
            (Unit::Watts, 700.0, "700 W"),
        ] {
            assert_eq!(unit.show(value), wanted);
        }
    }
}
