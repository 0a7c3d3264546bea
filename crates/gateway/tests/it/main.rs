//! The gateway over its real port, with its real store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on says where and why"
)]

mod access;
mod fixture;
mod submit;
