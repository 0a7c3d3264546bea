//! Messages on their way to receivers, over HTTP and HTTPS.

use std::time::Duration;

use diagnosis::alert::{Delivery, Format, Receiver, payload};

use crate::outward;

/// The whole exchange: whoever takes longer is asked again later.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of it: until there is a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Why nothing can be sent at all.
#[derive(Debug, thiserror::Error)]
#[error("there can be no TLS: {0}")]
pub struct SenderError(String);

/// Sends messages.
#[derive(Debug, Clone)]
pub struct Sender {
    client: reqwest::Client,
}

impl Sender {
    /// Ready to send; reads the system's certificates.
    ///
    /// # Errors
    /// They can't be used.
    pub fn new() -> Result<Self, SenderError> {
        let client = outward::client(DEADLINE, CONNECT).map_err(SenderError)?;
        Ok(Self { client })
    }

    /// Sends one message. `link`: what it points to.
    ///
    /// # Errors
    /// In words, without the address, which may hold a secret.
    pub async fn send(&self, receiver: &Receiver, delivery: &Delivery, link: Option<&str>) -> Result<(), String> {
        let url = match receiver.format {
            Format::Alertmanager => format!("{}/api/v2/alerts", receiver.url.0.trim_end_matches('/')),
            Format::Slack | Format::Webhook => receiver.url.0.clone(),
        };
        let request = self
            .client
            .post(url)
            .header("idempotency-key", &delivery.key)
            .json(&payload::body(delivery, link));
        let answer = request.send().await.map_err(|error| outward::words(error, DEADLINE))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        Err(format!("it answers {status}"))
    }
}
