//! From a container's log to numbered lines, each of them once.
//!
//! Docker's log is a row of frames: a time, a stream and some bytes, where a line that is longer than 16 KiB comes in
//! several frames. Lines go into the job's sink under times that only grow: a line whose time isn't later than that
//! of the line before gets the next nanosecond. Since that depends on nothing but the log, the log can be read again
//! from its beginning at any time, and a line is known to be kept already by its time not being later than that of
//! the sink's last line.
//!
//! Lines are masked when all else is settled, so that they are the same lines under the same times whatever the mask.

use std::sync::Arc;

use api::{wire::LINE_MAX_BYTES, workload::LogSource};

use crate::mask::{LONGEST, Mask, Masker};

/// A line on its way into a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it came from.
    pub(super) source: LogSource,
    /// Nanoseconds since 1970, later than the line before.
    pub(super) at_ns: i64,
    /// The text without its newline.
    pub(super) text: Vec<u8>,
    /// It goes on in the next one, or the process ended within it.
    pub(super) partial: bool,
}

/// The unfinished line of one stream.
#[derive(Debug, Default)]
struct Unfinished {
    text: Vec<u8>,
    /// The time of its first frame.
    at_ns: i64,
    /// A frame has begun it; it may still be empty.
    begun: bool,
}

/// Assembles frames into lines.
#[derive(Debug)]
pub(super) struct Lines {
    streams: [Unfinished; 2],
    /// For each stream. `None`: nothing must be hidden.
    maskers: Option<[Masker; 2]>,
    /// The time of the last line, kept or skipped.
    last_ns: i64,
    /// Lines up to this time are kept already.
    kept_ns: i64,
}

impl Lines {
    /// Begins at the beginning of a log, of which the lines up to `kept_ns` are kept already. `mask`: what must not be
    /// readable in them.
    #[must_use]
    pub(super) fn new(kept_ns: Option<i64>, mask: Option<&Arc<Mask>>) -> Self {
        Self {
            streams: Default::default(),
            maskers: mask.map(|mask| [(); 2].map(|()| Masker::new(Arc::clone(mask)))),
            last_ns: i64::MIN,
            kept_ns: kept_ns.unwrap_or(i64::MIN),
        }
    }

    /// Takes a frame and returns the lines that it completes and that aren't kept yet.
    pub(super) fn frame(&mut self, source: LogSource, at_ns: i64, mut bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        // What a masker holds back comes with the next piece of a line.
        let most = LINE_MAX_BYTES - if self.maskers.is_some() { LONGEST } else { 0 };
        while !bytes.is_empty() {
            let stream = &mut self.streams[index(source)];
            if !stream.begun {
                stream.begun = true;
                stream.at_ns = at_ns;
            }
            let newline = bytes.iter().position(|byte| *byte == b'\n');
            let end = newline.unwrap_or(bytes.len());
            let room = most - stream.text.len();
            if end > room {
                stream.text.extend_from_slice(&bytes[..room]);
                bytes = &bytes[room..];
                self.finish(source, true, true, &mut lines);
                self.streams[index(source)].at_ns = at_ns;
                self.streams[index(source)].begun = true;
                continue;
            }
            stream.text.extend_from_slice(&bytes[..end]);
            if newline.is_some() {
                bytes = &bytes[end + 1..];
                self.finish(source, false, false, &mut lines);
            } else {
                bytes = &[];
            }
        }
        lines
    }

    /// The log has ended: what is unfinished stays so.
    pub(super) fn end(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        for source in [LogSource::Stdout, LogSource::Stderr] {
            if !self.streams[index(source)].text.is_empty() {
                self.finish(source, true, false, &mut lines);
            }
        }
        lines
    }

    /// `more`: of the same line.
    fn finish(&mut self, source: LogSource, partial: bool, more: bool, lines: &mut Vec<Line>) {
        let mut stream = std::mem::take(&mut self.streams[index(source)]);
        if let Some(maskers) = &mut self.maskers {
            let masker = &mut maskers[index(source)];
            let mut masked = Vec::with_capacity(stream.text.len());
            masker.push(&stream.text, &mut masked);
            if !more {
                masker.finish(&mut masked);
            }
            stream.text = masked;
        }
        self.last_ns = stream.at_ns.max(self.last_ns.saturating_add(1));
        if self.last_ns > self.kept_ns {
            lines.push(Line {
                source,
                at_ns: self.last_ns,
                text: stream.text,
                partial,
            });
        }
    }
}

fn index(source: LogSource) -> usize {
    match source {
        LogSource::Stderr => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(lines: &[Line]) -> Vec<(&str, bool)> {
        lines
            .iter()
            .map(|line| (std::str::from_utf8(&line.text).unwrap(), line.partial))
            .collect()
    }

    #[test]
    fn frames_become_lines_of_their_stream() {
        let mut lines = Lines::new(None, None);
        assert!(lines.frame(LogSource::Stdout, 10, b"one ").is_empty());
        let err = lines.frame(LogSource::Stderr, 11, b"oops\n");
        assert_eq!((texts(&err), err[0].at_ns), (vec![("oops", false)], 11));
        let out = lines.frame(LogSource::Stdout, 12, b"line\n\nlast");
        assert_eq!(texts(&out), [("one line", false), ("", false)]);
        assert_eq!((out[0].at_ns, out[1].at_ns), (12, 13));
        assert_eq!(texts(&lines.end()), [("last", true)]);
    }

    #[test]
    fn long_lines_are_split_at_the_limit() {
        let mut lines = Lines::new(None, None);
        let exact = [vec![b'a'; LINE_MAX_BYTES], b"\n".to_vec()].concat();
        let whole = lines.frame(LogSource::Stdout, 1, &exact);
        assert_eq!((whole.len(), whole[0].partial), (1, false));
        let long = [vec![b'b'; LINE_MAX_BYTES * 2 + 1], b"\n".to_vec()].concat();
        let split = lines.frame(LogSource::Stdout, 2, &long);
        let shapes: Vec<(usize, bool)> = split.iter().map(|line| (line.text.len(), line.partial)).collect();
        assert_eq!(shapes, [(LINE_MAX_BYTES, true), (LINE_MAX_BYTES, true), (1, false)]);
    }

    #[test]
    fn secrets_are_hidden_also_where_a_long_line_is_cut() {
        let secret = api::secret::SecretValue::from("hunter2-hunter2".to_owned());
        let mask = Arc::new(Mask::new([&secret]).unwrap().unwrap());
        let cut = LINE_MAX_BYTES - LONGEST;
        for before in cut - 20..cut + 5 {
            let mut lines = Lines::new(None, Some(&mask));
            let text = format!("{}hunter2-hunter2 and more\n", "x".repeat(before));
            // As Docker cuts it.
            let mut all = Vec::new();
            for frame in text.as_bytes().chunks(16 << 10) {
                all.extend(lines.frame(LogSource::Stdout, 1, frame));
            }
            all.extend(lines.frame(LogSource::Stderr, 1, b"hunter2-hunter"));
            all.extend(lines.frame(LogSource::Stdout, 1, b"hunter2"));
            all.extend(lines.frame(LogSource::Stderr, 1, b"2\n"));
            all.extend(lines.end());
            assert!(all.iter().all(|line| line.text.len() <= LINE_MAX_BYTES));
            let (end, pieces) = all.split_last_chunk::<2>().map(|(pieces, end)| (end, pieces)).unwrap();
            let whole: Vec<u8> = pieces.iter().flat_map(|line| line.text.clone()).collect();
            assert_eq!(
                String::from_utf8(whole).unwrap(),
                format!("{}*** and more", "x".repeat(before))
            );
            assert_eq!(texts(end), [("***", false), ("hunter2", true)]);
        }
    }

    proptest! {
        /// Whatever the log holds and wherever the writer was killed: read again, each line is there once.
        #[test]
        fn a_log_read_again_adds_only_what_is_missing(
            frames in prop::collection::vec((any::<bool>(), 0i64..5, "[ab\n]{1,6}"), 0..30),
            killed_after in 0usize..40,
        ) {
            let read = |kept: Option<i64>| {
                let mut lines = Lines::new(kept, None);
                let mut all = Vec::new();
                for (err, at, text) in &frames {
                    let source = if *err { LogSource::Stderr } else { LogSource::Stdout };
                    all.extend(lines.frame(source, *at, text.as_bytes()));
                }
                all.extend(lines.end());
                all
            };
            let all = read(None);
            prop_assert!(all.windows(2).all(|pair| pair[0].at_ns < pair[1].at_ns));
            let mut kept: Vec<Line> = all.iter().take(killed_after).cloned().collect();
            kept.extend(read(kept.last().map(|line| line.at_ns)));
            prop_assert_eq!(kept, all);
        }
    }
}
