//! From text to tokens: words, quoted text, signs and separators. What a word means is for the grammar to say.

use std::{borrow::Cow, ops::Range};

use api::deploy::Comparison;
use winnow::{
    LocatingSlice, ModalResult, Parser,
    combinator::{alt, delimited, opt, preceded, repeat},
    stream::Location,
    token::{any, take_while},
};

use super::{
    misread::Misread,
    vocabulary::{self, Known},
    words::Forms,
};

/// The longest sentence, in characters.
pub(super) const LENGTH_MAX: usize = 2_000;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A run of characters without a space: a word, a number, a name, an image.
    Word,
    /// Text in quotes.
    Quoted,
    /// `>` and its like.
    Sign(Comparison),
    /// `,` `;` `.` `:` `!` `?` and brackets.
    Stop,
}

/// A piece of a sentence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'s> {
    /// What it is.
    pub kind: Kind,
    /// As it was written, quotes included.
    pub raw: &'s str,
    /// As it was written, ASCII letters in lower case.
    pub low: &'s str,
    /// The word of the grammar that it is. `None`: it is none, or quoted, or a stop.
    pub known: Option<&'static Known>,
    /// Where it begins in the sentence.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

impl Token<'_> {
    /// The text in the quotes; the token itself where it isn't quoted.
    pub fn text(&self) -> Cow<'_, str> {
        if self.kind == Kind::Quoted {
            unquoted(self.raw)
        } else {
            Cow::Borrowed(self.raw)
        }
    }

    /// Whether one of these forms begins with it.
    pub fn begins(&self, forms: Forms) -> bool {
        self.known.is_some_and(|known| known.begins(forms))
    }

    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// The text in quotes, its escapes undone.
pub(super) fn unquoted(raw: &str) -> Cow<'_, str> {
    let mut inner = raw.chars();
    inner.next();
    inner.next_back();
    let inner = inner.as_str();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => text.extend(characters.next()),
            c => text.push(c),
        }
    }
    Cow::Owned(text)
}

/// `text` in double quotes, so that [`unquoted`] gives it back.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The sentence with the signs that word processors put in place of the plain ones undone: curly quotes, long dashes,
/// hard spaces, `≥`, `×`.
///
/// # Errors
/// It is empty or too long, or holds a character that is invisible or turns the direction of text: what is read must be
/// what is seen.
pub(super) fn cleaned(sentence: &str) -> Result<String, Misread> {
    // A character is at most four bytes: what is longer needn't be counted.
    if sentence.len() > 4 * LENGTH_MAX || sentence.chars().count() > LENGTH_MAX {
        return Err(Misread::new(format!(
            "a sentence has at most {LENGTH_MAX} characters, this one has more"
        ))
        .help("say one thing at a time, or write a manifest"));
    }
    if sentence.trim().is_empty() {
        return Err(Misread::new("the sentence is empty".to_owned()));
    }
    let mut text = String::with_capacity(sentence.len());
    for (position, c) in sentence.chars().enumerate() {
        match c {
            '\t' | '\n' | '\r' => text.push(' '),
            c if c.is_control() || invisible(c) => {
                return Err(Misread::new(format!(
                    "the sentence holds an invisible character (U+{:04X}) at position {}",
                    c as u32,
                    position + 1
                ))
                .help("type the sentence anew"));
            }
            c if c.is_whitespace() => text.push(' '),
            '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{ab}' | '\u{bb}' => text.push('"'),
            '\u{2018}' | '\u{2019}' => text.push('\''),
            '\u{2010}'..='\u{2015}' | '\u{2212}' => text.push('-'),
            '\u{2192}' => text.push_str("->"),
            '\u{2265}' => text.push_str(">="),
            '\u{2264}' => text.push_str("<="),
            '\u{d7}' => text.push('x'),
            c => text.push(c),
        }
    }
    Ok(text)
}

/// Zero-width characters and those that turn the direction of text.
fn invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

type Text<'s> = LocatingSlice<&'s str>;

/// The tokens of a sentence. `low` is `text` in lower case (ASCII only, so that places are the same).
///
/// # Errors
/// A quote isn't closed, or a number is written with a thousands separator.
pub(super) fn tokens<'s>(text: &'s str, low: &'s str) -> Result<Vec<Token<'s>>, Misread> {
    let mut input = LocatingSlice::new(text);
    let mut tokens: Vec<Token<'s>> = Vec::with_capacity(text.len() / 4);
    loop {
        let _ = spaces(&mut input);
        if input.is_empty() {
            break;
        }
        let Ok((kind, range)) = token.with_span().parse_next(&mut input) else {
            let rest = &text[input.current_token_start()..];
            return Err(Misread::new(format!("a quote isn't closed: {}", shortened(rest))));
        };
        let mut token = Token {
            kind,
            raw: &text[range.clone()],
            low: &low[range.clone()],
            known: None,
            start: range.start,
            end: range.end,
        };
        if kind == Kind::Word {
            end_of_clause(&mut token);
            thousands(&token, &text[token.end..])?;
        }
        if matches!(kind, Kind::Word | Kind::Sign(_)) {
            token.known = vocabulary::known(token.low);
        }
        let end = token.end;
        tokens.push(token);
        // What stood at the word's end: a stop of its own.
        // A colon joins: "memory: 64Gi".
        if end < range.end && !text[end..range.end].starts_with(':') {
            let stop = end..range.end;
            tokens.push(Token {
                kind: Kind::Stop,
                raw: &text[stop.clone()],
                low: &low[stop.clone()],
                known: None,
                start: stop.start,
                end: stop.end,
            });
        }
    }
    Ok(tokens)
}

/// The beginning of a text, for a message.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A full stop or colon at a word's end isn't part of it.
fn end_of_clause(token: &mut Token<'_>) {
    let kept = token.raw.trim_end_matches(['.', ':']).len();
    if kept > 0 && kept < token.raw.len() && !matches!(token.low, "a.m." | "p.m." | "a.s.a.p.") {
        token.raw = &token.raw[..kept];
        token.low = &token.low[..kept];
        token.end = token.start + kept;
    }
}

fn thousands(token: &Token<'_>, rest: &str) -> Result<(), Misread> {
    let group = |text: &str| text.len() >= 3 && text.bytes().take(3).all(|b| b.is_ascii_digit());
    let digits = token.raw.bytes().all(|b| b.is_ascii_digit());
    match rest.strip_prefix(',') {
        Some(rest) if digits && group(rest) => {
            Err(
                Misread::new(format!("'{},{}' can be one number or two", token.raw, &rest[..3]))
                    .help("write numbers without separators (1000), and a space after a comma"),
            )
        }
        _ => Ok(()),
    }
}

fn spaces(input: &mut Text<'_>) -> ModalResult<()> {
    take_while(0.., char::is_whitespace).void().parse_next(input)
}

fn token(input: &mut Text<'_>) -> ModalResult<Kind> {
    // By its first character: most are words, and trying all else first would take longer than the rest.
    match input.chars().next() {
        Some(quote @ ('"' | '`' | '\'')) => in_quotes(quote).value(Kind::Quoted).parse_next(input),
        Some('<' | '=' | '>') => alt((sign.map(Kind::Sign), word.value(Kind::Word))).parse_next(input),
        Some(',' | ';' | '!' | '?' | '(' | ')' | '[' | ']') => any.value(Kind::Stop).parse_next(input),
        _ => word.value(Kind::Word).parse_next(input),
    }
}

fn in_quotes<'s>(quote: char) -> impl Parser<Text<'s>, (), winnow::error::ErrMode<winnow::error::ContextError>> {
    delimited(
        quote,
        repeat::<_, _, (), _, _>(
            0..,
            alt((
                preceded('\\', any).void(),
                any.verify(move |c: &char| *c != quote && *c != '\\').void(),
            )),
        ),
        quote,
    )
}

fn sign(input: &mut Text<'_>) -> ModalResult<Comparison> {
    alt((
        ">=".value(Comparison::AtLeast),
        "=>".value(Comparison::AtLeast),
        "<=".value(Comparison::AtMost),
        "=<".value(Comparison::AtMost),
        '>'.value(Comparison::Above),
        '<'.value(Comparison::Below),
    ))
    .parse_next(input)
}

/// A run of characters that part nothing. A value in quotes belongs to it: `GREETING="hello world"`.
fn word(input: &mut Text<'_>) -> ModalResult<()> {
    let arrow = opt("->").parse_next(input)?;
    if arrow.is_some() {
        return Ok(());
    }
    let run = take_while(1.., |c: char| {
        !c.is_whitespace() && !matches!(c, ',' | ';' | '!' | '?' | '(' | ')' | '[' | ']' | '<' | '>' | '"' | '`')
    })
    .parse_next(input)?;
    if run.ends_with('=') && run.len() > 1 {
        opt(alt((in_quotes('"'), in_quotes('`')))).void().parse_next(input)?;
    }
    if run.starts_with('\'') || input.starts_with(['"', '`']) && !run.ends_with('=') {
        return winnow::combinator::fail.parse_next(input);
    }
    Ok(())
}
