//! When it goes on, and when it goes back.

use api::deploy::Condition;
use winnow::{
    Parser,
    combinator::{opt, preceded},
    error::ErrMode,
    stream::Stream,
};

use super::{
    clause::{Part, separators},
    condition,
    grammar::{Input, Parsed, committed, other, peeked, refuse, said, taken},
    misread::Misread,
    value, words,
};

pub(super) fn by_hand(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    said(words::BY_HAND).value(vec![Part::ByHand]).parse_next(input)
}

const ROLLBACK_EXAMPLE: &str = "update model-server to v2.1, rollback if errors > 1%";

/// "rollback if errors > 1% or p99 latency > 200ms".
pub(super) fn go_back_if(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::GO_BACK).parse_next(input)?;
    // "rollback to v1 if …" would be another way back than the one that is kept ready.
    let start = input.checkpoint();
    if taken(input, words::TO)
        && value::version(input).is_ok()
        && taken(input, words::IF)
        && condition::condition(input).is_ok()
    {
        return refuse(
            Misread::new(
                "going back by itself goes to the revision that was good before: it can't be named".to_owned(),
            )
            .help("leave the version out")
            .example(ROLLBACK_EXAMPLE),
        );
    }
    input.reset(&start);
    let _ = said(words::IF).parse_next(input)?;
    committed(input, ROLLBACK_EXAMPLE);
    match condition::any_of(input) {
        Ok(conditions) => Ok(vec![Part::RollbackIf(conditions)]),
        Err(error) => Err(error.cut()),
    }
}

/// "promote after 15m if error_rate < 0.5%", "switch after health check".
pub(super) fn promote(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let switch = taken(input, words::SWITCH);
    if !switch {
        let _ = said(words::PROMOTE).parse_next(input)?;
    }
    let mut parts = if switch { vec![Part::Switch] } else { Vec::new() };
    let told = tail_of_promote(input, &mut parts)?;
    if told { Ok(parts) } else { other() }
}

/// "after 15m", "if healthy", both in either order.
pub(super) fn tail_of_promote(input: &mut Input<'_>, parts: &mut Vec<Part>) -> Parsed<bool> {
    let mut after = None;
    let mut conditions: Option<Vec<Condition>> = None;
    loop {
        let start = input.checkpoint();
        if after.is_none() && taken(input, words::AFTER) {
            taken(input, words::THE);
            if let Ok(span) = value::span(input) {
                after = Some(span);
                continue;
            }
            input.reset(&start);
        }
        // A comma before "if": "promote after 1h, if healthy".
        if let Some(token) = peeked(input)
            && token.raw == ","
            && after.is_some()
        {
            input.next_token();
        }
        if conditions.is_none() && (taken(input, words::IF) || taken(input, words::AFTER)) {
            let at = input.checkpoint();
            match condition::all_of(input) {
                Ok(found) => {
                    conditions = Some(found);
                    continue;
                }
                Err(error @ ErrMode::Cut(_)) => return Err(error),
                // "promote after 1h on port 8080": the word was another clause's.
                Err(error) => {
                    input.reset(&at);
                    if after.is_none() {
                        return Err(error);
                    }
                }
            }
        }
        input.reset(&start);
        let told = after.is_some() || conditions.is_some();
        parts.extend(after.map(Part::PromoteAfter));
        parts.extend(conditions.map(Part::PromoteIf));
        return Ok(told);
    }
}

/// "if errors > 1%, roll back"; "if healthy, promote after 1 hour".
pub(super) fn condition_first(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::IF).parse_next(input)?;
    let start = input.checkpoint();
    let any = condition::any_of(input);
    if let Ok(conditions) = any {
        let _ = separators(input);
        if taken(input, words::GO_BACK) {
            return Ok(vec![Part::RollbackIf(conditions)]);
        }
    }
    input.reset(&start);
    let conditions = condition::all_of(input)?;
    let _ = separators(input);
    let switch = taken(input, words::SWITCH);
    if switch || taken(input, words::PROMOTE) {
        let mut parts = if switch { vec![Part::Switch] } else { Vec::new() };
        let after = input.checkpoint();
        match opt(preceded(said(words::AFTER), value::span)).parse_next(input) {
            Ok(span) => parts.extend(span.map(Part::PromoteAfter)),
            Err(_) => input.reset(&after),
        }
        parts.push(Part::PromoteIf(conditions));
        return Ok(parts);
    }
    Ok(vec![Part::Condition])
}

pub(super) fn keep_old(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::KEEP_OLD).parse_next(input)?;
    let _ = said(words::WINDOW).parse_next(input)?;
    committed(
        input,
        "blue-green deploy api-server v3.0, switch after health check, keep the old one for 30m",
    );
    Ok(vec![Part::KeepOld(value::span(input)?)])
}
