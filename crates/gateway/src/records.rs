//! Records that only the gateway sees.

use api::{Timestamp, WorkloadId, auth::TokenInfo};
use serde::{Deserialize, Serialize};

/// Who holds a GPU. The record exists as long as the holder may be using it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The holder.
    pub workload: WorkloadId,
    /// Which of its attempts.
    pub attempt: u32,
    /// Which member.
    pub rank: u32,
}

/// A token, as a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// What may be shown of it.
    #[serde(flatten)]
    pub info: TokenInfo,
    /// SHA-256 of the secret part, hex. The secret has 256 random bits, so that no slow hash is needed.
    pub hash: String,
    /// When it was revoked. `None`: it wasn't. The record stays for a while, so that its bearer can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

/// A join token, as a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// Its public part.
    pub id: String,
    /// SHA-256 of the secret part, hex.
    pub hash: String,
    /// Who made it.
    pub created_by: String,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// How many nodes may still join with it. `None`: any number.
    pub uses_left: Option<u32>,
    /// The store's lease that removes the record when it has expired.
    pub lease: u64,
}
