//! Blocks: a run of a stream's records as one row of the file.
//!
//! ```text
//! flags u8 | records varint | last-first varint | lead i64 | max-lead varint
//!          | unpacked varint | head varint | levels u8 (flag 4) | length varint, words (flag 8) | payload
//! payload (zstd when flag 1; some records are gaps when flag 2): for each record  kind u8, time delta, length   (head bytes)
//!                             then the texts of all records
//! kind: source 0 to 2 or gap 3 | partial 4 | level times 8 (flag 4)
//! ```
//!
//! `levels` has a bit for each level that occurs, `words` is a filter over the letters of the texts
//! ([`super::words`]): searches pass over blocks by them without unpacking. Blocks of earlier versions have
//! neither; the levels of their lines are told when they are unpacked.
//!
//! `lead` and `max` are the times of the first and last record in the stream's order, in which time never
//! runs backwards: a record counts with the latest time up to it. They let readers place and skip a block
//! without unpacking it. The number of the first record is in the row's key.

use bytes::Bytes;

use super::words::{self, Words};
use super::{Detector, Level, Line, LogError, Source};
use crate::varint;

/// Unpacked size that blocks are filled to, until a better one is known.
const FULL_BYTES: usize = 128 << 10;
/// No block of more than one record unpacks to more.
pub(super) const FULL_BYTES_MAX: usize = 192 << 10;
/// The file gives a large row a page of 4 KiB times a power of two: a packed size that fills one.
const PAGE_BYTES: f64 = 4096.0;
/// A block of at least so many unpacked bytes is not merged with others any more.
pub(super) const SETTLED_BYTES: usize = 64 << 10;
/// Below this zstd costs more than it saves.
const PACK_FROM_BYTES: usize = 512;
/// No block unpacks to more: one longest line and a full block.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;

/// Measured: level 3 saves 1 to 3 % on plain text, and costs 13 % more on lines full of numbers.
const LEVEL: i32 = 1;

/// Blocks below this unpacked size have no filter: to unpack them costs little.
const WORDS_FROM_BYTES: usize = 16 << 10;

const PACKED: u8 = 1;
const GAPS: u8 = 2;
const LEVELS: u8 = 4;
const WORDS: u8 = 8;

const GAP: u8 = 3;
const PARTIAL: u8 = 4;
/// Where the level stands in a record's kind.
const LEVEL_SHIFT: u32 = 3;

/// The bit of a level in a block's header; none has one too.
pub(super) fn level_bit(level: Option<Level>) -> u8 {
    1 << Level::code(level)
}

/// What a stream is made of; the numbers of neighbours join without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Line(Line, Option<Level>),
    Gap { from: u64, to: u64, at_ns: i64 },
}

impl Record {
    pub(super) fn first(&self) -> u64 {
        match self {
            Self::Line(line, _) => line.number,
            Self::Gap { from, .. } => *from,
        }
    }

    pub(super) fn last(&self) -> u64 {
        match self {
            Self::Line(line, _) => line.number,
            Self::Gap { to, .. } => *to,
        }
    }

    pub(super) fn at_ns(&self) -> i64 {
        match self {
            Self::Line(line, _) => line.at_ns,
            Self::Gap { at_ns, .. } => *at_ns,
        }
    }

    /// About what the record adds to the unpacked size of a block.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Line(line, _) => line.text.len() + 8,
            Self::Gap { .. } => 12,
        }
    }
}

/// The unpacked size that would fill a page, by how far a block of about such data was packed.
fn page_filling(unpacked: usize, packed: usize) -> usize {
    // A few percent are left free, as the next block packs a little better or worse.
    let mut full = PAGE_BYTES * 0.95 * unpacked as f64 / packed as f64;
    while full < FULL_BYTES_MAX as f64 / 2.0 {
        full *= 2.0;
    }
    (full as usize).min(FULL_BYTES_MAX)
}

/// The level of a stream's next line; the detectors are those of standard output and error.
pub(super) fn detect(detectors: &mut [Detector; 2], source: Source, text: &[u8], partial: bool) -> Option<Level> {
    match source {
        Source::Stdout => detectors[0].next(text, partial),
        Source::Stderr => detectors[1].next(text, partial),
        // What Clawbernetes has to say of a log is that something is wrong with it.
        Source::System => Some(Level::Warn),
    }
}

/// A block ready to be stored.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) unpacked: u64,
    pub(super) bytes: Vec<u8>,
}

/// Packs records; keeps zstd's work space between blocks.
pub(super) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    /// Unpacked size to fill blocks to.
    full: usize,
    words: Words,
}

impl Packer {
    pub(super) fn new() -> Result<Self, LogError> {
        let zstd = zstd::bulk::Compressor::new(LEVEL).map_err(|e| LogError::from_io(&e))?;
        Ok(Self {
            zstd,
            full: FULL_BYTES,
            words: Words::new(),
        })
    }

    /// Cuts records (numbers joined) into blocks of at most [`FULL_BYTES_MAX`], or one record.
    ///
    /// `latest_ns` is the latest time before them.
    pub(super) fn pack(&mut self, records: &[Record], mut latest_ns: i64) -> Result<Vec<Encoded>, LogError> {
        let mut blocks = Vec::with_capacity(1);
        let mut rest = records;
        while !rest.is_empty() {
            let mut size = rest[0].size();
            let mut count = 1;
            while count < rest.len() && size + rest[count].size() <= self.full {
                size += rest[count].size();
                count += 1;
            }
            let (chunk, after) = rest.split_at(count);
            blocks.push(self.pack_one(chunk, size, &mut latest_ns)?);
            rest = after;
        }
        Ok(blocks)
    }

    fn pack_one(&mut self, records: &[Record], size: usize, latest_ns: &mut i64) -> Result<Encoded, LogError> {
        let first = records[0].first();
        let last = records[records.len() - 1].last();
        let lead = records[0].at_ns().max(*latest_ns);
        let mut payload = Vec::with_capacity(size + records.len() * 4);
        let mut before = lead;
        let mut levels = 0;
        for record in records {
            let (kind, length) = match record {
                Record::Line(line, level) => {
                    let source = match line.source {
                        Source::Stdout => 0,
                        Source::Stderr => 1,
                        Source::System => 2,
                    };
                    let partial = if line.partial { PARTIAL } else { 0 };
                    levels |= level_bit(*level);
                    let level = Level::code(*level) << LEVEL_SHIFT;
                    (source | partial | level, line.text.len() as u64)
                }
                Record::Gap { from, to, .. } => (GAP, to - from + 1),
            };
            payload.push(kind);
            varint::put_signed(&mut payload, record.at_ns().wrapping_sub(before));
            varint::put(&mut payload, length);
            before = record.at_ns();
            *latest_ns = before.max(*latest_ns);
        }
        let head = payload.len();
        for record in records {
            if let Record::Line(line, _) = record {
                payload.extend_from_slice(&line.text);
            }
        }
        let packed = if payload.len() >= PACK_FROM_BYTES {
            let packed = self.zstd.compress(&payload).map_err(|e| LogError::from_io(&e))?;
            (packed.len() < payload.len()).then_some(packed)
        } else {
            None
        };
        let words = if payload.len() >= WORDS_FROM_BYTES {
            self.words.filter(&payload[head..])
        } else {
            None
        };
        let gaps = records.iter().any(|r| matches!(r, Record::Gap { .. }));
        if let Some(packed) = &packed
            && payload.len() >= SETTLED_BYTES / 2
        {
            self.full = page_filling(payload.len(), packed.len() + words.as_ref().map_or(0, Vec::len));
        }
        let flags = LEVELS
            | if packed.is_some() { PACKED } else { 0 }
            | if gaps { GAPS } else { 0 }
            | if words.is_some() { WORDS } else { 0 };
        let stored = packed.as_deref().unwrap_or(&payload);
        let mut bytes = Vec::with_capacity(stored.len() + words.as_ref().map_or(0, Vec::len) + 40);
        bytes.push(flags);
        varint::put(&mut bytes, records.len() as u64);
        varint::put(&mut bytes, last - first);
        bytes.extend_from_slice(&lead.to_le_bytes());
        varint::put(&mut bytes, latest_ns.wrapping_sub(lead) as u64);
        varint::put(&mut bytes, payload.len() as u64);
        varint::put(&mut bytes, head as u64);
        bytes.push(levels);
        if let Some(words) = &words {
            varint::put(&mut bytes, words.len() as u64);
            bytes.extend_from_slice(words);
        }
        bytes.extend_from_slice(stored);
        Ok(Encoded {
            first,
            last,
            unpacked: payload.len() as u64,
            bytes,
        })
    }
}

/// What a block says of itself without being unpacked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) records: u64,
    /// Time of the first record in the stream's order.
    pub(super) lead_ns: i64,
    /// Time of the last record in the stream's order.
    pub(super) max_ns: i64,
    pub(super) unpacked: u64,
    /// Whether some records are gaps.
    pub(super) gaps: bool,
    /// [`level_bit`]s of its lines; `None` in a block of an earlier version.
    pub(super) levels: Option<u8>,
    packed: bool,
    head: usize,
    /// Where the filter lies; empty is none.
    words: (usize, usize),
    /// Where the payload starts.
    payload: usize,
}

impl Header {
    /// Reads the front of the block whose key says `first`.
    pub(super) fn decode(first: u64, block: &[u8]) -> Result<Self, LogError> {
        let short = LogError::Corrupt { detail: "block header" };
        let mut rest = block;
        let input = &mut rest;
        let (&flags, after) = input.split_first().ok_or(short.clone())?;
        *input = after;
        let records = varint::take(input)?;
        let span = varint::take(input)?;
        let (lead, after) = input.split_first_chunk::<8>().ok_or(short.clone())?;
        let lead_ns = i64::from_le_bytes(*lead);
        *input = after;
        let max_ns = lead_ns.wrapping_add(varint::take(input)? as i64);
        let unpacked = varint::take(input)?;
        let head = varint::take(input)?;
        if unpacked > UNPACKED_BYTES_MAX || head > unpacked || records == 0 {
            return Err(short);
        }
        let mut levels = None;
        if flags & LEVELS != 0 {
            let (&found, after) = input.split_first().ok_or(short.clone())?;
            *input = after;
            levels = Some(found);
        }
        let mut words = (0, 0);
        if flags & WORDS != 0 {
            let length = usize::try_from(varint::take(input)?).map_err(|_| short.clone())?;
            let start = block.len() - input.len();
            *input = input.get(length..).ok_or(short.clone())?;
            words = (start, start + length);
        }
        Ok(Self {
            first,
            last: first.checked_add(span).ok_or(short)?,
            records,
            lead_ns,
            max_ns,
            unpacked,
            gaps: flags & GAPS != 0,
            levels,
            packed: flags & PACKED != 0,
            head: head as usize,
            words,
            payload: block.len() - rest.len(),
        })
    }
}

impl Header {
    /// Whether the block's letters may hold all of these groups of three; `block` is the whole row.
    pub(super) fn may_hold(&self, block: &[u8], triples: &[u16]) -> bool {
        let (start, end) = self.words;
        match block.get(start..end) {
            Some(filter) if !filter.is_empty() => words::may_hold(filter, triples),
            _ => true,
        }
    }

    /// The texts of all records, one after the other, in an unpacked payload.
    pub(super) fn texts<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        payload.get(self.head..).unwrap_or_default()
    }
}

/// A record with its time in the stream's order.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) record: Record,
    pub(super) order_ns: i64,
}

/// Unpacks a block. The texts share its memory.
pub(super) fn unpack(header: &Header, block: &[u8]) -> Result<Vec<Placed>, LogError> {
    records(header, &unpack_payload(header, block)?)
}

/// The payload, unpacked.
pub(super) fn unpack_payload(header: &Header, block: &[u8]) -> Result<Bytes, LogError> {
    let corrupt = |detail| LogError::Corrupt { detail };
    let stored = block.get(header.payload..).ok_or(corrupt("block payload"))?;
    let payload = if header.packed {
        Bytes::from(zstd::bulk::decompress(stored, header.unpacked as usize).map_err(|_| corrupt("packed payload"))?)
    } else {
        Bytes::copy_from_slice(stored)
    };
    if payload.len() as u64 != header.unpacked {
        return Err(corrupt("payload length"));
    }
    Ok(payload)
}

/// The records of an unpacked payload.
pub(super) fn records(header: &Header, payload: &Bytes) -> Result<Vec<Placed>, LogError> {
    let corrupt = |detail| LogError::Corrupt { detail };
    let mut detectors = [Detector::default(); 2];
    let mut head = &payload[..header.head];
    let mut text_at = header.head;
    let mut number = header.first;
    let (mut before, mut order_ns) = (header.lead_ns, header.lead_ns);
    let mut records = Vec::with_capacity(header.records.min(header.unpacked) as usize);
    for _ in 0..header.records {
        let (&kind, rest) = head.split_first().ok_or(corrupt("record"))?;
        head = rest;
        let at_ns = before.wrapping_add(varint::take_signed(&mut head)?);
        let length = varint::take(&mut head)?;
        before = at_ns;
        order_ns = order_ns.max(at_ns);
        let source = match kind & 3 {
            0 => Some(Source::Stdout),
            1 => Some(Source::Stderr),
            2 => Some(Source::System),
            _ => None,
        };
        let record = if let Some(source) = source {
            let end = usize::try_from(length)
                .ok()
                .and_then(|length| text_at.checked_add(length))
                .filter(|&end| end <= payload.len())
                .ok_or(corrupt("text length"))?;
            let text = payload.slice(text_at..end);
            text_at = end;
            let partial = kind & PARTIAL != 0;
            let level = match header.levels {
                Some(_) => Level::from_code(kind >> LEVEL_SHIFT),
                None => detect(&mut detectors, source, &text, partial),
            };
            let line = Line {
                number,
                at_ns,
                source,
                text,
                partial,
            };
            Record::Line(line, level)
        } else {
            let to = length
                .checked_sub(1)
                .and_then(|more| number.checked_add(more))
                .ok_or(corrupt("gap length"))?;
            Record::Gap {
                from: number,
                to,
                at_ns,
            }
        };
        number = record.last().checked_add(1).ok_or(corrupt("record number"))?;
        records.push(Placed { record, order_ns });
    }
    if number != header.last + 1 || text_at != payload.len() {
        return Err(corrupt("record count"));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, at_ns: i64, text: Vec<u8>) -> Record {
        let line = Line {
            number,
            at_ns,
            source: [Source::Stdout, Source::Stderr, Source::System][number as usize % 3],
            text: text.into(),
            partial: number.is_multiple_of(2),
        };
        let level = (number as usize % 7).checked_sub(1).map(|level| Level::ALL[level]);
        Record::Line(line, level)
    }

    #[test]
    fn records_survive() {
        let mut records = vec![
            line(5, 100, b"not \xff\xfe utf-8".to_vec()),
            Record::Gap {
                from: 6,
                to: 9,
                at_ns: 100,
            },
            line(10, -7, Vec::new()),
            line(11, i64::MAX, vec![b'x'; 1 << 20]),
            line(12, i64::MIN, b"back".to_vec()),
        ];
        records.extend((13..3000).map(|n| line(n, n as i64, format!("step {n}").into_bytes())));
        let mut packer = Packer::new().unwrap();
        let blocks = packer.pack(&records, 50).unwrap();
        assert!(blocks.len() > 2);
        let mut seen = Vec::new();
        let mut latest = 50;
        let mut next = 5;
        for block in &blocks {
            assert_eq!(block.first, next);
            next = block.last + 1;
            let header = Header::decode(block.first, &block.bytes).unwrap();
            assert_eq!(header.last, block.last);
            let placed = unpack(&header, &block.bytes).unwrap();
            let bits = |bits, p: &Placed| match &p.record {
                Record::Line(_, level) => bits | level_bit(*level),
                Record::Gap { .. } => bits,
            };
            assert_eq!(header.levels, Some(placed.iter().fold(0, bits)));
            let (step, cuda) = (words::triples(b"step"), words::triples(b"CUDA"));
            let steps = placed.iter().filter(|p| p.record.first() > 12).count();
            assert!(steps == 0 || header.may_hold(&block.bytes, &step));
            assert!(block.unpacked < WORDS_FROM_BYTES as u64 || !header.may_hold(&block.bytes, &cuda));
            assert_eq!(placed[0].order_ns, header.lead_ns);
            for p in placed {
                latest = p.record.at_ns().max(latest);
                assert_eq!(p.order_ns, latest);
                seen.push(p.record);
            }
            assert_eq!(header.max_ns, latest);
        }
        assert_eq!(seen, records);
    }

    /// A block as versions without levels wrote it.
    #[test]
    fn earlier_blocks_are_read() {
        let texts = [
            "fine",
            "Traceback (most recent call last):",
            "  File x",
            "KeyError: 'x'",
        ];
        let mut payload = Vec::new();
        for text in texts {
            payload.push(0);
            varint::put_signed(&mut payload, 0);
            varint::put(&mut payload, text.len() as u64);
        }
        let head = payload.len() as u64;
        texts.iter().for_each(|text| payload.extend_from_slice(text.as_bytes()));
        let mut block = vec![0];
        varint::put(&mut block, 4);
        varint::put(&mut block, 3);
        block.extend_from_slice(&7i64.to_le_bytes());
        varint::put(&mut block, 0);
        varint::put(&mut block, payload.len() as u64);
        varint::put(&mut block, head);
        block.extend_from_slice(&payload);
        let header = Header::decode(1, &block).unwrap();
        assert_eq!(header.levels, None);
        assert!(header.may_hold(&block, &words::triples(b"anything")));
        let levels: Vec<_> = unpack(&header, &block)
            .unwrap()
            .into_iter()
            .map(|p| match p.record {
                Record::Line(line, level) => (line.text, level),
                Record::Gap { .. } => panic!("no gap"),
            })
            .collect();
        let error = Some(Level::Error);
        let expected = texts.map(|text| bytes::Bytes::from_static(text.as_bytes()));
        assert!(
            levels
                .into_iter()
                .eq(expected.into_iter().zip([None, error, error, error]))
        );
    }

    #[test]
    fn full_blocks_fill_their_pages() {
        for packed in [1_000, 7_000, 18_300, 40_000, 99_000] {
            let full = page_filling(100_000, packed);
            assert!((FULL_BYTES_MAX / 2..=FULL_BYTES_MAX).contains(&full));
            let row = full as f64 * packed as f64 / 100_000.0;
            let page = (row / PAGE_BYTES).ceil() as u64;
            // Data packed to less than half a page ends at the largest size.
            assert!(row / (page.next_power_of_two() as f64 * PAGE_BYTES) > 0.4);
        }
    }

    #[test]
    fn damage_is_an_error() {
        let records: Vec<_> = (1..200).map(|n| line(n, 0, b"some text here".to_vec())).collect();
        let block = Packer::new().unwrap().pack(&records, i64::MIN).unwrap().remove(0);
        for cut in 0..block.bytes.len() {
            let cut = &block.bytes[..cut];
            assert!(Header::decode(1, cut).and_then(|h| unpack(&h, cut)).is_err());
        }
    }
}
