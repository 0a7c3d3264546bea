//! Clauses: the parts that a sentence is made of, in any order.

use api::{
    Span,
    deploy::{Condition, Load, Strategy},
    workload::{EnvVar, Priority},
};
use jiff::Zoned;
use winnow::{Parser, combinator::opt, error::ErrMode, stream::Stream};

use super::{
    Amount, Batch, Care, Verb, When, amount,
    grammar::{Fault, Input, Parsed, follows, other, peeked, position, refuse, said},
    misread::Misread,
    moment, promotion,
    resource::{self, Noun, Quantity, Value},
    setting, strategy,
    token::Kind,
    verb, words,
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
    /// "the previous version".
    Previous,
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
    setting::trouble,
    promotion::by_hand,
    promotion::go_back_if,
    promotion::promote,
    promotion::condition_first,
    promotion::keep_old,
    strategy::start_with,
    strategy::canary,
    strategy::batch,
    strategy::pause,
    strategy::strategy,
    setting::namespace,
    setting::port,
    setting::timeout,
    setting::priority,
    amount::autoscale,
    amount::follow,
    amount::bounds,
    amount::relative,
    amount::factor,
    amount::times,
    amount::quantity,
    setting::image,
    amount::resource_noun,
    setting::command,
    setting::env,
    setting::production,
    strategy::at_percent,
    amount::towards,
    amount::by,
    amount::from,
    setting::care,
    setting::reason,
    verb::previous,
    verb::elsewhere,
    verb::verb,
    setting::job,
    setting::polite,
    verb::version,
    verb::subject,
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
                verb::service(name)?;
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
pub(super) fn separators(input: &mut Input<'_>) -> Parsed<Option<&'static str>> {
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
        if std::ptr::fn_addr_eq(*parse, setting::trouble as Clause) {
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

/// The amount that a quantity is, where nothing says that it is more or fewer.
pub(super) fn counted<T>(way: Option<Way>, value: T) -> Amount<T> {
    match way {
        None => Amount::To(value),
        Some(Way::Up) => Amount::More(value),
        Some(Way::Down) => Amount::Fewer(value),
    }
}
