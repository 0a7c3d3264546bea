//! What all clauses are made of: the stream of tokens, words of a table, and where reading stopped.

use std::cell::{Cell, RefCell};

use winnow::{
    Parser,
    error::{ErrMode, ParserError},
    stream::{Stateful, Stream, TokenSlice},
};

use super::{
    misread::Misread,
    token::{Kind, Token},
    words::Forms,
};

/// Tokens, and the watch on how far they were read.
pub(super) type Input<'i> = Stateful<TokenSlice<'i, Token<'i>>, &'i Watch>;

/// What a parser gives.
pub(super) type Parsed<T> = Result<T, ErrMode<Fault>>;

/// Why a parser stops.
#[derive(Debug)]
pub(super) enum Fault {
    /// Something else stands here.
    Unexpected,
    /// It is understood, and can't be.
    Said(Box<Misread>),
}

impl<I: Stream> ParserError<I> for Fault {
    type Inner = Self;

    fn from_input(_: &I) -> Self {
        Self::Unexpected
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

/// It is understood, and can't be: no other reading is tried.
pub(super) fn refuse<T>(misread: Misread) -> Parsed<T> {
    Err(ErrMode::Cut(Fault::Said(Box::new(misread))))
}

/// Another reading is tried.
pub(super) const fn other<T>() -> Parsed<T> {
    Err(ErrMode::Backtrack(Fault::Unexpected))
}

/// How far reading came, and what could have stood there.
#[derive(Debug)]
pub(super) struct Watch {
    /// Tokens in all.
    count: usize,
    /// The farthest token that was looked at in vain.
    farthest: Cell<usize>,
    /// The tokens of which it is kept what could have stood there, and the words that could.
    expected: RefCell<Vec<(usize, Vec<&'static str>)>>,
    /// The target's name, once it is read: a second bare word isn't one.
    target: RefCell<Option<String>>,
    /// What was decided on the way that whoever wrote it should know.
    notes: RefCell<Vec<String>>,
    /// Where the clause under way began.
    clause: Cell<usize>,
    /// An example of the clause that was under way at the farthest token.
    example: Cell<Option<&'static str>>,
}

impl Watch {
    pub fn new(count: usize, keep: &[usize]) -> Self {
        Self {
            count,
            farthest: Cell::new(0),
            target: RefCell::new(None),
            notes: RefCell::new(Vec::new()),
            clause: Cell::new(0),
            expected: RefCell::new(keep.iter().map(|at| (*at, Vec::new())).collect()),
            example: Cell::new(None),
        }
    }

    pub fn farthest(&self) -> usize {
        self.farthest.get()
    }

    /// The target has its name now.
    pub fn name(&self, target: &str) {
        *self.target.borrow_mut() = Some(target.to_owned());
    }

    pub fn target(&self) -> Option<String> {
        self.target.borrow().clone()
    }

    /// Something that was decided on the way. Said once, however often it was tried.
    pub fn note(&self, note: String) {
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    pub fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    pub fn begin_clause(&self, at: usize) {
        self.clause.set(at);
        self.example.set(None);
    }

    pub fn clause(&self) -> usize {
        self.clause.get()
    }

    pub fn example(&self) -> Option<&'static str> {
        self.example.get()
    }

    /// What could have stood at a token, of those that were to be kept.
    pub fn expected(&self, at: usize) -> Vec<&'static str> {
        let all = self.expected.borrow();
        all.iter()
            .find(|(kept, _)| *kept == at)
            .map(|(_, words)| words.clone())
            .unwrap_or_default()
    }

    /// A form that would have to begin with another word than the one at `at`, or a word.
    fn missed(&self, at: usize, form: &'static str) {
        if at > self.farthest.get() {
            self.farthest.set(at);
        }
        if let Some((_, words)) = self.expected.borrow_mut().iter_mut().find(|(kept, _)| *kept == at) {
            words.push(form.split(' ').next().unwrap_or(form));
        }
    }
}

/// Which token comes next.
pub(super) fn position(input: &Input<'_>) -> usize {
    input.state.count - input.eof_offset()
}

/// From here on it is the clause that this is an example of.
pub(super) fn committed(input: &Input<'_>, example: &'static str) {
    input.state.example.set(Some(example));
}

/// The next token.
pub(super) fn peeked<'s>(input: &Input<'s>) -> Option<Token<'s>> {
    input.peek_token().copied()
}

/// Any token that this knows what to make of; `wanted` is what is said where it doesn't.
pub(super) fn word<'s, T>(input: &mut Input<'s>, read: impl FnOnce(Token<'s>) -> Option<T>) -> Parsed<T> {
    let at = position(input);
    match input
        .peek_token()
        .copied()
        .filter(|token| token.kind == Kind::Word)
        .and_then(read)
    {
        Some(value) => {
            input.next_token();
            Ok(value)
        }
        None => {
            input.state.missed(at, "");
            other()
        }
    }
}

/// One of a table's forms, the longest that fits.
pub(super) fn said<'i>(forms: Forms) -> impl Parser<Input<'i>, &'static str, ErrMode<Fault>> {
    move |input: &mut Input<'i>| {
        let at = position(input);
        let first = input
            .peek_token()
            .filter(|token| plain(token))
            .map_or("", |token| token.low);
        let begins = first.as_bytes().first();
        let mut best: Option<(usize, &'static str)> = None;
        let start = input.checkpoint();
        for form in forms {
            // Most forms begin with another letter: nothing to look at, unless somebody wants to know what there could be.
            if begins != form.as_bytes().first() {
                input.state.missed(at, form);
                continue;
            }
            let mut length = 0;
            let mut fits = true;
            for wanted in form.split(' ') {
                match input.next_token() {
                    Some(token) if plain(token) && token.low == wanted => length += 1,
                    _ => {
                        input.state.missed(at + length, wanted);
                        fits = false;
                        break;
                    }
                }
            }
            input.reset(&start);
            if fits && best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, form));
            }
        }
        match best {
            Some((length, form)) => {
                for _ in 0..length {
                    input.next_token();
                }
                Ok(form)
            }
            None => other(),
        }
    }
}

/// Whether a token can be a word of a form at all.
fn plain(token: &Token<'_>) -> bool {
    token.kind != Kind::Quoted && token.kind != Kind::Stop
}

/// Whether one of a table's forms comes next; nothing is taken.
pub(super) fn follows(input: &mut Input<'_>, forms: Forms) -> bool {
    let start = input.checkpoint();
    let found = said(forms).parse_next(input).is_ok();
    input.reset(&start);
    found
}

/// Takes one of a table's forms if it comes next.
pub(super) fn taken(input: &mut Input<'_>, forms: Forms) -> bool {
    said(forms).parse_next(input).is_ok()
}

/// Whether a clause can end here: a separator or the end comes next.
pub(super) fn ends(input: &mut Input<'_>) -> bool {
    match input.peek_token() {
        None => true,
        Some(token) if token.kind == Kind::Stop => true,
        Some(_) => follows(input, super::words::AND),
    }
}

/// Text in quotes.
pub(super) fn quoted<'s>(input: &mut Input<'s>) -> Parsed<Token<'s>> {
    match input.peek_token() {
        Some(token) if token.kind == Kind::Quoted => {
            input.next_token();
            Ok(*token)
        }
        _ => {
            input.state.missed(position(input), "");
            other()
        }
    }
}

/// The words since a token, as they were written.
pub(super) fn since<'s>(sentence: &'s str, tokens: &[Token<'_>], from: usize, to: usize) -> &'s str {
    match (tokens.get(from), tokens.get(to.saturating_sub(1).max(from))) {
        (Some(first), Some(last)) => &sentence[first.start..last.end],
        _ => "",
    }
}
