//! The words of the log store: streams, lines, queries, pages.

use std::time::Duration;

use bytes::Bytes;

use super::{Cursor, Level, Search};

/// One numbered sequence of lines: what one attempt of a workload wrote on one rank.
///
/// Numbers start at 1 and have no holes but those that a [`Entry::Gap`] marks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// The workload's id, 1 to 255 bytes.
    pub workload: String,
    /// Which try of the workload, from 1 by convention.
    pub attempt: u32,
    /// Which member of a gang; 0 for a workload on one node.
    pub rank: u32,
}

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The workload's standard output.
    Stdout,
    /// The workload's standard error.
    Stderr,
    /// Clawbernetes itself, for example that a log was cut.
    System,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Place in the stream, from 1.
    pub number: u64,
    /// When the node read it: nanoseconds since 1970 UTC by the node's clock, which may step backwards.
    pub at_ns: i64,
    /// Who wrote it.
    pub source: Source,
    /// The text without its newline; any bytes, not always UTF-8; 16 MiB at most.
    pub text: Bytes,
    /// Whether the text goes on in the next line of the same source: it was too long for one.
    pub partial: bool,
}

/// What a node delivers of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Which stream.
    pub stream: StreamId,
    /// Its next lines, in order; lines already stored may be among them.
    pub lines: Vec<Line>,
    /// The stream has ended with this line, as [`LogStore::finish`](super::LogStore::finish) would record;
    /// `None` when it goes on.
    pub end: Option<u64>,
}

impl From<(StreamId, Vec<Line>)> for Chunk {
    fn from((stream, lines): (StreamId, Vec<Line>)) -> Self {
        Self {
            stream,
            lines,
            end: None,
        }
    }
}

/// What a line is to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is what was asked for; all lines are where there is no filter.
    Match,
    /// It is near one that was.
    Context,
}

/// What a reader sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A stored line.
    Line {
        /// Attempt that wrote it.
        attempt: u32,
        /// Rank that wrote it.
        rank: u32,
        /// How grave it is; `None` where nothing tells, which filters take as [`Level::Info`].
        level: Option<Level>,
        /// What it is to the query.
        role: Role,
        /// In an answer to a filter: the line before it in its stream is not shown.
        apart: bool,
        /// The line.
        line: Line,
    },
    /// Lines that the node never delivered.
    Gap {
        /// Attempt of the missing lines.
        attempt: u32,
        /// Rank of the missing lines.
        rank: u32,
        /// First missing number.
        from: u64,
        /// Last missing number.
        to: u64,
        /// Latest time known before the gap, or that of the line after it where none is.
        at_ns: i64,
    },
    /// Lines that were stored once and have been dropped to keep the store within its bound.
    Removed {
        /// Attempt of the dropped lines.
        attempt: u32,
        /// Rank of the dropped lines.
        rank: u32,
        /// First dropped number that this reader has not seen.
        from: u64,
        /// Last dropped number.
        to: u64,
    },
}

/// How a store is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory for pages of the file, in bytes. Default 8 MiB.
    pub cache_bytes: usize,
    /// Bound on the stored blocks, in bytes; `None` (the default) is no bound.
    ///
    /// Over it, the oldest workloads whose streams have all ended lose their lines first; if there is none,
    /// the largest stream loses its oldest. Readers see [`Entry::Removed`]. The bound is kept in the
    /// background, so it can be passed for a moment; the file itself can be somewhat larger, and does not
    /// shrink: its room is used again.
    pub max_bytes: Option<u64>,
    /// Lines older than this are dropped, also those of streams that go on; `None` (the default) keeps them.
    ///
    /// By the node's time of the lines against this machine's clock, when the store is opened and then a few times
    /// within the age; whole blocks at a time, so a line may stay somewhat longer. Readers see [`Entry::Removed`].
    pub max_age: Option<Duration>,
    /// Streams whose state is kept in memory; others cost a read of the file. Default 65,536.
    pub cached_streams: usize,
    /// Small blocks of a stream that are merged, though they don't fill a large one. Default 64.
    pub merge_blocks: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 8 << 20,
            max_bytes: None,
            max_age: None,
            cached_streams: 65_536,
            merge_blocks: 64,
        }
    }
}

/// What to read of a workload's logs.
#[derive(Debug, Clone)]
pub struct Query {
    /// Go on after what this cursor has seen; `None` starts at the beginning.
    pub cursor: Option<Cursor>,
    /// Only the last so many entries (of what the other fields leave); `None` is all. With a filter the lines of
    /// context are not counted, and finding the place may take several pages without entries: their cursors know.
    pub tail: Option<u64>,
    /// Only entries from this time on (unix ns, inclusive).
    ///
    /// A stream's time never runs backwards here: a line counts with the latest time up to it. Streams that
    /// the cursor has met go on from there.
    pub since_ns: Option<i64>,
    /// Only entries up to this time (unix ns, inclusive), by the same clock.
    pub until_ns: Option<i64>,
    /// Only this attempt; `None` is all.
    pub attempt: Option<u32>,
    /// Only this rank; `None` is all.
    pub rank: Option<u32>,
    /// Only lines at least so grave; lines without a level count as [`Level::Info`]. Gaps are always shown.
    pub level: Option<Level>,
    /// Only lines with a match. A line that was delivered in pieces (`partial`) is searched piece by piece.
    pub search: Option<Search>,
    /// With a filter: lines before and after each match that are shown too, of the same stream and by number; context
    /// does not reach over gaps. 1000 at most.
    pub context: u32,
    /// Most entries in a page, at least 1. Default 10,000.
    pub limit: usize,
    /// A page ends once its texts reach so many bytes. Default 1 MiB.
    pub page_bytes: usize,
    /// With a filter: a page ends once so many bytes of text were searched, perhaps without an entry, so that nobody
    /// holds a thread for long; it looks into one block of each stream at least. Default 32 MiB.
    pub scan_bytes: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            cursor: None,
            tail: None,
            since_ns: None,
            until_ns: None,
            attempt: None,
            rank: None,
            level: None,
            search: None,
            context: 0,
            limit: 10_000,
            page_bytes: 1 << 20,
            scan_bytes: 32 << 20,
        }
    }
}

/// A piece of a workload's logs.
#[derive(Debug, Clone)]
pub struct Page {
    /// In order: by attempt, then time, then rank, then number. With a filter a page may be empty and yet
    /// not `complete`: see [`Query::scan_bytes`].
    pub entries: Vec<Entry>,
    /// Where the next page starts; stays valid across restarts of the store.
    pub cursor: Cursor,
    /// Nothing more is stored that the query asks for.
    pub complete: bool,
    /// `complete`, and every stream that the store knows of has ended. A new attempt may still follow:
    /// whether one will is known to the workload's record, not here. `false` while no stream is known.
    pub finished: bool,
}

/// One stream of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Which.
    pub id: StreamId,
    /// Lowest number still kept; `last + 1` when none is.
    pub first: u64,
    /// Highest number stored, 0 when there is none.
    pub last: u64,
    /// Lines kept, without gaps.
    pub lines: u64,
    /// Bytes of its stored blocks (compressed).
    pub bytes: u64,
    /// Whether the node said that the stream has ended.
    pub finished: bool,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Size of the file in bytes, free pages included.
    pub file_bytes: u64,
    /// Bytes of the stored blocks with their keys: what [`Options::max_bytes`] bounds.
    pub stored_bytes: u64,
    /// Streams known, those whose lines were dropped included.
    pub streams: u64,
    /// Lines kept.
    pub lines: u64,
}
