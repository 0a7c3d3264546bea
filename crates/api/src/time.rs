//! Points in time: RFC 3339 on the wire, and the ways people write one on a command line.

use jiff::{SignedDuration, Zoned, civil};

pub use jiff::Timestamp;

use crate::quantity::{QuantityError, Span};

const A_TIME: &str = "a point in time (accepted: 2026-02-16T14:00:00Z, 2am, 14:30, \"1h ago\", 24h, \"yesterday 14:00\", \"tomorrow 9am\")";

/// `time` plus `span`; saturates at the ends of time.
#[must_use]
pub fn after(time: Timestamp, span: Span) -> Timestamp {
    let millis = i64::try_from(span.millis()).unwrap_or(i64::MAX);
    time.checked_add(SignedDuration::from_millis(millis))
        .unwrap_or(Timestamp::MAX)
}

/// `time` minus `span`; saturates at the ends of time.
#[must_use]
pub fn before(time: Timestamp, span: Span) -> Timestamp {
    let millis = i64::try_from(span.millis()).unwrap_or(i64::MAX);
    time.checked_sub(SignedDuration::from_millis(millis))
        .unwrap_or(Timestamp::MIN)
}

/// From `earlier` to `later`; zero where the order is the other way round.
#[must_use]
pub fn between(earlier: Timestamp, later: Timestamp) -> Span {
    Span(u64::try_from(later.as_millisecond().saturating_sub(earlier.as_millisecond())).unwrap_or(0))
}

/// Reads a point in the past: RFC 3339, `1h ago` or just `1h`, `yesterday [14:00]`, `today [9am]`, `2am`, `14:30`.
///
/// A bare time of day is its latest occurrence before `now`, in `now`'s zone.
///
/// # Errors
/// Anything else, with the accepted forms.
pub fn parse_past(text: &str, now: &Zoned) -> Result<Timestamp, QuantityError> {
    let time = parse(text, now, -1)?;
    Ok(time)
}

/// Reads a point in the future: RFC 3339, `in 1h` or just `1h`, `tomorrow [14:00]`, `today [9am]`, `2am`, `14:30`.
///
/// A bare time of day is its next occurrence after `now`, in `now`'s zone.
///
/// # Errors
/// Anything else, with the accepted forms.
pub fn parse_future(text: &str, now: &Zoned) -> Result<Timestamp, QuantityError> {
    parse(text, now, 1)
}

/// `direction` is -1 for the past and 1 for the future: where bare durations and times of day point.
fn parse(text: &str, now: &Zoned, direction: i64) -> Result<Timestamp, QuantityError> {
    let refuse = || QuantityError {
        text: text.to_owned(),
        wanted: A_TIME,
    };
    let trimmed = text.trim();
    if let Ok(time) = trimmed.parse::<Timestamp>() {
        return Ok(time);
    }
    let lower = trimmed.to_lowercase();
    if lower == "now" {
        return Ok(now.timestamp());
    }
    if let Some(span) = lower.strip_suffix("ago") {
        let span: Span = span.trim().parse().map_err(|_| refuse())?;
        return Ok(before(now.timestamp(), span));
    }
    if let Some(span) = lower.strip_prefix("in ") {
        let span: Span = span.trim().parse().map_err(|_| refuse())?;
        return Ok(after(now.timestamp(), span));
    }
    if let Ok(span) = lower.parse::<Span>() {
        return Ok(if direction < 0 {
            before(now.timestamp(), span)
        } else {
            after(now.timestamp(), span)
        });
    }
    let (day, clock) = match lower.split_once(' ') {
        Some((day, clock)) => (day, Some(clock.trim())),
        None if matches!(lower.as_str(), "today" | "yesterday" | "tomorrow")
            || lower.parse::<civil::Date>().is_ok() =>
        {
            (lower.as_str(), None)
        }
        None => ("", Some(lower.as_str())),
    };
    let clock = match clock {
        Some(clock) => time_of_day(clock).ok_or_else(refuse)?,
        None => civil::Time::midnight(),
    };
    let date = match day {
        "" | "today" => now.date(),
        "yesterday" => now.date().yesterday().map_err(|_| refuse())?,
        "tomorrow" => now.date().tomorrow().map_err(|_| refuse())?,
        date => date.parse().map_err(|_| refuse())?,
    };
    let at = |date: civil::Date| {
        date.to_datetime(clock)
            .to_zoned(now.time_zone().clone())
            .map(|z| z.timestamp())
    };
    let time = at(date).map_err(|_| refuse())?;
    if day.is_empty() && direction < 0 && time > now.timestamp() {
        return at(date.yesterday().map_err(|_| refuse())?).map_err(|_| refuse());
    }
    if day.is_empty() && direction > 0 && time <= now.timestamp() {
        return at(date.tomorrow().map_err(|_| refuse())?).map_err(|_| refuse());
    }
    Ok(time)
}

/// `2am`, `2:30pm`, `14:00`, `14:00:05`.
fn time_of_day(text: &str) -> Option<civil::Time> {
    let (clock, afternoon) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
        (Some(clock), _) => (clock.trim(), Some(false)),
        (_, Some(clock)) => (clock.trim(), Some(true)),
        _ => (text, None),
    };
    let mut parts = clock.split(':');
    let hour: i8 = parts.next()?.parse().ok()?;
    let minute: Option<i8> = parts.next().map(str::parse).transpose().ok()?;
    let second: Option<i8> = parts.next().map(str::parse).transpose().ok()?;
    if parts.next().is_some() {
        return None;
    }
    let hour = match afternoon {
        Some(_) if !(1..=12).contains(&hour) => return None,
        Some(afternoon) => hour % 12 + if afternoon { 12 } else { 0 },
        None if minute.is_none() => return None,
        None => hour,
    };
    civil::Time::new(hour, minute.unwrap_or(0), second.unwrap_or(0), 0).ok()
}

/// `3m ago`, `in 2h`, `just now`: a point in time beside `now`, in the largest unit that fits.
#[must_use]
pub fn relative(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - time.as_second();
    match seconds {
        0 => "just now".to_owned(),
        s @ 1.. => match s.unsigned_abs() {
            s @ 0..60 => format!("{s}s ago"),
            s @ 60..3600 => format!("{}m ago", s / 60),
            s @ 3600..86_400 => format!("{}h ago", s / 3600),
            s => format!("{}d ago", s / 86_400),
        },
        // What is said to be in 2 hours isn't "in 1h" a second later.
        s => match s.unsigned_abs() {
            s @ 0..60 => format!("in {s}s"),
            s @ 3_570..3_630 => format!("in {}h", (s + 30) / 3_600),
            s @ 60..7_170 => format!("in {}m", (s + 30) / 60),
            s @ 7_170..171_000 => format!("in {}h", (s + 1_800) / 3_600),
            s => format!("in {}d", (s + 43_200) / 86_400),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        "2026-02-16T15:00:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn past_times() {
        for (text, wanted) in [
            ("2026-02-16T14:00:00Z", "2026-02-16T14:00:00Z"),
            ("1h ago", "2026-02-16T13:00:00Z"),
            ("1h", "2026-02-16T13:00:00Z"),
            ("yesterday 14:00", "2026-02-15T13:00:00Z"),
            ("yesterday", "2026-02-14T23:00:00Z"),
            ("2am", "2026-02-16T01:00:00Z"),
            ("11pm", "2026-02-15T22:00:00Z"),
            ("12am", "2026-02-15T23:00:00Z"),
            ("2026-02-10 09:30", "2026-02-10T08:30:00Z"),
        ] {
            assert_eq!(parse_past(text, &now()).unwrap().to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn future_times() {
        for (text, wanted) in [
            ("2am", "2026-02-17T01:00:00Z"),
            ("tomorrow 14:00", "2026-02-17T13:00:00Z"),
            ("in 90s", "2026-02-16T14:01:30Z"),
            ("16:00", "2026-02-16T15:00:00Z"),
        ] {
            assert_eq!(parse_future(text, &now()).unwrap().to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_is_accepted() {
        for bad in [
            "",
            "soon",
            "25:00",
            "13pm",
            "14",
            "1h ago ago",
            "yesterday noonish",
            "2026-02-31",
        ] {
            let error = parse_past(bad, &now()).unwrap_err();
            assert!(error.to_string().contains("accepted"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn relative_times() {
        let now: Timestamp = "2026-02-16T14:00:00Z".parse().unwrap();
        assert_eq!(relative(before(now, Span::secs(200)), now), "3m ago");
        for (seconds, text) in [
            (1, "in 1s"),
            (59, "in 59s"),
            (60, "in 1m"),
            (899, "in 15m"),
            (3_599, "in 1h"),
            (5_400, "in 90m"),
            (7_169, "in 119m"),
            (7_199, "in 2h"),
            (7_300, "in 2h"),
            (36 * 3_600, "in 36h"),
            (48 * 3_600 - 1, "in 2d"),
            (7 * 86_400 - 1, "in 7d"),
        ] {
            assert_eq!(relative(after(now, Span::secs(seconds)), now), text, "{seconds}");
        }
        assert_eq!(relative(now, now), "just now");
    }
}
