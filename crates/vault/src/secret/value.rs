//! What is given: values, the names that they go by, and what of it is refused.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretBox};
use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Most bytes of a value: 1 MiB.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Most bytes of a description: it is for people, and stands in every list.
pub const MAX_DESCRIPTION_BYTES: usize = 1024;

/// Most characters of a name: as many as DNS gives.
const MAX_NAME: usize = 253;

/// Most characters of a namespace: as everywhere in the product.
const MAX_NAMESPACE: usize = 63;

/// What of a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A secret's name.
    Name,
    /// A namespace.
    Namespace,
    /// A value.
    Value,
    /// A description.
    Description,
    /// When a version expires.
    Expires,
    /// How long older versions stay readable.
    Ttl,
    /// How many older versions stay readable.
    KeepVersions,
}

impl Field {
    /// Its name in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Namespace => "namespace",
            Self::Value => "value",
            Self::Description => "description",
            Self::Expires => "expires",
            Self::Ttl => "ttl",
            Self::KeepVersions => "keepVersions",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A request that can't be taken; nothing has changed. Never says what a value holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Nothing is in it.
    #[error("{field}: it is empty")]
    Empty {
        /// What is empty.
        field: Field,
    },
    /// It is longer than it may be.
    #[error("{field}: it has {bytes} bytes, and may have {most}")]
    TooLong {
        /// What is too long.
        field: Field,
        /// Its length.
        bytes: usize,
        /// The greatest length.
        most: usize,
    },
    /// A character can't stand where it does.
    #[error(
        "{field}: '{character}' can't stand at position {position} (lower-case letters, digits, '-' and '.', \
         with letters or digits at the ends and beside each '.')"
    )]
    Character {
        /// What holds the character.
        field: Field,
        /// The character.
        character: char,
        /// Its position, counted from 1.
        position: usize,
    },
    /// A time that must be ahead has passed, or a length of time is negative.
    #[error("{field}: it is in the past")]
    Past {
        /// What is in the past.
        field: Field,
    },
    /// A number or a time is greater than it may be.
    #[error("{field}: it is more than {most}")]
    TooMuch {
        /// What is too great.
        field: Field,
        /// The greatest that is taken, in words.
        most: &'static str,
    },
}

impl Invalid {
    /// What is refused.
    #[must_use]
    pub const fn field(&self) -> Field {
        match self {
            Self::Empty { field }
            | Self::TooLong { field, .. }
            | Self::Character { field, .. }
            | Self::Past { field }
            | Self::TooMuch { field, .. } => *field,
        }
    }
}

/// A value in the clear: 1 byte to [`MAX_VALUE_BYTES`].
///
/// Wiped from memory when dropped. It can't be copied or serialised, and `Debug` shows nothing of it.
pub struct Value(SecretBox<Vec<u8>>);

impl Value {
    /// Takes bytes over; no copy is made. Bytes that are refused are wiped too.
    ///
    /// # Errors
    /// Empty, or more than [`MAX_VALUE_BYTES`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, Invalid> {
        let value = Self(SecretBox::new(Box::new(bytes.into())));
        let field = Field::Value;
        match value.expose().len() {
            0 => Err(Invalid::Empty { field }),
            bytes @ ..=MAX_VALUE_BYTES => {
                debug_assert!(bytes > 0);
                Ok(value)
            }
            bytes => Err(Invalid::TooLong {
                field,
                bytes,
                most: MAX_VALUE_BYTES,
            }),
        }
    }

    /// What has been opened: it was checked before it was sealed.
    pub(super) fn opened(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(SecretBox::new(Box::new(std::mem::take(&mut *bytes))))
    }

    /// The bytes. Whoever copies them answers for the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

impl ZeroizeOnDrop for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(..)")
    }
}

/// The name of a secret: a DNS subdomain (RFC 1123) in lower case, 1 to 253 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// The namespace of a secret: 1 to 63 characters, by the rule of the product's other namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Namespace(String);

impl Name {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Namespace {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        check(Field::Name, &text, MAX_NAME)?;
        // Each part between dots is a label of its own, with a letter or digit at both ends.
        let bytes = text.as_bytes();
        let lone = (1..bytes.len()).find(|&i| matches!((bytes[i - 1], bytes[i]), (b'.', b'.' | b'-') | (b'-', b'.')));
        match lone {
            Some(i) => Err(Invalid::Character {
                field: Field::Name,
                character: char::from(bytes[i]),
                position: i + 1,
            }),
            None => Ok(Self(text)),
        }
    }
}

impl TryFrom<String> for Namespace {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        check(Field::Namespace, &text, MAX_NAMESPACE)?;
        Ok(Self(text))
    }
}

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::try_from(text.to_owned())
    }
}

impl FromStr for Namespace {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Lower-case letters and digits, and within them `-` and `.`.
fn check(field: Field, text: &str, most: usize) -> Result<(), Invalid> {
    let bytes = text.len();
    if bytes == 0 {
        return Err(Invalid::Empty { field });
    }
    if bytes > most {
        return Err(Invalid::TooLong { field, bytes, most });
    }
    let length = text.chars().count();
    let wrong = text.chars().enumerate().find(|&(i, c)| {
        let inner = i > 0 && i + 1 < length;
        !(c.is_ascii_lowercase() || c.is_ascii_digit() || (inner && matches!(c, '-' | '.')))
    });
    match wrong {
        Some((i, character)) => Err(Invalid::Character {
            field,
            character,
            position: i + 1,
        }),
        None => Ok(()),
    }
}

/// Checks a description.
pub(super) fn check_description(text: &str) -> Result<(), Invalid> {
    let bytes = text.len();
    if bytes <= MAX_DESCRIPTION_BYTES {
        return Ok(());
    }
    Err(Invalid::TooLong {
        field: Field::Description,
        bytes,
        most: MAX_DESCRIPTION_BYTES,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_one_byte_to_one_mebibyte() {
        let refused = |length: usize| Value::new(vec![7; length]).map(|v| v.expose().len());
        assert_eq!(refused(0), Err(Invalid::Empty { field: Field::Value }));
        assert_eq!(refused(1), Ok(1));
        assert_eq!(refused(1 << 20), Ok(1 << 20));
        let error = refused((1 << 20) + 1).unwrap_err();
        assert_eq!(error.field(), Field::Value);
        assert_eq!(error.to_string(), "value: it has 1048577 bytes, and may have 1048576");
    }

    #[test]
    fn debug_shows_nothing_of_a_value() {
        let value = Value::new("hunter2-hunter2").unwrap();
        assert_eq!(format!("{value:?} {value:#?}"), "Value(..) Value(..)");
    }

    #[test]
    fn values_are_wiped_when_dropped() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Value>();
    }

    #[test]
    fn names_are_dns_subdomains() {
        for good in ["a", "0", "api-key", "db.prod", "a--b", &"a".repeat(253)] {
            assert_eq!(good.parse::<Name>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        let at = |text: &str| match text.parse::<Name>().unwrap_err() {
            Invalid::Character {
                field: Field::Name,
                character,
                position,
            } => (character, position),
            other => panic!("{text}: {other}"),
        };
        assert_eq!(at("API"), ('A', 1));
        assert_eq!(at("a_b"), ('_', 2));
        assert_eq!(at("-a"), ('-', 1));
        assert_eq!(at("a-"), ('-', 2));
        assert_eq!(at(".a"), ('.', 1));
        assert_eq!(at("a..b"), ('.', 3));
        assert_eq!(at("a.-b"), ('-', 3));
        assert_eq!(at("a-.b"), ('.', 3));
        assert_eq!(at("a/b"), ('/', 2));
        assert_eq!(at("aé"), ('é', 2));
        assert_eq!("".parse::<Name>(), Err(Invalid::Empty { field: Field::Name }));
        assert!(matches!(
            "a".repeat(254).parse::<Name>(),
            Err(Invalid::TooLong { bytes: 254, .. })
        ));
    }

    #[test]
    fn namespaces_are_those_of_the_product() {
        for good in ["default", "team-1", "a.b", &"n".repeat(63)] {
            assert!(good.parse::<Namespace>().is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a b", &"n".repeat(64)] {
            let error = bad.parse::<Namespace>().unwrap_err();
            assert_eq!(error.field(), Field::Namespace, "{bad}");
        }
    }

    #[test]
    fn names_in_records_are_checked() {
        assert!(serde_json::from_str::<Name>("\"ok\"").is_ok());
        assert!(serde_json::from_str::<Name>("\"Not ok\"").is_err());
        assert!(serde_json::from_str::<Namespace>("\"\"").is_err());
    }
}
