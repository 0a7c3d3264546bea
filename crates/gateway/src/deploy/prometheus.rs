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
///
/// It is asked as whoever started the gateway: who may deploy may ask it anything, of other namespaces too.
#[derive(Clone)]
pub struct Prometheus {
    client: Client,
    query: Url,
}

impl std::fmt::Debug for Prometheus {
    /// Its address may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.query.host_str().unwrap_or_default();
        f.debug_struct("Prometheus")
            .field("host", &host)
            .finish_non_exhaustive()
    }
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
    /// It is no URL, or there can be no client; in words, without what was given, which may hold a password.
    pub fn new(url: &str) -> Result<Self, String> {
        let base = Url::parse(url).map_err(|e| format!("this is no address of a Prometheus: {e}"))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err("this is no address of a Prometheus: it begins with http:// or https://".to_owned());
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Asks a server that answers so, and gives what was asked as well.
    async fn ask(status: &str, body: &str) -> (Result<Option<f64>, ApiError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                assert!(socket.read_buf(&mut asked).await.unwrap() > 0);
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        let prometheus = Prometheus::new(&url).unwrap();
        let at = Timestamp::from_millisecond(1_500).unwrap();
        let told = prometheus.ask("rate(errors[1m])", at).await;
        (told, server.await.unwrap())
    }

    fn vector(rows: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{rows}]}}}}"#)
    }

    #[tokio::test]
    async fn one_number_is_an_answer_and_several_are_none() {
        let row = r#"{"metric":{"a":"b"},"value":[1.5,"0.25"]}"#;
        let (told, asked) = ask("200 OK", &vector(row)).await;
        assert_eq!(told.unwrap(), Some(0.25));
        let line = asked.lines().next().unwrap();
        assert_eq!(
            line,
            "GET /base/api/v1/query?query=rate%28errors%5B1m%5D%29&time=1.500 HTTP/1.1"
        );
        assert_eq!(ask("200 OK", &vector("")).await.0.unwrap(), None);
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"7"]}}"#;
        assert_eq!(ask("200 OK", scalar).await.0.unwrap(), Some(7.0));
        let nan = ask("200 OK", &vector(r#"{"metric":{},"value":[1.5,"NaN"]}"#)).await.0;
        assert!(nan.unwrap().unwrap().is_nan(), "judged as what it is");
        let several = ask("200 OK", &vector(&format!("{row},{row}"))).await.0.unwrap_err();
        assert!(several.cause.unwrap().contains("2 series"));
    }

    #[tokio::test]
    async fn what_is_no_answer_says_why() {
        let refused = r#"{"status":"error","errorType":"bad_data","error":"parse error: unexpected end"}"#;
        let cause = ask("400 Bad Request", refused).await.0.unwrap_err().cause.unwrap();
        assert!(cause.contains("unexpected end"), "{cause}");
        let cause = ask("502 Bad Gateway", "<html>").await.0.unwrap_err().cause.unwrap();
        assert!(cause.contains("502"), "{cause}");
        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert!(ask("200 OK", matrix).await.0.is_err());
        for wrong in ["prometheus:9090", "ftp://x", ""] {
            assert!(Prometheus::new(wrong).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_password_is_shown_nowhere() {
        for wrong in [
            "http://ada:hunter2@prometheus:port",
            "ada:hunter2@prometheus",
            "ftp://ada:hunter2@x",
        ] {
            let refused = Prometheus::new(wrong).unwrap_err();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        // Nobody listens there any more.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let prometheus = Prometheus::new(&format!("http://ada:hunter2@{address}")).unwrap();
        let refused = prometheus.ask("up", Timestamp::UNIX_EPOCH).await.unwrap_err();
        for shown in [format!("{prometheus:?}"), format!("{refused:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
