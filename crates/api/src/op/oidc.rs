//! Logging in by an identity provider (OpenID Connect).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An identity provider, and where a command line logs in at it (RFC 8628).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OidcIssuer {
    /// Its name, a URL.
    pub issuer: String,
    /// As what the fleet is known to it.
    pub client_id: String,
    /// Where a login is begun. `null`: it has no logins for command lines.
    pub device_authorization_endpoint: Option<String>,
    /// Where its outcome is asked for.
    pub token_endpoint: String,
}

/// Asks for a token by what an identity provider says of somebody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OidcExchangeRequest {
    /// The ID token, as the provider signed it.
    pub id_token: String,
}

impl std::fmt::Debug for OidcExchangeRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcExchangeRequest").finish_non_exhaustive()
    }
}
