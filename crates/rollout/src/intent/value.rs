//! Numbers and quantities, as one word or as several.

use api::{Cpu, Size, Span, id::check_name};
use winnow::{Parser, combinator::alt, stream::Stream};

use super::{
    grammar::{Input, Parsed, follows, other, peeked, refuse, said, taken, word},
    misread::Misread,
    token::{Kind, Token},
    words,
};

/// The number at the beginning of a word, and what follows it: `64Gi` is 64 and `Gi`.
fn parted(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    decimal(number).map(|_| (number, unit))
}

/// A number with digits on both sides of its point, if it has one; finite.
pub(super) fn decimal(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.len() <= 20 && part.bytes().all(|b| b.is_ascii_digit());
    (digits(whole) && digits(fraction)).then(|| text.parse().ok()).flatten()
}

/// A number that is below zero: said, so that the message can name it.
fn negative(token: Token<'_>) -> bool {
    token.kind == Kind::Word
        && token
            .raw
            .strip_prefix('-')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Refuses a number below zero; anything else is for the caller.
fn not_negative(input: &Input<'_>) -> Parsed<()> {
    match peeked(input) {
        Some(token) if negative(token) => refuse(
            Misread::new(format!("'{}' is below zero", token.raw))
                .help("numbers are positive: to have fewer, say 'remove 2 replicas from inference'")
                .example("remove 2 replicas from inference"),
        ),
        _ => Ok(()),
    }
}

/// A number: `5`, `0.5`, `12`.
pub(super) fn number(input: &mut Input<'_>) -> Parsed<f64> {
    not_negative(input)?;
    word(input, |token| {
        decimal(token.low).or_else(|| spelled(token.low).map(f64::from))
    })
}

fn spelled(word: &str) -> Option<u32> {
    words::NUMBERS
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, number)| *number)
}

/// A whole number: `8`, `eight`.
pub(super) fn count(input: &mut Input<'_>) -> Parsed<u32> {
    not_negative(input)?;
    match peeked(input) {
        Some(token)
            if token.kind == Kind::Word && token.low.len() > 9 && token.low.bytes().all(|b| b.is_ascii_digit()) =>
        {
            refuse(Misread::new(format!(
                "'{}' is too large a number",
                super::token::shortened(token.raw)
            )))
        }
        _ => word(input, |token| whole(token.low).or_else(|| spelled(token.low))),
    }
}

/// A whole number in digits.
pub(super) fn whole(text: &str) -> Option<u32> {
    (text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// A whole number, or `a`, `one`, `another`.
pub(super) fn count_or_one(input: &mut Input<'_>) -> Parsed<u32> {
    alt((count, said(words::ONE).value(1))).parse_next(input)
}

/// A part of a hundred: `10%`, `10 %`, `10 percent`. As it is written: nothing is checked but the sign.
pub(super) fn percent(input: &mut Input<'_>) -> Parsed<f64> {
    not_negative(input)?;
    let start = input.checkpoint();
    if let Ok(value) = word(input, |token| token.low.strip_suffix('%').and_then(decimal)) {
        return Ok(value);
    }
    match number(input) {
        Ok(value) if taken(input, words::PERCENT) => Ok(value),
        _ => {
            input.reset(&start);
            other()
        }
    }
}

const SPAN_UNITS: [(words::Forms, u64); 6] = [
    (words::MILLIS, 1),
    (words::SECONDS, 1_000),
    (words::MINUTES, 60_000),
    (words::HOURS, 3_600_000),
    (words::DAYS, 86_400_000),
    (words::WEEKS, 604_800_000),
];

fn span_unit(unit: &str) -> Option<u64> {
    SPAN_UNITS
        .iter()
        .find(|(names, _)| names.contains(&unit))
        .map(|(_, millis)| *millis)
}

/// The longest span that a sentence can hold: ten years.
const SPAN_MAX: f64 = 3.156e11;

fn span_of(number: &str, unit: u64) -> Option<Span> {
    let millis = decimal(number)? * unit as f64;
    (millis <= SPAN_MAX && millis.fract() == 0.0).then_some(Span(millis as u64))
}

/// A duration in one word: `15m`, `1h30m`, `90sec`.
fn span_word(text: &str) -> Option<Span> {
    if let Some((number, unit)) = parted(text)
        && let Some(unit) = span_unit(unit)
    {
        return span_of(number, unit);
    }
    // `1h30m`: only what begins with a digit can be one.
    text.starts_with(|c: char| c.is_ascii_digit())
        .then(|| text.parse::<Span>().ok())
        .flatten()
        .filter(|span| span.millis() as f64 <= SPAN_MAX && text != "0")
}

/// A duration: `15m`, `1h30m`, `1 hour`, `half an hour`, `1 hour and 30 minutes`.
pub(super) fn span(input: &mut Input<'_>) -> Parsed<Span> {
    not_negative(input)?;
    let Span(mut total) = span_part(input)?;
    loop {
        let start = input.checkpoint();
        taken(input, words::AND);
        let Ok(Span(part)) = span_part(input) else {
            input.reset(&start);
            return Ok(Span(total));
        };
        // `1 hour and 30 minutes`: each part is smaller than the one before, or it is another thing.
        if part >= total {
            input.reset(&start);
            return Ok(Span(total));
        }
        total += part;
    }
}

fn span_part(input: &mut Input<'_>) -> Parsed<Span> {
    let start = input.checkpoint();
    if let Ok(span) = word(input, |token| span_word(token.low)) {
        return Ok(span);
    }
    if taken(input, words::QUARTER) {
        return Ok(Span::secs(900));
    }
    if taken(input, words::HALF_AN) {
        if let Ok(unit) = word(input, |token| span_unit(token.low)) {
            return Ok(Span(unit / 2));
        }
    } else if let Ok(number) = word(input, |token| decimal(token.low).map(|_| token.low)) {
        if let Ok(span) = word(input, |token| span_of(number, span_unit(token.low)?)) {
            return Ok(span);
        }
    } else if let Ok(number) = count_or_one(input)
        && let Ok(unit) = word(input, |token| span_unit(token.low).filter(|_| token.low.len() > 1))
    {
        return Ok(Span(u64::from(number) * unit));
    }
    input.reset(&start);
    other()
}

/// The unit as `Size` writes it. Letters count for little: nobody means milli-bytes.
fn size_unit(unit: &str) -> Option<&'static str> {
    Some(match unit {
        "k" | "kb" => "kB",
        "ki" | "kib" => "Ki",
        "m" | "mb" | "megabytes" => "MB",
        "mi" | "mib" | "mebibytes" => "Mi",
        "g" | "gb" | "gigs" | "gig" | "gigabytes" => "GB",
        "gi" | "gib" | "gibibytes" => "Gi",
        "t" | "tb" | "terabytes" => "TB",
        "ti" | "tib" => "Ti",
        "b" | "bytes" => "B",
        _ => return None,
    })
}

/// A size in one word: `64Gi`, `64GB`, `64g`.
pub(super) fn size_word(text: &str) -> Option<Size> {
    let (number, unit) = parted(text)?;
    format!("{number}{}", size_unit(unit)?).parse().ok()
}

/// A size: `64Gi`, `64 GB`.
pub(super) fn size(input: &mut Input<'_>) -> Parsed<Size> {
    not_negative(input)?;
    let start = input.checkpoint();
    if let Ok(size) = word(input, |token| size_word(token.low)) {
        return Ok(size);
    }
    if let Ok(number) = word(input, |token| decimal(token.low).map(|_| token.low))
        && let Ok(size) = word(input, |token| {
            let unit = size_unit(token.low).filter(|_| token.low.len() > 1)?;
            format!("{number}{unit}").parse().ok()
        })
    {
        return Ok(size);
    }
    input.reset(&start);
    other()
}

/// A size that can't be thousandths of a core: `500m` can.
pub(super) fn size_not_cpu(input: &mut Input<'_>) -> Parsed<Size> {
    match peeked(input) {
        Some(token) if token.low.strip_suffix('m').and_then(whole).is_some() => other(),
        _ => size(input),
    }
}

/// CPU: `4`, `0.5`, `500m`.
pub(super) fn cpu(input: &mut Input<'_>) -> Parsed<Cpu> {
    not_negative(input)?;
    alt((
        |input: &mut Input<'_>| {
            word(input, |token| {
                let looks = token.low.starts_with(|c: char| c.is_ascii_digit());
                looks.then(|| token.low.parse().ok()).flatten()
            })
        },
        count_or_one.verify_map(|cores| cores.checked_mul(1000).map(Cpu)),
    ))
    .parse_next(input)
}

/// Whether a word is what a version looks like: `v2.1`, `3.0`, `2024-11-01`, `sha-abc123`, `1.2.3-rc1`, `abc1234`.
pub(super) fn looks_like_version(text: &str) -> bool {
    // What ends in a point would lose it at the end of a clause.
    if !is_version(text) || !text.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        return false;
    }
    let low = text.to_ascii_lowercase();
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = low.strip_prefix('v') {
        return rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b".-+_".contains(&b));
    }
    if low.starts_with("sha-") || low.starts_with("sha256-") {
        return true;
    }
    if !low.starts_with(|c: char| c.is_ascii_digit()) {
        return hash(&low);
    }
    // 3.0, 1.2.3-rc1, 2024-11-01, 2024.11; not 2-10 (bounds) and not 15m (a duration).
    let core = low.split(['-', '+']).next().unwrap_or_default();
    let dotted = core.contains('.') && core.split('.').all(digits);
    let date = low.len() >= 10
        && {
            let mut parts = low.splitn(3, '-');
            matches!((parts.next(), parts.next(), parts.next()), (Some(year), Some(month), Some(day))
            if year.len() == 4 && month.len() == 2 && day.len() >= 2 && digits(year) && digits(month) && digits(&day[..2]))
        };
    dotted || date || hash(&low)
}

/// A commit, shortened or whole: 7 to 40 hexadecimal digits, letters and digits both.
fn hash(low: &str) -> bool {
    (7..=40).contains(&low.len())
        && low.bytes().all(|b| b.is_ascii_hexdigit())
        && low.bytes().any(|b| b.is_ascii_digit())
        && low.bytes().any(|b| b.is_ascii_alphabetic())
}

/// Whether this can be a version's name at all: as an image's tag, `+` allowed.
pub(super) fn is_version(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
}

/// Whether a word is an image's reference with a registry or a digest: `ghcr.io/acme/web:v2`, `web@sha256:…`.
pub(super) fn looks_like_image(text: &str) -> bool {
    (text.contains('/') || text.contains("@sha256:")) && is_image(text)
}

/// Whether this can be an image's reference.
pub(super) fn is_image(text: &str) -> bool {
    let (name, digest) = text
        .split_once('@')
        .map_or((text, None), |(name, digest)| (name, Some(digest)));
    let digest_fits = digest.is_none_or(|digest| {
        digest
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    let fits = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    digest_fits && (1..=512).contains(&text.len()) && name.split('/').all(fits)
}

/// A version where one is expected: anything that can be one, quoted or not.
pub(super) fn version(input: &mut Input<'_>) -> Parsed<String> {
    match peeked(input) {
        Some(token) if token.kind == Kind::Quoted && is_version(&token.text()) => {
            input.next_token();
            Ok(token.text().into_owned())
        }
        _ => word(input, |token| is_version(token.raw).then(|| token.raw.to_owned())),
    }
}

/// A version that is recognised by its look.
pub(super) fn version_by_look(input: &mut Input<'_>) -> Parsed<String> {
    word(input, |token| {
        looks_like_version(token.raw).then(|| token.raw.to_owned())
    })
}

/// The name of a service, job or namespace: a DNS label that is no word of the grammar, or anything that is one in
/// quotes.
pub(super) fn name(input: &mut Input<'_>) -> Parsed<String> {
    match peeked(input) {
        Some(token) if token.kind == Kind::Quoted && check_name(&token.text()).is_ok() => {
            input.next_token();
            Ok(token.text().into_owned())
        }
        _ => word(input, |token| plain_name(token.raw).then(|| token.raw.to_owned())),
    }
}

/// Whether a name needs no quotes.
pub(super) fn plain_name(text: &str) -> bool {
    check_name(text).is_ok()
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !looks_like_version(text)
        && !super::vocabulary::is_word(text)
}

/// A day's or a zone's word isn't a unit: whether a unit of time comes next.
pub(super) fn unit_follows(input: &mut Input<'_>) -> bool {
    SPAN_UNITS.iter().any(|(names, _)| follows(input, *names))
}
