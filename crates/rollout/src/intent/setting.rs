//! What a replica is given, and what is said by the way: settings, care, reasons, words that say nothing.

use api::workload::{EnvVar, HOST_IMAGE, Priority};
use winnow::{
    Parser,
    combinator::{alt, opt, preceded},
    stream::Stream,
};

use super::{
    Care,
    clause::{Part, separators},
    grammar::{Input, Parsed, committed, follows, other, peeked, quoted, refuse, said, taken, word},
    misread::Misread,
    token::Kind,
    value, words,
};

pub(super) fn trouble(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    said(words::TROUBLE)
        .map(|words| vec![Part::Reason(words.to_owned())])
        .parse_next(input)
}

pub(super) fn namespace(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let name = alt((
        preceded(said(words::NAMESPACE), namespace_name),
        (said(words::IN_THE), namespace_name, said(words::NAMESPACE_NOUN)).map(|(_, name, _)| name),
    ))
    .parse_next(input)?;
    Ok(vec![Part::Namespace(name)])
}

/// A namespace may be called like an environment: its noun stands beside it.
pub(super) fn namespace_name(input: &mut Input<'_>) -> Parsed<String> {
    alt((
        |input: &mut Input<'_>| {
            word(input, |token| {
                words::ENVIRONMENTS.contains(&token.raw).then(|| token.raw.to_owned())
            })
        },
        value::name,
    ))
    .parse_next(input)
}

pub(super) fn port(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::PORT).parse_next(input)?;
    let token = peeked(input);
    let number = value::count(input)?;
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(vec![Part::Port(port)]),
        _ => refuse(
            Misread::new(format!("'{}' is no port", token.map_or("", |token| token.raw)))
                .help("ports are 1 to 65535")
                .example("deploy api-server v3.0 on port 8080"),
        ),
    }
}

pub(super) fn timeout(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::TIMEOUT).parse_next(input)?;
    let target = owner(input)?;
    let (_, span) = (opt(said(words::AIM)), value::span).parse_next(input)?;
    Ok(std::iter::once(Part::Timeout(span)).chain(target).collect())
}

/// "of trainer", before "to": whose the setting is that was just named.
pub(super) fn owner(input: &mut Input<'_>) -> Parsed<Option<Part>> {
    let start = input.checkpoint();
    let of = input.previous_tokens().next().is_some_and(|token| token.low == "of");
    if of || taken(input, words::OF) {
        taken(input, words::THE);
        if let Ok(name) = value::name(input)
            && input.state.target().is_none_or(|before| *before == *name)
            && follows(input, words::TO)
        {
            return Ok(Some(Part::Target(name)));
        }
    }
    input.reset(&start);
    Ok(None)
}

pub(super) fn priority(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let level = |input: &mut Input<'_>| {
        alt((
            said(words::LOW).value(Priority::Low),
            said(words::NORMAL).value(Priority::Normal),
            said(words::HIGH).value(Priority::High),
        ))
        .parse_next(input)
    };
    opt(alt((said(words::FOLLOW), said(words::TO)))).parse_next(input)?;
    taken(input, words::THE);
    if taken(input, words::PRIORITY) {
        let target = owner(input)?;
        let (_, level) = (opt(said(words::AIM)), level).parse_next(input)?;
        return Ok(std::iter::once(Part::Priority(level)).chain(target).collect());
    }
    (level, said(words::PRIORITY))
        .map(|(level, _)| vec![Part::Priority(level)])
        .parse_next(input)
}

pub(super) fn image(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let start = input.checkpoint();
    taken(input, words::TO);
    if taken(input, words::IMAGE) {
        committed(input, "deploy web with image ghcr.io/acme/web:v2");
        if let Some(token) = peeked(input).filter(|token| token.kind == Kind::Quoted && value::is_image(&token.text()))
        {
            input.next_token();
            return Ok(vec![Part::Image(token.text().into_owned())]);
        }
        return word(input, |token| {
            let named = value::is_image(token.raw) && !super::vocabulary::is_word(token.low);
            (named || token.low == HOST_IMAGE).then(|| vec![Part::Image(token.raw.to_owned())])
        });
    }
    input.reset(&start);
    taken(input, words::FROM);
    word(input, |token| {
        value::looks_like_image(token.raw).then(|| vec![Part::Image(token.raw.to_owned())])
    })
}

pub(super) fn command(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::COMMAND).parse_next(input)?;
    let text = quoted(input)?;
    match shlex::split(&text.text()).filter(|words| !words.is_empty()) {
        Some(words) => Ok(vec![Part::Command(words)]),
        None => refuse(
            Misread::new(format!("the command {} can't be split into words", text.raw))
                .help("close its quotes")
                .example("deploy trainer with image acme/train:v1, command \"python train.py\""),
        ),
    }
}

/// "env A=b", "A=b C=d".
pub(super) fn env(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    taken(input, words::SET);
    let told = taken(input, words::ENV);
    let written = peeked(input).map_or("", |token| token.raw);
    let first = assignment(input)?;
    if !told && super::vocabulary::is_word(&first.name) {
        return refuse(
            Misread::new(format!("'{written}' would be an environment variable: is it meant?"))
                .help(format!("say '{} {}', or 'env {written}'", first.name, first.value))
                .example("deploy web v2 with 4 replicas, env LOG_LEVEL=debug"),
        );
    }
    let mut all = vec![first];
    loop {
        let start = input.checkpoint();
        let _ = separators(input);
        taken(input, words::ENV);
        match assignment(input) {
            Ok(next) => all.push(next),
            Err(_) => {
                input.reset(&start);
                return Ok(vec![Part::Env(all)]);
            }
        }
    }
}

pub(super) fn assignment(input: &mut Input<'_>) -> Parsed<EnvVar> {
    word(input, |token| {
        let (name, value) = token.raw.split_once('=')?;
        let fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !value.starts_with('=');
        let value = if value.starts_with(['"', '`']) {
            super::token::unquoted(value).into_owned()
        } else {
            value.to_owned()
        };
        fits.then(|| EnvVar {
            name: name.to_owned(),
            value,
        })
    })
}

pub(super) fn production(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let form = said(words::PRODUCTION).parse_next(input)?;
    // "to production namespace" is a namespace after all.
    if follows(input, words::NAMESPACE_NOUN) {
        return other();
    }
    Ok(vec![Part::Note(format!(
        "passed over: '{form}'; a namespace is said as 'in namespace prod'"
    ))])
}

pub(super) fn care(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    alt((
        said(words::SAFELY).value(Care::Safely),
        said(words::SLOWLY).value(Care::Slowly),
        said(words::QUICKLY).value(Care::Quickly),
        said(words::EMERGENCY).value(Care::Emergency),
    ))
    .map(|care| vec![Part::Care(care)])
    .parse_next(input)
}

/// "because …": quoted, or to the end.
pub(super) fn reason(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::BECAUSE).parse_next(input)?;
    match opt(quoted).parse_next(input)? {
        Some(text) if !text.text().trim().is_empty() => Ok(vec![Part::Reason(text.text().into_owned())]),
        _ => Ok(vec![Part::Reason(String::new())]),
    }
}

pub(super) fn job(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    taken(input, words::THE);
    said(words::JOB).value(vec![Part::Job]).parse_next(input)
}

pub(super) fn polite(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    said(words::POLITE).value(vec![Part::Passed]).parse_next(input)
}
