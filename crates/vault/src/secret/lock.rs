//! The lock of a vault: which master key opens it, without the key.

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::seal::{Purpose, lock_context, unwrap_by, wrap};
use super::{KdfParams, KeyId, Keyring, MasterKey, NoRandom, WrappedKey};

/// What a check is a seal of: anything would do, since with another key nothing opens.
const KNOWN: [u8; 32] = [0; 32];

/// The record that says which master key opens a vault. There is one, made at the first start.
///
/// While the vault is re-keyed, `current` is the new key already, and the key before it is sealed under the new one:
/// so the new key alone opens a vault that was killed halfway. The old key no longer does; its holder learns nothing
/// of the new one.
///
/// Whoever writes something newly sealed does so on the condition that this record is still the one that its
/// [`Keyring`] came from: otherwise a seal under the old key could be written after that key is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// The key that opens it.
    pub current: Keyhole,
    /// The key before, while some data keys may still be under it. `None`: no re-keying is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

/// What tells whether a key is the right one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keyhole {
    /// Known bytes, sealed by the key.
    check: WrappedKey,
    /// How the key comes from a passphrase. `None`: it doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kdf: Option<KdfParams>,
    /// Since when it opens the vault.
    pub since: Timestamp,
}

/// The key before, while a vault is re-keyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Previous {
    /// Which it is.
    pub key: KeyId,
    /// The key itself, sealed by the current one.
    sealed: WrappedKey,
}

/// A key doesn't open a vault; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    /// It is another vault's, or an older key of this one.
    #[error("wrong master key: the vault opens with {expected}, and was given {given}; nothing was changed")]
    WrongKey {
        /// The key that opens the vault.
        expected: KeyId,
        /// The key that was given.
        given: KeyId,
    },
    /// It is the key from which the vault is just being re-keyed.
    #[error(
        "wrong master key: the vault is being re-keyed from {given} to {expected}; \
         start with {expected}, which alone opens it and ends the re-keying"
    )]
    Replaced {
        /// The key that opens the vault.
        expected: KeyId,
        /// The key that was given.
        given: KeyId,
    },
    /// It is the right key by its id, and doesn't open the check.
    #[error("the vault's lock is damaged: its check doesn't open with {key}, though the key's id fits")]
    Damaged {
        /// The key that was given.
        key: KeyId,
    },
}

/// A re-keying can't begin; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// One is under way, and must end first.
    #[error("the vault is being re-keyed from {from} already")]
    UnderWay {
        /// The key before.
        from: KeyId,
    },
    /// The new key is the one that the vault has.
    #[error("the vault has the master key {key} already")]
    SameKey {
        /// The key.
        key: KeyId,
    },
    /// The ring is another vault's, or was opened before an earlier re-keying.
    #[error("the vault opens with {expected}, and what is at hand is {given}")]
    OtherRing {
        /// The key that opens the vault.
        expected: KeyId,
        /// The ring's.
        given: KeyId,
    },
    /// Nothing can be sealed.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

impl Keyhole {
    fn new(key: &MasterKey, kdf: Option<KdfParams>, since: Timestamp) -> Result<Self, NoRandom> {
        let check = wrap(key, &lock_context(key.id()), Purpose::Check, &KNOWN)?;
        Ok(Self { check, kdf, since })
    }

    /// Which key fits.
    #[must_use]
    pub const fn key(&self) -> KeyId {
        self.check.key
    }
}

impl Lock {
    /// The lock of a new vault, and what opens it.
    ///
    /// # Errors
    /// The operating system gave no random numbers.
    pub fn new(key: MasterKey, kdf: Option<KdfParams>, now: Timestamp) -> Result<(Self, Keyring), NoRandom> {
        let lock = Self {
            current: Keyhole::new(&key, kdf, now)?,
            previous: None,
        };
        Ok((lock, Keyring::new(key, None)))
    }

    /// Opens the vault: tells whether a key is the right one.
    ///
    /// # Errors
    /// It isn't, or the record is damaged.
    pub fn open(&self, key: MasterKey) -> Result<Keyring, UnlockError> {
        let (expected, given) = (self.current.key(), key.id());
        if given != expected {
            return Err(match &self.previous {
                Some(previous) if previous.key == given => UnlockError::Replaced { expected, given },
                _ => UnlockError::WrongKey { expected, given },
            });
        }
        let damaged = UnlockError::Damaged { key: given };
        unwrap_by(&key, &lock_context(given), Purpose::Check, &self.current.check).ok_or(damaged)?;
        let previous = match &self.previous {
            Some(previous) => {
                let context = lock_context(previous.key);
                let bytes = unwrap_by(&key, &context, Purpose::Previous, &previous.sealed).ok_or(damaged)?;
                Some(MasterKey::fill(|into| {
                    into.copy_from_slice(bytes.expose_secret());
                    Ok(())
                })?)
            }
            None => None,
        };
        Ok(Keyring::new(key, previous))
    }

    /// Puts a new master key in front of the current one.
    ///
    /// Once the lock is written, seal with the ring that comes with it, and take [steps](super::rekey::step) until they
    /// are through. Write it only when the new key is where the next start finds it: the old one opens nothing more.
    ///
    /// # Errors
    /// A re-keying is under way, the key is the current one, or the ring isn't this vault's.
    pub fn begin_rekey(
        &self,
        ring: &Keyring,
        next: MasterKey,
        kdf: Option<KdfParams>,
        now: Timestamp,
    ) -> Result<(Self, Keyring), BeginError> {
        if let Some(previous) = &self.previous {
            return Err(BeginError::UnderWay { from: previous.key });
        }
        let (expected, given) = (self.current.key(), ring.current());
        if given != expected {
            return Err(BeginError::OtherRing { expected, given });
        }
        if next.id() == expected {
            return Err(BeginError::SameKey { key: expected });
        }
        let sealed = wrap(&next, &lock_context(given), Purpose::Previous, ring.sealing().expose())?;
        let lock = Self {
            current: Keyhole::new(&next, kdf, now)?,
            previous: Some(Previous { key: given, sealed }),
        };
        Ok((lock, ring.advanced(next)))
    }

    /// Without the key before.
    pub(super) fn settled(&self) -> Self {
        Self {
            current: self.current.clone(),
            previous: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Context, Value, open, seal};
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn lock(byte: u8) -> (Lock, Keyring) {
        Lock::new(MasterKey::of(byte), None, NOW).unwrap()
    }

    #[test]
    fn the_right_key_opens_and_others_are_refused() {
        let (lock, _) = lock(1);
        let ring = lock.open(MasterKey::of(1)).unwrap();
        assert_eq!((ring.current(), ring.previous()), (MasterKey::of(1).id(), None));
        let (expected, given) = (MasterKey::of(1).id(), MasterKey::of(2).id());
        let error = lock.open(MasterKey::of(2)).unwrap_err();
        assert_eq!(error, UnlockError::WrongKey { expected, given });
        assert!(error.to_string().contains("nothing was changed"));
    }

    #[test]
    fn a_key_that_only_has_the_right_id_is_refused() {
        let (mut lock, _) = lock(1);
        // As if two keys had one id: the check, not the id, decides.
        lock.current.check.key = MasterKey::of(2).id();
        let error = lock.open(MasterKey::of(2)).unwrap_err();
        assert_eq!(
            error,
            UnlockError::Damaged {
                key: MasterKey::of(2).id()
            }
        );
    }

    #[test]
    fn halfway_the_new_key_alone_opens_what_either_sealed() {
        let (first, old) = lock(1);
        let context = Context::authority("ca", 1);
        let value = Value::new("x").unwrap();
        let under_old = seal(&old, &context, &value).unwrap();
        let (second, both) = first.begin_rekey(&old, MasterKey::of(2), None, NOW).unwrap();
        let under_new = seal(&both, &context, &value).unwrap();
        // Killed, and started again.
        let ring = second.open(MasterKey::of(2)).unwrap();
        assert_eq!(ring.previous(), Some(MasterKey::of(1).id()));
        for (wrapped, sealed) in [&under_old, &under_new] {
            assert_eq!(open(&ring, &context, wrapped, sealed).unwrap().expose(), b"x");
        }
        assert_eq!(under_new.0.key, MasterKey::of(2).id());
        let (expected, given) = (MasterKey::of(2).id(), MasterKey::of(1).id());
        assert_eq!(
            second.open(MasterKey::of(1)).unwrap_err(),
            UnlockError::Replaced { expected, given }
        );
        // Before it was written the old key still opens.
        assert!(first.open(MasterKey::of(1)).is_ok());
    }

    #[test]
    fn one_rekey_at_a_time_and_to_another_key() {
        let (first, ring) = lock(1);
        let key = MasterKey::of(1).id();
        let same = first.begin_rekey(&ring, MasterKey::of(1), None, NOW).unwrap_err();
        assert_eq!(same, BeginError::SameKey { key });
        let (second, both) = first.begin_rekey(&ring, MasterKey::of(2), None, NOW).unwrap();
        let twice = second.begin_rekey(&both, MasterKey::of(3), None, NOW).unwrap_err();
        assert_eq!(twice, BeginError::UnderWay { from: key });
        let stale = second
            .settled()
            .begin_rekey(&ring, MasterKey::of(3), None, NOW)
            .unwrap_err();
        assert!(matches!(stale, BeginError::OtherRing { .. }));
    }

    #[test]
    fn a_damaged_lock_opens_for_nobody() {
        let (first, ring) = lock(1);
        let (second, _) = first.begin_rekey(&ring, MasterKey::of(2), None, NOW).unwrap();
        let json = serde_json::to_value(&second).unwrap();
        for place in [
            "/current/check/nonce",
            "/current/check/text",
            "/previous/sealed/nonce",
            "/previous/sealed/text",
        ] {
            let mut other = json.clone();
            let text = other.pointer_mut(place).unwrap();
            let changed = text.as_str().unwrap().replacen(|c: char| c != 'A', "A", 1);
            *text = changed.into();
            let other: Lock = serde_json::from_value(other).unwrap();
            assert!(
                matches!(other.open(MasterKey::of(2)), Err(UnlockError::Damaged { .. })),
                "{place}"
            );
        }
    }

    #[test]
    fn records_keep_their_shape() {
        let kdf = KdfParams::generate().unwrap();
        let (first, ring) = Lock::new(MasterKey::of(1), Some(kdf), NOW).unwrap();
        let (second, _) = first.begin_rekey(&ring, MasterKey::of(2), None, NOW).unwrap();
        let shape = |lock: &Lock| -> Vec<String> {
            let json = serde_json::to_value(lock).unwrap();
            assert_eq!(&serde_json::from_value::<Lock>(json.clone()).unwrap(), lock);
            let object = |at: &str| {
                json.pointer(at)
                    .and_then(|v| v.as_object())
                    .cloned()
                    .unwrap_or_default()
            };
            ["", "/current", "/current/check", "/current/kdf", "/previous"]
                .into_iter()
                .flat_map(|at| object(at).keys().map(|key| format!("{at}/{key}")).collect::<Vec<_>>())
                .collect()
        };
        assert_eq!(
            shape(&first).join(" "),
            "/current /current/check /current/kdf /current/since /current/check/key /current/check/nonce \
             /current/check/text /current/kdf/algorithm /current/kdf/lanes /current/kdf/memoryKib /current/kdf/passes \
             /current/kdf/salt"
        );
        assert_eq!(
            shape(&second).join(" "),
            "/current /previous /current/check /current/since /current/check/key /current/check/nonce \
             /current/check/text /previous/key /previous/sealed"
        );
    }
}
