//! Ids: newtypes, so that a node's name is never passed where a workload's id is meant.

use std::{borrow::Borrow, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Letters and digits of generated ids: Crockford's base 32 in lower case, without the look-alikes `i l o u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Ten characters of base 32 from fifty of the given random bits.
#[must_use]
pub fn random_suffix(random: u64) -> String {
    (0..10)
        .map(|i| ALPHABET[(random >> (5 * i)) as usize & 31] as char)
        .collect()
}

macro_rules! string_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps an id that is already known to be well formed.
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

string_id! {
    /// A workload's id: `wl-` and ten characters of base 32.
    WorkloadId
}

string_id! {
    /// A deployment's id: `dep-` and ten characters of base 32.
    DeploymentId
}

string_id! {
    /// A node's id, which is its name: a DNS label, unique in the fleet.
    NodeName
}

impl DeploymentId {
    /// A new id from 50 random bits, as a workload's.
    #[must_use]
    pub fn from_random(random: u64) -> Self {
        Self(format!("dep-{}", random_suffix(random)))
    }
}

impl WorkloadId {
    /// A new id from 50 random bits: among a million workloads the chance that any two clash is below 0.1 %, and
    /// the submitting transaction checks.
    #[must_use]
    pub fn from_random(random: u64) -> Self {
        Self(format!("wl-{}", random_suffix(random)))
    }
}

/// Index of a GPU on its node, as its driver counts them (`CUDA_VISIBLE_DEVICES`).
pub type GpuIndex = u32;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Names are 1 to 63 characters long.
    #[error("a name has 1 to 63 characters, this one has {0}")]
    Length(usize),
    /// A character that names can't hold, or can't hold at this place.
    #[error(
        "'{character}' can't stand at position {position} of a name (lower-case letters, digits, '-' and '.', letters or digits at both ends)"
    )]
    Character {
        /// The offending character.
        character: char,
        /// Its position, counted from 1.
        position: usize,
    },
}

/// Checks a name of a node, workload or namespace: a DNS label in lower case, dots allowed.
///
/// # Errors
/// [`NameError`] says which rule it breaks.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let length = name.chars().count();
    if !(1..=63).contains(&length) {
        return Err(NameError::Length(length));
    }
    for (i, character) in name.chars().enumerate() {
        let inner = i > 0 && i + 1 < length;
        let fits =
            character.is_ascii_lowercase() || character.is_ascii_digit() || (inner && matches!(character, '-' | '.'));
        if !fits {
            return Err(NameError::Character {
                character,
                position: i + 1,
            });
        }
    }
    Ok(())
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        check_name(name)?;
        Ok(Self::new(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "gpu-7", "rack1.gpu-7", "0x"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        assert_eq!(check_name(""), Err(NameError::Length(0)));
        assert_eq!(check_name(&"a".repeat(64)), Err(NameError::Length(64)));
        assert_eq!(
            check_name("Gpu"),
            Err(NameError::Character {
                character: 'G',
                position: 1
            })
        );
        assert_eq!(
            check_name("gpu-"),
            Err(NameError::Character {
                character: '-',
                position: 4
            })
        );
        assert_eq!(
            check_name("a/b"),
            Err(NameError::Character {
                character: '/',
                position: 2
            })
        );
    }

    #[test]
    fn workload_ids_differ_by_their_random_bits() {
        assert_eq!(WorkloadId::from_random(0).as_str(), "wl-0000000000");
        assert_ne!(WorkloadId::from_random(1), WorkloadId::from_random(2));
    }
}
