//! What tests of several crates run against.
//!
//! - [`docker`]: a Docker daemon and a registry of the tests' own

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on says where and why"
)]

pub mod docker;

use std::time::{Duration, Instant};

/// Longest wait for a condition.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for a condition, looking every 10 ms.
///
/// # Panics
/// It hasn't come within [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
