//! The log ahead of the files: what the head holds, on disk a second later.
//!
//! Callers append to a buffer; once a second it is packed into a frame, written and synced. Each head has its own
//! file, `wal-N.log`, deleted when the head is in files. A torn frame at the end is what a crash leaves: it and
//! nothing before it is lost. Nothing is ever written behind one.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::MetricError;
use crate::varint;

/// Bytes of a frame's length and checksum.
const FRAME_HEAD: usize = 8;
/// Buffered records from which on a new frame begins, and samples of one record at most: frames stay bounded.
pub(super) const FRAME_BYTES: usize = 4 << 20;
pub(super) const RECORD_SAMPLES: usize = 64 << 10;
/// Unpacked bytes of a frame at most: 19 bytes a sample, and a series of 16 KiB.
const FRAME_BYTES_MAX: usize = FRAME_BYTES + RECORD_SAMPLES * 19 + (1 << 20);

mod tag {
    pub(super) const SERIES: u8 = 1;
    pub(super) const SAMPLES: u8 = 2;
}

/// What the log tells.
#[derive(Debug, PartialEq)]
pub(super) enum Record<'a> {
    Series {
        series: u32,
        name: &'a str,
        labels: Vec<(&'a str, &'a str)>,
    },
    Samples {
        at_ms: i64,
        samples: Vec<(u32, f64)>,
    },
}

pub(super) fn put_series(out: &mut Vec<u8>, series: u32, name: &str, labels: &[(&str, &str)]) {
    out.push(tag::SERIES);
    varint::put(out, u64::from(series));
    varint::put_bytes(out, name.as_bytes());
    varint::put(out, labels.len() as u64);
    for (label, value) in labels {
        varint::put_bytes(out, label.as_bytes());
        varint::put_bytes(out, value.as_bytes());
    }
}

pub(super) fn put_samples(out: &mut Vec<u8>, at_ms: i64, samples: &[(u32, f64)]) {
    out.push(tag::SAMPLES);
    varint::put_signed(out, at_ms);
    varint::put(out, samples.len() as u64);
    let mut before = 0;
    for (series, _) in samples {
        varint::put_signed(out, i64::from(*series) - before);
        before = i64::from(*series);
    }
    for (_, value) in samples {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn text(raw: &[u8]) -> Result<&str, MetricError> {
    std::str::from_utf8(raw).map_err(|_| MetricError::Corrupt("text that is not UTF-8"))
}

fn take<'a>(input: &mut &'a [u8]) -> Result<Record<'a>, MetricError> {
    match varint::take_slice(input, 1)?[0] {
        tag::SERIES => {
            let series = varint::take(input)? as u32;
            let name = text(varint::take_bytes(input)?)?;
            let mut labels = Vec::new();
            for _ in 0..varint::take(input)? {
                labels.push((text(varint::take_bytes(input)?)?, text(varint::take_bytes(input)?)?));
            }
            Ok(Record::Series { series, name, labels })
        }
        tag::SAMPLES => {
            let at_ms = varint::take_signed(input)?;
            let count = varint::take(input)? as usize;
            let mut samples = Vec::with_capacity(count.min(input.len()));
            let mut series = 0i64;
            for _ in 0..count {
                series = series.wrapping_add(varint::take_signed(input)?);
                samples.push((series as u32, 0.0));
            }
            for (_, value) in &mut samples {
                let mut raw = [0; 8];
                raw.copy_from_slice(varint::take_slice(input, 8)?);
                *value = f64::from_le_bytes(raw);
            }
            Ok(Record::Samples { at_ms, samples })
        }
        _ => Err(MetricError::Corrupt("record of an unknown kind")),
    }
}

/// The files of the log.
pub(super) struct Wal {
    dir: PathBuf,
    /// The file being written and its number.
    open: Option<(u64, File)>,
    /// Bytes of complete frames, by file.
    sizes: Vec<(u64, u64)>,
    /// What is written for files before this is in files of chunks already.
    from: u64,
}

impl Wal {
    /// The log in `dir`, continued in new files.
    pub(super) fn new(dir: &Path) -> Result<Self, MetricError> {
        let mut sizes = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if let Some(number) = number_of(&entry.file_name().to_string_lossy()) {
                sizes.push((number, entry.metadata()?.len()));
            }
        }
        sizes.sort_unstable();
        Ok(Self {
            dir: dir.to_owned(),
            open: None,
            sizes,
            from: 0,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.sizes.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Numbers of the files there are.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.sizes.iter().map(|(number, _)| *number).collect()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("wal-{number}.log"))
    }

    /// Writes records as one frame and syncs it. After an error the file ends with its last whole frame.
    pub(super) fn write(&mut self, number: u64, records: &[u8]) -> Result<(), MetricError> {
        if number < self.from {
            return Ok(());
        }
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            let path = self.path(number);
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            File::open(&self.dir)?.sync_all()?;
            self.open = Some((number, file));
            if !self.sizes.iter().any(|(known, _)| *known == number) {
                self.sizes.push((number, 0));
            }
        }
        let size = self.sizes.iter_mut().find(|(known, _)| *known == number);
        let (Some((_, file)), Some((_, size))) = (&mut self.open, size) else {
            return Ok(());
        };
        let packed = zstd::bulk::compress(records, 1)?;
        let mut frame = Vec::with_capacity(FRAME_HEAD + packed.len());
        frame.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        frame.extend_from_slice(&crc32fast::hash(&packed).to_le_bytes());
        frame.extend_from_slice(&packed);
        let written = file.write_all(&frame).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // So that the next try does not stand behind a torn one.
            file.set_len(*size)?;
            return Err(MetricError::from_io(&error));
        }
        *size += frame.len() as u64;
        Ok(())
    }

    /// Deletes the files before `number`.
    pub(super) fn delete_before(&mut self, number: u64) -> Result<(), MetricError> {
        self.from = number;
        if self.open.as_ref().is_some_and(|(open, _)| *open < number) {
            self.open = None;
        }
        while let Some(at) = self.sizes.iter().position(|(known, _)| *known < number) {
            match std::fs::remove_file(self.path(self.sizes[at].0)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            self.sizes.swap_remove(at);
        }
        Ok(())
    }

    /// Reads a file's records up to its end or its first torn frame; returns the bytes behind that.
    pub(super) fn replay(&self, number: u64, mut each: impl FnMut(Record<'_>)) -> Result<u64, MetricError> {
        let file = File::open(self.path(number))?;
        let mut rest = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let mut packed = Vec::new();
        while rest >= FRAME_HEAD as u64 {
            let mut head = [0; FRAME_HEAD];
            file.read_exact(&mut head)?;
            let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let (bytes, checksum) = (word(0), word(4));
            if u64::from(bytes) > rest - FRAME_HEAD as u64 {
                break;
            }
            packed.resize(bytes as usize, 0);
            file.read_exact(&mut packed)?;
            if bytes == 0 || crc32fast::hash(&packed) != checksum {
                break;
            }
            let unpacked = zstd::bulk::decompress(&packed, FRAME_BYTES_MAX)?;
            let mut input = unpacked.as_slice();
            while !input.is_empty() {
                each(take(&mut input)?);
            }
            rest -= FRAME_HEAD as u64 + u64::from(bytes);
        }
        Ok(rest)
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("wal-")?.strip_suffix(".log")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(wal: &Wal, number: u64) -> Vec<i64> {
        let mut times = Vec::new();
        wal.replay(number, |record| {
            if let Record::Samples { at_ms, .. } = record {
                times.push(at_ms);
            }
        })
        .unwrap();
        times
    }

    #[test]
    fn a_torn_tail_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::new(dir.path()).unwrap();
        for at_ms in 0..10 {
            let mut records = Vec::new();
            put_series(&mut records, 3, "m", &[("node", "a")]);
            put_samples(&mut records, at_ms, &[(3, 1.5), (1, -2.0)]);
            wal.write(4, &records).unwrap();
        }
        let path = dir.path().join("wal-4.log");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(wal.bytes(), whole.len() as u64);
        assert_eq!(frames(&wal, 4), (0..10).collect::<Vec<_>>());
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let kept = frames(&wal, 4);
            assert_eq!(kept, (0..kept.len() as i64).collect::<Vec<_>>());
            assert!(kept.len() >= (cut / (whole.len() / 10 + 2)).min(9));
            // And with what a disk may put behind it.
            let mut torn = whole[..cut].to_vec();
            torn.resize(whole.len() + 9, 0);
            std::fs::write(&path, &torn).unwrap();
            assert!(frames(&wal, 4).len() >= kept.len());
        }
    }

    #[test]
    fn records_survive() {
        let mut raw = Vec::new();
        put_series(&mut raw, 7, "gpu.power", &[("gpu", "0"), ("node", "ä")]);
        put_samples(&mut raw, -4, &[(9, 0.5), (2, -0.0)]);
        let mut input = raw.as_slice();
        let labels = vec![("gpu", "0"), ("node", "ä")];
        let name = "gpu.power";
        assert_eq!(
            take(&mut input),
            Ok(Record::Series {
                series: 7,
                name,
                labels
            })
        );
        let samples = vec![(9, 0.5), (2, -0.0)];
        assert_eq!(take(&mut input), Ok(Record::Samples { at_ms: -4, samples }));
        assert!(take(&mut input).is_err());
    }
}
