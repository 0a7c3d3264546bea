//! Writing a file of chunks: series ascending, packed into blocks.
//!
//! ```text
//! file   = magic, block…, index, footer
//! block  = chunks' columns, then a header: time columns (series of a node share one), and for each chunk its
//!          series, its time column, the length of each of its columns, and a checksum
//! index  = for each block: first series, offset, length of the header
//! footer = offset of the index, its checksum, magic
//! ```

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::plan::{Kind, Meta};
use super::segment::{BlockRef, FOOTER_BYTES, MAGIC};
use super::{MetricError, codec};
use crate::varint;

/// Chunks of a block: what is read to find one of them stays small.
const BLOCK_CHUNKS: usize = 256;
/// Bytes of columns after which a block ends.
const BLOCK_BYTES: usize = 1 << 20;
/// How many of the block's time columns a new one is compared with.
const TIMES_TRIED: usize = 4;

/// A column of a chunk.
pub(super) enum Column<'a> {
    Values(&'a [f64]),
    /// As it stands in another file.
    Encoded(&'a [u8]),
}

pub(super) struct SegmentWriter {
    file: BufWriter<File>,
    offset: u64,
    index: Vec<BlockRef>,
    data: Vec<u8>,
    times: Vec<Vec<i64>>,
    chunks: Vec<Pending>,
    kind: Kind,
    series: u64,
    samples: u64,
    min_ms: i64,
    max_ms: i64,
}

struct Pending {
    series: u32,
    time: usize,
    lengths: [u32; 4],
    checksum: u32,
}

impl SegmentWriter {
    pub(super) fn create(path: &Path, kind: Kind) -> Result<Self, MetricError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let mut file = BufWriter::with_capacity(256 << 10, file);
        file.write_all(MAGIC)?;
        Ok(Self {
            file,
            offset: MAGIC.len() as u64,
            index: Vec::new(),
            data: Vec::new(),
            times: Vec::new(),
            chunks: Vec::new(),
            kind,
            series: 0,
            samples: 0,
            min_ms: i64::MAX,
            max_ms: i64::MIN,
        })
    }

    /// Adds a chunk: series ascending, times ascending and not empty, as many columns as the kind has.
    pub(super) fn push(&mut self, series: u32, times: &[i64], columns: &[Column<'_>]) -> Result<(), MetricError> {
        let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
            return Ok(());
        };
        let start = self.data.len();
        let mut lengths = [0; 4];
        for (column, length) in columns.iter().zip(&mut lengths) {
            let before = self.data.len();
            match column {
                Column::Values(values) => codec::put_values(values, &mut self.data)?,
                Column::Encoded(bytes) => self.data.extend_from_slice(bytes),
            }
            *length = (self.data.len() - before) as u32;
        }
        let known = self
            .times
            .iter()
            .rev()
            .take(TIMES_TRIED)
            .position(|known| known == times);
        let time = match known {
            Some(back) => self.times.len() - 1 - back,
            None => {
                self.times.push(times.to_vec());
                self.times.len() - 1
            }
        };
        self.chunks.push(Pending {
            series,
            time,
            lengths,
            checksum: crc32fast::hash(&self.data[start..]),
        });
        self.series += 1;
        self.samples += times.len() as u64;
        self.min_ms = self.min_ms.min(first);
        self.max_ms = self.max_ms.max(last);
        if self.chunks.len() >= BLOCK_CHUNKS || self.data.len() >= BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), MetricError> {
        let Some(first) = self.chunks.first() else {
            return Ok(());
        };
        let first_series = first.series;
        let mut header = Vec::with_capacity(4096);
        varint::put(&mut header, self.times.len() as u64);
        let mut packed = Vec::new();
        for times in &self.times {
            packed.clear();
            codec::put_times(times, &mut packed)?;
            varint::put(&mut header, times.len() as u64);
            varint::put_bytes(&mut header, &packed);
        }
        varint::put(&mut header, self.chunks.len() as u64);
        let mut before = first_series;
        for chunk in &self.chunks {
            varint::put(&mut header, u64::from(chunk.series - before));
            before = chunk.series;
            varint::put(&mut header, chunk.time as u64);
            for &length in &chunk.lengths[..self.kind.columns()] {
                varint::put(&mut header, u64::from(length));
            }
            header.extend_from_slice(&chunk.checksum.to_le_bytes());
        }
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        self.file.write_all(&self.data)?;
        self.file.write_all(&header)?;
        self.index.push(BlockRef {
            first_series,
            header_bytes: header.len() as u32,
            offset: self.offset,
        });
        self.offset += (self.data.len() + header.len()) as u64;
        self.data.clear();
        self.times.clear();
        self.chunks.clear();
        Ok(())
    }

    /// Ends the file and syncs it; `None` when nothing was pushed. The folder is left to the caller.
    pub(super) fn finish(mut self) -> Result<Option<Meta>, MetricError> {
        self.end_block()?;
        if self.series == 0 {
            return Ok(None);
        }
        let mut tail = Vec::with_capacity(self.index.len() * 16 + FOOTER_BYTES);
        for block in &self.index {
            block.put(&mut tail);
        }
        let checksum = crc32fast::hash(&tail);
        tail.extend_from_slice(&self.offset.to_le_bytes());
        tail.extend_from_slice(&checksum.to_le_bytes());
        tail.extend_from_slice(MAGIC);
        self.file.write_all(&tail)?;
        let file = self.file.into_inner().map_err(|e| MetricError::from_io(e.error()))?;
        file.sync_all()?;
        Ok(Some(Meta {
            file: 0,
            order: 0,
            kind: self.kind,
            merged: false,
            window_ms: 0,
            min_ms: self.min_ms,
            max_ms: self.max_ms,
            series: self.series,
            samples: self.samples,
            bytes: self.offset + tail.len() as u64,
            newest_ms: 0,
        }))
    }
}
