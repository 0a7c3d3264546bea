//! A master key from a passphrase.

use argon2::{Argon2, Block, Params};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{MasterKey, NoRandom};
use crate::bytes::random;

/// Fewest characters of a passphrase. Six words of a dice list have more; a password of eight, which a farm of GPUs
/// tries out even against Argon2, has less.
const MIN_CHARACTERS: usize = 12;

/// Memory for new parameters, and the same number of passes as RFC 9106 (4) recommends where 2 GiB are too much.
/// More than OWASP asks at least for logins (19 MiB, 2 passes): this runs once a start, in half a second.
///
/// One lane, where the RFC has four: ours are worked off one after another, so that more would only help who guesses.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 1;

/// Parameters come from a record: these bounds keep a damaged one from taking all memory or years.
const MEMORY_KIB_MAX: u32 = 4 << 20;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 64;

/// How keys are derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// Argon2id, version 1.3 (RFC 9106).
    #[serde(rename = "argon2id")]
    Argon2id,
}

/// How a key is derived from a passphrase: with another value of any of these it is another key.
///
/// No secret, and needed again at each start: kept in the [`Lock`](super::Lock).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KdfParams {
    /// The function.
    pub algorithm: Algorithm,
    /// Random, so that equal passphrases give different keys.
    #[serde(with = "crate::bytes")]
    pub salt: [u8; 16],
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Lanes, worked off one after another.
    pub lanes: u32,
}

/// No key could be derived. Never says anything of the passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// The passphrase is too short to be one.
    #[error("the passphrase has fewer than {least} characters")]
    TooShort {
        /// The fewest that are taken.
        least: usize,
    },
    /// Parameters that no vault has: the record is damaged.
    #[error("the parameters of the key's derivation are out of bounds")]
    Params,
    /// There is less memory than the parameters ask.
    #[error("the key's derivation needs {memory_kib} KiB of memory, which there aren't")]
    OutOfMemory {
        /// How much is needed, in KiB.
        memory_kib: u32,
    },
}

impl KdfParams {
    /// For a new key: a random salt, 64 MiB, 3 passes, 1 lane.
    ///
    /// # Errors
    /// The operating system gave no random numbers.
    pub fn generate() -> Result<Self, NoRandom> {
        let mut salt = [0; 16];
        random(&mut salt)?;
        Ok(Self {
            algorithm: Algorithm::Argon2id,
            salt,
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
        })
    }
}

impl MasterKey {
    /// The key of a passphrase. Takes as long and as much memory as the parameters say: off the threads of a runtime.
    ///
    /// The passphrase is taken as it is: whoever reads it from a file takes the line's end off. It stays the caller's
    /// to wipe.
    ///
    /// # Errors
    /// The passphrase is too short, the parameters are out of bounds, or memory is short.
    pub fn from_passphrase(passphrase: &str, params: &KdfParams) -> Result<Self, PassphraseError> {
        if passphrase.chars().count() < MIN_CHARACTERS {
            return Err(PassphraseError::TooShort { least: MIN_CHARACTERS });
        }
        let &KdfParams {
            algorithm: Algorithm::Argon2id,
            salt,
            memory_kib,
            passes,
            lanes,
        } = params;
        if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
            return Err(PassphraseError::Params);
        }
        let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(|_| PassphraseError::Params)?;
        // Its own memory, so that it can be wiped: its last blocks give the key.
        let mut memory = Zeroizing::new(Vec::new());
        let blocks = params.block_count();
        memory
            .try_reserve_exact(blocks)
            .map_err(|_| PassphraseError::OutOfMemory { memory_kib })?;
        memory.resize(blocks, Block::new());
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        Self::fill(|key| {
            argon2
                .hash_password_into_with_memory(passphrase.as_bytes(), &salt, key, memory.as_mut_slice())
                .map_err(|_| PassphraseError::Params)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;

    const PASSPHRASE: &str = "correct horse battery staple";

    fn small() -> KdfParams {
        KdfParams {
            memory_kib: 64,
            passes: 1,
            salt: [5; 16],
            ..KdfParams::generate().unwrap()
        }
    }

    #[test]
    fn new_parameters_are_strong_and_differ_in_salt() {
        let (a, b) = (KdfParams::generate().unwrap(), KdfParams::generate().unwrap());
        assert_ne!(a.salt, b.salt);
        assert_eq!((a.memory_kib, a.passes, a.lanes), (65536, 3, 1));
    }

    #[test]
    fn the_key_is_that_of_the_reference_implementation() {
        // printf %s 'correct horse battery staple' | argon2 "$(printf '\5%.0s' {1..16})" -id -k 64 -t 1 -p 1 -l 32 -r
        let key = MasterKey::from_passphrase(PASSPHRASE, &small()).unwrap();
        let expected = "b27e07fad9ed70842cfaaafd5566d608272aed13d6af5bac6dfc4449f26a181f";
        assert_eq!(hex(key.expose()), expected);
    }

    #[test]
    fn every_parameter_counts() {
        let key = |passphrase: &str, params: &KdfParams| MasterKey::from_passphrase(passphrase, params).unwrap().id();
        let id = key(PASSPHRASE, &small());
        assert_eq!(id, key(PASSPHRASE, &small()));
        assert_ne!(id, key("correct horse battery stapler", &small()));
        let others = [
            KdfParams {
                salt: [6; 16],
                ..small()
            },
            KdfParams {
                memory_kib: 65,
                ..small()
            },
            KdfParams { passes: 2, ..small() },
            KdfParams { lanes: 2, ..small() },
        ];
        for other in others {
            assert_ne!(id, key(PASSPHRASE, &other), "{other:?}");
        }
    }

    #[test]
    fn short_passphrases_and_wild_parameters_are_refused() {
        let refused =
            |passphrase: &str, params: KdfParams| MasterKey::from_passphrase(passphrase, &params).unwrap_err();
        assert_eq!(refused("eleven char", small()), PassphraseError::TooShort { least: 12 });
        for wild in [
            KdfParams {
                memory_kib: u32::MAX,
                ..small()
            },
            KdfParams {
                memory_kib: 0,
                ..small()
            },
            KdfParams { passes: 0, ..small() },
            KdfParams {
                passes: u32::MAX,
                ..small()
            },
            KdfParams { lanes: 0, ..small() },
            KdfParams {
                lanes: 1 << 20,
                ..small()
            },
        ] {
            assert_eq!(refused(PASSPHRASE, wild), PassphraseError::Params);
        }
    }

    #[test]
    fn parameters_keep_their_shape_in_records() {
        let json = r#"{"algorithm":"argon2id","salt":"BQUFBQUFBQUFBQUFBQUFBQ==","memoryKib":64,"passes":1,"lanes":1}"#;
        assert_eq!(serde_json::to_string(&small()).unwrap(), json);
        assert_eq!(serde_json::from_str::<KdfParams>(json).unwrap(), small());
        assert!(serde_json::from_str::<KdfParams>(&json.replace("BQUFBQUFBQUFBQUFBQUFBQ==", "BQU=")).is_err());
    }
}
