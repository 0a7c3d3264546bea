//! Whether an ID token is what it says (OpenID Connect Core 1.0, section 3.1.3.7).

use api::Timestamp;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde_json::{Map, Value};

/// How far the clocks of two machines may be apart, in seconds.
const LEEWAY_S: f64 = 60.0;
/// Longest ID token that is looked at, in bytes.
const TOKEN_MAX: usize = 48 << 10;
/// Signatures that are accepted: made by a private key, of which the provider shows the public one. Never a shared secret.
const ACCEPTED: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What an ID token says.
pub type Claims = Map<String, Value>;

/// Why an ID token isn't believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It isn't written as one.
    #[error("the ID token isn't a signed token")]
    Malformed,
    /// Its signature is none, or of a kind that anybody could make.
    #[error("the ID token is signed by '{0}', which isn't accepted")]
    Algorithm(String),
    /// It names a key that the provider doesn't show, or one for something else.
    #[error("the ID token's key '{0}' is none that its issuer signs with by this algorithm")]
    UnknownKey(String),
    /// It names no key, and it isn't clear which one is meant.
    #[error("the ID token doesn't say by which key it is signed")]
    NoKey,
    /// Somebody else signed it, or it was changed.
    #[error("the ID token's signature is wrong")]
    Signature,
    /// Another provider made it.
    #[error("the ID token is of another issuer than {0}")]
    Issuer(String),
    /// It was made for somebody else.
    #[error("the ID token is for another client than {0}")]
    Audience(String),
    /// Its time is over.
    #[error("the ID token has expired")]
    Expired,
    /// Its time has yet to come.
    #[error("the ID token isn't valid yet")]
    NotYetValid,
    /// It doesn't say something that it must.
    #[error("the ID token's claim '{0}' is missing, or can't be read")]
    Claim(&'static str),
}

/// The public keys of a provider.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Jwk>);

impl Keys {
    /// Reads a key set (RFC 7517). Keys of kinds that aren't known here are left out. `None`: it isn't one.
    #[must_use]
    pub fn read(set: &Value) -> Option<Self> {
        let keys = set.get("keys")?.as_array()?;
        let known = keys.iter().filter_map(|key| serde_json::from_value(key.clone()).ok());
        Some(Self(known.collect()))
    }

    /// The key of this name for this algorithm. Without a name: the only one for it.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&Jwk, Refusal> {
        let mut fitting = self.0.iter().filter(|key| fits(key, algorithm));
        match kid {
            Some(kid) => fitting
                .find(|key| key.common.key_id.as_deref() == Some(kid))
                .ok_or_else(|| Refusal::UnknownKey(shown(kid))),
            None => match (fitting.next(), fitting.next()) {
                (Some(only), None) => Ok(only),
                _ => Err(Refusal::NoKey),
            },
        }
    }
}

/// Whether signatures of this kind can be a key's.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let kind = match &key.algorithm {
        AlgorithmParameters::RSA(_) => matches!(
            algorithm,
            Algorithm::RS256
                | Algorithm::RS384
                | Algorithm::RS512
                | Algorithm::PS256
                | Algorithm::PS384
                | Algorithm::PS512
        ),
        AlgorithmParameters::EllipticCurve(key) => matches!(
            (algorithm, &key.curve),
            (Algorithm::ES256, EllipticCurve::P256) | (Algorithm::ES384, EllipticCurve::P384)
        ),
        AlgorithmParameters::OctetKeyPair(key) => {
            algorithm == Algorithm::EdDSA && matches!(key.curve, EllipticCurve::Ed25519)
        }
        // A secret that is shown to everybody is none.
        AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_) => false,
        _ => false,
    };
    let signs = !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
    let alone = key.common.key_algorithm.as_ref();
    kind && signs && alone.is_none_or(|only| only.to_string() == format!("{algorithm:?}"))
}

/// What comes from a stranger and goes to a terminal and a log: short, and visible.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// What an ID token says, once it is certain that `issuer` made it for `client`, and that its time is now.
///
/// # Errors
/// [`Refusal`]; on [`Refusal::UnknownKey`] the provider may have a new one.
pub fn verify(token: &str, keys: &Keys, issuer: &str, client: &str, now: Timestamp) -> Result<Claims, Refusal> {
    if token.len() > TOKEN_MAX || token.split('.').count() != 3 {
        return Err(Refusal::Malformed);
    }
    let head = token
        .split('.')
        .next()
        .and_then(|head| BASE64_URL_SAFE_NO_PAD.decode(head).ok());
    let head: Claims = head
        .and_then(|head| serde_json::from_slice(&head).ok())
        .ok_or(Refusal::Malformed)?;
    let name = head.get("alg").and_then(Value::as_str).ok_or(Refusal::Malformed)?;
    let algorithm = name.parse().ok().filter(|algorithm| ACCEPTED.contains(algorithm));
    let algorithm = algorithm.ok_or_else(|| Refusal::Algorithm(shown(name)))?;
    // Extensions that must be understood, and aren't (RFC 7515, section 4.1.11).
    if head.contains_key("crit") {
        return Err(Refusal::Malformed);
    }
    let key = keys.find(head.get("kid").and_then(Value::as_str), algorithm)?;
    let key = DecodingKey::from_jwk(key).map_err(|_| Refusal::Signature)?;
    let mut expected = Validation::new(algorithm);
    expected.set_required_spec_claims(&["iss", "aud", "sub"]);
    expected.set_issuer(&[issuer]);
    expected.set_audience(&[client]);
    // Times are looked at below, by the gateway's clock.
    expected.validate_exp = false;
    let read = jsonwebtoken::decode::<Claims>(token, &key, &expected);
    let claims = read.map_err(|error| refusal(error.kind(), issuer, client))?.claims;
    if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(Refusal::Issuer(issuer.to_owned()));
    }
    check_party(&claims, client)?;
    check_times(&claims, now)?;
    Ok(claims)
}

fn refusal(kind: &ErrorKind, issuer: &str, client: &str) -> Refusal {
    match kind {
        ErrorKind::InvalidIssuer => Refusal::Issuer(issuer.to_owned()),
        ErrorKind::InvalidAudience => Refusal::Audience(client.to_owned()),
        ErrorKind::MissingRequiredClaim(name) => Refusal::Claim(match name.as_str() {
            "iss" => "iss",
            "aud" => "aud",
            _ => "sub",
        }),
        ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Json(_) | ErrorKind::Utf8(_) => Refusal::Malformed,
        _ => Refusal::Signature,
    }
}

/// For whom it was made, where that is several: the one who may show it.
fn check_party(claims: &Claims, client: &str) -> Result<(), Refusal> {
    let several = claims
        .get("aud")
        .and_then(Value::as_array)
        .is_some_and(|aud| aud.len() > 1);
    match claims.get("azp") {
        Some(party) if party.as_str() != Some(client) => Err(Refusal::Audience(client.to_owned())),
        None if several => Err(Refusal::Claim("azp")),
        _ => Ok(()),
    }
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
    let now = now.as_second() as f64;
    if seconds(claims, "exp")? <= now - LEEWAY_S {
        return Err(Refusal::Expired);
    }
    let early = |at: f64| at > now + LEEWAY_S;
    if early(seconds(claims, "iat")?) || (claims.contains_key("nbf") && early(seconds(claims, "nbf")?)) {
        return Err(Refusal::NotYetValid);
    }
    Ok(())
}

/// A moment that it tells, in seconds since 1970 UTC.
///
/// # Errors
/// It doesn't.
pub fn seconds(claims: &Claims, name: &'static str) -> Result<f64, Refusal> {
    let told = claims.get(name).and_then(Value::as_f64);
    told.filter(|at| at.is_finite() && *at >= 0.0)
        .ok_or(Refusal::Claim(name))
}
