//! Numbers in words.

use crate::metric::Unit;

/// Bytes with a binary prefix: `31.2 GiB`.
pub(crate) fn bytes(n: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut n = n;
    let mut at = 0;
    while n.abs() >= 1024.0 && at + 1 < UNITS.len() {
        n /= 1024.0;
        at += 1;
    }
    if at == 0 {
        format!("{n:.0} B")
    } else {
        format!("{n:.1} {}", UNITS[at])
    }
}

/// A duration: `40 s`, `12 min`, `3 h 5 min`, `2 d 4 h`.
pub(crate) fn duration(ms: i64) -> String {
    let s = ms.max(0) / 1000;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 if s % 3600 < 60 => format!("{} h", s / 3600),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ if s % 86_400 < 3600 => format!("{} d", s / 86_400),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A share of samples: `12 % of samples`.
pub(crate) fn samples(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 1.0 {
        "under 1 % of samples".to_owned()
    } else {
        format!("{percent:.0} % of samples")
    }
}

/// A value with its unit.
pub(crate) fn value(v: f64, unit: Unit) -> String {
    match unit {
        Unit::Percent => format!("{v:.0} %"),
        Unit::Celsius => format!("{v:.0} °C"),
        Unit::Bytes => bytes(v),
        Unit::BytesPerSecond => format!("{}/s", bytes(v)),
        Unit::LinesPerSecond => format!("{v:.0} lines/s"),
        Unit::Watts => format!("{v:.0} W"),
        Unit::Megahertz => format!("{v:.0} MHz"),
        Unit::Milliseconds => format!("{v:.0} ms"),
        Unit::Cores => format!("{v:.1} cores"),
        Unit::PerHour => format!("{v:.0} an hour"),
        Unit::Count if v.fract() == 0.0 => format!("{v:.0}"),
        Unit::Count => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(33_500_000_000.0), "31.2 GiB");
        assert_eq!(duration(7_500_000), "2 h 5 min");
        assert_eq!(duration(86_400_000), "1 d");
        assert_eq!(samples(0.005), "under 1 % of samples");
    }
}
