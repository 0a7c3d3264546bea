//! How much jobs say, and how much of it is lost.
//!
//! Lines are counted by their numbers. Bytes are those that a segment's beginning tells of the ones before it, and those
//! in the newest segment: no more than what was added to that one since the last look is read, however much was said.

use std::{
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    sync::{MutexGuard, PoisonError},
};

use api::workload::JobKey;

use super::{
    Spool,
    segment::{self, Name},
};

/// What a job has said so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// Lines, kept or lost.
    pub lines: u64,
    /// Bytes of their text. `None`: an older agent's segments don't tell.
    pub bytes: Option<u64>,
    /// Lines that were lost, as far as reading has come to them; counted from the agent's start.
    pub lost: u64,
}

/// Where counting goes on.
#[derive(Debug, Default)]
pub(super) struct Meter {
    places: HashMap<JobKey, Place>,
    lost: HashMap<JobKey, Lost>,
}

/// A place in a job's newest segment, and what was counted before it.
#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u64,
    offset: u64,
    lines: u64,
    bytes: Option<u64>,
}

#[derive(Debug, Default)]
struct Lost {
    /// Holes up to this number are counted.
    through: u64,
    lines: u64,
}

impl Meter {
    /// Counts a hole in a job's numbers, once however often it is read.
    pub(super) fn lost(&mut self, job: &JobKey, hole: Range<u64>) {
        let lost = self.lost.entry(job.clone()).or_default();
        lost.lines += hole.end.saturating_sub(hole.start.max(lost.through + 1));
        lost.through = lost.through.max(hole.end.saturating_sub(1));
    }

    pub(super) fn forget(&mut self, job: &JobKey) {
        self.places.remove(job);
        self.lost.remove(job);
    }
}

impl Spool {
    pub(super) fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each job that has lines here has said so far.
    ///
    /// # Errors
    /// The disk is broken.
    pub fn volumes(&self) -> io::Result<HashMap<JobKey, Volume>> {
        // In the list the segments of a job stand together, oldest first.
        let names = segment::list(self.folder())?;
        let mut volumes = HashMap::new();
        for newest in names.chunk_by(|a, b| a.job == b.job).filter_map(<[Name]>::last) {
            let before = self.meter().places.get(&newest.job).copied();
            let Some(place) = look(self, newest, before)? else {
                continue;
            };
            let mut meter = self.meter();
            meter.places.insert(newest.job.clone(), place);
            let volume = Volume {
                lines: place.lines,
                bytes: place.bytes,
                lost: meter.lost.get(&newest.job).map_or(0, |lost| lost.lines),
            };
            volumes.insert(newest.job.clone(), volume);
        }
        Ok(volumes)
    }
}

/// Counts on to the end of a segment. `None`: it isn't there any more, or not yet whole.
fn look(spool: &Spool, newest: &Name, before: Option<Place>) -> io::Result<Option<Place>> {
    let file = match File::open(newest.path(spool.folder())) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(before),
        Err(error) => return Err(error),
    };
    let mut place = match before.filter(|place| place.segment == newest.first) {
        Some(place) => place,
        None if file.metadata()?.len() <= segment::HEADER => return Ok(before),
        None => Place {
            segment: newest.first,
            offset: segment::HEADER,
            lines: newest.first.saturating_sub(1),
            bytes: segment::read_count(&file)?,
        },
    };
    let stop = segment::walk(&file, place.offset, |record| {
        let Some(line) = &record.line else { return false };
        place.lines = record.number;
        place.bytes = place.bytes.map(|bytes| bytes + line.text.len() as u64);
        true
    })?;
    place.offset = stop.offset;
    Ok(Some(place))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use api::workload::LogSource;

    use super::*;
    use crate::spool::{Limits, Sinks};

    fn key(name: &str) -> JobKey {
        format!("{name}.1.0").parse().unwrap()
    }

    /// Lines of ten bytes.
    fn say(spool: &Spool, job: &JobKey, lines: u64) {
        let mut sink = Sinks::open(spool, job).unwrap();
        for _ in 0..lines {
            sink.append(LogSource::Stdout, 1, b"0123456789", false).unwrap();
        }
    }

    fn spool(folder: &tempfile::TempDir, total_bytes: u64) -> Spool {
        let limits = Limits {
            total_bytes,
            segment_bytes: 200,
        };
        Spool::open(folder.path(), limits).unwrap()
    }

    #[test]
    fn what_was_said_is_counted_whatever_is_left_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(&folder, 1 << 20);
        let (job, other) = (key("wl-a"), key("wl-b"));
        assert!(spool.volumes().unwrap().is_empty());
        say(&spool, &job, 3);
        say(&spool, &other, 1);
        let of = |job: &JobKey| {
            let volume = spool.volumes().unwrap()[job];
            (volume.lines, volume.bytes)
        };
        assert_eq!(of(&job), (3, Some(30)));
        // Over many segments and writers, of which the first are acknowledged between two looks.
        say(&spool, &job, 40);
        say(&spool, &job, 57);
        spool.read(&job, 1, usize::MAX).unwrap();
        spool.trim(&job, 100).unwrap();
        assert_eq!(of(&job), (100, Some(1_000)));
        assert_eq!(of(&job), (100, Some(1_000)), "looking changes nothing");
        assert_eq!(of(&other), (1, Some(10)));
        // A new life of the agent.
        let again = self::spool(&folder, 1 << 20);
        assert_eq!(again.volumes().unwrap()[&job].bytes, Some(1_000));
        spool.remove(&job).unwrap();
        assert!(!spool.volumes().unwrap().contains_key(&job));
    }

    #[test]
    fn lost_lines_are_counted_once_however_often_they_are_missed() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(&folder, 1_000);
        let job = key("wl-flood");
        say(&spool, &job, 200);
        assert_eq!(
            spool.volumes().unwrap()[&job].lost,
            0,
            "nobody has come to the hole yet"
        );
        let lines = spool.read(&job, 1, usize::MAX).unwrap();
        let lost = lines[0].number;
        assert!(lost > 100 && lines.len() as u64 == 200 - lost + 1);
        let volume = spool.volumes().unwrap()[&job];
        let wanted = Volume {
            lines: 200,
            bytes: Some(2_000),
            lost,
        };
        assert_eq!(volume, wanted);
        // A session that begins anew reads the hole again; a second flood makes another one.
        spool.read(&job, 1, usize::MAX).unwrap();
        assert_eq!(spool.volumes().unwrap()[&job].lost, lost);
        say(&spool, &job, 200);
        let second = spool.read(&job, 201, usize::MAX).unwrap()[0].number - 200;
        assert!(second > 0);
        assert_eq!(spool.volumes().unwrap()[&job].lost, lost + second);
    }

    #[test]
    fn an_older_agents_segments_have_lines_and_no_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(&folder, 1 << 20);
        let job = key("wl-old");
        let mut bytes = segment::header(0).to_vec();
        for number in 1..=2 {
            let record = segment::Record {
                number,
                at_ns: 1,
                line: Some(segment::Line {
                    source: LogSource::Stdout,
                    partial: false,
                    text: b"x",
                }),
            };
            segment::encode(&record, &mut bytes);
        }
        let mut file = File::create(segment::path(folder.path(), &job, 1, false)).unwrap();
        file.write_all(&bytes).unwrap();
        let volume = spool.volumes().unwrap()[&job];
        assert_eq!((volume.lines, volume.bytes), (2, None));
        say(&spool, &job, 1);
        assert_eq!(spool.volumes().unwrap()[&job].lines, 3);
        assert_eq!(spool.read(&job, 1, usize::MAX).unwrap().len(), 3);
    }
}
