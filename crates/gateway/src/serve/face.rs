//! Operations as HTTP and WebSocket: written once for all of them.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use api::{
    ApiError, ErrorCode,
    auth::{Identity, Scope},
    error::ErrorBody,
    op::{About, Effect, Frame, IDEMPOTENCY_HEADER, NodeCertify, OPERATIONS, Operation, Streaming, path},
};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{
        FromRequestParts, Request, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::{Stream, StreamExt};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    App,
    access::{Caller, Need},
    places::{Stay, Stays},
    unknown, upgrade,
};
use crate::{audit, auth};

/// Longest first frame of a stream, and longest idempotency key.
const FIRST_FRAME_MAX: usize = 64 << 10;
const IDEMPOTENCY_KEY_MAX: usize = 128;

/// Longest request of a stranger, in bytes.
const STRANGER_BODY_MAX: usize = 64 << 10;

/// The request of a stream must have come by then.
const FIRST_FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// A reader must have taken an item by then.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// One call.
pub struct Call {
    /// The gateway.
    pub app: Arc<App>,
    /// Who calls.
    pub identity: Identity,
    /// What makes a repetition of a creating call answer what the first one answered.
    pub idempotency: Option<String>,
}

impl Call {
    /// The caller as events name it.
    pub fn actor(&self) -> String {
        format!("user:{}", self.identity.name)
    }
}

/// Somebody who didn't have to show who they are.
pub struct Stranger {
    /// The gateway.
    pub app: Arc<App>,
    /// Where they call from.
    pub from: IpAddr,
}

/// An error as an answer.
pub struct Failed(pub ApiError);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(ErrorBody { error: self.0 })).into_response()
    }
}

/// Routes in the making: each operation of the table must get one.
pub struct Faces {
    router: Router<Arc<App>>,
    missing: BTreeSet<&'static str>,
}

impl Faces {
    pub fn new(router: Router<Arc<App>>) -> Self {
        Self {
            router,
            missing: OPERATIONS.iter().map(|o| o.name).collect(),
        }
    }

    /// Serves an operation with one answer.
    pub fn unary<O, F, Fut, A>(&mut self, handler: F)
    where
        O: Operation,
        F: Fn(Call, O::Request) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<A, ApiError>> + Send + 'static,
        A: Into<Written<O::Response>>,
    {
        self.missing.remove(O::NAME);
        let face = move |State(app): State<Arc<App>>, request: Request| async move {
            let (parts, body) = request.into_parts();
            let mut noted = None;
            let answer = async {
                if parts.method != Method::POST && !(parts.method == Method::GET && O::EFFECT == Effect::Reads) {
                    return Err(not_this_way::<O>(&parts.method));
                }
                let caller = Caller::of(&parts.headers, &parts.extensions)?;
                let need = Need {
                    without_certificate: O::NAME == NodeCertify::NAME,
                    ..Need::new(O::SCOPE, O::REACH)
                };
                let admitted = app.access.admit(&app.hub.view(), &caller, need);
                let who = match &admitted {
                    Ok(identity) => Some(identity),
                    Err(refused) => refused.who.as_deref(),
                };
                if O::EFFECT != Effect::Reads || admitted.is_err() {
                    noted = Some(audit::entry(O::NAME, who, caller.from));
                }
                let identity = match admitted {
                    Ok(identity) => identity,
                    Err(refused) => {
                        // What somebody known tried to do is worth a look.
                        if let (Some(_), Some(noted)) = (&refused.who, &mut noted) {
                            let body = read_body(body, app.access.limits.body_bytes).await;
                            let asked = body.and_then(|body| from_json::<O::Request>(&body));
                            noted.target = asked.ok().and_then(|asked| asked.about());
                        }
                        return Err(refused.error);
                    }
                };
                let idempotency = idempotency_key(&parts.headers)?;
                if idempotency.is_some() && O::EFFECT == Effect::Writes {
                    return Err(not_keyed::<O>());
                }
                let asked: O::Request = if parts.method == Method::GET {
                    from_query(parts.uri.query().unwrap_or_default())?
                } else {
                    from_json(&read_body(body, app.access.limits.body_bytes).await?)?
                };
                if let Some(noted) = &mut noted {
                    noted.target = asked.about();
                }
                handler(
                    Call {
                        app: Arc::clone(&app),
                        identity,
                        idempotency,
                    },
                    asked,
                )
                .await
            };
            let answer: Result<Written<O::Response>, ApiError> = answer.await.map(Into::into);
            let noted = noted.map(|entry: audit::Entry| entry.ended(answer.as_ref().err()));
            let seen = match noted {
                Some(entry) => app.audited(entry, watched::<O>()).await,
                None => Ok(()),
            };
            match answer.and_then(|answer| seen.map(|()| answer)) {
                Ok(answer) => written(answer),
                Err(error) => Failed(error).into_response(),
            }
        };
        self.router = std::mem::take(&mut self.router).route(&path(O::NAME), any(face));
    }

    /// Serves an operation that asks for no token. What is to be seen of it in the audit log, its handler notes.
    pub fn open<O, F, Fut>(&mut self, handler: F)
    where
        O: Operation,
        F: Fn(Stranger, O::Request) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<O::Response, ApiError>> + Send + 'static,
    {
        debug_assert!(O::SCOPE == Scope::NoToken, "{} asks for a token", O::NAME);
        self.missing.remove(O::NAME);
        let face = move |State(app): State<Arc<App>>, request: Request| async move {
            let (parts, body) = request.into_parts();
            let answer = async {
                if parts.method != Method::POST && !(parts.method == Method::GET && O::EFFECT == Effect::Reads) {
                    return Err(not_this_way::<O>(&parts.method));
                }
                let caller = Caller::of(&parts.headers, &parts.extensions)?;
                caller.peer()?;
                if idempotency_key(&parts.headers)?.is_some() && O::EFFECT == Effect::Writes {
                    return Err(not_keyed::<O>());
                }
                let asked: O::Request = if parts.method == Method::GET {
                    from_query(parts.uri.query().unwrap_or_default())?
                } else {
                    from_json(&read_body(body, STRANGER_BODY_MAX).await?)?
                };
                let from = caller.from;
                handler(Stranger { app, from }, asked).await
            };
            match answer.await {
                Ok(answer) => written(Written::from(answer)),
                Err(error) => Failed(error).into_response(),
            }
        };
        self.router = std::mem::take(&mut self.router).route(&path(O::NAME), any(face));
    }

    /// Serves an operation that answers many items: over WebSocket, where the first frame is the request, or over
    /// plain HTTP, a line each.
    pub fn streaming<O, F, S>(&mut self, handler: F)
    where
        O: Streaming,
        F: Fn(Call, O::Request) -> S + Clone + Send + Sync + 'static,
        S: Stream<Item = Result<O::Item, ApiError>> + Send + 'static,
    {
        self.missing.remove(O::NAME);
        let face = move |State(app): State<Arc<App>>, request: Request| async move {
            let (mut parts, body) = request.into_parts();
            let entered = async {
                let (_, place) = upgrade::origin(&parts.extensions)?;
                let caller = Caller::of(&parts.headers, &parts.extensions)?;
                let identity = app.admitted(O::NAME, &caller, Need::new(O::SCOPE, O::REACH)).await?;
                Ok((identity, place.stay(Stays::Follower)?))
            };
            let (identity, stay) = match entered.await {
                Ok(entered) => entered,
                Err(error) => return Failed(error).into_response(),
            };
            let call = Call {
                app: Arc::clone(&app),
                identity,
                idempotency: None,
            };
            if let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &app).await {
                let query = parts.uri.query().map(str::to_owned);
                return upgrade
                    .max_message_size(FIRST_FRAME_MAX)
                    .on_upgrade(move |socket| async move {
                        let _stay = stay;
                        over_websocket::<O, _, _>(socket, call, query, handler).await;
                    });
            }
            let asked: Result<O::Request, ApiError> = async {
                if parts.method == Method::GET {
                    from_query(parts.uri.query().unwrap_or_default())
                } else {
                    from_json(&read_body(body, app.access.limits.body_bytes).await?)
                }
            }
            .await;
            match asked {
                Ok(asked) => over_http(call, asked, handler, stay),
                Err(error) => Failed(error).into_response(),
            }
        };
        self.router = std::mem::take(&mut self.router).route(&path(O::NAME), any(face));
    }

    /// The routes.
    pub fn finish(self) -> Router<Arc<App>> {
        debug_assert!(self.missing.is_empty(), "operations without a face: {:?}", self.missing);
        self.router
    }
}

/// Whether a call must not go unseen: its answer waits until it is in the audit log on the disk.
fn watched<O: Operation>() -> bool {
    matches!(
        O::SCOPE,
        Scope::ReadSecrets | Scope::WriteSecrets | Scope::Certify | Scope::Administer | Scope::Join
    )
}

/// Whoever relies on the header must know that a repetition would be done anew.
fn not_keyed<O: Operation>() -> ApiError {
    ApiError::invalid(
        IDEMPOTENCY_HEADER,
        format!(
            "{} takes no idempotency key: a repetition would be carried out again",
            O::NAME
        ),
    )
    .hint("leave the header out; look at what is there before calling again")
}

fn not_this_way<O: Operation>(method: &Method) -> ApiError {
    let ways = if O::EFFECT == Effect::Reads {
        "GET or POST"
    } else {
        "POST"
    };
    ApiError::new(
        ErrorCode::InvalidArgument,
        format!("{} is called by {ways}, not {method}", O::NAME),
    )
}

/// The answer to a path that doesn't exist.
pub async fn no_such_path(request: Request) -> Failed {
    let path = request.uri().path();
    Failed(ApiError::not_found(format!("there is nothing at {path}")).hint("/openapi.json lists what there is"))
}

/// An answer as JSON: long ones are put together from pieces that are already written.
pub struct Written<T> {
    json: Result<Vec<u8>, serde_json::Error>,
    of: std::marker::PhantomData<fn(T)>,
}

impl<T> Written<T> {
    /// JSON that is a `T`.
    pub fn json(bytes: Vec<u8>) -> Self {
        Self {
            json: Ok(bytes),
            of: std::marker::PhantomData,
        }
    }
}

impl<T: Serialize> From<T> for Written<T> {
    fn from(value: T) -> Self {
        Self {
            json: serde_json::to_vec(&value),
            of: std::marker::PhantomData,
        }
    }
}

fn written<T>(answer: Written<T>) -> Response {
    match answer.json {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => {
            Failed(ApiError::internal("the answer couldn't be written").cause(error.to_string())).into_response()
        }
    }
}

async fn read_body(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    to_bytes(body, limit).await.map_err(|error| {
        ApiError::new(
            ErrorCode::InvalidArgument,
            format!("the request is larger than {}, or broke off", api::Size(limit as u64)),
        )
        .cause(error.to_string())
    })
}

/// Reads a request; an empty body is an empty object. A field that nothing reads is refused: types that are kept as
/// well as asked for ignore those of later versions, but here it is a slip that would change what is done.
fn from_json<T: DeserializeOwned + JsonSchema>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    let unreadable = |error: serde_json::Error| {
        ApiError::new(
            ErrorCode::InvalidArgument,
            format!("the request can't be read: {error}"),
        )
        .hint("/openapi.json has its schema")
    };
    let mut unknown = None;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let asked = serde_ignored::deserialize(&mut reader, |path| {
        // Optional levels are told as `?`.
        unknown.get_or_insert_with(|| path.to_string().replace(".?", ""));
    })
    .map_err(unreadable)?;
    reader.end().map_err(unreadable)?;
    match unknown {
        None => Ok(asked),
        Some(field) => {
            let message = format!("the request has a field that doesn't exist: {field}");
            let (parent, key) = field.rsplit_once('.').unwrap_or(("", &field));
            let known = unknown::keys_at::<T>(parent);
            let hint = match api::nearest(key, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean '{near}'?"),
                None if known.is_empty() => "/openapi.json has its schema".to_owned(),
                None => format!("the keys here are: {}", known.join(", ")),
            };
            Err(ApiError::invalid(field.clone(), message).hint(hint))
        }
    }
}

fn from_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    serde_urlencoded::from_str(query).map_err(|error| {
        ApiError::new(ErrorCode::InvalidArgument, format!("the query can't be read: {error}"))
            .hint("/openapi.json has its schema")
    })
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let fits =
        (1..=IDEMPOTENCY_KEY_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if !fits {
        return Err(ApiError::invalid(
            IDEMPOTENCY_HEADER,
            format!("an idempotency key has 1 to {IDEMPOTENCY_KEY_MAX} visible characters other than '/'"),
        ));
    }
    Ok(Some(text.to_owned()))
}

fn frame<T: Serialize>(frame: &Frame<T>) -> String {
    serde_json::to_string(frame)
        .unwrap_or_else(|error| format!(r#"{{"error":{{"code":"INTERNAL","message":{:?}}}}}"#, error.to_string()))
}

async fn over_websocket<O, F, S>(mut socket: WebSocket, call: Call, query: Option<String>, handler: F)
where
    O: Streaming,
    F: Fn(Call, O::Request) -> S,
    S: Stream<Item = Result<O::Item, ApiError>> + Send,
{
    let asked: Result<O::Request, ApiError> = match query {
        Some(query) if !query.is_empty() => from_query(&query),
        _ => match tokio::time::timeout(FIRST_FRAME_DEADLINE, socket.recv()).await {
            Ok(Some(Ok(Message::Text(text)))) => from_json(text.as_bytes()),
            Ok(Some(Ok(Message::Binary(bytes)))) => from_json(&bytes),
            _ => return,
        },
    };
    let stop = call.app.stop.clone();
    let (app, identity) = (Arc::clone(&call.app), call.identity.clone());
    let mut invalid = std::pin::pin!(auth::until_invalid(&app.hub, &identity));
    let last = match asked {
        Err(error) => Frame::<()>::Error(error),
        Ok(asked) => {
            let items = handler(call, asked);
            let mut items = std::pin::pin!(items);
            loop {
                tokio::select! {
                    item = items.next() => match item {
                        Some(Ok(item)) => {
                            let sending = socket.send(Message::Text(frame(&Frame::Item(item)).into()));
                            if !matches!(tokio::time::timeout(WRITE_DEADLINE, sending).await, Ok(Ok(()))) {
                                return;
                            }
                        }
                        Some(Err(error)) => break Frame::Error(error),
                        // Cut short by the gateway's own end: the reader is to come back for the rest.
                        None if stop.is_cancelled() => return,
                        None => break Frame::End,
                    },
                    // A stream has nothing to say after its request: whatever comes is an end, or a ping that the
                    // library has answered.
                    heard = socket.recv() => match heard {
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        _ => return,
                    },
                    () = &mut invalid => break Frame::Error(auth::no_longer_valid()),
                    () = stop.cancelled() => return,
                }
            }
        }
    };
    let _ = socket.send(Message::Text(frame(&last).into())).await;
    let _ = socket.send(Message::Close(None)).await;
}

/// Items as lines. A failure after the first line is a last line with the error.
fn over_http<Q, T, F, S>(call: Call, asked: Q, handler: F, stay: Stay) -> Response
where
    T: Serialize + Send + 'static,
    F: Fn(Call, Q) -> S,
    S: Stream<Item = Result<T, ApiError>> + Send + 'static,
{
    let (app, identity) = (Arc::clone(&call.app), call.identity.clone());
    let over = async move {
        tokio::select! {
            () = app.stop.cancelled() => {}
            () = auth::until_invalid(&app.hub, &identity) => {}
        }
    };
    let lines = handler(call, asked).map(move |item| {
        // Until the last line has been taken, or nobody takes any.
        let _stay = &stay;
        let mut line = match item {
            Ok(item) => serde_json::to_vec(&item),
            Err(error) => serde_json::to_vec(&ErrorBody { error }),
        }
        .unwrap_or_default();
        line.push(b'\n');
        Ok::<_, std::convert::Infallible>(Bytes::from(line))
    });
    let lines = lines.take_until(over);
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use api::op::SubmitRequest;

    use super::*;

    #[test]
    fn fields_that_nothing_reads_are_refused() {
        let read = |text: &str| from_json::<SubmitRequest>(text.as_bytes());
        let fine = r#"{"workloads":[{"spec":{"image":"host","gpus":{"count":1},"env":[{"name":"A","value":"b"}]}}]}"#;
        assert_eq!(read(fine).unwrap().workloads[0].spec.gpus.count, 1);
        let spec = |keys: &str| format!(r#"{{"workloads":[{{"spec":{{"image":"host",{keys}}}}}]}}"#);
        let volume = |keys: &str| spec(&format!(r#""volumes":[{{"type":"hostPath","mountPath":"/a",{keys}}}]"#));
        let check = |keys: &str| {
            let times = r#""interval":"1s","timeout":"1s","failures":3"#;
            spec(&format!(r#""healthCheck":{{"tcp":80,{times},{keys}}}"#))
        };
        for (text, field, hint) in [
            (spec(r#""gpuss":{"count":1}"#), "spec.gpuss", "did you mean 'gpus'?"),
            (
                spec(r#""gpus":{"count":1,"memori":"1Gi"}"#),
                "spec.gpus.memori",
                "did you mean 'memory'?",
            ),
            (
                volume(r#""source":"/b","readOnyl":true"#),
                "spec.volumes.0.readOnyl",
                "did you mean 'readOnly'?",
            ),
            (
                check(r#""failurs":3"#),
                "spec.healthCheck.failurs",
                "did you mean 'failures'?",
            ),
            (
                spec(r#""hooks":{"zzz":[]}"#),
                "spec.hooks.zzz",
                "the keys here are: postStop, preStart",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!(error.field, Some(format!("workloads.0.{field}")), "{error:?}");
            assert_eq!(error.hint.as_deref(), Some(hint), "{text}");
        }
        for (text, words) in [
            (volume(r#""source":"/b","sizeLimit":"1Gi""#), "sizeLimit"),
            (volume(r#""readOnly":true"#), "source"),
            (check(r#""http":"/x""#), "one of 'http', 'tcp' and 'command'"),
        ] {
            let message = read(&text).unwrap_err().message;
            assert!(message.contains(words), "{message}");
        }
        for text in ["{\"workloads\":[]} x", "[", r#"{"workload":[]}"#] {
            assert_eq!(read(text).unwrap_err().code, ErrorCode::InvalidArgument, "{text}");
        }
    }
}
