//! Deployments carried out in worlds that a test makes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test stops at what it did not expect, and says how it came there"
)]

mod acts;
mod clock;
mod explore;
mod simulate;
mod strategies;
mod world;
