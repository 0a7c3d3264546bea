//! Conditions: a signal, a comparison, a bound in the signal's unit, and a window.

use api::{
    Span,
    deploy::{Comparison, Condition, Signal},
    metric::{self, Unit},
};
use winnow::{
    Parser,
    combinator::{alt, opt},
    stream::Stream,
};

use super::{
    grammar::{Input, Parsed, committed, follows, other, peeked, position, quoted, refuse, said, taken, word},
    misread::Misread,
    token::{Kind, Token},
    value, words,
};

const EXAMPLE: &str = "update model-server to v2.1, rollback if errors > 1% or p99 latency > 200ms for 5m";

/// A signal as it is said. What `availability` is compared with is turned into an error rate.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Signal(Signal),
    Success,
}

/// Conditions joined by "or".
pub(super) fn any_of(input: &mut Input<'_>) -> Parsed<Vec<Condition>> {
    committed(input, EXAMPLE);
    let mut all = vec![condition(input)?];
    loop {
        let start = input.checkpoint();
        let comma = comma(input);
        if taken(input, words::OR) {
            all.push(condition(input)?);
        } else if let (true, Ok(next)) = (comma, condition(input)) {
            all.push(next);
        } else {
            input.reset(&start);
            if taken(input, words::AND_IF) && condition(input).is_ok() {
                return refuse(
                    Misread::new("conditions to go back on are joined by 'or': each alone is enough".to_owned())
                        .help("say 'rollback if errors > 1% or p99 latency > 200ms'")
                        .example(EXAMPLE),
                );
            }
            input.reset(&start);
            return Ok(all);
        }
    }
}

/// Conditions joined by "and".
pub(super) fn all_of(input: &mut Input<'_>) -> Parsed<Vec<Condition>> {
    committed(
        input,
        "canary 10% model-server v2.5, promote after 15m if error_rate < 0.5% and p99 latency < 200ms",
    );
    let mut all = vec![condition(input)?];
    loop {
        let start = input.checkpoint();
        let comma = comma(input);
        if taken(input, words::AND_IF) || comma {
            taken(input, words::IF);
            if let Ok(next) = condition(input) {
                all.push(next);
                continue;
            }
        }
        input.reset(&start);
        if taken(input, words::OR) && condition(input).is_ok() {
            return refuse(
                Misread::new("conditions to go on with are joined by 'and': all must hold".to_owned())
                    .help("say 'promote if errors < 1% and p99 latency < 200ms'"),
            );
        }
        input.reset(&start);
        return Ok(all);
    }
}

fn comma(input: &mut Input<'_>) -> bool {
    let is = peeked(input).is_some_and(|token| token.raw == ",");
    if is {
        input.next_token();
    }
    is
}

/// One condition.
pub(super) fn condition(input: &mut Input<'_>) -> Parsed<Condition> {
    let start = input.checkpoint();
    let first = position(input);
    let mut condition = match bare(input) {
        Ok(condition) => {
            // "health check" alone, but not "errors" with its bound to come: the longer reading wins.
            let after_bare = input.checkpoint();
            let end = position(input);
            input.reset(&start);
            match bounded(input) {
                Ok(bounded) if position(input) > end => bounded,
                Err(winnow::error::ErrMode::Cut(fault)) => return Err(winnow::error::ErrMode::Cut(fault)),
                _ => {
                    input.reset(&after_bare);
                    condition
                }
            }
        }
        Err(_) => {
            input.reset(&start);
            bounded(input)?
        }
    };
    condition.window = window(input)?;
    if condition.window.is_some_and(|window| window.is_zero()) {
        return refuse(Misread::new("a condition can't be looked at over no time".to_owned()).help("say 'for 5m'"));
    }
    debug_assert!(position(input) > first, "a condition takes a word at least");
    Ok(condition)
}

/// Conditions that need no bound.
fn bare(input: &mut Input<'_>) -> Parsed<Condition> {
    let plain = |metric, operator, threshold| Condition {
        metric,
        operator,
        threshold,
        window: None,
    };
    let mut longest: Option<(usize, Condition)> = None;
    let start = input.checkpoint();
    for (forms, condition) in [
        (words::HEALTHY, plain(Signal::Healthy, Comparison::AtLeast, 1.0)),
        (words::UNHEALTHY, plain(Signal::Healthy, Comparison::Below, 1.0)),
        (words::CRASHING, plain(Signal::Restarts, Comparison::Above, 0.0)),
        (words::NO_CRASHES, plain(Signal::Restarts, Comparison::AtMost, 0.0)),
        (words::ANY_ERRORS, plain(Signal::ErrorRate, Comparison::Above, 0.0)),
        (words::NO_ERRORS, plain(Signal::ErrorRate, Comparison::AtMost, 0.0)),
    ] {
        if taken(input, forms) {
            let end = position(input);
            if longest.as_ref().is_none_or(|(length, _)| end > *length) {
                longest = Some((end, condition));
            }
            input.reset(&start);
        }
    }
    let Some((end, condition)) = longest else {
        return other();
    };
    while position(input) < end {
        input.next_token();
    }
    Ok(condition)
}

/// "for 5m", "over the last 10 minutes".
fn window(input: &mut Input<'_>) -> Parsed<Option<Span>> {
    let start = input.checkpoint();
    if taken(input, words::WINDOW) {
        taken(input, words::THE);
        if let Ok(span) = value::span(input) {
            // "in 5 minutes from now" and "for 5m between batches" are about something else.
            return Ok(Some(span));
        }
    }
    input.reset(&start);
    Ok(None)
}

/// A signal and its bound, in either order: "errors > 1%", "more than 1% errors".
fn bounded(input: &mut Input<'_>) -> Parsed<Condition> {
    let start = input.checkpoint();
    taken(input, words::THE);
    taken(input, words::IT);
    taken(input, words::LINKS);
    if let Ok(operator) = comparison(input) {
        if let Ok(bound) = bound(input) {
            let of = position(input);
            taken(input, words::OF);
            if let Ok(signal) = signal(input) {
                return finish(input, signal, operator, &bound);
            }
            let _ = of;
        }
        input.reset(&start);
        return other();
    }
    input.reset(&start);
    taken(input, words::THE);
    let signal = signal(input)?;
    taken(input, words::LINKS);
    if let Some(equals) = peeked(input).filter(|_| follows(input, words::EQUALS)) {
        return refuse(
            Misread::new(format!("'{}': a measured value is never exactly a number", equals.raw))
                .help("use > >= < <=, or 'above' and 'below'")
                .example(EXAMPLE),
        );
    }
    let operator = comparison(input)?;
    let bound = bound(input)?;
    finish(input, signal, operator, &bound)
}

/// `>`, "exceeds", "drops below": the longest that fits.
fn comparison(input: &mut Input<'_>) -> Parsed<Comparison> {
    let start = input.checkpoint();
    if let Some(Token {
        kind: Kind::Sign(sign), ..
    }) = peeked(input)
    {
        input.next_token();
        return Ok(sign);
    }
    let mut longest: Option<(usize, Comparison)> = None;
    for (forms, operator) in [
        (words::ABOVE, Comparison::Above),
        (words::AT_LEAST, Comparison::AtLeast),
        (words::BELOW, Comparison::Below),
        (words::AT_MOST, Comparison::AtMost),
    ] {
        if taken(input, forms) {
            let end = position(input);
            if longest.is_none_or(|(length, _)| end > length) {
                longest = Some((end, operator));
            }
            input.reset(&start);
        }
    }
    let Some((end, operator)) = longest else { return other() };
    while position(input) < end {
        input.next_token();
    }
    Ok(operator)
}

/// A number and what it was said in.
#[derive(Debug, Clone)]
struct Bound {
    number: f64,
    unit: In,
    words: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum In {
    Nothing,
    Percent,
    Time,
    Bytes,
    Degrees,
    Watts,
    PerSecond,
}

fn bound(input: &mut Input<'_>) -> Parsed<Bound> {
    let first = peeked(input);
    let (number, unit) = alt((
        value::percent.map(|number| (number, In::Percent)),
        value::span.map(|span| (span.millis() as f64 / 1000.0, In::Time)),
        value::size.map(|size| (size.bytes() as f64, In::Bytes)),
        (value::number, opt(unit_word)).map(|(number, unit)| (number, unit.unwrap_or(In::Nothing))),
        glued_unit,
    ))
    .parse_next(input)?;
    Ok(Bound {
        number,
        unit,
        words: first.map(|token| token.raw.to_owned()).unwrap_or_default(),
    })
}

fn unit_word(input: &mut Input<'_>) -> Parsed<In> {
    alt((
        said(words::DEGREES).value(In::Degrees),
        said(words::WATTS).value(In::Watts),
        said(words::PER_SECOND).value(In::PerSecond),
    ))
    .parse_next(input)
}

/// `85C`, `300W`, `100rps`.
fn glued_unit(input: &mut Input<'_>) -> Parsed<(f64, In)> {
    word(input, |token| {
        let end = token.low.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = token.low.split_at(end);
        let unit = [
            (words::DEGREES, In::Degrees),
            (words::WATTS, In::Watts),
            (words::PER_SECOND, In::PerSecond),
        ]
        .into_iter()
        .find(|(forms, _)| forms.contains(&unit))?
        .1;
        Some((value::decimal(number)?, unit))
    })
}

/// What is looked at.
pub(super) fn signal(input: &mut Input<'_>) -> Parsed<Said> {
    alt((
        query.map(Said::Signal),
        latency.map(Said::Signal),
        said(words::SUCCESS_RATE).value(Said::Success),
        longest_plain.map(Said::Signal),
        named.map(Said::Signal),
    ))
    .parse_next(input)
}

fn longest_plain(input: &mut Input<'_>) -> Parsed<Signal> {
    alt((
        said(words::ERROR_RATE).value(Signal::ErrorRate),
        said(words::REQUEST_RATE).value(Signal::RequestRate),
        said(words::RESTARTS).value(Signal::Restarts),
    ))
    .parse_next(input)
}

fn query(input: &mut Input<'_>) -> Parsed<Signal> {
    let _ = said(words::QUERY).parse_next(input)?;
    let text = quoted(input)?;
    Ok(Signal::Query {
        promql: text.text().into_owned(),
    })
}

/// "p99 latency", "latency p99", "p99", "99th percentile latency", "median latency", "latency".
fn latency(input: &mut Input<'_>) -> Parsed<Signal> {
    if let Some(token) = peeked(input).filter(|_| follows(input, words::MEAN)) {
        let start = input.checkpoint();
        taken(input, words::MEAN);
        if taken(input, words::LATENCY) {
            return refuse(
                Misread::new(format!("'{} latency' isn't kept: percentiles are", token.raw))
                    .help("say 'p50 latency', 'p95 latency' or 'p99 latency'")
                    .example(EXAMPLE),
            );
        }
        input.reset(&start);
    }
    let before = opt(percentile).parse_next(input)?;
    let said_so = taken(input, words::LATENCY);
    let percentile = match before {
        Some(percentile) => percentile,
        None if said_so => match opt(percentile).parse_next(input)? {
            Some(percentile) => percentile,
            None => {
                input
                    .state
                    .note("latency is taken as that of the slowest percent: p99 latency".to_owned());
                DEFAULT_PERCENTILE
            }
        },
        None => return other(),
    };
    if !(percentile > 0.0 && percentile < 100.0) {
        return refuse(
            Misread::new(format!("there is no percentile {percentile}"))
                .help("say 'p99 latency'")
                .example(EXAMPLE),
        );
    }
    Ok(Signal::Latency { percentile })
}

/// The percentile of "latency", where none is said.
const DEFAULT_PERCENTILE: f64 = 99.0;

fn percentile(input: &mut Input<'_>) -> Parsed<f64> {
    alt((
        said(words::MEDIAN).value(50.0),
        (
            |input: &mut Input<'_>| {
                word(input, |token| {
                    ["th", "st", "nd", "rd"]
                        .iter()
                        .find_map(|end| token.low.strip_suffix(end))
                        .and_then(value::decimal)
                })
            },
            opt(said(words::PERCENTILE)),
        )
            .map(|(percentile, _)| percentile),
        |input: &mut Input<'_>| {
            word(input, |token| {
                token.low.strip_prefix('p').and_then(value::decimal).map(quantile)
            })
        },
    ))
    .parse_next(input)
}

/// `p999` is 99.9 to everybody who says it.
fn quantile(said: f64) -> f64 {
    if said > 100.0 && said < 1000.0 && said.fract() == 0.0 {
        said / 10.0
    } else {
        said
    }
}

/// A metric's name that is so many slips away from a known one is taken as a slip.
const SLIPS: usize = 2;

/// A metric of the catalogue, or one that looks like a workload's own.
fn named(input: &mut Input<'_>) -> Parsed<Signal> {
    let called = taken(input, words::METRIC);
    let Some(token) = peeked(input) else { return other() };
    if called && token.kind == Kind::Quoted {
        input.next_token();
        let name = token.text().into_owned();
        if metric::find(&name).is_none() && metric::own_name(&name).is_none() {
            return refuse(Misread::new(format!("{} can't be the name of a metric", token.raw)).example(EXAMPLE));
        }
        return Ok(Signal::Metric { name });
    }
    if token.kind == Kind::Word && metric::find(token.low).is_some() {
        input.next_token();
        return Ok(Signal::Metric {
            name: token.low.to_owned(),
        });
    }
    let at = position(input);
    let name = word(input, |token| {
        let looks =
            token.raw.contains(['.', '_']) && token.raw.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        (looks && metric::own_name(token.raw).is_some() && !value::looks_like_version(token.raw))
            .then(|| token.raw.to_owned())
    })?;
    if let Some(near) = input.state.near(at, || slip(&name)) {
        return refuse(
            Misread::new(format!("'{name}' isn't a metric of the catalogue"))
                .help(format!(
                    "'{near}' is; if it is the workload's own, say 'metric \"{name}\"'"
                ))
                .example(EXAMPLE),
        );
    }
    Ok(Signal::Metric { name })
}

/// The known name that this one is a slip of: it would be a metric that never has a sample.
fn slip(name: &str) -> Option<&'static str> {
    let signals = [
        words::ERROR_RATE,
        words::SUCCESS_RATE,
        words::LATENCY,
        words::REQUEST_RATE,
    ];
    let low = name.to_ascii_lowercase();
    metric::CATALOGUE
        .iter()
        .map(|metric| metric.name)
        .chain(signals.into_iter().flat_map(|forms| forms.all().iter().copied()))
        .filter(|known| known.contains(['.', '_']) && known.len().abs_diff(low.len()) <= SLIPS)
        .find(|known| strsim::osa_distance(&low, known) <= SLIPS)
}

/// The condition, its bound in the signal's unit.
fn finish(input: &mut Input<'_>, said: Said, operator: Comparison, bound: &Bound) -> Parsed<Condition> {
    let words = &bound.words;
    let unit = |wanted: &str, example: &str| {
        refuse(
            Misread::new(format!("'{words}' isn't {wanted}"))
                .help(format!("say '{example}'"))
                .example(EXAMPLE),
        )
    };
    let with = |metric, operator, threshold| {
        Ok(Condition {
            metric,
            operator,
            threshold,
            window: None,
        })
    };
    match said {
        Said::Success => match ratio(bound) {
            Some(ratio) => with(Signal::ErrorRate, turned(operator), rounded(1.0 - ratio)),
            None => unit("a share of requests", "availability < 99.5%"),
        },
        Said::Signal(Signal::ErrorRate) => match ratio(bound) {
            Some(ratio) => {
                if bound.unit == In::Nothing && ratio > 0.0 {
                    input
                        .state
                        .note(format!("'{words}' of requests is taken as {}%", rounded(ratio * 100.0)));
                }
                with(Signal::ErrorRate, operator, ratio)
            }
            None => unit("a share of requests: is it percent?", "errors > 1%"),
        },
        Said::Signal(metric @ Signal::Latency { .. }) => match bound.unit {
            In::Time if bound.number > 0.0 => with(metric, operator, bound.number),
            _ => unit("a time to answer: in which unit?", "p99 latency > 200ms"),
        },
        Said::Signal(Signal::RequestRate) => {
            if bound.unit == In::Nothing {
                let _ = said_per_second(input);
            }
            match bound.unit {
                In::Nothing | In::PerSecond => with(Signal::RequestRate, operator, bound.number),
                _ => unit("a number of requests a second", "request rate < 5"),
            }
        }
        Said::Signal(Signal::Restarts) => match bound.unit {
            In::Nothing if bound.number.fract() == 0.0 => with(Signal::Restarts, operator, bound.number),
            _ => unit("a number of restarts", "restarts > 3"),
        },
        Said::Signal(Signal::Metric { name }) => {
            let unit_of = metric::find(&name).map(|metric| metric.unit);
            let number = match (bound.unit, unit_of) {
                (In::Nothing, _)
                | (In::Percent, Some(Unit::Percent))
                | (In::Bytes, Some(Unit::Bytes | Unit::BytesPerSecond))
                | (In::Degrees, Some(Unit::Celsius))
                | (In::Watts, Some(Unit::Watts))
                | (In::PerSecond, Some(Unit::OpsPerSecond | Unit::LinesPerSecond))
                | (In::Time, Some(Unit::Seconds)) => Some(bound.number),
                (In::Time, Some(Unit::Millis)) => Some(bound.number * 1000.0),
                _ => None,
            };
            match (number, unit_of) {
                (Some(number), Some(Unit::Percent)) if number > 100.0 => unit("a percentage", &format!("{name} > 90%")),
                (Some(number), _) => with(Signal::Metric { name }, operator, number),
                (None, Some(wanted)) => unit(
                    &format!("in the unit of {name}, {}", wanted.name()),
                    &format!("{name} > 5"),
                ),
                (None, None) => unit(
                    &format!("a plain number: the unit of {name} isn't known"),
                    &format!("{name} > 5"),
                ),
            }
        }
        Said::Signal(metric @ Signal::Query { .. }) => match bound.unit {
            In::Nothing => with(metric, operator, bound.number),
            _ => unit("a plain number: a query's unit isn't known", "query \"up\" < 1"),
        },
        Said::Signal(Signal::Healthy) => other(),
    }
}

fn said_per_second(input: &mut Input<'_>) -> bool {
    taken(input, words::PER_SECOND)
}

/// A share from 0 to 1. A bare number below 1 is one; 1 and more could be percent as well.
fn ratio(bound: &Bound) -> Option<f64> {
    match bound.unit {
        In::Percent if bound.number <= 100.0 => Some(rounded(bound.number / 100.0)),
        In::Nothing if bound.number < 1.0 => Some(bound.number),
        _ => None,
    }
}

/// Without the last bits that a division or subtraction leaves: 0.005, not 0.0050000000000000044.
fn rounded(share: f64) -> f64 {
    (share * 1e9).round() / 1e9
}

/// The same bound seen from the other side.
const fn turned(operator: Comparison) -> Comparison {
    match operator {
        Comparison::Above => Comparison::Below,
        Comparison::AtLeast => Comparison::AtMost,
        Comparison::Below => Comparison::Above,
        Comparison::AtMost => Comparison::AtLeast,
    }
}
