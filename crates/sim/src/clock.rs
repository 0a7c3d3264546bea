//! Clocks that are wrong.

use api::Timestamp;

/// The world's time 0 on a right wall clock, in milliseconds since 1970.
const BASE_MS: i64 = 1_800_000_000_000;

/// A machine's two clocks, made of the world's time (milliseconds).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// The world's time at which the machine was booted; the monotonic clock shows 0 then. Negative: before the world.
    boot_ms: i64,
    /// How much too fast the oscillator runs, in millionths.
    ppm: i64,
    /// How much the wall clock is ahead.
    pub(crate) ahead_ms: i64,
}

impl Clock {
    pub(crate) fn new(uptime_ms: u64, ppm: i64, ahead_ms: i64) -> Self {
        Self {
            boot_ms: -(uptime_ms as i64),
            ppm,
            ahead_ms,
        }
    }

    pub(crate) fn reboot(&mut self, now: u64) {
        self.boot_ms = now as i64;
    }

    /// The monotonic clock, in milliseconds.
    pub(crate) fn mono(&self, now: u64) -> u64 {
        let passed = now as i64 - self.boot_ms;
        (passed + passed * self.ppm / 1_000_000).max(0) as u64
    }

    /// The first of the world's times at which the monotonic clock shows at least this.
    pub(crate) fn when(&self, mono: u64) -> u64 {
        let mono = mono as i64;
        let mut at = self.boot_ms + mono - mono * self.ppm / (1_000_000 + self.ppm) - 2;
        at = at.max(0);
        while (self.mono(at as u64) as i64) < mono {
            at += 1;
        }
        at as u64
    }

    /// The wall clock.
    pub(crate) fn wall(&self, now: u64) -> Timestamp {
        let now = now as i64;
        Timestamp::from_millisecond(BASE_MS + now + now * self.ppm / 1_000_000 + self.ahead_ms)
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_monotonic_clock_is_found_again() {
        for ppm in [-5_000, 0, 4_999] {
            let clock = Clock::new(1_000_000, ppm, 0);
            for mono in [1_000_001, 1_234_567, 2_000_000] {
                let at = clock.when(mono);
                assert!(clock.mono(at) >= mono, "{ppm} {mono}");
                assert!(at == 0 || clock.mono(at - 1) < mono, "{ppm} {mono}");
            }
        }
    }
}
