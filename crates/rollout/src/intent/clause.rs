//! Clauses: the parts that a sentence is made of, in any order.

use api::{
    Span,
    deploy::{Condition, Load, Strategy},
    workload::{EnvVar, Priority},
};
use jiff::Zoned;
use winnow::{
    Parser,
    combinator::{alt, opt, preceded},
    error::ErrMode,
    stream::Stream,
};

use super::{
    Amount, Batch, Care, Verb, When, condition,
    grammar::{
        Fault, Input, Parsed, committed, ends, follows, other, peeked, position, quoted, refuse, said, taken, word,
    },
    misread::Misread,
    moment, resource,
    resource::{Noun, Quantity, Value},
    token::Kind,
    value, words,
};

/// Something that a sentence says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// What is to be done.
    Verb(Verb),
    /// "scale up", "increase", "shrink": more or fewer.
    Way(Way),
    /// "add", "remove": the numbers that follow are more or fewer.
    Relative(Way, Vec<Quantity>),
    /// "double".
    Factor(f64),
    Target(String),
    Version(String),
    FromVersion(String),
    Image(String),
    Command(Vec<String>),
    Quantity(Quantity),
    /// "memory", with its value still to come.
    Noun(Noun),
    To(Value),
    By(Value),
    /// "memory times 2".
    Times(Noun, f64),
    Bounds(Option<u32>, Option<u32>),
    Follow(Load, f64),
    Priority(Priority),
    Timeout(Span),
    Env(Vec<EnvVar>),
    Port(u16),
    Namespace(String),
    Strategy(Strategy),
    /// "immediately": a strategy, or just an adverb.
    Immediately,
    Steps(Vec<f64>),
    Batch(Batch),
    Pause(Span),
    PromoteAfter(Span),
    PromoteIf(Vec<Condition>),
    ByHand,
    RollbackIf(Vec<Condition>),
    /// "if errors > 1%", and nothing that it is for.
    Condition,
    KeepOld(Span),
    /// "switch": blue-green is meant.
    Switch,
    Care(Care),
    When(When),
    Job,
    Reason(String),
    /// Something that whoever wrote it should know.
    Note(String),
    /// Words that say nothing.
    Passed,
}

/// More or fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// A part, and the tokens that said it.
pub(super) type Placed = (Part, usize, usize);

type Clause = fn(&mut Input<'_>) -> Parsed<Vec<Part>>;

/// In this order: what begins like another and is longer comes first.
const CLAUSES: &[Clause] = &[
    trouble,
    by_hand,
    go_back_if,
    promote,
    condition_first,
    keep_old,
    start_with,
    canary,
    batch,
    pause,
    strategy,
    namespace,
    port,
    timeout,
    priority,
    autoscale,
    follow,
    bounds,
    relative,
    factor,
    times,
    quantity,
    image,
    resource_noun,
    command,
    env,
    production,
    at_percent,
    towards,
    by,
    from,
    care,
    reason,
    verb,
    job,
    polite,
    version,
    subject,
];

/// All parts of a sentence.
pub(super) fn sentence(input: &mut Input<'_>, now: &Zoned, text: &str) -> Parsed<Vec<Placed>> {
    let mut parts = Vec::new();
    loop {
        let joined = separators(input)?;
        if peeked(input).is_none() {
            return match joined {
                Some(word) => refuse(
                    Misread::new(format!("the sentence ends with '{word}'")).help("say what follows, or leave it out"),
                ),
                None => Ok(parts),
            };
        }
        let from = position(input);
        input.state.begin_clause(from);
        let found = clause(input, now)?;
        for part in found {
            if let Part::Target(name) = &part {
                input.state.name(name);
            }
            // A reason that isn't quoted goes to the end.
            if let Part::Reason(reason) = &part
                && reason.is_empty()
            {
                let start = peeked(input).map_or(text.len(), |token| token.start);
                let rest = text[start..].trim().trim_end_matches(['.', '!']).trim_end();
                if rest.is_empty() {
                    return refuse(
                        Misread::new("the reason is missing".to_owned())
                            .example("roll back model-server because errors went up"),
                    );
                }
                while input.next_token().is_some() {}
                if rest.contains(',') || rest.contains(';') {
                    parts.push((
                        Part::Note(format!("all that follows is the reason: '{rest}'")),
                        from,
                        position(input),
                    ));
                }
                parts.push((Part::Reason(rest.to_owned()), from, position(input)));
                return Ok(parts);
            }
            parts.push((part, from, position(input)));
        }
    }
}

/// Commas and words that join. The last word, if the last was one.
fn separators(input: &mut Input<'_>) -> Parsed<Option<&'static str>> {
    let mut last = None;
    loop {
        match peeked(input) {
            Some(token) if token.kind == Kind::Stop => {
                input.next_token();
                last = None;
            }
            _ => match opt(said(words::AND)).parse_next(input)? {
                Some(word) => last = Some(word),
                None => return Ok(last),
            },
        }
    }
}

fn clause(input: &mut Input<'_>, now: &Zoned) -> Parsed<Vec<Part>> {
    let start = input.checkpoint();
    if follows(input, words::NOT) && !follows(input, words::BY_HAND) && !resource::none_of_something(input) {
        let word = peeked(input).map_or("", |token| token.raw);
        return refuse(
            Misread::new(format!("'{word}': what is not to be done can't be said")).help("say what is to be done"),
        );
    }
    for parse in CLAUSES {
        match parse(input) {
            Err(ErrMode::Backtrack(Fault::Unexpected)) => input.reset(&start),
            result => return result,
        }
        if std::ptr::fn_addr_eq(*parse, trouble as Clause) {
            // Times need the clock, and begin like much else: "at", "in", "on", "after".
            match moment::when(input, now) {
                Ok((when, notes)) => {
                    return Ok(std::iter::once(Part::When(when))
                        .chain(notes.into_iter().map(Part::Note))
                        .collect());
                }
                Err(ErrMode::Backtrack(Fault::Unexpected)) => input.reset(&start),
                Err(error) => return Err(error),
            }
        }
    }
    other()
}

fn trouble(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    said(words::TROUBLE)
        .map(|words| vec![Part::Reason(words.to_owned())])
        .parse_next(input)
}

fn by_hand(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    said(words::BY_HAND).value(vec![Part::ByHand]).parse_next(input)
}

const ROLLBACK_EXAMPLE: &str = "update model-server to v2.1, rollback if errors > 1%";

/// "rollback if errors > 1% or p99 latency > 200ms".
fn go_back_if(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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
fn promote(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let switch = taken(input, words::SWITCH);
    if !switch {
        let _ = said(words::PROMOTE).parse_next(input)?;
    }
    let mut parts = if switch { vec![Part::Switch] } else { Vec::new() };
    let told = tail_of_promote(input, &mut parts)?;
    if told { Ok(parts) } else { other() }
}

/// "after 15m", "if healthy", both in either order.
fn tail_of_promote(input: &mut Input<'_>, parts: &mut Vec<Part>) -> Parsed<bool> {
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
fn condition_first(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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

fn keep_old(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::KEEP_OLD).parse_next(input)?;
    let _ = said(words::WINDOW).parse_next(input)?;
    committed(
        input,
        "blue-green deploy api-server v3.0, switch after health check, keep the old one for 30m",
    );
    Ok(vec![Part::KeepOld(value::span(input)?)])
}

const CANARY_EXAMPLE: &str = "deploy model-server v2.5, canary 10% then 50%, promote after 15m if errors < 0.5%";

/// "start with 10% of traffic, then 50%".
fn start_with(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::START_WITH).parse_next(input)?;
    let first = percent_step(input)?;
    // "start with 10% canary".
    taken(input, words::CANARY);
    let mut steps = vec![first];
    more_steps(input, &mut steps)?;
    Ok(vec![Part::Strategy(Strategy::Canary), Part::Steps(steps)])
}

/// "canary 10% then 50%", "10% canary", "canary at 5 percent".
fn canary(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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
fn at_percent(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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
fn peeked_back(input: &Input<'_>) -> bool {
    input
        .previous_tokens()
        .next()
        .is_some_and(|token| matches!(token.low, "traffic" | "requests" | "users" | "load"))
}

/// A percentage of a canary: above 0, below 100.
fn percent_step(input: &mut Input<'_>) -> Parsed<f64> {
    let percentage = value::percent(input)?;
    taken(input, words::OF_TRAFFIC);
    Ok(percentage)
}

/// "then 25% then 50%", ", 50%", "-> 50%".
fn more_steps(input: &mut Input<'_>, steps: &mut Vec<f64>) -> Parsed<()> {
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
fn batch(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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
fn pause(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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

fn strategy(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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

fn namespace(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let name = alt((
        preceded(said(words::NAMESPACE), namespace_name),
        (said(words::IN_THE), namespace_name, said(words::NAMESPACE_NOUN)).map(|(_, name, _)| name),
    ))
    .parse_next(input)?;
    Ok(vec![Part::Namespace(name)])
}

/// A namespace may be called like an environment: its noun stands beside it.
fn namespace_name(input: &mut Input<'_>) -> Parsed<String> {
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

fn port(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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

fn timeout(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    (said(words::TIMEOUT), opt(said(words::AIM)), value::span)
        .map(|(_, _, span)| vec![Part::Timeout(span)])
        .parse_next(input)
}

fn priority(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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
    alt((
        preceded((said(words::PRIORITY), opt(said(words::AIM))), level),
        (level, said(words::PRIORITY)).map(|(level, _)| level),
    ))
    .map(|priority| vec![Part::Priority(priority)])
    .parse_next(input)
}

const SCALE_EXAMPLE: &str = "autoscale inference between 2 and 10 replicas on cpu 70%";

/// "autoscale 2-10 on cpu 70%", "autoscale on 100 requests per second".
fn autoscale(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::AUTOSCALE).parse_next(input)?;
    let start = input.checkpoint();
    let verb = Part::Verb(Verb::Scale);
    if let Ok(bounds) = bounds_range(input) {
        taken(input, words::REPLICAS);
        return Ok(vec![verb, bounds]);
    }
    input.reset(&start);
    let load = aimed(input)?;
    Ok(vec![verb, load])
}

/// "on cpu 70%", "keep gpu at 60%".
fn follow(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let per_second =
        (value::number, said(words::PER_SECOND)).map(|(target, _)| Part::Follow(Load::RequestRate, target));
    let load = alt((preceded(said(words::KEEP), load), aimed, per_second)).parse_next(input)?;
    taken(input, words::EACH);
    Ok(vec![load])
}

fn aimed(input: &mut Input<'_>) -> Parsed<Part> {
    let _ = said(words::FOLLOW).parse_next(input)?;
    load(input)
}

/// "cpu 70%", "60% gpu", "100 requests per second per replica", "queue 5".
fn load(input: &mut Input<'_>) -> Parsed<Part> {
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
fn bounds(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let start = input.checkpoint();
    if let Ok(bounds) = bounds_range(input) {
        if taken(input, words::REPLICAS) || bounds_began(input, &start) {
            return Ok(vec![bounds]);
        }
    }
    input.reset(&start);
    let one = alt((
        (said(words::MIN), value::count).map(|(_, least)| Part::Bounds(Some(least), None)),
        (said(words::MAX), value::count).map(|(_, most)| Part::Bounds(None, Some(most))),
        (up_to, value::count).map(|((), most)| Part::Bounds(None, Some(most))),
    ))
    .parse_next(input)?;
    committed(input, SCALE_EXAMPLE);
    if taken(input, words::REPLICAS) || ends(input) || follows(input, words::FOLLOW) {
        return Ok(vec![one]);
    }
    other()
}

/// Whether the clause that began there needs no noun: "between 2 and 10", "2-10".
fn bounds_began<'i>(input: &mut Input<'i>, start: &<Input<'i> as Stream>::Checkpoint) -> bool {
    let here = input.checkpoint();
    input.reset(start);
    let began = peeked(input).is_some_and(|token| token.low == "between") || range_word(input).is_ok();
    input.reset(&here);
    began && (ends(input) || follows(input, words::FOLLOW))
}

/// "with up to 10": not the "up to" of "scale inference up to 10".
fn up_to(input: &mut Input<'_>) -> Parsed<()> {
    match input.previous_tokens().next() {
        Some(token) if token.low == "with" => said(words::UP_TO).void().parse_next(input),
        _ => other(),
    }
}

/// "between 2 and 10", "from 2 to 10", "2-10", "2..10".
fn bounds_range(input: &mut Input<'_>) -> Parsed<Part> {
    alt((
        (said(words::BETWEEN), value::count, said(words::THROUGH), value::count)
            .map(|(_, least, _, most)| (least, most)),
        preceded(opt(said(words::BETWEEN)), range_word),
        (value::count, said(words::TO), value::count).map(|(least, _, most)| (least, most)),
    ))
    .map(|(least, most)| Part::Bounds(Some(least), Some(most)))
    .parse_next(input)
}

fn range_word(input: &mut Input<'_>) -> Parsed<(u32, u32)> {
    word(input, |token| {
        let (least, most) = token.low.split_once("..").or_else(|| token.low.split_once('-'))?;
        Some((value::whole(least)?, value::whole(most)?))
    })
}

/// "add 3 replicas to inference", "remove 2 replicas from inference".
fn relative(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let way = alt((said(words::ADD).value(Way::Up), said(words::TAKE_AWAY).value(Way::Down))).parse_next(input)?;
    committed(input, "add 3 replicas to inference");
    taken(input, words::THE);
    let mut quantities = vec![resource::quantity(input)?];
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

/// "double the memory of data-processor", "triple inference".
fn factor(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let factor = alt((
        said(words::DOUBLE).value(2.0),
        said(words::TRIPLE).value(3.0),
        said(words::QUADRUPLE).value(4.0),
        said(words::HALVE).value(0.5),
    ))
    .parse_next(input)?;
    committed(input, "double the memory of data-processor");
    taken(input, words::THE);
    taken(input, words::NUMBER_OF);
    match opt(resource::noun).parse_next(input)? {
        Some(noun) => Ok(vec![Part::Times(noun, factor)]),
        None => Ok(vec![Part::Factor(factor)]),
    }
}

/// "memory times 2".
fn times(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let (noun, _, factor) = (resource::noun, said(words::TIMES), value::number).parse_next(input)?;
    Ok(vec![Part::Times(noun, factor)])
}

fn quantity(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let quantity = resource::quantity(input)?;
    Ok(vec![Part::Quantity(quantity)])
}

/// "memory 64Gi", "the memory" with its value to come.
fn resource_noun(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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

fn image(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let start = input.checkpoint();
    if taken(input, words::IMAGE) {
        committed(input, "deploy web with image ghcr.io/acme/web:v2");
        if let Some(token) = peeked(input).filter(|token| token.kind == Kind::Quoted && value::is_image(&token.text()))
        {
            input.next_token();
            return Ok(vec![Part::Image(token.text().into_owned())]);
        }
        return word(input, |token| {
            (value::is_image(token.raw) && !super::vocabulary::is_word(token.low))
                .then(|| vec![Part::Image(token.raw.to_owned())])
        });
    }
    input.reset(&start);
    taken(input, words::FROM);
    word(input, |token| {
        value::looks_like_image(token.raw).then(|| vec![Part::Image(token.raw.to_owned())])
    })
}

fn command(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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
fn env(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    taken(input, words::ENV);
    let mut all = vec![assignment(input)?];
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

fn assignment(input: &mut Input<'_>) -> Parsed<EnvVar> {
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

fn production(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let form = said(words::PRODUCTION).parse_next(input)?;
    // "to production namespace" is a namespace after all.
    if follows(input, words::NAMESPACE_NOUN) {
        return other();
    }
    Ok(vec![Part::Note(format!(
        "passed over: '{form}'; a namespace is said as 'in namespace prod'"
    ))])
}

/// "to v2.1", "to 8 replicas", "to 64Gi".
fn towards(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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
    let value = match resource::value(input) {
        Ok(value) => value,
        Err(error @ ErrMode::Cut(_)) => return Err(error),
        // "push v2.5 to model-server".
        Err(_) if input.state.target().is_none() => return subject(input),
        Err(error) => return Err(error),
    };
    Ok(vec![Part::To(value)])
}

/// "by 8Gi", "by 3 replicas", "by 50%", "by a factor of 2".
fn by(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    if taken(input, words::TIMES) {
        return value::number
            .map(|factor| vec![Part::By(Value::Factor(factor))])
            .parse_next(input);
    }
    let _ = said(words::BY).parse_next(input)?;
    let value = resource::value(input)?;
    Ok(vec![Part::By(value)])
}

/// "from v1", "from 2 replicas".
fn from(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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

fn care(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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
fn reason(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let _ = said(words::BECAUSE).parse_next(input)?;
    match opt(quoted).parse_next(input)? {
        Some(text) if !text.text().trim().is_empty() => Ok(vec![Part::Reason(text.text().into_owned())]),
        _ => Ok(vec![Part::Reason(String::new())]),
    }
}

fn verb(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let parts = alt((split_verb, stop, other_verb, change, plain_verb)).parse_next(input)?;
    taken(input, words::IT);
    Ok(parts)
}

/// Verbs about the deployment under way, or about no change at all.
fn other_verb(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let verb = alt((
        said(words::ABORT).value(Verb::Abort),
        said(words::RESTART).value(Verb::Restart),
        said(words::ROLLBACK).value(Verb::Rollback),
    ))
    .parse_next(input)?;
    // "abort the rollout of X", "roll back the deployment of X".
    let start = input.checkpoint();
    taken(input, words::THE);
    if !(taken(input, words::THE_ROLLOUT) && follows(input, words::OF)) {
        input.reset(&start);
    }
    Ok(vec![Part::Verb(verb)])
}

/// More or fewer of something.
fn change(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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

fn plain_verb(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    alt((
        said(words::DEPLOY).value(vec![Part::Verb(Verb::Deploy)]),
        said(words::UPDATE).value(vec![Part::Verb(Verb::Update)]),
    ))
    .parse_next(input)
}

/// "roll model-server back", "bring inference up".
fn split_verb(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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
    if before.is_some_and(|before| name.as_ref().is_some_and(|name| *name != before)) {
        return other();
    }
    Ok(std::iter::once(Part::Verb(verb))
        .chain(name.map(Part::Target))
        .collect())
}

/// "stop the rollout of X" is an abort; "stop X" can be two things.
fn stop(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
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

fn job(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    taken(input, words::THE);
    said(words::JOB).value(vec![Part::Job]).parse_next(input)
}

fn polite(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    said(words::POLITE).value(vec![Part::Passed]).parse_next(input)
}

/// "version 2.5", "v2.5".
fn version(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    taken(input, words::THE);
    alt((preceded(said(words::VERSION), value::version), value::version_by_look))
        .map(|version| vec![Part::Version(version)])
        .parse_next(input)
}

/// "the model-server service", "of model-server", `model-server:v2.5`, "data-processor's".
fn subject(input: &mut Input<'_>) -> Parsed<Vec<Part>> {
    let mut told = taken(input, words::OF);
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
    if let (Some(before), Some(Part::Target(name))) = (before, parts.first())
        && before != *name
    {
        return other();
    }
    job |= taken(input, words::JOB);
    taken(input, words::KIND);
    if job {
        parts.push(Part::Job);
    }
    Ok(parts)
}

/// The amount that a quantity is, where nothing says that it is more or fewer.
pub(super) fn amount<T>(way: Option<Way>, value: T) -> Amount<T> {
    match way {
        None => Amount::To(value),
        Some(Way::Up) => Amount::More(value),
        Some(Way::Down) => Amount::Fewer(value),
    }
}
