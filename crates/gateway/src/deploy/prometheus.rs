//! Asks a Prometheus.

use std::time::Duration;

use api::{ApiError, Timestamp};
use reqwest::{Client, Url};
use serde::Deserialize;

use crate::outward;

/// A whole exchange may take so long.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of it, until there is a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Where queries are asked: anything that speaks Prometheus' HTTP API.
#[derive(Debug, Clone)]
pub struct Prometheus {
    client: Client,
    query: Url,
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Row>),
    Scalar((f64, String)),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Row {
    value: (f64, String),
}

impl Prometheus {
    /// `url`: as `http://127.0.0.1:9090`.
    ///
    /// # Errors
    /// It is no URL, or there can be no client; in words.
    pub fn new(url: &str) -> Result<Self, String> {
        let base = Url::parse(url).map_err(|e| format!("'{url}' is no address of a Prometheus: {e}"))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(format!(
                "'{url}' is no address of a Prometheus: http:// or https:// is needed"
            ));
        }
        let mut query = base;
        let path = format!("{}/api/v1/query", query.path().trim_end_matches('/'));
        query.set_path(&path);
        let client = outward::client(DEADLINE, CONNECT)?;
        Ok(Self { client, query })
    }

    /// What a query gives at a moment. `None`: nothing. Several values have no one meaning, and are an error.
    ///
    /// # Errors
    /// It doesn't answer, or answers something else; with the cause.
    pub async fn ask(&self, promql: &str, at: Timestamp) -> Result<Option<f64>, ApiError> {
        let failed = |cause: String| ApiError::internal("Prometheus gave no answer").cause(cause);
        let mut url = self.query.clone();
        let at = at.as_millisecond() as f64 / 1000.0;
        url.query_pairs_mut()
            .append_pair("query", promql)
            .append_pair("time", &format!("{at:.3}"));
        let answer = self.client.get(url).send().await;
        let answer = answer.map_err(|e| failed(outward::words(e, DEADLINE)))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|e| failed(outward::words(e, DEADLINE)))?;
        let told: Answer = serde_json::from_slice(&body)
            .map_err(|e| failed(format!("it answered {status} and no JSON of Prometheus: {e}")))?;
        if let Some(error) = told.error {
            return Err(failed(error));
        }
        let value = match told.data {
            Some(Data::Scalar((_, value))) => value,
            Some(Data::Vector(rows)) => match rows.as_slice() {
                [] => return Ok(None),
                [one] => one.value.1.clone(),
                several => {
                    let message = format!(
                        "the query gives {} series: it must give one (sum by (), max …)",
                        several.len()
                    );
                    return Err(failed(message));
                }
            },
            Some(Data::Matrix(_) | Data::String(_)) | None => {
                return Err(failed("the query gives no single number".to_owned()));
            }
        };
        // `NaN` is what a rate without samples gives; it is judged as such.
        let value = value.parse().map_err(|_| failed(format!("'{value}' is no number")))?;
        Ok(Some(value))
    }
}
