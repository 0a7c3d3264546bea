//! A chain of hashes over records in a row: what was changed, taken out, put in or moved is noticed, at its place.
//!
//! Each record's hash covers its own bytes, its number and the hash of the record before. So the hash of the last one,
//! the [`Head`], stands for all. Whoever can write the records can also write all hashes anew: a head that was noted
//! elsewhere is what tells then, and what shows that the end was cut off.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bytes::{hex, unhex};

/// What every hash begins with, so that it is of no other use. The number is the format's.
const LABEL: &[u8] = b"clawbernetes/audit/1\0";

/// The hash of a record and of all before it. As text, 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// A text is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash has 64 hex digits")]
pub struct NoHash;

impl FromStr for Hash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let mut bytes = [0; 32];
        unhex(text.as_bytes(), &mut bytes).ok_or(NoHash)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Hash {
    type Error = NoHash;

    fn try_from(text: String) -> Result<Self, NoHash> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

/// The end of a chain: the number and hash of its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    /// The last record's number; the first has 1. 0: there is none yet.
    pub sequence: u64,
    /// The last record's hash.
    pub hash: Hash,
}

impl Head {
    /// Before the first record.
    pub const START: Self = Self {
        sequence: 0,
        hash: Hash([0; 32]),
    };
}

/// Where a chain doesn't hold, and why: at the first such record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chain is broken at record {sequence}: {reason}")]
pub struct Broken {
    /// The number of the record that is wrong or missing.
    pub sequence: u64,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with a record of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Its bytes, its hash or a hash before aren't what was written.
    #[error("it was changed")]
    Altered,
    /// Another stands in its place: it was taken out, or something was put in or moved.
    #[error("record {found} stands in its place")]
    OutOfPlace {
        /// The number of the one that stands there.
        found: u64,
    },
    /// The chain ends before it, though it is known to go on.
    #[error("it is missing, and the chain is known to reach to {known}")]
    Truncated {
        /// The number of the last record that is known of.
        known: u64,
    },
    /// All hashes fit one another, and not the one that is known: the chain was written anew, up to here at least.
    #[error("it isn't the one that is known: the chain was written anew")]
    Rewritten,
}

/// The end of the chain once a record is appended to it.
///
/// `bytes` are the record as it will be read again: for JSON the text as stored, not another rendering of it.
#[must_use]
pub fn append(prev: &Head, bytes: &[u8]) -> Head {
    // The chain would have to grow for 500 years at a record a nanosecond.
    let sequence = prev.sequence.saturating_add(1);
    let mut sha = Sha256::new();
    sha.update(LABEL);
    sha.update(prev.hash.0);
    sha.update(sequence.to_be_bytes());
    sha.update((bytes.len() as u64).to_be_bytes());
    sha.update(bytes);
    let hash = Hash(sha.finalize().into());
    Head { sequence, hash }
}

/// Checks records against the chain: each with its number, its bytes and the hash kept with it, in order.
///
/// `start` is the end of the chain before the first of them: [`Head::START`], or, where older records were deleted, the
/// head that was noted when they were. Gives the end of the chain; an end that was cut off is only noticed by
/// [`verify_known`].
///
/// # Errors
/// The first record that doesn't fit.
pub fn verify<B: AsRef<[u8]>>(records: impl IntoIterator<Item = (u64, B, Hash)>, start: Head) -> Result<Head, Broken> {
    records.into_iter().try_fold(start, |head, record| link(&head, &record))
}

/// Checks records as [`verify`] does, and that the chain leads through a head that is known. It may go on from there.
/// A head before `start` is passed already, and tells nothing.
///
/// # Errors
/// The first record that doesn't fit or is missing. If all fit but the known head, the known head's.
pub fn verify_known<B: AsRef<[u8]>>(
    records: impl IntoIterator<Item = (u64, B, Hash)>,
    start: Head,
    known: &Head,
) -> Result<Head, Broken> {
    let broken = Broken {
        sequence: known.sequence,
        reason: Reason::Rewritten,
    };
    let rewritten = |head: &Head| (head.sequence == known.sequence && head.hash != known.hash).then_some(broken);
    if let Some(broken) = rewritten(&start) {
        return Err(broken);
    }
    let head = records.into_iter().try_fold(start, |head, record| {
        let head = link(&head, &record)?;
        rewritten(&head).map_or(Ok(head), Err)
    })?;
    if head.sequence < known.sequence {
        return Err(Broken {
            sequence: head.sequence + 1,
            reason: Reason::Truncated { known: known.sequence },
        });
    }
    Ok(head)
}

fn link<B: AsRef<[u8]>>(head: &Head, (sequence, bytes, hash): &(u64, B, Hash)) -> Result<Head, Broken> {
    let next = append(head, bytes.as_ref());
    let broken = |reason| {
        Err(Broken {
            sequence: next.sequence,
            reason,
        })
    };
    if *sequence != next.sequence {
        return broken(Reason::OutOfPlace { found: *sequence });
    }
    if *hash != next.hash {
        return broken(Reason::Altered);
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Record = (u64, Vec<u8>, Hash);

    fn chain(start: Head, texts: &[Vec<u8>]) -> (Vec<Record>, Head) {
        let mut head = start;
        let records = texts.iter().map(|text| {
            head = append(&head, text);
            (head.sequence, text.clone(), head.hash)
        });
        let records = records.collect();
        (records, head)
    }

    fn texts(count: u8) -> Vec<Vec<u8>> {
        (0..count)
            .map(|i| format!("{{\"actor\":\"alice\",\"n\":{i}}}").into_bytes())
            .collect()
    }

    fn reason(records: &[Record], known: &Head) -> (u64, Reason) {
        let broken = verify_known(records.iter().cloned(), Head::START, known).unwrap_err();
        (broken.sequence, broken.reason)
    }

    #[test]
    fn a_whole_chain_holds() {
        let (records, head) = chain(Head::START, &texts(9));
        assert_eq!(head.sequence, 9);
        assert_eq!(verify(records.clone(), Head::START), Ok(head));
        assert_eq!(verify_known(records.clone(), Head::START, &head), Ok(head));
        let (first, middle) = chain(Head::START, &texts(5));
        assert_eq!(verify(first, Head::START), Ok(middle));
        // It may have gone on since a head was noted.
        assert_eq!(verify_known(records, Head::START, &middle), Ok(head));
        assert_eq!(verify(Vec::<Record>::new(), head), Ok(head));
    }

    #[test]
    fn the_rest_of_a_pruned_chain_holds_from_the_head_that_was_noted() {
        let (records, head) = chain(Head::START, &texts(9));
        let (_, noted) = chain(Head::START, &texts(4));
        assert_eq!(verify_known(records[4..].to_vec(), noted, &head), Ok(head));
        // All of it gone.
        assert_eq!(verify_known(Vec::<Record>::new(), head, &head), Ok(head));
        // Not from another place.
        assert_eq!(
            verify(records[5..].to_vec(), noted),
            Err(Broken {
                sequence: 5,
                reason: Reason::OutOfPlace { found: 6 }
            })
        );
        let other = Head {
            sequence: 4,
            ..Head::START
        };
        assert_eq!(
            verify(records[4..].to_vec(), other),
            Err(Broken {
                sequence: 5,
                reason: Reason::Altered
            })
        );
    }

    #[test]
    fn what_was_taken_out_put_in_or_moved_is_named() {
        let (records, head) = chain(Head::START, &texts(9));
        let mut other = records.clone();
        other.remove(3);
        assert_eq!(reason(&other, &head), (4, Reason::OutOfPlace { found: 5 }));
        // Renumbered, too.
        for record in &mut other[3..] {
            record.0 -= 1;
        }
        assert_eq!(reason(&other, &head), (4, Reason::Altered));
        let mut other = records.clone();
        other.swap(3, 4);
        assert_eq!(reason(&other, &head), (4, Reason::OutOfPlace { found: 5 }));
        let mut other = records.clone();
        other.insert(3, records[2].clone());
        assert_eq!(reason(&other, &head), (4, Reason::OutOfPlace { found: 3 }));
        assert_eq!(reason(&records[..7], &head), (8, Reason::Truncated { known: 9 }));
        assert_eq!(reason(&[], &head), (1, Reason::Truncated { known: 9 }));
        // Cut off and written on.
        let (mut other, at_six) = chain(Head::START, &texts(6));
        other.extend(chain(at_six, &texts(5)).0);
        assert_eq!(reason(&other, &head), (9, Reason::Rewritten));
        let broken = verify(other, Head::START).map(|head| head.sequence);
        assert_eq!(broken, Ok(11), "without a known head nothing tells");
    }

    #[test]
    fn hashes_stay_the_same() {
        // Kept with records: another value would break every chain.
        let head = append(&append(&Head::START, b"one"), b"two");
        let expected = "46b9cb3649a8da80df66e0657fbcf6cecf460e625d70df6ed4d0e8a909dd41fa";
        assert_eq!(head.hash.to_string(), expected);
        let json = serde_json::to_string(&head).unwrap();
        assert_eq!(json, format!(r#"{{"sequence":2,"hash":"{}"}}"#, head.hash));
        assert_eq!(serde_json::from_str::<Head>(&json).unwrap(), head);
        assert!(serde_json::from_str::<Head>(r#"{"sequence":2,"hash":"00"}"#).is_err());
    }

    #[test]
    fn a_broken_chain_says_where() {
        let broken = Broken {
            sequence: 4,
            reason: Reason::OutOfPlace { found: 5 },
        };
        assert_eq!(
            broken.to_string(),
            "the chain is broken at record 4: record 5 stands in its place"
        );
    }

    proptest! {
        #[test]
        fn any_one_change_is_named_at_its_place(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..30),
            start in 0..1_000_000u64,
            place in any::<prop::sample::Index>(),
            byte in any::<prop::sample::Index>(),
            flip in 1..=255u8,
            what in 0..5,
        ) {
            let start = Head { sequence: start, ..append(&Head::START, &start.to_be_bytes()) };
            let (mut records, head) = chain(start, &texts);
            prop_assert_eq!(verify_known(records.clone(), start, &head), Ok(head));
            let place = place.index(records.len());
            let sequence = records[place].0;
            let record = &mut records[place];
            match what {
                0 if record.1.is_empty() => record.1.push(flip),
                0 => {
                    let byte = byte.index(record.1.len());
                    record.1[byte] ^= flip;
                }
                1 => record.0 ^= u64::from(flip) << (8 * byte.index(8)),
                2 => record.2.0[byte.index(32)] ^= flip,
                3 => record.1.insert(byte.index(record.1.len() + 1), flip),
                _ => drop(records.remove(place)),
            }
            let broken = verify_known(records, start, &head).unwrap_err();
            prop_assert_eq!(broken.sequence, sequence);
        }
    }
}
