//! The gateway over its real port, with its real store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that can't go on says where and why"
)]

mod access;
mod alerts;
mod deploy;
mod fixture;
mod master_key;
mod mutated;
mod pki;
mod prometheus_rules;
mod roles;
mod submit;
mod wrong;
