//! How the new revision takes the place of the old: canaries, batches and their rests.

use api::deploy::Strategy;
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
    token::Kind,
    value, words,
};

const CANARY_EXAMPLE: &str = "deploy model-server v2.5, canary 10% then 50%, promote after 15m if errors < 0.5%";

/// "start with 10% of traffic, then 50%".
pub(super) fn start_with(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::START_WITH).parse_next(input)?;
    let first = percent_step(input)?;
    // "start with 10% canary".
    taken(input, words::CANARY);
    let mut steps = vec![first];
    more_steps(input, &mut steps)?;
    Ok(vec![Part::Strategy(Strategy::Canary), Part::Steps(steps)])
}

/// "canary 10% then 50%", "10% canary", "canary at 5 percent".
pub(super) fn canary(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let start = input.checkpoint();
    let mut steps = Vec::new();
    taken(input, words::THE);
    if let Ok(first) = percent_step(input) {
        if !taken(input, words::CANARY) {
            // "10% then 50% canary", "10% of traffic first".
            let listed = more_steps(input, &mut steps).is_ok() && taken(input, words::CANARY);
            if !listed {
                input.reset(&start);
                let first = percent_step(input)?;
                // Where it is said of traffic, it is a canary; a bare percentage isn't anything.
                let before = peeked_back(input);
                if !before || taken(input, words::AT_A_TIME) {
                    return other();
                }
                steps = vec![first];
                taken(input, words::FIRST);
                more_steps(input, &mut steps)?;
                return Ok(vec![Part::Strategy(Strategy::Canary), Part::Steps(steps)]);
            }
        }
        committed(input, CANARY_EXAMPLE);
        steps.insert(0, first);
        taken(input, words::FIRST);
        more_steps(input, &mut steps)?;
        return Ok(vec![Part::Strategy(Strategy::Canary), Part::Steps(steps)]);
    }
    input.reset(&start);
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
    match percent_step(input) {
        Ok(first) => {
            steps.push(first);
            more_steps(input, &mut steps)?;
        }
        Err(error @ ErrMode::Cut(_)) => return Err(error),
        Err(_) => {
            input.reset(&after);
            if let Ok(number) = value::number(input) {
                let next_is_noun = peeked(input).is_some_and(|token| token.kind == Kind::Word)
                    && !ends(input)
                    && !follows(input, words::FIRST);
                if !next_is_noun {
                    return refuse(
                        Misread::new(format!("'canary {number}': {number} what?"))
                            .help(format!("say 'canary {number}%'"))
                            .example(CANARY_EXAMPLE),
                    );
                }
            }
            input.reset(&after);
        }
    }
    taken(input, words::FIRST);
    let mut parts = vec![Part::Strategy(Strategy::Canary)];
    if !steps.is_empty() {
        parts.push(Part::Steps(steps));
    }
    Ok(parts)
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
    Ok(vec![Part::Steps(steps)])
}

/// Whether the token before the next one was a word about traffic.
pub(super) fn peeked_back(input: &Input<'_>) -> bool {
    input
        .previous_tokens()
        .next()
        .is_some_and(|token| matches!(token.low, "traffic" | "requests" | "users" | "load"))
}

/// A percentage of a canary: above 0, below 100.
pub(super) fn percent_step(input: &mut Input<'_>) -> Parsed<f64> {
    let percentage = value::percent(input)?;
    taken(input, words::OF_TRAFFIC);
    Ok(percentage)
}

/// "then 25% then 50%", ", 50%", "-> 50%".
pub(super) fn more_steps(input: &mut Input<'_>, steps: &mut Vec<f64>) -> Parsed<()> {
    loop {
        let start = input.checkpoint();
        let _ = separators(input);
        taken(input, words::TO);
        match percent_step(input) {
            // "20% at a time" is about batches, "5% for 10m" isn't understood, "50% canary" is another one.
            Ok(step) if !follows(input, words::AT_A_TIME) => steps.push(step),
            Err(error @ ErrMode::Cut(_)) => return Err(error),
            _ => {
                input.reset(&start);
                return Ok(());
            }
        }
    }
}

/// "20% at a time", "one at a time", "in batches of 3".
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
