//! The words of the grammar as a set.

use std::{collections::HashSet, sync::LazyLock};

use super::words;

static WORDS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let tables = words::ALL.iter().flat_map(|(_, forms)| forms.iter());
    let numbers = words::NUMBERS.iter().map(|(name, _)| name);
    tables.chain(numbers).flat_map(|form| form.split(' ')).collect()
});

/// Whether this, in lower case, is a word of the grammar: as a name it needs quotes.
pub(super) fn is_word(text: &str) -> bool {
    WORDS.contains(text)
}

/// The one word of these that is a single slip away: a letter too many, too few, another, or two swapped. Short words
/// are too near to one another.
pub(super) fn slip<'a>(word: &str, of: &[&'a str]) -> Option<&'a str> {
    const SHORTEST: usize = 4;
    const LONGEST: usize = 24;
    if !(SHORTEST..=LONGEST).contains(&word.len())
        || !word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-' || b == b'_')
        || is_word(word)
    {
        return None;
    }
    let mut near = of
        .iter()
        .filter(|other| other.len() >= SHORTEST && other.len().abs_diff(word.len()) <= 1)
        .filter(|other| strsim::osa_distance(word, other) == 1);
    let first = *near.next()?;
    // A plural beside its singular is no doubt about what is meant.
    near.all(|other| {
        *other == first || other.strip_suffix('s') == Some(first) || first.strip_suffix('s') == Some(other)
    })
    .then_some(first)
}

/// The word of these that is most like this one, where it is like it at all: at most a third of it is other.
pub(super) fn nearest<'a>(word: &str, of: &[&'a str]) -> Option<&'a str> {
    if !(4..=30).contains(&word.len()) {
        return None;
    }
    of.iter()
        .filter(|other| other.len() > 2 && **other != word)
        // The distance is at least the difference of the lengths.
        .filter(|other| other.len().abs_diff(word.len()) * 3 <= word.len().max(other.len()))
        .map(|other| (strsim::osa_distance(word, other), *other))
        .filter(|(distance, other)| {
            *distance == 1 || distance * 3 <= word.len().max(other.len()) && word.as_bytes()[0] == other.as_bytes()[0]
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}
