//! A sentence read as a whole.

use jiff::Zoned;
use winnow::{
    error::ErrMode,
    stream::{Stateful, TokenSlice},
};

use super::{
    Intent, clause, draft,
    grammar::{Fault, Watch, since},
    misread::Misread,
    token::{self, Kind, Token},
    value, vocabulary,
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
    let mut text = token::cleaned(sentence)?;
    let mut notes = Vec::new();
    for _ in 0..=SLIPS_MAX {
        let low = text.to_ascii_lowercase();
        let tokens = token::tokens(&text, &low)?;
        match once(&text, &tokens, now, false) {
            Ok((intent, told)) => {
                notes.extend(told);
                return Ok(Reading { intent, notes });
            }
            Err(Stop::Said(misread)) => return Err(misread),
            Err(Stop::Unexpected { .. }) => {}
        }
        // Once more, and what could have stood there is kept.
        let Err(Stop::Unexpected { at, expected, example }) = once(&text, &tokens, now, true) else {
            break;
        };
        let mend = |at: usize| {
            let token = tokens.get(at).filter(|token| token.kind == Kind::Word)?;
            Some((token.range(), vocabulary::slip(token.low, expected.get(at)?)?))
        };
        // A word that isn't understood, or the name before it that was none: "deploy safly model-server".
        let named = tokens
            .get(at)
            .filter(|token| value::plain_name(token.raw))
            .and_then(|_| {
                (0..at).find_map(|at| {
                    tokens.get(at).filter(|token| value::plain_name(token.raw))?;
                    mend(at)
                })
            });
        match mend(at).or(named).filter(|_| notes.len() < SLIPS_MAX) {
            Some((range, word)) => {
                notes.push(format!("'{}' is taken as '{word}'", &text[range.clone()]));
                text.replace_range(range, word);
            }
            None => return Err(unexpected(&text, &tokens, at, &expected, example)),
        }
    }
    Err(Misread::new(
        "the sentence has too many words that aren't understood".to_owned(),
    ))
}

enum Stop {
    Said(Misread),
    Unexpected {
        at: usize,
        expected: Vec<Vec<&'static str>>,
        example: Option<&'static str>,
    },
}

/// One pass over the tokens.
fn once(text: &str, tokens: &[Token<'_>], now: &Zoned, keep_expected: bool) -> Result<(Intent, Vec<String>), Stop> {
    let watch = Watch::new(tokens.len(), keep_expected);
    let mut input = Stateful {
        input: TokenSlice::new(tokens),
        state: &watch,
    };
    let parts = match clause::sentence(&mut input, now, text) {
        Ok(parts) => parts,
        Err(ErrMode::Cut(Fault::Said(misread)) | ErrMode::Backtrack(Fault::Said(misread))) => {
            return Err(Stop::Said(*misread));
        }
        Err(_) => {
            let expected = (0..=tokens.len()).map(|at| watch.expected(at)).collect();
            return Err(Stop::Unexpected {
                at: watch.farthest(),
                expected,
                example: watch.example(),
            });
        }
    };
    draft::put_together(parts, |from, to| since(text, tokens, from, to).to_owned()).map_err(Stop::Said)
}

/// The words that aren't understood, with the nearest that would be.
fn unexpected(
    text: &str,
    tokens: &[Token<'_>],
    at: usize,
    expected: &[Vec<&'static str>],
    example: Option<&'static str>,
) -> Misread {
    let with_example = |misread: Misread| match example {
        Some(example) => misread.example(example),
        None => misread,
    };
    let Some(token) = tokens.get(at) else {
        let last = tokens.last().map_or("", |token| token.raw);
        return with_example(Misread::new(format!(
            "the sentence ends after '{last}', and something is missing"
        )));
    };
    if token.kind == Kind::Word
        && let Some(odd) = token.raw.chars().find(|c| !c.is_ascii())
    {
        return with_example(
            Misread::new(format!(
                "'{}' isn't understood: '{odd}' (U+{:04X}) is no plain letter",
                token::shortened(token.raw),
                odd as u32
            ))
            .help("type the word anew, or put a name or value in quotes"),
        );
    }
    // As far as no word is known.
    let mut end = at + 1;
    while end < tokens.len() && end < at + 8 && tokens[end].kind == Kind::Word && !known(&tokens[end]) {
        end += 1;
    }
    let words = token::shortened(since(text, tokens, at, end));
    if value::plain_name(token.raw) && tokens[..at].iter().any(|token| value::plain_name(token.raw)) {
        let misread = Misread::new(format!("'{words}' isn't understood"));
        return with_example(match nearest(token, expected.get(at)) {
            Some(near) => misread.help(format!("did you mean '{near}'?")),
            None => {
                misread.help("a sentence is about one service, and every other word must be one that the grammar knows")
            }
        });
    }
    if token.kind == Kind::Word && vocabulary::is_word(token.low) {
        return with_example(
            Misread::new(format!("'{words}' isn't understood at this place"))
                .help("as a name, put it in quotes; otherwise say it in another way"),
        );
    }
    if token.kind == Kind::Word && token.raw.bytes().any(|b| b.is_ascii_uppercase()) && value::plain_name(token.low) {
        return with_example(
            Misread::new(format!("'{words}' isn't understood"))
                .help(format!("names are in lower case: '{}'", token.low)),
        );
    }
    let misread = Misread::new(format!("'{words}' isn't understood"));
    with_example(match nearest(token, expected.get(at)) {
        Some(near) => misread.help(format!("did you mean '{near}'?")),
        None => misread,
    })
}

fn known(token: &Token<'_>) -> bool {
    vocabulary::is_word(token.low) || token.raw.starts_with(|c: char| c.is_ascii_digit())
}

/// The word that could have stood there and is most like this one.
fn nearest<'a>(token: &Token<'_>, expected: Option<&Vec<&'a str>>) -> Option<&'a str> {
    api::nearest(token.low, expected?.iter().copied().filter(|word| word.len() > 2))
}
