//! Monotonic time as one number, so that it fits an atomic.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the first call in this process, at least 1.
pub fn now() -> u64 {
    nanos(START.elapsed()).max(1)
}

/// A duration in nanoseconds; all of 584 years at most.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
