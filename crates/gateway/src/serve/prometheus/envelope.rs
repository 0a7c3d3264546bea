//! Answers and refusals in the JSON that Prometheus' API speaks.

use std::fmt::Write;

use api::ApiError;
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;
use telemetry::promql::{Answer, LabelSet, PromqlError};

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// What was asked for makes no sense.
    BadData(String),
    /// It makes sense, but can't be computed.
    Execution(String),
    /// Its time was over.
    Timeout(String),
    /// The caller may not, or the gateway can't.
    Api(ApiError),
}

impl From<PromqlError> for Refusal {
    fn from(error: PromqlError) -> Self {
        let text = error.to_string();
        match error {
            PromqlError::TooManyPoints { .. } | PromqlError::TooManySamples { .. } | PromqlError::Matching(_) => {
                Self::Execution(text)
            }
            PromqlError::TimedOut => Self::Timeout(text),
            PromqlError::Source(error) => Self::Api(crate::metrics::store_failed(&error)),
            _ => Self::BadData(text),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, kind, message) = match self {
            Self::BadData(message) => (StatusCode::BAD_REQUEST, "bad_data", message),
            Self::Execution(message) => (StatusCode::UNPROCESSABLE_ENTITY, "execution", message),
            Self::Timeout(message) => (StatusCode::SERVICE_UNAVAILABLE, "timeout", message),
            Self::Api(error) => {
                let status = StatusCode::from_u16(error.code.http_status());
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let kind = match status.as_u16() {
                    401 | 403 => "unauthorized",
                    404 => "not_found",
                    400..=499 => "bad_data",
                    _ => "internal",
                };
                (status, kind, error.message)
            }
        };
        let body = json!({ "status": "error", "errorType": kind, "error": message });
        (status, axum::Json(body)).into_response()
    }
}

/// An answer, written.
pub(super) fn success(data: &impl Serialize) -> Result<String, Refusal> {
    let data = serde_json::to_string(data).map_err(unwritten)?;
    Ok(format!("{{\"status\":\"success\",\"data\":{data}}}"))
}

/// An answer, sent.
pub(super) fn sent(json: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// The answer to a query, written. `at_ms`: the moment, for values that have none of their own.
pub(super) fn answer(answer: &Answer, at_ms: i64) -> Result<String, Refusal> {
    let mut json = "{\"status\":\"success\",\"data\":{\"resultType\":\"".to_owned();
    match answer {
        Answer::Scalar(value) => {
            json.push_str("scalar\",\"result\":");
            sample(&mut json, at_ms, *value);
        }
        Answer::Text(text) => {
            json.push_str("string\",\"result\":[");
            seconds(&mut json, at_ms);
            json.push(',');
            json.push_str(&serde_json::to_string(text).map_err(unwritten)?);
            json.push(']');
        }
        Answer::Vector(series) => {
            json.push_str("vector\",\"result\":");
            list(&mut json, series, |json, (labels, value)| {
                metric(json, labels)?;
                json.push_str(",\"value\":");
                sample(json, at_ms, *value);
                Ok(())
            })?;
        }
        Answer::Matrix(series) => {
            json.push_str("matrix\",\"result\":");
            list(&mut json, series, |json, (labels, points)| {
                metric(json, labels)?;
                json.push_str(",\"values\":[");
                for (n, (at, value)) in points.iter().enumerate() {
                    if n > 0 {
                        json.push(',');
                    }
                    sample(json, *at, *value);
                }
                json.push(']');
                Ok(())
            })?;
        }
    }
    json.push_str("}}");
    Ok(json)
}

/// A list of objects.
fn list<T>(
    json: &mut String,
    items: &[T],
    mut write: impl FnMut(&mut String, &T) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    json.push('[');
    for (n, item) in items.iter().enumerate() {
        json.push_str(if n > 0 { ",{" } else { "{" });
        write(json, item)?;
        json.push('}');
    }
    json.push(']');
    Ok(())
}

fn metric(json: &mut String, labels: &LabelSet) -> Result<(), Refusal> {
    json.push_str("\"metric\":");
    json.push_str(&serde_json::to_string(labels).map_err(unwritten)?);
    Ok(())
}

/// A moment and a value, which is a string: JSON has no infinity.
fn sample(json: &mut String, at_ms: i64, value: f64) {
    json.push('[');
    seconds(json, at_ms);
    json.push_str(",\"");
    if value.is_nan() {
        json.push_str("NaN");
    } else if value.is_infinite() {
        json.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _ = write!(json, "{value}");
    }
    json.push_str("\"]");
}

fn seconds(json: &mut String, ms: i64) {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    let _ = write!(json, "{sign}{}", ms / 1000);
    if !ms.is_multiple_of(1000) {
        let _ = write!(json, ".{:03}", ms % 1000);
    }
}

fn unwritten(error: serde_json::Error) -> Refusal {
    Refusal::Api(ApiError::internal("the answer couldn't be written").cause(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn answers_are_prometheus_json() {
        let labels: LabelSet = [("a".to_owned(), "say \"hi\"".to_owned())].into();
        let vector = Answer::Vector(vec![(labels.clone(), f64::INFINITY), (labels.clone(), 0.1)]);
        let json: Value = serde_json::from_str(&answer(&vector, 1_500).unwrap()).unwrap();
        assert_eq!(json["data"]["resultType"], "vector");
        assert_eq!(json["data"]["result"][0]["metric"]["a"], "say \"hi\"");
        assert_eq!(json["data"]["result"][0]["value"], json!([1.5, "+Inf"]));
        assert_eq!(json["data"]["result"][1]["value"], json!([1.5, "0.1"]));
        let matrix = Answer::Matrix(vec![(labels, vec![(1_000, 1.0), (61_000, f64::NAN)])]);
        let json: Value = serde_json::from_str(&answer(&matrix, 0).unwrap()).unwrap();
        assert_eq!(json["data"]["result"][0]["values"], json!([[1, "1"], [61, "NaN"]]));
        let scalar: Value = serde_json::from_str(&answer(&Answer::Scalar(-2.0), -1).unwrap()).unwrap();
        assert_eq!(scalar["data"]["result"], json!([-0.001, "-2"]));
    }
}
