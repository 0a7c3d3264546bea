//! The clock after which a node that hears nothing stops what it runs.
//!
//! The gateway declares a node lost when `fence` has passed since the last sign of life that it *received*. The node
//! counts from when the last acknowledged one was *sent*, which is earlier, so its clock runs out first. By then
//! nothing may run, so stopping begins earlier: the longest grace of what runs, and a margin for the kill (5 s or a
//! sixth of `fence`, whichever is shorter), before the end; but not before a third of `fence` has passed (graces
//! that don't fit are cut), and at two thirds at the latest (so that a slow machine has time).
//!
//! Where there is only one gateway (`alone`), a refused connection proves that nobody lives who could declare the
//! node lost, and the clock starts anew.

use std::collections::BTreeMap;

use api::Span;

use super::{
    Effects, Now,
    record::{FenceRecord, put_fence},
};

/// The margin for killing what is left when the grace is over, in milliseconds, at most.
const MARGIN_MAX_MS: u64 = 5_000;

/// How long an agent that finds its time over at start may look for a lone gateway before it stops anything.
const LOOK_MS: u64 = 5_000;

/// The clock.
#[derive(Debug, Default)]
pub(super) struct Fence {
    /// As the gateway said. `None`: no gateway ever said.
    span_ms: Option<u64>,
    alone: bool,
    /// When the last acknowledged sign of life was sent.
    alive_ms: u64,
    /// `alive_ms` as it is on disk.
    saved_ms: Option<u64>,
    /// Heartbeats that aren't acknowledged, and when they were sent.
    sent: BTreeMap<u64, u64>,
    /// The boot that these times count from.
    boot: u64,
    /// Everything has been told to stop.
    fired: bool,
}

impl Fence {
    pub(super) fn new(record: Option<FenceRecord>, now: Now) -> Self {
        let now_ms = now.mono_ms;
        let none = Self {
            boot: now.boot,
            ..Self::default()
        };
        let Some(record) = record else { return none };
        let span_ms = record.fence.millis();
        // The machine was started anew: nothing runs from before.
        let rebooted = (record.boot != 0 && record.boot != now.boot) || record.alive_ms > now_ms;
        let mut alive_ms = if rebooted { now_ms } else { record.alive_ms };
        if record.alone && alive_ms.saturating_add(span_ms) <= now_ms {
            // Whatever could be doubled is doubled already; a lone gateway may just be as young as this agent.
            alive_ms = (now_ms + LOOK_MS).saturating_sub(span_ms / 3);
        }
        Self {
            span_ms: Some(span_ms),
            alone: record.alone,
            alive_ms,
            // A time of another boot isn't one that later times can be compared with.
            saved_ms: (!rebooted).then_some(record.alive_ms),
            ..none
        }
    }

    pub(super) fn connected(&mut self, fence: Span, alone: bool, hello_ms: u64, out: &mut Effects) {
        let changed = self.span_ms != Some(fence.millis()) || self.alone != alone;
        self.span_ms = Some(fence.millis());
        self.alone = alone;
        self.sent.clear();
        if changed {
            self.saved_ms = None;
        }
        self.alive(hello_ms, out);
    }

    pub(super) fn disconnected(&mut self) {
        self.sent.clear();
    }

    pub(super) fn sent(&mut self, number: u64, at_ms: u64) {
        self.sent.insert(number, at_ms);
    }

    pub(super) fn acked(&mut self, number: u64, out: &mut Effects) {
        if let Some(at) = self.sent.remove(&number) {
            self.sent = self.sent.split_off(&number);
            self.alive(at, out);
        }
    }

    pub(super) fn refused(&mut self, now_ms: u64, out: &mut Effects) {
        if self.alone {
            self.alive(now_ms, out);
        }
    }

    fn alive(&mut self, at_ms: u64, out: &mut Effects) {
        let Some(span) = self.span_ms else { return };
        if at_ms < self.alive_ms && self.saved_ms.is_some() {
            return;
        }
        self.alive_ms = self.alive_ms.max(at_ms);
        self.fired = false;
        // On disk it may lag by a twentieth: that makes a restarted agent stop a little early, never late.
        let lag = (span / 20).min(5_000);
        if self
            .saved_ms
            .is_none_or(|saved| saved + lag <= self.alive_ms || saved > self.alive_ms)
        {
            self.saved_ms = Some(self.alive_ms);
            out.persist.push(put_fence(&FenceRecord {
                fence: Span(span),
                alone: self.alone,
                alive_ms: self.alive_ms,
                boot: self.boot,
            }));
        }
    }

    fn margin(span: u64) -> u64 {
        MARGIN_MAX_MS.min(span / 6)
    }

    /// When stopping must begin, given the longest grace of what runs. `None`: never, or it has begun.
    pub(super) fn begins_ms(&self, grace_max: Span) -> Option<u64> {
        let span = self.span_ms.filter(|_| !self.fired)?;
        let wanted = span.saturating_sub(grace_max.millis().saturating_add(Self::margin(span)));
        Some(self.alive_ms.saturating_add(wanted.clamp(span / 3, span * 2 / 3)))
    }

    /// Notes that stopping has begun, and says how long the longest grace can be.
    pub(super) fn fire(&mut self, now_ms: u64) -> Span {
        self.fired = true;
        let span = self.span_ms.unwrap_or(0);
        let kill_ms = self.alive_ms.saturating_add(span - Self::margin(span));
        Span(kill_ms.saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(span: Span, alone: bool) -> Fence {
        let mut fence = Fence::default();
        fence.connected(span, alone, 1_000, &mut Effects::default());
        fence
    }

    #[test]
    fn stopping_begins_so_that_the_kill_comes_before_the_end() {
        let mut f = fence(Span::secs(300), false);
        // 200 s at the latest, though grace and margin would allow 285 s.
        assert_eq!(f.begins_ms(Span::secs(10)), Some(201_000));
        assert_eq!(f.begins_ms(Span::secs(150)), Some(146_000));
        assert_eq!(f.begins_ms(Span::secs(900)), Some(101_000));
        assert_eq!(f.fire(101_000), Span::secs(195));
        assert_eq!(f.begins_ms(Span::secs(10)), None);
    }

    #[test]
    fn the_clock_counts_from_when_an_acknowledged_sign_was_sent() {
        let mut f = fence(Span::secs(30), false);
        f.sent(1, 5_000);
        f.sent(2, 9_000);
        f.acked(1, &mut Effects::default());
        assert_eq!(f.begins_ms(Span(0)), Some(5_000 + 20_000));
        f.acked(1, &mut Effects::default());
        f.acked(7, &mut Effects::default());
        assert_eq!(f.begins_ms(Span(0)), Some(5_000 + 20_000));
        f.acked(2, &mut Effects::default());
        assert_eq!(f.begins_ms(Span(0)), Some(9_000 + 20_000));
        f.refused(12_000, &mut Effects::default());
        assert_eq!(f.begins_ms(Span(0)), Some(9_000 + 20_000));
    }

    #[test]
    fn a_lone_gateway_that_refuses_starts_the_clock_anew() {
        let mut f = fence(Span::secs(30), true);
        f.refused(12_000, &mut Effects::default());
        assert_eq!(f.begins_ms(Span(0)), Some(12_000 + 20_000));
    }

    #[test]
    fn a_restarted_agent_goes_on_with_the_old_clock() {
        let record = FenceRecord {
            fence: Span::secs(30),
            alone: false,
            alive_ms: 5_000,
            boot: 7,
        };
        let at = |mono_ms, boot| Now {
            mono_ms,
            boot,
            wall: api::Timestamp::UNIX_EPOCH,
        };
        assert_eq!(Fence::new(Some(record), at(60_000, 7)).begins_ms(Span(0)), Some(25_000));
        for other_boot in [at(2_000, 7), at(2_000, 8)] {
            assert_eq!(Fence::new(Some(record), other_boot).begins_ms(Span(0)), Some(22_000));
        }
        // One that has been up for longer than the last.
        assert_eq!(Fence::new(Some(record), at(60_000, 8)).begins_ms(Span(0)), Some(80_000));
        let alone = FenceRecord { alone: true, ..record };
        assert_eq!(Fence::new(Some(alone), at(20_000, 7)).begins_ms(Span(0)), Some(25_000));
        let begins = Fence::new(Some(alone), at(60_000, 7)).begins_ms(Span(0)).unwrap();
        assert!(begins > 60_000, "there is time to look for the gateway");
    }
}
