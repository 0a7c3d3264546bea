//! Calls to others over HTTP and HTTPS: what all of them have in common.

use std::time::Duration;

use reqwest::{Client, redirect::Policy};

/// A client; reads the system's certificates. `deadline`: for a whole exchange; `connect`: of it, until there is a
/// connection.
///
/// No redirect is followed: a redirected POST becomes a GET, or sends what may be secret elsewhere.
///
/// # Errors
/// There can be no TLS: why, in words.
pub fn client(deadline: Duration, connect: Duration) -> Result<Client, String> {
    // Whoever came first in this process has set the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder()
        .timeout(deadline)
        .connect_timeout(connect)
        .redirect(Policy::none())
        .user_agent(concat!("clawbernetes/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(chain)
}

/// Why there is no answer within `deadline`, without the address, which may hold a secret.
#[must_use]
pub fn words(error: reqwest::Error, deadline: Duration) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", deadline.as_secs());
    }
    chain(error.without_url())
}

/// An error with its causes.
#[must_use]
pub fn chain(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
