//! The reading side: the agent's view of all jobs' lines.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use api::{
    wire::LogLine,
    workload::{JobKey, LogSource},
};

use super::{
    Limits, Sink, Sinks, Watch, Writer,
    meter::Meter,
    segment::{self, Tail},
};

/// The lines of all jobs, in one folder.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    limits: Limits,
    /// Where reading goes on.
    cursors: Mutex<HashMap<JobKey, Cursor>>,
    pub(super) meter: Mutex<Meter>,
}

/// A place in a job's segments.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// Number of the line that is expected there.
    next: u64,
    /// Time of the line before it.
    at_ns: i64,
    /// The segment.
    segment: u64,
    offset: u64,
    /// No segment before this one is left.
    oldest: bool,
}

impl Spool {
    /// Opens the spool in a folder, which is made where it is missing.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn open(folder: impl Into<PathBuf>, limits: Limits) -> io::Result<Self> {
        let folder = folder.into();
        // What jobs say is nobody else's business.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self {
            folder,
            limits,
            cursors: Mutex::default(),
            meter: Mutex::default(),
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How much it may hold.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Begins to tell which jobs have new lines. Needs a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no more watches (`fs.inotify.max_user_instances`).
    pub fn watch(&self) -> io::Result<Watch> {
        Watch::new(&self.folder)
    }

    /// The jobs that have lines here, in order.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn jobs(&self) -> io::Result<Vec<JobKey>> {
        let jobs: BTreeSet<JobKey> = segment::list(&self.folder)?.into_iter().map(|name| name.job).collect();
        Ok(jobs.into_iter().collect())
    }

    /// Lines of a job from a number on, in order: at least one if there is any, and no more than fit `max_bytes`
    /// of text otherwise. Where lines were lost, a System line says how many; it bears the last lost number.
    ///
    /// # Errors
    /// The disk is broken.
    pub fn read(&self, job: &JobKey, from: u64, max_bytes: usize) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        let mut left = max_bytes;
        self.scan(job, from, |line| {
            if !lines.is_empty() && line.text.len() > left {
                return false;
            }
            left = left.saturating_sub(line.text.len());
            lines.push(line);
            true
        })?;
        Ok(lines)
    }

    /// Number and time (nanoseconds since 1970) of a job's last line. `None`: it has none.
    ///
    /// # Errors
    /// The disk is broken.
    pub fn last(&self, job: &JobKey) -> io::Result<Option<(u64, i64)>> {
        let known = self.cursor(job).map_or(0, |cursor| cursor.next);
        self.scan(job, known, |_| true)?;
        Ok(self
            .cursor(job)
            .filter(|cursor| cursor.next > 1)
            .map(|cursor| (cursor.next - 1, cursor.at_ns)))
    }

    /// Forgets lines up to a number, as far as whole segments of them exist.
    ///
    /// # Errors
    /// The disk is broken.
    pub fn trim(&self, job: &JobKey, through: u64) -> io::Result<()> {
        if self
            .cursor(job)
            .is_none_or(|cursor| cursor.oldest || through < cursor.segment.saturating_sub(1) && cursor.segment == 1)
        {
            return Ok(());
        }
        let names = segment::list_job(&self.folder, job)?;
        let mut left = names.len();
        for pair in names.windows(2) {
            if let [name, next] = pair
                && next.first <= through.saturating_add(1)
            {
                remove_file(&name.path(&self.folder))?;
                left -= 1;
            }
        }
        if left <= 1
            && let Some(cursor) = self.lock().get_mut(job)
        {
            cursor.oldest = names.last().is_some_and(|name| name.first == cursor.segment);
        }
        Ok(())
    }

    /// Forgets all lines of a job. No writer may be at work.
    ///
    /// # Errors
    /// The disk is broken.
    pub fn remove(&self, job: &JobKey) -> io::Result<()> {
        self.meter().forget(job);
        let single = self.lock().remove(job).is_some_and(|cursor| cursor.oldest);
        if single {
            // The common case without a walk through the folder; a segment begun since is the reason to go on.
            remove_file(&segment::path(&self.folder, job, 1, false))?;
        }
        for name in segment::list_job(&self.folder, job)? {
            remove_file(&name.path(&self.folder))?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobKey, Cursor>> {
        self.cursors.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn cursor(&self, job: &JobKey) -> Option<Cursor> {
        self.lock().get(job).copied()
    }

    /// Visits lines from a number on, until there are no more or the visitor has enough, and leaves the cursor at
    /// the first line that wasn't visited.
    fn scan(&self, job: &JobKey, from: u64, mut visit: impl FnMut(LogLine) -> bool) -> io::Result<()> {
        let Some(mut cursor) = self.start(job, from)? else {
            return Ok(());
        };
        loop {
            let path = segment::path(&self.folder, job, cursor.segment, false);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Not yet begun, or dropped since.
                    let names = segment::list_job(&self.folder, job)?;
                    let Some(name) = names.iter().find(|n| n.first >= cursor.segment && !n.dropped) else {
                        break;
                    };
                    cursor = Cursor {
                        segment: name.first,
                        offset: segment::HEADER,
                        ..cursor
                    };
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut follows = None;
            let mut enough = false;
            let stop = segment::walk(&file, cursor.offset, |record| {
                let Some(line) = &record.line else {
                    follows = Some(record.number);
                    return false;
                };
                if record.number > cursor.next {
                    self.meter().lost(job, cursor.next..record.number);
                    let lost = LogLine {
                        number: record.number - 1,
                        at_ns: record.at_ns,
                        source: LogSource::System,
                        text: match record.number - cursor.next {
                            1 => "1 line was lost here: the node's log spool was full".to_owned(),
                            n => format!("{n} lines were lost here: the node's log spool was full"),
                        },
                        partial: false,
                    };
                    if lost.number >= from && !visit(lost) {
                        enough = true;
                        return false;
                    }
                    cursor.next = record.number;
                }
                let line = LogLine {
                    number: record.number,
                    at_ns: record.at_ns,
                    source: line.source,
                    text: String::from_utf8_lossy(line.text).into_owned(),
                    partial: line.partial,
                };
                if line.number >= from && !visit(line) {
                    enough = true;
                    return false;
                }
                cursor.next = record.number + 1;
                cursor.at_ns = record.at_ns;
                true
            })?;
            cursor.offset = stop.offset;
            if enough {
                break;
            }
            if let Some(next) = follows {
                if !segment::path(&self.folder, job, next, false).exists()
                    && !segment::path(&self.folder, job, next, true).exists()
                {
                    // The next one hasn't been begun: come back to this place.
                    break;
                }
                cursor = Cursor {
                    segment: next,
                    offset: segment::HEADER,
                    oldest: false,
                    ..cursor
                };
                continue;
            }
            if stop.at == Tail::Damaged {
                // A torn end, or damage with other segments behind it.
                let names = segment::list_job(&self.folder, job)?;
                if let Some(name) = names.iter().find(|n| n.first > cursor.segment) {
                    cursor = Cursor {
                        segment: name.first,
                        offset: segment::HEADER,
                        oldest: false,
                        ..cursor
                    };
                    continue;
                }
            }
            break;
        }
        self.lock().insert(job.clone(), cursor);
        Ok(())
    }

    /// Where to begin to read for a line. `None`: the job has no segment.
    fn start(&self, job: &JobKey, from: u64) -> io::Result<Option<Cursor>> {
        if let Some(cursor) = self.cursor(job)
            && cursor.next <= from.max(1)
        {
            return Ok(Some(cursor));
        }
        let first = Cursor {
            next: 1,
            at_ns: 0,
            segment: 1,
            offset: segment::HEADER,
            oldest: true,
        };
        if segment::path(&self.folder, job, 1, false).exists() && from <= 1 {
            return Ok(Some(first));
        }
        let names = segment::list_job(&self.folder, job)?;
        let Some(oldest) = names.first() else { return Ok(None) };
        // The last that begins at or before the line; else the oldest: what is missing before it was acknowledged,
        // unless a mark of dropped lines stands there.
        let at = names.iter().rposition(|name| name.first <= from).unwrap_or(0);
        let begin = names[..=at].iter().rposition(|name| !name.dropped).unwrap_or(at);
        let name = &names[begin];
        let at_ns = match File::open(name.path(&self.folder)) {
            Ok(file) => segment::read_header(&file)?.unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Some(Cursor {
            next: name.first,
            at_ns,
            segment: name.first,
            offset: segment::HEADER,
            oldest: name.first == oldest.first,
        }))
    }
}

impl Sinks for Spool {
    fn open(&self, job: &JobKey) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(Writer::open(&self.folder, self.limits, job)?))
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SMALL: Limits = Limits {
        total_bytes: 1 << 30,
        segment_bytes: 200,
    };

    fn key(name: &str) -> JobKey {
        format!("{name}.1.0").parse().unwrap()
    }

    fn fill(spool: &Spool, job: &JobKey, lines: std::ops::RangeInclusive<u64>) {
        let mut sink = Sinks::open(spool, job).unwrap();
        for n in lines {
            let number = sink
                .append(LogSource::Stdout, n as i64 * 10, format!("line {n}").as_bytes(), false)
                .unwrap();
            assert_eq!(number, n);
        }
    }

    fn numbers(lines: &[LogLine]) -> Vec<u64> {
        lines.iter().map(|line| line.number).collect()
    }

    #[test]
    fn lines_come_back_over_segments_and_writers() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), SMALL).unwrap();
        let job = key("wl-a");
        assert_eq!(spool.last(&job).unwrap(), None);
        fill(&spool, &job, 1..=20);
        fill(&spool, &job, 21..=40);
        assert!(segment::list(folder.path()).unwrap().len() > 3);
        let lines = spool.read(&job, 1, usize::MAX).unwrap();
        assert_eq!(numbers(&lines), (1..=40).collect::<Vec<_>>());
        assert_eq!(lines[6].text, "line 7");
        assert_eq!(lines[6].at_ns, 70);
        assert_eq!(spool.read(&job, 41, 1000).unwrap(), []);
        fill(&spool, &job, 41..=42);
        assert_eq!(numbers(&spool.read(&job, 41, 1000).unwrap()), [41, 42]);
        // Back again, without a cursor that fits, and a bounded amount.
        assert_eq!(numbers(&spool.read(&job, 5, 18).unwrap()), [5, 6, 7]);
        assert_eq!(numbers(&spool.read(&job, 8, 0).unwrap()), [8]);
        assert_eq!(spool.last(&job).unwrap(), Some((42, 420)));
        assert_eq!(spool.jobs().unwrap(), std::slice::from_ref(&job));
        spool.remove(&job).unwrap();
        assert_eq!(spool.jobs().unwrap(), []);
        assert_eq!(spool.last(&job).unwrap(), None);
    }

    #[test]
    fn a_torn_record_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let job = key("wl-a");
        for torn in [&b"\x20\0\0\0torn"[..], b"\0\0\0\0\0\0\0\0\0\0\0\0", b"\xff"] {
            let spool = Spool::open(folder.path(), Limits::default()).unwrap();
            fill(&spool, &job, 1..=3);
            let path = segment::path(folder.path(), &job, 1, false);
            File::options()
                .append(true)
                .open(path)
                .unwrap()
                .write_all(torn)
                .unwrap();
            assert_eq!(numbers(&spool.read(&job, 1, 1000).unwrap()), [1, 2, 3]);
            fill(&spool, &job, 4..=5);
            assert_eq!(numbers(&spool.read(&job, 4, 1000).unwrap()), [4, 5]);
            spool.remove(&job).unwrap();
        }
    }

    #[test]
    fn trimming_drops_acknowledged_segments_and_is_no_gap() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), SMALL).unwrap();
        let job = key("wl-a");
        fill(&spool, &job, 1..=40);
        spool.read(&job, 1, usize::MAX).unwrap();
        let before = segment::list(folder.path()).unwrap();
        spool.trim(&job, 20).unwrap();
        let after = segment::list(folder.path()).unwrap();
        assert!(after.len() < before.len());
        assert!(after[0].first <= 21 && after[1].first > 21);
        assert_eq!(
            numbers(&spool.read(&job, 21, usize::MAX).unwrap()),
            (21..=40).collect::<Vec<_>>()
        );
        spool.trim(&job, 40).unwrap();
        assert_eq!(segment::list(folder.path()).unwrap().len(), 1);
        // A new life of the agent, which doesn't know what was acknowledged.
        let spool = Spool::open(folder.path(), SMALL).unwrap();
        let lines = spool.read(&job, 1, usize::MAX).unwrap();
        assert!(lines.iter().all(|line| line.source == LogSource::Stdout));
        assert_eq!(spool.last(&job).unwrap(), Some((40, 400)));
        fill(&spool, &job, 41..=41);
    }

    #[test]
    fn past_the_limit_the_oldest_lines_become_a_named_gap() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            total_bytes: 1000,
            segment_bytes: 200,
        };
        let spool = Spool::open(folder.path(), limits).unwrap();
        let (old, new) = (key("wl-old"), key("wl-new"));
        fill(&spool, &old, 1..=10);
        fill(&spool, &new, 1..=100);
        let size: u64 = segment::list(folder.path())
            .unwrap()
            .iter()
            .map(|name| fs::metadata(name.path(folder.path())).unwrap().len())
            .sum();
        assert!(size <= 1000 + 2 * 260, "{size}");
        // The one that floods loses its own lines, and nobody else's.
        let kept = spool.read(&old, 1, usize::MAX).unwrap();
        assert_eq!(numbers(&kept), (1..=10).collect::<Vec<_>>());
        let lines = spool.read(&new, 1, usize::MAX).unwrap();
        assert_eq!(lines[0].source, LogSource::System);
        let lost = lines[0].number;
        assert_eq!(
            lines[0].text,
            format!("{lost} lines were lost here: the node's log spool was full")
        );
        assert_eq!(numbers(&lines), (lost..=100).collect::<Vec<_>>());
        assert_eq!(spool.last(&new).unwrap().unwrap().0, 100);
        // Read from within the gap, it says how much of it is still missing for the reader.
        assert_eq!(spool.read(&new, lost, 0).unwrap()[0].number, lost);
        spool.trim(&new, 100).unwrap();
        assert_eq!(segment::list_job(folder.path(), &new).unwrap().len(), 1);
    }
}
