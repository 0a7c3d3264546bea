//! The proxy's own answers: where there is no other.

use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Response, StatusCode};

use crate::body::ResponseBody;
use crate::client::Serving;

/// Why a request isn't answered by an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The request can't be passed on as it is.
    Malformed(&'static str),
    /// CONNECT: this is no forward proxy.
    Method,
    /// The client stood still in the middle of its request.
    Stalled,
    /// The client broke off in the middle of its request; nobody reads this answer.
    Broken,
    /// No endpoint came in time.
    NoEndpoint,
    /// Too many wait for one.
    Crowded,
    /// No endpoint could be connected to.
    Unreachable,
    /// Connecting took too long.
    ConnectTimeout,
    /// The endpoint closed the connection, or what it said is no answer.
    NoAnswer,
    /// The answer didn't begin in time.
    AnswerTimeout,
}

impl Failure {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed(why) => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", why),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "INVALID_ARGUMENT",
                "CONNECT isn't served here",
            ),
            Self::Stalled => (
                StatusCode::REQUEST_TIMEOUT,
                "TIMED_OUT",
                "the rest of the request didn't come in time",
            ),
            Self::Broken => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "the request broke off"),
            Self::NoEndpoint => (
                StatusCode::SERVICE_UNAVAILABLE,
                "NO_ENDPOINT",
                "no replica of the service is ready",
            ),
            Self::Crowded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "NO_ENDPOINT",
                "no replica of the service is ready, and too many requests wait for one",
            ),
            Self::Unreachable => (
                StatusCode::BAD_GATEWAY,
                "UNREACHABLE",
                "no replica of the service could be connected to",
            ),
            Self::ConnectTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "TIMED_OUT",
                "no replica of the service could be connected to in time",
            ),
            Self::NoAnswer => (
                StatusCode::BAD_GATEWAY,
                "NO_ANSWER",
                "the replica of the service closed the connection without an answer",
            ),
            Self::AnswerTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "TIMED_OUT",
                "the replica of the service didn't answer in time",
            ),
        }
    }

    /// The answer's status.
    pub fn status(self) -> StatusCode {
        self.parts().0
    }

    /// The answer: `{"error":{"code":…,"message":…}}`.
    pub fn response(self, serving: Serving) -> Response<ResponseBody> {
        let (status, code, message) = self.parts();
        // Both are texts of this file: nothing in them needs to be escaped.
        let text = format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"{message}\"}}}}\n");
        let mut response = Response::new(ResponseBody::own(serving, Bytes::from(text)));
        *response.status_mut() = status;
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(
                ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        response
    }
}
