//! What all clauses are made of: the stream of tokens, words of a table, and where reading stopped.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    rc::Rc,
};

use winnow::{
    Parser,
    error::{ErrMode, ParserError},
    stream::{Stateful, Stream, TokenSlice},
};

use super::{
    misread::Misread,
    token::{Kind, Token},
    vocabulary,
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
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Tokens in all.
    count: usize,
    /// The farthest token that was looked at in vain since [`Watch::begin`].
    reach: Cell<usize>,
    /// The tokens of which it is kept what could have stood there, and the words that could.
    expected: RefCell<Vec<(usize, Vec<&'static str>)>>,
    /// Whether there are such tokens.
    keeps: bool,
    /// The target's name, once it is read: a second bare word isn't one.
    target: RefCell<Option<Rc<str>>>,
    /// What was decided on the way that whoever wrote it should know.
    notes: RefCell<Vec<String>>,
    /// Where the clause under way began.
    clause: Cell<usize>,
    /// An example of the clause that was under way at the farthest token.
    example: Cell<Option<&'static str>>,
    /// The metric's name at this token, and the known one that it is a slip of.
    near: Cell<Option<(usize, Option<&'static str>)>>,
}

impl Watch {
    /// Over so many tokens; of those in `keep`, what could have stood there is kept.
    pub fn new(count: usize, keep: &[usize], target: Option<Rc<str>>, notes: Vec<String>) -> Self {
        Self {
            count,
            keeps: !keep.is_empty(),
            expected: RefCell::new(keep.iter().map(|at| (*at, Vec::new())).collect()),
            target: RefCell::new(target),
            notes: RefCell::new(notes),
            ..Self::default()
        }
    }

    /// Whether it is kept what could have stood somewhere: then all of it is to be tried.
    pub const fn keeps(&self) -> bool {
        self.keeps
    }

    /// The farthest token that was looked at in vain since the last [`Watch::begin`].
    pub fn reach(&self) -> usize {
        self.reach.get()
    }

    /// What follows is looked at anew.
    pub fn begin(&self) {
        self.reach.set(0);
    }

    /// The target has its name now.
    pub fn name(&self, target: &str) {
        *self.target.borrow_mut() = Some(target.into());
    }

    /// What follows is tried with this target.
    pub fn goes_on_with(&mut self, target: Option<Rc<str>>) {
        *self.target.get_mut() = target;
    }

    pub fn target(&self) -> Option<Rc<str>> {
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

    /// How many notes there are.
    pub fn noted(&self) -> usize {
        self.notes.borrow().len()
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

    /// What `find` finds for the token at `at`: looked for once, however often it was tried.
    pub fn near(&self, at: usize, find: impl FnOnce() -> Option<&'static str>) -> Option<&'static str> {
        match self.near.get() {
            Some((known, near)) if known == at => near,
            _ => {
                let near = find();
                self.near.set(Some((at, near)));
                near
            }
        }
    }

    /// What could have stood at a token, of those that were to be kept: each word once.
    pub fn expected(&self, at: usize) -> Vec<&'static str> {
        let all = self.expected.borrow();
        let mut seen = HashSet::new();
        all.iter()
            .filter(|(kept, _)| *kept == at)
            .flat_map(|(_, words)| words.iter().copied())
            .filter(|word| seen.insert(*word))
            .collect()
    }

    /// None of these forms begins with the word at `at`.
    fn missed_all(&self, at: usize, forms: Forms) {
        self.reached(at);
        if !self.keeps {
            return;
        }
        if let Some((_, words)) = self.expected.borrow_mut().iter_mut().find(|(kept, _)| *kept == at) {
            words.extend(forms.iter().map(|form| form.split(' ').next().unwrap_or(form)));
        }
    }

    fn reached(&self, at: usize) {
        if at > self.reach.get() {
            self.reach.set(at);
        }
    }

    /// A word that would have to stand at `at`, where another does.
    fn missed(&self, at: usize, word: impl FnOnce() -> &'static str) {
        self.reached(at);
        if !self.keeps {
            return;
        }
        if let Some((_, words)) = self.expected.borrow_mut().iter_mut().find(|(kept, _)| *kept == at) {
            words.push(word());
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
            input.state.reached(at);
            other()
        }
    }
}

/// One of a table's forms, the longest that fits.
pub(super) fn said<'i>(forms: Forms) -> impl Parser<Input<'i>, &'static str, ErrMode<Fault>> {
    move |input: &mut Input<'i>| {
        let at = position(input);
        // Most tables have nothing that begins so.
        if !input.peek_token().is_some_and(|token| token.begins(forms)) {
            input.state.missed_all(at, forms);
            return other();
        }
        let mut best: Option<(usize, &'static str)> = None;
        let ahead: &[Token<'_>] = &input.input;
        for form in vocabulary::forms(forms) {
            let length = form.common(ahead.iter().map(|token| token.known));
            if length < form.words.len() {
                input.state.missed(at + length, || form.word(length));
            } else if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, form.text));
            }
        }
        match best {
            Some((length, form)) => {
                input.next_slice(length);
                Ok(form)
            }
            None => other(),
        }
    }
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
            input.state.reached(position(input));
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
