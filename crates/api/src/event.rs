//! Events: every transition, with who or what caused it, why, and when.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Timestamp, wire::FactKind};

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Info,
    /// Worth a look.
    Warning,
    /// Something failed.
    Error,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Position in the fleet's history; grows with time. Resume `events -f` with it.
    #[serde(default)]
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// `workload`, `node` or `alert`, and other kinds of things later.
    pub kind: String,
    /// The id of what it happened to.
    pub subject: String,
    /// The namespace, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The node that it happened on, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// One word: `Submitted`, `Scheduled`, `Started`, `Unreachable`, …
    pub reason: String,
    /// The whole sentence.
    pub message: String,
    /// Who or what did it: `user:admin`, `scheduler`, `node:gpu-7`, `gateway`.
    pub actor: String,
    /// How much it matters.
    pub severity: Severity,
    /// What a node's kernel log said, where that is what happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fact: Option<FactKind>,
}
