//! The store from outside: its contract under concurrency, crashes and full disks.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod core;
mod crash;
mod engine;
mod faults;
mod model;
mod watch;
