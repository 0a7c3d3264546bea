//! The node's clocks.

use std::sync::LazyLock;

use api::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::agent::Now;

/// The first 64 bits of the random number that the kernel gave this boot. 0: it gave none.
static BOOT: LazyLock<u64> = LazyLock::new(|| {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
});

/// The time. The monotonic clock goes on while the machine sleeps and starts at its boot.
#[must_use]
pub fn now() -> Now {
    let since_boot = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
    let millis = u64::try_from(since_boot.tv_nsec).unwrap_or(0) / 1_000_000;
    Now {
        mono_ms: seconds * 1000 + millis,
        boot: *BOOT,
        wall: Timestamp::now(),
    }
}
