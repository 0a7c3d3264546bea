//! Requests and answers about certificates.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Span, Timestamp};

/// A certificate's life unless somebody says otherwise.
pub const CERT_VALIDITY: Span = Span::secs(90 * 86_400);

const fn validity() -> Span {
    CERT_VALIDITY
}

/// Which kind of key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CertAlgorithm {
    /// ECDSA over P-256 or P-384.
    #[default]
    Ecdsa,
    /// RSA.
    Rsa,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CertPurpose {
    /// TLS servers and clients.
    #[default]
    Both,
    /// TLS servers.
    Server,
    /// TLS clients.
    Client,
}

/// A wish for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertIssueRequest {
    /// What it is called here; its subject's common name too.
    pub name: String,
    /// The DNS names and IP addresses that it is for; at least one.
    pub sans: Vec<String>,
    /// How long it is valid.
    #[serde(default = "validity")]
    pub validity: Span,
    /// Which kind of key.
    #[serde(default)]
    pub algorithm: CertAlgorithm,
    /// Bits of the key: 256 or 384 for ECDSA, 2048, 3072 or 4096 for RSA. `null`: 256 and 2048.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_size: Option<u32>,
    /// What it is for.
    #[serde(default)]
    pub purpose: CertPurpose,
}

/// A new certificate with its key, which is shown once and not kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuedCert {
    /// What is kept of it.
    pub info: CertInfo,
    /// The certificate, PEM.
    pub certificate: String,
    /// The certificate and those between it and the root, PEM: what a server shows.
    pub chain: String,
    /// The private key, PKCS #8 in PEM.
    pub key: String,
    /// The root that signs, PEM: what others trust.
    pub authority: String,
}

impl Drop for IssuedCert {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

impl fmt::Debug for IssuedCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedCert")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// How a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CertStatus {
    /// It holds.
    Valid,
    /// It holds, but is to be renewed.
    Expiring,
    /// It holds, and another one has taken its place.
    Replaced,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

/// What is kept of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertInfo {
    /// What it is called here.
    pub name: String,
    /// Its serial number, hex.
    pub serial: String,
    /// How it stands.
    pub status: CertStatus,
    /// The names and addresses that it is for.
    pub sans: Vec<String>,
    /// Its key, in words: `ECDSA P-256`, `RSA 2048`.
    pub algorithm: String,
    /// What it is for.
    pub purpose: CertPurpose,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// From when it holds.
    pub not_before: Timestamp,
    /// Until when it holds.
    pub not_after: Timestamp,
    /// From when it is to be renewed.
    pub renew_at: Timestamp,
    /// Who asked for it.
    pub issued_by: String,
    /// When it was taken back. `null`: it wasn't.
    pub revoked_at: Option<Timestamp>,
    /// Why it was taken back.
    pub revoked_for: Option<String>,
}

/// Which certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CertFilter {
    /// Only those that end within this time, ended ones left out. `null`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiring: Option<Span>,
    /// Those of nodes and of the gateway too, which renew themselves.
    pub all: bool,
}

/// A wish for a new certificate in an old one's place, with a new key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertRotateRequest {
    /// Its name.
    pub name: String,
    /// Also where it isn't near its end.
    #[serde(default)]
    pub force: bool,
    /// Take the old one back at once; otherwise it holds until its end.
    #[serde(default)]
    pub revoke_old: bool,
}

/// A certificate to take back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertRevokeRequest {
    /// Its name (its newest certificate), or a serial number.
    pub name: String,
    /// Why, for the list of revoked certificates.
    #[serde(default)]
    pub reason: RevocationReason,
}

/// Why a certificate is taken back, as RFC 5280 has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationReason {
    /// No reason given.
    #[default]
    Unspecified,
    /// Somebody else may have the key.
    KeyCompromise,
    /// Another one has taken its place.
    Superseded,
    /// What it was for is no more.
    CessationOfOperation,
}

/// The certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertAuthority {
    /// The root, PEM: what others trust.
    pub certificate: String,
    /// The certificates between those it issues and the root, PEM; empty where the root signs itself.
    pub intermediates: String,
    /// SHA-256 of the root, hex: what join tokens carry.
    pub fingerprint: String,
    /// Until when the signing certificate holds.
    pub not_after: Timestamp,
}

/// The list of revoked certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertRevocations {
    /// The signed list, PEM.
    pub crl: String,
    /// Its number; grows.
    pub number: u64,
    /// How many certificates are on it.
    pub revoked: u32,
    /// When it was made.
    pub this_update: Timestamp,
    /// By when there is a newer one.
    pub next_update: Timestamp,
}

/// A node asks for its next certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeCertRequest {
    /// A signing request (PKCS #10) in PEM, for a key of the node's own making. Its subject isn't looked at.
    pub request: String,
}

/// A node's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCert {
    /// The certificate and those between it and the root, PEM.
    pub chain: String,
    /// The root, PEM.
    pub authority: String,
    /// Until when it holds.
    pub not_after: Timestamp,
}
