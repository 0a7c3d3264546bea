//! The embedded engine: one redb file, one writer.
//!
//! [`Db`] is the synchronous core: it runs batches of transactions, each batch in one durable
//! commit, and takes time as an argument. [`Embedded`] puts it on a thread of its own, which commits
//! whatever has queued up while the previous commit was on its way to the disk. Readers
//! ([`Reader`]) look at the newest committed snapshot and never wait for that thread; watchers read
//! a bounded history of changes that lives in memory.

mod codec;
mod db;
mod disk;
mod engine;
#[cfg(any(test, feature = "testing"))]
mod faulty;
mod history;
mod lease;
mod options;
mod queue;
mod reader;
mod staged;

pub use db::{Command, Db, Reply};
pub use disk::{Disk, FileDisk, MemoryDisk};
pub use engine::Embedded;
#[cfg(any(test, feature = "testing"))]
pub use faulty::FaultyDisk;
pub use options::Options;
pub use reader::Reader;
