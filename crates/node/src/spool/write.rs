//! The writing side: one writer a job, in whatever process holds the job's output. Knows no runtime.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use api::workload::{JobKey, LogSource};

use super::{
    Limits, Sink,
    segment::{self, Line, Name, Record},
};

/// Bytes that [`Writer::push`] holds back at most.
const BUFFER_MAX: usize = 256 << 10;

/// Appends the lines of one job.
///
/// Its file is made with the first line, so that a silent job costs nothing.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    limits: Limits,
    job: JobKey,
    /// Number and time of the last line, kept or lost.
    last: Option<(u64, i64)>,
    open: Option<Open>,
    /// Encoded and not yet written.
    buffer: Vec<u8>,
    /// What `last` was before the buffer.
    before: Option<(u64, i64)>,
    /// Bytes of text of all lines, kept or lost.
    text_bytes: u64,
    /// What `text_bytes` was before the buffer.
    text_bytes_before: u64,
}

/// The segment that is being written.
#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
}

impl Writer {
    /// Goes on where an earlier writer ended; a record that it left torn is cut off.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn open(folder: &Path, limits: Limits, job: &JobKey) -> io::Result<Self> {
        let mut writer = Self::fresh(folder, limits, job);
        let segments = segment::list_job(folder, job)?;
        let Some(newest) = segments.last() else {
            return Ok(writer);
        };
        let file = OpenOptions::new().read(true).write(true).open(newest.path(folder))?;
        let mut last = newest.first.checked_sub(1).filter(|n| *n > 0).map(|n| (n, 0));
        match segment::read_header(&file)? {
            Some(at) => last = last.map(|(n, _)| (n, at)),
            None => {
                file.set_len(0)?;
                file.write_all_at(&segment::header(0), 0)?;
            }
        }
        let mut text_bytes = segment::read_count(&file)?.unwrap_or(0);
        let stop = segment::walk(&file, segment::HEADER, |record| {
            if let Some(line) = &record.line {
                last = Some((record.number, record.at_ns));
                text_bytes += line.text.len() as u64;
            }
            // The end of a segment that has no successor yet is taken back.
            record.line.is_some()
        })?;
        file.set_len(stop.offset)?;
        writer.last = last;
        writer.before = last;
        writer.text_bytes = text_bytes;
        writer.text_bytes_before = text_bytes;
        writer.open = Some(Open {
            file,
            size: stop.offset,
        });
        Ok(writer)
    }

    /// The writer of a job that nobody has written for yet: unlike [`Self::open`] it doesn't look for earlier
    /// segments. Should there be some after all, the first line finds out and goes on behind them.
    #[must_use]
    pub fn fresh(folder: &Path, limits: Limits, job: &JobKey) -> Self {
        Self {
            folder: folder.to_owned(),
            limits,
            job: job.clone(),
            last: None,
            open: None,
            buffer: Vec::new(),
            before: None,
            text_bytes: 0,
            text_bytes_before: 0,
        }
    }

    /// Number and time (nanoseconds since 1970) of the last line. `None`: none yet.
    #[must_use]
    pub fn last(&self) -> Option<(u64, i64)> {
        self.last
    }

    /// Takes a line and returns its number. It is kept with the next [`Self::flush`].
    ///
    /// # Errors
    /// The disk is full or broken: all lines since the last flush are lost. Their numbers stay taken, so that the
    /// reader sees a hole.
    pub fn push(&mut self, source: LogSource, at_ns: i64, text: &[u8], partial: bool) -> io::Result<u64> {
        if self.open.is_none() && self.last.is_none() {
            self.first_segment()?;
        }
        let number = self.next();
        let line = Line { source, partial, text };
        let record = Record {
            number,
            at_ns,
            line: Some(line),
        };
        segment::encode(&record, &mut self.buffer);
        self.last = Some((number, at_ns));
        self.text_bytes += text.len() as u64;
        if self.buffer.len() >= BUFFER_MAX {
            self.flush()?;
        }
        Ok(number)
    }

    /// Writes what [`Self::push`] took.
    ///
    /// # Errors
    /// The disk is full or broken: those lines are lost.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = self.write_buffer();
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_MAX);
        if result.is_ok() {
            self.before = self.last;
            self.text_bytes_before = self.text_bytes;
        }
        result
    }

    fn next(&self) -> u64 {
        self.last.map_or(1, |(n, _)| n + 1)
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.size >= self.limits.segment_bytes)
        {
            self.finish_segment()?;
        }
        if self.open.is_none() {
            let (first, at) = self.before.map_or((1, 0), |(n, at)| (n + 1, at));
            self.open = Some(create(&self.folder, &self.job, first, at, self.text_bytes_before)?);
        }
        let Some(open) = &mut self.open else {
            return Err(io::ErrorKind::NotFound.into());
        };
        append(open, &self.buffer)
    }

    /// Makes the first segment; if the job has one already, goes on behind it.
    fn first_segment(&mut self) -> io::Result<()> {
        match create(&self.folder, &self.job, 1, 0, 0) {
            Ok(open) => self.open = Some(open),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                *self = Self::open(&self.folder, self.limits, &self.job)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Ends the segment and makes room for the next.
    fn finish_segment(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let (last, at_ns) = self.before.unwrap_or((0, 0));
        let mut end = Vec::new();
        let record = Record {
            number: last + 1,
            at_ns,
            line: None,
        };
        segment::encode(&record, &mut end);
        append(open, &end)?;
        self.open = None;
        drop_oldest(&self.folder, self.limits.total_bytes)
    }
}

impl Sink for Writer {
    fn last(&self) -> Option<(u64, i64)> {
        self.last
    }

    fn append(&mut self, source: LogSource, at_ns: i64, text: &[u8], partial: bool) -> io::Result<u64> {
        let number = self.push(source, at_ns, text, partial)?;
        self.flush()?;
        Ok(number)
    }
}

fn create(folder: &Path, job: &JobKey, first: u64, previous_at_ns: i64, text_bytes_before: u64) -> io::Result<Open> {
    let path = segment::path(folder, job, first, false);
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let beginning = segment::beginning(first, previous_at_ns, text_bytes_before);
    if let Err(error) = file.write_all(&beginning) {
        // Without its header it would be taken for a torn one.
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(Open {
        file,
        size: beginning.len() as u64,
    })
}

/// All of the bytes or none.
fn append(open: &mut Open, bytes: &[u8]) -> io::Result<()> {
    match open.file.write_all_at(bytes, open.size) {
        Ok(()) => {
            open.size += bytes.len() as u64;
            Ok(())
        }
        Err(error) => {
            // If this fails too, the reader stops at the torn record and the next line overwrites it.
            let _ = open.file.set_len(open.size);
            Err(error)
        }
    }
}

/// Drops finished segments until the folder fits its limit: always the oldest of the job that has most, so that a job
/// that floods pays for itself. A dropped segment leaves an empty file behind that says so: what is missing without one
/// was acknowledged.
fn drop_oldest(folder: &Path, total_bytes: u64) -> io::Result<()> {
    let names = segment::list(folder)?;
    let mut total = 0;
    // In the list the segments of a job stand together, oldest first.
    let mut jobs: Vec<(u64, VecDeque<(u64, &Name)>)> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        // Somebody else may have removed it.
        let Ok(meta) = fs::metadata(name.path(folder)) else {
            continue;
        };
        total += meta.len();
        let newest = names.get(i + 1).is_none_or(|next| next.job != name.job);
        // The newest of a job holds its numbering.
        if !name.dropped && !newest {
            match jobs.last_mut() {
                Some((bytes, segments)) if segments.front().is_some_and(|(_, first)| first.job == name.job) => {
                    *bytes += meta.len();
                    segments.push_back((meta.len(), name));
                }
                _ => jobs.push((meta.len(), VecDeque::from([(meta.len(), name)]))),
            }
        }
    }
    while total > total_bytes
        && let Some((bytes, segments)) = jobs.iter_mut().max_by_key(|(bytes, _)| *bytes)
        && let Some((size, name)) = segments.pop_front()
    {
        *bytes -= size;
        File::create(segment::path(folder, &name.job, name.first, true))?;
        match fs::remove_file(name.path(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => total -= size,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_does_not_wash_away_what_others_said_before() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            total_bytes: 10_000,
            segment_bytes: 1_000,
        };
        let write = |job: &str, lines: u64| {
            let mut writer = Writer::open(folder.path(), limits, &job.parse().unwrap()).unwrap();
            for n in 0..lines {
                writer.append(LogSource::Stdout, n as i64, &[b'x'; 100], false).unwrap();
            }
        };
        let firsts = |job: &str| -> Vec<u64> {
            let names = segment::list_job(folder.path(), &job.parse().unwrap()).unwrap();
            names
                .iter()
                .filter(|name| !name.dropped)
                .map(|name| name.first)
                .collect()
        };
        write("wl-quiet.1.0", 30);
        let quiet = firsts("wl-quiet.1.0");
        assert!(quiet.len() > 2);
        write("wl-flood.1.0", 1_000);
        assert_eq!(firsts("wl-quiet.1.0"), quiet);
        let flood = firsts("wl-flood.1.0");
        assert!(flood.len() > 2 && flood[0] > 800, "{flood:?}");
    }
}
