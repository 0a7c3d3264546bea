//! Which log lines go out next.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use api::{wire::LogLine, workload::JobKey};

use super::Output;

/// Text in one frame, in bytes, about.
const FRAME_BYTES: usize = 256 << 10;

/// Jobs in one frame, at most.
const FRAME_JOBS: usize = 256;

/// Least text of one job in one frame, in bytes, if it has that much.
const SHARE_BYTES: usize = 4 << 10;

/// What was read for a frame.
pub(super) struct Read {
    /// The session for which it was read.
    pub(super) session: u64,
    /// Lines, by job.
    pub(super) streams: Vec<(JobKey, Vec<LogLine>)>,
    /// Jobs that have no further lines now; where it is acted on, only those that had ended before.
    pub(super) dry: Vec<JobKey>,
}

/// The lines on their way to the gateway: one frame at a time, fair between jobs.
#[derive(Debug, Default)]
pub(super) struct Ship {
    /// Jobs that may have lines that weren't sent.
    fresh: BTreeSet<JobKey>,
    /// Number of the last line that was sent in this session.
    sent: HashMap<JobKey, u64>,
    /// Ended jobs whose last lines were lost: the last one that wasn't, and the last one.
    lost: HashMap<JobKey, (u64, u64)>,
    /// The last job whose turn it was.
    turn: Option<JobKey>,
    reading: bool,
    /// A frame waits for its acknowledgement.
    in_flight: bool,
}

impl Ship {
    /// A new session: everything that isn't acknowledged goes out again.
    pub(super) fn begin(&mut self, jobs: impl IntoIterator<Item = JobKey>) {
        self.sent.clear();
        self.lost.clear();
        self.in_flight = false;
        self.reading = false;
        self.fresh.extend(jobs);
    }

    pub(super) fn changed(&mut self, jobs: impl IntoIterator<Item = JobKey>) {
        self.fresh.extend(jobs);
    }

    pub(super) fn forget(&mut self, job: &JobKey) {
        self.fresh.remove(job);
        self.sent.remove(job);
        self.lost.remove(job);
    }

    /// The lines of an ended job after `sent`, up to `last`, don't exist any more.
    pub(super) fn lost(&mut self, job: &JobKey, sent: u64, last: u64) {
        self.sent.insert(job.clone(), last);
        self.lost.insert(job.clone(), (sent, last));
    }

    /// Jobs whose lines are all acknowledged but for the lost ones, with the number of their last line.
    pub(super) fn settled(&mut self, acked: impl Fn(&JobKey) -> Option<u64>) -> Vec<(JobKey, u64)> {
        let settled: Vec<(JobKey, u64)> = self
            .lost
            .iter()
            .filter(|(job, (sent, _))| acked(job).is_none_or(|acked| acked >= *sent))
            .map(|(job, (_, last))| (job.clone(), *last))
            .collect();
        for (job, _) in &settled {
            self.lost.remove(job);
        }
        settled
    }

    /// Whether the next frame can be read.
    pub(super) fn idle(&self) -> bool {
        !self.reading && !self.in_flight
    }

    /// Number of the last line of a job that was sent in this session or is acknowledged.
    pub(super) fn sent(&self, job: &JobKey, acked: u64) -> u64 {
        self.sent.get(job).copied().unwrap_or(0).max(acked)
    }

    /// What to read for the next frame: jobs, with the number of their first line. `first`: jobs whose end waits for
    /// their lines. `None`: nothing, or a frame is on its way.
    pub(super) fn next(
        &mut self,
        first: Vec<JobKey>,
        acked: impl Fn(&JobKey) -> Option<u64>,
    ) -> Option<Vec<(JobKey, u64)>> {
        if !self.idle() {
            return None;
        }
        let mut jobs: Vec<JobKey> = first;
        jobs.truncate(FRAME_JOBS);
        let urgent = jobs.len();
        let after = |job: &&JobKey| self.turn.as_ref().is_none_or(|turn| *job > turn);
        let in_turn = self
            .fresh
            .iter()
            .filter(after)
            .chain(self.fresh.iter().filter(|job| !after(job)));
        let rest: Vec<JobKey> = in_turn
            .filter(|job| !jobs[..urgent].contains(job))
            .take(FRAME_JOBS - urgent)
            .cloned()
            .collect();
        if let Some(last) = rest.last() {
            self.turn = Some(last.clone());
        }
        jobs.extend(rest);
        let mut wanted = Vec::with_capacity(jobs.len());
        for job in jobs {
            self.fresh.remove(&job);
            if let Some(acked) = acked(&job) {
                let from = self.sent(&job, acked) + 1;
                wanted.push((job, from));
            }
        }
        self.reading = !wanted.is_empty();
        self.reading.then_some(wanted)
    }

    /// What was read goes out, if there is anything. Says whether there is.
    pub(super) fn read(&mut self, read: &Read) -> bool {
        self.reading = false;
        for (job, lines) in &read.streams {
            if let Some(last) = lines.last() {
                self.sent.insert(job.clone(), last.number);
                self.fresh.insert(job.clone());
            }
        }
        self.in_flight = !read.streams.is_empty();
        self.in_flight
    }

    /// A frame has been acknowledged.
    pub(super) fn acked(&mut self) {
        self.in_flight = false;
    }
}

/// Reads what was asked for. Blocks for as long as the disk takes.
pub(super) fn read(output: &Arc<dyn Output>, session: u64, wanted: Vec<(JobKey, u64)>) -> Read {
    let share = (FRAME_BYTES / wanted.len().max(1)).max(SHARE_BYTES);
    let mut left = FRAME_BYTES;
    let mut read = Read {
        session,
        streams: Vec::new(),
        dry: Vec::new(),
    };
    for (job, from) in wanted {
        let lines = output.read(&job, from, share.min(left.max(1))).unwrap_or_else(|error| {
            tracing::error!(%job, %error, "a workload's output can't be read");
            Vec::new()
        });
        if lines.is_empty() {
            read.dry.push(job);
        } else {
            left = left.saturating_sub(lines.iter().map(|line| line.text.len()).sum());
            read.streams.push((job, lines));
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use api::workload::LogSource;

    use super::*;

    fn key(index: usize) -> JobKey {
        format!("wl-{index}.1.0").parse().unwrap()
    }

    fn line(number: u64) -> LogLine {
        LogLine {
            number,
            at_ns: 0,
            source: LogSource::Stdout,
            text: "x".to_owned(),
            partial: false,
        }
    }

    #[test]
    fn jobs_take_turns_and_ends_come_first() {
        let mut ship = Ship::default();
        ship.begin((0..FRAME_JOBS + 2).map(key));
        let first = ship.next(vec![key(7)], |_| Some(0)).unwrap();
        assert_eq!(first.len(), FRAME_JOBS);
        assert_eq!(first[0], (key(7), 1));
        assert!(ship.next(vec![], |_| Some(0)).is_none(), "one at a time");
        let read = Read {
            session: 0,
            streams: vec![(key(7), vec![line(1), line(2)])],
            dry: vec![],
        };
        assert!(ship.read(&read));
        assert!(ship.next(vec![], |_| Some(0)).is_none(), "it isn't acknowledged");
        ship.acked();
        let second = ship.next(vec![], |_| Some(0)).unwrap();
        assert!(second.contains(&(key(7), 3)), "it may have more");
        assert_eq!(second.len(), 3, "those that had no turn");
    }

    #[test]
    fn a_new_session_sends_again_what_is_not_acknowledged() {
        let mut ship = Ship::default();
        ship.begin([key(1)]);
        drop(ship.next(vec![], |_| Some(4)));
        let read = Read {
            session: 0,
            streams: vec![(key(1), vec![line(5)])],
            dry: vec![],
        };
        assert!(ship.read(&read));
        assert_eq!(ship.sent(&key(1), 4), 5);
        ship.begin([key(1)]);
        assert_eq!(ship.next(vec![], |_| Some(4)).unwrap(), [(key(1), 5)]);
    }
}
