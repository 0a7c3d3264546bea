//! Secrets as callers and workloads know them: values that print nothing, and where a workload gets one.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroize;

/// Most bytes of a secret's value.
pub const SECRET_MAX_BYTES: usize = 1 << 20;

/// A secret's value on its way: any bytes, base64 in JSON. Wiped when dropped; prints nothing.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// The bytes. Keep them no longer than needed.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text. `None`: they aren't UTF-8.
    #[must_use]
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<Vec<u8>> for SecretValue {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<String> for SecretValue {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl Drop for SecretValue {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

impl Serialize for SecretValue {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut text = BASE64_STANDARD.encode(&self.0);
        let done = to.serialize_str(&text);
        text.zeroize();
        done
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(from)?;
        let bytes = BASE64_STANDARD.decode(text.as_bytes());
        text.zeroize();
        // The cause would quote a byte of the value.
        bytes
            .map(Self)
            .map_err(|_| de::Error::custom("a secret's value must be base64"))
    }
}

impl JsonSchema for SecretValue {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "contentEncoding": "base64",
            "description": "The bytes of a secret, base64."
        })
    }
}

/// A secret that a workload gets when it starts: its current version of that moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretUse {
    /// The secret's name, in the workload's own namespace.
    pub secret: String,
    /// One field of a value that is a JSON object; its text, or its JSON where it isn't text. `null`: the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where it gets it.
    pub to: SecretTarget,
}

/// Where a workload gets a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SecretTarget {
    /// In this environment variable. The value must be text without a zero byte.
    Env(String),
    /// In a file of this absolute path, in memory-backed storage, readable by the workload's user alone.
    File(String),
}

impl SecretUse {
    /// Checks that it can be: names, paths, and that no two go to the same place.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` on an entry of `field`.
    pub fn check_all(field: &str, uses: &[Self]) -> Result<(), crate::ApiError> {
        let mut seen = std::collections::HashSet::new();
        for (i, entry) in uses.iter().enumerate() {
            let field = format!("{field}[{i}]");
            check_secret_name(&format!("{field}.secret"), &entry.secret)?;
            match &entry.to {
                SecretTarget::Env(name) => crate::manifest::check_env_name(&format!("{field}.to.env"), name)?,
                SecretTarget::File(path) => crate::manifest::check_mount_path(&format!("{field}.to.file"), path)?,
            }
            if !seen.insert(&entry.to) {
                let place = match &entry.to {
                    SecretTarget::Env(name) => name,
                    SecretTarget::File(path) => path,
                };
                return Err(crate::ApiError::invalid(field, format!("{place} gets two secrets")));
            }
        }
        Ok(())
    }
}

/// Most characters of a secret's name.
const NAME_MAX: usize = 253;

/// Checks a secret's or a certificate's name: labels of lower-case letters, digits and '-', joined by dots, 253
/// characters at most, as in DNS.
///
/// # Errors
/// `INVALID_ARGUMENT` on `field`.
pub fn check_secret_name(field: &str, name: &str) -> Result<(), crate::ApiError> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= NAME_MAX && name.split('.').all(label) {
        return Ok(());
    }
    // Somebody may have mistaken the value for the name: it isn't quoted.
    Err(crate::ApiError::invalid(
        field,
        "a name has 1 to 253 lower-case letters, digits, '-' and '.', as in DNS",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_nothing_and_travel_whole() {
        let value = SecretValue::from(b"hunter2\0\xff".to_vec());
        assert!(!format!("{value:?}").contains("hunter2"));
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<SecretValue>(&json).unwrap(), value);
        let error = serde_json::from_str::<SecretValue>("\"not base64!\"").unwrap_err();
        assert!(!error.to_string().contains("not base64"), "{error}");
    }

    #[test]
    fn names_are_dns_like_and_never_quoted() {
        for good in ["a", "db-password", "tls.api.example", &"a".repeat(63)] {
            assert!(check_secret_name("name", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "A",
            "a_b",
            "-a",
            "a-",
            "a..b",
            ".",
            "hunter2!",
            &"a".repeat(64),
            &"a.".repeat(127),
        ] {
            let error = check_secret_name("name", bad).unwrap_err();
            assert_eq!(error.field.as_deref(), Some("name"), "{bad}");
            assert!(!error.message.contains("hunter2"));
        }
    }

    #[test]
    fn two_secrets_cant_share_a_place() {
        let to = |to| SecretUse {
            secret: "s".to_owned(),
            key: None,
            to,
        };
        let env = |name: &str| to(SecretTarget::Env(name.to_owned()));
        let file = |path: &str| to(SecretTarget::File(path.to_owned()));
        assert!(SecretUse::check_all("secrets", &[env("A"), env("B"), file("/run/a")]).is_ok());
        for (bad, field) in [
            (vec![env("A"), env("A")], "secrets[1]"),
            (vec![env("")], "secrets[0].to.env"),
            (vec![file("relative")], "secrets[0].to.file"),
        ] {
            let error = SecretUse::check_all("secrets", &bad).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field), "{error:?}");
        }
    }
}
