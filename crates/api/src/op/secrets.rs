//! Requests and answers about secrets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Span, Timestamp, secret::SecretValue};

/// A value to keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSetRequest {
    /// The secret's name.
    pub name: String,
    /// Its namespace. `null`: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The value, 1 byte to 1 MiB.
    pub value: SecretValue,
    /// What it is for. `null`: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// After how long this version can't be read any more. `null`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Span>,
}

/// Names a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Its name.
    pub name: String,
    /// Its namespace. `null`: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Asks for a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretGetRequest {
    /// The secret's name.
    pub name: String,
    /// Its namespace. `null`: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Which version. `null`: the latest that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// A secret's value, with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretContent {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Which version this is.
    pub version: u32,
    /// The value.
    pub value: SecretValue,
    /// When this version was made.
    pub created_at: Timestamp,
    /// When it can't be read any more. `null`: never.
    pub expires_at: Option<Timestamp>,
}

/// Which secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SecretFilter {
    /// Only those of this namespace. `null`: of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What is known of a secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretInfo {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What it is for.
    pub description: Option<String>,
    /// The version that is read where none is named. `null`: none can be read any more.
    pub version: Option<u32>,
    /// How many versions can still be read.
    pub versions: u32,
    /// When the secret was made.
    pub created_at: Timestamp,
    /// When its newest version was made.
    pub updated_at: Timestamp,
    /// Who made its newest version.
    pub updated_by: String,
    /// When the version that is read can't be any more. `null`: never.
    pub expires_at: Option<Timestamp>,
}

/// A new version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRotateRequest {
    /// The secret's name.
    pub name: String,
    /// Its namespace. `null`: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The new value. `null`: the gateway makes one, 32 random bytes as 43 characters of URL-safe base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<SecretValue>,
    /// How many old versions stay readable beside the new one.
    #[serde(default = "keep_versions")]
    pub keep_versions: u32,
    /// For how long the version that is replaced stays readable. `null`: until newer ones push it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// After how long the new version can't be read any more. `null`: after as long as the one before, or never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Span>,
}

/// Old versions that stay readable unless somebody says otherwise.
pub const KEEP_VERSIONS: u32 = 3;

const fn keep_versions() -> u32 {
    KEEP_VERSIONS
}

/// What of a secret is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretDeleteRequest {
    /// The secret's name.
    pub name: String,
    /// Its namespace. `null`: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// All versions, and the name with them; otherwise only the latest version, and the one before it is read again.
    #[serde(default)]
    pub all_versions: bool,
}

/// A version of a secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretVersionInfo {
    /// Its number, from 1; none is used twice.
    pub version: u32,
    /// Whether it can be read.
    pub state: SecretVersionState,
    /// Whether it is the one that is read where none is named.
    pub current: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it can't be read any more. `null`: never.
    pub expires_at: Option<Timestamp>,
}

/// Whether a version can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretVersionState {
    /// It can.
    Readable,
    /// Its time is over.
    Expired,
    /// Its key is gone, and so is the value for good.
    Destroyed,
}

/// How the vault is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultStatus {
    /// Fingerprint of the master key that seals what is new.
    pub key: String,
    /// Where the master key comes from: `file`, `passphrase` or `command`.
    pub source: String,
    /// How many keys of values it seals.
    pub sealed: u64,
    /// How many are still sealed by the key before it. Not 0: a change of the key is under way.
    pub sealed_by_old: u64,
}
