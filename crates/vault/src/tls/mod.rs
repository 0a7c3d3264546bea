//! TLS with the fleet's certificates: what a server shows, whom a client trusts, and why a peer isn't let in.

mod client;
mod server;
mod trouble;

pub use client::{Own, Trust, TrustError, config as client_config, root_of};
pub use server::{Shown, config as server_config};
pub use trouble::{Trouble, trouble, trouble_of};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::sync::{Arc, LazyLock};

/// The one provider of cryptography.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// What both sides speak over TLS.
const HTTP_1_1: &[u8] = b"http/1.1";
