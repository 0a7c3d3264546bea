//! Calls to an identity provider, over HTTPS.

use std::{net::IpAddr, time::Duration};

use reqwest::{Client, RequestBuilder, Url, header};

use crate::outward;

/// The whole exchange.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of it: until there is a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: documents and key sets have a few kilobytes.
const ANSWER_MAX: usize = 1 << 20;

/// A status and a body.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// At most a megabyte.
    pub body: Vec<u8>,
}

/// Calls identity providers.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
}

impl Http {
    /// Ready to call; reads the system's certificates.
    ///
    /// # Errors
    /// They can't be used, in words.
    pub fn new() -> Result<Self, String> {
        let client = outward::client(DEADLINE, CONNECT).map_err(|error| format!("there can be no TLS: {error}"))?;
        Ok(Self { client })
    }

    /// Reads a document.
    ///
    /// # Errors
    /// There is no answer, in words.
    pub async fn get(&self, url: &str) -> Result<Answer, String> {
        answer(self.client.get(url)).await
    }

    /// Posts fields, as a form does.
    ///
    /// # Errors
    /// There is no answer, in words.
    pub async fn post(&self, url: &str, fields: &[(&str, &str)]) -> Result<Answer, String> {
        let body = serde_urlencoded::to_string(fields).map_err(|error| error.to_string())?;
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        answer(request.body(body)).await
    }
}

async fn answer(request: RequestBuilder) -> Result<Answer, String> {
    let mut answer = request.send().await.map_err(words)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(words)? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(format!("its answer is longer than {ANSWER_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    let status = answer.status().as_u16();
    Ok(Answer { status, body })
}

/// Why there is no answer.
fn words(error: reqwest::Error) -> String {
    outward::words(error, DEADLINE)
}

/// Checks that nobody can listen on the way to an address: HTTPS, or HTTP on this machine.
///
/// # Errors
/// In words.
pub fn check_url(url: &str) -> Result<(), String> {
    let parsed = Url::parse(url).map_err(|error| format!("'{url}' is no URL: {error}"))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("it holds a name or a password".to_owned());
    }
    let host = parsed.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match parsed.scheme() {
        "https" => Ok(()),
        "http" if here => Ok(()),
        _ => Err(format!("'{url}' isn't https (http is for this machine alone)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_called_in_the_clear() {
        for good in [
            "https://id.example/x",
            "http://127.0.0.1:1/",
            "http://localhost:5556/dex",
            "http://[::1]:2",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "http://id.example",
            "http://localhost.example",
            "ftp://127.0.0.1",
            "https://a:b@id.example",
            "id.example",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
