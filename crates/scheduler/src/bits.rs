//! Bit sets: over the nodes of a kind, and (as plain `u64`) over the GPUs of a node.

/// A growable set of small numbers that keeps count of its members and can
/// shift when a number is inserted or removed in the middle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: u32,
}

impl Bits {
    pub(crate) const EMPTY: Self = Self {
        words: Vec::new(),
        len: 0,
    };

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn contains(&self, n: u32) -> bool {
        self.words
            .get(n as usize / 64)
            .is_some_and(|word| word >> (n % 64) & 1 == 1)
    }

    pub(crate) fn set(&mut self, n: u32, on: bool) {
        let (at, bit) = (n as usize / 64, 1u64 << (n % 64));
        if on && at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let Some(word) = self.words.get_mut(at) else {
            return;
        };
        let was = *word & bit != 0;
        if on && !was {
            *word |= bit;
            self.len += 1;
        } else if !on && was {
            *word &= !bit;
            self.len -= 1;
        }
    }

    /// Makes room at `n`: members from `n` on become one greater.
    pub(crate) fn open(&mut self, n: u32) {
        let at = n as usize / 64;
        if at >= self.words.len() {
            return;
        }
        let mut carry = self.words.last().is_some_and(|word| word >> 63 == 1);
        if carry {
            self.words.push(0);
        }
        let below = (1u64 << (n % 64)) - 1;
        let first = self.words[at];
        carry = first >> 63 == 1;
        self.words[at] = (first & below) | ((first & !below) << 1);
        for word in &mut self.words[at + 1..] {
            let next = *word >> 63 == 1;
            *word = *word << 1 | u64::from(carry);
            carry = next;
        }
    }

    /// Drops `n`: members above `n` become one smaller.
    pub(crate) fn close(&mut self, n: u32) {
        self.set(n, false);
        let at = n as usize / 64;
        if at >= self.words.len() {
            return;
        }
        let below = (1u64 << (n % 64)) - 1;
        let first = self.words[at];
        self.words[at] = (first & below) | ((first >> 1) & !below);
        for i in at + 1..self.words.len() {
            let low = self.words[i] & 1;
            self.words[i - 1] |= low << 63;
            self.words[i] >>= 1;
        }
    }

    /// Word `i`, zero past the end: 64 members at a time.
    pub(crate) fn word(&self, i: usize) -> u64 {
        self.words.get(i).copied().unwrap_or(0)
    }

    /// How many words hold all members.
    pub(crate) fn words(&self) -> usize {
        self.words.len()
    }

    /// Members in ascending order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words
            .iter()
            .enumerate()
            .flat_map(|(i, &word)| ones(word).map(move |bit| u32::try_from(i).unwrap_or(u32::MAX) * 64 + bit))
    }
}

/// The positions of the ones in `mask`, ascending.
pub(crate) fn ones(mut mask: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let bit = mask.trailing_zeros();
            mask &= mask - 1;
            bit
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_sorted_list(steps in prop::collection::vec((0u8..4, 0u32..200), 0..80)) {
            let mut bits = Bits::default();
            let mut model: std::collections::BTreeSet<u32> = Default::default();
            for (what, n) in steps {
                match what {
                    0 => { bits.set(n, true); model.insert(n); }
                    1 => { bits.set(n, false); model.remove(&n); }
                    2 => {
                        bits.open(n);
                        model = model.into_iter().map(|m| if m >= n { m + 1 } else { m }).collect();
                    }
                    _ => {
                        bits.close(n);
                        model = model.into_iter().filter(|&m| m != n)
                            .map(|m| if m > n { m - 1 } else { m }).collect();
                    }
                }
                prop_assert_eq!(bits.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(bits.len() as usize, model.len());
                prop_assert!(model.iter().all(|&m| bits.contains(m)));
            }
        }
    }
}
