//! Logging in at an identity provider from a command line: the device code flow (RFC 8628).
//!
//! A person opens an address in any browser and enters a code; meanwhile the provider is asked now and then whether they
//! have.

use std::time::Duration;

use api::{ApiError, ErrorCode, op::OidcIssuer};
use gateway::oidc::http::{Answer, Http, check_url};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep};

use crate::cli::App;

/// What is asked about people: who they are, and what roles can be given by.
const SCOPE: &str = "openid profile email groups";
/// The kind of grant (RFC 8628, section 3.4).
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Between two questions, where the provider doesn't say (RFC 8628, section 3.2).
const INTERVAL_S: u64 = 5;
/// How much later each question comes after the provider found them too many (section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// Between two questions at least, whatever the provider says.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Between two questions at most, where the provider can't be reached.
const AWAY_MAX: Duration = Duration::from_secs(30);

/// What a login was begun with.
#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    // Some write it as in the drafts.
    #[serde(alias = "verification_url")]
    verification_uri: String,
    #[serde(default, alias = "verification_url_complete")]
    verification_uri_complete: Option<String>,
    /// Seconds.
    expires_in: u64,
    /// Seconds.
    #[serde(default)]
    interval: Option<u64>,
}

/// What became of a login.
#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    id_token: Option<String>,
}

/// Why a provider refuses (RFC 6749, section 5.2).
#[derive(Deserialize)]
struct Refused {
    error: String,
    #[serde(default)]
    error_description: Option<String>,
}

/// What an answer to a question means.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// They have logged in.
    Done(String),
    /// They haven't yet.
    Wait,
    /// They haven't, and the questions are too many.
    Slower,
    /// The provider can't say now.
    Away,
}

/// Has somebody log in; what the provider says of them, signed.
///
/// # Errors
/// `PERMISSION_DENIED`: they said no; `TIMED_OUT`: they said nothing; or the provider can't be asked.
pub(super) async fn id_token(app: &App, issuer: &OidcIssuer) -> Result<String, ApiError> {
    let name = shown(&issuer.issuer);
    let Some(begin) = &issuer.device_authorization_endpoint else {
        let message = format!("{name} has no logins for command lines (no device authorization endpoint)");
        return Err(ApiError::new(ErrorCode::InvalidArgument, message)
            .hint("let it allow the device code flow, or log in with a token: clawbernetes auth login --token TOKEN"));
    };
    for place in [begin, &issuer.token_endpoint] {
        check_url(place).map_err(|cause| foreign(&name).cause(cause))?;
    }
    let http = Http::new().map_err(|cause| ApiError::internal("nothing can be sent").cause(cause))?;
    let away = |cause: String| {
        ApiError::new(
            ErrorCode::ConnectionRefused,
            format!("{name} can't be reached from here"),
        )
        .cause(cause)
        .hint("the command line calls it too, not only the gateway: is there a way, and does this machine trust it?")
    };
    let asked = [("client_id", issuer.client_id.as_str()), ("scope", SCOPE)];
    let answer = http.post(begin, &asked).await.map_err(away)?;
    if answer.status != 200 {
        return Err(not_begun(&name, &answer));
    }
    let begun: Begun = read(&name, &answer)?;
    let until = Instant::now() + Duration::from_secs(begun.expires_in);
    invite(app, &name, &begun);
    let mut interval = Duration::from_secs(begun.interval.unwrap_or(INTERVAL_S)).max(INTERVAL_MIN);
    let asked = [
        ("grant_type", GRANT),
        ("device_code", begun.device_code.as_str()),
        ("client_id", issuer.client_id.as_str()),
    ];
    loop {
        sleep(interval).await;
        if Instant::now() >= until {
            return Err(too_late());
        }
        let step = match http.post(&issuer.token_endpoint, &asked).await {
            Ok(answer) => step(&name, &answer)?,
            Err(_) => Step::Away,
        };
        match step {
            Step::Done(token) => return Ok(token),
            Step::Wait => {}
            Step::Slower => interval += SLOWER,
            Step::Away => interval = (interval * 2).min(AWAY_MAX.max(interval)),
        }
    }
}

/// Tells a person what to do.
fn invite(app: &App, name: &str, begun: &Begun) {
    let (place, code) = (shown(&begun.verification_uri), shown(&begun.user_code));
    app.out.note(&format!(
        "to log in at {name}, open\n\n  {place}\n\nand enter the code {code}"
    ));
    if let Some(complete) = &begun.verification_uri_complete {
        app.out.note(&format!("or open {}, which has it", shown(complete)));
    }
    let minutes = begun.expires_in.div_ceil(60);
    app.out
        .note(&format!("waiting for it; the code works for {minutes} min"));
}

/// What the token endpoint's answer means.
fn step(name: &str, answer: &Answer) -> Result<Step, ApiError> {
    if answer.status == 200 {
        let granted: Granted = read(name, answer)?;
        return granted.id_token.map(Step::Done).ok_or_else(|| {
            ApiError::new(ErrorCode::AuthFailed, format!("{name} gives no ID token"))
                .hint("let the provider allow the scope 'openid' for this client")
        });
    }
    if answer.status >= 500 || answer.status == 429 {
        return Ok(Step::Away);
    }
    let refused: Refused = read(name, answer)?;
    match refused.error.as_str() {
        "authorization_pending" => Ok(Step::Wait),
        "slow_down" => Ok(Step::Slower),
        "expired_token" => Err(too_late()),
        "access_denied" => Err(
            ApiError::new(ErrorCode::PermissionDenied, format!("the login was refused at {name}"))
                .hint("if that wasn't meant: clawbernetes auth login --oidc"),
        ),
        _ => Err(told(name, &refused)),
    }
}

fn not_begun(name: &str, answer: &Answer) -> ApiError {
    match serde_json::from_slice::<Refused>(&answer.body) {
        Ok(refused) => told(name, &refused).hint("is the client public there, with the device code flow allowed?"),
        Err(_) => foreign(name).cause(format!("it answers HTTP {}", answer.status)),
    }
}

fn told(name: &str, refused: &Refused) -> ApiError {
    let why = shown(&refused.error);
    let error = ApiError::new(ErrorCode::AuthFailed, format!("{name} refuses the login: {why}"));
    match &refused.error_description {
        Some(more) => error.cause(shown(more)),
        None => error,
    }
}

fn too_late() -> ApiError {
    ApiError::new(ErrorCode::TimedOut, "nobody logged in while the code worked")
        .hint("get another one: clawbernetes auth login --oidc")
}

fn foreign(name: &str) -> ApiError {
    ApiError::internal(format!("{name} answers as no identity provider should"))
}

fn read<T: DeserializeOwned>(name: &str, answer: &Answer) -> Result<T, ApiError> {
    serde_json::from_slice(&answer.body).map_err(|error| foreign(name).cause(error.to_string()))
}

/// What comes from elsewhere and goes to a terminal: nothing in it moves the cursor.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> Result<Step, ApiError> {
        let body = body.as_bytes().to_vec();
        step("https://id.example", &Answer { status, body })
    }

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(
            answered(200, r#"{"id_token":"a.b.c"}"#),
            Ok(Step::Done("a.b.c".to_owned()))
        );
        assert_eq!(answered(400, r#"{"error":"authorization_pending"}"#), Ok(Step::Wait));
        assert_eq!(answered(400, r#"{"error":"slow_down"}"#), Ok(Step::Slower));
        assert_eq!(answered(503, "busy"), Ok(Step::Away));
        for (status, body, code) in [
            (200, r#"{"access_token":"x"}"#, ErrorCode::AuthFailed),
            (400, r#"{"error":"expired_token"}"#, ErrorCode::TimedOut),
            (400, r#"{"error":"access_denied"}"#, ErrorCode::PermissionDenied),
            (401, r#"{"error":"invalid_client"}"#, ErrorCode::AuthFailed),
            (404, "<html>", ErrorCode::Internal),
        ] {
            assert_eq!(answered(status, body).unwrap_err().code, code, "{body}");
        }
        let error = answered(400, "{\"error\":\"\\u001b[2Jx\"}").unwrap_err();
        assert!(!error.message.contains('\u{1b}'), "{error:?}");
    }
}
