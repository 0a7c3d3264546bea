//! Reading a file of chunks; [`segment_writer`](super::segment_writer) has the format.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::plan::Meta;
use super::{MetricError, codec};
use crate::varint;

pub(super) const MAGIC: &[u8; 8] = b"CBMETR01";
pub(super) const FOOTER_BYTES: usize = 8 + 4 + 8;
const REF_BYTES: usize = 16;
/// Chunks this close together are read in one go.
const GAP_BYTES: usize = 2048;

/// Where a block lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockRef {
    pub(super) first_series: u32,
    pub(super) header_bytes: u32,
    pub(super) offset: u64,
}

impl BlockRef {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first_series.to_le_bytes());
        out.extend_from_slice(&self.header_bytes.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
    }

    fn of(raw: &[u8]) -> Self {
        Self {
            first_series: u32_of(&raw[..4]),
            header_bytes: u32_of(&raw[4..8]),
            offset: u64_of(&raw[8..16]),
        }
    }
}

fn u32_of(raw: &[u8]) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(raw);
    u32::from_le_bytes(bytes)
}

fn u64_of(raw: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(raw);
    u64::from_le_bytes(bytes)
}

/// A file of chunks. Opened for each use, so that a year of files needs no descriptors.
pub(super) struct Segment {
    pub(super) meta: Meta,
    path: PathBuf,
    blocks: Vec<BlockRef>,
    /// Where the last block ends.
    end: u64,
    /// Deleted when the last reader is done.
    doomed: AtomicBool,
}

/// Chunk of a series in a block.
struct Entry {
    series: u32,
    time: usize,
    /// Within the block.
    offset: usize,
    lengths: [u32; 4],
    checksum: u32,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.lengths.iter().map(|&length| length as usize).sum()
    }
}

struct Header {
    /// Samples, packed times, and the times once they are needed.
    times: Vec<(usize, Vec<u8>, Vec<i64>)>,
    entries: Vec<Entry>,
}

impl Header {
    fn parse(raw: &[u8], first_series: u32, columns: usize) -> Result<Self, MetricError> {
        let (body, checksum) = raw
            .split_at_checked(raw.len().saturating_sub(4))
            .ok_or(MetricError::Corrupt("block header"))?;
        if checksum.len() != 4 || crc32fast::hash(body) != u32_of(checksum) {
            return Err(MetricError::Corrupt("checksum of a block header"));
        }
        let mut input = body;
        let input = &mut input;
        let mut times = Vec::new();
        for _ in 0..varint::take(input)? {
            let samples = varint::take(input)? as usize;
            times.push((samples, varint::take_bytes(input)?.to_vec(), Vec::new()));
        }
        let count = varint::take(input)? as usize;
        let mut entries = Vec::with_capacity(count.min(4096));
        let (mut series, mut offset) = (first_series, 0);
        for _ in 0..count {
            series = series.wrapping_add(varint::take(input)? as u32);
            let time = varint::take(input)? as usize;
            let mut lengths = [0; 4];
            for length in &mut lengths[..columns] {
                *length = varint::take(input)? as u32;
            }
            let checksum = u32_of(varint::take_slice(input, 4)?);
            if time >= times.len() {
                return Err(MetricError::Corrupt("time column of a chunk"));
            }
            let entry = Entry {
                series,
                time,
                offset,
                lengths,
                checksum,
            };
            offset += entry.bytes();
            entries.push(entry);
        }
        Ok(Self { times, entries })
    }

    fn times(&mut self, at: usize) -> Result<&[i64], MetricError> {
        let (samples, packed, times) = &mut self.times[at];
        if times.is_empty() {
            codec::times(packed, *samples, times)?;
        }
        Ok(times)
    }
}

/// One chunk being read.
pub(super) struct Chunk<'a> {
    pub(super) times: &'a [i64],
    bytes: &'a [u8],
    lengths: [u32; 4],
}

impl<'a> Chunk<'a> {
    /// A column as stored.
    pub(super) fn encoded(&self, column: usize) -> Result<&'a [u8], MetricError> {
        let start: usize = self.lengths[..column].iter().map(|&length| length as usize).sum();
        let end = start + self.lengths[column] as usize;
        self.bytes
            .get(start..end)
            .ok_or(MetricError::Corrupt("column of a chunk"))
    }

    /// A column's values, one for each time, replacing what `out` held.
    pub(super) fn values(&self, column: usize, out: &mut Vec<f64>) -> Result<(), MetricError> {
        codec::values(self.encoded(column)?, self.times.len(), out)
    }
}

impl Segment {
    /// Opens a file that stands in the catalogue and checks its frame (not each chunk).
    pub(super) fn open(path: PathBuf, meta: Meta) -> Result<Self, MetricError> {
        let file = File::open(&path)?;
        let bytes = file.metadata()?.len();
        let footer_at = bytes
            .checked_sub(FOOTER_BYTES as u64)
            .filter(|_| bytes == meta.bytes)
            .ok_or(MetricError::Corrupt("length of a file"))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, footer_at)?;
        let end = u64_of(&footer[..8]);
        let index_bytes = footer_at.checked_sub(end).filter(|bytes| bytes % REF_BYTES as u64 == 0);
        let index_bytes = index_bytes.ok_or(MetricError::Corrupt("footer of a file"))?;
        let mut index = vec![0; index_bytes as usize];
        file.read_exact_at(&mut index, end)?;
        if &footer[12..] != MAGIC || crc32fast::hash(&index) != u32_of(&footer[8..12]) {
            return Err(MetricError::Corrupt("index of a file"));
        }
        Ok(Self {
            meta,
            path,
            blocks: index.chunks_exact(REF_BYTES).map(BlockRef::of).collect(),
            end,
            doomed: AtomicBool::new(false),
        })
    }

    /// Has the file deleted once nobody reads it.
    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    fn block_end(&self, at: usize) -> u64 {
        self.blocks.get(at + 1).map_or(self.end, |next| next.offset)
    }

    fn header(&self, file: &File, at: usize, raw: &mut Vec<u8>) -> Result<Header, MetricError> {
        let header_bytes = self.blocks[at].header_bytes;
        raw.resize(header_bytes as usize, 0);
        let start = self.block_end(at).saturating_sub(u64::from(header_bytes));
        file.read_exact_at(raw, start)?;
        Header::parse(raw, self.blocks[at].first_series, self.meta.kind.columns())
    }

    /// Calls `visit` with the place in `series` (ascending) of each that has samples from `from_ms` to `to_ms`,
    /// and the chunk, which may reach beyond.
    pub(super) fn scan(
        &self,
        series: &[u32],
        (from_ms, to_ms): (i64, i64),
        mut visit: impl FnMut(usize, &Chunk<'_>) -> Result<(), MetricError>,
    ) -> Result<(), MetricError> {
        let mut file = None;
        let (mut raw, mut data) = (Vec::new(), Vec::new());
        let mut place = 0;
        for (at, block) in self.blocks.iter().enumerate() {
            place += series[place..].partition_point(|&one| one < block.first_series);
            let next = self.blocks.get(at + 1).map_or(u32::MAX, |next| next.first_series);
            let wanted = series[place..].partition_point(|&one| one < next);
            if wanted == 0 {
                continue;
            }
            let file = match &mut file {
                Some(file) => file,
                None => file.insert(File::open(&self.path)?),
            };
            let mut header = self.header(file, at, &mut raw)?;
            let mut hits: Vec<(usize, usize)> = Vec::new();
            let mut entry = 0;
            for (offset, &one) in series[place..place + wanted].iter().enumerate() {
                entry += header.entries[entry..].partition_point(|entry| entry.series < one);
                let Some(found) = header.entries.get(entry) else {
                    break;
                };
                if found.series != one {
                    continue;
                }
                let column = found.time;
                let times = header.times(column)?;
                let overlaps = times.first().is_some_and(|&first| first <= to_ms)
                    && times.last().is_some_and(|&last| last >= from_ms);
                if overlaps {
                    hits.push((place + offset, entry));
                }
            }
            place += wanted;
            let mut rest = hits.as_slice();
            while let Some(&(_, first)) = rest.first() {
                // As many as lie close together.
                let start = header.entries[first].offset;
                let mut end = start;
                let close = rest.iter().take_while(|(_, entry)| {
                    let entry = &header.entries[*entry];
                    let near = entry.offset <= end + GAP_BYTES;
                    if near {
                        end = entry.offset + entry.bytes();
                    }
                    near
                });
                let close = close.count();
                data.resize(end - start, 0);
                file.read_exact_at(&mut data, block.offset + start as u64)?;
                for &(place, entry) in &rest[..close] {
                    let entry = &header.entries[entry];
                    let chunk = chunk(&header, entry, &data[entry.offset - start..])?;
                    visit(place, &chunk)?;
                }
                rest = &rest[close..];
            }
        }
        Ok(())
    }

    /// Reads the whole file in order.
    pub(super) fn cursor(&self) -> Result<Cursor<'_>, MetricError> {
        let mut cursor = Cursor {
            segment: self,
            file: File::open(&self.path)?,
            block: 0,
            header: Header {
                times: Vec::new(),
                entries: Vec::new(),
            },
            data: Vec::new(),
            raw: Vec::new(),
            entry: 0,
        };
        cursor.load()?;
        Ok(cursor)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            // Found again as a stranger when the store is opened next.
            tracing::warn!(path = %self.path.display(), %error, "metric file could not be deleted");
        }
    }
}

/// The entry's chunk; its times must have been unpacked, `data` starts with its bytes.
fn chunk<'a>(header: &'a Header, entry: &Entry, data: &'a [u8]) -> Result<Chunk<'a>, MetricError> {
    let bytes = data
        .get(..entry.bytes())
        .ok_or(MetricError::Corrupt("length of a chunk"))?;
    if crc32fast::hash(bytes) != entry.checksum {
        return Err(MetricError::Corrupt("checksum of a chunk"));
    }
    Ok(Chunk {
        times: &header.times[entry.time].2,
        bytes,
        lengths: entry.lengths,
    })
}

/// Goes through a file, series by series.
pub(super) struct Cursor<'a> {
    segment: &'a Segment,
    file: File,
    block: usize,
    header: Header,
    data: Vec<u8>,
    raw: Vec<u8>,
    entry: usize,
}

impl Cursor<'_> {
    fn load(&mut self) -> Result<(), MetricError> {
        let Some(block) = self.segment.blocks.get(self.block) else {
            return Ok(());
        };
        self.header = self.segment.header(&self.file, self.block, &mut self.raw)?;
        let bytes = self.header.entries.iter().map(Entry::bytes).sum();
        self.data.resize(bytes, 0);
        self.file.read_exact_at(&mut self.data, block.offset)?;
        self.entry = 0;
        Ok(())
    }

    /// The series that is next; `None` at the end.
    pub(super) fn series(&self) -> Option<u32> {
        self.header.entries.get(self.entry).map(|entry| entry.series)
    }

    /// Its chunk.
    pub(super) fn chunk(&mut self) -> Result<Chunk<'_>, MetricError> {
        let at = self.entry;
        let time = self
            .header
            .entries
            .get(at)
            .ok_or(MetricError::Corrupt("end of a file"))?
            .time;
        self.header.times(time)?;
        let entry = &self.header.entries[at];
        chunk(&self.header, entry, &self.data[entry.offset..])
    }

    pub(super) fn advance(&mut self) -> Result<(), MetricError> {
        self.entry += 1;
        if self.entry >= self.header.entries.len() {
            self.block += 1;
            self.header.entries.clear();
            self.load()?;
        }
        Ok(())
    }
}
