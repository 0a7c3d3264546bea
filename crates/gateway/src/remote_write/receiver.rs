//! The other end: where samples are posted to, over HTTP or HTTPS.

use std::{fs, path::PathBuf, time::Duration};

use reqwest::{Client, Response, StatusCode, Url, header};

use crate::outward;

/// Longest that one request may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a refusal is told.
const REFUSAL_MAX: usize = 1 << 10;

/// Where samples go.
#[derive(Debug, Clone)]
pub struct Target {
    url: Url,
    token_file: Option<PathBuf>,
    client: Client,
}

/// Why an address can't be one to write to.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// It isn't a URL of HTTP, or holds a password.
    #[error("'{0}' is no URL such as http://prometheus:9090/api/v1/write, without a password")]
    Url(String),
    /// The system's certificates can't be used.
    #[error("there can be no TLS: {0}")]
    Tls(String),
}

impl Target {
    /// A receiver's URL, and the file with the bearer token that it wants; read anew for each request.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn new(url: &str, token_file: Option<PathBuf>) -> Result<Self, TargetError> {
        // Name and password in a URL would end up in logs; neither is told here.
        let parsed = Url::parse(url).map_err(|_| TargetError::Url(url.to_owned()))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.username().is_empty() || parsed.password().is_some()
        {
            return Err(TargetError::Url(shown(parsed)));
        }
        let client = outward::client(PATIENCE, PATIENCE).map_err(TargetError::Tls)?;
        Ok(Self {
            url: parsed,
            token_file,
            client,
        })
    }

    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Posts a body.
    pub(super) async fn send(&self, body: Vec<u8>) -> Outcome {
        let later = |why: String| Outcome::Later {
            wait: Duration::ZERO,
            why,
        };
        let mut request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_ENCODING, "snappy")
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0");
        if let Some(file) = &self.token_file {
            match fs::read_to_string(file) {
                Ok(token) => request = request.bearer_auth(token.trim()),
                Err(error) => return later(format!("{} can't be read: {error}", file.display())),
            }
        }
        match request.body(body).send().await {
            Ok(answer) => told(answer).await,
            Err(error) => later(outward::chain(error)),
        }
    }
}

/// A URL without what may be secret.
fn shown(mut url: Url) -> String {
    // Not every kind of URL has them.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.to_string()
}

/// What became of a request.
pub(super) enum Outcome {
    Taken,
    /// For good: the same again would be refused again.
    Refused(String),
    /// Not now.
    Later {
        /// How long to wait at least.
        wait: Duration,
        why: String,
    },
}

/// What an answer means.
async fn told(mut answer: Response) -> Outcome {
    let status = answer.status();
    if status.is_success() {
        return Outcome::Taken;
    }
    let wait = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let wait = Duration::from_secs(wait.and_then(|value| value.parse().ok()).unwrap_or(0));
    let mut text = Vec::new();
    while text.len() < REFUSAL_MAX
        && let Ok(Some(part)) = answer.chunk().await
    {
        text.extend_from_slice(&part);
    }
    text.truncate(REFUSAL_MAX);
    let why = format!("{status}: {}", String::from_utf8_lossy(&text).trim());
    match status {
        // A token that isn't valid now may be put right; samples must not be lost over it.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Outcome::Later { wait, why }
        }
        _ if status.is_client_error() => Outcome::Refused(why),
        _ => Outcome::Later { wait, why },
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn addresses() {
        for fine in ["http://[::1]:9090/api/v1/write?x=1", "https://prometheus/w"] {
            assert_eq!(Target::new(fine, None).unwrap().url(), fine);
        }
        for bad in ["", "prometheus:9090", "/api", "http://u:secret@host/", "ftp://host/"] {
            let Err(TargetError::Url(told)) = Target::new(bad, None) else {
                panic!("{bad}");
            };
            assert!(!told.contains("secret"), "{told}");
        }
    }

    /// What a receiver that answers with this makes of a request; and the request's head.
    async fn answered(answer: &'static str, token_file: Option<PathBuf>) -> (Outcome, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\nbody") {
                let read = socket.read_buf(&mut asked).await.unwrap();
                assert!(read > 0, "{}", String::from_utf8_lossy(&asked));
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap().to_lowercase()
        });
        let target = Target::new(&format!("http://{address}/write"), token_file).unwrap();
        let outcome = target.send(b"body".to_vec()).await;
        (outcome, receiver.await.unwrap())
    }

    #[tokio::test]
    async fn refusals_are_for_good_or_for_now() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, "hush\n").unwrap();
        let (outcome, head) = answered("HTTP/1.1 204 No Content\r\n\r\n", Some(token)).await;
        assert!(matches!(outcome, Outcome::Taken));
        for line in [
            "post /write http/1.1",
            "authorization: bearer hush",
            "content-encoding: snappy",
            "content-type: application/x-protobuf",
            "x-prometheus-remote-write-version: 0.1.0",
        ] {
            assert!(head.contains(line), "{line}: {head}");
        }
        let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\nout of order";
        let (outcome, _) = answered(refusal, None).await;
        assert!(matches!(outcome, Outcome::Refused(why) if why.ends_with("out of order")));
        let slow = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
        let (outcome, _) = answered(slow, None).await;
        assert!(matches!(outcome, Outcome::Later { wait, .. } if wait == Duration::from_secs(7)));
        for down in [
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "",
        ] {
            let (outcome, _) = answered(down, None).await;
            assert!(matches!(outcome, Outcome::Later { .. }), "{down}");
        }
    }
}
