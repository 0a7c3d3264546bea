//! Names and labels in memory: who a series is, and which series a query means.
//!
//! Some 150 bytes a series: its label set as numbers of strings, one place in a hash table, and four bytes in the
//! posting list of each of its labels.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::matcher::Test;
use super::symbols::{Symbol, Symbols};
use super::{Labels, Matcher, MetricError, NAME_LABEL};

/// Most labels of a series, and most bytes of its name and labels together.
const LABELS_MAX: usize = 64;
const BYTES_MAX: usize = 16 << 10;

#[derive(Default)]
pub(super) struct Index {
    symbols: Symbols,
    /// By series: name, then label names and values in turn, sorted by label name. `None` where free.
    rows: Vec<Option<Box<[Symbol]>>>,
    free: Vec<u32>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Label name to value to series, ascending. The metric's name is at [`NAME_LABEL`].
    postings: HashMap<Symbol, HashMap<Symbol, Vec<u32>>>,
    /// The number of [`NAME_LABEL`], once there is a series.
    names: Option<Symbol>,
    live: usize,
}

/// Checks a name and labels, and puts the labels in order without the empty ones.
pub(super) fn normal<'a>(name: &str, labels: &[(&'a str, &'a str)]) -> Result<Vec<(&'a str, &'a str)>, MetricError> {
    let mut sorted: Vec<(&str, &str)> = labels.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
    sorted.sort_unstable();
    let bytes: usize = sorted.iter().map(|(label, value)| label.len() + value.len()).sum();
    let wrong = if name.is_empty() {
        "it has no name"
    } else if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        "a label is given twice"
    } else if sorted.iter().any(|(label, _)| label.is_empty() || *label == NAME_LABEL) {
        "a label has no name, or the name's own"
    } else if sorted.len() > LABELS_MAX {
        "more than 64 labels"
    } else if name.len() + bytes > BYTES_MAX {
        "more than 16 KiB of labels"
    } else {
        return Ok(sorted);
    };
    Err(MetricError::InvalidSeries(wrong))
}

impl Index {
    /// Series known.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// One above the highest number in use.
    pub(super) fn slots(&self) -> usize {
        self.rows.len()
    }

    fn hash_row(hasher: &DefaultHashBuilder, row: impl IntoIterator<Item = Symbol>) -> u64 {
        let mut state = hasher.build_hasher();
        row.into_iter().for_each(|symbol| state.write_u32(symbol));
        state.finish()
    }

    /// The series of a normal name and labels.
    pub(super) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<u32> {
        let mut row = Vec::with_capacity(1 + labels.len() * 2);
        row.push(self.symbols.find(name)?);
        for (label, value) in labels {
            row.push(self.symbols.find(label)?);
            row.push(self.symbols.find(value)?);
        }
        let hash = Self::hash_row(&self.hasher, row.iter().copied());
        let is = |&at: &u32| self.rows[at as usize].as_deref() == Some(&row);
        self.table.find(hash, is).copied()
    }

    /// Adds a series that isn't there, at `place` or wherever there is room.
    ///
    /// `None` when the place is taken, or there are 2^32 series.
    pub(super) fn add(&mut self, place: Option<u32>, name: &str, labels: &[(&str, &str)]) -> Option<u32> {
        let at = match place {
            Some(at) => {
                while self.rows.len() <= at as usize {
                    self.free.push(self.rows.len() as u32);
                    self.rows.push(None);
                }
                // Stays in the free list; `pop` below looks.
                at
            }
            None => loop {
                match self.free.pop() {
                    Some(at) if self.rows[at as usize].is_some() => {}
                    Some(at) => break at,
                    None => {
                        let at = u32::try_from(self.rows.len()).ok().filter(|&at| at < u32::MAX)?;
                        self.rows.push(None);
                        break at;
                    }
                }
            },
        };
        if self.rows[at as usize].is_some() {
            return None;
        }
        let mut row = Vec::with_capacity(1 + labels.len() * 2);
        row.push(self.symbols.hold(name));
        for (label, value) in labels {
            row.push(self.symbols.hold(label));
            row.push(self.symbols.hold(value));
        }
        let row = row.into_boxed_slice();
        let names = *self.names.get_or_insert_with(|| self.symbols.hold(NAME_LABEL));
        let mut post = |label: Symbol, value: Symbol| {
            let list = self.postings.entry(label).or_default().entry(value).or_default();
            let place = list.partition_point(|&other| other < at);
            list.insert(place, at);
        };
        post(names, row[0]);
        for pair in row[1..].chunks_exact(2) {
            post(pair[0], pair[1]);
        }
        let (rows, hasher) = (&self.rows, &self.hasher);
        let hash = Self::hash_row(hasher, row.iter().copied());
        self.table.insert_unique(hash, at, |&at| {
            Self::hash_row(hasher, rows[at as usize].iter().flat_map(|row| row.iter().copied()))
        });
        self.rows[at as usize] = Some(row);
        self.live += 1;
        Some(at)
    }

    /// Forgets series.
    pub(super) fn remove(&mut self, gone: &[u32]) {
        let names = self.names;
        let mut touched: Vec<(Symbol, Symbol)> = Vec::new();
        for &at in gone {
            let Some(row) = self.rows[at as usize].take() else {
                continue;
            };
            let hash = Self::hash_row(&self.hasher, row.iter().copied());
            if let Ok(entry) = self.table.find_entry(hash, |&other| other == at) {
                entry.remove();
            }
            touched.extend(names.map(|names| (names, row[0])));
            touched.extend(row[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])));
            row.iter().for_each(|&symbol| self.symbols.release(symbol));
            self.free.push(at);
            self.live -= 1;
        }
        touched.sort_unstable();
        touched.dedup();
        for (label, value) in touched {
            let Some(values) = self.postings.get_mut(&label) else {
                continue;
            };
            if let Some(list) = values.get_mut(&value) {
                list.retain(|&at| self.rows[at as usize].is_some());
                if list.is_empty() {
                    values.remove(&value);
                }
            }
            if values.is_empty() {
                self.postings.remove(&label);
            }
        }
    }

    /// A series' name and labels as stored; `None` where there is none.
    pub(super) fn parts(&self, at: u32) -> Option<(&str, impl Iterator<Item = (&str, &str)>)> {
        let row = self.rows.get(at as usize)?.as_deref()?;
        let text = |symbol: Symbol| self.symbols.text(symbol);
        let labels = row[1..].chunks_exact(2).map(move |pair| (text(pair[0]), text(pair[1])));
        Some((text(row[0]), labels))
    }

    pub(super) fn labels(&self, at: u32) -> Option<Labels> {
        let (name, labels) = self.parts(at)?;
        Some(Labels {
            name: name.to_owned(),
            labels: labels
                .map(|(label, value)| (label.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    /// Series that pass all matchers, ascending.
    pub(super) fn select(&self, matchers: &[Matcher]) -> Vec<u32> {
        let mut found: Option<Vec<u32>> = None;
        // Those that name values first: they narrow.
        let (narrow, wide): (Vec<_>, Vec<_>) = matchers.iter().partition(|matcher| !matcher.matches(""));
        for matcher in narrow {
            let list = self.having(matcher);
            found = Some(match found {
                None => list,
                Some(before) => intersect(&before, &list),
            });
        }
        let mut found = found.unwrap_or_else(|| {
            let live = |at: &u32| self.rows[*at as usize].is_some();
            (0..self.rows.len() as u32).filter(live).collect()
        });
        for matcher in wide {
            // Passes when absent: take away those whose value fails.
            let failing = self.lists(&matcher.label, |value| !matcher.matches(value));
            if !failing.is_empty() {
                found.retain(|at| failing.binary_search(at).is_err());
            }
        }
        found
    }

    fn having(&self, matcher: &Matcher) -> Vec<u32> {
        if let Test::Eq(value) = &matcher.test {
            let list = || {
                let label = self.symbols.find(&matcher.label)?;
                self.postings.get(&label)?.get(&self.symbols.find(value)?)
            };
            return list().cloned().unwrap_or_default();
        }
        self.lists(&matcher.label, |value| matcher.matches(value))
    }

    /// Series whose value of `label` is wanted, ascending.
    fn lists(&self, label: &str, wanted: impl Fn(&str) -> bool) -> Vec<u32> {
        let values = self.symbols.find(label).and_then(|label| self.postings.get(&label));
        let mut all: Vec<u32> = Vec::new();
        for (value, list) in values.into_iter().flatten() {
            if wanted(self.symbols.text(*value)) {
                all.extend_from_slice(list);
            }
        }
        all.sort_unstable();
        all
    }

    /// Label names in use (the metric's name not among them), sorted.
    pub(super) fn label_names(&self) -> Vec<String> {
        let texts = self.postings.keys().map(|&label| self.symbols.text(label));
        let mut names: Vec<String> = texts.filter(|text| *text != NAME_LABEL).map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    /// Values of a label with the number of series that have each, sorted.
    pub(super) fn label_values(&self, label: &str) -> Vec<(String, u64)> {
        let values = self.symbols.find(label).and_then(|label| self.postings.get(&label));
        let counted = values.into_iter().flatten();
        let mut values: Vec<(String, u64)> = counted
            .map(|(value, list)| (self.symbols.text(*value).to_owned(), list.len() as u64))
            .collect();
        values.sort_unstable();
        values
    }

    /// How many series have this value.
    pub(super) fn count(&self, label: &str, value: &str) -> u64 {
        let list = || {
            let label = self.symbols.find(label)?;
            self.postings.get(&label)?.get(&self.symbols.find(value)?)
        };
        list().map_or(0, |list| list.len() as u64)
    }
}

/// What both ascending lists hold.
fn intersect(a: &[u32], b: &[u32]) -> Vec<u32> {
    let (short, mut long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let mut both = Vec::with_capacity(short.len());
    for &at in short {
        long = &long[long.partition_point(|&other| other < at)..];
        if long.first() == Some(&at) {
            both.push(at);
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let mut index = Index::default();
        for node in ["a", "b", "c"] {
            for gpu in ["0", "1"] {
                index.add(None, "temp", &[("gpu", gpu), ("node", node)]).unwrap();
            }
            index.add(None, "load", &[("node", node)]).unwrap();
        }
        index
    }

    #[test]
    fn matchers_select() {
        let index = index();
        let select = |matchers: &[Matcher]| index.select(matchers);
        assert_eq!(select(&[Matcher::name("temp"), Matcher::eq("node", "b")]), [3, 4]);
        assert_eq!(select(&[Matcher::eq("node", "b"), Matcher::eq("gpu", "")]), [5]);
        assert_eq!(
            select(&[Matcher::ne("gpu", "0"), Matcher::re("node", "a|b").unwrap()]),
            [1, 2, 4, 5]
        );
        assert_eq!(select(&[Matcher::nre("node", "a|b").unwrap()]), [6, 7, 8]);
        assert_eq!(select(&[Matcher::name("nothing")]), [0u32; 0]);
        assert_eq!(select(&[Matcher::ne("gpu", "")]), [0, 1, 3, 4, 6, 7]);
        assert_eq!(select(&[]).len(), 9);
    }

    #[test]
    fn removed_series_are_gone_and_their_places_taken_again() {
        let mut index = index();
        index.remove(&[0, 1, 2]);
        assert_eq!(index.len(), 6);
        assert_eq!(index.label_values("node"), [("b".to_owned(), 3), ("c".to_owned(), 3)]);
        assert_eq!(index.find("load", &[("node", "a")]), None);
        assert!(index.add(None, "load", &[("node", "d")]).unwrap() < 3);
        assert_eq!(index.find("load", &[("node", "b")]), Some(5));
        assert_eq!(index.label_names(), ["gpu", "node"]);
    }
}
