//! Clauses: the parts that a sentence is made of, in any order.

use std::rc::Rc;

use api::{
    Span,
    deploy::{Condition, Load, Strategy},
    workload::{EnvVar, Priority},
};
use jiff::Zoned;
use winnow::{
    Parser,
    combinator::opt,
    error::ErrMode,
    stream::{Stateful, Stream, TokenSlice},
};

use super::{
    Amount, Batch, Care, Verb, When, amount,
    grammar::{Fault, Input, Parsed, Watch, follows, other, peeked, position, refuse, said},
    misread::Misread,
    moment, promotion,
    resource::{self, Noun, Quantity, Value},
    setting, strategy,
    token::{Kind, Token},
    verb,
    vocabulary::{Known, Tables},
    words::{self, Forms},
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

/// Reads a clause.
type Clause = fn(&mut Input<'_>, &Zoned) -> Parsed<Vec<Part>>;

/// A clause, and the tables of which it can begin with a form. It may begin with a number, a value or a name as well.
/// `None`: with anything.
struct Opening(Clause, Option<Tables>);

impl Opening {
    const fn with(clause: Clause, tables: &[Forms]) -> Self {
        Self(clause, Some(Tables::of(tables)))
    }

    /// Whether it can't begin with this word of the grammar: it needn't be tried.
    fn never(&self, known: Option<&Known>) -> bool {
        match (known, &self.1) {
            (Some(known), Some(tables)) => known.begins_none(tables),
            _ => false,
        }
    }
}

/// In this order: what begins like another and is longer comes first.
const CLAUSES: &[Opening] = &[
    Opening::with(|input, _| setting::trouble(input), &[words::TROUBLE]),
    // Times need the clock, and begin like much else.
    Opening::with(
        when,
        &[
            words::AFTER_DEPLOYMENT,
            words::IN,
            words::AT,
            words::ON,
            words::ONE,
            words::QUARTER,
            words::HALF_AN,
            words::TODAY,
            words::TONIGHT,
            words::TOMORROW,
            words::NEXT,
            words::MONDAY,
            words::TUESDAY,
            words::WEDNESDAY,
            words::THURSDAY,
            words::FRIDAY,
            words::SATURDAY,
            words::SUNDAY,
            words::JANUARY,
            words::FEBRUARY,
            words::MARCH,
            words::APRIL,
            words::MAY,
            words::JUNE,
            words::JULY,
            words::AUGUST,
            words::SEPTEMBER,
            words::OCTOBER,
            words::NOVEMBER,
            words::DECEMBER,
        ],
    ),
    Opening::with(|input, _| promotion::by_hand(input), &[words::BY_HAND]),
    Opening::with(|input, _| promotion::go_back_if(input), &[words::GO_BACK]),
    Opening::with(|input, _| promotion::promote(input), &[words::SWITCH, words::PROMOTE]),
    Opening::with(|input, _| promotion::condition_first(input), &[words::IF]),
    Opening::with(|input, _| promotion::keep_old(input), &[words::KEEP_OLD]),
    Opening::with(|input, _| strategy::start_with(input), &[words::START_WITH]),
    Opening::with(
        |input, _| strategy::canary(input),
        &[words::THE, words::TO, words::ON, words::CANARY],
    ),
    Opening::with(
        |input, _| strategy::batch(input),
        &[
            words::ONE,
            words::IN_BATCHES,
            words::MAX_UNAVAILABLE,
            words::BY_N,
            words::TWO_BY_TWO,
        ],
    ),
    Opening::with(
        |input, _| strategy::pause(input),
        &[
            words::WAITING,
            words::ONE,
            words::QUARTER,
            words::HALF_AN,
            words::PAUSE_BETWEEN,
        ],
    ),
    Opening::with(
        |input, _| strategy::strategy(input),
        &[
            words::IMMEDIATE,
            words::ROLLING_RESTART,
            words::BLUE_GREEN,
            words::ROLLING,
        ],
    ),
    Opening::with(|input, _| setting::namespace(input), &[words::NAMESPACE, words::IN_THE]),
    Opening::with(|input, _| setting::port(input), &[words::PORT]),
    Opening::with(|input, _| setting::timeout(input), &[words::TIMEOUT]),
    Opening::with(
        |input, _| setting::priority(input),
        &[
            words::FOLLOW,
            words::TO,
            words::THE,
            words::PRIORITY,
            words::LOW,
            words::NORMAL,
            words::HIGH,
        ],
    ),
    Opening::with(|input, _| amount::autoscale(input), &[words::AUTOSCALE]),
    Opening::with(|input, _| amount::follow(input), &[words::KEEP, words::FOLLOW]),
    Opening::with(
        |input, _| amount::bounds(input),
        &[words::BETWEEN, words::MIN, words::MAX, words::UP_TO],
    ),
    Opening::with(|input, _| amount::relative(input), &[words::ADD, words::TAKE_AWAY]),
    Opening::with(
        |input, _| amount::factor(input),
        &[words::DOUBLE, words::TRIPLE, words::QUADRUPLE, words::HALVE],
    ),
    Opening::with(
        |input, _| amount::times(input),
        &[words::REPLICAS, words::MEMORY, words::CPU, words::GPUS, words::IMAGE],
    ),
    Opening::with(
        |input, _| amount::quantity(input),
        &[
            words::NO,
            words::MORE,
            words::FEWER,
            words::ONE,
            words::ON_MODEL,
            words::BY_X,
            words::MAKERS,
            words::SERIES,
            words::GPUS,
        ],
    ),
    Opening::with(
        |input, _| setting::image(input),
        &[words::TO, words::IMAGE, words::FROM],
    ),
    Opening::with(
        |input, _| amount::resource_noun(input),
        &[
            words::THE,
            words::NUMBER_OF,
            words::REPLICAS,
            words::MEMORY,
            words::CPU,
            words::GPUS,
            words::IMAGE,
        ],
    ),
    Opening::with(|input, _| setting::command(input), &[words::COMMAND]),
    Opening::with(|input, _| setting::env(input), &[words::SET, words::ENV]),
    Opening::with(|input, _| setting::production(input), &[words::PRODUCTION]),
    Opening::with(|input, _| strategy::at_percent(input), &[words::AT_PART]),
    Opening::with(|input, _| amount::towards(input), &[words::TO]),
    Opening::with(|input, _| amount::by(input), &[words::TIMES, words::BY]),
    Opening::with(|input, _| amount::from(input), &[words::FROM]),
    Opening::with(
        |input, _| setting::care(input),
        &[words::SAFELY, words::SLOWLY, words::QUICKLY, words::EMERGENCY],
    ),
    Opening::with(|input, _| setting::reason(input), &[words::BECAUSE]),
    Opening::with(|input, _| verb::previous(input), &[words::TO, words::PREVIOUS]),
    Opening::with(|input, _| verb::elsewhere(input), &[words::ELSEWHERE]),
    Opening::with(
        |input, _| verb::verb(input),
        &[
            words::ROLL,
            words::STOP,
            words::ABORT,
            words::RESTART,
            words::ROLLBACK,
            words::GROW,
            words::SHRINK,
            words::SCALE,
            words::RAISE,
            words::LOWER,
            words::UP,
            words::DOWN,
            words::DEPLOY,
            words::UPDATE,
        ],
    ),
    Opening::with(|input, _| setting::job(input), &[words::THE, words::JOB]),
    Opening::with(|input, _| setting::polite(input), &[words::POLITE]),
    Opening::with(|input, _| verb::version(input), &[words::THE, words::VERSION]),
    Opening(|input, _| verb::subject(input), None),
    Opening(|input, _| verb::too_little(input), None),
];

/// What has been read of a sentence, clause by clause.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// What it says.
    pub parts: Vec<Placed>,
    /// The clauses, the one that isn't understood included.
    pub clauses: Vec<Begun>,
    /// The target's name.
    pub target: Option<Rc<str>>,
    /// What was decided on the way.
    pub notes: Vec<String>,
}

/// A clause with the separators before it, and the state in which it began.
#[derive(Debug)]
pub(super) struct Begun {
    /// Its first token, or the separators'.
    pub at: usize,
    /// The farthest token that was looked at.
    pub reach: usize,
    target: Option<Rc<str>>,
    parts: usize,
    notes: usize,
}

impl Read {
    /// The farthest token that was looked at in vain.
    pub fn farthest(&self) -> usize {
        self.clauses.iter().map(|clause| clause.reach).max().unwrap_or(0)
    }

    /// Takes back the first clause that looked at this token, and all that follow. Where reading goes on.
    pub fn back_to(&mut self, token: usize) -> usize {
        let Some(place) = self.clauses.iter().position(|clause| clause.reach >= token) else {
            return 0;
        };
        let mut taken = self.clauses.split_off(place);
        let first = taken.swap_remove(0);
        self.parts.truncate(first.parts);
        self.notes.truncate(first.notes);
        self.target = first.target;
        first.at
    }
}

/// All parts of a sentence that follow; what is read is kept in `read`, so far as it comes.
pub(super) fn sentence(input: &mut Input<'_>, now: &Zoned, text: &str, read: &mut Read) -> Parsed<()> {
    loop {
        let mut begun = Begun {
            at: position(input),
            reach: 0,
            target: input.state.target(),
            parts: read.parts.len(),
            notes: input.state.noted(),
        };
        input.state.begin();
        let more = next(input, now, text, &mut read.parts);
        begun.reach = input.state.reach();
        read.clauses.push(begun);
        if !more? {
            return Ok(());
        }
    }
}

/// What could have stood at these tokens: the clauses that looked there are tried again.
pub(super) fn expected(
    tokens: &[Token<'_>],
    now: &Zoned,
    read: &Read,
    at: &[usize],
) -> Vec<(usize, Vec<&'static str>)> {
    let mut watch = Watch::new(tokens.len(), at, None, Vec::new());
    for begun in &read.clauses {
        if !at.iter().any(|at| (begun.at..=begun.reach).contains(at)) {
            continue;
        }
        watch.goes_on_with(begun.target.clone());
        let mut input = Stateful {
            input: TokenSlice::new(tokens),
            state: &watch,
        };
        input.next_slice(begun.at);
        // What it is is known already.
        let _ = separators(&mut input).and_then(|_| clause(&mut input, now));
    }
    at.iter().map(|at| (*at, watch.expected(*at))).collect()
}

/// The next clause, with the separators before it. Whether there may be another.
fn next(input: &mut Input<'_>, now: &Zoned, text: &str, parts: &mut Vec<Placed>) -> Parsed<bool> {
    let joined = separators(input)?;
    if peeked(input).is_none() {
        return match joined {
            Some(word) => refuse(
                Misread::new(format!("the sentence ends with '{word}'")).help("say what follows, or leave it out"),
            ),
            None => Ok(false),
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
            return Ok(false);
        }
        parts.push((part, from, position(input)));
    }
    Ok(true)
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
    // Where somebody wants to know what there could be, nothing is left out.
    let known = peeked(input)
        .and_then(|token| token.known)
        .filter(|_| !input.state.keeps());
    for opening in CLAUSES {
        if opening.never(known) {
            continue;
        }
        match (opening.0)(input, now) {
            Err(ErrMode::Backtrack(Fault::Unexpected)) => input.reset(&start),
            result => return result,
        }
    }
    other()
}

fn when(input: &mut Input<'_>, now: &Zoned) -> Parsed<Vec<Part>> {
    let (when, notes) = moment::when(input, now)?;
    Ok(std::iter::once(Part::When(when))
        .chain(notes.into_iter().map(Part::Note))
        .collect())
}

/// The amount that a quantity is, where nothing says that it is more or fewer.
pub(super) fn counted<T>(way: Option<Way>, value: T) -> Amount<T> {
    match way {
        None => Amount::To(value),
        Some(Way::Up) => Amount::More(value),
        Some(Way::Down) => Amount::Fewer(value),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::intent::{token, vocabulary};

    /// What is read of a sentence, whatever stops it, and how far was looked.
    fn read_as(text: &str, keep: &[usize]) -> (Vec<Placed>, usize, bool) {
        let now: Zoned = "2026-11-20T15:00:00+01:00[Europe/Berlin]".parse().unwrap();
        let low = text.to_ascii_lowercase();
        let tokens = token::tokens(text, &low).unwrap();
        let watch = Watch::new(tokens.len(), keep, None, Vec::new());
        let mut input = Stateful {
            input: TokenSlice::new(&tokens),
            state: &watch,
        };
        let mut read = Read::default();
        let whole = sentence(&mut input, &now, text, &mut read).is_ok();
        let farthest = read.farthest();
        (read.parts, farthest, whole)
    }

    /// Whatever begins with a word of the grammar is read the same whether or not clauses are passed over by it.
    #[test]
    fn no_clause_is_passed_over_that_could_be_read() {
        let forms = words::ALL.iter().flat_map(|(_, forms)| forms.iter());
        let first: BTreeSet<&str> = forms.filter_map(|form| form.split(' ').next()).collect();
        for word in first {
            for rest in [
                "",
                "web",
                "the web",
                "v2",
                "8",
                "8 replicas",
                "10%",
                "10% of traffic",
                "5m",
                "2 hours",
                "a minute",
                "64Gi",
                "64 GB of memory",
                "2am",
                "tomorrow at 9am",
                "monday at 9:00",
                "1st at noon",
                "another replica",
                "A100 GPUs",
                "of type A100",
                "healthy",
                "errors > 1%",
                "if errors > 1%",
                "if healthy, promote",
                "to 8",
                "at a time",
                "between batches",
                "\"x y\"",
                "A=b",
                "a/b:c",
                "namespace",
                "priority",
                "cpu 70%",
                "rollout of web",
                "web back",
                "dep-x7k2m9q4ab",
                "2 and 10",
                "named web",
            ] {
                let text = format!("{word} {rest}");
                assert_eq!(read_as(&text, &[]), read_as(&text, &[usize::MAX]), "{text}");
            }
        }
    }

    #[test]
    fn every_word_of_a_table_is_known() {
        for (_, forms) in words::ALL {
            for form in vocabulary::forms(*forms) {
                let all = form.text.split(' ').map(vocabulary::known);
                assert_eq!(form.common(all), form.words.len(), "{}", form.text);
            }
        }
    }
}
