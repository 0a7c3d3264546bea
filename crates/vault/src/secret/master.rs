//! The master key: what opens all the rest.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::ZeroizeOnDrop;

use crate::bytes::{NoRandom, cleanly, hex, random, unhex};

/// What a [`KeyId`] is a hash of, before the key.
const ID_LABEL: &[u8] = b"clawbernetes/vault/1/key-id\0";

/// Tells master keys apart: the first 8 bytes of a SHA-256 over a label and the key, in hex.
///
/// Safe to show and to keep: it says nothing of a key of 256 random bits. Of a key from a passphrase it allows guesses
/// to be tried, each at the full cost of the passphrase's derivation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A text is no [`KeyId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key's id has 16 hex digits")]
pub struct NoKeyId;

impl FromStr for KeyId {
    type Err = NoKeyId;

    fn from_str(text: &str) -> Result<Self, NoKeyId> {
        let mut bytes = [0; 8];
        unhex(text.as_bytes(), &mut bytes).ok_or(NoKeyId)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for KeyId {
    type Error = NoKeyId;

    fn try_from(text: String) -> Result<Self, NoKeyId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

/// 256 bits that seal data keys.
///
/// Wiped from memory when dropped. It can't be copied or serialised, and `Debug` shows only its id.
pub struct MasterKey {
    id: KeyId,
    bytes: SecretBox<[u8; 32]>,
}

impl MasterKey {
    /// A new random key.
    ///
    /// # Errors
    /// The operating system gave no random numbers.
    pub fn generate() -> Result<Self, NoRandom> {
        Self::fill(|bytes| random(bytes))
    }

    /// A key written in place, so that no other copy of it has to be made.
    pub(super) fn fill<E>(write: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        let mut bytes = SecretBox::new(Box::new([0; 32]));
        let mut id = [0; 8];
        cleanly(|| {
            write(bytes.expose_secret_mut())?;
            let mut sha = Sha256::new();
            sha.update(ID_LABEL);
            sha.update(bytes.expose_secret());
            id.copy_from_slice(&sha.finalize()[..8]);
            Ok(())
        })?;
        Ok(Self { id: KeyId(id), bytes })
    }

    /// What tells it from others; safe to show.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        self.bytes.expose_secret()
    }

    /// The same bytes as a key of a test's choice.
    #[cfg(test)]
    pub(super) fn of(byte: u8) -> Self {
        Self::fill::<()>(|bytes| {
            bytes.fill(byte);
            Ok(())
        })
        .unwrap()
    }
}

impl ZeroizeOnDrop for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_only_the_id() {
        let key = MasterKey::of(0xa7);
        assert_eq!(
            format!("{key:?} {key:#?}"),
            format!("MasterKey({0}) MasterKey({0})", key.id())
        );
        assert!(!format!("{key:?}").contains("a7a7"));
    }

    #[test]
    fn ids_tell_keys_apart_and_stay_the_same() {
        // Kept in records: another value would lock every vault.
        assert_eq!(MasterKey::of(1).id().to_string(), "76222398fd38ea53");
        assert_ne!(MasterKey::of(1).id(), MasterKey::of(2).id());
        assert_ne!(MasterKey::generate().unwrap().id(), MasterKey::generate().unwrap().id());
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = MasterKey::of(9).id();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<KeyId>(&json).unwrap(), id);
        for bad in ["\"\"", "\"00\"", "\"zz00000000000000\"", "7"] {
            assert!(serde_json::from_str::<KeyId>(bad).is_err(), "{bad}");
        }
    }
}
