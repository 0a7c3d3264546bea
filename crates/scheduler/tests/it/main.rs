//! The scheduler from outside: scenarios with their plans as text, and
//! properties of random worlds.

#![expect(clippy::expect_used, reason = "a test stops at what it did not expect")]

extern crate clawbernetes_scheduler as scheduler;

mod explaining;
mod placing;
mod properties;
mod random;
mod waiting;
mod world;
