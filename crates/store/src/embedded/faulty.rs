//! A disk in memory that loses power, tears writes and fills up, when told and by seed.
//!
//! What has been written but not synced is kept aside. When power is lost, each 512-byte sector of
//! it survives or not by chance, independent of the order of writing; so does a change of length.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::disk::{Disk, span};

const SECTOR: usize = 512;
const BLOCK: u64 = 4096;

/// See the module. Clones are the same disk.
#[derive(Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What a reader sees.
    current: Vec<u8>,
    /// What a loss of power cannot take.
    synced: Vec<u8>,
    /// Places and lengths written since the last sync.
    unsynced: Vec<(usize, usize)>,
    /// Blocks that hold data; a hole takes no room.
    allocated: HashSet<u64>,
    /// `None`: endless.
    quota_bytes: Option<u64>,
    /// Operations left until the power goes; `None`: it stays.
    power_left: Option<u64>,
    /// Syncs that will fail.
    failing_syncs: u64,
    /// Whether it holds a whole store; until then a loss of power takes everything, as it takes a
    /// file that has no name yet.
    kept: bool,
    writes: u64,
    syncs: u64,
}

impl FaultyDisk {
    /// Empty, with power, endless.
    pub fn new() -> Self {
        FaultyDisk::default()
    }

    /// Lets the power go after so many more operations: everything then fails.
    pub fn lose_power_after(&self, operations: u64) {
        self.lock().power_left = Some(operations);
    }

    /// Whether the power has gone.
    pub fn is_dark(&self) -> bool {
        self.lock().power_left == Some(0)
    }

    /// Brings the power back. Of what was not synced, `seed` decides what is still there.
    pub fn restore_power(&self, seed: u64) {
        let mut chance = Chance(seed);
        let mut state = self.lock();
        if !state.kept {
            state.synced.clear();
            state.unsynced.clear();
        }
        let State {
            current,
            synced,
            unsynced,
            ..
        } = &mut *state;
        if !synced.is_empty() && chance.one_in(2) {
            synced.resize(current.len(), 0);
        }
        // Some losses take nearly everything, some nearly nothing.
        let odds = 1 + chance.next() % 8;
        let keep_most = chance.one_in(2);
        for (offset, len) in unsynced.drain(..) {
            let end = (offset + len).min(current.len()).min(synced.len());
            let mut at = offset;
            while at < end {
                let next = ((at / SECTOR + 1) * SECTOR).min(end);
                if chance.one_in(odds) != keep_most {
                    synced[at..next].copy_from_slice(&current[at..next]);
                }
                at = next;
            }
        }
        *current = synced.clone();
        state.power_left = None;
    }

    /// Limits the room for data; `None` lifts the limit. Room already taken stays taken.
    pub fn set_quota_bytes(&self, quota: Option<u64>) {
        self.lock().quota_bytes = quota;
    }

    /// Room that the data takes now, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.lock().allocated.len() as u64 * BLOCK
    }

    /// Makes the next so many syncs fail as Linux does it: nothing was synced, and yet what was
    /// written counts as clean, so that later syncs pass it over.
    pub fn fail_syncs(&self, count: u64) {
        self.lock().failing_syncs = count;
    }

    /// Writes and syncs done so far.
    pub fn operations(&self) -> (u64, u64) {
        let state = self.lock();
        (state.writes, state.syncs)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDisk").finish_non_exhaustive()
    }
}

impl State {
    fn spend_power(&mut self) -> io::Result<()> {
        match &mut self.power_left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.clone()))
    }

    fn keep(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.spend_power()?;
        state.kept = true;
        Ok(())
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        if state.power_left == Some(0) {
            return Err(io::Error::other("the power is gone"));
        }
        let span = span(offset, out.len(), state.current.len())?;
        out.copy_from_slice(&state.current[span]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.spend_power()?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::StorageFull)?;
        state.current.resize(len, 0);
        state.allocated.retain(|block| block * BLOCK < len as u64);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.spend_power()?;
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            state.unsynced.clear();
            return Err(io::Error::other("the disk reports a failed sync"));
        }
        state.syncs += 1;
        let State {
            current,
            synced,
            unsynced,
            ..
        } = &mut *state;
        synced.resize(current.len(), 0);
        for (offset, len) in unsynced.drain(..) {
            let end = (offset + len).min(current.len());
            if offset < end {
                synced[offset..end].copy_from_slice(&current[offset..end]);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.spend_power()?;
        let span = span(offset, data.len(), state.current.len())?;
        let blocks = offset / BLOCK..(offset + data.len() as u64).div_ceil(BLOCK);
        let new = blocks.filter(|block| !state.allocated.contains(block));
        let new: Vec<u64> = new.collect();
        let wanted = (state.allocated.len() + new.len()) as u64 * BLOCK;
        if !new.is_empty() && state.quota_bytes.is_some_and(|quota| wanted > quota) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.allocated.extend(new);
        state.unsynced.push((span.start, data.len()));
        state.current[span].copy_from_slice(data);
        state.writes += 1;
        Ok(())
    }
}

/// A small seeded source of chance (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.next().is_multiple_of(odds)
    }
}
