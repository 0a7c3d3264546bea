//! The words of the grammar as a set.

use std::{collections::HashMap, sync::LazyLock};

use super::words::{self, Forms};

/// A word of the grammar.
#[derive(Debug)]
pub(super) struct Known {
    /// Its number among all.
    number: usize,
    /// The tables with a form that begins with it.
    begins: Tables,
    /// Whether it is nothing else: no number, no value, no name.
    plain: bool,
}

impl Known {
    /// Whether one of these forms begins with it.
    pub fn begins(&self, forms: Forms) -> bool {
        let place = forms.place();
        self.begins.0[place / 64] & 1 << (place % 64) != 0
    }

    /// Whether it can't begin what begins with a form of these tables, or with a number, a value or a name.
    pub fn begins_none(&self, tables: &Tables) -> bool {
        self.plain && self.begins.0.iter().zip(&tables.0).all(|(a, b)| a & b == 0)
    }
}

/// Blocks of 64 bits that hold a bit for each table.
const BLOCKS: usize = words::ALL.len().div_ceil(64);

/// A set of tables: one bit each, by their places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables([u64; BLOCKS]);

impl Tables {
    /// These.
    pub const fn of(all: &[Forms]) -> Self {
        let mut blocks = [0; BLOCKS];
        let mut i = 0;
        while i < all.len() {
            let place = all[i].place();
            blocks[place / 64] |= 1 << (place % 64);
            i += 1;
        }
        Self(blocks)
    }
}

/// A form of a table, its words by their numbers.
#[derive(Debug)]
pub(super) struct Form {
    /// As it stands in the table.
    pub text: &'static str,
    /// At least one.
    pub words: Box<[usize]>,
}

impl Form {
    /// How many of its words these begin with.
    pub fn common<'k>(&self, all: impl Iterator<Item = Option<&'k Known>>) -> usize {
        let same = |(number, known): &(&usize, Option<&Known>)| known.is_some_and(|known| known.number == **number);
        self.words.iter().zip(all).take_while(same).count()
    }

    /// Its word at this place, from 0.
    pub fn word(&self, place: usize) -> &'static str {
        self.text.split(' ').nth(place).unwrap_or(self.text)
    }
}

/// All words and, by the places of their tables, all forms.
#[derive(Debug, Default)]
struct Vocabulary {
    words: HashMap<&'static str, Known>,
    forms: Vec<Vec<Form>>,
}

impl Vocabulary {
    fn known(&mut self, word: &'static str) -> &mut Known {
        let number = self.words.len();
        let letters = |c: u8| c.is_ascii_alphabetic() || matches!(c, b'-' | b'\'' | b'.' | b'_');
        self.words.entry(word).or_insert_with(|| Known {
            number,
            begins: Tables::of(&[]),
            plain: word.bytes().all(letters) && words::NUMBERS.iter().all(|(name, _)| *name != word),
        })
    }
}

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    let mut all = Vocabulary::default();
    for (name, _) in words::NUMBERS {
        all.known(name);
    }
    for (_, forms) in words::ALL {
        let place = forms.place();
        let mut table = Vec::with_capacity(forms.len());
        for text in forms.all() {
            let words: Box<[usize]> = text.split(' ').map(|word| all.known(word).number).collect();
            let first = text.split(' ').next().unwrap_or(text);
            all.known(first).begins.0[place / 64] |= 1 << (place % 64);
            table.push(Form { text, words });
        }
        all.forms.push(table);
    }
    all
});

/// The word of the grammar that this, in lower case, is.
pub(super) fn known(text: &str) -> Option<&'static Known> {
    VOCABULARY.words.get(text)
}

/// A table's forms.
pub(super) fn forms(of: Forms) -> &'static [Form] {
    &VOCABULARY.forms[of.place()]
}

/// Whether this, in lower case, is a word of the grammar: as a name it needs quotes.
pub(super) fn is_word(text: &str) -> bool {
    known(text).is_some()
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
