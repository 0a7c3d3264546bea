//! How many there are and what each gets: numbers, bounds, and what they follow.

use api::deploy::Load;
use winnow::{
    Parser,
    combinator::{alt, opt, preceded},
    error::ErrMode,
    stream::Stream,
};

use super::{
    Verb,
    clause::{Part, Way, separators},
    grammar::{Input, Parsed, committed, ends, follows, other, peeked, refuse, said, taken, word},
    misread::Misread,
    resource::{self, Value},
    setting, value, verb, words,
};

const SCALE_EXAMPLE: &str = "autoscale inference between 2 and 10 replicas on cpu 70%";

/// "autoscale 2-10 on cpu 70%", "autoscale on 100 requests per second".
pub(super) fn autoscale(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::AUTOSCALE).parse_next(input)?;
    let start = input.checkpoint();
    let verb = Part::Verb(Verb::Scale);
    if let Ok(bounds) = bounds_range(input) {
        taken(input, words::REPLICAS);
        return Ok(vec![verb, bounds]);
    }
    input.reset(&start);
    taken(input, words::FOLLOW);
    let load = load(input)?;
    Ok(vec![verb, load])
}

/// "on cpu 70%", "keep gpu at 60%".
pub(super) fn follow(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let per_second =
        (value::number, said(words::PER_SECOND)).map(|(target, _)| Part::Follow(Load::RequestRate, target));
    let load = alt((preceded(said(words::KEEP), load), aimed, per_second)).parse_next(input)?;
    taken(input, words::EACH);
    Ok(vec![load])
}

pub(super) fn aimed(input: &mut Input<'_>) -> Parsed<Part> {
    let _ = said(words::FOLLOW).parse_next(input)?;
    load(input)
}

/// "cpu 70%", "60% gpu", "100 requests per second per replica", "queue 5".
pub(super) fn load(input: &mut Input<'_>) -> Parsed<Part> {
    taken(input, words::THE);
    let aim = |input: &mut Input<'_>| opt(said(words::AIM)).parse_next(input);
    let part = alt((
        (said(words::GPU_LOAD), aim, value::percent).map(|(_, _, target)| (Load::Gpu, target)),
        (said(words::CPU_LOAD), aim, value::percent).map(|(_, _, target)| (Load::Cpu, target)),
        (value::percent, opt(said(words::OF)), said(words::GPU_LOAD)).map(|(target, ..)| (Load::Gpu, target)),
        (value::percent, opt(said(words::OF)), said(words::CPU_LOAD)).map(|(target, ..)| (Load::Cpu, target)),
        (said(words::QUEUE), aim, value::number).map(|(_, _, target)| (Load::Queue, target)),
        (value::number, said(words::QUEUE)).map(|(target, _)| (Load::Queue, target)),
        (
            said(words::REQUEST_RATE),
            aim,
            value::number,
            opt(said(words::PER_SECOND)),
        )
            .map(|(_, _, target, _)| (Load::RequestRate, target)),
        (value::number, said(words::PER_SECOND)).map(|(target, _)| (Load::RequestRate, target)),
    ))
    .parse_next(input)?;
    committed(input, SCALE_EXAMPLE);
    taken(input, words::EACH);
    let (load, target) = part;
    let percent = matches!(load, Load::Cpu | Load::Gpu);
    if !(target > 0.0 && (!percent || target <= 100.0)) {
        return refuse(
            Misread::new(format!("a load of {target} can't be aimed at"))
                .help("say 'on cpu 70%'")
                .example(SCALE_EXAMPLE),
        );
    }
    Ok(Part::Follow(load, target))
}

/// "between 2 and 10 replicas", "2-10 replicas", "at least 2 replicas", "at most 10".
pub(super) fn bounds(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let start = input.checkpoint();
    if let Ok(bounds) = bounds_range(input)
        && (taken(input, words::REPLICAS) || bounds_began(input, &start))
    {
        return Ok(vec![bounds]);
    }
    input.reset(&start);
    let least = taken(input, words::MIN);
    if !least && !taken(input, words::MAX) {
        up_to(input)?;
    }
    let target = setting::owner(input)?;
    if target.is_some() {
        taken(input, words::TO);
    }
    let count = value::count(input)?;
    let one = if least {
        Part::Bounds(Some(count), None)
    } else {
        Part::Bounds(None, Some(count))
    };
    committed(input, SCALE_EXAMPLE);
    if taken(input, words::REPLICAS) || ends(input) || follows(input, words::FOLLOW) {
        return Ok(std::iter::once(one).chain(target).collect());
    }
    other()
}

/// Whether the clause that began there needs no noun: "between 2 and 10", "2-10".
pub(super) fn bounds_began<'i>(input: &mut Input<'i>, start: &<Input<'i> as Stream>::Checkpoint) -> bool {
    let here = input.checkpoint();
    input.reset(start);
    let began = peeked(input).is_some_and(|token| token.low == "between")
        || range_word(input).is_ok()
        || (value::count, said(words::TO), value::count).parse_next(input).is_ok();
    input.reset(&here);
    began && (ends(input) || follows(input, words::FOLLOW))
}

/// "with up to 10": not the "up to" of "scale inference up to 10".
pub(super) fn up_to(input: &mut Input<'_>) -> Parsed<()> {
    match input.previous_tokens().next() {
        Some(token) if token.low == "with" => said(words::UP_TO).void().parse_next(input),
        _ => other(),
    }
}

/// "between 2 and 10", "from 2 to 10", "2-10", "2..10".
pub(super) fn bounds_range(input: &mut Input<'_>) -> Parsed<Part> {
    alt((
        (said(words::BETWEEN), value::count, said(words::THROUGH), value::count)
            .map(|(_, least, _, most)| (least, most)),
        preceded(opt(said(words::BETWEEN)), range_word),
        (value::count, said(words::TO), value::count).map(|(least, _, most)| (least, most)),
    ))
    .map(|(least, most)| Part::Bounds(Some(least), Some(most)))
    .parse_next(input)
}

pub(super) fn range_word(input: &mut Input<'_>) -> Parsed<(u32, u32)> {
    word(input, |token| {
        let (least, most) = token.low.split_once("..").or_else(|| token.low.split_once('-'))?;
        Some((value::whole(least)?, value::whole(most)?))
    })
}

/// "add 3 replicas to inference", "remove 2 replicas from inference".
pub(super) fn relative(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let way = alt((said(words::ADD).value(Way::Up), said(words::TAKE_AWAY).value(Way::Down))).parse_next(input)?;
    committed(input, "add 3 replicas to inference");
    // "add a replica", "add the 2 GPUs".
    let start = input.checkpoint();
    let first = match resource::quantity(input) {
        Err(ErrMode::Backtrack(_)) => {
            input.reset(&start);
            taken(input, words::THE);
            resource::quantity(input)?
        }
        result => result?,
    };
    let mut quantities = vec![first];
    loop {
        let start = input.checkpoint();
        let _ = separators(input)?;
        match resource::quantity(input) {
            Ok(quantity) => quantities.push(quantity),
            Err(error @ ErrMode::Cut(_)) => return Err(error),
            Err(_) => {
                input.reset(&start);
                break;
            }
        }
    }
    let mut parts = vec![Part::Relative(way, quantities)];
    let start = input.checkpoint();
    if taken(input, if way == Way::Up { words::TO } else { words::FROM }) {
        taken(input, words::THE);
        if let Ok(name) = value::name(input) {
            taken(input, words::KIND);
            parts.push(Part::Target(name));
            return Ok(parts);
        }
        input.reset(&start);
    }
    Ok(parts)
}

fn multiple(input: &mut Input<'_>) -> Parsed<f64> {
    alt((
        said(words::DOUBLE).value(2.0),
        said(words::TRIPLE).value(3.0),
        said(words::QUADRUPLE).value(4.0),
        said(words::HALVE).value(0.5),
    ))
    .parse_next(input)
}

/// "double the memory of data-processor", "triple inference".
pub(super) fn factor(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let factor = multiple(input)?;
    committed(input, "double the memory of data-processor");
    taken(input, words::THE);
    taken(input, words::NUMBER_OF);
    match opt(resource::noun).parse_next(input)? {
        Some(noun) => Ok(vec![Part::Times(noun, factor)]),
        None => Ok(vec![Part::Factor(factor)]),
    }
}

/// "memory times 2".
pub(super) fn times(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let (noun, _, factor) = (resource::noun, said(words::TIMES), value::number).parse_next(input)?;
    Ok(vec![Part::Times(noun, factor)])
}

pub(super) fn quantity(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let quantity = resource::quantity(input)?;
    Ok(vec![Part::Quantity(quantity)])
}

/// "memory 64Gi", "the memory" with its value to come.
pub(super) fn resource_noun(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    taken(input, words::THE);
    taken(input, words::NUMBER_OF);
    let noun = resource::noun(input)?;
    committed(input, "increase memory for data-processor to 64Gi");
    let start = input.checkpoint();
    taken(input, words::AIM);
    match resource::value_of(input, noun) {
        Ok(quantity) => Ok(vec![Part::Quantity(quantity)]),
        Err(error @ ErrMode::Cut(_)) => Err(error),
        Err(_) => {
            input.reset(&start);
            Ok(vec![Part::Noun(noun)])
        }
    }
}

/// "to v2.1", "to 8 replicas", "to 64Gi".
pub(super) fn towards(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::TO).parse_next(input)?;
    let start = input.checkpoint();
    if let Ok(bounds) = bounds_range(input) {
        taken(input, words::REPLICAS);
        return Ok(vec![bounds]);
    }
    input.reset(&start);
    if let Ok(parts) = bounds(input) {
        return Ok(parts);
    }
    input.reset(&start);
    // "to half", "to twice as many".
    if let Ok(factor) = multiple(input) {
        return Ok(vec![Part::Factor(factor)]);
    }
    let value = match resource::value(input) {
        Ok(value) => value,
        Err(error @ ErrMode::Cut(_)) => return Err(error),
        // "push v2.5 to model-server".
        Err(_) if input.state.target().is_none() => return verb::subject(input),
        Err(error) => return Err(error),
    };
    Ok(vec![Part::To(value)])
}

/// "by 8Gi", "by 3 replicas", "by 50%", "by half", "by a factor of 2", "3 times", "2x".
pub(super) fn by(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let start = input.checkpoint();
    if let Ok(factor) = times_over(input)
        && ends(input)
    {
        return Ok(vec![Part::By(Value::Factor(factor))]);
    }
    input.reset(&start);
    if taken(input, words::TIMES) {
        return value::number
            .map(|factor| vec![Part::By(Value::Factor(factor))])
            .parse_next(input);
    }
    let _ = said(words::BY).parse_next(input)?;
    if taken(input, words::HALVE) {
        return Ok(vec![Part::By(Value::Percent(50.0))]);
    }
    let value = resource::value(input)?;
    Ok(vec![Part::By(value)])
}

/// "3 times", "2x", "x2".
fn times_over(input: &mut Input<'_>) -> Parsed<f64> {
    // A service can be called "x2".
    let named = input.state.target().is_some();
    alt((
        (value::number, said(words::TIMES)).map(|(factor, _)| factor),
        |input: &mut Input<'_>| {
            word(input, |token| {
                let after = token.low.strip_prefix('x').filter(|_| named);
                let number = token.low.strip_suffix('x').or(after)?;
                value::decimal(number)
            })
        },
    ))
    .parse_next(input)
}

/// "from v1", "from 2 replicas".
pub(super) fn from(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::FROM).parse_next(input)?;
    let token = peeked(input);
    match resource::value(input)? {
        Value::Version(version) => Ok(vec![Part::FromVersion(version)]),
        _ => Ok(vec![Part::Note(format!(
            "what it is now isn't checked: 'from {}'",
            token.map_or("", |token| token.raw)
        ))]),
    }
}
