//! The log store: numbered lines of workloads, durable before they are acknowledged.
//!
//! A workload's output is a set of streams, one for each attempt and rank. The node numbers the lines of
//! a stream from 1; the store keeps every number once, marks the numbers that never came as a gap, and
//! merges the streams when it is read. How the parts fit:
//!
//! ```text
//! append, finish, remove ──> writer thread ──> one redb transaction, one fsync, for all who wait
//!                                 │  ▲
//!                small blocks left│  │merged blocks, logs to drop
//!                                 ▼  │
//!                              keeper thread (compaction, size bound; only reads)
//! read, follow ──> a redb snapshot; never wait for the writer
//! ```

mod block;
mod cursor;
mod engine;
mod error;
mod follow;
mod group;
mod keeper;
mod keys;
mod level;
mod read;
mod search;
mod select;
mod state;
mod store;
mod types;
mod words;
mod writer;

pub use cursor::{Cursor, CursorError};
pub use error::LogError;
pub use follow::Follow;
pub use level::{Detector, Level, LevelError};
pub use search::{Search, SearchError};
pub use store::LogStore;
pub use types::{Chunk, Entry, Line, Options, Page, Query, Role, Source, StreamId, StreamInfo, Usage};
