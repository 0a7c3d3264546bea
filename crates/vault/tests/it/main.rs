//! The vault from outside: what of a secret stays in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;
