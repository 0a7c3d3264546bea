//! A caller: one HTTP connection that is kept.

use anyhow::{Context as _, bail};
use api::op::{Operation, path};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One kept connection to a gateway.
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    authority: String,
    token: String,
}

impl Client {
    /// Connects.
    pub async fn connect(authority: &str, token: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(authority)
            .await
            .context("the gateway can't be reached")?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Self {
            sender,
            authority: authority.to_owned(),
            token: token.to_owned(),
        })
    }

    /// Calls an operation, and gives its answer as it came.
    pub async fn raw(&mut self, name: &str, body: Vec<u8>) -> anyhow::Result<Bytes> {
        self.sender.ready().await?;
        let request = Request::post(path(name))
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body)))?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{name}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// Calls an operation.
    pub async fn call<O: Operation>(&mut self, request: &O::Request) -> anyhow::Result<O::Response> {
        let body = self.raw(O::NAME, serde_json::to_vec(request)?).await?;
        serde_json::from_slice(&body).with_context(|| format!("the answer of {}", O::NAME))
    }
}
