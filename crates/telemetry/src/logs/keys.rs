//! Tables and keys of the file.
//!
//! A workload gets a number when it is first seen, ever growing: the rows of new workloads then lie side by
//! side at the end of each tree, and the order of the numbers is the order of age.

use redb::TableDefinition;

/// Workload name to its number.
pub(super) const WORKLOADS: TableDefinition<'static, &str, u64> = TableDefinition::new("workloads");
/// [`StreamKey`] to the stream's state.
pub(super) const STREAMS: TableDefinition<'static, &[u8; 16], &[u8]> = TableDefinition::new("streams");
/// [`StreamKey`] and the first number of a block to the block.
pub(super) const BLOCKS: TableDefinition<'static, &[u8; 24], &[u8]> = TableDefinition::new("blocks");
/// One row, key 0: totals.
pub(super) const TOTALS: TableDefinition<'static, u8, &[u8]> = TableDefinition::new("totals");

/// (workload number, attempt, rank), big-endian, so that bytes sort as the numbers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StreamKey(pub(super) [u8; 16]);

impl StreamKey {
    pub(super) fn new(workload: u64, attempt: u32, rank: u32) -> Self {
        Self(((u128::from(workload) << 64) | (u128::from(attempt) << 32) | u128::from(rank)).to_be_bytes())
    }

    pub(super) fn workload(self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }

    pub(super) fn attempt(self) -> u32 {
        (u128::from_be_bytes(self.0) >> 32) as u32
    }

    pub(super) fn rank(self) -> u32 {
        u128::from_be_bytes(self.0) as u32
    }

    /// Key of the stream's block that starts at `first`.
    pub(super) fn block(self, first: u64) -> [u8; 24] {
        let mut key = [0; 24];
        key[..16].copy_from_slice(&self.0);
        key[16..].copy_from_slice(&first.to_be_bytes());
        key
    }
}

/// The first number of the block with this key.
pub(super) fn block_first(key: &[u8; 24]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key[16..]);
    u64::from_be_bytes(first)
}
