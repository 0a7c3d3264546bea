//! A server that stands in for a provider: answers what it was told to, and remembers what it was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use futures_util::{StreamExt as _, stream};
use llm::{Model, Options, Provider, SecretString, Url};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Nobody's key.
pub const KEY: &str = "sk-canary-0123456789abcdefCANARY";

/// What it answers.
pub enum Reply {
    /// Status, headers, body.
    Http(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Nothing, for ever.
    Silence,
    /// The beginning of an answer, then nothing, for ever.
    Stuck,
    /// The beginning of an answer, then the connection ends.
    Cut,
}

/// What it was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Value,
}

#[derive(Clone)]
struct Script {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

pub struct StandIn {
    pub url: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StandIn {
    /// One that gives these replies, in order, each once.
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script = Script {
            replies: Arc::new(Mutex::new(replies.into_iter().collect())),
            asked: asked.clone(),
        };
        let router = axum::Router::new().fallback(answer).with_state(script);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, asked, task }
    }

    /// A model of a provider, there.
    pub fn model(&self, provider: Provider) -> Model {
        self.model_with(Options::of(provider))
    }

    /// A model with these options, there.
    pub fn model_with(&self, options: Options) -> Model {
        let base_url = Some(self.url.clone());
        Model::new(Options { base_url, ..options }).unwrap()
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    State(script): State<Script>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    script.asked.lock().unwrap().push(Asked {
        method,
        uri,
        headers,
        body,
    });
    let reply = script.replies.lock().unwrap().pop_front();
    let begun = || stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"{\"choices\": ["))]);
    let json = || Response::builder().header("content-type", "application/json");
    match reply.unwrap_or_else(|| text(418, "nothing was left to answer")) {
        Reply::Http(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        Reply::Silence => std::future::pending::<Result<_, Infallible>>().await.unwrap(),
        Reply::Stuck => json()
            .body(Body::from_stream(begun().chain(stream::pending())))
            .unwrap(),
        Reply::Cut => {
            let end = stream::iter([Err(io::Error::other("cut"))]);
            json().body(Body::from_stream(begun().chain(end))).unwrap()
        }
    }
}

/// JSON with a status.
pub fn json_reply(status: u16, body: &Value) -> Reply {
    let headers = vec![("content-type", "application/json".to_owned())];
    Reply::Http(status, headers, body.to_string().into_bytes())
}

/// Plain text with a status.
pub fn text(status: u16, body: &str) -> Reply {
    Reply::Http(
        status,
        vec![("content-type", "text/plain".to_owned())],
        body.as_bytes().to_vec(),
    )
}

/// An answer as each provider documents it.
pub fn says(provider: Provider, answer: &str) -> Reply {
    json_reply(200, &answer_of(provider, answer))
}

/// The body of an answer as each provider documents it.
pub fn answer_of(provider: Provider, answer: &str) -> Value {
    match provider {
        Provider::Anthropic => json!({
            "id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant", "model": "claude-haiku-5-5",
            "content": [{"type": "text", "text": answer}],
            "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": 12, "output_tokens": 6},
        }),
        Provider::OpenAi => json!({
            "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG", "object": "chat.completion", "created": 1_741_570_283,
            "model": "gpt-6-luna",
            "choices": [{
                "index": 0, "logprobs": null, "finish_reason": "stop",
                "message": {"role": "assistant", "content": answer, "refusal": null, "annotations": []},
            }],
            "usage": {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
        }),
        Provider::Zai => json!({
            "id": "20261122", "request_id": "r", "created": 1_741_570_283, "model": "glm-4.7",
            "choices": [{
                "index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": answer, "reasoning_content": ""},
            }],
            "usage": {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
        }),
    }
}

/// A complaint as each provider documents it.
pub fn complains(provider: Provider, status: u16, message: &str) -> Reply {
    json_reply(
        status,
        &match provider {
            Provider::Anthropic => {
                json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}, "request_id": "req_1"})
            }
            Provider::OpenAi => {
                json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}})
            }
            Provider::Zai => json!({"error": {"code": "1210", "message": message}}),
        },
    )
}

/// The same with a header.
pub fn with(reply: Reply, name: &'static str, value: &str) -> Reply {
    match reply {
        Reply::Http(status, mut headers, body) => {
            headers.push((name, value.to_owned()));
            Reply::Http(status, headers, body)
        }
        other => other,
    }
}

pub fn key() -> SecretString {
    SecretString::from(KEY)
}

/// Options of a provider with a deadline in milliseconds.
pub fn within(provider: Provider, ms: u64) -> Options {
    let deadline = Duration::from_millis(ms);
    Options {
        deadline,
        ..Options::of(provider)
    }
}
