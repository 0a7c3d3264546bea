//! The vault beside the tools and libraries of others.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something fails"
)]

mod pki;
