//! Observations on their way to the gateway: numbered without holes, kept until acknowledged.

use std::collections::VecDeque;

use api::{
    wire::{Observation, Seen},
    workload::JobKey,
};

use super::{
    Effects,
    record::{delete_observation, put_acked, put_observation},
};

/// What was seen and isn't acknowledged yet, in order.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<Observation>,
    next: u64,
}

impl Outbox {
    /// The outbox as it was left: `waiting` in order, everything up to `acked` acknowledged.
    pub(super) fn new(waiting: impl IntoIterator<Item = Observation>, acked: u64) -> Self {
        let waiting: VecDeque<_> = waiting.into_iter().filter(|o| o.number > acked).collect();
        let next = waiting.back().map_or(acked, |last| last.number) + 1;
        Self { waiting, next }
    }

    /// Takes it in, and returns its number.
    pub(super) fn push(&mut self, job: JobKey, seen: Seen, out: &mut Effects) -> u64 {
        let observation = Observation {
            number: self.next,
            job,
            seen,
        };
        self.next += 1;
        let number = observation.number;
        out.persist.push(put_observation(&observation));
        self.waiting.push_back(observation);
        out.send_observations();
        number
    }

    /// Drops what is acknowledged. A number that was never given is taken for the last one that was.
    pub(super) fn ack(&mut self, through: u64, out: &mut Effects) {
        let through = through.min(self.next - 1);
        let before = self.waiting.len();
        while let Some(first) = self.waiting.front()
            && first.number <= through
        {
            out.persist.push(delete_observation(first.number));
            self.waiting.pop_front();
        }
        if self.waiting.len() < before {
            out.persist.push(put_acked(through));
        }
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Observation> + '_ {
        self.waiting.iter()
    }

    /// Whether the observation of this number isn't acknowledged.
    pub(super) fn holds(&self, number: u64) -> bool {
        self.waiting.front().is_some_and(|first| first.number <= number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
