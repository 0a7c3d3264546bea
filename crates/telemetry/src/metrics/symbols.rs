//! Label names and values, each held once.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Number of a string.
pub(super) type Symbol = u32;

#[derive(Default)]
pub(super) struct Symbols {
    texts: Vec<(Box<str>, u32)>,
    table: HashTable<Symbol>,
    free: Vec<Symbol>,
    hasher: DefaultHashBuilder,
}

impl Symbols {
    pub(super) fn find(&self, text: &str) -> Option<Symbol> {
        let hash = self.hasher.hash_one(text);
        self.table.find(hash, |&at| self.text(at) == text).copied()
    }

    /// The number of `text`, with one more holder.
    pub(super) fn hold(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.find(text) {
            self.texts[symbol as usize].1 += 1;
            return symbol;
        }
        let entry = (Box::from(text), 1);
        let symbol = match self.free.pop() {
            Some(symbol) => {
                self.texts[symbol as usize] = entry;
                symbol
            }
            None => {
                self.texts.push(entry);
                (self.texts.len() - 1) as Symbol
            }
        };
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.table.insert_unique(hasher.hash_one(text), symbol, |&at| {
            hasher.hash_one(&*texts[at as usize].0)
        });
        symbol
    }

    /// One holder less.
    pub(super) fn release(&mut self, symbol: Symbol) {
        let (text, holders) = &mut self.texts[symbol as usize];
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&**text);
        if let Ok(entry) = self.table.find_entry(hash, |&at| at == symbol) {
            entry.remove();
        }
        *text = Box::from("");
        self.free.push(symbol);
    }

    pub(super) fn text(&self, symbol: Symbol) -> &str {
        &self.texts[symbol as usize].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_symbol_is_given_again() {
        let mut symbols = Symbols::default();
        let (a, b) = (symbols.hold("a"), symbols.hold("b"));
        assert_eq!(symbols.hold("a"), a);
        symbols.release(a);
        assert_eq!(symbols.find("a"), Some(a));
        symbols.release(a);
        assert_eq!(symbols.find("a"), None);
        assert_eq!((symbols.hold("c"), symbols.text(a), symbols.text(b)), (a, "c", "b"));
    }
}
