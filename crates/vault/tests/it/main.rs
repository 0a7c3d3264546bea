//! The vault from outside: beside the tools and libraries of others, and what of a secret stays in memory.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something fails"
)]

mod memory;
mod pki;
