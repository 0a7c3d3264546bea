//! The node's clocks.

use api::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::agent::Now;

/// The time. The monotonic clock goes on while the machine sleeps and starts at its boot.
#[must_use]
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
    let millis = u64::try_from(boot.tv_nsec).unwrap_or(0) / 1_000_000;
    Now {
        mono_ms: seconds * 1000 + millis,
        wall: Timestamp::now(),
    }
}
