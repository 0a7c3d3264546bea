//! What is to be done, with what, in which version.

use winnow::{
    Parser,
    combinator::{alt, opt, preceded},
    stream::Stream,
};

use super::{
    Verb,
    clause::{Part, Way},
    grammar::{Input, Parsed, ends, follows, other, peeked, refuse, said, taken, word},
    misread::Misread,
    resource, value, words,
};

pub(super) fn verb(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let parts = alt((split_verb, stop, other_verb, change, plain_verb)).parse_next(input)?;
    taken(input, words::IT);
    Ok(parts)
}

/// Verbs about the deployment under way, or about no change at all.
pub(super) fn other_verb(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let verb = alt((
        said(words::ABORT).value(Verb::Abort),
        said(words::RESTART).value(Verb::Restart),
        said(words::ROLLBACK).value(Verb::Rollback),
    ))
    .parse_next(input)?;
    // "abort the X rollout".
    let start = input.checkpoint();
    if verb == Verb::Abort {
        taken(input, words::THE);
        if let Ok(name) = value::name(input)
            && taken(input, words::THE_ROLLOUT)
        {
            return Ok(vec![Part::Verb(verb), Part::Target(name)]);
        }
        input.reset(&start);
    }
    // "abort the rollout of X", "roll back the deployment of X".
    let start = input.checkpoint();
    if !taken(input, words::LAST) {
        taken(input, words::THE);
    }
    let named = |input: &Input<'_>| peeked(input).is_some_and(|token| value::plain_name(token.raw));
    if !(taken(input, words::THE_ROLLOUT) && (follows(input, words::OF) || named(input))) {
        input.reset(&start);
    }
    Ok(vec![Part::Verb(verb)])
}

/// More or fewer of something.
pub(super) fn change(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    alt((
        said(words::GROW).value(vec![Part::Verb(Verb::Scale), Part::Way(Way::Up)]),
        said(words::SHRINK).value(vec![Part::Verb(Verb::Scale), Part::Way(Way::Down)]),
        said(words::SCALE).value(vec![Part::Verb(Verb::Scale)]),
        said(words::RAISE).value(vec![Part::Way(Way::Up)]),
        said(words::LOWER).value(vec![Part::Way(Way::Down)]),
        said(words::UP).value(vec![Part::Way(Way::Up)]),
        said(words::DOWN).value(vec![Part::Way(Way::Down)]),
    ))
    .parse_next(input)
}

pub(super) fn plain_verb(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    alt((
        said(words::DEPLOY).value(vec![Part::Verb(Verb::Deploy)]),
        said(words::UPDATE).value(vec![Part::Verb(Verb::Update)]),
    ))
    .parse_next(input)
}

/// "roll model-server back", "bring inference up".
pub(super) fn split_verb(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::ROLL).parse_next(input)?;
    taken(input, words::THE);
    let name = if taken(input, words::IT) {
        None
    } else {
        Some(value::name(input)?)
    };
    let verb = alt((
        said(words::BACK).value(Verb::Rollback),
        said(words::OUT).value(Verb::Deploy),
    ))
    .parse_next(input)?;
    let before = input.state.target();
    if before.is_some_and(|before| name.as_ref().is_some_and(|name| **name != *before)) {
        return other();
    }
    Ok(std::iter::once(Part::Verb(verb))
        .chain(name.map(Part::Target))
        .collect())
}

/// "stop the rollout of X" is an abort; "stop X" can be two things.
pub(super) fn stop(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let word = said(words::STOP).parse_next(input)?;
    taken(input, words::THE);
    if taken(input, words::THE_ROLLOUT) {
        return Ok(vec![Part::Verb(Verb::Abort)]);
    }
    let start = input.checkpoint();
    let name = value::name(input)?;
    if taken(input, words::THE_ROLLOUT) {
        return Ok(vec![Part::Verb(Verb::Abort), Part::Target(name)]);
    }
    input.reset(&start);
    refuse(
        Misread::new(format!(
            "'{word} {name}' can mean the deployment under way, or the service itself"
        ))
        .help(format!(
            "say 'abort {name}' for the deployment; a service is ended with a command of its own"
        ))
        .example("abort the rollout of model-server"),
    )
}

/// "version 2.5", "v2.5".
pub(super) fn version(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    taken(input, words::THE);
    alt((preceded(said(words::VERSION), value::version), value::version_by_look))
        .map(|version| vec![Part::Version(version)])
        .parse_next(input)
}

/// "the model-server service", "of model-server", `model-server:v2.5`, "data-processor's".
pub(super) fn subject(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let mut told = taken(input, words::ALL_OF) || taken(input, words::OF);
    taken(input, words::THE);
    let mut job = taken(input, words::JOB);
    taken(input, words::KIND);
    taken(input, words::OF);
    told |= taken(input, words::NAMED);
    let before = input.state.target();
    if before.is_some() && !told {
        return other();
    }
    let tagged = opt(|input: &mut Input<'_>| {
        word(input, |token| {
            let (name, version) = token.raw.split_once([':', '@'])?;
            (value::plain_name(name) && value::is_version(version) && value::whole(name).is_none())
                .then(|| vec![Part::Target(name.to_owned()), Part::Version(version.to_owned())])
        })
    })
    .parse_next(input)?;
    let mut parts = match tagged {
        Some(parts) => parts,
        None => {
            let owner = opt(|input: &mut Input<'_>| {
                word(input, |token| {
                    token
                        .raw
                        .strip_suffix("'s")
                        .filter(|name| value::plain_name(name))
                        .map(str::to_owned)
                })
            })
            .parse_next(input)?;
            match owner {
                Some(name) => vec![Part::Target(name)],
                None => vec![Part::Target(value::name(input)?)],
            }
        }
    };
    // Another name than the one before isn't a part of this sentence.
    if let (Some(before), Some(Part::Target(name))) = (&before, parts.first())
        && **before != **name
    {
        return other();
    }
    let named_job = taken(input, words::JOB);
    let described = taken(input, words::KIND) || named_job;
    job |= named_job;
    // "a training job called bert": that is its name, and the word before says what kind of job it is.
    let start = input.checkpoint();
    if before.is_none() && described && taken(input, words::NAMED) {
        match value::name(input) {
            Ok(name) => {
                if let Some(Part::Target(kind)) = parts.first() {
                    let note = format!("passed over: '{kind}', as '{name}' is the name");
                    parts.push(Part::Note(note));
                }
                parts[0] = Part::Target(name);
            }
            Err(_) => input.reset(&start),
        }
    }
    if job {
        parts.push(Part::Job);
    }
    Ok(parts)
}

/// Whether this is what deployments are called: `dep-` and ten characters.
pub(super) fn is_deployment(name: &str) -> bool {
    name.strip_prefix("dep-").is_some_and(|suffix| {
        suffix.len() == 10 && suffix.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    })
}

/// Refuses a deployment's id where a service's name belongs.
pub(super) fn service(name: &str) -> Parsed<()> {
    if is_deployment(name) {
        return refuse(
            Misread::new(format!("'{name}' is a deployment, and a sentence is about a service"))
                .help(format!(
                    "name the service, or say it by command: deploy rollback {name}"
                ))
                .example("roll back model-server"),
        );
    }
    Ok(())
}

/// "the previous version": where a rollback goes anyway.
pub(super) fn previous(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    opt(said(words::TO)).parse_next(input)?;
    said(words::PREVIOUS).value(vec![Part::Previous]).parse_next(input)
}

/// "delete model-server": no deployment at all.
pub(super) fn elsewhere(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let word = said(words::ELSEWHERE).parse_next(input)?;
    taken(input, words::THE);
    let name = value::name(input)?;
    refuse(
        Misread::new(format!("'{word} {name}' isn't a change that a sentence can ask for"))
            .help(format!("'{word}' is a command of its own")),
    )
}

/// What says too little to stand alone: what it could be is said, none of it is taken.
pub(super) fn too_little(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let start = input.checkpoint();
    let first = peeked(input).map_or("", |token| token.raw);
    let size = value::size_not_cpu(input);
    if size.is_ok() && ends(input) {
        return refuse(
            Misread::new(format!("'{first}': of what?"))
                .help(format!("say 'memory {first}', or '{first} of memory per GPU'"))
                .example("increase memory for data-processor to 64Gi"),
        );
    }
    input.reset(&start);
    let percent = value::percent(input);
    if percent.is_ok() && ends(input) {
        return refuse(
            Misread::new(format!("'{first}': of what?")).help(format!("say 'canary {first}' or '{first} at a time'")),
        );
    }
    input.reset(&start);
    let span = value::span(input);
    if span.is_ok() && ends(input) {
        return refuse(
            Misread::new(format!("'{first}': what is to last so long?")).help(format!(
                "say 'promote after {first}', 'waiting {first} between batches' or 'timeout {first}'"
            )),
        );
    }
    input.reset(&start);
    if let Ok(count) = value::count(input) {
        if word(input, |token| {
            matches!(token.low, "versions" | "revisions" | "releases").then_some(())
        })
        .is_ok()
        {
            return refuse(
                Misread::new(format!("'{first}' versions: they can't be counted back"))
                    .help("name the version, or leave it out to go back to the last good one")
                    .example("roll back model-server to v1.9"),
            );
        }
        if ends(input) {
            return refuse(
                Misread::new(format!("'{first}': of what?"))
                    .help(format!("say '{count} replicas', '{count} GPUs' or 'version {count}'"))
                    .example("scale inference to 8 replicas"),
            );
        }
    }
    input.reset(&start);
    let way = taken(input, words::MORE) || taken(input, words::FEWER);
    if way && let Ok(noun) = resource::noun(input) {
        return refuse(
            Misread::new(format!("'{first}' of {}: how much?", noun.name()))
                .help("say '8Gi more memory', '2 more GPUs' or '3 more replicas'")
                .example("add 3 replicas to inference"),
        );
    }
    input.reset(&start);
    let latest = taken(input, words::LAST);
    if latest && first.eq_ignore_ascii_case("latest") {
        return refuse(
            Misread::new(format!("'{first}': which version is that?"))
                .help("name it: 'v2.1'; an image's tag of that name is said as 'version latest'")
                .example("deploy model-server v2.1"),
        );
    }
    input.reset(&start);
    if input.state.target().is_some() && taken(input, words::TO) {
        let name = value::name(input)?;
        if ends(input) {
            return refuse(
                Misread::new(format!("'{first} {name}': is that a version, or a namespace?"))
                    .help(format!("say 'to version {name}' or 'in namespace {name}'"))
                    .example("deploy web v2 in namespace team-a"),
            );
        }
    }
    other()
}
