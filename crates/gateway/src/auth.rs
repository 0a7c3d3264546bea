//! Credentials: made, hashed, and told apart.
//!
//! A credential is `cb<kind>_<id>_<secret>`: the id finds the record, the secret's SHA-256 is compared in constant
//! time. Secrets have 256 random bits, so that a fast hash is enough. What is handed out may end with `.` and the
//! fingerprint of the fleet's root certificate, by which its bearer knows the gateway at the first connection.

use api::{
    ApiError, ErrorCode, Reason, Timestamp,
    auth::{Identity, Role},
    op::Reach,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use vault::pki::Peer;

use crate::{
    decide::submit::DEFAULT_NAMESPACE,
    view::{View, Within},
};

/// What a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A person or program.
    Token,
    /// Lets nodes in.
    Join,
    /// A node.
    Node,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Token => "cbt",
            Self::Join => "cbj",
            Self::Node => "cbn",
        }
    }
}

/// Random bytes of the operating system.
///
/// # Errors
/// `INTERNAL` where the system has none, which no credential may be made without.
pub fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| ApiError::internal("no random numbers").cause(e.to_string()))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// 64 random bits: what an id is made from.
///
/// # Errors
/// The kernel gives none.
pub fn random_number() -> Result<u64, ApiError> {
    random::<8>().map(u64::from_le_bytes)
}

/// A new credential and the hash to keep of it.
///
/// # Errors
/// No random numbers.
pub fn mint(kind: Kind, id: &str) -> Result<(String, String), ApiError> {
    Ok(credential(kind, id, &hex(&random::<32>()?)))
}

/// A credential of a secret that somebody else made, and the hash to keep of it.
#[must_use]
pub fn credential(kind: Kind, id: &str, secret: &str) -> (String, String) {
    (format!("{}_{id}_{secret}", kind.prefix()), hash(secret))
}

/// Checks that a secret can be a credential's: as long as one of ours, and of the same digits.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn check_secret(secret: &str) -> Result<(), ApiError> {
    let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if secret.len() == 64 && secret.bytes().all(digits) {
        return Ok(());
    }
    Err(ApiError::invalid("secret", "a secret has 64 lower-case hex digits"))
}

/// A new id: twelve hex digits.
///
/// # Errors
/// No random numbers.
pub fn new_id() -> Result<String, ApiError> {
    Ok(hex(&random::<6>()?))
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

fn same(hash_kept: &str, secret: &str) -> bool {
    hash_kept.as_bytes().ct_eq(hash(secret).as_bytes()).into()
}

/// Splits a credential into kind, id and secret. `None`: it isn't one.
fn split(credential: &str) -> Option<(Kind, &str, &str)> {
    if credential.len() > 256 {
        return None;
    }
    // The fingerprint is the bearer's; node names may hold dots, secrets don't.
    let credential = match credential.rsplit_once('.') {
        Some((rest, fingerprint)) if fingerprint.len() == 64 && !fingerprint.contains('_') => rest,
        _ => credential,
    };
    let (prefix, rest) = credential.split_once('_')?;
    let (id, secret) = rest.rsplit_once('_')?;
    let kind = [Kind::Token, Kind::Join, Kind::Node]
        .into_iter()
        .find(|k| k.prefix() == prefix)?;
    Some((kind, id, secret))
}

/// Which token somebody claims to have, by the public part. `None`: what they show isn't written as one.
#[must_use]
pub fn claimed_id(credential: &str) -> Option<&str> {
    split(credential).map(|(_, id, _)| id)
}

/// Who bears a credential.
///
/// # Errors
/// `AUTH_FAILED`. The message doesn't tell a wrong secret from an unknown id.
pub fn identify(view: &View, credential: &str, now: Timestamp) -> Result<Identity, ApiError> {
    let failed = |reason: Reason, message: &str| {
        ApiError::new(ErrorCode::AuthFailed, message)
            .because(reason)
            .hint("clawbernetes auth login")
    };
    let refused = || failed(Reason::TokenUnknown, "the token is not valid: unknown or mistyped");
    let (kind, id, secret) =
        split(credential).ok_or_else(|| failed(Reason::TokenMalformed, "this isn't written as a token"))?;
    match kind {
        Kind::Token => {
            let token = view.token(id).filter(|t| same(&t.hash, secret)).ok_or_else(refused)?;
            let info = &token.info;
            if token.revoked_at.is_some() {
                return Err(failed(Reason::TokenRevoked, &format!("the token {id} was revoked")));
            }
            if info.expires_at.is_some_and(|at| at <= now) {
                return Err(failed(Reason::TokenExpired, &format!("the token {id} has expired")));
            }
            Ok(Identity {
                name: info.name.clone(),
                role: info.role,
                scopes: info.scopes.clone(),
                namespace: info.namespace.clone(),
                token_id: info.id.clone(),
                expires_at: info.expires_at,
            })
        }
        Kind::Join => {
            let token = view
                .join_token(id)
                .filter(|t| same(&t.hash, secret))
                .ok_or_else(refused)?;
            if token.expires_at <= now {
                return Err(failed(Reason::TokenExpired, "the join token has expired")
                    .hint("make a new one: clawbernetes auth join-token"));
            }
            Ok(Identity {
                name: format!("join-{id}"),
                role: Role::Joiner,
                scopes: Vec::new(),
                namespace: None,
                token_id: id.to_owned(),
                expires_at: Some(token.expires_at),
            })
        }
        Kind::Node => {
            let node = view
                .node(&api::NodeName::new(id))
                .filter(|n| same(&n.credential_hash, secret))
                .ok_or_else(|| {
                    // It isn't named: what is written wrongly may have a part of the secret where the name should be.
                    let message = "no node is known by this credential: it was removed, or has joined anew";
                    failed(Reason::TokenUnknown, message).hint("let it join again: clawbernetes auth join-token")
                })?;
            Ok(Identity {
                name: node.name.to_string(),
                role: Role::Node,
                scopes: Vec::new(),
                namespace: None,
                token_id: id.to_owned(),
                expires_at: None,
            })
        }
    }
}

/// The node whose certificate a peer showed: the fleet's authority issued it, as TLS has made sure of.
///
/// # Errors
/// `AUTH_FAILED`: it was revoked, or its time is over; `PERMISSION_DENIED`: it is no node's.
pub fn identify_peer(view: &View, peer: &Peer, now: Timestamp) -> Result<Identity, ApiError> {
    let Some(node) = &peer.node else {
        return Err(ApiError::new(
            ErrorCode::AuthFailed,
            "this certificate is no node's: it doesn't stand for anybody here",
        )
        .because(Reason::CertificateWrongUse)
        .hint("clawbernetes auth login"));
    };
    let name = api::NodeName::new(node.as_str());
    let kept = view.cert(&peer.serial).filter(|cert| cert.revoked.is_none());
    if kept.is_none() || view.node(&name).is_none() {
        return Err(ApiError::new(
            ErrorCode::AuthFailed,
            format!("the certificate of node {name} was revoked"),
        )
        .because(Reason::CertificateRevoked)
        .hint("let the node join again: clawbernetes auth join-token"));
    }
    if peer.not_after <= now {
        return Err(ApiError::new(
            ErrorCode::AuthFailed,
            format!("the certificate of node {name} ended at {}", peer.not_after),
        )
        .because(Reason::CertificateExpired));
    }
    Ok(Identity {
        name: name.to_string(),
        role: Role::Node,
        scopes: Vec::new(),
        namespace: None,
        token_id: name.to_string(),
        expires_at: None,
    })
}

/// Checks that whoever speaks for a node over TLS shows that node's certificate.
///
/// # Errors
/// `AUTH_FAILED`: none, one that was revoked, or another node's.
pub fn check_peer(view: &View, identity: &Identity, peer: Option<&Peer>, now: Timestamp) -> Result<(), ApiError> {
    let Some(peer) = peer else {
        return Err(ApiError::new(
            ErrorCode::AuthFailed,
            "a node's session over TLS needs the node's certificate",
        )
        .because(Reason::CertificateMissing));
    };
    let owner = identify_peer(view, peer, now)?;
    if owner.name != identity.name {
        return Err(ApiError::new(
            ErrorCode::AuthFailed,
            format!(
                "the certificate is of node {}, the credential of {}",
                owner.name, identity.name
            ),
        )
        .because(Reason::CertificateWrongName));
    }
    Ok(())
}

/// Whether somebody who was let in may stay: the token is there and hasn't expired.
#[must_use]
pub fn still_valid(view: &View, identity: &Identity, now: Timestamp) -> bool {
    let kept = match identity.role {
        Role::Node => view.node(&api::NodeName::new(&identity.token_id)).is_some(),
        Role::Joiner => view.join_token(&identity.token_id).is_some(),
        Role::Viewer | Role::Operator | Role::Admin | Role::Custom => {
            view.token(&identity.token_id).is_some_and(|t| t.revoked_at.is_none())
        }
    };
    kept && identity.expires_at.is_none_or(|at| at > now)
}

/// Checks that an identity may use operations that are about this.
///
/// # Errors
/// `PERMISSION_DENIED`: it is bound to a namespace, and this is about the fleet.
pub fn check_reach(identity: &Identity, reach: Reach) -> Result<(), ApiError> {
    match (&identity.namespace, reach) {
        (Some(own), Reach::Fleet) => Err(ApiError::new(
            ErrorCode::PermissionDenied,
            format!(
                "{} is for namespace '{own}', and this is about the fleet",
                identity.name
            ),
        )
        .because(Reason::FleetWide)
        .hint("ask an admin for a token that isn't bound to a namespace")),
        _ => Ok(()),
    }
}

/// The namespace that a call is about: the one that it names, else the caller's, else `default`.
///
/// # Errors
/// `PERMISSION_DENIED`: the caller is bound to another one.
pub fn namespace<'a>(identity: &'a Identity, given: Option<&'a str>) -> Result<&'a str, ApiError> {
    let meant = given.or(identity.namespace.as_deref()).unwrap_or(DEFAULT_NAMESPACE);
    if identity.reaches(meant) {
        return Ok(meant);
    }
    let own = identity.namespace.as_deref().unwrap_or_default();
    Err(ApiError::new(
        ErrorCode::PermissionDenied,
        format!("{} is for namespace '{own}', not '{meant}'", identity.name),
    )
    .because(Reason::OtherNamespace)
    .hint(format!("leave the namespace out, or: -n {own}")))
}

/// The one namespace that a list is of: the one that a call names, else the caller's. `None`: all.
///
/// # Errors
/// As [`namespace`].
pub fn only<'a>(identity: &'a Identity, given: Option<&'a str>) -> Result<Option<&'a str>, ApiError> {
    match given {
        Some(_) => namespace(identity, given).map(Some),
        None => Ok(identity.namespace.as_deref()),
    }
}

/// Where a caller looks workloads up.
///
/// # Errors
/// As [`namespace`].
pub fn within<'a>(identity: &'a Identity, given: Option<&'a str>) -> Result<Within<'a>, ApiError> {
    Ok(Within {
        namespace: namespace(identity, given)?,
        only: identity.namespace.as_deref(),
    })
}

/// Waits until somebody who was let in may no longer stay.
pub async fn until_invalid(hub: &crate::hub::Hub, identity: &Identity) {
    while still_valid(&hub.view(), identity, crate::hub::now()) {
        tokio::time::sleep(RECHECK).await;
    }
}

/// What is told to whoever may no longer stay.
#[must_use]
pub fn no_longer_valid() -> ApiError {
    ApiError::new(ErrorCode::AuthFailed, "the token was revoked or has expired")
        .because(Reason::TokenRevoked)
        .hint("clawbernetes auth login")
}

/// How soon a revoked token loses what it has open.
const RECHECK: std::time::Duration = std::time::Duration::from_secs(2);

/// Whether a credential is an admin's.
#[must_use]
pub fn is_admin(view: &View, credential: &str, now: Timestamp) -> bool {
    identify(view, credential, now).is_ok_and(|identity| identity.role == Role::Admin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_split_and_compared() {
        let (credential, kept) = mint(Kind::Node, "gpu_7").unwrap();
        let (kind, id, secret) = split(&credential).unwrap();
        assert_eq!((kind, id), (Kind::Node, "gpu_7"));
        assert!(same(&kept, secret) && !same(&kept, "x"));
        assert!(!credential.contains(&kept));
    }

    #[test]
    fn nonsense_is_nobody() {
        let view = View::default();
        for bad in [
            "",
            "cbt",
            "cbt__",
            "cbt_x_y",
            "xyz_a_b",
            "cbn_node_secret",
            &"_".repeat(10_000),
        ] {
            let error = identify(&view, bad, Timestamp::UNIX_EPOCH).unwrap_err();
            assert_eq!(error.code, ErrorCode::AuthFailed, "{bad}");
        }
    }
}
