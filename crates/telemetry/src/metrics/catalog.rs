//! What is durable besides the samples: which files count, and who the series are. A small redb.
//!
//! Series stand 256 to a row, packed together: their labels are nearly the same.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::MetricError;
use super::index::Index;
use super::plan::Meta;
use crate::varint;

/// [`row_of`] a series to the names and labels of those in it.
const SERIES: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("series");
/// [`row_of`] a series to the newest sample in files of those in it.
const LASTS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("lasts");
/// File number to its description.
const FILES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("files");
/// [`WAL_FROM`] and [`NEXT_FILE`].
const NUMBERS: TableDefinition<'static, u8, u64> = TableDefinition::new("numbers");

/// Logs before this are in files.
const WAL_FROM: u8 = 0;
/// Numbers from here on were never given to a file.
const NEXT_FILE: u8 = 1;

/// Series of a row.
const ROW: u32 = 256;
/// Unpacked bytes of a row at most: 256 series of 16 KiB.
const ROW_BYTES_MAX: usize = 5 << 20;
/// Pages that redb keeps in memory; the catalogue is read once and written rarely.
const CACHE_BYTES: usize = 2 << 20;

/// The row that holds a series.
pub(super) fn row_of(series: u32) -> u32 {
    series / ROW
}

/// One step of the store, done whole or not at all.
#[derive(Default)]
pub(super) struct Change {
    pub(super) add: Vec<Meta>,
    pub(super) remove: Vec<u64>,
    pub(super) wal_from: Option<u64>,
    pub(super) next_file: Option<u64>,
    /// By row, from [`series_row`]; an empty one goes.
    pub(super) series: Vec<(u32, Vec<u8>)>,
    /// By row, from [`lasts_row`].
    pub(super) lasts: Vec<(u32, Vec<u8>)>,
}

/// What a store starts from.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) index: Index,
    /// (series, newest sample in files).
    pub(super) lasts: Vec<(u32, i64)>,
    pub(super) files: Vec<Meta>,
    pub(super) wal_from: u64,
    pub(super) next_file: u64,
}

pub(super) struct Catalog {
    path: PathBuf,
    /// redb refuses every call after an IO error until the file is opened again: then the slot is empty.
    slot: Mutex<Option<Database>>,
}

impl Catalog {
    /// Opens `catalog.redb` in `dir`; fails when another process holds it.
    pub(super) fn open(dir: &Path) -> Result<Self, MetricError> {
        let path = dir.join("catalog.redb");
        let database = open(&path).map_err(|error| MetricError::Open {
            path: path.clone(),
            detail: error.to_string(),
        })?;
        Ok(Self {
            path,
            slot: Mutex::new(Some(database)),
        })
    }

    fn with<T>(&self, f: impl FnOnce(&Database) -> Result<T, MetricError>) -> Result<T, MetricError> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match &mut *slot {
            Some(database) => database,
            None => slot.insert(open(&self.path)?),
        };
        let outcome = f(database);
        if outcome.is_err() {
            *slot = None;
        }
        outcome
    }

    pub(super) fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    pub(super) fn load(&self) -> Result<Loaded, MetricError> {
        self.with(|database| {
            let txn = database.begin_read()?;
            let mut loaded = Loaded::default();
            for row in txn.open_table(SERIES)?.iter()? {
                let (row, packed) = row?;
                load_series(row.value(), packed.value(), &mut loaded.index)?;
            }
            for row in txn.open_table(LASTS)?.iter()? {
                let (row, raw) = row?;
                let mut input = raw.value();
                let (mut series, mut last_ms) = (row.value() * ROW, 0i64);
                while !input.is_empty() {
                    series = series.wrapping_add(varint::take(&mut input)? as u32);
                    last_ms = last_ms.wrapping_add(varint::take_signed(&mut input)?);
                    loaded.lasts.push((series, last_ms));
                }
            }
            for row in txn.open_table(FILES)?.iter()? {
                let (file, raw) = row?;
                loaded.files.push(Meta::decode(file.value(), raw.value())?);
            }
            let numbers = txn.open_table(NUMBERS)?;
            loaded.wal_from = numbers.get(WAL_FROM)?.map_or(0, |number| number.value());
            loaded.next_file = numbers.get(NEXT_FILE)?.map_or(0, |number| number.value());
            Ok(loaded)
        })
    }

    /// Makes a change durable.
    pub(super) fn commit(&self, change: &Change) -> Result<(), MetricError> {
        self.with(|database| {
            let txn = database.begin_write()?;
            {
                let mut files = txn.open_table(FILES)?;
                for file in &change.remove {
                    files.remove(file)?;
                }
                for meta in &change.add {
                    files.insert(meta.file, meta.encode().as_slice())?;
                }
                let mut numbers = txn.open_table(NUMBERS)?;
                for (key, number) in [(WAL_FROM, change.wal_from), (NEXT_FILE, change.next_file)] {
                    if let Some(number) = number {
                        numbers.insert(key, number)?;
                    }
                }
                let mut series = txn.open_table(SERIES)?;
                for (row, packed) in &change.series {
                    if packed.is_empty() {
                        series.remove(row)?;
                    } else {
                        series.insert(row, packed.as_slice())?;
                    }
                }
                let mut lasts = txn.open_table(LASTS)?;
                for (row, raw) in &change.lasts {
                    lasts.insert(row, raw.as_slice())?;
                }
            }
            txn.commit()?;
            Ok(())
        })
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn open(path: &Path) -> Result<Database, MetricError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let database = redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(FileBackend::new(file)?)?;
    // Only a new file needs its tables made.
    if database.begin_read()?.open_table(NUMBERS).is_err() {
        let txn = database.begin_write()?;
        txn.open_table(SERIES)?;
        txn.open_table(LASTS)?;
        txn.open_table(FILES)?;
        txn.open_table(NUMBERS)?;
        txn.commit()?;
    }
    Ok(database)
}

/// A row's series, as they are now; empty when it has none.
pub(super) fn series_row(row: u32, index: &Index) -> Result<Vec<u8>, MetricError> {
    let mut raw = Vec::new();
    for offset in 0..ROW {
        let Some((name, labels)) = index.parts(row * ROW + offset) else {
            continue;
        };
        raw.push(offset as u8);
        varint::put_bytes(&mut raw, name.as_bytes());
        let labels: Vec<_> = labels.collect();
        varint::put(&mut raw, labels.len() as u64);
        for (label, value) in labels {
            varint::put_bytes(&mut raw, label.as_bytes());
            varint::put_bytes(&mut raw, value.as_bytes());
        }
    }
    if raw.is_empty() {
        return Ok(raw);
    }
    Ok(zstd::bulk::compress(&raw, 3)?)
}

fn load_series(row: u32, packed: &[u8], index: &mut Index) -> Result<(), MetricError> {
    let raw = zstd::bulk::decompress(packed, ROW_BYTES_MAX)?;
    let text = |raw| std::str::from_utf8(raw).map_err(|_| MetricError::Corrupt("text that is not UTF-8"));
    let mut input = raw.as_slice();
    let input = &mut input;
    while !input.is_empty() {
        let offset = u32::from(varint::take_slice(input, 1)?[0]);
        let name = text(varint::take_bytes(input)?)?;
        let mut labels = Vec::new();
        for _ in 0..varint::take(input)? {
            labels.push((text(varint::take_bytes(input)?)?, text(varint::take_bytes(input)?)?));
        }
        if index.add(Some(row * ROW + offset), name, &labels).is_none() {
            return Err(MetricError::Corrupt("a series that stands twice"));
        }
    }
    Ok(())
}

/// A row of newest samples; `lasts` is by series, `i64::MIN` where there is none.
pub(super) fn lasts_row(row: u32, lasts: &[i64]) -> Vec<u8> {
    let start = row * ROW;
    let (mut out, mut before, mut last_ms) = (Vec::new(), start, 0i64);
    for series in start..start + ROW {
        let Some(&last) = lasts.get(series as usize).filter(|&&last| last != i64::MIN) else {
            continue;
        };
        varint::put(&mut out, u64::from(series - before));
        varint::put_signed(&mut out, last.wrapping_sub(last_ms));
        (before, last_ms) = (series, last);
    }
    out
}
