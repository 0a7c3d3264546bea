//! What a replica gets and how many there are: numbers with the thing that they count.

use api::{Cpu, Size};
use winnow::{
    Parser,
    combinator::{alt, opt},
    stream::Stream,
};

use super::{
    clause::Way,
    grammar::{Input, Parsed, follows, other, peeked, refuse, said, taken, word},
    misread::Misread,
    token::Kind,
    value, words,
};

/// A thing that can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noun {
    Replicas,
    Gpus,
    Memory,
    Cpu,
    Image,
}

impl Noun {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replicas => "replicas",
            Self::Gpus => "GPUs",
            Self::Memory => "memory",
            Self::Cpu => "CPU",
            Self::Image => "the image",
        }
    }
}

/// So many of something.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Thing {
    Replicas(u32),
    Gpus {
        count: Option<u32>,
        model: Option<String>,
        memory: Option<Size>,
    },
    Memory(Size),
    Cpu(Cpu),
}

/// So many of something, or so many more.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantity {
    pub thing: Thing,
    pub way: Option<Way>,
}

/// What stands after "to" or "by".
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Thing(Thing),
    Size(Size),
    /// `8`, `2.5`, `500m`: what it counts is said elsewhere.
    Number(String),
    Percent(f64),
    Factor(f64),
    Version(String),
    Image(String),
}

/// A thing that is counted, without its number.
pub(super) fn noun(input: &mut Input<'_>) -> Parsed<Noun> {
    let start = input.checkpoint();
    let noun = alt((
        said(words::REPLICAS).value(Noun::Replicas),
        said(words::MEMORY).value(Noun::Memory),
        said(words::CPU).value(Noun::Cpu),
        said(words::GPUS).value(Noun::Gpus),
        said(words::IMAGE)
            .verify(|form: &str| matches!(form, "image" | "container image" | "docker image" | "the image"))
            .value(Noun::Image),
    ))
    .parse_next(input)?;
    // "GPU memory" is the GPU's own.
    if noun == Noun::Gpus && follows(input, words::MEMORY) {
        input.reset(&start);
        return other();
    }
    Ok(noun)
}

/// The value that follows a noun at once: "memory 64Gi", "replicas: 8".
pub(super) fn value_of(input: &mut Input<'_>, noun: Noun) -> Parsed<Quantity> {
    let thing = match noun {
        Noun::Replicas => value::count(input).map(Thing::Replicas)?,
        Noun::Gpus => value::count(input).map(|count| Thing::Gpus {
            count: Some(count),
            model: None,
            memory: None,
        })?,
        Noun::Memory => value::size(input).map(Thing::Memory)?,
        Noun::Cpu => value::cpu(input).map(Thing::Cpu)?,
        Noun::Image => return other(),
    };
    // "cpu to 4 cores", "memory 64 GB ram".
    match noun {
        Noun::Replicas => taken(input, words::REPLICAS),
        Noun::Memory => taken(input, words::MEMORY),
        Noun::Cpu => taken(input, words::CPU),
        Noun::Gpus | Noun::Image => false,
    };
    // "memory 64Gi" but not "cpu 70%", "replicas 3 at a time".
    if follows(input, words::PERCENT) || follows(input, words::AT_A_TIME) {
        return other();
    }
    taken(input, words::EACH);
    Ok(Quantity { thing, way: None })
}

/// "8 replicas", "2 more GPUs", "8x A100 80GB", "64 GB of memory", "another replica", "no GPUs".
pub(super) fn quantity(input: &mut Input<'_>) -> Parsed<Quantity> {
    let start = input.checkpoint();
    if let Some(token) = peeked(input).filter(|token| token.kind == Kind::Word && token.low.contains('.'))
        && value::decimal(token.low).is_some()
    {
        input.next_token();
        if follows(input, words::REPLICAS) || follows(input, words::GPUS) {
            return refuse(
                Misread::new(format!("'{}' isn't a whole number", token.raw))
                    .help("replicas and GPUs are counted in whole numbers"),
            );
        }
        input.reset(&start);
    }
    for parse in [replicas, memory, cpu, model_times, gpus, gpu_memory] {
        match parse(input) {
            Ok(quantity) => {
                taken(input, words::EACH);
                return Ok(quantity);
            }
            Err(error @ winnow::error::ErrMode::Cut(_)) => return Err(error),
            Err(_) => input.reset(&start),
        }
    }
    other()
}

/// "more", "fewer".
fn way(input: &mut Input<'_>) -> Parsed<Option<Way>> {
    opt(alt((
        said(words::MORE).value(Way::Up),
        said(words::FEWER).value(Way::Down),
    )))
    .parse_next(input)
}

/// A count with "more" or "fewer" about it: "3 more", "another", "another 3", "no".
fn counted(input: &mut Input<'_>) -> Parsed<(u32, Option<Way>)> {
    if taken(input, words::NO) {
        return Ok((0, None));
    }
    let before = way(input)?;
    match value::count_or_one(input) {
        Ok(count) => Ok((count, way(input)?.or(before))),
        Err(error @ winnow::error::ErrMode::Cut(_)) => Err(error),
        Err(_) if before == Some(Way::Up) => Ok((1, before)),
        Err(error) => Err(error),
    }
}

fn replicas(input: &mut Input<'_>) -> Parsed<Quantity> {
    let (count, before) = counted(input)?;
    taken(input, words::THE);
    let _ = said(words::REPLICAS).parse_next(input)?;
    // "one replica at a time", "5 replicas or more".
    if follows(input, words::AT_A_TIME) {
        return other();
    }
    let after = way(input)?;
    Ok(Quantity {
        thing: Thing::Replicas(count),
        way: before.or(after),
    })
}

fn memory(input: &mut Input<'_>) -> Parsed<Quantity> {
    let before = way(input)?;
    let size = value::size(input)?;
    let middle = way(input)?;
    taken(input, words::OF_THING);
    if follows(input, words::VRAM) {
        return other();
    }
    let _ = said(words::MEMORY).parse_next(input)?;
    let after = way(input)?;
    Ok(Quantity {
        thing: Thing::Memory(size),
        way: before.or(middle).or(after),
    })
}

fn cpu(input: &mut Input<'_>) -> Parsed<Quantity> {
    let before = way(input)?;
    let cpu = match value::cpu(input) {
        Ok(cpu) => cpu,
        Err(error @ winnow::error::ErrMode::Cut(_)) => return Err(error),
        Err(_) if before == Some(Way::Up) => Cpu::cores(1),
        Err(error) => return Err(error),
    };
    let middle = way(input)?;
    taken(input, words::OF_THING);
    let _ = said(words::CPU).parse_next(input)?;
    let after = way(input)?;
    Ok(Quantity {
        thing: Thing::Cpu(cpu),
        way: before.or(middle).or(after),
    })
}

/// "4 GPUs", "8 A100 GPUs", "8x A100 80GB", "8xA100", "A100 GPUs", "an H100".
fn gpus(input: &mut Input<'_>) -> Parsed<Quantity> {
    let glued = opt(glued).parse_next(input)?;
    let on = taken(input, words::ON_MODEL);
    let glued = match glued {
        // "on 4xA100".
        None if on => opt(self::glued).parse_next(input)?,
        glued => glued,
    };
    let start = input.checkpoint();
    // "a b2-service" isn't a GPU, "2 b200" and "a B200" are.
    let article =
        peeked(input).is_some_and(|token| words::ONE.contains(&token.low) || words::MORE.contains(&token.low));
    let (count, way, model) = match glued {
        Some((count, "")) => (Some(count), None, model(input)?),
        Some((count, rest)) => match read_model(rest)? {
            Some(model) => (Some(count), None, model),
            None => return other(),
        },
        None => {
            let (count, way) = match counted(input) {
                Ok((count, way)) => (Some(count), way),
                Err(error @ winnow::error::ErrMode::Cut(_)) => return Err(error),
                Err(_) => {
                    input.reset(&start);
                    (None, None)
                }
            };
            taken(input, words::BY_X);
            let model = opt(model).parse_next(input)?.unwrap_or_default();
            (count, way, model)
        }
    };
    let size = opt(value::size).parse_next(input)?;
    let noun = taken(input, words::GPUS);
    if noun && (follows(input, words::MEMORY) || follows(input, words::AT_A_TIME)) {
        return other();
    }
    // "8 GPUs of type A100".
    let model = if noun && model.name.is_none() && taken(input, words::OF_TYPE) {
        self::model(input)?
    } else {
        model
    };
    // Without a noun, the model must be one beyond doubt.
    let told = match (&model.name, count, noun) {
        (_, Some(_), true) => true,
        (Some(name), Some(_), false) => !name.contains('-') && (model.capital || !article),
        (Some(_), None, true) => true,
        (Some(name), None, false) => on && model.plural && !name.contains('-'),
        (None, None, true) => size.is_some(),
        (None, _, false) => false,
    };
    if !told {
        return other();
    }
    let after = self::way(input)?;
    Ok(Quantity {
        thing: Thing::Gpus {
            count,
            model: model.name,
            memory: size.or(model.memory),
        },
        way: way.or(after),
    })
}

/// `A100x4`, "gpu a100x4".
fn model_times(input: &mut Input<'_>) -> Parsed<Quantity> {
    // A service can be called so, too.
    let with = input.previous_tokens().next().is_some_and(|token| token.low == "with");
    let noun = taken(input, words::GPUS);
    let told = taken(input, words::ON_MODEL) || noun || with || input.state.target().is_some();
    let Some(token) = peeked(input).filter(|token| token.kind == Kind::Word) else {
        return other();
    };
    let Some((name, count)) = times_in(token.raw) else {
        return other();
    };
    let Some(model) = read_model(name)?.filter(|model| model.name.as_ref().is_some_and(|name| !name.contains('-')))
    else {
        return other();
    };
    input.next_token();
    if !(taken(input, words::GPUS) || told) {
        return other();
    }
    Ok(Quantity {
        thing: Thing::Gpus {
            count: Some(count),
            model: model.name,
            memory: model.memory,
        },
        way: None,
    })
}

/// `A100x4` in its two parts. `None`: it isn't that; `MI300X8` can be eight of one model, or of another.
fn times_in(text: &str) -> Option<(&str, u32)> {
    let (name, count) = text.rsplit_once(['x', 'X'])?;
    let fits = name.contains(|c: char| c.is_ascii_digit()) && !name.to_ascii_lowercase().starts_with("mi");
    value::whole(count)
        .filter(|count| fits && *count > 0)
        .map(|count| (name, count))
}

/// `8xA100`, `8x`: the number, and what follows the `x`.
fn glued<'i>(input: &mut Input<'i>) -> Parsed<(u32, &'i str)> {
    word(input, |token| {
        let (count, rest) = token.raw.split_once(['x', 'X'])?;
        Some((value::whole(count)?, rest))
    })
}

/// "80GB of VRAM", "with 80GB per GPU".
fn gpu_memory(input: &mut Input<'_>) -> Parsed<Quantity> {
    let size = value::size(input)?;
    taken(input, words::OF_THING);
    let _ = said(words::VRAM).parse_next(input)?;
    Ok(Quantity {
        thing: Thing::Gpus {
            count: None,
            model: None,
            memory: Some(size),
        },
        way: None,
    })
}

#[derive(Debug, Default)]
struct Model {
    name: Option<String>,
    memory: Option<Size>,
    /// Said as "A100s".
    plural: bool,
    /// Said with a capital letter.
    capital: bool,
}

/// "A100", "RTX 4090", "NVIDIA H100".
fn model(input: &mut Input<'_>) -> Parsed<Model> {
    taken(input, words::MAKERS);
    let start = input.checkpoint();
    if let Ok(series) = said(words::SERIES).parse_next(input)
        && let Ok(number) = word(input, |token| {
            let number = token.raw.trim_end_matches('s');
            let fits = number.bytes().all(|b| b.is_ascii_alphanumeric()) && number.bytes().any(|b| b.is_ascii_digit());
            fits.then(|| number.to_ascii_uppercase())
        })
    {
        return Ok(Model {
            name: Some(format!("{} {number}", series.to_ascii_uppercase())),
            memory: None,
            plural: true,
            capital: true,
        });
    }
    input.reset(&start);
    let Some(token) = peeked(input).filter(|token| token.kind == Kind::Word) else {
        return other();
    };
    match read_model(token.raw)? {
        Some(model) => {
            input.next_token();
            Ok(model)
        }
        None => other(),
    }
}

/// A model in one word: letters, then digits, and what follows them. `None`: it isn't one.
fn read_model(text: &str) -> Parsed<Option<Model>> {
    if times_in(text).is_some() {
        return Ok(None);
    }
    let (text, memory) = match text
        .rsplit_once('-')
        .and_then(|(model, size)| Some((model, value::size_word(&size.to_ascii_lowercase())?)))
    {
        Some((model, size)) => (model, Some(size)),
        None => (text, None),
    };
    let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let fits = (1..=4).contains(&letters)
        && text.len() <= 20
        && text[letters..].starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !fits {
        return Ok(None);
    }
    // L40 and L40S are two models, and "L40s" could be either.
    if text == "L40s" {
        return refuse(
            Misread::new("'L40s' can be several L40 or the model L40S".to_owned())
                .help("say 'L40 GPUs' or 'L40S GPUs'"),
        );
    }
    let plural = text.ends_with('s')
        && text != "l40s"
        && text[..text.len() - 1].ends_with(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase());
    let name = if plural { &text[..text.len() - 1] } else { text }.to_ascii_uppercase();
    let name = match name.strip_prefix("RTX").or_else(|| name.strip_prefix("GTX")) {
        Some(number) if number.starts_with(|c: char| c.is_ascii_digit()) => format!("{} {number}", &name[..3]),
        _ => name,
    };
    Ok(Some(Model {
        name: Some(name),
        memory,
        plural,
        capital: text.starts_with(|c: char| c.is_ascii_uppercase()),
    }))
}

/// What stands after "to", "by" or "from".
pub(super) fn value(input: &mut Input<'_>) -> Parsed<Value> {
    let start = input.checkpoint();
    match quantity(input) {
        Ok(Quantity { thing, way: None }) => return Ok(Value::Thing(thing)),
        Err(error @ winnow::error::ErrMode::Cut(_)) => return Err(error),
        _ => input.reset(&start),
    }
    alt((
        (said(words::VERSION), value::version).map(|(_, version)| Value::Version(version)),
        (said(words::FACTOR), value::number).map(|(_, factor)| Value::Factor(factor)),
        value::percent.map(Value::Percent),
        value::size_not_cpu.map(Value::Size),
        |input: &mut Input<'_>| {
            word(input, |token| {
                let number = token.low.strip_suffix('m').unwrap_or(token.low);
                (value::whole(number).is_some()
                    || token.low == number && value::decimal(number).is_some() && !number.contains('.'))
                .then(|| Value::Number(token.low.to_owned()))
            })
        },
        value::version_by_look.map(Value::Version),
        |input: &mut Input<'_>| {
            word(input, |token| {
                value::looks_like_image(token.raw).then(|| Value::Image(token.raw.to_owned()))
            })
        },
        |input: &mut Input<'_>| {
            word(input, |token| {
                token
                    .raw
                    .contains(':')
                    .then_some(token.raw)
                    .filter(|raw| value::is_image(raw))
                    .map(|raw| Value::Image(raw.to_owned()))
            })
        },
        value::count.map(|count| Value::Number(count.to_string())),
    ))
    .parse_next(input)
}

/// Whether "no" or "without" stands before something that there can be none of.
pub(super) fn none_of_something(input: &mut Input<'_>) -> bool {
    let start = input.checkpoint();
    let is = taken(input, words::NO) && follows(input, words::GPUS);
    input.reset(&start);
    is
}
