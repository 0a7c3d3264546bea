//! What can be set.

use crate::Limits;

/// Settings of the embedded engine. All sizes in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// How large requests may be.
    pub limits: Limits,
    /// Memory for cached pages of the file. Default 16 MiB: the gateway's whole budget is 130 MB,
    /// and the system caches the file besides.
    pub cache_bytes: usize,
    /// Changes kept for watchers. Default 65,536.
    pub history_changes: usize,
    /// Memory for changes kept for watchers. Default 16 MiB: about a second of the busiest fleet, and
    /// watchers in this process are rarely a millisecond behind. The newest transaction is kept
    /// however large it is.
    pub history_bytes: usize,
    /// Transactions that may share one commit. Default 1,024.
    pub batch_txns: usize,
    /// Bytes of keys and values that may share one commit; a single larger transaction has one to
    /// itself. Default 4 MiB, so that a commit fits into the cache's half for dirty pages.
    pub batch_bytes: usize,
    /// Bytes of transactions that may wait for the writer; callers beyond wait their turn. Default
    /// 32 MiB.
    pub queue_bytes: usize,
    /// Commit in two phases and with the file's free-page map, so that opening after a crash need
    /// not read the whole file. Default off: it doubles the `fsync`s and the CPU time of a small
    /// commit, and saves about 0.1 s of the opening per 100,000 records. Acknowledged commits
    /// survive a loss of power either way.
    pub quick_repair: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            limits: Limits::default(),
            cache_bytes: 16 << 20,
            history_changes: 1 << 16,
            history_bytes: 16 << 20,
            batch_txns: 1 << 10,
            batch_bytes: 4 << 20,
            queue_bytes: 32 << 20,
            quick_repair: false,
        }
    }
}
