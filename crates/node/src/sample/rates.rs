//! Changes a second of totals that only grow.

use std::{collections::HashMap, sync::Arc};

use api::wire::SeriesKey;

/// What totals were when they were last read.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// Monotonic time in milliseconds, and the total.
    last: HashMap<Arc<SeriesKey>, (u64, f64)>,
}

impl Rates {
    /// The change a second since the last call for the series. `None`: there was none, no time has passed, or the
    /// total began anew.
    pub(super) fn rate(&mut self, key: &Arc<SeriesKey>, now_ms: u64, total: f64) -> Option<f64> {
        if !total.is_finite() {
            return None;
        }
        let (before_ms, before) = self.last.insert(Arc::clone(key), (now_ms, total))?;
        let millis = now_ms.checked_sub(before_ms).filter(|millis| *millis > 0)?;
        (total >= before).then(|| (total - before) * 1000.0 / millis as f64)
    }

    /// Forgets what hasn't been read since this time: what comes back after that begins anew.
    pub(super) fn forget_before(&mut self, ms: u64) {
        self.last.retain(|_, (at, _)| *at >= ms);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn totals_that_begin_anew_have_no_rate() {
        let key = Arc::new(SeriesKey {
            metric: "disk.iops".to_owned(),
            labels: BTreeMap::new(),
            unit: None,
            kind: None,
        });
        let mut rates = Rates::default();
        assert_eq!(rates.rate(&key, 1_000, 50.0), None, "nothing to compare with");
        assert_eq!(rates.rate(&key, 3_000, 70.0), Some(10.0));
        assert_eq!(rates.rate(&key, 3_000, 80.0), None, "no time has passed");
        assert_eq!(rates.rate(&key, 4_000, 5.0), None, "a driver was loaded anew");
        assert_eq!(rates.rate(&key, 5_000, 5.0), Some(0.0));
        assert_eq!(rates.rate(&key, 6_000, f64::NAN), None);
        assert_eq!(
            rates.rate(&key, 7_000, 25.0),
            Some(10.0),
            "over the time since it was last read"
        );
        assert_eq!(rates.rate(&key, 6_500, 30.0), None, "a clock that went back");
        rates.forget_before(7_000);
        assert_eq!(rates.rate(&key, 8_000, 30.0), None);
    }
}
