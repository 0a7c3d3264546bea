//! Searching by regular expression, in linear time, and what a match must contain.
//!
//! From the parsed pattern follow words of which every match contains one. By them most blocks are passed over: unread
//! where the block's filter ([`super::words`]) denies the words, unsplit where the unpacked texts don't have them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::words::triples;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4096;
/// Memory of a compiled pattern, in bytes: `(a{1000}){1000}` is refused.
const COMPILED_BYTES_MAX: usize = 4 << 20;
/// Words of which a match contains one, at most; with more they sift nothing.
const WORDS_MAX: usize = 32;

/// A regular expression to search lines for; cheap to clone.
///
/// The syntax is that of the `regex` crate: Unicode, no back-references, and time linear in the text for any pattern.
/// Lines are bytes; `(?-u)\xff` matches one that is not UTF-8.
#[derive(Clone)]
pub struct Search(Arc<Compiled>);

struct Compiled {
    pattern: String,
    regex: Regex,
    /// For each of the words of which a match contains one: its groups of letters. Empty: nothing is known.
    triples: Vec<Vec<u16>>,
    /// Finds any of the words.
    sift: Option<Regex>,
}

/// Why a pattern is no regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SearchError {
    /// What is wrong.
    pub reason: String,
    /// Where, in bytes of the pattern; `None` when it is wrong as a whole.
    pub at: Option<Range<usize>>,
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Search({:?})", self.0.pattern)
    }
}

impl Search {
    /// Parses and compiles a pattern.
    ///
    /// # Errors
    /// It is no regular expression, or a very large one.
    pub fn new(pattern: &str) -> Result<Self, SearchError> {
        let whole = |reason: String| SearchError { reason, at: None };
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(whole(format!("longer than {PATTERN_BYTES_MAX} bytes")));
        }
        let parsed = regex_syntax::ParserBuilder::new().utf8(false).build().parse(pattern);
        let hir = parsed.map_err(|error| match error {
            regex_syntax::Error::Parse(error) => SearchError {
                reason: error.kind().to_string(),
                at: Some(error.span().start.offset..error.span().end.offset),
            },
            regex_syntax::Error::Translate(error) => SearchError {
                reason: error.kind().to_string(),
                at: Some(error.span().start.offset..error.span().end.offset),
            },
            other => whole(other.to_string()),
        })?;
        let regex = RegexBuilder::new(pattern)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => whole("too large when compiled".to_owned()),
                other => whole(other.to_string()),
            })?;
        let words = required(&hir).unwrap_or_default();
        let mut groups: Vec<Vec<u16>> = words.iter().map(|word| triples(&word.text)).collect();
        if groups.iter().any(Vec::is_empty) {
            groups.clear();
        }
        Ok(Self(Arc::new(Compiled {
            pattern: pattern.to_owned(),
            regex,
            triples: groups,
            sift: sift(&words),
        })))
    }

    /// Whether a line has a match.
    #[must_use]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.0.regex.is_match(text)
    }

    /// Whether a block whose filter answers so for some groups of letters may have a match.
    pub(super) fn may_match(&self, holds: impl Fn(&[u16]) -> bool) -> bool {
        self.0.triples.is_empty() || self.0.triples.iter().any(|groups| holds(groups))
    }

    /// Whether some lines, whose texts these are without a break, may have a match.
    pub(super) fn may_be_in(&self, texts: &[u8]) -> bool {
        self.0.sift.as_ref().is_none_or(|sift| sift.is_match(texts))
    }
}

/// A word that a match contains.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    text: Vec<u8>,
    /// In any case, of ASCII letters.
    any_case: bool,
}

/// Finds any of the words.
fn sift(words: &[Word]) -> Option<Regex> {
    if words.is_empty() || words.iter().any(|word| word.text.len() < 2) {
        return None;
    }
    let mut pattern = String::new();
    for word in words {
        let bar = if pattern.is_empty() { "" } else { "|" };
        pattern.push_str(bar);
        pattern.push_str(if word.any_case { "(?i-u:" } else { "(?-u:" });
        for byte in &word.text {
            if byte.is_ascii_alphanumeric() {
                pattern.push(char::from(*byte));
            } else {
                pattern.push_str(&format!("\\x{byte:02x}"));
            }
        }
        pattern.push(')');
    }
    Regex::new(&pattern).ok()
}

/// Words of which every match contains at least one; `None`: unknown.
fn required(hir: &Hir) -> Option<Vec<Word>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(vec![Word {
            text: literal.0.to_vec(),
            any_case: false,
        }]),
        HirKind::Class(class) => letter(class).map(|letter| {
            vec![Word {
                text: vec![letter],
                any_case: true,
            }]
        }),
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub),
        HirKind::Concat(parts) => in_row(parts),
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(required(part)?);
            }
            (all.len() <= WORDS_MAX).then_some(all)
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// The best of what the parts of a row require: those sift most that are longest.
fn in_row(parts: &[Hir]) -> Option<Vec<Word>> {
    let mut best: Option<Vec<Word>> = None;
    let mut offer = |words: Option<Vec<Word>>| {
        let worth = |words: &[Word]| {
            let shortest = |count: fn(&Word) -> usize| words.iter().map(count).min().unwrap_or(0);
            (
                shortest(|word| triples(&word.text).len()),
                shortest(|word| word.text.len()),
            )
        };
        if let Some(words) = words
            && best.as_ref().is_none_or(|best| worth(best) < worth(&words))
        {
            best = Some(words);
        }
    };
    let mut run = Word {
        text: Vec::new(),
        any_case: false,
    };
    for part in parts {
        match part.kind() {
            HirKind::Literal(literal) => run.text.extend_from_slice(&literal.0),
            // What takes no room doesn't part letters.
            HirKind::Look(_) | HirKind::Empty => {}
            HirKind::Class(class) if letter(class).is_some() => {
                run.text.extend(letter(class));
                run.any_case = true;
            }
            _ => {
                offer(take(&mut run));
                offer(required(part));
            }
        }
    }
    offer(take(&mut run));
    best
}

fn take(run: &mut Word) -> Option<Vec<Word>> {
    let word = std::mem::replace(
        run,
        Word {
            text: Vec::new(),
            any_case: false,
        },
    );
    (!word.text.is_empty()).then(|| vec![word])
}

/// The letter of a class that is an ASCII letter in both cases and nothing else.
fn letter(class: &Class) -> Option<u8> {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Unicode(class) => class.iter().map(|r| (r.start() as u32, r.end() as u32)).collect(),
        Class::Bytes(class) => class.iter().map(|r| (r.start().into(), r.end().into())).collect(),
    };
    match ranges[..] {
        [(a, b), (c, d)] if a == b && c == d && a | 0x20 == c && c < 128 => {
            u8::try_from(c).ok().filter(u8::is_ascii_alphabetic)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pattern: &str) -> Vec<String> {
        let hir = regex_syntax::parse(pattern).unwrap();
        let name = |word: Word| {
            let text = String::from_utf8(word.text).unwrap();
            if word.any_case { format!("{text}/i") } else { text }
        };
        required(&hir).unwrap_or_default().into_iter().map(name).collect()
    }

    #[test]
    fn what_a_match_contains() {
        assert_eq!(words("CUDA out of memory"), ["CUDA out of memory"]);
        assert_eq!(words(r"^step \d+ failed$"), [" failed"]);
        assert_eq!(words("(foo|quux)bar+"), ["foo", "quux"]);
        assert_eq!(words("timeout|refused"), ["timeout", "refused"]);
        assert_eq!(words("(?i)cuda"), ["cuda/i"]);
        assert_eq!(words(r"a(bc)?d.*(xyzzy)+"), ["xyzzy"]);
        assert_eq!(words(r"\d+|loss"), Vec::<String>::new());
        assert_eq!(words("x*"), Vec::<String>::new());
        assert_eq!(words(""), Vec::<String>::new());
        // The long s belongs to the class, and is no ASCII letter.
        assert_eq!(words("(?i)loss"), ["lo/i"]);
    }

    #[test]
    fn a_wrong_pattern_is_pointed_at() {
        let at = |pattern| Search::new(pattern).unwrap_err().at;
        assert_eq!(at("loss (nan"), Some(5..6));
        assert_eq!(at("a{3,1}"), Some(1..6));
        assert_eq!(at("[z-a]"), Some(1..4));
        assert_eq!(at("*"), Some(0..0));
        assert_eq!(at(r"(a)\1"), Some(3..5));
        let large = Search::new("((a{100}){100}){100}").unwrap_err();
        assert_eq!((large.reason.as_str(), large.at), ("too large when compiled", None));
        assert!(Search::new(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn bytes_that_are_no_utf8_are_searched() {
        assert!(Search::new("h.*lo").unwrap().is_match(b"\xff hello \xfelo"));
        assert!(Search::new(r"(?-u)\xfe").unwrap().is_match(b"a \xfe"));
        assert!(Search::new("naïve").unwrap().may_be_in("not naïve".as_bytes()));
    }

    proptest::proptest! {
        /// Sifting never drops a match, whatever the pattern.
        #[test]
        fn sifting_keeps_every_match(
            pattern in r"(\(\?i\))?([abkKs]{1,4}|\(ab\|bc\)|[abs]\+|\.|\[ab\]|b\*|\\b|\^|ca\?){1,5}",
            lines in proptest::collection::vec("[abcksABCKS ſK]{0,12}", 0..12),
        ) {
            let Ok(search) = Search::new(&pattern) else { return Ok(()) };
            let texts: String = lines.concat();
            let filter = super::super::words::Words::new().filter(texts.as_bytes()).unwrap();
            if lines.iter().any(|line| search.is_match(line.as_bytes())) {
                proptest::prop_assert!(search.may_be_in(texts.as_bytes()));
                let holds = |groups: &[u16]| super::super::words::may_hold(&filter, groups);
                proptest::prop_assert!(search.may_match(holds));
            }
        }
    }
}
