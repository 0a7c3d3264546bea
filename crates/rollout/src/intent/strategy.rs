//! How the new revision takes the place of the old: canaries, batches and their rests.

use api::{Span, deploy::Strategy};
use winnow::{
    Parser,
    combinator::{alt, opt, preceded},
    error::ErrMode,
    stream::Stream,
};

use super::{
    Batch, Verb,
    clause::{Part, separators},
    grammar::{Input, Parsed, committed, ends, follows, other, peeked, refuse, said, taken},
    misread::Misread,
    value, words,
};

const CANARY_EXAMPLE: &str = "deploy model-server v2.5, canary 10% then 50%, promote after 15m if errors < 0.5%";

/// "start with 10% of traffic, then 50%".
pub(super) fn start_with(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::START_WITH).parse_next(input)?;
    let mut steps = vec![percent_step(input)?];
    // "start with 10% canary".
    taken(input, words::CANARY);
    more_steps(input, &mut steps)?;
    canary_of(steps, true)
}

/// "canary 10% then 50%", "10% canary", "canary at 5 percent", "10% then 50%", "to 10% of traffic".
pub(super) fn canary(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let start = input.checkpoint();
    taken(input, words::THE);
    match percent_first(input) {
        Err(ErrMode::Backtrack(_)) => input.reset(&start),
        result => return result,
    }
    taken(input, words::THE);
    let _ = said(words::CANARY).parse_next(input)?;
    committed(input, CANARY_EXAMPLE);
    let after = input.checkpoint();
    opt(alt((
        said(words::FOLLOW),
        said(words::OF),
        said(words::TO),
        said(words::AND),
        said(words::START_WITH),
    )))
    .parse_next(input)?;
    taken(input, words::THE);
    let mut steps = Vec::new();
    match percent_step(input) {
        // "canary and 20% at a time": that is about batches.
        Ok(_) if follows(input, words::AT_A_TIME) => input.reset(&after),
        Ok(first) => {
            steps.push(first);
            more_steps(input, &mut steps)?;
        }
        Err(error @ ErrMode::Cut(_)) => return Err(error),
        Err(_) => {
            input.reset(&after);
            let said = peeked(input).map_or("", |token| token.raw);
            if let Ok(number) = value::number(input)
                && (ends(input) || follows(input, words::FIRST))
            {
                return refuse(
                    Misread::new(format!("'canary {said}': {said} what?"))
                        .help(format!("say 'canary {number}%'"))
                        .example(CANARY_EXAMPLE),
                );
            }
            input.reset(&after);
        }
    }
    taken(input, words::FIRST);
    canary_of(steps, true)
}

/// Percentages first: of a canary that is named after them, of traffic, or more than one.
fn percent_first(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let towards = taken(input, words::TO) || taken(input, words::ON);
    let mut steps = vec![percent_step(input)?];
    let mut told = input
        .previous_tokens()
        .next()
        .is_some_and(|token| is_traffic(token.low));
    if follows(input, words::AT_A_TIME) {
        return other();
    }
    // "to 10%" alone can be anything; "to 10% of traffic" and "to 10% then the rest" can't.
    if towards && !told && !rest_follows(input) {
        return other();
    }
    taken(input, words::FIRST);
    let named = taken(input, words::CANARY);
    if named && let Some(span) = lasting(input)? {
        steps[0].1 = Some(span);
    }
    taken(input, words::FIRST);
    let rest = more_steps(input, &mut steps)?;
    told |= rest || named || taken(input, words::CANARY) || steps.len() > 1;
    if !told {
        return other();
    }
    canary_of(steps, true)
}

/// Whether "then the rest" comes next. Only that is looked at: steps that follow would be gone through again and again.
fn rest_follows(input: &mut Input<'_>) -> bool {
    let start = input.checkpoint();
    let rest = separators(input).is_ok() && taken(input, words::REST) && ends(input);
    input.reset(&start);
    rest
}

/// "at 10%": how large the canary is that is said elsewhere.
pub(super) fn at_percent(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::AT_PART).parse_next(input)?;
    let first = percent_step(input)?;
    if !ends(input) {
        return other();
    }
    let mut steps = vec![first];
    more_steps(input, &mut steps)?;
    canary_of(steps, false)
}

/// Whether this is a word about requests.
fn is_traffic(word: &str) -> bool {
    words::OF_TRAFFIC
        .iter()
        .any(|form| form.rsplit(' ').next() == Some(word))
}

/// A step of a canary: its percentage, and how long it lasts if that is said.
type Step = (f64, Option<Span>);

/// "10%", "10% of traffic", "10% for 15m".
fn percent_step(input: &mut Input<'_>) -> Parsed<Step> {
    let percentage = value::percent(input)?;
    taken(input, words::OF_TRAFFIC);
    Ok((percentage, lasting(input)?))
}

/// "for 15m".
fn lasting(input: &mut Input<'_>) -> Parsed<Option<Span>> {
    let start = input.checkpoint();
    if taken(input, words::FOR)
        && let Ok(span) = value::span(input)
    {
        return Ok(Some(span));
    }
    input.reset(&start);
    Ok(None)
}

/// "then 25% then 50%", ", 50%", "-> 50%". Whether it ends with "then all".
fn more_steps(input: &mut Input<'_>, steps: &mut Vec<Step>) -> Parsed<bool> {
    loop {
        let start = input.checkpoint();
        let _ = separators(input);
        taken(input, words::TO);
        if taken(input, words::REST) && ends(input) {
            return Ok(true);
        }
        input.reset(&start);
        let _ = separators(input);
        taken(input, words::TO);
        match percent_step(input) {
            // "20% at a time" is about batches.
            Ok(step) if !follows(input, words::AT_A_TIME) => steps.push(step),
            Err(error @ ErrMode::Cut(_)) => return Err(error),
            _ => {
                input.reset(&start);
                return Ok(false);
            }
        }
    }
}

/// The parts that steps are.
fn canary_of(mut steps: Vec<Step>, strategy: bool) -> Parsed<Vec<Part>> {
    let mut parts = if strategy {
        vec![Part::Strategy(Strategy::Canary)]
    } else {
        Vec::new()
    };
    if steps.len() > 1 && steps.last().is_some_and(|(percentage, _)| *percentage == 100.0) {
        steps.pop();
        parts.push(Part::Note("'100%' is where a canary ends anyway".to_owned()));
    }
    let mut spans: Vec<Span> = steps.iter().filter_map(|(_, span)| *span).collect();
    spans.dedup();
    if let [first, second, ..] = spans[..] {
        return refuse(
            Misread::new(format!("one step lasts {first} and another {second}: all last as long"))
                .help("say 'canary 10% then 50%, promote after 15m'")
                .example(CANARY_EXAMPLE),
        );
    }
    if !steps.is_empty() {
        parts.push(Part::Steps(
            steps.into_iter().map(|(percentage, _)| percentage).collect(),
        ));
    }
    parts.extend(spans.first().map(|span| Part::PromoteAfter(*span)));
    Ok(parts)
}

/// "20% at a time", "one at a time", "in batches of 3", "max unavailable 1".
pub(super) fn batch(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let size = |input: &mut Input<'_>| {
        alt((
            value::percent.map(Batch::Percent),
            (value::count_or_one, opt(said(words::REPLICAS))).map(|(count, _)| Batch::Count(count)),
        ))
        .parse_next(input)
    };
    alt((
        (size, said(words::AT_A_TIME)).map(|(size, _)| size),
        preceded(said(words::IN_BATCHES), size),
        preceded((said(words::MAX_UNAVAILABLE), opt(said(words::AIM))), size).map(|size| match size {
            Batch::Count(count) | Batch::Fewer(count) => Batch::Fewer(count),
            Batch::Percent(percent) | Batch::FewerPercent(percent) => Batch::FewerPercent(percent),
        }),
        said(words::BY_N).value(Batch::Count(1)),
        said(words::TWO_BY_TWO).value(Batch::Count(2)),
    ))
    .map(|batch| vec![Part::Batch(batch)])
    .parse_next(input)
}

/// "waiting 1m between batches", "pause between batches 1m".
pub(super) fn pause(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    alt((
        (
            preceded((said(words::WAITING), opt(said(words::THE))), value::span),
            opt(said(words::PAUSE_NOUN)),
            said(words::BETWEEN_BATCHES),
        )
            .map(|(span, ..)| span),
        (value::span, opt(said(words::PAUSE_NOUN)), said(words::BETWEEN_BATCHES)).map(|(span, ..)| span),
        (value::span, said(words::PAUSE_NOUN)).map(|(span, _)| span),
        preceded((said(words::PAUSE_BETWEEN), opt(said(words::AIM))), value::span),
    ))
    .map(|span| vec![Part::Pause(span)])
    .parse_next(input)
}

pub(super) fn strategy(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    if let Some(form) = opt(said(words::IMMEDIATE)).parse_next(input)? {
        committed(input, "deploy model-server v2.5, immediate");
        return Ok(vec![if form == "immediately" {
            Part::Immediately
        } else {
            Part::Strategy(Strategy::Immediate)
        }]);
    }
    if taken(input, words::ROLLING_RESTART) {
        return Ok(vec![Part::Verb(Verb::Restart), Part::Strategy(Strategy::Rolling)]);
    }
    alt((
        said(words::BLUE_GREEN).value(Strategy::BlueGreen),
        said(words::ROLLING).value(Strategy::Rolling),
    ))
    .map(|strategy| vec![Part::Strategy(strategy)])
    .parse_next(input)
}
