//! Sizes, CPU shares and durations, read as people write them and printed the same way.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Text that isn't a quantity of the kind that was asked for; says what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {wanted}")]
pub struct QuantityError {
    /// What was given.
    pub text: String,
    /// What is accepted, with examples.
    pub wanted: &'static str,
}

const A_SIZE: &str = "a size (accepted: 512Mi, 32Gi, 64G, or plain bytes)";
const A_CPU: &str = "a number of CPU cores (accepted: 4, 0.5, 500m)";
const A_SPAN: &str = "a duration (accepted: 90s, 15m, 24h, 7d, 1h30m)";

/// Splits `12.5Gi` into `12.5` and `Gi`.
fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `number * factor` as an exact integer: `None` on overflow, on a malformed number or on a fraction of a unit.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let divisor = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let total = whole
        .checked_mul(divisor)?
        .checked_add(fraction)?
        .checked_mul(u128::from(factor))?;
    u64::try_from(total / divisor).ok()
}

/// A size in bytes. Written `512Mi`, `32Gi` (powers of 1024), `64G` (powers of 1000) or plain bytes; JSON holds bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

impl Size {
    /// A size in units of 2^20 bytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// A size in units of 2^30 bytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split_number(text.trim());
        let factor = match unit.trim_start() {
            "" | "B" => Some(1),
            "Ki" | "KiB" => Some(1 << 10),
            "Mi" | "MiB" => Some(1 << 20),
            "Gi" | "GiB" => Some(1 << 30),
            "Ti" | "TiB" => Some(1 << 40),
            "k" | "K" | "kB" | "KB" => Some(1_000),
            "M" | "MB" => Some(1_000_000),
            "G" | "GB" => Some(1_000_000_000),
            "T" | "TB" => Some(1_000_000_000_000),
            _ => None,
        };
        factor
            .and_then(|factor| scaled(number, factor))
            .map(Self)
            .ok_or_else(|| QuantityError {
                text: text.to_owned(),
                wanted: A_SIZE,
            })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
        let text = match UNITS.iter().find(|(_, factor)| self.0 >= *factor) {
            None => format!("{}B", self.0),
            Some((unit, factor)) if self.0.is_multiple_of(*factor) => format!("{}{unit}", self.0 / factor),
            Some((unit, factor)) => format!("{:.1}{unit}", self.0 as f64 / *factor as f64),
        };
        f.pad(&text)
    }
}

/// A share of CPU time in thousandths of a core. Written `4`, `0.5` or `500m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cpu(pub u32);

impl Cpu {
    /// Whole cores.
    #[must_use]
    pub const fn cores(n: u32) -> Self {
        Self(n * 1000)
    }

    /// Thousandths of a core.
    #[must_use]
    pub const fn millis(self) -> u32 {
        self.0
    }
}

impl FromStr for Cpu {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split_number(text.trim());
        let factor = match unit {
            "" => Some(1000),
            "m" => Some(1),
            _ => None,
        };
        factor
            .and_then(|factor| scaled(number, factor))
            .and_then(|millis| u32::try_from(millis).ok())
            .map(Self)
            .ok_or_else(|| QuantityError {
                text: text.to_owned(),
                wanted: A_CPU,
            })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            f.pad(&(self.0 / 1000).to_string())
        } else {
            f.pad(&format!("{}m", self.0))
        }
    }
}

/// A length of time with millisecond resolution. Written `90s`, `15m`, `24h`, `7d`, `1h30m`, `250ms`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub u64);

impl Span {
    /// A span of whole seconds.
    #[must_use]
    pub const fn secs(n: u64) -> Self {
        Self(n * 1000)
    }

    /// Milliseconds.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// As the standard library's duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// True for a span of no length.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

const SPAN_UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let refuse = || QuantityError {
            text: text.to_owned(),
            wanted: A_SPAN,
        };
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(0));
        }
        let mut total = 0u64;
        let mut smallest = u64::MAX;
        while !rest.is_empty() {
            let (number, after) = split_number(rest);
            let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, next) = after.split_at(unit_end);
            let (_, factor) = SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?;
            if *factor >= smallest {
                return Err(refuse());
            }
            smallest = *factor;
            let part = scaled(number, *factor).ok_or_else(refuse)?;
            total = total.checked_add(part).ok_or_else(refuse)?;
            rest = next;
        }
        if smallest == u64::MAX {
            Err(refuse())
        } else {
            Ok(Self(total))
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let mut rest = self.0;
        let mut text = String::new();
        for (unit, factor) in &SPAN_UNITS[1..] {
            if rest >= *factor {
                text.push_str(&format!("{}{unit}", rest / factor));
                rest %= factor;
            }
        }
        f.pad(&text)
    }
}

/// A number or text where a quantity is read.
struct Quantity<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = QuantityError>> de::Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

macro_rules! serde_quantity {
    ($type:ident, $schema:expr, |$value:ident, $serializer:ident| $write:expr) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Quantity(std::marker::PhantomData))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, $serializer: S) -> Result<S::Ok, S::Error> {
                let $value = self;
                $write
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

serde_quantity!(
    Size,
    json_schema!({"type": ["integer", "string"], "description": "bytes; text such as 512Mi, 32Gi or 64G is accepted"}),
    |value, serializer| serializer.serialize_u64(value.0)
);
serde_quantity!(
    Cpu,
    json_schema!({"type": ["string", "number"], "description": "CPU cores: 4, 0.5 or 500m"}),
    |value, serializer| serializer.collect_str(value)
);
serde_quantity!(
    Span,
    json_schema!({"type": "string", "description": "a duration: 90s, 15m, 24h, 7d, 1h30m"}),
    |value, serializer| serializer.collect_str(value)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed() {
        assert_eq!("512Mi".parse(), Ok(Size::mib(512)));
        assert_eq!("1.5Gi".parse(), Ok(Size(3 << 29)));
        assert_eq!("64G".parse(), Ok(Size(64_000_000_000)));
        assert_eq!("7".parse(), Ok(Size(7)));
        for bad in ["", "Gi", "12Qi", "-1Gi", "1..2G", "1.Gi", "99999999Ti", "12 Gi b"] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?}");
        }
        assert_eq!(Size::gib(32).to_string(), "32Gi");
        assert_eq!(Size(1_500_000_000).to_string(), "1.4Gi");
        assert_eq!(Size(12).to_string(), "12B");
    }

    #[test]
    fn cpus_are_read_and_printed() {
        assert_eq!("4".parse(), Ok(Cpu(4000)));
        assert_eq!("0.5".parse(), Ok(Cpu(500)));
        assert_eq!("250m".parse(), Ok(Cpu(250)));
        assert!("4c".parse::<Cpu>().is_err());
        assert_eq!(Cpu(1500).to_string(), "1500m");
    }

    #[test]
    fn spans_are_read_and_printed() {
        assert_eq!("90s".parse(), Ok(Span::secs(90)));
        assert_eq!("1h30m".parse(), Ok(Span::secs(5400)));
        assert_eq!("7d".parse(), Ok(Span::secs(7 * 86_400)));
        assert_eq!("250ms".parse(), Ok(Span(250)));
        assert_eq!("0".parse(), Ok(Span(0)));
        for bad in ["", "5", "h", "1m1h", "1h1h", "ten minutes", "1y", "5 m", "-3s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
        assert_eq!(Span::secs(5400).to_string(), "1h30m");
        assert_eq!(Span(0).to_string(), "0s");
    }

    #[test]
    fn json_holds_bytes_and_text_for_spans() {
        assert_eq!(
            serde_json::to_string(&(Size::mib(1), Span::secs(60), Cpu(500))).unwrap(),
            r#"[1048576,"1m","500m"]"#
        );
        let read: (Size, Size, Cpu, Cpu) = serde_json::from_str(r#"["1Mi", 5, 2, 0.25]"#).unwrap();
        assert_eq!(read, (Size::mib(1), Size(5), Cpu(2000), Cpu(250)));
    }
}
