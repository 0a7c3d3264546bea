//! A filter over the words of a block: which groups of three letters it holds.
//!
//! Letters only, in lower case and ASCII: numbers and ids are what makes lines differ, and would fill any filter, while
//! a block has some hundred groups of letters. A search for `out of memory` asks for `out`, `mem`, `emo`, `mor` and
//! `ory`, and finds the word also within others. The filter errs to one side only: what it denies isn't there.

/// Groups of three letters, five bits each.
const GROUPS: usize = 1 << 15;
/// A block with more different groups is no text: a filter over it would hold everything.
const GROUPS_MAX: usize = 3000;
/// Bits of a filter for each group, of which two are set: a tenth of the groups that aren't there seem to be, so a
/// search of four groups unpacks one block in some thousand for nothing.
const BITS: usize = 5;

/// The code of a letter, 1 to 26; 0 for any other byte.
const fn code(byte: u8) -> u8 {
    if byte.is_ascii_alphabetic() { byte & 0x1f } else { 0 }
}

const CODES: [u8; 256] = {
    let mut codes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        codes[byte] = code(byte as u8);
        byte += 1;
    }
    codes
};

/// Whether a group has three letters.
fn is_full(group: usize) -> bool {
    group & 0x1f != 0 && group & 0x3e0 != 0 && group & 0x7c00 != 0
}

/// Makes filters; keeps its work space.
pub(super) struct Words {
    seen: Vec<u8>,
}

impl Words {
    pub(super) fn new() -> Self {
        Self { seen: vec![0; GROUPS] }
    }

    /// The filter over these texts; `None` where it would be of no use.
    pub(super) fn filter(&mut self, texts: &[u8]) -> Option<Vec<u8>> {
        self.seen.fill(0);
        let mut group = 0;
        for &byte in texts {
            group = (group << 5 | usize::from(CODES[usize::from(byte)])) & (GROUPS - 1);
            self.seen[group] = 1;
        }
        let groups: Vec<u16> = self
            .seen
            .chunks_exact(32)
            .enumerate()
            .filter(|(_, seen)| **seen != [0; 32])
            .flat_map(|(high, seen)| {
                let low = (0..32).filter(|low| seen[*low] != 0);
                low.map(move |low| high * 32 + low)
            })
            .filter(|group| is_full(*group))
            .map(|group| group as u16)
            .collect();
        if groups.len() > GROUPS_MAX {
            return None;
        }
        let mut filter = vec![0; (groups.len() * BITS).div_ceil(8).max(1)];
        for group in groups {
            for bit in bits(group, filter.len()) {
                filter[bit / 8] |= 1 << (bit % 8);
            }
        }
        Some(filter)
    }
}

/// The two bits of a group in a filter of so many bytes.
fn bits(group: u16, bytes: usize) -> [usize; 2] {
    // Fibonacci hashing: the high halves are well mixed.
    let hash = u64::from(group).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let place = |part: u64| (((part & 0xffff_ffff) * (bytes as u64 * 8)) >> 32) as usize;
    [
        place(hash >> 32),
        place(hash.rotate_left(23).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32),
    ]
}

/// The groups of three letters in a text.
pub(super) fn triples(text: &[u8]) -> Vec<u16> {
    let mut groups: Vec<u16> = text
        .windows(3)
        .map(|w| {
            w.iter()
                .fold(0, |group, byte| group << 5 | usize::from(CODES[usize::from(*byte)]))
        })
        .filter(|group| is_full(*group))
        .map(|group| group as u16)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Whether the texts of this filter may hold all of the groups.
pub(super) fn may_hold(filter: &[u8], groups: &[u16]) -> bool {
    groups.iter().all(|group| {
        bits(*group, filter.len())
            .iter()
            .all(|bit| filter[bit / 8] & 1 << (bit % 8) != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_never_denied_and_the_rest_mostly_is() {
        let text = "step 12 loss 0.25 lr 3e-4 grad_norm 1.5 tokens/s 12000 mem 71.2 GiB eta 1:02:03 CUDA out of memory";
        let filter = Words::new().filter(text.as_bytes()).unwrap();
        for word in [
            "loss",
            "LOSS",
            "grad_norm",
            "okens",
            "cuda out of memory",
            "12",
            "",
            "a1b",
        ] {
            assert!(may_hold(&filter, &triples(word.as_bytes())), "{word}");
        }
        let others = [
            "traceback",
            "exception",
            "ncclInternalError",
            "watchdog",
            "timeout",
            "illegal",
            "assert",
            "failed",
            "checkpoint",
            "validation",
            "connection",
            "refused",
        ];
        let denied = others
            .iter()
            .filter(|word| !may_hold(&filter, &triples(word.as_bytes())));
        assert!(denied.count() >= 11);
        // A small filter: some hundred groups are some hundred bytes.
        assert!(filter.len() < 32);
    }

    #[test]
    fn noise_has_no_filter() {
        let mut x = 1u64;
        let mut letter = || {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            b'a' + ((x >> 40) % 26) as u8
        };
        let noise: Vec<u8> = (0..200_000).map(|_| letter()).collect();
        assert_eq!(Words::new().filter(&noise), None);
    }
}
