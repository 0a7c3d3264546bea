//! People who log in at an identity provider (OpenID Connect).
//!
//! ```text
//! command line ──device code (RFC 8628)──▶ provider ──ID token──▶ command line ──exchange──▶ gateway
//!                                             ▲                                                │
//!                                             └───────── its document, its public keys ────────┘
//! ```
//!
//! The gateway never sees a password and needs no secret of the provider: it reads the public keys, and gives a token of
//! its own to whom a rule is about.

pub mod http;
mod rules;
mod verify;

use std::{sync::Arc, time::Duration};

use api::{
    ApiError, ErrorCode, Reason, Span, Timestamp,
    auth::{Role, TokenInfo},
    op::OidcIssuer,
    time,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};

pub use rules::{NameClaim, RoleRule};

use self::{
    http::Http,
    verify::{Claims, Keys, Refusal, verify},
};

/// After this long the provider is asked anew: keys that it has taken back are good for no longer.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// How long a provider that doesn't answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// What tokens that were made for logins are made by, with the issuer.
const MADE_BY: &str = "oidc:";

/// An identity provider, and what it is believed.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name, exactly as it writes it itself: a URL.
    pub issuer: String,
    /// As what the fleet is known to it.
    pub client_id: String,
    /// Who gets which role.
    pub roles: Vec<RoleRule>,
    /// What people are called by.
    pub name_claim: NameClaim,
    /// How long a login lasts, from when the provider made the ID token.
    pub session: Span,
    /// How long keys are believed to be all there are: an ID token by another one makes the provider be asked anew, at
    /// most this often.
    pub keys_settled: Span,
}

impl Options {
    /// How often the provider is asked for keys that aren't known, unless it is said.
    pub const KEYS_SETTLED: Span = Span::secs(60);
}

/// What a provider tells of itself (OpenID Connect Discovery 1.0).
#[derive(Debug, Clone, Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
    token_endpoint: String,
    #[serde(default)]
    device_authorization_endpoint: Option<String>,
}

/// What is known of a provider.
#[derive(Debug)]
struct Known {
    document: Document,
    keys: Keys,
    at: Instant,
}

/// The last that was heard of a provider, and the last try that came to nothing.
#[derive(Debug, Default)]
struct Heard {
    known: Option<Arc<Known>>,
    failed: Option<(Instant, ApiError)>,
}

/// Somebody whom the provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// What they are called here.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// When they must log in again.
    pub ends: Timestamp,
    /// The provider's id of them.
    pub subject: String,
}

/// Somebody who isn't let in.
#[derive(Debug)]
pub struct Denied {
    /// Why.
    pub error: Box<ApiError>,
    /// The provider's id of them. `None`: it doesn't vouch for them.
    pub subject: Option<String>,
}

impl From<ApiError> for Denied {
    fn from(error: ApiError) -> Self {
        Self {
            error: Box::new(error),
            subject: None,
        }
    }
}

/// An identity provider.
#[derive(Debug)]
pub struct Provider {
    options: Options,
    http: Http,
    heard: Mutex<Heard>,
}

/// Whether a token was made for a login.
#[must_use]
pub fn made(token: &TokenInfo) -> bool {
    token.created_by.starts_with(MADE_BY)
}

impl Provider {
    /// It is asked when somebody logs in, and not before: it may be away when the gateway starts.
    ///
    /// # Errors
    /// The options make no sense, or there can be no TLS; in words.
    pub fn new(options: Options) -> Result<Self, String> {
        http::check_url(&options.issuer)?;
        if options.client_id.is_empty() {
            return Err("the client id is empty".to_owned());
        }
        if options.roles.is_empty() {
            return Err("nobody would get in: name who gets which role (--oidc-role '*:viewer')".to_owned());
        }
        if options.session.is_zero() {
            return Err("a login that ends at once is of no use".to_owned());
        }
        Ok(Self {
            options,
            http: Http::new()?,
            heard: Mutex::default(),
        })
    }

    /// Whom tokens of this provider's logins are made by.
    #[must_use]
    pub fn made_by(&self) -> String {
        format!("{MADE_BY}{}", self.options.issuer)
    }

    /// Where a command line logs in.
    ///
    /// # Errors
    /// The provider can't be asked.
    pub async fn issuer(&self) -> Result<OidcIssuer, ApiError> {
        let known = self.known(KNOWN_FOR).await?;
        Ok(OidcIssuer {
            issuer: self.options.issuer.clone(),
            client_id: self.options.client_id.clone(),
            device_authorization_endpoint: known.document.device_authorization_endpoint.clone(),
            token_endpoint: known.document.token_endpoint.clone(),
        })
    }

    /// Who shows an ID token.
    ///
    /// # Errors
    /// `AUTH_FAILED`: it isn't one of the provider's for this fleet at this time; `PERMISSION_DENIED`: no rule is about
    /// them; or the provider can't be asked.
    pub async fn login(&self, id_token: &str, now: Timestamp) -> Result<Login, Denied> {
        let Options { issuer, client_id, .. } = &self.options;
        let known = self.known(KNOWN_FOR).await?;
        let verified = match verify(id_token, &known.keys, issuer, client_id, now) {
            // The provider may have a new key.
            Err(Refusal::UnknownKey(_) | Refusal::NoKey) => {
                let known = self.known(self.options.keys_settled.duration()).await?;
                verify(id_token, &known.keys, issuer, client_id, now)
            }
            verified => verified,
        };
        let claims = verified.map_err(|refusal| refused(&refusal))?;
        self.welcome(&claims, now)
    }

    /// What somebody may do whom the provider vouches for.
    fn welcome(&self, claims: &Claims, now: Timestamp) -> Result<Login, Denied> {
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        let denied = |error: ApiError| Denied {
            error: Box::new(error),
            subject: Some(subject.clone()),
        };
        let permission = |message: String| ApiError::new(ErrorCode::PermissionDenied, message);
        let name = rules::name(self.options.name_claim, claims).map_err(|cause| {
            let error = permission("you can't be given a name here".to_owned()).cause(cause);
            denied(error.hint("ask an admin: gateway serve --oidc-name-claim says by which claim people are called"))
        })?;
        let role = rules::role(&self.options.roles, claims).ok_or_else(|| {
            let error = permission(format!(
                "{name} is known to the identity provider, but has no role here"
            ));
            denied(error.hint("ask an admin: gateway serve --oidc-role says who gets which role"))
        })?;
        let issued = verify::seconds(claims, "iat").map_err(|refusal| refused(&refusal))?;
        // It isn't after now by more than the leeway.
        let issued = Timestamp::from_second(issued as i64).unwrap_or(now).min(now);
        let ends = time::after(issued, self.options.session);
        if ends <= now {
            return Err(denied(
                ApiError::new(
                    ErrorCode::AuthFailed,
                    format!("the ID token is older than a login lasts ({})", self.options.session),
                )
                .because(Reason::TokenExpired)
                .hint("clawbernetes auth login --oidc"),
            ));
        }
        Ok(Login {
            name,
            role,
            ends,
            subject,
        })
    }

    /// What is known of the provider, heard no longer ago than this.
    async fn known(&self, age: Duration) -> Result<Arc<Known>, ApiError> {
        // Whoever comes meanwhile waits for the same answer.
        let mut heard = self.heard.lock().await;
        if let Some(known) = heard.known.as_ref().filter(|known| known.at.elapsed() < age) {
            return Ok(Arc::clone(known));
        }
        if let Some((_, error)) = heard.failed.as_ref().filter(|(at, _)| at.elapsed() < LEFT_ALONE) {
            return Err(error.clone());
        }
        match self.ask().await {
            Ok(known) => {
                let known = Arc::new(known);
                *heard = Heard {
                    known: Some(Arc::clone(&known)),
                    failed: None,
                };
                Ok(known)
            }
            Err(cause) => {
                tracing::warn!(
                    issuer = self.options.issuer,
                    cause,
                    "the identity provider can't be asked"
                );
                let message = format!("the identity provider {} can't be asked", self.options.issuer);
                let error = ApiError::new(ErrorCode::ConnectionRefused, message).cause(cause);
                let error = error.hint("log in with a token meanwhile: clawbernetes auth login --token TOKEN");
                heard.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn ask(&self) -> Result<Known, String> {
        let issuer = &self.options.issuer;
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document: Document = self.read(&place).await?;
        if document.issuer != *issuer {
            return Err(format!("it calls itself '{}'", document.issuer));
        }
        let places = [Some(&document.jwks_uri), Some(&document.token_endpoint)];
        for place in places
            .into_iter()
            .chain([document.device_authorization_endpoint.as_ref()])
        {
            place.map_or(Ok(()), |place| http::check_url(place))?;
        }
        let keys: Value = self.read(&document.jwks_uri).await?;
        let keys = Keys::read(&keys).ok_or("its keys can't be read")?;
        Ok(Known {
            document,
            keys,
            at: Instant::now(),
        })
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, place: &str) -> Result<T, String> {
        let answer = self.http.get(place).await?;
        if answer.status != 200 {
            return Err(format!("{place} answers {}", answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|error| format!("{place} can't be read: {error}"))
    }
}

fn refused(refusal: &Refusal) -> ApiError {
    let error = ApiError::new(ErrorCode::AuthFailed, refusal.to_string());
    let (reason, hint) = match refusal {
        Refusal::Malformed | Refusal::Claim(_) => (Reason::TokenMalformed, None),
        Refusal::Algorithm(_) => (
            Reason::TokenMalformed,
            Some("let the identity provider sign with RS256, PS256, ES256 or EdDSA"),
        ),
        Refusal::Expired => (Reason::TokenExpired, Some("do the clocks of both machines agree?")),
        Refusal::NotYetValid => (Reason::TokenUnknown, Some("do the clocks of both machines agree?")),
        Refusal::UnknownKey(_) => (
            Reason::TokenUnknown,
            Some("if the identity provider has just changed its keys: try again in a minute"),
        ),
        Refusal::NoKey | Refusal::Signature | Refusal::Issuer(_) | Refusal::Audience(_) => (Reason::TokenUnknown, None),
    };
    error
        .because(reason)
        .hint(hint.unwrap_or("clawbernetes auth login --oidc"))
}
