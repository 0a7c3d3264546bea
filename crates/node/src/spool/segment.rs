//! The form of a segment file: a header, a count of what went before, then records, each with its length and checksum.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use api::workload::{JobKey, LogSource};

/// Bytes of a segment's header: a mark, and the time of the line before its first.
pub(super) const HEADER: u64 = 12;
const MARK: [u8; 4] = *b"CLS1";
/// Length and checksum of the body, then number, time and flags.
const PREFIX: usize = 4 + 4;
const FIXED: usize = 8 + 8 + 1;
const PARTIAL: u8 = 4;
const END: u8 = 8;
const COUNT: u8 = 16;
/// Longest body that a reader believes in.
const BODY_MAX: usize = FIXED + (1 << 20);

/// A record: a line, or the end of a finished segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Of the line; for the end of a segment, of the first line of the next one.
    pub(super) number: u64,
    /// Nanoseconds since 1970.
    pub(super) at_ns: i64,
    /// `None`: the segment ends here and another follows.
    pub(super) line: Option<Line<'a>>,
}

/// What a record holds of a line beside its number and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) source: LogSource,
    pub(super) partial: bool,
    pub(super) text: &'a [u8],
}

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

static CRC: [u32; 256] = crc_table();

/// CRC-32 as in zip.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (crc >> 8) ^ CRC[((crc ^ u32::from(*byte)) & 0xFF) as usize]
    })
}

/// A segment's header.
pub(super) fn header(previous_at_ns: i64) -> [u8; HEADER as usize] {
    let mut bytes = [0; HEADER as usize];
    bytes[..4].copy_from_slice(&MARK);
    bytes[4..].copy_from_slice(&previous_at_ns.to_le_bytes());
    bytes
}

/// The time that a header holds. `None`: this is no segment, or it was cut within its header.
pub(super) fn read_header(file: &File) -> io::Result<Option<i64>> {
    let mut bytes = [0; HEADER as usize];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (mark, time) = bytes.split_at(4);
    let time = <[u8; 8]>::try_from(time).ok().map(i64::from_le_bytes);
    Ok(time.filter(|_| mark == MARK))
}

/// A segment's beginning: its header, and how many bytes of text the job's earlier segments had. `first`: the number of
/// its first line.
pub(super) fn beginning(first: u64, previous_at_ns: i64, text_bytes_before: u64) -> Vec<u8> {
    let mut bytes = header(previous_at_ns).to_vec();
    seal(
        first,
        previous_at_ns,
        COUNT,
        &text_bytes_before.to_le_bytes(),
        &mut bytes,
    );
    bytes
}

/// How many bytes of text the job's earlier segments had. `None`: it doesn't say.
pub(super) fn read_count(file: &File) -> io::Result<Option<u64>> {
    let mut bytes = [0; PREFIX + FIXED + 8];
    match file.read_exact_at(&mut bytes, HEADER) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    Ok(match decode(&bytes) {
        Decoded::Count(count, _) => Some(count),
        _ => None,
    })
}

/// Appends the record's bytes.
pub(super) fn encode(record: &Record<'_>, into: &mut Vec<u8>) {
    let (flags, text) = match &record.line {
        None => (END, &[][..]),
        Some(line) => {
            let source = match line.source {
                LogSource::Stdout => 0,
                LogSource::Stderr => 1,
                LogSource::System => 2,
            };
            (source | if line.partial { PARTIAL } else { 0 }, line.text)
        }
    };
    seal(record.number, record.at_ns, flags, text, into);
}

fn seal(number: u64, at_ns: i64, flags: u8, text: &[u8], into: &mut Vec<u8>) {
    let start = into.len();
    let length = u32::try_from(FIXED + text.len()).unwrap_or(u32::MAX);
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&number.to_le_bytes());
    into.extend_from_slice(&at_ns.to_le_bytes());
    into.push(flags);
    into.extend_from_slice(text);
    let crc = crc32(&into[start + PREFIX..]);
    into[start + 4..start + PREFIX].copy_from_slice(&crc.to_le_bytes());
}

/// What stands at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded<'a> {
    /// A whole record, and the number of bytes that it takes.
    Whole(Record<'a>, usize),
    /// The bytes of text before the segment, and the number of bytes that this takes.
    Count(u64, usize),
    /// More bytes are needed.
    Short,
    /// No record: torn or damaged.
    Damaged,
}

/// Reads the record at the start of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Decoded<'_> {
    let Some((prefix, rest)) = bytes.split_at_checked(PREFIX) else {
        return Decoded::Short;
    };
    let word = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
    let length = word(0) as usize;
    if !(FIXED..=BODY_MAX).contains(&length) {
        return Decoded::Damaged;
    }
    let Some(body) = rest.get(..length) else {
        return Decoded::Short;
    };
    if crc32(body) != word(4) {
        return Decoded::Damaged;
    }
    let mut eight = [0; 8];
    eight.copy_from_slice(&body[..8]);
    let number = u64::from_le_bytes(eight);
    eight.copy_from_slice(&body[8..16]);
    let at_ns = i64::from_le_bytes(eight);
    let flags = body[16];
    if flags == COUNT {
        return match body[FIXED..].try_into() {
            Ok(count) => Decoded::Count(u64::from_le_bytes(count), PREFIX + length),
            Err(_) => Decoded::Damaged,
        };
    }
    let line = (flags & END == 0).then(|| Line {
        source: match flags & 3 {
            0 => LogSource::Stdout,
            1 => LogSource::Stderr,
            _ => LogSource::System,
        },
        partial: flags & PARTIAL != 0,
        text: &body[FIXED..],
    });
    Decoded::Whole(Record { number, at_ns, line }, PREFIX + length)
}

/// Where a walk over a segment's records ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    /// Offset of the first byte that wasn't walked over.
    pub(super) offset: u64,
    /// What stands there.
    pub(super) at: Tail,
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// The file ends here, or within a record that may still be being written.
    End,
    /// Something that is no record.
    Damaged,
    /// The visitor had enough.
    Enough,
}

/// Visits the records from `offset` on until the file or the visitor's patience ends.
pub(super) fn walk(file: &File, mut offset: u64, mut visit: impl FnMut(&Record<'_>) -> bool) -> io::Result<Stop> {
    let mut buffer: Vec<u8> = Vec::new();
    let mut used = 0;
    let mut at_end = false;
    loop {
        match decode(&buffer[used..]) {
            Decoded::Whole(record, length) => {
                if !visit(&record) {
                    return Ok(Stop {
                        offset,
                        at: Tail::Enough,
                    });
                }
                used += length;
                offset += length as u64;
            }
            Decoded::Count(_, length) => {
                used += length;
                offset += length as u64;
            }
            Decoded::Damaged => {
                return Ok(Stop {
                    offset,
                    at: Tail::Damaged,
                });
            }
            Decoded::Short if at_end => return Ok(Stop { offset, at: Tail::End }),
            Decoded::Short => {
                buffer.drain(..used);
                used = 0;
                let had = buffer.len();
                let mut chunk = At {
                    file,
                    offset: offset + had as u64,
                }
                .take(256 << 10);
                at_end = chunk.read_to_end(&mut buffer)? == 0;
            }
        }
    }
}

/// Reads a file from a position without moving its cursor.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// A segment's place among the files of a spool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) job: JobKey,
    /// Number of its first line.
    pub(super) first: u64,
    /// Its lines were dropped; the file only says so.
    pub(super) dropped: bool,
}

impl Name {
    /// Reads a file's name. `None`: it is no segment's.
    pub(super) fn parse(file_name: &str) -> Option<Self> {
        let (stem, kind) = file_name.rsplit_once('.')?;
        let dropped = match kind {
            "log" => false,
            "gap" => true,
            _ => return None,
        };
        let (job, first) = stem.rsplit_once('.')?;
        Some(Self {
            job: job.parse().ok()?,
            first: first.parse().ok()?,
            dropped,
        })
    }

    /// The file.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        path(folder, &self.job, self.first, self.dropped)
    }
}

/// The file of a segment.
pub(super) fn path(folder: &Path, job: &JobKey, first: u64, dropped: bool) -> PathBuf {
    folder.join(format!("{job}.{first}.{}", if dropped { "gap" } else { "log" }))
}

/// All segments in a folder, by job and first number.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        if let Some(name) = entry?.file_name().to_str().and_then(Name::parse) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The segments of one job, by first number.
pub(super) fn list_job(folder: &Path, job: &JobKey) -> io::Result<Vec<Name>> {
    let mut names = list(folder)?;
    names.retain(|name| name.job == *job);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_well_known_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn records_survive_and_damage_is_seen() {
        let record = Record {
            number: 7,
            at_ns: -3,
            line: Some(Line {
                source: LogSource::Stderr,
                partial: true,
                text: b"h\xffllo",
            }),
        };
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        let length = bytes.len();
        assert_eq!(decode(&bytes), Decoded::Whole(record, length));
        for cut in 0..length {
            assert_eq!(decode(&bytes[..cut]), Decoded::Short, "{cut}");
        }
        for flipped in 4..length {
            let mut damaged = bytes.clone();
            damaged[flipped] ^= 1;
            assert_eq!(decode(&damaged), Decoded::Damaged, "{flipped}");
        }
    }

    #[test]
    fn names_are_read_back() {
        let name = Name {
            job: "wl-a.b.3.0".parse().unwrap(),
            first: 12,
            dropped: false,
        };
        let path = name.path(Path::new("/x"));
        assert_eq!(Name::parse(path.file_name().unwrap().to_str().unwrap()), Some(name));
        assert_eq!(Name::parse("wl-a.1.0.log"), None);
        assert_eq!(Name::parse("lease"), None);
    }
}
