//! When it begins: a time of day, a day, a span from now, or another deployment's end.

use api::{DeploymentId, Timestamp, time};
use jiff::{Zoned, civil, tz::AmbiguousOffset, tz::TimeZone};
use winnow::{
    Parser,
    combinator::{alt, opt, preceded},
    stream::Stream,
};

use super::{
    When,
    grammar::{Input, Parsed, committed, ends, follows, other, peeked, refuse, said, taken, word},
    misread::Misread,
    token::{Kind, Token},
    value, words,
};

const EXAMPLE: &str = "deploy new-model at 2am UTC with 5% canary, promote after 1 hour if healthy";

/// The length of `2026-12-01`.
const DATE_LENGTH: usize = 10;

/// A moment, and what had to be decided to find it.
pub(super) type Found = (When, Vec<String>);

/// When it begins.
pub(super) fn when(input: &mut Input<'_>, now: &Zoned) -> Parsed<Found> {
    alt((
        after_deployment,
        |input: &mut Input<'_>| from_now(input, now),
        |input: &mut Input<'_>| instant(input, now),
        |input: &mut Input<'_>| day_and_time(input, now),
    ))
    .parse_next(input)
}

/// "after dep-x7k2m9q4ab".
fn after_deployment(input: &mut Input<'_>) -> Parsed<Found> {
    let _ = said(words::AFTER_DEPLOYMENT).parse_next(input)?;
    taken(input, words::THE_ROLLOUT);
    let id = word(input, |token| {
        let suffix = token.low.strip_prefix("dep-")?;
        (!suffix.is_empty() && suffix.len() <= 32 && suffix.bytes().all(|b| b.is_ascii_alphanumeric()))
            .then(|| token.low.to_owned())
    })?;
    taken(input, words::IS_COMPLETE);
    Ok((When::After(DeploymentId::new(id)), Vec::new()))
}

/// "in 2 hours", "2 hours from now".
fn from_now(input: &mut Input<'_>, now: &Zoned) -> Parsed<Found> {
    let before = taken(input, words::IN);
    let span = value::span(input)?;
    if !taken(input, words::FROM_NOW) && !before {
        return other();
    }
    let time = Timestamp::from_second(time::after(now.timestamp(), span).as_second()).unwrap_or(Timestamp::MAX);
    if time <= now.timestamp() {
        return past(&format!("in {span}"), now);
    }
    Ok((
        When::At {
            time,
            zone: zone_name(now.time_zone()),
        },
        Vec::new(),
    ))
}

/// An instant as machines write it: `2026-12-01T09:00:00Z`, with the zone that it is shown in if one follows.
fn instant(input: &mut Input<'_>, now: &Zoned) -> Parsed<Found> {
    opt(alt((said(words::AT), said(words::ON)))).parse_next(input)?;
    let (raw, time) = word(input, |token| {
        // What can't be one isn't tried: refusing it would take longer than all else.
        let looks = token.raw.len() > DATE_LENGTH && token.raw.starts_with(|c: char| c.is_ascii_digit());
        looks
            .then(|| Some((token.raw, token.raw.parse::<Timestamp>().ok()?)))
            .flatten()
    })?;
    let time = Timestamp::from_second(time.as_second()).unwrap_or(time);
    let zone = match opt(zone).parse_next(input)? {
        Some(zone) => zone_name(&zone),
        None => raw
            .rfind(['+', '-'])
            .filter(|at| *at > 10)
            .map_or_else(|| "UTC".to_owned(), |at| raw[at..].to_owned()),
    };
    if time <= now.timestamp() {
        return past(raw, now);
    }
    Ok((
        When::At {
            time,
            zone: checked_zone(zone),
        },
        Vec::new(),
    ))
}

/// Refuses a moment that isn't to come.
fn past<T>(what: &str, now: &Zoned) -> Parsed<T> {
    refuse(
        Misread::new(format!(
            "'{what}' is past: it is {} now",
            now.strftime("%Y-%m-%d %H:%M %Z")
        ))
        .help("name a time to come, or leave it out to begin at once")
        .example(EXAMPLE),
    )
}

/// A zone's name that can be resolved again; UTC where it can't.
fn checked_zone(zone: String) -> String {
    resolved(&zone).map_or_else(|| "UTC".to_owned(), |zone| zone_name(&zone))
}

#[derive(Debug, Clone, Copy)]
enum Day {
    Today,
    Tonight,
    Tomorrow,
    Weekday {
        weekday: civil::Weekday,
        next: bool,
    },
    Date(civil::Date),
    /// The next one of this date.
    Yearly {
        month: i8,
        day: i8,
    },
}

fn day_and_time(input: &mut Input<'_>, now: &Zoned) -> Parsed<Found> {
    let on = follows(input, words::ON);
    let before = opt(preceded(opt(alt((said(words::ON), said(words::AT)))), day)).parse_next(input)?;
    let (day, clock) = match before {
        Some(day) => {
            committed(input, EXAMPLE);
            let start = input.checkpoint();
            let clock = match opt((opt(said(words::AT)), |input: &mut Input<'_>| time_of_day(input, true)))
                .parse_next(input)?
            {
                Some((_, clock)) => Some(clock),
                None => {
                    input.reset(&start);
                    None
                }
            };
            (Some(day), clock)
        }
        None => {
            let _ = said(words::AT).parse_next(input)?;
            let start = input.checkpoint();
            let (clock, day) = match time_of_day(input, false) {
                Ok(clock) => (clock, opt(preceded(opt(said(words::ON)), self::day)).parse_next(input)?),
                Err(error) => {
                    // "at 9 tomorrow": a bare hour, because a day says that it is a time.
                    input.reset(&start);
                    let clock = time_of_day(input, true);
                    match (clock, opt(preceded(opt(said(words::ON)), self::day)).parse_next(input)?) {
                        (Ok(clock), Some(day)) => (clock, Some(day)),
                        (Ok(clock), None) if (1..=12).contains(&clock.hour()) && ends(input) => {
                            let hour = clock.hour();
                            return refuse(
                                Misread::new(format!("'at {hour}': in the morning or in the afternoon?"))
                                    .help(format!("say 'at {hour}am', 'at {hour}pm' or 'at {hour}:00'"))
                                    .example(EXAMPLE),
                            );
                        }
                        _ => return Err(error),
                    }
                }
            };
            (day, Some(clock))
        }
    };
    let zone = opt(zone).parse_next(input)?;
    // "at 14:00 UTC tomorrow".
    let day = match day {
        None => opt(preceded(opt(said(words::ON)), self::day)).parse_next(input)?,
        day => day,
    };
    let Some(clock) = clock else {
        // Without "on" and a time, a date is what a version is called.
        if matches!(day, Some(Day::Date(_))) && !on {
            return other();
        }
        let vague = peeked(input)
            .filter(|_| follows(input, words::VAGUE_TIME))
            .map(|token| format!(" '{}' is no time of day;", token.raw));
        return refuse(
            Misread::new(
                format!(
                    "it says on which day it begins, but not at what time;{}",
                    vague.unwrap_or_default()
                )
                .trim_end_matches(';')
                .to_owned(),
            )
            .help("say the hour: 'tomorrow at 14:00'")
            .example(EXAMPLE),
        );
    };
    placed(day, clock, zone, now)
}

fn day(input: &mut Input<'_>) -> Parsed<Day> {
    alt((
        said(words::TODAY).value(Day::Today),
        said(words::TONIGHT).value(Day::Tonight),
        said(words::TOMORROW).value(Day::Tomorrow),
        (opt(said(words::NEXT)), weekday).map(|(next, weekday)| Day::Weekday {
            weekday,
            next: next.is_some(),
        }),
        date.map(Day::Date),
        month_and_day,
    ))
    .parse_next(input)
}

fn weekday(input: &mut Input<'_>) -> Parsed<civil::Weekday> {
    use civil::Weekday as W;
    alt((
        said(words::MONDAY).value(W::Monday),
        said(words::TUESDAY).value(W::Tuesday),
        said(words::WEDNESDAY).value(W::Wednesday),
        said(words::THURSDAY).value(W::Thursday),
        said(words::FRIDAY).value(W::Friday),
        said(words::SATURDAY).value(W::Saturday),
        said(words::SUNDAY).value(W::Sunday),
    ))
    .parse_next(input)
}

fn date(input: &mut Input<'_>) -> Parsed<civil::Date> {
    word(input, |token| {
        let looks = token.low.len() == DATE_LENGTH && token.low.starts_with(|c: char| c.is_ascii_digit());
        looks.then(|| token.low.parse().ok()).flatten()
    })
}

/// "december 1st", "1 dec 2026".
fn month_and_day(input: &mut Input<'_>) -> Parsed<Day> {
    let number = |input: &mut Input<'_>| {
        word(input, |token| {
            let number = ["st", "nd", "rd", "th"]
                .iter()
                .find_map(|end| token.low.strip_suffix(end))
                .unwrap_or(token.low);
            number.parse::<i8>().ok().filter(|day| (1..=31).contains(day))
        })
    };
    let (month, day) = alt((
        (month, number),
        (number, opt(said(words::OF)), month).map(|(day, _, month)| (month, day)),
    ))
    .parse_next(input)?;
    let year = opt(|input: &mut Input<'_>| {
        word(input, |token| {
            token
                .low
                .parse::<i16>()
                .ok()
                .filter(|year| (2000..=9999).contains(year))
        })
    })
    .parse_next(input)?;
    match year {
        None => Ok(Day::Yearly { month, day }),
        Some(year) => match civil::Date::new(year, month, day) {
            Ok(date) => Ok(Day::Date(date)),
            Err(_) => refuse(Misread::new(format!("there is no {year}-{month:02}-{day:02}")).example(EXAMPLE)),
        },
    }
}

/// A month, from 1.
fn month(input: &mut Input<'_>) -> Parsed<i8> {
    const MONTHS: [words::Forms; 12] = [
        words::JANUARY,
        words::FEBRUARY,
        words::MARCH,
        words::APRIL,
        words::MAY,
        words::JUNE,
        words::JULY,
        words::AUGUST,
        words::SEPTEMBER,
        words::OCTOBER,
        words::NOVEMBER,
        words::DECEMBER,
    ];
    for (number, forms) in (1..).zip(MONTHS) {
        if taken(input, forms) {
            return Ok(number);
        }
    }
    other()
}

/// `2am`, `2:30 pm`, `14:00`, "noon", "midnight"; `9` where a day says that it is a time.
fn time_of_day(input: &mut Input<'_>, bare: bool) -> Parsed<civil::Time> {
    if taken(input, words::NOON) {
        return Ok(civil::time(12, 0, 0, 0));
    }
    if taken(input, words::MIDNIGHT) {
        return Ok(civil::Time::midnight());
    }
    let Some(Token {
        kind: Kind::Word,
        low,
        raw,
        ..
    }) = peeked(input)
    else {
        return other();
    };
    let (clock, half) = match (low.strip_suffix("am"), low.strip_suffix("pm")) {
        (Some(clock), _) => (clock, Some(false)),
        (_, Some(clock)) => (clock, Some(true)),
        _ => (low, None),
    };
    if !clock.starts_with(|c: char| c.is_ascii_digit()) || !clock.bytes().all(|b| b.is_ascii_digit() || b == b':') {
        return other();
    }
    input.next_token();
    let half = match half {
        None if taken(input, words::AM) => Some(false),
        None if taken(input, words::PM) => Some(true),
        half => half,
    };
    let mut parts = clock.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute, second) = (parts.next().flatten(), parts.next(), parts.next());
    if half.is_none() && minute.is_none() && !bare {
        return other();
    }
    if half.is_none() && minute.is_none() && value::unit_follows(input) {
        return other();
    }
    let time = || {
        let hour = match (hour?, half) {
            (hour, Some(_)) if !(1..=12).contains(&hour) => return None,
            (hour, Some(afternoon)) => hour % 12 + if afternoon { 12 } else { 0 },
            (hour, None) => hour,
        };
        let minute = minute.map_or(Some(0), |minute| minute)?;
        let second = second.map_or(Some(0), |second| second)?;
        parts
            .next()
            .is_none()
            .then(|| civil::Time::new(hour, minute, second, 0).ok())
            .flatten()
    };
    match { time }() {
        Some(time) => Ok(time),
        None => refuse(
            Misread::new(format!("'{raw}' is no time of day"))
                .help("say '2am', '14:30' or 'noon'")
                .example(EXAMPLE),
        ),
    }
}

/// `UTC`, `Europe/Berlin`, `+02:00`.
fn zone(input: &mut Input<'_>) -> Parsed<TimeZone> {
    let Some(Token {
        kind: Kind::Word,
        raw,
        low,
        ..
    }) = peeked(input)
    else {
        return other();
    };
    let utc = matches!(low, "utc" | "gmt" | "z");
    let named =
        raw.contains('/') && raw.bytes().all(|b| b.is_ascii_alphabetic() || b"/_-+".contains(&b)) && raw.len() <= 40;
    let offset = low.starts_with(['+', '-']) && low.contains(':');
    let short =
        (2..=5).contains(&raw.len()) && raw.bytes().all(|b| b.is_ascii_uppercase()) && !super::vocabulary::is_word(low);
    if !utc && !named && !offset && !short {
        return other();
    }
    match resolved(if utc { "UTC" } else { raw }).filter(|_| !short || utc) {
        Some(zone) => {
            input.next_token();
            Ok(zone)
        }
        None => refuse(
            Misread::new(format!("'{raw}' isn't a time zone that is known here"))
                .help("name it as 'UTC' or 'Europe/Berlin'")
                .example("deploy new-model tomorrow at 14:00 Europe/Berlin"),
        ),
    }
}

/// The zone of this name or offset.
pub(super) fn resolved(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    if name.starts_with(['+', '-']) {
        // What jiff reads an offset from.
        let text = format!("2000-01-01T00:00:00{name}[{name}]");
        return text.parse::<Zoned>().ok().map(|zoned| zoned.time_zone().clone());
    }
    TimeZone::get(name).ok()
}

/// The name by which a zone can be found again.
pub(super) fn zone_name(zone: &TimeZone) -> String {
    match (zone.iana_name(), zone.to_fixed_offset()) {
        (Some(name), _) => name.to_owned(),
        (None, Ok(offset)) if !offset.is_zero() => {
            let seconds = offset.seconds();
            let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
            format!("{}{hours:02}:{minutes:02}", if seconds < 0 { '-' } else { '+' })
        }
        _ => "UTC".to_owned(),
    }
}

/// The moment at which it is this time on that day.
fn placed(day: Option<Day>, clock: civil::Time, zone: Option<TimeZone>, now: &Zoned) -> Parsed<Found> {
    let zone = zone.unwrap_or_else(|| now.time_zone().clone());
    let now = now.with_time_zone(zone.clone());
    let mut notes = Vec::new();
    let today = now.date();
    let later_today = clock > now.time();
    let ahead = |days: i64| today.checked_add(jiff::Span::new().days(days)).ok();
    let date = match &day {
        None if later_today => Some(today),
        None | Some(Day::Tomorrow) => ahead(1),
        Some(Day::Today) => Some(today),
        // The hours after midnight belong to the night before.
        Some(Day::Tonight) if clock < civil::time(6, 0, 0, 0) && now.time() >= civil::time(6, 0, 0, 0) => ahead(1),
        Some(Day::Tonight) => Some(today),
        Some(Day::Weekday { weekday, next }) => {
            let until = i64::from(today.weekday().until(*weekday));
            ahead(if until == 0 && (*next || !later_today) {
                7
            } else {
                until
            })
        }
        Some(Day::Date(date)) => Some(*date),
        Some(Day::Yearly { month, day }) => [0, 1]
            .into_iter()
            .filter_map(|years| civil::Date::new(today.year() + years, *month, *day).ok())
            .find(|date| *date > today || *date == today && later_today),
    };
    let Some(date) = date else {
        return past("that day", &now);
    };
    if matches!(day, Some(Day::Weekday { .. } | Day::Yearly { .. })) {
        notes.push(format!("taken as {}", date.strftime("%A, %Y-%m-%d")));
    }
    let local = date.to_datetime(clock);
    let ambiguous = zone.to_ambiguous_zoned(local);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => {}
        AmbiguousOffset::Gap { .. } => {
            return refuse(
                Misread::new(format!(
                    "there is no {} in {} on that day: clocks are put forward over it",
                    local.strftime("%Y-%m-%d %H:%M"),
                    zone_name(&zone)
                ))
                .help("name another time, or give it in UTC")
                .example(EXAMPLE),
            );
        }
        AmbiguousOffset::Fold { .. } => notes.push(format!(
            "{} comes twice in {}, as clocks are put back: the first is taken",
            local.strftime("%Y-%m-%d %H:%M"),
            zone_name(&zone)
        )),
    }
    let Ok(at) = ambiguous.earlier() else {
        return past(&local.to_string(), &now);
    };
    if at.timestamp() <= now.timestamp() {
        return past(&at.strftime("%Y-%m-%d %H:%M %Z").to_string(), &now);
    }
    Ok((
        When::At {
            time: at.timestamp(),
            zone: zone_name(&zone),
        },
        notes,
    ))
}

/// The words that name this moment; reading them gives it back.
pub(super) fn canonical(time: Timestamp, zone: &str) -> String {
    let resolved = resolved(zone).unwrap_or(TimeZone::UTC);
    let zoned = time.to_zoned(resolved.clone());
    let unambiguous = matches!(
        resolved.to_ambiguous_zoned(zoned.datetime()).offset(),
        AmbiguousOffset::Unambiguous { .. }
    );
    if !unambiguous {
        return format!("at {} {zone}", zoned.strftime("%Y-%m-%dT%H:%M:%S%:z"));
    }
    let clock = if zoned.second() == 0 { "%H:%M" } else { "%H:%M:%S" };
    format!("on {} at {} {zone}", zoned.strftime("%Y-%m-%d"), zoned.strftime(clock))
}
