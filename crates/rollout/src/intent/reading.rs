//! A sentence read as a whole.

use std::rc::Rc;

use api::id::check_name;
use jiff::Zoned;
use winnow::{
    error::ErrMode,
    stream::{Stateful, Stream, TokenSlice},
};

use super::{
    Intent,
    clause::{self, Part, Read},
    draft,
    grammar::{Fault, Watch, since},
    misread::Misread,
    token::{self, Kind, Token},
    value, vocabulary, words,
};

/// What a sentence says.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What it asks for.
    pub intent: Intent,
    /// What whoever wrote it should know: words that were passed over, slips that were mended, what had to be decided.
    pub notes: Vec<String>,
}

/// Slips that are mended in one sentence; one with more is better written anew.
const SLIPS_MAX: usize = 3;

/// Reads a sentence, written at `now`: times of day are in its zone where no other is named.
///
/// # Errors
/// [`Misread`]: words that aren't understood, something that can be read in two ways, or that contradicts itself.
pub fn read(sentence: &str, now: &Zoned) -> Result<Reading, Misread> {
    read_about(sentence, now, None)
}

/// As [`read`], where something beside the sentence names what it is about: that counts where the sentence names nothing.
///
/// # Errors
/// [`Misread`]: as [`read`].
pub fn read_about(sentence: &str, now: &Zoned, about: Option<&str>) -> Result<Reading, Misread> {
    let mut text = token::cleaned(sentence)?;
    let mut notes = Vec::new();
    // What is wrong with the sentence as it was written.
    let mut first = None;
    let (mut read, mut from) = (Read::default(), 0);
    loop {
        let low = text.to_ascii_lowercase();
        let tokens = token::tokens(&text, &low)?;
        let mut place = match pass(&text, &tokens, now, &mut read, from) {
            Ok(()) => {
                let told = std::mem::take(&mut read.notes);
                let put = draft::put_together(read.parts, about, |from, to| since(&text, &tokens, from, to).to_owned());
                let (intent, more) = put.map_err(|misread| first.unwrap_or(misread))?;
                notes.extend(more.into_iter().chain(told));
                return Ok(Reading { intent, notes });
            }
            Err(Stop::Said(misread)) => return Err(first.unwrap_or(misread)),
            Err(Stop::Unexpected(place)) => place,
        };
        place.expected = clause::expected(&tokens, now, &read, &place.suspects(&tokens));
        let first = first.get_or_insert_with(|| unexpected(&text, &tokens, &place));
        let mended = if notes.len() < SLIPS_MAX {
            mend(&tokens, &place)
        } else {
            None
        };
        let Some((at, word)) = mended else {
            return Err(first.clone());
        };
        let range = tokens[at].range();
        from = read.back_to(at);
        notes.push(format!("'{}' is taken as '{word}'", &text[range.clone()]));
        text.replace_range(range, word);
    }
}

/// The word that isn't understood, or the name before it that was none ("deploy safly model-server"), where it is one
/// slip away from a word that could stand there.
fn mend(tokens: &[Token<'_>], place: &Place) -> Option<(usize, &'static str)> {
    place.expected.iter().find_map(|(at, expected)| {
        let token = tokens.get(*at).filter(|token| token.kind == Kind::Word)?;
        Some((*at, vocabulary::slip(token.low, expected)?))
    })
}

/// Why a pass ended.
enum Stop {
    Said(Misread),
    Unexpected(Place),
}

/// Where reading stopped.
struct Place {
    /// The token that isn't understood.
    at: usize,
    /// Where its clause begins.
    clause: usize,
    /// What could have stood at the tokens that were to be looked at.
    expected: Vec<(usize, Vec<&'static str>)>,
    /// The target's name, if it was read.
    target: Option<Rc<str>>,
    /// Whether it is said what is to be done.
    verb: bool,
    /// An example of the clause under way.
    example: Option<&'static str>,
}

impl Place {
    /// The tokens that may be slips: the one that isn't understood, and the name before it if it could be one too.
    fn suspects(&self, tokens: &[Token<'_>]) -> Vec<usize> {
        let mut suspects = vec![self.at];
        if tokens.get(self.at).is_some_and(|token| value::plain_name(token.raw)) {
            suspects.extend(
                self.target
                    .as_ref()
                    .and_then(|target| tokens[..self.at].iter().position(|token| *token.raw == **target)),
            );
        }
        suspects
    }
}

/// One pass over the tokens, from this one.
fn pass(text: &str, tokens: &[Token<'_>], now: &Zoned, read: &mut Read, from: usize) -> Result<(), Stop> {
    let watch = Watch::new(tokens.len(), &[], read.target.take(), std::mem::take(&mut read.notes));
    let mut input = Stateful {
        input: TokenSlice::new(tokens),
        state: &watch,
    };
    input.next_slice(from);
    let result = clause::sentence(&mut input, now, text, read);
    read.notes = watch.notes();
    match result {
        Ok(()) => Ok(()),
        Err(ErrMode::Cut(Fault::Said(misread)) | ErrMode::Backtrack(Fault::Said(misread))) => Err(Stop::Said(*misread)),
        Err(_) => Err(Stop::Unexpected(Place {
            at: read.farthest(),
            clause: watch.clause(),
            expected: Vec::new(),
            target: watch.target(),
            verb: read
                .parts
                .iter()
                .any(|(part, ..)| matches!(part, Part::Verb(_) | Part::Way(_) | Part::Factor(_))),
            example: watch.example(),
        })),
    }
}

/// The words that aren't understood, with the nearest that would be.
fn unexpected(text: &str, tokens: &[Token<'_>], place: &Place) -> Misread {
    let misread = what_is_wrong(text, tokens, place);
    match place.example {
        Some(example) => misread.example(example),
        None => misread,
    }
}

/// A first word that was taken as a name, where no verb followed: most likely it was meant as one.
fn no_verb(text: &str, tokens: &[Token<'_>], place: &Place) -> Option<Misread> {
    let first = tokens.first().filter(|token| token.kind == Kind::Word)?;
    if place.verb || place.target.as_deref() != Some(first.raw) || tokens.len() < 2 {
        return None;
    }
    let rest = token::shortened(since(text, tokens, 1, tokens.len()));
    let misread = Misread::new(format!("'{}' isn't understood, before '{rest}'", first.raw));
    Some(match vocabulary::nearest(first.low, VERBS) {
        Some(near) => misread.help(format!("did you mean '{near}'?")),
        None => misread.help("begin with deploy, update, scale, rollback, abort or restart"),
    })
}

/// What a sentence begins with.
const VERBS: &[&str] = &["deploy", "update", "scale", "rollback", "abort", "restart"];

fn what_is_wrong(text: &str, tokens: &[Token<'_>], place: &Place) -> Misread {
    let at = place.at;
    let Some(token) = tokens.get(at) else {
        let clause = since(
            text,
            tokens,
            place.clause.min(tokens.len().saturating_sub(1)),
            tokens.len(),
        );
        if let Some(misread) = no_verb(text, tokens, place) {
            return misread;
        }
        let misread = Misread::new(format!("something is missing after '{}'", token::shortened(clause)));
        return match &place.target {
            Some(_) => misread,
            None => misread.help("no service is named yet; a name that is a word of the grammar needs quotes"),
        };
    };
    if token.kind == Kind::Word
        && let Some(odd) = token.raw.chars().find(|c| !c.is_ascii())
    {
        let (word, code) = (token::shortened(token.raw), odd as u32);
        return Misread::new(format!(
            "'{word}' isn't understood: '{odd}' (U+{code:04X}) is no plain letter"
        ))
        .help("type the word anew, or put a value in quotes");
    }
    // As far as no word is known.
    let unknown = |token: &Token<'_>| {
        token.kind == Kind::Word
            && !vocabulary::is_word(token.low)
            && !token.raw.starts_with(|c: char| c.is_ascii_digit())
            && !value::looks_like_version(token.raw)
    };
    let mut end = at + 1;
    while unknown(token) && end < (at + 6).min(tokens.len()) && unknown(&tokens[end]) {
        end += 1;
    }
    if let Some(misread) = no_verb(text, tokens, place) {
        return misread;
    }
    let words = token::shortened(since(text, tokens, at, end));
    let message = if place.clause < at {
        let before = token::shortened(since(text, tokens, place.clause, at));
        format!("'{words}' isn't understood after '{before}'")
    } else {
        format!("'{words}' isn't understood")
    };
    if let Some(near) = place
        .expected
        .first()
        .and_then(|(_, expected)| vocabulary::nearest(token.low, expected))
    {
        return Misread::new(message).help(format!("did you mean '{near}'?"));
    }
    let following = tokens.get(at + 1).map(|token| token.low);
    if token.kind == Kind::Word && following == Some("=") {
        return Misread::new(message).help(format!("write a variable without spaces: {}=…", token.raw));
    }
    if let Some(flag) = token.low.strip_prefix("--").filter(|flag| vocabulary::is_word(flag)) {
        return Misread::new(message).help(format!("a sentence has no flags: say '{flag}'"));
    }
    if let Some(before) = at
        .checked_sub(1)
        .map(|before| tokens[before])
        .filter(|_| place.target.is_none())
        && before.begins(words::KIND)
        && token.begins(words::KIND)
    {
        return Misread::new(message).help(format!("a name is one word: '{}-{}'", before.low, token.low));
    }
    match &place.target {
        _ if token.kind == Kind::Word && vocabulary::is_word(token.low) => {
            Misread::new(message).help("it is a word of the grammar, but not at this place; as a name it needs quotes")
        }
        Some(target) if value::plain_name(token.raw) => Misread::new(message).help(format!(
            "the sentence is about '{target}' already, and is about one service only"
        )),
        None if token.kind != Kind::Stop => match check_name(&token.text()) {
            Err(why) if token.raw.starts_with(|c: char| c.is_alphanumeric() || c == '"') => {
                let lower = token.text().to_lowercase().replace('_', "-");
                let meant = if value::plain_name(&lower) {
                    format!(": '{lower}'?")
                } else {
                    String::new()
                };
                Misread::new(message).help(format!("as a name it can't be, either: {why}{meant}"))
            }
            _ => Misread::new(message),
        },
        _ => Misread::new(message),
    }
}
