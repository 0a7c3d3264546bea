//! Who may come in, and how often.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use api::{
    ApiError, ErrorCode, Reason,
    auth::{Identity, Scope},
    op::Reach,
};
use axum::{
    extract::ConnectInfo,
    http::{Extensions, HeaderMap, header::AUTHORIZATION},
};
use base64::prelude::{BASE64_STANDARD, Engine as _};

use vault::pki::Peer;

use super::channel::Channel;
use crate::{auth, hub::now, view::View};

/// How much one caller may ask.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls a second of one identity, over time.
    pub calls_per_second: f64,
    /// Calls that it may save up.
    pub burst: f64,
    /// Failed logins a second of one address, over time.
    pub failures_per_second: f64,
    /// Failed logins that one address may make at once.
    pub failure_burst: f64,
    /// Largest request body in bytes.
    pub body_bytes: usize,
    /// Connections at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_per_second: 10_000.0,
            burst: 20_000.0,
            failures_per_second: 1.0,
            failure_burst: 20.0,
            body_bytes: 4 << 20,
            connections: 16_384,
        }
    }
}

/// Who calls, as far as the connection says.
pub struct Caller<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Where it calls from.
    pub from: IpAddr,
    /// How its connection speaks.
    pub channel: &'a Channel,
}

impl<'a> Caller<'a> {
    /// Who calls with this request.
    ///
    /// # Errors
    /// It didn't come through [`super::listen()`].
    pub fn of(headers: &'a HeaderMap, extensions: &'a Extensions) -> Result<Self, ApiError> {
        let from = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let origin = from.zip(extensions.get::<Channel>());
        let (from, channel) = origin.ok_or_else(|| ApiError::internal("the call came from nowhere"))?;
        Ok(Self { headers, from, channel })
    }

    /// The certificate that it showed. `None`: none.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`: it calls in the clear, where that isn't taken.
    pub fn peer(&self) -> Result<Option<&'a Peer>, ApiError> {
        match self.channel {
            Channel::Refused => {
                let message = "this gateway takes no unencrypted calls from elsewhere";
                let error = ApiError::new(ErrorCode::PermissionDenied, message).because(Reason::TlsRequired);
                Err(error.hint("call it by wss:// or https://"))
            }
            Channel::Plain => Ok(None),
            Channel::Tls(peer) => Ok(peer.as_deref()),
        }
    }
}

fn slow_down(seconds: f64, what: &str) -> ApiError {
    ApiError::new(ErrorCode::QuotaExceeded, format!("too many {what}"))
        .hint(format!("try again in {}", api::Span((seconds * 1000.0).ceil() as u64)))
}

/// A caller that wasn't let in.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: ApiError,
    /// Who it is. `None`: nobody was recognised.
    pub who: Option<Box<Identity>>,
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self { error, who: None }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

/// What is asked of a caller.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// The scope.
    pub scope: Scope,
    /// What its call is about.
    pub reach: Reach,
    /// A node may come without its certificate: to get one.
    pub without_certificate: bool,
}

impl Need {
    /// This scope, for something that is about this.
    #[must_use]
    pub fn new(scope: Scope, reach: Reach) -> Self {
        Self {
            scope,
            reach,
            without_certificate: false,
        }
    }
}

/// By what a caller is known.
#[derive(Clone, Copy)]
enum Shown<'a> {
    Credential(&'a str),
    Certificate(&'a Peer),
}

/// A bucket that fills over time: a call takes one.
#[derive(Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

/// Buckets kept at once; past that, full ones are dropped.
const BUCKETS_MAX: usize = 10_000;

/// Limits, and who has used how much of them.
#[derive(Debug, Default)]
pub struct Access {
    /// What is allowed.
    pub limits: Limits,
    /// The lease that answers to creating calls are kept with at present, and since when.
    pub answer_lease: tokio::sync::Mutex<Option<(store::LeaseId, api::Timestamp)>>,
    calls: Mutex<HashMap<String, Bucket>>,
    failures: Mutex<HashMap<IpAddr, Bucket>>,
    /// By the token that somebody claimed to have, from wherever.
    failures_of: Mutex<HashMap<String, Bucket>>,
    logins: Mutex<HashMap<IpAddr, Bucket>>,
}

/// Takes one from a bucket. `Err`: seconds until there is one.
fn take<K: std::hash::Hash + Eq>(
    buckets: &Mutex<HashMap<K, Bucket>>,
    key: K,
    rate: f64,
    burst: f64,
) -> Result<(), f64> {
    let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let refilled = |b: &Bucket| (b.level + now.duration_since(b.at).as_secs_f64() * rate).min(burst);
    if buckets.len() >= BUCKETS_MAX {
        buckets.retain(|_, b| refilled(b) < burst);
    }
    let bucket = buckets.entry(key).or_insert(Bucket { level: burst, at: now });
    bucket.level = refilled(bucket);
    bucket.at = now;
    if bucket.level < 1.0 {
        return Err((1.0 - bucket.level) / rate);
    }
    bucket.level -= 1.0;
    Ok(())
}

impl Access {
    /// With these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Lets a caller in to an operation of this scope.
    ///
    /// # Errors
    /// `AUTH_FAILED`, `PERMISSION_DENIED`, or `QUOTA_EXCEEDED` with the time to wait.
    pub fn admit(&self, view: &View, caller: &Caller<'_>, need: Need) -> Result<Identity, Refused> {
        self.admit_with(view, caller, bearer(caller.headers), need)
    }

    /// As [`Self::admit`], for what only reads: the token may also be the password of Basic authentication, whatever
    /// the user's name. Where anything can be changed that isn't taken: browsers send such passwords by themselves.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub fn admit_scraper(&self, view: &View, caller: &Caller<'_>, need: Need) -> Result<Identity, Refused> {
        let password = basic_password(caller.headers);
        self.admit_with(view, caller, bearer(caller.headers).or(password.as_deref()), need)
    }

    /// Lets somebody try to log in by an identity provider, as often as an address may fail to log in; those who succeed
    /// count too, since each makes a record.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED` with the time to wait.
    pub fn login(&self, from: IpAddr) -> Result<(), ApiError> {
        let (rate, burst) = (self.limits.failures_per_second, self.limits.failure_burst);
        take(&self.logins, from, rate, burst).map_err(|seconds| slow_down(seconds, "logins from this address"))
    }

    fn admit_with(
        &self,
        view: &View,
        caller: &Caller<'_>,
        credential: Option<&str>,
        need: Need,
    ) -> Result<Identity, Refused> {
        let from = caller.from;
        let peer = caller.peer()?;
        let failed = || {
            take(
                &self.failures,
                from,
                self.limits.failures_per_second,
                self.limits.failure_burst,
            )
            .map_err(|seconds| slow_down(seconds, "failed logins from this address"))
        };
        let Some(known) = credential.map(Shown::Credential).or(peer.map(Shown::Certificate)) else {
            let error = ApiError::new(ErrorCode::AuthFailed, "no token was given").because(Reason::TokenMissing);
            return Err(error.hint("clawbernetes auth login, or set CLAWBERNETES_TOKEN").into());
        };
        // Secrets can't be guessed; so whoever has one comes in, whatever others at that address try.
        let identified = match known {
            Shown::Credential(credential) => auth::identify(view, credential, now()),
            Shown::Certificate(peer) => auth::identify_peer(view, peer, now()),
        };
        let identity = match identified.and_then(|identity| {
            // Whoever speaks for a node over TLS proves it by the node's certificate; its credential gets it a new one.
            match caller.channel {
                Channel::Tls(peer) if need.scope == Scope::NodeSession && !need.without_certificate => {
                    auth::check_peer(view, &identity, peer.as_deref(), now())?;
                }
                _ => {}
            }
            Ok(identity)
        }) {
            Ok(identity) => identity,
            Err(error) => {
                failed()?;
                if let Some(id) = credential.and_then(auth::claimed_id) {
                    let limits = &self.limits;
                    take(
                        &self.failures_of,
                        id.to_owned(),
                        limits.failures_per_second,
                        limits.failure_burst,
                    )
                    .map_err(|seconds| slow_down(seconds, "failed logins with this token"))?;
                }
                tracing::warn!(%from, code = %error.code, "a call was refused: {}", error.message);
                return Err(error.into());
            }
        };
        take(
            &self.calls,
            identity.token_id.clone(),
            self.limits.calls_per_second,
            self.limits.burst,
        )
        .map_err(|seconds| slow_down(seconds, "calls with this token"))?;
        if !identity.allows(need.scope) {
            tracing::warn!(%from, identity = identity.name, role = %identity.role, scope = ?need.scope, "a call was not allowed");
            let error = ApiError::new(
                ErrorCode::PermissionDenied,
                format!("{} ({}) may not do this", identity.name, identity.role),
            );
            let error = match known {
                Shown::Certificate(_) => error
                    .because(Reason::CertificateWrongUse)
                    .hint("a node's certificate is for its session; calls need a token: clawbernetes auth login"),
                Shown::Credential(_) => error.hint(
                    "ask an admin for a token with a role that may: clawbernetes auth token create --role operator",
                ),
            };
            return Err(Refused {
                error,
                who: Some(Box::new(identity)),
            });
        }
        match auth::check_reach(&identity, need.reach) {
            Ok(()) => Ok(identity),
            Err(error) => Err(Refused {
                error,
                who: Some(Box::new(identity)),
            }),
        }
    }
}

/// The bearer token of a call. `None`: there is none.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The password of Basic authentication. `None`: there is none.
fn basic_password(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, pair) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(pair.trim()).ok()?).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_tokens() {
        let password = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            basic_password(&headers)
        };
        assert_eq!(password("Basic Z3JhZmFuYTpjYnRfYV9i").as_deref(), Some("cbt_a_b"));
        for none in ["Basic Z3JhZmFuYQ==", "Basic !", "Bearer Z3JhZmFuYTpjYnRfYV9i", "Basic"] {
            assert_eq!(password(none), None, "{none}");
        }
    }

    #[test]
    fn a_bucket_runs_dry_and_says_for_how_long() {
        let buckets = Mutex::default();
        for _ in 0..3 {
            assert_eq!(take(&buckets, 1, 0.001, 3.0), Ok(()));
        }
        let wait = take(&buckets, 1, 0.001, 3.0).unwrap_err();
        assert!(wait > 900.0 && wait <= 1000.0, "{wait}");
        assert_eq!(take(&buckets, 2, 0.001, 3.0), Ok(()), "another caller isn't affected");
    }
}
