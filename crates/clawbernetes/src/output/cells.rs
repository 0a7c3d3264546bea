//! The words in cells: what isn't known is a dash, never a zero.

use std::fmt::Display;

use api::{Size, Span, Timestamp, time};

/// The value, or a dash.
pub(crate) fn dash<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The text, or a dash for none.
pub(crate) fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// `3m ago`, or a dash.
pub(crate) fn ago(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "-".to_owned(), |at| time::relative(at, now))
}

/// Date and time to the second, UTC.
pub(crate) fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `3m ago (2026-02-16T14:00:00Z)`.
pub(crate) fn moment(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", time::relative(at, now), clock(at))
}

/// A size in `Gi`, with a decimal where it isn't whole; below 1 Gi in the unit that fits.
pub(crate) fn size(size: Option<Size>) -> String {
    match size {
        None => "-".to_owned(),
        Some(size) if size >= Size::gib(1) => {
            let gib = size.bytes() as f64 / (1u64 << 30) as f64;
            let text = format!("{gib:.1}");
            format!("{}Gi", text.strip_suffix(".0").unwrap_or(&text))
        }
        Some(size) => size.to_string(),
    }
}

/// `used/total`, or a dash where the total isn't known.
pub(super) fn of_size(used: Option<Size>, total: Option<Size>) -> String {
    if total.is_none() {
        return "-".to_owned();
    }
    format!("{}/{}", size(used), size(total))
}

/// `42%`, or a dash.
pub(super) fn percent(value: Option<f32>) -> String {
    dash(value.map(|value| format!("{value:.0}%")))
}

/// A length of time in its two largest units: `2h5m`, `41s`.
pub(crate) fn span_of(span: Span) -> String {
    let seconds = span.millis() / 1000;
    match seconds {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 if s % 60 == 0 => format!("{}m", s / 60),
        s @ 60..3600 => format!("{}m{}s", s / 60, s % 60),
        s @ 3600..86_400 if s % 3600 < 60 => format!("{}h", s / 3600),
        s @ 3600..86_400 => format!("{}h{}m", s / 3600, s % 3600 / 60),
        s if s % 86_400 < 3600 => format!("{}d", s / 86_400),
        s => format!("{}d{}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// `0-3,6` for 0, 1, 2, 3 and 6.
pub(super) fn ranges(indices: impl IntoIterator<Item = u32>) -> String {
    let mut sorted: Vec<u32> = indices.into_iter().collect();
    sorted.sort_unstable();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for index in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 >= index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let texts = runs.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

/// `a=1,b=2`, or a dash.
pub(super) fn pairs(map: &std::collections::BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map
        .iter()
        .map(|(key, value)| {
            if value.is_empty() {
                key.clone()
            } else {
                format!("{key}={value}")
            }
        })
        .collect();
    or_dash(pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_gi() {
        assert_eq!(size(None), "-");
        assert_eq!(size(Some(Size::gib(2048))), "2048Gi");
        assert_eq!(size(Some(Size(3 << 29))), "1.5Gi");
        assert_eq!(size(Some(Size::mib(512))), "512Mi");
        assert_eq!(of_size(None, Some(Size::gib(80))), "-/80Gi");
    }

    #[test]
    fn indices_are_told_as_ranges() {
        assert_eq!(ranges([3, 0, 1, 2, 6]), "0-3,6");
        assert_eq!(ranges([]), "");
    }

    #[test]
    fn spans_are_told_in_two_units() {
        for (seconds, text) in [
            (41, "41s"),
            (300, "5m"),
            (301, "5m1s"),
            (7500, "2h5m"),
            (90_000, "1d1h"),
        ] {
            assert_eq!(span_of(Span::secs(seconds)), text);
        }
    }
}
