//! A gateway on a free port, and the plainest HTTP client.

use std::time::Duration;

use gateway::{Gateway, Options};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A gateway of a test, with its data in a folder that goes with it.
pub(crate) struct Fixture {
    pub(crate) gateway: Gateway,
    pub(crate) data: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// The error's code, or what came instead.
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("(no error)")
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let data = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(options_in(&data, options)).await.unwrap();
        Self { gateway, data }
    }

    /// Stops the gateway and starts another one on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(Options::default()).await
    }

    /// The same, with other options.
    pub(crate) async fn restart_with(self, options: Options) -> Self {
        let Self { gateway, data } = self;
        gateway.stop().await;
        let gateway = Gateway::start(options_in(&data, options)).await.unwrap();
        Self { gateway, data }
    }

    /// POST to an operation with the admin's token.
    pub(crate) async fn admin(&self, operation: &str, body: &Value) -> Answer {
        self.post(operation, self.gateway.admin_token.as_deref(), body, "")
            .await
    }

    /// A WebSocket, opened and left alone; and the status of the answer.
    pub(crate) async fn websocket(&self, path: &str, token: &str) -> (u16, TcpStream) {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        let exchange = async {
            let mut socket = TcpStream::connect(self.gateway.address).await.unwrap();
            socket.write_all(head.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(socket.read_u8().await.unwrap());
            }
            (String::from_utf8(answer).unwrap(), socket)
        };
        let (answer, socket) = tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .expect("an answer in time");
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), socket)
    }

    /// POST to an operation. `headers`: more of them, each with its line end.
    pub(crate) async fn post(&self, operation: &str, token: Option<&str>, body: &Value, headers: &str) -> Answer {
        let path = api::op::path(operation);
        self.send("POST", &path, token, body.to_string().as_bytes(), headers)
            .await
    }

    /// One request over a connection of its own.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &[u8],
        headers: &str,
    ) -> Answer {
        let token = token.map_or_else(String::new, |t| format!("authorization: Bearer {t}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{token}{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        let exchange = async {
            let mut socket = TcpStream::connect(self.gateway.address).await.unwrap();
            socket.write_all(head.as_bytes()).await.unwrap();
            // A gateway that refuses a large body may answer before all of it is sent.
            let _ = socket.write_all(body).await;
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        let text = tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .expect("an answer in time");
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("no answer: {text}"));
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        // Chunked bodies are one line of JSON here, between its length and the last chunk.
        let json = body
            .lines()
            .find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|v| !v.is_number()));
        Answer {
            status,
            body: json.unwrap_or(Value::String(body.to_owned())),
        }
    }
}

fn options_in(data: &tempfile::TempDir, options: Options) -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        data: data.path().to_owned(),
        ..options
    }
}

/// A masked text frame (RFC 6455) of at most 65,535 bytes; the mask is zero.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// Waits until there is something.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
