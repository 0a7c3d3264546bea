//! Identities: roles, and the scopes that operations ask for.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// What a token lets its bearer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything but secrets, changes nothing.
    Viewer,
    /// Runs and stops work, drains nodes.
    Operator,
    /// Everything, identities included.
    Admin,
    /// What the token's scopes say, and nothing else.
    Custom,
    /// A node agent: its own session and nothing else.
    Node,
    /// A join token: makes nodes known, and nothing else.
    Joiner,
}

impl Role {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Custom => "custom",
            Self::Node => "node",
            Self::Joiner => "joiner",
        }
    }

    /// Whether this role may use operations of this scope.
    #[must_use]
    pub const fn allows(self, scope: Scope) -> bool {
        match scope {
            Scope::NoToken | Scope::Anyone => true,
            Scope::Read => matches!(self, Self::Viewer | Self::Operator | Self::Admin),
            Scope::Run | Scope::OperateNodes | Scope::WriteSecrets => matches!(self, Self::Operator | Self::Admin),
            Scope::ReadSecrets | Scope::Certify | Scope::ReadAudit | Scope::Administer => matches!(self, Self::Admin),
            Scope::NodeSession => matches!(self, Self::Node),
            Scope::Join => matches!(self, Self::Joiner | Self::Admin),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            other => Err(format!("'{other}' is no role (accepted: viewer, operator, admin)")),
        }
    }
}

/// What an operation asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Nobody has to show who they are: it is how they get what to show.
    NoToken,
    /// Any valid identity.
    Anyone,
    /// See the fleet.
    Read,
    /// Submit, stop and enter workloads.
    Run,
    /// Drain, label, taint and remove nodes.
    OperateNodes,
    /// Set, rotate and delete secrets, and give them to workloads.
    WriteSecrets,
    /// See secrets' values.
    ReadSecrets,
    /// Issue and revoke certificates.
    Certify,
    /// See who did what.
    ReadAudit,
    /// Manage identities and the gateway.
    Administer,
    /// Speak as a node.
    NodeSession,
    /// Make a node known.
    Join,
}

impl Scope {
    /// Those that a token can be given one by one, by name.
    pub const GIVEN: [(&'static str, Self); 8] = [
        ("read", Self::Read),
        ("run", Self::Run),
        ("operate-nodes", Self::OperateNodes),
        ("write-secrets", Self::WriteSecrets),
        ("read-secrets", Self::ReadSecrets),
        ("certify", Self::Certify),
        ("read-audit", Self::ReadAudit),
        ("administer", Self::Administer),
    ];
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::GIVEN.iter().find(|(name, _)| *name == text);
        known.map(|(_, scope)| *scope).ok_or_else(|| {
            let names = Self::GIVEN.map(|(name, _)| name).join(", ");
            format!("'{text}' is no scope (accepted: {names})")
        })
    }
}

/// A token as it is kept: without the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenInfo {
    /// Its id, the public part of the token.
    pub id: String,
    /// What it is for, in the words of its maker.
    pub name: String,
    /// What it lets its bearer do.
    pub role: Role,
    /// With the role `custom`: what exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
    /// The only namespace that it is for. `null`: all, and the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it stops working. `null`: never.
    pub expires_at: Option<Timestamp>,
}

/// Who a caller is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The name that owned workloads and events carry: `user:…` without the prefix.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// With the role `custom`: what exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
    /// The only namespace that it sees. `null`: all, and the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The token's id.
    pub token_id: String,
    /// When the token stops working. `null`: never.
    pub expires_at: Option<Timestamp>,
}

impl Identity {
    /// Whether it may use operations of this scope.
    #[must_use]
    pub fn allows(&self, scope: Scope) -> bool {
        self.role.allows(scope) || (self.role == Role::Custom && self.scopes.contains(&scope))
    }

    /// Whether it may see and change things of this namespace, as far as its scopes go.
    #[must_use]
    pub fn reaches(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_grow() {
        for scope in [Scope::Read, Scope::Run, Scope::OperateNodes, Scope::Administer] {
            assert!(Role::Admin.allows(scope));
            assert!(!Role::Node.allows(scope), "a node can do nothing but be a node");
            assert!(!Role::Viewer.allows(scope) || scope == Scope::Read);
        }
        assert!(Role::Operator.allows(Scope::Run) && !Role::Operator.allows(Scope::Administer));
    }
}
