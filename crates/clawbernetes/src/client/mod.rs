//! The gateway as a command sees it: typed calls over HTTP, streams and sessions over WebSocket.

mod channel;
mod endpoint;
mod exec;
mod stream;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use api::{
    ApiError, ErrorCode,
    error::ErrorBody,
    op::{Effect, IDEMPOTENCY_HEADER, Operation, path},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};

use vault::tls::Trust;

use self::channel::Channel;
pub(crate) use self::endpoint::Endpoint;

/// Longest time that setting up a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time that an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a call whose connection broke waits for the gateway to be back before its one repetition.
const REPEAT_PATIENCE: Duration = Duration::from_secs(10);

/// Time between two tries to connect while waiting for a gateway to be back.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Longest answer that is read.
const ANSWER_MAX_BYTES: usize = 1 << 30;

/// A gateway, and the token for it.
pub(crate) struct Client {
    endpoint: Endpoint,
    token: Option<String>,
    channel: Channel,
    /// The gateway has answered this client: should it be away now, it was there a moment ago.
    answered: AtomicBool,
}

/// Why a try to call came to nothing.
enum Trouble {
    /// The gateway said so, or can't be reached: trying again won't help.
    Final(ApiError),
    /// The connection broke before the answer was complete.
    Broken(String),
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Self {
        Self::Final(error)
    }
}

impl Client {
    /// A client; nothing is connected yet.
    pub(crate) fn new(endpoint: Endpoint, token: Option<String>, trust: Trust) -> Self {
        Self {
            endpoint,
            token,
            channel: Channel::new(trust),
            answered: AtomicBool::new(false),
        }
    }

    /// The root that the gateway's certificate leads to, PEM, once a call by TLS was made and the root is known by its
    /// fingerprint. `None`: otherwise.
    pub(crate) fn authority(&self) -> Option<String> {
        self.channel.root()
    }

    /// Where it calls.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Calls an operation. A call that only reads, or that carries an idempotency key, is repeated once when its
    /// connection breaks.
    ///
    /// # Errors
    /// The gateway's own, or that it can't be reached or doesn't answer in time.
    pub(crate) async fn call<O: Operation>(&self, request: &O::Request) -> Result<O::Response, ApiError> {
        let body = serde_json::to_vec(request)
            .map_err(|error| ApiError::internal("the request can't be written").cause(error.to_string()))?;
        let key = match O::EFFECT {
            Effect::Creates => Some(random_key()?),
            Effect::Reads | Effect::Writes => None,
        };
        let repeatable = O::EFFECT != Effect::Writes;
        let body = Bytes::from(body);
        let answer = match self.attempt(O::NAME, body.clone(), key.as_deref(), None).await {
            Err(Trouble::Broken(_)) if repeatable => {
                let patience = Some(Instant::now() + REPEAT_PATIENCE);
                self.attempt(O::NAME, body, key.as_deref(), patience).await
            }
            other => other,
        };
        let answer = answer.map_err(|trouble| match trouble {
            Trouble::Final(error) => error,
            Trouble::Broken(cause) => self.broken(&cause, repeatable),
        })?;
        serde_json::from_slice(&answer).map_err(|error| self.foreign(&error.to_string()))
    }

    /// One try. With `patience`, a gateway that isn't there yet is waited for.
    async fn attempt(
        &self,
        name: &str,
        body: Bytes,
        key: Option<&str>,
        patience: Option<Instant>,
    ) -> Result<Bytes, Trouble> {
        let socket = match patience {
            None => self.connect().await?,
            Some(until) => self.connect_until(until).await?,
        };
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let late = || {
            ApiError::new(
                ErrorCode::TimedOut,
                format!(
                    "the gateway at {} hasn't answered for {} s",
                    self.endpoint,
                    ANSWER_TIMEOUT.as_secs()
                ),
            )
        };
        let broken = |error: hyper::Error| Trouble::Broken(error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(broken)?;
        let connection = tokio::spawn(connection);
        let mut request = Request::post(format!("{}{}", self.endpoint.prefix, path(name)))
            .header(header::HOST, self.endpoint.authority())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT);
        if let Some(token) = self.bearer()? {
            request = request.header(header::AUTHORIZATION, token);
        }
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_HEADER, key);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| ApiError::internal("the request can't be made").cause(error.to_string()))?;
        let answer = timeout_at(deadline, sender.send_request(request))
            .await
            .map_err(|_| late())?
            .map_err(broken)?;
        let status = answer.status();
        let body = timeout_at(deadline, Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect())
            .await
            .map_err(|_| late())?
            .map_err(|error| Trouble::Broken(error.to_string()))?
            .to_bytes();
        connection.abort();
        if status.is_success() {
            self.answered.store(true, Ordering::Relaxed);
            Ok(body)
        } else {
            Err(self.refusal(status, &body).into())
        }
    }

    /// The value of the authorization header.
    fn bearer(&self) -> Result<Option<header::HeaderValue>, ApiError> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        let mut value = header::HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| ApiError::new(ErrorCode::AuthFailed, "the token holds characters that no token has"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Connects.
    async fn connect(&self) -> Result<channel::Stream, ApiError> {
        let mut last: Option<std::io::Error> = None;
        let addresses = timeout(CONNECT_TIMEOUT, self.endpoint.addresses())
            .await
            .map_err(|_| self.unreachable("its name can't be resolved in time"))?
            .map_err(|error| self.unreachable(&format!("its name can't be resolved: {error}")))?;
        for address in addresses {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => {
                    // Requests are small and wait for their answer: nothing is gained by holding them back.
                    let _ = socket.set_nodelay(true);
                    let opened = timeout(CONNECT_TIMEOUT, self.channel.open(&self.endpoint, socket)).await;
                    return opened.map_err(|_| self.unreachable("it doesn't shake hands in time"))?;
                }
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(std::io::ErrorKind::TimedOut.into()),
            }
        }
        let cause = last.map_or_else(|| "its name has no address".to_owned(), |error| error.to_string());
        Err(self.unreachable(&cause))
    }

    /// Connects, and tries again until then while nothing listens.
    async fn connect_until(&self, until: Instant) -> Result<channel::Stream, ApiError> {
        loop {
            match self.connect().await {
                Err(error) if error.code == ErrorCode::ConnectionRefused && Instant::now() < until => {
                    sleep(RECONNECT_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    fn unreachable(&self, cause: &str) -> ApiError {
        let hint = if self.endpoint.loopback() {
            "start it with: clawbernetes gateway serve (or gateway and node in one: clawbernetes up)"
        } else {
            "check the address (clawbernetes auth status shows where it comes from), the firewall, and that \
             `clawbernetes gateway serve` runs there"
        };
        ApiError::new(
            ErrorCode::ConnectionRefused,
            format!("no gateway answers at {}", self.endpoint),
        )
        .cause(cause)
        .hint(hint)
    }

    fn broken(&self, cause: &str, repeated: bool) -> ApiError {
        let error = ApiError::new(
            ErrorCode::ConnectionRefused,
            format!("the connection to the gateway at {} broke", self.endpoint),
        )
        .cause(cause);
        if repeated {
            error.hint("see whether it runs with: clawbernetes gateway ping")
        } else {
            error.hint("what was asked may have been done or not: look before you repeat it")
        }
    }

    /// The error in an answer that isn't a success.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> ApiError {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(body) => body.error,
            Err(_) => {
                let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
                self.foreign(&format!("HTTP {status}: {}", text.trim()))
            }
        }
    }

    /// Something answers, but not as a gateway of this version would.
    fn foreign(&self, cause: &str) -> ApiError {
        ApiError::internal(format!(
            "what answers at {} isn't a Clawbernetes gateway, or one of another version",
            self.endpoint
        ))
        .cause(cause)
        .hint("compare versions with: clawbernetes gateway ping")
    }
}

/// How the command line names itself.
const USER_AGENT: &str = concat!("clawbernetes/", env!("CARGO_PKG_VERSION"));

/// 128 random bits, in hex.
fn random_key() -> Result<String, ApiError> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| ApiError::internal("the system gives no random bytes").cause(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
