//! Times as figures.

use std::{fmt, time::Duration};

/// Times of one kind, sorted.
pub struct Times(Vec<Duration>);

impl Times {
    /// From times in any order; there must be at least one.
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that this share (0 to 1) of all stays at or under, in milliseconds.
    pub fn share(&self, share: f64) -> f64 {
        let at = (self.0.len().saturating_sub(1) as f64 * share).ceil() as usize;
        self.0.get(at).map_or(f64::NAN, |t| t.as_secs_f64() * 1000.0)
    }

    /// The middle one, in milliseconds.
    pub fn median(&self) -> f64 {
        self.share(0.5)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:7.2} ms  p99 {:7.2} ms  max {:7.2} ms  (n={})",
            self.median(),
            self.share(0.99),
            self.share(1.0),
            self.0.len()
        )
    }
}
