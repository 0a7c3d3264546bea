//! Requests and answers about the audit log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Which records, and how many of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuditFilter {
    /// Only those since this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only those before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Only what this identity did: `user:alice`, or `alice`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Only what was done to this: a name, an id, or what it begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Only calls of this operation: `secret.get`, or a beginning such as `secret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only what was refused.
    pub denied: bool,
    /// Most records; the newest count. `null`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Somebody did something, or tried to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// Position in the log, from 1, without holes.
    pub sequence: u64,
    /// When, by the gateway's clock.
    pub at: Timestamp,
    /// Who: `user:alice`, `node:gpu-7`, `gateway`, or `nobody` where nobody was recognised.
    pub actor: String,
    /// The id of the token that was used. `null`: none, or none that was recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The operation: `secret.get`.
    pub action: String,
    /// On what: `secret/prod/db-password`. `null`: the operation names nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// From which address. `null`: from the gateway itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether it was allowed.
    pub allowed: bool,
    /// The code of the error that it ended with. `null`: it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Hash of this record and all before it, hex: see `audit verify`.
    pub hash: String,
}

/// Whether the log is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditVerdict {
    /// No record was changed, removed, added or moved.
    pub intact: bool,
    /// How many records were checked.
    pub checked: u64,
    /// The first record. `null`: there is none.
    pub first: Option<u64>,
    /// The last record that is as it was. `null`: there is none.
    pub last: Option<u64>,
    /// Hash of that record, hex: keep it elsewhere, and a log that was cut off or written anew can be told.
    pub head: Option<String>,
    /// The first record that isn't what it was. `null`: none.
    pub broken: Option<u64>,
    /// What is wrong with it.
    pub why: Option<String>,
}
