//! Sealing: a value under a data key of its own, the data key under the master key.
//!
//! Both by XChaCha20-Poly1305 with random nonces of 192 bits, which may be drawn for any number of seals. The associated
//! data names the format, the purpose and the [`Context`], so that nothing opens in the place of something else.

use std::fmt;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{KeyId, Keyring, MasterKey, Name, Namespace, NoRandom, Value};
use crate::bytes::{cleanly, random};

/// What associated data begins with. The number is the format's.
const LABEL: &str = "clawbernetes/vault/1";

/// Bytes of a nonce.
const NONCE: usize = 24;

/// Bytes that a seal adds: the tag.
const TAG: usize = 16;

/// What something sealed belongs to: it opens there and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    kind: &'static str,
    parts: Vec<String>,
    version: u32,
}

impl Context {
    /// A version of a secret.
    #[must_use]
    pub fn secret(namespace: &Namespace, name: &Name, version: u32) -> Self {
        Self {
            kind: "secret",
            parts: vec![namespace.to_string(), name.to_string()],
            version,
        }
    }

    /// A version of a certificate authority's private key.
    #[must_use]
    pub fn authority(name: &str, version: u32) -> Self {
        Self {
            kind: "authority",
            parts: vec![name.to_owned()],
            version,
        }
    }

    /// Bytes that no other context, and no other purpose of this one, has: each part goes behind its length.
    fn associated(&self, purpose: Purpose) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        let head = [LABEL, purpose.label(), self.kind];
        for part in head.into_iter().chain(self.parts.iter().map(String::as_str)) {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} version {}", self.kind, self.parts.join("/"), self.version)
    }
}

/// What a seal is for, within its context.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The value, under its data key.
    Value,
    /// The data key, under the master key.
    DataKey,
    /// Known bytes under the master key: whether it is the right one.
    Check,
    /// The master key before, under the master key.
    Previous,
}

impl Purpose {
    const fn label(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::DataKey => "data-key",
            Self::Check => "check",
            Self::Previous => "previous-key",
        }
    }
}

/// The context of what seals a vault itself: the key that it is about.
pub(super) fn lock_context(key: KeyId) -> Context {
    Context {
        kind: "lock",
        parts: vec![key.to_string()],
        version: 1,
    }
}

/// 32 bytes, a data key as a rule, sealed by a master key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WrappedKey {
    /// The master key that opens it.
    pub key: KeyId,
    #[serde(with = "crate::bytes")]
    nonce: [u8; NONCE],
    #[serde(with = "crate::bytes")]
    text: [u8; 32 + TAG],
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey(under {})", self.key)
    }
}

/// A value sealed by its data key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sealed {
    #[serde(with = "crate::bytes")]
    nonce: [u8; NONCE],
    #[serde(with = "crate::bytes")]
    text: Vec<u8>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(..)")
    }
}

/// Something sealed doesn't open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is under a master key that isn't at hand.
    #[error("it is sealed by the master key {key}, which isn't this vault's")]
    OtherKey {
        /// The key that would open it.
        key: KeyId,
    },
    /// Its data key is damaged, or belongs to something else.
    #[error("its data key doesn't open here: the record is damaged, or another's")]
    DataKey,
    /// The value is damaged, or belongs to something else.
    #[error("the sealed value doesn't open here: it is damaged, or another's")]
    Value,
}

/// Seals a value under a new data key, and that under the current master key.
///
/// The two are kept apart: without the [`WrappedKey`] nobody opens the [`Sealed`] again. (Bytes that a store has freed
/// and not yet overwritten, and backups, hold it still; they open until the master key is another and this one is
/// destroyed.)
///
/// # Errors
/// The operating system gave no random numbers.
pub fn seal(ring: &Keyring, context: &Context, value: &Value) -> Result<(WrappedKey, Sealed), NoRandom> {
    let mut data_key = SecretBox::new(Box::new([0; 32]));
    random(data_key.expose_secret_mut())?;
    let data_key = data_key.expose_secret();
    let (nonce, text) = encrypt(data_key, &context.associated(Purpose::Value), value.expose())?;
    let wrapped = wrap(ring.sealing(), context, Purpose::DataKey, data_key)?;
    Ok((wrapped, Sealed { nonce, text }))
}

/// Opens a value.
///
/// # Errors
/// Another master key, or any byte of what is sealed or of the context is another.
pub fn open(ring: &Keyring, context: &Context, wrapped: &WrappedKey, sealed: &Sealed) -> Result<Value, OpenError> {
    let data_key = unwrap(ring, context, wrapped)?;
    let associated = context.associated(Purpose::Value);
    decrypt(data_key.expose_secret(), &associated, &sealed.nonce, &sealed.text)
        .map(Value::opened)
        .ok_or(OpenError::Value)
}

/// The same data key under the current master key. `None`: it is already.
///
/// # Errors
/// It is under neither key of the ring, or damaged.
pub fn rewrap(ring: &Keyring, context: &Context, wrapped: &WrappedKey) -> Result<Option<WrappedKey>, RewrapError> {
    if wrapped.key == ring.current() {
        return Ok(None);
    }
    let data_key = unwrap(ring, context, wrapped)?;
    Ok(Some(wrap(
        ring.sealing(),
        context,
        Purpose::DataKey,
        data_key.expose_secret(),
    )?))
}

/// A data key can't be put under the current master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RewrapError {
    /// It doesn't open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It can't be sealed.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// Seals 32 bytes by a master key.
pub(super) fn wrap(
    key: &MasterKey,
    context: &Context,
    purpose: Purpose,
    bytes: &[u8; 32],
) -> Result<WrappedKey, NoRandom> {
    let (nonce, sealed) = encrypt(key.expose(), &context.associated(purpose), bytes)?;
    let mut text = [0; 32 + TAG];
    text.copy_from_slice(&sealed);
    Ok(WrappedKey {
        key: key.id(),
        nonce,
        text,
    })
}

/// Opens 32 bytes by a master key. `None`: another key, purpose or context, or damaged.
pub(super) fn unwrap_by(
    key: &MasterKey,
    context: &Context,
    purpose: Purpose,
    wrapped: &WrappedKey,
) -> Option<SecretBox<[u8; 32]>> {
    let opened = decrypt(
        key.expose(),
        &context.associated(purpose),
        &wrapped.nonce,
        &wrapped.text,
    )?;
    let mut bytes = SecretBox::new(Box::new([0; 32]));
    bytes.expose_secret_mut().copy_from_slice(&opened);
    Some(bytes)
}

fn unwrap(ring: &Keyring, context: &Context, wrapped: &WrappedKey) -> Result<SecretBox<[u8; 32]>, OpenError> {
    let key = ring.find(wrapped.key).ok_or(OpenError::OtherKey { key: wrapped.key })?;
    unwrap_by(key, context, Purpose::DataKey, wrapped).ok_or(OpenError::DataKey)
}

fn encrypt(key: &[u8; 32], associated: &[u8], plain: &[u8]) -> Result<([u8; NONCE], Vec<u8>), NoRandom> {
    let mut nonce = [0; NONCE];
    random(&mut nonce)?;
    // Room for all of it at once: a buffer that grows leaves copies behind. It is wiped if encryption fails or panics.
    let mut text = Zeroizing::new(Vec::with_capacity(plain.len() + TAG));
    text.extend_from_slice(plain);
    let sealed = cleanly(|| {
        let cipher = XChaCha20Poly1305::new(key.into());
        cipher.encrypt_in_place((&nonce).into(), associated, &mut *text)
    });
    assert!(sealed.is_ok(), "XChaCha20-Poly1305 seals up to 256 GiB");
    Ok((nonce, std::mem::take(&mut *text)))
}

fn decrypt(key: &[u8; 32], associated: &[u8], nonce: &[u8; NONCE], text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut plain = Zeroizing::new(text.to_vec());
    let opened = cleanly(|| {
        let cipher = XChaCha20Poly1305::new(key.into());
        cipher.decrypt_in_place(nonce.into(), associated, &mut *plain)
    });
    opened.ok()?;
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Keyring {
        Keyring::new(MasterKey::of(1), None)
    }

    fn context() -> Context {
        Context::secret(&"default".parse().unwrap(), &"db.password".parse().unwrap(), 3)
    }

    fn value() -> Value {
        Value::new("hunter2-hunter2").unwrap()
    }

    fn opened(ring: &Keyring, context: &Context, wrapped: &WrappedKey, sealed: &Sealed) -> Result<Vec<u8>, OpenError> {
        open(ring, context, wrapped, sealed).map(|v| v.expose().to_vec())
    }

    #[test]
    fn what_is_sealed_opens() {
        for length in [1, 15, 16, 17, 1000, 1 << 20] {
            let value = Value::new(vec![0x5a; length]).unwrap();
            let (wrapped, sealed) = seal(&ring(), &context(), &value).unwrap();
            assert_eq!(sealed.text.len(), length + TAG);
            assert_eq!(
                opened(&ring(), &context(), &wrapped, &sealed).as_deref(),
                Ok(value.expose())
            );
        }
    }

    #[test]
    fn equal_values_are_sealed_differently() {
        let (key_a, a) = seal(&ring(), &context(), &value()).unwrap();
        let (key_b, b) = seal(&ring(), &context(), &value()).unwrap();
        assert_ne!(a.text, b.text);
        assert_ne!(a.nonce, b.nonce);
        assert_ne!(key_a.text, key_b.text);
        // One's data key opens the other's value nowhere.
        assert_eq!(opened(&ring(), &context(), &key_a, &b), Err(OpenError::Value));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (wrapped, sealed) = seal(&ring(), &context(), &value()).unwrap();
        let open = |wrapped: &WrappedKey, sealed: &Sealed| opened(&ring(), &context(), wrapped, sealed);
        for i in 0..NONCE {
            let mut other = sealed.clone();
            other.nonce[i] ^= 1;
            assert_eq!(open(&wrapped, &other), Err(OpenError::Value), "nonce {i}");
            let mut other = wrapped.clone();
            other.nonce[i] ^= 0x80;
            assert_eq!(open(&other, &sealed), Err(OpenError::DataKey), "key's nonce {i}");
        }
        for i in 0..sealed.text.len() {
            let mut other = sealed.clone();
            other.text[i] ^= 1;
            assert_eq!(open(&wrapped, &other), Err(OpenError::Value), "text {i}");
        }
        for i in 0..wrapped.text.len() {
            let mut other = wrapped.clone();
            other.text[i] ^= 0x10;
            assert_eq!(open(&other, &sealed), Err(OpenError::DataKey), "key's text {i}");
        }
        for length in 0..sealed.text.len() {
            let mut other = sealed.clone();
            other.text.truncate(length);
            assert_eq!(open(&wrapped, &other), Err(OpenError::Value), "cut to {length}");
        }
    }

    #[test]
    fn nothing_opens_in_the_place_of_something_else() {
        let of = |namespace: &str, name: &str, version: u32| {
            Context::secret(&namespace.parse().unwrap(), &name.parse().unwrap(), version)
        };
        // Parts that meet at another place, and other kinds with the same words.
        let contexts = [
            of("a", "bc", 1),
            of("ab", "c", 1),
            of("abc", "c", 1),
            of("a", "bc", 2),
            of("a", "bc", 256),
            of("a", "b.c", 1),
            Context::authority("abc", 1),
            Context::authority("bc", 1),
        ];
        for (i, from) in contexts.iter().enumerate() {
            let (wrapped, sealed) = seal(&ring(), from, &value()).unwrap();
            for (j, to) in contexts.iter().enumerate() {
                let result = open(&ring(), to, &wrapped, &sealed).map(drop);
                assert_eq!(
                    result,
                    if i == j { Ok(()) } else { Err(OpenError::DataKey) },
                    "{from} in {to}"
                );
                // Nor with the right data key.
                let data_key = unwrap_by(&MasterKey::of(1), from, Purpose::DataKey, &wrapped).unwrap();
                let moved = wrap(&MasterKey::of(1), to, Purpose::DataKey, data_key.expose_secret()).unwrap();
                let result = open(&ring(), to, &moved, &sealed).map(drop);
                assert_eq!(
                    result,
                    if i == j { Ok(()) } else { Err(OpenError::Value) },
                    "{from} in {to}"
                );
            }
        }
    }

    #[test]
    fn purposes_are_told_apart() {
        let purposes = [Purpose::Value, Purpose::DataKey, Purpose::Check, Purpose::Previous];
        let key = MasterKey::of(1);
        for (i, from) in purposes.into_iter().enumerate() {
            let wrapped = wrap(&key, &context(), from, &[7; 32]).unwrap();
            for (j, to) in purposes.into_iter().enumerate() {
                assert_eq!(
                    unwrap_by(&key, &context(), to, &wrapped).is_some(),
                    i == j,
                    "{from:?} as {to:?}"
                );
            }
        }
    }

    #[test]
    fn another_master_key_is_named() {
        let (wrapped, sealed) = seal(&ring(), &context(), &value()).unwrap();
        let other = Keyring::new(MasterKey::of(2), None);
        let key = MasterKey::of(1).id();
        assert_eq!(
            opened(&other, &context(), &wrapped, &sealed),
            Err(OpenError::OtherKey { key })
        );
        // A record that claims to be under the other key opens no better.
        let claimed = WrappedKey {
            key: other.current(),
            ..wrapped
        };
        assert_eq!(opened(&other, &context(), &claimed, &sealed), Err(OpenError::DataKey));
    }

    #[test]
    fn a_rewrapped_key_opens_the_same_value_under_the_new_key_alone() {
        let (wrapped, sealed) = seal(&ring(), &context(), &value()).unwrap();
        let both = ring().advanced(MasterKey::of(2));
        assert_eq!(opened(&both, &context(), &wrapped, &sealed).unwrap(), value().expose());
        let moved = rewrap(&both, &context(), &wrapped).unwrap().unwrap();
        assert_eq!(moved.key, both.current());
        assert_eq!(rewrap(&both, &context(), &moved), Ok(None));
        assert_eq!(
            opened(&both.settled(), &context(), &moved, &sealed).unwrap(),
            value().expose()
        );
        assert!(matches!(
            opened(&ring(), &context(), &moved, &sealed),
            Err(OpenError::OtherKey { .. })
        ));
        let elsewhere = Context::authority("ca", 1);
        assert_eq!(rewrap(&both, &elsewhere, &wrapped), Err(OpenError::DataKey.into()));
    }

    #[test]
    fn debug_shows_nothing_sealed() {
        let (wrapped, sealed) = seal(&ring(), &context(), &value()).unwrap();
        let key = MasterKey::of(1).id();
        assert_eq!(
            format!("{wrapped:?} {sealed:?}"),
            format!("WrappedKey(under {key}) Sealed(..)")
        );
        let ring = format!("{:?}", ring());
        assert_eq!(ring, format!("Keyring {{ current: MasterKey({key}), previous: None }}"));
    }

    #[test]
    fn records_keep_their_shape() {
        let (wrapped, sealed) = (
            WrappedKey {
                key: MasterKey::of(1).id(),
                nonce: [1; NONCE],
                text: [2; 48],
            },
            Sealed {
                nonce: [3; NONCE],
                text: vec![4; 18],
            },
        );
        let wrapped_json = format!(
            r#"{{"key":"{}","nonce":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB","text":"{}"}}"#,
            wrapped.key,
            "AgIC".repeat(16)
        );
        let sealed_json = r#"{"nonce":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD","text":"BAQEBAQEBAQEBAQEBAQEBAQE"}"#;
        assert_eq!(serde_json::to_string(&wrapped).unwrap(), wrapped_json);
        assert_eq!(serde_json::to_string(&sealed).unwrap(), sealed_json);
        assert_eq!(serde_json::from_str::<WrappedKey>(&wrapped_json).unwrap(), wrapped);
        assert_eq!(serde_json::from_str::<Sealed>(sealed_json).unwrap(), sealed);
        assert!(serde_json::from_str::<Sealed>(&sealed_json.replace("AwMD\"", "\"")).is_err());
        assert!(serde_json::from_str::<Sealed>(&sealed_json.replace("BAQE", "B*QE")).is_err());
    }

    /// What libsodium's `crypto_aead_xchacha20poly1305_ietf_encrypt` makes of the same keys, nonces (11 and 12 in each
    /// byte) and associated data, put together by hand: the format is what it says, and records of it open for ever.
    #[test]
    fn what_another_program_sealed_opens() {
        let wrapped = WrappedKey {
            key: MasterKey::of(1).id(),
            nonce: [11; NONCE],
            text: bytes("EzPyDmFxJXp8P4Lhh2yKb4AK1V/F171Yd+WlhI5auNuPFcYT7CVX5NTvDCG6MHss"),
        };
        let sealed = Sealed {
            nonce: [12; NONCE],
            text: bytes("/LQwTQQntpEGxRLootNMojpVvsADhzj+V9xG7Mp64Q=="),
        };
        assert_eq!(
            opened(&ring(), &context(), &wrapped, &sealed).unwrap(),
            value().expose()
        );
    }

    fn bytes<B: TryFrom<Vec<u8>>>(base64: &str) -> B {
        crate::bytes::deserialize(serde_json::Value::from(base64)).unwrap()
    }
}
