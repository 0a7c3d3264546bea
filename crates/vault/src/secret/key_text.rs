//! A master key as a line of text, as key files hold it and key commands print it.
//!
//! The line is `clawbernetes-master-key-1:` and the base64 of the key and a checksum. With the length and the checksum
//! a file that lost its end or was damaged is told from the file of another vault.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::MasterKey;
use crate::bytes::{cleanly, unhex};

/// What a key's line begins with. The number is the format's.
const PREFIX: &str = "clawbernetes-master-key-1:";

/// What the checksum is a hash of, before the key.
const CHECK_LABEL: &[u8] = b"clawbernetes/vault/1/key-text\0";

/// Bytes of the checksum. Enough to notice damage; the vault's lock tells whether the key is the right one.
const CHECK_BYTES: usize = 4;

/// More bytes than any form of a key has, with white space around it.
pub(super) const MAX_BYTES: usize = 256;

/// A text holds no key. Never says what the text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// There is no text.
    #[error("it is empty")]
    Empty,
    /// It is longer than a key.
    #[error("it is longer than a key")]
    TooLong,
    /// It doesn't begin as a key does.
    #[error("it doesn't begin with '{prefix}'", prefix = PREFIX)]
    Prefix,
    /// It has too few or too many characters, or ones that can't be there.
    #[error("it is cut short or damaged: {characters} characters where base64 of {expected} was expected")]
    Damaged {
        /// How many follow the prefix.
        characters: usize,
        /// How many should.
        expected: usize,
    },
    /// The checksum is another's.
    #[error("it is damaged: the checksum doesn't fit")]
    Checksum,
    /// Neither a key's line nor 32 bytes in hex or base64.
    #[error("it is neither '{prefix}…' nor 32 bytes as 64 hex digits or as base64", prefix = PREFIX)]
    Unknown,
}

fn checksum(key: &[u8; 32]) -> [u8; CHECK_BYTES] {
    let mut sha = Sha256::new();
    sha.update(CHECK_LABEL);
    sha.update(key);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&sha.finalize()[..CHECK_BYTES]);
    check
}

/// A key's line, with its end.
pub(super) fn write(key: &MasterKey) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 32 + CHECK_BYTES]);
    bytes[..32].copy_from_slice(key.expose());
    bytes[32..].copy_from_slice(&checksum(key.expose()));
    // Room for all of it at once: a string that grows leaves copies behind.
    let mut line = Zeroizing::new(String::with_capacity(MAX_BYTES));
    line.push_str(PREFIX);
    cleanly(|| STANDARD.encode_string(bytes.as_slice(), &mut line));
    line.push('\n');
    line
}

/// Reads a key's line.
pub(super) fn read(text: &[u8]) -> Result<MasterKey, KeyTextError> {
    let text = trim(text)?;
    let digits = text.strip_prefix(PREFIX.as_bytes()).ok_or(KeyTextError::Prefix)?;
    let damaged = KeyTextError::Damaged {
        characters: digits.len(),
        expected: (32 + CHECK_BYTES) / 3 * 4,
    };
    let mut bytes = Zeroizing::new([0; 32 + CHECK_BYTES]);
    unbase64(digits, &mut *bytes).ok_or(damaged)?;
    MasterKey::fill(|key| {
        key.copy_from_slice(&bytes[..32]);
        if checksum(key) == bytes[32..] {
            Ok(())
        } else {
            Err(KeyTextError::Checksum)
        }
    })
}

/// Reads a key's line, or 32 bytes in hex or base64 as other programs print them.
pub(super) fn read_any(text: &[u8]) -> Result<MasterKey, KeyTextError> {
    let trimmed = trim(text)?;
    if trimmed.starts_with(PREFIX.as_bytes()) {
        return read(trimmed);
    }
    MasterKey::fill(|key| {
        unhex(trimmed, key)
            .or_else(|| unbase64(trimmed, key))
            .ok_or(KeyTextError::Unknown)
    })
}

fn trim(text: &[u8]) -> Result<&[u8], KeyTextError> {
    let text = text.trim_ascii();
    match text.len() {
        0 => Err(KeyTextError::Empty),
        1..=MAX_BYTES => Ok(text),
        _ => Err(KeyTextError::TooLong),
    }
}

/// Fills a buffer from base64 of just its length.
fn unbase64(text: &[u8], buffer: &mut [u8]) -> Option<()> {
    // Decoding works in whole groups of three bytes.
    let mut room = Zeroizing::new([0; MAX_BYTES]);
    let length = STANDARD.decode_slice(text, &mut *room).ok()?;
    let bytes = room.get(..length).filter(|bytes| bytes.len() == buffer.len())?;
    buffer.copy_from_slice(bytes);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let key = MasterKey::generate().unwrap();
        let line = write(&key);
        assert_eq!(line.len(), PREFIX.len() + 48 + 1);
        assert_eq!(read(line.as_bytes()).unwrap().expose(), key.expose());
        assert_eq!(read_any(line.as_bytes()).unwrap().id(), key.id());
    }

    #[test]
    fn every_cut_and_every_changed_character_is_noticed() {
        let line = write(&MasterKey::generate().unwrap());
        let line = line.trim_end().as_bytes();
        for end in 0..line.len() {
            assert!(read(&line[..end]).is_err(), "cut at {end}");
            assert!(read_any(&line[..end]).is_err(), "cut at {end}");
        }
        for place in 0..line.len() {
            let mut other = line.to_vec();
            other[place] = if other[place] == b'A' { b'B' } else { b'A' };
            assert!(read(&other).is_err(), "changed at {place}");
        }
        let longer = [line, b"AAAA"].concat();
        assert!(matches!(
            read(&longer),
            Err(KeyTextError::Damaged {
                characters: 52,
                expected: 48
            })
        ));
        let twice = [line, b"\n", line].concat();
        assert!(read(&twice).is_err());
    }

    #[test]
    fn a_cut_line_says_so() {
        let line = write(&MasterKey::of(3));
        let error = read(&line.as_bytes()[..40]).unwrap_err();
        assert_eq!(
            error,
            KeyTextError::Damaged {
                characters: 14,
                expected: 48
            }
        );
        assert_eq!(read(b" \n").unwrap_err(), KeyTextError::Empty);
        assert_eq!(read(b"password").unwrap_err(), KeyTextError::Prefix);
    }

    #[test]
    fn other_programs_forms_of_32_bytes_are_read() {
        let id = MasterKey::of(0xab).id();
        for text in ["ab".repeat(32), "AB".repeat(32) + "\r\n", STANDARD.encode([0xab; 32])] {
            assert_eq!(read_any(text.as_bytes()).unwrap().id(), id, "{text}");
        }
        for text in ["ab".repeat(31), STANDARD.encode([0xab; 33]), "x".repeat(300)] {
            assert!(read_any(text.as_bytes()).is_err(), "{text}");
        }
    }
}
